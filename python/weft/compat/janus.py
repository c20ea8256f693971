"""`janus.Queue` and its relatives: one queue with a side for threads, `sync_q`, and a side for tasks, `async_q`.

What janus promises, and besides: it is not bound to a loop, so tasks of several loops may use `async_q`; both sides
wait in the same lines, first come, first served; and nothing has to be waited for when it is closed. What differs is in
docs/guides/compat.md.

Source: janus 2.0 (aio-libs) for the behaviour; tests: its own.
"""

from __future__ import annotations

import asyncio
from asyncio import QueueEmpty as AsyncQueueEmpty
from asyncio import QueueFull as AsyncQueueFull
from functools import partial
from queue import Empty as SyncQueueEmpty
from queue import Full as SyncQueueFull
from typing import Generic, Protocol, TypeVar

from weft.compat._line import Lock
from weft.compat._store import LastInFirstOut, SmallestFirst, Store
from weft.compat.asyncio_queues import QueueShutDown as AsyncQueueShutDown
from weft.compat.queue import ShutDown as SyncQueueShutDown

__all__ = [
    "AsyncQueue",
    "AsyncQueueEmpty",
    "AsyncQueueFull",
    "AsyncQueueShutDown",
    "BaseQueue",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "SyncQueue",
    "SyncQueueEmpty",
    "SyncQueueFull",
    "SyncQueueShutDown",
]

T = TypeVar("T")


class BaseQueue(Protocol[T]):
    """What both sides of a queue have. None of it waits."""

    @property
    def maxsize(self) -> int:
        """For how many items there is room; without a bound when it is 0 or less."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the queue was shut down."""
        ...

    @property
    def unfinished_tasks(self) -> int:
        """How many items were put and not yet called done."""
        ...

    def task_done(self) -> None:
        """Say that an item that was taken has been dealt with. Raises ValueError when more are called done than were
        put."""

    def qsize(self) -> int:
        """How many items are in the queue now."""
        ...

    def empty(self) -> bool:
        """Whether there is no item in the queue now."""
        ...

    def full(self) -> bool:
        """Whether there is no room in the queue now."""
        ...

    def put_nowait(self, item: T) -> None:
        """Put an item in now. Raises this side's Full when there is no room, else the same as `put`."""

    def get_nowait(self) -> T:
        """Take an item out now. Raises this side's Empty when there is none, else the same as `get`."""
        ...

    def shutdown(self, immediate: bool = False) -> None:
        """The same as `Queue.shutdown`, of both sides."""


class SyncQueue(BaseQueue[T], Protocol[T]):
    """The side for threads, with the methods of `queue.Queue`."""

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, waiting for room for at most `timeout` seconds, or for as long as it takes when that is None.

        With `block` false it does not wait, and `timeout` is ignored. Interrupted, it has put nothing.

        Raises SyncQueueFull when there was no room in time, SyncQueueShutDown when the queue is shut down, ValueError
        for a negative timeout, BlockingInLoopError in a thread that runs an event loop, and Cancelled in a process of a
        group that was cancelled.
        """

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take an item out, waiting for one for at most `timeout` seconds, or for as long as it takes when that is None.

        With `block` false it does not wait, and `timeout` is ignored. Interrupted, it has taken nothing.

        Raises SyncQueueEmpty when there was none in time, SyncQueueShutDown when the queue is shut down and empty,
        ValueError for a negative timeout, BlockingInLoopError in a thread that runs an event loop, and Cancelled in a
        process of a group that was cancelled.
        """
        ...

    def join(self) -> None:
        """Wait until every item that was put has been called done, on either side."""


class AsyncQueue(BaseQueue[T], Protocol[T]):
    """The side for tasks, with the methods of `asyncio.Queue`."""

    async def put(self, item: T) -> None:
        """Put an item in, waiting for room. Cancelled while it waits, it has put nothing.

        Raises AsyncQueueShutDown when the queue is shut down, also while waiting.
        """

    async def get(self) -> T:
        """Take an item out, waiting for one. Cancelled while it waits, it has taken nothing.

        Raises AsyncQueueShutDown when the queue is shut down and empty.
        """
        ...

    async def join(self) -> None:
        """Wait until every item that was put has been called done, on either side."""


