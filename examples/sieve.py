"""The concurrent prime sieve: a chain of processes, each of which knows one prime.

`numbers` sends 2, 3, 4, ... down a channel. Whatever comes out of the end of the chain is a
prime, and for each prime found one more filter is hung on the end:

    numbers -> [drop multiples of 2] -> [drop multiples of 3] -> ... -> next prime

What it teaches: processes and rendezvous channels as building blocks; closing a channel as the
way to end a pipeline: "no more numbers" runs down the chain, and each filter passes it on.
Source: Doug McIlroy's coroutine sieve, in Hoare, "Communicating Sequential Processes" (1978),
and the Go tour of the language.
"""

import argparse
import asyncio

import weft
from memory import peak


async def numbers(limit, out):
    async with out:  # leaving closes the channel: there is no number after the last
        for n in range(2, limit):
            await out.send(n)  # capacity 0: waits until the next filter takes it


async def drop_multiples(prime, source, out):
    async with out:
        async for n in source:  # until source is closed
            if n % prime:
                await out.send(n)


async def primes_below(limit):
    found = []
    async with weft.Group() as group:  # left only when every process has ended
        end = weft.Channel[int]()
        group.spawn(numbers, limit, end)
        while True:
            try:
                prime = await end.recv()
            except weft.Closed:
                return found
            found.append(prime)
            longer = weft.Channel[int]()
            group.spawn(drop_multiples, prime, end, longer)
            end = longer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="primes by a chain of filters")
    parser.add_argument("--limit", type=int, default=2000, help="primes below this number")
    limit, before = parser.parse_args().limit, peak()
    primes = asyncio.run(primes_below(limit))
    print("first:", *primes[:10])
    print("last: ", *primes[-10:])
    print(f"{len(primes)} primes below {limit}, each found by a process of its own; all have ended")
    print(f"memory: {(peak() - before) // 1024} KiB at the most, for the processes and their channels")
