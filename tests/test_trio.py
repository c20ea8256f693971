"""What is special to trio: one test a promise. The laws themselves are tested in trio's worlds by test_laws.py and others,
and what groups promise there as in asyncio by test_group.py.

Nothing here waits for time to pass: `wait_all_tasks_blocked` says when everybody is parked, and deadlines are kept by
trio's virtual clock, which jumps there as soon as nobody has anything to do.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import sys
import threading
import time
import weakref

import pytest
import weft
from children import Boom, Witness, double, fail, fail_in_thread, park, triple, wait_for_ever
from worlds import LIMIT, needs, until
from worlds import run_in_trio as run

trio = pytest.importorskip("trio")
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked  # noqa: E402

# --- helpers --------------------------------------------------------------------------------------------------------


def run_virtual(main, *args):
    """Run it in trio with a clock that jumps to the next deadline when there is nothing else to do. It begins at 0."""
    return trio.run(main, *args, clock=MockClock(autojump_threshold=0))


async def others_turn():
    """Until every other task is parked."""
    await wait_all_tasks_blocked()


def interrupt():
    """Press Ctrl-C where trio takes it up for the main task, soon."""

    async def press():
        signal.raise_signal(signal.SIGINT)

    trio.lowlevel.spawn_system_task(press)


async def performed(op):
    return await op


async def outcome_of(log, op):
    """Append the operation's result to the log, or the class of its error."""
    try:
        log.append(await op)
    except BaseException as error:
        log.append(type(error))
        raise


# --- every operation is a checkpoint --------------------------------------------------------------------------------


def full(*values):
    ch = weft.Channel(max(len(values), 4))
    for value in values:
        ch.send_nowait(value)
    return ch


def closed():
    ch = weft.Channel()
    ch.close()
    return ch


def set_event():
    event = weft.Event()
    event.set()
    return event


# What is ready at once, and its result.
READY = {
    "recv": (lambda: full("v").recv(), "v"),
    "send": (lambda: full().send("v"), None),
    "recv_many": (lambda: full(1, 2).recv_many(5), [1, 2]),
    "send_many": (lambda: full().send_many([1, 2]), 2),
    "receiver": (lambda: full("v").receiver().recv(), "v"),
    "anext": (lambda: anext(full("v")), "v"),
    "select": (lambda: weft.select(weft.never(), full("v").recv()), (1, "v")),
    "select of a default": (lambda: weft.select(weft.never(), default="d"), ("default", "d")),
    "selecting": (lambda: anext(weft.selecting(a=full("v"))), ("a", "v")),
    "always": (lambda: weft.always("v"), "v"),
    "map": (lambda: weft.always(2).map(str), "2"),
    "at": (lambda: weft.at(1.0), 1.0),
    "event": (lambda: set_event().wait(), True),
    "barrier": (lambda: weft.Barrier(1).sync(), 0),
    "writable": (lambda: weft.writable(sys.__stdout__.fileno()), sys.__stdout__.fileno()),
    "leaving a channel's block": (lambda: weft.Channel().__aexit__(None, None, None), False),
    "recv of what is closed": (lambda: closed().recv(), weft.Closed),
    "send to what is closed": (lambda: closed().send(1), weft.Closed),
}


async def take(op, result):
    if isinstance(result, type):
        with pytest.raises(result):
            await op
    else:
        assert await op == result


@pytest.mark.parametrize("name", READY)
def test_an_operation_that_is_ready_at_once_is_a_checkpoint(name):
    make, result = READY[name]

    async def main():
        with assert_checkpoints():
            await take(make(), result)

    run(main)


@pytest.mark.parametrize("name", READY)
def test_an_operation_that_is_ready_at_once_gives_others_a_turn(name):
    make, result = READY[name]

    async def main():
        async with trio.open_nursery() as nursery:
            turns = []

            async def other():
                turns.append(1)

            nursery.start_soon(other)
            await take(make(), result)
            await take(make(), result)  # trio shuffles the tasks of one turn
            assert turns == [1]

    run(main)


@pytest.mark.parametrize("name", READY)
def test_an_operation_that_is_ready_at_once_is_cancelled_before_it_is_tried(name):
    make, result = READY[name]

    async def main():
        log = []
        with trio.CancelScope() as scope:
            scope.cancel()
            await outcome_of(log, make())
        assert log == [trio.Cancelled] and scope.cancelled_caught

    run(main)


