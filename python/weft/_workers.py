"""Other places that work for this one, as they are seen from here: a worker, and a process that runs in one.

A worker gets its jobs, and tells what they came to, over two channels, whatever it is: a thread, an interpreter
(`_interpreter`) or a process of the system (`_os_process`). On the other side of both is `_worker`. A thread of this place receives
the reports.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from weft import _crossing, _weft
from weft._errors import Closed, ForkedChannelError, NoReceivers, PeerDied, RemoteError
from weft._process import PlacedProcess
from weft._weft import Channel
from weft._worker import ASKED, CANCELLED, ENDED, FAILED, work_in_loop

if TYPE_CHECKING:
    from types import FrameType

    from weft._group import Group
    from weft._weft import Receiver, Sender
    from weft._worker import Order, Report

__all__ = ["OWN", "Outcome", "ThreadWorker", "WorkProcess", "Worker", "all_workers", "check_function", "end_in_order"]

T = TypeVar("T")

OWN = "weft's own"  # how the channels begin that the program has nothing to do with

_lock = threading.Lock()
_all: set[Worker] = set()  # that have not ended
_watching = False
_ending = False


def all_workers() -> list[Worker]:
    """Those that have not ended."""
    with _lock:
        return list(_all)


def _enlist(worker: Worker) -> None:
    """There is one more, unless the program is about to end."""
    global _watching
    with _lock:
        if _ending:
            raise RuntimeError(f"the program is about to end: it starts no {worker._kind} any more")
        if not _watching:
            _watching = True
            # As in `_thread`.
            register = getattr(threading, "_register_atexit", None)
            if register is not None:
                register(_end_all)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_all)
        _all.add(worker)


def _delist(worker: Worker) -> None:
    with _lock:
        _all.discard(worker)


def _end_all() -> None:
    """The program is about to end, and waits for all threads."""
    global _ending
    with _lock:
        _ending = True
        workers = list(_all)
    for worker in workers:
        for process in worker.processes():
            process._abort_if_forsaken()
        worker.end()
    if _crossing.is_elsewhere():
        for worker in workers:
            # It reports over channels, which its place is about to leave. (`join` would make a `Thread` object for this one.)
            worker._heard_all.wait()


def end_in_order() -> None:
    """This process leaves the root when its workers, which it started with the root's help, have ended."""
    workers = all_workers()
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.wait()


def _forget_all() -> None:
    """In a forked child: the threads that look after them are in the parent."""
    _all.clear()
    _lock.release()


def check_function(fn: Callable[..., Any], place: str) -> None:
    """Raise an error that says what to do when another place cannot find `fn`."""
    name = getattr(fn, "__qualname__", "")
    if "<lambda>" in name or "<locals>" in name:
        kind = "lambda" if "<lambda>" in name else "function defined inside another one"
        raise TypeError(
            f"on={place!r} finds a function by its import path, and {fn!r} is a {kind}: define it at the top level of a "
            "module, and give what it used from around it as arguments"
        )
    if getattr(fn, "__module__", None) == "__main__" and _crossing.main_file() == (None, None):
        raise TypeError(
            f"on={place!r} finds a function by its import path, and {fn!r} was typed in (or given with -c): put it in a "
            "file"
        )


class Outcome(Protocol):
    """Who is told what a job came to."""

    def _finish(self, value: Any = None, error: BaseException | None = None, *, cancelled: bool = False) -> None: ...


