"""`readable` and `writable`. A loop watches a duplicate of the descriptor, so that it never meets the loop's own
registrations for the same one; a thread polls."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from weft._pure.cases import OpCase
from weft._pure.op import make

if TYPE_CHECKING:
    from weft._pure.op import Op
    from weft._pure.transaction import Transaction

__all__ = ["readable", "writable"]


class FileCase(OpCase):
    """Decided by a descriptor. `value` is what the program gave."""

    __slots__ = ("fd", "is_ready", "what")

    def __init__(self, file: Any, write: bool) -> None:
        super().__init__(file)
        self.fd = _number(file)
        self.what = "writable" if write else "readable"  # type: ignore[misc]
        self.is_ready = False

    def descriptor(self) -> tuple[int, bool]:
        return self.fd, self.what == "writable"

    def prepare(self) -> None:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT if self.what == "writable" else select.POLLIN)
        answers = poll.poll(0)
        if any(event & select.POLLNVAL for _, event in answers):
            raise ValueError(f"file descriptor {self.fd} is not open")
        self.is_ready = bool(answers)

    def ready(self, tx: Transaction) -> bool:
        return self.is_ready

    def result(self) -> Any:
        return self.value


def _number(file: Any) -> int:
    """The number of a descriptor given as an int or as something with `fileno()`."""
    fd: Any = file
    if not isinstance(file, int) or isinstance(file, bool):
        fileno = getattr(file, "fileno", None)
        fd = None if fileno is None else fileno()
        if not isinstance(fd, int):
            raise TypeError(f"a file descriptor or an object with fileno() is needed, not {type(file).__name__}")
    if not 0 <= fd < 1 << 31:
        raise ValueError(f"a file descriptor is not negative: {fd}")
    return int(fd)


def readable(file: Any, /) -> Op:
    return make(FileCase(file, False))


def writable(file: Any, /) -> Op:
    return make(FileCase(file, True))
