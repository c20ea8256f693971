"""Go's concurrency for Python: one channel that works everywhere, and a select that never loses a value.

    import weft

    async def main():
        ch = weft.Channel[int](8)
        async with weft.Group() as g:
            g.spawn(produce, ch, on="thread")
            async for value in ch:
                print(value)

Importing it starts no thread and imports no scheduler.
"""

import os
import sys

if os.environ.get("WEFT_PURE") == "1":
    sys.modules["weft._weft"] = __import__("weft._pure", fromlist=["*"])  # in Python alone, to test it

from weft._carry import Carried, carry
from weft._errors import (
    BlockingInLoopError,
    Cancelled,
    Closed,
    ForkedChannelError,
    InternalError,
    NoReceivers,
    Poisoned,
    WeftError,
    WouldBlock,
)
from weft._event import Event
from weft._group import Group
from weft._process import Process
from weft._producer import producer
from weft._results import Statistics
from weft._run import run
from weft._weft import (
    Barrier,
    Channel,
    Op,
    Receiver,
    Selected,
    Selecting,
    Sender,
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
    "Poisoned",
    "Process",
    "Receiver",
    "Selected",
    "Selecting",
    "Sender",
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
    "tick",
    "writable",
]

sleep = after
"""`after`, under the name one looks for when there is nothing to select: `await weft.sleep(0.1)`."""
