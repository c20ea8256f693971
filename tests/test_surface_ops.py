"""The surface of an operation: nothing happens until it is performed, once."""

import asyncio
import gc
import os
import sys
import threading
import time
import warnings
from contextlib import suppress

import pytest
import weft
from worlds import GroupThreads, Threads, Within, collect, parked, perform, take_turns, until, until_parked


def test_nothing_happens_until_it_is_performed():
    ch = weft.Channel(4)
    send, recv = ch.send("v"), ch.recv()
    assert len(ch) == 0 and ch.statistics().sent == 0
    send.wait()
    assert len(ch) == 1
    recv.wait()
    assert len(ch) == 0


def test_every_call_that_could_wait_returns_an_op():
    ch = weft.Channel(4)
    tx, rx = ch.split()
    ops = [ch.send(1), ch.recv(), ch.send_many([1]), ch.recv_many(2), tx.send(1), rx.recv(), tx.send_many([1])]
    ops += [
        rx.recv_many(2),
        weft.select(ch.recv()),
        weft.after(1),
        weft.at(1),
        weft.sleep(1),
        weft.always(1),
        weft.never(),
    ]
    ops += [weft.Barrier(2).sync(), weft.Event().wait(), weft.readable(0), weft.writable(1)]
    assert {type(op) for op in ops} == {weft.Op} or all(isinstance(op, weft.Op) for op in ops)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        del ops
        gc.collect()


@pytest.mark.parametrize("first", ["wait", "await", "failed", "timed out", "in a select"])
def test_performing_it_again_raises_runtime_error(run, first):
    ch = weft.Channel(4)
    ch.send_nowait("one")
    ch.send_nowait("two")
    ended = weft.Channel()
    ended.close()
    op = {"timed out": weft.Channel, "failed": lambda: ended}.get(first, lambda: ch)().recv()

    async def perform():
        return await op

    if first == "wait":
        assert op.wait() == "one"
    elif first == "await":
        assert run(perform) == "one"
    elif first == "in a select":
        assert weft.select(op).wait() == (0, "one")
    elif first == "timed out":
        with pytest.raises(TimeoutError):
            op.wait(0)
    else:
        with pytest.raises(weft.Closed):
            op.wait()
    left = len(ch)
    with pytest.raises(RuntimeError):
        op.wait()
    with pytest.raises(RuntimeError):
        run(perform)
    with pytest.raises((RuntimeError, ValueError)):
        weft.select(op).wait()
    assert len(ch) == left


def test_an_op_that_is_parked_cannot_be_performed_by_another(world):
    ch = weft.Channel()
    op = ch.recv()
    party = world.start(perform, op)
    until_parked(ch, receivers=1)
    with pytest.raises(RuntimeError):
        op.wait(0)
    assert parked(ch) == (0, 1)
    ch.send_nowait("v")
    assert party.join() == "v"


# --- the warning ----------------------------------------------------------------------------------------------------


def test_an_op_dropped_unperformed_warns_once_at_the_line_that_made_it():
    ch = weft.Channel(name="orders")
    for make in (
        lambda: ch.send("v"),
        lambda: ch.recv(),
        lambda: ch.recv_many(3),
        lambda: weft.select(ch.recv(), weft.never()),
        lambda: weft.after(1),
        lambda: weft.Event().wait(),
    ):
        with pytest.warns(RuntimeWarning) as caught:
            make()
            gc.collect()
        assert len(caught) == 1, [str(w.message) for w in caught]
        assert caught[0].filename == __file__ and caught[0].lineno == make.__code__.co_firstlineno


def test_an_op_that_was_performed_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ch = weft.Channel(1)
        ch.send(1).wait()
        ch.recv().wait()
        with pytest.raises(TimeoutError):
            ch.recv().wait(0)
        weft.select(ch.send(1), ch.recv()).wait()
        weft.select(ch.send(1), default=None).wait()
        gc.collect()


def test_a_select_dropped_unperformed_warns_for_itself_and_not_for_its_cases():
    ch = weft.Channel()
    with pytest.warns(RuntimeWarning) as caught:
        weft.select(ch.recv(), ch.send(1))
        gc.collect()
    assert len(caught) == 1


def test_the_warning_names_the_channel_and_the_remedy():
    ch = weft.Channel(name="orders")
    with pytest.warns(RuntimeWarning) as caught:
        ch.send("v")
        gc.collect()
    text = str(caught[0].message)
    assert "never" in text or "not performed" in text
    assert "await" in text


