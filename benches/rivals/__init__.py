"""The rivals: one file per library, each with a dict `PROGRAMS` from a program's name to how this library does it."""

from __future__ import annotations

from typing import NamedTuple


class Rival(NamedTuple):
    module: str  # in this folder
    needs: tuple[str, ...] = ()  # modules that must import, the library first
    loop: str = "asyncio"  # or "uvloop"
    table: str = "PROGRAMS"  # the dict in the module


# The order is the table's order. The programs of Go and C are in native.py.
RIVALS = {
    "weft": Rival("weft_channels", ("weft",)),
    "weft-processes": Rival("weft_channels", ("weft",), table="PROCESSES"),
    "weft-uvloop": Rival("weft_channels", ("weft", "uvloop"), loop="uvloop"),
    "weft-trio": Rival("trio_channels", ("weft", "trio"), table="WEFT"),
    "weft-gevent": Rival("weft_greenlets", ("weft", "gevent")),
    "asyncio": Rival("asyncio_queue"),
    "asyncio-uvloop": Rival("asyncio_queue", ("uvloop",), loop="uvloop"),
    "anyio": Rival("anyio_stream", ("anyio",)),
    "aiochan": Rival("aiochan_chan", ("aiochan",)),
    "janus": Rival("two_faced_queue", ("janus",), table="JANUS"),
    "culsans": Rival("two_faced_queue", ("culsans",), table="CULSANS"),
    "queue": Rival("thread_queue", table="QUEUE"),
    "simplequeue": Rival("thread_queue", table="SIMPLE_QUEUE"),
    "trio": Rival("trio_channels", ("trio",), table="TRIO"),
    "gevent": Rival("gevent_channel", ("gevent",)),
    "python": Rival("floor"),
}
