"""Bad input: an error of the right type that says what to do, at the call that is wrong, and nothing is lost."""

import contextvars
import gc
import math
import os
import time
import weakref

import pytest
import weft
from worlds import collect, parked

# Most operations here are refused before they could be performed. That they warn of it is tested in test_surface_ops.py.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def collected():
    """What a refused call left behind in a reference cycle (errors make them) does not warn in somebody else's test."""
    yield
    gc.collect()


def refused(kind, call, *words):
    """`call()` raises exactly this kind of error; its text has each of the words."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert text, "an error without a word"
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return caught.value


@pytest.fixture
def holding():
    """A channel with one value, which must still be there, alone, in the end."""
    ch = weft.Channel(4)
    ch.send_nowait("kept")
    yield ch
    assert parked(ch) == (0, 0)
    assert len(ch) == 1 and ch.recv_nowait() == "kept"
    s = ch.statistics()
    assert (s.sent, s.received, s.dropped) == (1, 1, 0)


# --- Channel(...) ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [True, False, 1.0, 0.5, math.nan, "1", b"1", [], object(), 1j])
def test_a_capacity_that_is_no_int(capacity):
    refused(TypeError, lambda: weft.Channel(capacity), "capacity")


@pytest.mark.parametrize("capacity", [-1, -(10**30)])
def test_a_negative_capacity(capacity):
    refused(ValueError, lambda: weft.Channel(capacity), "capacity")


def test_none_is_no_capacity_and_the_error_names_unbounded():
    refused(TypeError, lambda: weft.Channel(None), "unbounded")


@pytest.mark.parametrize("capacity", [2**64, 10**30])
def test_a_capacity_beyond_the_machine(capacity):
    """Refused or taken as what it amounts to; never wrapped around to something small."""
    try:
        ch = weft.Channel(capacity)
    except (OverflowError, ValueError) as error:
        assert str(error)
    else:
        for n in range(100):
            ch.send_nowait(n)
        assert len(ch) == 100


@pytest.mark.parametrize("capacity", [2**31, 2**62])
def test_a_large_capacity_takes_no_memory_in_advance(capacity):
    ch = weft.Channel(capacity)
    ch.send_nowait("v")
    assert ch.capacity == capacity and ch.recv_nowait() == "v"


@pytest.mark.parametrize("overflow", ["", "drop", "BLOCK", "drop-oldest", "drop_oldest "])
def test_an_unknown_overflow_policy_lists_those_that_exist(overflow):
    refused(ValueError, lambda: weft.Channel(1, overflow=overflow), "block", "drop_oldest", "drop_newest", "error")


@pytest.mark.parametrize("overflow", [None, 1, b"block", ["block"]])
def test_an_overflow_policy_that_is_no_string(overflow):
    refused((TypeError, ValueError), lambda: weft.Channel(1, overflow=overflow), "overflow")


def test_drop_oldest_without_a_buffer():
    refused(ValueError, lambda: weft.Channel(0, overflow="drop_oldest"), "drop_oldest", "capacity")
    refused(ValueError, lambda: weft.Channel(overflow="drop_oldest"), "drop_oldest")


@pytest.mark.parametrize("callback", [1, "print", object()])
def test_an_on_undelivered_that_cannot_be_called(callback):
    refused(TypeError, lambda: weft.Channel(1, on_undelivered=callback), "on_undelivered")


@pytest.mark.parametrize("name", [1, b"orders", ["orders"]])
def test_a_name_that_is_no_string(name):
    refused(TypeError, lambda: weft.Channel(name=name), "name")


def test_arguments_a_channel_does_not_have():
    refused(TypeError, lambda: weft.Channel(1, maxsize=2), "maxsize")
    refused(TypeError, lambda: weft.Channel(1, 2, 3, 4, 5))
    refused(TypeError, lambda: weft.Channel.unbounded(5))
    refused(TypeError, lambda: weft.Channel(1, capacity=1))


def test_classes_that_are_made_by_others_only():
    for cls in (weft.Op, weft.Sender, weft.Receiver):
        refused(TypeError, cls)


def test_ends_of_something_that_is_no_channel():
    refused(TypeError, lambda: weft.Channel.sender("not a channel"))


# --- operations -----------------------------------------------------------------------------------------------------


def test_send_without_or_with_too_many_values(holding):
    refused(TypeError, lambda: holding.send())
    refused(TypeError, lambda: holding.send(1, 2))
    refused(TypeError, lambda: holding.send_nowait())
    refused(TypeError, lambda: holding.recv(1))
    refused(TypeError, lambda: holding.recv_nowait(timeout=1))


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan])
def test_a_negative_or_nan_timeout(holding, timeout):
    refused(ValueError, lambda: holding.recv().wait(timeout), "timeout")
    refused(ValueError, lambda: weft.select(holding.recv()).wait(timeout), "timeout")


@pytest.mark.parametrize("timeout", ["1", b"1", [], object(), 1j])
def test_a_timeout_that_is_no_number(holding, timeout):
    refused(TypeError, lambda: holding.recv().wait(timeout), "timeout")


@pytest.mark.parametrize("maximum", [0, -1])
def test_recv_many_of_none(holding, maximum):
    refused(ValueError, lambda: holding.recv_many(maximum), "1")


@pytest.mark.parametrize("maximum", [None, 1.0, "1", True, object()])
def test_recv_many_of_no_int(holding, maximum):
    refused(TypeError, lambda: holding.recv_many(maximum))


def test_send_many_of_nothing(holding):
    for values in ([], (), "", range(0)):
        refused(ValueError, lambda: holding.send_many(values), "one")  # noqa: B023


@pytest.mark.parametrize("values", [None, 1, object()])
def test_send_many_of_no_sequence(holding, values):
    refused(TypeError, lambda: holding.send_many(values))


def test_send_many_of_an_iterator_that_fails_sends_nothing(holding):
    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, n):
            if n == 2:
                raise ZeroDivisionError
            return n

    with pytest.raises((ZeroDivisionError, TypeError)):
        holding.send_many(Broken()).wait()


@pytest.mark.parametrize("function", [None, 1, "str"])
def test_map_with_something_that_cannot_be_called(holding, function):
    refused(TypeError, lambda: holding.recv().map(function), "call")


def test_a_channel_and_its_ends_cannot_be_awaited(run, holding):
    async def main(thing):
        await thing

    for thing in (holding, *weft.Channel().split()):
        with pytest.raises(TypeError, match=rf"\b{type(thing).__name__}\b.*await"):
            run(main, thing)


def test_an_op_is_not_true_false_iterable_or_comparable_by_accident(holding):
    op = holding.recv()
    with pytest.raises(TypeError):
        list(op)
    with pytest.raises(TypeError):
        len(op)
    with pytest.raises(TypeError):
        _ = op < op


def test_sending_on_a_closed_end(holding):
    keep, tx = holding.sender(), holding.sender()
    tx.close()
    value = object()
    for call in (lambda: tx.send_nowait(value), lambda: tx.send(value).wait(), weft.select(tx.send(value)).wait):
        assert refused(weft.Closed, call, "closed").value is value
    assert refused(weft.Closed, tx.send_many([value]).wait).value == [value]
    assert holding.statistics().senders == 1
    keep.close()


def test_awaiting_outside_any_scheduler():
    ch = weft.Channel()

    async def perform(op):
        await op

    for op in (ch.recv(), ch.send("v"), weft.select(ch.recv(), ch.send("v"))):
        refused(RuntimeError, lambda: perform(op).send(None), "scheduler", "wait()")  # noqa: B023
    assert parked(ch) == (0, 0) and ch.statistics().sent == 0


def test_waiting_on_a_thread_that_runs_a_loop(run):
    ch = weft.Channel()

    async def main():
        for op in (ch.recv(), ch.send("v"), weft.select(ch.recv(), ch.send("v"))):
            refused(weft.BlockingInLoopError, op.wait, "await")

    run(main)
    assert parked(ch) == (0, 0) and ch.statistics().sent == 0


# --- close, poison --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["text", 1, object(), int])
def test_a_cause_that_is_no_exception(holding, error):
    refused(TypeError, lambda: holding.close(error), "exception")
    refused(TypeError, lambda: holding.poison(error), "exception")
    tx = holding.sender()
    refused(TypeError, lambda: tx.close(error), "exception")
    assert not holding.closed
    assert holding.statistics().senders == 1


# --- select ---------------------------------------------------------------------------------------------------------


def test_a_select_of_nothing(holding):
    refused(ValueError, lambda: weft.select())
    refused(ValueError, lambda: weft.select(policy="priority"))


@pytest.mark.parametrize("case", [1, "op", object(), lambda: None, weft.Channel(), weft.select])
def test_a_case_that_is_no_operation_names_its_position(holding, case):
    refused(TypeError, lambda: weft.select(holding.recv(), case), "1")
    refused(TypeError, lambda: weft.select(holding.recv(), mine=case), "mine")


def test_a_channel_as_a_case_is_told_about_recv(holding):
    refused(TypeError, lambda: weft.select(holding), "recv")
    refused(TypeError, lambda: weft.select(x=weft.Channel().receiver()), "recv")


def test_a_coroutine_as_a_case(holding):
    async def coroutine():
        pass

    made = coroutine()
    refused(TypeError, lambda: weft.select(made), "0")
    made.close()


def test_a_refused_select_leaves_its_good_cases_usable(holding):
    op = weft.Channel(1).send("v")
    refused(TypeError, lambda: weft.select(op, "nonsense"))
    assert op.wait(0) is None


@pytest.mark.parametrize("policy", ["", "Random", "fair", None, 1])
def test_an_unknown_policy_lists_those_that_exist(holding, policy):
    refused((ValueError, TypeError), lambda: weft.select(holding.recv(), policy=policy), "random", "priority")


def test_an_op_that_belongs_to_a_select_already(holding):
    op = holding.recv()
    select = weft.select(op, weft.never())
    refused(ValueError, lambda: weft.select(op), "select")
    refused(RuntimeError, lambda: op.wait(0), "select")
    del select


def test_one_op_twice_in_a_select(holding):
    op = holding.recv()
    refused(ValueError, lambda: weft.select(op, op))


def test_an_op_that_was_performed_already(holding):
    op = weft.always(1)
    op.wait()
    refused((RuntimeError, ValueError), lambda: weft.select(holding.recv(), op))
    refused(RuntimeError, op.wait, "once")


def test_a_default_inside(holding):
    refused(ValueError, lambda: weft.select(weft.select(holding.recv(), default=1)), "default")


# --- selecting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [1, "channel", object(), None, []])
def test_selecting_over_something_that_is_no_channel(holding, source):
    refused(TypeError, lambda: weft.selecting(holding, source), "1")
    refused(TypeError, lambda: weft.selecting(holding, mine=source), "mine")


def test_selecting_over_an_operation_is_told_to_give_the_channel(holding):
    refused(TypeError, lambda: weft.selecting(holding.recv()))


def test_selecting_over_a_sender(holding):
    tx = weft.Channel().sender()
    refused(TypeError, lambda: weft.selecting(tx))


def test_selecting_adds_no_case_twice_and_discards_what_is_not_there(holding):
    events = weft.selecting(mine=holding)
    refused(ValueError, lambda: events.add("mine", weft.Channel()), "mine")
    refused(TypeError, lambda: events.add([], weft.Channel()))
    events.discard("stranger")


# --- time -----------------------------------------------------------------------------------------------------------


def test_a_delay_that_is_not_a_number():
    refused(ValueError, lambda: weft.after(math.nan))
    refused(ValueError, lambda: weft.sleep(math.nan))


@pytest.mark.parametrize("seconds", [-1, -0.5, 0])
def test_a_delay_that_is_negative_counts_as_none(seconds):
    assert weft.after(seconds).wait(0) <= time.monotonic()


def test_a_time_that_is_nan():
    refused(ValueError, lambda: weft.at(math.nan))


@pytest.mark.parametrize("seconds", [None, "1", [], object(), 1j])
def test_a_delay_that_is_no_number(seconds):
    refused(TypeError, lambda: weft.after(seconds))
    refused(TypeError, lambda: weft.at(seconds))
    refused(TypeError, lambda: weft.sleep(seconds))
    refused(TypeError, lambda: weft.tick(seconds))


@pytest.mark.parametrize("period", [0, -1, math.nan])
def test_a_period_that_is_not_positive(period):
    refused(ValueError, lambda: weft.tick(period))


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 10**30])
def test_a_delay_without_end_just_waits(seconds):
    with pytest.raises(TimeoutError):
        weft.after(seconds).wait(0.001)
    with pytest.raises(TimeoutError):
        weft.at(seconds).wait(0)


# --- barrier, event, files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [0, -1])
def test_a_barrier_for_nobody(parties):
    refused(ValueError, lambda: weft.Barrier(parties))


@pytest.mark.parametrize("parties", [None, 1.0, "2", True])
def test_a_barrier_for_no_number(parties):
    refused(TypeError, lambda: weft.Barrier(parties))


@pytest.mark.parametrize("file", [None, "file", 1.5, object(), []])
def test_a_file_that_is_none(file):
    refused(TypeError, lambda: weft.readable(file), "fileno")
    refused(TypeError, lambda: weft.writable(file), "fileno")


def test_a_negative_file_descriptor():
    refused(ValueError, lambda: weft.readable(-1))
    refused(ValueError, lambda: weft.writable(-1))


def test_a_closed_file_object():
    with open(os.devnull) as file:
        pass
    refused(ValueError, lambda: weft.readable(file))


def test_a_closed_descriptor_fails_when_performed_and_does_not_hang():
    r, w = os.pipe()
    os.close(w)
    os.close(r)
    refused((OSError, ValueError), lambda: weft.readable(r).wait(5))


# --- group, run -----------------------------------------------------------------------------------------------------


def test_spawning_what_cannot_be_called():
    with weft.Group() as group:
        refused(TypeError, lambda: group.spawn(1))
        refused(TypeError, lambda: group.spawn(None))


def test_spawning_a_coroutine_object_is_told_to_give_the_function(run):
    async def child():
        pass

    async def main():
        async with weft.Group() as group:
            coroutine = child()
            refused(TypeError, lambda: group.spawn(coroutine), "coroutine")
            coroutine.close()

    run(main)


def test_spawning_on_an_unknown_place_lists_those_that_exist():
    with weft.Group() as group:
        refused(ValueError, lambda: group.spawn(print, on="moon"), "task", "thread")


@pytest.mark.parametrize("context", [3, "c", {}, contextvars.ContextVar("v")])
def test_a_context_that_is_none(context):
    ran = []
    with weft.Group() as group:
        for on in (None, "thread"):
            refused(TypeError, lambda on=on: group.spawn(ran.append, 1, on=on, context=context), "context", "Context")
    assert ran == []


@pytest.mark.parametrize("name", [3, b"workers", ["workers"], object])
def test_a_name_of_a_group_that_is_no_str(name):
    refused(TypeError, lambda: weft.Group(name), "name", "str")
    refused(TypeError, lambda: weft.Group(name=name), "name", "str")


def test_spawning_into_a_group_that_has_ended():
    with weft.Group() as group:
        pass
    refused(RuntimeError, lambda: group.spawn(print))


def test_running_what_is_no_async_function():
    async def main():
        return 1

    refused(TypeError, lambda: weft.run(print))
    coroutine = main()
    refused(TypeError, lambda: weft.run(coroutine))
    coroutine.close()
    refused(ValueError, lambda: weft.run(main, backend="twisted"), "asyncio", "trio")
    assert weft.run(main) == 1


# --- nothing is lost on the way -------------------------------------------------------------------------------------


def test_a_refused_value_is_not_kept_alive():
    class Value:
        pass

    def attempt():
        value = Value()
        refused(ValueError, lambda: weft.Channel(1).send(value).wait(-1))
        refused(TypeError, lambda: weft.select(weft.Channel(1).send(value), "nonsense"))
        refused(ValueError, lambda: weft.Channel(1, overflow=value and "nonsense"))
        return weakref.ref(value)

    alive = attempt()
    collect()
    assert alive() is None


def test_a_sequence_of_bad_calls_leaves_the_channel_as_it_was(holding):
    for call in (
        lambda: holding.send_many([]),
        lambda: holding.recv_many(0),
        lambda: holding.close("text"),
        lambda: holding.poison(1),
        lambda: weft.select(holding),
        lambda: weft.select(),
        lambda: weft.selecting(holding, 1),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
