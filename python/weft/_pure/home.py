"""Performing an operation in an asyncio task, and a loop's home in weft: where decided operations wait for their tasks to be
stepped.

While it waits, a task sees a `Parked` as its future. When that is decided it is put in the home's list; the first to come
has the loop call a drain (`call_soon`, or `call_soon_threadsafe` from elsewhere), which steps the whole burst, each task
in its own context, and hands the loop back after a millisecond (L13).

A loop that is closed drops its callbacks. Who would receive there is passed over; what was met just before is undone, and
the values go back to their channels. Who would send there can be met: the value needs nobody to come for it.

The home is an attribute of its loop and knows it by a weak reference only: it ends with the loop.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import sys
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any

from weft._entry import running_loop
from weft._pure.transaction import ring

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator
    from contextvars import Context

    from weft._pure.op import Op

__all__ = ["perform"]

_SLICE = 0.001  # seconds
_SAME_CLOCK = 1.0  # seconds: two clocks that are no further apart are one
_LOOK_EVERY = 64  # operations between looks at the clock
_ATTRIBUTE = "_weft_home"
_FOR_EVER = 1e9  # seconds: a longer delay needs no timer

# Operations performed, and when the loop was last handed back: of the whole process, and only roughly kept.
_performed = 0
_handed_back = 0.0


def _slice_is_over() -> bool:
    """Whether tasks have gone on for a millisecond without waiting."""
    global _performed, _handed_back
    _performed += 1
    if _performed % _LOOK_EVERY:
        return False
    now = monotonic()
    over = now - _handed_back > _SLICE
    if over:
        _handed_back = now
    return over


def perform(op: Op) -> Generator[Any, Any, Any]:
    """What `await op` does."""
    op._claim()
    parked: Parked | None = None
    try:
        if (_slice_is_over() or (len(op._cases) == 1 and op._cases[0].is_a_turn())) and running_loop() is not None:
            yield  # the loop's turn; nothing was tried yet
        if not op._try_now():
            parked = _park(op)
            while not op._decided():
                parked._asyncio_future_blocking = True
                yield parked
                # Somebody may step the coroutine though nothing has happened.
                if op._is_met() and op._resume():
                    break
    except BaseException as error:
        ring()  # whoever an interrupted step was about to wake
        if op._withdraw() or not op._decided():
            op._end()
            raise
        if parked is None or not isinstance(error, _cancelled_error()):
            op._undo()
            raise
        # The commit wins: it completes, and the cancel comes at the next suspension.
        parked.late, parked.message = True, error.args[0] if error.args else None
    finally:
        if parked is not None:
            parked.disarm()
    if parked is not None and parked.late:
        parked.home.cancel_later(parked.message)
    return op._take()


def _park(op: Op) -> Parked:
    """It has to wait, in the loop that runs here."""
    loop = running_loop()
    if loop is None:
        raise RuntimeError(
            f"{op._description()} has to wait, but was awaited outside any scheduler: neither asyncio nor trio runs in this thread; "
            "use .wait() to block the thread"
        )
    home = getattr(loop, _ATTRIBUTE, None)
    if not isinstance(home, Home):
        home = Home(loop)
        setattr(loop, _ATTRIBUTE, home)
    home.deliver_pending()
    parked = Parked(op, home)
    try:
        parked.arm(loop)  # before anything is offered: it may fail
        op._wait_for(parked.wake, parked.is_gone)
    except BaseException:
        parked.disarm()
        raise
    return parked


def _cancelled_error() -> type[BaseException]:
    exceptions = sys.modules.get("asyncio.exceptions")
    return () if exceptions is None else exceptions.CancelledError  # type: ignore[return-value]


class Parked:
    """The future that a task sees while its operation waits. Of asyncio's future protocol it has what a task uses."""

    _asyncio_future_blocking = False

    def __init__(self, op: Op, home: Home) -> None:
        self.op = op
        self.home = home
        self.late = False  # a cancel came after the commit, and is still to be delivered
        self.message: Any = None  # the cancel's
        self._withdrawn = False
        self._missed = False  # woken before the task had left its callback
        self._callback: tuple[Callable[[Any], object], Context | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watched: list[tuple[int, bool]] = []

    # For the operation

    def wake(self) -> None:
        """From any thread."""
        self.home.push(self)

    def is_gone(self) -> bool:
        return self.home.is_gone()

    # The clock and the descriptors

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = self.op._timer()
        if timer is not None and timer[0] < _FOR_EVER:
            self._timer = loop.call_later(timer[0], self._fire_timer, timer[1])
        for fd, write, case in self.op._descriptors():
            copy = os.dup(fd)
            self._watched.append((copy, write))
            (loop.add_writer if write else loop.add_reader)(copy, self.op._fire, case)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._watched:
            copy, write = self._watched.pop()
            loop = self.home.loop()
            if loop is not None and not loop.is_closed():
                (loop.remove_writer if write else loop.remove_reader)(copy)
            os.close(copy)

    def _fire_timer(self, case: int) -> None:
        self._timer = None
        loop, timer = self.home.loop(), self.op._timer()
        if loop is not None and timer is not None and timer[0] > 0 and abs(loop.time() - monotonic()) < _SAME_CLOCK:
            # Too early: uvloop's clock counts milliseconds.
            self._timer = loop.call_later(max(timer[0], _SLICE), self._fire_timer, case)
        else:
            self.op._fire(case)

    # For the home

    def step(self) -> None:
        """Have the task go on."""
        if self._callback is None:
            self._missed = True
            return
        (callback, context), self._callback = self._callback, None
        if context is None:
            callback(self)
        else:
            context.run(callback, self)

    def abandon(self) -> None:
        """The task will never go on."""
        if self.op._decided():
            self.op._undo()

    # For the task

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        return self.home.loop()

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        if self._callback is not None:
            raise RuntimeError(f"{self.op._description()} is awaited by somebody else already")
        self._callback = fn, context
        if self._missed:
            self._missed = False
            self.wake()

    def done(self) -> bool:
        return self._withdrawn or self.op._is_met()

    def cancelled(self) -> bool:
        return self._withdrawn

    def result(self) -> None:
        """None, or CancelledError. What the operation gave is what `await` returns."""
        if self._withdrawn:
            raise _cancelled_error()(*(() if self.message is None else (self.message,)))

    def exception(self) -> None:
        self.result()

    def cancel(self, msg: Any = None) -> bool:
        """Withdraw the operation. When it has happened already, the task is cancelled where it waits next."""
        if self._withdrawn:
            return False
        self.message = msg
        if self.op._withdraw():
            self._withdrawn = True
            self.wake()
        else:
            self.late = True
        return True

    def __repr__(self) -> str:
        return f"<weft: waits for {self.op!r}>"


class Home:
    """Of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = weakref.ref(loop)
        self._ready: dict[Parked, None] = {}  # in order; one that is put in again stays where it is
        self._scheduled = False
        self._turning = False  # a callback of the loop's is ours: it will look at the list before the loop sleeps
        # Tasks with a cancel that came too late: its message, and how many requests there were.
        self._late: dict[asyncio.Task[Any], tuple[Any, int]] = {}

    def is_gone(self) -> bool:
        loop = self.loop()
        return loop is None or loop.is_closed()

    def push(self, parked: Parked) -> None:
        """Have its task stepped. From any thread."""
        try:
            self._push(parked)
        except BaseException:  # a signal handler's, between any two steps: the wake-up must not be lost
            self._push(parked)
            raise

    def _push(self, parked: Parked) -> None:
        self._ready[parked] = None
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        loop = self.loop()
        if loop is None or loop.is_closed():
            self.abandon()
            return
        # A signal handler may run in the loop's thread while the loop sleeps, or is about to; then it must be woken as from
        # elsewhere.
        here = running_loop() is loop and (self._turning or _current_task(loop) is not None)
        drain = Drain(self)
        self._scheduled = True  # before the loop may have called it
        try:
            (loop.call_soon if here else loop.call_soon_threadsafe)(drain)
        except BaseException as error:
            mute(drain)
            self._scheduled = False
            if not (isinstance(error, RuntimeError) and loop.is_closed()):
                raise
            self.abandon()

    def run(self) -> None:
        """Step the tasks of all decided operations, for at most a millisecond."""
        until = monotonic() + _SLICE
        before, self._turning = self._turning, True
        try:
            while self._ready and monotonic() < until:
                for parked in tuple(self._ready):
                    self._ready.pop(parked, None)
                    try:
                        parked.step()
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self._report(error)
                    if monotonic() >= until:
                        break
        finally:
            self._scheduled = False
            if self._ready:
                self._schedule()
            self._turning = before

    def _report(self, error: BaseException) -> None:
        loop = self.loop()
        if loop is not None:
            loop.call_exception_handler({"message": "Exception in a task stepped by weft", "exception": error})

    def abandon(self) -> None:
        """The loop was closed: what was decided is undone."""
        self._scheduled = False
        for parked in tuple(self._ready):
            self._ready.pop(parked, None)
            parked.abandon()

    # Cancels that came too late for the operation they met

    def cancel_later(self, message: Any) -> None:
        """Cancel the running task at its next suspension."""
        loop = self.loop()
        task = None if loop is None else _current_task(loop)
        if loop is not None and task is not None:
            # With how many requests there are now: when there are fewer, this one was withdrawn.
            self._late[task] = message, task.cancelling()
            loop.call_soon(self._deliver, task)

    def deliver_pending(self) -> None:
        """Before a task parks: a cancel for it is delivered at this suspension."""
        loop = self.loop()
        if self._late and loop is not None:
            self._deliver(_current_task(loop))

    def _deliver(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel the task anew, unless the request was withdrawn; the count of requests stays what it was."""
        if task is None or task not in self._late:
            return
        message, requests = self._late.pop(task)
        if not task.done() and task.cancelling() >= max(1, requests):
            task.cancel(message)
            task.uncancel()


class Called:
    """A drain that was called, or not taken by its loop."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def __call__(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<weft: step the tasks whose operations were met>"


class Drain(Called):
    """What a loop is given to call, once. A loop that is closed drops it instead."""

    def __call__(self) -> None:
        mute(self)
        self._home.run()

    def __del__(self) -> None:
        self._home.abandon()


def mute(drain: Called) -> None:
    """It needs no finalizer any more (see `dropped`)."""
    drain.__class__ = Called


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    import asyncio  # there is a loop: it was imported

    return asyncio.current_task(loop)
