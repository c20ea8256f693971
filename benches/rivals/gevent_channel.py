"""gevent: greenlets, its Channel (a rendezvous) and its Queue. No select on them; the idiom is forwarding."""

import gevent
from gevent.queue import Channel, Queue

from benches.programs import PRODUCERS, RING, STRIDE, Does, now


def make(capacity=0):
    return Queue(capacity) if capacity else Channel()


def produce(ch, numbers):
    for i in numbers:
        ch.put(i)


def consume(ch, n):
    total = 0
    for _ in range(n):
        total += ch.get()
    return total


def pipe(run, capacity):
    ch = make(capacity)
    tasks = [gevent.spawn(produce, ch, range(run.n)), gevent.spawn(consume, ch, run.n)]
    gevent.joinall(tasks, raise_error=True)
    return tasks[1].value


def ping_pong(run):
    there, back = Channel(), Channel()

    def echo():
        for _ in range(run.n):
            back.put(there.get() + 1)

    task = gevent.spawn(echo)
    total, samples = 0, run.samples
    for i in range(run.n):
        sent = now()
        there.put(i)
        total += back.get()
        samples.append(now() - sent)
    task.get()
    return total


def commstime(run):
    n = run.n
    a, b, c, d = (Channel() for _ in range(4))

    def prefix():
        a.put(0)
        for _ in range(n - 1):
            a.put(c.get())
        c.get()

    def delta():
        for _ in range(n):
            value = a.get()
            d.put(value)
            b.put(value)

    def successor():
        for _ in range(n):
            c.put(b.get() + 1)

    tasks = [gevent.spawn(process) for process in (prefix, delta, successor)]
    got = gevent.spawn(consume, d, n)
    gevent.joinall([*tasks, got], raise_error=True)
    return got.value


def ring(run):
    rounds = run.n // RING
    chs = [Channel() for _ in range(RING)]

    def node(inp, out):
        for _ in range(rounds):
            out.put(inp.get() + 1)

    tasks = [gevent.spawn(node, inp, out) for inp, out in zip(chs, chs[1:])]
    token = 0
    for _ in range(rounds):
        chs[0].put(token)
        token = chs[-1].get() + 1
    gevent.joinall(tasks, raise_error=True)
    return token


def sieve(run):
    def numbers(out):
        for i in range(2, run.n + 1):
            out.put(i)
        out.put(0)

    def sift(prime, inp, out):
        while number := inp.get():
            if number % prime:
                out.put(number)
        out.put(0)

    primes, ch = 0, Channel()
    tasks = [gevent.spawn(numbers, ch)]
    while prime := ch.get():
        primes, inp, ch = primes + 1, ch, Channel()
        tasks.append(gevent.spawn(sift, prime, inp, ch))
    gevent.joinall(tasks, raise_error=True)
    return primes


def fan_in(run):
    ch = Channel()
    tasks = [gevent.spawn(produce, ch, range(p, run.n, PRODUCERS)) for p in range(PRODUCERS)]
    got = gevent.spawn(consume, ch, run.n)
    gevent.joinall([*tasks, got], raise_error=True)
    return got.value


def select_1(chs, n):
    return consume(chs[0], n)


def select_any(chs, n):
    """The usual idiom: a greenlet per channel forwards into one. It takes ahead, one value per channel."""
    out = Channel()

    def forward(case, ch):
        while True:
            out.put((case, ch.get()))

    tasks = [gevent.spawn(forward, case, ch) for case, ch in enumerate(chs)]
    total = 0
    for _ in range(n):
        _, value = out.get()
        total += value
    gevent.killall(tasks)
    return total


def select_ready(run, ways, select):
    chs = [Queue(run.n) for _ in range(ways)]
    for i in range(run.n):
        chs[i % ways].put_nowait(i)
    run.start()
    return select(chs, run.n)


def select_parked(run, ways, select):
    chs = [Channel() for _ in range(ways)]
    got = gevent.spawn(select, chs, run.n)
    gevent.sleep(0)
    run.start()
    for i in range(run.n):
        chs[i % ways].put(i)
        gevent.sleep(0)
    return got.get()


def selecting(run, ways):
    chs = [Channel() for _ in range(ways)]

    def feed():
        for i in range(run.n):
            chs[i * STRIDE % ways].put(i)

    task = gevent.spawn(feed)
    total = select_any(chs, run.n)
    task.get()
    return total


def spawn_join(run):
    def child(i):
        return i

    children = [gevent.spawn(child, i) for i in range(run.n)]
    gevent.joinall(children, raise_error=True)
    return sum(child.value for child in children)


def turns(run):
    for _ in range(run.n):
        gevent.sleep(0)
    return run.n * (run.n - 1) // 2


FORWARD = "forwarding greenlets, no select"

PROGRAMS = {
    "pipe_0": Does("Channel()", pipe, (0,)),
    "pipe_128": Does("Queue(128)", pipe, (128,)),
    "ping_pong": Does("Channel()", ping_pong),
    "commstime": Does("Channel()", commstime),
    "ring": Does("Channel()", ring),
    "sieve": Does("Channel()", sieve, (), 0.5),
    "fan_in": Does("Channel()", fan_in),
    "recv_ready": Does("get", select_ready, (1, select_1)),
    "select2_ready": Does(FORWARD, select_ready, (2, select_any), 0.2),
    "select4_ready": Does(FORWARD, select_ready, (4, select_any), 0.2),
    "select100_ready": Does(FORWARD, select_ready, (100, select_any)),
    "recv_parked": Does("get", select_parked, (1, select_1)),
    "select2_parked": Does(FORWARD, select_parked, (2, select_any), 0.2),
    "select4_parked": Does(FORWARD, select_parked, (4, select_any), 0.2),
    "select100_parked": Does(FORWARD, select_parked, (100, select_any)),
    "selecting_10": Does(FORWARD, selecting, (10,), 0.2),
    "selecting_1000": Does(FORWARD, selecting, (1000,), 0.2),
    "spawn_join": Does("spawn, joinall", spawn_join),
    "floor_switch": Does("gevent.sleep(0)", turns),
}
