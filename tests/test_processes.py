"""Processes of a group in an asyncio loop are stepped by weft and are asyncio tasks to the program: all that a task is."""

import asyncio
import contextlib
import contextvars
import functools
import gc
import os
import subprocess
import sys
import textwrap
import threading
import traceback
import types
import warnings
import weakref
from collections import Counter
from time import monotonic

import pytest
import weft
import worlds
from weft import _task
from worlds import LIMIT

pytestmark = pytest.mark.skipif(not _task._steps_tasks, reason="here processes are asyncio's own tasks")


# rloop leaves it to the collector to close its sockets, and calls what Python 3.14 would rather have it not call.
NOT_OURS = pytest.mark.filterwarnings(
    "ignore:.*unclosed:pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed",
    "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning",
)
UNLIKE_ASYNCIO = {  # what rloop 0.5 does in another way, for asyncio's own tasks too
    "test_anyio_inside_it": "rloop's timers are early by less than a millisecond, which anyio takes for no timeout",
    "test_one_that_is_dropped_half_way_is_reported_and_closed": "rloop calls an exception handler without the loop",
}


@pytest.fixture(params=["asyncio", "uvloop", pytest.param("rloop", marks=NOT_OURS)])
def run(request):
    if (
        why := worlds.missing(request.param)
        or request.param == "rloop"
        and UNLIKE_ASYNCIO.get(request.function.__name__)
    ):
        pytest.skip(why)
    return functools.partial(worlds.run_in_asyncio, loop_factory=worlds.loop_factory(request.param))


async def turns(condition):
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0)


async def receive(ch):
    with contextlib.suppress(weft.Closed):
        await ch.recv()


async def wait_for_ever():
    await asyncio.get_running_loop().create_future()


def in_process(run, body, *args):
    """Run an async function as a process; what it returned."""

    async def main():
        async with weft.Group() as g:
            process = g.spawn(body, *args)
        return process.result()

    return run(main)


# --- it is a task ----------------------------------------------------------------------------------------------------


def test_it_is_stepped_by_weft(run):
    async def body():
        return asyncio.current_task()

    assert type(in_process(run, body)) is weft._weft.Task


def test_it_is_the_current_task_at_each_step(run):
    async def body(ch, log):
        me = asyncio.current_task()
        await asyncio.sleep(0)
        log.append(asyncio.current_task() is me)
        await ch.recv()
        log.append(asyncio.current_task() is me)
        await asyncio.sleep(0.001)
        log.append(asyncio.current_task() is me)

    async def main():
        ch, log = weft.Channel(), []
        me = asyncio.current_task()
        async with weft.Group() as g:
            for _ in range(3):
                g.spawn(body, ch, log)
            for _ in range(3):
                await ch.send(None)
                assert asyncio.current_task() is me
        assert log == [True] * 9

    run(main)


def test_no_task_is_current_in_callbacks(run):
    async def body(log):
        asyncio.get_running_loop().call_soon(lambda: log.append(asyncio.current_task()))
        asyncio.current_task().add_done_callback(lambda _: log.append(asyncio.current_task()))
        await asyncio.sleep(0)

    async def main():
        log = []
        async with weft.Group() as g:
            g.spawn(body, log)
        await turns(lambda: len(log) == 2)
        assert log == [None, None]

    run(main)


def test_all_tasks_has_those_that_are_not_done(run):
    async def main():
        alone = asyncio.all_tasks()
        gate, found = weft.Event(), []

        async def body():
            found.append(asyncio.current_task())
            await gate.wait()

        async with weft.Group() as g, weft.Group() as h:
            for group in (g, h, h):
                group.spawn(body)
            await turns(lambda: len(found) == 3)
            assert asyncio.all_tasks() == {*alone, *found}
            gate.set()
            await turns(lambda: found[-1].done())
            assert not asyncio.all_tasks() & {*found}
        assert asyncio.all_tasks() == alone

    run(main)


def test_the_tasks_of_another_loop_are_not_among_them(run):
    async def body(gate):
        await gate.recv()

    async def main():
        gate, begun = weft.Channel(), weft.Event()

        def elsewhere():
            async def there():
                async with weft.Group() as g:
                    g.spawn(body, gate)
                    await asyncio.sleep(0)
                    begun.set()

            asyncio.run(there())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await begun.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await gate.send(None)
        thread.join(LIMIT)
        assert not thread.is_alive()

    run(main)


def test_its_name(run):
    async def body():
        task = asyncio.current_task()
        names = [task.get_name()]
        task.set_name(17)
        return [*names, task.get_name()]

    async def main():
        async with weft.Group() as g:
            first, second = g.spawn(body), g.spawn(body, name="mine")
            assert (first.name, second.name) == ("body-1", "mine")
        assert (first.result(), second.result()) == (["body-1", "17"], ["mine", "17"])

    run(main)


def test_a_timeout_ends_its_wait(run):
    async def body():
        try:
            async with asyncio.timeout(0.001):
                await weft.Channel().recv()
        except TimeoutError:
            return asyncio.current_task().cancelling()

    assert in_process(run, body) == 0


def test_wait_for_and_shield(run):
    async def body():
        ch = weft.Channel(1)
        inner = asyncio.ensure_future(asyncio.wait_for(ch.recv(), LIMIT))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.001)
        await ch.send("v")
        return await inner

    assert in_process(run, body) == "v"


