"""`asyncio.Queue` and its relatives, with waiting done by weft.

What the standard library's promise, and besides: they may be used by tasks of several loops and, with the methods that
do not wait, by any thread. What differs is in docs/guides/compat.md.

A `get` or `put` that is cancelled has done nothing, and whoever waits behind it goes on in its place: also when an item
or a free slot had come for it already.

Source: CPython, `Lib/asyncio/queues.py`, for the behaviour; tests: CPython's `test.test_asyncio.test_queues`.
"""

from __future__ import annotations

import asyncio
from asyncio import QueueEmpty, QueueFull
from collections import deque
from functools import partial
from heapq import heappop, heappush
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from weft.compat._line import Line, Lock

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueEmpty", "QueueFull", "QueueShutDown"]

T = TypeVar("T")

if TYPE_CHECKING:

    class QueueShutDown(Exception):
        """Raised by `put` and `get` of a queue that was shut down."""

elif hasattr(asyncio, "QueueShutDown"):  # from Python 3.13 on: who catches the original catches ours
    QueueShutDown = asyncio.QueueShutDown
else:

    class QueueShutDown(Exception):
        """Raised by `put` and `get` of a queue that was shut down."""


class Queue(Generic[T]):
    """A queue for tasks: first in, first out, with room for `maxsize` items; without a bound when that is 0 or less.

    Tasks of any loop may wait in it, and every method that is not a coroutine may be called from any thread.

    A subclass may choose another container in `_init`, `_put` and `_get`, which are called under a lock (a reentrant
    one), and override `full` and `empty`; a hook that raises has changed nothing, and nobody else is kept from trying.

    Source: `asyncio.Queue`.
    """

    _queue: Any  # the container of the items, as `_init` makes it

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._lock = Lock()
        self._getters = Line(self._lock, f"{type(self).__name__}.get")
        self._putters = Line(self._lock, f"{type(self).__name__}.put")
        self._joiners = Line(self._lock, f"{type(self).__name__}.join")
        self._unfinished_tasks = 0
        self._settled = 0  # how often the count of unfinished tasks came to zero
        self._is_shutdown = False
        self._init(maxsize)

    @classmethod
    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._format()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._format()}>"

    def _format(self) -> str:
        items = getattr(self, "_queue", None)
        parts = [
            f"maxsize={self._maxsize!r}",
            items and f"_queue={list(items)!r}",
            self._getters and f"_getters[{len(self._getters)}]",
            self._putters and f"_putters[{len(self._putters)}]",
            self._unfinished_tasks and f"tasks={self._unfinished_tasks}",
            self._is_shutdown and "shutdown",
        ]
        return " ".join(str(part) for part in parts if part)

    @property
    def maxsize(self) -> int:
        """For how many items there is room; without a bound when it is 0 or less."""
        return self._maxsize

    def qsize(self) -> int:
        """How many items are in the queue now."""
        return len(self._queue)

    def empty(self) -> bool:
        """Whether there is no item in the queue now."""
        return not self._queue

    def full(self) -> bool:
        """Whether there is no room in the queue now."""
        return 0 < self._maxsize <= self.qsize()

    async def put(self, item: T) -> None:
        """Put an item in, waiting for room. Cancelled while it waits, it has put nothing.

        Raises QueueShutDown when the queue is shut down, also while waiting.
        """
        await self._putters.perform(self._can_put, partial(self.put_nowait, item))

    async def get(self) -> T:
        """Take an item out, waiting for one. Cancelled while it waits, it has taken nothing.

        Raises QueueShutDown when the queue is shut down and empty.
        """
        return await self._getters.perform(self._can_get, self.get_nowait)

    def put_nowait(self, item: T) -> None:
        """Put an item in now. Raises QueueFull when there is no room, QueueShutDown when the queue is shut down."""
        with self._lock:
            if self._is_shutdown:
                raise QueueShutDown
            if self.full():
                raise QueueFull
            self._put(item)
            self._unfinished_tasks += 1
            self._wakeup_next(self._getters)

    def get_nowait(self) -> T:
        """Take an item out now. Raises QueueEmpty when there is none, QueueShutDown when there will be none."""
        with self._lock:
            if self.empty():
                raise QueueShutDown if self._is_shutdown else QueueEmpty
            item = self._get()
            self._wakeup_next(self._putters)
            return item

    def task_done(self) -> None:
        """Say that an item that was taken has been dealt with. Raises ValueError when more are called done than were
        put."""
        with self._lock:
            if self._unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self._unfinished_tasks -= 1
            if not self._unfinished_tasks:
                self._all_done()

    async def join(self) -> None:
        """Wait until every item that was put has been called done.

        It is content with one moment at which that was so, even if items were put since.
        """
        seen = self._settled
        await self._joiners.perform(lambda: self._unfinished_tasks <= 0 or self._settled != seen, lambda: None)

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing more in: `put` raises QueueShutDown, those who wait in it too, and `get` does when nothing is left.

        With `immediate` the items still in the queue are dropped and count as done.
        """
        dropped: list[T] = []  # they go when the lock has gone: they may have a `__del__`
        with self._lock:
            self._is_shutdown = True
            if immediate:
                while not self.empty():
                    dropped.append(self._get())
                    if self._unfinished_tasks > 0:
                        self._unfinished_tasks -= 1
                if not self._unfinished_tasks:
                    self._all_done()
            self._getters.notify_all()
            self._putters.notify_all()

    # Called under the lock.

    def _can_put(self) -> bool:
        return self._is_shutdown or not self.full()

    def _can_get(self) -> bool:
        return self._is_shutdown or not self.empty()

    def _all_done(self) -> None:
        self._settled += 1
        self._joiners.notify_all()

    def _wakeup_next(self, waiters: Line) -> None:
        waiters.notify()

    # For subclasses to override.

    def _init(self, maxsize: int) -> None:
        self._queue = deque[T]()

    def _put(self, item: T) -> None:
        self._queue.append(item)

    def _get(self) -> T:
        item: T = self._queue.popleft()
        return item


class PriorityQueue(Queue[T]):
    """A queue that gives the smallest item first. Items are often pairs: a number, and what it is for.

    Source: `asyncio.PriorityQueue`.
    """

    def _init(self, maxsize: int) -> None:
        self._queue = list[T]()

    def _put(self, item: T) -> None:
        heappush(self._queue, item)

    def _get(self) -> T:
        item: T = heappop(self._queue)
        return item


class LifoQueue(Queue[T]):
    """A queue that gives the item first that was put last.

    Source: `asyncio.LifoQueue`.
    """

    def _init(self, maxsize: int) -> None:
        self._queue = list[T]()

    def _get(self) -> T:
        item: T = self._queue.pop()
        return item
