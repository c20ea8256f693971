"""weft as a guest of asyncio: it works inside whatever asyncio does with an awaitable, a task or a loop."""

import asyncio
import contextvars
import gc
import sys
import threading
import warnings

import pytest
import weft
from worlds import LIMIT, make_world, parked, perform, receiving, sending, take_turns, until, until_parked


async def until_async(condition):
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0)


async def performing(op):
    """A coroutine around an operation."""
    return await op


def step(coroutine):
    """Step it by hand until it waits for something. Before that it may hand the loop back, with nothing tried yet (L13)."""
    while (waits_for := coroutine.send(None)) is None:
        pass
    return waits_for


def in_loop(world, main, *args):
    """Run a coroutine function in the world's loop, stepped, and give its result."""
    task = world.loop.create_task(main(*args))
    until(task.done)
    return task.result()


# --- what people do with an awaitable -------------------------------------------------------------------------------


def test_plain_tasks_meet(looped):
    async def main():
        ch = weft.Channel()
        task = asyncio.create_task(performing(ch.recv()))
        await ch.send("v")
        return await task

    assert in_loop(looped, main) == "v"


def test_gather_takes_operations_as_they_are(looped):
    async def main():
        ch = weft.Channel()
        return await asyncio.gather(ch.send("v"), ch.recv(), weft.select(weft.always(1)), weft.after(0.001))

    sent, received, selected, due = in_loop(looped, main)
    assert (sent, received, selected) == (None, "v", (0, 1)) and isinstance(due, float)


def test_a_sleep_of_zero_gives_the_others_a_turn(looped):
    async def main():
        turns = []

        async def other():
            for turn in range(9):
                turns.append(turn)
                await weft.sleep(0)

        task = asyncio.create_task(other())
        for _ in range(3):
            before = len(turns)
            await weft.sleep(0)
            assert len(turns) == before + 1
        await task

    in_loop(looped, main)


def test_a_cancel_during_a_sleep_of_zero_ends_it(looped):
    async def main():
        started = []

        async def sleeping():
            started.append(True)
            await weft.sleep(0)

        task = asyncio.create_task(sleeping())
        while not started:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_loop(looped, main)


def test_gather_with_return_exceptions(looped):
    async def main():
        ended = weft.Channel()
        ended.close()
        return await asyncio.gather(ended.recv(), weft.always(1), ended.send("v"), return_exceptions=True)

    one, two, three = in_loop(looped, main)
    assert type(one) is weft.Closed and two == 1 and three.value == "v"


def test_wait_for_takes_an_operation_as_it_is(looped):
    async def main():
        ch = weft.Channel(1)
        await asyncio.wait_for(ch.send("v"), 5)
        assert await asyncio.wait_for(ch.recv(), 5) == "v"
        task = asyncio.create_task(performing(asyncio.wait_for(ch.recv(), 5)))
        await until_async(lambda: parked(ch) == (0, 1))
        ch.send_nowait("w")
        assert await task == "w"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.recv(), 0.001)
        assert parked(ch) == (0, 0)

    in_loop(looped, main)