def test_a_task_group_and_gather_inside_it(run):
    async def double(n):
        await asyncio.sleep(0)
        return 2 * n

    async def fail():
        raise ValueError("inside")

    async def body():
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(double(n)) for n in range(3)]
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await wait_for_ever()
        assert [*map(repr, caught.value.exceptions)] == ["ValueError('inside')"]
        return [task.result() for task in made], await asyncio.gather(double(3), double(4))

    assert in_process(run, body) == ([0, 2, 4], [6, 8])


def test_it_waits_for_futures_of_all_kinds(run):
    class Own:
        """What a library may have: yields a future of its own accord."""

        def __init__(self, future):
            self.future = future

        def __await__(self):
            self.future._asyncio_future_blocking = True
            yield self.future
            return "woken"

    async def body():
        loop = asyncio.get_running_loop()
        future, failing = loop.create_future(), loop.create_future()
        loop.call_soon(future.set_result, 1)
        loop.call_soon(failing.set_exception, KeyError("k"))
        with pytest.raises(KeyError):
            await failing
        other = loop.create_future()
        loop.call_soon(other.set_result, None)
        return await future, await Own(other), await loop.run_in_executor(None, lambda: 3)

    assert in_process(run, body) == (1, "woken", 3)


@pytest.mark.parametrize("what", ["nonsense", "a future of another loop", "a future that was not awaited", "itself"])
def test_it_is_told_when_it_yields_what_cannot_be_waited_for(run, what):
    class Yields:
        def __await__(self):
            if what == "nonsense":
                yield 5
            elif what == "itself":
                task = asyncio.current_task()
                task._asyncio_future_blocking = True
                yield task
            elif what == "a future that was not awaited":
                yield asyncio.get_running_loop().create_future()
            else:
                loop = asyncio.new_event_loop()
                try:
                    future = loop.create_future()
                    future._asyncio_future_blocking = True
                    yield future
                finally:
                    loop.close()

    async def body():
        with pytest.raises(RuntimeError) as caught:
            await Yields()
        await asyncio.sleep(0)
        return str(caught.value)

    expected = {
        "nonsense": "Task got bad yield: 5",
        "a future of another loop": "attached to a different loop",
        "a future that was not awaited": "yield was used instead of yield from in task",
        "itself": "Task cannot await on itself",
    }
    assert expected[what] in in_process(run, body)


def test_it_can_be_awaited_gathered_and_waited_for(run):
    async def main():
        tasks = []

        async def body(n):
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0.001)
            return n

        async with weft.Group() as g:
            for n in range(3):
                g.spawn(body, n)
            await turns(lambda: len(tasks) == 3)
            assert asyncio.isfuture(tasks[0])
            assert await tasks[0] == 0
            assert await asyncio.gather(*tasks) == [0, 1, 2]
            assert await asyncio.wait(tasks) == ({*tasks}, set())
            assert await asyncio.ensure_future(tasks[1]) == 1
            assert [task.result() for task in tasks] == [0, 1, 2]

    run(main)


def test_its_outcome_before_it_is_there(run):
    async def body():
        task = asyncio.current_task()
        with pytest.raises(asyncio.InvalidStateError, match=r"Result is not ready\."):
            task.result()
        with pytest.raises(asyncio.InvalidStateError, match=r"Exception is not set\."):
            task.exception()
        return task.done(), task.cancelled()

    assert in_process(run, body) == (False, False)


def test_done_callbacks_have_their_context_and_come_in_order(run):
    var = contextvars.ContextVar("var", default="none")

    async def main():
        log, tasks = [], []

        def note(which, task):
            log.append((which, task is tasks[0], var.get()))

        async def body():
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)

        async with weft.Group() as g:
            g.spawn(body)
            await turns(lambda: tasks)
            (task,) = tasks
            var.set("caller's")
            task.add_done_callback(functools.partial(note, 1))
            context = contextvars.copy_context()
            context.run(var.set, "given")
            task.add_done_callback(functools.partial(note, 2), context=context)
            dropped = functools.partial(note, "dropped")
            task.add_done_callback(dropped)
            task.add_done_callback(dropped)
            assert task.remove_done_callback(dropped) == 2
            assert task.remove_done_callback(dropped) == 0
        await turns(lambda: len(log) == 2)
        task.add_done_callback(functools.partial(note, 3))
        assert len(log) == 2
        await turns(lambda: len(log) == 3)
        assert log == [(1, True, "caller's"), (2, True, "given"), (3, True, "caller's")]

    run(main)


def test_cancel_uncancel_and_cancelling(run):
    async def body():
        task = asyncio.current_task()
        assert task.cancel("first")
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError, match="first"):
            await weft.Channel().recv()
        assert task.uncancel() == 0
        assert task.uncancel() == 0
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await wait_for_ever()
        return task.uncancel()

    assert in_process(run, body) == 0


def test_a_message_reaches_who_asks_for_the_result(run):
    async def main():
        tasks = []

        async def body():
            tasks.append(asyncio.current_task())
            await weft.Channel().recv()

        async with weft.Group() as g:
            g.spawn(body)
            await turns(lambda: tasks and tasks[0]._fut_waiter is not None)
            tasks[0].cancel("because")
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError, match="because"):
                tasks[0].result()
        with pytest.raises(asyncio.CancelledError, match="because"):
            tasks[0].exception()

    run(main)


def test_the_message_is_kept_when_what_it_waits_for_refuses_the_cancel(run):
    class Stubborn(asyncio.Future):
        def cancel(self, msg=None):
            return False

    async def body():
        future = Stubborn()
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel, "why")
        asyncio.get_running_loop().call_later(0.001, future.set_result, None)
        with pytest.raises(asyncio.CancelledError, match="why"):
            await future
        return asyncio.current_task().uncancel()

    assert in_process(run, body) == 0


