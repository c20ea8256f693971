"""The types of the extension module. This file is also the home of their docstrings: the build copies them into the
module."""

from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Sequence
from contextvars import Context
from types import GenericAlias, TracebackType
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    Never,
    NoReturn,
    Protocol,
    Self,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
    type_check_only,
)

from weft._group import Group
from weft._process import Process
from weft._task_methods import TaskMethods

__version__: str
_steps_tasks: bool

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_T_contra = TypeVar("_T_contra", contravariant=True)
_U = TypeVar("_U")
_Ts = TypeVarTuple("_Ts")
_CaseT_co = TypeVar("_CaseT_co", covariant=True)
_ValueT_co = TypeVar("_ValueT_co", covariant=True)
_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_D = TypeVar("_D")
_E = TypeVar("_E")
_Default = TypeVar("_Default")
_CaseT = TypeVar("_CaseT", bound=Hashable)

@type_check_only
class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_FileT = TypeVar("_FileT", bound=int | _HasFileno)

@final
class Op(Generic[_T_co]):
    """An operation: something that may have to wait, not yet done.

    Making one does nothing. It is performed once, by `await op` in asyncio or by `op.wait()` in a thread, or it becomes
    a case of a `select`; a second time raises `RuntimeError`. One that is dropped without being performed gives a
    `RuntimeWarning` that names the line that made it.

    It keeps alive what it was made from. Cancelled while it waits, it is as if it was never tried: a `recv` has taken
    nothing, a `send` has given nothing. When it had already happened as the cancellation came, it completes with its
    result, and the cancellation is raised where the caller waits next.

    Source: events in Concurrent ML (Reppy 1991), of which `map` is the wrap; committing before waking is weft's.
    """

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __await__(self) -> Generator[Any, Any, _T_co]: ...
    def wait(self, timeout: float | None = None) -> _T_co:
        """Perform it by blocking this thread, and return its result.

        The timeout is in seconds: None waits for ever, 0 does it now or not at all. An exception from a signal handler
        (Ctrl-C) ends the wait, and in a process of a group so does being cancelled.

        Raises TimeoutError when the time is up (nothing has happened then), BlockingInLoopError when it would have to
        wait and this thread runs an event loop, Cancelled in a process that was cancelled, ValueError for a timeout
        that is negative or not a number, RuntimeError for an operation that was performed before.
        """

    # The steps of a performance, for `weft.lowlevel`, where they are explained.
    def _begin(self) -> bool: ...
    def _park(self, wake: Callable[[], object], gone: Callable[[], bool] | None = None, /) -> bool: ...
    def _resume(self) -> bool: ...
    def _withdraw(self) -> bool: ...
    def _take(self) -> _T_co: ...
    def _undo(self) -> None: ...
    def _skip(self) -> None: ...
    def _is_ready(self) -> bool: ...
    def _is_outside(self) -> bool: ...
    def _describe(self) -> str: ...
    def _party(self) -> object: ...
    def _timer(self) -> tuple[float, int] | None: ...
    def _descriptors(self) -> list[tuple[int, bool, int]]: ...
    def _fire(self, case: int, /) -> bool: ...
    def map(self, function: Callable[[_T_co], _U], /) -> Op[_U]:
        """Have `function` applied to the result, and return this same operation.

        The one who performs it calls the function, after it has happened: what the function raises is raised to the
        caller and undoes nothing. Several functions are applied in the order given.

        Source: wrap in Concurrent ML (Reppy 1991).
        """