def test_wait_for_with_no_time_at_all(looped):
    """`wait_for(op, 0)` polls, as it does for any awaitable that is not a future: nothing is taken or given."""

    async def main():
        ch = weft.Channel()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.recv(), 0)
        assert parked(ch) == (0, 0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asyncio may never start it
        in_loop(looped, main)
        gc.collect()


def test_shield_takes_an_operation_as_it_is(looped):
    async def main():
        ch = weft.Channel()
        task = asyncio.create_task(performing(asyncio.shield(ch.recv())))
        await until_async(lambda: parked(ch) == (0, 1))
        ch.send_nowait("v")
        return await task

    assert in_loop(looped, main) == "v"


def test_ensure_future_makes_a_task_of_an_operation(looped):
    async def main():
        ch = weft.Channel()
        future = asyncio.ensure_future(ch.recv())
        assert asyncio.isfuture(future)
        await until_async(lambda: parked(ch) == (0, 1))
        future.cancel()
        await asyncio.wait([future])
        assert future.cancelled() and parked(ch) == (0, 0)
        future = asyncio.ensure_future(ch.recv())
        await until_async(lambda: parked(ch) == (0, 1))
        ch.send_nowait("v")
        return await future

    assert in_loop(looped, main) == "v"


def test_an_operation_is_no_future_to_asyncio():
    """Else gather and shield would wait for a callback from something that nobody performs."""
    op = weft.always(1)
    isfuture = asyncio.isfuture(op)
    op.wait()
    assert not isfuture


def test_create_task_around_operations(looped):
    async def main():
        ch = weft.Channel()
        tasks = [asyncio.create_task(performing(ch.recv())) for _ in range(3)]
        for n in range(3):
            await ch.send(n)
        return [await task for task in tasks]

    assert sorted(in_loop(looped, main)) == [0, 1, 2]  # any of them may hand the loop back first (L13)


def test_task_group(looped):
    async def main():
        ch = weft.Channel()
        async with asyncio.TaskGroup() as group:
            one = group.create_task(performing(ch.send("v")))
            two = group.create_task(performing(ch.recv()))
        return one.result(), two.result()

    assert in_loop(looped, main) == (None, "v")


def test_a_failing_task_group_withdraws_its_operations(looped):
    ch = weft.Channel()

    async def fails():
        await until_async(lambda: parked(ch) == (0, 3))
        raise ZeroDivisionError

    async def main():
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(performing(ch.recv()))
                group.create_task(fails())

    in_loop(looped, main)
    assert parked(ch) == (0, 0)


def test_timeout(looped):
    async def main():
        ch = weft.Channel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                await ch.recv()
        assert parked(ch) == (0, 0)
        async with asyncio.timeout(5):
            await asyncio.gather(ch.send("v"), ch.recv())

    in_loop(looped, main)


def test_as_completed_and_wait(looped):
    async def main():
        ch = weft.Channel(8)
        for n in range(4):
            ch.send_nowait(n)
        got = [await first for first in asyncio.as_completed([ch.recv(), ch.recv()])]
        done, pending = await asyncio.wait([asyncio.ensure_future(ch.recv()) for _ in range(2)])
        return sorted(got), sorted(task.result() for task in done), pending

    assert in_loop(looped, main) == ([0, 1], [2, 3], set())


def test_run_coroutine_threadsafe(looped):
    ch = weft.Channel()
    future = asyncio.run_coroutine_threadsafe(performing(ch.recv()), looped.loop)
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    until(future.done)
    assert future.result() == "v"
    future = asyncio.run_coroutine_threadsafe(performing(ch.recv()), looped.loop)
    until_parked(ch, receivers=1)
    future.cancel()
    until_parked(ch)


def test_a_coroutine_that_catches_the_cancel_may_try_again(looped):
    ch = weft.Channel()
    saw = []

    async def stubborn():
        try:
            await ch.recv()
        except asyncio.CancelledError:
            saw.append("cancelled")
        saw.append(await ch.recv())

    async def main():
        task = asyncio.create_task(stubborn())
        await until_async(lambda: parked(ch) == (0, 1))
        task.cancel()
        await until_async(lambda: saw and parked(ch) == (0, 1))
        ch.send_nowait("v")
        await task

    in_loop(looped, main)
    assert saw == ["cancelled", "v"]


def test_the_cancel_message_comes_through(looped):
    ch = weft.Channel()

    async def main():
        task = asyncio.create_task(performing(ch.recv()))
        await until_async(lambda: parked(ch) == (0, 1))
        task.cancel("because")
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("because",)

    in_loop(looped, main)


def test_async_generators_and_nested_coroutines(looped):
    async def numbers(ch):
        async for v in ch:
            yield v * 10

    async def deep(ch, depth):
        if depth:
            return await deep(ch, depth - 1)
        return [v async for v in numbers(ch)]

    async def main():
        ch = weft.Channel()
        task = asyncio.create_task(deep(ch, 20))
        for n in range(3):
            await ch.send(n)
        ch.close()
        return await task

    assert in_loop(looped, main) == [0, 10, 20]


def test_a_generator_based_yield_from_the_operations_iterator(looped):
    class Wrapped:
        def __init__(self, op):
            self.op = op

        def __await__(self):
            value = yield from self.op.__await__()
            return ("wrapped", value)

    async def main():
        ch = weft.Channel()
        task = asyncio.create_task(performing(Wrapped(ch.recv())))
        await until_async(lambda: parked(ch) == (0, 1))
        ch.send_nowait("v")
        return await task

    assert in_loop(looped, main) == ("wrapped", "v")


def test_task_introspection_sees_a_waiting_task(looped):
    ch = weft.Channel()

    async def main():
        task = asyncio.create_task(performing(ch.recv()), name="the receiver")
        await until_async(lambda: parked(ch) == (0, 1))
        assert task in asyncio.all_tasks()
        assert "the receiver" in repr(task)
        assert task.get_stack()
        ch.send_nowait("v")
        await task

    in_loop(looped, main)


# --- contexts -------------------------------------------------------------------------------------------------------


def test_after_a_resumption_each_task_sees_its_own_context(looped):
    var = contextvars.ContextVar("var", default="nobody")
    ch = weft.Channel()
    seen = {}

    async def receiver(n):
        var.set(n)
        await ch.recv()
        seen[n] = var.get()
        var.set(("changed", n))
        await ch.recv()
        assert var.get() == ("changed", n)

    async def main():
        tasks = [asyncio.create_task(receiver(n)) for n in range(10)]
        await until_async(lambda: parked(ch) == (0, 10))
        for n in range(10):
            ch.send_nowait(n)  # one burst
        await until_async(lambda: parked(ch) == (0, 10))
        for _ in range(10):
            ch.send_nowait(None)
        await asyncio.gather(*tasks)
        assert var.get() == "nobody"

    in_loop(looped, main)
    assert seen == {n: n for n in range(10)}


def test_the_current_task_is_right_after_a_resumption(looped):
    ch = weft.Channel()

    async def receiver():
        me = asyncio.current_task()
        for _ in range(3):
            await ch.recv()
            assert asyncio.current_task() is me
        return me

    async def main():
        tasks = [asyncio.create_task(receiver()) for _ in range(4)]
        for _ in range(12):
            await ch.send(None)
        assert [await task for task in tasks] == tasks

    in_loop(looped, main)


# --- debug mode -----------------------------------------------------------------------------------------------------


def test_debug_mode(run):
    async def main():
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        problems = []
        loop.set_exception_handler(lambda loop, context: problems.append(context))
        ch = weft.Channel()
        feeder = threading.Thread(target=lambda: [ch.send(n).wait(10) for n in range(5)])
        feeder.start()
        assert [await ch.recv() for _ in range(5)] == list(range(5))
        task = asyncio.create_task(performing(ch.recv()))
        await until_async(lambda: parked(ch) == (0, 1))
        ch.send_nowait("v")
        assert await task == "v"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await ch.recv()
        feeder.join()
        assert problems == []

    run(main, debug=True)


# --- several loops --------------------------------------------------------------------------------------------------


def test_several_loops_in_several_threads_share_one_channel():
    ch = weft.Channel()
    loops, each = 4, 50
    got, errors = [], []

    async def receiver():
        async for v in ch:
            got.append(v)

    async def sender(n):
        for k in range(each):
            await ch.send((n, k))

    def in_thread(main):
        try:
            asyncio.run(main)
        except BaseException as error:
            errors.append(error)

    receivers = [threading.Thread(target=in_thread, args=(receiver(),)) for _ in range(loops)]
    senders = [threading.Thread(target=in_thread, args=(sender(n),)) for n in range(loops)]
    for thread in receivers + senders:
        thread.start()
    for thread in senders:
        thread.join(LIMIT)
        assert not thread.is_alive()
    ch.close()
    for thread in receivers:
        thread.join(LIMIT)
        assert not thread.is_alive()
    assert not errors
    assert sorted(got) == [(n, k) for n in range(loops) for k in range(each)]


def test_one_loop_after_another_in_one_thread(run):
    ch = weft.Channel(1)
    for n in range(5):
        run(ch.send, n)
        assert run(performing, ch.recv()) == n


# --- loops that are closed ------------------------------------------------------------------------------------------


def test_asyncio_run_cancels_what_is_parked_and_leaves_nothing_behind():
    ch = weft.Channel()

    async def main():
        for _ in range(3):
            task = asyncio.create_task(performing(ch.recv()))
            task.add_done_callback(lambda task: None)
        await until_async(lambda: parked(ch) == (0, 3))

    asyncio.run(main())
    assert parked(ch) == (0, 0)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")


def test_a_loop_that_is_closed_with_parked_operations_withdraws_them(looped):
    ch, second = weft.Channel(), weft.Channel()
    parties = [
        looped.start(receiving, ch, 1),
        looped.start(perform, weft.select(ch.recv(), second.send("lost?"))),
        looped.start(receiving, ch, 1),
    ]
    until_parked(ch, receivers=3)
    for party in parties:
        party.task._log_destroy_pending = False
    looped.loop.close()
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")
    with pytest.raises(weft.WouldBlock):
        second.recv_nowait()
    assert parked(ch) == parked(second) == (0, 0)


def test_the_living_are_served_past_those_whose_loop_was_closed(looped):
    ch = weft.Channel()
    dead = looped.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    dead.task._log_destroy_pending = False
    got = []
    thread = threading.Thread(target=lambda: got.append(ch.recv().wait(LIMIT)))
    thread.start()
    until_parked(ch, receivers=2)
    looped.loop.close()
    ch.send_nowait("v")
    thread.join(LIMIT)
    assert got == ["v"]


def test_closing_a_channel_whose_receivers_loop_is_closed_is_no_error(looped):
    for end in ("close", "poison"):
        ch = weft.Channel()
        rx = ch.receiver()
        world = make_world("asyncio")
        world.open()
        party = world.start(receiving, rx, 1)
        until_parked(ch, receivers=1)
        party.task._log_destroy_pending = False
        world.loop.close()
        getattr(ch, end)()
        world.close()
        assert parked(ch) == (0, 0)
        del party, world, rx
        gc.collect()


# --- parties that vanish --------------------------------------------------------------------------------------------


def test_a_receiver_destroyed_while_parked_is_withdrawn(looped):
    ch = weft.Channel()

    def park():
        coroutine = performing(ch.recv())
        step(coroutine)
        return coroutine

    async def main():
        coroutine = park()
        assert parked(ch) == (0, 1)
        coroutine.close()
        assert parked(ch) == (0, 0)
        coroutine = park()
        del coroutine
        gc.collect()
        assert parked(ch) == (0, 0)
        with pytest.raises(weft.WouldBlock):
            ch.send_nowait("v")

    in_loop(looped, main)


def test_a_sender_destroyed_while_parked_gives_nothing(looped):
    ch = weft.Channel()

    async def main():
        coroutine = performing(ch.send("v"))
        step(coroutine)
        assert parked(ch) == (1, 0)
        coroutine.close()
        with pytest.raises(weft.WouldBlock):
            ch.recv_nowait()

    in_loop(looped, main)


def test_a_committed_receiver_that_is_destroyed_before_it_resumes_gives_the_value_back_to_the_front(looped):
    async def main():
        ch = weft.Channel(2)
        coroutine = performing(ch.recv())
        step(coroutine)
        for n in range(3):
            ch.send_nowait(n)  # the first is committed to the coroutine
        assert len(ch) == 2
        coroutine.close()
        assert len(ch) == 3  # beyond its capacity, for a moment
        assert [ch.recv_nowait() for _ in range(3)] == [0, 1, 2]
        await asyncio.sleep(0)  # a wake-up that was on its way finds nobody, and nothing happens

    in_loop(looped, main)


def test_a_committed_receiver_that_is_forgotten_gives_the_value_back(looped):
    async def main():
        ch = weft.Channel()
        coroutine = performing(ch.recv())
        step(coroutine)
        ch.send_nowait("v")
        del coroutine
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert ch.recv_nowait() == "v"

    in_loop(looped, main)


def test_a_value_given_back_goes_to_the_next_one_who_waits(looped):
    async def main():
        ch = weft.Channel()
        doomed = performing(ch.recv())
        step(doomed)
        task = asyncio.create_task(performing(ch.recv()))
        await until_async(lambda: parked(ch) == (0, 2))
        ch.send_nowait("v")
        doomed.close()
        return await task

    assert in_loop(looped, main) == "v"


def test_a_committed_select_that_is_destroyed_gives_the_value_back(looped):
    async def main():
        ch, other = weft.Channel(), weft.Channel()
        coroutine = performing(weft.select(other.recv(), ch.recv()))
        step(coroutine)
        ch.send_nowait("v")
        coroutine.close()
        assert ch.recv_nowait() == "v"
        assert parked(ch) == parked(other) == (0, 0)

    in_loop(looped, main)


def test_a_committed_recv_many_that_is_destroyed_gives_all_back_in_order(looped):
    async def main():
        ch = weft.Channel(4)
        coroutine = performing(ch.recv_many(3))
        step(coroutine)
        for n in range(4):
            ch.send_nowait(n)
        coroutine.close()
        assert [ch.recv_nowait() for _ in range(4)] == [0, 1, 2, 3]

    in_loop(looped, main)


def test_a_value_given_back_to_a_closed_channel_is_still_delivered(looped):
    async def main():
        ch = weft.Channel()
        coroutine = performing(ch.recv())
        step(coroutine)
        ch.send_nowait("v")
        ch.close()
        coroutine.close()
        assert ch.recv_nowait() == "v"
        with pytest.raises(weft.Closed):
            ch.recv_nowait()

    in_loop(looped, main)


def test_a_value_given_back_to_a_poisoned_channel_is_dropped_and_counted(looped):
    dropped = []

    async def main():
        ch = weft.Channel(on_undelivered=dropped.append)
        coroutine = performing(ch.recv())
        step(coroutine)
        ch.send_nowait("v")
        ch.poison()
        coroutine.close()
        assert dropped == ["v"] and ch.statistics().dropped == 1

    in_loop(looped, main)


def test_one_that_only_hands_the_loop_back_and_is_then_destroyed_gives_the_value_back_too(looped):
    """After a millisecond of operations that completed at once, one of them suspends although it has its value (L13)."""

    async def main():
        ch, suspended = weft.Channel(1), 0
        for _ in range(300_000):
            ch.send_nowait("v")
            coroutine = performing(ch.recv())
            try:
                coroutine.send(None)
            except StopIteration as stop:
                assert stop.value == "v"
                continue
            suspended += 1
            coroutine.close()
            assert ch.recv_nowait() == "v"
            if suspended == 3:
                break
        assert suspended == 3

    in_loop(looped, main)


def test_a_cancel_that_meets_one_which_only_hands_the_loop_back_is_delivered_later(looped):
    async def receiver(ch, saw):
        for _ in range(300_000):
            ch.send_nowait("v")
            turn = asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
            saw.append(await ch.recv())
            if asyncio.current_task().cancelling():
                break
            turn.cancel()
        await asyncio.sleep(0)
        saw.append("not reached")

    async def main():
        saw = []
        task = asyncio.create_task(receiver(weft.Channel(1), saw))
        await asyncio.wait([task])
        assert task.cancelled()
        assert set(saw) <= {"v"}

    in_loop(looped, main)


def test_another_exception_thrown_into_a_parked_operation_withdraws_it(looped):
    async def main():
        ch = weft.Channel()
        coroutine = performing(ch.recv())
        step(coroutine)
        with pytest.raises(ZeroDivisionError):
            coroutine.throw(ZeroDivisionError())
        assert parked(ch) == (0, 0)

    in_loop(looped, main)


# --- exceptions from a step inside the drain ------------------------------------------------------------------------


def test_an_exception_in_a_resumed_task_is_the_tasks(looped):
    ch = weft.Channel()

    async def fails():
        await ch.recv()
        raise ZeroDivisionError

    async def main():
        tasks = [asyncio.create_task(fails()), *(asyncio.create_task(performing(ch.recv())) for _ in range(3))]
        await until_async(lambda: parked(ch) == (0, 4))
        for _ in range(4):
            ch.send_nowait("v")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[0], ZeroDivisionError) and answers[1:] == ["v"] * 3

    in_loop(looped, main)


