"""A process: one child of a group, and what became of it.

Here is what every process has, wherever it runs: a name, an outcome, and a channel whose closing announces the outcome
to who joins; it is made for the first of them. How one is started and cancelled is the business of its place: `_task`
for asyncio, `_trio` and `_gevent` for those, `_thread` for threads. Most processes in an asyncio loop have no place in
Python at all: they are tasks of the extension, and `_stepped` is the handle.

A process does not keep its group alive: the group leads to its owner's scheduler and from there to the owner's
coroutine. A thread would keep all that out of the collector's reach when the loop is gone; and it is the destruction of
the coroutine that tells the thread to end. The block that is entered keeps the group for as long as anybody needs it.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeVar

from weft._errors import Cancelled, WouldBlock
from weft._weft import Channel, always

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from weft._group import Group
    from weft._weft import Op

__all__ = ["HostProcess", "PlacedProcess", "Process", "not_a_stop"]

T = TypeVar("T")


class Process(ABC, Generic[T]):
    """One child of a `Group`, as `Group.spawn` returns it. It is a handle: nothing happens to the child when it is
    dropped.

    Every method may be called from any thread.

    Source: Hoare 1978, where a parallel command ends when all its processes have.
    """

    __slots__ = ("__weakref__",)

    _place: ClassVar[str] = "nowhere"

    @property
    @abstractmethod
    def name(self) -> str:
        """The name given to `spawn`, else the function's with a number."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether it has ended: returned, raised, or was cancelled."""

    @abstractmethod
    def cancelled(self) -> bool:
        """Whether it ended because it was cancelled. False while it runs, and when it returned or raised all the
        same."""

    @abstractmethod
    def cancel(self) -> None:
        """Ask this process alone to end; its siblings go on. It does not wait: `join` does.

        A task gets `asyncio.CancelledError` where it waits, as from `Task.cancel`; in trio it is `trio.Cancelled`, from
        a scope around it; a greenlet gets `Cancelled` or `GreenletExit`. A thread gets `Cancelled` from the weft
        operation it is parked on, or from the next one it performs; code that waits in something else is not
        interrupted. One that was not started yet never is. Cancelling a process that has ended changes nothing.
        """

    def join(self) -> Op[T]:
        """An operation that waits until the process has ended, and completes with what its function returned.

        It can be made any number of times, and stand in a select. Cancelling it leaves the process alone. Waiting for a
        process is not handling its error: the group raises that too.

        Raises:
            Cancelled: the process was cancelled.
            BaseException: the process's own error, with its traceback.
        """
        over = None if self.done else self._closes_when_over()
        return (always(True) if over is None else over._closing()).map(self._outcome)

    def result(self) -> T:
        """What `join` would complete with, without waiting.

        Raises:
            WouldBlock: it has not ended yet.
            Cancelled: it was cancelled.
            BaseException: its own error.
        """
        if not self.done:
            raise WouldBlock(f"process {self.name!r} has not ended yet; wait for it with join()")
        try:
            return self._outcome()
        finally:
            del self  # as there

    def _outcome(self, _over: bool = True) -> T:
        try:
            if self.cancelled():
                raise Cancelled(f"process {self.name!r} was cancelled")
            error, traceback = self._failure()
            if error is not None:
                # Back to the traceback it had, or each who joins would leave its own lines in it.
                raise BaseException.with_traceback(error, traceback)
            return self._result()
        finally:
            error = None
            del self  # this frame is in the traceback now, and the error must not lead back to itself

    @abstractmethod
    def _closes_when_over(self) -> Channel[NoReturn] | None:
        """A channel that closes when it ends; None: it has ended."""

    @abstractmethod
    def _failure(self) -> tuple[BaseException | None, TracebackType | None]:
        """Of one that has ended: its error, and the traceback that had then."""

    @abstractmethod
    def _result(self) -> T:
        """Of one that has returned: what."""

    @abstractmethod
    def _spawned_at(self) -> str: ...

    @abstractmethod
    def _is_being_cancelled(self) -> bool: ...

    def __repr__(self) -> str:
        if not self.done:
            state = "being cancelled" if self._is_being_cancelled() else "running"
        elif self.cancelled():
            state = "cancelled"
        elif (error := self._failure()[0]) is not None:
            state = f"raised {type(error).__name__}"
            error = None
        else:
            state = "returned"
        return f"<weft.Process {self.name!r} ({self._place}) {state}, spawned at {self._spawned_at()}>"