@final
class Channel(Generic[_T]):
    """A channel: values go in at one side and come out at the other, in order, each to one receiver.

    With capacity 0, the default, sender and receiver meet: `send` completes when a receiver has taken the value. With a
    capacity of n, up to n values wait in a buffer. It can be used from any number of tasks, threads and greenlets at the
    same time.

    `capacity` is an int of 0 or more. `overflow` says what happens to a value sent when the buffer is full and nobody
    is waiting to receive: with "block" the sender waits, "drop_oldest" drops the oldest value of the buffer,
    "drop_newest" drops the value being sent, and "error" raises WouldBlock. `on_undelivered` is called with each value
    that nobody will ever receive, by whoever caused that (by a thread of weft's, when that was in another place), and
    must not raise. `name` is for messages; without one it is
    the file and line of the creation.

    Iterating, with `for` or `async for`, receives until the channel is closed and drained; it raises what the channel
    was closed with, if anything, or Poisoned. As a context manager, `with` or `async with`, it is closed on leaving.

    A channel is over in one of three ways. `close`: no more values, those already sent are still received. `poison`:
    stop now. Counted ends (`sender`, `receiver`): the last one to go closes the channel, or tells the senders that
    nobody is left.

    Every method may be called from any thread. A channel is always true, also when it is empty.

    Source: Hoare 1978, "Communicating sequential processes"; the Go specification, "Channel types".
    """

    def __new__(
        cls,
        capacity: int = 0,
        *,
        overflow: Literal["block", "drop_oldest", "drop_newest", "error"] = "block",
        on_undelivered: Callable[[_T], object] | None = None,
        name: str | None = None,
    ) -> Self: ...
    @classmethod
    def unbounded(cls, *, on_undelivered: Callable[[_T], object] | None = None, name: str | None = None) -> Self:
        """A channel without a bound: sending never waits, and memory is the only limit. The arguments are those of
        `Channel`."""

    def send(self, value: _T, /) -> Op[None]:
        """An operation that sends one value, which may be any object, None too.

        It completes when a receiver has taken the value or the buffer has. Cancelled while it waits, it has sent
        nothing.

        Performing it raises Closed, Poisoned or NoReceivers, each with the value as `.value`, and WouldBlock when the
        buffer is full and the overflow policy is "error".
        """

    def recv(self) -> Op[_T]:
        """An operation that receives one value.

        Those who wait are served in the order they came. Cancelled while it waits, it has taken nothing.

        Performing it raises Closed when the channel is closed and drained (or the error it was closed with), and
        Poisoned.
        """

    def send_nowait(self, value: _T, /) -> None:
        """Send one value now. Raises WouldBlock when that would have to wait, else the same as `send`; `.value` is the
        value."""

    def recv_nowait(self) -> _T:
        """Receive one value now. Raises WouldBlock when there is none, else the same as `recv`."""

    def send_many(self, values: Sequence[_T], /) -> Op[int]:
        """An operation that sends at least one of the values, then as many as there is room or a receiver for without
        waiting.

        Its result is how many were sent, counted from the front, as with `socket.send`: send the rest again. Cancelled
        while it waits, it has sent nothing. ValueError when there are no values. Performing it raises the same as
        `send`, when not even the first was sent; `.value` is then all of the values.
        """

    def recv_many(self, max: int, /) -> Op[list[_T]]:
        """An operation that receives at least one value, then as many as are there without waiting, up to `max` (1 or
        more).

        Its result is a list, in order. Cancelled while it waits, it has taken nothing. Performing it raises the same as
        `recv`.
        """

    def close(self, error: BaseException | type[BaseException] | None = None) -> None:
        """Over, drain: nothing more can be sent; what was sent is still received, also by those who come later.

        After that receivers get Closed, or `error` itself with the traceback it has now. Senders get Closed, with
        `error` as its `__cause__`; but a send that was waiting already is still delivered. Closing again changes
        nothing: the first error counts.
        """

    def poison(self, error: BaseException | type[BaseException] | None = None) -> None:
        """Stop now: both sides get Poisoned at once, those who wait too, with `error` as its `__cause__`.

        Values in the buffer are dropped: counted, and given to `on_undelivered`. A sender that was waiting has its
        value back, as `.value`. Poisoning a closed channel drops what was left; poisoning again changes nothing.

        Source: poison in JCSP (Welch and Martin 2000; Brown 2008).
        """

    def sender(self) -> Sender[_T]:
        """A new sending end. From the first one on the channel closes when the last of them is closed or dropped."""

    def receiver(self) -> Receiver[_T]:
        """A new receiving end. From the first one on, sending raises NoReceivers once the last of them is closed or
        dropped."""

    def split(self) -> tuple[Sender[_T], Receiver[_T]]:
        """One new end of each kind: `tx, rx = ch.split()`."""

    def statistics(self) -> Statistics:
        """The channel's numbers, all taken at one moment. It looks at each party that waits: the more there are, the
        longer that takes."""

    @property
    def name(self) -> str:
        """The name given, else the file and line that made the channel."""

    @property
    def capacity(self) -> int | None:
        """How many values the buffer holds; None when it has no bound."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more, by `close`, `poison` or the count of ends. Values may still be in the
        buffer."""

    def _closing(self) -> Op[bool]:
        """An operation that completes with True once the channel is closed, and takes nothing from it."""

    def _when_left(self, call: Callable[[], object] | None, /) -> None:
        """Have `call()` made, once, when the last receiver has left, by who closed or dropped it. None: not any more."""

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> _T: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Op[_T]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]: ...
    def __aenter__(self) -> Op[Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Op[Literal[False]]: ...

@final
class Sender(Generic[_T_contra]):
    """A counted sending end of a channel, made by `Channel.sender`, `Channel.split` or `clone`.

    Each party that sends holds one of its own and closes it when it has nothing more to send (leaving a `with` or
    `async with` block does that); the last one closes the channel. An end that is garbage collected counts as closed.

    Source: Rust's `std::sync::mpsc::Sender`; trio's memory channels.
    """

    def send(self, value: _T_contra, /) -> Op[None]:
        """As `Channel.send`. Performing it raises Closed when this end was closed."""

    def send_nowait(self, value: _T_contra, /) -> None:
        """As `Channel.send_nowait`. Raises Closed when this end was closed."""

    def send_many(self, values: Sequence[_T_contra], /) -> Op[int]:
        """As `Channel.send_many`. Performing it raises Closed when this end was closed."""

    def clone(self) -> Self:
        """Another end of the same channel, counted by itself. Raises Closed when this end was closed."""

    def close(self, error: BaseException | type[BaseException] | None = None) -> None:
        """This end is done. When it was the last one the channel closes, with the first error any of them gave. Closing
        again changes nothing."""

    def statistics(self) -> Statistics:
        """The channel's numbers, all taken at one moment. It looks at each party that waits: the more there are, the
        longer that takes."""

    @property
    def name(self) -> str:
        """The channel's name."""

    @property
    def capacity(self) -> int | None:
        """How many values the channel buffers; None when it has no bound."""

    @property
    def closed(self) -> bool:
        """Whether this end, or its channel, was closed."""

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]: ...
    def __aenter__(self) -> Op[Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Op[Literal[False]]: ...

@final
class Receiver(Generic[_T_co]):
    """A counted receiving end of a channel, made by `Channel.receiver`, `Channel.split` or `clone`.

    Each party that receives holds one of its own and closes it when it wants no more (leaving a `with` or `async with`
    block does that); after the last one the senders are told, those that wait too, and what was in the buffer is
    dropped. An end that is garbage collected counts as closed. Iterating receives until the channel is closed and
    drained.

    Source: Rust's `std::sync::mpsc::Receiver`; trio's memory channels.
    """

    def recv(self) -> Op[_T_co]:
        """As `Channel.recv`. Performing it raises Closed when this end was closed."""

    def recv_nowait(self) -> _T_co:
        """As `Channel.recv_nowait`. Raises Closed when this end was closed."""

    def recv_many(self, max: int, /) -> Op[list[_T_co]]:
        """As `Channel.recv_many`. Performing it raises Closed when this end was closed."""

    def clone(self) -> Self:
        """Another end of the same channel, counted by itself. Raises Closed when this end was closed."""

    def close(self) -> None:
        """This end wants no more. When it was the last one, senders get NoReceivers. Closing again changes nothing."""

    def statistics(self) -> Statistics:
        """The channel's numbers, all taken at one moment. It looks at each party that waits: the more there are, the
        longer that takes."""

    @property
    def name(self) -> str:
        """The channel's name."""

    @property
    def capacity(self) -> int | None:
        """How many values the channel buffers; None when it has no bound."""

    @property
    def closed(self) -> bool:
        """Whether this end, or its channel, was closed. Values may still be in the buffer."""

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> _T_co: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Op[_T_co]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]: ...
    def __aenter__(self) -> Op[Self]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Op[Literal[False]]: ...

