"""Groups and processes: one test a promise. What is promised: docs/design/semantics.md, "Groups and processes".

What holds in asyncio and in trio alike is here, in a loop of each kind and a run of trio (`arun`); what is special to
trio or gevent, in test_trio.py and test_gevent.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import math
import signal
import sys
import textwrap
import threading
import time
import weakref

import pytest
import weft
from children import (
    Boom,
    Witness,
    checkpoint,
    double,
    fail,
    fail_in_thread,
    park,
    scheduler,
    soon,
    triple,
    undisturbed,
    wait_for_ever,
)
from worlds import CANCELLED, LIMIT, needs, until

COLOUR = contextvars.ContextVar("colour", default="none")


def until_done(process):
    until(lambda: process.done)


# --- leaving, joining -----------------------------------------------------------------------------------------------


def test_a_group_is_left_when_all_children_have_ended(arun):
    ended = []

    async def main():
        gate = weft.Event()

        async def task():
            await gate.wait()
            ended.append("task")

        def thread():
            gate.wait().wait()
            ended.append("thread")

        async with weft.Group() as group:
            group.spawn(task)
            group.spawn(thread)
            soon(gate.set)  # when the body is over: it waits for nothing
            assert not ended
        assert sorted(ended) == ["task", "thread"]

    arun(main)


def test_a_group_of_threads_is_left_when_all_children_have_ended():
    ended = []

    async def task():
        thread()

    def thread():
        until(lambda: group._gate)  # the owner waits
        ended.append(1)

    with weft.Group() as group:
        group.spawn(task)
        group.spawn(thread)
        assert not ended
    assert ended == [1, 1]


def test_an_empty_group_is_left_at_once(arun):
    async def main():
        async with weft.Group() as group:
            pass
        return group.cancelled

    assert arun(main) is False
    with weft.Group() as group:
        pass
    assert not group.cancelled


def test_join_gives_what_the_function_returned(arun):
    async def main():
        async with weft.Group() as group:
            processes = [group.spawn(double, 1), group.spawn(triple, 1), group.spawn(double, 2, on="thread")]
            assert [await process.join() for process in processes] == [2, 3, 4]
        assert [process.result() for process in processes] == [2, 3, 4]

    arun(main)
    with weft.Group() as group:
        processes = [group.spawn(double, 1), group.spawn(triple, 1)]
        assert [process.join().wait() for process in processes] == [2, 3]


def test_an_async_def_is_a_task_of_the_loop_and_anything_else_a_thread(arun):
    async def task():
        return scheduler(), threading.get_ident()

    async def main():
        async with weft.Group() as group:
            here, there = group.spawn(task), group.spawn(threading.get_ident)
            elsewhere = group.spawn(task, on="thread")
            assert await here.join() == (scheduler(), threading.get_ident())
            assert await there.join() != threading.get_ident()
            loop, thread = await elsewhere.join()
            assert loop is not scheduler() and thread != threading.get_ident()

    arun(main)


def test_every_kind_of_async_callable_is_recognised(run):
    class Callable:
        async def __call__(self, n):
            return threading.get_ident() if n else None

        async def method(self, n):
            return threading.get_ident() if n else None

    async def main():
        async with weft.Group() as group:
            for fn in (Callable(), Callable().method, functools.partial(functools.partial(Callable().method))):
                assert await group.spawn(fn, 1).join() == threading.get_ident()

    run(main)


def test_threads_do_not_need_the_executor_of_the_loop(loop_run):
    async def main():
        def refuse(*args):
            raise AssertionError("the executor was asked")

        loop = asyncio.get_running_loop()
        if not type(loop).__module__.startswith("uvloop"):  # its methods cannot be replaced
            loop.run_in_executor = refuse
        async with weft.Group() as group:
            # More than the executor has threads, and each needs all the others.
            barrier = threading.Barrier(64)
            processes = [group.spawn(barrier.wait, LIMIT) for _ in range(64)]
        return sorted(process.result() for process in processes)

    assert loop_run(main) == list(range(64))


def test_result_does_not_wait(arun):
    async def main():
        async with weft.Group() as group:
            gate = weft.Event()
            process = group.spawn(gate.wait, on="task")
            with pytest.raises(weft.WouldBlock, match="'wait-1'"):
                process.result()
            assert not process.done
            gate.set()
        assert process.done and process.result() is True

    arun(main)


def test_join_can_stand_in_a_select(arun):
    async def main():
        async with weft.Group() as group:
            process = group.spawn(double, 4)
            never = group.spawn(wait_for_ever)
            assert await weft.select(never=never.join(), it=process.join()) == ("it", 8)
            assert await weft.select(never.join(), weft.after(0.001)) == (1, pytest.approx(time.monotonic(), abs=1))
            never.cancel()

    arun(main)


def test_giving_up_on_a_join_leaves_the_process_alone(loop_run):
    async def main():
        gate = weft.Event()
        async with weft.Group() as group:
            process = group.spawn(gate.wait, on="task")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await process.join()
            assert not process.done
            gate.set()
            assert await process.join() is True and await process.join() is True

    loop_run(main)


def test_join_works_from_another_thread():
    async def main():
        async with weft.Group() as group:
            process = group.spawn(double, 4)
            reader = group.spawn(lambda: process.join().wait())
            assert await reader.join() == 8

    asyncio.run(main())


@needs("counted references")
def test_what_was_passed_to_a_thread_is_let_go_before_its_end_is_told():
    class Thing:
        pass

    thing = Thing()
    ref, seen = weakref.ref(thing), []
    with weft.Group() as group:
        tell, group._ended = group._ended, lambda *outcome: (seen.append(ref()), tell(*outcome))
        spawned = threading.Event()
        process = group.spawn(lambda thing: spawned.wait(LIMIT), thing)
        del thing
        spawned.set()
    assert process.done and seen == [None]


def test_processes_and_groups_say_what_they_are():
    with weft.Group("mine") as group:
        gate = threading.Event()
        process = group.spawn(gate.wait, name="waiter")
        line = sys._getframe().f_lineno - 1
        assert repr(process) == f"<weft.Process 'waiter' (thread) running, spawned at {__file__}:{line}>"
        assert repr(group) == "<weft.Group 'mine' open, 1 running>" and group.name == "mine"
        gate.set()
        process.join().wait()
        assert " returned, " in repr(process)
    assert repr(group) == "<weft.Group 'mine' ended, 0 running>"
    assert weft.Group().name == f"{__file__.rpartition('/')[2]}:{sys._getframe().f_lineno}"


def test_processes_are_named_after_their_function():
    with weft.Group() as group:
        assert group.spawn(triple, 1).name == "triple-1"
        assert group.spawn(functools.partial(triple, 1)).name == "triple-2"
        assert group.spawn(triple, 1, name="three").name == "three"
        assert group.spawn(lambda: threading.current_thread().name, name="fred").join().wait() == "fred"


def test_a_task_has_the_name_of_its_process(run):
    async def main():
        async with weft.Group() as group:
            process = group.spawn(double, 1)
            assert "double-1" in {task.get_name() for task in asyncio.all_tasks()}
            await process.join()

    run(main)


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [fail, fail_in_thread])
def test_the_first_failure_cancels_the_siblings_and_the_body(arun, failing):
    async def main():
        witness, after = Witness(), []
        with pytest.raises(ExceptionGroup, match="group 'g': process 'culprit' failed") as caught:
            async with weft.Group("g") as group:
                await witness.spawn(group)
                group.spawn(failing, Boom(), name="culprit")
                await wait_for_ever()
                after.append("the body went on")
        assert [type(error) for error in caught.value.exceptions] == [Boom]
        assert caught.value.__context__ is None
        assert sorted(witness.cancelled) == Witness.ALL and not after
        await undisturbed()

    arun(main)


def test_the_first_failure_of_a_thread_cancels_the_siblings_and_the_body():
    witness, after = Witness(), []
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        witness.spawn_threads(group)
        group.spawn(fail_in_thread, Boom())
        park()
        after.append("the body went on")
    assert [type(error) for error in caught.value.exceptions] == [Boom]
    assert sorted(witness.cancelled) == ["task", "thread"] and not after
    weft.always(1).wait()  # this thread is not cancelled any more


def test_a_failing_body_cancels_the_children(arun):
    async def main():
        witness = Witness()
        with pytest.raises(ExceptionGroup, match="group 'g': its body failed") as caught:
            async with weft.Group("g") as group:
                await witness.spawn(group)
                raise Boom()
        assert [type(error) for error in caught.value.exceptions] == [Boom]
        assert caught.value.__context__ is None
        assert sorted(witness.cancelled) == Witness.ALL

    arun(main)
    witness = Witness()
    with pytest.raises(ExceptionGroup, match="group 'h': its body failed"), weft.Group("h") as group:
        witness.spawn_threads(group)
        raise Boom()
    assert sorted(witness.cancelled) == ["task", "thread"]


def test_no_error_is_lost(arun):
    """One fails, and three more while they are being cancelled: all four are raised."""

    async def fails_when_cancelled(witness, error):
        try:
            await witness.task()
        finally:
            raise error

    def fails_when_cancelled_in_thread(witness, error):
        try:
            witness.thread()
        finally:
            raise error

    async def main():
        errors = [KeyError("one"), Boom("two"), ValueError("three"), TypeError("body")]
        witness = Witness()
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                group.spawn(fails_when_cancelled, witness, errors[1])
                group.spawn(fails_when_cancelled_in_thread, witness, errors[2])
                await witness.waiting.recv()
                await witness.waiting.recv()
                group.spawn(fail, errors[0])
                try:
                    await wait_for_ever()
                finally:
                    raise errors[3]
        assert {id(error) for error in caught.value.exceptions} == {id(error) for error in errors}

    arun(main)


def test_a_base_exception_ends_a_process_like_any_other(arun):
    class Unusual(BaseException):
        pass

    async def main(failing):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with weft.Group() as group:
                group.spawn(failing, Unusual())
                group.spawn(park)
        assert not isinstance(caught.value, ExceptionGroup)
        assert [type(error) for error in caught.value.exceptions] == [Unusual]

    arun(main, fail)
    arun(main, fail_in_thread)
    with pytest.raises(BaseExceptionGroup), weft.Group() as group:
        group.spawn(fail_in_thread, Unusual())


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt])
def test_what_a_group_raises_has_no_stray_context(error):
    """Not the cancellation it used to interrupt the body, nor an error of the body that it carries anyway."""
    with pytest.raises((BaseExceptionGroup, KeyboardInterrupt)) as caught, weft.Group() as group:
        group.spawn(fail_in_thread, error())
        park()
    assert caught.value.__context__ is None
    with pytest.raises(ExceptionGroup) as caught, weft.Group():
        raise Boom
    assert caught.value.__context__ is None


def test_the_message_names_the_group_and_who_failed():
    barrier = threading.Barrier(3)

    def fails():
        barrier.wait(LIMIT)
        raise Boom

    with pytest.raises(ExceptionGroup) as caught, weft.Group("pipeline") as group:
        group.spawn(fails, name="a")
        group.spawn(fails, name="b")
        barrier.wait(LIMIT)
        until(lambda: group.spawn(triple, 1).cancelled() and len(group._failures) == 2)
        raise Boom
    text = str(caught.value)
    assert text.startswith("group 'pipeline': its body and processes ")
    assert "'a'" in text and "'b'" in text and text.endswith("failed (3 sub-exceptions)")


def test_a_long_list_of_failures_is_cut_short():
    barrier = threading.Barrier(20)

    def fails():
        barrier.wait(LIMIT)
        raise Boom

    with pytest.raises(ExceptionGroup, match=r"and 12 more failed|, 12 more failed") as caught, weft.Group() as group:
        for _ in range(20):
            group.spawn(fails)
    assert len(caught.value.exceptions) == 20


@pytest.mark.parametrize("failing", [fail, fail_in_thread])
def test_an_error_carries_a_note_with_the_process_and_the_line_that_spawned_it(arun, failing):
    async def main():
        try:
            async with weft.Group() as group:
                group.spawn(failing, Boom(), name="culprit")
                line = sys._getframe().f_lineno - 1
        except* Boom as caught:
            (error,) = caught.exceptions
            place = "task" if failing is fail else "thread"
            assert error.__notes__ == [f"in process 'culprit' ({place}), spawned at {__file__}:{line}"]

    arun(main)


def test_an_error_that_takes_no_note_is_raised_all_the_same(arun):
    class Frozen(Exception):
        def __setattr__(self, name, value):
            raise AttributeError("frozen")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                group.spawn(fail, Frozen())
        assert [type(error) for error in caught.value.exceptions] == [Frozen]

    arun(main)
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        group.spawn(fail_in_thread, Frozen())
    assert [type(error) for error in caught.value.exceptions] == [Frozen]


def test_the_traceback_of_an_error_begins_at_the_function_spawned(arun):
    async def main():
        for fn, on in ((fail, "task"), (fail, "thread"), (fail_in_thread, "thread")):
            with pytest.raises(ExceptionGroup) as caught:
                async with weft.Group() as group:
                    group.spawn(fn, Boom(), on=on)
            traceback = caught.value.exceptions[0].__traceback__
            if traceback.tb_frame.f_code.co_filename == asyncio.tasks.__file__:
                traceback = traceback.tb_next  # the line of a task that is written in Python
            assert traceback.tb_frame.f_code is fn.__code__ and traceback.tb_next is None

    arun(main)


def test_waiting_for_a_process_does_not_handle_its_error(arun):
    async def main(error):
        seen = []
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                process = group.spawn(fail, error)
                try:
                    await process.join()
                except Boom as joined:
                    seen.append(joined)
        assert seen == [error] and caught.value.exceptions == (error,)
        assert process.done and not process.cancelled()
        with pytest.raises(Boom):
            process.result()

    arun(main, Boom())


def test_an_error_that_reaches_the_group_by_two_ways_is_raised_once(arun):
    async def main(error):
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                process = group.spawn(fail, error)
                await process.join()  # and the body fails with the same
        assert caught.value.exceptions == (error,)

    arun(main, Boom())


def test_asking_again_and_again_does_not_make_the_traceback_longer():
    def length(traceback):
        return 0 if traceback is None else 1 + length(traceback.tb_next)

    with pytest.raises(ExceptionGroup), weft.Group() as group:
        process = group.spawn(fail_in_thread, Boom())
    lengths = []
    for ask in (process.result, process.join().wait, process.result, process.join().wait, process.result):
        with pytest.raises(Boom) as caught:
            ask()
        lengths.append(length(caught.value.__traceback__))
    assert lengths[0] == lengths[2] == lengths[4] and lengths[1] == lengths[3]


def test_stop_iteration_in_a_thread_does_not_end_the_one_who_joins(arun):
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                await group.spawn(fail_in_thread, StopIteration(1)).join()
        (error,) = caught.value.exceptions
        assert type(error) is RuntimeError and type(error.__cause__) is StopIteration

    arun(main)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["task", "body"])
def test_keyboard_interrupt_and_system_exit_pass_as_through_a_task_group(kind, where):
    def outcome(make_group, spawn):
        log = []

        async def waits():
            try:
                await wait_for_ever()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        async def main():
            try:
                async with make_group() as group:
                    spawn(group, waits)
                    await asyncio.sleep(0)
                    if where == "body":
                        raise kind
                    spawn(group, fail, kind())
                    await wait_for_ever()
            except BaseException as error:
                log.append(type(error))
                raise

        try:
            asyncio.run(main())
        except BaseException as error:
            log.append(type(error))
        return log

    reference = outcome(asyncio.TaskGroup, lambda group, fn, *args: group.create_task(fn(*args)))
    assert outcome(weft.Group, lambda group, fn, *args: group.spawn(fn, *args)) == reference
    assert reference[-1] is kind


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_of_a_thread_are_raised_bare_and_hide_nothing(kind):
    witness, first = Witness(), Boom()

    def fails_when_cancelled():
        try:
            park()
        finally:
            raise first

    with pytest.raises(kind) as caught, weft.Group() as group:
        witness.spawn_threads(group)
        group.spawn(fails_when_cancelled)
        group.spawn(fail_in_thread, kind(3))
    assert sorted(witness.cancelled) == ["task", "thread"]
    assert isinstance(caught.value.__context__, ExceptionGroup)
    assert caught.value.__context__.exceptions == (first,)


class Traced(Exception):
    """An error that tells whether it is still there."""

    made: list[weakref.ref] = []

    def __init__(self):
        self.made.append(weakref.ref(self))


def raise_traced():
    raise Traced


async def raise_traced_in_loop():
    await checkpoint()
    raise Traced


@pytest.fixture
def traced():
    """Without the collector: the errors made that have not gone by themselves."""
    gc.collect()
    gc.disable()
    Traced.made.clear()

    def left():
        assert Traced.made
        return [error for ref in Traced.made if (error := ref()) is not None]

    yield left
    gc.enable()


@needs("counted references")
@pytest.mark.parametrize("body_fails", [False, True])
@pytest.mark.parametrize(
    "fn, on", [(raise_traced, "thread"), (raise_traced_in_loop, "thread"), (raise_traced_in_loop, "task")]
)
def test_a_failed_group_leaves_no_reference_cycle(arun, traced, fn, on, body_fails):
    async def main():
        try:
            async with weft.Group() as group:
                group.spawn(fn, on=on)
                if body_fails:
                    raise Traced
                await wait_for_ever()
        except* Traced:
            pass
        while traced():  # a thread may still be on its last lines; a cycle would stay for ever
            await checkpoint()

    arun(main)


@needs("counted references")
@pytest.mark.parametrize("body_fails", [False, True])
@pytest.mark.parametrize("fn", [raise_traced, raise_traced_in_loop])
def test_a_failed_group_of_threads_leaves_no_reference_cycle(traced, fn, body_fails):
    try:
        with weft.Group() as group:
            group.spawn(fn)
            if body_fails:
                raise Traced
            park()
    except* Traced:
        pass
    assert not traced()


@needs("counted references")
def test_joining_a_process_that_failed_adds_no_reference_cycle(traced):
    def joins():
        with weft.Group() as group:
            process = group.spawn(raise_traced)
            try:
                until_done(process)
                process.result()
            finally:
                del process  # this frame is in the traceback

    try:
        joins()
    except* Traced:
        pass
    assert not traced()


# --- cancelled from outside -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "exit"])
def test_a_cancelled_owner_cancels_its_children_waits_and_passes_it_on(loop_run, where):
    async def owner(witness, ready):
        async with weft.Group() as group:
            await witness.spawn(group)
            ready.set()
            if where == "body":
                await wait_for_ever()

    async def main():
        witness, ready = Witness(), asyncio.Event()
        task = asyncio.create_task(owner(witness, ready))
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled() and task.cancelling() == 1
        assert sorted(witness.cancelled) == Witness.ALL

    loop_run(main)


def test_a_timeout_around_a_group_is_a_timeout(loop_run):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), weft.Group() as group:
                group.spawn(wait_for_ever)
                group.spawn(park)
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    loop_run(main)


def test_an_error_takes_the_place_of_a_cancellation_from_outside_which_comes_later(loop_run):
    """As with asyncio.TaskGroup: the count stays at one, and the next suspension is cancelled."""

    async def fails_when_cancelled():
        try:
            await wait_for_ever()
        finally:
            raise Boom

    async def owner(log):
        try:
            async with weft.Group() as group:
                group.spawn(fails_when_cancelled)
                await asyncio.sleep(0)
                log.append("ready")
                await wait_for_ever()
        except* Boom:
            log.append(asyncio.current_task().cancelling())
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def main():
        log = []
        task = asyncio.create_task(owner(log))
        while not log:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["ready", 1, "cancelled"] and task.cancelling() == 1

    loop_run(main)


def test_a_cancellation_that_was_withdrawn_does_not_come_later(loop_run):
    """`asyncio.timeout` withdraws it on leaving. Before Python 3.13 a task that has cancelled itself forgets nothing."""

    async def fails_when_cancelled():
        try:
            await wait_for_ever()
        finally:
            raise Boom

    async def main():
        try:
            async with asyncio.timeout(0), weft.Group() as group:
                group.spawn(fails_when_cancelled)
                await wait_for_ever()
        except* Boom:
            pass
        assert asyncio.current_task().cancelling() == 0
        for _ in range(3):
            await asyncio.sleep(0)
        await weft.sleep(0)

    loop_run(main)


def test_a_body_that_ends_as_it_is_being_cancelled_takes_no_cancellation_along(arun):
    """The group cancels the body, which ends without waiting any more: the code after the group must not be hit."""

    async def fail_at_once():  # an eager task does so within `spawn`
        raise Boom

    def cancel_with_a_child(group):
        group.spawn(wait_for_ever)
        group.cancel()

    async def main():
        for what in (lambda group: group.cancel(), cancel_with_a_child, lambda group: group.spawn(fail_at_once)):
            try:
                async with weft.Group() as group:
                    what(group)
            except* Boom:
                pass
            await undisturbed()

    arun(main)


def test_cancelling_a_group_within_a_task_already_being_cancelled_keeps_the_count(loop_run):
    async def owner(log):
        try:
            await wait_for_ever()
        except asyncio.CancelledError:
            async with weft.Group() as group:  # cleaning up
                group.spawn(wait_for_ever)
                group.cancel()
                await wait_for_ever()
            log.append((group.cancelled, asyncio.current_task().cancelling()))
            raise

    async def main():
        log = []
        task = asyncio.create_task(owner(log))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == [(True, 1)] and task.cancelling() == 1

    loop_run(main)


def test_a_second_cancellation_does_not_leave_children_behind(loop_run):
    async def stubborn(log, gate):
        try:
            await wait_for_ever()
        finally:
            log.append("cancelled")
            await gate.wait()
            log.append("cleaned up")

    async def owner(log, gate):
        async with weft.Group() as group:
            group.spawn(stubborn, log, gate)

    async def main():
        log, gate = [], asyncio.Event()
        task = asyncio.create_task(owner(log, gate))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert log == ["cancelled"] and not task.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["cancelled", "cleaned up"]

    loop_run(main)


# --- g.cancel(), g.cancel_after() -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "exit"])
@pytest.mark.parametrize("who", ["body", "thread", "task", "callback"])
def test_cancel_ends_children_and_body_and_is_silent(arun, who, where):
    async def cancels(group):
        group.cancel()

    async def main():
        witness, after = Witness(), []
        async with weft.Group() as group:
            children = await witness.spawn(group)
            assert not group.cancelled
            if who == "body":
                group.cancel()
                group.cancel()
                assert group.cancelled
            elif who == "thread":
                group.spawn(group.cancel)
            elif who == "task":
                group.spawn(cancels, group)
            else:
                soon(group.cancel)
            if where == "body":
                await wait_for_ever()
                after.append("the body went on")
        assert sorted(witness.cancelled) == Witness.ALL and not after
        assert all(child.cancelled() and child.done for child in children) and group.cancelled
        await undisturbed()

    arun(main)


def test_cancel_in_a_group_of_threads_ends_children_and_body_and_is_silent():
    witness, after = Witness(), []
    with weft.Group() as group:
        children = witness.spawn_threads(group)
        group.cancel()
        park()
        after.append("the body went on")
    assert sorted(witness.cancelled) == ["task", "thread"] and not after
    assert all(child.cancelled() for child in children) and group.cancelled
    weft.always(1).wait()


@pytest.mark.parametrize("where", ["body", "exit"])
def test_a_group_can_be_cancelled_from_any_thread(arun, where):
    async def main():
        async with weft.Group() as group:
            group.spawn(wait_for_ever)
            group.spawn(park)
            group.spawn(wait_for_ever, on="thread")
            threading.Thread(target=group.cancel).start()
            if where == "body":
                await wait_for_ever()
        assert group.cancelled

    arun(main)
    with weft.Group() as group:
        group.spawn(park)
        threading.Thread(target=group.cancel).start()
        if where == "body":
            park()
    assert group.cancelled


def test_a_child_can_cancel_its_group(arun):
    async def main():
        async with weft.Group() as group:
            group.spawn(group.cancel)
            await wait_for_ever()
        async with weft.Group() as group:

            async def canceller():
                group.cancel()
                await wait_for_ever()

            process = group.spawn(canceller)
            await wait_for_ever()
        assert process.cancelled()

    arun(main)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_a_group_can_be_cancelled_from_a_signal_handler(loop_run):
    groups = []

    def cancel(*_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        groups[-1].cancel()

    def start_timer():
        # Until it is answered: the first may come just before the thread sleeps (L15).
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.1)

    before = signal.signal(signal.SIGALRM, cancel)
    try:

        async def main():
            async with weft.Group() as group:
                groups.append(group)
                group.spawn(wait_for_ever)
                start_timer()
                await wait_for_ever()
            assert group.cancelled

        loop_run(main)
        with weft.Group() as group:
            groups.append(group)
            group.spawn(park)
            start_timer()
            park()
        assert group.cancelled
        with weft.Group() as group:
            groups.append(group)
            group.spawn(park)
            start_timer()
        assert group.cancelled
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_cancelling_before_entering_cancels_on_entering(arun):
    async def main():
        group = weft.Group()
        group.cancel()
        async with group:
            process = group.spawn(wait_for_ever)
            await wait_for_ever()
        assert group.cancelled and process.cancelled()
        group = weft.Group()
        group.cancel_after(0)
        async with group:
            await wait_for_ever()
        assert group.cancelled

    arun(main)
    group = weft.Group()
    group.cancel()
    with group:
        park()
    assert group.cancelled


def test_cancelling_a_group_that_has_ended_changes_nothing(arun):
    async def main():
        async with weft.Group() as group:
            group.spawn(double, 1)
        group.cancel()
        assert not group.cancelled
        await undisturbed()

    arun(main)


def test_an_error_during_cancel_is_raised(arun):
    def fails_when_cancelled(witness):
        try:
            witness.thread()
        finally:
            raise Boom

    async def main():
        witness = Witness()
        with pytest.raises(ExceptionGroup):
            async with weft.Group() as group:
                group.spawn(fails_when_cancelled, witness)
                await witness.waiting.recv()
                group.cancel()
        assert group.cancelled

    arun(main)


def test_a_process_spawned_in_a_cancelled_group_is_never_started(arun):
    started = []

    async def main():
        async with weft.Group() as group:
            group.cancel()
            processes = [group.spawn(started.append, 1), group.spawn(fail, Boom()), group.spawn(double, 1, on="thread")]
            assert all(process.done and process.cancelled() for process in processes)
            with pytest.raises(weft.Cancelled):
                processes[0].result()
        assert not started

    arun(main)


@pytest.mark.parametrize("where", ["body", "exit"])
def test_cancel_after_cancels_everything_when_the_time_has_come(loop_run, where):
    async def main():
        witness = Witness()
        async with weft.Group() as group:
            await witness.spawn(group)
            begin = time.monotonic()
            group.cancel_after(0.02)
            assert not group.cancelled
            if where == "body":
                await wait_for_ever()
        # uvloop's clock counts whole milliseconds
        assert 0.018 <= time.monotonic() - begin < LIMIT
        assert group.cancelled and sorted(witness.cancelled) == Witness.ALL

    loop_run(main)
    witness = Witness()
    with weft.Group() as group:
        witness.spawn_threads(group)
        group.cancel_after(0.02)
        if where == "body":
            park()
    assert group.cancelled and sorted(witness.cancelled) == ["task", "thread"]


def test_cancel_after_reaches_a_coroutine_in_a_thread_while_the_body_is_busy():
    for wait_first in (True, False):
        witness = Witness()
        with weft.Group() as group:
            if not wait_first:
                group.cancel_after(0.005)  # before there is a loop to keep it
            process = group.spawn(witness.task)
            if wait_first:
                witness.waiting.recv().wait()
                group.cancel_after(0.005)
            until(process.cancelled)  # without any of weft's operations
            assert group.cancelled
    group = weft.Group()
    group.cancel_after(0.005)
    with group:
        process = group.spawn(wait_for_ever)
        until(lambda: process.done)
    assert process.cancelled()


def test_a_group_whose_threads_met_the_deadline_by_themselves_was_cancelled():
    with weft.Group() as group:
        process = group.spawn(park)
        group.cancel_after(0.005)
        until(process.cancelled)  # and the body ends without having met it
    assert group.cancelled


def test_cancel_after_called_again_moves_the_deadline(loop_run):
    async def main():
        async with weft.Group() as group:
            group.cancel_after(0.2)
            group.cancel_after(1000)
            await weft.after(0.25)
            assert not group.cancelled
            group.cancel_after(0)
            await wait_for_ever()
        assert group.cancelled
        async with weft.Group() as group:
            group.cancel_after(0.2)
            group.cancel_after(math.inf)
            await weft.after(0.25)
        assert not group.cancelled

    loop_run(main)
    with weft.Group() as group:
        process = group.spawn(wait_for_ever, on="thread")
        group.cancel_after(0.2)
        group.cancel_after(1000)
        weft.after(0.25).wait()
        assert not group.cancelled and not process.done
        threading.Thread(target=group.cancel_after, args=(0,)).start()
        park()
    assert group.cancelled


def test_a_group_that_ends_in_time_was_not_cancelled(loop_run):
    async def main():
        async with weft.Group() as group:
            group.cancel_after(0.2)
            group.spawn(double, 1)
        assert not group.cancelled
        await weft.after(0.25)
        assert not group.cancelled

    loop_run(main)
    with weft.Group() as group:
        group.cancel_after(0.2)
        group.spawn(triple, 1)
    weft.after(0.25).wait()
    assert not group.cancelled


@pytest.mark.parametrize("seconds", [-1, math.nan])
def test_cancel_after_wants_a_time_that_can_come(seconds):
    with pytest.raises(ValueError):
        weft.Group().cancel_after(seconds)


# --- p.cancel() -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn, on", [(wait_for_ever, "task"), (park, "thread"), (wait_for_ever, "thread")])
def test_cancelling_one_process_leaves_the_others_alone(arun, fn, on):
    async def main():
        async with weft.Group() as group:
            for canceller in ("at once", "when it waits", "in a thread"):
                process = group.spawn(fn, on=on, name="one")
                if canceller == "in a thread":
                    await group.spawn(process.cancel).join()
                else:
                    if canceller == "when it waits":
                        for _ in range(5):
                            await checkpoint()
                    process.cancel()
                with pytest.raises(weft.Cancelled, match="'one' was cancelled"):
                    await process.join()
                assert process.cancelled() and process.done
            assert await group.spawn(double, 1).join() == 2
        assert not group.cancelled

    arun(main)


def test_a_thread_is_cancelled_at_whatever_moment_on_its_way_to_sleep(python):
    """A scheduler that was added is asked at some of these moments: here, one that answers no, and cancels."""
    python(
        """
        import weft
        from weft.lowlevel import Scope, add_scheduler

        scope, asked, answer = None, 0, 0

        def identify():
            global asked
            asked += 1
            if asked == answer:
                scope.cancel()

        add_scheduler(identify, wait=lambda op, timeout: None)

        def ending(cancelled_at, patience):
            global scope, asked, answer
            scope = Scope()
            scope.enter()
            asked, answer = 0, cancelled_at
            try:
                weft.Channel().recv().wait(patience)
            except (weft.Cancelled, TimeoutError) as error:
                return type(error), asked
            finally:
                answer = 0
                scope.exit()

        timed_out, times = ending(0, 0.001)
        assert timed_out is TimeoutError and times > 0
        for moment in range(times):
            assert ending(moment + 1, None)[0] is weft.Cancelled, moment
        """
    )


def test_a_thread_that_goes_on_after_being_cancelled_is_told_again():
    told = []

    def deaf():
        for _ in range(3):
            try:
                weft.always(1).wait()
                park()
            except weft.Cancelled:
                told.append(1)
        return "done all the same"

    with weft.Group() as group:
        process = group.spawn(deaf)
        process.cancel()
        assert process.join().wait() == "done all the same"
    assert not process.cancelled() and len(told) >= 2


def test_a_coroutine_in_a_thread_can_be_cancelled_at_any_time(run):
    """Before its loop runs, while it runs, and as it ends."""

    async def short():
        pass

    async def main():
        async with weft.Group() as group:
            for n in range(60):
                endless = n % 2 == 0
                process = group.spawn(wait_for_ever if endless else short, on="thread")
                for _ in range(n):
                    await asyncio.sleep(0)
                process.cancel()
                try:
                    await process.join()
                    assert not endless and not process.cancelled()
                except weft.Cancelled:
                    assert process.cancelled()

    run(main)


def test_a_process_that_ends_normally_though_cancelled_was_not_cancelled(arun):
    async def main():
        waits = weft.Event()

        async def defiant():
            try:
                waits.set()
                await wait_for_ever()
            except CANCELLED:
                return "all is well"

        async with weft.Group() as group:
            process = group.spawn(defiant)
            await waits.wait()
            process.cancel()
            assert await process.join() == "all is well" and not process.cancelled()

    arun(main)


def test_a_cancellation_nobody_handled_is_an_error_of_the_one_who_joined(arun):
    """Cancelling one process is no reason for another to vanish silently."""

    async def main():
        with pytest.raises(BaseExceptionGroup) as caught:
            async with weft.Group() as group:
                process = group.spawn(wait_for_ever)
                process.cancel()
                await process.join()
        assert [type(error) for error in caught.value.exceptions] == [weft.Cancelled]

        with pytest.raises(BaseExceptionGroup) as caught:
            async with weft.Group() as group:
                process = group.spawn(wait_for_ever)
                group.spawn(lambda: process.join().wait())
                process.cancel()
        assert [type(error) for error in caught.value.exceptions] == [weft.Cancelled]

    arun(main)


def test_joining_one_another_in_a_cancelled_group_is_silent(loop_run):
    async def joins_when_cancelled(process):
        try:
            await wait_for_ever()
        finally:
            await process.join()  # which raises weft.Cancelled

    async def main():
        async with weft.Group() as group:
            process = group.spawn(wait_for_ever)
            others = [
                group.spawn(process.join, on="task"),
                group.spawn(joins_when_cancelled, process),
                group.spawn(lambda: process.join().wait()),
            ]
            await asyncio.sleep(0)
            group.cancel()
            await others[0].join()
        assert all(other.cancelled() for other in others)

    loop_run(main)


def test_a_task_cancelled_by_other_means_counts_as_cancelled(loop_run):
    async def main():
        async def cancels_itself():
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        async with weft.Group() as group:
            process = group.spawn(cancels_itself)
        assert process.cancelled() and not group.cancelled

    loop_run(main)


# --- threads --------------------------------------------------------------------------------------------------------


def test_no_thread_outlives_a_group_of_threads():
    before = threading.active_count()
    for _ in range(50):
        with weft.Group() as group:
            for _ in range(4):
                group.spawn(triple, 1)
        assert threading.active_count() == before


@needs("counted references")
def test_a_group_of_threads_waits_for_the_last_of_each_thread():
    """Even for the destructors of what a thread had of its own, in whatever order the threads end."""
    local, gone = threading.local(), []

    class Slow:
        def __del__(self):
            time.sleep(0.05)
            gone.append(1)

    def slow():
        local.slow = Slow()

    def last(first):
        until(lambda: first.done)

    with weft.Group() as group:
        group.spawn(slow)
    assert gone == [1]
    with weft.Group() as group:
        group.spawn(last, group.spawn(slow))
    assert gone == [1, 1]


def test_the_threads_of_a_group_are_no_daemons():
    found = []

    def main():
        with weft.Group() as group:
            group.spawn(lambda: found.append(threading.current_thread().daemon))

    main()
    thread = threading.Thread(target=main, daemon=True)  # whose threads would be daemons by themselves
    thread.start()
    thread.join(LIMIT)
    assert found == [False, False]


def test_a_group_of_threads_cannot_be_entered_where_a_loop_runs(arun):
    async def main():
        with pytest.raises(weft.BlockingInLoopError, match="async with"):
            with weft.Group():
                pass

    arun(main)


def test_a_group_of_tasks_cannot_be_entered_without_a_loop():
    async def main():
        async with weft.Group():
            pass

    coroutine = main()
    with pytest.raises(RuntimeError, match="loop"):
        coroutine.send(None)


def test_a_group_of_threads_has_no_tasks():
    with weft.Group() as group:
        with pytest.raises(ValueError, match="async with"):
            group.spawn(double, 1, on="task")


def test_a_coroutine_in_a_thread_may_have_groups_of_its_own(arun):
    async def inner(witness, ready):
        async with weft.Group() as group:
            await witness.spawn(group)
            ready.set()

    async def main():
        witness, ready = Witness(), weft.Event()
        async with weft.Group() as group:
            process = group.spawn(inner, witness, ready, on="thread")
            await ready.wait()
            group.cancel()
        assert process.cancelled() and sorted(witness.cancelled) == Witness.ALL

    arun(main)


def test_a_coroutine_in_a_cancelled_thread_is_told_so_by_a_blocking_operation_as_well(arun):
    async def stubborn(ready):
        try:
            ready.set()
            await wait_for_ever()
        except asyncio.CancelledError:
            pass
        async with weft.Group() as group:
            group.spawn(wait_for_ever)
            weft.always(1).wait()
        return "went on"

    async def main():
        ready = weft.Event()
        async with weft.Group() as group:
            process = group.spawn(stubborn, ready, on="thread")
            await ready.wait()
            process.cancel()
        assert process.cancelled()

    arun(main)


# --- nesting --------------------------------------------------------------------------------------------------------


def test_groups_nest_and_errors_come_out_nested(arun):
    async def inner():
        async with weft.Group("inner") as group:
            group.spawn(fail_in_thread, Boom())

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group("outer") as group:
                group.spawn(inner)
                group.spawn(park)
        (nested,) = caught.value.exceptions
        assert "inner" in str(nested) and "in process 'inner-1'" in nested.__notes__[0]
        assert type(nested.exceptions[0]) is Boom

    arun(main)


@pytest.mark.parametrize("where", ["body", "exit"])
@pytest.mark.parametrize("how", ["cancel", "deadline", "failure"])
def test_an_outer_cancellation_passes_through_a_group_of_threads(where, how):
    witness, after = Witness(), []

    def inner(ready):
        try:
            with weft.Group() as group:
                witness.spawn_threads(group)
                ready.set()
                if where == "body":
                    park()
        except weft.Cancelled:
            after.append("passed on")
            raise
        finally:
            after.append(group.cancelled)

    def outer():
        with weft.Group() as group:
            ready = weft.Event()
            process = group.spawn(inner, ready)
            ready.wait().wait()
            if how == "cancel":
                group.cancel()
            elif how == "deadline":
                group.cancel_after(0.001)
            else:
                group.spawn(fail_in_thread, Boom())
            park()
        return process

    if how == "failure":
        with pytest.raises(ExceptionGroup):
            outer()
    else:
        assert outer().cancelled()
    assert sorted(witness.cancelled) == ["task", "thread"]
    assert after == ["passed on", False]


def test_a_group_of_threads_in_a_thread_of_a_loop_is_cancelled_with_its_task(loop_run):
    witness = Witness()

    def inner():
        with weft.Group() as group:
            group.spawn(witness.thread)

    async def owner():
        async with weft.Group() as group:
            group.spawn(inner)

    async def main():
        task = asyncio.create_task(owner())
        await witness.waiting.recv()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert witness.cancelled == ["thread"]

    loop_run(main)


# --- spawning -------------------------------------------------------------------------------------------------------


def test_spawn_works_from_any_thread_while_the_group_is_open(arun):
    async def main():
        ident = threading.get_ident()

        async def where():
            return threading.get_ident()

        async with weft.Group() as group:
            inside = group.spawn(lambda: group.spawn(where).join().wait())
            assert await inside.join() == ident
            spawned = weft.Channel(1)
            threading.Thread(target=lambda: spawned.send_nowait(group.spawn(where))).start()
            outside = await spawned.recv()
            assert await outside.join() == ident

    arun(main)


def test_children_may_spawn_while_the_group_is_being_left(arun):
    async def chain(group, n, log):
        log.append(n)
        await checkpoint()
        if n:
            group.spawn(chain, group, n - 1, log)

    async def main():
        log = []
        async with weft.Group() as group:
            group.spawn(chain, group, 5, log)
        assert log == [5, 4, 3, 2, 1, 0]

    arun(main)

    def chain_of_threads(group, n, log):
        log.append(n)
        if n:
            group.spawn(chain_of_threads, group, n - 1, log)

    log = []
    with weft.Group() as group:
        group.spawn(chain_of_threads, group, 5, log)
    assert log == [5, 4, 3, 2, 1, 0]


def test_spawn_outside_the_block_says_so(arun):
    group = weft.Group()
    with pytest.raises(RuntimeError, match="not entered"):
        group.spawn(triple, 1)

    async def main():
        async with weft.Group() as group:
            pass
        with pytest.raises(RuntimeError, match="has ended"):
            group.spawn(double, 1)

    arun(main)


def test_a_group_is_entered_once(arun):
    group = weft.Group()
    with group:
        pass
    with pytest.raises(RuntimeError, match="entered before"), group:
        pass

    async def main():
        async with weft.Group() as group:
            with pytest.raises(RuntimeError, match="entered before"):
                async with group:
                    pass

    arun(main)


def test_wrong_arguments_for_an_async_def_are_the_callers_error(arun):
    async def main():
        async with weft.Group() as group:
            with pytest.raises(TypeError):
                group.spawn(double)
            assert await group.spawn(double, 1).join() == 2

    arun(main)


def test_a_process_whose_function_returns_an_operation_performs_it(arun):
    """`go ch.send(3)`."""

    async def main():
        ch = weft.Channel()
        async with weft.Group() as group:
            sends = [group.spawn(ch.send, on or "by itself", on=on) for on in (None, "thread", "task")]
            assert {await ch.recv() for _ in sends} == {"by itself", "thread", "task"}
            receives = [group.spawn(ch.recv, on=on) for on in (None, "thread", "task")]
            for n in range(3):
                await ch.send(n)
            assert sorted([await process.join() for process in receives]) == [0, 1, 2]
            assert await group.spawn(lambda: weft.select(ch.recv(), timeout=weft.sleep(0))).join() == weft.Selected(
                "timeout", pytest.approx(time.monotonic(), abs=LIMIT)
            )
        assert [process.result() for process in sends] == [None] * 3

    arun(main)
    ch = weft.Channel()
    with weft.Group() as group:
        process = group.spawn(ch.send, 3)
        assert ch.recv().wait() == 3
    assert process.result() is None


def test_a_process_that_performs_what_its_function_returned_is_cancelled_and_fails_like_any_other(arun):
    async def main():
        ch = weft.Channel()
        async with weft.Group() as group:
            processes = [group.spawn(ch.recv, on=on) for on in (None, "thread", "task")]
            while ch.statistics().parked_receivers < 3:
                await checkpoint()
            processes[0].cancel()
            with pytest.raises(weft.Cancelled):
                await processes[0].join()
            group.cancel()
        assert all(process.cancelled() for process in processes)
        assert ch.statistics().parked_receivers == 0
        ch.close(Boom())
        for on in (None, "thread", "task"):
            with pytest.raises(ExceptionGroup) as caught:
                async with weft.Group() as group:
                    group.spawn(ch.recv, on=on)
            assert [type(error) for error in caught.value.exceptions] == [Boom]

    arun(main)


def test_a_greenlet_whose_function_returns_an_operation_performs_it(python):
    pytest.importorskip("gevent")
    program = """
        import gevent, weft
        ch = weft.Channel()
        with weft.Group() as group:
            tx, rx = group.spawn(ch.send, 3, on="greenlet"), group.spawn(ch.recv, on="greenlet")
        print(tx.result(), rx.result())
        with weft.Group() as group:
            rx = group.spawn(ch.recv, on="greenlet")
            gevent.sleep(0)
            assert ch.statistics().parked_receivers == 1
            group.cancel()
        print(rx.cancelled(), ch.statistics().parked_receivers)
    """
    assert python(program).splitlines() == ["None 3", "True 0"]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("on", ["task", "thread"])
def test_what_ends_an_iteration_does_not_end_the_one_who_joins(arun, kind, on):
    async def raising():
        raise kind

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                process = group.spawn(raising, on=on)
                with pytest.raises(RuntimeError, match=f"raised {kind.__name__}"):
                    await process.join()
        (error,) = caught.value.exceptions
        assert type(error) is RuntimeError and type(error.__cause__) is kind

    arun(main)


def test_spawn_says_what_is_wrong_with_a_target(arun):
    async def main():
        async with weft.Group() as group:
            with pytest.raises(TypeError, match="not the coroutine"):
                group.spawn(double(1))
            with pytest.raises(TypeError, match="cannot be called"):
                group.spawn(3)
            with pytest.raises(ValueError, match="there are 'task', 'thread', 'greenlet'"):
                group.spawn(double, 1, on="coroutine")
            with pytest.raises(ValueError, match="takes a plain function"):
                group.spawn(double, 1, on="greenlet")

    arun(main)


def test_a_function_that_turns_out_to_give_a_coroutine_runs_where_it_was_told_to(arun):
    def decorated(n):
        return double(n)

    async def main():
        async with weft.Group() as group:
            assert await group.spawn(decorated, 1, on="task").join() == 2
            assert await group.spawn(decorated, 1, on="thread").join() == 2
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                group.spawn(decorated, 1)
        assert "on='task' or on='thread'" in str(caught.value.exceptions[0])
        with pytest.raises(ExceptionGroup) as caught:
            async with weft.Group() as group:
                group.spawn(triple, 1, on="task")
        assert "nothing to await" in str(caught.value.exceptions[0])

    arun(main)
    with weft.Group() as group:  # there is only one place
        assert group.spawn(decorated, 1).join().wait() == 2


def test_children_inherit_the_context_of_the_one_who_spawns(arun):
    async def task():
        seen = COLOUR.get()
        COLOUR.set("changed by the child")
        await checkpoint()
        return seen

    def thread():
        seen = COLOUR.get()
        COLOUR.set("changed by the child")
        return seen

    async def main():
        COLOUR.set("red")
        other = contextvars.copy_context()
        other.run(COLOUR.set, "yellow")
        async with weft.Group() as group:
            processes = [group.spawn(task), group.spawn(thread), group.spawn(task, on="thread")]
            processes += [group.spawn(task, context=other), group.spawn(thread, context=other)]
            COLOUR.set("blue")

            def elsewhere():
                COLOUR.set("green")
                return [group.spawn(task).join().wait(), group.spawn(task, context=other).join().wait()]

            processes.append(group.spawn(elsewhere))
            colours = [await process.join() for process in processes]
            assert colours == ["red", "red", "red", "yellow", "yellow", ["green", "yellow"]]
            assert COLOUR.get() == "blue" and other[COLOUR] == "yellow"

    arun(main)

    def owner():
        COLOUR.set("red")
        with weft.Group() as group:
            return [group.spawn(fn).join().wait() for fn in (thread, task)] + [COLOUR.get()]

    assert contextvars.copy_context().run(owner) == ["red", "red", "red"]


@needs("counted references")
def test_finished_children_are_forgotten(arun, no_gc):
    async def main():
        async with weft.Group() as group:
            refs = []
            for fn in (double, triple) * 20:
                process = group.spawn(fn, 1)
                await process.join()
                refs.append(weakref.ref(process))
            del process
            while [ref for ref in refs if ref() is not None]:  # a thread may still be on its last lines
                await checkpoint()
            assert not group._children

    arun(main)
    with weft.Group() as group:
        refs = []
        for _ in range(20):
            process = group.spawn(triple, 1)
            process.join().wait()
            refs.append(weakref.ref(process))
        del process
        until(lambda: not [ref for ref in refs if ref() is not None])
        assert not group._children


def test_many_children_of_every_kind(arun):
    async def main():
        async with weft.Group() as group:
            processes = [group.spawn((double, triple)[n % 2], n) for n in range(400)]
        return sum(process.result() for process in processes)

    assert arun(main) == sum((2 + n % 2) * n for n in range(400))


DEAD_LOOP = """
    import asyncio, gc, sys, threading, weft

    requests, answers = weft.Channel(), weft.Channel()

    def serve(*held):
        started.set()
        try:
            requests.recv().wait()
        except weft.Cancelled:
            print("told", flush=True)
            raise

    async def main():
        async with weft.Group() as group:
            group.spawn(serve, *held)
            await started.wait()
            loop.call_soon(loop.stop)
            await wait(group)

    started = weft.Event()
    loop = asyncio.new_event_loop()

    def run():
        task = loop.create_task(main())
        task._log_destroy_pending = False
        loop.run_forever()
        return task

    def join_threads():
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(20)
        assert threading.active_count() == 1
