"""Bare greenlets, which nobody schedules: an operation that has to wait in one would stop all of its thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from greenlet import getcurrent

from weft import lowlevel
from weft._errors import BlockingInLoopError

if TYPE_CHECKING:
    from weft._weft import Op

__all__ = ["add"]


def add() -> None:
    """Refuse to wait in greenlets that have no hub."""
    lowlevel.add_scheduler(_identify, wait=_wait)


def _identify() -> object:
    current = getcurrent()
    return current if current.parent is not None else None


def _wait(op: Op[Any], timeout: float | None) -> NoReturn:
    raise BlockingInLoopError(
        f"{op!r} would block every greenlet of this thread: {getcurrent()!r} has no hub to switch to; "
        "run it in gevent, or perform the operation in another thread"
    )
