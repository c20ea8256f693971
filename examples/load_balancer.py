"""A load balancer: requests go to the least loaded worker, with no lock around the loads.

What it teaches: a reply channel inside the request, so that the answer passes the balancer by;
one process that alone owns the heap of workers; a select case that is switched off (`None`) while
every worker is full, which makes requesters wait instead of a queue grow.
Source: Rob Pike, "Concurrency is not Parallelism" (Waza 2012), "A load balancer".
"""

import argparse
import asyncio
import heapq
import random
from dataclasses import dataclass, field

import weft

FULL = 4  # requests a worker may have waiting


@dataclass
class Request:
    n: int
    reply: weft.Channel


@dataclass(order=True)
class Worker:
    pending: int  # what the heap is ordered by
    number: int
    served: int = field(default=0, compare=False)
    requests: weft.Channel = field(default_factory=lambda: weft.Channel(FULL), repr=False, compare=False)


async def work(worker, done, rng):
    async for request in worker.requests:
        await weft.sleep(rng.uniform(0, 0.002))  # the work
        await request.reply.send(request.n * request.n)
        await done.send(worker)


async def ask(number, count, requests, sums):
    """A requester: asks for the squares of some numbers, one after the other."""
    total, reply = 0, weft.Channel[int]()
    with requests:
        for n in range(count):
            await requests.send(Request(number + n, reply))
            total += await reply.recv()
    sums[number] = total


async def balance(workers, requests, done):
    """Hand each request to the least loaded worker; leave when all are asked and served."""
    incoming = requests  # None once it is closed
    while incoming is not None or any(worker.pending for worker in workers):
        room = workers[0].pending < FULL  # the heap's first is the least loaded
        try:
            case, value = await weft.select(
                request=incoming.recv() if incoming is not None and room else None,
                done=done.recv(),
            )
        except weft.Closed:
            incoming = None  # the last requester has left
            continue
        if case == "request":
            worker = workers[0]
            worker.pending += 1
            heapq.heapreplace(workers, worker)
            await worker.requests.send(value)  # has room: does not wait
        else:
            value.pending -= 1
            value.served += 1
            heapq.heapify(workers)
    for worker in workers:
        worker.requests.close()


async def main(requesters, count, pool, seed):
    rng = random.Random(seed)
    workers = [Worker(0, number) for number in range(pool)]  # all alike: a heap already
    requests, done = weft.Channel[Request](), weft.Channel[Worker]()
    sums = {}
    async with weft.Group() as group:
        for worker in workers:
            group.spawn(work, worker, done, rng)
        with requests.sender() as entrance:
            for number in range(requesters):
                group.spawn(ask, number, count, entrance.clone(), sums)
        group.spawn(balance, workers, requests, done)
    for worker in sorted(workers, key=lambda worker: worker.number):
        print(f"worker {worker.number} served {worker.served}")
    right = {r: sum((r + n) ** 2 for n in range(count)) for r in range(requesters)}
    print(f"{requesters} requesters, {requesters * count} requests,", end=" ")
    print("all answers right" if sums == right else f"WRONG: {sums}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="balance requests over a pool of workers")
    parser.add_argument("--requesters", type=int, default=20)
    parser.add_argument("--count", type=int, default=10, help="requests of each requester")
    parser.add_argument("--pool", type=int, default=4, help="workers")
    parser.add_argument("--seed", type=int, default=1, help="for the length of the work")
    args = parser.parse_args()
    asyncio.run(main(args.requesters, args.count, args.pool, args.seed))
