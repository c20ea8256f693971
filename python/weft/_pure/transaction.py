"""How the pure-Python path changes what is shared: a plan that only reads, then one step that does it all.

Signal handlers and finalizers run between any two bytecodes, in the middle of whatever is going on, and may use the very
same channel, or raise. A lock would freeze them (or, reentrant, let them in where things are half-done). So there is no
lock. A plan reads through a `Transaction` and collects what is to be written; `commit` then writes all of it inside one
call into the interpreter's own code, in which no bytecode is executed: no other thread, no handler, no finalizer. If
anybody committed since the plan began, nothing is written and the plan is made anew.

True at all times:
  1. Whoever looks sees the state between two commits: a transaction happened as a whole or not at all, also when an
     exception comes out of a signal handler in its middle.
  2. Each read of a plan is of one and the same moment (`Stale` is raised otherwise), so plans may follow links and loop.
  3. Some commit always succeeds: who fails does so because another one did.
  4. No value is dropped, nobody woken and nothing foreign called in the step (L14). Bells are rung after it.

What the step relies on: an interpreter with a global lock that it gives up between bytecodes only. `__init__` checks.

Source: optimistic concurrency (Kung and Robinson 1981); reads that are checked at once: TL2 (Dice, Shalev, Shavit 2006).
"""

from __future__ import annotations

from collections import deque
from itertools import chain, starmap
from random import random
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Transaction", "forget_bells", "ring", "transact"]

T = TypeVar("T")

_MISSING = object()


class _Clock:
    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 0  # how many transactions were committed


_clock = _Clock()
# Committed, and not yet rung, each with what it calls. Usually empty: whoever commits rings. What an exception made
# somebody leave here is rung by whoever comes next.
_bells: dict[Iterator[Any], tuple[Callable[[], object], Callable[[], object]]] = {}


class Stale(BaseException):
    """Something was committed while a plan was made."""


class Transaction:
    """What one plan reads and is going to write."""

    __slots__ = ("_bells", "_seen", "_writes", "committed")

    def __init__(self) -> None:
        self._seen = _clock.time
        self._writes: dict[tuple[Any, str], Any] = {}
        self._bells: list[tuple[Iterator[Any], tuple[Callable[[], object], Callable[[], object]]]] = []
        self.committed = False

    def get(self, thing: Any, name: str) -> Any:
        """The attribute as it was when the plan began, or as the plan has set it."""
        value = self._writes.get((thing, name), _MISSING)
        if value is _MISSING:
            value = getattr(thing, name)
            if _clock.time != self._seen:
                raise Stale
        return value

    def set(self, thing: Any, name: str, value: Any) -> None:
        """Write that attribute in the commit. It must be a slot: setting it calls nothing."""
        self._writes[thing, name] = value

    def add(self, thing: Any, name: str, amount: int) -> None:
        """Write the attribute, a number, with so much added to it."""
        self.set(thing, name, self.get(thing, name) + amount)

    def ring(self, wake: Callable[[], object], undo: Callable[[], object]) -> None:
        """Call `wake` after the commit, and `undo` when it answers False: nobody is there any more."""
        # An iterator that calls it the first time it is asked, and never again, whoever asks.
        self._bells.append((starmap(wake, iter(((),))), (wake, undo)))

    def commit(self) -> bool:
        """Write everything, in one step. False: somebody else was quicker, and nothing is written."""
        if not self._writes:
            return True  # each read was checked
        things = (*(thing for thing, _ in self._writes), _clock, self)
        names = (*(name for _, name in self._writes), "time", "committed")
        values = (*self._writes.values(), self._seen + 1, True)
        # What is overwritten lives on until the step is over: no finalizer in the middle of it.
        kept = [getattr(thing, name) for thing, name in self._writes]
        # `values * False` is nothing at all. It is one call, and all it calls is not written in Python.
        current = map(self._seen.__eq__, map(getattr, (_clock,), ("time",)))
        written = map(setattr, things, names, chain.from_iterable(map(values.__mul__, current)))
        bells = map(_bells.update, map(self._bells.__mul__, map(getattr, (self,), ("committed",))))
        deque(chain(written, bells), maxlen=0)
        del kept
        return self.committed


def transact(plan: Callable[..., T], *arguments: Any) -> T:
    """Make `plan(transaction, *arguments)`, as often as needed, and commit it. Its answer is that of the plan committed.

    An exception of a signal handler may come out of it after the commit; what was committed tells.
    """
    patience = 1e-6
    while True:
        transaction = Transaction()
        try:
            answer = plan(transaction, *arguments)
            if transaction.commit():
                return answer
        except Stale:
            pass
        finally:
            if _bells:
                ring()
        # Leave the field to the others, the longer the more often it was in vain.
        patience = min(2 * patience, 1e-3)
        if patience > 1e-5:
            sleep(patience * random())


def ring() -> None:
    """Wake all that are to be woken. What an exception leaves undone, the next to come does."""
    for bell in tuple(_bells):
        wake, undo = _bells.get(bell, (None, None))
        try:
            answer = next(bell, None)
        except BaseException:
            # A signal handler's, and it may have come before anything was done. Waking twice does no harm.
            if wake is not None:
                next(starmap(wake, ((),)), None)
            raise
        _bells.pop(bell, None)
        if answer is False and undo is not None:
            undo()


def forget_bells() -> None:
    """In a forked child: those to be woken are in the parent."""
    _bells.clear()
