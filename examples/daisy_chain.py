"""A daisy chain: a whisper passed along thousands of processes, each adding one.

What it teaches: processes and channels are cheap enough to have many of them; nothing needs a
lock, because a value is in one place at a time.
Source: Rob Pike, "Go Concurrency Patterns" (Google I/O 2012), "Daisy-chain".
"""

import argparse
import asyncio
import time

import weft


async def whisper(left, right):
    await left.send(1 + await right.recv())


async def main(length):
    start = time.monotonic()
    async with weft.Group() as group:
        leftmost = left = weft.Channel[int]()
        for _ in range(length):
            right = weft.Channel[int]()
            group.spawn(whisper, left, right)
            left = right
        built = time.monotonic()
        await left.send(1)  # at the far end of the chain
        print(await leftmost.recv())
    print(
        f"{length} processes: {1000 * (built - start):.0f} ms to build the chain, "
        f"{1000 * (time.monotonic() - built):.0f} ms to pass the whisper"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="pass a whisper along a chain of processes")
    parser.add_argument("--length", type=int, default=10_000, help="processes in the chain")
    asyncio.run(main(parser.parse_args().length))
