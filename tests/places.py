"""The tests' own side of what runs in other places, whichever these are. What runs there is in `abroad.py`; the laws that
hold between any two places are tested in `laws_between.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path

import abroad
import pytest
import weft
import worlds
from worlds import LIMIT, until

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, which only Linux has")
DRIVERS = {"thread": abroad.in_thread, "task": abroad.in_task}


class Resident:
    """A party in another place: the process that one of the DRIVERS is."""

    def __init__(self, process):
        self.process = process

    @property
    def done(self):
        return self.process.done

    def cancel(self):
        self.process.cancel()

    def join(self):
        until(lambda: self.process.done, f"{self.process} ends")
        well, result = self.process.result()
        if not well:
            raise result
        return result

    def failure(self):
        until(lambda: self.process.done, f"{self.process} ends")
        try:
            well, result = self.process.result()
        except weft.Cancelled as cancelled:
            return cancelled
        assert not well, f"{self.process} should have failed, but returned {result!r}"
        return result


@contextlib.contextmanager
def at_home(name):
    """A world here."""
    world = worlds.make_world(name)
    world.open()
    try:
        yield world
    finally:
        world.close()


def spin(condition, what=""):
    """As `until`, without a turn for the parties here."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {what or condition}"
        time.sleep(0.0001)


def wakings(*processes):
    """How often in a second threads of these processes wake, but for the one that asks; counted are the times that they have gone to
    sleep again. Linux only."""
    for _ in range(20):  # those that were just woken come to rest
        before = _sleeps(processes)
        time.sleep(0.05)
        if _sleeps(processes) == before:
            break
    before = _sleeps(processes)
    time.sleep(1)
    return _sleeps(processes) - before


def _sleeps(processes):
    total = 0
    for process in processes:
        for thread in os.listdir(f"/proc/{process}/task"):
            if int(thread) != threading.get_native_id():
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{process}/task/{thread}/status").read_text()
                    total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total


def drained(ch):
    """What is left in a channel."""
    left = []
    try:
        while True:
            left.append(ch.recv_nowait())
    except (weft.Closed, weft.WouldBlock):
        return left


def outcome(party):
    """What it returned; nothing when it was cancelled before it began."""
    until(lambda: party.done, f"{party} ends")
    try:
        return party.join()
    except worlds.CANCELLED:
        return []


def failure_of(function, *args, on):
    """The error of a process that is the only one of its group."""
    with pytest.raises(ExceptionGroup) as failed, weft.Group() as group:
        group.spawn(function, *args, on=on)
    return only(failed.value)


def only(error):
    """What is in groups of one."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


def text_of(error):
    """With tracebacks and causes."""
    return "".join(traceback.format_exception(error))


def source(text, *modules):
    """The source of a program that may use these modules of the tests."""
    return (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport {', '.join([*modules, 'weft'])}\n\n"
        f'if __name__ == "__main__":\n{textwrap.indent(textwrap.dedent(text), "    ")}'
    )
