"""A place that works for others: what runs in another interpreter or process, from its first line to its last.

It gets its orders over one channel and reports over another. An order is a job, or the number of a job that is to be
cancelled. When the orders are closed and all jobs have ended, so does the place.

The function and its arguments, and what comes of it, are packed (`_crossing.pack`), so that a job fails alone when they cannot be
made again on the other side. A thread of the same interpreter gets the objects themselves.

A job runs in a thread of its own, a coroutine in a loop of that thread's own (`work`). A worker of a pool has one loop
and one run queue for all its coroutines (`work_in_loop`).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from weft import _crossing, _weft
from weft._entry import is_async
from weft._errors import Closed, PeerDied
from weft._group import Group
from weft._thread import ThreadProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from weft._process import Process
    from weft._weft import Receiver, Sender

    Job = tuple[int, str, Any]  # number, name, and (function, arguments), packed
    Order = Job | int
    Report = tuple[int, int, Any]  # a job's number, what it came to, and the value or the error, packed; or a wish
    Setting = tuple[Receiver[Order], Sender[Report], tuple[str | None, str | None], bool]  # with a loop?

__all__ = [
    "ASKED",
    "CANCELLED",
    "ENDED",
    "FAILED",
    "Reporter",
    "ask",
    "can_ask",
    "leave_early",
    "look_up_to",
    "main",
    "tell_error",
    "work",
    "work_in_loop",
]

T = TypeVar("T")

ENDED, FAILED, CANCELLED, ASKED = range(4)

_upwards: Sender[Report] | None = None  # to who gives this place its orders; None: the program's first, or a forked one


def look_up_to(reports: Sender[Report]) -> None:
    """This is another place than the program's first, and reports so."""
    global _upwards
    _upwards = reports


def can_ask() -> bool:
    """Whether this place can `ask`."""
    return _upwards is not None


def ask(wish: object) -> None:
    """Ask for what only the program's first place does (a process of the system), by way of who gives this one its orders.

    Raises:
        RuntimeError: this place is about to end.
    """
    try:
        assert _upwards is not None
        _upwards.send_nowait((0, ASKED, wish))
    except (Closed, PeerDied):
        raise RuntimeError("this place of the program is about to end: it starts no process any more") from None


def _look_up_to_nobody() -> None:
    global _upwards
    _upwards = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_look_up_to_nobody)


