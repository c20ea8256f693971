"""A store: items, who waits in line for them or for room, and how many of them are unfinished.

It is the inside of the queues of `asyncio_queues` and `janus`. Those of `queue` have theirs by names that are public.

Always true while the lock is free:
  1. `_unfinished_tasks` counts the items that were put and not yet called done.
  2. `_settled` counts how often that came to zero: who waits for it is content with one moment at which it was so.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from weft.compat._line import Line, Lock

__all__ = ["LastInFirstOut", "SmallestFirst", "Store"]

T = TypeVar("T")


class Store(Generic[T]):
    """What is to be a queue. `_init`, `_put` and `_get` are for subclasses of that to override; the lock is held."""

    _queue: Any  # the container of the items, as `_init` makes it

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._lock = Lock()
        self._getters = Line(self._lock, f"{type(self).__name__}.get")
        self._putters = Line(self._lock, f"{type(self).__name__}.put")
        self._joiners = Line(self._lock, f"{type(self).__name__}.join")
        self._unfinished_tasks: int = 0
        self._settled = 0
        self._is_shutdown = False
        self._init(maxsize)

    @property
    def maxsize(self) -> int:
        """For how many items there is room; without a bound when it is 0 or less."""
        return self._maxsize

    def _task_done(self) -> None:
        with self._lock:
            if self._unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self._unfinished_tasks -= 1
            if not self._unfinished_tasks:
                self._all_done()

    def _shut_down(self, immediate: bool) -> None:
        dropped: list[T] = []  # they go when the lock has gone: they may have a `__del__`
        with self._lock:
            self._is_shutdown = True
            if immediate:
                while not self._empty():
                    dropped.append(self._get())
                    if self._unfinished_tasks > 0:
                        self._unfinished_tasks -= 1
                if not self._unfinished_tasks:
                    self._all_done()
            self._getters.notify_all()
            self._putters.notify_all()

    def _settled_since(self, seen: int) -> bool:
        return self._unfinished_tasks <= 0 or self._settled != seen

    # Called under the lock.

    def _empty(self) -> bool:
        return not self._queue

    def _full(self) -> bool:
        return 0 < self._maxsize <= len(self._queue)

    def _can_put(self) -> bool:
        return self._is_shutdown or not self._full()

    def _can_get(self) -> bool:
        return self._is_shutdown or not self._empty()

    def _all_done(self) -> None:
        self._settled += 1
        self._joiners.notify_all()

    def _init(self, maxsize: int) -> None:
        self._queue = deque[T]()

    def _put(self, item: T) -> None:
        self._queue.append(item)

    def _get(self) -> T:
        item: T = self._queue.popleft()
        return item


class SmallestFirst(Store[T]):
    """Its items in a heap."""

    def _init(self, maxsize: int) -> None:
        self._queue = list[T]()

    def _put(self, item: T) -> None:
        heappush(self._queue, item)

    def _get(self) -> T:
        item: T = heappop(self._queue)
        return item


class LastInFirstOut(Store[T]):
    """Its items in a stack."""

    def _init(self, maxsize: int) -> None:
        self._queue = list[T]()

    def _get(self) -> T:
        item: T = self._queue.pop()
        return item
