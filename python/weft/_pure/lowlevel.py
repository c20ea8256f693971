"""Waiting in a scheduler that weft was told of: the list of these. The contract is written down in `weft.lowlevel`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from weft._entry import running_loop
from weft._schedulers import adopt

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["add_scheduler", "awaiting", "blocking", "party", "scheduler_here"]

# Each with how to learn which of its parties runs here, and how to perform an operation in it.
_awaiting: tuple[tuple[Callable[[], object], Callable[..., Any]], ...] = ()
_blocking: tuple[tuple[Callable[[], object], Callable[..., Any]], ...] = ()
_modules_seen = 0


def _look_for_schedulers() -> None:
    """Whether one was imported since the last time shows in the number of modules."""
    global _modules_seen
    count = len(sys.modules)
    if count != _modules_seen:
        adopt()
        _modules_seen = count  # only now: who comes meanwhile must not go on without them


def _here(added: tuple[tuple[Callable[[], object], Callable[..., Any]], ...]) -> tuple[Any, Any]:
    """Which party runs here, and how to perform an operation in it; None twice when none does."""
    for identify, perform in added:
        party = identify()
        if party is not None:
            return party, perform
    return None, None


def awaiting() -> Callable[..., Any] | None:
    """Of the scheduler whose parties await and that runs here: how to perform an operation."""
    _look_for_schedulers()
    if not _awaiting:
        return None
    loop = running_loop()
    if loop is not None:
        import asyncio

        if asyncio.current_task(loop) is not None:
            return None  # that is who awaits, whatever its loop runs on
    return _here(_awaiting)[1]  # type: ignore[no-any-return]


def blocking() -> Callable[..., Any] | None:
    """Of the scheduler whose parties call and that runs here: how to wait for an operation."""
    _look_for_schedulers()
    return _here(_blocking)[1] if _blocking else None


def party() -> object:
    """What tells the party that runs here from others of the same thread: None for the thread's own."""
    _look_for_schedulers()
    party = _here(_blocking)[0] if _blocking else None
    return None if party is True else party


def add_scheduler(
    identify: Callable[[], object], perform: Callable[..., Any] | None, wait: Callable[..., Any] | None
) -> None:
    global _awaiting, _blocking
    if perform is not None:
        _awaiting += ((identify, perform),)
    if wait is not None:
        _blocking += ((identify, wait),)


def scheduler_here() -> Callable[..., Any] | None:
    return awaiting()