class JobProcess(ThreadProcess[T]):
    """A job in its thread. It fails for those who ordered it, not for the group it stands in here."""

    __slots__ = ("reporter",)

    reporter: Reporter

    def _finish(self, value: T | None = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        try:
            self.reporter.tell(value, error, cancelled=cancelled)
        finally:
            super()._finish(cancelled=cancelled)


class Reporter:
    """Tells those who ordered a job what it came to. `packs`: they are in another place.

    Attributes:
        begun: whether the job itself sees to it that it is told. A coroutine that is cancelled before its first step does not.
    """

    def __init__(self, reports: Sender[Report], number: int, *, packs: bool) -> None:
        self._reports = reports.clone()
        self._number = number
        self._packs = packs
        self.begun = False

    def tell(self, value: object = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        """Called once. A value that cannot leave is an error of the job."""
        with suppress(Closed, PeerDied), self._reports:  # else who ordered it is gone
            if cancelled:
                self._send(CANCELLED, None)
                return
            if error is None:
                try:
                    self._send(ENDED, value)
                    return
                except Exception as unfit:
                    error = unfit
            tell_error(partial(self._send, FAILED), error)

    def _send(self, kind: int, outcome: object) -> None:
        self._reports.send_nowait((self._number, kind, _crossing.pack(outcome) if self._packs else outcome))


def tell_error(tell: Callable[[BaseException], None], error: BaseException) -> None:
    """Tell of an error. One that cannot be told is told in other words."""
    try:
        tell(error)
    except Exception:
        tell(_crossing.in_words(error))


def main(setting: Setting) -> None:
    """Work, in a thread of this interpreter's own, until there are no more orders.

    (The thread that made the interpreter is a stranger to `threading` here: it has no `Thread` object, and for some calls
    it would be given a makeshift one, to join another for example.) It waits for the worker: `threading` takes its return
    for the beginning of the interpreter's end, after which there are no executors any more, and `asyncio.to_thread` has
    none.
    """
    orders, reports, program, with_loop = setting
    atexit.register(_weft._leave)
    threading._register_atexit(leave_early)  # type: ignore[attr-defined]
    _crossing.be_elsewhere(program)
    look_up_to(reports)
    over = threading.Lock()
    over.acquire()
    target = work_in_loop if with_loop else work
    threading.Thread(target=_until_over, args=(target, orders, reports, over), name="weft worker", daemon=False).start()
    del setting, orders, reports  # the ends are the worker's
    over.acquire()


def leave_early() -> None:
    """The interpreter is about to end, and its workers have, as the last called are those who were registered first. A thread
    that listens for other places has to be told before it is waited for."""
    if "weft._places" in sys.modules:
        _weft._leave()


def _until_over(
    target: Callable[[Receiver[Order], Sender[Report]], None],
    orders: Receiver[Order],
    reports: Sender[Report],
    over: threading.Lock,
) -> None:
    try:
        target(orders, reports)
    except* (Closed, PeerDied):
        pass  # the process that this interpreter is in has lost the root, and ends
    finally:
        over.release()


def work(orders: Receiver[Order], reports: Sender[Report], guard: AbstractContextManager[object] | None = None) -> None:
    """Work until there are no more orders. `guard` is left when they end, before the jobs are waited for."""
    with reports, orders, Group("worker") as group, guard or nullcontext():
        jobs = Jobs(group, reports, with_loop=False, packed=True)
        for order in orders:
            jobs.carry_out(order)
            del order
    del orders, reports, group, jobs


def work_in_loop(
    orders: Receiver[Order],
    reports: Sender[Report],
    guard: AbstractContextManager[object] | None = None,
    *,
    packed: bool = True,
) -> None:
    """The same, with a loop for what is a coroutine. `packed`: for another place."""
    import asyncio

    asyncio.run(_work_in_loop(orders, reports, guard, packed=packed))


async def _work_in_loop(
    orders: Receiver[Order], reports: Sender[Report], guard: AbstractContextManager[object] | None, *, packed: bool
) -> None:
    async with reports, orders, Group("worker") as group:
        jobs = Jobs(group, reports, with_loop=True, packed=packed)
        with guard or nullcontext():
            async for order in orders:
                jobs.carry_out(order)
                del order
    del orders, reports, group, jobs


class Jobs:
    """The jobs of a place that have not ended."""

    def __init__(self, group: Group, reports: Sender[Report], *, with_loop: bool, packed: bool) -> None:
        self._group = group
        self._reports = reports
        self._with_loop = with_loop
        self._packed = packed
        self._running: dict[int, tuple[Process[Any], Reporter]] = {}

    def carry_out(self, order: Order) -> None:
        """Start a job, or cancel one."""
        if isinstance(order, int):
            if order in self._running:
                process, reporter = self._running[order]
                process.cancel()
                if not reporter.begun:  # nor will it
                    reporter.tell(cancelled=True)
            return
        number, name, job = order
        del order
        reporter = Reporter(self._reports, number, packs=self._packed)
        try:
            function, arguments = _crossing.unpack(job) if self._packed else job
        except Exception as error:
            reporter.tell(error=error)
            return
        del job
        try:
            self._start(number, name, function, arguments, reporter)
        except Exception as error:  # no thread for it, say: of the worker's jobs it is this one that fails
            self._running.pop(number, None)
            reporter.tell(error=error)

    def _start(
        self, number: int, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], reporter: Reporter
    ) -> None:
        for ended in [ended for ended, (process, _) in self._running.items() if process.done]:
            del self._running[ended]
        if self._with_loop and is_async(function):
            self._running[number] = self._group.spawn(_job, function, arguments, reporter, name=name), reporter
            return
        job_process = JobProcess[Any](self._group, name, sys._getframe(), self._group._scope)
        job_process.reporter = reporter
        reporter.begun = True
        self._running[number] = job_process, reporter
        self._group._begin(job_process, function, arguments, is_async=is_async(function), chosen=True)


async def _job(function: Callable[..., Any], arguments: tuple[Any, ...], reporter: Reporter) -> None:
    """A coroutine's job. It fails for those who ordered it, not for the group it stands in here."""
    from asyncio import CancelledError

    reporter.begun = True
    try:
        try:
            result = await function(*arguments)
        finally:
            del function, arguments  # the ends among them are closed before the end is told
    except CancelledError:
        reporter.tell(cancelled=True)
        raise
    except BaseException as error:
        reporter.tell(error=error)
    else:
        reporter.tell(result)
