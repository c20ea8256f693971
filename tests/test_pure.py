"""weft in Python alone (weft._pure): it has the surface of the extension, and what its own foundations promise.

That it keeps the laws is for the other tests to say: `WEFT_PURE=1 pytest`, or any run on PyPy.
"""

import ast
import asyncio
import gc
import inspect
import sys
import threading
from pathlib import Path

import pytest
import weft
import weft._pure as pure
from weft._pure import transaction
from weft._pure.transaction import transact
from worlds import LIMIT

STUB = ast.parse(Path(weft.__file__).with_name("_weft.pyi").read_text())


# Processes in a loop are asyncio's own tasks, and there are no other places.
NOT_HERE = ["Task", "_interpreter", "_listen", "_leave"]
NOT_HERE += ["_check_crossing", "_share", "_add_peer", "_disconnect", "_given_up", "_connect", "_leave_root"]


def declared():
    """What the stub declares: (path of names, node) of each function and method."""
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef) and node.name not in NOT_HERE:
            yield (node.name,), node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name not in NOT_HERE:
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    yield (node.name, member.name), member


def test_everything_the_stub_declares_is_there_with_its_words():
    for path, node in declared():
        thing = pure
        for name in path:
            thing = inspect.getattr_static(thing, name)
        if words := ast.get_docstring(node):
            assert getattr(thing, "__func__", thing).__doc__ == words, path


