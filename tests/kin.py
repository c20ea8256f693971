"""What the tests have run in processes of the system, beside what `abroad.py` has for every place. A process finds it by its
import path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time

import weft
from abroad import in_task, in_thread, receiving, sending
from freight import Boom

# --- values ---------------------------------------------------------------------------------------------------------


def echo(requests, answers):
    for value in requests:
        answers.send(value).wait()


def describe(requests, answers):
    """Type, whether it can be written to, and whether its memory is a block that was passed on."""
    for value in requests:
        view = memoryview(value)
        answers.send((type(value).__name__, view.readonly, _is_passed_on(view), view.nbytes)).wait()


def _is_passed_on(view):
    import ctypes

    # What cannot be written to is asked for its address by a copy of the struct: `from_buffer` wants to write.
    buffer = (ctypes.c_char * 256)()
    flags = 0
    if ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), buffer, flags):
        return False
    address = ctypes.c_void_p.from_buffer(buffer).value
    ctypes.pythonapi.PyBuffer_Release(buffer)
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                return "memfd:weft-block" in line
    return False


def ask(requests, question):
    """The reply channel is made here."""
    reply = weft.Channel(name="reply")
    requests.send((question, reply.sender())).wait()
    return reply.recv().wait()


async def ask_often(requests, count):
    answers = []
    for number in range(count):
        reply = weft.Channel()
        await requests.send((number, reply))
        answers.append(await reply.recv())
    return answers


def answer(requests):
    for question, reply in requests:
        reply.send(question * 2).wait()


def make_full(ways):
    """A channel made and filled here, sent away."""
    ch = weft.Channel(5, name="made in a child")
    ch.send_many([1, [2], "three"]).wait()
    ways.send(ch).wait()
    return ch.capacity, ch.name


def make_closed(ways):
    ch = weft.Channel(5)
    ch.send_nowait("left")
    ch.close(Boom("over"))
    ways.send(ch).wait()


def make_ends(ways):
    ch = weft.Channel()
    tx, rx = ch.split()
    ways.send(rx).wait()
    tx.send("through").wait()
    tx.close()


# --- laws -----------------------------------------------------------------------------------------------------------


def nowait(ch, back):
    """Each way of not waiting on a channel that nobody else uses now; what they come to."""
    seen = []
    ch.send_nowait([1])
    try:
        ch.send_nowait([2])
    except weft.WouldBlock as full:
        seen.append(full.value)
    seen.append(ch.recv_nowait())
    try:
        ch.recv_nowait()
    except weft.WouldBlock as empty:
        seen.append(type(empty).__name__)
    seen.append(tuple(weft.select(ch.recv(), default="nothing").wait()))
    seen.append(tuple(weft.select(ch.recv(), back.send("to nobody"), default=None).wait()))
    seen.append(tuple(weft.select(ch.send([3]), default="full").wait()))
    seen.append(tuple(weft.select(back.recv(), ch.recv(), default="nothing").wait()))
    seen.append((len(ch), ch.capacity, ch.closed, ch.name))
    return seen


async def nowait_soon(ch, back):
    seen = []
    seen.append(tuple(await weft.select(ch.recv(), default="nothing")))
    seen.append(tuple(await weft.select(ch.send([3]), default="full")))
    seen.append(tuple(await weft.select(back.recv(), ch.recv(), default="nothing")))
    return seen


def sending_then_leaving(tx, *values):
    yield from sending(tx, *values)
    tx.close()


def receiving_then_leaving(rx, count):
    got = yield from receiving(rx, count)
    rx.close()
    return got


def book(ch):
    return tuple(ch.statistics())


def hurried(op_of, *args):
    """An operation without patience: whether it ran out of time."""
    try:
        op_of(*args).wait(0.01)
    except TimeoutError:
        return True
    return False


def recv_of(ch):
    return ch.recv()


def send_of(ch, value):
    return ch.send(value)


def select_of(one, other):
    return weft.select(one.recv(), other.send("never"))


def open_ends(ways, ch):
    """Ends made here of a channel of the root, one of them sent away and one closed."""
    with ch.sender() as tx, ch.sender() as other:
        ways.send(other).wait()
        tx.send("from an end").wait()


def hold(end, started):
    waits(started)


# --- a select of what is in the root and what is not ------------------------------------------------------------------


def against_timer(ch, seconds):
    case, value = weft.select(ch.recv(), weft.after(seconds)).wait()
    return case, value if case == 0 else None


def against_event(ch, started, first):
    """Either first: a thread sets the event when it is told to."""
    event = weft.Event()
    if first == "event":
        threading.Thread(target=event.set).start()
    started.send_nowait("started")
    return weft.select(ch.recv(), event.wait()).wait()[0]


def against_join(ch, gate):
    """A process of the child's own, which ends when the gate says so."""
    with weft.Group() as group:
        process = group.spawn(_until_closed, gate)
        chosen = tuple(weft.select(ch.recv(), process.join()).wait())
    return chosen


