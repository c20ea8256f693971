"""Context variables: what a child inherits is in test_group.py; here, what a value carries."""

import contextvars

import weft
from worlds import collect

request = contextvars.ContextVar("request", default="none")


def test_a_value_carries_the_context_of_its_sender(pair):
    here, there = pair
    ch = weft.Channel()

    def sends():
        for name in ("first", "second"):
            request.set(name)
            yield ch.send(weft.carry(name.upper()))
        request.set("later")

    def receives():
        request.set("the receiver's")
        got = []
        for _ in range(2):
            value, context = yield ch.recv()
            got.append((value, context.run(request.get), request.get()))
        return got

    rx = there.start(receives)
    here.start(sends).join()
    assert rx.join() == [("FIRST", "first", "the receiver's"), ("SECOND", "second", "the receiver's")]


def test_each_carried_value_has_a_context_of_its_own():
    request.set("outside")
    one, other = weft.carry(1), weft.carry(2)
    one.context.run(request.set, "changed")
    assert (one.context[request], other.context[request], request.get()) == ("changed", "outside", "outside")
    one.context.run(other.context.run, request.get)  # one does not bar the other


def test_a_child_runs_in_the_context_of_a_value():
    ch = weft.Channel(1)
    contextvars.copy_context().run(lambda: (request.set("of the value"), ch.send_nowait(weft.carry("v"))))
    assert request.get() != "of the value"
    job = ch.recv_nowait()
    with weft.Group() as group:
        process = group.spawn(lambda value: (value, request.get()), job.value, context=job.context)
    assert process.result() == ("v", "of the value")


def test_a_carried_value_says_what_it_is():
    carried = weft.carry("v")
    assert isinstance(carried, weft.Carried)
    assert carried.value == "v" and isinstance(carried.context, contextvars.Context)
    assert repr(carried).startswith("Carried(value='v', context=")


def test_a_carried_value_that_is_dropped_drops_its_context():
    class Marked:
        gone = False

        def __del__(self):
            Marked.gone = True

    ch = weft.Channel(1)

    def sends():
        request.set(Marked())
        ch.send_nowait(weft.carry("v"))

    contextvars.copy_context().run(sends)
    collect()
    assert not Marked.gone
    ch.poison()
    collect()
    assert Marked.gone
