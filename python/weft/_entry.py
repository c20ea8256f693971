"""What is checked on the way in: whether a thing is an `async def`, whether it was called too early, whether a loop
runs here.

None of it imports asyncio: who has no loop should not pay for one.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["is_async", "reject_coroutine", "running_loop"]

CO_COROUTINE = 0x80  # inspect.CO_COROUTINE


def is_async(fn: object) -> bool:
    """Whether calling `fn` makes a coroutine: an `async def`, a partial or a method of one, an object whose `__call__`
    is one."""
    if isinstance(fn, FunctionType):
        if fn.__code__.co_flags & CO_COROUTINE:
            return True
        if not hasattr(fn, "_is_coroutine_mark"):  # what `inspect.markcoroutinefunction` sets
            return False
    import inspect  # slow to import, and only needed for the rarer kinds

    call = getattr(type(fn), "__call__", None)  # noqa: B004 (the method, not whether there is one)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(call)


def reject_coroutine(fn: object, example: str) -> None:
    """Raise `TypeError` when `fn` cannot be called, with the likely reason: it was called already. `example` shows the
    right call."""
    if callable(fn):
        return
    if isinstance(fn, Coroutine):
        fn.close()  # or Python warns as well that it was never awaited
        raise TypeError(
            f"pass the function and its arguments apart, {example}, not the coroutine that calling it made: {fn!r}"
        )
    raise TypeError(f"pass a function and its arguments, {example}; {fn!r} cannot be called")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop running in this thread, or None. A loop cannot run where asyncio was never imported."""
    events = sys.modules.get("asyncio.events")
    get = getattr(events, "_get_running_loop", None)
    return None if get is None else get()