def _until_closed(gate):
    for _ in gate:
        pass
    return "joined"


def against_descriptor(ch, started, first):
    with _descriptor(first, started) as read:
        return weft.select(ch.recv(), weft.readable(read)).wait()[0]


async def against_descriptor_soon(ch, started, first):
    with _descriptor(first, started) as read:
        return (await weft.select(weft.readable(read), ch.recv()))[0]


@contextlib.contextmanager
def _descriptor(first, started):
    """There is something to read when it is to be the first."""
    with _pipe() as (read, write):
        if first == "descriptor":
            os.write(write, b"x")
        started.send_nowait("started")
        yield read


@contextlib.contextmanager
def _pipe():
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        os.close(read)
        os.close(write)


def against_local(ch, started, first):
    """A channel of the child's own beside one of the root."""
    mine = weft.Channel(1, name="of the child")
    if first == "mine":
        mine.send_nowait("mine")
    started.send_nowait("started")
    return tuple(weft.select(ch.recv(), mine.recv()).wait())


def storm_of_mixed(ch, kind, count, seed):
    """Receives, each beside something of the child's own that comes at about the same moment. What was taken, and how often
    the other one came first."""
    dice = random.Random(seed)
    taken, others = [], 0
    with _pipe() as (read, write):
        os.set_blocking(read, False)
        for _ in range(count):
            with _coming(kind, dice.random() / 2000, read, write) as other:
                try:
                    _, value = weft.select(*_in_any_order(dice, ch.recv(), other)).wait()
                except weft.Closed:
                    break
            with contextlib.suppress(BlockingIOError):
                os.read(read, 100)
            if isinstance(value, tuple) and value and value[0] == "value":
                taken.append(value[1])
            else:
                others += 1
    return taken, others


def _in_any_order(dice, *ops):
    return ops if dice.random() < 0.5 else ops[::-1]


@contextlib.contextmanager
def _coming(kind, seconds, read=None, write=None):
    """Something of the child's own that comes after so many seconds."""
    if kind == "timer":
        yield weft.after(seconds)
        return
    if kind == "event":
        event = weft.Event()
        other, timer = event.wait(), threading.Timer(seconds, event.set)
    else:
        other, timer = weft.readable(read), threading.Timer(seconds, os.write, (write, b"x"))
    timer.start()
    try:
        yield other
    finally:
        timer.join()


def storm_of_offers(ch, kind, first, count, seed):
    """The same for sends. What was given."""
    dice = random.Random(seed)
    given = []
    for number in range(first, first + count):
        with _coming(kind, dice.random() / 2000) as other:
            offer = ch.send(number)
            where = 0 if dice.random() < 0.5 else 1
            case, _ = weft.select(*((offer, other) if where == 0 else (other, offer))).wait()
        if case == where:
            given.append(number)
    return given


