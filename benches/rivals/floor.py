"""The floor: what the interpreter itself takes, without any channel. No figure can be below its floor."""

import itertools
import threading

from benches.programs import Does, now


async def bare_await(run):
    async def child(i):
        return i

    total = 0
    for i in range(run.n):
        total += await child(i)
    return total


def bare_step(run):
    """What any scheduler must do per step at the least: resume a suspended coroutine, which suspends again."""

    class Suspend:
        def __await__(self):
            return (yield)

    async def child():
        total, suspend = 0, Suspend()
        for _ in range(run.n):
            total += await suspend
        return total

    coroutine = child()
    send = coroutine.send
    send(None)
    try:
        for i in range(run.n):
            send(i)
    except StopIteration as end:
        return end.value


def bare_send(run):
    """The same without a loop in bytecode: C code resumes a coroutine that waits for an object of C, which suspends it again."""

    class Wait:
        def __await__(self):
            return itertools.repeat(1, run.n)

    async def child():
        await Wait()

    return sum(child().__await__())


def clock(run):
    samples = []
    for _ in range(run.n):
        sent = now()
        samples.append(now() - sent)
    return len(samples)


def two_locks(run):
    """Two locks handed between two threads; the value goes through a shared variable."""
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()
    value = 0

    def echo():
        nonlocal value
        for _ in range(run.n):
            there.acquire()
            value += 1
            back.release()

    thread = threading.Thread(target=echo)
    thread.start()
    total, samples = 0, run.samples
    for i in range(run.n):
        sent = now()
        value = i
        there.release()
        back.acquire()
        total += value
        samples.append(now() - sent)
    thread.join()
    return total


PROGRAMS = {
    "floor_await": Does("await child(i)", bare_await),
    "floor_step": Does("coroutine.send", bare_step),
    "floor_send": Does("sum(coroutine.__await__())", bare_send),
    "floor_clock": Does("two clocks and an append", clock),
    "thread_ping_pong": Does("two threading.Lock handed: floor", two_locks),
}
