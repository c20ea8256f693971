"""L3 and L4, in bulk, in every world and in mixtures of them: parties that send, receive and select at random, run out of
patience, and are cancelled by others while they do.

A party that is cancelled ends, and another takes its place. In the end the books are balanced: each value whose send
completed was received once or is still in its channel, and each other value is nowhere. No party may end by an error
but its own cancellation. `make storms` goes on for a million operations in each.
"""

import os
import random
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress

import pytest
import weft
from worlds import CANCELLED, LIMIT, PAUSE, WORLDS, Within, fewer, make_world, missing, parked, turn

SEED = int(os.environ.get("WEFT_SEED", "1978"))
OPERATIONS = int(os.environ.get("WEFT_OPERATIONS", fewer(10_000)))
SECONDS = 3 * LIMIT + OPERATIONS / 500  # a storm that goes on for longer hangs
MIXTURES = [
    "asyncio+trio+threads",
    "gevent+uvloop+group_threads",
    "trio+gevent+eager+threads",
    "anyio_trio+processes+gevent",
    "anyio+gevent+anyio_trio+threads",
]
PARTIES = 6  # at a time in each world
LIFE = 200  # operations of a party; then it makes room for another
PATIENCE = (0, 0.00005, 0.0002, 0.001)


class Book:
    """One party's: no lock of ours may order what weft should."""

    def __init__(self):
        self.given, self.taken, self.kept, self.performed = [], [], [], 0


def operation(kind, a, b, value):
    match kind:
        case "send":
            return a.send(value)
        case "recv":
            return a.recv()
        case "recv_many":
            return a.recv_many(3)
        case "either":
            return weft.select(a.send(value), b.recv())
        case _:
            return weft.select(a.recv(), b.recv(), weft.after(0))


def one_party(name, channels, book, rng, patient, over):
    """A script. `patient`: it may wait without a limit, because it can be cancelled."""
    while book.performed < LIFE and not over:
        if rng.random() < 0.02:
            yield PAUSE
        value = (name, book.performed)
        book.performed += 1
        a, b = rng.sample(channels, 2)
        kind = rng.choices(("send", "recv", "recv_many", "either", "neither"), (35, 30, 10, 20, 5))[0]
        op = operation(kind, a, b, value)
        sends = kind in ("send", "either")  # until the value was given, it is kept
        if not patient or rng.random() < 0.3:
            op = Within(op, rng.choice(PATIENCE))
        try:
            got = yield op
            if kind == "send" or (kind == "either" and got.case == 0):
                sends = False
                book.given.append(value)
            elif kind == "recv":
                book.taken.append(got)
            elif kind == "recv_many":
                book.taken.extend(got)
            elif got.case != 2:
                book.taken.append(got.value)
        except TimeoutError:
            pass
        finally:
            if sends:
                book.kept.append(value)


def balance(books, channels):
    left = []
    for ch in channels:
        assert parked(ch) == (0, 0), ch.statistics()
        with suppress(weft.WouldBlock):
            while True:
                left.append(ch.recv_nowait())
    given, taken, kept = (
        Counter(value for book in books for value in getattr(book, name)) for name in ("given", "taken", "kept")
    )
    there = taken + Counter(left)
    assert not (twice := {value: n for value, n in (there + kept).items() if n != 1}), f"in two places: {twice}"
    assert not (lost := given - there), f"given, but neither received nor in a channel: {lost}"
    assert not (conjured := there - given), f"received, but its send raised: {conjured}"


@contextmanager
def opened(names):
    """One of them is stepped by this test, the others run by themselves."""
    with ExitStack() as stack:
        worlds = []
        for name in names:
            world = make_world(name, elsewhere=bool(worlds))
            world.open()
            stack.callback(world.close)
            worlds.append(world)
        yield worlds


class Population:
    """The parties of one world."""

    def __init__(self, world, start):
        self.world, self.start = world, start
        self.alive = []
        self.performed = 0

    def settle(self, wrong):
        """Count, and let go, those who have ended."""
        for party, book in self.alive:
            if party.done:
                self.performed += book.performed
                if party.error is not None and not isinstance(party.error, CANCELLED):
                    wrong.append(party.error)
        self.alive = [(party, book) for party, book in self.alive if not party.done]
        self.world.parties[:] = [party for party, _ in self.alive]

    def fill(self):
        while len(self.alive) < PARTIES:
            self.alive.append(self.start(self.world))

    def cancel(self, rng, everybody=False):
        if self.world.cancels:
            for party, _ in self.alive if everybody else [rng.choice(self.alive)]:
                if not party.done:
                    party.cancel()


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("storm", [*WORLDS, *MIXTURES])
def test_a_storm_loses_nothing(storm):
    names = storm.split("+")
    for name in names:
        if reason := missing(name):
            pytest.skip(reason)
    rng = random.Random(SEED)
    channels = [weft.Channel(), weft.Channel(), weft.Channel(1), weft.Channel(5)]
    books, over, wrong = [], [], []
    deadline = time.monotonic() + SECONDS

    def start(world):
        book = Book()
        books.append(book)
        its_own = random.Random(rng.random())
        return world.start(one_party, len(books), channels, book, its_own, world.cancels, over), book

    with opened(names) as worlds:
        populations = [Population(world, start) for world in worlds]
        while sum(population.performed for population in populations) < OPERATIONS and not wrong:
            assert time.monotonic() < deadline, [(ch.statistics(), populations) for ch in channels]
            for population in populations:
                population.settle(wrong)
                population.fill()
                population.cancel(rng)
            for _ in range(rng.randrange(8)):
                turn()
        over.append(True)
        while any(population.alive for population in populations):
            assert time.monotonic() < deadline, [(ch.statistics(), populations) for ch in channels]
            for population in populations:
                population.cancel(rng, everybody=True)
            turn()
            for population in populations:
                population.settle(wrong)
    assert not wrong
    balance(books, channels)
    print(f"{storm}: {sum(population.performed for population in populations)} operations by {len(books)} parties")
