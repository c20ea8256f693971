"""The laws, for a scheduler that is new to weft: does it keep them?

Describe the scheduler by subclassing `World` (about ten lines), and have every check played in it:

    @pytest.mark.parametrize("law", conformance.laws())
    def test_it_keeps(law):
        law.check(MyWorld)

or, with unittest, `for law in conformance.laws(): with self.subTest(law=law): law.check(MyWorld)`, or without either:

    python -m weft.testing.conformance my_module:MyWorld

A law is checked alone, with both parties in the tested world, and in both directions against plain threads and an
asyncio loop in a thread. What the laws mean exactly is in docs/design/laws.md; how to add a scheduler, with one worked
out, in docs/guides/backend.md.

Each check has a thread to itself and a limit, so that a scheduler that freezes fails, and keeps nobody waiting. That
weft itself keeps its laws is the business of its own tests; here the question is what a backend does with them.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package; and only an interpreter's own frames tell where a thread stands.

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Literal
from unittest import SkipTest

from weft.testing._checks import CHECKS, Check
from weft.testing._stage import LawBroken, Stage
from weft.testing._world import PAUSE, Asyncio, AsyncioInThread, Party, Script, Threads, Within, World

__all__ = [
    "PAUSE",
    "Asyncio",
    "AsyncioInThread",
    "Law",
    "LawBroken",
    "Outcome",
    "Party",
    "Script",
    "Threads",
    "Within",
    "World",
    "laws",
    "main",
    "play",
]

LIMIT: Final = 10.0
"""Seconds after which a promise counts as broken; never waited for when it is kept."""

Setting = Literal["alone", "to threads", "from threads", "to asyncio", "from asyncio"]

_ALONE: tuple[Setting, ...] = ("alone",)
_PAIRED: tuple[Setting, ...] = ("alone", "to threads", "from threads", "to asyncio", "from asyncio")
_OTHERS: dict[str, type[World]] = {"threads": Threads, "asyncio": AsyncioInThread}


@dataclass(frozen=True)
class Law:
    """One check of one law in one setting.

    Attributes:
        number: the law's, "L4".
        name: what is promised.
        setting: "alone"; or where the other party lives, and which way the values go.
    """

    number: str
    name: str
    setting: Setting
    _check: Check

    @property
    def __name__(self) -> str:  # pytest's idea of a test's id
        return f"{self.number}-{self.name}-{self.setting.replace(' ', '_')}"

    def __str__(self) -> str:
        return f"{self.number} {self.name.replace('_', ' ')} ({self.setting})"

    __repr__ = __str__

    def skipped(self, world: type[World]) -> str | None:
        """Why it cannot be checked in this world, or None."""
        for need in self._check.needs:
            if need == "proc":
                if sys.platform != "linux":
                    return "reads /proc, which only Linux has"
            elif need == "sleep":
                if world.offers("turn") and not world.offers("run"):
                    return f"{world.__name__} steps its loop and has no `run`"
            elif need == "awaits":
                if not world.awaits:
                    return f"the parties of {world.__name__} do not await"
            elif need == "cooperative":
                if not world.cooperative:
                    return f"the parties of {world.__name__} run at the same time"
            elif not world.offers(need):
                return f"{world.__name__} has no `{need}`"
        return None

    def check(self, world: type[World], *, limit: float = LIMIT) -> None:
        """Play it.

        Args:
            world: the tested one; a fresh object is made of it.
            limit: seconds until what has not happened counts as never happening.

        Raises:
            LawBroken: an `AssertionError`; it says what happened instead.
            unittest.SkipTest: the world has not what this check needs. pytest takes it for a skip as well.
        """
        reason = self.skipped(world)
        if reason is not None:
            raise SkipTest(reason)
        failure: list[BaseException] = []

        def perform() -> None:
            try:
                self._play(world, limit)
            except BaseException as error:
                failure.append(error)

        # In a thread of its own: one that a broken scheduler freezes can be left behind.
        thread = threading.Thread(target=perform, name=f"check of {self}", daemon=True)
        thread.start()
        thread.join(limit + 1)
        if thread.is_alive():
            raise LawBroken(f"{self}: the loop is frozen; nothing else can run in it. {_where(thread)}")
        if failure:
            raise failure[0]

    def _play(self, world: type[World], limit: float) -> None:
        tested = world()
        if self.setting == "alone":
            stage = Stage(tested, tested, tested, limit)
        else:
            direction, name = self.setting.split()
            other = _OTHERS[name]()
            stage = Stage(*((tested, other) if direction == "to" else (other, tested)), tested, limit)
        try:
            stage.open()
            self._check.play(stage)
        except BaseException as error:
            stage.close(broken=True)
            if isinstance(error, LawBroken):
                raise LawBroken(f"{self}: {error}") from error
            raise
        stage.close()


def _where(thread: threading.Thread) -> str:
    # Not by `sys._current_frames()`: it makes objects of what other interpreters execute, too, which these free as if they were theirs.
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        threads = file.read().split("\n\n")
    stack = next((told for told in threads if f"{thread.ident or 0:x} " in told.partition("(")[0].lower()), "")
    return stack and "It stands here, the last call first:\n" + "\n".join(stack.splitlines()[1:7])


def laws(*numbers: str) -> list[Law]:
    """Every check in every setting; with numbers ("L3", "L4"), those of these laws."""
    return [
        Law(check.law, check.name, setting, check)
        for check in CHECKS
        if not numbers or check.law in numbers
        for setting in (_PAIRED if check.pair else _ALONE)
    ]


@dataclass(frozen=True)
class Outcome:
    """How a check went. `reason` is empty when it passed."""

    law: Law
    state: Literal["passed", "failed", "skipped"]
    reason: str = ""


def play(world: type[World], law: Law, *, limit: float = LIMIT) -> Outcome:
    """Play one check, and say how it went instead of raising."""
    try:
        law.check(world, limit=limit)
    except SkipTest as skip:
        return Outcome(law, "skipped", str(skip))
    except LawBroken as broken:
        return Outcome(law, "failed", str(broken))
    except Exception as error:
        where = "".join(traceback.format_exception(error)[-4:])
        return Outcome(law, "failed", f"{law}: {error!r}\n{where}")
    return Outcome(law, "passed")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m weft.testing.conformance module:Class`: prints a table. 0: all that could be checked is kept; 1: not."""
    parser = argparse.ArgumentParser(
        prog="python -m weft.testing.conformance",
        description="Check that a scheduler keeps weft's laws (docs/guides/backend.md).",
    )
    parser.add_argument("world", metavar="module:Class", help="a subclass of weft.testing.conformance.World")
    parser.add_argument("laws", nargs="*", metavar="law", help="only these (L3 L4); all of them if none is given")
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds until a promise counts as broken (%(default)g)"
    )
    options = parser.parse_args(arguments)
    chosen = laws(*options.laws)
    unknown = set(options.laws) - {law.number for law in chosen}
    if unknown:
        parser.error(f"there is no check of {', '.join(sorted(unknown))}")
    world = _load(parser, options.world)

    outcomes: list[Outcome] = []
    width = max(len(law.name) for law in chosen)
    print(f"{'law':4} {'check':{width}}  {'alone':8} {'threads':8} asyncio")
    for check in dict.fromkeys(law._check for law in chosen):
        mine = [play(world, law, limit=options.limit) for law in chosen if law._check is check]
        outcomes += mine
        cells = [_worst(mine, other) for other in ("alone", "threads", "asyncio")]
        print(
            f"{check.law:4} {check.name.replace('_', ' '):{width}}  {cells[0]:8} {cells[1]:8} {cells[2]}".rstrip(),
            flush=True,
        )

    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    skipped = [outcome for outcome in outcomes if outcome.state == "skipped"]
    for outcome in failed:
        print(f"\nfailed: {outcome.reason}")
    if skipped:
        print()
    for reason in dict.fromkeys(outcome.reason for outcome in skipped):
        print(f"skipped {sum(outcome.reason == reason for outcome in skipped)}: {reason}")
    passed = len(outcomes) - len(failed) - len(skipped)
    print(f"\n{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return 1 if failed else 0


def _worst(outcomes: list[Outcome], other: str) -> str:
    states = [outcome.state for outcome in outcomes if outcome.law.setting.endswith(other)]
    for state in ("failed", "skipped", "passed"):
        if state in states:
            return state
    return "-"


def _load(parser: argparse.ArgumentParser, name: str) -> type[World]:
    module, _, path = name.partition(":")
    if not module or not path:
        parser.error(f"{name!r} should be module:Class")
    try:
        found: object = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        parser.error(f"{name}: {error}")
    if not isinstance(found, type) or not issubclass(found, World):
        parser.error(f"{name} is {found!r}, and not a subclass of weft.testing.conformance.World")
    return found


if __name__ == "__main__":
    # This file runs as `__main__`, and is imported once more by the tested module: there must be only one `World`.
    from weft.testing.conformance import main as imported

    sys.exit(imported())