# --- errors ---------------------------------------------------------------------------------------------------------


def goes_away_while_waited_on(ways, how, asked):
    """Parties of each kind wait on a channel of this process's own when it is sent away; what they come to."""
    ch, other = weft.Channel(name="waited on"), weft.Channel()
    with weft.Group() as group:
        parties = [group.spawn(in_thread, *script, ch, other) for script in _WAITING[how]]
        parties += [group.spawn(in_task, *script, ch, other) for script in _WAITING[how]]
        number = len(parties)
        while ch.statistics().parked_senders + ch.statistics().parked_receivers < number:
            time.sleep(0)
        if asked == "cancel":
            parties.pop().cancel()
        ways.send(ch).wait()
        return [party.join().wait() for party in parties]


def _receiving(ch, other):
    return (yield ch.recv())


def _receiving_many(ch, other):
    return (yield ch.recv_many(2))


def _choosing(ch, other):
    return tuple((yield weft.select(weft.after(60), other.send("to nobody"), ch.recv())))


def _watching(ch, other):
    return tuple((yield anext(weft.selecting(far=ch, near=weft.Channel()))))


def _sending(ch, other):
    yield ch.send([bytes(20_000), memoryview(bytes(20_000)), other.sender()])
    return "sent"


def _sending_many(ch, other):
    return (yield ch.send_many([{"a": 1}, 2]))


def _offering(ch, other):
    return tuple((yield weft.select(ch.send("offered"), other.recv())))


_WAITING = {
    "receive": [(_receiving,), (_receiving_many,), (_choosing,), (_watching,)],
    "send": [(_sending,), (_sending_many,), (_offering,)],
}


def leaves_a_barrier(ch):
    """A loop is closed whose task waits in a select of a channel and a barrier."""
    barrier = weft.Barrier(2)
    loop = asyncio.new_event_loop()

    async def party():
        await weft.select(ch.recv(), barrier.sync())

    task = loop.create_task(party())
    loop.run_until_complete(asyncio.sleep(0))
    before = barrier.waiting
    loop.close()
    task._log_destroy_pending = False
    try:
        barrier.sync().wait(0.05)
    except TimeoutError:
        return before, barrier.waiting, "timed out"


def send_more_than_a_message(ch, beside):
    """A gibibyte, in parts that are too small to be passed on as blocks, and an end. What it came to."""
    part = bytes(60 << 10)
    try:
        with beside.sender() as tx:
            ch.send_many([tx, *[part] * 18_000]).wait()
    except ValueError as refused:
        try:
            beside.recv().wait()
        except weft.Closed:
            return False, refused
    return True, None


def not_for_here():
    return threading.Lock()


def closed_end():
    end = weft.Channel().sender()
    end.close()
    return end


def call(function):
    return function()


async def call_soon(function):
    return call(function)


# --- death ----------------------------------------------------------------------------------------------------------


def pours(ch, started):
    started.send_nowait(os.getpid())
    number = 0
    while True:
        ch.send(number).wait()
        number += 1


def drinks(ch, started):
    started.send_nowait(os.getpid())
    while True:
        ch.recv().wait()


async def drinks_soon(ch, started):
    started.send_nowait(os.getpid())
    async for _ in ch:
        pass


def chooses(ch, started):
    started.send_nowait(os.getpid())
    while True:
        weft.select(ch.recv(), ch.send(1), weft.after(0.001)).wait()


def computes(started):
    started.send_nowait(os.getpid())
    while True:
        pass


def waits(started):
    started.send_nowait(os.getpid())
    weft.never().wait()


async def waits_soon(started):
    started.send_nowait(os.getpid())
    await asyncio.get_running_loop().create_future()


def exits_at_once(code):
    os._exit(code)


def sys_exit(code):
    sys.exit(code)


def dies_on(victim, item):
    if item == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def dies_on_seven(item):
    return dies_on(7, item)


