"""`queue.Queue` and its relatives for threads, with waiting done by weft.

What the standard library's promise, and besides: a thread of a `weft.Group` that waits here ends when the group is
cancelled; a Ctrl-C, or a timeout that comes together with an item, never leaves another one asleep beside that item;
and `put_nowait` may be called from `__del__` or a signal handler. What differs is in docs/guides/compat.md.

True whenever `mutex` is free: `unfinished_tasks` counts the items that were put and not yet called done.

Source: CPython, `Lib/queue.py`, for the behaviour; tests: CPython's `test.test_queue`.
"""

from __future__ import annotations

import queue as standard
from collections import deque
from functools import partial
from heapq import heappop, heappush
from queue import Empty, Full
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from weft._errors import WouldBlock
from weft._weft import Channel
from weft.compat._line import Line, Lock

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue"]

T = TypeVar("T")

if TYPE_CHECKING:

    class ShutDown(Exception):
        """Raised by `put` and `get` of a queue that was shut down."""

elif hasattr(standard, "ShutDown"):  # from Python 3.13 on: who catches the original catches ours
    ShutDown = standard.ShutDown
else:

    class ShutDown(Exception):
        """Raised by `put` and `get` of a queue that was shut down."""


class Queue(Generic[T]):
    """A queue for threads: first in, first out, with room for `maxsize` items; without a bound when that is 0 or less.

    Every method may be called from any thread. In a thread that runs an event loop a call that would have to wait raises
    BlockingInLoopError; `put_nowait`, `get_nowait` and whatever need not wait work there.

    `maxsize` may be changed; `mutex` is the lock, a reentrant one; `queue` is the container of the items. A subclass may
    choose another container in `_init`, `_qsize`, `_put` and `_get`, which are called under the lock; one that raises
    has changed nothing, and nobody else is kept from trying.

    Source: `queue.Queue`.
    """

    queue: Any
    """The container of the items, as `_init` makes it; to be touched with `mutex` held."""

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        self.mutex = Lock()
        self.not_empty = Line(self.mutex, f"{type(self).__name__}.get")
        self.not_full = Line(self.mutex, f"{type(self).__name__}.put")
        self.all_tasks_done = Line(self.mutex, f"{type(self).__name__}.join")
        self.unfinished_tasks = 0
        self.is_shutdown = False
        self._settled = 0  # how often the count of unfinished tasks came to zero
        self._init(maxsize)

    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, waiting for room for at most `timeout` seconds, or for as long as it takes when that is None.

        With `block` false it does not wait, and `timeout` is ignored. Interrupted, it has put nothing.

        Raises Full when there was no room in time, ShutDown when the queue is shut down, also while waiting, ValueError
        for a negative timeout, BlockingInLoopError, and Cancelled in a process of a group that was cancelled.
        """
        if not block:
            timeout = 0
        elif timeout is not None and timeout < 0 and self.maxsize > 0 and not self.is_shutdown:
            raise ValueError("'timeout' must be a non-negative number")
        self.not_full.perform_blocking(self._can_put, partial(self._put_now, item), timeout, Full)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take an item out, waiting for one for at most `timeout` seconds, or for as long as it takes when that is None.

        With `block` false it does not wait, and `timeout` is ignored. Interrupted, it has taken nothing.

        Raises Empty when there was none in time, ShutDown when the queue is shut down and empty, ValueError for a
        negative timeout, BlockingInLoopError, and Cancelled in a process of a group that was cancelled.
        """
        if not block:
            timeout = 0
        elif timeout is not None and timeout < 0 and not (self.is_shutdown and self.empty()):
            raise ValueError("'timeout' must be a non-negative number")
        return self.not_empty.perform_blocking(self._can_get, self._get_now, timeout, Empty)

    def put_nowait(self, item: T) -> None:
        """Put an item in now. Raises Full when there is no room, else the same as `put`."""
        return self.put(item, block=False)

    def get_nowait(self) -> T:
        """Take an item out now. Raises Empty when there is none, else the same as `get`."""
        return self.get(block=False)

    def task_done(self) -> None:
        """Say that an item that was taken has been dealt with. Raises ValueError when more are called done than were
        put."""
        with self.mutex:
            unfinished = self.unfinished_tasks - 1
            if unfinished < 0:
                raise ValueError("task_done() called too many times")
            self.unfinished_tasks = unfinished
            if not unfinished:
                self._all_done()

    def join(self) -> None:
        """Wait until every item that was put has been called done.

        It is content with one moment at which that was so, even if items were put since. Raises the same as `get` when
        it has to wait.
        """
        seen = self._settled
        self.all_tasks_done.perform_blocking(
            lambda: not self.unfinished_tasks or self._settled != seen, lambda: None, None, TimeoutError
        )

    def qsize(self) -> int:
        """How many items are in the queue now."""
        with self.mutex:
            return self._qsize()

    def empty(self) -> bool:
        """Whether there is no item in the queue now."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether there is no room in the queue now."""
        return 0 < self.maxsize <= self.qsize()

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing more in: `put` raises ShutDown, those who wait in it too, and `get` does when nothing is left.

        With `immediate` the items still in the queue are dropped and count as done.
        """
        dropped: list[T] = []  # they go when the lock has gone: they may have a `__del__`
        with self.mutex:
            self.is_shutdown = True
            if immediate:
                while self._qsize():
                    dropped.append(self._get())
                    if self.unfinished_tasks > 0:
                        self.unfinished_tasks -= 1
                if not self.unfinished_tasks:
                    self._all_done()
            self.not_empty.notify_all()
            self.not_full.notify_all()

    # Called under the lock.

    def _can_put(self) -> bool:
        return self.is_shutdown or not 0 < self.maxsize <= self._qsize()

    def _put_now(self, item: T) -> None:
        if self.is_shutdown:
            raise ShutDown
        self._put(item)
        self.unfinished_tasks += 1
        self.not_empty.notify()

    def _can_get(self) -> bool:
        return self.is_shutdown or self._qsize() > 0

    def _get_now(self) -> T:
        if self.is_shutdown and not self._qsize():
            raise ShutDown
        item = self._get()
        self.not_full.notify()
        return item

    def _all_done(self) -> None:
        self._settled += 1
        self.all_tasks_done.notify_all()

    # For subclasses to override.

    def _init(self, maxsize: int) -> None:
        self.queue = deque[T]()

    def _qsize(self) -> int:
        return len(self.queue)

    def _put(self, item: T) -> None:
        self.queue.append(item)

    def _get(self) -> T:
        item: T = self.queue.popleft()
        return item


class PriorityQueue(Queue[T]):
    """A queue that gives the smallest item first. Items are often pairs: a number, and what it is for.

    Source: `queue.PriorityQueue`.
    """

    def _init(self, maxsize: int) -> None:
        self.queue = list[T]()

    def _put(self, item: T) -> None:
        heappush(self.queue, item)

    def _get(self) -> T:
        item: T = heappop(self.queue)
        return item


class LifoQueue(Queue[T]):
    """A queue that gives the item first that was put last.

    Source: `queue.LifoQueue`.
    """

    def _init(self, maxsize: int) -> None:
        self.queue = list[T]()

    def _get(self) -> T:
        item: T = self.queue.pop()
        return item


class SimpleQueue(Generic[T]):
    """A queue without a bound, first in, first out, and without counting of tasks: a channel under other names.

    Every method may be called from any thread, `put` from `__del__` and signal handlers too. `channel` is the channel
    itself: receive from it in a task, iterate it, or let it stand in a select.

    Source: `queue.SimpleQueue`.
    """

    __slots__ = ("__weakref__", "channel")

    channel: Channel[T]
    """The channel that holds the items. Closed, it makes `put` and `get` raise weft's `Closed`."""

    def __init__(self) -> None:
        self.channel = Channel[T].unbounded(name=type(self).__name__)

    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in. It never waits: the other arguments are there to be ignored."""
        self.channel.send_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take an item out, waiting for one for at most `timeout` seconds, or for as long as it takes when that is None.

        With `block` false it does not wait, and `timeout` is ignored. Interrupted, it has taken nothing.

        Raises Empty when there was none in time, ValueError for a negative timeout, BlockingInLoopError in a thread that
        runs an event loop, and Cancelled in a process of a group that was cancelled.
        """
        if not block:
            return self.get_nowait()
        if timeout is None:
            return self.channel.recv().wait()
        if timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        try:
            return self.channel.recv().wait(timeout)
        except TimeoutError:
            raise Empty from None

    def put_nowait(self, item: T) -> None:
        """The same as `put`."""
        self.channel.send_nowait(item)

    def get_nowait(self) -> T:
        """Take an item out now. Raises Empty when there is none."""
        try:
            return self.channel.recv_nowait()
        except WouldBlock:
            raise Empty from None

    def empty(self) -> bool:
        """Whether there is no item in the queue now."""
        return not len(self.channel)

    def qsize(self) -> int:
        """How many items are in the queue now."""
        return len(self.channel)
