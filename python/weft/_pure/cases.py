"""What an operation can wait for: the kinds of case. Those on a channel are here; clocks, descriptors and barriers bring
their own.

A case is first prepared (a look at what is outside of any transaction), then tried: `commit` decides it if it can be
decided now, else `park` puts it in its queue. What is outside of all queues is decided by whoever watches it, with
`Op._fire`. A decided case has failed or has a result, or is undone when nobody takes that. Asking for a
failure or a result can be repeated: an exception of a signal handler may come in between.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from weft._pure import chan, errors
from weft._pure.transaction import transact
from weft._pure.waiting import Case, Outcome, append

if TYPE_CHECKING:
    from weft._pure.channel import Channel, End
    from weft._pure.transaction import Transaction

__all__ = ["AlwaysCase", "ChannelCase", "ClosingCase", "NeverCase", "OpCase", "RecvCase", "RecvManyCase"]
__all__ += ["RecvNextCase", "SendCase", "SendManyCase", "put_back"]


class OpCase(Case):
    """A case of an operation."""

    __slots__ = ()

    what: ClassVar[str]

    def prepare(self) -> None:
        """Look at what is outside of any transaction, and refuse what must not be used any more."""

    def ready(self, tx: Transaction) -> bool:
        """Whether `commit` would decide it."""
        return False

    def commit(self, tx: Transaction) -> bool:
        """Decide it, if that can be done now."""
        return self.ready(tx)

    def park(self, tx: Transaction) -> None:
        """Put it in its queue, if it has one."""

    def failure(self) -> BaseException | None:
        """Of a decided one: what it has failed with."""
        return None

    def result(self) -> Any:
        """Of a decided one that has not failed."""

    def undo(self) -> None:
        """Of a decided one: nobody takes the result."""

    def due(self) -> float | None:
        """Of one that a clock decides: when, on `time.monotonic()`."""

    def is_a_turn(self) -> bool:
        """Whether it is `after(0)`, which is `sleep(0)`: whoever awaits that means to let the others run."""
        return False

    def descriptor(self) -> tuple[int, bool] | None:
        """Of one that a descriptor decides: which, and whether for writing."""

    def __str__(self) -> str:
        return self.what


class AlwaysCase(OpCase):
    """Ready, with its value."""

    __slots__ = ()
    what = "always"

    def ready(self, tx: Transaction) -> bool:
        return True

    def result(self) -> Any:
        return self.value


class NeverCase(OpCase):
    __slots__ = ()
    what = "never"


class ChannelCase(OpCase):
    """A case on a channel, through one of its ends or not. `dead`: that end is closed."""

    __slots__ = ("channel", "dead", "end")

    def __init__(self, channel: Channel, end: End | None, value: Any = None) -> None:
        super().__init__(value)
        self.channel = channel
        self.end = end
        self.dead = False

    def prepare(self) -> None:
        self.channel._check_fork()
        self.dead = self.end is not None and self.end._closed

    def __str__(self) -> str:
        return f"{self.what} on {self.channel._description()}"


class SendCase(ChannelCase):
    """`value` is what is to be sent, and still is when the send has failed."""

    __slots__ = ("displaced",)
    what = "send"

    def __init__(self, channel: Channel, end: End | None, value: Any) -> None:
        super().__init__(channel, end, value)
        self.displaced: list[Any] = []

    def ready(self, tx: Transaction) -> bool:
        return self.dead or chan.can_send(tx, self.channel._chan)

    def commit(self, tx: Transaction) -> bool:
        if self.dead:
            return True
        outcome, displaced = chan.send(tx, self.channel._chan, self.value)
        if outcome is Outcome.WAIT:
            return False
        tx.set(self, "outcome", outcome)
        tx.set(self, "displaced", displaced)
        if outcome is Outcome.DONE:
            tx.set(self, "value", None)
        return True

    def park(self, tx: Transaction) -> None:
        append(tx, self.channel._chan.sendq, self)

    def unsent(self) -> Any:
        """What the error of a send carries."""
        return self.value

    def failure(self) -> BaseException | None:
        if self.dead and self.end is not None:
            return errors.end_closed(self.end, self.unsent())
        if self.outcome is Outcome.FULL:
            return errors.would_block(self.channel, self.unsent())
        if self.outcome is not Outcome.DONE and self.outcome is not None:
            return errors.ended_send(self.channel, self.outcome, self.unsent())
        return None

    def result(self) -> Any:
        displaced, self.displaced = self.displaced, []
        self.channel._undelivered(displaced)

    def undo(self) -> None:
        if self.outcome is Outcome.DONE:
            self.result()  # what was sent is sent


class SendManyCase(SendCase):
    """The first value goes as any other; the rest when that has gone."""

    __slots__ = ("count", "rest")
    what = "send_many"

    def __init__(self, channel: Channel, end: End | None, values: list[Any]) -> None:
        super().__init__(channel, end, values[0])
        self.rest = values[1:]
        self.count = 0

    def unsent(self) -> Any:
        return [self.value, *self.rest]

    def result(self) -> Any:
        if not self.count:
            transact(self._send_rest)
        super().result()
        return self.count

    def _send_rest(self, tx: Transaction) -> None:
        count, all_displaced = 1, list(self.displaced)
        for value in self.rest:
            outcome, displaced = chan.send(tx, self.channel._chan, value)
            if outcome is not Outcome.DONE:
                break
            count += 1
            all_displaced += displaced
        tx.set(self, "count", count)
        tx.set(self, "displaced", all_displaced)
        tx.set(self, "rest", [])


class RecvCase(ChannelCase):
    """`value` is what was received."""

    __slots__ = ()
    what = "recv"

    def ready(self, tx: Transaction) -> bool:
        return self.dead or chan.can_recv(tx, self.channel._chan)

    def commit(self, tx: Transaction) -> bool:
        if self.dead:
            return True
        outcome, value = chan.recv(tx, self.channel._chan)
        if outcome is Outcome.WAIT:
            return False
        tx.set(self, "outcome", outcome)
        tx.set(self, "value", value)
        return True

    def park(self, tx: Transaction) -> None:
        append(tx, self.channel._chan.recvq, self)

    def failure(self) -> BaseException | None:
        if self.dead and self.end is not None:
            return errors.end_closed(self.end)
        if self.outcome is not Outcome.DONE and self.outcome is not None:
            return self.ended(self.outcome)
        return None

    def result(self) -> Any:
        return self.value

    def ended(self, outcome: Outcome) -> BaseException:
        """What it has failed with when the channel has ended."""
        return errors.ended_recv(self.channel, outcome)

    def undo(self) -> None:
        if self.outcome is Outcome.DONE:
            value, self.value = self.value, None
            put_back(self.channel, value)


class RecvNextCase(RecvCase):
    """A receive that ends an iteration when the channel has ended."""

    __slots__ = ()

    def ended(self, outcome: Outcome) -> BaseException:
        if errors.ends_quietly(self.channel, outcome):
            return StopAsyncIteration()
        return super().ended(outcome)


class RecvManyCase(RecvCase):
    """The first value comes as any other; what is there besides, when that has come."""

    __slots__ = ("most", "values")
    what = "recv_many"

    def __init__(self, channel: Channel, end: End | None, most: int) -> None:
        super().__init__(channel, end)
        self.most = most
        self.values: list[Any] = []

    def result(self) -> Any:
        if not self.values:
            transact(self._recv_rest)
        return self.values

    def _recv_rest(self, tx: Transaction) -> None:
        values = [self.value]
        while len(values) < self.most:
            outcome, value = chan.recv(tx, self.channel._chan)
            if outcome is not Outcome.DONE:
                break
            values.append(value)
        tx.set(self, "values", values)


class ClosingCase(RecvCase):
    """Completes with True once the channel is closed. For channels that nobody sends to."""

    __slots__ = ()
    what = "wait"

    def failure(self) -> BaseException | None:
        return None

    def result(self) -> Any:
        return True

    def __str__(self) -> str:
        # What has such a channel has named it for this: an event, or a process that is joined.
        return f"{self.what} for {self.channel.name}"


def put_back(channel: Channel, value: Any) -> None:
    """A value was committed to a receiver that does not come for it."""
    if not transact(chan.give_back, channel._chan, value):
        channel._undelivered([value])
