"""Operations in gevent's greenlets: `op.wait()` parks the greenlet and lets the hub run the others.

It does not matter whether gevent has patched the standard library, nor what was imported first. A thread without a hub
is a plain thread. `kill` and `gevent.Timeout` reach a parked greenlet as an exception out of its switch; when the
operation was met already it completes, and the exception is thrown at the greenlet's next switch (L4), unless it is a
timeout whose block has ended by then.

A thread may end while greenlets are parked in it, and they never run again. It is then gone for who would meet them,
and what they had been given goes back (L3). The thread itself says so, as it ends (`_LastWords`): greenlet's `dead`
turns true only when the system's thread is over, some time after `Thread.is_alive` has said so.

A hub may be destroyed while its thread goes on. No hub tells, and greenlets that are suspended are never collected; but
it lets go of the calls it was asked for and has not made (`_Call`).

Source: gevent's documentation of `gevent.hub.Waiter` and of the event loop's watchers.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# What is private here is private to the package; gevent is typed in part only.

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Coroutine
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

try:
    import gevent
except ModuleNotFoundError as missing:
    if missing.name != "gevent":
        raise
    raise ModuleNotFoundError("on='greenlet' needs gevent, which is not installed", name="gevent") from missing
from gevent._hub_local import get_hub_if_exists  # there is no public way to ask without making one
from gevent.exceptions import HubDestroyed
from gevent.monkey import get_original
from greenlet import getcurrent

from weft import lowlevel
from weft._entry import running_loop
from weft._errors import BlockingInLoopError, Cancelled
from weft._process import PlacedProcess
from weft._weft import Op, _scheduler_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from weft._group import Group

    _Greenlet = gevent.Greenlet[..., Any]
else:
    _Greenlet = gevent.Greenlet  # generic for type checkers only

__all__ = ["GreenletProcess", "add"]

T = TypeVar("T")

_current_scope = lowlevel.Scope.current
_READ, _WRITE = 1, 2  # libev's and libuv's numbers
_SLICE = 0.001  # seconds
_FOR_EVER = 1e9  # seconds; more is beyond what every loop can count
_EXPIRY = getattr(getattr(gevent.Timeout, "_on_expiration", None), "__code__", None)  # where a timeout throws


def add() -> None:
    """Have weft's operations wait in gevent."""
    lowlevel.add_scheduler(_identify, wait=_wait)


def _identify() -> object:
    """The greenlet that runs here, where there is a hub; True for the thread's own."""
    if get_hub_if_exists() is None:
        return None
    current = getcurrent()
    return True if current.parent is None else current


def _wait(op: Op[Any], timeout: float | None) -> Any:
    """What `op.wait(timeout)` does in a greenlet when it cannot be done at once."""
    hub: Any = get_hub_if_exists()
    me: Any = getcurrent()
    if me is hub:
        raise BlockingInLoopError(
            f"{op._describe()} would block gevent's hub: it was called by a callback of the hub's loop"
        )
    try:
        home: _Home = hub._weft_home
    except AttributeError:
        home = hub._weft_home = _Home(hub)
    wait = _Wait(op, me, home)
    wake = wait.wake  # one object, by which a scope knows it again
    if op._park(wake, wait.is_gone):
        wait.op = None
        return op._take()
    scope = _current_scope()
    watchers: list[Any] | None = None
    home.parked += 1
    if home.parked == 1:
        home.hold()
    try:
        if scope is not None:
            scope._enroll(wake)
        if timeout is not None or scope is not None or op._is_outside():
            watchers = []
            _watch(watchers, hub, op, wait, timeout, scope)
        ready = home.ready
        while True:
            try:
                if ready and monotonic() < home.until and getattr(me, "switch_out", None) is None:
                    other = ready.popleft()
                    if other.op is None:
                        continue
                    other.greenlet.switch()
                else:
                    hub.switch()
            except BaseException as error:
                wait.op = None
                if op._withdraw():
                    raise
                hub.loop.run_callback(_throw, me, error, _timeout_behind(error, hub, me))
                return op._take()
            if op._resume():
                return op._take()
            if scope is not None and scope.cancelled and op._withdraw():
                if isinstance(me, _Child):
                    me.process._notice()
                raise Cancelled(f"{op._describe()} was withdrawn: the group this greenlet belongs to was cancelled")
            if wait.timed_out and op._withdraw():
                raise TimeoutError(f"{op._describe()} was not met within {timeout} s and was withdrawn")
    except BaseException:
        op._undo()  # does nothing to one that has ended
        raise
    finally:
        wait.op = None  # which leads back to it
        if scope is not None:
            scope._leave(wake)
        if watchers is not None:
            for watcher in watchers:
                watcher.stop()
                watcher.close()
        home.parked -= 1
        if home.parked == 0:
            home.let_go()