# --- wait -----------------------------------------------------------------------------------------------------------


def test_wait_gives_the_result():
    ch = weft.Channel(1)
    assert ch.send("v").wait() is None
    assert ch.recv().wait() == "v"


def test_wait_zero_is_now_or_timeout_error():
    ch = weft.Channel(1)
    ch.send("v").wait(0)
    with pytest.raises(TimeoutError):
        ch.send("w").wait(0)
    assert ch.recv().wait(0) == "v"
    with pytest.raises(TimeoutError):
        ch.recv().wait(0)


def test_wait_takes_its_timeout_in_seconds_as_keyword_too():
    ch = weft.Channel()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        ch.recv().wait(timeout=0.05)
    assert 0.05 <= time.monotonic() - start < 5
    with pytest.raises(TimeoutError):
        ch.recv().wait(0.001)


def test_wait_none_is_for_ever(world):
    ch = weft.Channel()
    got = []
    thread = threading.Thread(target=lambda: got.append(ch.recv().wait(None)))
    thread.start()
    until_parked(ch, receivers=1)
    world.start(perform, ch.send("v")).join()
    thread.join(10)
    assert got == ["v"]


@pytest.mark.parametrize("timeout", [20, 20.5, 10**6, float("inf"), sys.float_info.max, 2**63, 1e300])
def test_wait_takes_long_timeouts(timeout):
    ch = weft.Channel(1)
    ch.send_nowait("v")
    assert ch.recv().wait(timeout) == "v"
    got = []
    thread = threading.Thread(target=lambda: got.append(ch.recv().wait(timeout)))
    thread.start()
    until_parked(ch, receivers=1)
    ch.send_nowait("parked")
    thread.join(10)
    assert got == ["parked"]


def test_the_timeout_is_the_builtin_timeout_error_and_says_which_channel():
    ch = weft.Channel(name="orders")
    with pytest.raises(TimeoutError, match="orders") as caught:
        ch.recv().wait(0)
    assert type(caught.value) is TimeoutError


def test_await_outside_any_scheduler_raises_and_loses_nothing():
    ch = weft.Channel()
    tx_value = object()

    async def receive():
        return await ch.recv()

    async def send():
        return await ch.send(tx_value)

    for coroutine in (receive(), send()):
        with pytest.raises(RuntimeError, match="scheduler"):
            coroutine.send(None)
    assert parked(ch) == (0, 0) and ch.statistics().sent == 0


def test_an_op_that_completes_at_once_needs_no_scheduler():
    ch = weft.Channel(1)

    async def main():
        await ch.send("v")
        case, value = await weft.select(ch.recv(), weft.never())
        return case, value

    with pytest.raises(StopIteration) as caught:
        main().send(None)
    assert caught.value.value == (0, "v")


def test_ops_that_complete_at_once_go_on_without_a_turn_of_the_loop(run):
    """But for L13: after a millisecond of them, one hands the loop back."""
    ch = weft.Channel(100)
    turns = 0

    async def main():
        nonlocal turns

        def count():
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(count)

        asyncio.get_running_loop().call_soon(count)
        for _ in range(20):
            for n in range(100):
                await ch.send(n)
            for _ in range(100):
                await ch.recv()

    run(main)
    assert turns < 100, f"{turns} turns for 4000 operations"


def test_an_op_can_be_awaited_directly_and_through_its_iterator(run):
    async def main():
        ch = weft.Channel(1)
        await ch.send("v")

        class Wrapper:
            def __await__(self):
                return ch.recv().__await__()

        return await Wrapper()

    assert run(main) == "v"


def test_an_op_is_an_awaitable_of_collections_abc():
    from collections.abc import Awaitable

    op = weft.always(1)
    assert isinstance(op, Awaitable)
    op.wait()


def test_an_op_keeps_what_it_was_made_from_alive():
    ch = weft.Channel(4)
    ch.sender().send("v").wait()  # the end lives as long as its operation
    collect()
    assert ch.closed and ch.recv_nowait() == "v"
    op = weft.Channel(1).send("v")
    gc.collect()
    op.wait()


# --- map ------------------------------------------------------------------------------------------------------------


def test_map_applies_a_function_to_the_result(world):
    ch = weft.Channel(4)
    ch.send_nowait(20)
    assert world.start(perform, ch.recv().map(lambda v: v + 1)).join() == 21
    assert world.start(perform, ch.send(5).map(lambda v: ("sent", v))).join() == ("sent", None)
    party = world.start(perform, ch.recv().map(str))
    assert party.join() == "5"
    party = world.start(perform, ch.recv().map(str))
    until_parked(ch, receivers=1)
    ch.send_nowait(6)
    assert party.join() == "6"


def test_map_returns_the_same_operation():
    ch = weft.Channel(1)
    op = ch.send(1)
    assert op.map(str) is op
    op.wait()


def test_maps_are_applied_in_the_order_they_were_added():
    ch = weft.Channel(1)
    ch.send_nowait(3)
    assert ch.recv().map(lambda v: v + 1).map(lambda v: v * 10).map(str).wait() == "40"


def test_a_map_is_applied_by_the_one_who_performs(pair):
    here, there = pair
    ch = weft.Channel()
    idents = []
    rx = there.start(perform, ch.recv().map(lambda v: idents.append(threading.get_ident())))
    until_parked(ch, receivers=1)
    here.start(perform, ch.send("v")).join()
    rx.join()

    def who():
        return threading.get_ident()
        yield

    if isinstance(there, Threads | GroupThreads):
        assert idents != [threading.get_ident()]
    else:
        assert idents == [there.start(who).join()]


def test_a_map_in_a_select_applies_only_to_the_chosen_case():
    a, b = weft.Channel(1), weft.Channel(1)
    called = []
    b.send_nowait(2)
    op = weft.select(a.recv().map(lambda v: called.append("a")), b.recv().map(lambda v: v * 100))
    assert op.wait() == (1, 200) and called == []


def test_a_map_on_a_select_gets_the_selected():
    ch = weft.Channel(1)
    ch.send_nowait("v")
    assert weft.select(x=ch.recv()).map(lambda selected: selected.case + selected.value).wait() == "xv"