"""

BODIES = {
    "in its body": "wait = lambda group: weft.never()",
    "at its end": "wait = lambda group: asyncio.sleep(0)",
    "in a future": "wait = lambda group: loop.create_future()",
}


@pytest.mark.parametrize("where", BODIES)
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_the_threads_of_a_group_whose_loop_dies_are_told_to_end(python, where, closed):
    """When its coroutine is collected: no thread is what keeps it from that."""
    program = f"""
        held = ()
        {BODIES[where]}
        run()
        {"loop.close()" if closed else ""}
        del loop
        for _ in range(12):
            gc.collect()  # more than once: PyPy
        join_threads()
        print("end")
    """
    noise = () if closed else ("-W", "ignore:unclosed:ResourceWarning")
    assert python(textwrap.dedent(DEAD_LOOP) + textwrap.dedent(program), *noise).split() == ["told", "end"]


@pytest.mark.parametrize("where", BODIES)
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "not closed"])
def test_a_program_ends_though_the_loop_of_a_group_was_abandoned(python, where, closed):
    """Not even the collector could help: the program holds the task, and the thread what the owner waits for."""
    program = f"""
        held = (answers,)
        {BODIES[where] if where != "in its body" else "wait = lambda group: answers.recv()"}
        task = run()
        {"loop.close()" if closed else ""}
        print("end", flush=True)
    """
    noise = () if closed else ("-W", "ignore:unclosed:ResourceWarning")
    assert python(textwrap.dedent(DEAD_LOOP) + textwrap.dedent(program), *noise).split() == ["end", "told"]


def test_a_program_that_ends_does_not_tell_the_threads_of_a_loop_that_goes_on_elsewhere(python):
    program = """
        import asyncio, threading, weft

        requests = weft.Channel()

        def serve():
            print("served", requests.recv().wait(), flush=True)

        async def main():
            async with weft.Group() as group:
                group.spawn(serve)
                parked.set()
                await loop_in_thread(threading.main_thread().join)
                await requests.send("after the end of the main thread")

        async def loop_in_thread(call):  # asyncio's own pool takes nothing any more at the end of the program
            done = weft.Event()
            threading.Thread(target=lambda: (call(), done.set()), daemon=True).start()
            await done.wait()

        parked = weft.Event()
        threading.Thread(target=lambda: asyncio.run(main())).start()
        parked.wait().wait()
    """
    assert python(program) == "served after the end of the main thread\n"


def test_a_program_ends_though_a_block_was_left_suspended(python):
    program = """
        import weft

        def thread():
            try:
                weft.never().wait()
            except weft.Cancelled:
                print("told", flush=True)
                raise

        def block():
            with weft.Group() as group:
                group.spawn(thread)
                yield

        suspended = block()
        next(suspended)
        print("end", flush=True)
    """
    # Python complains of scopes in disorder, or of nothing, depending on what it destroys first.
    assert python(program).split()[:2] == ["end", "told"]


def test_the_threads_of_a_group_whose_trio_run_breaks_down_are_told_to_end(python):
    pytest.importorskip("trio")
    program = """
        import gc, sys, threading, time, trio, weft

        class Dying(trio.abc.Clock):  # told to, it breaks trio itself
            dead = False
            def start_clock(self):
                pass
            def current_time(self):
                return time.monotonic()
            def deadline_to_sleep_time(self, deadline):
                if self.dead:
                    raise ZeroDivisionError
                return deadline - time.monotonic()

        def thread():
            started.set()
            try:
                weft.never().wait()
            except weft.Cancelled:
                print("told", flush=True)
                raise

        async def main():
            async with weft.Group() as group:
                kept.append(group)
                group.spawn(thread)
                await started.wait()
                clock.dead = True
                await weft.select(weft.never(), weft.after(1000))

        started, clock, kept = weft.Event(), Dying(), []
        sys.unraisablehook = lambda unraisable: None  # trio's ruins make noise when they are cleared away
        try:
            trio.run(main, clock=clock)
        except trio.TrioInternalError:
            pass
        if COLLECTED:
            kept.clear()
            for _ in range(12):
                gc.collect()
            for other in threading.enumerate():
                if other is not threading.current_thread():
                    other.join(20)
            assert threading.active_count() == 1
        print("end", flush=True)
    """
    assert python(program.replace("COLLECTED", "True")).split() == ["told", "end"]
    assert python(program.replace("COLLECTED", "False")).split() == ["end", "told"]


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------

CTRL_C = """
    import asyncio, os, signal, threading, time
    import weft

    def asleep():
        # Whether the main thread is parked, where the system tells (on Linux).
        try:
            with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "S"
        except OSError:
            return True

    def press_ctrl_c(*conditions):
        # From a thread of its own, once for each condition: as a terminal would, while the main thread is parked.
        def press():
            global pressed
            for condition in conditions:
                while not (condition() and asleep()):
                    time.sleep(0.001)
                pressed = time.monotonic()
                os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=press, daemon=True).start()

    def promptly():
        return time.monotonic() - pressed < 2  # the 100 ms of L15 have a test of their own

    def parked(ch):
        return lambda: ch.statistics().parked_receivers

    def leaving():
        return group._gate  # the owner waits for its children

    def interrupted():
        return any(isinstance(error, KeyboardInterrupt) for _, error in group._failures)

    log = []
    begun = weft.Channel(2)

    def child():
        begun.send_nowait(None)
        try:
            weft.never().wait()
        except weft.Cancelled:
            log.append("child cancelled")
            raise

    async def task():
        begun.send_nowait(None)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            log.append("task cancelled")
            raise
