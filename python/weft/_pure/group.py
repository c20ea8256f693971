"""The base of `weft.Group`, as it is without the extension: nothing is quicker here than what is written there."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import sys
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextvars import Context
    from types import FrameType

__all__ = ["_Group"]


class _Group:
    _numbers: count[int]
    # As there are no tasks of its own here:
    _count = 0
    _spawns_here = False
    _awaited = False

    def __new__(cls, *_arguments: Any, **_names: Any) -> Any:
        self = super().__new__(cls)
        self._numbers = count(1)
        return self

    if TYPE_CHECKING:

        def _spawn(self, caller: FrameType, fn: Callable[..., Any], /, *args: Any, **how: Any) -> Any: ...

    def spawn(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        on: str | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Any:
        return self._spawn(sys._getframe(1), fn, *args, on=on, name=name, context=context)

    def _number(self) -> int:
        return next(self._numbers)

    def _accept(self, loop: asyncio.AbstractEventLoop, /) -> None:
        pass

    def _cancel_tasks(self) -> None:
        pass
