"""A ring of processes: a token goes round, and each process adds one to it.

    first -> node -> node -> ... -> node
      ^                              |
      +------------------------------+

What it teaches: what a communication costs, and what a process costs that waits for one. Only
one process of the ring has something to do at any time; all the others wait in a `recv`, and
however many they are, the one that has the token does not notice them.
Source: the ring of the Occam and Erlang benchmarks; Joe Armstrong, "Programming Erlang" (2007).
"""

import argparse
import asyncio
import time

import weft
from memory import peak


async def node(left, right, laps):
    for _ in range(laps):
        token = await left.recv()
        await right.send(token + 1)


async def ring(size, laps):
    before = peak()
    async with weft.Group() as group:  # left only when every process has ended
        last = first = weft.Channel[int]()
        for _ in range(size):
            left, last = last, weft.Channel[int]()
            group.spawn(node, left, last, laps + 1)
        await first.send(0)  # one lap to wake them all up
        await last.recv()

        start, token = time.perf_counter_ns(), 0
        for _ in range(laps):
            await first.send(token)
            token = await last.recv()
        each = (time.perf_counter_ns() - start) / token
    print(f"{size} processes, {laps} laps: the token came back as {token}")
    print(f"{each:.0f} ns per communication, {(peak() - before) / size:.0f} bytes per process and its channel")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a token round a ring of processes")
    parser.add_argument("--size", type=int, default=10_000, help="processes in the ring; a million need 1.5 GB")
    parser.add_argument("--laps", type=int, default=10, help="how often the token goes round")
    asyncio.run(ring(**vars(parser.parse_args())))