def test_an_exception_nobody_retrieves_goes_to_the_loops_handler(looped):
    ch = weft.Channel()
    problems = []

    async def fails():
        await ch.recv()
        raise ZeroDivisionError

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        asyncio.create_task(fails())
        await until_async(lambda: parked(ch) == (0, 1))
        ch.send_nowait(None)
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()

    in_loop(looped, main)
    assert [type(context.get("exception")) for context in problems] == [ZeroDivisionError]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_raised_in_a_resumed_task_leaves_the_loop_and_loses_nobody(looped, kind):
    """As asyncio does: it comes out of `run_forever`. The others of the burst run when the loop runs again."""
    ch = weft.Channel()
    got = []

    async def fails():
        await ch.recv()
        raise kind

    async def receives():
        got.append(await ch.recv())

    doomed = looped.loop.create_task(fails())
    until_parked(ch, receivers=1)
    others = [looped.loop.create_task(receives()) for _ in range(3)]
    until_parked(ch, receivers=4)
    for n in range(4):
        ch.send_nowait(n)
    with pytest.raises(kind):
        until(lambda: False)
    assert doomed.done() and isinstance(doomed.exception(), kind)
    until(lambda: all(task.done() for task in others))
    assert got == [1, 2, 3]


# --- plain Python tasks, eager tasks --------------------------------------------------------------------------------


