"""What the tests have run in other places. A place finds all this by its import path, so it needs nothing but weft and
asyncio.

A party is a script, as in `worlds.py`: a generator that yields operations. `in_thread` performs one by blocking its
thread, `in_task` as a task of asyncio's. What is raised in it is told as a value, so that it fails nobody but the test;
only a cancellation ends a process as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
import threading
import time

import freight
import weft

CANCELLED = (asyncio.CancelledError, weft.Cancelled)


async def in_task(script, *args):
    """Each operation is awaited."""
    return await _performed(script, args, lambda op: op)


def in_thread(script, *args):
    """Each operation blocks the thread, so that the coroutine ends without having waited for anything."""

    async def waited(op):
        return op.wait()

    try:
        _performed(script, args, waited).send(None)
    except StopIteration as end:
        return end.value


async def _performed(script, args, how):
    """Whether the script ended well, and its result or error."""
    running = script(*args)
    step, given = running.send, None
    try:
        while True:
            op = step(given)
            try:
                step, given = running.send, await how(op)
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
    """Gives on one channel and takes from the other."""
    give, take = (a, b) if first else (b, a)
    return _trading(give, take, range(count))


def swapping(ch, mine, count):
    """Sends and receives on one channel, whichever comes; it never meets itself."""
    return _trading(ch, ch, [(mine, number) for number in range(count)])


def _trading(give, take, values):
    """Selects, each of a send and a receive; what was sent and what came."""
    sent, got = [], []
    for value in values:
        case, came = yield weft.select(give.send(value), take.recv())
        if case == 0:
            sent.append(value)
        else:
            got.append(came)
    return sent, got


def registered(channels, count):
    """The first events of `selecting` over channels."""
    events = []
    watching = weft.selecting(**channels)
    for _ in range(count):
        events.append(tuple((yield anext(watching))))
    return events


def registered_until_over(channels):
    """All events, the errors of channels that ended among them."""
    events = []
    watching = weft.selecting(**channels)
    while len(watching) or not events:
        try:
            events.append(tuple((yield anext(watching))))
        except StopAsyncIteration:
            break
        except Exception as error:
            events.append((type(error).__name__, getattr(error, "case", None)))
    return events


def registered_beside_its_own(ch, count, started):
    """The same with a channel that is made there; what is left in that."""
    near = weft.Channel(3, name="near")
    watching = weft.selecting(near=near)
    near.send_nowait("first")
    events = [tuple((yield anext(watching)))]
    watching.add("far", ch)
    near.send_nowait("second")
    near.send_nowait("third")
    started.send_nowait("started")
    for _ in range(count - 1):
        events.append(tuple((yield anext(watching))))
    assert len(watching) == 2 and repr(watching) == "<weft.Selecting over 2 channels>"
    return events, near.statistics().buffered


def registering_while_it_waits(channels, turns):
    """What waits is added to, and taken from."""
    watching = weft.selecting(own=weft.Channel())
    got, told = [], weft.Event()

    def change():
        for turn in turns:
            how, case = turn
            if how == "add":
                watching.add(case, channels[case])
            else:
                watching.discard(case)
        told.set()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        while True:
            got.append(tuple((yield anext(watching))))
    except StopAsyncIteration:
        pass
    yield told.wait()
    return got


def storm_of_selecting(channels, count, seed):
    """Rounds with little patience, until the channels are closed. What it took."""
    patience = random.Random(seed)
    taken = []
    watching = weft.selecting(**channels)
    while len(watching):
        try:
            if patience.random() < 0.3:
                taken.append((yield anext(watching)).value)
            else:
                taken.append(anext(watching).wait(patience.random() / 1000).value)
        except TimeoutError:
            case = patience.choice(list(channels))
            if not channels[case].closed:
                watching.discard(case)
                watching.add(case, channels[case])
        except StopAsyncIteration:
            break
    return taken


def choosing_a_barrier(ch, turns):
    """A select of a channel and a barrier at which one of three waits already; another one comes when it is told."""
    barrier = weft.Barrier(3)
    orders = []

    def sync():
        orders.append(barrier.sync().wait())

    threads = [threading.Thread(target=sync)]
    threads[0].start()
    while barrier.waiting < 1:
        time.sleep(0)
    assert "1 of 3 waiting" in repr(barrier)

    def come():
        try:
            turns.recv().wait(5)
        except weft.Closed:
            pass
        sync()

    threads.append(threading.Thread(target=come))
    yield turns.send("started")
    while len(turns):
        yield weft.sleep(0.001)
    threads[1].start()
    chosen = tuple((yield weft.select(ch.recv(), barrier.sync())))
    if chosen[0] == 0:
        turns.close()
        orders.append((yield barrier.sync()))
    for thread in threads:
        thread.join()
    assert barrier.waiting == 0
    return chosen, orders


def storm_at_a_barrier(ch, parties, rounds):
    """Each of these passes the barrier so many times, whatever it receives meanwhile. What they took, and in which order they came."""
    barrier = weft.Barrier(parties)
    taken, orders = [], []

    def party():
        passed = 0
        while passed < rounds:
            case, value = weft.select(ch.recv(), barrier.sync()).wait()
            if case == 0:
                taken.append(value)
            else:
                orders.append(value)
                passed += 1

    threads = [threading.Thread(target=party) for _ in range(parties - 1)]
    for thread in threads:
        thread.start()
    passed = 0
    while passed < rounds:
        case, value = yield weft.select(ch.recv(), barrier.sync())
        if case == 0:
            taken.append(value)
        else:
            orders.append(value)
            passed += 1
    for thread in threads:
        thread.join()
    return taken, orders


def closing(ch, error):
    ch.close(error)
    return
    yield


def poisoning(ch, error):
    ch.poison(error)
    return
    yield


def leaving(end, turns):
    yield turns.recv()
    end.close()


def hearing(ways, count):
    """A channel of its own goes away; what is dropped of it elsewhere."""
    lost, all_told = [], weft.Event()

    def hear(value):
        lost.append(value)
        if len(lost) == count:
            all_told.set()

    ch = weft.Channel(3, overflow="drop_oldest", on_undelivered=hear)
    yield ways.send(ch)
    yield all_told.wait()
    assert ch.statistics().dropped == count
    return lost


def dropping(ways):
    """What `hearing` is told of."""
    ch = yield ways.recv()
    for number in range(5):
        yield ch.send([number])
    ch.poison()


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
    with _stopped_at_any_moment():
        for value in range(first, first + count):
            if patience.random() < 0.5:
                yield ch.send(value)
                gave.append(value)
            else:
                case, _ = yield weft.select(ch.send(value), weft.after(patience.random() / 2000))
                if case == 0:
                    gave.append(value)
    return gave


def storm_of_receives(ch, seed):
    """The same for receives, until the channel is closed. What it took."""
    patience = random.Random(seed)
    took = []
    with _stopped_at_any_moment():
        while True:
            if patience.random() < 0.5:
                took.append((yield ch.recv()))
            else:
                case, value = yield weft.select(weft.after(patience.random() / 2000), ch.recv())
                if case == 1:
                    took.append(value)
    return took


@contextlib.contextmanager
def _stopped_at_any_moment():
    """By a cancellation, or because the channel is closed."""
    try:
        yield
    except (*CANCELLED, weft.Closed):
        pass
    except BaseException as error:
        # Trio's and gevent's cancellation, which other places have never heard of.
        if type(error).__name__ not in ("Cancelled", "GreenletExit"):
            raise


def never():
    yield weft.never()


def passing_ends(ch, end):
    """Sends an end on, and has none any more."""
    yield ch.send(end)
    end.close()


# --- functions for `spawn` ------------------------------------------------------------------------------------------


def double(n):
    return 2 * n


async def double_soon(n):
    await asyncio.sleep(0)
    return double(n)


def boom(text):
    raise LookupError(text)


async def boom_soon(text):
    boom(text)


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
    park(started)


def who_am_i():
    return os.getpid(), threading.current_thread().name


async def uses_executors(n):
    return await asyncio.to_thread(double, n)


async def blocks_its_loop(ch):
    try:
        ch.recv().wait()
    except weft.BlockingInLoopError:
        refused = True
    await ch.send("its own")
    with contextlib.suppress(weft.BlockingInLoopError):
        return refused, ch.recv().wait()
    return refused, await ch.recv()  # where the root has to be asked


async def turns_while_it_is_served(ch, wanted):
    """How many turns another task of the loop has had while this one was served without a pause."""
    turns = 0

    async def other():
        nonlocal turns
        while turns < wanted:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(other())
    async for value in ch:
        if turns == wanted or value == 100_000:
            break
    ch.poison()
    counting.cancel()
    return turns


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


# --- outcomes -------------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    def __init__(self):
        super().__init__(freight.Refuses())


def gives_what_is_refused():
    return [freight.Refuses()]


def raises_what_is_refused():
    raise RefusedError


async def gives_what_is_refused_soon(_=None):
    return [freight.Refuses()]


def leaves_what_it_received(ch, turns, many):
    """Its loop is closed when what it waits for has been decided, and was not looked at."""
    loop = asyncio.new_event_loop()

    async def party():
        await (ch.recv_many(5) if many else ch.recv())

    task = loop.create_task(party())
    loop.run_until_complete(asyncio.sleep(0))
    turns.send("parked").wait()
    turns.send("decided").wait()
    loop.close()
    task._log_destroy_pending = False
    del task
    gc.collect()