def test_gather_is_cancelled_with_one_of_them(run):
    async def main():
        tasks = []

        async def body():
            tasks.append(asyncio.current_task())
            await wait_for_ever()

        async with weft.Group() as g:
            process = g.spawn(body)
            await turns(lambda: tasks)
            gathered = asyncio.gather(*tasks)
            process.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gathered

    run(main)


def test_a_future_it_no_longer_waits_for_does_not_wake_it(run):
    class Breaks(asyncio.Future):
        """Its cancel fails, so the process goes on without it."""

        def cancel(self, msg=None):
            raise ValueError("no")

    async def body():
        future, ch = Breaks(), weft.Channel()
        asyncio.current_task().cancel()
        with pytest.raises((ValueError, asyncio.CancelledError)):
            await future
        loop = asyncio.get_running_loop()
        loop.call_soon(future.set_result, None)
        loop.call_later(0.001, lambda: ch.send_nowait("v"))
        while True:
            try:
                return await ch.recv()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()

    assert in_process(run, body) == "v"


def test_one_that_is_cancelled_before_its_first_step_never_runs(run):
    async def main():
        log = []

        async def body():
            log.append("ran")

        async with weft.Group() as g:
            process = g.spawn(body)
            process.cancel()
        assert process.cancelled()
        assert not log

    run(main)


def test_a_cancel_that_comes_with_its_return_wins(run):
    async def body():
        asyncio.current_task().cancel()

    async def main():
        async with weft.Group() as g:
            process = g.spawn(body)
        assert process.cancelled()

    run(main)


def test_context_variables_are_its_own(run):
    var = contextvars.ContextVar("var", default=0)

    async def body(n, ch):
        seen = [var.get()]
        var.set(n)
        await ch.recv()
        seen.append(var.get())
        return seen, asyncio.current_task().get_context()[var]

    async def main():
        ch = weft.Channel()
        var.set(10)
        async with weft.Group() as g:
            processes = [g.spawn(body, n, ch) for n in range(3)]
            for _ in range(3):
                await ch.send(None)
        assert [p.result() for p in processes] == [([10, n], n) for n in range(3)]
        assert var.get() == 10

    run(main)


def test_its_stack_and_repr(run, capsys):
    async def inner(gate):
        await gate.wait()

    async def body(gate):
        await inner(gate)

    async def main():
        gate = weft.Event()
        async with weft.Group() as g:
            g.spawn(body, gate)
            await asyncio.sleep(0)
            (task,) = g._tasks
            (frame,) = task.get_stack()
            assert frame.f_code.co_name == "body"
            assert repr(task).startswith("<Task pending name='body-1' coro=<")
            task.print_stack(file=sys.stderr)
            gate.set()
        assert "<Task finished name='body-1' coro=<" in repr(task)
        assert "result=None" in repr(task)

    run(main)
    assert "Stack for <Task pending name='body-1'" in capsys.readouterr().err


def test_it_takes_attributes_and_weak_references(run):
    async def body():
        task = asyncio.current_task()
        task.mark = "mine"
        return weakref.WeakKeyDictionary({task: 1})[task], task.mark

    assert in_process(run, body) == (1, "mine")


def test_anyio_inside_it(run):
    anyio = pytest.importorskip("anyio")

    async def body():
        log = []
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        log.append(scope.cancelled_caught)
        send, receive = anyio.create_memory_object_stream[int](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send.send, 5)
            log.append(await receive.receive())
        send.close()
        receive.close()
        with anyio.CancelScope() as scope:
            scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
                log.append("shielded")
            await anyio.lowlevel.checkpoint()
            log.append("never")
        log.append(await anyio.to_thread.run_sync(lambda: 3))
        return log

    assert in_process(run, body) == [True, 5, "shielded", 3]


def test_the_loops_own_streams_inside_it(run):
    async def echo(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def body():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"line\n")
            answer = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return answer

    assert in_process(run, body) == b"line\n"


# --- where it is not stepped by weft -----------------------------------------------------------------------------------


def test_in_debug_mode_it_is_asyncios_own():
    async def body():
        return type(asyncio.current_task())

    async def main():
        async with weft.Group() as g:
            process = g.spawn(body)
        return process.result()

    assert asyncio.run(main(), debug=True) is asyncio.Task


call_graphs = pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's call graphs came with Python 3.14")


@call_graphs
@pytest.mark.parametrize("how", ["debug mode", "task factory"])
def test_where_it_is_asyncios_own_it_is_in_the_call_graph(how):
    async def inner(ch):
        await ch.recv()

    async def waits(ch):
        await inner(ch)

    async def draws():
        return asyncio.format_call_graph()

    async def main():
        if how == "task factory":
            asyncio.get_running_loop().set_task_factory(lambda loop, coro, **how: asyncio.Task(coro, loop=loop, **how))
        ch = weft.Channel()
        async with weft.Group() as g:
            waiting = g.spawn(waits, ch, name="waits here")
            drawing = g.spawn(draws)
            while worlds.parked(ch) != (0, 1) or not drawing.done:
                await asyncio.sleep(0)
            task = next(task for task in asyncio.all_tasks() if task.get_name() == waiting.name)
            graph = asyncio.format_call_graph(task)
            ch.send_nowait(None)
        return graph, drawing.result()

    other, own = asyncio.run(main(), debug=how == "debug mode")
    assert "Task(name='waits here'" in other
    assert other.index("inner()") < other.index("waits()")
    assert "draws()" in own


