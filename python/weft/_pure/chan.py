"""What happens in a channel: a buffer and two queues, and the transitions between their states, as plans.

True between any two transactions:
  1. No sender is parked while a receiver is, unless one select waits on both sides of this channel.
  2. A buffered value means no receiver is parked.
  3. A free slot means no sender is parked. (A value given back may exceed the capacity for a while.)
  4. An ended channel has no parked receiver; a poisoned one, or one without receivers, no parked sender and no value.

Source: crates/weft-core/src/chan.rs, which this follows; Go, src/runtime/chan.go.  Laws: docs/design/laws.md.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from weft._pure.waiting import Case, Outcome, Queue, Waiter, claim

if TYPE_CHECKING:
    from types import TracebackType

    from weft._pure.transaction import Transaction

__all__ = ["Chan", "Reason", "add_end", "close", "give_back", "poison", "recv", "remove_receiver", "remove_sender"]
__all__ += ["can_recv", "can_send", "first_receiver", "first_sender", "parked", "send", "tell"]


class Reason(NamedTuple):
    """The exception given with a close, and the traceback it had then."""

    error: BaseException
    traceback: TracebackType | None


class Cell:
    """A value in the buffer, and the one behind it."""

    __slots__ = ("next", "value")

    def __init__(self, value: Any, next: Cell | None = None) -> None:
        self.value = value
        self.next = next


class Chan:
    """The state of a channel. `capacity` None: without a bound. `end`: how it ended, or None."""

    __slots__ = (
        "buffered",
        "capacity",
        "cause",
        "dropped",
        "end",
        "head",
        "overflow",
        "received",
        "receivers",
        "recvq",
        "sendq",
        "senders",
        "sent",
        "tail",
    )

    def __init__(self, capacity: int | None, overflow: str) -> None:
        self.capacity = capacity
        self.overflow = overflow
        self.head: Cell | None = None
        self.tail: Cell | None = None
        self.buffered = 0
        self.sendq, self.recvq = Queue(), Queue()
        self.end: Outcome | None = None
        self.cause: Reason | None = None
        self.senders: int | None = None
        self.receivers: int | None = None
        self.sent = self.received = self.dropped = 0


def first_receiver(tx: Transaction, chan: Chan) -> Case | None:
    """The first that waits to receive and can be met. Those before it, whose party is busy or gone, leave the queue."""
    return _first_waiting(tx, chan.recvq, must_come=True)


def first_sender(tx: Transaction, chan: Chan) -> Case | None:
    """The first that waits to send. Its party may be gone: what it had to give stays here, and is received."""
    return _first_waiting(tx, chan.sendq, must_come=False)


def _first_waiting(tx: Transaction, queue: Queue, *, must_come: bool) -> Case | None:
    while True:
        case: Case | None = tx.get(queue, "first")
        if case is None:
            return None
        waiter: Waiter = tx.get(case, "waiter")
        if tx.get(waiter, "_waiting") and not (must_come and waiter._is_gone()):
            return case
        waiter._passed(tx, case)


def _has_room(tx: Transaction, chan: Chan) -> bool:
    return chan.capacity is None or tx.get(chan, "buffered") < chan.capacity


def _push(tx: Transaction, chan: Chan, value: Any) -> None:
    cell, tail = Cell(value), tx.get(chan, "tail")
    if tail is None:
        tx.set(chan, "head", cell)
    else:
        tx.set(tail, "next", cell)
    tx.set(chan, "tail", cell)
    tx.add(chan, "buffered", 1)


def _pop(tx: Transaction, chan: Chan) -> Any:
    cell = tx.get(chan, "head")
    behind = tx.get(cell, "next")
    tx.set(chan, "head", behind)
    if behind is None:
        tx.set(chan, "tail", None)
    tx.add(chan, "buffered", -1)
    return cell.value


def send(tx: Transaction, chan: Chan, value: Any) -> tuple[Outcome, list[Any]]:
    """Send a value: what came of it, and what the overflow policy dropped."""
    end = tx.get(chan, "end")
    if end is not None:
        return end, []
    case = first_receiver(tx, chan)
    if case is not None:
        claim(tx, case, Outcome.DONE, value)
        tx.add(chan, "received", 1)
    elif _has_room(tx, chan):
        _push(tx, chan, value)
    elif chan.overflow == "block":
        return Outcome.WAIT, []
    elif chan.overflow == "error":
        return Outcome.FULL, []
    else:
        tx.add(chan, "sent", 1)
        tx.add(chan, "dropped", 1)
        if chan.overflow == "drop_newest":
            return Outcome.DONE, [value]
        oldest = _pop(tx, chan)
        _push(tx, chan, value)
        return Outcome.DONE, [oldest]
    tx.add(chan, "sent", 1)
    return Outcome.DONE, []


def recv(tx: Transaction, chan: Chan) -> tuple[Outcome, Any]:
    """Receive a value: what came of it, and the value."""
    if tx.get(chan, "buffered"):
        value = _pop(tx, chan)
        case = first_sender(tx, chan) if _has_room(tx, chan) else None
        if case is not None:
            _push(tx, chan, case.value)
            claim(tx, case, Outcome.DONE)
            tx.add(chan, "sent", 1)
    else:
        case = first_sender(tx, chan)
        if case is None:
            end = tx.get(chan, "end")
            # For who receives, a channel that its receivers left is closed.
            end = Outcome.CLOSED if end is Outcome.NO_RECEIVERS else end
            return end or Outcome.WAIT, None
        value = case.value
        claim(tx, case, Outcome.DONE)
        tx.add(chan, "sent", 1)
    tx.add(chan, "received", 1)
    return Outcome.DONE, value


def can_send(tx: Transaction, chan: Chan) -> bool:
    """Whether a send would be decided now, one way or the other."""
    decided = tx.get(chan, "end") is not None or chan.overflow != "block" or _has_room(tx, chan)
    return decided or first_receiver(tx, chan) is not None


def can_recv(tx: Transaction, chan: Chan) -> bool:
    """Whether a receive would be decided now."""
    decided = tx.get(chan, "buffered") or tx.get(chan, "end") is not None
    return decided or first_sender(tx, chan) is not None


def give_back(tx: Transaction, chan: Chan, value: Any) -> bool:
    """Put back a value whose receiver never came for it: to the first that waits, else to the front of the buffer, even
    of a full one. False: nobody can receive it any more, and it counts as dropped."""
    if tx.get(chan, "end") in (Outcome.POISONED, Outcome.NO_RECEIVERS):
        tx.add(chan, "received", -1)
        tx.add(chan, "dropped", 1)
        return False
    case = first_receiver(tx, chan)
    if case is not None:
        claim(tx, case, Outcome.DONE, value)
        return True
    cell = Cell(value, tx.get(chan, "head"))
    tx.set(chan, "head", cell)
    if cell.next is None:
        tx.set(chan, "tail", cell)
    tx.add(chan, "buffered", 1)
    tx.add(chan, "received", -1)
    return True


def tell(tx: Transaction, queue: Queue, outcome: Outcome) -> None:
    """End the wait of everybody in a queue. Who waits to send keeps the value."""
    while (case := _first_waiting(tx, queue, must_come=True)) is not None:
        claim(tx, case, outcome, case.value)


def _blame(tx: Transaction, chan: Chan, cause: Reason | None) -> None:
    """The first cause wins."""
    if tx.get(chan, "cause") is None:
        tx.set(chan, "cause", cause)


def close(tx: Transaction, chan: Chan, cause: Reason | None) -> None:
    """No more values; those that are buffered or parked are still delivered."""
    if tx.get(chan, "end") is None:
        tx.set(chan, "end", Outcome.CLOSED)
        _blame(tx, chan, cause)
        tell(tx, chan.recvq, Outcome.CLOSED)


def _stop(tx: Transaction, chan: Chan, end: Outcome, cause: Reason | None) -> list[Any]:
    tx.set(chan, "end", end)
    _blame(tx, chan, cause)
    tell(tx, chan.recvq, Outcome.CLOSED if end is Outcome.NO_RECEIVERS else end)
    tell(tx, chan.sendq, end)
    values: list[Any] = []
    cell = tx.get(chan, "head")
    while cell is not None:
        values.append(cell.value)
        cell = tx.get(cell, "next")
    tx.add(chan, "dropped", len(values))
    for name, empty in (("head", None), ("tail", None), ("buffered", 0)):
        tx.set(chan, name, empty)
    return values


def poison(tx: Transaction, chan: Chan, cause: Reason | None) -> list[Any]:
    """The end, at once, for both sides. The values that were buffered count as dropped."""
    return [] if tx.get(chan, "end") is Outcome.POISONED else _stop(tx, chan, Outcome.POISONED, cause)


def add_end(tx: Transaction, chan: Chan, side: str) -> bool:
    """Count one more of the "senders" or the "receivers". False: there can be none any more."""
    end = tx.get(chan, "end")
    if end is not None and (side == "senders" or end is not Outcome.CLOSED):
        return False
    tx.set(chan, side, (tx.get(chan, side) or 0) + 1)
    return True


def remove_sender(tx: Transaction, chan: Chan, cause: Reason | None) -> None:
    """One less; the last one closes, with the first cause that any of them gave."""
    tx.add(chan, "senders", -1)
    if tx.get(chan, "end") is None:
        _blame(tx, chan, cause)
    if tx.get(chan, "senders") == 0:
        close(tx, chan, None)


def remove_receiver(tx: Transaction, chan: Chan) -> list[Any]:
    """One less. After the last one every send fails, parked ones too, and the values that were buffered count as
    dropped."""
    tx.add(chan, "receivers", -1)
    if tx.get(chan, "receivers") or tx.get(chan, "end") in (Outcome.POISONED, Outcome.NO_RECEIVERS):
        return []
    return _stop(tx, chan, Outcome.NO_RECEIVERS, None)


def parked(tx: Transaction, queue: Queue) -> int:
    """How many wait in a queue."""
    count, case = 0, tx.get(queue, "first")
    while case is not None:
        count += tx.get(tx.get(case, "waiter"), "_waiting")
        case = tx.get(case, "after")
    return count