@final
class Selected(NamedTuple, Generic[_CaseT_co, _ValueT_co]):
    """What a select came to: which case, and the result of its operation. `case, value = await select(...)` takes it
    apart."""

    case: _CaseT_co
    """The position of the case, its keyword, its key in `selecting`, or "default"."""
    value: _ValueT_co
    """What the operation completed with, or the default."""

@final
class Statistics(NamedTuple):
    """A channel's numbers, all taken at one moment."""

    name: str
    """The channel's name."""
    capacity: int | None
    """How many values it buffers; None when there is no bound."""
    buffered: int
    """How many values are in the buffer."""
    senders: int | None
    """How many sending ends are open; None while none was ever made."""
    receivers: int | None
    """How many receiving ends are open; None while none was ever made."""
    parked_senders: int
    """How many operations wait to send."""
    parked_receivers: int
    """How many operations wait to receive."""
    sent: int
    """How many values were sent since the channel was made: always received + dropped + buffered."""
    received: int
    """How many values were received since then."""
    dropped: int
    """How many values were dropped since then: by the overflow policy, by poison, or because no receiver was left."""

# What `selecting` takes. A protocol, and covariant, so that channels of different types can stand in one.
@type_check_only
class _Source(Protocol[_T_co]):
    def recv(self) -> Op[_T_co]: ...

