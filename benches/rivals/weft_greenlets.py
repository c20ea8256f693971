"""weft in gevent's greenlets."""

import gevent
import weft

from benches.programs import Does, now


def produce(ch, numbers):
    for i in numbers:
        ch.send(i).wait()


def consume(ch, n):
    total = 0
    for _ in range(n):
        total += ch.recv().wait()
    return total


def pipe(run, capacity):
    ch = weft.Channel(capacity)
    tasks = [gevent.spawn(produce, ch, range(run.n)), gevent.spawn(consume, ch, run.n)]
    gevent.joinall(tasks, raise_error=True)
    return tasks[1].value


def ping_pong(run):
    there, back = weft.Channel(), weft.Channel()

    def echo():
        for _ in range(run.n):
            back.send(there.recv().wait() + 1).wait()

    task = gevent.spawn(echo)
    total, samples = 0, run.samples
    for i in range(run.n):
        sent = now()
        there.send(i).wait()
        total += back.recv().wait()
        samples.append(now() - sent)
    task.get()
    return total


PROGRAMS = {
    "pipe_0": Does("Channel()", pipe, (0,)),
    "pipe_128": Does("Channel(128)", pipe, (128,)),
    "ping_pong": Does("Channel()", ping_pong),
}
