"""What a program gave, checked."""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING, Any, TypeVar

from weft._pure.chan import Reason

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "count",
    "fork_count",
    "forked",
    "instance",
    "instead_of_making",
    "not_to_pickle",
    "number",
    "reason",
    "seconds",
]

T = TypeVar("T")

_FARTHEST = 1 << 63
_forks = 0


def fork_count() -> int:
    """How often this process was forked: a channel of an earlier count belongs to a parent."""
    return _forks


def forked() -> None:
    """Called in a forked child."""
    global _forks
    _forks += 1


def count(value: Any, what: str, least: int) -> int:
    """A count: an int that is no bool, at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be an int, not {type(value).__name__} ({value})")
    if value >= _FARTHEST or value < -_FARTHEST:
        raise ValueError(f"{what} is out of range: {value}")
    if value < least:
        raise ValueError(f"{what} must be at least {least}, not {value}")
    return value


def number(value: Any, what: str) -> float:
    """A number of seconds, without being too strict: whatever makes a float by itself."""
    try:
        # Not `float()`, which takes text as well.
        seconds = value.__float__() if hasattr(value, "__float__") else float(value.__index__())
    except OverflowError:
        seconds = inf if value > 0 else -inf
    except AttributeError:
        raise TypeError(f"{what} must be a number of seconds, not {type(value).__name__}") from None
    if isnan(seconds):
        raise ValueError(f"{what} is not a number")
    return seconds


def seconds(value: Any, what: str) -> float | None:
    """A timeout in seconds, or None."""
    if value is None:
        return None
    timeout = number(value, what)
    if timeout < 0:
        raise ValueError(f"{what} must not be negative: {timeout}")
    return timeout


def reason(error: Any) -> Reason | None:
    """The `error` of a close: an exception, its class, or None."""
    if error is None:
        return None
    made: Any = error
    if isinstance(error, type) and issubclass(error, BaseException):
        made = error()
    if not isinstance(made, BaseException):
        raise TypeError(f"error must be an exception or None, not {type(made).__name__}")
    if isinstance(made, StopIteration | StopAsyncIteration):
        kind = "StopIteration" if isinstance(made, StopIteration) else "StopAsyncIteration"
        raise TypeError(
            f"{kind} cannot be the error of a channel: it would end, without a word, the iteration or the coroutine of "
            "who meets it; wrap it in another exception"
        )
    traceback: TracebackType | None = made.__traceback__
    return Reason(made, traceback)


def instance(kind: type[T]) -> T:
    """A new one of a class that nobody else can make. It is for the caller to fill."""
    return object.__new__(kind)


def instead_of_making(name: str) -> TypeError:
    """The error for a class that only weft makes."""
    return TypeError(f"cannot create 'weft.{name}' instances")


def not_to_pickle(thing: object) -> TypeError:
    """The error for what lives in one process."""
    return TypeError(f"cannot pickle 'weft.{type(thing).__name__}' object")
