"""A group: processes that start together and end together.

True whenever the lock is free:
  1. Every process that was spawned and has not ended is in `_children`, or in the extension's own list, `_tasks`, and no
     other is. A finished one is forgotten.
  2. `_state` becomes `_ENDED` when both are empty, and no process is added after that. (It also does when the wait for
     them is broken off: by a second Ctrl-C in a `with`, or because the coroutine with the `async with` is destroyed.)
  3. Once `_aborting` is set it stays. Every child that was there has been, or is about to be, told to end; every later
      one never starts.
  4. `_gate` is there while the owner waits for the last child, and goes with it.

Two kinds of owner. Entered by `async with`, the group belongs to a task and has a *host*, which knows the task's
scheduler: `_asyncio` or `_trio`. Tasks are cancelled in the host's thread only, and what happens elsewhere is sent
there. Entered by `with`, it belongs to a thread (or a greenlet), and its scope is that one's current scope. Either way
the children that are threads hang on `_scope`.

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
from contextvars import Context
from functools import partial
from math import inf
from threading import RLock, Thread, current_thread, get_ident, main_thread
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, TypeVarTuple

from weft._entry import is_async, reject_coroutine, running_loop
from weft._errors import BlockingInLoopError, Cancelled
from weft._process import HostProcess
from weft._task import steps_processes
from weft._thread import ThreadProcess
from weft._weft import Channel, Scope, _Group, _scheduler_here

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import Protocol

    from weft._process import PlacedProcess, Process
    from weft._weft import Task

    class Host(Protocol):
        """What a group entered by `async with` asks of its owner's scheduler. `_abort_body` and `arm` are called in its
        thread."""

        place: str

        @property
        def loop(self) -> asyncio.AbstractEventLoop | None:
            """asyncio's, if it is that."""
            ...

        def process(self, group: Group, name: str, spawner: FrameType) -> PlacedProcess[Any]:
            """A child, not started yet, that will be a task."""
            ...

        def call(self, call: Callable[[], object]) -> None:
            """Make a call in the owner's thread: now when this thread is running the scheduler, else soon. When that has
            ended, nothing."""
            ...

        def is_over(self) -> bool:
            """At the end of the program: whether the scheduler has ended, or will never go on."""
            ...

        def abort_body(self) -> None:
            """Cancel the body, if it is still running."""
            ...

        def arm(self, seconds: float | None) -> None:
            """Have the group cancelled after so many seconds (None: not any more)."""
            ...

        async def leave(self, error: BaseException | None) -> bool | None:
            """Wait for all children; the end of `async with`, whose body raised `error`."""
            ...


