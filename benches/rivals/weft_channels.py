"""weft: plain asyncio tasks, processes, threads, and tasks with threads, on its public surface only."""

import asyncio
import threading

import weft

from benches.programs import PRODUCERS, RING, STRIDE, Does, now


class Tasks(asyncio.TaskGroup):
    """Plain tasks, spawned in the words of `weft.Group`."""

    def spawn(self, function, *args):
        return self.create_task(function(*args))


async def produce(ch, numbers):
    for i in numbers:
        await ch.send(i)


async def consume(ch, n):
    total = 0
    for _ in range(n):
        total += await ch.recv()
    return total


async def pipe(run, group, capacity):
    ch = weft.Channel(capacity)
    async with group() as tasks:
        tasks.spawn(produce, ch, range(run.n))
        got = tasks.spawn(consume, ch, run.n)
    return got.result()


async def ping_pong(run, group):
    there, back = weft.Channel(), weft.Channel()

    async def echo():
        for _ in range(run.n):
            await back.send(await there.recv() + 1)

    async with group() as tasks:
        tasks.spawn(echo)
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            await there.send(i)
            total += await back.recv()
            samples.append(now() - sent)
    return total


async def commstime(run, group):
    n = run.n
    a, b, c, d = (weft.Channel() for _ in range(4))

    async def prefix():
        await a.send(0)
        for _ in range(n - 1):
            await a.send(await c.recv())
        await c.recv()

    async def delta():
        for _ in range(n):
            value = await a.recv()
            await d.send(value)
            await b.send(value)

    async def successor():
        for _ in range(n):
            await c.send(await b.recv() + 1)

    async with group() as tasks:
        for process in prefix, delta, successor:
            tasks.spawn(process)
        got = tasks.spawn(consume, d, n)
    return got.result()


async def ring(run, group):
    rounds = run.n // RING
    chs = [weft.Channel() for _ in range(RING)]

    async def node(inp, out):
        for _ in range(rounds):
            await out.send(await inp.recv() + 1)

    async with group() as tasks:
        for inp, out in zip(chs, chs[1:]):
            tasks.spawn(node, inp, out)
        token = 0
        for _ in range(rounds):
            await chs[0].send(token)
            token = await chs[-1].recv() + 1
    return token


async def sieve(run, group):
    async def numbers(out):
        for i in range(2, run.n + 1):
            await out.send(i)
        await out.send(0)

    async def sift(prime, inp, out):
        while number := await inp.recv():
            if number % prime:
                await out.send(number)
        await out.send(0)

    async with group() as tasks:
        primes, ch = 0, weft.Channel()
        tasks.spawn(numbers, ch)
        while prime := await ch.recv():
            primes, inp, ch = primes + 1, ch, weft.Channel()
            tasks.spawn(sift, prime, inp, ch)
    return primes


async def fan_in(run, group):
    ch = weft.Channel()
    async with group() as tasks:
        for p in range(PRODUCERS):
            tasks.spawn(produce, ch, range(p, run.n, PRODUCERS))
        got = tasks.spawn(consume, ch, run.n)
    return got.result()


async def select_1(chs, n):
    return await consume(chs[0], n)


async def select_2(chs, n):
    total, (a, b) = 0, chs
    for _ in range(n):
        _, value = await weft.select(a.recv(), b.recv())
        total += value
    return total


async def select_4(chs, n):
    total, (a, b, c, d) = 0, chs
    for _ in range(n):
        _, value = await weft.select(a.recv(), b.recv(), c.recv(), d.recv())
        total += value
    return total


async def select_any(chs, n):
    total = 0
    for _ in range(n):
        _, value = await weft.select(*[ch.recv() for ch in chs])
        total += value
    return total


async def select_ready(run, ways, select):
    chs = [weft.Channel(run.n) for _ in range(ways)]
    for i in range(run.n):
        chs[i % ways].send_nowait(i)
    run.start()
    return await select(chs, run.n)


async def select_parked(run, ways, select):
    chs = [weft.Channel() for _ in range(ways)]
    async with asyncio.TaskGroup() as tasks:
        got = tasks.create_task(select(chs, run.n))
        await asyncio.sleep(0)
        run.start()
        for i in range(run.n):
            await chs[i % ways].send(i)
            await asyncio.sleep(0)  # the receiver takes it and parks again
    return got.result()


async def selecting(run, ways):
    chs = [weft.Channel() for _ in range(ways)]

    async def feed():
        for i in range(run.n):
            await chs[i * STRIDE % ways].send(i)
        for ch in chs:
            ch.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        total = 0
        async for _, value in weft.selecting(*chs):
            total += value
    return total


