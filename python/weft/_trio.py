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
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    current_trio_token,
    enable_ki_protection,
    reschedule,
    spawn_system_task,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

from weft import lowlevel
from weft._errors import Cancelled
from weft._process import HostProcess
from weft._task import awaited

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from types import FrameType

    from weft._group import Group
    from weft._weft import Op

__all__ = ["TrioHost", "TrioProcess", "add", "identify", "perform"]

T = TypeVar("T")


def add() -> None:
    """Have weft's operations wait in trio."""
    lowlevel.add_scheduler(identify, perform=perform)


try:
    # Not the public way, but by far the fastest: the public one answers with an exception, or through a coroutine.
    from trio._core._run import GLOBAL_RUN_CONTEXT as _context

    identify: Callable[[], trio.lowlevel.Task | None] = partial(getattr, _context, "task", None)
    """The trio task that runs here."""

except ImportError:

    def identify() -> trio.lowlevel.Task | None:
        try:
            return current_task()
        except RuntimeError:
            return None


def _asked(coroutine: Coroutine[Any, Any, object]) -> Any:
    """What a coroutine of trio's asks the run for when it suspends."""
    try:
        return coroutine.send(None)
    finally:
        coroutine.close()


# To yield these saves the two coroutines that would do so, each time.
_CHECKPOINT = _asked(cancel_shielded_checkpoint())
_Wait = cast("Callable[[Any], Any]", type(_asked(wait_task_rescheduled(lambda _: Abort.SUCCEEDED))))


@enable_ki_protection
def perform(op: Any) -> Generator[Any, Any, Any]:
    """What `await op` does in a trio task: a generator, which the interpreter steps without a call."""
    try:
        task: Any = identify()
        # Asked here, and not by `checkpoint_if_cancelled`, which would be a coroutine for each operation.
        if (
            task._cancel_status.effectively_cancelled or (task._runner.ki_pending and task is task._runner.main_task)
        ) and op._is_ready():
            try:
                yield from checkpoint_if_cancelled().__await__()
            except BaseException:
                op._skip()
                raise
        # An operation that has to wait notices a cancellation by the abort function.
        decided = op._begin()
        try:
            if decided or op._park(partial(_wake, task), partial(_is_over, task)):
                task._cancel_points += 1
                yield _CHECKPOINT
            elif op._is_outside():
                yield from _wait_outside(op).__await__()
            else:

                def abort(_: Callable[[], None]) -> Abort:
                    # No operation: the task was destroyed, and trio is clearing up.
                    return Abort.SUCCEEDED if op is None or op._withdraw() else Abort.FAILED

                while True:
                    (yield _Wait(abort)).unwrap()
                    if op._resume():
                        break
            return op._take()
        except BaseException:
            op._undo()  # does nothing to one that has ended
            raise
    finally:
        # This frame is in the traceback of what is raised, which may be an error that the operation's channel holds.
        op = None


async def _wait_outside(op: Any) -> None:
    """Wait for a parked operation that has timers or descriptors."""
    timer = op._timer()
    scope: Any = nullcontext()
    if timer is not None:
        scope = trio.CancelScope(deadline=trio.current_time() + timer[0])

    def abort(_: Callable[[], None]) -> Abort:
        if op is None:
            return Abort.SUCCEEDED
        # The scope of the timer is the one that ends, or another one is.
        if timer is not None and trio.current_time() >= scope.deadline and op._fire(timer[1]):
            return Abort.FAILED
        return Abort.SUCCEEDED if op._withdraw() else Abort.FAILED

    watching = _Watching(op) if op._descriptors() else None
    try:
        try:
            with scope:
                while True:
                    await wait_task_rescheduled(abort)
                    if op._resume():
                        break
        except GeneratorExit:
            watching = None  # nothing can be waited for any more
            raise
        finally:
            if watching is not None:
                await watching.stop()
    finally:
        op = watching = None  # see `perform`