__all__ = ["Group", "function_name"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_ELSEWHERE = ("interpreter", "process", "pool")
_PLACES = ("task", "thread", "greenlet", *_ELSEWHERE)
_NAMED_AT_MOST = 8  # processes in the message of an ExceptionGroup


_NEW, _OPEN, _ENDED = "not entered", "open", "ended"


class Group(_Group):
    """Processes that belong together: the block is left when all of them have ended, and not before.

        async with weft.Group() as g:                # in asyncio or trio; in a plain thread: with weft.Group() as g
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
        elif not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"name must be a str or None, not {type(name).__name__}")
        self._name = name
        self._lock = RLock()
        self._state = _NEW
        self._children: set[PlacedProcess[Any]] = set()
        self._failures: list[tuple[str | None, BaseException]] = []  # in order of time; None is the body
        self._cancelled = False  # by `cancel`, or by its own deadline
        self._aborting = False  # the children are being cancelled, whatever for
        self._deadline: float | None = None
        self._gate: Channel[NoReturn] | None = None
        self._outer: Scope | None = None  # what the owner runs under
        self._scope = Scope()  # on entering, one under `_outer`
        self._last_thread: Thread | None = None
        self._host: Host | None = None  # of a group entered by `async with`
        self._in_main_thread = False  # it was entered there

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

    def _spawn(
        self,
        caller: FrameType,
        fn: Callable[..., Any],
        /,
        *args: Any,
        on: str | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Process[Any]:
        """What `spawn` does where there is no quicker way."""
        reject_coroutine(fn, "g.spawn(f, x)")
        if context is not None and not isinstance(context, Context):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"context must be a contextvars.Context or None, not {type(context).__name__}")
        if self._state is not _OPEN:
            raise self._not_open()
        coroutine_function = is_async(fn)
        host = self._host
        if on is None:
            place = "task" if coroutine_function and host is not None else "thread"
        elif on not in _PLACES:
            raise ValueError(f"on={on!r} is not there; there are {', '.join(map(repr, _PLACES))}")
        elif on == "task" and host is None:
            raise ValueError(
                "on='task' needs a loop, and this group was entered by `with`; use `async with`, or on='thread'"
            )
        elif on == "greenlet" and coroutine_function:
            raise ValueError(f"on='greenlet' takes a plain function; {fn!r} is an `async def`")
        else:
            place = on
        if context is not None and place in _ELSEWHERE:
            raise ValueError(
                f"context= cannot go with on={place!r}: contextvars stay in their own place of the program"
            )
        number = self._number()
        if name is None:
            name = f"{function_name(fn)}-{number}"
        process: PlacedProcess[Any]
        if place == "task":
            assert host is not None
            process = host.process(self, name, caller)
        elif place == "greenlet":
            from weft._gevent import GreenletProcess  # imports gevent, which is what was asked for

            process = GreenletProcess(self, name, caller, self._scope)
        elif place == "interpreter":
            process = self._in_interpreter(fn, name, caller)
        elif place == "process":
            process = self._in_process(fn, name, caller)
        elif place == "pool":
            from weft._pool import pooled

            process = pooled(self, fn, name, caller)
        else:
            process = ThreadProcess(self, name, caller, self._scope)
        chosen = on is not None or host is None
        self._begin(process, fn, args, is_async=coroutine_function, chosen=chosen, context=context)
        return process

    _spawn.__qualname__ = "Group.spawn"  # for the messages of a wrong call

    def _begin(
        self,
        process: PlacedProcess[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        is_async: bool,
        chosen: bool,
        context: Context | None = None,
    ) -> None:
        """Take a process in and start it."""
        try:
            with self._lock:
                if self._state is not _OPEN:
                    raise self._not_open()
                self._children.add(process)
                aborting = self._aborting
            if aborting:
                process._finish(cancelled=True)
            else:
                start = partial(process._start, fn, args, is_async=is_async, chosen=chosen)
                if context is None:
                    start()
                else:
                    context.copy().run(start)
        except BaseException:
            if process._give_up():
                self._forget(process)
            raise

    def _in_process(self, fn: Callable[..., Any], name: str, caller: FrameType) -> PlacedProcess[Any]:
        from weft._os_process import ChildProcess, reason_against

        reason = reason_against()
        if reason is not None:
            raise ValueError(f"on='process' is not there: {reason}")
        return ChildProcess(self, name, caller, fn)

    def _in_interpreter(self, fn: Callable[..., Any], name: str, caller: FrameType) -> PlacedProcess[Any]:
        from weft._interpreter import InterpreterProcess, reason_against, runs_threads_instead

        if runs_threads_instead():
            return ThreadProcess(self, name, caller, self._scope)
        reason = reason_against()
        if reason is not None:
            raise ValueError(f"on='interpreter' is not there: {reason}; on='thread' is")
        return InterpreterProcess(self, name, caller, fn)

    def _not_open(self) -> RuntimeError:
        if self._state is _NEW:
            return RuntimeError(f"group {self._name!r} was not entered yet: spawn inside `async with` or `with`")
        return RuntimeError(f"group {self._name!r} has ended: nothing can be spawned in it any more")

    def _ended(self, process: PlacedProcess[Any], error: BaseException | None) -> None:
        """Called by each process as its last act, in whatever thread it ran."""
        if error is not None:
            _note(error, f"in process {process._name!r} ({process._place}), spawned at {process._spawned_at()}")
            with self._lock:
                self._failures.append((process._name, error))
            self._abort()
        elif process._cancelled:
            self._notice_deadline()
        if self._host is None and isinstance(process, ThreadProcess) and process._running:
            # We are its thread. So that the owner can wait until all threads are really gone, each waits for the one
            # that ended before it, and the owner for the last. A loop must not wait like this; a thread at this point
            # has nothing left to do anyway.
            with self._lock:
                before, self._last_thread = self._last_thread, current_thread()
            if before is not None:
                before.join()
        self._forget(process)

    def _forget(self, process: PlacedProcess[Any]) -> None:
        gate = None
        with self._lock:
            self._children.discard(process)
            if not self._children:
                if self._count:
                    self._awaited = True
                else:
                    gate, self._gate = self._gate, None
        if gate is not None:
            gate.close()

    # The tasks that the extension spawned: it counts them itself, and calls these.

    def _task_failed(self, task: Task[Any]) -> None:
        error = task._exception
        assert error is not None
        _note(error, f"in process {task.get_name()!r} (task), spawned at {task._spawned_at()}")
        with self._lock:
            self._failures.append((task.get_name(), error))
        error = None
        self._abort()

    def _tasks_ended(self) -> None:
        gate = None
        with self._lock:
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
            self._spawns_here = False
            children = list(self._children)
        self._scope.cancel()
        for child in children:
            if not isinstance(child, HostProcess):
                child.cancel()
        if self._host is not None:
            self._host.call(self._abort_tasks)

    def _is_forsaken(self) -> bool:
        """At the end of the program: whether nobody is left to leave the block. The main thread runs nothing any more by
        then; a block it has not left is that of a coroutine, a generator or a greenlet."""
        return self._in_main_thread if self._host is None else self._host.is_over()

    def _abort_tasks(self) -> None:
        assert self._host is not None
        for child in list(self._children):
            if isinstance(child, HostProcess):
                child._cancel_task()
        self._cancel_tasks()
        self._host.abort_body()

    # The deadline. A parked thread keeps it by itself, through the scope; a loop with a timer.

    def _keep_deadline(self) -> None:
        while True:
            deadline = self._deadline
            self._scope.deadline = deadline
            if deadline == self._deadline:  # else another thread moved it between the two lines
                break
        if self._host is not None:
            self._host.call(self._arm)
            return
        with self._lock:
            children = list(self._children)
        for child in children:
            child._deadline_moved()

    def _arm(self) -> None:
        assert self._host is not None
        deadline = self._deadline
        if self._state is _OPEN:
            self._host.arm(None if deadline is None else max(0.0, deadline - monotonic()))

    def _time_left(self) -> float | None:
        """Seconds until the deadline, for a thread of a group that has no loop to keep it; None when there is nothing
        to keep."""
        deadline = self._deadline
        return None if deadline is None or self._host is not None else max(0.0, deadline - monotonic())

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

    def _enter(self, host: Host | None) -> None:
        outer = Scope.current()
        scope = Scope(outer)
        with self._lock:
            if self._state is not _NEW:
                raise self._entered_before()
            self._outer, self._scope = outer, scope
            self._host = host
            self._in_main_thread = get_ident() == main_thread().ident
            self._state = _OPEN

    def _entered_before(self) -> RuntimeError:
        return RuntimeError(f"group {self._name!r} was entered before: a group is entered once, make a new one")

    def _apply_early_requests(self) -> None:
        """What was asked for before the group was entered."""
        if self._deadline is not None:
            self._keep_deadline()
        if self._cancelled:
            self._abort()

    def _next_gate(self) -> Channel[NoReturn] | None:
        """A channel that closes when the last child has ended; None when all have, and that is then the end of the
        group."""
        gate: Channel[NoReturn] = Channel(name=f"the processes of group {self._name!r}")
        with self._lock:
            # No call is made in these lines: a signal handler that spawns comes before them, or after.
            if not self._children and not self._count:
                self._state = _ENDED
                self._spawns_here = False
                return None
            self._awaited = True
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
        if self._state is not _NEW:
            raise self._entered_before()
        scheduler = _scheduler_here()
        if scheduler is not None:
            host = await _make_host(scheduler, self)
        elif running_loop() is not None:
            from weft._asyncio import AsyncioHost

            host = AsyncioHost(self)
        else:
            raise RuntimeError(
                "`async with weft.Group()` needs a task of a running loop, asyncio's or trio's; in a plain thread use "
                "`with`"
            )
        self._enter(host)
        if host.loop is not None and steps_processes(host.loop):
            from weft._asyncio import shows_processes

            self._accept(host.loop)
            if not shows_processes(host.loop):
                self._spawns_here = False  # each is to be registered
        self._apply_early_requests()
        return self

    # The result of both exits is `bool | None` because that is how type checkers are told that a block does not usually
    # swallow what its body raises: a `return` in it is then a return. What is swallowed is only the group's own
    # cancellation.

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._host is not None
        try:
            return await self._host.leave(error)
        finally:
            self._state = _ENDED
            self._spawns_here = False
            # The frame stays in the traceback of what is raised, and must not lead back to it.
            error = None

    def __enter__(self) -> Self:
        if running_loop() is not None or _scheduler_here() is not None:
            raise BlockingInLoopError(
                "`with weft.Group()` would block the event loop of this thread; use `async with weft.Group()`"
            )
        self._enter(None)
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
        if _is_exit(error) or (isinstance(error, Cancelled) and self._scope.cancelled):
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
                    if _is_exit(raised):
                        # This greenlet is killed. It goes when its children have gone.
                        cancellation = raised
                        self._abort()
                        continue
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
            return self._leave(verdict, error)
        finally:
            self._state = _ENDED  # whatever broke the wait off
            if shield is not None:
                shield.exit()
            self._scope.exit()
            error = cancellation = interruption = verdict = None  # as in `__aexit__`

    @staticmethod
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

    def _wait_for_children(self) -> None:
        while (gate := self._next_gate()) is not None:
            gate._closing().wait()
        if self._last_thread is not None:
            self._last_thread.join()

    def __repr__(self) -> str:
        state = "being cancelled" if self._aborting and self._state is _OPEN else self._state
        return f"<weft.Group {self._name!r} {state}, {len(self._children) + self._count} running>"


async def _make_host(scheduler: object, group: Group) -> Host:
    """The host for a task of a scheduler that is not asyncio."""
    trio = sys.modules.get("weft._trio")
    if trio is None or scheduler is not trio.perform:
        raise RuntimeError(
            "weft.Group cannot be entered by `async with` in this scheduler: it knows asyncio's and trio's tasks; use "
            "the scheduler's own groups, or `with weft.Group()` in a thread"
        )
    host: Host = await trio.TrioHost.open(group)
    return host


def _is_exit(error: BaseException | None) -> bool:
    """Whether a coroutine is being destroyed, a greenlet is killed, or its time is up: what passes through a group as it
    is."""
    if error is None or isinstance(error, GeneratorExit):
        return error is not None
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(error, gevent.GreenletExit | gevent.Timeout)


def function_name(fn: object) -> str:
    """What a process that runs it is called, before its number."""
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
