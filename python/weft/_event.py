"""An event: one bit to wait for.

A channel that is closed is an event that is set: closing is idempotent, reaches everyone who waits, and works from any
thread. So an `Event` holds a channel nobody sends to; `set` closes it and `clear` puts a fresh one in its place.

`set` takes no lock: one that meets a `clear` half-way either closed the old channel (it came before) or closes the new
one (it came after). Two `clear` must not both put a channel in, or a waiter on the first of them would be forgotten;
that is what the lock is for. It is reentrant for the sake of signal handlers.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import sys
from _thread import RLock  # `threading` brings much else

from weft._weft import Channel

TYPE_CHECKING = False  # true to type checkers; importing `typing` takes as long as importing weft
if TYPE_CHECKING:
    from typing import NoReturn

    from weft._weft import Op

__all__ = ["Event"]


class Event:
    """A bit that tasks and threads can wait for; the waiting is an operation, so it can stand in a select.

    Every method may be called from any thread, and from a signal handler. A new event is not set.

    Source: `threading.Event` and `asyncio.Event`, whose names it keeps.
    """

    __slots__ = ("__weakref__", "_channel", "_lock", "_name")

    def __init__(self) -> None:
        caller = sys._getframe(1)
        self._name = f"event made at {caller.f_code.co_filename.rpartition('/')[2]}:{caller.f_lineno}"
        self._channel: Channel[NoReturn] = Channel(name=self._name)
        self._lock = RLock()

    def set(self) -> None:
        """Set it: everyone who waits goes on, and nobody has to wait until `clear`. Setting it again changes
        nothing."""
        self._channel.close()

    def clear(self) -> None:
        """Take it back: from now on, `wait` waits for the next `set`. Who was waiting at the last `set` goes on all the
        same."""
        fresh: Channel[NoReturn] = Channel(name=self._name)
        with self._lock:
            if self._channel.closed:
                # The old channel goes out with the fresh one's variable, after the lock.
                self._channel, fresh = fresh, self._channel

    def is_set(self) -> bool:
        """Whether it is set now."""
        return self._channel.closed

    def wait(self) -> Op[bool]:
        """An operation that completes with True once the event is set.

        It waits for the first `set` after it was made (or the one in force then), and is content with that even when
        `clear` follows before it is performed. Cancelling it changes nothing.
        """
        return self._channel._closing()

    def __repr__(self) -> str:
        return f"<weft.Event {'set' if self.is_set() else 'not set'}, {self._name.removeprefix('event ')}>"