def test_a_cancelled_task_takes_and_gives_nothing():
    async def main():
        there, room, nobody = full("v"), weft.Channel(1), weft.Channel()
        event, barrier = weft.Event(), weft.Barrier(2)
        for make in (
            there.recv,
            lambda: there.recv_many(5),
            lambda: room.send(1),
            lambda: room.send_many([1, 2]),
            nobody.recv,
            lambda: nobody.send(1),
            lambda: weft.select(room.send(1), there.recv()),
            lambda: anext(weft.selecting(there)),
            event.wait,
            barrier.sync,
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await make()
            assert scope.cancelled_caught
        assert (len(there), len(room), barrier.waiting) == (1, 0, 0)
        assert [ch.statistics().parked_senders + ch.statistics().parked_receivers for ch in (there, room, nobody)] == [
            0,
            0,
            0,
        ]

    run(main)


@pytest.mark.parametrize("make", [lambda ch: ch, lambda ch: weft.selecting(ch), lambda ch: ch.receiver()])
def test_async_for_over_what_is_there_gives_others_a_turn_for_each_value(make):
    async def main():
        ch, log = weft.Channel(5), []
        source = make(ch)
        for n in range(5):
            ch.send_nowait(n)
        ch.close()

        async def other():
            for _ in range(5):
                log.append("other")
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            async for _ in source:
                log.append("value")
        # trio shuffles the tasks of one turn, so in each turn either may be first.
        assert [sorted(log[n : n + 2]) for n in range(0, 10, 2)] == [["other", "value"]] * 5

    run(main)


def test_async_for_over_what_is_there_can_be_cancelled():
    async def main():
        ch, got = full(*range(10)), []
        with trio.CancelScope() as scope:
            async for value in ch:
                got.append(value)
                if value == 3:
                    scope.cancel()
        assert scope.cancelled_caught and got == [0, 1, 2, 3] and len(ch) == 6

    run(main)


def test_join_of_a_process_that_has_ended_is_a_checkpoint():
    async def main():
        async with weft.Group() as group:
            process = group.spawn(double, 2)
            await process.join()
            with assert_checkpoints():
                assert await process.join() == 4

    run(main)


def test_an_operation_that_waits_is_a_checkpoint_without_a_second_turn():
    async def main():
        ch = weft.Channel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(performed, ch.send("v"))
            with assert_checkpoints():
                assert await ch.recv() == "v"

    run(main)


# --- cancel scopes and deadlines ------------------------------------------------------------------------------------


# What waits for ever, and what lets it complete (called in another task of the run).
def waiting_recv():
    ch = weft.Channel()
    return ch.recv(), lambda: ch.send_nowait("v"), "v"


def waiting_send():
    ch = weft.Channel()
    return ch.send("v"), ch.recv_nowait, None


def waiting_select():
    a, b = weft.Channel(), weft.Channel()
    return weft.select(a.recv(), b.send(1)), b.recv_nowait, (1, None)


def waiting_select_with_a_timer():
    ch = weft.Channel()
    return weft.select(weft.after(1e6), ch.recv()), lambda: ch.send_nowait("v"), (1, "v")


def waiting_select_with_a_descriptor():
    ch, (read, write) = weft.Channel(), os.pipe()

    class Pipe:
        def fileno(self):
            return read

        def __del__(self):
            os.close(read)
            os.close(write)

    return weft.select(weft.readable(Pipe()), ch.send(1), weft.after(1e6)), ch.recv_nowait, (1, None)


def waiting_selecting():
    ch = weft.Channel()
    return anext(weft.selecting(weft.Channel(), ch)), lambda: ch.send_nowait("v"), (1, "v")


def waiting_event():
    event = weft.Event()
    return event.wait(), event.set, True


def waiting_barrier():
    barrier = weft.Barrier(2)
    return barrier.sync(), lambda: barrier.sync().wait(), 0


WAITING = [
    waiting_recv,
    waiting_send,
    waiting_select,
    waiting_select_with_a_timer,
    waiting_select_with_a_descriptor,
    waiting_selecting,
    waiting_event,
    waiting_barrier,
]


def in_a_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(LIMIT)


@pytest.mark.parametrize("make", WAITING)
def test_move_on_after_ends_a_wait_at_its_deadline_exactly(make):
    async def main():
        log = []
        op, complete, _ = make()
        with trio.move_on_after(5) as scope:
            await outcome_of(log, op)
        assert scope.cancelled_caught and log == [trio.Cancelled]
        assert trio.current_time() == 5
        if make is not waiting_event:  # which anybody may set
            with pytest.raises((weft.WouldBlock, weft.BlockingInLoopError)):
                complete()  # nobody is there any more

    run_virtual(main)


def test_fail_after_raises_its_own_error():
    async def main():
        ch = weft.Channel()
        with pytest.raises(trio.TooSlowError), trio.fail_after(5):
            await ch.recv()
        assert trio.current_time() == 5
        with pytest.raises(weft.WouldBlock):
            ch.send_nowait(1)

    run_virtual(main)


def test_a_deadline_that_is_met_in_time_cancels_nothing():
    async def main():
        ch = weft.Channel()

        async def sender():
            await trio.sleep(4)
            await ch.send("v")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender)
            with trio.fail_after(5) as scope:
                assert await ch.recv() == "v"
            assert not scope.cancelled_caught and trio.current_time() == 4

    run_virtual(main)


def test_a_deadline_that_is_moved_while_an_operation_waits_is_kept():
    async def main():
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(5) as scope:

                async def mover():
                    await trio.sleep(3)
                    scope.deadline = 8

                nursery.start_soon(mover)
                await weft.never()
            assert trio.current_time() == 8

    run_virtual(main)


@pytest.mark.parametrize("make", WAITING)
def test_a_shielded_wait_goes_on_in_a_cancelled_scope(make):
    async def main():
        op, complete, result = make()
        log = []

        async def waiter():
            with trio.CancelScope() as outer:
                outer.cancel()
                with trio.CancelScope(shield=True):
                    log.append(await op)
                await trio.lowlevel.checkpoint()
                log.append("not reached")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await others_turn()
            assert not log
            in_a_thread(complete)
        assert log == [result]

    run(main)


@pytest.mark.parametrize("order", ["commit first", "cancel first"])
@pytest.mark.parametrize("make", WAITING)
def test_the_commit_wins_and_the_cancellation_comes_at_the_next_checkpoint(make, order):
    async def main():
        op, complete, result = make()
        log = []
        scope = trio.CancelScope()

        async def waiter():
            with scope:
                await outcome_of(log, op)
                log.append("still here")
                await outcome_of(log, weft.always(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await others_turn()
            if order == "commit first":
                in_a_thread(complete)
                scope.cancel()
            else:
                scope.cancel()
                if make is not waiting_event and make is not waiting_barrier:
                    with pytest.raises(weft.WouldBlock):
                        complete()
        assert log == ([result, "still here", trio.Cancelled] if order == "commit first" else [trio.Cancelled])
        assert scope.cancelled_caught

    run(main)


def test_a_cancellation_in_the_turn_in_which_a_ready_operation_completes_comes_after_it():
    async def main():
        ch, log = full("v"), []
        with trio.CancelScope() as scope:
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            await outcome_of(log, ch.recv())
            await outcome_of(log, ch.recv())
        assert log == ["v", trio.Cancelled] and scope.cancelled_caught

    run(main)


def test_a_cancelled_nursery_withdraws_all_that_waits_in_it():
    async def main():
        ch = weft.Channel()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(performed, ch.recv())
            await others_turn()
            assert ch.statistics().parked_receivers == 20
            nursery.cancel_scope.cancel()
        assert ch.statistics().parked_receivers == 0
        with pytest.raises(weft.WouldBlock):
            ch.send_nowait(1)

    run(main)


# --- timers and trio's clock ----------------------------------------------------------------------------------------


def test_timers_go_by_the_virtual_clock():
    async def main():
        begin = time.monotonic()
        await weft.after(3600)
        assert trio.current_time() == pytest.approx(3600, abs=1)
        await weft.sleep(3600)
        assert trio.current_time() == pytest.approx(7200, abs=1)
        await weft.at(time.monotonic() + 3600)
        assert trio.current_time() == pytest.approx(10800, abs=1)
        assert time.monotonic() - begin < LIMIT

    run_virtual(main)


def test_the_timer_of_a_select_goes_by_the_virtual_clock():
    async def main():
        ch = weft.Channel()
        case, _ = await weft.select(late=weft.after(100), first=weft.after(10), never=ch.recv())
        assert case == "first" and trio.current_time() == pytest.approx(10, abs=1)

        async def sender():
            await trio.sleep(5)
            await ch.send("v")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender)
            assert await weft.select(weft.after(60), ch.recv()) == (1, "v")
        assert trio.current_time() == pytest.approx(15, abs=1)

    run_virtual(main)


def test_ticks_go_by_the_virtual_clock():
    async def main():
        with weft.tick(3600) as ticks:
            for n in (1, 2, 3):
                await anext(ticks)
                assert trio.current_time() == pytest.approx(n * 3600, abs=1)

    run_virtual(main)


def test_a_timer_and_a_deadline_are_each_kept():
    async def main():
        with trio.move_on_after(5) as scope:
            await weft.after(100)
        assert scope.cancelled_caught and trio.current_time() == 5
        with trio.move_on_after(100) as scope:
            await weft.after(5)
            assert not scope.cancelled_caught and trio.current_time() == pytest.approx(10, abs=1)
            await trio.sleep_forever()
        assert scope.cancelled_caught and trio.current_time() == 105

    run_virtual(main)


def test_a_timer_without_end_never_comes():
    async def main():
        with trio.move_on_after(1e9) as scope:
            await weft.select(weft.after(math.inf), weft.never())
        assert scope.cancelled_caught and trio.current_time() == 1e9

    run_virtual(main)


class Meddling(trio.abc.Clock):
    """A clock that makes a call each time it is looked at: something foreign in the middle of everything."""

    def __init__(self, call=lambda: None):
        self.call = call

    def start_clock(self):
        pass

    def current_time(self):
        self.call()
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline):
        return deadline - time.monotonic()


