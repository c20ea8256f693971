"""What the tests have run in other places. A place finds all this by its import path, so it needs nothing but weft and
asyncio.

A party is a script, as in `worlds.py`: a generator that yields operations. `in_thread` performs one by blocking its
thread, `in_task` as a task of asyncio's. What is raised in it is told as a value, so that it fails nobody but the test;
only a cancellation ends a process as such.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
import time

import weft

CANCELLED = (asyncio.CancelledError, weft.Cancelled)


def in_thread(script, *args):
    running = script(*args)
    step, given = running.send, None
    try:
        while True:
            op = step(given)
            try:
                step, given = running.send, op.wait()
            except BaseException as error:
                step, given = running.throw, error
            del op
    except StopIteration as end:
        return True, end.value
    except CANCELLED:
        raise
    except BaseException as error:
        return False, error


async def in_task(script, *args):
    running = script(*args)
    step, given = running.send, None
    try:
        while True:
            op = step(given)
            try:
                step, given = running.send, await op
            except BaseException as error:
                step, given = running.throw, error
            del op
    except StopIteration as end:
        return True, end.value
    except CANCELLED:
        raise
    except BaseException as error:
        return False, error


# --- scripts --------------------------------------------------------------------------------------------------------


def sending(ch, *values):
    for value in values:
        yield ch.send(value)


def sending_many(ch, values):
    return (yield ch.send_many(values))


def receiving(ch, count):
    got = []
    for _ in range(count):
        got.append((yield ch.recv()))
    return got


def receiving_many(ch, most):
    return (yield ch.recv_many(most))


def draining(ch):
    got = []
    try:
        while True:
            got.append((yield ch.recv()))
    except weft.Closed:
        return got


def answering(ch, back):
    for _ in range(10**9):
        try:
            value = yield ch.recv()
        except weft.Closed:
            return
        yield back.send(value)


def choosing(policy, *cases):
    """A select over ("recv", ch) and ("send", ch, value); its case and value."""
    ops = [case[1].recv() if case[0] == "recv" else case[1].send(case[2]) for case in cases]
    case, value = yield weft.select(*ops, policy=policy)
    return case, value


def choosing_often(count, policy, *cases):
    chosen = []
    for _ in range(count):
        chosen.append((yield from choosing(policy, *cases)))
    return chosen


def facing(count, a, b, first):
    """Selects that send on one channel and receive from the other; what it sent and what it got."""
    sent, got = [], []
    give, take = (a, b) if first else (b, a)
    for number in range(count):
        case, value = yield weft.select(give.send(number), take.recv())
        if case == 0:
            sent.append(number)
        else:
            got.append(value)
    return sent, got


def swapping(ch, mine, count):
    """Sends and receives on one channel, whichever comes; it never meets itself."""
    sent, got = [], []
    for number in range(count):
        case, value = yield weft.select(ch.send((mine, number)), ch.recv())
        if case == 0:
            sent.append((mine, number))
        else:
            got.append(value)
    return sent, got


def registered(channels, count):
    """The first events of `selecting` over channels."""
    events = []
    watching = weft.selecting(**channels)
    for _ in range(count):
        events.append(tuple((yield anext(watching))))
    return events


def closing(ch, error):
    ch.close(error)
    return
    yield


def poisoning(ch, error):
    ch.poison(error)
    return
    yield


def closing_with_raised(ch, text):
    try:
        _somewhere_deep(text)
    except ValueError as error:
        ch.close(error)
    return
    yield


def _somewhere_deep(text):
    raise ValueError(text)


def storm_of_sends(ch, first, count, seed):
    """Sends with little patience. What it gave, also when it is cancelled."""
    patience = random.Random(seed)
    gave = []
    try:
        for value in range(first, first + count):
            if patience.random() < 0.5:
                yield ch.send(value)
                gave.append(value)
            else:
                case, _ = yield weft.select(ch.send(value), weft.after(patience.random() / 2000))
                if case == 0:
                    gave.append(value)
    except (*CANCELLED, weft.Closed):
        pass
    except BaseException as error:
        if not _ends_a_task(error):
            raise
    return gave


def storm_of_receives(ch, seed):
    patience = random.Random(seed)
    took = []
    try:
        while True:
            if patience.random() < 0.5:
                took.append((yield ch.recv()))
            else:
                case, value = yield weft.select(weft.after(patience.random() / 2000), ch.recv())
                if case == 1:
                    took.append(value)
    except (*CANCELLED, weft.Closed):
        pass
    except BaseException as error:
        if not _ends_a_task(error):
            raise
    return took


def _ends_a_task(error):
    """Trio's and gevent's cancellation, which other places have never heard of."""
    return type(error).__name__ in ("Cancelled", "GreenletExit")


def never():
    yield weft.never()


def napping(seconds):
    yield weft.after(seconds)


def passing_ends(ch, end):
    """Sends an end on, and has none any more."""
    yield ch.send(end)
    end.close()


# --- functions for `spawn` ------------------------------------------------------------------------------------------


def double(n):
    return 2 * n


async def double_soon(n):
    await asyncio.sleep(0)
    return 2 * n


def boom(text):
    raise LookupError(text)


async def boom_soon(text):
    raise LookupError(text)


def exits():
    raise SystemExit(3)


def stops():
    raise StopIteration("value")


def returns_unfit():
    return sys._getframe()


def park(started=None):
    if started is not None:
        started.send_nowait("started")
    weft.never().wait()


async def park_soon(started=None):
    if started is not None:
        started.send_nowait("started")
    await weft.never()


def holds_and_returns(end, started):
    started.send_nowait("started")


def holds_and_fails(end, started):
    started.send_nowait("started")
    raise LookupError("with an end in its frames")


def holds_and_parks(end, started):
    started.send_nowait("started")
    weft.never().wait()


def who_am_i():
    return os.getpid(), threading.current_thread().name


async def uses_executors(n):
    return await asyncio.to_thread(double, n)


def returns_operation(ch):
    return ch.recv()


def sum_of(ch):
    return sum(ch)


async def sum_of_soon(ch):
    return sum([value async for value in ch])


def groups_here(ch, count):
    """A group of its own, in a thread."""
    with weft.Group() as group:
        for number in range(count):
            group.spawn(in_thread, sending, ch, number)
    return "all ended"


async def groups_here_soon(ch, count):
    async with weft.Group() as group:
        for number in range(count):
            group.spawn(in_task, sending, ch, number)
    return "all ended"


def spawns_there(n):
    """An interpreter that spawns one."""
    with weft.Group() as group:
        process = group.spawn(double, n, on="interpreter")
    return process.result()


def spawns_boom():
    with weft.Group() as group:
        group.spawn(boom, "two away", on="interpreter")


def cancels_its_group(ch):
    with weft.Group() as group:
        group.spawn(in_thread, never)
        group.spawn(in_task, never)
        group.cancel_after(0)
    return group.cancelled


def busy(started):
    started.send_nowait("started")
    while True:
        pass


def leaves_things(ch, full):
    """Leaves behind a loop with parked tasks, full channels, ends, operations that were never performed."""
    import warnings

    warnings.simplefilter("ignore")
    loop = asyncio.new_event_loop()
    hows = [
        lambda: ch.recv(),
        lambda: weft.select(ch.recv(), ch.recv(), weft.after(60)),
        lambda: anext(weft.selecting(ch)),
        lambda: ch.recv_many(3),
    ]

    async def party(how):
        await how()

    tasks = [loop.create_task(party(how)) for how in hows]
    for task in tasks:
        task._log_destroy_pending = False
    loop.call_soon(loop.stop)
    loop.run_forever()
    full.send_nowait([ch.sender(), bytearray(1 << 16)])
    full.send_nowait(memoryview(bytearray(1 << 16)))
    left.append((loop, tasks, ch, full, ch.recv(), ch.sender()))


left = []


def naps(seconds):
    time.sleep(seconds)


def counted(ch):
    """How many it received, one after the other."""
    count = 0
    for _ in ch:
        count += 1
    return count


# --- outcomes -------------------------------------------------------------------------------------------------------


class Refused:
    """It can be sent, and be made again nowhere."""

    def __reduce__(self):
        return refuse, ()


class RefusedError(Exception):
    def __init__(self):
        super().__init__(Refused())


def refuse():
    raise LookupError("it cannot be made again")


def gives_what_is_refused():
    return [Refused()]


def raises_what_is_refused():
    raise RefusedError


async def gives_what_is_refused_soon(_=None):
    return [Refused()]
