"""One interpreter for one measurement of scale.py: `python -m benches.scale_child RIVAL MEASUREMENT N OPTION`.

    ring N COMMUNICATIONS       a token goes round N processes
    crowd N COMMUNICATIONS      a token goes between two processes, while N - 2 others wait
    memory N shared|own         N processes wait, on one channel for all of them or each on its own
    latency N chatty|quiet      N ticks of a millisecond beside two processes that talk without a pause, or are silent
    parts                       what a parked process of weft is made of

Prints one JSON object, the same as the program in Go does (go/scale.go).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from array import array
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import weft

from benches.programs import Run, now

WARM_UP = 10_000  # communications before the clock starts, at the least
TICK = 1_000_000  # nanoseconds


class Tasks(asyncio.TaskGroup):
    """Plain tasks, spawned in the words of `weft.Group`."""

    def spawn(self, function: Callable[..., Coroutine], *args: Any) -> asyncio.Task:
        return self.create_task(function(*args))


async def wait_for_a_value(ch: weft.Channel) -> None:
    await ch.recv()


async def wait_for_an_item(queue: asyncio.Queue) -> None:
    await queue.get()


class Rival(NamedTuple):
    group: Callable[[], Any]
    channel: Callable[[], Any]
    send: str
    recv: str
    wait: Callable[[Any], Coroutine]  # a process that is parked: named here so that its frame is its own


RIVALS = {
    "weft-processes": Rival(weft.Group, weft.Channel, "send", "recv", wait_for_a_value),
    "asyncio": Rival(Tasks, lambda: asyncio.Queue(1), "put", "get", wait_for_an_item),
}


class Ring:
    """A token goes round n processes: some laps before the clock starts, as many as were asked for, and one in which they end."""

    def __init__(self, rival: Rival, n: int, communications: int) -> None:
        self.rival, self.n = rival, n
        self.warm, self.timed = max(1, WARM_UP // n), max(1, communications // n)
        self.found: dict = {}

    async def node(self, recv: Callable, send: Callable) -> None:
        for _ in range(self.warm + self.timed + 1):
            await send(await recv() + 1)

    async def laps(self, recv: Callable, send: Callable, laps: int) -> None:
        for _ in range(laps):
            await send(1)
            if (token := await recv()) != self.n:
                raise AssertionError(f"the token came back as {token}, expected {self.n}")

    async def first(self, recv: Callable, send: Callable) -> None:
        await self.laps(recv, send, self.warm)
        run = Run(self.n * self.timed)
        await self.laps(recv, send, self.timed)
        self.found["ns"], self.found["cpu"] = (each / run.n for each in run.elapsed())
        await self.laps(recv, send, 1)

    async def measure(self) -> dict:
        rival = self.rival
        async with rival.group() as group:
            last = first = rival.channel()
            for _ in range(self.n - 1):
                ch, last = last, rival.channel()
                group.spawn(self.node, getattr(ch, rival.recv), getattr(last, rival.send))
            group.spawn(self.first, getattr(last, rival.recv), getattr(first, rival.send))
        return self.found


async def park(rival: Rival, group: Any, channels: list) -> None:
    """A process waits on each of `channels`."""
    for ch in channels:
        group.spawn(rival.wait, ch)
    everyone = asyncio.Event()

    async def tell() -> None:
        everyone.set()

    group.spawn(tell)  # processes begin in the order they were spawned in
    await everyone.wait()


async def release(rival: Rival, channels: list) -> None:
    for ch in channels:
        await getattr(ch, rival.send)(None)


async def crowd(rival: Rival, n: int, communications: int) -> dict:
    async with rival.group() as group:
        channels = [rival.channel()] * (n - 2)
        await park(rival, group, channels)
        found = await Ring(rival, 2, communications).measure()
        await release(rival, channels)
    return found


def resident() -> int:
    """The memory that this process occupies, in bytes; the most it ever did where the system tells no more."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
    except OSError:
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


