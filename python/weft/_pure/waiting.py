"""Who waits, and where: cases in queues, and the waiters they belong to.

A waiter is one party's wait; it has a case for each thing it waits for, and each of those stands in one queue. Whoever
meets a case claims its waiter: in one transaction the case has its outcome and all cases of the waiter have left their
queues. So every case in a queue is open, and a select that was decided leaves nothing behind (L5).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft._pure.transaction import Transaction

__all__ = ["Case", "Outcome", "Queue", "Waiter", "append", "claim", "unlink"]


class Outcome(Enum):
    """What became of a case, or of a channel."""

    DONE = "done"
    WAIT = "would have to wait"
    FULL = "the buffer is full, and the overflow policy says error"
    CLOSED = "closed"
    NO_RECEIVERS = "without receivers"
    POISONED = "poisoned"


class Queue:
    """A FIFO of cases. A case is in one queue at most."""

    __slots__ = ("first", "last")

    def __init__(self) -> None:
        self.first: Case | None = None
        self.last: Case | None = None


class Waiter:
    """One party's wait. `_waiting`: its offer is open."""

    __slots__ = ("_waiting", "_won")

    def __init__(self) -> None:
        self._waiting = False
        self._won: int | None = None  # the position of the case that was met

    def _is_gone(self) -> bool:
        """Whether nobody will ever come for the result, because its loop was closed. Asked before it is met."""
        return False

    def _claimed(self, tx: Transaction, case: Case) -> None:
        """`case` was met: leave all queues, and be woken."""
        raise NotImplementedError

    def _passed(self, tx: Transaction, case: Case) -> None:
        """Its case is first in a queue and cannot be met now: get it out of there."""
        raise NotImplementedError


class Case:
    """One thing that a waiter waits for, and its place in a queue."""

    __slots__ = ("after", "before", "index", "outcome", "queue", "value", "waiter")

    def __init__(self, value: Any = None) -> None:
        self.before: Case | None = None
        self.after: Case | None = None
        self.queue: Queue | None = None
        self.waiter: Waiter | None = None  # while it is parked
        self.index = 0
        self.value = value
        self.outcome: Outcome | None = None


def append(tx: Transaction, queue: Queue, case: Case) -> None:
    """Put a case, which is in no queue, at the end of one."""
    last = tx.get(queue, "last")
    tx.set(case, "before", last)
    tx.set(case, "queue", queue)
    tx.set(queue, "last", case)
    if last is None:
        tx.set(queue, "first", case)
    else:
        tx.set(last, "after", case)


def unlink(tx: Transaction, case: Case) -> None:
    """Take a case out of its queue, if it is in one."""
    queue = tx.get(case, "queue")
    if queue is None:
        return
    before, after = tx.get(case, "before"), tx.get(case, "after")
    if before is None:
        tx.set(queue, "first", after)
    else:
        tx.set(before, "after", after)
    if after is None:
        tx.set(queue, "last", before)
    else:
        tx.set(after, "before", before)
    for name in ("before", "after", "queue"):
        tx.set(case, name, None)


def claim(tx: Transaction, case: Case, outcome: Outcome, value: Any = None) -> None:
    """Meet a case that is first in its queue."""
    tx.set(case, "outcome", outcome)
    tx.set(case, "value", value)
    tx.get(case, "waiter")._claimed(tx, case)