OBSERVED = """
import asyncio, sys
import weft

async def waits(ch):
    await ch.recv()

async def main():
    ch = weft.Channel()
    task = asyncio.create_task(waits(ch), name="its own")
    async with weft.Group() as g:
        g.spawn(waits, ch, name="of the group")
        while ch.statistics().parked_receivers < 2:
            await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        g.cancel()
        task.cancel()

asyncio.run(main(), debug=sys.argv[1] == "debug")
"""


@call_graphs
@pytest.mark.parametrize("command", ["ps", "pstree"])
@pytest.mark.parametrize("mode", ["debug", "normal"])
def test_asyncios_view_from_another_program(command, mode):
    """In debug mode it shows processes, and otherwise at least all that is asyncio's own."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OBSERVED, mode], **pipes) as program:
        assert program.stdout.readline() == "ready\n"
        looking = [sys.executable, "-m", "asyncio", command, str(program.pid)]
        seen = subprocess.run(looking, capture_output=True, text=True, timeout=LIMIT)
        program.stdin.close()
    if "ermission" in seen.stdout + seen.stderr:
        pytest.skip("no permission to read the memory of another process")
    assert seen.returncode == 0, seen.stderr
    assert program.returncode == 0
    assert "its own" in seen.stdout
    assert ("of the group" in seen.stdout) == (mode == "debug")


def test_with_a_task_factory_it_is_what_that_makes(run):
    made = []

    def factory(loop, coroutine, **how):
        task = asyncio.Task(coroutine, loop=loop, **how)
        made.append(task)
        return task

    async def body():
        return asyncio.current_task()

    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        async with weft.Group() as g:
            process = g.spawn(body)
        assert process.result() is made[-1]

    run(main)


# --- what ends it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_comes_out_of_it(kind):
    async def body():
        raise kind("stop")

    async def main():
        async with weft.Group() as g:
            g.spawn(body)
            g.spawn(weft.Channel().recv)
            await wait_for_ever()

    with pytest.raises(kind, match="stop"):
        asyncio.run(main())


def test_one_that_is_dropped_half_way_is_reported_and_closed(run):
    async def main():
        loop = asyncio.get_running_loop()
        reports, ended = [], []
        loop.set_exception_handler(lambda _, context: reports.append(context))

        async def body():
            try:
                await weft.Channel().recv()
            finally:
                ended.append(True)

        g = weft.Group()
        await g.__aenter__()
        g.spawn(body)
        await asyncio.sleep(0)
        del g
        await turns(lambda: gc.collect() >= 0 and ended)
        assert [report["message"] for report in reports] == ["Task was destroyed but it is pending!"]
        assert type(reports.pop()["task"]) is weft._weft.Task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run(main)


def test_a_loop_that_is_closed_with_processes_that_wait_is_collected(run):
    del run  # a loop of its own, left behind
    seen = []

    def leave():
        loop = asyncio.new_event_loop()

        async def body(ch):
            await ch.recv()

        async def main():
            async with weft.Group() as g:
                for _ in range(3):
                    g.spawn(body, weft.Channel())
                g.spawn(wait_for_ever)
                await wait_for_ever()

        loop.set_exception_handler(lambda *_: None)
        loop.create_task(main())
        loop.call_later(0.01, loop.stop)
        loop.run_forever()
        seen.append(weakref.ref(loop))
        loop.close()

    leave()
    deadline = monotonic() + LIMIT
    while seen[0]() is not None and monotonic() < deadline:
        gc.collect()
    assert seen[0]() is None


def test_an_error_has_the_traceback_and_the_notes(run):
    async def body():
        await asyncio.sleep(0)
        raise ValueError("here")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group("g") as g:
                process = g.spawn(body)
        (error,) = caught.value.exceptions
        text = "".join(traceback.format_exception(error))
        assert 'raise ValueError("here")' in text
        assert "in process 'body-1' (task), spawned at " in text and "test_processes.py:" in text
        lengths = set()
        for _ in range(3):
            with pytest.raises(ValueError, match="here"):
                process.result()
            lengths.add(len(traceback.extract_tb(error.__traceback__)))
        assert len(lengths) == 1, "each who asks adds its own lines"

    run(main)


def test_who_asks_the_task_leaves_no_lines_in_the_traceback(run):
    async def body():
        raise ValueError

    async def main():
        async with weft.Group() as g:
            with pytest.raises(asyncio.CancelledError):
                g.spawn(body)
                (task,) = g._tasks
                await wait_for_ever()
            asyncio.current_task().uncancel()
            lengths = set()
            for _ in range(3):
                with pytest.raises(ValueError):
                    task.result()
                lengths.add(len(traceback.extract_tb(task.exception().__traceback__)))
            assert len(lengths) == 1

    with pytest.raises(ExceptionGroup):
        run(main)


def test_an_error_that_would_end_an_iteration_is_wrapped(run):
    async def body():
        raise StopAsyncIteration

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as g:
                process = g.spawn(body)
        (error,) = caught.value.exceptions
        assert type(error) is RuntimeError and type(error.__cause__) is StopAsyncIteration
        with pytest.raises(RuntimeError, match="process 'body-1' raised StopAsyncIteration"):
            process.result()

    run(main)


def test_who_waits_for_one_that_was_cancelled_along_with_it_is_cancelled(run):
    async def main():
        tasks = []

        async def waits():
            await weft.Channel().recv()

        async def joins(process):
            tasks.append(asyncio.current_task())
            await process.join()

        async with weft.Group() as g:
            joiner = g.spawn(joins, g.spawn(waits))
            await turns(lambda: tasks and tasks[0]._fut_waiter is not None)
            g.cancel()
        assert joiner.cancelled()
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError):
                tasks[0].result()

    run(main)


def test_callbacks_that_cannot_be_scheduled_keep_nobody_from_the_end():
    async def main():
        loop, log = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _, context: log.append(context["exception"]))

        async def no_function(task):
            pass

        async def body():
            task = asyncio.current_task()
            task.add_done_callback(no_function)
            task.add_done_callback(lambda _: log.append("called"))

        async with weft.Group() as g:
            g.spawn(body)
            loop.set_debug(True)  # now the loop refuses coroutine functions
        loop.set_debug(False)
        await turns(lambda: "called" in log)
        return log

    assert [type(entry).__name__ for entry in worlds.run_in_asyncio(main) if entry != "called"] == ["TypeError"]


def test_an_interrupt_while_the_group_is_told_goes_out_of_the_loop(monkeypatch):
    def interrupted(self, task):
        raise KeyboardInterrupt("in the middle")

    async def fails():
        raise ValueError

    async def main():
        async with weft.Group() as g:
            monkeypatch.setattr(weft.Group, "_task_failed", interrupted)
            g.spawn(fails)

    with pytest.raises(KeyboardInterrupt, match="in the middle"):
        asyncio.run(main())


def test_a_group_that_is_cancelled_while_one_is_being_made_cancels_that_too(run):
    async def main():
        loop = asyncio.get_running_loop()
        g = weft.Group()
        original = loop.call_soon

        def call_soon(callback, *args, **how):
            g.cancel()  # as a signal handler may, in the middle of a spawn
            return original(callback, *args, **how)

        async with g:
            try:
                loop.call_soon = call_soon
            except AttributeError:
                pytest.skip("this loop's methods cannot be replaced")
            try:
                first, second = g.spawn(wait_for_ever), g.spawn(wait_for_ever, name="second")
            finally:
                del loop.call_soon
        assert first.cancelled() and second.cancelled()

    run(main)


def test_processes_of_a_group_that_was_never_left_are_cancelled_with_the_rest(run):
    ended = []

    async def body():
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ended.append(asyncio.current_task().cancelling())

    async def main():
        g = weft.Group()
        await g.__aenter__()
        g.spawn(body)
        await asyncio.sleep(0)
        del g
        gc.collect()
        assert len(asyncio.all_tasks()) == 2

    run(main)
    assert ended == [1]


def test_the_group_says_how_many_run(run):
    async def main():
        async with weft.Group("mine") as g:
            for _ in range(2):
                g.spawn(wait_for_ever)
            assert repr(g) == "<weft.Group 'mine' open, 2 running>"
            g.cancel()
        assert repr(g) == "<weft.Group 'mine' ended, 0 running>"

    run(main)


# --- the queue ---------------------------------------------------------------------------------------------------------


def test_two_that_chatter_starve_neither_timers_nor_descriptors_nor_tasks(run):
    """L13: the loop is handed back in a millisecond. (How late exactly is the machine's business.)"""

    async def chatter(mine, other, stop):
        while not stop:
            await other.send(None)
            await mine.recv()

    async def answer(mine, other, stop):
        while not stop:
            await mine.recv()
            await other.send(None)

    async def main():
        stop, log = [], Counter()
        a, b = weft.Channel(1), weft.Channel(1)

        async def ticker():
            for _ in range(20):
                await asyncio.sleep(0.001)
                log["timer"] += 1

        async def descriptor():
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(20):
                writer.write(b"x\n")
                await reader.readline()
                log["descriptor"] += 1
            writer.close()

        async def echo(reader, writer):
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, weft.Group() as g:
            g.spawn(chatter, a, b, stop)
            g.spawn(answer, b, a, stop)
            await asyncio.gather(ticker(), descriptor())
            stop.append(True)
            g.cancel()
        assert log == {"timer": 20, "descriptor": 20}

    run(main)


def test_all_that_are_ready_have_their_turn(run):
    """A pair that wakes each other stands in the same queue as the rest."""

    async def pair(a, b, stop):
        while not stop:
            await a.send(None)
            await b.recv()

    async def main():
        stop, steps = [], Counter()
        a, b = weft.Channel(1), weft.Channel(1)

        async def other(n):
            for _ in range(50):
                await asyncio.sleep(0)
                steps[n] += 1

        async with weft.Group() as g:
            g.spawn(pair, a, b, stop)
            g.spawn(pair, b, a, stop)
            others = [g.spawn(other, n) for n in range(10)]
            for process in others:
                await process.join()
            stop.append(True)
            g.cancel()
        assert steps == dict.fromkeys(range(10), 50)

    run(main)


def test_those_that_are_spawned_begin_behind_what_was_ready_before(run):
    async def say(log, what):
        log.append(what)

    async def hear(ch, log):
        log.append(await ch.recv())

    async def main():
        ch, log = weft.Channel(), []
        async with weft.Group() as g, weft.Group() as other:
            g.spawn(hear, ch, log)
            await turns(lambda: ch.statistics().parked_receivers == 1)
            g.spawn(say, log, 1)
            g.spawn(say, log, 2)
            other.spawn(say, log, 3)
            ch.send_nowait(4)
            g.spawn(say, log, 5)
            other.spawn(say, log, 6)
            other.spawn(say, log, 7)
        assert log == [1, 2, 3, 4, 5, 6, 7]

    run(main)


def test_one_that_cannot_be_queued_is_not_spawned():
    class Loop(asyncio.SelectorEventLoop):
        refuses = False

        def call_soon(self, *args, **options):
            if self.refuses:
                raise RuntimeError("Event loop is closed")
            return super().call_soon(*args, **options)

        def is_closed(self):
            return self.refuses or super().is_closed()

    async def say(log, what):
        log.append(what)

    async def main():
        loop, log = asyncio.get_running_loop(), []
        async with weft.Group() as g:
            loop.refuses = True
            for i in range(2):
                with pytest.raises(RuntimeError, match="Event loop is closed"):
                    g.spawn(say, log, i)
            loop.refuses = False
            assert g._count == 0
            g.spawn(say, log, 2)
            g.spawn(say, log, 3)
        assert log == [2, 3]

    worlds.run_in_asyncio(main, loop_factory=Loop)


def test_a_burst_from_another_thread_wakes_the_loop_once():
    woken = []

    class Loop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, callback, *args, **how):
            woken.append(callback)
            return super().call_soon_threadsafe(callback, *args, **how)

    async def body(ch):
        await ch.recv()

    async def main():
        channels = [weft.Channel() for _ in range(100)]
        async with weft.Group() as g:
            for ch in channels:
                g.spawn(body, ch)
            await turns(lambda: all(ch.statistics().parked_receivers for ch in channels))
            woken.clear()
            sent = threading.Thread(target=lambda: [ch.send(None).wait() for ch in channels])
            sent.start()
            sent.join()  # the loop sleeps no less: it is here
            assert len(woken) == 1

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_a_long_ring_of_processes_needs_no_deep_stack(run):
    async def link(left, right):
        await right.send(1 + await left.recv())

    async def main():
        size = 20_000
        first = left = weft.Channel()
        async with weft.Group() as g:
            for _ in range(size):
                right = weft.Channel()
                g.spawn(link, left, right)
                left = right
            await first.send(0)
            assert await left.recv() == size

    run(main)