@final
class Selecting(Generic[_CaseT, _T]):
    """What `selecting` returns: an iterator over `(case, value)` of several channels. Each channel is registered once,
    however many values it gives, so an event costs the same whether there are two channels or thousands."""

    def add(self, case: _CaseT, channel: _Source[_T]) -> None:
        """Serve one more channel from now on, under a case of its own: any hashable object. It may be called while
        iterating.

        ValueError when there is such a case already, TypeError for what is no channel or receiver.
        """

    def discard(self, case: object, /) -> None:
        """Serve this case no more; values it has are left where they are. An unknown case is ignored."""

    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> Literal[True]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Selected[_CaseT, _T]: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Op[Selected[_CaseT, _T]]: ...

@final
class Tick:
    """What `tick` returns: receives the time, once a period. Iterating goes on until it is closed, which leaving a
    `with` block does."""

    def recv(self) -> Op[float]:
        """An operation that waits for the next tick. Its result is the time that was due at, on `time.monotonic()`, in
        seconds.

        Ticks that nobody waited for are dropped but for one. Performing it raises Closed after `close`.
        """

    def close(self) -> None:
        """No more ticks: iteration ends, and who waits gets Closed. Closing again changes nothing."""

    @property
    def period(self) -> float:
        """Seconds from one tick to the next."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> float: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Op[float]: ...

@final
class Barrier:
    """A place where `parties` (1 or more) wait for each other: nobody goes on before all are there. It can be used
    again and again.

    Source: the BARRIER of occam; `threading.Barrier`. It cannot break: who gives up is as if it had not come.
    """

    def __new__(cls, parties: int) -> Self: ...
    def sync(self) -> Op[int]:
        """An operation that waits until all are there. Its result says who this was: 0 for the first to come, and so
        on.

        Cancelled while it waits, or not chosen by a select, it has not come.
        """

    @property
    def parties(self) -> int:
        """How many must come."""

    @property
    def waiting(self) -> int:
        """How many are there now."""

class _Group:
    """What of `Group` the extension does. Private to the package."""

    @overload
    def spawn(
        self,
        fn: Callable[[*_Ts], Coroutine[Any, Any, _T]],
        /,
        *args: *_Ts,
        on: Literal["task", "thread", "interpreter", "process", "pool"] | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Process[_T]:
        """Start `fn(*args)` as a process of this group.

        Args:
            fn: an `async def`, not yet called, or any other callable. Keyword arguments: use `functools.partial`. When
                it returns an operation, the process performs that: `g.spawn(ch.send, 3)` sends 3.
            on: "task", in the loop (or trio's run) the group was entered in; "thread"; "greenlet", of gevent, in the
                thread that spawns; "interpreter", with a GIL of its own; "process", of the operating system; or "pool",
                in a worker of `weft.run(workers=)`. None: a task for an `async def` when there is that loop, else a
                thread. Everywhere but in this loop an `async def` runs in an asyncio loop of its own (in a pool, of its
                worker). What goes to another interpreter or process crosses as sent values do, and `fn` is found there
                by its import path.
            name: for messages; else the function's name with a number.
            context: the context variables it runs with, a copy of them; else of the caller's. Not for another
                interpreter, process or a pool, where they are others.

        In a group that is being cancelled it is not started, and counts as cancelled. Its thread is not a daemon.

        Raises:
            RuntimeError: the group was not entered yet, or has ended.
            TypeError: `fn` cannot be called, or was called already; `context` is no context.
            ValueError: there is no such place to run it on, or not with this `context`.
        """

    @overload
    def spawn(
        self,
        fn: Callable[[*_Ts], Awaitable[_T]],
        /,
        *args: *_Ts,
        on: Literal["task"],
        name: str | None = None,
        context: Context | None = None,
    ) -> Process[_T]: ...
    @overload
    def spawn(
        self,
        fn: Callable[[*_Ts], Op[_T]],
        /,
        *args: *_Ts,
        on: Literal["thread", "greenlet"] | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Process[_T]: ...
    @overload
    def spawn(
        self,
        fn: Callable[[*_Ts], _T],
        /,
        *args: *_Ts,
        on: Literal["thread", "greenlet", "interpreter", "process", "pool"] | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Process[_T]: ...
    def _number(self) -> int: ...
    def _accept(self, loop: AbstractEventLoop, /) -> None: ...
    def _cancel_tasks(self) -> None: ...
    _spawns_here: bool
    _awaited: bool
    @property
    def _count(self) -> int: ...
    @property
    def _tasks(self) -> list[Task[Any]]: ...

@final
class Task(TaskMethods, Generic[_T]):
    """The task of a process in an asyncio loop. To the program it is an `asyncio.Task`. Private to the package."""

    def __new__(cls, coroutine: Coroutine[Any, Any, _T], loop: AbstractEventLoop, name: str, owner: object) -> Self: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def cancel(self, msg: object = None) -> bool: ...
    def cancelling(self) -> int: ...
    def uncancel(self) -> int: ...
    def result(self) -> _T: ...
    def exception(self) -> BaseException | None: ...
    def get_loop(self) -> AbstractEventLoop: ...
    def get_coro(self) -> Coroutine[Any, Any, _T]: ...
    def get_context(self) -> Context: ...
    def get_name(self) -> str: ...
    def set_name(self, name: object, /) -> None: ...
    def add_done_callback(self, fn: Callable[[Self], object], *, context: Context | None = None) -> None: ...
    def _wakeup(self, future: object, /) -> None: ...
    def _join(self, over: Channel[NoReturn], /) -> Channel[NoReturn] | None: ...
    def _end(self) -> None: ...
    def _spawned_at(self) -> str: ...
    _asked: bool
    @property
    def _exception(self) -> BaseException | None: ...
    @property
    def _result(self) -> _T: ...
    @property
    def _traceback(self) -> TracebackType | None: ...
    @property
    def _group(self) -> Group | None: ...

class _Handle:
    """What of the handle of a process the extension does. Private to the package."""

    _task: Task[Any]  # read-only

    @property
    def done(self) -> bool:
        """See `Process.done`."""

    def cancelled(self) -> bool:
        """See `Process.cancelled`."""

    def result(self) -> Any:
        """See `Process.result`."""

@final
class Scope:
    """What the cancellation of threads hangs on. Private to the package.

    An operation that blocks a thread belongs to the scope that is current there. It raises Cancelled when that scope is
    cancelled, or one above it, or when the deadline of one has passed; and so does each operation begun afterwards.

    Source: trio's cancel scopes.
    """

    def __new__(cls, parent: Scope | None = None) -> Self: ...
    def cancel(self) -> None:
        """Cancel it, and all under it, for good. Callable from any thread."""

    def _take_back(self) -> None:
        """Undo `cancel`: what is begun from now on is not cancelled."""

    @property
    def cancelled(self) -> bool:
        """Whether it, or one above it, is cancelled or has passed its deadline."""

    deadline: float | None
    """On `time.monotonic()`, in seconds, or None. It can be set from any thread."""

    def _enroll(self, call: Callable[[], object]) -> None: ...
    def _leave(self, call: Callable[[], object]) -> None: ...
    def _left(self) -> float | None: ...
    def enter(self) -> None:
        """Make it this thread's (or this greenlet's) current scope, until `exit`; the last entered is left first."""

    def exit(self) -> None:
        """Leave it: the scope that was current before is so again."""

    @classmethod
    def current(cls) -> Scope | None:
        """This thread's current scope."""

