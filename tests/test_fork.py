"""Fork: a channel does not reach over it. The child is told so, whatever it tries; what it makes itself works.

Each test is a program of its own: this process has threads and loops that a child should not inherit.
"""

import os
import subprocess
import sys
import textwrap

import pytest
from worlds import LIMIT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# `forked(child)`: runs `child()` in a forked process that then ends as a program does; both must end well.
PRELUDE = """
import asyncio, gc, os, sys, threading, time, traceback
import weft


def forked(child):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            child()
        except SystemExit:
            raise  # a child of this child
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)


def refused(call):
    try:
        call()
    except weft.ForkedChannelError as error:
        assert isinstance(error, weft.WeftError)
        return error
    raise AssertionError("it was not refused")


def awaited(make):
    async def main():
        await make()

    asyncio.run(main())


async def first(iterable):
    async for value in iterable:
        return value


def everything_works():
    "All of it, with channels of one's own: tasks, threads, both, selects, timers, groups."
    ch, other = weft.Channel(1), weft.Channel()
    ch.send_nowait(1)
    assert ch.recv_nowait() == 1
    thread = threading.Thread(target=lambda: [other.send(n).wait(30) for n in range(20)])
    thread.start()
    assert [other.recv().wait(30) for _ in range(20)] == list(range(20))
    thread.join()
    try:
        weft.select(other.recv(), ch.recv()).wait(0.001)
    except TimeoutError:
        pass

    async def main():
        async def feed():
            tx = ch.sender()
            for n in range(20):
                await weft.select(tx.send(n), weft.after(60))
            tx.close()

        async with weft.Group() as group:
            group.spawn(feed)
            assert [value async for value in ch] == list(range(20))
        task = asyncio.ensure_future(first(weft.selecting(a=other)))
        await asyncio.get_running_loop().run_in_executor(None, lambda: other.send("in").wait(30))
        assert await task == ("a", "in")
        await weft.after(0.001)

    asyncio.run(main())
    with weft.Group() as group:
        group.spawn(lambda: other.send(2).wait(30))
        assert other.recv().wait(30) == 2
    gc.collect()
"""


def run(python, text, *options, limit=LIMIT):
    assert python(PRELUDE + textwrap.dedent(text), *options, limit=limit) == ""


THREADS = (
    "-W",
    "ignore:This process:DeprecationWarning",
)  # from 3.12 on, Python warns of any fork of a process with threads

USES = {
    "send": "ch.send(1).wait()",
    "recv": "ch.recv().wait()",
    "send with a timeout": "ch.send(1).wait(0)",
    "await send": "awaited(lambda: ch.send(1))",
    "await recv": "awaited(lambda: ch.recv())",
    "send_many": "ch.send_many([1, 2]).wait()",
    "recv_many": "ch.recv_many(2).wait()",
    "send_nowait": "ch.send_nowait(1)",
    "recv_nowait": "ch.recv_nowait()",
    "for": "next(iter(ch))",
    "async for": "asyncio.run(first(ch))",
    "len": "len(ch)",
    "capacity": "ch.capacity",
    "closed": "ch.closed",
    "statistics": "ch.statistics()",
    "close": "ch.close()",
    "close with an error": "ch.close(ValueError())",
    "poison": "ch.poison()",
    "with": "ch.__exit__(None, None, None)",
    "sender": "ch.sender()",
    "receiver": "ch.receiver()",
    "split": "ch.split()",
    "select": "weft.select(mine.send(1), ch.recv()).wait()",
    "select with a default": "weft.select(ch.recv(), default=None).wait()",
    "await select": "awaited(lambda: weft.select(weft.after(60), ch.send(1)))",
    "selecting": "weft.selecting(ch)",
    "selecting.add": "weft.selecting(mine).add(1, ch)",
    "a selecting made before": "next(selecting)",
    "await a selecting made before": "asyncio.run(first(selecting))",
    "an end's send": "tx.send(1).wait()",
    "an end's send_nowait": "tx.send_nowait(1)",
    "an end's recv": "rx.recv().wait()",
    "an end's recv_nowait": "rx.recv_nowait()",
    "for over an end": "next(iter(rx))",
    "an end's clone": "tx.clone()",
    "a receiver's clone": "rx.clone()",
    "an end's statistics": "rx.statistics()",
    "an operation made before": "op.wait()",
    "await an operation made before": "awaited(lambda: op)",
    "a select made before": "select.wait()",
    "an end's operation made before": "end_op.wait()",
    "an event's wait": "event.wait().wait()",
    "an event's set": "event.set()",
}


@pytest.mark.parametrize("use", USES)
def test_using_an_inherited_channel_is_refused(python, use):
    run(
        python,
        f"""
        ch, ended = weft.Channel(3, name="inherited"), weft.Channel(2)
        ch.send_nowait("a value")
        tx, rx = ended.split()
        op, end_op = ch.recv(), tx.send(1)
        select = weft.select(ch.recv(), ended.recv())
        selecting = weft.selecting(ch)
        event = weft.Event()

        def child():
            mine = weft.Channel()
            error = refused(lambda: {USES[use]})
            assert "fork" in str(error), error
            everything_works()
            for unperformed in (op, end_op, select):
                try:
                    unperformed.wait(0)
                except (weft.WeftError, RuntimeError):
                    pass

        forked(child)
        # The parent has lost nothing.
        assert selecting.__next__() == (0, "a value")
        for unperformed in (op, select):
            try:
                unperformed.wait(0)
            except TimeoutError:
                pass
        end_op.wait()
        assert rx.recv_nowait() == 1
        """,
    )


