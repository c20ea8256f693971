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
from functools import partial
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar

from weft.compat._line import Line
from weft.compat._store import LastInFirstOut, SmallestFirst, Store

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


class Queue(Store[T]):
    """A queue for tasks: first in, first out, with room for `maxsize` items; without a bound when that is 0 or less.

    Tasks of any loop may wait in it, and every method that is not a coroutine may be called from any thread.

    A subclass may choose another container in `_init`, `_put` and `_get`, which are called under a lock (a reentrant
    one), and override `full` and `empty`; a hook that raises has changed nothing, and nobody else is kept from trying.

    Source: `asyncio.Queue`.
    """

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
        self._task_done()

    async def join(self) -> None:
        """Wait until every item that was put has been called done.

        It is content with one moment at which that was so, even if items were put since.
        """
        await self._joiners.perform(partial(self._settled_since, self._settled), lambda: None)

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing more in: `put` raises QueueShutDown, those who wait in it too, and `get` does when nothing is left.

        With `immediate` the items still in the queue are dropped and count as done.
        """
        self._shut_down(immediate)

    # Called under the lock.

    def _empty(self) -> bool:
        return self.empty()

    def _full(self) -> bool:
        return self.full()

    def _wakeup_next(self, waiters: Line) -> None:
        waiters.notify()


class PriorityQueue(SmallestFirst[T], Queue[T]):
    """A queue that gives the smallest item first. Items are often pairs: a number, and what it is for.

    Source: `asyncio.PriorityQueue`.
    """


class LifoQueue(LastInFirstOut[T], Queue[T]):
    """A queue that gives the item first that was put last.

    Source: `asyncio.LifoQueue`.
    """
