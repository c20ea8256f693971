"""Importing weft: it is quick, it is quiet, and it does nothing but define things."""

import json
import os
import subprocess
import sys

import pytest
from worlds import needs

# Seconds. Importing takes a few hundredths; the rest is for a machine that is busy with something else.
GENEROUS = 10.0


def test_it_starts_no_thread_and_leaves_schedulers_alone(python):
    out = python(
        """
        import json, sys, threading
        before = set(sys.modules)
        import weft
        schedulers = {"asyncio", "rloop", "uvloop", "trio", "anyio", "gevent", "greenlet", "selectors", "concurrent.futures"}
        tasks = "/proc/self/task"
        import os
        print(json.dumps({
            "schedulers": sorted(schedulers & (set(sys.modules) - before)),
            "threads": threading.active_count(),
            "tasks": len(os.listdir(tasks)) if os.path.isdir(tasks) else 1,
        }))
        """
    )
    assert json.loads(out) == {"schedulers": [], "threads": 1, "tasks": 1}


@needs("the extension")
def test_it_imports_little(python):
    out = python(
        """
        import sys
        before = set(sys.modules)
        import weft
        weft.Channel[int](1).send_nowait(1)
        slow = {"typing", "threading", "functools", "inspect", "enum", "dataclasses", "re", "weakref", "contextlib"}
        print(slow & (set(sys.modules) - before))
        """
    )
    assert out == "set()\n"


def test_what_is_imported_later_is_there_all_the_same(python):
    out = python(
        """
        import weft
        later = {"Carried", "Group", "Process", "carry", "producer", "run"}
        assert not later & vars(weft).keys() and later < set(dir(weft)) and later < set(weft.__all__)
        assert weft.Group is weft.Group and "Group" in vars(weft)
        from weft import *
        assert (Group, run) == (weft.Group, weft.run)
        assert later < vars(weft).keys()
        try:
            weft.Grop
        except AttributeError as error:
            print(error)
        """
    )
    assert out == "module 'weft' has no attribute 'Grop'\n"


def test_using_it_starts_no_thread_either(python):
    out = python(
        """
        import asyncio, os, weft
        tasks = "/proc/self/task"

        async def main():
            ch = weft.Channel(1)
            await ch.send(1)
            await weft.select(ch.recv(), weft.after(60))
            await weft.after(0.001)
            await anext(weft.tick(0.001))

        asyncio.run(main())
        try:
            weft.select(weft.Channel().recv(), weft.after(60), weft.tick(60).recv()).wait(0.001)
        except TimeoutError:
            pass
        print(len(os.listdir(tasks)) if os.path.isdir(tasks) else 1)
        """
    )
    assert out == "1\n"


def test_it_does_not_take_long(python):
    out = python(
        """
        import time
        start = time.perf_counter()
        import weft
        print(time.perf_counter() - start)
        """
    )
    print(f"import weft: {float(out):.3f} s")
    assert float(out) < GENEROUS


def test_it_says_nothing_even_in_developer_mode():
    for options in (["-X", "dev"], ["-W", "error"], ["-X", "dev", "-W", "error"], ["-O"], ["-OO"], ["-B", "-s"]):
        ended = subprocess.run(
            [sys.executable, *options, "-c", "import weft; weft.Channel[int](1).send_nowait(1)"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", ""), options


@pytest.mark.parametrize("allocator", ["debug", "malloc_debug", "pymalloc_debug", "malloc"])
def test_it_keeps_within_its_memory(allocator):
    """CPython's own allocators with guard bytes: writing past an object, or using one that was freed, ends the process."""
    program = """
import asyncio, gc, threading, weft

async def main():
    ch, other = weft.Channel(), weft.Channel(2)

    async def feed(tx):
        with tx:
            for value in range(300):
                await weft.select(tx.send(value), weft.after(60))

    task = asyncio.ensure_future(feed(ch.sender()))
    async for value in ch:
        other.send_nowait([value])
        await other.recv_many(2)
    await task

for _ in range(3):
    asyncio.run(main())
    ch = weft.Channel()
    thread = threading.Thread(target=lambda: [ch.send(n).wait() for n in range(300)])
    thread.start()
    assert [ch.recv().wait() for _ in range(300)] == list(range(300))
    thread.join()
    gc.collect()
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONMALLOC": allocator},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_it_can_be_imported_again_after_it_was_forgotten(python):
    """Two copies then live side by side. Each keeps its own types, and objects of the first go on working."""
    out = python(
        """
        import asyncio, gc, sys, weft
        first, old = weft, weft.Channel(1)
        parked = weft.Channel()

        def forget():
            for name in [name for name in sys.modules if name == "weft" or name.startswith("weft.")]:
                del sys.modules[name]

        for _ in range(3):
            forget()
            gc.collect()
            import weft
            assert weft is not first
            assert weft.Channel is not first.Channel
            new = weft.Channel(1)
            new.send_nowait(1)
            old.send_nowait(2)
            assert (new.recv_nowait(), old.recv().wait()) == (1, 2)
            try:
                old.recv_nowait()
            except first.WouldBlock as error:
                assert not isinstance(error, weft.WouldBlock)
            try:
                weft.select(old.recv())
            except TypeError:
                pass
            else:
                raise SystemExit("a case of another copy was taken")

            async def main():
                async def feed(ch):
                    await ch.send("mine")

                for ch, select, after in ((new, weft.select, weft.after), (parked, first.select, first.after)):
                    task = asyncio.ensure_future(feed(ch))
                    assert (await select(ch.recv(), after(60))).value == "mine"
                    await task

            asyncio.run(main())
        del weft, new
        forget()
        gc.collect()
        old.send_nowait(3)
        assert old.recv_nowait() == 3
        print("well")
        """
    )
    assert out == "well\n"


def test_what_outlives_the_module_works_or_says_so(python):
    """The module's objects keep what they need; whatever order things are dropped in, nothing crashes."""
    out = python(
        """
        import gc, sys, weft
        ch, op, select = weft.Channel(2), weft.always(1), weft.select
        for name in [name for name in sys.modules if name == "weft" or name.startswith("weft.")]:
            del sys.modules[name]
        del weft
        gc.collect()
        ch.send_nowait(1)
        assert select(ch.recv(), op).wait(1).value == 1
        tx, rx = ch.split()
        tx.close()
        print(type(ch.statistics()).__name__)
        """
    )
    assert out == "Statistics\n"


def test_importing_in_many_threads_at_once(python):
    out = python(
        """
        import threading
        kinds, barrier = set(), threading.Barrier(8)

        def load():
            barrier.wait()
            import weft
            ch = weft.Channel(1)
            ch.send_nowait(1)
            kinds.add((type(ch), ch.recv().wait()))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(kinds))
        """
    )
    assert out == "1\n"
