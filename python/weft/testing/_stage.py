"""The stage of one check: its worlds, its parties, and the check's own side of the play.

The check is a third party, plain code. It starts scripts, cancels them, joins them, and learns how far they are from
`ch.statistics()`, never by sleeping: `until` takes turns until something holds, and fails rather than hangs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from weft._weft import Channel
from weft.testing._world import Party, Script, World

__all__ = ["LawBroken", "Stage", "expect", "expect_equal", "parked"]


class LawBroken(AssertionError):
    """A scheduler does not keep a law. The message says which, what happened instead, and where to look."""


def expect(holds: object, otherwise: str) -> None:
    """Not `assert`, which `python -O` leaves out."""
    if not holds:
        raise LawBroken(otherwise)


def expect_equal(got: object, wanted: object, what: str) -> None:
    if got != wanted:
        raise LawBroken(f"{what}: {got!r}, and should be {wanted!r}")


def parked(ch: Channel[Any]) -> tuple[int, int]:
    """(senders, receivers) that wait on the channel now."""
    statistics = ch.statistics()
    return statistics.parked_senders, statistics.parked_receivers


class Stage:
    """Where a check plays.

    Attributes:
        here: the world of the first role, for the most part the sender's.
        there: the world of the other role; the same object when a world is alone.
        tested: the one of them that is being tested.
    """

    def __init__(self, here: World, there: World, tested: World, limit: float) -> None:
        self.here = here
        self.there = there
        self.tested = tested
        self._deadline = time.monotonic() + limit
        self._worlds = list(dict.fromkeys((here, there)))
        self._open: list[World] = []
        self._channels: list[Channel[Any]] = []
        self._parties: list[Party] = []
        self._patience = 0.0 if all(type(world).offers("turn") for world in self._worlds) else 0.0001

    def open(self) -> None:
        for world in self._worlds:
            world.open()
            self._open.append(world)

    def close(self, *, broken: bool = False) -> None:
        """End what is left. After a check that failed, what cannot be ended is left behind."""
        left = [party for party in self._parties if not party.done]
        if left and not broken:
            broken = True
            raise_at_end: BaseException | None = LawBroken(f"never ended: {left}")
        else:
            raise_at_end = None
        try:
            self._channels_over()
            for party in left:
                if party.world in self._open and type(party.world).offers("cancel"):
                    party.world.cancel(party)
            self._deadline = time.monotonic() + 0.5
            self.until(lambda: all(party.done for party in left), "the parties end")
            self.turns(2)
            while self._open:
                self._open.pop().close()
        except BaseException:
            if not broken:
                raise
        if raise_at_end is not None:
            raise raise_at_end

    def _channels_over(self) -> None:
        for ch in self._channels:
            ch.poison()

    def channel(self, capacity: int = 0, **options: Any) -> Channel[Any]:
        """A channel that is poisoned when the check is over, so that nobody stays parked on it."""
        ch = Channel[Any](capacity, **options)
        self._channels.append(ch)
        return ch

    def start(self, world: World, script: Callable[..., Script], *args: Any) -> Party:
        party = Party(script(*args), world)
        self._parties.append(party)
        world.start(party)
        return party

    def cancel(self, party: Party) -> None:
        party.world.cancel(party)

    def stop(self, world: World) -> None:
        """Shut a world down, parties and all."""
        world.stop()
        self._open.remove(world)
        self._worlds.remove(world)
        self._parties = [party for party in self._parties if party.world is not world]

    def forget(self, *parties: Party) -> None:
        for party in parties:
            party.forget()
            if party in self._parties:
                self._parties.remove(party)

    def turn(self) -> None:
        """One turn for everybody: a loop that is stepped runs once, and other threads may have the interpreter."""
        for world in self._worlds:
            world.turn()
        time.sleep(self._patience)

    def turns(self, count: int) -> None:
        """Time for something that must *not* happen."""
        for _ in range(count):
            self.turn()

    def until(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None:
        """Take turns until `condition()` holds."""
        while not condition():
            if time.monotonic() > self._deadline:
                raise LawBroken(f"did not happen: {what() if callable(what) else what}")
            self.turn()

    def until_parked(self, ch: Channel[Any], *, senders: int = 0, receivers: int = 0) -> None:
        wanted = (senders, receivers)
        self.until(
            lambda: parked(ch) == wanted,
            lambda: f"parked (senders, receivers) = {wanted}; it stays at {parked(ch)}{self._outcomes()}",
        )

    def join(self, party: Party) -> Any:
        """The script's result."""
        self.until(lambda: party.done, f"{party} ends; it was never woken, or not for good")
        if party.error is not None:
            raise LawBroken(f"{party} should have returned, but raised {party.error!r}") from party.error
        expect(not party.never_ran, f"{party} should have returned, but never ran")
        return party.value

    def failure(self, party: Party) -> BaseException:
        """The error the script must have ended with."""
        self.until(lambda: party.done, f"{party} ends; it was never woken, or not for good")
        if party.error is None:
            raise LawBroken(f"{party} should have failed, but returned {party.value!r}")
        return party.error

    def expect_cancelled(self, party: Party) -> None:
        self.until(lambda: party.done, f"{party} ends after it was cancelled")
        expect(
            party.was_cancelled,
            f"{party} was cancelled while it waited, and should see {self.tested.cancelled!r}; "
            f"it returned {party.value!r}, raised {party.error!r}",
        )

    def _outcomes(self) -> str:
        failed = [party for party in self._parties if party.error is not None]
        return "".join(f"; {party} raised {party.error!r}" for party in failed)