def test_an_operation_met_just_before_its_task_suspends_is_woken_once():
    """As by a signal handler, which runs in the task that is about to wait."""
    clock = Meddling()

    async def main():
        event, log = weft.Event(), []
        with trio.CancelScope() as scope:
            clock.call = event.set
            assert await weft.select(event.wait(), weft.after(1000)) == (0, True)
            clock.call = lambda: None
            scope.cancel()  # asks nobody who has ended
            await outcome_of(log, weft.always(1))
        assert log == [trio.Cancelled]
        for _ in range(3):
            await trio.lowlevel.checkpoint()  # no second wake-up is left over

    run(main, clock=clock)


# --- descriptors ----------------------------------------------------------------------------------------------------


def test_two_tasks_can_wait_for_one_descriptor(sockets):
    async def main():
        a, b = sockets
        log = []
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(outcome_of, log, weft.readable(a))
            await others_turn()
            b.send(b"x")
        assert log == [a, a]

    run(main)


def test_reading_and_writing_are_waited_for_apart(sockets):
    async def main():
        a, b = sockets
        assert await weft.select(weft.readable(a), weft.writable(a)) == (1, a)
        b.send(b"x")
        assert await weft.select(weft.readable(a), weft.never()) == (0, a)

    run(main)


@pytest.mark.parametrize("make", [weft.readable, lambda fd: weft.select(weft.readable(fd), weft.never())])
def test_a_cancelled_wait_for_a_descriptor_raises_the_bare_cancellation(pipe, make):
    async def main():
        log = []
        with trio.move_on_after(5) as scope:
            await outcome_of(log, make(pipe[0]))
        assert log == [trio.Cancelled] and scope.cancelled_caught and trio.current_time() == 5

    run_virtual(main)


def descriptors():
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_no_descriptor_stays_open_after_a_wait(pipe):
    async def main():
        read, write = pipe
        await weft.select(weft.readable(read), weft.after(0.001))
        before = descriptors()
        ch = weft.Channel()
        for _ in range(3):
            await weft.select(weft.readable(read), weft.after(0.001))
            assert descriptors() == before
            with trio.move_on_after(0.001):
                await weft.select(weft.readable(read), ch.recv())
            assert descriptors() == before
            async with trio.open_nursery() as nursery:
                nursery.start_soon(performed, ch.send(1))
                assert await weft.select(weft.readable(read), ch.recv()) == (1, 1)
            assert descriptors() == before
        os.write(write, b"x")
        assert await weft.select(ch.recv(), weft.readable(read)) == (1, read)
        assert descriptors() == before

    run(main)


def test_trio_itself_can_wait_for_the_same_descriptor_at_the_same_time(sockets):
    async def main():
        a, b = sockets
        log = []

        async def theirs():
            await trio.lowlevel.wait_readable(a)
            log.append(a)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs)
            nursery.start_soon(outcome_of, log, weft.readable(a))
            await others_turn()
            b.send(b"x")
        assert log == [a, a]

    run(main)


# --- who wakes whom -------------------------------------------------------------------------------------------------


async def echo(requests, answers):
    async for value in requests:
        await answers.send(value + 1)
    answers.close()


def echo_in_thread(requests, answers):
    for value in requests:
        answers.send(value + 1).wait()
    answers.close()


ELSEWHERE = {
    "a thread": echo_in_thread,
    "an asyncio loop": lambda *args: asyncio.run(echo(*args)),
    "another trio run": lambda *args: trio.run(echo, *args),
}


@pytest.mark.parametrize("capacity", [0, 3])
@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_task_and_a_party_elsewhere_wake_each_other(where, capacity):
    async def main():
        requests, answers = weft.Channel(capacity), weft.Channel(capacity)
        thread = threading.Thread(target=ELSEWHERE[where], args=(requests, answers))
        thread.start()
        for n in range(50):
            await requests.send(n)
            assert await answers.recv() == n + 1
        requests.close()
        with pytest.raises(weft.Closed):
            await answers.recv()
        thread.join(LIMIT)
        assert not thread.is_alive()

    run(main)


def test_a_thread_wakes_a_run_that_sleeps():
    async def main():
        ch = weft.Channel()

        def sender():
            until(lambda: ch.statistics().parked_receivers)
            ch.send_nowait("v")

        thread = threading.Thread(target=sender)
        thread.start()
        assert await ch.recv() == "v"
        thread.join(LIMIT)

    run(main)


def test_what_waited_in_a_run_that_has_ended_is_gone():
    ch = weft.Channel()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(performed, ch.recv())
            nursery.start_soon(performed, weft.select(ch.recv(), weft.Channel().send(1), weft.after(1000)))
            await others_turn()
            raise Boom

    with pytest.raises(ExceptionGroup):
        run(main)
    statistics = ch.statistics()
    assert (statistics.parked_receivers, statistics.parked_senders, statistics.sent) == (0, 0, 0)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait(1)