async def dies_soon_on_seven(item):
    return dies_on_seven(item)


def large(size):
    return bytes(size)


def puts_large(ch, size, count):
    for _ in range(count):
        ch.send(bytes(size)).wait()
    return "done"


# --- what a process is ------------------------------------------------------------------------------------------------


def who():
    return os.getpid(), os.getppid(), threading.current_thread().name


def until_cancelled(started, told):
    with _telling(weft.Cancelled, told):
        waits(started)


async def until_cancelled_soon(started, told):
    with _telling(asyncio.CancelledError, told):
        await waits_soon(started)


@contextlib.contextmanager
def _telling(kind, told):
    try:
        yield
    except kind:
        told.send_nowait("cancelled")
        raise


def square(n):
    return n * n


async def square_soon(n):
    await asyncio.sleep(0)
    return square(n)


def boom(text):
    raise Boom(text)


def fails_on_five(n):
    if n == 5:
        raise Boom("five")
    return n


def descriptors():
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def moves_a_channel_of_a_selecting(out):
    """An iteration over a channel that was sent away since it was registered, when nobody waited."""
    ch = weft.Channel(2)
    events = weft.selecting(ch)
    ch.send_nowait("early")
    first = next(events)
    out.send(ch).wait()
    return [first, next(events)]


def moves_a_channel_of_a_selecting_that_was_met(out):
    """One channel has handed a value over, and another is sent away before the consumer, a task, has run."""

    async def main():
        met, moved = weft.Channel(), weft.Channel(1)
        events = weft.selecting(met, moved)

        async def consume():
            return [await anext(events), await anext(events)]

        consumer = asyncio.ensure_future(consume())
        while not met.statistics().parked_receivers:
            await asyncio.sleep(0)
        met.send_nowait("met")
        out.send_nowait(moved)
        return await consumer

    return asyncio.run(main())


def shares_one_channel_in_threads(out, rounds):
    """Each of two threads sends the same channel away, at once, which holds a value and was closed with a reason."""
    for n in range(rounds):
        ch = weft.Channel(2)
        ch.send_nowait(n)
        ch.close(ValueError(n))
        gate = threading.Barrier(2)

        def share(ch=ch, gate=gate):
            gate.wait()
            out.send(ch).wait()

        with weft.Group() as group:
            group.spawn(share)
            group.spawn(share)


# --- ahead of the root's answer ---------------------------------------------------------------------------------------


def takes(values, number, taken):
    """Receives so many, and stays."""
    got = [values.recv().wait() for _ in range(number)]
    taken.send((os.getpid(), got)).wait()
    weft.never().wait()


def takes_each(values, turns, taken):
    for _ in turns:
        taken.send(values.recv().wait()).wait()


def gives(values, number, given):
    """Sends so many, and stays."""
    for value in range(number):
        values.send(value).wait()
    given.send(os.getpid()).wait()
    weft.never().wait()


def gives_what_cannot_cross(values, refused):
    values.send(0).wait()
    values.send(1).wait()
    try:
        values.send([2, lambda: 2]).wait()
    except TypeError as error:
        refused.send(str(error)).wait()
    values.send(3).wait()


def gives_all_sorts(values, parcels):
    """The same object, changed between the sends: what was sent is what it was."""
    changing = []
    for number in range(50):
        changing.append(number)
        values.send(changing).wait()
        values.send(bytes(number * 400)).wait()
        values.send(parcels).wait()


def passes_on(values, onward, workers):
    """Threads of one process receive and send on side by side."""

    def work():
        for value in values.clone():
            onward.send((threading.get_ident(), value)).wait()

    with values, onward, weft.Group() as group:
        for _ in range(workers):
            group.spawn(work)


async def passes_on_soon(values, onward, workers):
    async def work(number):
        async for value in values.clone():
            await onward.send((number, value))

    async with values, onward, weft.Group() as group:
        for number in range(workers):
            group.spawn(work, number)


