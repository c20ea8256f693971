"""The standard library's queues between threads. Capacity 1 is the smallest; SimpleQueue has no limit at all."""

import queue
import threading

from benches.programs import Does, now


def produce(q, n):
    for i in range(n):
        q.put(i)


def pipe(run, make, *capacity):
    q = make(*capacity)
    thread = threading.Thread(target=produce, args=(q, run.n))
    thread.start()
    total = 0
    for _ in range(run.n):
        total += q.get()
    thread.join()
    return total


def ping_pong(run, make, *capacity):
    there, back = make(*capacity), make(*capacity)

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


def spawn_join(run):
    results = []

    def child(i):
        results.append(i)

    threads = [threading.Thread(target=child, args=(i,)) for i in range(run.n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results)


QUEUE = {
    "thread_pipe_0": Does("Queue(1)", pipe, (queue.Queue, 1)),
    "thread_pipe_128": Does("Queue(128)", pipe, (queue.Queue, 128)),
    "thread_ping_pong": Does("Queue(1)", ping_pong, (queue.Queue, 1)),
    "thread_spawn_join": Does("threading.Thread", spawn_join),
}
SIMPLE_QUEUE = {
    "thread_pipe_128": Does("no limit, no back-pressure", pipe, (queue.SimpleQueue,)),
    "thread_ping_pong": Does("no limit", ping_pong, (queue.SimpleQueue,)),
}
