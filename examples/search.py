"""A replicated search with a deadline: ask several servers for each thing, take the first answer.

What it teaches: one slow server need not make a slow answer. `first` asks all replicas and
cancels the losers; the gathering loop selects between the next result and one overall deadline.
Source: Rob Pike, "Go Concurrency Patterns" (Google I/O 2012), "Google Search 3.0". The servers
are fake: they sleep.
"""

import argparse
import asyncio
import random
import time

import weft


async def server(name, query, delay, answers):
    await weft.sleep(delay)
    await answers.send(f"{name} result for {query!r}")


async def first(kind, query, delays, results):
    """Ask every replica of `kind`; pass on the first answer, and call the others off."""
    answers = weft.Channel[str]()
    async with weft.Group() as replicas:
        for number, delay in enumerate(delays, 1):
            replicas.spawn(server, f"{kind} {number}", query, delay, answers)
        answer = await answers.recv()
        replicas.cancel()  # leaves the block here; no replica outlives it
    await results.send((kind, answer))


async def search(query, timeout, replicas, rng):
    """The best answers found within `timeout` seconds, as {kind: answer}."""
    found = {}
    kinds = "web", "image", "video"
    deadline = time.monotonic() + timeout  # one for all, not one for each
    results = weft.Channel[tuple[str, str]]()
    async with weft.Group() as group:
        for kind in kinds:
            delays = [rng.uniform(0.001, 0.1) for _ in range(replicas)]
            group.spawn(first, kind, query, delays, results)
        while len(found) < len(kinds):
            case, value = await weft.select(result=results.recv(), late=weft.at(deadline), policy="priority")
            if case == "late":
                group.cancel()
                break
            kind, answer = value
            found[kind] = answer
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="search on replicated servers, with a deadline")
    parser.add_argument("--timeout", type=float, default=0.08, help="seconds, for the whole search")
    parser.add_argument("--replicas", type=int, default=3, help="servers for each kind of thing")
    parser.add_argument("--seed", type=int, default=1, help="for the servers' delays")
    args = parser.parse_args()
    start = time.monotonic()
    found = asyncio.run(search("weft", args.timeout, args.replicas, random.Random(args.seed)))
    for kind in sorted(found):
        print(f"{kind}: {found[kind]}")
    print(f"{len(found)} of 3 in {1000 * (time.monotonic() - start):.0f} ms")