class _Home:
    """The parked greenlets of a hub.

    Those that are to go on stand in `ready`, and the hub is called once for all of them. One that parks while there are
    such switches to the first of them itself, which saves the way through the hub and its loop; until `until`, when the
    slice of the hub's call is over. Then the watcher has the hub called again, after what else the loop has to do.

    While there are parked ones the loop has a watcher of ours: what they wait for may come from another thread, and a loop
    without anything to watch would end, with LoopExit.

    Made in the hub's thread. Other threads only add to `ready`, and call `tell`.
    """

    __slots__ = ("called", "hub", "lost", "parked", "ready", "thread", "until", "watcher")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.lost = False  # the hub is being destroyed: `hub.loop` is there for some time yet
        self.thread = _last_words_here().thread
        self.thread.homes = [home for home in self.thread.homes if not home.is_lost()] + [self]
        self.parked = 0
        self.watcher: Any = None  # while there are parked ones
        self.ready: deque[_Wait] = deque()
        self.called = False  # the hub is about to look at `ready`, or is at it
        self.until = 0.0

    def hold(self) -> None:
        """The first is about to park."""
        # Made anew each time: that libuv's is stopped, its loop does not see.
        self.watcher = self.hub.loop.async_()
        self.watcher.start(self.run)

    def let_go(self) -> None:
        """The last has gone on."""
        self.watcher.stop()
        self.watcher.close()
        self.watcher = None
        self.called = False  # the call may have been due to it

    def tell(self, here: bool) -> None:
        """Have the hub look at `ready`. `here`: this is its thread."""
        # Who adds to `ready` asks this afterwards, and the hub looks at `ready` once more after it took this back.
        if not self.called:
            self.called = True
            loop = self.hub.loop
            (loop.run_callback if here else loop.run_callback_threadsafe)(_Call(self))

    def is_lost(self) -> bool:
        """Whether the hub was destroyed. Then what its greenlets had been given goes back."""
        if not self.lost and self.hub.loop is not None:
            return False
        self.undo()
        return True

    def undo(self) -> None:
        """Nobody in `ready` will go on, and nobody comes to it any more."""
        self.lost = True  # first: what goes back may be for another greenlet of this hub
        while self.ready:
            try:
                op = self.ready.popleft().op
            except IndexError:  # another thread, which added one, has found out by itself
                break
            if op is not None:
                op._undo()

    def run(self) -> None:
        """Called by the hub: let those go on that are to."""
        if self.is_lost():
            return  # its loop was left to another hub
        ready = self.ready
        self.until = monotonic() + _SLICE
        try:
            while ready:
                # It may have gone on meanwhile, and wait for something else.
                wait = ready.popleft()
                if wait.op is not None:
                    wait.greenlet.switch()
                    if monotonic() >= self.until:
                        break
        except HubDestroyed:
            self.undo()
            raise
        finally:
            self.called = False
            if ready and self.watcher is not None:
                self.called = True
                # Not by `run_callback`, or we were called in this very turn: gevent makes fifty calls before it looks at
                # the clock.
                self.watcher.send()


class _Call:
    """What a hub was asked to call, once. Let go of without being called, it is what tells of the hub's end."""

    __slots__ = ("home",)

    def __init__(self, home: _Home) -> None:
        self.home: _Home | None = home

    def __call__(self) -> None:
        home, self.home = self.home, None
        if home is not None:
            home.run()

    def __del__(self) -> None:
        home = self.home
        if home is not None and not home.thread.is_left():
            home.undo()


