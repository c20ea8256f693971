"""janus and culsans: a queue with a face for threads and one for asyncio. The names are the same, so is the file."""

import asyncio
import importlib
import threading

from benches.programs import Does, now


def make(library, capacity):
    return importlib.import_module(library).Queue(capacity)


async def produce(q, numbers):
    for i in numbers:
        await q.put(i)


async def consume(q, n):
    total = 0
    for _ in range(n):
        total += await q.get()
    return total


async def pipe(run, library, capacity):
    q = make(library, capacity).async_q
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce(q, range(run.n)))
        got = tasks.create_task(consume(q, run.n))
    return got.result()


async def ping_pong(run, library):
    there, back = make(library, 1).async_q, make(library, 1).async_q

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


def thread_produce(q, n):
    for i in range(n):
        q.put(i)


def thread_pipe(run, library, capacity):
    q = make(library, capacity).sync_q
    thread = threading.Thread(target=thread_produce, args=(q, run.n))
    thread.start()
    total = 0
    for _ in range(run.n):
        total += q.get()
    thread.join()
    return total


def thread_ping_pong(run, library):
    there, back = make(library, 1).sync_q, make(library, 1).sync_q

    def echo():
        for _ in range(run.n):
            back.put(there.get() + 1)

    thread = threading.Thread(target=echo)
    thread.start()
    total, samples = 0, run.samples
    for i in range(run.n):
        sent = now()
        there.put(i)
        total += back.get()
        samples.append(now() - sent)
    thread.join()
    return total


async def thread_to_loop(run, library, capacity):
    q = make(library, capacity)
    thread = threading.Thread(target=thread_produce, args=(q.sync_q, run.n))
    thread.start()
    total = await consume(q.async_q, run.n)
    thread.join()
    return total


async def thread_loop_thread(run, library):
    there, back, answer = make(library, 1), make(library, 1), make(library, 1)

    def ask():
        total, samples = 0, run.samples
        for i in range(run.n):
            sent = now()
            there.sync_q.put(i)
            total += back.sync_q.get()
            samples.append(now() - sent)
        answer.sync_q.put(total)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(run.n):
        await back.async_q.put(await there.async_q.get() + 1)
    total = await answer.async_q.get()
    thread.join()
    return total


def programs(library):
    return {
        "pipe_0": Does("async_q (1)", pipe, (library, 1), 0.2),
        "pipe_128": Does("async_q (128)", pipe, (library, 128), 0.2),
        "ping_pong": Does("async_q (1)", ping_pong, (library,), 0.2),
        "thread_pipe_0": Does("sync_q (1)", thread_pipe, (library, 1)),
        "thread_pipe_128": Does("sync_q (128)", thread_pipe, (library, 128)),
        "thread_ping_pong": Does("sync_q (1)", thread_ping_pong, (library,)),
        "thread_to_loop_0": Does("sync_q, async_q (1)", thread_to_loop, (library, 1)),
        "thread_to_loop_128": Does("sync_q, async_q (128)", thread_to_loop, (library, 128)),
        "thread_loop_thread": Does("sync_q, async_q (1)", thread_loop_thread, (library,)),
    }


JANUS, CULSANS = programs("janus"), programs("culsans")
