"""Of a burst of processes, those that have not begun are hidden from the collector (task.rs, `hide`): it need not walk them
again and again. They are known to it from the step in which they begin, and when nobody will begin them any more."""

import asyncio
import contextlib
import gc
import weakref

import pytest
import weft
from weft import _task
from worlds import collect

pytestmark = pytest.mark.skipif(not _task._steps_tasks, reason="here processes are asyncio's own tasks")

never_awaited = pytest.mark.filterwarnings("ignore:coroutine 'returns' was never awaited")

SEEN = 1024  # in group.rs
BURST = SEEN + 500


class Value:
    """What a process is given, and leads back to its group."""

    def __init__(self, group):
        self.group = group
        self.process = None


def is_hidden(process):
    """Whether the collector knows neither the process nor its task nor its coroutine."""
    tracked = {gc.is_tracked(it) for it in (process, process._task, process._task.get_coro())}
    assert len(tracked) == 1
    return not tracked.pop()


async def returns(value):
    return value


def test_only_those_of_a_burst_that_have_not_begun_are_hidden():
    async def main():
        seen = []

        async def child(i):
            seen.append((i, is_hidden(processes[i])))
            return i

        async with weft.Group() as group:
            processes = [group.spawn(child, i) for i in range(BURST)]
            assert [is_hidden(process) for process in processes] == [i >= SEEN for i in range(BURST)]
        assert seen == [(i, False) for i in range(BURST)]
        assert [process.result() for process in processes] == list(range(BURST))
        assert all(map(gc.is_tracked, processes))

    asyncio.run(main())


def test_those_that_nobody_kept_begin_all_the_same():
    async def main():
        begun = []

        async def child(i):
            begun.append(i)

        async with weft.Group() as group:
            for i in range(BURST):
                process = group.spawn(child, i)
                if i % 2:
                    del process
            gc.collect()
        assert begun == list(range(BURST))

    asyncio.run(main())


def test_to_the_program_they_are_tasks_like_others():
    async def main():
        async with weft.Group() as group:
            processes = [group.spawn(returns, i) for i in range(BURST)]
            last = processes[-1]._task
            assert is_hidden(processes[-1])
            assert last in asyncio.all_tasks()
            assert last._fut_waiter is None
            assert not last.done() and last.get_name().startswith("returns")
            assert last.get_coro() in gc.get_referents(last) and processes[-1] not in gc.get_referents(last)
            named = [process.name for process in weft.snapshot().processes]
            assert sorted(named) == sorted(process._task.get_name() for process in processes)
            joined = asyncio.ensure_future(last)
            assert await joined == BURST - 1

    asyncio.run(main())


def test_what_they_were_given_is_not_taken_for_garbage():
    async def main():
        async def child(value):
            return value.group is group

        async with weft.Group() as group:
            processes = [group.spawn(child, Value(group)) for _ in range(BURST)]
            gc.collect()
        assert all(process.result() for process in processes)

    asyncio.run(main())


@pytest.mark.parametrize("by", ["the group", "each", "an error"])
def test_those_that_are_cancelled_before_they_begin_do_not_run(by):
    gone = []

    async def main():
        begun = []

        async def child(value):
            begun.append(value)

        async def fails():
            raise LookupError

        with contextlib.suppress(ExceptionGroup):
            async with weft.Group() as group:
                if by == "an error":
                    group.spawn(fails)
                processes = []
                for _ in range(BURST):
                    value = Value(group)
                    processes.append(group.spawn(child, value))
                    value.process = processes[-1]
                gone.append(weakref.ref(value))
                if by == "the group":
                    group.cancel()
                elif by == "each":
                    for process in processes:
                        process.cancel()
        assert all(process.done and process.cancelled() for process in processes)
        assert begun == []

    asyncio.run(main())
    collect()
    assert gone[0]() is None


@never_awaited
@pytest.mark.parametrize("keeps", ["the processes", "nothing", "a coroutine"])
@pytest.mark.parametrize("closes", [True, False], ids=["closed", "dropped"])
def test_those_of_a_loop_that_has_ended_are_known_again_and_are_collected(keeps, closes):
    kept, gone, groups = [], [], []

    def start(loop):
        async def spawn():
            group = await weft.Group().__aenter__()
            groups.append(weakref.ref(group))
            for _ in range(BURST):
                value = Value(group if closes else None)  # of an open loop that leads to it they would stay
                value.process = group.spawn(returns, value)
                gone.append(weakref.ref(value))
                if keeps == "the processes":
                    kept.append(value.process)
            assert is_hidden(value.process)
            if keeps == "a coroutine":
                kept.append(value.process._task.get_coro())
            loop.stop()  # after this turn, in whose next one they would begin

        loop.create_task(spawn())

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # that they were destroyed, pending
    loop.call_soon(start, loop)
    loop.run_forever()
    if closes:
        loop.close()
        assert not any(map(is_hidden, kept if keeps == "the processes" else []))
    else:
        loop._selector.close()
        loop._ssock.close(), loop._csock.close()
        loop._selector = None
        loop._closed = True  # it was not, but is not to complain
    del loop
    collect()
    if keeps == "a coroutine":
        kept[0].close()
    kept.clear()
    collect()
    collect()
    assert [ref for ref in gone + groups if ref() is not None] == []


@never_awaited
@pytest.mark.parametrize("while_it_is", ["told to weak references", "in a long row"])
def test_a_process_that_is_forgotten_in_the_moment_in_which_its_loop_lets_go_of_it(while_it_is):
    processes = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)

    async def spawn():
        group = await weft.Group().__aenter__()
        for _ in range(20 * BURST):
            processes.append(group.spawn(returns, None))
        loop.stop()

    class Link:
        def __init__(self, process, further):
            self.process, self.further = process, further

    class Last:
        def __del__(self):
            loop.close()

    loop.call_soon(lambda: loop.create_task(spawn()))
    loop.run_forever()
    assert is_hidden(processes[-1])
    if while_it_is == "told to weak references":
        watched = weakref.ref(processes[-1], lambda ref: loop.close())
        processes.pop()
        assert watched() is None
    else:
        row = Last()
        while processes:
            row = Link(processes.pop(), row)
        del row
    assert loop.is_closed()
    gc.collect()
    processes.clear()
    gc.collect()


@never_awaited
def test_a_process_of_a_loop_that_is_gone_is_in_nobodys_way():
    """asyncio asks each task that it knows for its loop, also when it looks for those of another one."""
    processes = []

    async def spawn():
        group = await weft.Group().__aenter__()
        processes.extend(group.spawn(returns, None) for _ in range(3))
        loop.stop()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.call_soon(lambda: loop.create_task(spawn()))
    loop.run_forever()
    loop.close()
    loop = None
    collect()
    collect()
    assert processes[0]._task.get_loop() is None

    async def counts():
        async with weft.Group() as group:
            return group.spawn(returns, len(asyncio.all_tasks()))

    assert asyncio.run(counts()).result() == 1
    processes.clear()
    collect()