# A select of one to five positional cases is typed by position; whatever else is mixed gives the union of the cases'
# results.

@overload
def select(
    op1: Op[_A] | None, /, *, policy: Literal["random", "priority"] = "random"
) -> Op[Selected[Literal[0], _A]]: ...
@overload
def select(
    op1: Op[_A] | None, op2: Op[_B] | None, /, *, policy: Literal["random", "priority"] = "random"
) -> Op[Selected[Literal[0], _A] | Selected[Literal[1], _B]]: ...
@overload
def select(
    op1: Op[_A] | None, op2: Op[_B] | None, op3: Op[_C] | None, /, *, policy: Literal["random", "priority"] = "random"
) -> Op[Selected[Literal[0], _A] | Selected[Literal[1], _B] | Selected[Literal[2], _C]]: ...
@overload
def select(
    op1: Op[_A] | None,
    op2: Op[_B] | None,
    op3: Op[_C] | None,
    op4: Op[_D] | None,
    /,
    *,
    policy: Literal["random", "priority"] = "random",
) -> Op[Selected[Literal[0], _A] | Selected[Literal[1], _B] | Selected[Literal[2], _C] | Selected[Literal[3], _D]]: ...
@overload
def select(
    op1: Op[_A] | None,
    op2: Op[_B] | None,
    op3: Op[_C] | None,
    op4: Op[_D] | None,
    op5: Op[_E] | None,
    /,
    *,
    policy: Literal["random", "priority"] = "random",
) -> Op[
    Selected[Literal[0], _A]
    | Selected[Literal[1], _B]
    | Selected[Literal[2], _C]
    | Selected[Literal[3], _D]
    | Selected[Literal[4], _E]
]: ...
@overload
def select(
    op1: Op[_A] | None, /, *, default: _Default, policy: Literal["random", "priority"] = "random"
) -> Op[Selected[Literal[0], _A] | Selected[Literal["default"], _Default]]: ...
@overload
def select(
    op1: Op[_A] | None,
    op2: Op[_B] | None,
    /,
    *,
    default: _Default,
    policy: Literal["random", "priority"] = "random",
) -> Op[Selected[Literal[0], _A] | Selected[Literal[1], _B] | Selected[Literal["default"], _Default]]: ...
@overload
def select(
    op1: Op[_A] | None,
    op2: Op[_B] | None,
    op3: Op[_C] | None,
    /,
    *,
    default: _Default,
    policy: Literal["random", "priority"] = "random",
) -> Op[
    Selected[Literal[0], _A]
    | Selected[Literal[1], _B]
    | Selected[Literal[2], _C]
    | Selected[Literal["default"], _Default]
]: ...
@overload
def select(
    op1: Op[_A] | None,
    op2: Op[_B] | None,
    op3: Op[_C] | None,
    op4: Op[_D] | None,
    /,
    *,
    default: _Default,
    policy: Literal["random", "priority"] = "random",
) -> Op[
    Selected[Literal[0], _A]
    | Selected[Literal[1], _B]
    | Selected[Literal[2], _C]
    | Selected[Literal[3], _D]
    | Selected[Literal["default"], _Default]
]: ...
@overload
def select(
    op1: Op[_A] | None,
    op2: Op[_B] | None,
    op3: Op[_C] | None,
    op4: Op[_D] | None,
    op5: Op[_E] | None,
    /,
    *,
    default: _Default,
    policy: Literal["random", "priority"] = "random",
) -> Op[
    Selected[Literal[0], _A]
    | Selected[Literal[1], _B]
    | Selected[Literal[2], _C]
    | Selected[Literal[3], _D]
    | Selected[Literal[4], _E]
    | Selected[Literal["default"], _Default]
]: ...

