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
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from weft import _crossing, _weft
from weft._entry import is_async
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
        _watch_the_end()
        super().__init__()
        with _lock:
            _all.add(self)

    def _host(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        """In the interpreter while that lives."""
        try:
            _weft._interpreter((orders, reports, _crossing.main_file(), self._with_loop))
        finally:
            with _lock:
                _all.discard(self)

    def _is_idle(self) -> None:
        if not self._with_loop:
            _keep(self)


# The interpreters there are

_lock = threading.Lock()
_idle: list[InterpreterWorker] = []
_all: set[InterpreterWorker] = set()
_kept = max(2, os.cpu_count() or 1)  # so many idle ones
_ending = False
_watching = False


def _take() -> InterpreterWorker:
    """An interpreter without work."""
    with _lock:
        if _idle:
            return _idle.pop()
    return InterpreterWorker()


def _keep(worker: InterpreterWorker) -> None:
    """It has no work any more."""
    with _lock:
        keep = not _ending and len(_idle) < _kept
        if keep:
            _idle.append(worker)
    if not keep:
        worker.end()


def _watch_the_end() -> None:
    global _watching
    with _lock:
        if _ending:
            raise RuntimeError("the program is about to end: it starts no interpreter any more")
        if not _watching:
            _watching = True
            _crossing.be_first()
            threading._register_atexit(_end_all)  # type: ignore[attr-defined]
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forget_all)


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


def _end_all() -> None:
    """The program is about to end, and waits for all threads."""
    global _ending
    with _lock:
        _ending = True
        workers = list(_all)
        _idle.clear()
    for worker in workers:
        for process in worker.processes():
            group = process._group()
            if group is not None and group._is_forsaken():
                group._abort()
        worker.end()


def _forget_all() -> None:
    """In a forked child: the threads are in the parent."""
    _idle.clear()
    _all.clear()


class InterpreterProcess(WorkProcess[T]):
    """A process with an interpreter to itself."""

    __slots__ = ()

    _place = "interpreter"

    def __init__(self, group: Group, name: str, spawner: FrameType, fn: Callable[..., Any]) -> None:
        check_function(fn, "interpreter")
        if is_async(fn) and sys.version_info < (3, 13):
            _run_a_loop_first()
        super().__init__(group, name, spawner, _take())

    def _give_up(self) -> bool:
        if not self._number:
            worker = self._worker
            assert isinstance(worker, InterpreterWorker)
            _keep(worker)
        return True
