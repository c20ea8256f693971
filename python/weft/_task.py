"""Processes that are asyncio tasks.

The task is the user's own coroutine, not one of ours around it: nothing stands between the loop and the code at each
step, and tools that look at tasks see what was written. What became of it is learned from the done callback.

Everything here happens in the loop's thread but `__init__`, `cancel` and `_start`.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from weft._entry import running_loop
from weft._errors import Cancelled
from weft._process import HostProcess
from weft._weft import _steps_tasks

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType

    from weft._group import Group
    from weft._weft import Task

__all__ = ["TaskProcess", "awaited", "steps_processes"]

T = TypeVar("T")


def steps_processes(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether processes in this loop are tasks of ours. With a task factory they are what that makes; in debug mode they
    are asyncio's own, which know where they were made."""
    return _steps_tasks and loop.get_task_factory() is None and not loop.get_debug()


class TaskProcess(HostProcess[T]):
    """A task in the loop its group was entered in."""

    __slots__ = ("_loop", "_task")

    def __init__(self, group: Group, name: str, spawner: FrameType, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(group, name, spawner)
        self._loop = loop
        self._task: asyncio.Task[T] | Task[T] | None = None

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        # An `async def` is called here, where wrong arguments are the caller's own TypeError. Anything else would run
        # the caller's code in the wrong thread, so it is called in the task.
        coroutine: Coroutine[Any, Any, T] = fn(*args) if is_async else awaited(fn, args)
        try:
            if running_loop() is self._loop:
                self._make_task(coroutine)
            else:
                # The handle copies the context of this thread, and the task copies the handle's.
                self._loop.call_soon_threadsafe(self._begin, coroutine)
        except BaseException:
            if self._task is None:
                coroutine.close()
            raise

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """Called in the loop for a process spawned from elsewhere: nobody is there any more to raise an error to."""
        if self._cancel_asked:
            coroutine.close()
            self._finish(cancelled=True)
            return
        try:
            self._make_task(coroutine)
        except Exception as error:
            coroutine.close()
            self._finish(error=error)

    def _make_task(self, coroutine: Coroutine[Any, Any, T]) -> None:
        loop = self._loop
        # A function that is only marked as a coroutine function may have given anything: asyncio refuses it.
        is_one = isinstance(coroutine, Coroutine)  # pyright: ignore[reportUnnecessaryIsInstance]
        if is_one and steps_processes(loop):
            from weft._weft import Task

            self._task = Task(coroutine, loop, self._name, self)
            if self._cancel_asked:  # by a signal handler, when there was no task to cancel yet
                self._task.cancel()
            return
        # No `name=` and no `context=`: task factories written for older Pythons take neither.
        task = loop.create_task(coroutine)
        if task.done():  # an eager one
            self._on_done(task)
            return
        task.set_name(self._name)
        self._task = task
        task.add_done_callback(self._on_done)
        if self._cancel_asked:  # during its eager first step, when there was no task to cancel yet
            task.cancel()

    def _cancel_task(self) -> None:
        self._cancel_asked = True
        if self._task is not None:
            self._task.cancel()

    def _on_done(self, task: asyncio.Task[T] | Task[T]) -> None:
        self._task = None
        if task.cancelled():
            self._finish(cancelled=True)
            return
        error = task.exception()
        if error is None:
            self._finish(task.result())
        elif isinstance(error, Cancelled) and self._cancel_asked:
            # It was waiting for a process that was cancelled along with it.
            self._finish(cancelled=True)
        else:
            self._finish(error=error)


async def awaited(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call `fn` in the task and wait for the awaitable it must give."""
    awaitable: Any = fn(*args)
    if not isinstance(awaitable, Awaitable):
        raise TypeError(
            f"{fn!r} was spawned on='task', but calling it gave nothing to await; leave `on` out to run it in a thread"
        )
    return await awaitable  # pyright: ignore[reportUnknownVariableType]