def test_a_map_that_raises_raises_where_it_is_performed_and_the_operation_has_happened(world):
    ch = weft.Channel(1)
    ch.send_nowait(0)
    party = world.start(perform, ch.recv().map(lambda v: 1 // v))
    assert isinstance(party.failure(), ZeroDivisionError)
    assert len(ch) == 0 and ch.statistics().received == 1


@pytest.mark.parametrize("stop", [StopIteration("v"), StopAsyncIteration("v")])
@pytest.mark.parametrize("where", ["map", "second map", "case", "select", "inner select", "parked"])
def test_a_map_that_raises_what_ends_an_iteration_does_not_end_who_performs(world, stop, where):
    """PEP 479: `next(iter([]))` in a map would become the result of the `await`."""
    ch = weft.Channel(2)

    def fail(_):
        raise stop

    op = {
        "map": lambda: ch.recv().map(fail),
        "second map": lambda: ch.recv().map(str).map(fail).map(str),
        "case": lambda: weft.select(weft.never(), ch.recv().map(fail)),
        "select": lambda: weft.select(ch.recv()).map(fail),
        "inner select": lambda: weft.select(weft.select(ch.recv().map(fail))),
        "parked": lambda: ch.recv().map(fail),
    }[where]()
    if where == "parked":
        party = world.start(perform, op)
        until_parked(ch, receivers=1)
        ch.send_nowait("taken")
    else:
        ch.send_nowait("taken")
        party = world.start(perform, op)
    error = party.failure()
    assert type(error) is RuntimeError and str(error) == f"a function given to map() raised {type(stop).__name__}"
    assert error.__cause__ is stop
    assert len(ch) == 0 and ch.statistics().received == 1


def test_a_map_is_not_applied_to_an_error():
    ch = weft.Channel()
    ch.close()
    called = []
    with pytest.raises(weft.Closed):
        ch.recv().map(called.append).wait()
    assert called == []


# --- small operations -----------------------------------------------------------------------------------------------


def test_always_is_always_ready(world):
    assert weft.always("v").wait(0) == "v"
    assert world.start(perform, weft.always(None)).join() is None
    assert weft.select(weft.never(), weft.always("v")).wait() == (1, "v")


def test_never_is_never_ready(world):
    with pytest.raises(TimeoutError):
        weft.never().wait(0)
    with pytest.raises(TimeoutError):
        world.start(perform, Within(weft.never(), 0.005)).join()
    assert weft.select(weft.never(), default="d").wait() == ("default", "d")


# --- barrier --------------------------------------------------------------------------------------------------------


def test_a_barrier_lets_nobody_through_before_all_are_there(pair):
    here, there = pair
    barrier = weft.Barrier(3)
    first, second = here.start(perform, barrier.sync()), there.start(perform, barrier.sync())
    take_turns()
    assert not first.done and not second.done
    third = here.start(perform, barrier.sync())
    for party in (first, second, third):
        party.join()


def test_a_barrier_of_one_is_no_barrier():
    weft.Barrier(1).sync().wait(0)


def test_a_barrier_can_be_used_again(pair):
    here, there = pair
    barrier, log = weft.Barrier(2), []

    def rounds(name):
        for n in range(20):
            log.append(n)
            yield barrier.sync()

    a, b = here.start(rounds, "a"), there.start(rounds, "b")
    a.join()
    b.join()
    assert all(abs(x - y) <= 1 for x, y in zip(log, sorted(log), strict=True))


def test_one_who_gives_up_at_a_barrier_does_not_count(world):
    barrier = weft.Barrier(2)
    with pytest.raises(TimeoutError):
        barrier.sync().wait(0)
    party = world.start(perform, Within(barrier.sync(), 0.005))
    assert isinstance(party.failure(), TimeoutError)
    parties = [world.start(perform, barrier.sync()) for _ in range(2)]
    for party in parties:
        party.join()


def test_a_barrier_can_stand_in_a_select(world):
    barrier, ch = weft.Barrier(2), weft.Channel()
    chooser = world.start(perform, weft.select(ch.recv(), barrier=barrier.sync()))
    until_parked(ch, receivers=1)
    world.start(perform, barrier.sync()).join()
    assert chooser.join().case == "barrier"
    assert parked(ch) == (0, 0)


def test_a_select_that_chose_another_case_has_left_the_barrier(world):
    barrier, ch = weft.Barrier(2), weft.Channel()
    chooser = world.start(perform, weft.select(ch.recv(), barrier=barrier.sync()))
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert chooser.join() == (0, "v")
    with pytest.raises(TimeoutError):
        barrier.sync().wait(0)


# --- event ----------------------------------------------------------------------------------------------------------


def test_an_event_lets_everybody_wait_until_it_is_set(pair):
    here, there = pair
    event = weft.Event()
    assert not event.is_set()
    parties = [world.start(perform, event.wait()) for world in (here, there, here, there)]
    take_turns()
    assert not any(party.done for party in parties)
    event.set()
    assert event.is_set()
    assert [party.join() for party in parties] == [True] * 4
    assert here.start(perform, event.wait()).join() is True


def test_an_event_can_be_set_again_and_cleared():
    event = weft.Event()
    event.set()
    event.set()
    event.wait().wait(0)
    event.clear()
    event.clear()
    assert not event.is_set()
    with pytest.raises(TimeoutError):
        event.wait().wait(0)
    event.set()
    assert event.wait().wait(0) is True


def test_an_event_can_stand_in_a_select(world):
    event, ch = weft.Event(), weft.Channel()
    party = world.start(perform, weft.select(ch.recv(), stop=event.wait()))
    until_parked(ch, receivers=1)
    event.set()
    assert party.join() == ("stop", True)
    assert parked(ch) == (0, 0)


# --- files ----------------------------------------------------------------------------------------------------------


def fill(w):
    with suppress(BlockingIOError):
        while True:
            os.write(w, b"x" * 65536)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are not sockets")
class TestFiles:
    def test_readable_completes_when_there_is_something_to_read(self, world, pipe):
        r, w = pipe
        ch = weft.Channel()
        party = world.start(perform, weft.select(ch.recv(), weft.readable(r)))
        until_parked(ch, receivers=1)
        os.write(w, b"x")
        assert party.join() == (1, r)
        assert parked(ch) == (0, 0)
        assert os.read(r, 1) == b"x"

    def test_readable_by_itself(self, world, pipe):
        r, w = pipe
        os.write(w, b"x")
        assert world.start(perform, weft.readable(r)).join() == r

    def test_writable_completes_when_there_is_room(self, world, pipe):
        r, w = pipe
        assert world.start(perform, weft.writable(w)).join() == w
        fill(w)
        ch = weft.Channel()
        party = world.start(perform, weft.select(ch.recv(), room=weft.writable(w)))
        until_parked(ch, receivers=1)
        with suppress(BlockingIOError):
            while os.read(r, 65536):
                pass
        assert party.join() == ("room", w)

    def test_the_result_is_the_object_as_given(self, world):
        import socket

        a, b = socket.socketpair()
        try:
            b.send(b"x")
            assert world.start(perform, weft.readable(a)).join() is a
            assert world.start(perform, weft.writable(a)).join() is a
        finally:
            a.close()
            b.close()

    def test_a_file_that_is_not_ready_times_out(self, world, pipe):
        r, w = pipe
        with pytest.raises(TimeoutError):
            weft.readable(r).wait(0)
        party = world.start(perform, Within(weft.readable(r), 0.01))
        assert isinstance(party.failure(), TimeoutError)
        os.write(w, b"x")
        assert world.start(perform, weft.readable(r)).join() == r  # nothing of the first is left behind

    def test_a_channel_beats_a_silent_file(self, world, pipe):
        r, w = pipe
        ch = weft.Channel()
        party = world.start(perform, weft.select(weft.readable(r), ch.recv()))
        until_parked(ch, receivers=1)
        ch.send_nowait("v")
        assert party.join() == (1, "v")
        os.write(w, b"x")
        assert world.start(perform, weft.readable(r)).join() == r

    def test_two_may_wait_for_one_file(self, world, pipe):
        r, w = pipe
        a, b = weft.Channel(), weft.Channel()
        parties = [world.start(perform, weft.select(weft.readable(r), ch.recv())) for ch in (a, b)]
        until(lambda: parked(a) == parked(b) == (0, 1))
        os.write(w, b"x")
        assert [party.join() for party in parties] == [(0, r)] * 2

    def test_reading_and_writing_may_wait_for_one_socket(self, world):
        import socket

        a, b = socket.socketpair()
        try:
            party = world.start(perform, weft.select(r=weft.readable(a), w=weft.writable(a)))
            assert party.join() == ("w", a)
            b.send(b"x")
            seen = {
                world.start(perform, weft.select(r=weft.readable(a), w=weft.writable(a))).join().case for _ in range(60)
            }
            assert seen == {"r", "w"} or world.loop is not None  # a loop tells of files in its own order
        finally:
            a.close()
            b.close()

    def test_a_hangup_is_readable(self, world):
        r, w = os.pipe()
        try:
            ch = weft.Channel()
            party = world.start(perform, weft.select(ch.recv(), weft.readable(r)))
            until_parked(ch, receivers=1)
            os.close(w)
            assert party.join() == (1, r)
        finally:
            os.close(r)

    def test_a_file_with_a_default_does_not_wait(self, pipe):
        r, w = pipe
        assert weft.select(weft.readable(r), default="d").wait() == ("default", "d")
        os.write(w, b"x")
        assert weft.select(weft.readable(r), default="d").wait() == (0, r)


def test_what_is_no_channel_shows_what_it_is():
    barrier, ticks, event = weft.Barrier(3), weft.tick(0.5), weft.Event()
    here = f"{os.path.basename(__file__)}:{sys._getframe().f_lineno - 1}"
    assert repr(barrier) == f"<weft.Barrier 0 of 3 waiting, made at {here}>"
    assert repr(event) == f"<weft.Event not set, made at {here}>"
    assert repr(ticks) == "<weft.Tick every 0.5 s>"
    ticks.close()
    assert repr(ticks) == "<weft.Tick every 0.5 s, closed>"
    assert repr(weft.selecting(weft.Channel())) == "<weft.Selecting over 1 channel>"
    assert repr(weft.selecting(weft.Channel(), weft.Channel())) == "<weft.Selecting over 2 channels>"


def test_who_waits_for_an_event_or_a_process_is_told_so():
    event = weft.Event()
    here = f"{os.path.basename(__file__)}:{sys._getframe().f_lineno - 1}"
    with pytest.raises(TimeoutError, match=f"wait for event made at {here}"):
        event.wait().wait(0)
    with weft.Group() as group:
        process = group.spawn(lambda: event.wait().wait(), name="sleeper")
        with pytest.raises(TimeoutError, match="wait for process 'sleeper'"):
            process.join().wait(0)
        event.set()