def test_a_value_does_not_go_to_a_task_whose_run_broke_down(python):
    program = """
        import os, sys, threading, time, trio, weft

        class Dying(trio.abc.Clock):
            # Told to, it breaks trio itself.
            dead = False
            def start_clock(self):
                pass
            def current_time(self):
                return time.monotonic()
            def deadline_to_sleep_time(self, deadline):
                if self.dead:
                    raise ZeroDivisionError
                return deadline - time.monotonic()

        async def receiver():
            kept.append(trio.lowlevel.current_task())  # else it would be destroyed, and withdrawn with it
            await ch.recv()

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receiver)
                await trio.testing.wait_all_tasks_blocked()
                clock.dead = True
                await trio.sleep(0.001)

        import trio.testing
        ch, clock, kept, got = weft.Channel(), Dying(), [], []
        try:
            trio.run(main, clock=clock)
        except trio.TrioInternalError as error:
            broken = error
        sys.unraisablehook = lambda unraisable: got.append(unraisable.exc_value)
        assert ch.statistics().parked_receivers == 1
        thread = threading.Thread(target=lambda: got.append(ch.recv().wait()))
        thread.start()
        while ch.statistics().parked_receivers != 2:
            time.sleep(0.001)
        ch.send("v").wait(10)
        thread.join(10)
        try:
            ch.send_nowait("w")
        except weft.WouldBlock:
            got.append("nobody else")
        print(*got, flush=True)
        os._exit(0)  # trio's ruins make noise when they are cleared away
    """
    assert python(program).split() == ["v", "nobody", "else"]


@pytest.fixture
def on_alarm():
    """Have SIGALRM make a call."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda call: signal.signal(signal.SIGALRM, lambda *_: call())
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_signal_handler_wakes_a_run_that_sleeps_and_one_that_works(on_alarm):
    async def main():
        event, ch = weft.Event(), full()
        on_alarm(event.set)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        await event.wait()

        event = weft.Event()
        on_alarm(event.set)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(performed, event.wait())
            nursery.start_soon(outcome_of, [], weft.select(event.wait(), weft.after(1000)))
            await others_turn()
            signal.raise_signal(signal.SIGALRM)  # in a task
            await ch.send(1)

        async with weft.Group() as group:
            on_alarm(group.cancel)
            group.spawn(wait_for_ever)
            group.spawn(park)
            await others_turn()
            signal.setitimer(signal.ITIMER_REAL, 0.005)
        assert group.cancelled
        async with weft.Group() as group:
            on_alarm(group.cancel)
            group.spawn(wait_for_ever)
            signal.raise_signal(signal.SIGALRM)
            await wait_for_ever()
        assert group.cancelled

    run(main)


# --- trio as a guest of asyncio -------------------------------------------------------------------------------------


def run_both(in_asyncio, in_trio):
    """Run two coroutine functions in one thread, one in asyncio and one in a trio run that is asyncio's guest."""

    async def main():
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        scope = trio.CancelScope()

        async def guest():
            with scope:
                return await in_trio()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        try:
            async with asyncio.timeout(LIMIT):
                ours = await in_asyncio()
                await asyncio.wait([over])
        finally:
            if not over.done():  # a run that is abandoned would spoil all later ones
                scope.cancel()
                await asyncio.wait([over])
        return ours, over.result().unwrap()

    return asyncio.run(main())


@pytest.mark.parametrize("capacity", [0, 3])
def test_tasks_of_both_talk_over_one_channel_in_one_thread(capacity):
    requests, answers = weft.Channel(capacity), weft.Channel(capacity)

    async def in_asyncio():
        got = []
        for n in range(50):
            await requests.send(n)
            got.append(await answers.recv())
        requests.close()
        return got, threading.get_ident()

    async def in_trio():
        await echo(requests, answers)
        return threading.get_ident()

    (got, here), there = run_both(in_asyncio, in_trio)
    assert got == list(range(1, 51)) and here == there


def test_tasks_of_both_meet_in_selects_and_barriers_and_events():
    a, b, barrier, event = weft.Channel(), weft.Channel(), weft.Barrier(2), weft.Event()

    async def in_asyncio():
        got = [await weft.select(a.send(1), b.recv()) for _ in range(20)]
        await barrier.sync()
        event.set()
        return got

    async def in_trio():
        got = [await weft.select(a.recv(), b.send(2)) for _ in range(20)]
        await barrier.sync()
        await event.wait()
        return got

    ours, theirs = run_both(in_asyncio, in_trio)
    assert [case for case, _ in ours] == [case for case, _ in theirs]
    assert all(value == (None, 2)[case] for case, value in ours)


def test_each_cancels_in_its_own_way_while_the_other_goes_on():
    ch, answers = weft.Channel(), weft.Channel()

    async def in_asyncio():
        task = asyncio.create_task(outcome_of(log, ch.recv()))
        await answers.recv()
        assert ch.statistics().parked_receivers == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ch.statistics().parked_receivers == 1
        await ch.send("v")

    async def in_trio():
        with trio.move_on_after(0.001) as scope:
            await weft.never()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, log, ch.recv())
            await others_turn()
            await answers.send("go")

    log = []
    run_both(in_asyncio, in_trio)
    assert log == [asyncio.CancelledError, "v"]


def test_a_group_of_each_lives_beside_the_other():
    ch = weft.Channel()

    async def in_asyncio():
        async with weft.Group() as group:
            group.spawn(ch.send, 1, on="task")
            group.spawn(lambda: ch.send(2).wait())

    async def in_trio():
        async with weft.Group() as group:
            receivers = [group.spawn(ch.recv, on="task") for _ in range(2)]
        return sorted(receiver.result() for receiver in receivers)

    assert run_both(in_asyncio, in_trio) == (None, [1, 2])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_asyncio_task_that_a_trio_task_starts_eagerly_is_asyncios():
    ch, started = weft.Channel(), weft.Channel(1)

    async def receiver():
        async with weft.Group() as group:
            process = group.spawn(ch.recv, on="task")
            await asyncio.sleep(0)
        return process.result()

    async def in_trio():
        task = asyncio.Task(receiver(), loop=asyncio.get_running_loop(), eager_start=True)
        assert not task.done()
        await started.send(task)
        await ch.send("v")

    async def in_asyncio():
        return await (await started.recv())

    assert run_both(in_asyncio, in_trio) == ("v", None)


