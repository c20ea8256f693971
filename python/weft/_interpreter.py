"""Processes in interpreters of their own: `on="interpreter"`.

An interpreter is made by a thread, which is then in it until it ends (`_weft._interpreter`), and runs `_worker.main`. What is
idle is kept for the next process, as many as there are cores; the rest ends.

Sources: PEP 684 (a GIL for each), PEP 734 (interpreters in the standard library, from 3.14).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections import deque
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from weft import _crossing, _weft
from weft._workers import Worker, WorkProcess, check_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from weft._group import Group
    from weft._weft import Receiver, Sender
    from weft._worker import Order, Report

__all__ = ["InterpreterProcess", "InterpreterWorker", "reason_against", "runs_threads_instead"]

T = TypeVar("T")


def reason_against() -> str | None:
    """Why there are no interpreters of their own here; None: there are."""
    if sys.implementation.name != "cpython" or not hasattr(_weft, "_interpreter"):
        return f"{sys.implementation.name} has no interpreters of their own"
    if sys.version_info < (3, 12):
        return (
            f"interpreters with a GIL of their own came with Python 3.12, and this is {sys.version.partition(' ')[0]}"
        )
    return None


def runs_threads_instead() -> bool:
    """Whether this build has no GIL: then a thread is as parallel as an interpreter, and is used in its place."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class InterpreterWorker(Worker):
    """An interpreter that works for this one. `with_loop`: as one of a pool."""

    _kind = "interpreter"

    def __init__(self, *, with_loop: bool = False) -> None:
        self._with_loop = with_loop
        if with_loop and sys.version_info < (3, 13):
            _run_a_loop_first()
        _pickle_first()
        super().__init__()

    def _host(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        """In the interpreter while that lives."""
        _weft._interpreter((orders, reports, _crossing.main_file(), self._with_loop))

    def _is_idle(self) -> None:
        if not self._with_loop:
            _keep(self)


_idle: deque[InterpreterWorker] = deque()  # one that has ended meanwhile is not among them for long
_kept = max(2, os.cpu_count() or 1)  # so many idle ones

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # their threads are in the parent


def _take() -> InterpreterWorker:
    """An interpreter without work."""
    try:
        return _idle.pop()
    except IndexError:
        return InterpreterWorker()


def _keep(worker: InterpreterWorker) -> None:
    """It has no work any more."""
    _idle.append(worker)
    if len(_idle) > _kept:
        with suppress(IndexError):
            _idle.popleft().end()


_pickle_first = cache(_crossing.be_first)


@cache
def _run_a_loop_first() -> None:
    """Run asyncio here before it runs elsewhere: see `_crossing.be_first`."""
    import asyncio

    from weft._group import Group

    async def main() -> None:
        async with Group() as group:
            group.spawn(asyncio.sleep, 0)
        await asyncio.to_thread(id, None)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()


class InterpreterProcess(WorkProcess[T]):
    """A process with an interpreter to itself."""

    __slots__ = ()

    _place = "interpreter"

    def __init__(self, group: Group, name: str, spawner: FrameType, fn: Callable[..., Any]) -> None:
        check_function(fn, "interpreter")
        super().__init__(group, name, spawner)

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        if is_async and sys.version_info < (3, 13):
            _run_a_loop_first()
        self._worker = _take()
        super()._start(fn, args, is_async=is_async, chosen=chosen)

    def _give_up(self) -> bool:
        if self._worker is not None and not self._number:
            self._worker.end()
        return True