def test_processes_that_spawn_the_next_need_no_deep_stack(run):
    async def main():
        count = 0

        async def body(left):
            nonlocal count
            count += 1
            if left:
                g.spawn(body, left - 1)

        async with weft.Group() as g:
            g.spawn(body, 20_000)
        assert count == 20_001

    run(main)


@pytest.mark.parametrize("order", ["first to last", "last to first"])
def test_many_end_in_any_order(run, order):
    """If each that ends looked at all others, these would take hours, and the run has a limit."""

    async def main():
        size = 100_000
        gates = [weft.Channel() for _ in range(size)]
        ended = []

        async def body(number, gate):
            await gate.recv()
            ended.append(number)

        async with weft.Group() as g:
            for number, gate in enumerate(gates):
                g.spawn(body, number, gate)
            await asyncio.sleep(0)
            for gate in gates if order == "first to last" else reversed(gates):
                await gate.send(None)
        assert sorted(ended) == [*range(size)]

    run(main, limit=10 * LIMIT)


def test_a_group_of_many_is_cancelled_as_one(run):
    async def body(ch, ended):
        try:
            await ch.recv()
        finally:
            ended.append(True)

    async def main():
        ch, ended = weft.Channel(), []
        async with weft.Group() as g:
            for _ in range(20_000):
                g.spawn(body, ch, ended)
            await turns(lambda: ch.statistics().parked_receivers == 20_000)
            g.cancel()
        assert len(ended) == 20_000
        assert ch.statistics().parked_receivers == 0

    run(main)


