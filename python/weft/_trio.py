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
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
from weft._errors import Cancelled
from weft._process import Process
from weft._task import awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType

    from weft._group import Group
    from weft._weft import Op

__all__ = ["TrioHost", "TrioProcess", "add", "identify", "perform"]

T = TypeVar("T")


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


class TrioHost:
    """The task that entered a group, with a nursery for the children and a cancel scope for the body.

    The nursery is the outer one: a child's error never reaches it, because the group collects them. Touched in trio's
    thread only, but for `call`.
    """

    place = "task"

    def __init__(self, group: Group) -> None:
        self._group = group
        self._token = current_trio_token()
        self._manager = trio.open_nursery()
        self._body = trio.CancelScope()
        self._in_body = True
        self._timer: trio.CancelScope | None = None

    @classmethod
    async def open(cls, group: Group) -> TrioHost:
        """A host for the task that runs."""
        await checkpoint_if_cancelled()
        host = cls(group)
        host.nursery = await host._manager.__aenter__()
        host._body.__enter__()
        return host

    nursery: trio.Nursery

    def process(self, group: Group, name: str, spawner: FrameType) -> Process[Any]:
        """A task in the nursery."""
        return TrioProcess(group, name, spawner, self)

    def call(self, call: Callable[[], object]) -> None:
        """Now in trio's thread, else soon."""
        if _task_here() is not None and current_trio_token() is self._token:
            call()
            return
        try:
            self._token.run_sync_soon(call)
        except trio.RunFinishedError:
            pass  # nothing of this group runs there any more

    def abort_body(self) -> None:
        """Cancel the body, if it is running."""
        if self._in_body:
            self._body.cancel()

    def arm(self, seconds: float | None) -> None:
        """Set the timer anew. It is a task of the nursery: trio has no other clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = trio.CancelScope()
            self.nursery.start_soon(self._cancel_after, seconds, self._timer)

    async def _cancel_after(self, seconds: float, timer: trio.CancelScope) -> None:
        with timer:
            await trio.sleep(seconds)
            self._group.cancel()

    @enable_ki_protection
    async def leave(self, error: BaseException | None) -> bool | None:
        """See `Host`."""
        group = self._group
        self._in_body = False
        left: BaseException | None = error  # what of the error is not our own cancellation
        verdict: BaseException | None = None
        cancellation: BaseException | None = None
        try:
            try:
                if error is None:
                    self._body.__exit__(None, None, None)
                elif self._body.__exit__(type(error), error, error.__traceback__):
                    left = None
            except BaseException as filtered:
                left = filtered
            if isinstance(left, trio.Cancelled | GeneratorExit):
                cancellation = left
            elif isinstance(left, Cancelled) and (group._aborting or group._scope.cancelled):
                cancellation = left if group._cancelled_from_outside() else None
            elif left is not None:
                group._fail(left)
            if error is not None:
                group._abort()
            # A cancellation from outside stays in force: notice it once, and then wait without it.
            shield = trio.CancelScope()
            with shield:
                while (gate := group._next_gate()) is not None:
                    try:
                        await gate._closing()
                    except trio.Cancelled as outside:
                        cancellation = outside
                        group._abort()
                        shield.shield = True
            verdict = group._verdict(cancellation)
            return group._leave(verdict, error)
        except BaseException:
            group._abort()  # for when this coroutine is destroyed while it waits
            raise
        finally:
            self.arm(None)
            if not isinstance(error, GeneratorExit):
                self.nursery.cancel_scope.shield = True  # nobody is in it any more but for an instant
                await self._manager.__aexit__(None, None, None)
            # The frame stays in the traceback of what is raised, and must not lead back to it.
            error = left = cancellation = verdict = None


class TrioProcess(Process[T]):
    """A task in the nursery of its group."""

    __slots__ = ("_host", "_task_scope")

    _place = "task"
    _in_host = True

    def __init__(self, group: Group, name: str, spawner: FrameType, host: TrioHost) -> None:
        super().__init__(group, name, spawner)
        self._host = host
        self._task_scope = trio.CancelScope()

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        # An `async def` is called here, where wrong arguments are the caller's own TypeError.
        coroutine = fn(*args) if is_async else awaited(fn, args)

        def begin() -> None:
            self._host.nursery.start_soon(self._main, coroutine, name=self._name)

        try:
            if _task_here() is not None and current_trio_token() is self._host._token:
                begin()
            else:
                context = copy_context()
                self._host._token.run_sync_soon(lambda: context.run(begin))
        except BaseException:
            coroutine.close()
            raise

    async def _main(self, coroutine: Coroutine[Any, Any, T]) -> None:
        value: T | None = None
        error: BaseException | None = None
        cancelled = False
        try:
            if self._cancel_asked:
                coroutine.close()
                cancelled = True
                return
            with self._task_scope:
                value = await coroutine
            cancelled = self._task_scope.cancelled_caught
        except trio.Cancelled:
            cancelled = True  # by a scope around the group, whose task passes it on
        except BaseException as raised:
            raised.__traceback__ = raised.__traceback__ and raised.__traceback__.tb_next
            error = raised
            cancelled = isinstance(raised, Cancelled) and self._cancel_asked
        finally:
            try:
                self._finish(value, None if cancelled else error, cancelled=cancelled)
            finally:
                del self, error, coroutine  # this frame is in the error's traceback

    def cancel(self) -> None:
        """See `Process.cancel`."""
        if not self._done:
            self._cancel_asked = True
            self._host.call(self._cancel_task)

    def _cancel_task(self) -> None:
        self._cancel_asked = True
        self._task_scope.cancel()