class Worker:
    """A place that works for this one. Subclasses say what it is, by their `_host`.

    Attributes:
        load: how many jobs it has that have not ended.
    """

    _kind = "worker"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._jobs: dict[int, Outcome] = {}
        self._broken: BaseException | None = None
        self._over = False
        self._heard_all = threading.Event()
        self._threads: list[threading.Thread] = []
        orders = Channel["Order"].unbounded(name=f"{OWN} {self._kind}: orders")
        reports = Channel["Report"].unbounded(name=f"{OWN} {self._kind}: reports")
        if self._kind != "thread":
            # What is ordered before the worker is there would be looked at by its thread, and what is waited on cannot leave.
            _weft._share(orders)
            _weft._share(reports)
        self._orders = orders.sender()
        ends = (orders.receiver(), reports.sender())
        _enlist(self)
        try:
            for target, given, name in (
                (self._be, ends, f"weft {self._kind}"),
                (self._hear, (reports.receiver(),), "weft reports"),
            ):
                thread = threading.Thread(target=target, args=given, name=name, daemon=False)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.end()
            self._heard_all.set()
            _delist(self)
            raise

    def _be(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        """The thread that the worker is, or that looks after it."""
        with orders, reports:
            try:
                self._host(orders, reports)
            except BaseException as error:
                self._broken = error

    @abstractmethod
    def _host(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        """Do the work until there are no more orders."""

    def _is_idle(self) -> None:
        """A process has ended."""

    def _hear(self, reports: Receiver[Report]) -> None:
        with reports:
            try:
                for number, kind, outcome in reports:
                    if kind == ASKED:
                        from weft._os_process import fulfil

                        fulfil(outcome)
                        del outcome
                        continue
                    with self._lock:
                        process = self._jobs.pop(number)
                    was_work = isinstance(process, PlacedProcess)  # else a question in between
                    if was_work:
                        self._is_idle()
                    self._finish(process, kind, outcome)
                    del process, outcome
            except PeerDied as death:
                self._broken = self._died(death)
            except Closed as end:  # this process has lost the root
                self._broken = end.__cause__ or end
        _delist(self)
        if self._jobs:
            self._know_why()
        with self._lock:
            self._over = True
            left, self._jobs = self._jobs, {}
        for process in left.values():
            process._finish(error=self._end_of_job())
        self._heard_all.set()

    def _know_why(self) -> None:
        """Wait until it is known why it has ended, which is about to be."""
        self._threads[0].join(1)

    def _died(self, death: PeerDied) -> PeerDied:
        """The same, as far as it is known here."""
        return death

    def _end_of_job(self) -> BaseException:
        if isinstance(self._broken, PeerDied):
            return PeerDied(self._broken.pid, self._broken.exitcode)
        error = RemoteError(f"the {self._kind} it ran in ended before it did")
        error.__cause__ = self._broken
        return error

    def _finish(self, process: Outcome, kind: int, outcome: Any) -> None:
        if kind == CANCELLED:
            process._finish(cancelled=True)
            return
        try:
            outcome = self._unpack(outcome)
        except Exception as error:
            kind, outcome = FAILED, RemoteError(f"what it came to could not be made again here: {error!r}")
            outcome.__cause__ = error
        if kind == ENDED:
            process._finish(outcome)
        else:
            process._finish(error=outcome)

    # What goes there and comes back; for another place as it says here.

    def _pack(self, value: Any) -> Any:
        return _crossing.pack(value)

    def _unpack(self, packed: Any) -> Any:
        return _crossing.unpack(packed)

    def run(self, process: Outcome, name: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> int:
        """Have a job done for a process. Its number, with which it can be cancelled."""
        number = next(self._numbers)
        with self._lock:
            if self._over:
                raise RemoteError(f"the {self._kind} has ended") from self._broken
            self._jobs[number] = process
        try:
            self._orders.send_nowait((number, name, self._pack((fn, args))))
        except BaseException as error:
            with self._lock:
                self._jobs.pop(number, None)
            if isinstance(error, NoReceivers):
                self._know_why()
                raise RemoteError(f"the {self._kind} has ended") from error.__cause__ or self._broken
            raise
        return number

    @property
    def about(self) -> str:
        """What it is, for messages."""
        return self._kind

    def cancel(self, number: int) -> None:
        """Have a job cancelled. One that has ended is left alone."""
        with self._lock:
            known = number in self._jobs and not self._over
        if known:
            # It has just ended, or this process has lost the root, or was forked from the one that it works for.
            with suppress(Closed, PeerDied, ForkedChannelError):
                self._orders.send_nowait(number)

    @property
    def load(self) -> int:
        return len(self._jobs)

    def processes(self) -> list[PlacedProcess[Any]]:
        """Those it does jobs for."""
        with self._lock:
            return [process for process in self._jobs.values() if isinstance(process, PlacedProcess)]

    def end(self) -> None:
        """No more jobs. It ends when it has done those it has."""
        self._orders.close()

    def wait(self) -> None:
        """Wait for its end."""
        for thread in self._threads:
            thread.join()


class ThreadWorker(Worker):
    """A thread with a loop, in this interpreter."""

    _kind = "thread"

    def _pack(self, value: Any) -> Any:
        return value

    def _unpack(self, packed: Any) -> Any:
        return packed

    def _host(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        work_in_loop(orders, reports, packed=False)


class WorkProcess(PlacedProcess[T]):
    """A process that a worker runs, which is the pool's."""

    __slots__ = ("_number", "_worker")

    _place = "pool"

    def __init__(self, group: Group, name: str, spawner: FrameType, worker: Worker | None = None) -> None:
        super().__init__(group, name, spawner)
        self._worker: Worker | None = worker
        self._number = 0  # none yet

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        worker = self._worker
        assert worker is not None
        number = worker.run(self, self._name, fn, args)
        with self._lock:
            self._number = number
            asked = self._cancel_asked
        if asked:
            worker.cancel(number)

    def cancel(self) -> None:
        """See `Process.cancel`."""
        with self._lock:
            self._cancel_asked = True
            number = self._number
        if number and not self._done:
            assert self._worker is not None
            self._worker.cancel(number)
