"""A line: where tasks of any loop, and threads, wait under one lock for something to become true.

A condition variable whose waiting is done by weft: who waits has a `Turn`, a channel for one token, and is woken by
sending on it. So a thread that waits here answers Ctrl-C, and the end of its group, at once; a task is cancelled as it
is anywhere; and neither has to know in which world the other one lives.

Always true while the lock is free:
  1. A turn is in its line, or it was woken, or its party has left.
  2. Nobody waits who could be served, but for those whose turn was given to one who was woken and has yet to look. Who
     leaves instead of looking, or fails, by a cancellation, a timeout, an exception of a hook, wakes the next one.

To be woken is not to have been served. Who is woken looks again under the lock, and only then takes; a party that is
cancelled in between has therefore taken nothing, whatever happened meanwhile. Who finds nothing, because a newcomer was
quicker, goes back to the head of the line, not to its end.

The lock is reentrant, because a coroutine may be destroyed, and so leave its line, by a garbage collection that began
under this very lock.

Source: monitors (Hoare 1974) as Mesa has them (Lampson and Redell 1980); `threading.Condition`, whose names it keeps.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from weft._entry import running_loop
from weft._errors import BlockingInLoopError, ForkedChannelError
from weft._weft import Channel, after, select

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Line", "Lock", "Turn"]

R = TypeVar("R")
Lock = RLock


class Waiter(Protocol):
    """Whom a line can wake: a `Turn`, or a future."""

    def done(self) -> bool: ...
    def set_result(self, result: None, /) -> object: ...


class Turn:
    """One party's place in a line, for one time of waiting. Everything but waiting is done under the line's lock."""

    __slots__ = ("_channel", "_loop", "woken")

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None) -> None:
        self._channel = Channel[None](1, name=name)
        self._loop = loop
        self.woken = False

    @property
    def is_task(self) -> bool:
        return self._loop is not None

    def done(self) -> bool:
        """Whether waking it would be of no use: it was woken, or its loop was closed under it."""
        return self.woken or (self._loop is not None and self._loop.is_closed())

    def set_result(self, result: None, /) -> None:
        """Wake it. The name is a future's, so that a line can wake one of those too."""
        self._channel.send_nowait(result)
        self.woken = True

    def wait(self, timeout: float | None) -> None:
        """Block this thread until it is woken or the time is up; `woken` says which."""
        if timeout is None:
            self._channel.recv().wait()
        else:
            # Not the timeout of `wait`: its TimeoutError could as well be that of a signal handler.
            select(self._channel.recv(), after(timeout)).wait()

    async def wait_async(self) -> None:
        """Wait in a task until it is woken.

        A weft operation that has happened completes although a cancellation came meanwhile, and the cancellation is
        raised at the next suspension. For a queue it has to come before an item is taken: so there is that suspension.
        """
        await self._channel.recv()
        if self._loop is None:
            return  # whatever performs weft's operations here, it is not asyncio
        import asyncio  # who has no task does not need it

        task = asyncio.current_task()
        if task is not None and task.cancelling():
            await asyncio.sleep(0)


class Line:
    """A condition variable for tasks and threads; `with line` holds its lock.

    Lines with the same lock may wait for different conditions of the same data. `name` is for messages: the method whose
    callers wait here.
    """

    __slots__ = ("__weakref__", "_lock", "_name", "_waiters")

    def __init__(self, lock: Lock, name: str) -> None:
        self._lock = lock
        self._name = name
        # A set in order: whoever leaves from the middle, as the cancelled do, costs the same among two or ten thousand.
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def count(self, *, tasks: bool) -> int:
        """How many tasks wait, or how many threads."""
        with self._lock:
            return sum(isinstance(waiter, Turn) and waiter.is_task == tasks for waiter in self._waiters)

    def append(self, waiter: Waiter) -> None:
        """Put a future of one's own at the end of the line; being woken gives it the result None."""
        with self._lock:
            self._waiters[waiter] = None

    def notify(self, n: int = 1) -> None:
        """Wake the first `n` who wait; the lock is held."""
        while n > 0 and self._waiters:
            waiter = next(iter(self._waiters))
            try:
                if not waiter.done():
                    waiter.set_result(None)
                    n -= 1
            except ForkedChannelError:
                pass  # this is a forked child, and the one who waits is in the parent
            # Only now: an exception of a signal handler must not leave someone asleep who is in no line any more.
            self._waiters.pop(waiter, None)

    def notify_all(self) -> None:
        """Wake all who wait; the lock is held."""
        self.notify(len(self._waiters))

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock back, block this thread until it is woken, take the lock again.

        `timeout` is in seconds. False when the time was up first. Interrupted by an exception, it has not been woken:
        the next one is in its place.

        Raises BlockingInLoopError when this thread runs an event loop, Cancelled in a process that was cancelled.
        """
        turn = self._turn_of_thread()
        self._enter(turn, again=False)
        self._lock.release()
        try:
            turn.wait(timeout)
        except BaseException:
            self._lock.acquire()
            self._leave(turn)
            raise
        self._lock.acquire()
        self._waiters.pop(turn, None)
        return turn.woken

    def perform_blocking(
        self, ready: Callable[[], bool], act: Callable[[], R], timeout: float | None, late: type[Exception]
    ) -> R:
        """Block this thread until `ready()`, then return `act()`; both are called under the lock.

        Raises `late` when it is not ready within `timeout` seconds, what `act` raises, and the same as `wait`. In each
        of these cases, and when interrupted, nothing was done.
        """
        deadline = None if timeout is None else monotonic() + timeout
        turn = None
        try:
            while True:
                with self._lock:
                    if turn is not None:
                        self._waiters.pop(turn, None)
                    if ready():
                        return act()
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        raise late
                    again, turn = turn is not None, self._turn_of_thread()
                    self._enter(turn, again=again)
                turn.wait(left)
        except BaseException:
            if turn is not None:
                with self._lock:
                    self._leave(turn)
            raise

    async def perform(self, ready: Callable[[], bool], act: Callable[[], R]) -> R:
        """Wait in a task until `ready()`, then return `act()`; both are called under the lock.

        Raises what `act` raises. Cancelled while it waits, nothing was done.
        """
        turn = None
        try:
            while True:
                with self._lock:
                    if turn is not None:
                        self._waiters.pop(turn, None)
                    if ready():
                        return act()
                    again, turn = turn is not None, Turn(self._name, running_loop())
                    self._enter(turn, again=again)
                await turn.wait_async()
        except BaseException:
            if turn is not None:
                with self._lock:
                    self._leave(turn)
            raise

    def _turn_of_thread(self) -> Turn:
        if running_loop() is not None:
            # The operation would say the same, but of a channel that nobody who reads it has made.
            raise BlockingInLoopError(
                f"{self._name} has to wait, and would block the event loop that runs in this thread: call it in another "
                "thread, use what does not wait (put_nowait, get_nowait), or a queue with coroutines "
                "(weft.compat.asyncio_queues, or async_q of weft.compat.janus)"
            )
        return Turn(self._name, None)

    def _enter(self, turn: Turn, *, again: bool) -> None:
        """Take a place at the end of the line; at its head for who has been there and found nothing."""
        self._waiters[turn] = None
        if again:
            self._waiters.move_to_end(turn, last=False)

    def _leave(self, turn: Turn) -> None:
        """Leave without having done anything: what this one was woken for is for the next one to see."""
        self._waiters.pop(turn, None)
        if turn.woken:
            self.notify()

    # As a condition variable, for subclasses of a queue that use its `not_empty` and so on themselves.

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock."""
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
