"""`selecting`: many channels registered once, served in turn, at a cost per event that does not depend on how many.

Each registration is a case among the parked receivers of its channel. While the consumer waits it is a receiver like any
other. While the consumer is busy, whoever would have met it moves it to the list of the ready; there the consumer looks
first, and what it was just served from goes behind those that became ready meanwhile. Values are taken only when asked
for.

True between any two transactions:
  1. The consumer waits only while the list is empty and there is no event.
  2. A registration is in its channel's queue, in the list, is the one served last, or has left.

Source: crates/weft-core/src/selecting.rs, which this follows.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, final

from weft._errors import WeftError
from weft._pure import arguments, chan, errors
from weft._pure.cases import put_back
from weft._pure.channel import Channel, Receiver
from weft._pure.dropped import finalize
from weft._pure.op import Op
from weft._pure.transaction import Transaction, transact
from weft._pure.waiting import Case, Outcome, Queue, Waiter, append, unlink
from weft._results import Selected

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["EventOp", "Selecting", "selecting"]


def _nobody() -> bool:
    return False


class Registration(Case):
    """A channel's place in a selecting."""

    __slots__ = ("label", "left", "source")

    def __init__(self, standing: Standing, label: Hashable, source: Channel | Receiver) -> None:
        super().__init__()
        self.waiter = standing
        self.label = label
        self.source = source
        self.left = False

    @property
    def chan(self) -> chan.Chan:
        return self.source._channel._chan


class Event(NamedTuple):
    """What a round came to. Without a registration: it is over."""

    registration: Registration | None
    outcome: Outcome
    value: Any = None


_OVER = Event(None, Outcome.CLOSED)


