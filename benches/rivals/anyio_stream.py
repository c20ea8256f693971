"""anyio's memory object streams on its asyncio backend. No select; the idiom is a forwarding task per stream."""

import anyio
import anyio.from_thread
import anyio.to_thread

from benches.programs import PRODUCERS, RING, STRIDE, Does, now


async def produce(tx, numbers):
    for i in numbers:
        await tx.send(i)


async def consume(rx, n):
    total = 0
    for _ in range(n):
        total += await rx.receive()
    return total


async def pipe(run, capacity):
    tx, rx = anyio.create_memory_object_stream(capacity)
    async with anyio.create_task_group() as tasks, tx, rx:
        tasks.start_soon(produce, tx, range(run.n))
        return await consume(rx, run.n)


async def ping_pong(run):
    there_tx, there_rx = anyio.create_memory_object_stream(0)
    back_tx, back_rx = anyio.create_memory_object_stream(0)

    async def echo():
        for _ in range(run.n):
            await back_tx.send(await there_rx.receive() + 1)

    async with anyio.create_task_group() as tasks, there_tx, there_rx, back_tx, back_rx:
        tasks.start_soon(echo)
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            await there_tx.send(i)
            total += await back_rx.receive()
            samples.append(now() - sent)
        return total


async def commstime(run):
    n = run.n
    (a_tx, a_rx), (b_tx, b_rx), (c_tx, c_rx), (d_tx, d_rx) = (anyio.create_memory_object_stream(0) for _ in range(4))

    async def prefix():
        await a_tx.send(0)
        for _ in range(n - 1):
            await a_tx.send(await c_rx.receive())
        await c_rx.receive()

    async def delta():
        for _ in range(n):
            value = await a_rx.receive()
            await d_tx.send(value)
            await b_tx.send(value)

    async def successor():
        for _ in range(n):
            await c_tx.send(await b_rx.receive() + 1)

    async with anyio.create_task_group() as tasks:
        for process in prefix, delta, successor:
            tasks.start_soon(process)
        total = await consume(d_rx, n)
    for stream in a_tx, a_rx, b_tx, b_rx, c_tx, c_rx, d_tx, d_rx:
        stream.close()
    return total


async def ring(run):
    rounds = run.n // RING
    streams = [anyio.create_memory_object_stream(0) for _ in range(RING)]

    async def node(rx, tx):
        for _ in range(rounds):
            await tx.send(await rx.receive() + 1)

    async with anyio.create_task_group() as tasks:
        for (_, rx), (tx, _) in zip(streams, streams[1:]):
            tasks.start_soon(node, rx, tx)
        token = 0
        for _ in range(rounds):
            await streams[0][0].send(token)
            token = await streams[-1][1].receive() + 1
    close(streams)
    return token


async def sieve(run):
    async def numbers(tx):
        with tx:
            for i in range(2, run.n + 1):
                await tx.send(i)
            await tx.send(0)

    async def sift(prime, rx, tx):
        with rx, tx:
            while number := await rx.receive():
                if number % prime:
                    await tx.send(number)
            await tx.send(0)

    async with anyio.create_task_group() as tasks:
        primes, (tx, rx) = 0, anyio.create_memory_object_stream(0)
        tasks.start_soon(numbers, tx)
        while prime := await rx.receive():
            primes, inp, (tx, rx) = primes + 1, rx, anyio.create_memory_object_stream(0)
            tasks.start_soon(sift, prime, inp, tx)
        rx.close()
    return primes


async def fan_in(run):
    tx, rx = anyio.create_memory_object_stream(0)
    async with anyio.create_task_group() as tasks, tx, rx:
        for p in range(PRODUCERS):
            tasks.start_soon(produce, tx, range(p, run.n, PRODUCERS))
        return await consume(rx, run.n)


async def select_1(rxs, n):
    return await consume(rxs[0], n)


async def select_any(rxs, n):
    """The usual idiom: a task per stream forwards into one. It takes ahead, one value per stream."""
    out_tx, out_rx = anyio.create_memory_object_stream(0)

    async def forward(case, rx):
        while True:
            await out_tx.send((case, await rx.receive()))

    async with anyio.create_task_group() as tasks, out_tx, out_rx:
        for case, rx in enumerate(rxs):
            tasks.start_soon(forward, case, rx)
        total = 0
        for _ in range(n):
            _, value = await out_rx.receive()
            total += value
        tasks.cancel_scope.cancel()
    return total


