"""`Barrier`: so many parties meet, again and again. The last to come takes all the others, in one transaction.

Source: Hoare 1985, section 2.3 (an event in which several processes take part).
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from weft._errors import ForkedChannelError
from weft._pure import arguments
from weft._pure.cases import OpCase
from weft._pure.op import make
from weft._pure.origin import here
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

    def prepare(self) -> None:
        self.barrier._check_fork()

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
    __slots__ = ("__weakref__", "_forks", "_made", "_parties", "_queue")
    __module__ = "weft"

    def __init__(self, parties: int) -> None:
        self._parties = arguments.count(parties, "parties", 1)
        self._queue = Queue()
        self._forks = arguments.fork_count()
        self._made = here()

    def sync(self) -> Op:
        self._check_fork()
        return make(SyncCase(self))

    @property
    def parties(self) -> int:
        return self._parties

    @property
    def waiting(self) -> int:
        self._check_fork()
        return len(transact(self._present))

    def __repr__(self) -> str:
        inherited = self._forks != arguments.fork_count()
        waiting = "inherited over a fork" if inherited else f"{self.waiting} of {self._parties} waiting"
        return f"<weft.Barrier {waiting}, made at {self._made}>"

    def _check_fork(self) -> None:
        """Refuse a barrier that was made before this process was forked: whoever waits at it is not here."""
        if self._forks != arguments.fork_count():
            raise ForkedChannelError(
                f"the barrier made at {self._made} belongs to the parent process: it does not reach over a fork; make a new "
                "one in the child"
            )

    def _present(self, tx: Transaction) -> dict[Waiter, Case]:
        """Who waits here, in order of arrival. A select that stands here twice is one party, with its first case."""
        present: dict[Waiter, Case] = {}
        case: Case | None = tx.get(self._queue, "first")
        while case is not None:
            after = tx.get(case, "after")
            waiter: Waiter = tx.get(case, "waiter")
            if waiter._is_gone():
                waiter._passed(tx, case)
            else:
                present.setdefault(waiter, case)
            case = after
        return present
