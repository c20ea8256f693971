"""Dining philosophers: five who think and eat, five forks, and two forks needed to eat.

What it teaches: a channel of capacity n holds n tokens. A fork is a channel of one: `recv` picks
it up, `send` puts it down. The room is a channel with a place for all but one: with a seat free,
somebody always has both neighbours' forks in reach, so nobody can wait for ever.
Source: Edsger Dijkstra (1965); the room: Hoare, "Communicating Sequential Processes" (1978), 5.3.
"""

import argparse
import asyncio
import random

import weft

NAMES = "Plato", "Hypatia", "Spinoza", "Hume", "Arendt"


async def dine(seat, forks, room, meals, rng, eating):
    left, right = forks[seat], forks[(seat + 1) % len(forks)]
    for _ in range(meals):
        await weft.sleep(rng.uniform(0, 0.002))  # think
        await room.send(seat)  # enter; waits while the room is full
        await left.recv()
        await right.recv()
        eating.add(seat)
        neighbours = {(seat - 1) % len(forks), (seat + 1) % len(forks)}
        assert not eating & neighbours, f"{NAMES[seat]} eats with a neighbour's fork"
        await weft.sleep(rng.uniform(0, 0.002))  # eat
        eating.remove(seat)
        await left.send("fork")
        await right.send("fork")
        await room.recv()  # leave
    return meals


async def main(meals, seed):
    rng, eating = random.Random(seed), set()
    room = weft.Channel[int](len(NAMES) - 1)
    forks = [weft.Channel[str](1) for _ in NAMES]
    for fork in forks:
        fork.send_nowait("fork")
    async with weft.Group() as group:
        diners = [group.spawn(dine, seat, forks, room, meals, rng, eating) for seat in range(len(NAMES))]
    for name, diner in zip(NAMES, diners, strict=True):
        print(f"{name} ate {diner.result()} times")
    print(f"{sum(len(fork) for fork in forks)} forks on the table, {len(room)} in the room")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="five philosophers dine without a deadlock")
    parser.add_argument("--meals", type=int, default=20, help="meals of each philosopher")
    parser.add_argument("--seed", type=int, default=1, help="for thinking and eating times")
    args = parser.parse_args()
    asyncio.run(main(args.meals, args.seed))