def test_nothing_of_it_is_left(run, no_gc):
    async def returns(ch):
        await ch.send(1)

    async def receives(ch):
        await ch.recv()

    async def fails():
        await asyncio.sleep(0)
        raise ValueError

    async def main():
        seen = []

        async def once():
            ch = weft.Channel()
            with pytest.raises(ExceptionGroup):
                async with weft.Group() as g:
                    g.spawn(returns, ch)
                    g.spawn(receives, ch)
                    await asyncio.sleep(0)
                    g.spawn(receives, ch)
                    g.spawn(wait_for_ever)
                    await asyncio.sleep(0)
                    seen.extend(map(weakref.ref, g._tasks))
                    g.spawn(fails)

        await once()
        await asyncio.sleep(0)
        assert len(seen) >= 2
        assert [ref() for ref in seen if ref() is not None] == []

    run(main)


# --- where they were spawned: a place that several come from is kept once ---------------------------------------------


def spawner(at):
    """A function that spawns, by itself at a place in a file of that name."""
    module = compile("def spawn(g, *args):\n    return g.spawn(*args)", at, "exec")
    return types.FunctionType(module.co_consts[0], {})


def test_each_knows_where_it_was_spawned(run):
    async def main():
        spawners = [spawner(f"file_{i}") for i in range(5)]
        ch = weft.Channel()
        async with weft.Group() as g:
            early = [spawn(g, receive, ch) for _ in range(3) for spawn in spawners]
            for _ in early[:5]:
                await ch.send(None)
            # Some have ended, and others come from where they did.
            late = [spawn(g, receive, ch) for spawn in reversed(spawners)]
            places = [process._spawned_at() for process in early + late]
            assert places == [f"file_{i}:2" for i in [*range(5)] * 3 + [4, 3, 2, 1, 0]]
            ch.close()

    run(main)


def test_it_can_be_spawned_by_a_function_whose_globals_have_no_builtins(python):
    assert "done" in python("""
        import asyncio, types, weft

        async def main():
            async with weft.Group() as g:
                spawn = compile("def spawn(g, *args):\\n    return g.spawn(*args)", "here", "exec").co_consts[0]
                process = types.FunctionType(spawn, {})(g, asyncio.sleep, 0, "done")
            print(process.result())

        asyncio.run(main())
    """)