def gives_and_closes(values, number):
    with values:
        for value in range(number):
            values.send(value).wait()


def tries(values, answers):
    """What a look without waiting finds."""
    with values:
        for _ in range(6):
            answers.send(values.recv_nowait()).wait()
        try:
            values.recv_nowait()
        except weft.WouldBlock:
            answers.send(None).wait()


# --- processes that start processes -----------------------------------------------------------------------------------


def spawns(place, function, *args):
    """What a function comes to in a place that this one starts, and who started it."""
    with weft.Group() as group:
        process = group.spawn(function, *args, on=place)
        return process.join().wait(), os.getpid()


async def spawns_soon(place, function, *args):
    async with weft.Group() as group:
        process = group.spawn(function, *args, on=place)
        return await process.join(), os.getpid()


def maps(workers, items):
    with weft.Pool(workers, on="process") as pool:
        return list(pool.map(square, items)), pool.workers


def runs_workers(items):
    async def main():
        async with weft.Group() as group:
            processes = [group.spawn(square, item, on="pool") for item in items]
            return [await process.join() for process in processes]

    return weft.run(main, workers=2)


def is_told_of_a_death(exitcode, heard):
    """A channel whose last sender dies, the process, and its group, as they tell of it."""
    ch, errors = weft.Channel(), []
    started = weft.Channel(1)
    try:
        with weft.Group() as group:
            process = group.spawn(_dies_when_told, exitcode, ch.sender(), heard.receiver(), started, on="process")
            pid = started.recv().wait()
            heard.send("now").wait()
            for op in (ch.receiver().recv(), process.join()):
                try:
                    op.wait()
                except weft.PeerDied as died:
                    errors.append(died)
                except weft.Cancelled:
                    pass  # the group was told first
    except* weft.PeerDied as group:
        errors += group.exceptions
    return pid, [(error.pid, error.exitcode) for error in errors]


def _dies_when_told(exitcode, end, heard, started):
    started.send(os.getpid()).wait()
    heard.recv().wait()
    if exitcode < 0:
        os.kill(os.getpid(), -exitcode)
    os._exit(exitcode)


def between(place, function, *args):
    """Nothing but somebody in between."""
    with weft.Group() as group:
        group.spawn(function, *args, on=place)


def holds_below(place, function, ends, started):
    """Has one below hold an end of its own, and one that it was given."""
    own, given = ends
    started.send(os.getpid()).wait()
    with weft.Group() as group:
        holds = _holds_soon if function.endswith("_soon") else _holds
        group.spawn(holds, function, own, given, started, on=place)


def _holds(function, own, given, started):
    getattr(sys.modules[__name__], function)(started)


async def _holds_soon(function, own, given, started):
    await getattr(sys.modules[__name__], function)(started)


def snapshot_of_below(started):
    with weft.Group() as group:
        process = group.spawn(waits, started, on="process", name="two below")
        while not (found := [line for line in str(weft.snapshot()).splitlines() if "'two below'" in line])[1:]:
            pass
        process.cancel()
    return found


def leaves_something_to_inherit():
    os.environ["WEFT_TEST"] = "inherited"
    sys.path.append("/weft/test")
    os.chdir("/")
    return spawns("process", what_it_inherits)[0]


def cannot_start_one():
    known, os.getcwd = os.getcwd, lambda: "/there/is/no/such/folder"
    try:
        with weft.Group() as group:
            group.spawn(square, 3, on="process")
    finally:
        os.getcwd = known  # this interpreter is used again


def what_it_inherits():
    return os.getcwd(), os.environ.get("WEFT_TEST"), sys.path[-1]


def forks():
    """What a process that was forked from this one says of starting one."""
    import warnings

    read, write = os.pipe()
    warnings.simplefilter("ignore")
    pid = os.fork()
    if pid == 0:
        try:
            with weft.Group() as group:
                group.spawn(abs, 1, on="process")
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as said:
        answer = said.read().decode()
    os.waitpid(pid, 0)
    return answer


