"""Processes that are threads.

Each has a scope of its own under its group's, entered for as long as its function runs: cancelling the scope is what
makes weft's operations raise `Cancelled` in that thread. An `async def` gets a loop of its own there; cancelling it
also cancels that loop's main task, and a group without a loop has its deadline kept by a timer in there, because
asyncio knows nothing of scopes.

The threads are not daemons. A group waits for its children anyway; when that wait is broken off (a second Ctrl-C),
every child has been told to end, and one that has not is in code that must not be torn to pieces: the interpreter waits
for it, until a third Ctrl-C.

So a thread that nobody told would be waited for without an end. When a loop is closed, or just not run any more, with a
group's owner still suspended in it, the threads are told when the collector takes the owner's coroutine, or the group
(PyPy throws nothing into a coroutine that it takes). Often it cannot: the threads themselves hold channels on which the
owner waits, or the program holds the task. Then they are told at the end of the program, before the interpreter waits for
them.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from weft._errors import Cancelled
from weft._process import PlacedProcess
from weft._weft import Op, Scope

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType, TracebackType

    from weft._group import Group

__all__ = ["ThreadProcess"]

T = TypeVar("T")
Outcome = tuple[T | None, BaseException | None, bool]  # value, error, whether it was cancelled

_running: set[ThreadProcess[Any]] = set()  # those whose thread has been started and has not ended
_watching_the_end = False


def _watch_the_end() -> None:
    """Have the threads that nobody is left to wait for told at the end of the program."""
    global _watching_the_end
    if _watching_the_end:
        return
    _watching_the_end = True
    # What `concurrent.futures` does for its threads. There is no public way: `atexit` is called when all threads have ended.
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(_tell_the_forsaken)
        except RuntimeError:
            return  # it has come already
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_running.clear)  # their threads are in the parent


def _tell_the_forsaken() -> None:
    for process in list(_running):
        process._abort_if_forsaken()


def _lose_group(process: ThreadProcess[Any], _: object) -> None:
    process.cancel()


class ThreadProcess(PlacedProcess[T]):
    """A thread, with a loop of its own when it runs a coroutine."""

    __slots__ = ("_abandoned", "_chosen", "_job", "_loop", "_running", "_scope", "_task", "_timer")

    _place = "thread"

    def __init__(self, group: Group, name: str, spawner: FrameType, scope: Scope) -> None:
        super().__init__(group, name, spawner)
        self._scope = Scope(scope)
        self._job: tuple[Callable[..., Any], tuple[Any, ...], contextvars.Context] | None = None
        self._chosen = False
        # Under the group's lock, all of them. `_loop` and `_task` are there while a coroutine runs.
        self._running = False
        self._abandoned = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        # In the thread itself only.
        self._timer: asyncio.TimerHandle | None = None

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        self._job = (fn, args, contextvars.copy_context())
        self._chosen = chosen or is_async
        _watch_the_end()
        _running.add(self)
        threading.Thread(target=self._main, name=self._name, daemon=False).start()

    def _give_up(self) -> bool:
        # `Thread.start` waits until the thread runs, and a Ctrl-C can break that off on either side of it.
        with self._lock:
            self._abandoned = not self._running
        if self._abandoned:
            _running.discard(self)
        return self._abandoned

    def cancel(self) -> None:
        """See `Process.cancel`."""
        if self._done:
            return
        with self._lock:
            self._cancel_asked = True
            loop, task = self._loop, self._task
        self._scope.cancel()
        if loop is not None and task is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:
                pass  # the loop closed a moment ago: the coroutine has ended

    def _main(self) -> None:
        """What the thread runs, from its first line to its last."""
        with self._lock:
            if self._abandoned or self._job is None:
                return
            self._running = True
            group = self._group()
            watch = None if group is None else weakref.ref(group, partial(_lose_group, self))
            del group
            (fn, args, context), self._job = self._job, None
        result: Any = None
        value: T | None = None
        error: BaseException | None = None
        cancelled = self._cancel_asked or watch is None
        if not cancelled:
            self._scope.enter()
            try:
                result = context.run(fn, *args)
                if isinstance(result, Coroutine):
                    value, error, cancelled = context.run(self._run, fn, cast("Coroutine[Any, Any, T]", result))
                elif isinstance(result, Op):
                    value = context.run(cast("Op[T]", result).wait)
                else:
                    value = result
            except BaseException as caught:
                error, cancelled = caught, self._is_cancellation(caught)
            self._scope.exit()
        # What the function was given is let go before its end is told: a channel end among it counts as closed by then.
        del fn, args, context
        result = None
        if cancelled:
            error = None
        if error is not None:
            # Not by assignment: there are error classes that forbid that.
            BaseException.with_traceback(error, _without_our_lines(error.__traceback__))
        _running.discard(self)
        self._finish(value, error, cancelled=cancelled)
        # The frames in the error's traceback lead back to this one, and it must not lead to the error.
        del self, value, error, watch

    def _is_cancellation(self, error: BaseException) -> bool:
        """Whether it comes from this scope, not from joining a process that was cancelled."""
        return isinstance(error, Cancelled) and self._scope.cancelled

    def _run(self, fn: Callable[..., Any], coroutine: Coroutine[Any, Any, T]) -> Outcome[T]:
        """Run a coroutine in a loop of this thread's own."""
        if not self._chosen:
            coroutine.close()
            raise TypeError(
                f"{fn!r} returned a coroutine without being an `async def` itself, so it was taken for a plain "
                "function and run in a thread; say where the coroutine is to run: on='task' or on='thread'"
            )
        import asyncio  # who spawns no coroutine needs no asyncio

        outcome: list[Outcome[T]] = []
        with asyncio.Runner() as runner:
            try:
                runner.run(self._drive(coroutine, outcome))
            except asyncio.CancelledError:
                # The request came as the coroutine ended. Its outcome stands, if it had one.
                if not outcome:
                    coroutine.close()
                    return None, None, True
        try:
            return outcome.pop()
        finally:
            del self  # as in `_main`

    async def _drive(self, coroutine: Coroutine[Any, Any, T], outcome: list[Outcome[T]]) -> None:
        """The main task of the thread's own loop. An error is not raised: it would go through the loop and leave its
        marks."""
        import asyncio

        with self._lock:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            asked = self._cancel_asked
        if asked:
            raise asyncio.CancelledError
        self._arm()
        try:
            outcome.append((await coroutine, None, False))
        except asyncio.CancelledError:
            outcome.append((None, None, True))
        except BaseException as error:
            outcome.append((None, error, self._is_cancellation(error)))
        finally:
            with self._lock:
                self._loop = self._task = None
            self._arm()
            del self, outcome  # as in `_main`

    def _deadline_moved(self) -> None:
        with self._lock:
            loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._arm)
            except RuntimeError:
                pass  # the loop closed a moment ago

    def _arm(self) -> None:
        """Set the timer for the group's deadline as it is now, or none when the coroutine has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group = self._group()
        left = None if group is None else group._time_left()
        if group is not None and left is not None and self._loop is not None:
            self._timer = self._loop.call_later(left, group.cancel)


def _without_our_lines(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out the frames above the function that was spawned. They tell nothing, and they lead back to the error: a
    cycle."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback
