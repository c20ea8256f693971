"""trio: its memory channels, and weft's channels in its tasks. A thread reaches trio's by `trio.from_thread`."""

import threading

import trio
import weft

from benches.programs import Does, now


async def produce(send, numbers):
    for i in numbers:
        await send(i)


async def consume(receive, n):
    total = 0
    for _ in range(n):
        total += await receive()
    return total


def memory(capacity):
    tx, rx = trio.open_memory_channel(capacity)
    return tx.send, rx.receive


def channel(capacity):
    ch = weft.Channel(capacity)
    return ch.send, ch.recv


def pipe(run, capacity, make):
    async def main():
        send, receive = make(capacity)
        run.start()
        async with trio.open_nursery() as tasks:
            tasks.start_soon(produce, send, range(run.n))
            return await consume(receive, run.n)

    return trio.run(main)


def ping_pong(run, make):
    async def main():
        (send, receive), (reply, answer) = make(0), make(0)

        async def echo():
            for _ in range(run.n):
                await reply(await receive() + 1)

        async with trio.open_nursery() as tasks:
            tasks.start_soon(echo)
            total, samples = 0, run.samples
            for i in range(run.n):
                sent = now()
                await send(i)
                total += await answer()
                samples.append(now() - sent)
            return total

    return trio.run(main)


def thread_loop_thread(run):
    there, back = weft.Channel(), weft.Channel()
    answers = []

    def ask():
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            there.send(i).wait()
            total += back.recv().wait()
            samples.append(now() - sent)
        answers.append(total)

    async def main():
        thread = threading.Thread(target=ask)
        thread.start()
        for _ in range(run.n):
            await back.send(await there.recv() + 1)
        await trio.to_thread.run_sync(thread.join)

    trio.run(main)
    return answers[0]


def from_thread(run):
    async def add(i):
        return i + 1

    def ask():
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            total += trio.from_thread.run(add, i)
            samples.append(now() - sent)
        return total

    async def main():
        return await trio.to_thread.run_sync(ask)

    return trio.run(main)


TRIO = {
    "pipe_0": Does("memory channel(0)", pipe, (0, memory)),
    "pipe_128": Does("memory channel(128)", pipe, (128, memory)),
    "ping_pong": Does("memory channel(0)", ping_pong, (memory,)),
    "thread_loop_thread": Does("trio.from_thread.run", from_thread),
}
WEFT = {
    "pipe_0": Does("Channel()", pipe, (0, channel)),
    "pipe_128": Does("Channel(128)", pipe, (128, channel)),
    "ping_pong": Does("Channel()", ping_pong, (channel,)),
    "thread_loop_thread": Does("Channel()", thread_loop_thread),
}
