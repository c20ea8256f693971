"""`Op`: an operation, which is also its own wait.

An operation is made, then performed once. It is made of leaves: by itself it is its only one; a select has those of its
cases. All leaves share one offer, that of the operation performed: whoever meets one of them decides it (`_won`).

Performing it is the same for every scheduler, and these are the steps; how to sleep is the scheduler's own affair:
```text
    _begin()         perform as far as possible without waiting. True: decided. RuntimeError: it was performed before
    _park(wake)      wait. `wake()` is called once, from any thread, when it is decided. True: decided already
    _timer()         how long until a clock decides it, and the case for `_fire`; or None
    _descriptors()   the descriptors that decide it: number, whether for writing, case
    _fire(case)      the clock or the descriptor is ready. True: this has decided it, and `wake` was called
    _resume()        after a wake: is there a result? False: it waits again, with the same `wake`
    _withdraw()      wait no more. False: it was decided
    _take()          the result, or the error raised: of a decided one, once
    _undo()          instead of `_take`, in any state: nobody takes the result, and what was received goes back
```
(An exception of a signal handler that comes out of `wake` may make it be called again.) `weft.lowlevel` is their face,
and says more. Whoever is cancelled withdraws; when that fails, the commit has won (L4) and the result is to be taken first. `thread`
and `home` are the two schedulers written so far.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from functools import partial
from math import inf
from operator import length_hint
from random import randrange
from time import monotonic
from types import GenericAlias
from typing import TYPE_CHECKING, Any, NoReturn, Self, final

from weft._errors import WeftError
from weft._pure import arguments, home, lowlevel, thread
from weft._pure.arguments import instance
from weft._pure.dropped import Ticket, Used, perform, unraisable
from weft._pure.origin import here
from weft._pure.transaction import transact
from weft._pure.waiting import Waiter, unlink
from weft._results import Selected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Hashable, Iterator

    from weft._pure.cases import OpCase
    from weft._pure.transaction import Transaction
    from weft._pure.waiting import Case

__all__ = ["Op", "SelectOp", "make", "make_select"]

_DEFAULT = -1  # the winner when nothing was ready


def _nobody() -> bool:
    return False


def _woke(wake: Callable[[], object]) -> object:
    """Call what wakes a party of another scheduler. False: it is gone, or could not be woken."""
    try:
        return wake()
    except Exception as error:
        unraisable(error, wake)
        return False


def _applied(function: Callable[[Any], Any], given: Iterator[Any]) -> Any:
    """The function, of `map`, applied to the one value that is given. The value is taken as the function is called, by a
    call that is not written in Python."""
    try:
        return next(map(function, given))
    except (StopIteration, StopAsyncIteration) as stop:
        # It would end the await or the iteration of who performs the operation, without a word (PEP 479).
        kind = "StopIteration" if isinstance(stop, StopIteration) else "StopAsyncIteration"
        raise RuntimeError(f"a function given to map() raised {kind}") from stop


def _performed(op: Op, performing: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """What another scheduler does to perform it. Dropped in the middle, it is undone here: PyPy closes generators that it
    collects, but no coroutines."""
    try:
        return (yield from performing.__await__())
    except GeneratorExit:
        op._undo()
        raise
    finally:
        del op  # as in `_take`


class Op(Waiter):
    __slots__ = ("__weakref__", "_cases", "_given", "_gone", "_label", "_maps", "_origin", "_phase", "_ticket", "_wake")
    __module__ = "weft"

    _cases: tuple[OpCase, ...]
    """Its leaves."""
    _label: Hashable
    _maps: tuple[Callable[[Any], Any], ...]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        raise arguments.instead_of_making("Op")

    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def __init_subclass__(cls, **_: Any) -> None:
        if cls.__module__ != "weft":
            raise TypeError("type 'weft.Op' is not an acceptable base type")

    def _set_up(self) -> None:
        super().__init__()
        self._phase = "not performed"
        self._maps = ()
        self._origin = here()
        self._label = None
        self._given: Iterator[Any] | None = None  # the result, on its way to the first function of `map`
        self._gone: Callable[[], bool] = _nobody
        self._wake: Callable[[], object] = _nobody
        # Whoever takes the ticket performs it; a list gives it to one, whatever threads and signal handlers do.
        self._ticket: list[Used] = [Ticket(self._what(), self._origin)]

    # What the program uses

    def __await__(self) -> Generator[Any, Any, Any]:
        self._check_fresh()
        perform_elsewhere = lowlevel.awaiting()
        if perform_elsewhere is not None:
            performing = perform_elsewhere(self)
            return _performed(self, performing) if hasattr(performing, "__await__") else performing
        return home.perform(self)

    def wait(self, timeout: float | None = None) -> Any:
        return thread.wait(self, arguments.seconds(timeout, "timeout"))

    def map(self, function: Callable[[Any], Any], /) -> Op:
        if not callable(function):
            raise TypeError(f"map() needs a callable, not {type(function).__name__}")
        self._check_fresh()
        self._maps += (function,)
        return self

    def __reduce__(self) -> NoReturn:
        raise arguments.not_to_pickle(self)

    def __repr__(self) -> str:
        return f"<weft.Op: {self._description()} {self._phase}>"

    def _what(self) -> object:
        return self._cases[0]

    def _description(self) -> str:
        """`recv on channel 'jobs' (...), operation made at app.py:12,` for messages."""
        return f"{self._what()}, operation made at {self._origin},"

    def _ways(self) -> tuple[tuple[Op, ...], ...]:
        """For each leaf, the operations from it outwards, without this one."""
        return ((),)

    # Once only

    def _check_fresh(self) -> None:
        if not self._ticket:
            raise self._misused()

    def _claim(self) -> None:
        """Become the one who performs it."""
        try:
            perform(self._ticket.pop())
        except IndexError:
            raise self._misused() from None
        self._phase = "being performed"

    def _misused(self) -> RuntimeError:
        about = self._description()
        if self._phase == "in a select":
            return RuntimeError(f"{about} belongs to a select: perform the select instead")
        if self._phase == "performed":
            return RuntimeError(
                f"{about} was already performed: an operation is performed once, make a new one for the next time"
            )
        return RuntimeError(f"{about} is being performed by somebody else: an operation is performed once")

    def _become_case(self, label: Hashable) -> None:
        self._claim()
        self._phase, self._label = "in a select", label

    def _become_free(self) -> None:
        """The select was not made after all."""
        self._phase, self._label = "not performed", None
        self._ticket.append(Ticket(self._what(), self._origin))

    # The steps

    def _begin(self) -> bool:
        self._claim()
        return self._try_now()

    def _try_now(self) -> bool:
        for index, case in enumerate(self._cases):
            case.index = index
            case.prepare()
        return transact(self._attempt, False)

    def _park(self, wake: Callable[[], object], gone: Callable[[], bool] | None = None, /) -> bool:
        if not callable(wake):
            raise TypeError(f"_park() needs a callable, not {type(wake).__name__}")
        if self._phase != "being performed":
            raise RuntimeError(f"{self._description()} cannot be parked: begin it first")
        return self._wait_for(partial(_woke, wake), gone or _nobody)

    def _skip(self) -> None:
        """It will not be performed."""
        if self._ticket:
            self._claim()
            self._end()

    def _is_ready(self) -> bool:
        """Whether a fresh one would be decided now, as far as one look can tell."""
        if not self._ticket:
            return False
        for case in self._cases:
            case.prepare()
        return transact(self._can_be_decided)

    def _describe(self) -> str:
        return self._description().rstrip(",")

    def _party(self) -> object:
        """Who waits for it, for a snapshot: True, as that is not known here; None when nobody does."""
        return True if self._phase == "waiting" else None

    def _is_outside(self) -> bool:
        """Whether there is anything to watch but channels."""
        return any(case.due() is not None or case.descriptor() is not None for case in self._cases)

    def _wait_for(self, wake: Callable[[], object], gone: Callable[[], bool] = _nobody) -> bool:
        """`gone()` says whether nobody will ever come for the result any more; it must do nothing else."""
        self._gone, self._wake = gone, wake
        return transact(self._attempt, True)

    def _resume(self) -> bool:
        return self._won is not None

    def _withdraw(self) -> bool:
        return transact(self._leave)

    def _fire(self, case: int) -> bool:
        return transact(self._decide, case)

    def _winner(self) -> int:
        assert self._won is not None
        return self._won

    def _take(self) -> Any:
        # After an exception of a signal handler this is called again. What must be done once is done by a call that is not
        # written in Python: the result goes to the first function of `map`, or to the caller.
        error = self._failure()
        if error is None and self._given is None:
            self._given = iter((self._result(),))
        self._end()
        if error is not None:
            try:
                raise error
            finally:
                # This frame is in its traceback, and the operation's channel may hold it.
                del self, error
        functions = self._functions()
        assert self._given is not None
        if not functions:
            return next(self._given)
        value = _applied(functions[0], self._given)
        for function in functions[1:]:
            value = _applied(function, iter((value,)))
        return value

    def _is_taken(self) -> bool:
        """Whether the result, or the error, was given out."""
        return self._phase == "performed" if self._given is None else not length_hint(self._given)

    def _undo(self) -> None:
        self._skip()
        if self._withdraw() or not self._decided():
            self._end()
        elif self._phase != "performed":
            self._end()
            self._give_back()

    def _give_back(self) -> None:
        if self._won != _DEFAULT:
            self._cases[self._winner()].undo()

    def _timer(self) -> tuple[float, int] | None:
        first = None
        for index, case in enumerate(self._cases):
            due = case.due()
            if due is not None and due < (inf if first is None else first[0]):
                first = (due, index)
        return None if first is None else (max(0.0, first[0] - monotonic()), first[1])

    def _descriptors(self) -> list[tuple[int, bool, int]]:
        watched = [(case.descriptor(), index) for index, case in enumerate(self._cases)]
        return [(*descriptor, index) for descriptor, index in watched if descriptor is not None]

    def _decided(self) -> bool:
        """Whether there is a result to take."""
        return self._won is not None

    def _is_met(self) -> bool:
        """Whether there is something to look at, with `_resume`, since it was parked."""
        return not self._waiting

    def _end(self) -> None:
        """It waits no more."""
        self._phase = "performed"
        # They lead to who waits, and so back to this.
        self._gone = self._wake = _nobody

    # Plans

    def _can_be_decided(self, tx: Transaction) -> bool:
        return any(case.ready(tx) for case in self._cases)

    def _choose(self, tx: Transaction) -> int | None:
        return 0 if self._cases[0].commit(tx) else None

    def _attempt(self, tx: Transaction, park: bool) -> bool:
        won = self._choose(tx)
        if won is not None:
            tx.set(self, "_won", won)
        elif park:
            tx.set(self, "_waiting", True)
            tx.set(self, "_phase", "waiting")
            for case in self._cases:
                tx.set(case, "waiter", self)
                case.park(tx)
        return won is not None

    def _leave(self, tx: Transaction, won: int | None = None) -> bool:
        """Leave all queues, if the offer is still open."""
        if not tx.get(self, "_waiting"):
            return False
        for case in self._cases:
            unlink(tx, case)
            tx.set(case, "waiter", None)  # no cycle is left behind
        tx.set(self, "_waiting", False)
        tx.set(self, "_won", won)
        if won is None:
            tx.set(self, "_phase", "performed")
        return True

    def _is_gone(self) -> bool:
        return self._gone()

    def _claimed(self, tx: Transaction, case: Case) -> None:
        self._decide(tx, case.index)

    def _decide(self, tx: Transaction, won: int) -> bool:
        decided = self._leave(tx, won)
        if decided:
            tx.ring(self._wake, self._undo)
        return decided

    def _passed(self, tx: Transaction, case: Case) -> None:
        self._leave(tx)

    # Results

    def _failure(self) -> BaseException | None:
        return self._cases[self._winner()].failure()

    def _result(self) -> Any:
        """Before any function of `map`."""
        return self._cases[self._winner()].result()

    def _functions(self) -> tuple[Callable[[Any], Any], ...]:
        """What the result goes through."""
        return self._maps


@final
class SelectOp(Op):
    """A select: its leaves are those of its cases."""

    __slots__ = ("_default", "_paths", "_policy")
    __module__ = "weft"

    _default: tuple[Any, ...]
    """The value, or nothing."""
    _policy: str
    _paths: tuple[tuple[Op, ...], ...]
    """From each leaf, the operation it was, outwards to the case of this select that it belongs to."""

    def _what(self) -> object:
        return "select"

    def _ways(self) -> tuple[tuple[Op, ...], ...]:
        return self._paths

    def _can_be_decided(self, tx: Transaction) -> bool:
        return bool(self._default) or super()._can_be_decided(tx)

    def _choose(self, tx: Transaction) -> int | None:
        chosen, ready = None, 0
        for index, case in enumerate(self._cases):
            if case.ready(tx):
                ready += 1
                # Each of the ready with the same chance (Vitter 1985, algorithm R with one place).
                if ready == 1 or (self._policy == "random" and randrange(ready) == 0):
                    chosen = index
                if self._policy == "priority":
                    break
        if chosen is not None:
            self._cases[chosen].commit(tx)
        return chosen

    def _try_now(self) -> bool:
        if super()._try_now():
            return True
        if self._default:
            self._won = _DEFAULT
        return bool(self._default)

    def _take(self) -> Any:
        try:
            return super()._take()
        except WeftError as error:
            if self._won != _DEFAULT:
                error.case = self._paths[self._winner()][-1]._label
            raise

    def _failure(self) -> BaseException | None:
        return None if self._won == _DEFAULT else super()._failure()

    def _result(self) -> Any:
        if self._won == _DEFAULT:
            return Selected("default", self._default[0])
        value: Any = super()._result()
        for op in self._paths[self._winner()]:
            if op._maps:
                return value
            value = Selected(op._label, value)
        return value

    def _functions(self) -> tuple[Callable[[Any], Any], ...]:
        functions: list[Callable[[Any], Any]] = []
        for op in () if self._won == _DEFAULT else self._paths[self._winner()]:
            if op._maps or functions:
                functions += (*op._maps, partial(Selected, op._label))
        return (*functions, *self._maps)


def make(case: OpCase) -> Op:
    """An operation of one case."""
    op = instance(Op)
    op._cases = (case,)
    op._set_up()
    return op


def make_select(cases: tuple[Op, ...], default: tuple[Any, ...], policy: str) -> SelectOp:
    """A select of operations that have become its cases; a select among them brings its own leaves."""
    op = instance(SelectOp)
    op._default, op._policy = default, policy
    op._cases = tuple(leaf for case in cases for leaf in case._cases)
    op._paths = tuple((*path, case) for case in cases for path in case._ways())
    op._set_up()
    return op
