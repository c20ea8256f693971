"""A group: processes that start together and end together.

True whenever the lock is free:
  1. Every process that was spawned and has not ended is in `_children`, and no other is. A finished one is forgotten.
  2. `_state` becomes `_ENDED` when `_children` is empty, and no process is added after that. (It also does when the
     wait for them is broken off: by a second Ctrl-C in a `with`, or because the coroutine with the `async with` is
     destroyed.)
  3. Once `_aborting` is set it stays. Every child that was there has been, or is about to be, told to end; every later
      one never starts.
  4. `_gate` is there while the owner waits for the last child, and goes with it.

Two kinds of owner. Entered by `async with`, the group belongs to a task of a loop: tasks are cancelled in that loop
only, and what happens elsewhere is sent there. Entered by `with`, it belongs to a thread, and its scope is that
thread's current one. Either way the children that are threads hang on `_scope`.

The lock is reentrant and guards a few assignments at a time: `spawn` and `cancel` may be called from a signal handler
that interrupts one of them. Nothing is cancelled, closed or called while it is held.

Sources: the counting of cancellations follows the rules that `asyncio.Task.uncancel` documents for structured
concurrency blocks; a group that can be cancelled, and a deadline on it, are trio's cancel scopes.  Laws:
docs/design/laws.md, L4, L12, L15.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import sys
from functools import partial
from itertools import count
from math import inf
from threading import RLock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, TypeVarTuple, overload

from weft._entry import is_async, reject_coroutine, running_loop
from weft._errors import BlockingInLoopError, Cancelled
from weft._task import TaskProcess
from weft._thread import ThreadProcess
from weft._weft import Channel, Scope

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from weft._process import Process

__all__ = ["Group"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_NAMED_AT_MOST = 8  # processes in the message of an ExceptionGroup


_NEW, _OPEN, _ENDED = "not entered", "open", "ended"


class Group:
    """Processes that belong together: the block is left when all of them have ended, and not before.

        async with weft.Group() as g:                # in an asyncio loop; in a plain thread: with weft.Group() as g
            p = g.spawn(fetch, url)                  # an `async def`: a task. Any other function: a thread
            g.spawn(parse, ch, on="thread")
            print(await p.join())

    The first process that fails, with any exception but the cancellation it was asked for, makes the group cancel the
    others and the body of the block. When all have ended, their errors are raised in one `ExceptionGroup`
    (`BaseExceptionGroup` when one of them is not an `Exception`); each carries a note with the process and the line
    that spawned it. The body counts as one of them. `KeyboardInterrupt` and `SystemExit` are raised as they are, with
    the others as their context.

    Cancelled from outside (the owning task by asyncio, the owning thread by the group it is itself a process of), the
    group cancels its children, waits for them, and passes the cancellation on. A `with` block that gets Ctrl-C while it
    waits cancels its children and waits for them; a second Ctrl-C is raised at once.

    `spawn`, `cancel` and `cancel_after` may be called from any thread. A group is entered once.

    Args:
        name: for messages; else the file and line that made it.

    Source: Hoare 1978 (the parallel command); Smith 2018, "Notes on structured concurrency".
    """

    def __init__(self, name: str | None = None) -> None:
        if name is None:
            caller = sys._getframe(1)
            name = f"{caller.f_code.co_filename.rpartition('/')[2]}:{caller.f_lineno}"
        self._name = name
        self._lock = RLock()
        self._state = _NEW
        self._children: set[Process[Any]] = set()
        self._numbers = count(1)
        self._failures: list[tuple[str | None, BaseException]] = []  # in order of time; None is the body
        self._cancelled = False  # by `cancel`, or by its own deadline
        self._aborting = False  # the children are being cancelled, whatever for
        self._deadline: float | None = None
        self._gate: Channel[NoReturn] | None = None
        self._outer: Scope | None = None  # what the owner runs under
        self._scope = Scope()  # on entering, one under `_outer`
        self._last_thread: Thread | None = None
        # Of a group entered by `async with`, and touched in its loop only, once it is open.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._cancelling = 0  # the owner's count of cancellations on entering
        self._in_body = False
        self._interrupted = False  # the body was cancelled by this group
        self._timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """The name given, else the file and line that made it."""
        return self._name

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled by `cancel`, or by the deadline of `cancel_after`. A failure or a cancellation from
        outside is not meant."""
        return self._cancelled or self._time_is_up()

    # Spawning

    @overload
    def spawn(
        self,
        fn: Callable[[*Ts], Coroutine[Any, Any, T]],
        /,
        *args: *Ts,
        on: Literal["task", "thread"] | None = None,
        name: str | None = None,
    ) -> Process[T]: ...
    @overload
    def spawn(
        self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, on: Literal["task"], name: str | None = None
    ) -> Process[T]: ...
    @overload
    def spawn(
        self, fn: Callable[[*Ts], T], /, *args: *Ts, on: Literal["thread"] | None = None, name: str | None = None
    ) -> Process[T]: ...
    def spawn(
        self, fn: Callable[[*Ts], Any], /, *args: *Ts, on: str | None = None, name: str | None = None
    ) -> Process[Any]:
        """Start `fn(*args)` as a process of this group.

        Args:
            fn: an `async def`, not yet called, or any other callable. Keyword arguments: use `functools.partial`.
            on: "task", in the loop the group was entered in, or "thread". None: a task for an `async def` when there is
                that loop, else a thread. A thread runs an `async def` in a loop of its own.
            name: for messages; else the function's name with a number.

        The process inherits a copy of the caller's context variables. In a group that is being cancelled it is not
        started, and counts as cancelled. Its thread is not a daemon.

        Raises:
            RuntimeError: the group was not entered yet, or has ended.
            TypeError: `fn` cannot be called, or was called already.
            ValueError: there is no such place to run it on.
        """
        caller = sys._getframe(1)
        reject_coroutine(fn, "g.spawn(f, x)")
        if self._state is not _OPEN:
            raise self._not_open()
        coroutine_function = is_async(fn)
        if on is None:
            in_loop = coroutine_function and self._loop is not None
        elif on not in ("task", "thread"):
            raise ValueError(f"on={on!r} is not there; there are 'task' and 'thread'")
        elif on == "task" and self._loop is None:
            raise ValueError(
                "on='task' needs a loop, and this group was entered by `with`; use `async with`, or on='thread'"
            )
        else:
            in_loop = on == "task"
        number = next(self._numbers)
        if name is None:
            name = f"{_function_name(fn)}-{number}"
        process: TaskProcess[Any] | ThreadProcess[Any]
        if in_loop:
            assert self._loop is not None
            process = TaskProcess(self, name, caller, self._loop)
        else:
            process = ThreadProcess(self, name, caller, self._scope)
        try:
            with self._lock:
                if self._state is not _OPEN:
                    raise self._not_open()
                self._children.add(process)
                aborting = self._aborting
            if aborting:
                process._finish(cancelled=True)
            else:
                process._start(fn, args, is_async=coroutine_function, chosen=on is not None or self._loop is None)
        except BaseException:
            if process._give_up():
                self._forget(process)
            raise
        return process

    def _not_open(self) -> RuntimeError:
        if self._state is _NEW:
            return RuntimeError(f"group {self._name!r} was not entered yet: spawn inside `async with` or `with`")
        return RuntimeError(f"group {self._name!r} has ended: nothing can be spawned in it any more")

    def _ended(self, process: Process[Any], error: BaseException | None) -> None:
        """Called by each process as its last act, in whatever thread it ran."""
        if error is not None:
            _note(error, f"in process {process._name!r} ({process._place}), spawned at {process._spawned_at()}")
            with self._lock:
                self._failures.append((process._name, error))
            self._abort()
        elif process._cancelled:
            self._notice_deadline()
        if self._loop is None and isinstance(process, ThreadProcess) and process._running:
            # We are its thread. So that the owner can wait until all threads are really gone, each waits for the one
            # that ended before it, and the owner for the last. A loop must not wait like this; a thread at this point
            # has nothing left to do anyway.
            with self._lock:
                before, self._last_thread = self._last_thread, current_thread()
            if before is not None:
                before.join()
        self._forget(process)

    def _forget(self, process: Process[Any]) -> None:
        gate = None
        with self._lock:
            self._children.discard(process)
            if not self._children:
                gate, self._gate = self._gate, None
        if gate is not None:
            gate.close()

    # Cancelling

    def cancel(self) -> None:
        """Ask every process and the body to end; the block is then left without an error, unless one of them raises
        one.

        It does not wait. It may be called from any thread and from a signal handler, more than once, and before the
        group is entered. A body that ends without waiting any more is left alone. What cancelling does to a process:
        `Process.cancel`.
        """
        with self._lock:
            if self._state is _ENDED:
                return
            self._cancelled = True
        self._abort()

    def cancel_after(self, seconds: float) -> None:
        """Cancel the group that many seconds from now (`math.inf`: never). Calling it again moves the deadline.

        Raises:
            ValueError: `seconds` is negative or not a number.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be zero or more, not {seconds!r}")
        with self._lock:
            self._deadline = None if seconds == inf else monotonic() + seconds
        if self._state is _OPEN:
            self._keep_deadline()

    def _abort(self) -> None:
        """Cancel the children and interrupt the body, once, whatever for."""
        with self._lock:
            if self._aborting or self._state is not _OPEN:
                return
            self._aborting = True
            children = list(self._children)
        self._scope.cancel()
        for child in children:
            if isinstance(child, ThreadProcess):
                child.cancel()
        if self._loop is not None:
            self._in_loop(self._abort_tasks)

    def _abort_tasks(self) -> None:
        for child in list(self._children):
            if isinstance(child, TaskProcess):
                child._cancel_task()
        if self._in_body and not self._interrupted and self._owner is not None:
            self._interrupted = True
            self._owner.cancel()

    def _in_loop(self, call: Callable[[], object]) -> None:
        """Make a call in the group's loop: now when this thread runs it, else soon."""
        assert self._loop is not None
        try:
            if running_loop() is self._loop:
                call()
                # The caller may be a signal handler, and the loop asleep.
                self._loop.call_soon_threadsafe(_nothing)
            else:
                self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # Nothing of this group runs in it any more.

    # The deadline. A parked thread keeps it by itself, through the scope; a loop with a timer.

    def _keep_deadline(self) -> None:
        while True:
            deadline = self._deadline
            self._scope.deadline = deadline
            if deadline == self._deadline:  # else another thread moved it between the two lines
                break
        if self._loop is not None:
            self._in_loop(self._arm)
            return
        with self._lock:
            children = list(self._children)
        for child in children:
            child._deadline_moved()

    def _arm(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline is not None and self._state is _OPEN:
            self._timer = self._loop.call_later(max(0.0, self._deadline - monotonic()), self.cancel)

    def _time_left(self) -> float | None:
        """Seconds until the deadline, for a thread of a group that has no loop to keep it; None when there is nothing
        to keep."""
        deadline = self._deadline
        return None if deadline is None or self._loop is not None else max(0.0, deadline - monotonic())

    def _time_is_up(self) -> bool:
        deadline = self._deadline
        return self._state is _OPEN and deadline is not None and monotonic() >= deadline

    def _cancelled_from_outside(self) -> bool:
        return self._outer is not None and self._outer.cancelled

    def _notice_deadline(self) -> None:
        """Someone was cancelled by the scope itself: when it was our deadline, the whole group is cancelled."""
        if not self._aborting and self._scope.cancelled and not self._cancelled_from_outside():
            self.cancel()

    # Entering and leaving

    def _enter(self, loop: asyncio.AbstractEventLoop | None, owner: asyncio.Task[Any] | None) -> None:
        outer = Scope.current()
        scope = Scope(outer)
        with self._lock:
            if self._state is not _NEW:
                raise RuntimeError(f"group {self._name!r} was entered before: a group is entered once, make a new one")
            self._outer, self._scope = outer, scope
            self._loop, self._owner, self._in_body = loop, owner, True
            self._state = _OPEN

    def _apply_early_requests(self) -> None:
        """What was asked for before the group was entered."""
        if self._deadline is not None:
            self._keep_deadline()
        if self._cancelled:
            self._abort()

    def _next_gate(self) -> Channel[NoReturn] | None:
        """A channel that closes when the last child has ended; None when all have, and that is then the end of the
        group."""
        gate: Channel[NoReturn] = Channel(name="group")
        with self._lock:
            if not self._children:
                self._state = _ENDED
                return None
            self._gate = gate
        return gate

    def _fail(self, error: BaseException) -> None:
        """Count an error of the body."""
        with self._lock:
            self._failures.append((None, error))

    def _verdict(self, cancellation: BaseException | None) -> BaseException | None:
        """What the block is left with, now that all have ended; `cancellation` is for when nothing failed.

        The group keeps no error: it would be kept alive by the frames it passes through.
        """
        failures, self._failures = self._failures, []
        self._last_thread = None
        bare = None
        errors: list[BaseException] = []
        for _, error in failures:
            if bare is None and isinstance(error, KeyboardInterrupt | SystemExit):
                bare = error
            # A process that waits for one that failed may raise the very same error.
            elif error is not bare and not any(error is other for other in errors):
                errors.append(error)
        if errors:
            message = f"group {self._name!r}: {_who_failed([name for name, _ in failures])}"
            group = BaseExceptionGroup(message, errors)
            if bare is None:
                return group
            _append_context(bare, group)
        return bare or cancellation

    async def __aenter__(self) -> Self:
        import asyncio

        loop = running_loop()
        owner = None if loop is None else asyncio.current_task(loop)
        if loop is None or owner is None:
            raise RuntimeError(
                "`async with weft.Group()` needs a task of a running asyncio loop; in a plain thread use `with`"
            )
        self._cancelling = owner.cancelling()
        self._enter(loop, owner)
        self._apply_early_requests()
        return self

    # The result of both exits is `bool | None` because that is how type checkers are told that a block does not usually
    # swallow what its body raises: a `return` in it is then a return. What is swallowed is only the group's own
    # cancellation.

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        import asyncio

        assert self._owner is not None
        self._in_body = False
        verdict: BaseException | None = None
        cancellation: BaseException | None = None  # to be passed on, unless it turns out to be ours
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            cancellation = error
        elif isinstance(error, Cancelled) and (self._aborting or self._scope.cancelled):
            # From joining a process that was cancelled with the group, or from `wait` in a thread that is cancelled
            # itself.
            cancellation = error if self._cancelled_from_outside() else None
        elif error is not None:
            self._fail(error)
        try:
            if error is not None:
                self._abort()
            if self._interrupted:
                # Our own cancel may not have arrived yet. It must do so here, not in the code after the group.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as late:
                    cancellation = late
            while (gate := self._next_gate()) is not None:
                try:
                    await gate._closing()
                except asyncio.CancelledError as outside:
                    cancellation = outside
                    self._abort()
            if self._interrupted:
                self._owner.uncancel()
            pending = self._owner.cancelling() > self._cancelling
            if self._interrupted and not pending and isinstance(cancellation, asyncio.CancelledError):
                cancellation = None
            verdict = self._verdict(cancellation)
            if pending and cancellation is not None and verdict is not cancellation:
                # An error takes the place of the cancellation: ask for that again, at the same count.
                self._owner.uncancel()
                self._owner.cancel()
            return _leave(verdict, error)
        except BaseException:
            self._abort()  # for when this coroutine is destroyed while it waits
            raise
        finally:
            self._state = _ENDED
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._owner = None
            # The frame stays in the traceback of what is raised, and must not lead back to it.
            error = cancellation = verdict = None

    def __enter__(self) -> Self:
        if running_loop() is not None:
            raise BlockingInLoopError(
                "`with weft.Group()` would block the event loop of this thread; use `async with weft.Group()`"
            )
        self._enter(None, None)
        self._scope.enter()
        self._apply_early_requests()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        verdict: BaseException | None = None
        cancellation: BaseException | None = None  # to be passed on, unless it turns out to be ours
        interruption: BaseException | None = (
            None  # raised by a signal handler: the first is kept, a second goes through
        )
        shield: Scope | None = None
        if isinstance(error, GeneratorExit) or (isinstance(error, Cancelled) and self._scope.cancelled):
            cancellation = error
        elif error is not None:
            self._fail(error)
            if isinstance(error, KeyboardInterrupt):
                interruption = error
        try:
            if error is not None:
                self._notice_deadline()
                self._abort()
            while True:
                try:
                    self._wait_for_children()
                    break
                except Cancelled as cancelled:
                    if cancellation is None:
                        cancellation = cancelled
                    self._notice_deadline()
                except BaseException as raised:
                    if interruption is not None:
                        raise
                    interruption = raised
                    self._fail(raised)
                self._abort()
                if shield is None:
                    # The children are told to end; now wait for them without being told so ourselves.
                    shield = Scope()
                    shield.enter()
            if isinstance(cancellation, Cancelled) and not self._cancelled_from_outside():
                cancellation = None
            verdict = self._verdict(cancellation)
            return _leave(verdict, error)
        finally:
            self._state = _ENDED  # whatever broke the wait off
            if shield is not None:
                shield.exit()
            self._scope.exit()
            error = cancellation = interruption = verdict = None  # as in `__aexit__`

    def _wait_for_children(self) -> None:
        while (gate := self._next_gate()) is not None:
            gate._closing().wait()
        if self._last_thread is not None:
            self._last_thread.join()

    def __repr__(self) -> str:
        state = "being cancelled" if self._aborting and self._state is _OPEN else self._state
        return f"<weft.Group {self._name!r} {state}, {len(self._children)} running>"


def _nothing() -> None:
    pass


def _function_name(fn: object) -> str:
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) else type(fn).__name__


