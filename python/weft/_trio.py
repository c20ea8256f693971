"""Operations in trio tasks, and groups that live in a nursery.

Every operation is a checkpoint, as trio wants it of all that can wait: it notices a cancellation before it is tried, and
if it did not have to wait it lets other tasks run before it returns. A cancel scope that ends while an operation is
parked asks the abort function, which refuses when the operation was met already: then it completes, and trio delivers
the cancellation at the next checkpoint (L4).

Source: trio's reference, "Low-level operations: sleeping and waking", and its rules for checkpoints.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    current_trio_token,
    enable_ki_protection,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

from weft import lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable

    from weft._weft import Op

__all__ = ["add", "identify", "perform"]


def add() -> None:
    """Have weft's operations wait in trio."""
    lowlevel.add_scheduler(identify, perform=perform)


def _task_here() -> trio.lowlevel.Task | None:
    try:
        return current_task()
    except RuntimeError:
        return None


if hasattr(trio.lowlevel, "in_trio_task"):  # trio 0.29: the same without an exception
    _in_trio_task = trio.lowlevel.in_trio_task

    def _task_here() -> trio.lowlevel.Task | None:
        return current_task() if _in_trio_task() else None


def identify() -> trio.lowlevel.Task | None:
    """The trio task that runs here. An asyncio task that runs on top of one (trio-asyncio) is asyncio's."""
    task = _task_here()
    if task is not None and "asyncio" in sys.modules:
        events = sys.modules["asyncio"]
        if events._get_running_loop() is not None and events.current_task() is not None:
            return None
    return task


@enable_ki_protection
async def perform(op: Op[Any]) -> Any:
    """What `await op` does in a trio task."""
    try:
        await checkpoint_if_cancelled()
    except BaseException:
        op._skip()
        raise
    decided = op._begin()
    try:
        if not decided:
            return await _wait(op)
        await cancel_shielded_checkpoint()
        return op._take()
    except BaseException:
        op._undo()  # does nothing to one that has ended
        raise


async def _wait(op: Op[Any]) -> Any:
    task = current_task()
    if op._park(partial(_wake, task, current_trio_token())):
        await cancel_shielded_checkpoint()
        return op._take()
    timer = op._timer()
    descriptors = op._descriptors()
    scope: Any = nullcontext()
    if timer is not None:
        scope = trio.CancelScope(deadline=trio.current_time() + timer[0])

    def abort(_: Callable[[], None]) -> Abort:
        # The scope of the timer is the one that ends, or another one is.
        if timer is not None and trio.current_time() >= scope.deadline and op._fire(timer[1]):
            return Abort.FAILED
        return Abort.SUCCEEDED if op._withdraw() else Abort.FAILED

    with scope:
        if descriptors:
            async with trio.open_nursery() as nursery:
                for descriptor in descriptors:
                    nursery.start_soon(_watch, op, *descriptor)
                await _sleep(op, abort)
                nursery.cancel_scope.cancel()
        else:
            await _sleep(op, abort)
    return op._take()


async def _sleep(op: Op[Any], abort: Callable[[Callable[[], None]], Abort]) -> None:
    while True:
        await wait_task_rescheduled(abort)
        if op._resume():
            return


def _wake(task: trio.lowlevel.Task, token: trio.lowlevel.TrioToken) -> bool:
    """Called when the operation is decided, in any thread. False: the task's run is over."""
    here = _task_here()
    if here is not None and current_trio_token() is token:
        reschedule(task)
        return True
    try:
        token.run_sync_soon(reschedule, task)
    except trio.RunFinishedError:
        return False
    return True


async def _watch(op: Op[Any], descriptor: int, to_write: bool, case: int) -> None:
    # trio lets one task wait for a descriptor; a duplicate is another descriptor. (On Windows it is a socket's handle,
    # which cannot be duplicated so.)
    duplicate = os.dup(descriptor) if os.name == "posix" else descriptor
    try:
        await (wait_writable if to_write else wait_readable)(duplicate)
    except OSError:
        pass  # who reads or writes next learns what is wrong with it
    finally:
        if duplicate != descriptor:
            trio.lowlevel.notify_closing(duplicate)
            os.close(duplicate)
    op._fire(case)
