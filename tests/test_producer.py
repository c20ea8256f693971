"""Producers: one test a promise. What is promised: docs/design/semantics.md, "Producers"."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import threading

import pytest
import weft
from children import Boom, checkpoint
from worlds import CANCELLED, LIMIT, collect, loop_factory, needs, run_in_asyncio, until
from worlds import run_in_trio as in_trio

trio = pytest.importorskip("trio")

COLOUR = contextvars.ContextVar("colour", default="none")


class Log(list):
    """What happened, in order, with an event for each entry to wait for. Generators write here from their own process."""

    def __init__(self):
        super().__init__()
        self.events = {}
        self.lock = threading.Lock()

    def write(self, entry):
        self.append(entry)
        self.event(entry).set()

    def event(self, entry):
        with self.lock:
            return self.events.setdefault(entry, weft.Event())

    def wait(self, entry):
        return self.event(entry).wait()


@pytest.fixture
def log():
    return Log()


def here():
    """The task or thread that runs."""
    with contextlib.suppress(RuntimeError):
        return trio.lowlevel.current_task()
    with contextlib.suppress(RuntimeError):
        if (task := asyncio.current_task()) is not None:
            return task
    return threading.current_thread()


# --- the generators -------------------------------------------------------------------------------------------------


@weft.producer
async def count(n, log=None):
    for i in range(n):
        if log is not None:
            log.write(i)
        yield i
    if log is not None:
        log.write("end")


@weft.producer
def count_in_thread(n, log=None):
    for i in range(n):
        if log is not None:
            log.write(i)
        yield i
    if log is not None:
        log.write("end")


@weft.producer
async def cleaning(log, n=10**9):
    """Its cleanup waits for something, in an `async with`, and says where it ran."""

    class Connection:
        async def __aenter__(self):
            self.opener = here()

        async def __aexit__(self, kind, error, traceback):
            await weft.sleep(0)
            await weft.sleep(0)
            log.write(kind)
            log.write("same" if here() is self.opener else "another")

    async with Connection():
        for i in range(n):
            yield i


@weft.producer
def cleaning_in_thread(log, n=10**9):
    opener = here()
    try:
        yield from range(n)
    except BaseException as error:
        log.write(type(error))
        raise
    finally:
        weft.sleep(0).wait()
        log.write("same" if here() is opener else "another")


@weft.producer
async def waiting(log):
    """Yields once and then is at work for ever."""
    try:
        yield "first"
        log.write("at work")
        await weft.never()
    except BaseException as error:
        log.write("cancelled" if isinstance(error, CANCELLED) else type(error))
        raise
    finally:
        log.write("cleaned")


@weft.producer
def waiting_in_thread(log):
    try:
        yield "first"
        log.write("at work")
        weft.never().wait()
    except BaseException as error:
        log.write("cancelled" if isinstance(error, CANCELLED) else type(error))
        raise
    finally:
        log.write("cleaned")


@weft.producer
async def failing(n, error):
    for i in range(n):
        yield i
    raise error


@weft.producer
def failing_in_thread(n, error):
    yield from range(n)
    raise error


@weft.producer
async def failing_cleanup(error):
    try:
        while True:
            yield 1
    finally:
        raise error


# --- fixtures -------------------------------------------------------------------------------------------------------


def in_asyncio(main, *args, **options):
    async def alone():
        result = await main(*args)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"
        return result

    return run_in_asyncio(alone, **options)


@pytest.fixture
def arun(request):
    """Run a coroutine function in each kind of loop. No thread may be left."""
    yield (
        in_trio if request.param == "trio" else functools.partial(in_asyncio, loop_factory=loop_factory(request.param))
    )
    until(lambda: not [t for t in threading.enumerate() if "_in_thread" in t.name], "no thread of a producer is left")


both = pytest.mark.parametrize("kind", ["task", "thread"])


def of(kind, in_task, in_thread):
    return in_task if kind == "task" else in_thread


# --- values ---------------------------------------------------------------------------------------------------------


@both
def test_the_receiver_gets_what_the_generator_yields_and_then_ends(arun, kind):
    async def main():
        async with of(kind, count, count_in_thread)(5) as rx:
            assert isinstance(rx, weft.Receiver)
            assert [value async for value in rx] == [0, 1, 2, 3, 4]
            with pytest.raises(weft.Closed):
                await rx.recv()

    arun(main)


@both
def test_in_a_plain_thread_it_is_entered_by_with(kind, log):
    with of(kind, count, count_in_thread)(5, log) as rx:
        assert list(rx) == [0, 1, 2, 3, 4]
    with of(kind, count, count_in_thread)(0) as rx:
        assert list(rx) == []


@both
def test_without_a_capacity_the_generator_goes_on_only_after_its_value_was_taken(arun, kind, log):
    async def main():
        async with of(kind, count, count_in_thread)(3, log) as rx:
            await log.wait(0)
            for _ in range(5):
                await checkpoint()
            assert log == [0]
            assert await rx.recv() == 0
            await log.wait(1)
            assert 2 not in log

    arun(main)


@both
def test_with_a_capacity_the_generator_is_ahead_by_that_many(arun, kind, log):
    produce = weft.producer(capacity=2)(of(kind, count, count_in_thread).__wrapped__)

    async def main():
        async with produce(10, log) as rx:
            assert rx.capacity == 2
            await log.wait(2)  # two in the buffer, and it holds a third
            for _ in range(5):
                await checkpoint()
            assert log == [0, 1, 2]
            assert await rx.recv() == 0
            await log.wait(3)

    arun(main)


def test_none_can_be_yielded(arun):
    @weft.producer
    async def nothing():
        yield None

    async def main():
        async with nothing() as rx:
            assert [value async for value in rx] == [None]

    arun(main)


def test_the_receiver_can_stand_in_a_select(arun):
    async def main():
        async with count(1) as rx:
            assert await weft.select(n=rx.recv(), late=weft.after(LIMIT)) == ("n", 0)

    arun(main)


@both
def test_the_generator_has_the_context_of_who_entered(arun, kind):
    async def coloured():
        yield COLOUR.get()
        COLOUR.set("its own")

    def coloured_in_thread():
        yield COLOUR.get()
        COLOUR.set("its own")

    async def main():
        COLOUR.set("red")
        async with weft.producer(of(kind, coloured, coloured_in_thread))() as rx:
            assert [value async for value in rx] == ["red"]
        assert COLOUR.get() == "red"

    arun(main)


# --- stopping -------------------------------------------------------------------------------------------------------


@both
def test_leaving_early_closes_the_generator_in_its_own_task_and_waits_for_its_cleanup(arun, kind, log):
    async def main():
        async with of(kind, cleaning, cleaning_in_thread)(log) as rx:
            async for value in rx:
                if value == 3:
                    break
        assert log == [GeneratorExit, "same"]

    arun(main)


@both
def test_leaving_early_in_a_thread_does_the_same(kind, log):
    with of(kind, cleaning, cleaning_in_thread)(log) as rx:
        assert next(rx) == 0
    assert log == [GeneratorExit, "same"]


@both
def test_leaving_cancels_a_generator_that_is_at_work(arun, kind, log):
    async def main():
        async with of(kind, waiting, waiting_in_thread)(log) as rx:
            assert await rx.recv() == "first"
            await log.wait("at work")
        assert log == ["at work", "cancelled", "cleaned"]

    arun(main)


@both
def test_leaving_in_a_thread_cancels_a_generator_that_is_at_work(kind, log):
    with of(kind, waiting, waiting_in_thread)(log) as rx:
        assert rx.recv().wait() == "first"
        log.wait("at work").wait(LIMIT)
    assert log == ["at work", "cancelled", "cleaned"]


def test_a_generator_that_swallows_the_cancellation_is_closed_at_its_next_yield(arun, log):
    @weft.producer
    async def stubborn():
        try:
            yield 1
            try:
                log.write("at work")
                await weft.never()
            except CANCELLED as error:
                log.write("swallowed")
                if not isinstance(error, asyncio.CancelledError):
                    raise  # trio forbids it
            yield 2
            log.write("went on")
        finally:
            log.write("cleaned")

    async def main():
        async with stubborn() as rx:
            assert await rx.recv() == 1
            await log.wait("at work")
        assert log == ["at work", "swallowed", "cleaned"]

    arun(main)


def test_a_generator_that_swallows_a_cancellation_from_outside_is_closed_at_its_next_yield(log):
    @weft.producer
    async def stubborn():
        try:
            while True:
                try:
                    yield 1
                except asyncio.CancelledError:
                    log.write("swallowed")
        finally:
            log.write("cleaned")

    async def consume():
        async with stubborn() as rx:
            assert await rx.recv() == 1
            log.write("here")
            await weft.never()

    async def main():
        task = asyncio.create_task(consume())
        await log.wait("here")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["here", "swallowed", "cleaned"]

    in_asyncio(main)


@both
def test_closing_the_receiver_stops_the_generator_before_the_block_is_left(arun, kind, log):
    async def main():
        async with of(kind, cleaning, cleaning_in_thread)(log) as rx:
            assert await rx.recv() == 0
            rx.close()
            await log.wait("same")
            assert log == [GeneratorExit, "same"]

    arun(main)


@needs("counted references")
@both
def test_dropping_the_receiver_stops_the_generator_before_the_block_is_left(arun, kind, log):
    async def main():
        async with of(kind, cleaning, cleaning_in_thread)(log) as rx:
            assert await rx.recv() == 0
            del rx
            await log.wait("same")
            assert log == [GeneratorExit, "same"]

    arun(main)


@both
@pytest.mark.parametrize("how", ["close", pytest.param("drop", marks=needs("counted references"))])
def test_a_generator_at_work_is_cancelled_at_once_when_its_last_receiver_leaves(arun, kind, how, log):
    async def main():
        async with of(kind, waiting, waiting_in_thread)(log) as rx:
            assert await rx.recv() == "first"
            await log.wait("at work")
            if how == "close":
                rx.close()
            else:
                del rx
            await log.wait("cleaned")
            assert log == ["at work", "cancelled", "cleaned"]

    arun(main)


@both
def test_a_generator_at_work_is_cancelled_when_its_last_receiver_leaves_in_another_thread(arun, kind, log):
    async def main():
        async with of(kind, waiting, waiting_in_thread)(log) as rx:
            assert await rx.recv() == "first"
            await log.wait("at work")
            async with weft.Group() as group:
                group.spawn(rx.close, on="thread")
            await log.wait("cleaned")
            assert log == ["at work", "cancelled", "cleaned"]

    arun(main)


@both
def test_a_generator_at_work_of_a_block_in_a_thread_is_cancelled_when_its_last_receiver_leaves(kind, log):
    with of(kind, waiting, waiting_in_thread)(log) as rx:
        assert rx.recv().wait() == "first"
        log.wait("at work").wait(LIMIT)
        rx.close()
        log.wait("cleaned").wait(LIMIT)
        assert log == ["at work", "cancelled", "cleaned"]


@both
def test_a_generator_at_work_goes_on_while_a_clone_of_its_receiver_is_left(arun, kind, log):
    async def main():
        async with of(kind, waiting, waiting_in_thread)(log) as rx:
            clone = rx.clone()
            assert await rx.recv() == "first"
            await log.wait("at work")
            rx.close()
            await checkpoint()
            assert log == ["at work"]
            clone.close()
            await log.wait("cleaned")

    arun(main)


def test_leaving_the_block_does_not_cancel_the_cleanup_that_the_last_receiver_has_brought_on(log):
    @weft.producer
    async def slow_to_clean():
        try:
            yield "first"
            log.write("at work")
            await weft.never()
        finally:
            log.write("cleaning")
            await may_end.wait()
            log.write("cleaned")

    async def main():
        async with slow_to_clean() as rx:
            assert await rx.recv() == "first"
            await log.wait("at work")
            rx.close()
            await log.wait("cleaning")
            asyncio.get_running_loop().call_soon(may_end.set)
        assert log == ["at work", "cleaning", "cleaned"]

    may_end = weft.Event()
    in_asyncio(main)


def test_a_thread_that_comes_to_its_yield_although_it_was_cancelled_cleans_up_undisturbed(log):
    """It was in code that no cancellation reaches. What its cleanup waits for is not cancelled in its stead."""
    go_on = threading.Event()

    @weft.producer
    def elsewhere():
        try:
            yield "first"
            log.write("at work")
            assert go_on.wait(LIMIT)
            yield "second"
        except BaseException as error:
            log.write(type(error))
            raise
        finally:
            weft.sleep(0).wait()
            log.write("cleaned")

    with elsewhere() as rx:
        assert rx.recv().wait() == "first"
        log.wait("at work").wait(LIMIT)
        rx.close()
        go_on.set()
        log.wait("cleaned").wait(LIMIT)
    assert log == ["at work", GeneratorExit, "cleaned"]


def test_a_consumer_that_dies_without_leaving_stops_the_generator(log):
    async def main():
        async def die():
            rx = await cleaning(log).__aenter__()  # nobody will leave this
            assert await rx.recv() == 0

        await asyncio.create_task(die())
        collect()
        await log.wait("same")
        assert log == [GeneratorExit, "same"]
        until_alone = asyncio.all_tasks() - {asyncio.current_task()}
        if until_alone:
            await asyncio.wait(until_alone)

    in_asyncio(main)


@both
def test_a_thread_that_dies_without_leaving_stops_the_generator(kind, log):
    def die():
        rx = of(kind, cleaning, cleaning_in_thread)(log).__enter__()
        assert next(rx) == 0

    thread = threading.Thread(target=die)
    thread.start()
    thread.join(LIMIT)
    collect()
    log.wait("same").wait(LIMIT)
    assert log == [GeneratorExit, "same"]


def test_a_clone_of_the_receiver_does_not_keep_the_block_open(arun, log):
    async def main():
        async with cleaning(log) as rx:
            clone = rx.clone()
            assert await clone.recv() == 0
        assert log == [GeneratorExit, "same"]
        with pytest.raises(weft.Poisoned):
            await clone.recv()

    arun(main)


def test_a_clone_of_the_receiver_keeps_the_generator_going_within_the_block(arun):
    async def main():
        async with count(2) as rx:
            clone = rx.clone()
            rx.close()
            assert [value async for value in clone] == [0, 1]

    arun(main)


# --- scopes: nothing of the generator is around the consumer ---------------------------------------------------------


def test_a_timeout_of_the_generator_that_runs_out_at_a_yield_is_raised_in_the_generator_alone(log):
    @weft.producer
    async def impatient():
        try:
            async with asyncio.timeout(0.01):
                yield 1
                yield 2
        except TimeoutError:
            log.write("timeout")
        yield 3

    async def main():
        async with impatient() as rx:
            assert await rx.recv() == 1
            await log.wait("timeout")  # the consumer is not cancelled
            assert [value async for value in rx] == [3]

    in_asyncio(main)


def test_a_trio_scope_of_the_generator_that_ends_at_a_yield_does_not_touch_the_consumer(log):
    @weft.producer
    async def impatient():
        with trio.CancelScope() as scope:
            log.scope = scope
            yield 1
            yield 2
        log.write("ended" if scope.cancelled_caught else "not cancelled")
        yield 3

    async def main():
        async with impatient() as rx:
            assert await rx.recv() == 1
            log.scope.cancel()
            await log.wait("ended")
            await trio.lowlevel.checkpoint()
            assert [value async for value in rx] == [3]

    in_trio(main)


def test_a_task_group_of_the_generator_fails_in_the_generator_and_not_in_the_consumer(log):
    @weft.producer
    async def grouped():
        async def fail():
            await log.wait("fail")
            raise Boom

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            yield 1
            try:
                yield 2
            finally:
                log.write("told")

    async def main():
        async with grouped() as rx:
            assert await rx.recv() == 1
            log.write("fail")
            await log.wait("told")
            with pytest.raises(ExceptionGroup) as caught:
                await rx.recv()
            assert [type(error) for error in caught.value.exceptions] == [Boom]

    in_asyncio(main)


def test_a_trio_nursery_around_a_yield_is_closed_in_the_task_that_opened_it(log):
    @weft.producer
    async def grouped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                while True:
                    yield 1
            finally:
                nursery.cancel_scope.cancel()
                log.write("cleaned")

    async def main():
        async with grouped() as rx:
            assert await rx.recv() == 1
        assert log == ["cleaned"]

    in_trio(main)


def test_what_closes_the_generator_is_no_error_of_its_task_groups(log):
    @weft.producer
    async def grouped():
        async def fail():
            try:
                await weft.never()
            finally:
                raise Boom

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(0)
            yield 1

    async def main():
        async with grouped() as rx:
            await rx.recv()

    with pytest.raises(ExceptionGroup) as caught:
        in_asyncio(main)
    assert [type(error) for error in caught.value.exceptions] == [Boom]


def test_producers_can_be_made_of_producers(arun, log):
    @weft.producer
    async def doubled():
        async with cleaning(log) as rx:
            async for value in rx:
                yield 2 * value

    async def main():
        async with doubled() as rx:
            assert [await rx.recv() for _ in range(3)] == [0, 2, 4]
        assert log[-1] == "same"

    arun(main)


def test_the_cleanup_of_an_inner_producer_is_not_cancelled_for_what_the_outer_had_received(arun, log):
    @weft.producer
    async def inner():
        try:
            for value in range(10**9):
                yield value
        finally:
            for _ in range(3):
                await weft.sleep(0)
            log.write("cleaned")

    @weft.producer
    async def outer():
        async with inner() as rx:
            async for value in rx:
                yield value

    async def main():
        async with outer() as rx:
            assert [await rx.recv() for _ in range(3)] == [0, 1, 2]

    for _ in range(5):  # how far the two are ahead of the consumer differs
        arun(main)
    assert list(log) == ["cleaned"] * 5


# --- errors ---------------------------------------------------------------------------------------------------------


@both
def test_an_error_of_the_generator_is_raised_at_recv_after_the_values_before_it(arun, kind):
    boom = Boom()
    got = []

    async def main():
        async with of(kind, failing, failing_in_thread)(3, boom) as rx:
            async for value in rx:
                got.append(value)

    with pytest.raises(Boom) as caught:
        arun(main)
    assert caught.value is boom
    assert got == [0, 1, 2]
    names = [entry.name for entry in caught.traceback]
    assert names.index("main") < names.index(of(kind, "failing", "failing_in_thread"))  # its own lines are shown
    assert not any("_feed" in name for name in names)


@both
def test_an_error_that_was_received_is_not_raised_again_on_leaving(arun, kind):
    async def main():
        async with of(kind, failing, failing_in_thread)(1, Boom()) as rx:
            assert await rx.recv() == 0
            with pytest.raises(Boom):
                await rx.recv()

    arun(main)


def test_an_error_that_was_received_in_a_thread_is_not_raised_again_on_leaving():
    with failing(1, Boom()) as rx:
        assert next(rx) == 0
        with pytest.raises(Boom):
            next(rx)
    with pytest.raises(Boom), failing_in_thread(1, Boom()) as rx:
        list(rx)


@both
def test_an_error_that_nobody_received_is_raised_on_leaving(arun, kind):
    boom = Boom()
    produce = weft.producer(capacity=5)(of(kind, failing, failing_in_thread).__wrapped__)

    async def main():
        async with produce(3, boom) as rx:
            assert await rx.recv() == 0
            while not rx.closed:
                await checkpoint()

    with pytest.raises(Boom) as caught:
        arun(main)
    assert caught.value is boom
    assert caught.value.__context__ is None


def test_an_error_of_the_cleanup_is_raised_on_leaving(arun):
    boom = Boom()

    async def main():
        async with failing_cleanup(boom) as rx:
            assert await rx.recv() == 1

    with pytest.raises(Boom) as caught:
        arun(main)
    assert caught.value is boom


def test_an_error_of_the_cleanup_is_raised_on_leaving_in_a_thread():
    with pytest.raises(Boom), failing_cleanup(Boom()) as rx:
        assert next(rx) == 1


@both
def test_an_error_of_the_body_stops_the_generator_and_leaves_as_it_is(arun, kind, log):
    boom = Boom()

    async def main():
        async with of(kind, cleaning, cleaning_in_thread)(log) as rx:
            assert await rx.recv() == 0
            raise boom

    with pytest.raises(Boom) as caught:
        arun(main)
    assert caught.value is boom
    assert boom.__context__ is None and not hasattr(boom, "__notes__")
    assert log == [GeneratorExit, "same"]


class Base(BaseException):
    pass


@both
@pytest.mark.parametrize("error", [Boom, Base])
def test_an_error_of_the_body_cancels_a_generator_at_work_and_leaves_as_it_is(arun, kind, error, log):
    async def main():
        async with of(kind, waiting, waiting_in_thread)(log) as rx:
            await rx.recv()
            await log.wait("at work")
            raise error

    with pytest.raises(error):
        arun(main)
    assert log == ["at work", "cancelled", "cleaned"]


def test_an_exception_group_of_the_body_leaves_as_it_is(arun):
    group = ExceptionGroup("the body's", [Boom()])

    async def main():
        async with count(9):
            raise group

    with pytest.raises(ExceptionGroup) as caught:
        arun(main)
    assert caught.value is group


def test_an_error_of_the_body_and_one_of_the_cleanup_are_raised_together(arun):
    mine, its = KeyError(), Boom()

    async def main():
        async with failing_cleanup(its) as rx:
            await rx.recv()
            raise mine

    with pytest.raises(
        ExceptionGroup, match="producer 'failing_cleanup': its block and its generator failed"
    ) as caught:
        arun(main)
    assert caught.value.exceptions == (mine, its)


def test_ctrl_c_in_the_generator_ends_the_program_and_not_quietly(log):
    def interrupted():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), weft.producer(interrupted)() as rx:
        list(rx)


def test_a_generator_that_ends_by_a_cancellation_nobody_asked_for_does_not_look_finished():
    @weft.producer
    async def cancelled():
        yield 1
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main():
        async with cancelled() as rx:
            assert await rx.recv() == 1
            with pytest.raises(weft.Cancelled, match="the generator of producer 'cancelled' was cancelled"):
                await rx.recv()

    in_asyncio(main)


# --- cancellation from outside --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["yield", "work"])
def test_cancelling_the_consumers_task_cancels_the_generator_first(log, at):
    async def consume():
        async with (cleaning if at == "yield" else waiting)(log) as rx:
            await rx.recv()
            if at == "work":
                await log.wait("at work")
            log.write("here")
            await weft.never()

    async def main():
        task = asyncio.create_task(consume())
        await log.wait("here")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        expected = [asyncio.CancelledError, "same"] if at == "yield" else ["cancelled", "cleaned"]
        assert log[-2:] == expected

    in_asyncio(main)


def test_a_timeout_around_the_block_is_a_timeout(log):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as timeout:
                async with cleaning(log) as rx:
                    await rx.recv()
                    timeout.reschedule(0)
                    await weft.never()
        assert asyncio.current_task().cancelling() == 0
        assert log == [asyncio.CancelledError, "same"]

    in_asyncio(main)


def test_an_error_of_the_cleanup_takes_the_place_of_a_cancellation():
    boom = Boom()

    async def main():
        with pytest.raises(Boom) as caught:
            async with asyncio.timeout(None) as timeout:
                async with failing_cleanup(boom) as rx:
                    await rx.recv()
                    timeout.reschedule(0)
                    await weft.never()
        assert caught.value is boom

    in_asyncio(main)


def test_a_trio_scope_around_the_block_cancels_the_generator_first(log):
    async def main():
        with trio.CancelScope() as scope:
            async with waiting(log) as rx:
                await rx.recv()
                await log.wait("at work")
                scope.cancel()
                await weft.never()
        assert scope.cancelled_caught
        assert log == ["at work", "cancelled", "cleaned"]

    in_trio(main)


def test_a_cancellation_while_the_block_waits_for_the_cleanup_cancels_the_cleanup(arun, log):
    @weft.producer
    async def stuck():
        try:
            yield 1
        finally:
            try:
                log.write("cleaning")
                await weft.never()
            except CANCELLED:
                log.write("cancelled")
                raise

    async def consume():
        async with stuck() as rx:
            await rx.recv()

    async def main():
        async with weft.Group() as group:
            group.spawn(consume)
            await log.wait("cleaning")
            group.cancel()
        assert log == ["cleaning", "cancelled"]

    arun(main)


@both
def test_a_cancelled_thread_cancels_its_producer(kind, log):
    def consume():
        with of(kind, waiting, waiting_in_thread)(log) as rx:
            rx.recv().wait()
            log.wait("at work").wait()
            log.write("here")
            weft.never().wait()

    with weft.Group() as group:
        process = group.spawn(consume)
        log.wait("here").wait(LIMIT)
        group.cancel()
    assert process.cancelled()
    assert log == ["at work", "here", "cancelled", "cleaned"]


def test_the_cleanup_of_a_generator_may_wait_when_the_block_is_left_in_trio(log):
    async def main():
        for error in None, Boom():
            with contextlib.suppress(Boom):
                async with cleaning(log) as rx:
                    await rx.recv()
                    if error is not None:
                        raise error
        assert log == [GeneratorExit, "same"] * 2

    in_trio(main)


# --- how it is used -------------------------------------------------------------------------------------------------


def test_it_decorates_methods_class_methods_and_partials(arun):
    class Source:
        factor = 3

        def __init__(self, n):
            self.n = n

        @weft.producer
        async def values(self, add=0):
            yield self.n + add

        @classmethod
        @weft.producer(capacity=1)
        def of_class(cls):
            yield cls.factor

        @staticmethod
        @weft.producer
        def plain(n):
            yield n

    async def main():
        source = Source(5)
        blocks = [source.values(add=1), Source.of_class(), Source.plain(4)]
        for block in [*blocks, weft.producer(functools.partial(count.__wrapped__, 1))()]:
            async with block as rx:
                blocks.append([value async for value in rx])
        assert blocks[-4:] == [[6], [3], [4], [0]]

    arun(main)


def test_it_keeps_the_name_and_docstring_of_the_function():
    assert cleaning.__name__ == "cleaning"
    assert cleaning.__doc__.startswith("Its cleanup")
    with count(1) as rx:
        assert rx.name == "count"


def test_only_generator_functions_are_taken():
    async def no_yield():
        return 1

    for wrong in (no_yield, lambda: [1], 5):
        with pytest.raises(TypeError, match="takes a generator function"):
            weft.producer(wrong)
    with pytest.raises(TypeError, match="put @staticmethod or @classmethod above it"):
        weft.producer(classmethod(count.__wrapped__))


def test_the_capacity_is_checked_where_the_decorator_stands():
    with pytest.raises(ValueError):
        weft.producer(capacity=-1)
    with pytest.raises(TypeError):
        weft.producer(capacity="many")


def test_wrong_arguments_are_a_type_error_of_the_call():
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        count()


def test_it_is_entered_once(arun):
    async def main():
        block = count(1)
        async with block:
            pass
        with pytest.raises(RuntimeError, match="producer 'count' was entered before"):
            async with block:
                pass

    arun(main)


def test_one_that_is_never_entered_runs_nothing_and_warns_of_nothing(log):
    count(3, log), count_in_thread(3, log)
    gc.collect()
    assert log == []


def test_iterating_over_one_that_was_not_entered_says_to_enter_it(arun):
    async def main():
        for block in (count(2), count_in_thread(2)):
            with pytest.raises(TypeError, match="producer 'count.*enter it with `async with`"):
                async for _ in block:
                    pass
            with pytest.raises(TypeError, match="producer 'count.*enter it with `with`"):
                list(block)
            async with block as rx:  # it can still be
                assert [n async for n in rx] == [0, 1]

    arun(main)


def test_with_is_refused_where_it_would_block_a_loop(arun):
    async def main():
        with pytest.raises(weft.BlockingInLoopError, match="use `async with`"):
            with count(1):
                pass
        async with count(1) as rx:  # and nothing was spoilt
            assert await rx.recv() == 0

    arun(main)


def test_async_with_is_refused_outside_of_a_loop():
    async def main():
        async with count(1):
            pass

    coroutine = main()
    with pytest.raises(RuntimeError, match="in a plain thread use `with`"):
        coroutine.send(None)


@both
def test_nothing_is_left_alive(arun, kind):
    def living():
        gc.collect()
        names = ("Production", "Group", "Channel", "Receiver", "Sender", "TaskProcess", "TrioProcess", "ThreadProcess")
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        return [name for name in kinds if name in (*names, "async_generator", "generator")]

    async def main():
        for _ in range(3):
            async with of(kind, count, count_in_thread)(3) as rx:
                await rx.recv()
            with contextlib.suppress(Boom):
                async with of(kind, failing, failing_in_thread)(0, Boom()) as rx:
                    await rx.recv()
            del rx

    arun(main)
    before = len(living())
    arun(main)
    assert len(living()) - before < 3


def test_in_gevent_the_other_greenlets_go_on(python):
    pytest.importorskip("gevent")
    output = python(
        """
        import gevent, weft

        @weft.producer
        def count(n):
            try:
                for i in range(n):
                    yield i
            finally:
                print("cleaned")

        @weft.producer
        async def count_async(n):
            for i in range(n):
                yield i

        gate = weft.Channel()

        @weft.producer
        def gated():
            yield gate.recv().wait()

        def opener():
            print("the other greenlet runs")
            gate.send("opened").wait()

        with count(10) as rx:
            print(next(rx), next(rx))
        with count_async(3) as rx:
            print(list(rx))
        with gated() as rx:
            other = gevent.spawn(opener)
            print(list(rx))
            other.join()
        """
    )
    assert output.splitlines() == ["0 1", "cleaned", "[0, 1, 2]", "the other greenlet runs", "['opened']"]