def _watch(watchers: list[Any], hub: Any, op: Op[Any], wait: _Wait, timeout: float | None, scope: Any) -> None:
    """Start what else may end the wait."""
    due = op._timer()
    ends: list[tuple[float | None, Any]] = [
        (None if due is None else due[0], None if due is None else partial(op._fire, due[1])),
        (timeout, wait.expire),
        (None if scope is None else scope._left(), wait.wake),
    ]
    for seconds, call in ends:
        if seconds is not None and seconds < _FOR_EVER:
            watchers.append(hub.loop.timer(seconds))
            watchers[-1].start(call)
    for descriptor, to_write, case in op._descriptors():
        watchers.append(hub.loop.io(descriptor, _WRITE if to_write else _READ))
        watchers[-1].start(op._fire, case)


class _Wait:
    """How a parked greenlet is woken, from its own thread or another."""

    __slots__ = ("greenlet", "home", "op", "timed_out")

    def __init__(self, op: Op[Any], greenlet: Any, home: _Home) -> None:
        self.op: Op[Any] | None = op  # None: it is not parked any more
        self.greenlet = greenlet
        self.home = home
        self.timed_out = False

    def wake(self) -> bool:
        """Have the greenlet look again: its operation is decided, or its scope has changed. False: it will never run."""
        home = self.home
        # First: if the thread ends at this moment, either it finds this, or we find that it has ended.
        home.ready.append(self)
        if get_hub_if_exists() is home.hub and not home.lost:
            if not home.called:
                home.tell(here=True)
            return True
        if self.is_gone():
            try:
                home.ready.remove(self)
            except ValueError:
                pass  # it found this
            return False
        home.tell(here=False)
        return True

    def is_gone(self) -> bool:
        """Whether the greenlet will never run again."""
        # PyPy finalizes the last words of a thread when it likes; but of an ended thread, every greenlet is dead.
        home = self.home
        return home.lost or home.hub.loop is None or home.thread.ended or self.greenlet.dead

    def expire(self) -> None:
        self.timed_out = True
        self.wake()


def _throw(greenlet: Any, error: BaseException, timeout: gevent.Timeout | None) -> None:
    """Deliver what came too late for the operation it met. Called by the hub, hence while the greenlet is switched
    out."""
    if greenlet.dead or (timeout is not None and not _is_open(timeout)):
        return
    greenlet.throw(error)


def _timeout_behind(error: BaseException, hub: Any, greenlet: Any) -> gevent.Timeout | None:
    """The timeout an error comes from: itself, or the one that was told to raise it. Asked while the hub is in the
    middle of throwing."""
    if isinstance(error, gevent.Timeout):
        return error
    frame = hub.gr_frame
    if frame is None or frame.f_code is not _EXPIRY:
        return None
    found = frame.f_locals
    return found["self"] if found.get("prev_greenlet") is greenlet else None


def _is_open(timeout: gevent.Timeout) -> bool:
    """Whether the block of a timeout has not been left yet: leaving it closes its timer."""
    return type(timeout.timer).__name__ != "_FakeTimer"


class _Thread:
    """A thread, as the greenlets know it that are parked there."""

    __slots__ = ("ended", "homes", "pid")

    def __init__(self) -> None:
        self.ended = False
        self.homes: list[_Home] = []  # of its hub, and of those it had before
        self.pid = os.getpid()

    def is_left(self) -> bool:
        """Whether what it leaves behind is to be let alone: the interpreter ends, or this is a forked child. There the
        other threads end as well, but their operations and groups are the parent's affair: a lock of theirs may be held
        by a thread that is not there."""
        return sys.is_finalizing() or os.getpid() != self.pid


class _LastWords:
    """What the storage of a thread alone refers to, and which is finalized therefore as the thread ends, before others
    can see that it has: the operations that were met for its greenlets are undone, and groups hear of the children that
    it leaves behind."""

    __slots__ = ("children", "thread")

    def __init__(self) -> None:
        self.thread = _Thread()
        self.children: set[GreenletProcess[Any]] = set()

    def __del__(self) -> None:
        if self.thread.is_left():
            return
        self.thread.ended = True
        for home in self.thread.homes:
            home.undo()
        for process in list(self.children):
            process._lose_thread()


_here = get_original("threading", "local")()  # not gevent's, which is of one greenlet


def _last_words_here() -> _LastWords:
    words: _LastWords | None = getattr(_here, "last_words", None)
    if words is None:
        words = _here.last_words = _LastWords()
    return words


class _Child(_Greenlet):
    """The greenlet of a process."""

    process: GreenletProcess[Any]


