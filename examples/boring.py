"""Generator: a function that starts a process and returns the channel it speaks on.

What it teaches: a channel is a value, a handle on a service. The listener holds the only end to
receive from; when it leaves, the speaker is told (`NoReceivers`): nobody talks to an empty room.
Source: Rob Pike, "Go Concurrency Patterns" (Google I/O 2012), "Generator".
"""

import argparse
import asyncio
import random

import weft


def boring(group, message, rng):
    """Start somebody who says `message` again and again; return the end to listen on."""

    async def speak():
        count = 0
        try:
            while True:
                await tx.send(f"{message} {count}")
                count += 1
                await weft.sleep(rng.uniform(0, 0.01))
        except weft.NoReceivers:
            pass  # the listener has left: nothing went wrong

    tx, rx = weft.Channel[str]().split()
    group.spawn(speak)
    return rx


async def main(seed):
    rng = random.Random(seed)
    async with weft.Group() as group:
        with boring(group, "boring!", rng) as joe:
            for _ in range(5):
                print("you say:", await joe.recv())
        print("you're boring; I'm leaving")
    print("and the speaker has left too")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="listen to one boring speaker, then leave")
    parser.add_argument("--seed", type=int, default=1, help="for the pauses between messages")
    asyncio.run(main(parser.parse_args().seed))