# --- blocking -------------------------------------------------------------------------------------------------------


def test_wait_in_a_task_says_to_await():
    async def main():
        for op in (weft.Channel().recv(), weft.never(), weft.after(1000), weft.select(weft.Channel().send(1))):
            with pytest.raises(weft.BlockingInLoopError, match="await"):
                op.wait()
        with pytest.raises(weft.BlockingInLoopError, match="async with"), weft.Group():
            pass
        assert full("v").recv().wait() == "v"  # what need not wait is fine
        with pytest.raises(weft.BlockingInLoopError):
            for _ in weft.Channel():
                pass

    run(main)


def test_wait_in_a_call_that_a_thread_makes_into_the_run_says_to_await():
    async def main():
        def blocks():
            with pytest.raises(weft.BlockingInLoopError):
                weft.never().wait()
            return full("v").recv().wait()

        assert await trio.to_thread.run_sync(trio.from_thread.run_sync, blocks) == "v"

    run(main)


def test_a_thread_of_trio_may_wait():
    async def main():
        ch, answers = weft.Channel(), weft.Channel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, lambda: answers.send(ch.recv().wait(LIMIT) + 1).wait(LIMIT))
            await ch.send(1)
            assert await answers.recv() == 2

    run(main)


def test_a_thread_of_trio_may_call_back_into_the_run():
    async def main():
        ch = full()

        def thread():
            trio.from_thread.run(performed, ch.send(1))
            return trio.from_thread.run(performed, ch.recv())

        assert await trio.to_thread.run_sync(thread) == 1

    run(main)


def test_the_thread_is_free_again_when_the_run_is_over():
    run(double, 1)
    assert full("v").recv().wait() == "v"
    with pytest.raises(TimeoutError):
        weft.never().wait(0.001)
    with weft.Group() as group:
        assert group.spawn(triple, 1).join().wait() == 3


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", WAITING)
def test_ctrl_c_is_raised_where_the_main_task_waits(make):
    log = []

    async def main():
        interrupt()
        op, _, _ = make()
        await outcome_of(log, op)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert log == [KeyboardInterrupt]


@pytest.mark.parametrize("make", WAITING)
def test_ctrl_c_comes_after_an_operation_that_was_met(make):
    log = []

    async def main():
        op, complete, result = make()

        async def press():
            await others_turn()
            in_a_thread(complete)
            signal.raise_signal(signal.SIGINT)

        trio.lowlevel.spawn_system_task(press)
        await outcome_of(log, op)
        log[0] = log[0] == result
        await outcome_of(log, weft.never())

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert log == [True, KeyboardInterrupt]


@pytest.mark.parametrize("where", ["body", "exit"])
def test_ctrl_c_in_a_group_cancels_the_children_waits_for_them_and_is_raised(where):
    witness, after = Witness(), []

    def slow(token):
        witness.waiting.send_nowait("slow")
        try:
            park()
        finally:
            for _ in range(5):  # five turns of a run that must still be there
                turn = weft.Event()
                token.run_sync_soon(turn.set)
                with weft.Channel() as free:  # no operation may wait here: this thread is cancelled
                    until(turn.is_set)
                assert free
            after.append("slow ended")

    async def main():
        try:
            async with weft.Group() as group:
                await witness.spawn(group)
                group.spawn(slow, trio.lowlevel.current_trio_token())
                await witness.waiting.recv()
                interrupt()
                if where == "body":
                    await wait_for_ever()
        finally:
            after.append(sorted(witness.cancelled))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert after == ["slow ended", Witness.ALL]


def test_a_second_ctrl_c_does_not_wait_for_threads():
    stop, spawned = threading.Event(), []

    async def main():
        async with weft.Group() as group:
            spawned.append(group.spawn(stop.wait))
            interrupt()

            async def again():
                while not group._failures:
                    await trio.lowlevel.checkpoint()
                interrupt()

            trio.lowlevel.spawn_system_task(again)

    safety = threading.Timer(LIMIT / 2, stop.set)
    safety.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
        assert not spawned[0].done
    finally:
        stop.set()
        safety.cancel()
    until(lambda: spawned[0].done)


# --- groups: leaving, joining ---------------------------------------------------------------------------------------


def test_a_task_has_the_name_of_its_process():
    async def task():
        return trio.lowlevel.current_task().name

    async def main():
        async with weft.Group() as group:
            assert await group.spawn(task, name="fred").join() == "fred"

    run(main)


def test_giving_up_on_a_join_leaves_the_process_alone():
    async def main():
        async with weft.Group() as group:
            gate = weft.Event()
            process = group.spawn(gate.wait, on="task")
            with trio.move_on_after(0.001) as scope:
                await process.join()
            assert scope.cancelled_caught and not process.done
            gate.set()
            assert await process.join() is True

    run(main)


# --- groups: failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["task", "thread", "body"])
def test_keyboard_interrupt_and_system_exit_are_raised_bare_and_hide_nothing(kind, where):
    witness, first = Witness(), Boom()

    async def fails_when_cancelled():
        try:
            await wait_for_ever()
        finally:
            raise first

    async def main():
        async with weft.Group() as group:
            await witness.spawn(group)
            group.spawn(fails_when_cancelled)
            await others_turn()
            if where == "body":
                raise kind(3)
            group.spawn({"task": fail, "thread": fail_in_thread}[where], kind(3))
            await wait_for_ever()

    with pytest.raises(kind) as caught:
        run(main)
    assert isinstance(caught.value.__context__, ExceptionGroup)
    assert caught.value.__context__.exceptions == (first,)
    assert sorted(witness.cancelled) == Witness.ALL


# --- groups: cancelled from outside ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "exit"])
def test_an_outer_cancellation_ends_children_is_waited_for_and_passes_through(where):
    async def main():
        witness, after = Witness(), []
        with trio.CancelScope() as scope:
            try:
                async with weft.Group() as group:
                    children = await witness.spawn(group)
                    trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
                    if where == "body":
                        await wait_for_ever()
            except trio.Cancelled:
                after.append(sorted(witness.cancelled))
                raise
            after.append("not reached")
        assert after == [Witness.ALL] and scope.cancelled_caught
        assert all(child.cancelled() for child in children) and not group.cancelled

    run(main)


@pytest.mark.parametrize("where", ["body", "exit"])
def test_a_deadline_around_a_group_is_kept_exactly(where):
    async def main():
        with pytest.raises(trio.TooSlowError), trio.fail_after(5):
            async with weft.Group() as group:
                group.spawn(wait_for_ever)
                group.spawn(park)
                if where == "body":
                    await weft.never()
        assert trio.current_time() == 5

    run_virtual(main)