def test_what_needs_no_channel_state_still_answers(python):
    run(
        python,
        """
        ch = weft.Channel(1, name="jobs")
        tx, rx = ch.split()

        def child():
            assert ch.name == tx.name == "jobs"
            assert "fork" in repr(ch), repr(ch)
            assert "jobs" in repr(tx)
            tx.close()
            rx.close()
            with tx, rx:
                pass
            error = refused(ch.recv_nowait)
            assert error.channel is ch
            assert "jobs" in str(error)

        forked(child)
        tx.send_nowait(1)
        assert rx.recv_nowait() == 1
        """,
    )


def test_the_child_drops_what_it_inherited(python):
    """Channels with values, ends, unperformed operations, parked tasks, cycles: all may go, and nobody is told."""
    run(
        python,
        """
        told = []
        kept = []
        for _ in range(10):
            ch = weft.Channel(5, on_undelivered=told.append)
            ch.send_nowait(ch)
            ch.send_nowait([ch])
            kept.append((ch, *ch.split(), weft.selecting(ch)))
        loop = asyncio.new_event_loop()
        waiting = weft.Channel()

        async def party():
            await weft.select(waiting.recv(), weft.after(60))

        tasks = [loop.create_task(party()) for _ in range(5)]
        loop.call_soon(loop.stop)
        loop.run_forever()

        def child():
            global ch, kept, tasks, waiting
            del ch, kept
            for task in tasks:
                task._log_destroy_pending = False
            del tasks, task
            gc.collect()
            everything_works()
            assert told == []

        forked(child)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks))
        loop.close()
        """,
    )


def test_a_child_of_a_child(python):
    run(
        python,
        """
        inherited = weft.Channel(1)

        def child():
            second = weft.Channel(1)
            second.send_nowait(2)

            def grandchild():
                refused(lambda: inherited.recv_nowait())
                refused(lambda: second.recv_nowait())
                everything_works()

            forked(grandchild)
            refused(lambda: inherited.recv_nowait())
            assert second.recv_nowait() == 2

        forked(child)
        inherited.send_nowait(1)
        assert inherited.recv_nowait() == 1
        """,
    )


def test_a_child_of_a_thread_and_of_a_task(python):
    run(
        python,
        """
        ch = weft.Channel(1)

        def child():
            refused(lambda: ch.send_nowait(1))
            everything_works()

        thread = threading.Thread(target=forked, args=(child,))
        thread.start()
        thread.join()

        async def main():
            mine = weft.Channel()
            task = asyncio.ensure_future(first(mine))
            await asyncio.sleep(0)
            pid = os.fork()
            if pid == 0:
                try:
                    refused(lambda: ch.send_nowait(1))
                    refused(lambda: mine.send_nowait(1))
                    fresh = weft.Channel(1)
                    fresh.send_nowait(1)
                    assert fresh.recv_nowait() == 1
                    thread = threading.Thread(target=everything_works)
                    thread.start()
                    thread.join()
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
            await mine.send(1)
            assert await task == 1

        asyncio.run(main())
        """,
        *THREADS,
    )


def test_a_barrier_of_the_parent_is_refused(python):
    run(
        python,
        """
        barrier = weft.Barrier(2)
        party = threading.Thread(target=lambda: barrier.sync().wait(30))
        party.start()
        while not barrier.waiting:
            time.sleep(0.001)
        made = barrier.sync()

        def child():
            uses = [
                lambda: barrier.sync(),
                lambda: made.wait(30),
                lambda: barrier.waiting,
            ]
            for use in uses:
                assert "barrier" in str(refused(use))
            assert "inherited over a fork" in repr(barrier) and barrier.parties == 2
            assert weft.Barrier(1).sync().wait(30) == 0

        forked(child)
        barrier.sync().wait(30)
        party.join()
        """,
        *THREADS,
    )


def test_forking_while_threads_are_parked(python):
    run(
        python,
        """
        ch = weft.Channel()
        read, write = os.pipe()
        got = []

        def plain():
            got.append(ch.recv().wait())

        def selects():
            got.append(weft.select(ch.recv(), weft.after(60), weft.readable(read)).wait().value)

        def loops():
            async def main():
                got.append(await ch.recv())

            asyncio.run(main())

        threads = [threading.Thread(target=party) for party in (plain, selects, loops) * 2]
        for thread in threads:
            thread.start()
        while ch.statistics().parked_receivers < 6:
            time.sleep(0.001)

        def child():
            refused(lambda: ch.send_nowait(1))
            everything_works()

        for _ in range(5):
            forked(child)
        for n in range(6):
            ch.send(n).wait(30)
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(6))
        """,
        *THREADS,
    )


