"""Random load over everything weft has, for as long as you like: `make stress`, or `tests/stress.py --seconds 60`.

Each second is a round: event loops in threads of their own, plain threads, and a group of threads share a handful of
channels of every kind. They send, receive, select and wait in every way, run out of patience, are cancelled, and see
channels closed and poisoned under them. Then all stop, and the books are balanced: each value whose send completed was
received, or is still in its channel, or was handed to `on_undelivered`; each value whose send failed is nowhere else.

The seed decides what is tried; when, the threads decide. A failure names the seed, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import statistics
import sys
import threading
import time
import traceback
from collections import Counter

import weft

HANG = 60  # seconds after which a round that does not end is a failure: every thread's stack is shown
GROWTH = 48 << 20  # bytes the process may grow after its first rounds
PATIENCE = (0, 0, 0.0001, 0.001, 0.01, 0.05)


class Cause(Exception):
    """What some channels are closed and poisoned with: receivers of a closed one get it."""


ENDED = (weft.Closed, weft.WouldBlock, Cause, TimeoutError)


class Broken(Exception):
    """A promise was not kept."""


class Books:
    """One party's record: no lock of ours may order what weft should."""

    def __init__(self):
        self.given, self.taken, self.kept, self.operations = [], [], [], 0


class Round:
    """The channels, the records and the parties of one second."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.serial = iter(range(1 << 60))
        self.stop = weft.Channel(name="stop")
        self.books: list[Books] = []
        self.errors: list[str] = []
        self.undelivered: list[object] = []
        self.all: list[weft.Channel] = []
        self.channels = [self.new_channel() for _ in range(6)]
        self.barrier = weft.Barrier(2)
        self.event = weft.Event()
        self.read, self.write = os.pipe()

    def new_channel(self):
        overflow = self.rng.choice(("block", "block", "block", "drop_oldest", "drop_newest", "error"))
        if overflow == "block" and self.rng.random() < 0.1:
            ch = weft.Channel.unbounded(on_undelivered=self.undelivered.append)
        else:
            capacity = self.rng.choice((0, 0, 1, 2, 7))
            capacity = capacity or int(overflow == "drop_oldest")
            ch = weft.Channel(capacity, overflow=overflow, on_undelivered=self.undelivered.append)
        self.all.append(ch)
        return ch

    def party(self) -> Books:
        self.books.append(Books())
        return self.books[-1]

    # What a party may try: a generator that yields one operation, is sent its result or thrown its error, and writes
    # down what became of the values.

    def attempt(self, rng: random.Random, books: Books, mine):
        books.operations += 1
        a, b = rng.sample(self.channels, 2)
        value, other = ((mine, next(self.serial)) for _ in range(2))
        choice = rng.randrange(13)
        offered = []
        result = None
        try:
            if choice < 3:
                offered = [value]
                yield a.send(value)
                books.given.append(value)
                offered = []
            elif choice < 6:
                result = yield a.recv()
                books.taken.append(result)
            elif choice == 6:
                books.taken.extend((yield a.recv_many(rng.randrange(1, 9))))
            elif choice == 7:
                offered = [(mine, next(self.serial)) for _ in range(rng.randrange(1, 9))]
                count = yield a.send_many(offered)
                books.given.extend(offered[:count])
                offered = offered[count:]
            elif choice < 10:
                offered = [value, other]
                cases = {"give": a.send(value), "take": b.recv(), "also": b.send(other), "again": a.recv()}
                if rng.random() < 0.5:
                    cases |= {"late": weft.after(rng.choice(PATIENCE)), "tick": weft.tick(0.01).recv()}
                if rng.random() < 0.2:
                    cases |= {"read": weft.readable(self.read), "met": self.barrier.sync(), "set": self.event.wait()}
                if rng.random() < 0.1:
                    cases["default"] = None
                case, result = yield weft.select(**cases, policy=rng.choice(("random", "priority")))
                if case in ("give", "also"):
                    books.given.append(offered.pop(0 if case == "give" else 1))
                elif case in ("take", "again"):
                    books.taken.append(result)
            elif choice == 10:
                offered = [value]
                inner = weft.select(b.recv(), a.send(value)).map(tuple)
                case, (which, result) = yield weft.select(inner, weft.select(weft.after(0.001)))
                if case == 0 and which == 0:
                    books.taken.append(result)
                elif case == 0:
                    books.given.append(offered.pop())
            elif choice == 11:
                yield weft.select(self.barrier.sync(), weft.after(rng.choice(PATIENCE)))
            else:
                offered = [value]
                a.send_nowait(value)
                books.given.append(offered.pop())
                books.taken.append(b.recv_nowait())
        except ENDED:
            pass
        finally:
            books.kept.extend(offered)

    # Worlds

    async def task_party(self, seed: str):
        rng, books = random.Random(seed), self.party()
        while not self.stop.closed:
            try:
                while not self.stop.closed:
                    if rng.random() < 0.02:
                        await self.some_events(rng, books)
                        continue
                    patience = rng.choice(PATIENCE) if rng.random() < 0.3 else 0.2
                    attempt = self.attempt(rng, books, seed)
                    await perform(attempt, patience)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()

    async def some_events(self, rng, books):
        """A standing select, left after some events."""
        ready = weft.selecting(*rng.sample(self.channels, 3))
        with contextlib.suppress(*ENDED, StopAsyncIteration):
            async with asyncio.timeout(0.02):
                for _ in range(rng.randrange(1, 30)):
                    _, value = await anext(ready)
                    books.taken.append(value)
                    if rng.random() < 0.1:
                        ready.discard(rng.randrange(3))

    async def canceller(self, tasks, rng):
        while not self.stop.closed:
            rng.choice(tasks).cancel()
            await asyncio.sleep(rng.choice((0, 0, 0.0001, 0.002)))

    def loop_party(self, seed: str):
        async def main():
            rng = random.Random(seed)
            tasks = [asyncio.create_task(self.task_party(f"{seed}/{n}")) for n in range(6)]
            await asyncio.sleep(0)
            canceller = asyncio.create_task(self.canceller(tasks, rng))
            await canceller
            while not all(task.done() for task in tasks):
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(0.001)
            for task in tasks:
                task.result()

        factory = None
        if random.Random(seed).random() < 0.5:
            with contextlib.suppress(ImportError):
                import uvloop

                factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    def thread_party(self, seed: str):
        rng, books = random.Random(seed), self.party()
        while not self.stop.closed:
            if rng.random() < 0.02:
                self.some_values(rng, books)
                continue
            perform_blocking(self.attempt(rng, books, seed), rng.choice(PATIENCE))

    def some_values(self, rng, books):
        """`for`, in a child that is cancelled with its group: what it took it has written down."""

        def child():
            with contextlib.suppress(weft.Closed, Cause):
                for value in rng.choice(self.channels):
                    books.taken.append(value)

        with weft.Group() as group:
            group.spawn(child)
            if rng.random() < 0.5:
                group.cancel()
            else:
                group.cancel_after(rng.choice(PATIENCE))

    def chaos_party(self, seed: str):
        """Channels end, and others take their place; an event comes and goes; a pipe fills and empties."""
        rng = random.Random(seed)
        while not self.stop.closed:
            with contextlib.suppress(TimeoutError):
                self.stop.recv().map(lambda _: None).wait(rng.choice((0.001, 0.01, 0.03)))
            if self.stop.closed:
                return
            index = rng.randrange(len(self.channels))
            ending = rng.randrange(7)
            old = self.channels[index]
            if ending < 4:
                self.channels[index] = self.new_channel()
            if ending == 0:
                old.close(Cause() if rng.random() < 0.5 else None)
            elif ending == 1:
                old.poison(Cause() if rng.random() < 0.5 else None)
            elif ending == 2:
                tx = old.sender()
                tx.clone().close()
                tx.close()
            elif ending == 3:
                old.receiver().close()
            elif ending == 4:
                self.event.set()
                self.event.clear()
            elif ending == 5:
                os.write(self.write, b"x")
            else:
                with contextlib.suppress(TimeoutError):
                    weft.readable(self.read).map(lambda _: os.read(self.read, 100)).wait(0)

    def guarded(self, party, seed):
        try:
            party(seed)
        except weft.Closed as error:
            if error.channel is not self.stop:
                self.errors.append(traceback.format_exc())
        except BaseException:
            self.errors.append(traceback.format_exc())

    def run(self, seed: str, seconds: float):
        parties = [self.loop_party] * 2 + [self.thread_party] * 3 + [self.chaos_party]
        threads = [
            threading.Thread(target=self.guarded, args=(party, f"{seed}/{n}"), name=party.__name__, daemon=True)
            for n, party in enumerate(parties)
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self.stop.close()
        # Who waits without a limit waits in a task, and is cancelled; everyone else has little patience.
        for thread in threads:
            thread.join()
        os.close(self.read)
        os.close(self.write)
        if self.errors:
            raise Broken(self.errors[0])
        self.balance()

    def balance(self):
        left: list[object] = []
        for ch in self.all:
            now = ch.statistics()
            if now.parked_senders or now.parked_receivers:
                raise Broken(f"somebody is still parked: {now}")
            with contextlib.suppress(*ENDED):
                while True:
                    left.append(ch.recv_nowait())
        if self.barrier.waiting:
            raise Broken("somebody still waits at the barrier")
        given, taken, kept = (
            Counter(value for books in self.books for value in getattr(books, book))
            for book in ("given", "taken", "kept")
        )
        there = taken + Counter(left) + Counter(self.undelivered)
        for what, which in {
            "in two places": {value for value, count in (there + kept).items() if count != 1},
            "sent and nowhere": set(given - there),
            "somewhere though never sent": set(there - given),
        }.items():
            if which:
                raise Broken(f"{len(which)} values {what}: {sorted(which, key=str)[:5]}")
        self.values = len(given)


async def perform(attempt, patience):
    """What `attempt` asks for, as a task does it; whatever comes, the attempt is told."""
    reply, error = None, None
    with contextlib.suppress(StopIteration):
        while True:
            op = attempt.send(reply) if error is None else attempt.throw(error)
            reply = error = None
            try:
                async with asyncio.timeout(patience):
                    reply = await op
            except BaseException as caught:
                error = caught


def perform_blocking(attempt, patience):
    reply, error = None, None
    with contextlib.suppress(StopIteration):
        while True:
            op = attempt.send(reply) if error is None else attempt.throw(error)
            reply = error = None
            try:
                reply = op.wait(patience)
            except BaseException as caught:
                error = caught


def resident() -> int:
    """Bytes in memory, or 0 where nobody tells."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    options = parser.parse_args()
    sys.setswitchinterval(1e-4)
    print(f"seed {options.seed}, Python {sys.version.split()[0]}, weft {weft.__version__}", flush=True)
    operations = values = rounds = 0
    sizes: list[int] = []
    end = time.monotonic() + options.seconds
    while (rest := end - time.monotonic()) > 0:
        faulthandler.dump_traceback_later(HANG, exit=True)
        seed = f"{options.seed}/{rounds}"
        this = Round(random.Random(seed))
        try:
            this.run(seed, min(1.0, rest))
        except Broken as error:
            print(f"FAILED in round {seed}: {error}\nagain: tests/stress.py --seed {options.seed}", flush=True)
            return 1
        finally:
            faulthandler.cancel_dump_traceback_later()
        rounds += 1
        operations += sum(books.operations for books in this.books)
        values += this.values
        del this
        gc.collect()
        sizes.append(resident())
        print(
            f"{rounds:4d}  {operations:10,} operations  {values:10,} values  {sizes[-1] / (1 << 20):6.1f} MB",
            flush=True,
        )
    if len(sizes) >= 20:
        grown = statistics.median(sizes[-5:]) - statistics.median(sizes[5:10])
        if grown > GROWTH:
            print(
                f"FAILED: grew by {grown / (1 << 20):.1f} MB\nagain: tests/stress.py --seed {options.seed}", flush=True
            )
            return 1
    print(f"all well: {rounds} rounds, {operations:,} operations, {values:,} values, each in one place")
    return 0


if __name__ == "__main__":
    sys.exit(main())
