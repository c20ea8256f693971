"""Count the words of Python's standard library: walk (task) -> read, count (threads) -> reduce.

What it teaches: one channel joins tasks and threads; its bound is back-pressure; its ends are
counted, so the last worker to leave closes it; a select waits for a result, a tick, the deadline.
"""

import sys
from pathlib import Path

import weft
from corpus import ROOT, Tally, arguments, sources, words


async def walk(paths):
    async with paths:  # leaving closes the channel: there are no more files
        for path in sources():
            await paths.send(path)  # waits while the readers are 64 files behind


def stage(work, source, out):  # in a thread: `for` and `.wait()` for `async for` and `await`
    with out:  # leaving closes this end; the last end closes the channel
        for item in source:
            out.send(work(item)).wait()


async def reduce(tally, limit, threads=4):
    paths, texts = weft.Channel(64, name="paths"), weft.Channel(32, name="texts")
    counts, clock = weft.Channel(16, name="counts"), weft.tick(0.1)
    late = tally.start + limit
    async with weft.Group() as group:  # left only when every task and thread has ended
        group.spawn(walk, paths)
        with texts.sender() as text, counts.sender() as part:
            for _ in range(threads):
                group.spawn(stage, Path.read_bytes, paths, text.clone())
                group.spawn(stage, words, texts, part.clone())
        while not group.cancelled:
            try:
                match await weft.select(part=counts.recv(), tick=clock.recv(), late=weft.at(late)):
                    case "part", (size, found):
                        tally.add(size, found)
                    case "tick", _:
                        tally.progress(paths, texts, counts)
                    case "late", _:
                        tally.stop(limit)
                        group.cancel()
            except weft.Closed:  # every counter has left: that was all
                break


if __name__ == "__main__":
    args, tally = arguments(), Tally()
    try:
        print(f"counting the words under {ROOT}", flush=True)
        weft.run(reduce, tally, args.limit)
    except KeyboardInterrupt:
        print("interrupted: every task and thread has ended")
        sys.exit(130)
    sys.exit(tally.report(args.check))
