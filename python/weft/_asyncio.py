"""What weft asks of asyncio, where a program has imported it."""

from __future__ import annotations

import asyncio
from typing import cast

__all__ = ["settled"]


class _NoLoop:
    def get_debug(self) -> bool:
        return False


def settled() -> asyncio.Future[None]:
    """A future that is done and belongs to no loop, to wake a task with.

    A task that is woken asks the future it waited for whether there was an error. For an operation that was met the
    answer is always no, and asyncio's own kind of future gives it many times faster than any other.
    """
    future = asyncio.Future[None](loop=cast("asyncio.AbstractEventLoop", _NoLoop()))
    future.set_result(None)
    return future