def test_a_child_that_takes_its_time_to_end_is_waited_for():
    async def main():
        log = []

        async def slow():
            try:
                await wait_for_ever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)
                log.append("cleaned up")

        with trio.move_on_after(5) as scope:
            async with weft.Group() as group:
                group.spawn(slow)
        assert log == ["cleaned up"] and scope.cancelled_caught and trio.current_time() == 15

    run_virtual(main)


def test_an_error_takes_the_place_of_a_cancellation_from_outside_which_comes_later():
    async def fails_when_cancelled():
        try:
            await wait_for_ever()
        finally:
            raise Boom

    async def main():
        log = []
        with trio.move_on_after(5) as scope:
            try:
                async with weft.Group() as group:
                    group.cancel_after(1000)  # whose timer changes nothing about it
                    group.spawn(fails_when_cancelled)
            except* Boom:
                log.append("raised")
            await outcome_of(log, weft.always(1))
        assert log == ["raised", trio.Cancelled] and scope.cancelled_caught

    run_virtual(main)


@pytest.mark.parametrize("where", ["body", "child"])
def test_a_nursery_in_a_group_that_is_cancelled_from_outside_is_no_failure(where):
    async def opens_nursery():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_ever)
            nursery.start_soon(performed, weft.never())

    async def main():
        process = None
        with trio.move_on_after(5) as scope:
            async with weft.Group() as group:
                if where == "child":
                    process = group.spawn(opens_nursery)
                else:
                    await opens_nursery()
        assert scope.cancelled_caught
        assert process is None or process.cancelled()

    run_virtual(main)


@pytest.mark.parametrize("where", ["body", "child"])
def test_an_error_among_cancellations_in_a_nursery_is_raised(where):
    async def fails_when_cancelled():
        try:
            await wait_for_ever()
        finally:
            raise Boom

    async def opens_nursery():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_ever)
            nursery.start_soon(fails_when_cancelled)

    async def main():
        with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(5):
            async with weft.Group() as group:
                if where == "child":
                    group.spawn(opens_nursery)
                else:
                    await opens_nursery()
        _, rest = caught.value.split(Boom)
        assert rest is None

    run_virtual(main)


def test_a_group_in_a_nursery_fails_it_and_is_cancelled_by_it():
    async def owner(witness, ready):
        async with weft.Group() as group:
            await witness.spawn(group)
            ready.set()

    async def main():
        witness, ready = Witness(), weft.Event()
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(owner, witness, ready)
                await ready.wait()
                raise Boom
        assert [type(error) for error in caught.value.exceptions] == [Boom]
        assert sorted(witness.cancelled) == Witness.ALL

        async def failing_owner():
            async with weft.Group() as group:
                group.spawn(fail, Boom())

        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(failing_owner)
                nursery.start_soon(performed, weft.never())
        (nested,) = caught.value.exceptions
        assert [type(error) for error in nested.exceptions] == [Boom]

    run(main)


def test_a_nursery_in_a_group_fails_it():
    async def opens_nursery():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, Boom())
            await weft.never()

    async def main():
        witness = Witness()
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                await witness.spawn(group)
                group.spawn(opens_nursery)
        (nested,) = caught.value.exceptions
        assert [type(error) for error in nested.exceptions] == [Boom]
        assert sorted(witness.cancelled) == Witness.ALL

    run(main)


@pytest.mark.parametrize("how", ["cancel", "failure", "outside"])
def test_a_group_in_a_group_ends_with_it(how):
    async def inner(witness, log):
        try:
            async with weft.Group() as group:
                await witness.spawn(group)
                log.append("ready")
        finally:
            log.append(group.cancelled)

    async def main():
        witness, log = Witness(), []
        with trio.CancelScope() as scope:
            try:
                async with weft.Group() as group:
                    process = group.spawn(inner, witness, log)
                    while not log:
                        await trio.lowlevel.checkpoint()
                    if how == "cancel":
                        group.cancel()
                    elif how == "failure":
                        group.spawn(fail_in_thread, Boom())
                    else:
                        scope.cancel()
            except* Boom:
                log.append("failed")
        assert log == ["ready", False] + ["failed"] * (how == "failure")
        assert sorted(witness.cancelled) == Witness.ALL
        assert process.cancelled() and scope.cancelled_caught == (how == "outside")

    run(main)


def test_a_group_of_threads_in_a_thread_of_a_run_is_cancelled_with_its_task():
    witness = Witness()

    def inner():
        with weft.Group() as group:
            group.spawn(witness.thread)

    async def main():
        with trio.CancelScope() as scope:
            async with weft.Group() as group:
                group.spawn(inner)
                await witness.waiting.recv()
                scope.cancel()
        assert scope.cancelled_caught and witness.cancelled == ["thread"]

    run(main)


# --- groups: cancel, cancel_after -----------------------------------------------------------------------------------


def test_entering_in_a_cancelled_scope_enters_nothing():
    async def main():
        group = weft.Group()
        with trio.CancelScope() as scope:
            scope.cancel()
            async with group:
                raise AssertionError("entered")
        assert scope.cancelled_caught and "not entered" in repr(group)
        async with group:
            pass

    run(main)


def test_children_that_are_cancelled_before_they_start_never_do():
    async def main():
        started = []

        async def task():
            started.append("task")

        async with weft.Group() as group:
            one = group.spawn(task)
            one.cancel()
            with pytest.raises(weft.Cancelled):
                await one.join()
            two = group.spawn(task)
            group.cancel()
        assert one.cancelled() and two.cancelled() and not started

    run(main)


@pytest.mark.parametrize("where", ["body", "exit"])
def test_cancel_after_cancels_everything_when_the_time_has_come(where):
    async def main():
        witness = Witness()
        async with weft.Group() as group:
            await witness.spawn(group)
            group.cancel_after(5)
            if where == "body":
                await wait_for_ever()
        assert group.cancelled and sorted(witness.cancelled) == Witness.ALL
        assert trio.current_time() == pytest.approx(5, abs=1)

    run_virtual(main)


