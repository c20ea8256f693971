"""Operations in gevent's greenlets: `op.wait()` parks the greenlet and lets the hub run the others.

It does not matter whether gevent has patched the standard library, nor what was imported first. A thread without a hub
is a plain thread. `kill` and `gevent.Timeout` reach a parked greenlet as an exception out of its switch; when the
operation was met already it completes, and the exception is thrown at the greenlet's next switch (L4), unless it is a
timeout whose block has ended by then.

Source: gevent's documentation of `gevent.hub.Waiter` and of the event loop's watchers.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# What is private here is private to the package; gevent is typed in part only.

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent._hub_local import get_hub_if_exists  # there is no public way to ask without making one
from gevent.hub import Waiter
from greenlet import getcurrent

from weft import lowlevel
from weft._errors import BlockingInLoopError, Cancelled
from weft._process import Process

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from weft._group import Group
    from weft._weft import Op

__all__ = ["GreenletProcess", "add"]

T = TypeVar("T")

_READ, _WRITE = 1, 2  # libev's and libuv's numbers
_FOR_EVER = 1e9  # seconds; more is beyond what every loop can count


def add() -> None:
    """Have weft's operations wait in gevent."""
    lowlevel.add_scheduler(_identify, wait=_wait)


def _identify() -> object:
    """The greenlet that runs here, where there is a hub; True for the thread's own."""
    hub = get_hub_if_exists()
    if hub is None:
        return None
    current = getcurrent()
    return True if current.parent is None else current


def _wait(op: Op[Any], timeout: float | None) -> Any:
    """What `op.wait(timeout)` does in a greenlet when it cannot be done at once."""
    hub: Any = gevent.get_hub()
    me = getcurrent()
    if me is hub:
        raise BlockingInLoopError(f"{op!r} would block gevent's hub: it was called by a callback of the hub's loop")
    waiter: Any = Waiter(hub)
    wait = _Wait(op, hub, waiter)
    if op._park(wait.wake):
        return op._take()
    scope = lowlevel.Scope.current()
    if scope is not None:
        scope._enroll(wait.rouse)
    watchers: list[Any] = []
    _keep_alive(hub, 1)
    try:
        _watch(watchers, hub, op, wait, timeout, scope)
        while True:
            try:
                waiter.get()
            except BaseException as error:
                if op._withdraw():
                    raise
                hub.loop.run_callback(_throw, me, error)
                return op._take()
            waiter.clear()
            if wait.met and op._resume():
                return op._take()
            wait.met = False
            if scope is not None and scope.cancelled and op._withdraw():
                raise Cancelled(f"{op!r} was withdrawn: the group this greenlet belongs to was cancelled")
            if wait.timed_out and op._withdraw():
                raise TimeoutError(f"{op!r} was not met within {timeout} s and was withdrawn")
    except BaseException:
        op._undo()  # does nothing to one that has ended
        raise
    finally:
        if scope is not None:
            scope._leave(wait.rouse)
        for watcher in watchers:
            watcher.stop()
            watcher.close()
        _keep_alive(hub, -1)


def _keep_alive(hub: Any, count: int) -> None:
    """Tell the hub's loop how many more wait for something that may come from another thread. A loop without anything
    to watch would end, with LoopExit."""
    home = getattr(hub, "_weft_home", None)
    if home is None:
        home = hub._weft_home = _Home(hub.loop.async_())
    home.parked += count
    if home.parked == 0:
        home.watcher.stop()
    elif home.parked == count:
        home.watcher.start(_nothing)


class _Home:
    """What weft keeps per hub: how many of its greenlets are parked, and what keeps its loop alive meanwhile."""

    def __init__(self, watcher: Any) -> None:
        self.watcher = watcher
        self.parked = 0


def _nothing() -> None:
    pass


def _watch(watchers: list[Any], hub: Any, op: Op[Any], wait: _Wait, timeout: float | None, scope: Any) -> None:
    """Start what else may end the wait."""
    due = op._timer()
    ends: list[tuple[float | None, Any]] = [
        (None if due is None else due[0], None if due is None else partial(op._fire, due[1])),
        (timeout, wait.expire),
        (None if scope is None else scope._left(), wait.rouse),
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

    __slots__ = ("hub", "met", "op", "timed_out", "waiter")

    def __init__(self, op: Op[Any], hub: Any, waiter: Any) -> None:
        self.op = op
        self.hub = hub
        self.waiter = waiter
        self.met = False
        self.timed_out = False

    def wake(self) -> bool:
        """Called when the operation is decided. False: the hub is gone."""
        self.met = True
        return self.rouse()

    def rouse(self) -> bool:
        """Have the greenlet look again."""
        loop = self.hub.loop
        if loop is None or self.waiter.greenlet is None and self.hub.dead:
            return False
        call = loop.run_callback if get_hub_if_exists() is self.hub else loop.run_callback_threadsafe
        call(self.waiter.switch, None)
        return True

    def expire(self) -> None:
        self.timed_out = True
        self.rouse()


def _throw(greenlet: Any, error: BaseException) -> None:
    """Deliver what came too late for the operation it met. Called by the hub, hence while the greenlet is switched
    out."""
    if greenlet.dead or (isinstance(error, gevent.Timeout) and not _is_open(error)):
        return
    greenlet.throw(error)


def _is_open(timeout: gevent.Timeout) -> bool:
    """Whether the block of a timeout has not been left yet: leaving it closes its timer."""
    return type(timeout.timer).__name__ != "_FakeTimer"


class GreenletProcess(Process[T]):
    """A greenlet of the thread that spawned it, under a scope of its own. Cancelling it kills it, with
    `GreenletExit`."""

    __slots__ = ("_greenlet", "_raised", "_scope")

    _place = "greenlet"

    def __init__(self, group: Group, name: str, spawner: FrameType, scope: lowlevel.Scope) -> None:
        super().__init__(group, name, spawner)
        self._scope = lowlevel.Scope(scope)
        self._greenlet: Any = None
        self._raised: BaseException | None = None

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        # A greenlet starts with an empty context, and gives its own to nobody.
        self._greenlet = gevent.Greenlet(copy_context().run, self._main, fn, args)
        self._greenlet.name = self._name
        self._greenlet.rawlink(self._on_done)
        self._greenlet.start()

    def _main(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._scope.enter()
        try:
            result = fn(*args)
            if isinstance(result, Coroutine):
                result.close()
                raise TypeError(f"{fn!r} returned a coroutine, which no greenlet can run; use on='thread'")
            return result
        except gevent.GreenletExit:
            raise
        except BaseException as error:
            # Kept here: gevent would print it, and nobody needs to hear of it twice.
            error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
            self._raised = error
        finally:
            self._scope.exit()
            del self, fn, args  # this frame is in the error's traceback

    def _on_done(self, greenlet: Any) -> None:
        error, self._raised, self._greenlet = self._raised, None, None
        if isinstance(greenlet.value, gevent.GreenletExit) or (isinstance(error, Cancelled) and self._scope.cancelled):
            self._finish(cancelled=True)
        else:
            self._finish(greenlet.value, error)

    def cancel(self) -> None:
        """See `Process.cancel`."""
        if self._done:
            return
        self._cancel_asked = True
        self._scope.cancel()
        greenlet = self._greenlet
        if greenlet is not None:
            hub = greenlet.parent if not greenlet.dead else None
            loop = getattr(hub, "loop", None)
            if loop is not None:
                call = loop.run_callback if get_hub_if_exists() is hub else loop.run_callback_threadsafe
                call(greenlet.kill, gevent.GreenletExit, False)
