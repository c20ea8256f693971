"""L3 and L4, in bulk, in every world and in mixtures of them: parties that send, receive and select at random, run out of
patience, and are cancelled by others while they do.

A party that is cancelled ends, and another takes its place. In the end the books are balanced: each value whose send
completed was received once or is still in its channel, and each other value is nowhere. No party may end by an error
but its own cancellation. `make storms` goes on for a million operations in each.
"""

import os
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from itertools import count

import pytest
import weft
from worlds import CANCELLED, LIMIT, PAUSE, WORLDS, Within, fewer, is_stepped, make_world, missing, parked, turn

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
PATIENCE = (0, 0.00001, 0.00005, 0.0002)
INTERVAL = 0.00001  # seconds after which a thread has to let another one go on: the usual 5 ms are 500 operations


class Book:
    """One party's: no lock of ours may order what weft should."""

    def __init__(self):
        self.given, self.taken, self.kept = [], [], []
        self.performed = 0
        self.impatient = 0  # how many were parked and timed out
        self.op = None  # the last one

    def add(self, book):
        self.given += book.given
        self.taken += book.taken
        self.kept += book.kept
        self.performed += book.performed
        self.impatient += book.impatient

    @property
    def is_waiting(self):
        return repr(self.op).endswith("waiting>")


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
        value = name * LIFE + book.performed
        book.performed += 1
        a, b = rng.sample(channels, 2)
        kind = rng.choices(("send", "recv", "recv_many", "either", "neither"), (35, 30, 10, 20, 5))[0]
        op = book.op = operation(kind, a, b, value)
        patience = None
        sends = kind in ("send", "either")  # until the value was given, it is kept
        if not patient or rng.random() < 0.3:
            patience = rng.choice(PATIENCE)
            op = Within(op, patience)
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
            book.impatient += patience > 0  # with none at all, some worlds do not park it
        finally:
            if sends:
                book.kept.append(value)


def balance(book, channels):
    left = []
    for ch in channels:
        assert parked(ch) == (0, 0), ch.statistics()
        with suppress(weft.WouldBlock):
            while True:
                left.append(ch.recv_nowait())
    given, taken, kept = Counter(book.given), Counter(book.taken), Counter(book.kept)
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


@contextmanager
def hurried():
    """More orders of events in the same time."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


class Population:
    """The parties of one world."""

    def __init__(self, world, size, start):
        self.world, self.size, self.start = world, size, start
        self.alive = []
        self.book = Book()  # of those who have ended
        self.started = 0
        self.found_waiting = 0  # cancels that found an operation parked

    def settle(self, wrong):
        """Count, and let go, those who have ended."""
        left = []
        for party, book in self.alive:
            if not party.done:
                left.append((party, book))
                continue
            self.book.add(book)
            if party.error is not None and not isinstance(party.error, CANCELLED):
                wrong.append(party.error)
        self.alive = left
        self.world.parties[:] = [party for party, _ in left]

    def fill(self):
        while len(self.alive) < self.size:
            self.alive.append(self.start(self.world))
            self.started += 1

    def cancel(self, parties):
        if self.world.cancels:
            for party, book in parties:
                if not party.done:
                    self.found_waiting += book.is_waiting
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
    numbers = count()
    over, wrong = [], []
    deadline = time.monotonic() + SECONDS

    def start(world):
        book = Book()
        its_own = random.Random(rng.random())
        return world.start(one_party, next(numbers), channels, book, its_own, world.cancels, over), book

    with hurried(), opened(names) as worlds:
        mixed = len(worlds) > 1
        # The pause between two turns is for others, and costs more than a turn.
        go_on = worlds[0].turn if not mixed and is_stepped(type(worlds[0])) else turn
        # Plain threads are quick to give up, and would leave little to the others.
        populations = [Population(world, PARTIES if world.cancels or not mixed else 2, start) for world in worlds]
        while sum(population.book.performed for population in populations) < OPERATIONS and not wrong:
            assert time.monotonic() < deadline, [ch.statistics() for ch in channels]
            for population in populations:
                population.settle(wrong)
                population.fill()
                population.cancel(rng.sample(population.alive, population.size // 2 if mixed else 1))
            for _ in range(rng.randrange(8)):
                go_on()
        over.append(True)
        while any(population.alive for population in populations):
            assert time.monotonic() < deadline, [ch.statistics() for ch in channels]
            for population in populations:
                population.cancel(population.alive)
            turn()
            for population in populations:
                population.settle(wrong)
    assert not wrong
    total = Book()
    for population in populations:
        total.add(population.book)
    balance(total, channels)
    started, found_waiting = (sum(getattr(p, name) for p in populations) for name in ("started", "found_waiting"))
    assert total.impatient, "no operation was parked and timed out"
    assert found_waiting or not any(world.cancels for world in worlds), "no operation was parked when it was cancelled"
    shares = ", ".join(f"{name} {p.book.performed}" for name, p in zip(names, populations, strict=True))
    print(
        f"{storm}: {total.performed} operations by {started} parties ({shares}), {total.impatient} timed out after they "
        f"had parked, {found_waiting} were parked when they were cancelled"
    )