async def select_ready(run, ways, select):
    streams = [anyio.create_memory_object_stream(run.n) for _ in range(ways)]
    for i in range(run.n):
        streams[i % ways][0].send_nowait(i)
    run.start()
    total = await select([rx for _, rx in streams], run.n)
    close(streams)
    return total


async def feed(streams, order, pause):
    for i, case in enumerate(order):
        await streams[case][0].send(i)
        if pause:
            await anyio.lowlevel.checkpoint()


async def select_parked(run, ways, select):
    streams = [anyio.create_memory_object_stream(0) for _ in range(ways)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed, streams, (i % ways for i in range(run.n)), True)
        total = await select([rx for _, rx in streams], run.n)
    close(streams)
    return total


async def selecting(run, ways):
    streams = [anyio.create_memory_object_stream(0) for _ in range(ways)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed, streams, (i * STRIDE % ways for i in range(run.n)), False)
        total = await select_any([rx for _, rx in streams], run.n)
    close(streams)
    return total


async def spawn_join(run):
    total = 0

    async def child(i):
        nonlocal total
        total += i

    async with anyio.create_task_group() as tasks:
        for i in range(run.n):
            tasks.start_soon(child, i)
    return total


async def thread_to_loop(run, capacity):
    tx, rx = anyio.create_memory_object_stream(capacity)

    def produce_in_thread():
        for i in range(run.n):
            anyio.from_thread.run(tx.send, i)

    async with anyio.create_task_group() as tasks, tx, rx:
        tasks.start_soon(anyio.to_thread.run_sync, produce_in_thread)
        return await consume(rx, run.n)


async def thread_loop_thread(run):
    there_tx, there_rx = anyio.create_memory_object_stream(0)
    back_tx, back_rx = anyio.create_memory_object_stream(0)

    async def echo():
        for _ in range(run.n):
            await back_tx.send(await there_rx.receive() + 1)

    def ask():
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            anyio.from_thread.run(there_tx.send, i)
            total += anyio.from_thread.run(back_rx.receive)
            samples.append(now() - sent)
        return total

    async with anyio.create_task_group() as tasks, there_tx, there_rx, back_tx, back_rx:
        tasks.start_soon(echo)
        return await anyio.to_thread.run_sync(ask)


async def turns(run):
    for _ in range(run.n):
        await anyio.lowlevel.checkpoint()
    return run.n * (run.n - 1) // 2


def close(streams):
    for tx, rx in streams:
        tx.close()
        rx.close()


FORWARD = "forwarding tasks, no select"

PROGRAMS = {
    "pipe_0": Does("memory stream (0)", pipe, (0,)),
    "pipe_128": Does("memory stream (128)", pipe, (128,)),
    "ping_pong": Does("memory stream (0)", ping_pong),
    "commstime": Does("memory stream (0)", commstime),
    "ring": Does("memory stream (0)", ring),
    "sieve": Does("memory stream (0)", sieve, (), 0.25),
    "fan_in": Does("memory stream (0)", fan_in),
    "recv_ready": Does("receive", select_ready, (1, select_1)),
    "select2_ready": Does(FORWARD, select_ready, (2, select_any), 0.2),
    "select4_ready": Does(FORWARD, select_ready, (4, select_any), 0.2),
    "select100_ready": Does(FORWARD, select_ready, (100, select_any)),
    "recv_parked": Does("receive", select_parked, (1, select_1)),
    "select2_parked": Does(FORWARD, select_parked, (2, select_any), 0.2),
    "select4_parked": Does(FORWARD, select_parked, (4, select_any), 0.2),
    "select100_parked": Does(FORWARD, select_parked, (100, select_any)),
    "selecting_10": Does(FORWARD, selecting, (10,), 0.2),
    "selecting_1000": Does(FORWARD, selecting, (1000,), 0.2),
    "spawn_join": Does("task group", spawn_join),
    "thread_to_loop_0": Does("from_thread.run(send), stream (0)", thread_to_loop, (0,), 0.2),
    "thread_to_loop_128": Does("from_thread.run(send), stream (128)", thread_to_loop, (128,), 0.2),
    "thread_loop_thread": Does("from_thread.run(send), (receive)", thread_loop_thread, (), 0.5),
    "floor_switch": Does("lowlevel.checkpoint", turns),
}
