"""Fan-in: listen to two speakers at once, whoever is ready.

What it teaches: reading from one and then the other makes each wait for the other's turn. A
process per speaker that copies to one channel frees them; so does `selecting`, with no extra
process, and it also says who spoke.
Source: Rob Pike, "Go Concurrency Patterns" (Google I/O 2012), "Multiplexing" and "Select".
"""

import argparse
import asyncio
import random

import weft


async def speak(name, times, rng, out):
    with out:
        for i in range(times):
            await weft.sleep(rng.uniform(0, 0.01))
            await out.send(f"{name} {i}")


def start(group, name, times, rng):
    tx, rx = weft.Channel[str]().split()
    group.spawn(speak, name, times, rng, tx)
    return rx


async def copy(source, out):
    with source, out:
        async for value in source:
            await out.send(value)


def fan_in(group, *sources):
    """Return one end that receives whatever any of `sources` does; it ends when all have."""
    tx, rx = weft.Channel[str]().split()
    with tx:
        for source in sources:
            group.spawn(copy, source, tx.clone())
    return rx


async def main(times, seed):
    rng = random.Random(seed)
    async with weft.Group() as group:
        print("with a process per speaker:")
        both = fan_in(group, start(group, "Joe", times, rng), start(group, "Ann", times, rng))
        async for said in both:
            print("  ", said)

        print("with selecting:")
        joe, ann = start(group, "Joe", times, rng), start(group, "Ann", times, rng)
        async for who, said in weft.selecting(left=joe, right=ann):
            print(f"   from the {who}: {said}")
    print("both have said all they had to say")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="listen to two speakers at once")
    parser.add_argument("--times", type=int, default=4, help="messages of each speaker")
    parser.add_argument("--seed", type=int, default=1, help="for the pauses between messages")
    args = parser.parse_args()
    asyncio.run(main(args.times, args.seed))
