"""What a scheduler needs so that weft's operations can wait in it.

asyncio and threads are built in; trio, gevent and bare greenlets are added by weft itself when a program has imported
them. Any other scheduler is added by its author, in one file of about 100 lines: weft's own `_trio.py` and `_gevent.py`
are such files, and use nothing but this module.

A scheduler is *added* with two functions (`add_scheduler`):

- **identify**: which party of this scheduler runs here, now. It is called for every operation, so it has to be quick.
- **perform**, when its parties await, or **wait**, when they call: perform an operation in the party that runs.

Either is written with the steps below, always in this order:

    if begin(op):                    # 1. try. Most operations end here
        return take(op)
    if not park(op, wake):           # 2. wait: from now on `wake` may be called, once, from any thread
        ...suspend the party...      #    until `wake` was called, a timer is due, or it is cancelled
        ...cancelled?  if withdraw(op): raise, else go on: it was decided before...
    return take(op)                  # 3. the result, or the operation's own error

What a scheduler must keep (the laws are in docs/design/laws.md; `weft.testing.conformance` tests them):

- **wake** only makes its party runnable. It returns at once, calls nothing of the user's, and may be called from any
  thread. It answers False when the party is gone for good (its loop has ended): then a value it was to get goes to the
  next receiver instead. It may come after a `withdraw` that said False, or not at all after one that said True.
- **The commit wins** (L4). When a party is cancelled, `withdraw` decides: True, nothing has happened and the
  cancellation goes on; False, the operation was met, its result is returned with `take`, and the cancellation is
  delivered where the party suspends next.
- **An operation that nobody will take up** any more (its party was destroyed) is undone with `undo`, in any state.
- **Timers and descriptors** in an operation are the scheduler's to watch, with its own clock: `timer` and
  `descriptors`, asked after `park`, say what for, and `fire` reports what came. Both must be given up when the wait is
  over.
- **A wake-up may be in vain**: before `take`, ask `resume`, and suspend again when it says False.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from weft._weft import Op, Scope, _add_scheduler, _spin

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = [
    "Scope",
    "add_scheduler",
    "begin",
    "describe",
    "descriptors",
    "fire",
    "is_outside",
    "is_ready",
    "park",
    "resume",
    "skip",
    "spin",
    "take",
    "timer",
    "undo",
    "withdraw",
]

T = TypeVar("T")


def add_scheduler(
    identify: Callable[[], object],
    *,
    perform: Callable[[Op[Any]], Coroutine[Any, Any, Any] | Generator[Any, Any, Any]] | None = None,
    wait: Callable[[Op[Any], float | None], Any] | None = None,
) -> None:
    """Have operations wait in another scheduler, from now on and in this interpreter. There is no way back.

    Args:
        identify: the party (task, greenlet) of this scheduler that runs in this thread now; None when none does; True
            when it is the thread itself, where the scheduler shares the thread with its parties. Asked in the order in
            which schedulers were added, before asyncio and before the thread.
        perform: an `async def` that performs an operation, for parties that await, or a generator function that yields
            what their scheduler is to get, which is quicker. `op.wait()` then raises `BlockingInLoopError` in them.
        wait: performs an operation that was begun and is not decided, by suspending the party that calls, for at most
            so many seconds (None: for ever; then `TimeoutError`).

    Raises:
        TypeError: neither or both were given.
    """
    if (perform is None) == (wait is None):
        raise TypeError(
            "add_scheduler() takes either perform=, for parties that await, or wait=, for parties that call"
        )
    _add_scheduler(identify, perform, wait)


def spin(seconds: float) -> None:
    """Have this thread look for so long whether its operation was decided, before it sleeps (0: not at all, as at first).

    It saves the time that the system takes to wake a sleeping thread, some microseconds, where the other party runs on
    another core (in another interpreter, or another process) and answers within that time. While it looks it uses its
    core, and lets other threads have the interpreter.

    Raises:
        ValueError: less than 0, or more than 1.
    """
    _spin(seconds)


def begin(op: Op[Any]) -> bool:
    """Perform it as far as possible without waiting. True: it is decided, for `take`.

    Raises:
        RuntimeError: it was performed before, or belongs to a select.
    """
    return op._begin()


def park(op: Op[Any], wake: Callable[[], object], gone: Callable[[], bool] | None = None) -> bool:
    """Let it wait; `wake()` is called when it is decided. True: it was decided at once, and `wake` will not be
    called.

    `gone()` may be asked, from any thread, whether the party will never come for it because its scheduler has ended; it
    does nothing else. Without it only `wake` tells, which is too late for a barrier.
    """
    return op._park(wake, gone)


def resume(op: Op[Any]) -> bool:
    """Whether there is something to take. False: it waits on, and `wake` will be called again."""
    return op._resume()


def withdraw(op: Op[Any]) -> bool:
    """Take a waiting operation back. True: it is as if it had never been tried. False: it was decided, for `take`."""
    return op._withdraw()


def skip(op: Op[Any]) -> None:
    """It will not be performed: its party was cancelled before it was begun. Without this it would warn."""
    op._skip()


def take(op: Op[T]) -> T:
    """The result of a decided operation: its value, or its error raised."""
    return op._take()


def undo(op: Op[Any]) -> None:
    """Give it up, whatever its state: a value it received goes back to the front of its channel."""
    op._undo()


def is_ready(op: Op[Any]) -> bool:
    """Whether `begin` would decide a fresh operation now, as far as one look can tell: for schedulers that give others a
    turn before what does not have to wait."""
    return op._is_ready()


def is_outside(op: Op[Any]) -> bool:
    """Whether `timer` and `descriptors` need to be asked."""
    return op._is_outside()


def timer(op: Op[Any]) -> tuple[float, int] | None:
    """Seconds until the first timer of a parked operation is due, and its case, for `fire`; None: it has none."""
    return op._timer()


def describe(op: Op[Any]) -> str:
    """What it is, on which channel, and where it was made: for messages."""
    return op._describe()


def descriptors(op: Op[Any]) -> list[tuple[int, bool, int]]:
    """The descriptors a parked operation waits for: each with whether it is to become writable (else readable), and its
    case, for `fire`."""
    return op._descriptors()


def fire(op: Op[Any], case: int) -> bool:
    """A timer is due, or a descriptor ready. True: that decided the operation, and `wake` was called. False: something
    else had decided it, or it waits no more."""
    return op._fire(case)
