"""Performing an operation by blocking a thread: on a lock of its own, which signals interrupt, or, when there are
descriptors to watch, in `poll` with a pipe."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import select
import threading
from contextlib import nullcontext, suppress
from itertools import starmap
from math import ceil, inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from weft._entry import running_loop
from weft._errors import BlockingInLoopError, Cancelled
from weft._pure import lowlevel
from weft._pure.scope import Scope
from weft._pure.transaction import ring

if TYPE_CHECKING:
    from collections.abc import Callable

    from weft._pure.op import Op

__all__ = ["wait"]

_LONGEST_POLL = 1 << 30  # milliseconds; who sleeps longer looks once in between


class Parker:
    """Where a thread sleeps in one wait: one that a signal handler makes in the middle of it sleeps elsewhere. A wake that
    comes before the sleep is not lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wakes(self) -> Callable[[], object]:
        """What wakes it, at most once. No line of it is Python, so that no signal handler comes in between."""
        # Release the lock if it is locked: `() * True` is how to call something without arguments.
        return starmap(self._lock.release, map(().__mul__, iter(self._lock.locked, False))).__next__

    def sleep(self, seconds: float) -> list[int]:
        """Sleep until woken, or for so long. The cases whose descriptors are ready."""
        self._lock.acquire(timeout=-1 if seconds == inf else min(seconds, threading.TIMEOUT_MAX))
        return []


class PollingParker(Parker):
    """The same, watching descriptors. The pipe lives as long as somebody may write to it."""

    def __init__(self, descriptors: list[tuple[int, bool, int]]) -> None:
        self._descriptors = descriptors
        self._pipe: tuple[int, ...] = ()
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)

    def wakes(self) -> Callable[[], object]:
        return self._write

    def _write(self) -> None:
        with suppress(BlockingIOError):  # a full pipe is as good
            os.write(self._pipe[1], b"w")

    def sleep(self, seconds: float) -> list[int]:
        poll, events = select.poll(), dict.fromkeys(self._pipe[:1], select.POLLIN)
        for fd, write, _ in self._descriptors:
            events[fd] = events.get(fd, 0) | (select.POLLOUT if write else select.POLLIN)
        for fd, event in events.items():
            poll.register(fd, event)
        answers = dict(poll.poll(None if seconds == inf else min(ceil(seconds * 1000), _LONGEST_POLL)))
        if self._pipe[0] in answers:
            with suppress(BlockingIOError):
                os.read(self._pipe[0], 64)
        # An error or a hangup ends the wait for either way.
        other = {True: ~select.POLLIN, False: ~select.POLLOUT}
        return [case for fd, write, case in self._descriptors if answers.get(fd, 0) & other[write]]

    def __del__(self) -> None:
        for end in self._pipe:
            os.close(end)


def wait(op: Op, timeout: float | None) -> Any:
    """Perform an operation by blocking this thread for at most `timeout` seconds."""
    scope = Scope.current()
    op._claim()
    try:
        if scope is not None and scope.cancelled:
            raise _cancelled(op)
        if not op._try_now():
            if timeout == 0:
                raise _timed_out(op, timeout)
            if running_loop() is not None or lowlevel.awaiting() is not None:
                raise BlockingInLoopError(
                    f"{op._description()} would block the event loop that runs in this thread: use `await` instead of "
                    ".wait()"
                )
            wait_elsewhere = lowlevel.blocking()
            if wait_elsewhere is not None:
                return wait_elsewhere(op, timeout)
            descriptors = op._descriptors()
            parker = PollingParker(descriptors) if descriptors else Parker()
            with nullcontext() if scope is None else scope._enrolled(parker.wakes):
                _sleep(op, parker, timeout, scope)
        return op._take()
    except BaseException as error:
        ring()  # whoever the interrupted step was about to wake
        if op._withdraw() or not op._decided():
            op._end()
            raise
        if op._is_taken():
            raise
        # A signal handler's exception, after the commit: it completes, and then the exception goes on.
        with suppress(Exception):
            op._take()
        raise error


def _sleep(op: Op, parker: Parker, timeout: float | None, scope: Scope | None) -> None:
    """Park until it is decided."""
    deadline = inf if timeout is None else monotonic() + timeout
    if op._wait_for(parker.wakes()):
        return
    while True:
        timer = op._timer()
        due = inf if timer is None else timer[0]
        if due <= 0 and timer is not None and op._fire(timer[1]):
            return
        over = None if scope is None else scope._first_deadline()
        until = min(deadline, inf if over is None else over)
        for case in parker.sleep(max(0.0, min(due, until - monotonic()))):
            if op._fire(case):
                return
        if op._is_met():
            if op._resume():
                return
        elif scope is not None and scope.cancelled:
            if op._withdraw():
                raise _cancelled(op)
        elif monotonic() >= deadline and op._withdraw():
            raise _timed_out(op, timeout)


def _timed_out(op: Op, seconds: float | None) -> TimeoutError:
    return TimeoutError(f"{op._description()} was not met within {seconds} s and was withdrawn")


def _cancelled(op: Op) -> Cancelled:
    return Cancelled(f"{op._description()} was withdrawn: the group this thread belongs to was cancelled")