class PlacedProcess(Process[T]):
    """One whose outcome is kept here, told by the place that runs it."""

    __slots__ = (
        "_cancel_asked",
        "_cancelled",
        "_code",
        "_done",
        "_error",
        "_group",
        "_instruction",
        "_lock",
        "_name",
        "_over",
        "_traceback",
        "_value",
    )

    def __init__(self, group: Group, name: str, spawner: FrameType) -> None:
        self._group = weakref.ref(group)
        self._lock = group._lock
        self._name = name
        # Where it was spawned. Finding the line costs more than all else here, so that waits until somebody asks.
        self._code = spawner.f_code
        self._instruction = spawner.f_lasti
        self._over: Channel[NoReturn] | None = None  # under the group's lock; none any more once `_done` is set
        self._cancel_asked = False
        # The outcome, complete before `_done` is set.
        self._value: T | None = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._cancelled = False
        self._done = False

    @property
    def name(self) -> str:
        """See `Process.name`."""
        return self._name

    @property
    def done(self) -> bool:
        """See `Process.done`."""
        return self._done

    def cancelled(self) -> bool:
        """See `Process.cancelled`."""
        return self._cancelled

    def _closes_when_over(self) -> Channel[NoReturn] | None:
        fresh: Channel[NoReturn] = Channel(name=f"process {self._name!r}")
        with self._lock:
            if self._done:
                return None
            self._over = self._over or fresh
            return self._over

    def _failure(self) -> tuple[BaseException | None, TracebackType | None]:
        return self._error, self._traceback

    def _result(self) -> T:
        return self._value  # type: ignore[return-value]

    def _is_being_cancelled(self) -> bool:
        return self._cancel_asked

    def _finish(self, value: T | None = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        """Record the outcome and tell everyone. Called once, by the place, as the last thing."""
        if isinstance(error, StopIteration | StopAsyncIteration):
            error = not_a_stop(error, self._name)
        self._value = value
        self._cancelled = cancelled
        if error is not None:
            self._error = error
            self._traceback = error.__traceback__
        with self._lock:
            self._done = True
            over, self._over = self._over, None
        # Those who join come first: they shall see this outcome, not the cancellation that a failure is about to bring
        # on them.
        if over is not None:
            over.close()
        group = self._group()
        if group is not None:
            group._ended(self, error)

    @abstractmethod
    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        """Start it. `is_async`: `fn` is an `async def`. `chosen`: the place was asked for, or is the only one."""

    def _give_up(self) -> bool:
        """`_start` was interrupted: whether it is certain that the process does not and will not run."""
        return True

    def _abort_if_forsaken(self) -> None:
        """At the end of the program: when nobody is left who would leave its group's block, the group ends."""
        group = self._group()
        if group is not None and group._is_forsaken():
            group._abort()

    def _deadline_moved(self) -> None:
        """The group's deadline is another now. Whoever keeps no timer has nothing to do."""

    def _spawned_at(self) -> str:
        for start, end, line in self._code.co_lines():
            if start <= self._instruction < end:
                return f"{self._code.co_filename}:{line}"
        return self._code.co_filename


def not_a_stop(error: BaseException, name: str) -> BaseException:
    """Instead of an error that would end the coroutine or the iteration of who joins, without a word (PEP 479 is about the
    same)."""
    kind = "StopIteration" if isinstance(error, StopIteration) else "StopAsyncIteration"
    instead = RuntimeError(f"process {name!r} raised {kind}")
    instead.__cause__ = error
    return instead


class HostProcess(PlacedProcess[T]):
    """One that is a task of the scheduler which the group's owner lives in, and is cancelled in the thread of that."""

    __slots__ = ()

    _place = "task"

    def cancel(self) -> None:
        """See `Process.cancel`."""
        if not self._done:
            self._cancel_asked = True
            group = self._group()
            if group is not None:  # else nobody is left who could step it
                assert group._host is not None
                group._host.call(self._cancel_task)

    @abstractmethod
    def _cancel_task(self) -> None:
        """Cancel it; called in the host's thread."""
