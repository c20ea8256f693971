"""`after`, `at`, `tick`, `always`, `never`. Nobody serves them: a loop's own timer does, or the deadline of the thread that
waits."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from math import floor, isinf
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, final

from weft._errors import Closed
from weft._pure import arguments, chan
from weft._pure.cases import AlwaysCase, NeverCase, OpCase
from weft._pure.op import make
from weft._pure.origin import Origin, here
from weft._pure.transaction import transact
from weft._pure.waiting import Outcome, Queue, append

if TYPE_CHECKING:
    from weft._pure.op import Op
    from weft._pure.transaction import Transaction

__all__ = ["Tick", "after", "always", "at", "never", "tick"]


class AtCase(OpCase):
    """Decided by the clock, at the time `when`."""

    __slots__ = ("is_due", "when")
    what = "at"

    def __init__(self, when: float) -> None:
        super().__init__()
        self.when = when
        self.is_due = False

    def prepare(self) -> None:
        self.is_due = self.when <= monotonic()

    def ready(self, tx: Transaction) -> bool:
        return self.is_due

    def due(self) -> float | None:
        return self.when

    def result(self) -> Any:
        return self.when


class AfterCase(AtCase):
    """So long after it is begun."""

    __slots__ = ("delay",)
    what = "after"

    def __init__(self, delay: float) -> None:
        super().__init__(0.0)
        self.delay = delay

    def prepare(self) -> None:
        self.when = monotonic() + max(0.0, self.delay)
        self.is_due = self.delay <= 0

    def is_a_turn(self) -> bool:
        return self.delay <= 0


class TickCase(AtCase):
    """The next tick, or the end of them all."""

    __slots__ = ("iterating", "tick")
    what = "tick"

    def __init__(self, tick: Tick, iterating: bool) -> None:
        super().__init__(0.0)
        self.tick = tick
        self.iterating = iterating

    def prepare(self) -> None:
        self.when = self.tick._next
        super().prepare()

    def ready(self, tx: Transaction) -> bool:
        return self.is_due or tx.get(self.tick, "_closed_at") is not None

    def park(self, tx: Transaction) -> None:
        append(tx, self.tick._waiting, self)

    def failure(self) -> BaseException | None:
        tick = self.tick
        if tick._closed_at is None:
            return None
        if self.iterating:
            return StopAsyncIteration()
        return Closed(f"cannot receive: this tick of {tick._period} s was closed at {tick._closed_at}")

    def result(self) -> Any:
        return transact(self.tick._advance, monotonic())


@final
class Tick:
    __slots__ = ("__weakref__", "_closed_at", "_next", "_period", "_waiting")
    __module__ = "weft"

    _closed_at: Origin | None
    _next: float
    _period: float
    _waiting: Queue

    def __new__(cls, *_: Any, **__: Any) -> Self:
        raise arguments.instead_of_making("Tick")

    def recv(self) -> Op:
        return make(TickCase(self, False))

    def close(self) -> None:
        transact(self._closing, here())

    @property
    def period(self) -> float:
        return self._period

    @property
    def closed(self) -> bool:
        return self._closed_at is not None

    def _closing(self, tx: Transaction, place: Origin) -> None:
        if tx.get(self, "_closed_at") is None:
            tx.set(self, "_closed_at", place)
            chan.tell(tx, self._waiting, Outcome.CLOSED)

    def _advance(self, tx: Transaction, now: float) -> float:
        """Take a tick; those that nobody took meanwhile are dropped."""
        due: float = tx.get(self, "_next")
        if due <= now:
            tx.set(self, "_next", due + (floor((now - due) / self._period) + 1) * self._period)
        return min(due, now)

    def __reduce__(self) -> NoReturn:
        raise arguments.not_to_pickle(self)

    def __repr__(self) -> str:
        return f"<weft.Tick every {self._period:g} s{', closed' if self.closed else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self.close()
        return False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> float:
        try:
            return self.__anext__().wait()  # type: ignore[no-any-return]
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Op:
        return make(TickCase(self, True))


def after(seconds: float, /) -> Op:
    return make(AfterCase(arguments.number(seconds, "the delay")))


def at(when: float, /) -> Op:
    return make(AtCase(arguments.number(when, "the time")))


def tick(period: float, /) -> Tick:
    seconds = arguments.number(period, "the period")
    if seconds <= 0 or isinf(seconds):
        raise ValueError(f"the period must be positive and finite, not {seconds}")
    made = arguments.instance(Tick)
    made._period, made._next, made._closed_at, made._waiting = seconds, monotonic() + seconds, None, Queue()
    return made


def always(value: Any, /) -> Op:
    return make(AlwaysCase(value))


def never() -> Op:
    return make(NeverCase())
