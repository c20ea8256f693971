"""`Barrier`: so many parties meet, again and again. The last to come takes all the others, in one transaction.

Source: Hoare 1985, section 2.3 (an event in which several processes take part).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from weft._pure import arguments
from weft._pure.cases import OpCase
from weft._pure.op import make
from weft._pure.transaction import transact
from weft._pure.waiting import Case, Outcome, Queue, Waiter, append, claim

if TYPE_CHECKING:
    from weft._pure.op import Op
    from weft._pure.transaction import Transaction

__all__ = ["Barrier"]


class SyncCase(OpCase):
    """`value` is the order of arrival, 0 the first."""

    __slots__ = ("barrier",)
    what = "barrier sync"

    def __init__(self, barrier: Barrier) -> None:
        super().__init__()
        self.barrier = barrier

    def ready(self, tx: Transaction) -> bool:
        return len(self.barrier._present(tx)) + 1 >= self.barrier._parties

    def commit(self, tx: Transaction) -> bool:
        present = self.barrier._present(tx)
        if len(present) + 1 < self.barrier._parties:
            return False
        for arrival, case in enumerate(present.values()):
            claim(tx, case, Outcome.DONE, arrival)
        tx.set(self, "value", len(present))
        return True

    def park(self, tx: Transaction) -> None:
        append(tx, self.barrier._queue, self)

    def result(self) -> Any:
        return self.value


@final
class Barrier:
    __slots__ = ("__weakref__", "_parties", "_queue")
    __module__ = "weft"

    def __init__(self, parties: int) -> None:
        self._parties = arguments.count(parties, "parties", 1)
        self._queue = Queue()

    def sync(self) -> Op:
        return make(SyncCase(self))

    @property
    def parties(self) -> int:
        return self._parties

    @property
    def waiting(self) -> int:
        return len(transact(self._present))

    def _present(self, tx: Transaction) -> dict[Waiter, Case]:
        """Who waits here, in order of arrival. A select that stands here twice is one party, with its first case."""
        present: dict[Waiter, Case] = {}
        case: Case | None = tx.get(self._queue, "first")
        while case is not None:
            after = tx.get(case, "after")
            waiter: Waiter = tx.get(case, "waiter")
            if waiter.is_gone():
                waiter.passed(tx, case)
            else:
                present.setdefault(waiter, case)
            case = after
        return present
