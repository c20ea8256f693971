"""weft in Python alone (weft._pure): it has the surface of the extension, and what its own foundations promise.

That it keeps the laws is for the other tests to say: `WEFT_PURE=1 pytest`, or any run on PyPy.
"""

import ast
import inspect
import threading
from pathlib import Path

import pytest
import weft
import weft._pure as pure
from weft._pure import transaction
from weft._pure.transaction import transact

STUB = ast.parse(Path(weft.__file__).with_name("_weft.pyi").read_text())


def declared():
    """What the stub declares: (path of names, node) of each function and method."""
    for node in STUB.body:
        if isinstance(node, ast.FunctionDef):
            yield (node.name,), node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
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