class Standing(Waiter):
    """The offer of a selecting. The channels know this, not the `Selecting`, which may be dropped while they live."""

    __slots__ = ("consumer", "count", "departed", "event", "gone", "ready", "served", "undo", "wake")

    def __init__(self) -> None:
        super().__init__()
        self.ready = Queue()
        self.served: Registration | None = None
        self.count = 0
        self.event: Event | None = None
        self.consumer: Op | None = None
        self.departed: tuple[Registration, ...] = ()  # their labels are still to be forgotten
        self.gone: Callable[[], bool] = _nobody
        self.wake: Callable[[], object] = _nobody
        self.undo: Callable[[], object] = _nobody

    def _is_gone(self) -> bool:
        return self.gone()

    def _claimed(self, tx: Transaction, case: Case) -> None:
        assert isinstance(case, Registration)
        unlink(tx, case)
        self.decide(tx, case, tx.get(case, "outcome"), tx.get(case, "value"))
        tx.set(case, "value", None)
        self.rouse(tx)

    def _passed(self, tx: Transaction, case: Case) -> None:
        unlink(tx, case)
        append(tx, self.ready, case)
        tx.set(self, "_waiting", False)  # its loop is gone, if it did

    def rouse(self, tx: Transaction) -> None:
        """Have a waiting consumer look again."""
        if tx.get(self, "_waiting"):
            tx.set(self, "_waiting", False)
            tx.ring(tx.get(self, "wake"), tx.get(self, "undo"))

    def decide(self, tx: Transaction, case: Registration, outcome: Outcome, value: Any) -> bool:
        """What a registration came to. False: it has left quietly, and there is no event."""
        if outcome is Outcome.DONE:
            tx.set(self, "served", case)
        else:
            tx.set(self, "departed", (*tx.get(self, "departed"), case))
            self.leave(tx, case)
            if outcome is not Outcome.POISONED and tx.get(case.chan, "cause") is None:
                return False
        tx.set(self, "event", Event(case, outcome, value))
        return True

    def leave(self, tx: Transaction, case: Registration) -> None:
        """One registration less."""
        unlink(tx, case)
        tx.set(case, "left", True)
        tx.add(self, "count", -1)
        if tx.get(self, "served") is case:
            tx.set(self, "served", None)

    # Plans

    def occupy(self, tx: Transaction, op: Op) -> bool:
        """Become the one consumer."""
        free = tx.get(self, "consumer") in (None, op)
        if free:
            tx.set(self, "consumer", op)
        return free

    def look(self, tx: Transaction, waits: EventOp | None) -> bool:
        """The next event. False: there is none, and the operation waits for one, if there is one that does."""
        if tx.get(self, "event") is not None:
            return True
        served = tx.get(self, "served")
        if served is not None:
            append(tx, self.ready, served)
            tx.set(self, "served", None)
        while (case := tx.get(self.ready, "first")) is not None:
            unlink(tx, case)
            outcome, value = chan.recv(tx, case.chan)
            if outcome is Outcome.WAIT:
                append(tx, case.chan.recvq, case)
            elif self.decide(tx, case, outcome, value):
                return True
        if tx.get(self, "count") == 0:
            tx.set(self, "event", _OVER)
            return True
        if waits is not None:
            tx.set(self, "_waiting", True)
            tx.set(self, "wake", waits._wake)
            tx.set(self, "undo", waits._undo)
        return False

    def withdraw(self, tx: Transaction, op: Op) -> bool:
        if tx.get(self, "consumer") is not op or tx.get(self, "event") is not None:
            return False
        tx.set(self, "_waiting", False)
        self.dismiss(tx)
        return True

    def take(self, tx: Transaction, op: EventOp) -> None:
        """The consumer is done, and has the event."""
        tx.set(op, "_event", tx.get(self, "event"))
        tx.set(self, "event", None)
        self.dismiss(tx)

    def untake(self, tx: Transaction, op: EventOp) -> Event | None:
        """The consumer will not come for the event. Its value is to be given back; else it is for the next round."""
        if tx.get(self, "consumer") is not op:
            return None
        self.dismiss(tx)
        event: Event | None = tx.get(self, "event")
        if event is None or event.outcome is not Outcome.DONE:
            return None
        tx.set(self, "event", None)
        return event

    def dismiss(self, tx: Transaction) -> None:
        """There is no consumer any more."""
        tx.set(self, "consumer", None)
        # They lead to who waited.
        tx.set(self, "gone", _nobody)
        tx.set(self, "wake", _nobody)
        tx.set(self, "undo", _nobody)

    def add(self, tx: Transaction, case: Registration) -> None:
        append(tx, self.ready, case)
        tx.add(self, "count", 1)
        self.rouse(tx)

    def discard(self, tx: Transaction, case: Registration) -> Event | None:
        """Take it out. The event with a value of it is returned: it is to be given back."""
        if tx.get(case, "left"):
            return None
        self.leave(tx, case)
        if tx.get(self, "count") == 0:
            self.rouse(tx)
        event: Event | None = tx.get(self, "event")
        if event is None or event.registration is not case:
            return None
        tx.set(self, "event", None)
        return event

    def depart(self, tx: Transaction) -> tuple[Registration, ...]:
        departed: tuple[Registration, ...] = tx.get(self, "departed")
        if departed:
            tx.set(self, "departed", ())
        return departed