# --- what is left half done -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def received_and_not_taken_up(ch, parked):
    """A task of a loop that is not run meanwhile has received from `ch`. The loop and the task are given."""
    loop = asyncio.new_event_loop()

    async def receives():
        return await ch.recv()

    task = loop.create_task(receives())
    loop.run_until_complete(asyncio.sleep(0))
    parked()
    try:
        yield loop, task
    finally:
        loop.close()


def forks_while_it_holds_an_end(ch, parked, told):
    """What comes of it when it sends by the end that it has received, after a fork that has lost that."""
    with received_and_not_taken_up(ch, lambda: parked.send(None).wait()) as (loop, task):
        assert parked.recv().wait() == "sent"
        loses_in_a_fork(loop, task)
        with loop.run_until_complete(task) as tx:
            tx.send("still open").wait()
    told.send_nowait("sent")


def loses_in_a_fork(loop, task):
    """A forked child lets go of all that it has inherited, and ends as a program does."""
    import gc

    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        task._log_destroy_pending = False
        loop._ready.clear()
        loop.__dict__.clear()
        del task, loop
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def leaves_what_came_first(ch, parked):
    with received_and_not_taken_up(ch, lambda: parked.send(None).wait()) as (_, task):
        assert parked.recv().wait() == "sent"
        task._log_destroy_pending = False
        del task
    import gc

    gc.collect()
    return [ch.recv().wait() for _ in range(6)]


def closes_with(ch, kind):
    ch.close(reason_of(kind))
    try:
        ch.recv().wait()
    except (ValueError, weft.RemoteError) as error:
        return repr(error)


def reason_of(kind):
    return ValueError("why", weft.Channel(1, name="beside") if kind == "a channel" else memoryview(bytes(100_000)))


def moves_one_without_receivers(out):
    ch = weft.Channel(2)
    ch.receiver().close()
    out.send(ch).wait()
    try:
        ch.send(1).wait()
    except weft.Closed as closed:
        return type(closed).__name__


def refuses_a_thread():
    """The next time that one is to be started here for `square`."""
    plain = threading.Thread.start

    def start(thread):
        if thread.name.startswith("square"):
            threading.Thread.start = plain
            raise RuntimeError("can't start new thread")
        plain(thread)

    threading.Thread.start = start


def cleans_up_with_others(on, count, started, log):
    try:
        with weft.Group() as group:
            for _ in range(count):
                group.spawn(cleans_up, started, log, on=on)
    finally:
        note(log, "outer")


def cleans_up(started, log):
    try:
        waits(started)
    finally:
        note(log, "inner")


def note(log, what):
    with open(log, "a") as lines:
        lines.write(f"{what}\n")


def poisons(ch):
    ch.poison()


def hears_of_what_is_dropped_elsewhere(on):
    got = []
    ch = weft.Channel(5, on_undelivered=got.append)
    ch.send_nowait(1)
    with weft.Group() as group:
        group.spawn(poisons, ch, on=on)
    while not got:
        time.sleep(0.001)
    return got


def passes_an_end(ch, x):
    with x.sender() as tx:
        ch.send(tx).wait()


def closes_after(ch, started):
    """Waits until the channel is closed. The reason is returned."""
    started.send(None).wait()
    try:
        ch.recv().wait()
    except (ValueError, weft.RemoteError) as error:
        return repr(error)


def says_how_it_ends(started, ch):
    with _telling(weft.Cancelled, ch):
        waits(started)


def collects(ch, started):
    started.send_nowait(os.getpid())
    return list(ch)


def poisons_a_moment_later(ends, ready):
    ch = ends.recv().wait()
    ready.send(None).wait()
    time.sleep(0.05)
    ch.poison()
