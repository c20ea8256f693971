"""Processes of the operating system: `on="process"`.

Each is started anew (nothing is forked), with half of a pair of sockets, and runs `_child.main`. This process is the
root: it keeps the channels, and the other asks for what it does with them (docs/design/choices.md). A thread waits for its
end here.

That a process has died is seen by the link, whose socket closes then, and at once by everybody who waits for an end it held:
they get `PeerDied`. With which status, the system tells a moment later.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from weft import _crossing, _weft
from weft._errors import PeerDied
from weft._workers import Worker, WorkProcess, check_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from weft._group import Group
    from weft._weft import Receiver, Sender
    from weft._worker import Order, Report

__all__ = ["ChildProcess", "ProcessWorker", "death_of", "reason_against"]

T = TypeVar("T")

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from weft._child import main; main(int(sys.argv[2]))"
)

_lock = threading.Lock()
_peers: dict[int, ProcessWorker] = {}  # that have not ended
_ended: dict[int, tuple[int, int]] = {}  # number and status of those that ended last: they may still be asked for
_KEPT = 10_000
_inherited = False  # the parent of this forked process had some


def _forget_all() -> None:
    """In a forked child: these are the parent's."""
    global _inherited
    _inherited = _inherited or bool(_peers or _ended)
    _peers.clear()
    _ended.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def reason_against() -> str | None:
    """Why no processes can be started here; None: they can."""
    if not hasattr(_weft, "_add_peer"):
        return f"{sys.implementation.name} cannot link processes"
    if sys.platform not in ("linux", "darwin"):
        return f"processes are linked by Unix sockets, which {sys.platform} does not offer for that"
    if _weft._is_linked():
        return "this process was itself started so, and only the program's first process starts others"
    if _inherited:
        return "this process was forked from one that has started some; start it in another way, or before them"
    return None


def death_of(peer: int) -> PeerDied:
    """The error that tells of a peer's death: one of this process's, or 0, one that only the root knows, or the root."""
    with _lock:
        worker, ended = _peers.get(peer), _ended.get(peer)
    if worker is None:
        return PeerDied(*(ended or (None, None)))
    return worker.death()


class ProcessWorker(Worker):
    """A process that works for this one. `with_loop`: as one of a pool."""

    _kind = "process"

    def __init__(self, *, with_loop: bool = False) -> None:
        self._with_loop = with_loop
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__()

    def _host(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        """Wait for its end."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                number = theirs.fileno()
                process = subprocess.Popen(
                    [sys.executable, *_flags(), "-c", _PROGRAM, json.dumps(sys.path), str(number)],
                    pass_fds=[number],
                    stdin=subprocess.DEVNULL,
                )
            self._process = process
            setting = (orders, reports, _crossing.main_file(), self._with_loop)
            with _lock:  # it may be dead already, and who asks for its death then waits until it is known here
                peer = _weft._add_peer(ours.detach(), setting)
                _peers[peer] = self
        orders.close()
        reports.close()
        try:
            if process.wait() != 0:
                self._broken = self.death()
        finally:
            _weft._disconnect(peer)
            with _lock:
                del _peers[peer]
                _ended[peer] = process.pid, process.returncode
                if len(_ended) > _KEPT:
                    del _ended[next(iter(_ended))]

    def _is_idle(self) -> None:
        if not self._with_loop:
            self.end()

    def death(self) -> PeerDied:
        """What is told of its end."""
        process = self._process
        assert process is not None
        try:
            status = process.wait(timeout=1)  # its socket has closed, so it is about to be there
        except subprocess.TimeoutExpired:
            status = None
        return PeerDied(process.pid, status)

    @property
    def about(self) -> str:
        """What it is, for messages."""
        return f"process {self.pid}"

    @property
    def pid(self) -> int | None:
        """Its number, once it was started."""
        return None if self._process is None else self._process.pid


def _flags() -> list[str]:
    """How this interpreter was started, as far as it matters: what `multiprocessing` passes on."""
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined,no-any-return]


class ChildProcess(WorkProcess[T]):
    """A process with a process of the system to itself."""

    __slots__ = ()

    _place = "process"

    def __init__(self, group: Group, name: str, spawner: FrameType, fn: Callable[..., Any]) -> None:
        check_function(fn, "process")
        super().__init__(group, name, spawner)

    def _start(self, fn: Callable[..., Any], args: tuple[Any, ...], *, is_async: bool, chosen: bool) -> None:
        self._worker = ProcessWorker()
        super()._start(fn, args, is_async=is_async, chosen=chosen)

    def _give_up(self) -> bool:
        if self._worker is not None:
            self._worker.end()
        return True
