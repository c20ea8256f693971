"""The errors weft raises.

The extension raises most of them; it creates an error from its message and then sets the attributes. This module
imports nothing from weft, so that the extension can import it while it is itself being imported.

Not here: a time that ran out is the builtin `TimeoutError`, a cancelled asyncio task gets `asyncio.CancelledError`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # true to type checkers; importing `typing` takes as long as importing weft
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any

    from weft._weft import Channel

__all__ = [
    "BlockingInLoopError",
    "Cancelled",
    "Closed",
    "ForkedChannelError",
    "InternalError",
    "NoReceivers",
    "PeerDied",
    "Poisoned",
    "RemoteError",
    "WeftError",
    "WouldBlock",
]


class WeftError(Exception):
    """The base of every error of weft's own.

    Attributes:
        channel: the channel it is about, or None. It stays behind when the error is pickled or copied.
        value: what could not be sent: the value, or the sequence given to `send_many`. An error that has nothing to
            give back has no such attribute, because None can be sent like any other object: ask `hasattr(error,
            "value")`.
        case: which case of a select or `selecting` it was (the position, the keyword, the key), or None outside of
            them.
    """

    channel: Channel[Any] | None = None
    case: Hashable = None

    if TYPE_CHECKING:
        value: Any
    else:

        def __getattr__(self, name):
            if name == "value":
                text = f"this {type(self).__name__} gives no value back, as it did not come from a send"
                raise AttributeError(f"{text}; hasattr(error, 'value') tells", name=name, obj=self)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "channel"}
        return (type(self), self.args, state) if state else (type(self), self.args)


class Closed(WeftError):
    """The channel is over: nothing more can be sent, and everything sent before was received.

    A sender finds its value in `.value`. When the channel was closed with an error, that error is the sender's
    `__cause__`, and what a receiver gets in place of `Closed`.
    """


class Poisoned(Closed):
    """The channel was poisoned: it stopped at once, and what it still held was dropped. `__cause__` is the error given
    to `poison`."""


class NoReceivers(Closed):
    """Nobody is left to receive: every receiving end was closed or dropped. `.value` is what was to be sent."""


class WouldBlock(WeftError):
    """It cannot be done now without waiting. On the sending side `.value` is what was to be sent."""


class BlockingInLoopError(WeftError):
    """This thread runs an event loop, and the call would have blocked it, and with it everything else in that loop."""


class ForkedChannelError(WeftError):
    """The channel was made before a fork and used in the child. A channel lives in one process: make a new one in the
    child."""


class PeerDied(WeftError):
    """Another process of the program died while it had a part in this: it was killed, or ended without a word.

    It is raised by a receive whose last sender lived there, is the `__cause__` of a send's `NoReceivers`, and is how a
    process that ran there fails.

    Attributes:
        pid: its number; None when only another process knows it, or when it is the one that keeps the channels.
        exitcode: what it ended with; negative: the signal that killed it; None: not known.
    """

    def __init__(self, pid: int | None, exitcode: int | None) -> None:
        if pid is None:
            who = "another process of the program"
        else:
            who = f"process {pid}"
        if exitcode is None:
            how = "is gone"
        elif exitcode < 0:
            how = f"was killed by {_signal(-exitcode)}"
        else:
            how = f"ended with exit code {exitcode}"
        super().__init__(f"{who} {how}")
        self.pid = pid
        self.exitcode = exitcode

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.pid, self.exitcode)


class RemoteError(WeftError):
    """What another place of the program raised or returned could not come here as itself: its class cannot be pickled, not
    be found or not be made again here, or the place ended before it could tell. `__cause__` has what is known of it."""


def _signal(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class InternalError(WeftError):
    """weft broke a promise it makes to itself. It is a bug in weft: please report it with the message."""


class Cancelled(BaseException):
    """This process of a `Group` was cancelled: it should let go of what it holds and end.

    In a thread it is raised by the operation the thread is parked on, and by each operation performed after that: a
    process that catches it and goes on is told again. `Process.join` and `Process.result` raise it for a process that
    was cancelled.

    It is a `BaseException`, so `except Exception` lets it through. Code that catches it should raise it again.
    """
