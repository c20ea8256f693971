"""Processes that are tasks of the extension and nothing else: the handle of one.

It is made for each that is spawned, and mostly dropped at once. All there is to know is in the task; what is asked for
each process is answered by the extension.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TypeVar

from weft._process import Process
from weft._weft import Channel, _Handle

if TYPE_CHECKING:
    from types import TracebackType

    from weft._weft import Task

__all__ = ["SteppedProcess"]

T = TypeVar("T")


class SteppedProcess(_Handle, Process[T]):
    """A handle. The extension makes it, without a call of `__init__`."""

    __slots__ = ()

    _place = "task"
    if TYPE_CHECKING:
        _task: Task[T]

    @property
    def name(self) -> str:
        """See `Process.name`."""
        return self._task.get_name()

    def cancel(self) -> None:
        """See `Process.cancel`."""
        task = self._task
        group = task._group
        if group is not None:  # else it has ended, or nobody is left who could step it
            task._asked = True
            assert group._host is not None
            group._host.call(task._end)

    def _closes_when_over(self) -> Channel[NoReturn] | None:
        return self._task._join(Channel(name=f"process {self.name!r}"))

    def _failure(self) -> tuple[BaseException | None, TracebackType | None]:
        return self._task._exception, self._task._traceback

    def _result(self) -> T:
        return self._task._result

    def _no_result(self) -> NoReturn:
        """Raise what `result` raises of a process that has not returned."""
        try:
            super(_Handle, self).result()
        finally:
            del self  # as there
        raise AssertionError("it has returned")

    def _spawned_at(self) -> str:
        return self._task._spawned_at()

    def _is_being_cancelled(self) -> bool:
        return self._task._asked
