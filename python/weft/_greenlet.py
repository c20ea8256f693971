"""Bare greenlets, which nobody schedules: an operation that has to wait in one would stop all of its thread."""

from __future__ import annotations

import sys
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
    return None if current.parent is None or _is_pool_worker(current) else current


def _is_pool_worker(current: object) -> bool:
    """Whether this greenlet is all that runs in a thread of gevent's threadpool: it may block, like any thread."""
    pool = sys.modules.get("gevent.threadpool")
    worker = getattr(pool, "_WorkerGreenlet", None)
    return worker is not None and isinstance(current, worker)


def _wait(op: Op[Any], timeout: float | None) -> NoReturn:
    raise BlockingInLoopError(
        f"{op._describe()} would block every greenlet of this thread: {getcurrent()!r} has no hub to switch to; "
        "run it in gevent, or perform the operation in another thread"
    )