def test_what_can_be_called_takes_what_the_stub_says():
    seen = set()
    for path, node in declared():
        thing = pure
        for name in path:
            thing = getattr(thing, name)
        if not callable(thing) or path in seen or path[-1] in ("select", "__new__", "__class_getitem__"):
            continue
        seen.add(path)
        wanted = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        if path[-1].endswith("exit__"):
            continue  # it looks at none of the three
        got = [
            name
            for name, parameter in inspect.signature(thing).parameters.items()
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        assert got == [name for name in wanted if name not in ("self", "cls")] or got == wanted, path
    assert len(seen) > 50


def test_it_is_chosen_by_the_environment(python):
    program = """
        import os, sys
        os.environ["WEFT_PURE"] = "1"
        import weft, weft._pure
        assert weft.Channel is weft._pure.Channel
        ch = weft.Channel(1)
        ch.send(1).wait()
        print(weft.select(ch.recv()).wait())
    """
    assert python(program) == "Selected(case=0, value=1)\n"


# --- the steps of an operation, for those who write a scheduler -------------------------------------------------------


class Sleeper:
    """Counts how often it is woken."""

    def __init__(self):
        self.woken = 0

    def wake(self):
        self.woken += 1


def test_what_can_be_done_at_once_is_decided_by_its_beginning():
    ch = pure.Channel(1)
    op = ch.send("v")
    assert op._begin() and op._take() is None
    with pytest.raises(RuntimeError):
        op._begin()
    op = ch.recv()
    assert op._begin() and op._take() == "v"


def test_a_parked_operation_is_woken_once_from_any_thread_and_has_its_result():
    ch, sleeper = pure.Channel(), Sleeper()
    op = pure.select(ch.recv(), ch.recv(), pure.never())
    assert not op._begin() and not op._park(sleeper.wake)
    thread = threading.Thread(target=lambda: ch.send_nowait("v"))
    thread.start()
    thread.join()
    assert sleeper.woken == 1
    assert not op._withdraw(), "the commit wins"
    assert op._resume() and op._take() == (0, "v")
    assert ch.statistics().parked_receivers == 0


def test_parking_may_find_that_it_is_decided():
    ch, sleeper = pure.Channel(1), Sleeper()
    op = ch.recv()
    assert not op._begin()
    ch.send_nowait("v")
    assert op._park(sleeper.wake)
    assert op._take() == "v" and sleeper.woken == 0


def test_what_is_withdrawn_has_done_nothing():
    ch, sleeper = pure.Channel(), Sleeper()
    op = ch.send("v")
    assert not op._begin() and not op._park(sleeper.wake)
    assert op._withdraw() and not op._withdraw()
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    assert sleeper.woken == 0


def test_what_nobody_takes_goes_back_to_the_front():
    ch, sleeper = pure.Channel(2), Sleeper()
    op = ch.recv()
    assert not op._begin() and not op._park(sleeper.wake)
    ch.send_nowait("first")
    ch.send_nowait("second")
    op._undo()
    op._undo()
    assert [ch.recv_nowait(), ch.recv_nowait()] == ["first", "second"]
    s = ch.statistics()
    assert s.sent == s.received == 2


def test_a_clock_and_a_descriptor_are_for_the_scheduler_to_watch():
    ch, sleeper = pure.Channel(), Sleeper()
    op = pure.select(ch.recv(), pure.after(60), pure.after(30), pure.readable(0))
    if op._begin():
        return  # somebody has written to our standard input
    seconds, case = op._timer()
    assert 29 < seconds <= 30 and case == 2
    assert op._descriptors() == [(0, False, 3)]
    assert not op._park(sleeper.wake)
    assert op._fire(case) and not op._fire(3)
    assert op._take().case == 2 and sleeper.woken == 1
    assert ch.statistics().parked_receivers == 0


def test_a_round_of_selecting_may_wait_again():
    a, b, sleeper = pure.Channel(), pure.Channel(), Sleeper()
    events = pure.selecting(a=a, b=b)
    op = anext(events)
    assert not op._begin() and not op._park(sleeper.wake)
    a.close()  # leaves quietly
    assert sleeper.woken == 1 and not op._resume()
    b.send_nowait("v")
    assert sleeper.woken == 2 and op._resume()
    assert op._take() == ("b", "v")


# --- loops that are closed, callbacks that fail ------------------------------------------------------------------------


def parked_in_a_closed_loop(make):
    """The task that performs `make()`, in a loop that was closed. Kept: else it would be destroyed, and withdrawn."""

    async def performing():
        await make()

    loop = asyncio.new_event_loop()
    task = loop.create_task(performing())
    task._log_destroy_pending = False
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    return task


@pytest.mark.parametrize("how", ["send", "select", "send_many", "select in a select"])
@pytest.mark.parametrize("receive", ["nowait", "wait", "select", "recv_many", "iteration", "selecting"])
def test_what_was_to_be_sent_in_a_closed_loop_is_received_by_whoever_comes_next(how, receive):
    ch = pure.Channel()
    make = {
        "send": lambda: ch.send("v"),
        "select": lambda: pure.select(pure.never(), ch.send("v"), pure.Channel().send("never")),
        "send_many": lambda: ch.send_many(["v", "stays"]),
        "select in a select": lambda: pure.select(pure.select(ch.send("v"))),
    }[how]
    kept = parked_in_a_closed_loop(make)
    assert ch.statistics().parked_senders == 1
    got = {
        "nowait": ch.recv_nowait,
        "wait": lambda: ch.recv().wait(LIMIT),
        "select": lambda: pure.select(ch.recv()).wait(LIMIT).value,
        "recv_many": lambda: ch.recv_many(2).wait(LIMIT)[0],
        "iteration": lambda: anext(ch).wait(LIMIT),
        "selecting": lambda: anext(pure.selecting(ch)).wait(LIMIT).value,
    }[receive]()
    assert got == "v"
    del kept
    gc.collect()
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    s = ch.statistics()
    assert (s.sent, s.received, s.buffered, s.parked_senders) == (1, 1, 0, 0)


def test_what_waits_in_a_closed_loop_for_room_comes_in_its_turn():
    ch = pure.Channel(1)
    ch.send_nowait("first")
    kept = [parked_in_a_closed_loop(lambda: ch.send("second")), parked_in_a_closed_loop(lambda: ch.send("third"))]
    assert [ch.recv_nowait() for _ in kept] == ["first", "second"]
    ch.close()
    assert list(ch) == ["third"]
    del kept


@pytest.mark.parametrize("how", ["poison", "last receiver", "overflow"])
@pytest.mark.parametrize("hook", ["its own", "the program's", "a broken one"])
def test_an_on_undelivered_that_raises_is_reported_and_the_rest_is_handed_over(monkeypatch, capsys, how, hook):
    handed, reported = [], []

    def fail(value):
        handed.append(value)
        raise ZeroDivisionError(value)

    def broken(unraisable):
        raise KeyError("of the hook itself")

    hooks = {"its own": sys.__unraisablehook__, "the program's": reported.append, "a broken one": broken}
    monkeypatch.setattr(sys, "unraisablehook", hooks[hook])
    if how == "overflow":
        ch = pure.Channel(1, overflow="drop_oldest", on_undelivered=fail)
        for value in (1, 2, 3):
            ch.send_nowait(value)
        assert ch.recv_nowait() == 3
    else:
        ch = pure.Channel(2, on_undelivered=fail)
        rx = ch.receiver()
        ch.send_nowait(1)
        ch.send_nowait(2)
        ch.poison() if how == "poison" else rx.close()
    assert handed == [1, 2] and ch.statistics().dropped == 2
    if hook == "the program's":
        assert [(each.exc_type, each.exc_value.args, each.object) for each in reported] == [
            (ZeroDivisionError, (1,), fail),
            (ZeroDivisionError, (2,), fail),
        ]
        assert all(each.exc_traceback is not None and not each.err_msg for each in reported)
    else:
        assert capsys.readouterr().err.count("\nZeroDivisionError: ") == 2


# --- transactions -----------------------------------------------------------------------------------------------------


class Thing:
    __slots__ = ("one", "other")

    def __init__(self):
        self.one = self.other = 0


def test_a_plan_that_was_overtaken_is_made_anew():
    """As by a signal handler in its middle: both happen, one after the other, and no plan sees half of the other."""
    thing, plans = Thing(), []

    def both(tx, amount):
        tx.add(thing, "one", amount)
        tx.add(thing, "other", amount)

    def interrupted(tx):
        plans.append((tx.get(thing, "one"), thing.one))
        if len(plans) == 1:
            transact(both, 10)
        assert tx.get(thing, "one") == tx.get(thing, "other")
        both(tx, 1)

    transact(interrupted)
    assert plans == [(0, 0), (10, 10)]
    assert (thing.one, thing.other) == (11, 11)


def test_a_plan_that_raises_has_done_nothing():
    thing = Thing()

    def fails(tx):
        tx.set(thing, "one", 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transact(fails)
    assert thing.one == 0


def test_a_wake_that_was_interrupted_is_done_all_the_same():
    calls = []

    def wake():
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    thing = Thing()

    def plan(tx):
        tx.set(thing, "one", 1)
        tx.ring(wake, lambda: None)

    with pytest.raises(KeyboardInterrupt):
        transact(plan)
    assert thing.one == 1 and len(calls) == 2
    transaction.ring()
    assert len(calls) == 2


def test_threads_that_commit_at_the_same_time_all_do():
    thing = Thing()

    def both(tx):
        tx.add(thing, "one", 1)
        tx.add(thing, "other", 2)

    threads = [threading.Thread(target=lambda: [transact(both) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (thing.one, thing.other) == (2000, 4000)
