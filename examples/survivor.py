"""The word count of map_reduce.py by processes of the system, one of which is killed in the middle: the count is right.

What it teaches: a worker that dies fails its group with `weft.PeerDied` and nothing else of the program, when it has a
group of its own; whoever gave it work knows what it had not finished, and puts that back for another. Each batch is
counted once: a send that was cancelled has given nothing, and one that had committed completes first.
Source: Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters" (2004), section 3.3, Fault Tolerance.
"""

import argparse
import asyncio
import os
import signal
import sys
import sysconfig
from collections import Counter
from itertools import islice

import weft
from cores import without_processes
from map_reduce import batches, count, files


def work(given, counts):
    """In a worker: says who it is, then counts one batch after another."""
    with given, counts:
        counts.send(os.getpid()).wait()
        for paths in given:
            counts.send(count(paths)).wait()


async def keep(name, todo, done, fatal):
    """Has one worker, and hands it a batch at a time. While it works on a `fatal` one it is killed."""
    given, counts = weft.Channel(), weft.Channel()
    held = None  # the batch whose count has not been passed on
    try:
        with done:
            async with weft.Group() as group:
                process = group.spawn(work, given.receiver(), counts.sender(), on="process", name=name)
                with given.sender() as tx, counts.receiver() as rx:
                    pid = await rx.recv()
                    async for held in todo:
                        number, paths = held
                        await tx.send(paths)
                        if number in fatal:
                            fatal.remove(number)  # the next one who has it may live
                            print(f"{name} has batch {number}: killing process {pid}")
                            os.kill(pid, signal.SIGKILL)
                            await process.join()  # even if it was quick, its count is not taken
                        await done.send((name, await rx.recv()))
                        held = None
    except* (weft.PeerDied, weft.NoReceivers) as died:  # what was to be received from it, or sent to it
        print(f"{name} is lost: {died.exceptions[0]}")
        if held:
            print(f"batch {held[0]} goes to another")
            todo.send_nowait(held)


async def count_all(jobs, workers):
    """The counts, and how many batches each worker did."""
    todo, done = weft.Channel.unbounded(name="todo"), weft.Channel(name="done")
    for job in enumerate(jobs):
        todo.send_nowait(job)
    left = len(todo)
    fatal, total, shares = {left // 2}, Counter(), Counter()
    async with weft.Group() as group:
        for number in range(workers):
            group.spawn(keep, f"worker {number}", todo, done.sender(), fatal)
        while left:
            name, found = await done.recv()  # raises Closed when no worker is left
            total.update(found)
            shares[name] += 1
            left -= 1
        todo.close()  # not before: until now a batch could come back
    return total, shares


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="count the words of a folder, though a worker is killed")
    parser.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"), help="else the standard library's")
    parser.add_argument("--pattern", default="*.py", help="which files")
    parser.add_argument("--most", type=int, default=240, help="how many files at most")
    parser.add_argument("--batch", type=int, default=8, help="how many files a worker is given at a time")
    parser.add_argument("--workers", type=int, default=max(2, os.cpu_count() or 2), help="how many; one will not live")
    args = parser.parse_args()
    if args.workers < 2:
        parser.error("one worker is lost, so there have to be two")
    if reason := without_processes():
        print(f"not here: {reason}")
        sys.exit()
    names = list(islice(files(args.folder, args.pattern), args.most))
    total, shares = asyncio.run(count_all(batches(names, args.batch), args.workers))
    print(", ".join(f"{name}: {number} batches" for name, number in sorted(shares.items())))
    same = count(names) == total
    print(
        f"{total.total()} words, {len(total)} different; a plain loop finds {'the same' if same else 'ANOTHER'} count"
    )
    sys.exit(not same)