@pytest.mark.slow
def test_forking_in_the_middle_of_what_threads_do(python):
    """They may hold any lock of ours at that moment; the child must not wait for one."""
    run(
        python,
        """
        sys.setswitchinterval(1e-6)
        channels = [weft.Channel(n, overflow="drop_oldest" if n else "block") for n in range(3)]
        barrier, stop = weft.Barrier(2), weft.Channel()

        def talks():
            while not stop.closed:
                try:
                    weft.select(channels[0].send(1), channels[0].recv(), channels[1].recv()).wait(0.001)
                    channels[1].send_nowait([1])
                    channels[2].send_many([1, 2, 3]).wait(0.001)
                    tx = channels[2].sender()
                    tx.clone().close()
                    channels[2].statistics()
                except TimeoutError:
                    pass
                except weft.Closed:
                    channels[2] = weft.Channel(2)

        def syncs():
            while not stop.closed:
                try:
                    barrier.sync().wait(0.001)
                except TimeoutError:
                    pass

        made = threading.Event()  # the loop is: asyncio makes its first one under a lock that a child would find taken

        def loops():
            async def main():
                made.set()
                while not stop.closed:
                    await weft.select(channels[0].recv(), channels[1].send(1), weft.after(0.001))

            asyncio.run(main())

        threads = [threading.Thread(target=party) for party in (talks, talks, syncs, syncs, loops)]
        for thread in threads:
            thread.start()
        made.wait()

        def child():
            sys.setswitchinterval(0.005)
            for ch in list(channels):
                refused(lambda ch=ch: ch.send_nowait(1))
            channels.clear()
            everything_works()

        for _ in range(20):
            forked(child)
        stop.close()
        for thread in threads:
            thread.join()
        """,
        *THREADS,
        limit=5 * LIMIT,
    )


def test_forking_while_a_thread_imports_our_side_of_a_scheduler(python):
    """A child would wait for ever for a module that a thread which is not there has half imported."""
    run(
        python,
        """
        entered = threading.Event()

        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == "weft._asyncio":
                    entered.set()
                    time.sleep(0.2)

        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=lambda: weft.after(0.01).wait())
        thread.start()
        entered.wait()
        forked(everything_works)
        thread.join()
        """,
        *THREADS,
    )


def test_a_child_in_the_middle_of_a_group(python):
    """The child leaves the block it was forked in by its own exception; the parent's group is not touched."""
    run(
        python,
        """
        ch = weft.Channel()
        with weft.Group() as group:
            process = group.spawn(lambda: ch.recv().wait())
            while not ch.statistics().parked_receivers:
                time.sleep(0.001)

            def child():
                refused(lambda: ch.send_nowait(1))
                everything_works()
                os._exit(0)

            forked(child)
            ch.send(7).wait()
            assert process.join().wait() == 7
        """,
        *THREADS,
    )


def test_subprocesses_do_not_warn_and_leave_channels_alone(python):
    """`subprocess` forks too, but nothing of Python runs between its fork and its exec."""
    run(
        python,
        """
        import subprocess
        ch = weft.Channel(1)
        ch.send_nowait(1)
        thread = threading.Thread(target=weft.Channel().recv().wait, daemon=True)
        thread.start()
        for how in ({}, {"close_fds": False}, {"preexec_fn": None, "start_new_session": True}):
            assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, **how).stdout == b"1\\n"

        async def main():
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(2)", stdout=asyncio.subprocess.PIPE)
            assert (await process.communicate())[0] == b"2\\n"

        asyncio.run(main())
        assert os.system("exit 0") == 0
        assert ch.recv_nowait() == 1
        """,
    )


MULTIPROCESSING = (
    PRELUDE
    + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

inherited = weft.Channel(1)


def work(connection, method):
    if method == "fork":
        refused(lambda: inherited.recv_nowait())
    elif method == "spawn":  # a server that forks may, or may not, have imported this file before it does
        inherited.send_nowait(1)  # the child's own: it has imported this file anew
        assert inherited.recv_nowait() == 1
    everything_works()
    connection.send("well")
    connection.close()


def square(n):
    ch = weft.Channel(1)
    ch.send_nowait(n * n)
    return ch.recv().wait()


if __name__ == "__main__":
    method = sys.argv[1]
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, method))
    process.start()
    there.close()
    assert here.recv() == "well"
    process.join()
    assert process.exitcode == 0, process.exitcode
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(square, range(10))) == [n * n for n in range(10)]
    inherited.send_nowait(1)
    assert inherited.recv_nowait() == 1
"""
)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method, tmp_path):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    # A pool that forks does so while its own threads run, which Python 3.12 warns of.
    ended = subprocess.run(
        [sys.executable, "-W", "error", *THREADS, program, method],
        capture_output=True,
        text=True,
        timeout=LIMIT * 3,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_channel_cannot_be_pickled_and_says_so():
    import copy
    import pickle

    import weft

    ch = weft.Channel()
    for thing in (ch, *ch.split(), weft.tick(1)):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.copy(thing)