async def memory(rival: Rival, n: int, own: bool) -> dict:
    async with rival.group() as group:
        shared = rival.channel()
        before = resident()
        channels = [rival.channel() if own else shared for _ in range(n)]
        await park(rival, group, channels)
        found = {"bytes": (resident() - before) / n}
        await release(rival, channels)
    return found


async def parts() -> dict:
    """What a parked process of weft is made of, in bytes, as `sys.getsizeof` has it: the collector's head is included."""
    ch = weft.Channel[None]()
    async with weft.Group() as group:
        await park(RIVALS["weft-processes"], group, [ch])
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        found = {
            "coroutine": sys.getsizeof(task.get_coro()),
            "task": sys.getsizeof(task),
            "operation": sys.getsizeof(task._fut_waiter),
            "context": sys.getsizeof(task.get_context()),
            "channel": sys.getsizeof(ch),
        }
        await ch.send(None)
    return found


def percentiles(samples: array) -> list[int] | None:
    if not samples:
        return None
    ordered = sorted(samples)
    return [ordered[min(int(len(ordered) * p), len(ordered) - 1)] for p in (0.5, 0.9, 0.99, 0.999, 1)]


class Ticker:
    """Deadlines a millisecond apart. `tell` notes how late each one is that has passed, however late those before it were."""

    def __init__(self, ticks: int) -> None:
        self.ticks, self.late, self.deadline = ticks, array("q"), now() + TICK

    def tell(self) -> bool:
        """False: there are no more."""
        time = now()
        while self.deadline <= time and len(self.late) < self.ticks:
            self.late.append(time - self.deadline)
            self.deadline += TICK
        return len(self.late) < self.ticks

    def delay(self) -> float:
        """Seconds to the next."""
        return (self.deadline - now()) / 1e9


async def sleeping(ticks: int) -> array:
    """The ticks as a task sees them that sleeps."""
    ticker = Ticker(ticks)
    while ticker.tell():
        await asyncio.sleep(ticker.delay())
    return ticker.late


async def called(ticks: int) -> array:
    """The ticks as a callback of the loop sees them."""
    loop, ticker = asyncio.get_running_loop(), Ticker(ticks)
    over = loop.create_future()

    def tick() -> None:
        if ticker.tell():
            loop.call_later(ticker.delay(), tick)
        else:
            over.set_result(ticker.late)

    tick()
    return await over


async def latency(rival: Rival, ticks: int, chatty: bool) -> dict:
    """How late ticks of a millisecond are told, and how long a round trip takes."""
    there, back = rival.channel(), rival.channel()
    round_trips = array("q")
    stop = not chatty

    async def answer(recv: Callable, send: Callable) -> None:
        while value := await recv():
            await send(value)

    async def ask(send: Callable, recv: Callable) -> None:
        while not stop:
            sent = now()
            await send(1)
            await recv()
            round_trips.append(now() - sent)
        await send(0)

    async with rival.group() as group:
        group.spawn(answer, getattr(there, rival.recv), getattr(back, rival.send))
        group.spawn(ask, getattr(there, rival.send), getattr(back, rival.recv))
        asleep, by_call = await asyncio.gather(sleeping(ticks), called(ticks))
        stop = True
    return {"sleep": percentiles(asleep), "call": percentiles(by_call), "round_trip": percentiles(round_trips)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("measurement", choices=["ring", "crowd", "memory", "latency", "parts"])
    parser.add_argument("n", type=int, nargs="?", default=0)
    parser.add_argument("option", nargs="?", default="")
    args = parser.parse_args()
    rival = RIVALS[args.rival]
    measurement = {
        "ring": lambda: Ring(rival, args.n, int(args.option)).measure(),
        "crowd": lambda: crowd(rival, args.n, int(args.option)),
        "memory": lambda: memory(rival, args.n, args.option == "own"),
        "latency": lambda: latency(rival, args.n, args.option == "chatty"),
        "parts": parts,
    }[args.measurement]
    gc.collect()
    if hasattr(gc, "freeze"):  # not on PyPy
        gc.freeze()  # as in child.py
    print(json.dumps(asyncio.run(measurement())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
