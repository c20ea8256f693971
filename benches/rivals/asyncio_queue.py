"""asyncio.Queue: capacity 1 is the smallest there is, so a rendezvous is not quite asked of it."""

import asyncio
import queue
import threading

from benches.programs import PRODUCERS, RING, STRIDE, Does, now


async def produce(q, numbers):
    for i in numbers:
        await q.put(i)


async def consume(q, n):
    total = 0
    for _ in range(n):
        total += await q.get()
    return total


async def pipe(run, capacity):
    q = asyncio.Queue(capacity)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce(q, range(run.n)))
        got = tasks.create_task(consume(q, run.n))
    return got.result()


async def ping_pong(run):
    there, back = asyncio.Queue(1), asyncio.Queue(1)

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
    a, b, c, d = (asyncio.Queue(1) for _ in range(4))

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
    qs = [asyncio.Queue(1) for _ in range(RING)]

    async def node(inp, out):
        for _ in range(rounds):
            await out.put(await inp.get() + 1)

    async with asyncio.TaskGroup() as tasks:
        for inp, out in zip(qs, qs[1:]):
            tasks.create_task(node(inp, out))
        token = 0
        for _ in range(rounds):
            await qs[0].put(token)
            token = await qs[-1].get() + 1
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
        primes, q = 0, asyncio.Queue(1)
        tasks.create_task(numbers(q))
        while prime := await q.get():
            primes, inp, q = primes + 1, q, asyncio.Queue(1)
            tasks.create_task(sift(prime, inp, q))
    return primes


async def fan_in(run):
    q = asyncio.Queue(1)
    async with asyncio.TaskGroup() as tasks:
        for p in range(PRODUCERS):
            tasks.create_task(produce(q, range(p, run.n, PRODUCERS)))
        got = tasks.create_task(consume(q, run.n))
    return got.result()


async def select_1(qs, n):
    return await consume(qs[0], n)


async def select_any(qs, n):
    """The idiom that loses nothing: get() tasks are kept, never cancelled. It takes ahead, one value per queue."""
    total = received = 0
    waiting = {asyncio.create_task(q.get()): q for q in qs}
    while received < n:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            total, received = total + task.result(), received + 1
            q = waiting.pop(task)
            waiting[asyncio.create_task(q.get())] = q
    for task in waiting:
        task.cancel()
    return total


async def select_ready(run, ways, select):
    qs = [asyncio.Queue(run.n) for _ in range(ways)]
    for i in range(run.n):
        qs[i % ways].put_nowait(i)
    run.start()
    return await select(qs, run.n)


async def select_parked(run, ways, select):
    qs = [asyncio.Queue(1) for _ in range(ways)]
    async with asyncio.TaskGroup() as tasks:
        got = tasks.create_task(select(qs, run.n))
        await asyncio.sleep(0)
        run.start()
        for i in range(run.n):
            await qs[i % ways].put(i)
            await asyncio.sleep(0)
    return got.result()


async def selecting(run, ways):
    qs = [asyncio.Queue(1) for _ in range(ways)]

    async def feed():
        for i in range(run.n):
            await qs[i * STRIDE % ways].put(i)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        return await select_any(qs, run.n)


async def spawn_join(run):
    async def child(i):
        return i

    async with asyncio.TaskGroup() as tasks:
        children = [tasks.create_task(child(i)) for i in range(run.n)]
    return sum(child.result() for child in children)


async def thread_to_loop_and_wait(run):
    q, loop = asyncio.Queue(1), asyncio.get_running_loop()

    def produce():
        for i in range(run.n):
            asyncio.run_coroutine_threadsafe(q.put(i), loop).result()

    thread = threading.Thread(target=produce)
    thread.start()
    total = await consume(q, run.n)
    while thread.is_alive():  # the last result is on its way to it through this loop
        await asyncio.sleep(0)
    return total


async def thread_to_loop(run):
    q, loop = asyncio.Queue(), asyncio.get_running_loop()

    def produce():
        for i in range(run.n):
            loop.call_soon_threadsafe(q.put_nowait, i)

    thread = threading.Thread(target=produce)
    thread.start()
    total = await consume(q, run.n)
    thread.join()
    return total


async def thread_loop_thread(run):
    there, back, loop = asyncio.Queue(), queue.SimpleQueue(), asyncio.get_running_loop()
    answer = loop.create_future()

    def ask():
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            loop.call_soon_threadsafe(there.put_nowait, i)
            total += back.get()
            samples.append(now() - sent)
        loop.call_soon_threadsafe(answer.set_result, total)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(run.n):
        back.put(await there.get() + 1)
    total = await answer
    thread.join()
    return total


async def turns(run):
    for _ in range(run.n):
        await asyncio.sleep(0)
    return run.n * (run.n - 1) // 2


KEPT = "kept get() tasks, asyncio.wait"

PROGRAMS = {
    "pipe_0": Does("Queue(1)", pipe, (1,)),
    "pipe_128": Does("Queue(128)", pipe, (128,)),
    "ping_pong": Does("Queue(1)", ping_pong),
    "commstime": Does("Queue(1)", commstime),
    "ring": Does("Queue(1)", ring),
    "sieve": Does("Queue(1)", sieve),
    "fan_in": Does("Queue(1)", fan_in),
    "recv_ready": Does("get", select_ready, (1, select_1)),
    "select2_ready": Does(KEPT, select_ready, (2, select_any), 0.2),
    "select4_ready": Does(KEPT, select_ready, (4, select_any), 0.2),
    "select100_ready": Does(KEPT, select_ready, (100, select_any)),
    "recv_parked": Does("get", select_parked, (1, select_1)),
    "select2_parked": Does(KEPT, select_parked, (2, select_any), 0.2),
    "select4_parked": Does(KEPT, select_parked, (4, select_any), 0.2),
    "select100_parked": Does(KEPT, select_parked, (100, select_any), 0.2),
    "selecting_10": Does(KEPT, selecting, (10,), 0.2),
    "selecting_1000": Does(KEPT, selecting, (1000,), 0.2),
    "spawn_join": Does("TaskGroup", spawn_join),
    "thread_to_loop_0": Does("run_coroutine_threadsafe(put), Queue(1)", thread_to_loop_and_wait, (), 0.2),
    "thread_to_loop_128": Does("call_soon_threadsafe(put_nowait), no limit", thread_to_loop),
    "thread_loop_thread": Does("call_soon_threadsafe, SimpleQueue back", thread_loop_thread),
    "floor_switch": Does("asyncio.sleep(0)", turns),
}
