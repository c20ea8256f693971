"""What is told when something is dropped: an operation that was never performed, a loop's callback that was never called.

A finalizer written in Python is a place where Python swallows the exceptions of signal handlers, Ctrl-C among them. So what
is not needed any more gets another class, one without a finalizer, before it goes; and what a finalizer must do is done
to its end.
"""

from __future__ import annotations

import _thread
import sys
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from weft._pure.origin import Origin

__all__ = ["Ticket", "Used", "finalize", "perform", "unraisable"]


class Used:
    """A ticket that nothing is told of."""

    __slots__ = ("made", "what")

    def __init__(self, what: object, made: Origin) -> None:
        self.what = what
        self.made = made


class Ticket(Used):
    """Of an operation, for the one who performs it. Warns when it is dropped."""

    __slots__ = ()

    def __del__(self) -> None:
        if not hasattr(self, "made"):
            return  # it was not even made
        message = f"{self.what}, operation made at {self.made}, was never performed: await it, or call its wait()"
        warnings.warn_explicit(message, RuntimeWarning, self.made.file, self.made.line)


def perform(ticket: Used) -> None:
    """It has done its service."""
    ticket.__class__ = Used


def finalize(step: Callable[[], object]) -> None:
    """Do what a finalizer has to do, though a signal handler may raise in the middle; it can be repeated. Ctrl-C, which
    would be swallowed, is sent anew."""
    try:
        step()
    except KeyboardInterrupt:
        step()
        _thread.interrupt_main()


# What CPython's own hook insists on, a class that has a name nowhere. PyPy's takes anything with its attributes, of which it
# has one more.
_tuples: list[Any] = tuple.__subclasses__()  # pyright: ignore[reportUnknownVariableType]
_HookArguments: Any = next((kind for kind in _tuples if kind.__name__ == "UnraisableHookArgs"), None)


def unraisable(error: BaseException, thing: Any) -> None:
    """Report an error that can be raised to nobody."""
    reported: dict[str, Any] = {
        "exc_type": type(error),
        "exc_value": error,
        "exc_traceback": error.__traceback__,
        "err_msg": None,
        "object": thing,
    }
    arguments: Any
    if sys.implementation.name == "cpython":
        arguments = _HookArguments(reported.values())
    else:
        arguments = SimpleNamespace(**{**reported, "err_msg": "", "extra_line": ""})
    try:
        sys.unraisablehook(arguments)
    except Exception:
        sys.__unraisablehook__(arguments)  # the program's hook is broken; whoever reports must go on