class GreenletProcess(PlacedProcess[T]):
    """A greenlet of the thread that spawned it, under a scope of its own.

    Cancelling it makes the operation it is parked on raise `Cancelled`, or kills it, with `GreenletExit`, when it is
    parked on something else. It is told once; but operations that it begins afterwards raise `Cancelled` again.
    """

    __slots__ = ("_greenlet", "_raised", "_scope", "_timer", "_told")

    _place = "greenlet"

    def __init__(self, group: Group, name: str, spawner: FrameType, scope: lowlevel.Scope) -> None:
        super().__init__(group, name, spawner)
        self._scope = lowlevel.Scope(scope)
        self._greenlet: Any = None
        self._raised: BaseException | None = None
        # In the greenlet's thread only.
        self._timer: Any = None
        self._told = False

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        if running_loop() is not None or _scheduler_here() is not None:
            raise ValueError(
                "on='greenlet' needs a hub of gevent, and this thread runs another event loop, which would never let "
                "the greenlet run; spawn it in a greenlet or a thread, or use on='task' or on='thread'"
            )
        # A greenlet starts with an empty context, and gives its own to nobody.
        self._greenlet = _Child(copy_context().run, self._main, fn, args)
        self._greenlet.process = self
        self._greenlet.name = self._name
        self._greenlet.rawlink(self._on_done)
        _last_words_here().children.add(self)
        self._greenlet.start()
        self._arm()

    def _main(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if self._cancel_asked:
            raise gevent.GreenletExit
        self._scope.enter()
        try:
            result = fn(*args)
            if isinstance(result, Coroutine):
                result.close()
                raise TypeError(f"{fn!r} returned a coroutine, which no greenlet can run; use on='thread'")
            return result.wait() if isinstance(result, Op) else result
        except gevent.GreenletExit:
            raise
        except BaseException as error:
            # Kept here: gevent would print it, and nobody needs to hear of it twice.
            # Not by assignment: there are error classes that forbid that.
            BaseException.with_traceback(error, error.__traceback__ and error.__traceback__.tb_next)
            self._raised = error
        finally:
            self._scope.exit()
            del self, fn, args  # this frame is in the error's traceback

    def _on_done(self, greenlet: Any) -> None:
        error, self._raised, self._greenlet = self._raised, None, None
        _last_words_here().children.discard(self)
        self._disarm()
        if isinstance(greenlet.value, gevent.GreenletExit) or (isinstance(error, Cancelled) and self._scope.cancelled):
            self._finish(cancelled=True)
        else:
            self._finish(greenlet.value, error)

    def _lose_thread(self) -> None:
        """The thread has ended, and this greenlet will never run again."""
        error, self._greenlet = None, None
        if not self._cancel_asked:
            error = RuntimeError(
                f"process {self._name!r} can never end: the thread of its greenlet has ended; wait for it there"
            )
        self._finish(error=error, cancelled=error is None)

    def cancel(self) -> None:
        """See `Process.cancel`."""
        if self._done:
            return
        self._cancel_asked = True
        self._scope.cancel()
        self._call(self._kill)

    def _kill(self) -> None:
        """Called by the hub, after the operation that the greenlet is parked on has heard of the scope's end."""
        if self._greenlet is not None and not self._told:
            self._greenlet.kill(block=False)

    def _notice(self) -> None:
        """An operation that was parked in this greenlet was cancelled; by this process's end, or by that of an inner
        group alone."""
        self._told = self._told or self._scope.cancelled

    def _call(self, call: Callable[[], object]) -> None:
        """Have the hub make a call, in the greenlet's thread. When it has ended, nothing."""
        greenlet = self._greenlet
        hub = None if greenlet is None or greenlet.dead else greenlet.parent
        loop = getattr(hub, "loop", None)
        if loop is not None:
            (loop.run_callback if get_hub_if_exists() is hub else loop.run_callback_threadsafe)(call)

    # The group's deadline: weft's operations keep it by themselves, gevent's know nothing of it.

    def _deadline_moved(self) -> None:
        self._call(self._arm)

    def _arm(self) -> None:
        self._disarm()
        group = self._group()
        left = None if group is None else group._time_left()
        if group is not None and left is not None and left < _FOR_EVER and self._greenlet is not None:
            self._timer = gevent.get_hub().loop.timer(left)
            self._timer.start(group.cancel)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()