"""


@pytest.fixture
def ctrl_c(python):
    """Run a program that presses Ctrl-C; the lines it prints."""
    return lambda program: python(textwrap.dedent(CTRL_C) + textwrap.dedent(program)).splitlines()


@pytest.mark.parametrize("condition, wait", [("parked(ch)", "ch.recv().wait()"), ("leaving", "pass")])
def test_ctrl_c_cancels_the_children_and_is_raised(ctrl_c, condition, wait):
    out = ctrl_c(
        f"""
        ch = weft.Channel()
        try:
            with weft.Group("mine") as group:
                group.spawn(child)
                group.spawn(task)
                begun.recv().wait(), begun.recv().wait()
                press_ctrl_c({condition})
                {wait}
        except KeyboardInterrupt:
            print(sorted(log), promptly(), group)
        """,
    )
    assert out == ["['child cancelled', 'task cancelled'] True <weft.Group 'mine' ended, 0 running>"]


def test_a_second_ctrl_c_is_raised_at_once(ctrl_c):
    out = ctrl_c(
        """
        stop = threading.Event()
        def stubborn():
            stop.wait(20)
        try:
            with weft.Group() as group:
                group.spawn(stubborn)
                press_ctrl_c(leaving, lambda: interrupted() and leaving())
        except KeyboardInterrupt:
            print(promptly(), not stop.is_set())
            try:
                group.spawn(print)
            except RuntimeError as error:
                print("ended" in str(error))
        stop.set()
        """,
    )
    assert out == ["True True", "True"]


def test_a_first_ctrl_c_while_children_are_being_cancelled_waits_for_them(ctrl_c):
    out = ctrl_c(
        """
        cancelled = threading.Event()
        def slow():
            try:
                weft.never().wait()
            finally:
                cancelled.set()
                while not interrupted():
                    time.sleep(0.001)
                log.append("slow ended")
        def fails():
            raise ValueError
        try:
            with weft.Group() as group:
                group.spawn(slow)
                group.spawn(fails)
                press_ctrl_c(cancelled.is_set)
        except KeyboardInterrupt as error:
            print(log, type(error.__context__).__name__)
        """,
    )
    assert out == ["['slow ended'] ExceptionGroup"]


def test_ctrl_c_in_a_loop_cancels_the_children_and_is_raised(ctrl_c):
    out = ctrl_c(
        """
        async def main():
            global group
            async with weft.Group() as group:
                group.spawn(child)
                group.spawn(task)
                await begun.recv(), await begun.recv()
                press_ctrl_c(leaving)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print(sorted(log), promptly())
        """,
    )
    assert out == ["['child cancelled', 'task cancelled'] True"]


# --- weft.run -------------------------------------------------------------------------------------------------------


def test_run_runs_an_async_def_and_returns_its_result():
    async def main(a, b):
        assert asyncio.get_running_loop().get_debug() is True
        return a + b

    assert weft.run(main, 1, 2, debug=True) == 3
    assert weft.run(double, 2, backend="asyncio") == 4


def test_run_says_what_to_pass():
    with pytest.raises(TypeError, match="not the coroutine"):
        weft.run(double(1))
    with pytest.raises(TypeError, match="async def"):
        weft.run(triple, 1)
    with pytest.raises(TypeError):
        weft.run(None)
    with pytest.raises(ValueError, match="'asyncio' and 'trio'"):
        weft.run(double, 1, backend="curio")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_run_inside_a_loop_says_to_await(arun, backend):
    async def main():
        with pytest.raises(RuntimeError, match="await"):
            weft.run(double, 1, backend=backend)

    arun(main)


# --- importing ------------------------------------------------------------------------------------------------------


def test_a_group_of_threads_does_not_import_asyncio(python):
    program = """
        import sys, weft
        with weft.Group() as group:
            assert group.spawn(abs, -1).join().wait() == 1
        print("asyncio" in sys.modules)
    """
    assert python(program).split() == ["False"]
