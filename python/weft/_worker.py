"""A place that works for others: what runs in another interpreter, from its first line to its last.

It gets its orders over one channel and reports over another. An order is a job, or the number of a job that is to be
cancelled. When the orders are closed and all jobs have ended, so does the place.

A job runs in a thread of its own, a coroutine in a loop of that thread's own (`work`). A worker of a pool has one loop
and one run queue for all its coroutines (`work_in_loop`).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import atexit
import sys
import threading
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from weft import _crossing, _weft
from weft._entry import is_async
from weft._errors import Closed
from weft._group import Group
from weft._thread import ThreadProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from weft._process import Process
    from weft._weft import Receiver, Sender

    Job = tuple[int, str, bytes, list[memoryview], list[Any]]  # number, name, and (function, arguments) as a pickle
    Order = Job | int
    Report = tuple[int, int, Any]  # a job's number, what it came to, and the value or the error
    Setting = tuple[Receiver[Order], Sender[Report], tuple[str | None, str | None], bool]  # with a loop?

__all__ = ["CANCELLED", "ENDED", "FAILED", "main", "report_failure", "work", "work_in_loop"]

T = TypeVar("T")

ENDED, FAILED, CANCELLED = range(3)


class JobProcess(ThreadProcess[T]):
    """A job in its thread. It fails for those who ordered it, not for the group it stands in here."""

    __slots__ = ("number", "reports")

    number: int
    reports: Sender[Report]

    def _finish(self, value: T | None = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        try:
            with self.reports:
                if cancelled:
                    self.reports.send_nowait((self.number, CANCELLED, None))
                elif error is not None:
                    report_failure(self.reports, self.number, error)
                else:
                    report_result(self.reports, self.number, value)
        except Closed:
            pass  # who ordered it is gone
        finally:
            super()._finish(cancelled=cancelled)


def report_result(reports: Sender[Report], number: int, value: object) -> None:
    """Tell what a job has returned. A value that cannot leave is an error of the job."""
    try:
        reports.send_nowait((number, ENDED, value))
    except Exception as unfit:
        report_failure(reports, number, unfit)


def report_failure(reports: Sender[Report], number: int, error: BaseException) -> None:
    """Tell that a job has failed. An error that cannot be told is told in other words."""
    try:
        reports.send_nowait((number, FAILED, error))
    except Exception:
        instead = _crossing.RemoteError(f"{type(error).__qualname__}: {error}")
        instead.__cause__ = _crossing.RemoteTraceback(_crossing.traceback_of(error) or repr(error))
        reports.send_nowait((number, FAILED, instead))


def main(setting: Setting) -> None:
    """Work, in a thread of this interpreter's own, until there are no more orders.

    (The thread that made the interpreter is a stranger to `threading` here: it has no `Thread` object, and for some calls
    it would be given a makeshift one, to join another for example.) It waits for the worker: `threading` takes its return
    for the beginning of the interpreter's end, after which there are no executors any more, and `asyncio.to_thread` has
    none.
    """
    orders, reports, program, with_loop = setting
    atexit.register(_weft._leave)
    _crossing.be_elsewhere(program)
    over = threading.Lock()
    over.acquire()
    target = work_in_loop if with_loop else work
    threading.Thread(target=_until_over, args=(target, orders, reports, over), name="weft worker", daemon=False).start()
    del setting, orders, reports  # the ends are the worker's
    over.acquire()


def _until_over(
    target: Callable[[Receiver[Order], Sender[Report]], None],
    orders: Receiver[Order],
    reports: Sender[Report],
    over: threading.Lock,
) -> None:
    try:
        target(orders, reports)
    finally:
        over.release()


def work(orders: Receiver[Order], reports: Sender[Report], guard: AbstractContextManager[object] | None = None) -> None:
    """Work until there are no more orders. `guard` is left when they end, before the jobs are waited for."""
    with reports, orders, Group("worker") as group, guard or nullcontext():
        jobs = Jobs(group, reports, with_loop=False)
        for order in orders:
            jobs.carry_out(order)
            del order
    del orders, reports, group, jobs


def work_in_loop(
    orders: Receiver[Order], reports: Sender[Report], guard: AbstractContextManager[object] | None = None
) -> None:
    """The same, with a loop for what is a coroutine."""
    import asyncio

    asyncio.run(_work_in_loop(orders, reports, guard))


async def _work_in_loop(
    orders: Receiver[Order], reports: Sender[Report], guard: AbstractContextManager[object] | None
) -> None:
    async with reports, orders, Group("worker") as group:
        jobs = Jobs(group, reports, with_loop=True)
        with guard or nullcontext():
            async for order in orders:
                jobs.carry_out(order)
                del order
    del orders, reports, group, jobs


class Jobs:
    """The jobs of a place that have not ended."""

    def __init__(self, group: Group, reports: Sender[Report], *, with_loop: bool) -> None:
        self._group = group
        self._reports = reports
        self._with_loop = with_loop
        self._running: dict[int, Process[Any]] = {}

    def carry_out(self, order: Order) -> None:
        """Start a job, or cancel one."""
        if isinstance(order, int):
            process = self._running.get(order)
            if process is not None:
                process.cancel()
            return
        number, name, content, blocks, ends = order
        del order
        try:
            function, arguments = _crossing.unpickle(content, blocks, ends) if content else ends
        except Exception as error:
            report_failure(self._reports, number, error)
            return
        for ended in [number for number, process in self._running.items() if process.done]:
            del self._running[ended]
        reports = self._reports.clone()
        if self._with_loop and is_async(function):
            self._running[number] = self._group.spawn(_job, function, arguments, number, reports, name=name)
            return
        process = JobProcess[Any](self._group, name, sys._getframe(), self._group._scope)
        process.number, process.reports = number, reports
        self._running[number] = process
        self._group._begin(process, function, arguments, is_async=is_async(function), chosen=True)


async def _job(function: Callable[..., Any], arguments: tuple[Any, ...], number: int, reports: Sender[Report]) -> None:
    """A coroutine's job. It fails for those who ordered it, not for the group it stands in here."""
    from asyncio import CancelledError

    with reports:
        try:
            try:
                result = await function(*arguments)
            finally:
                del function, arguments  # the ends among them are closed before the end is told
            report_result(reports, number, result)
        except CancelledError:
            with suppress(Closed):  # who ordered it is gone
                reports.send_nowait((number, CANCELLED, None))
            raise
        except BaseException as error:
            with suppress(Closed):
                report_failure(reports, number, error)