# A default of None comes first: it could be taken for a case named `default` that is switched off.
@overload
def select(
    *, default: None, policy: Literal["random", "priority"] = "random", **named: Op[_T] | None
) -> Op[Selected[str, _T] | Selected[Literal["default"], None]]: ...
@overload
def select(*, policy: Literal["random", "priority"] = "random", **named: Op[_T] | None) -> Op[Selected[str, _T]]: ...
@overload
def select(
    *, default: _Default, policy: Literal["random", "priority"] = "random", **named: Op[_T] | None
) -> Op[Selected[str, _T] | Selected[Literal["default"], _Default]]: ...
@overload
def select(*ops: Op[_T] | None, policy: Literal["random", "priority"] = "random") -> Op[Selected[int, _T]]: ...
@overload
def select(
    *ops: Op[_T] | None, default: None, policy: Literal["random", "priority"] = "random", **named: Op[_T] | None
) -> Op[Selected[int | str, _T] | Selected[Literal["default"], None]]: ...
@overload
def select(
    *ops: Op[_T] | None, policy: Literal["random", "priority"] = "random", **named: Op[_T] | None
) -> Op[Selected[int | str, _T]]: ...

# `default` is always given here, but `help` shall show that it need not be.
@overload
def select(
    *ops: Op[_T] | None,
    default: _Default = ...,  # pyright: ignore[reportInvalidTypeVarUse]
    policy: Literal["random", "priority"] = "random",
    **named: Op[_T] | None,
) -> Op[Selected[int | str, _T] | Selected[Literal["default"], _Default]]:
    """An operation that performs exactly one of several; the others are as if never tried.

    The cases are operations not yet performed: `select(ch.recv(), out.send(1), stop=done.recv(), late=after(1.0))`. The
    result is a `Selected(case, value)`: the position or the keyword, and what that operation completed with. A case
    that is None is switched off and keeps its position.

    When several are ready, the policy "random" takes each with the same chance, and "priority" the one listed first.
    With a `default`, it does not wait: when none is ready the result is `Selected("default", default)`. Without any
    case and without a default is a ValueError; with only switched-off ones it waits for ever. Timers start when the
    select is performed. A select may be a case of another.

    A case whose channel is over is ready: performing the select then raises Closed, Poisoned, NoReceivers or the error
    the channel was closed with; `.case` says which case it was. Cancelled while it waits, none has happened.

    Source: Dijkstra's guarded commands in Hoare 1978; the Go specification, "Select statements"; Concurrent ML (Reppy
        1991).
    """

