"""`Scope`: what the cancellation of threads hangs on. A group makes one; each thread of the group runs under it, and every
`wait()` heeds it."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, final

from weft._pure import arguments, lowlevel
from weft._pure.dropped import unraisable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["Scope"]


class _Entered(threading.local):
    """The scopes entered in this thread, the current one last, each with the party that did."""

    def __init__(self) -> None:
        self.scopes: list[tuple[object, Scope]] = []


_entered = _Entered()


def _roused(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:
        unraisable(error, call)


def _wake(wakes: Callable[[], Callable[[], object]]) -> None:
    with suppress(StopIteration):  # it was woken already
        wakes()()


@final
class Scope:
    __slots__ = ("_cancelled", "_deadline", "_parent", "_parked")
    __module__ = "weft._weft"

    def __init__(self, parent: Any = None) -> None:
        if parent is not None and not isinstance(parent, Scope):
            raise TypeError(f"parent must be a Scope or None, not {type(parent).__name__}")
        self._parent: Scope | None = parent
        self._cancelled = False
        self._deadline: float | None = None
        self._parked: dict[object, Callable[[], Callable[[], object]]] = {}  # who is parked under it: what makes a wake

    def cancel(self) -> None:
        self._cancelled = True
        self._rouse()

    def _take_back(self) -> None:
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        for scope in self._chain():
            if scope._cancelled:
                return True
            if scope._deadline is not None and monotonic() >= scope._deadline:
                scope.cancel()
                return True
        return False

    @property
    def deadline(self) -> float | None:
        return self._deadline

    @deadline.setter
    def deadline(self, value: Any) -> None:
        self._deadline = None if value is None else arguments.number(value, "deadline")
        self._rouse()

    def enter(self) -> None:
        _entered.scopes.append((lowlevel.party(), self))

    def exit(self) -> None:
        if self.current() is not self:
            raise RuntimeError("this scope is not the one this thread entered last")
        _entered.scopes.remove((lowlevel.party(), self))

    @classmethod
    def current(cls) -> Scope | None:
        scopes = _entered.scopes
        if not scopes:
            return None
        here = lowlevel.party()
        return next((scope for party, scope in reversed(scopes) if party is here), None)

    # For parties of other schedulers

    def _enroll(self, call: Callable[[], object]) -> None:
        """Have it called when this scope or one above it is cancelled or gets another deadline."""
        for scope in self._chain():
            scope._parked[call] = partial(partial, _roused, call)
        if self.cancelled:
            _roused(call)

    def _leave(self, call: Callable[[], object]) -> None:
        for scope in self._chain():
            scope._parked.pop(call, None)

    def _left(self) -> float | None:
        """Seconds until the first deadline of this scope and those above it."""
        first = self._first_deadline()
        return None if first is None else max(0.0, first - monotonic())

    def _chain(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope._parent

    def _first_deadline(self) -> float | None:
        """The first deadline of this scope and those above it."""
        return min((scope._deadline for scope in self._chain() if scope._deadline is not None), default=None)

    def _rouse(self) -> None:
        """Have everybody parked below look again."""
        for wakes in list(self._parked.values()):
            _wake(wakes)

    @contextmanager
    def _enrolled(self, wakes: Callable[[], Callable[[], object]]) -> Generator[None]:
        """While it lasts, `wakes()()` is called when this scope or one above it is cancelled or gets another deadline."""
        key = object()
        try:
            for scope in self._chain():
                scope._parked[key] = wakes
            if self.cancelled:  # since its thread has looked; woken before it sleeps, it looks again
                _wake(wakes)
            yield
        finally:
            for scope in self._chain():
                scope._parked.pop(key, None)