@enable_ki_protection
def _wake(task: Any) -> bool:
    """Called when the operation is decided, in any thread. False: the task's run is over."""
    here: Any = identify()
    # The task itself is here when a signal handler meets the operation just before the task suspends.
    if here is not None and here is not task and here._runner is task._runner:
        reschedule(task)
        return True
    try:
        task._runner.entry_queue.run_sync_soon(reschedule, task)
    except (trio.RunFinishedError, OSError):  # the latter of a run that broke down: its sockets are closed
        return False
    return True


def _is_over(task: Any) -> bool:
    """Whether the run has ended, or broken down. Not the public way, which is to have it call something."""
    queue = task._runner.entry_queue
    return bool(queue.done) or queue.wakeup.write_sock.fileno() < 0


class _Watching:
    """The descriptors of a parked operation, each watched by a system task.

    They are no children of the task that waits: its cancellation must not end them before the operation has said whether
    it was met, and a nursery would raise a group where the bare `Cancelled` is due.
    """

    def __init__(self, op: Op[Any]) -> None:
        self._op = op
        self._scopes: list[trio.CancelScope] = []
        self._running = 0
        self._stopper: trio.lowlevel.Task | None = None
        for descriptor in op._descriptors():
            scope = trio.CancelScope()
            spawn_system_task(self._watch, scope, *descriptor)
            self._scopes.append(scope)
            self._running += 1

    async def stop(self) -> None:
        """Give the descriptors up. It cannot be cancelled, and does not take long."""
        for scope in self._scopes:
            scope.cancel()
        if self._running:
            self._stopper = current_task()
            await wait_task_rescheduled(lambda _: Abort.FAILED)

    async def _watch(self, scope: trio.CancelScope, descriptor: int, to_write: bool, case: int) -> None:
        duplicate = descriptor
        try:
            with scope:
                try:
                    if os.name == "posix":
                        # trio lets one task wait for a descriptor; a duplicate is another descriptor. (On Windows it is
                        # a socket's handle, which cannot be duplicated so.)
                        duplicate = os.dup(descriptor)
                    await (wait_writable if to_write else wait_readable)(duplicate)
                except OSError:
                    pass  # who reads or writes next learns what is wrong with it
                self._op._fire(case)
        finally:
            if duplicate != descriptor:
                os.close(duplicate)
            self._running -= 1
            if not self._running and self._stopper is not None:
                reschedule(self._stopper)


@contextmanager
def interruptible(process: TrioProcess[Any]) -> Generator[Interruption]:
    """Around all that a process does: how to interrupt it, from within trio's thread."""
    with trio.CancelScope() as asked, trio.CancelScope() as shield:
        yield Interruption(process, asked, shield)


class Interruption:
    """A cancellation of what a process waits for, which can be taken back where it comes too late.

    A scope that was cancelled stays so. But one inside it can shield from it, and is then what a cancellation of the
    process itself cancels.
    """

    def __init__(self, process: TrioProcess[Any], asked: trio.CancelScope, shield: trio.CancelScope) -> None:
        self._process = process
        self._shield = shield
        self.cancel = asked.cancel

    def take_back(self) -> None:
        """What has not been told yet is not told any more."""
        self._process._task_scope = self._shield
        self._shield.shield = True