def test_pure_python_tasks_await_operations():
    world = make_world("pure_python")
    world.open()
    try:
        ch = weft.Channel()
        parties = [world.start(sending, ch, *range(5)), world.start(receiving, ch, 5)]
        assert type(until_started(parties[0])) is asyncio.tasks._PyTask
        assert parties[1].join() == list(range(5))
        parties[0].join()
    finally:
        world.close()


def until_started(party):
    until(lambda: party.task is not None)
    return party.task


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_task_that_need_not_wait_ends_without_the_loop(run):
    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        ch = weft.Channel(4)
        for each in (ch.send, ch.send, ch.send, ch.send), (ch.recv, ch.recv, ch.recv, ch.recv):
            tasks = [asyncio.create_task(performing(op("v") if op == ch.send else op())) for op in each]
            # One in hundreds hands the loop back (L13).
            assert sum(task.done() for task in tasks) >= 3
            await asyncio.gather(*tasks)
        assert [task.result() for task in tasks] == ["v"] * 4
        task = asyncio.create_task(performing(ch.recv()))
        while parked(ch) != (0, 1):
            await asyncio.sleep(0)
        assert not task.done()
        ch.send_nowait("w")
        assert await task == "w"

    run(main)


def test_a_task_of_another_kind_that_drives_a_coroutine_by_hand(looped):
    """The protocol an awaitable owes to whoever drives it: yields something future-like, takes `send(None)` or `throw`."""

    async def main():
        ch = weft.Channel()
        coroutine = performing(ch.recv())
        future = step(coroutine)
        assert asyncio.isfuture(future)
        assert future.get_loop() is asyncio.get_running_loop()
        woken = []
        future._asyncio_future_blocking = False
        future.add_done_callback(woken.append)
        ch.send_nowait("v")
        await until_async(lambda: woken)
        with pytest.raises(StopIteration) as caught:
            coroutine.send(None)
        assert caught.value.value == "v"

    in_loop(looped, main)


def test_turns_are_taken_by_the_test_only():
    """A check of the harness: a stepped loop does nothing by itself."""
    world = make_world("asyncio")
    world.open()
    try:
        ch = weft.Channel()
        party = world.start(receiving, ch, 1)
        assert parked(ch) == (0, 0)
        until_parked(ch, receivers=1)
        ch.send_nowait("v")
        assert not party.done
        take_turns(5)
        assert party.done
    finally:
        world.close()
