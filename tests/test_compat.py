"""weft.compat: the queues people have, on weft. The originals' own tests judge them; here is what we promise besides.

A party that waits can be seen in its line (`len(queue._getters)`), so nothing here sleeps to let another one get there.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import importlib.util
import inspect
import os
import queue as standard
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import weft
from weft import _task
from weft.compat import asyncio_queues, janus, queue
from weft.compat._line import Line, Turn
from worlds import LIMIT, collect, parked, until

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(__file__).with_name("compat") / "run_upstream.py"
MODULES = {"asyncio_queues": asyncio_queues, "queue": queue, "janus": janus}
KINDS = ("Queue", "LifoQueue", "PriorityQueue")


class Sides:
    """One queue as a task sees it: how it is made, and its two lines."""

    def __init__(self, module, kind="Queue", maxsize=0):
        made = getattr(module, kind)(maxsize)
        if module is janus:
            self.tasks, self.getters, self.putters = made.async_q, made._getters, made._putters
        else:
            self.tasks, self.getters, self.putters = made, made._getters, made._putters


for_tasks = pytest.mark.parametrize("module", [asyncio_queues, janus], ids=["asyncio", "janus"])
of_each_kind = pytest.mark.parametrize("kind", KINDS)


def for_threads(module, kind="Queue", maxsize=0):
    """A queue as a thread sees it, and its two lines."""
    made = getattr(module, kind)(maxsize)
    if module is janus:
        return made.sync_q, made._getters, made._putters
    return made, made.not_empty, made.not_full


threaded = pytest.mark.parametrize("module", [queue, janus], ids=["queue", "janus"])


async def waits(line, count):
    """Let the other tasks run until `count` wait in the line."""
    async with asyncio.timeout(LIMIT):
        while len(line) != count:
            await asyncio.sleep(0)


@pytest.fixture
def start():
    """Run a function in a thread; its future. All of them have to have ended in the end."""
    with ThreadPoolExecutor(16) as executor:
        yield executor.submit


# --- the originals ----------------------------------------------------------------------------------------------------


def run_upstream(suite):
    ended = subprocess.run([sys.executable, RUNNER, suite], capture_output=True, text=True, timeout=110)
    return ended.returncode, ended.stdout + ended.stderr


def has_tests(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "suite, module",
    [
        ("queue", "test.test_queue"),
        ("asyncio", "test.test_asyncio.test_queues"),
        ("tasks", "test.test_asyncio.test_tasks"),
    ],
)
def test_the_standard_librarys_own_tests_pass(suite, module):
    if suite == "tasks" and not _task._steps_tasks:
        pytest.skip("processes are asyncio's own tasks here")
    if not has_tests(module):
        pytest.skip(f"this interpreter was installed without {module}")
    status, output = run_upstream(suite)
    assert status == 0, output


def test_the_judge_reports_failures_and_a_list_that_is_not_honest(capsys):
    spec = importlib.util.spec_from_file_location("run_upstream", RUNNER)
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    runner.EXCLUDED["queue"] = {"fails": "it has to", "passes": "not any more", "gone": "long ago"}
    results = runner.Results()
    for name, outcome in {"good": "passed", "fails": "failed", "passes": "passed", "bad": "failed"}.items():
        results.add(name, outcome)
    assert not runner.print_report("queue", results)
    printed = capsys.readouterr().out
    assert "queue: 1 passed, 1 failed, 0 skipped, 3 excluded" in printed
    assert {
        line.split(":")[0].split("\n")[0] for line in printed.splitlines() if line.isupper() or line[:1].isupper()
    } == {
        "FAILED bad",
        "NO LONGER THERE gone",
        "EXCLUDED, BUT IT PASSED passes",
    }
    runner.EXCLUDED["queue"] = {}
    assert not runner.print_report("queue", runner.Results()), "nothing ran"


@pytest.mark.parametrize("ours, theirs", [(asyncio_queues, asyncio), (queue, standard)], ids=["asyncio", "queue"])
def test_every_public_method_of_the_original_is_there_with_its_parameters(ours, theirs):
    def parameters(function):
        return [(parameter.name, parameter.default) for parameter in inspect.signature(function).parameters.values()]

    compared = 0
    for name in ours.__all__:
        original, look_alike = getattr(theirs, name, None), getattr(ours, name)
        if original is None:
            assert name in ("QueueShutDown", "ShutDown") and sys.version_info < (3, 13)
            continue
        if issubclass(original, Exception):
            assert look_alike is original, "an `except` of the original catches ours"
            continue
        for method, there in inspect.getmembers(original):
            if method.startswith("_") or not callable(there):
                assert method.startswith("_") or hasattr(look_alike(), method), method
                continue
            try:
                wanted = parameters(there)
            except ValueError:  # in C, without a signature
                continue
            assert parameters(getattr(look_alike, method)) == wanted, f"{name}.{method}"
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_every_public_class_and_method_has_a_docstring(module):
    missing = set()
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in module.__all__:
            for part in [node, *node.body]:
                if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    if not part.name.startswith("_") and not ast.get_docstring(part):
                        missing.add(f"{node.name}.{part.name}")
    assert missing == set()


# --- imports ----------------------------------------------------------------------------------------------------------


def test_importing_weft_imports_no_look_alike(python):
    assert python("import sys, weft; print([name for name in sys.modules if 'compat' in name])") == "[]\n"


def test_importing_the_queue_for_threads_does_not_import_asyncio(python):
    out = python(
        """
        import sys, threading
        from weft.compat import queue
        q = queue.Queue(1)
        threading.Timer(0, q.put, [1]).start()
        print(q.get(), "asyncio" in sys.modules)
        """
    )
    assert out == "1 False\n"


# --- a cancelled get or put has done nothing --------------------------------------------------------------------------


@for_tasks
@of_each_kind
def test_a_get_that_is_cancelled_while_it_waits_takes_nothing(run, module, kind):
    async def main():
        sides = Sides(module, kind)
        task = asyncio.create_task(sides.tasks.get())
        await waits(sides.getters, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(sides.getters) == 0
        sides.tasks.put_nowait(1)
        assert sides.tasks.get_nowait() == 1

    run(main)


@for_tasks
@of_each_kind
def test_a_get_that_is_cancelled_when_an_item_has_come_leaves_it_to_the_next(run, module, kind):
    async def main():
        sides = Sides(module, kind)
        first, second = (asyncio.create_task(sides.tasks.get()) for _ in range(2))
        await waits(sides.getters, 2)
        sides.tasks.put_nowait(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with asyncio.timeout(LIMIT):
            assert await second == 1

    run(main)


@for_tasks
@of_each_kind
def test_a_put_that_is_cancelled_when_a_slot_has_come_leaves_it_to_the_next(run, module, kind):
    async def main():
        sides = Sides(module, kind, 1)
        sides.tasks.put_nowait(0)
        first, second = (asyncio.create_task(sides.tasks.put(n)) for n in (1, 2))
        await waits(sides.putters, 2)
        assert sides.tasks.get_nowait() == 0
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with asyncio.timeout(LIMIT):
            await second
        assert (sides.tasks.get_nowait(), sides.tasks.qsize()) == (2, 0)

    run(main)


@for_tasks
def test_a_timeout_withdrawn_in_time_does_not_cancel_what_comes_after(run, module):
    async def main():
        sides = Sides(module)

        async def twice():
            try:
                async with asyncio.timeout(None) as limit:
                    limits.append(limit)
                    await sides.tasks.get()
            except TimeoutError:
                return await sides.tasks.get()

        limits = []
        task = asyncio.create_task(twice())
        await waits(sides.getters, 1)
        sides.tasks.put_nowait(1)
        limits[0].reschedule(0)  # the item is there already, and not yet taken
        async with asyncio.timeout(LIMIT):
            assert await task in (1, None)
        assert task.cancelling() == 0

    run(main)


@for_tasks
def test_a_coroutine_that_is_destroyed_leaves_its_item_to_the_next(run, module):
    async def main():
        sides = Sides(module)
        coroutine = sides.tasks.get()
        coroutine.send(None)  # it waits, and nobody will ever go on with it
        task = asyncio.create_task(sides.tasks.get())
        await waits(sides.getters, 2)
        sides.tasks.put_nowait(1)
        coroutine.close()
        async with asyncio.timeout(LIMIT):
            assert await task == 1

    run(main)


@for_tasks
def test_a_loop_that_was_closed_swallows_no_item(run, module):
    sides = Sides(module)
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(sides.tasks.get())
    while not len(sides.getters):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def main():
        task = asyncio.create_task(sides.tasks.get())
        await waits(sides.getters, 2)
        sides.tasks.put_nowait(1)
        async with asyncio.timeout(LIMIT):
            return await task

    assert run(main) == 1
    abandoned._log_destroy_pending = False


@threaded
def test_a_thread_that_is_interrupted_when_an_item_has_come_leaves_it_to_the_next(monkeypatch, start, module):
    q, getters, _ = for_threads(module)
    wait = Turn.wait
    interrupted = []

    def wait_and_be_interrupted(turn, timeout):
        wait(turn, timeout)
        if not interrupted:
            interrupted.append(turn)
            raise KeyboardInterrupt

    monkeypatch.setattr(Turn, "wait", wait_and_be_interrupted)
    parties = []
    for n in (1, 2):
        parties.append(start(q.get))
        until(lambda n=n: len(getters) == n)
    q.put("item")
    assert isinstance(parties[0].exception(LIMIT), KeyboardInterrupt)
    assert parties[1].result(LIMIT) == "item"


@threaded
def test_a_timeout_of_someone_elses_is_not_taken_for_ours(monkeypatch, module):
    q, getters, _ = for_threads(module)

    def wait(turn, timeout):
        raise TimeoutError("of a signal handler")

    monkeypatch.setattr(Turn, "wait", wait)
    with pytest.raises(TimeoutError, match="of a signal handler"):
        q.get(timeout=LIMIT)
    assert len(getters) == 0


@threaded
@of_each_kind
def test_a_get_or_put_that_runs_out_of_time_has_done_nothing(module, kind):
    q, getters, putters = for_threads(module, kind, 1)
    with pytest.raises(queue.Empty):
        q.get(timeout=0.001)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.001)
    assert (len(getters), len(putters), q.get(), q.qsize()) == (0, 0, 1, 0)


@threaded
def test_a_hook_that_raises_leaves_the_item_to_the_next(start, module):
    class Failing(module.Queue):
        failures = 1

        def _get(self):
            if self.failures:
                self.failures -= 1
                raise ValueError("not today")
            return super()._get()

    made = Failing()
    q, getters = (made.sync_q, made._getters) if module is janus else (made, made.not_empty)
    parties = []
    for n in (1, 2):
        parties.append(start(q.get))
        until(lambda n=n: len(getters) == n)
    q.put("item")
    with pytest.raises(ValueError, match="not today"):
        parties[0].result(LIMIT)
    assert parties[1].result(LIMIT) == "item"


# --- order ------------------------------------------------------------------------------------------------------------


@for_tasks
def test_one_whose_item_a_newcomer_took_is_still_the_first_in_line(run, module):
    async def main():
        sides = Sides(module)
        served = []

        async def get(name):
            served.append((name, await sides.tasks.get()))

        async with asyncio.TaskGroup() as group:
            for n, name in enumerate("ab", 1):
                group.create_task(get(name))
                await waits(sides.getters, n)
            sides.tasks.put_nowait(1)
            assert sides.tasks.get_nowait() == 1, "a newcomer, quicker than `a`, who was woken"
            await waits(sides.getters, 2)
            sides.tasks.put_nowait(2)
            sides.tasks.put_nowait(3)
        assert served == [("a", 2), ("b", 3)]

    run(main)


def test_threads_and_tasks_of_janus_wait_in_one_line(run, start):
    async def main():
        q = janus.Queue()
        in_thread = start(q.sync_q.get)
        await waits(q._getters, 1)
        in_task = asyncio.create_task(q.async_q.get())
        await waits(q._getters, 2)
        q.async_q.put_nowait("first")
        q.sync_q.put("second")
        async with asyncio.timeout(LIMIT):
            assert (await asyncio.wrap_future(in_thread), await in_task) in [("first", "second"), ("second", "first")]

    run(main)


# --- shutdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_reaches_all_who_wait_in_every_world(run, start, immediate):
    async def main():
        empty, full = janus.Queue(), janus.Queue(1)
        full.sync_q.put("item")
        threads = [start(empty.sync_q.get), start(full.sync_q.put, 1), start(full.sync_q.join)]
        tasks = [asyncio.create_task(work) for work in (empty.async_q.get(), full.async_q.put(1), full.async_q.join())]
        await waits(empty._getters, 2)
        await waits(full._putters, 2)
        await waits(full._joiners, 2)
        empty.shutdown(immediate)
        full.shutdown(immediate)
        if not immediate:
            assert full.sync_q.get() == "item"
            full.sync_q.task_done()
        async with asyncio.timeout(LIMIT):
            ended = await asyncio.gather(*map(asyncio.wrap_future, threads), *tasks, return_exceptions=True)
        in_threads, in_tasks = janus.SyncQueueShutDown, janus.AsyncQueueShutDown
        assert [type(end) for end in ended] == [in_threads, in_threads, type(None), in_tasks, in_tasks, type(None)]
        assert full.sync_q.empty()

    run(main)


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_what_shutdown_drops_may_use_the_queue_as_it_goes(module):
    class Item:
        def __del__(self):
            said.append(use.qsize())
            try:
                use.put_nowait("from __del__")
            except Exception as error:
                said.append(type(error))

    said = []
    made = module.Queue()
    use = made.sync_q if module is janus else made
    use.put_nowait(Item())
    made.shutdown(immediate=True)
    collect()
    assert said == [0, asyncio_queues.QueueShutDown if module is asyncio_queues else queue.ShutDown]


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_a_put_from_within_a_hook_does_not_freeze(module):
    class Reentrant(module.Queue):
        def _put(self, item):
            super()._put(item)
            if item == "outer":
                (self.sync_q if module is janus else self).put_nowait("inner")

    made = Reentrant()
    use = made.sync_q if module is janus else made
    use.put_nowait("outer")
    assert [use.get_nowait(), use.get_nowait(), use.qsize()] == ["outer", "inner", 0]


# --- join -------------------------------------------------------------------------------------------------------------


@threaded
def test_join_in_a_thread_is_content_with_one_moment_at_which_all_was_done(start, module):
    made = module.Queue()
    q, line = (made.sync_q, made._joiners) if module is janus else (made, made.all_tasks_done)
    q.put(1)
    joining = start(q.join)
    until(lambda: len(line) == 1)
    with line:  # the one who joins cannot look before there is something to do again
        q.task_done()
        q.put(2)
    joining.result(LIMIT)
    assert q.unfinished_tasks == 1


@for_tasks
def test_a_join_that_is_cancelled_keeps_nobody_else_from_joining(run, module):
    async def main():
        sides = Sides(module)
        sides.tasks.put_nowait(1)
        first, second = (asyncio.create_task(sides.tasks.join()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        sides.tasks.task_done()
        async with asyncio.timeout(LIMIT):
            await second
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main)


def test_the_usual_way_to_empty_a_queue_by_hand_works(start):
    q = queue.Queue()
    q.put(1)
    joining = start(q.join)
    until(lambda: len(q.all_tasks_done) == 1)
    with q.mutex:
        q.queue.clear()
        q.unfinished_tasks = 0
        q.all_tasks_done.notify_all()
    joining.result(LIMIT)
    assert q.empty()


def test_a_subclass_may_wait_in_the_lines_itself(start):
    class Peeking(queue.Queue):
        def peek(self):
            with self.not_empty:
                while not self._qsize():
                    self.not_empty.wait()
                self.not_empty.notify()
                return self.queue[0]

    q = Peeking()
    peeking = start(q.peek)
    until(lambda: len(q.not_empty) == 1)
    q.put("item")
    assert (peeking.result(LIMIT), q.get()) == ("item", "item")
    with q.not_empty:
        assert not q.not_empty.wait(0.001), "nobody woke it"
        assert len(q.not_empty) == 0


# --- worlds -----------------------------------------------------------------------------------------------------------


@for_tasks
def test_tasks_of_two_loops_share_a_queue(run, start, module):
    sides = Sides(module, maxsize=1)

    async def put():
        for n in range(200):
            await sides.tasks.put(n)

    async def get():
        return [await sides.tasks.get() for _ in range(200)]

    other = start(asyncio.run, put())
    assert run(get) == list(range(200))
    other.result(LIMIT)


@for_tasks
def test_a_thread_wakes_a_task(run, start, module):
    async def main():
        sides = Sides(module)
        task = asyncio.create_task(sides.tasks.get())
        await waits(sides.getters, 1)
        start(sides.tasks.put_nowait, "item")
        async with asyncio.timeout(LIMIT):
            return await task

    assert run(main) == "item"


@pytest.mark.parametrize("kind", [*KINDS, "SimpleQueue"])
def test_a_thread_that_waits_ends_when_its_group_is_cancelled(kind):
    q = getattr(queue, kind)()
    with weft.Group() as group:
        child = group.spawn(q.get)
        until(lambda: parked(q.channel) == (0, 1) if kind == "SimpleQueue" else len(q.not_empty))
        group.cancel()
    assert child.cancelled()
    q.put(1)
    assert q.get() == 1


@pytest.mark.parametrize("kind", [*KINDS, "SimpleQueue"])
def test_waiting_in_a_loops_thread_is_refused_and_the_loop_goes_on(run, kind):
    async def main():
        q = getattr(queue, kind)()
        for call in (q.get, lambda: q.get(timeout=LIMIT)):
            with pytest.raises(weft.BlockingInLoopError, match=kind if kind == "SimpleQueue" else f"{kind}.get has to"):
                call()
        with pytest.raises(queue.Empty):
            q.get(block=False)
        q.put(1)
        assert q.get() == 1

    run(main)


def test_a_simple_queue_is_a_channel(run):
    async def main():
        q = queue.SimpleQueue()
        q.put("item")
        return await weft.select(item=q.channel.recv(), late=weft.after(LIMIT))

    assert run(main) == ("item", "item")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_in_a_forked_child_nobody_waits_for_the_parents_threads(python):
    out = python(
        """
        import os, threading
        from weft.compat.queue import Queue

        q = Queue()
        thread = threading.Thread(target=q.get)
        thread.start()
        while not len(q.not_empty):
            pass
        if child := os.fork():
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            q.put("the thread's")
            thread.join()
            print("well")
        else:
            q.put("the child's")
            os._exit(q.get_nowait() != "the child's" or len(q.not_empty))
        """,
        "-W",
        "ignore::DeprecationWarning",  # of a fork beside threads
    )
    assert out == "well\n"


# --- conservation -----------------------------------------------------------------------------------------------------


def balance(put, got, left):
    """Each item whose put completed was got, or is left; none was got twice, and none came from a failed put."""
    assert Counter(got) + Counter(left) == Counter(put)


def drain(q):
    left = []
    while not q.empty():
        left.append(q.get_nowait())
    return left


@for_tasks
@of_each_kind
@pytest.mark.parametrize("maxsize", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_random_cancellations_lose_and_double_nothing(run, module, kind, maxsize, seed):
    rng = random.Random(f"{seed} {kind} {maxsize}")

    async def main():
        sides = Sides(module, kind, maxsize)
        q, put, got = sides.tasks, [], []

        async def putting(item):
            await q.put(item)
            put.append(item)

        async def getting():
            got.append(await q.get())

        running = []
        for item in range(400):
            running.append(asyncio.create_task(putting(item) if rng.random() < 0.5 else getting()))
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            if rng.random() < 0.6:
                rng.choice(running).cancel()
            if rng.random() < 0.2 and not q.empty():
                got.append(q.get_nowait())
        await waits_no_more(running, sides)
        # Whoever can meet has met: nobody waits beside an item, or beside a free slot.
        assert not (len(sides.getters) and q.qsize())
        assert not (len(sides.putters) and not q.full())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        assert (len(sides.getters), len(sides.putters)) == (0, 0)
        balance(put, got, drain(q))

    run(main)


async def waits_no_more(running, sides):
    """Let the tasks run until each has ended or waits in a line."""
    async with asyncio.timeout(LIMIT):
        while sum(not task.done() for task in running) != len(sides.getters) + len(sides.putters):
            await asyncio.sleep(0)


@of_each_kind
@pytest.mark.parametrize("maxsize", [0, 2])
def test_two_loops_and_threads_with_little_patience_lose_and_double_nothing(start, kind, maxsize):
    made = getattr(janus, kind)(maxsize)
    books = []

    def thread(name):
        rng, put, got = random.Random(name), [], []
        books.append((put, got))
        for n in range(300):
            try:
                if rng.random() < 0.5:
                    made.sync_q.put((name, n), timeout=rng.choice((0, 0.0001, 0.001)))
                    put.append((name, n))
                else:
                    got.append(made.sync_q.get(timeout=rng.choice((0, 0.0001, 0.001))))
            except (queue.Full, queue.Empty):
                pass

    async def task(name):
        rng, put, got = random.Random(name), [], []
        books.append((put, got))
        for n in range(300):
            try:
                async with asyncio.timeout(rng.choice((0, 0.0001, 0.001))):
                    if rng.random() < 0.5:
                        await made.async_q.put((name, n))
                        put.append((name, n))
                    else:
                        got.append(await made.async_q.get())
            except TimeoutError:
                pass

    async def loop(name):
        await asyncio.gather(*(task(f"{name}{n}") for n in range(3)))

    parties = [start(thread, name) for name in "ab"] + [start(asyncio.run, loop(name)) for name in "xy"]
    for party in parties:
        party.result(LIMIT * 3)
    assert (len(made._getters), len(made._putters)) == (0, 0)
    left = drain(made.sync_q)
    balance([item for put, _ in books for item in put], [item for _, got in books for item in got], left)


@of_each_kind
def test_the_impatient_leave_nobody_asleep_beside_an_item(start, kind):
    """The patient wait in threads and in two loops, the impatient come and go. Each wake-up that an impatient one took
    with it would leave a patient one waiting for ever."""
    made = getattr(janus, kind)()
    patient, taken, stop = [], [], threading.Event()

    async def impatient(rng):
        while not stop.is_set():
            try:
                async with asyncio.timeout(rng.choice((0, 0.0001, 0.001))):
                    taken.append(await made.async_q.get())
            except TimeoutError:
                pass

    async def loop(name):
        waiting = [asyncio.create_task(made.async_q.get()) for _ in range(20)]
        patient.extend(waiting)
        await asyncio.gather(*(impatient(random.Random(f"{name}{n}")) for n in range(3)))
        return await asyncio.gather(*waiting)

    loops = [start(asyncio.run, loop(name)) for name in "xy"]
    threads = [start(made.sync_q.get) for _ in range(8)]
    until(lambda: len(patient) == 40 and len(made._getters) >= 48)
    for item in range(30):
        made.sync_q.put(item)
        until(made.sync_q.empty)
    stop.set()
    until(lambda: len(made._getters) == 48 - (30 - len(taken)))  # the impatient have gone
    for item in range(48 - (30 - len(taken))):
        made.sync_q.put(30 + item)
    got = [item for party in loops for item in party.result(LIMIT)] + [party.result(LIMIT) for party in threads]
    assert sorted(got + taken) == list(range(48 + len(taken)))


@pytest.mark.parametrize("kind", [*KINDS, "SimpleQueue"])
def test_items_are_let_go_when_they_leave(kind):
    class Item:
        def __lt__(self, other):
            return False

    q = getattr(queue, kind)()
    for _ in range(3):
        q.put(Item())
    for left in (2, 1, 0):
        q.get()
        gc.collect()
        assert sum(isinstance(thing, Item) for thing in gc.get_objects()) in (left, 0)


def test_a_line_wakes_futures_too(run):
    async def main():
        line = Line(threading.RLock(), "here")
        future = asyncio.get_running_loop().create_future()
        line.append(future)
        with line:
            line.notify()
        assert (await future, len(line)) == (None, 0)

    run(main)