class TrioHost:
    """The task that entered a group, with a nursery for the children and a cancel scope for the body.

    The nursery is the outer one: a child's error never reaches it, because the group collects them. Touched in trio's
    thread only, but for `call`.
    """

    place = "task"
    loop = None

    def __init__(self, group: Group) -> None:
        self._group = group
        self._task = current_task()
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

    def process(self, group: Group, name: str, spawner: FrameType) -> HostProcess[Any]:
        """A task in the nursery."""
        return TrioProcess(group, name, spawner, self)

    interruptible = staticmethod(interruptible)

    def call(self, call: Callable[[], object]) -> None:
        """Now in trio's thread, else soon."""
        if identify() is not None and current_trio_token() is self._token:
            call()
            return
        try:
            self._token.run_sync_soon(call)
        except (trio.RunFinishedError, OSError):  # as in `_wake`
            pass  # nothing of this group runs there any more

    def is_over(self) -> bool:
        """See `Host`."""
        return self._group._in_main_thread  # a run keeps to its thread

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

    def _is_destroyed(self, error: BaseException | None) -> bool:
        """Whether the coroutine is being destroyed, and nothing can be waited for. An async generator that its own task
        closes sees the same exception, and may wait."""
        return isinstance(error, GeneratorExit) and identify() is not self._task

    @enable_ki_protection
    async def leave(self, error: BaseException | None) -> bool | None:
        """See `Host`."""
        group = self._group
        self._in_body = False
        left: BaseException | None = error  # what of the error is not our own cancellation
        verdict: BaseException | None = None
        cancellation: BaseException | None = None
        destroyed = self._is_destroyed(error)
        if identify() is None:
            group._abort()
            return None  # it is no task that destroys the coroutine: nothing can be waited for
        interruption: BaseException | None = None  # a Ctrl-C: the first is kept, a second goes through
        try:
            try:
                if error is None:
                    self._body.__exit__(None, None, None)
                elif self._body.__exit__(type(error), error, error.__traceback__):
                    left = None
            except BaseException as filtered:
                left = filtered
            if isinstance(left, GeneratorExit) or (left is not None and _without_cancellations(left) is None):
                cancellation = left
            elif isinstance(left, Cancelled) and (group._aborting or group._scope.cancelled):
                cancellation = left if group._cancelled_from_outside() else None
            elif left is not None:
                left = _without_cancellations(left)
                assert left is not None
                group._fail(left)
                if isinstance(left, KeyboardInterrupt):
                    interruption = left
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
                    except KeyboardInterrupt as pressed:
                        if interruption is not None:
                            raise
                        interruption = pressed
                        group._fail(pressed)
                        group._abort()
            verdict = group._verdict(cancellation)
            return group._leave(verdict, error)
        except BaseException as broken:
            destroyed = self._is_destroyed(broken)
            group._abort()  # for when this coroutine is destroyed while it waits
            raise
        finally:
            self.arm(None)
            if not destroyed:
                self.nursery.cancel_scope.shield = True  # nobody is in it any more but for an instant
                await self._manager.__aexit__(None, None, None)
            # The frame stays in the traceback of what is raised, and must not lead back to it.
            error = left = cancellation = interruption = verdict = None


def _without_cancellations(error: BaseException) -> BaseException | None:
    """What is left of an error without trio's cancellations, which a nursery puts into a group even when there is nothing
    else. None: nothing is. The scope they belong to is around the group, and tells its owner as well."""
    if isinstance(error, trio.Cancelled):
        return None
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    cancellations, rest = group.split(trio.Cancelled)
    return group if cancellations is None else rest


class TrioProcess(HostProcess[T]):
    """A task in the nursery of its group."""

    __slots__ = ("_host", "_task_scope")

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
            if identify() is not None and current_trio_token() is self._host._token:
                begin()
            else:
                context = copy_context()
                self._host._token.run_sync_soon(lambda: context.run(self._begin, begin, coroutine))
        except BaseException:
            coroutine.close()
            raise

    def _begin(self, begin: Callable[[], None], coroutine: Coroutine[Any, Any, T]) -> None:
        """Called in the run for a process spawned from elsewhere: nobody is there any more to raise an error to."""
        try:
            begin()
        except RuntimeError:  # a second Ctrl-C broke the wait of the group off
            coroutine.close()
            self._finish(cancelled=True)

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
        except BaseException as raised:
            error = _without_cancellations(raised)
            # When nothing is left, it was cancelled by a scope around the group, whose task passes that on.
            cancelled = error is None or (isinstance(error, Cancelled) and self._cancel_asked)
            if error is not None and error.__traceback__ is not None:
                # Without this frame. Not by assignment: there are error classes that forbid that.
                BaseException.with_traceback(error, error.__traceback__.tb_next)
        finally:
            try:
                self._finish(value, None if cancelled else error, cancelled=cancelled)
            finally:
                del self, error, coroutine  # this frame is in the error's traceback

    def _cancel_task(self) -> None:
        self._cancel_asked = True
        self._task_scope.cancel()