@overload
def selecting() -> Selecting[Any, Any]: ...

# It overlaps the mixed form, but only where that has no names.
@overload
def selecting(*channels: _Source[_T]) -> Selecting[int, _T]: ...  # pyright: ignore[reportOverlappingOverload]
@overload
def selecting(**named: _Source[_T]) -> Selecting[str, _T]: ...
@overload
def selecting(*channels: _Source[_T], **named: _Source[_T]) -> Selecting[int | str, _T]:
    """Receive from several channels, over and over: `async for case, value in selecting(news=a, stop=b)`, or `for` in a
    thread.

    It takes channels and receivers. The case is the position, the keyword, or what `Selecting.add` was given. A
    value is taken only when the loop asks for the next one, never ahead.

    It is fair: nobody is served twice while another who is ready waits. A channel that is closed and drained leaves,
    and the loop ends when none is left. One that was closed with an error, or poisoned, leaves and raises that, with
    `.case` set when it is an error of weft's; the loop may be taken up again.
    """

def after(seconds: float, /) -> Op[float]:
    """An operation that completes that many seconds after it is begun: a timeout, as a case of a select.

    Its result is the time that was due at, on `time.monotonic()`, in seconds. A negative delay counts as 0, so that
    `after(deadline - now)` needs no care; ValueError for what is not a number.

    Awaited alone in asyncio, a delay of 0 gives the loop one turn, as `asyncio.sleep(0)` does.

    Source: Go's `time.After`; the timer guard of occam.
    """

