"""The programs: what each one does, how big it is, and the answer a right rival must give.

A rival implements a program as one small function `program(run, ...)`: it does `run.n` of the program's work and
returns the checksum that `answer` says. Nothing here imports a library under test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

now = time.perf_counter_ns

RING = 1000  # nodes in the ring
PRODUCERS = 100  # in the fan-in
STRIDE = 7919  # a prime: walks over the channels of `selecting` out of order, each equally often


class Run:
    """One timed execution. The clock starts when the program is called, or again at `start`, after a set-up."""

    __slots__ = ("began", "cpu", "n", "samples")

    def __init__(self, n: int) -> None:
        self.n = n
        self.samples: list[int] = []  # ns per round trip, by the programs that measure hand-offs
        self.start()

    def start(self) -> None:
        self.cpu, self.began = time.process_time_ns(), now()

    def elapsed(self) -> tuple[int, int]:
        """Nanoseconds since the start: on the wall, and of the processor's time (all threads)."""
        return now() - self.began, time.process_time_ns() - self.cpu


class Does(NamedTuple):
    """How a rival does a program: what the table calls it, the function, its further arguments."""

    how: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    share: float = 1.0  # of the program's n, for what would take minutes; the cost per message is what is compared


@dataclass(frozen=True)
class Program:
    name: str
    title: str
    n: int
    unit: str  # what one "message" is
    messages: Callable[[int], int]
    answer: Callable[[int], int]
    step: int = 1  # n is a multiple of this
    handoff: bool = False  # percentiles of single round trips are taken
    select: bool = False  # a rival without select is named in the table

    def size(self, scale: float) -> int:
        least = max(self.step, 8)
        n = max(int(self.n * scale), least)
        return n - n % self.step


def total(n: int) -> int:
    """0 + 1 + ... + (n - 1)."""
    return n * (n - 1) // 2


@cache
def primes_and_messages(limit: int) -> tuple[int, int]:
    """How many primes there are up to `limit`, and how many messages the sieve sends to find them.

    A number whose smallest prime factor is the j-th prime crosses j channels; the zero that ends the sieve crosses all.
    """
    rank = [0] * (limit + 1)
    primes = 0
    for number in range(2, limit + 1):
        if not rank[number]:
            primes += 1
            for multiple in range(number, limit + 1, number):
                if not rank[multiple]:
                    rank[multiple] = primes
    return primes, sum(rank) + primes + 1


def one(n: int) -> int:
    return n


def two(n: int) -> int:
    return 2 * n


def replies(n: int) -> int:
    """The sum of the replies i + 1 to 0 <= i < n."""
    return total(n) + n


def _select(ways: int, state: str, n: int) -> Program:
    if ways == 1:
        title = f"plain recv, {state}: what the selects are held against"
        return Program(f"recv_{state}", title, n, "recv", one, total)
    return Program(f"select{ways}_{state}", f"select over {ways}, {state}", n, "select", one, total, select=True)


_ALL = [
    # tasks
    Program("pipe_0", "pipe, rendezvous: one producer, one consumer", 100_000, "message", one, total),
    Program("pipe_128", "pipe, buffered: 128 places", 200_000, "message", one, total),
    Program("ping_pong", "ping-pong: percentiles are round trips", 50_000, "message", two, replies, handoff=True),
    Program("commstime", "commstime: Prefix, Delta, Successor, Consumer", 25_000, "message", lambda n: 4 * n, total),
    Program("ring", f"ring of {RING}: one token", 200_000, "hop", one, one, step=RING),
    Program(
        "sieve",
        "prime sieve: a process per prime",
        20_000,
        "message",
        lambda n: primes_and_messages(n)[1],
        lambda n: primes_and_messages(n)[0],
    ),
    Program("fan_in", f"fan-in: {PRODUCERS} producers, one consumer", 100_000, "message", one, total),
    # Ready: every channel holds values before the clock starts. Parked: the receiver waits before each value is sent.
    _select(1, "ready", 100_000),
    _select(2, "ready", 100_000),
    _select(4, "ready", 100_000),
    _select(100, "ready", 20_000),
    _select(1, "parked", 100_000),
    _select(2, "parked", 100_000),
    _select(4, "parked", 100_000),
    _select(100, "parked", 20_000),
    Program("selecting_10", "selecting over 10 channels", 100_000, "event", one, total, select=True),
    Program("selecting_1000", "selecting over 1000 channels", 100_000, "event", one, total, select=True),
    Program("spawn_join", "spawn and join: one group, children that return at once", 100_000, "child", one, total),
    # threads
    Program("thread_pipe_0", "thread to thread, rendezvous", 30_000, "message", one, total),
    Program("thread_pipe_128", "thread to thread, buffered: 128 places", 100_000, "message", one, total),
    Program(
        "thread_ping_pong",
        "thread to thread, ping-pong: percentiles are round trips",
        10_000,
        "message",
        two,
        replies,
        handoff=True,
    ),
    Program("thread_spawn_join", "spawn and join threads", 2_000, "thread", one, total),
    # threads and a loop
    Program("thread_to_loop_0", "thread to loop, rendezvous", 20_000, "message", one, total),
    Program("thread_to_loop_128", "thread to loop, buffered: 128 places", 50_000, "message", one, total),
    Program(
        "thread_loop_thread",
        "thread to loop to thread: percentiles are round trips",
        10_000,
        "round trip",
        one,
        replies,
        handoff=True,
    ),
    # the machine's and the interpreter's floors
    Program("floor_await", "floor: await of a coroutine that returns at once", 500_000, "await", one, total),
    Program("floor_step", "floor: one step of a coroutine by send()", 500_000, "step", one, total),
    Program("floor_send", "floor: one step of a coroutine from C, as PyIter_Send does it", 500_000, "step", one, one),
    Program("floor_switch", "floor: one turn of the scheduler, sleep(0)", 200_000, "turn", one, total),
    Program("floor_clock", "floor: perf_counter_ns and list.append, as the ping-pongs do", 500_000, "pair", one, one),
]

PROGRAMS = {program.name: program for program in _ALL}
