"""What weft asks of asyncio, where a program has imported it: the owner's side of a group, and a future to wake tasks
with.

The counting of cancellations follows the rules that `asyncio.Task.uncancel` documents for structured concurrency
blocks. A cancellation that is delivered later is not left to the task's own mark, which `uncancel` does not clear before
3.13 (docs/design/choices.md).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import asyncio
import atexit
import weakref
from typing import TYPE_CHECKING, Any, cast

from weft._entry import running_loop
from weft._errors import Cancelled
from weft._task import TaskProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from weft._group import Group
    from weft._process import PlacedProcess

__all__ = ["AsyncioHost", "add", "settled", "shows_processes"]

# `asyncio.all_tasks` finds the tasks that are no `asyncio.Task` in a set of weak references. To have each process in there
# would take as long as all else that is done for a process, and as much memory as half of the rest. So the set is told to
# look at weft's own lists as well, by giving it another class.

_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()  # those with groups of processes
_probes: list[object] = []


class _Registry(weakref.WeakSet[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        yield from tuple(_probes)
        for loop in list(_loops):
            yield from loop._weft_home._tasks()  # type: ignore[attr-defined]


class _Probe:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def done(self) -> bool:
        return False


def _registry(loop: asyncio.AbstractEventLoop) -> Any:
    """That set, or None. asyncio does not give it away from 3.14 on; but a weak reference in such a set has a callback that
    knows the set, to be taken out."""
    probe = _Probe(loop)
    asyncio._register_task(probe)  # type: ignore[arg-type]
    try:
        for reference in weakref.getweakrefs(probe):
            for default in getattr(reference.__callback__, "__defaults__", None) or ():
                held = cast("object", default() if isinstance(default, weakref.ref) else None)
                if held.__class__ in (weakref.WeakSet, _Registry):
                    return held
    finally:
        asyncio._unregister_task(probe)  # type: ignore[arg-type]
    return None


def _give_back(registry: Any) -> None:
    """As it was: asyncio's extension keeps the set for longer than a sub-interpreter lives, and would keep all of weft."""
    registry.__class__ = weakref.WeakSet


def shows_processes(loop: asyncio.AbstractEventLoop) -> bool:
    """Have `asyncio.all_tasks` find the processes of a loop in weft's own lists. False: it does not."""
    if loop in _loops:
        return True
    registry = _registry(loop)
    if registry is None:
        return False
    if registry.__class__ is weakref.WeakSet:
        registry.__class__ = _Registry
        atexit.register(_give_back, registry)
    probe = _Probe(loop)
    _probes.append(probe)
    try:
        found: set[Any] = {*asyncio.all_tasks(loop)}
        shown = probe in found
    finally:
        _probes.remove(probe)
    if shown:
        _loops.add(loop)
    return shown


class AsyncioHost:
    """The task that entered a group, and its loop. Touched in the loop's thread only, but for `call`."""

    place = "task"

    def __init__(self, group: Group) -> None:
        owner = asyncio.current_task()
        if owner is None:
            raise RuntimeError("`async with weft.Group()` needs a task, and this is a callback of the loop")
        self._group = group
        self.loop = asyncio.get_running_loop()
        self._owner: asyncio.Task[Any] | None = owner
        self._cancelling = owner.cancelling()  # the owner's count of cancellations on entering
        self._in_body = True
        self._interrupted = False  # the body was cancelled by this group
        self._timer: asyncio.TimerHandle | None = None

    def process(self, group: Group, name: str, spawner: FrameType) -> PlacedProcess[Any]:
        """A task in this loop."""
        return TaskProcess(group, name, spawner, self.loop)

    def call(self, call: Callable[[], object]) -> None:
        """Now when this thread runs the loop, else soon."""
        try:
            if running_loop() is self.loop:
                call()
                # The caller may be a signal handler, and the loop asleep.
                self.loop.call_soon_threadsafe(_nothing)
            else:
                self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            # Nothing of this group runs in it any more.

    def is_over(self) -> bool:
        """See `Host`."""
        return self.loop.is_closed() or (self._group._in_main_thread and not self.loop.is_running())

    def abort_body(self) -> None:
        """Cancel the owner, once, if it is in the body."""
        if self._in_body and not self._interrupted and self._owner is not None:
            self._interrupted = True
            self._owner.cancel()

    def arm(self, seconds: float | None) -> None:
        """Set the timer anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self.loop.call_later(seconds, self._group.cancel)

    async def leave(self, error: BaseException | None) -> bool | None:
        """See `Host`."""
        group = self._group
        assert self._owner is not None
        self._in_body = False
        if running_loop() is None:
            # The coroutine is being destroyed: nothing can be waited for.
            group._abort()
            self.arm(None)
            self._owner = None
            return None
        verdict: BaseException | None = None
        cancellation: BaseException | None = None  # to be passed on, unless it turns out to be ours
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            cancellation = error
        elif isinstance(error, Cancelled) and (group._aborting or group._scope.cancelled):
            # From joining a process that was cancelled with the group, or from `wait` in a thread that is cancelled
            # itself.
            cancellation = error if group._cancelled_from_outside() else None
        elif error is not None:
            group._fail(error)
        try:
            if error is not None:
                group._abort()
            if self._interrupted:
                # Our own cancel may not have arrived yet. It must do so here, not in the code after the group.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as late:
                    cancellation = late
            while (gate := group._next_gate()) is not None:
                try:
                    await gate._closing()
                except asyncio.CancelledError as outside:
                    cancellation = outside
                    group._abort()
            if self._interrupted:
                self._owner.uncancel()
            pending = self._owner.cancelling() > self._cancelling
            if self._interrupted and not pending and isinstance(cancellation, asyncio.CancelledError):
                cancellation = None
            verdict = group._verdict(cancellation)
            if pending and cancellation is not None and verdict is not cancellation:
                # An error takes the place of the cancellation, which comes at the next suspension (unless that is for an
                # operation of weft's which is met before the loop calls: then at the one after it).
                self.loop.call_soon(_cancel_again, self._owner, self._owner.cancelling())
            return group._leave(verdict, error)
        except BaseException:
            group._abort()  # for when this coroutine is destroyed while it waits
            raise
        finally:
            self.arm(None)
            self._owner = None
            # The frame stays in the traceback of what is raised, and must not lead back to it.
            error = cancellation = verdict = None


def _cancel_again(task: asyncio.Task[Any], requests: int) -> None:
    """Cancel it anew, at the same count, unless one of so many requests was withdrawn (L4)."""
    if not task.done() and task.cancelling() >= requests:
        task.cancel()
        task.uncancel()


def _nothing() -> None:
    pass


class _NoLoop:
    def get_debug(self) -> bool:
        return False


def settled() -> asyncio.Future[None]:
    """A future that is done and belongs to no loop, to wake a task with.

    A task that is woken asks the future it waited for whether there was an error. For an operation that was met the
    answer is always no, and asyncio's own kind of future gives it many times faster than any other.
    """
    future = asyncio.Future[None](loop=cast("asyncio.AbstractEventLoop", _NoLoop()))
    future.set_result(None)
    return future


def add() -> None:
    """Nothing: the extension knows asyncio. That this module is imported is all that was to be done."""
