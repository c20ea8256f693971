"""The methods of a process's task that no step needs: those of `asyncio.Task`, written on what the extension has.

Nothing here runs, and asyncio is not asked for, unless a loop runs processes.

Source: CPython, Lib/asyncio/tasks.py and futures.py, for what they do.
"""

from __future__ import annotations

from types import GenericAlias

TYPE_CHECKING = False  # true to type checkers; importing `typing` takes as long as importing weft
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context
    from types import FrameType
    from typing import Any, ClassVar, TextIO

__all__ = ["TaskMethods"]


def _asyncios(name: str) -> Any:
    """One of the functions that asyncio's own two kinds of tasks share."""
    from asyncio import base_tasks

    return getattr(base_tasks, name)


class TaskMethods:
    """The base of the extension's task."""

    __slots__ = ()

    # asyncio's own name, by which its other functions find them.
    _source_traceback: ClassVar[None] = None  # with a loop in debug mode, processes are asyncio's own tasks
    _log_traceback: ClassVar[bool] = False  # the group raises every error

    if TYPE_CHECKING:
        _callbacks: list[tuple[Callable[[Any], object], Context]] | None

        def done(self) -> bool: ...
        def result(self) -> Any: ...

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)  # pyright: ignore[reportUnknownVariableType]

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            setattr(self, "_asyncio_future_blocking", True)  # noqa: B010 (the extension's)
            yield self
        if not self.done():
            raise RuntimeError("await wasn't used with future")
        return self.result()

    __iter__ = __await__

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Forget a callback. Returns how often it was there."""
        callbacks = self._callbacks
        if not callbacks:
            return 0
        kept = [pair for pair in callbacks if pair[0] != fn]
        removed = len(callbacks) - len(kept)
        callbacks[:] = kept
        return removed

    def _make_cancelled_error(self) -> BaseException:
        """What `result` raises of one that was cancelled: for `asyncio.gather`."""
        from asyncio import CancelledError

        try:
            self.result()
        except CancelledError as error:
            return error
        raise RuntimeError(f"{self!r} was not cancelled")

    def set_result(self, result: object, /) -> None:
        """Not for a task."""
        raise RuntimeError("Task does not support set_result operation")

    def set_exception(self, exception: object, /) -> None:
        """Not for a task."""
        raise RuntimeError("Task does not support set_exception operation")

    def get_stack(self, *, limit: int | None = None) -> list[FrameType]:
        """The frames of the coroutine, or of the traceback when it failed; see `asyncio.Task.get_stack`."""
        frames: list[FrameType] = _asyncios("_task_get_stack")(self, limit)
        return frames

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        """Print those; see `asyncio.Task.print_stack`."""
        _asyncios("_task_print_stack")(self, limit, file)

    def __repr__(self) -> str:
        shown: str = _asyncios("_task_repr")(self)
        return shown