@final
class EventOp(Op):
    """The next event of a selecting, as an operation."""

    __slots__ = ("_event", "_selecting", "_standing")
    __module__ = "weft"

    _event: Event | None
    _selecting: Selecting
    _standing: Standing

    def _what(self) -> object:
        return "selecting"

    def _decided(self) -> bool:
        mine = self._standing.consumer is self and self._standing.event is not None
        return mine or self._event is not None

    def _try_now(self) -> bool:
        self._selecting._check_fork()
        if not transact(self._standing.occupy, self):
            raise RuntimeError(
                "this selecting() is waited for by somebody else: one consumer at a time; give each its own"
            )
        return transact(self._standing.look, None)

    def _wait_for(self, wake: Callable[[], object], gone: Callable[[], bool] = _nobody) -> bool:
        self._wake, self._standing.gone, self._phase = wake, gone, "waiting"
        return transact(self._standing.look, self)

    def _resume(self) -> bool:
        return transact(self._standing.look, self)

    def _is_ready(self) -> bool:
        return bool(self._ticket)

    def _is_met(self) -> bool:
        return not self._standing._waiting

    def _withdraw(self) -> bool:
        withdrawn = transact(self._standing.withdraw, self)
        if withdrawn:
            self._phase = "performed"
        return withdrawn

    def _fire(self, case: int) -> bool:
        return False

    def _failure(self) -> BaseException | None:
        if self._event is None:
            transact(self._standing.take, self)
            self._selecting._forget_departed()
        event = self._event
        if event is None or event.registration is None:
            return StopAsyncIteration()
        if event.outcome is Outcome.DONE:
            return None
        error = errors.ended_recv(event.registration.source._channel, event.outcome)
        if isinstance(error, WeftError):
            error.case = event.registration.label
        return error

    def _result(self) -> Any:
        event = self._event
        assert event is not None and event.registration is not None
        return Selected(event.registration.label, event.value)

    def _give_back(self) -> None:
        _return(transact(self._standing.untake, self))

    def _end(self) -> None:
        transact(self._standing.withdraw, self)
        super()._end()


def _return(event: Event | None) -> None:
    """Give the value of an event back to its channel."""
    if event is not None and event.registration is not None and event.outcome is Outcome.DONE:
        put_back(event.registration.source._channel, event.value)


@final
class Selecting:
    __slots__ = ("__weakref__", "_registrations", "_standing")
    __module__ = "weft"

    _registrations: dict[Hashable, Registration]
    _standing: Standing

    def __new__(cls, *_: Any, **__: Any) -> Self:
        raise arguments.instead_of_making("Selecting")

    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def __repr__(self) -> str:
        cases = len(self)
        return f"<weft.Selecting over {cases} channel{'' if cases == 1 else 's'}>"

    def add(self, case: Hashable, channel: Any) -> None:
        if not isinstance(channel, Channel | Receiver):
            raise TypeError(f"case {case}: selecting() takes channels and receivers, not {type(channel).__name__}")
        channel._check()
        self._forget_departed()
        registration = Registration(self._standing, case, channel)
        if self._registrations.setdefault(case, registration) is not registration:
            raise ValueError(f"there is a case {case} already")
        transact(self._standing.add, registration)

    def discard(self, case: object, /) -> None:
        self._forget_departed()
        registration = self._registrations.pop(case, None)
        if registration is not None:
            _return(transact(self._standing.discard, registration))

    def _forget_departed(self) -> None:
        """Labels are the program's: hashing and comparing them runs its code, so no transaction does."""
        for registration in transact(self._standing.depart):
            if self._registrations.get(registration.label) is registration:
                del self._registrations[registration.label]

    def _check_fork(self) -> None:
        for registration in self._registrations.values():
            registration.source._channel._check_fork()
            break  # one that was made later could not be added

    def __len__(self) -> int:
        return self._standing.count

    def __bool__(self) -> Literal[True]:
        return True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self.__anext__().wait()
        except StopAsyncIteration:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Op:
        op = arguments.instance(EventOp)
        op._selecting, op._standing, op._cases, op._event = self, self._standing, (), None
        op._set_up()
        return op

    def __del__(self) -> None:
        if getattr(self, "_registrations", None):
            finalize(self._leave)

    def _leave(self) -> None:
        for registration in self._registrations.values():
            if not registration.source._channel._is_inherited():
                _return(transact(self._standing.discard, registration))


def selecting(*channels: Channel | Receiver, **named: Channel | Receiver) -> Selecting:
    made = arguments.instance(Selecting)
    made._registrations, made._standing = {}, Standing()
    for case, channel in (*enumerate(channels), *named.items()):
        made.add(case, channel)
    return made
