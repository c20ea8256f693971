"""Go's concurrency for Python: one channel that works everywhere, and a select that never loses a value.

    import weft

    async def main():
        ch = weft.Channel[int](8)
        async with weft.Group() as g:
            g.spawn(produce, ch, on="thread")
            async for value in ch:
                print(value)

Importing it starts no thread and imports no scheduler. `Group` and some others are imported when one of them is first
asked for: a program that only has channels should not pay for them, nor for `typing` and `threading`.
"""

import os
import sys

if os.environ.get("WEFT_PURE") == "1":
    sys.modules["weft._weft"] = __import__("weft._pure", fromlist=["*"])  # in Python alone, to test it

from weft._errors import (
    BlockingInLoopError,
    Cancelled,
    Closed,
    ForkedChannelError,
    InternalError,
    NoReceivers,
    PeerDied,
    Poisoned,
    RemoteError,
    WeftError,
    WouldBlock,
)
from weft._event import Event
from weft._weft import (
    Barrier,
    Channel,
    Op,
    Receiver,
    Selected,
    Selecting,
    Sender,
    Statistics,
    Tick,
    __version__,
    after,
    always,
    at,
    never,
    readable,
    select,
    selecting,
    tick,
    writable,
)

TYPE_CHECKING = False  # true to type checkers
if TYPE_CHECKING:
    from weft._carry import Carried, carry
    from weft._group import Group
    from weft._pool import Pool
    from weft._process import Process
    from weft._producer import producer
    from weft._run import run
    from weft._snapshot import Snapshot, snapshot

__all__ = [
    "Barrier",
    "BlockingInLoopError",
    "Cancelled",
    "Carried",
    "Channel",
    "Closed",
    "Event",
    "ForkedChannelError",
    "Group",
    "InternalError",
    "NoReceivers",
    "Op",
    "PeerDied",
    "Poisoned",
    "Pool",
    "Process",
    "Receiver",
    "RemoteError",
    "Selected",
    "Selecting",
    "Sender",
    "Snapshot",
    "Statistics",
    "Tick",
    "WeftError",
    "WouldBlock",
    "__version__",
    "after",
    "always",
    "at",
    "carry",
    "never",
    "producer",
    "readable",
    "run",
    "select",
    "selecting",
    "sleep",
    "snapshot",
    "tick",
    "writable",
]

sleep = after
"""`after`, under the name one looks for when there is nothing to select: `await weft.sleep(0.1)`."""

# What is imported when it is asked for, and where it is. (PEP 562)
_LATER = {
    "Carried": "weft._carry",
    "Group": "weft._group",
    "Pool": "weft._pool",
    "Process": "weft._process",
    "carry": "weft._carry",
    "producer": "weft._producer",
    "Snapshot": "weft._snapshot",
    "run": "weft._run",
    "snapshot": "weft._snapshot",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        names = globals()
        for later, module in _LATER.items():
            names[later] = getattr(import_module(module), later)
        # The interpreter finds the attributes of a module quickly only where nothing is called for those that are missing.
        names.pop("__getattr__", None)
        return names[name]

    def __dir__():
        return sorted({*globals(), *_LATER})
