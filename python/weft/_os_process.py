"""Processes of the operating system: `on="process"`.

Each is started anew (nothing is forked), with half of a pair of sockets, and runs `_child.main`. The program's first process is
the root: it keeps the channels, and the others ask it for what they do with them (docs/design/choices.md). It also starts them
all, in its first interpreter: any other place asks for one as it reports, upwards, and is told over a channel what became of it. A
thread waits for its end in both.

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
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from weft import _crossing, _weft, _worker
from weft._errors import Closed, PeerDied
from weft._weft import Channel
from weft._workers import OWN, Worker, WorkProcess, check_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from weft._group import Group
    from weft._weft import Receiver, Sender
    from weft._worker import Order, Report

    News = (
        tuple[int, int] | int | BaseException
    )  # the link's number and the system's; its status; why it was not started
    # With a loop? And what it is to have of the place that wants it: `sys.path`, folder, environment.
    Manner = tuple[bool, list[str], str | None, dict[str, str]]
    Wish = tuple[Receiver[Order], Sender[Report], Sender[News], Manner]

__all__ = ["ChildProcess", "ProcessWorker", "death_of", "fulfil", "reason_against"]

T = TypeVar("T")

# Until it has the path of the one that wants it, no module is to be found in the folder it stands in.
_PROGRAM = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); import json; sys.path[:] = json.loads(sys.argv[1]); "
    "from weft._child import main; main(int(sys.argv[2]))"
)

_lock = threading.Condition()  # told when there is another one
_peers: dict[int, Life] = {}  # by the link's number: those that this place has started or asked for, and have not ended
_ended: dict[int, Life] = {}  # that ended last: they may still be asked for
_KEPT = 10_000
_unknown = 0  # how many this place has asked for and does not know the link's number of yet
_inherited = False  # the parent of this forked process had some


def _forget_all() -> None:
    """In a forked child: these are the parent's."""
    global _inherited, _unknown
    _inherited = _inherited or bool(_peers or _ended)
    _unknown = 0
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
    if _inherited or (_crossing.is_elsewhere() and not _worker.can_ask()):
        return "this process was forked from one that has started some; start it in another way, or before them"
    return None


class Life:
    """A process of the system, as far as it is known here.

    Attributes:
        pid: its number; None: it was not started yet.
        status: what it ended with.
        given_up: why the link to it was given up before its end, if it was.
        over: set when that is known.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        self.status: int | None = None
        self.given_up: str | None = None
        self.over = threading.Event()

    def death(self) -> PeerDied:
        """What is told of its end."""
        self.over.wait(1)  # its socket has closed, so it is about to be there
        death = PeerDied(self.pid, self.status)
        if self.given_up is not None:
            death.add_note(f"The link to it had been given up: {self.given_up}")
        return death

    def ends(self, peer: int, status: int) -> None:
        """It has."""
        self.status = status
        self.over.set()
        with _lock:
            del _peers[peer]
            _ended[peer] = self
            if len(_ended) > _KEPT:
                del _ended[next(iter(_ended))]


def _more_unknown(number: int) -> None:
    global _unknown
    with _lock:
        _unknown += number
        _lock.notify_all()


def death_of(peer: int) -> PeerDied:
    """The error that tells of a peer's death: one that this place knows, or another one, or 0, which is the root."""
    with _lock:
        if peer:
            _lock.wait_for(lambda: peer in _peers or peer in _ended or not _unknown, 1)
        life = _peers.get(peer) or _ended.get(peer)
    return PeerDied(None, None) if life is None else life.death()


def _run(
    orders: Receiver[Order], reports: Sender[Report], manner: Manner, life: Life, begun: Callable[[int], None]
) -> None:
    """Start a process, in the program's first place, and wait for its end. `begun` is called with the link's number."""
    with_loop, path, folder, environment = manner
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            number = theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, *_flags(), "-c", _PROGRAM, json.dumps(path), str(number)],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
            )
        life.pid = process.pid
        setting = (orders, reports, _crossing.main_file(), with_loop)
        try:
            with _lock:  # it may be dead already, and who asks for its death then waits until it is known here
                peer = _weft._add_peer(ours.detach(), setting)
                _peers[peer] = life
        except BaseException:
            process.kill()
            process.wait()
            raise
    orders.close()
    reports.close()
    try:
        begun(peer)
    finally:
        status = process.wait()
        _weft._disconnect(peer)
        life.given_up = _weft._given_up(peer)
        life.ends(peer, status)


def fulfil(wish: Wish) -> None:
    """Start the process that another place asks for, in a thread, or ask for it in turn. It does not fail: who wants it is told."""
    orders, reports, fate, _ = wish
    try:
        if reason := reason_against():
            raise RuntimeError(reason)
        if _crossing.is_elsewhere():
            with orders, reports, fate:
                _worker.ask(wish)
        else:
            threading.Thread(target=_fulfil, args=wish, name="weft process", daemon=False).start()
    except Exception as error:
        _tell(fate, error)


def _fulfil(orders: Receiver[Order], reports: Sender[Report], fate: Sender[News], manner: Manner) -> None:
    life = Life()

    def begun(peer: int) -> None:
        assert life.pid is not None
        _tell(fate, (peer, life.pid))

    with orders, reports, fate:
        try:
            _run(orders, reports, manner, life, begun)
        except BaseException as error:
            _worker.tell_error(lambda error: _tell(fate, error), error)
        else:
            assert life.status is not None
            _tell(fate, life.status)


def _tell(fate: Sender[News], news: News) -> None:
    with suppress(Closed, PeerDied):  # who wanted it is gone
        fate.send_nowait(news)


class ProcessWorker(Worker):
    """A process that works for this one. `with_loop`: as one of a pool."""

    _kind = "process"

    def __init__(self, *, with_loop: bool = False) -> None:
        self._with_loop = with_loop
        self._life = Life()
        super().__init__()

    def _host(self, orders: Receiver[Order], reports: Sender[Report]) -> None:
        """Wait for its end."""
        try:
            folder = os.getcwd()
        except OSError:
            folder = None  # it was removed
        listed: list[Any] = sys.path
        path = [entry for entry in listed if isinstance(entry, str)]  # the others are ignored by Python, too
        manner = (self._with_loop, path, folder, dict(os.environ))
        if _crossing.is_elsewhere():
            self._have_run(orders, reports, manner)
        else:
            _run(orders, reports, manner, self._life, lambda peer: None)
        if self._life.status != 0:
            self._broken = self._life.death()

    def _have_run(self, orders: Receiver[Order], reports: Sender[Report], manner: Manner) -> None:
        """The same, of a process that the program's first place starts."""
        fate = Channel["News"].unbounded(name=f"{OWN} process: fate")
        life, peer = self._life, None
        with fate.receiver() as told:
            _more_unknown(1)
            try:
                with orders, reports, fate.sender() as tells:
                    _worker.ask((orders, reports, tells, manner))
                for news in told:
                    if isinstance(news, tuple):
                        peer, life.pid = news
                        with _lock:
                            _peers[peer] = life
                        _more_unknown(-1)
                    elif isinstance(news, BaseException):
                        raise news
                    elif peer is not None:
                        life.ends(peer, news)
            finally:
                if peer is None:
                    _more_unknown(-1)

    def _is_idle(self) -> None:
        if not self._with_loop:
            self.end()

    def _died(self, death: PeerDied) -> PeerDied:
        return self._life.death()

    @property
    def about(self) -> str:
        """What it is, for messages."""
        return f"process {self.pid}"

    @property
    def pid(self) -> int | None:
        """Its number, once it was started."""
        return self._life.pid


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
