"""What the errors say: what happened, to which channel, whose doing it was, and what to do next.

The words are those of crates/weft-python/src/errors.rs.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft._errors import Closed, ForkedChannelError, NoReceivers, Poisoned, WeftError, WouldBlock
from weft._pure.waiting import Outcome

if TYPE_CHECKING:
    from weft._pure.channel import Channel, End

__all__ = ["end_closed", "ended_recv", "ended_send", "ends_quietly", "forked", "no_more_ends", "would_block"]

_NOTHING = object()


def _error(
    kind: type[WeftError], channel: Channel, message: str, value: Any = _NOTHING, cause: BaseException | None = None
) -> WeftError:
    error = kind(message)
    error.channel = channel  # type: ignore[assignment]
    if value is not _NOTHING:
        error.value = value
    if cause is not None:
        error.__cause__ = cause
    return error


def _blame(channel: Channel, how: str) -> str:
    place = channel._closed_at
    return f"{how} when its last sender left" if place is None else f"{how} at {place}"


def _cause(channel: Channel) -> BaseException | None:
    cause = channel._chan.cause
    return None if cause is None else cause.error


def ended_send(channel: Channel, end: Outcome, value: Any) -> WeftError:
    """For a send on a channel that has ended."""
    about, rest = channel._description(), "the value is in this error's .value"
    if end is Outcome.NO_RECEIVERS:
        message = f"cannot send: the last receiver of {about} has left; {rest}"
        return _error(NoReceivers, channel, message, value, _cause(channel))
    kind, how = (Poisoned, "poisoned") if end is Outcome.POISONED else (Closed, "closed")
    message = f"cannot send: {about} was {_blame(channel, how)}; {rest}"
    return _error(kind, channel, message, value, _cause(channel))


def ended_recv(channel: Channel, end: Outcome) -> BaseException:
    """For a receive from a channel that has ended: the error given with `close`, if one was."""
    about, cause = channel._description(), channel._chan.cause
    if end is Outcome.POISONED:
        message = f"cannot receive: {about} was {_blame(channel, 'poisoned')}"
        return _error(Poisoned, channel, message, cause=_cause(channel))
    if cause is not None:
        # Back to the traceback it had: each raise would add to the one before.
        return BaseException.with_traceback(cause.error, cause.traceback)
    left = channel._chan.end is Outcome.NO_RECEIVERS
    how = "closed when its last receiver left" if left else _blame(channel, "closed")
    return _error(Closed, channel, f"cannot receive: {about} was {how} and everything sent has been received")


def ends_quietly(channel: Channel, end: Outcome) -> bool:
    """Whether this end of a channel ends an iteration without an error."""
    return end is not Outcome.POISONED and channel._chan.cause is None


def end_closed(end: End, *value: Any) -> WeftError:
    """For a call through an end that its owner has closed."""
    message = (
        f"this {end._side[:-1]} of {end._channel._description()} was closed at {end._closed_at}; "
        "clone() an end before closing it if another one is needed"
    )
    return _error(Closed, end._channel, message, *value)


def no_more_ends(channel: Channel, side: str) -> WeftError:
    """For `sender()` or `receiver()` on a channel that can have none any more."""
    end = channel._chan.end
    kind: type[WeftError]
    if end is Outcome.POISONED:
        kind, how = Poisoned, _blame(channel, "poisoned")
    elif end is Outcome.NO_RECEIVERS:
        kind, how = NoReceivers, "left by its last receiver"
    else:
        kind, how = Closed, _blame(channel, "closed")
    message = f"cannot make a {side[:-1]}: {channel._description()} was {how}"
    return _error(kind, channel, message, cause=_cause(channel))


def would_block(channel: Channel, *value: Any) -> WeftError:
    """For a call that must not wait and would have to; `value` on the sending side."""
    about, rendezvous = channel._description(), channel._chan.capacity == 0
    if value:
        message = f"nobody waits to receive from {about}" if rendezvous else f"{about} is full"
    else:
        message = f"nobody waits to send to {about}" if rendezvous else f"{about} is empty"
    return _error(WouldBlock, channel, f"cannot {'send' if value else 'receive'} now: {message}", *value)


def forked(channel: Channel) -> WeftError:
    """For a channel that was made before this process was forked."""
    message = (
        f"{channel._description()} belongs to the parent process: a channel does not reach over a fork; make a new one "
        "in the child"
    )
    return _error(ForkedChannelError, channel, message)