def test_where_it_was_spawned_is_kept_no_longer_than_the_process(run, no_gc):
    async def main():
        async with weft.Group() as g:
            spawn = spawner("here")
            process = spawn(g, asyncio.sleep, 0)
            code = weakref.ref(spawn.__code__)
            del spawn
            await turns(functools.partial(getattr, process, "done"))
            assert process._spawned_at() == "here:2"
            del process
            g.spawn(asyncio.sleep, 0)  # from somewhere else
            assert code() is None

    run(main)


def test_of_too_many_places_at_once_the_last_are_not_told(run):
    async def main():
        code = spawner("here").__code__
        async with weft.Group() as g:
            for i in range(70_000):
                place = types.FunctionType(code.replace(co_firstlineno=i + 1), {})
                process = place(g, wait_for_ever)
                if i == 60_000:
                    told = process
            assert (told._spawned_at(), process._spawned_at()) == ("here:60002", "unknown")
            g.cancel()

    run(main)


# --- contexts, which processes share until they change them; attributes ---------------------------------------------

SETTING = contextvars.ContextVar("SETTING", default="default")


def test_what_a_process_sets_in_its_context_no_other_sees(run):
    async def main():
        seen = []

        async def setting(n, go):
            assert SETTING.get() == "of all"
            token = SETTING.set(n)
            await go.recv()
            assert SETTING.get() == n
            if n % 2:
                SETTING.reset(token)
                await asyncio.sleep(0)
                assert SETTING.get() == "of all"
            seen.append(n)

        async def reading(go):
            await go.recv()
            seen.append(SETTING.get())

        SETTING.set("of all")
        go = weft.Channel()
        async with weft.Group() as g:
            for n in range(20):
                g.spawn(setting, n, go)
                g.spawn(reading, go)
            for _ in range(40):
                await go.send(None)
        assert SETTING.get() == "of all"
        assert sorted(s for s in seen if s != "of all") == list(range(20)) and seen.count("of all") == 20

    run(main)


def test_a_process_inherits_what_was_set_when_it_was_spawned(run):
    async def main():
        seen = []

        async def child():
            seen.append(SETTING.get())

        async def parent():
            SETTING.set("parent's")
            async with weft.Group() as inner:
                inner.spawn(child)

        async with weft.Group() as g:
            g.spawn(child)
            SETTING.set("later")
            g.spawn(child)
            g.spawn(parent)
            g.spawn(child)
        assert sorted(seen) == ["default", "later", "later", "parent's"]

    contextvars.Context().run(run, main)


def test_the_context_that_a_process_shows_is_the_one_it_runs_in(run):
    async def main():
        async def child():
            SETTING.set("before")
            context = asyncio.current_task().get_context()
            assert context[SETTING] == "before"
            SETTING.set("in the same step")
            assert context[SETTING] == "in the same step"
            await asyncio.sleep(0)
            SETTING.set("in the next")
            assert context[SETTING] == "in the next" and asyncio.current_task().get_context() is context
            with pytest.raises(RuntimeError, match="already entered"):
                context.run(SETTING.get)

        async def other(go):
            await go.recv()
            seen.append(SETTING.get())

        go, seen = weft.Channel(), []
        async with weft.Group() as g:
            g.spawn(child)
            g.spawn(other, go)
            await asyncio.sleep(0)
            (task,) = (task for task in asyncio.all_tasks() if task.get_coro().__name__ == "other")
            task.get_context().run(SETTING.set, "from outside")
            await go.send(None)
        assert seen == ["from outside"] and SETTING.get() == "default"

    contextvars.Context().run(run, main)


def test_a_loop_run_inside_of_a_step_does_not_disturb_the_contexts(run):
    async def main():
        async def inner():
            SETTING.set("inner")

        def elsewhere():
            async def nested():
                async with weft.Group() as g:
                    for _ in range(3):
                        g.spawn(inner)

            asyncio.run(nested())

        async def child():
            SETTING.set("outer")
            await asyncio.to_thread(elsewhere)
            assert SETTING.get() == "outer"

        async with weft.Group() as g:
            for _ in range(3):
                g.spawn(child)

    run(main)


def test_a_program_may_give_a_process_s_task_attributes(run):
    async def main():
        async def child():
            task = asyncio.current_task()
            assert vars(task) == {}
            task.note = "n"
            assert task.note == "n" and vars(task) == {"note": "n"}
            del task.note
            with pytest.raises(AttributeError, match="note"):
                _ = task.note
            with pytest.raises(AttributeError, match="note"):
                del task.note
            with pytest.raises(AttributeError):
                task._state = "FINISHED"
            task.get_name = lambda: "instead"
            assert task.get_name() == "instead"
            del task.get_name
            assert task.get_name().startswith("child")
            with pytest.raises(AttributeError):
                del task.get_name
            task._asyncio_future_blocking = False
            assert vars(task) == {}
            task.itself = task

        async with weft.Group() as g:
            g.spawn(child)

    run(main)


def test_a_task_that_leads_to_itself_by_an_attribute_is_collected(run):
    async def main():
        async def child():
            task = asyncio.current_task()
            task.itself = task
            gone.append(weakref.ref(task))

        async with weft.Group() as g:
            g.spawn(child)

    gone = []
    run(main)
    gc.collect()
    assert gone[0]() is None


# --- the order in which processes go on -----------------------------------------------------------------------------


