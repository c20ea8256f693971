"""A snapshot of the program: its processes and channels in all places, and who waits for what.

It is for people, and for programs that watch programs: nothing is counted for it while it is not asked for. What lives in a
place is found among the objects that the garbage collector knows; every other place is asked with a job like any other.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import gc
import os
import sys
import threading
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeGuard

from weft import _weft
from weft._process import PlacedProcess
from weft._weft import Channel, Op, Statistics
from weft._workers import OWN, all_workers

_OWN_JOB = f"{OWN}: snapshot"

__all__ = ["PlaceSnapshot", "ProcessSnapshot", "Snapshot", "Waiting", "snapshot"]


@dataclass(frozen=True)
class ProcessSnapshot:
    """A process of a group that had not ended.

    Attributes:
        name: as given, or made.
        place: "task", "thread", "greenlet", "interpreter", "process" or "pool".
        spawned_at: file and line.
    """

    name: str
    place: str
    spawned_at: str


@dataclass(frozen=True)
class Waiting:
    """An operation that waited.

    Attributes:
        operation: what it is, on which channel, and the line that made it.
        party: who waited: the name of a task, a thread or a process, as far as that can be told.
    """

    operation: str
    party: str


@dataclass(frozen=True)
class PlaceSnapshot:
    """One place of the program.

    Attributes:
        name: what it is.
        processes: those that had not ended.
        channels: the numbers of each channel; one that several places share is listed in each that holds it.
        waiting: the operations that waited.
        places: the places that work for this one.
    """

    name: str
    processes: list[ProcessSnapshot]
    channels: list[Statistics]
    waiting: list[Waiting]
    places: list[PlaceSnapshot]

    def lines(self, indent: str = "") -> list[str]:
        """As text, line by line."""
        text = [f"{indent}{self.name}"]
        text += [f"{indent}  process {p.name!r} ({p.place}), spawned at {p.spawned_at}" for p in self.processes]
        for channel in self.channels:
            capacity = "" if channel.capacity is None else f" of {channel.capacity}"
            waits = f"{channel.parked_senders} sending, {channel.parked_receivers} receiving"
            text.append(f"{indent}  channel {channel.name!r}: {channel.buffered}{capacity} buffered, {waits}")
        text += [f"{indent}  {w.party} waits: {w.operation}" for w in self.waiting]
        for place in self.places:
            text += place.lines(indent + "  ")
        return text


@dataclass(frozen=True)
class Snapshot(PlaceSnapshot):
    """The place that was asked, and all that work for it. `str()` of it is for people."""

    def __str__(self) -> str:
        return "\n".join(self.lines())


def snapshot(timeout: float = 1.0) -> Snapshot:
    """What the program does now: its processes, its channels, and who waits for what, in this place and in all that work for
    it (interpreters, processes, the workers of pools).

    The places are looked at one by one while the program goes on, so what is told of two need not have been at one moment.
    It takes time in proportion to the number of all objects. A place that does not answer is listed by its name alone.

    Args:
        timeout: seconds to wait for the other places, which blocks the thread, even if a loop runs in it.
    """
    here = local()
    deadline = monotonic() + timeout
    workers = all_workers()
    answers = [_Answer(worker.about) for worker in workers]
    for worker, answer in zip(workers, answers, strict=True):
        try:
            worker.run(answer, _OWN_JOB, partial(_local_and_below, timeout / 2), ())
        except Exception:
            answer._finish()  # it has just ended
    places = [place for answer in answers if (place := answer.wait(deadline - monotonic())) is not None]
    return Snapshot(here.name, here.processes, here.channels, here.waiting, places)


def _local_and_below(timeout: float) -> PlaceSnapshot:
    whole = snapshot(timeout)
    return PlaceSnapshot(whole.name, whole.processes, whole.channels, whole.waiting, whole.places)


class _Answer:
    """Told by a worker, as a process is."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._arrived = threading.Event()
        self._place: PlaceSnapshot | None = None

    def _finish(self, value: Any = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        self._place = value
        self._arrived.set()

    def wait(self, seconds: float) -> PlaceSnapshot | None:
        if not self._arrived.wait(max(0.0, seconds)):
            return PlaceSnapshot(f"{self._about}, which did not answer", [], [], [], [])
        if self._place is None:
            return None
        place = self._place
        return PlaceSnapshot(
            f"{self._about}: {place.name}", place.processes, place.channels, place.waiting, place.places
        )


def local() -> PlaceSnapshot:
    """This place alone."""
    processes: list[ProcessSnapshot] = []
    channels: list[Statistics] = []
    waiting: list[Waiting] = []
    task_type, home_type = getattr(_weft, "Task", ()), getattr(_weft, "_Home", ())
    tasks: list[Any] = []
    for found in gc.get_objects():
        kind = _kind_of(found)  # not `isinstance`: that would ask objects that only stand for others
        if issubclass(kind, Channel):
            try:
                statistics = found.statistics()
            except Exception:
                continue  # of a parent process
            if not statistics.name.startswith(OWN):
                channels.append(statistics)
        elif issubclass(kind, Op):
            party = found._party()
            if party is not None and f"'{OWN}" not in found._describe():
                waiting.append(Waiting(found._describe().rstrip(","), _name_of(party)))
        elif _is_process(found):
            if not found.done and found.name != _OWN_JOB:
                processes.append(ProcessSnapshot(found.name, found._place, found._spawned_at()))
        elif task_type and issubclass(kind, task_type):
            tasks.append(found)
        elif home_type and issubclass(kind, home_type):
            tasks += [task for task in found._tasks() if not gc.is_tracked(task)]  # of a burst: see `hide` in task.rs
    for task in tasks:
        if not task.done():
            processes.append(ProcessSnapshot(task.get_name(), "task", task._spawned_at()))
    name = f"{sys.implementation.name} in process {os.getpid()}"
    return PlaceSnapshot(name, processes, channels, waiting, [])


def _kind_of(found: object) -> type[Any]:
    return type(found)


def _is_process(found: object) -> TypeGuard[PlacedProcess[Any]]:
    return issubclass(type(found), PlacedProcess)


def _name_of(party: object) -> str:
    """Of who waits for an operation."""
    if isinstance(party, int) and party is not True:
        for thread in threading.enumerate():
            if thread.ident == party:
                return f"thread {thread.name!r}"
        return f"thread {party}"
    owner = getattr(party, "__self__", party)
    name = getattr(owner, "get_name", None)
    if callable(name):
        return f"task {name()!r}"
    return "somebody" if party is True else repr(owner)
