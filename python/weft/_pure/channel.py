"""`Channel`, and what it shares with its ends: the calls that make operations or act at once."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, final

from weft._pure import arguments, chan, errors
from weft._pure.cases import (
    AlwaysCase,
    ClosingCase,
    RecvCase,
    RecvManyCase,
    RecvNextCase,
    SendCase,
    SendManyCase,
)
from weft._pure.dropped import finalize, unraisable
from weft._pure.op import make
from weft._pure.origin import Origin, here
from weft._pure.transaction import transact
from weft._pure.waiting import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weft._pure.op import Op
    from weft._weft import Statistics
else:
    from weft._results import Statistics

__all__ = ["Channel", "End", "Receiver", "Sender"]

EndT = TypeVar("EndT", bound="End")

_UNBOUNDED: Any = object()
_DROPPED = Origin("dropped", 0)
_POLICIES = ("block", "drop_oldest", "drop_newest", "error")


class Shared:
    """What a channel and its ends have in common."""

    __slots__ = ()

    _channel: Channel

    def _as_end(self) -> End | None:
        return None

    def _check(self, *value: Any) -> None:
        """Refuse what must not be used any more, in a call that acts at once."""
        self._channel._check_fork()
        end = self._as_end()
        if end is not None and end._closed:
            raise errors.end_closed(end, *value)

    def statistics(self) -> Statistics:
        self._channel._check_fork()
        return transact(self._channel._statistics)

    @property
    def name(self) -> str:
        return self._channel._name or str(self._channel._made_at)

    @property
    def capacity(self) -> int | None:
        self._channel._check_fork()
        return self._channel._chan.capacity

    @property
    def closed(self) -> bool:
        self._channel._check_fork()
        end = self._as_end()
        return (end is not None and end._closed) or self._channel._chan.end is not None

    def __len__(self) -> int:
        self._channel._check_fork()
        return self._channel._chan.buffered

    def __bool__(self) -> Literal[True]:
        return True

    def __reduce__(self) -> NoReturn:
        raise arguments.not_to_pickle(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> Literal[False]:
        self.close()
        return False

    def __aenter__(self) -> Op:
        return make(AlwaysCase(self))

    def __aexit__(self, *_: object) -> Op:
        self.close()
        return make(AlwaysCase(False))

    def close(self) -> None:
        raise NotImplementedError


class Sending(Shared):
    """What sends."""

    __slots__ = ()

    def send(self, value: Any, /) -> Op:
        return make(SendCase(self._channel, self._as_end(), value))

    def send_nowait(self, value: Any, /) -> None:
        self._check(value)
        outcome, displaced = transact(chan.send, self._channel._chan, value)
        if outcome is Outcome.DONE:
            self._channel._undelivered(displaced)
        elif outcome in (Outcome.WAIT, Outcome.FULL):
            raise errors.would_block(self._channel, value)
        else:
            raise errors.ended_send(self._channel, outcome, value)

    def send_many(self, values: Sequence[Any], /) -> Op:
        listed = list(values)
        if not listed:
            raise ValueError("send_many() was given an empty sequence: it needs at least one value")
        return make(SendManyCase(self._channel, self._as_end(), listed))


class Receiving(Shared):
    """What receives."""

    __slots__ = ()

    def recv(self) -> Op:
        return make(RecvCase(self._channel, self._as_end()))

    def recv_nowait(self) -> Any:
        self._check()
        outcome, value = transact(chan.recv, self._channel._chan)
        if outcome is Outcome.DONE:
            return value
        if outcome is Outcome.WAIT:
            raise errors.would_block(self._channel)
        raise errors.ended_recv(self._channel, outcome)

    def recv_many(self, max: int, /) -> Op:
        return make(RecvManyCase(self._channel, self._as_end(), arguments.count(max, "max", 1)))

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
        return make(RecvNextCase(self._channel, self._as_end()))


@final
class Channel(Sending, Receiving):
    __slots__ = ("__weakref__", "_chan", "_closed_at", "_forks", "_made_at", "_name", "_on_left", "_on_undelivered")
    __module__ = "weft"

    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def __init__(
        self,
        capacity: Any = 0,
        *,
        overflow: str = "block",
        on_undelivered: Callable[[Any], object] | None = None,
        name: Any = None,
    ) -> None:
        room: int | None = None
        if capacity is None:
            raise TypeError("capacity must be an int, not None; for a channel without a bound say Channel.unbounded()")
        if capacity is not _UNBOUNDED:
            room = arguments.count(capacity, "capacity", 0)
        if overflow not in _POLICIES:
            raise ValueError(
                f'unknown overflow policy \'{overflow}\': it is "block", "drop_oldest", "drop_newest" or "error"'
            )
        if overflow == "drop_oldest" and room == 0:
            raise ValueError(
                'overflow="drop_oldest" needs a capacity of at least 1: a rendezvous holds no older value to drop'
            )
        if on_undelivered is not None and not callable(on_undelivered):
            raise TypeError(f"on_undelivered must be callable or None, not {type(on_undelivered).__name__}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str or None, not {type(name).__name__}")
        self._chan = chan.Chan(room, overflow)
        self._forks = arguments.fork_count()
        self._name = name
        self._on_undelivered = on_undelivered
        self._on_left: Callable[[], object] | None = None
        self._made_at = here()
        self._closed_at: Origin | None = None

    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("type 'weft.Channel' is not an acceptable base type")

    @classmethod
    def unbounded(cls, *, on_undelivered: Callable[[Any], object] | None = None, name: str | None = None) -> Self:
        return cls(_UNBOUNDED, on_undelivered=on_undelivered, name=name)

    @property
    def _channel(self) -> Channel:  # type: ignore[override]
        return self

    def _is_inherited(self) -> bool:
        return self._forks != arguments.fork_count()

    def _check_fork(self) -> None:
        """Refuse a channel that was made before this process was forked."""
        if self._is_inherited():
            raise errors.forked(self)

    def _description(self) -> str:
        """`channel 'jobs' (capacity 8, made at app.py:12)`."""
        if self._is_inherited():
            capacity = ""
        else:
            capacity = "unbounded, " if self._chan.capacity is None else f"capacity {self._chan.capacity}, "
        return f"channel '{self.name}' ({capacity}made at {self._made_at})"

    def _undelivered(self, values: list[Any]) -> None:
        """Report values that nobody will receive."""
        if self._on_undelivered is not None:
            for value in values:
                try:
                    self._on_undelivered(value)
                except BaseException as error:
                    unraisable(error, self._on_undelivered)

    def __del__(self) -> None:
        if getattr(self, "_on_undelivered", None) is not None and not self._is_inherited():
            finalize(self._give_up_the_rest)

    def _give_up_the_rest(self) -> None:
        while (met := transact(chan.recv, self._chan))[0] is Outcome.DONE:
            self._undelivered([met[1]])

    def _statistics(self, tx: Any) -> Statistics:
        numbers = {
            name: tx.get(self._chan, name)
            for name in ("buffered", "senders", "receivers", "sent", "received", "dropped")
        }
        return Statistics(
            name=self.name,
            capacity=self._chan.capacity,
            parked_senders=chan.parked(tx, self._chan.sendq),
            parked_receivers=chan.parked(tx, self._chan.recvq),
            **numbers,
        )

    def _note_closed(self) -> None:
        """Before anybody can see it closed."""
        if self._closed_at is None:
            self._closed_at = here()

    def close(self, error: BaseException | type[BaseException] | None = None) -> None:
        self._check_fork()
        cause = arguments.reason(error)
        if self._chan.end is None:
            self._note_closed()
        transact(chan.close, self._chan, cause)

    def poison(self, error: BaseException | type[BaseException] | None = None) -> None:
        self._check_fork()
        cause = arguments.reason(error)
        self._note_closed()
        self._undelivered(transact(chan.poison, self._chan, cause))

    def sender(self) -> Sender:
        return new_end(Sender, self)

    def receiver(self) -> Receiver:
        return new_end(Receiver, self)

    def split(self) -> tuple[Sender, Receiver]:
        return self.sender(), self.receiver()

    def _closing(self) -> Op:
        return make(ClosingCase(self, None))

    def _when_left(self, call: Callable[[], object] | None, /) -> None:
        self._on_left = call

    def _receiver_left(self) -> None:
        """A receiver has left: if it was the last, whoever asked for it is told, once."""
        if self._chan.end is Outcome.NO_RECEIVERS:
            call, self._on_left = self._on_left, None
            if call is not None:
                try:
                    call()
                except Exception as error:
                    unraisable(error, call)

    def __repr__(self) -> str:
        if self._is_inherited():
            return f"<weft.Channel '{self.name}' inherited over a fork>"
        now = self.statistics()
        capacity = "unbounded" if now.capacity is None else now.capacity
        end = "" if self._chan.end is None else f" {self._chan.end.value}"
        return (
            f"<weft.Channel '{self.name}' {now.buffered}/{capacity} buffered, "
            f"{now.parked_senders} sending, {now.parked_receivers} receiving{end}>"
        )


class End(Shared):
    """A counted end of a channel."""

    __slots__ = ("_channel", "_closed", "_closed_at")

    _side: Literal["senders", "receivers"]
    _channel: Channel
    _closed: bool
    _closed_at: Origin | None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        raise arguments.instead_of_making(cls.__name__)

    def __class_getitem__(cls, item: Any, /) -> GenericAlias:
        return GenericAlias(cls, item)

    def _as_end(self) -> End:
        return self

    def clone(self) -> Self:
        if self._closed:
            raise errors.end_closed(self)
        return new_end(type(self), self._channel)

    def _leave(self, error: Any, place: Origin) -> None:
        """Give it up, once."""
        cause = arguments.reason(error)
        if not self._channel._is_inherited():
            self._channel._undelivered(transact(self._leaving, cause, place))
            if self._side == "receivers":
                self._channel._receiver_left()

    def _leaving(self, tx: Any, cause: Any, place: Origin) -> list[Any]:
        if tx.get(self, "_closed"):
            return []
        tx.set(self, "_closed", True)
        tx.set(self, "_closed_at", place)
        if self._side == "receivers":
            return chan.remove_receiver(tx, self._channel._chan)
        chan.remove_sender(tx, self._channel._chan, cause)
        return []

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            finalize(lambda: self._leave(None, _DROPPED))

    def __repr__(self) -> str:
        closed = " closed" if self._closed else ""
        return f"<weft.{type(self).__name__} of '{self.name}'{closed}>"


@final
class Sender(End, Sending):
    __slots__ = ()
    __module__ = "weft"
    _side = "senders"

    def close(self, error: BaseException | type[BaseException] | None = None) -> None:
        self._leave(error, here())


@final
class Receiver(End, Receiving):
    __slots__ = ()
    __module__ = "weft"
    _side = "receivers"

    def close(self) -> None:
        self._leave(None, here())


def new_end(kind: type[EndT], channel: Any) -> EndT:
    """A new end of `channel`."""
    if not isinstance(channel, Channel):
        raise TypeError(f"a weft.Channel is needed, not {type(channel).__name__}")
    channel._check_fork()
    end = arguments.instance(kind)
    end._channel, end._closed, end._closed_at = channel, True, None
    if not transact(_counting, end, channel._chan):
        raise errors.no_more_ends(channel, end._side)
    return end


def _counting(tx: Any, end: End, state: chan.Chan) -> bool:
    """Counted and open are one: an exception in between would leave an end that nobody can close."""
    added = chan.add_end(tx, state, end._side)
    if added:
        tx.set(end, "_closed", False)
    return added