def test_cancel_after_called_again_moves_the_deadline():
    async def main():
        async with weft.Group() as group:
            group.cancel_after(5)
            group.cancel_after(1000)
            await trio.sleep(10)
            assert not group.cancelled
            group.cancel_after(20)
            await wait_for_ever()
        assert group.cancelled and trio.current_time() == pytest.approx(30, abs=1)
        async with weft.Group() as group:
            group.cancel_after(5)
            group.cancel_after(math.inf)
            await trio.sleep(10)
        assert not group.cancelled

    run_virtual(main)


def test_cancel_after_can_be_called_in_any_thread():
    async def main():
        async with weft.Group() as group:
            group.cancel_after(1000)
            await trio.to_thread.run_sync(group.cancel_after, 0)
            await wait_for_ever()
        assert group.cancelled

    run(main)


def test_a_group_that_ends_in_time_was_not_cancelled():
    async def main():
        async with weft.Group() as group:
            group.cancel_after(1000)
            group.spawn(double, 1)
        assert not group.cancelled and trio.current_time() == 0
        await trio.sleep(2000)
        assert not group.cancelled

    run_virtual(main)


# --- groups: one process --------------------------------------------------------------------------------------------


def test_a_process_whose_operation_was_met_as_it_was_cancelled_keeps_the_value():
    async def main():
        ch = weft.Channel()

        async def receiver():
            return await ch.recv()

        async with weft.Group() as group:
            process = group.spawn(receiver)
            await others_turn()
            ch.send_nowait("v")
            process.cancel()
            assert await process.join() == "v" and not process.cancelled()

    run(main)


def test_joining_one_another_in_a_cancelled_group_is_silent():
    async def joins_when_cancelled(process):
        try:
            await wait_for_ever()
        finally:
            with trio.CancelScope(shield=True):
                await process.join()  # which raises weft.Cancelled

    async def main():
        async with weft.Group() as group:
            process = group.spawn(wait_for_ever)
            others = [
                group.spawn(process.join, on="task"),
                group.spawn(joins_when_cancelled, process),
                group.spawn(lambda: process.join().wait()),
            ]
            await others_turn()
            group.cancel()
            with trio.CancelScope(shield=True):
                await others[0].join()
        assert all(other.cancelled() for other in others)

    run(main)


# --- weft.run -------------------------------------------------------------------------------------------------------


def test_run_runs_in_trio_and_returns_the_result():
    async def main(a, b):
        trio.lowlevel.current_task()
        ch = full(a)
        return await ch.recv() + b

    assert weft.run(main, 1, 2, backend="trio") == 3
    with pytest.raises(Boom):
        weft.run(fail, Boom(), backend="trio")
    with pytest.raises(ValueError, match="debug"):
        weft.run(double, 1, backend="trio", debug=True)


# --- anyio ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "trio"])
def anyio_run(request):
    anyio = pytest.importorskip("anyio")

    def run(main, *args):
        async def limited():
            with anyio.fail_after(LIMIT):
                return await main(anyio, *args)

        return anyio.run(limited, backend=request.param)

    return run


def test_tasks_of_an_anyio_group_talk_over_channels(anyio_run):
    async def main(anyio):
        requests, answers = weft.Channel(), weft.Channel(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(echo, requests, answers)
            for n in range(20):
                await requests.send(n)
                assert await weft.select(answers.recv(), weft.never()) == (0, n + 1)
            requests.close()

    anyio_run(main)


@pytest.mark.parametrize("make", WAITING)
def test_an_anyio_scope_withdraws_what_waits(anyio_run, make):
    async def main(anyio):
        op, complete, _ = make()
        with anyio.move_on_after(0.001) as scope:
            await op
        assert scope.cancelled_caught
        if make is not waiting_event and make is not waiting_barrier:
            with pytest.raises(weft.WouldBlock):
                complete()
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await make()[0]
        await anyio.lowlevel.checkpoint()

    anyio_run(main)


def test_an_anyio_scope_does_not_undo_what_was_met(anyio_run):
    async def main(anyio):
        ch, log = weft.Channel(), []
        scope = anyio.CancelScope()

        async def waiter():
            with scope:
                log.append(await ch.recv())
                await anyio.lowlevel.checkpoint()
                log.append("not reached")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiter)
            await anyio.wait_all_tasks_blocked()
            ch.send_nowait("v")
            scope.cancel()
        assert log == ["v"]

    anyio_run(main)


def test_an_anyio_shield_lets_an_operation_go_on(anyio_run):
    async def main(anyio):
        ch, log = weft.Channel(), []

        async def waiter():
            with anyio.CancelScope(shield=True):
                log.append(await ch.recv())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiter)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                await ch.send("v")
        assert log == ["v"]

    anyio_run(main)


@pytest.mark.parametrize("where", ["body", "exit"])
def test_an_anyio_scope_around_a_group_ends_its_children_and_waits(anyio_run, where):
    async def main(anyio):
        witness, after = Witness(), []
        with anyio.CancelScope() as scope:
            try:
                async with weft.Group() as group:
                    await witness.spawn(group)
                    token = anyio.lowlevel.current_token()
                    group.spawn(lambda: anyio.from_thread.run_sync(scope.cancel, token=token))
                    if where == "body":
                        await anyio.sleep_forever()
            finally:
                after.append(sorted(witness.cancelled))
        assert after == [Witness.ALL] and scope.cancelled_caught
        await anyio.lowlevel.checkpoint()

    anyio_run(main)


def test_a_group_in_an_anyio_group_fails_it_and_the_other_way_round(anyio_run):
    async def main(anyio):
        async def fails():
            await anyio.lowlevel.checkpoint()
            raise Boom

        async def owner():
            async with weft.Group() as group:
                group.spawn(fails)

        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(owner)
                await weft.never()
        assert caught.value.split(Boom)[1] is None

        async def opens_tasks():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fails)
                await weft.never()

        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                group.spawn(opens_tasks)
                await weft.never()
        assert caught.value.split(Boom)[1] is None

    anyio_run(main)


# --- importing ------------------------------------------------------------------------------------------------------


def test_weft_does_not_import_trio(python):
    program = """
        import asyncio, sys, weft
        async def child():
            await weft.after(0.001)
        async def main():
            ch = weft.Channel(1)
            await ch.send(1)
            await ch.recv()
            async with weft.Group() as group:
                group.spawn(child)
                group.spawn(print)
        asyncio.run(main())
        weft.run(main)
        with weft.Group() as group:
            group.spawn(child)
        weft.Channel(1).send(1).wait()
        print([name for name in sys.modules if "trio" in name])
    """
    assert python(program).split() == ["[]"]