class Queue(Store[T]):
    """A queue between threads and tasks: first in, first out, with room for `maxsize` items; without a bound when that
    is 0 or less.

    Threads use `sync_q`, tasks `async_q`. A subclass may choose another container in `_init`, `_qsize`, `_put` and
    `_get`, which are called under a lock (a reentrant one); one that raises has changed nothing, and nobody else is
    kept from trying.

    Source: `janus.Queue`.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._sync_q = _SyncSide(self)
        self._async_q = _AsyncSide(self)

    @property
    def sync_q(self) -> SyncQueue[T]:
        """The side for threads."""
        return self._sync_q

    @property
    def async_q(self) -> AsyncQueue[T]:
        """The side for tasks."""
        return self._async_q

    @property
    def closed(self) -> bool:
        """Whether the queue was shut down."""
        return self._is_shutdown

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing more in: `put` raises ShutDown, those who wait in it too, and `get` does when nothing is left.

        It is SyncQueueShutDown on the one side and AsyncQueueShutDown on the other. With `immediate` the items still in
        the queue are dropped and count as done.
        """
        self._shut_down(immediate)

    def close(self) -> None:
        """The same as `shutdown(immediate=True)`."""
        self.shutdown(immediate=True)

    async def wait_closed(self) -> None:
        """Let the tasks of this loop that waited learn of the shutdown. Raises RuntimeError when there was none."""
        if not self._is_shutdown:
            raise RuntimeError("Waiting for non-closed queue")
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        """`close`, then `wait_closed`."""
        self.close()
        await self.wait_closed()

    # What both sides do. Called under the lock.

    def _empty(self) -> bool:
        return not self._qsize()

    def _full(self) -> bool:
        return 0 < self._maxsize <= self._qsize()

    def _put_now(self, item: T, shut_down: type[Exception]) -> None:
        if self._is_shutdown:
            raise shut_down
        self._put(item)
        self._unfinished_tasks += 1
        self._getters.notify()

    def _get_now(self, shut_down: type[Exception]) -> T:
        if self._is_shutdown and self._empty():
            raise shut_down
        item = self._get()
        self._putters.notify()
        return item

    # For subclasses to override, as `_init`, `_put` and `_get`.

    def _qsize(self) -> int:
        return len(self._queue)

    # By these names janus' own tests see who waits. Nothing here uses them.

    @property
    def _sync_mutex(self) -> _Mutex:
        return _Mutex(self._lock)

    @property
    def _sync_not_empty_waiting(self) -> int:
        return self._getters.count(tasks=False)

    @property
    def _sync_not_full_waiting(self) -> int:
        return self._putters.count(tasks=False)

    @property
    def _async_not_empty_waiting(self) -> int:
        return self._getters.count(tasks=True)

    @property
    def _async_not_full_waiting(self) -> int:
        return self._putters.count(tasks=True)


class _Mutex:
    """A queue's lock, to look at."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def locked(self) -> bool:
        """Whether another thread holds it."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return False
        return True


# pyright: reportPrivateUsage=false
# A queue and its two sides are one thing.


class _Side(Generic[T]):
    """What does not depend on the side."""

    def __init__(self, parent: Queue[T]) -> None:
        self._parent = parent

    @property
    def maxsize(self) -> int:
        return self._parent._maxsize

    @property
    def closed(self) -> bool:
        return self._parent.closed

    @property
    def unfinished_tasks(self) -> int:
        return self._parent._unfinished_tasks

    def task_done(self) -> None:
        self._parent._task_done()

    def qsize(self) -> int:
        with self._parent._lock:
            return self._parent._qsize()

    def empty(self) -> bool:
        return not self.qsize()

    def full(self) -> bool:
        with self._parent._lock:
            return self._parent._full()

    def shutdown(self, immediate: bool = False) -> None:
        self._parent.shutdown(immediate)


class _SyncSide(_Side[T]):
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        parent = self._parent
        if not block:
            timeout = 0
        elif timeout is not None and timeout < 0 and parent._maxsize > 0 and not parent._is_shutdown:
            raise ValueError("'timeout' must be a non-negative number")
        put = partial(parent._put_now, item, SyncQueueShutDown)
        parent._putters.perform_blocking(parent._can_put, put, timeout, SyncQueueFull)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        parent = self._parent
        if not block:
            timeout = 0
        elif timeout is not None and timeout < 0 and not (parent._is_shutdown and self.empty()):
            raise ValueError("'timeout' must be a non-negative number")
        get = partial(parent._get_now, SyncQueueShutDown)
        return parent._getters.perform_blocking(parent._can_get, get, timeout, SyncQueueEmpty)

    def put_nowait(self, item: T) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> T:
        return self.get(block=False)

    def join(self) -> None:
        parent = self._parent
        parent._joiners.perform_blocking(
            partial(parent._settled_since, parent._settled), lambda: None, None, TimeoutError
        )


class _AsyncSide(_Side[T]):
    async def put(self, item: T) -> None:
        parent = self._parent
        await parent._putters.perform(parent._can_put, partial(parent._put_now, item, AsyncQueueShutDown))

    async def get(self) -> T:
        parent = self._parent
        return await parent._getters.perform(parent._can_get, partial(parent._get_now, AsyncQueueShutDown))

    def put_nowait(self, item: T) -> None:
        parent = self._parent
        with parent._lock:
            if not parent._can_put():
                raise AsyncQueueFull
            parent._put_now(item, AsyncQueueShutDown)

    def get_nowait(self) -> T:
        parent = self._parent
        with parent._lock:
            if not parent._can_get():
                raise AsyncQueueEmpty
            return parent._get_now(AsyncQueueShutDown)

    async def join(self) -> None:
        parent = self._parent
        await parent._joiners.perform(partial(parent._settled_since, parent._settled), lambda: None)


class PriorityQueue(SmallestFirst[T], Queue[T]):
    """A queue that gives the smallest item first. Items are often pairs: a number, and what it is for.

    Source: `janus.PriorityQueue`.
    """


class LifoQueue(LastInFirstOut[T], Queue[T]):
    """A queue that gives the item first that was put last.

    Source: `janus.LifoQueue`.
    """
