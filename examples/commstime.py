"""Commstime: networks of four processes that make the numbers 0, 1, 2, ... by nothing but communication.

    prefix --a--> delta --d--> consumer     prefix sends a 0, then whatever it receives
      ^             |                       delta sends each number both ways
      +--c-- successor <--b--+              successor adds one

What it teaches: a program as a network of processes that do one thing each; here nothing but
communicate. Source: the benchmark of the Occam compilers, as Peter Welch has it.
"""

import argparse
import asyncio
import time

import weft
from memory import peak


async def prefix(source, out):
    await out.send(0)
    async for number in source:
        await out.send(number)


async def delta(source, left, right):
    async for number in source:
        await left.send(number)
        await right.send(number)


async def successor(source, out):
    async for number in source:
        await out.send(number + 1)


async def consumer(source, cycles, last):
    numbers = [await source.recv() for _ in range(cycles)]
    await last.send(numbers[-1])


async def main(networks, cycles):
    before, start, last = peak(), time.perf_counter_ns(), weft.Channel[int]()
    async with weft.Group() as group:
        for _ in range(networks):
            a, b, c, d = (weft.Channel[int]() for _ in range(4))
            for process in (prefix, c, a), (delta, a, d, b), (successor, b, c), (consumer, d, cycles, last):
                group.spawn(*process)
        numbers = {await last.recv() for _ in range(networks)}
        each = (time.perf_counter_ns() - start) / (4 * networks * cycles)
        group.cancel()  # they would go on for ever
    print(f"{networks} networks of 4 processes, {cycles} numbers each: the last is", *numbers)
    print(f"{each:.0f} ns per communication, {(peak() - before) / 4 / networks:.0f} bytes per process and its channel")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="networks that do nothing but communicate")
    parser.add_argument("--networks", type=int, default=250, help="of four processes each")
    parser.add_argument("--cycles", type=int, default=100, help="how many numbers each network makes")
    asyncio.run(main(**vars(parser.parse_args())))