USE = """
async def child(ch):
    await ch.send(1)
async def main():
    ch = weft.Channel()
    async with weft.Group() as group:
        group.spawn(child, ch)
        return await weft.select(ch.recv(), weft.after(60))
"""
ORDERS = {
    "weft first": "import weft\nimport trio" + USE + "print(trio.run(main))",
    "trio first": "import trio\nimport weft" + USE + "print(trio.run(main))",
    "weft within the run": "import trio"
    + USE
    + "async def late():\n    global weft\n    import weft\n    return await main()\nprint(trio.run(late))",
    "trio after asyncio was used": "import asyncio, weft"
    + USE
    + "print(asyncio.run(main()))\nimport trio\nprint(trio.run(main))\nprint(asyncio.run(main()))",
    "trio within asyncio": "import asyncio, threading, weft"
    + USE
    + """
async def outer():
    first = await main()
    import trio
    thread = threading.Thread(target=lambda: print(trio.run(main)))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    print(await main())
asyncio.run(outer())""",
    "by weft.run": "import weft" + USE + "print(weft.run(main, backend='trio'))",
}


@pytest.mark.parametrize("order", ORDERS)
def test_it_works_whatever_was_imported_first(python, order):
    assert set(python(ORDERS[order]).splitlines()) == {"Selected(case=0, value=1)"}


def test_trio_imported_while_another_thread_performs_operations(python):
    program = (
        "import sys, threading, weft"
        + USE
        + """
over = threading.Event()
def busy():
    ch = weft.Channel(1)
    while not over.is_set():
        ch.send(1).wait()
        ch.recv().wait()
sys.setswitchinterval(1e-4)  # or each file that is read costs the import a turn of 5 ms
thread = threading.Thread(target=busy)
thread.start()
try:
    import trio
    print(trio.run(main))
finally:
    over.set()
thread.join()
"""
    )
    assert python(program).splitlines() == ["Selected(case=0, value=1)"]


# --- nothing stays behind -------------------------------------------------------------------------------------------


class Thing:
    """Something to send that can be watched."""


async def finished(op_and_rest):
    op, complete, _ = op_and_rest
    async with trio.open_nursery() as nursery:
        nursery.start_soon(performed, op)
        await others_turn()
        in_a_thread(complete)


async def cancelled(op_and_rest):
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(performed, op_and_rest[0])
            await others_turn()
            scope.cancel()


async def cancelled_before(op_and_rest):
    with trio.CancelScope() as scope:
        scope.cancel()
        await op_and_rest[0]


async def timed_out(op_and_rest):
    with trio.move_on_after(0.001):
        await op_and_rest[0]


@needs("counted references")
@pytest.mark.parametrize("ending", [finished, cancelled, cancelled_before, timed_out])
@pytest.mark.parametrize("make", WAITING)
def test_an_operation_that_has_ended_is_kept_by_nobody(no_gc, make, ending):
    async def main():
        thing = Thing()
        ref = weakref.ref(thing)
        op, complete, result = make()
        op = op.map(lambda value, thing=thing: value)  # what it holds tells whether it is there
        del thing
        assert ref() is not None
        rest = (op, complete, result)
        del op, complete
        await ending(rest)
        del rest
        await trio.lowlevel.checkpoint()  # until a task's next step, trio holds the cancellation it raised
        assert ref() is None

    run(main)


@needs("counted references")
@pytest.mark.parametrize("make", [waiting_recv, waiting_select_with_a_timer, waiting_select_with_a_descriptor])
def test_the_counts_of_references_stay_the_same(no_gc, make):
    async def main():
        ch = full("v")
        lasting = [None, True, ch, trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()]
        counts = []
        for _ in range(4):
            for ending in (finished, cancelled, cancelled_before, timed_out) * 5:
                await ending(make())
                await ch.send(await ch.recv())
            await trio.lowlevel.checkpoint()
            gc.collect()  # trio's own rings
            counts.append([sys.getrefcount(thing) for thing in lasting])
        if sys.version_info >= (3, 12):  # where None and True are immortal
            assert counts[1] == counts[2] == counts[3]
        else:
            assert counts[1][2:] == counts[2][2:] == counts[3][2:]

    run(main)


@needs("counted references")
def test_a_failed_wait_leaves_no_reference_cycle(no_gc):
    async def main():
        refs = []

        class Traced(Exception):
            def __init__(self):
                refs.append(weakref.ref(self))

        for waits in (False, True):
            ch = weft.Channel()
            if not waits:
                ch.close(Traced())

            async def closer(ch=ch):
                await others_turn()
                ch.close(Traced())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(closer)
                try:
                    await ch.recv()
                except Traced:
                    pass
            del ch, closer
        assert len(refs) == 3
        assert [ref for ref in refs if ref() is not None] == []

    run(main)


@pytest.mark.parametrize("ending", ["finished", "cancelled", "cancelled from outside", "failed"])
def test_a_group_that_has_ended_is_kept_by_nobody(no_gc, ending):
    async def main():
        refs = []
        with trio.CancelScope() as scope:
            try:
                async with weft.Group() as group:
                    refs += [
                        weakref.ref(group),
                        weakref.ref(group.spawn(double, 1)),
                        weakref.ref(group.spawn(triple, 1)),
                    ]
                    group.cancel_after(1000)
                    if ending != "finished":
                        refs.append(weakref.ref(group.spawn(wait_for_ever)))
                        refs.append(weakref.ref(group.spawn(park)))
                        await others_turn()
                    if ending == "cancelled":
                        group.cancel()
                    elif ending == "cancelled from outside":
                        scope.cancel()
                    elif ending == "failed":
                        raise Boom
            except* Boom:
                pass
        del group
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(2) as left:
            while [ref for ref in refs if ref() is not None]:
                await trio.sleep(0.001)
                gc.collect(0)  # trio's own rings around cancelled scopes
        assert not left.cancelled_caught, [ref() for ref in refs]

    run(main)


def test_a_group_in_an_async_generator_that_its_task_closes_is_left_in_order():
    ended = []

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            ended.append("child")

    async def numbers():
        async with weft.Group() as group:
            group.spawn(child)
            await trio.testing.wait_all_tasks_blocked()
            yield 1

    async def main():
        generator = numbers()
        assert await anext(generator) == 1
        before = trio.lowlevel.current_task().child_nurseries
        assert len(before) == 1
        await generator.aclose()
        assert ended == ["child"]
        assert not trio.lowlevel.current_task().child_nurseries
        await trio.lowlevel.checkpoint()

    trio.run(main)
