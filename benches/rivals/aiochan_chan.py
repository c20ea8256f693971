"""aiochan, the CSP library for asyncio of 2018-2020. It has a real select; it is not made for threads."""

import asyncio

import aiochan

from benches.programs import PRODUCERS, RING, STRIDE, Does, now


async def produce(ch, numbers):
    for i in numbers:
        await ch.put(i)


async def consume(ch, n):
    total = 0
    for _ in range(n):
        total += await ch.get()
    return total


def channel(capacity=0):
    return aiochan.Chan(capacity or None)


async def pipe(run, capacity):
    ch = channel(capacity)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce(ch, range(run.n)))
        got = tasks.create_task(consume(ch, run.n))
    return got.result()


async def ping_pong(run):
    there, back = channel(), channel()

    async def echo():
        for _ in range(run.n):
            await back.put(await there.get() + 1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(echo())
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            await there.put(i)
            total += await back.get()
            samples.append(now() - sent)
    return total


async def commstime(run):
    n = run.n
    a, b, c, d = (channel() for _ in range(4))

    async def prefix():
        await a.put(0)
        for _ in range(n - 1):
            await a.put(await c.get())
        await c.get()

    async def delta():
        for _ in range(n):
            value = await a.get()
            await d.put(value)
            await b.put(value)

    async def successor():
        for _ in range(n):
            await c.put(await b.get() + 1)

    async with asyncio.TaskGroup() as tasks:
        for process in prefix, delta, successor:
            tasks.create_task(process())
        got = tasks.create_task(consume(d, n))
    return got.result()


async def ring(run):
    rounds = run.n // RING
    chs = [channel() for _ in range(RING)]

    async def node(inp, out):
        for _ in range(rounds):
            await out.put(await inp.get() + 1)

    async with asyncio.TaskGroup() as tasks:
        for inp, out in zip(chs, chs[1:]):
            tasks.create_task(node(inp, out))
        token = 0
        for _ in range(rounds):
            await chs[0].put(token)
            token = await chs[-1].get() + 1
    return token


async def sieve(run):
    async def numbers(out):
        for i in range(2, run.n + 1):
            await out.put(i)
        await out.put(0)

    async def sift(prime, inp, out):
        while number := await inp.get():
            if number % prime:
                await out.put(number)
        await out.put(0)

    async with asyncio.TaskGroup() as tasks:
        primes, ch = 0, channel()
        tasks.create_task(numbers(ch))
        while prime := await ch.get():
            primes, inp, ch = primes + 1, ch, channel()
            tasks.create_task(sift(prime, inp, ch))
    return primes


async def fan_in(run):
    ch = channel()
    async with asyncio.TaskGroup() as tasks:
        for p in range(PRODUCERS):
            tasks.create_task(produce(ch, range(p, run.n, PRODUCERS)))
        got = tasks.create_task(consume(ch, run.n))
    return got.result()


async def select_1(chs, n):
    return await consume(chs[0], n)


async def select_any(chs, n):
    total = 0
    for _ in range(n):
        value, _ = await aiochan.select(*chs)
        total += value
    return total


async def select_ready(run, ways, select):
    chs = [channel(run.n) for _ in range(ways)]
    for i in range(run.n):
        await chs[i % ways].put(i)
    run.start()
    return await select(chs, run.n)


async def select_parked(run, ways, select):
    chs = [channel() for _ in range(ways)]
    async with asyncio.TaskGroup() as tasks:
        got = tasks.create_task(select(chs, run.n))
        await asyncio.sleep(0)
        run.start()
        for i in range(run.n):
            await chs[i % ways].put(i)
            await asyncio.sleep(0)
    return got.result()


async def selecting(run, ways):
    chs = [channel() for _ in range(ways)]

    async def feed():
        for i in range(run.n):
            await chs[i * STRIDE % ways].put(i)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        return await select_any(chs, run.n)


PROGRAMS = {
    "pipe_0": Does("Chan()", pipe, (0,)),
    "pipe_128": Does("Chan(128)", pipe, (128,)),
    "ping_pong": Does("Chan()", ping_pong),
    "commstime": Does("Chan()", commstime),
    "ring": Does("Chan()", ring),
    "sieve": Does("Chan()", sieve, (), 0.2),
    "fan_in": Does("Chan()", fan_in),
    "recv_ready": Does("get", select_ready, (1, select_1)),
    "select2_ready": Does("select", select_ready, (2, select_any), 0.2),
    "select4_ready": Does("select", select_ready, (4, select_any), 0.2),
    "select100_ready": Does("select", select_ready, (100, select_any), 0.2),
    "recv_parked": Does("get", select_parked, (1, select_1)),
    "select2_parked": Does("select", select_parked, (2, select_any), 0.2),
    "select4_parked": Does("select", select_parked, (4, select_any), 0.2),
    "select100_parked": Does("select", select_parked, (100, select_any), 0.2),
    "selecting_10": Does("select in a loop", selecting, (10,), 0.2),
    "selecting_1000": Does("select in a loop", selecting, (1000,), 0.005),
}