def at(when: float, /) -> Op[float]:
    """An operation that completes at a time on `time.monotonic()`, in seconds; at once when that has passed.

    Its result is `when`. ValueError when it is not a number.
    """

def tick(period: float, /) -> Tick:
    """Ticks, one every `period` seconds (more than 0) from now on. Those that nobody is there for are dropped.

    Source: Go's `time.Tick`.
    """

def always(value: _T, /) -> Op[_T]:
    """An operation that is always ready, with `value` as its result.

    Source: alwaysEvt in Concurrent ML (Reppy 1991).
    """

def never() -> Op[Never]:
    """An operation that never is ready. It waits until it is cancelled.

    Source: never in Concurrent ML (Reppy 1991).
    """

def readable(file: _FileT, /) -> Op[_FileT]:
    """An operation that completes once a file descriptor can be read without blocking. Its result is `file`, as given.

    `file` is an int or an object with `fileno()`. Nothing is read: another reader may come first, so read without
    blocking. It must stay open as long as the operation waits.
    """

def writable(file: _FileT, /) -> Op[_FileT]:
    """An operation that completes once a file descriptor can be written without blocking. Its result is `file`, as
    given.

    As with `readable`, nothing is written.
    """

def _add_scheduler(
    identify: Callable[[], object],
    perform: Callable[[Op[Any]], Coroutine[Any, Any, Any] | Generator[Any, Any, Any]] | None,
    wait: Callable[[Op[Any], float | None], Any] | None,
) -> None: ...
def _scheduler_here() -> object: ...
def _spin(seconds: float, /) -> None: ...
def _add_peer(descriptor: int, setting: object) -> int: ...
def _disconnect(peer: int, /) -> None: ...
def _given_up(peer: int, /) -> str | None: ...
def _connect(descriptor: int, /) -> Any: ...
def _leave_root() -> None: ...
def _check_crossing(value: object, /) -> None: ...
def _interpreter(job: object, /) -> None: ...
def _share(channel: Channel[Any], /) -> None: ...
def _listen() -> None: ...
def _leave() -> None: ...