def _note(error: BaseException, note: str) -> None:
    try:
        error.add_note(note)
    except Exception:
        pass  # an error class that forbids attributes; losing the note is better than losing the error


def _who_failed(names: list[str | None]) -> str:
    processes = [repr(name) for name in names if name is not None]
    if len(processes) > _NAMED_AT_MOST:
        processes[_NAMED_AT_MOST:] = [f"{len(processes) - _NAMED_AT_MOST} more"]
    who = ["its body"] if None in names else []
    if processes:
        who.append(f"process{'es' if len(processes) > 1 else ''} {', '.join(processes)}")
    return f"{' and '.join(who)} failed"


def _append_context(error: BaseException, context: BaseException) -> None:
    """Have `context` shown above `error`, before all that led to it."""
    seen = {id(error)}
    while error.__context__ is not None and id(error.__context__) not in seen:
        error = error.__context__
        seen.add(id(error))
    if error.__context__ is None:
        error.__context__ = context


def _leave(verdict: BaseException | None, error: BaseException | None) -> bool | None:
    """Leave a block whose body raised `error` (or did not) with `verdict`: the result of its exit method."""
    if verdict is None:
        return True
    if verdict is error:
        return None
    context = verdict.__context__
    try:
        raise verdict
    finally:
        # Not what the body raised, which Python puts here: it is one of the errors, or a cancellation that has been
        # dealt with.
        BaseException.__setattr__(verdict, "__context__", context)
        verdict = error = context = None