def test_a_process_that_was_handed_something_goes_on_before_those_that_wait_longer(run):
    """What it was handed is at hand: Go's `runnext`. Unless a millisecond has passed just then, which is the loop's turn."""

    async def main():
        order = []

        async def waiting(n, go):
            await go.recv()
            order.append(n)

        async def handing(go, ch):
            for _ in range(5):
                go.send_nowait(None)
            await ch.send("v")
            order.append("handing")

        async def handed(ch):
            await ch.recv()
            order.append("handed")

        go, ch = weft.Channel(5), weft.Channel()
        async with weft.Group() as g:
            for n in range(5):
                g.spawn(waiting, n, go)
            g.spawn(handed, ch)
            await turns(lambda: ch.statistics().parked_receivers == 1 and go.statistics().parked_receivers == 5)
            g.spawn(handing, go, ch)
        return order

    assert ["handing", "handed", 0, 1, 2, 3, 4] in (run(main) for _ in range(20))


def test_processes_that_hand_each_other_things_keep_nobody_waiting(run):
    async def main():
        rounds, lags = 0, []

        async def chatty(there, back, marks):
            nonlocal rounds
            async for _ in there:
                rounds += 1
                if rounds % 50 == 0:
                    marks.send_nowait(rounds)
                if rounds == 5000:
                    there.close()
                    break
                await back.send(None)
            back.close()

        async def third(marks):
            async for mark in marks:
                lags.append(rounds - mark)

        there, back, marks = weft.Channel(), weft.Channel(), weft.Channel(10)
        async with weft.Group() as g:
            g.spawn(third, marks)
            g.spawn(chatty, there, back, marks)
            g.spawn(chatty, back, there, marks)
            await there.send(None)
            await turns(lambda: rounds >= 5000)
            marks.close()
        assert len(lags) == 100 and max(lags) <= 40, max(lags)

    run(main)


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="the system does not tell how much memory is used")
@pytest.mark.skipif(sys.maxsize < 2**32, reason="for pointers of eight bytes")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="a suspended coroutine keeps its frame object there")
def test_a_parked_process_takes_450_bytes_with_its_coroutine():
    """(Of which the coroutine is 192, and 208 in 3.14.)"""
    program = """
        import asyncio, gc, os, weft

        async def parked(ch):
            await ch.recv()

        def used():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

        async def main(count):
            ch = weft.Channel()
            async with weft.Group() as g:
                g.spawn(parked, ch)
                await asyncio.sleep(0)
                before = used()
                for _ in range(count):
                    g.spawn(parked, ch)
                while ch.statistics().parked_receivers <= count:
                    await asyncio.sleep(0)
                print((used() - before) / count)
                g.cancel()

        asyncio.run(main(100_000))
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, env=environment, timeout=LIMIT
    )
    assert told.returncode == 0, told.stderr
    assert float(told.stdout) <= 450


def test_a_variable_that_was_set_to_what_it_was_is_reset_in_a_later_step(run):
    async def main():
        async def first():
            token = SETTING.set(True)
            await asyncio.sleep(0)
            SETTING.reset(token)
            assert SETTING.get() is True

        async def second():
            OTHER.set(1)

        SETTING.set(True)
        async with weft.Group() as g:
            for _ in range(3):
                g.spawn(first)
                g.spawn(second)

    contextvars.Context().run(run, main)


OTHER = contextvars.ContextVar("OTHER")


class Synchronous:
    """A future that calls who waits for it at once, in whatever step it is resolved."""

    _asyncio_future_blocking = False

    def __init__(self):
        self.callbacks = []
        self.resolved = False

    def get_loop(self):
        return asyncio.get_running_loop()

    def add_done_callback(self, function, *, context=None):
        self.callbacks.append(function)

    def done(self):
        return self.resolved

    def result(self):
        return None

    def cancel(self, msg=None):
        return False

    def resolve(self):
        self.resolved = True
        for function in self.callbacks:
            function(self)

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio steps no task in the middle of another one there")
def test_a_step_in_the_middle_of_another_one_has_its_own_context(run):
    async def main():
        seen = []

        async def inner(future):
            await future
            context = asyncio.current_task().get_context()
            SETTING.set("inner")
            seen.append(context.get(SETTING))
            await asyncio.sleep(0)
            seen.append(SETTING.get())

        async def outer(future):
            SETTING.set("outer")
            future.resolve()
            seen.append(SETTING.get())

        future = Synchronous()
        async with weft.Group() as g:
            g.spawn(inner, future)
            g.spawn(outer, future)
        assert seen == ["inner", "outer", "inner"]

    run(main)


def test_what_every_object_has_cannot_be_set(run):
    async def main():
        async def child():
            task = asyncio.current_task()
            for name in "__dict__", "__class__":
                with pytest.raises((AttributeError, TypeError)):
                    setattr(task, name, {})
            assert vars(task) == {}

        async with weft.Group() as g:
            g.spawn(child)

    run(main)


def test_an_interrupt_in_the_call_that_queues_them_anew_loses_no_process():
    """A signal handler can raise in the first line of the loop's own `call_soon`."""
    loop, begun, interrupted = asyncio.new_event_loop(), set(), []
    call_soon = loop.call_soon

    def interrupted_once(callback, *args, context=None):
        if type(callback).__name__ == "_Drain" and not interrupted:
            if callback in begun:  # one that lets the loop have its turns
                begun.clear()
                interrupted.append(True)
                raise KeyboardInterrupt
            begun.add(callback)
        return call_soon(callback, *args, context=context)

    async def busy():
        for _ in range(20):
            end = monotonic() + 0.0006
            while monotonic() < end:
                pass
            await asyncio.sleep(0)

    async def main():
        async with weft.Group() as g:
            for _ in range(8):
                g.spawn(busy)

    loop.call_soon = interrupted_once
    try:
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.wait_for(task, LIMIT))
        assert interrupted
    finally:
        loop.close()