async def spawn_join(run):
    async def child(i):
        return i

    async with weft.Group() as group:
        children = [group.spawn(child, i) for i in range(run.n)]
    return sum(child.result() for child in children)


def thread_produce(ch, n):
    for i in range(n):
        ch.send(i).wait()


def thread_pipe(run, capacity):
    ch = weft.Channel(capacity)
    thread = threading.Thread(target=thread_produce, args=(ch, run.n))
    thread.start()
    total = 0
    for _ in range(run.n):
        total += ch.recv().wait()
    thread.join()
    return total


def thread_ping_pong(run):
    there, back = weft.Channel(), weft.Channel()

    def echo():
        for _ in range(run.n):
            back.send(there.recv().wait() + 1).wait()

    thread = threading.Thread(target=echo)
    thread.start()
    total, samples = 0, run.samples
    for i in range(run.n):
        sent = now()
        there.send(i).wait()
        total += back.recv().wait()
        samples.append(now() - sent)
    thread.join()
    return total


def thread_spawn_join(run):
    def child(i):
        return i

    with weft.Group() as group:
        children = [group.spawn(child, i, on="thread") for i in range(run.n)]
    return sum(child.result() for child in children)


async def thread_to_loop(run, capacity):
    ch = weft.Channel(capacity)
    thread = threading.Thread(target=thread_produce, args=(ch, run.n))
    thread.start()
    total = await consume(ch, run.n)
    thread.join()
    return total


async def thread_loop_thread(run):
    there, back, answer = weft.Channel(), weft.Channel(), weft.Channel(1)

    def ask():
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            there.send(i).wait()
            total += back.recv().wait()
            samples.append(now() - sent)
        answer.send(total).wait()

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(run.n):
        await back.send(await there.recv() + 1)
    total = await answer.recv()
    thread.join()
    return total


PROGRAMS = {
    "pipe_0": Does("Channel()", pipe, (Tasks, 0)),
    "pipe_128": Does("Channel(128)", pipe, (Tasks, 128)),
    "ping_pong": Does("Channel()", ping_pong, (Tasks,)),
    "commstime": Does("Channel()", commstime, (Tasks,)),
    "ring": Does("Channel()", ring, (Tasks,)),
    "sieve": Does("Channel()", sieve, (Tasks,)),
    "fan_in": Does("Channel()", fan_in, (Tasks,)),
    "recv_ready": Does("recv", select_ready, (1, select_1)),
    "select2_ready": Does("select", select_ready, (2, select_2)),
    "select4_ready": Does("select", select_ready, (4, select_4)),
    "select100_ready": Does("select", select_ready, (100, select_any)),
    "recv_parked": Does("recv", select_parked, (1, select_1)),
    "select2_parked": Does("select", select_parked, (2, select_2)),
    "select4_parked": Does("select", select_parked, (4, select_4)),
    "select100_parked": Does("select", select_parked, (100, select_any)),
    "selecting_10": Does("selecting", selecting, (10,)),
    "selecting_1000": Does("selecting", selecting, (1000,)),
    "spawn_join": Does("Group.spawn", spawn_join),
    "thread_pipe_0": Does("Channel(), wait()", thread_pipe, (0,)),
    "thread_pipe_128": Does("Channel(128), wait()", thread_pipe, (128,)),
    "thread_ping_pong": Does("Channel(), wait()", thread_ping_pong),
    "thread_spawn_join": Does('Group.spawn(on="thread")', thread_spawn_join),
    "thread_to_loop_0": Does("Channel()", thread_to_loop, (0,)),
    "thread_to_loop_128": Does("Channel(128)", thread_to_loop, (128,)),
    "thread_loop_thread": Does("Channel()", thread_loop_thread),
}

# The same in a group, whose processes weft steps itself.
PROCESSES = {
    "pipe_0": Does("Group, Channel()", pipe, (weft.Group, 0)),
    "pipe_128": Does("Group, Channel(128)", pipe, (weft.Group, 128)),
    "ping_pong": Does("Group, Channel()", ping_pong, (weft.Group,)),
    "commstime": Does("Group, Channel()", commstime, (weft.Group,)),
    "ring": Does("Group, Channel()", ring, (weft.Group,)),
    "sieve": Does("Group, Channel()", sieve, (weft.Group,)),
    "fan_in": Does("Group, Channel()", fan_in, (weft.Group,)),
}
