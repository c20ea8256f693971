"""`weft._weft` in Python alone, for where the extension cannot be: on PyPy, and with WEFT_PURE=1 anywhere else, to test it.

It is what python/weft/_weft.pyi declares, with the same laws (docs/design/laws.md) and the same words, and slower:

- `transaction` is how anything shared is changed, without a lock; `waiting` is who waits, and where.
- `chan` is what happens in a channel; `channel` is its face, and that of its ends. `cases` is what can be waited for.
- `op` is the operation that every waiting call returns; `select` and `selecting` are made of it.
- `home` performs one in an asyncio task, `thread` by blocking, under a `scope`; `lowlevel` in what else was added.
- `timers`, `barrier`, `files` are further cases; `errors` and `origin` say what went wrong, and where.
- `documentation` brings the docstrings, which live in the stub file.
"""

import os
import sys

from weft._pure import arguments, transaction
from weft._pure.barrier import Barrier
from weft._pure.channel import Channel, Receiver, Sender
from weft._pure.documentation import document, version
from weft._pure.files import readable, writable
from weft._pure.group import _Group
from weft._pure.lowlevel import add_scheduler as _add_scheduler
from weft._pure.lowlevel import scheduler_here as _scheduler_here
from weft._pure.op import Op
from weft._pure.scope import Scope
from weft._pure.select import select
from weft._pure.selecting import Selecting, selecting
from weft._pure.timers import Tick, after, always, at, never, tick
from weft._results import Selected, Statistics

__all__ = ["Barrier", "Channel", "Op", "Receiver", "Scope", "Selected", "Selecting", "Sender", "Statistics"]
__all__ += [
    "_Group",
    "__version__",
    "_add_scheduler",
    "_scheduler_here",
    "_spin",
    "after",
    "always",
    "at",
    "never",
    "readable",
    "select",
]
__all__ += ["Tick", "selecting", "tick", "writable"]

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("weft in pure Python needs an interpreter with a global lock: unset WEFT_PURE")

__version__ = version()
_steps_tasks = False


def _spin(seconds: float) -> None:
    """Nobody runs at the same time: there is nothing to look for."""
    if not 0 <= arguments.number(seconds, "seconds") <= 1:
        raise ValueError(f"seconds must be from 0 to 1, not {seconds}")


def _after_fork() -> None:
    transaction.forget_bells()
    arguments.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

document(globals())
