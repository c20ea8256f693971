"""The line of the program that made or closed something: the first one up the stack that is not weft's own."""

# pyright: reportPrivateUsage=false
# `sys._getframe` is there for such uses.

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["UNKNOWN", "Origin", "here"]

_OURS = str(Path(__file__).parent.parent)


class Origin(NamedTuple):
    """A place in the program's source."""

    file: str
    line: int

    def __str__(self) -> str:
        name = self.file.replace("\\", "/").rpartition("/")[2]
        return f"{name}:{self.line}" if self.line else name


UNKNOWN = Origin("unknown", 0)


def here() -> Origin:
    """Where the program called into weft."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return UNKNOWN if frame is None else Origin(frame.f_code.co_filename, frame.f_lineno)
