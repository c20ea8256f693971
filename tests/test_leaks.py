"""Nothing stays behind: after every kind of operation and each way it can end, all that took part in it is freed.

What is counted: every value that was sent, and every operation, channel, end, task, coroutine and loop, by asking the
garbage collector what is alive before and after many rounds. A debug build of CPython knows how many references there
are in all, and that is asked, too: so one more to a type or a name is noticed there. Memory that the collector does not
see is measured from outside, as the process's resident set. On PyPy there is none, and the collector tells how much it
holds.
"""

import asyncio
import contextlib
import gc
import os
import sys
import sysconfig
import threading
import traceback
import warnings
import weakref
from collections import Counter

import pytest
import weft
import worlds
from worlds import LIMIT, collect, loop_factory, missing, until

ROUNDS = 25
# By the name of their type: what a round makes and must not leave. Event loops are found by their base class.
COUNTED = {
    *("Op", "Channel", "Sender", "Receiver", "Selecting", "Selected", "_Home", "_Drain", "_Await", "_Stop"),
    *("Value", "SteppedProcess", "TaskProcess", "ThreadProcess", "Group"),
    *("Task", "coroutine", "generator", "async_generator", "Future", "Handle", "TimerHandle", "traceback", "Context"),
}


class Value:
    """A value to be sent: of a type of our own, so that the living ones can be counted."""

    __slots__ = ("__weakref__", "to")


class Mishap(Exception):
    """Raised by the tests."""


def living():
    collect()
    kinds = Counter()
    for thing in worlds.objects():
        name = type(thing).__name__
        if name in COUNTED:
            kinds[name] += 1
        elif isinstance(thing, asyncio.AbstractEventLoop):
            kinds["loop"] += 1
    return kinds


def references():
    """How many there are in all, in a debug build."""
    collect()
    if not hasattr(sys, "gettotalrefcount"):
        return 0
    # The interpreter's cache of where attributes were found refers to their names.
    (getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache)()
    return sys.gettotalrefcount()


def leaves_nothing(work, rounds=ROUNDS, counted=False):
    """`work()` leaves as much alive after `rounds` more times as after the first few. `counted`: and as many references.
    Not to be asked where an extension is called that was compiled for the usual build, and does not count its own: uvloop,
    and gevent, which is asked in each thread that waits."""
    for _ in range(3):
        work()
    before, referred = living(), references()
    for _ in range(rounds):
        work()

    def left():
        # What the last round's machinery keeps for the next is the same for one round as for many.
        return {kind: n for kind, n in (living() - before).items() if n >= rounds // 4}

    found = left()
    if found and not worlds.COUNTED:
        found = left()  # a chain of finalizers may be longer than `collect` goes
    assert not found, f"left behind after {rounds} rounds: {found}"
    if counted:
        grown = references() - referred
        assert grown < rounds, f"{grown} references more after {rounds} rounds"


def resident():
    """Bytes of this process in memory."""
    collect()
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pytest.skip("there is no /proc here to ask for the resident set")


def held():
    """Bytes in the objects of PyPy's collector."""
    told = []
    gc.hooks.on_gc_collect = told.append
    collect()
    gc.hooks.on_gc_collect = None
    return told[-1].arenas_bytes + told[-1].rawmalloc_bytes_after


@contextlib.contextmanager
def not_compiling():
    """PyPy only interprets: what it compiles, and forgets again after a while, is memory of its collector's too."""
    try:
        from pypyjit import set_param
    except ImportError:
        yield
        return
    set_param("off")
    try:
        yield
    finally:
        set_param("default")


def stays_small(work, rounds):
    """The process does not grow over many rounds, a little aside: far less than one small leak in each of them.

    PyPy's resident set tells nothing: it grows and shrinks by megabytes with where the collector finds room. But weft is
    Python alone there, so that whatever it leaves behind is an object, or is freed with one.
    """
    memory, allowed = (resident, 1 << 20) if worlds.COUNTED else (held, 1 << 15)
    with not_compiling():
        for _ in range(rounds // 4):
            work()
        before = memory()
        for _ in range(rounds):
            work()
        grown = memory() - before
    assert grown < allowed, f"{grown} bytes more after {rounds} rounds"


# --- kinds of operation: how to make one, and how to meet it ---------------------------------------------------------


class Kind:
    """`make`: an operation that has to wait. `meet`: what completes it. `ends`: the channels that `close` and so on are called on."""

    fails_when_closed = True

    def __init__(self):
        self.ch, self.other = weft.Channel(1), weft.Channel(1)
        self.open()

    def open(self): ...
    def make(self): ...
    def meet(self): ...
    def shut(self): ...


class Recv(Kind):
    def make(self):
        return self.ch.recv()

    def meet(self):
        self.ch.send_nowait(Value())


class Next(Recv):
    def make(self):
        return anext(aiter(self.ch))


class RecvMany(Recv):
    def make(self):
        return self.ch.recv_many(3)

    def meet(self):
        weft.always(1).wait()
        self.ch.send_many([Value(), Value(), Value()]).wait()


class Send(Kind):
    def open(self):
        self.ch.send_nowait(Value())

    def make(self):
        return self.ch.send(Value())

    def meet(self):
        self.ch.recv_nowait()


class SendMany(Send):
    def make(self):
        return self.ch.send_many([Value() for _ in range(3)])


class SelectRecv(Recv):
    def make(self):
        return weft.select(self.ch.recv(), self.other.recv(), None, again=self.ch.recv_many(2))


class SelectSend(Send):
    def open(self):
        super().open()
        self.other.send_nowait(Value())

    def make(self):
        return weft.select(self.other.send(Value()), self.ch.send(Value()), self.other.send_many([Value()]))


class SelectItself(Recv):
    """Both directions of one channel, and each twice."""

    def open(self):
        self.ch = weft.Channel()

    def make(self):
        return weft.select(self.ch.send(Value()), self.ch.recv(), self.ch.send(Value()), self.ch.recv())


class SelectEverything(Recv):
    def open(self):
        self.full = weft.Channel()
        self.tick = weft.tick(60)
        self.barrier = weft.Barrier(2)
        self.event = weft.Event()
        self.read, self.write = os.pipe()

    def make(self):
        return weft.select(
            self.full.send(Value()),
            self.other.recv().map(str),
            weft.after(60),
            weft.at(1e9).map(lambda due: Value()),
            self.tick.recv(),
            self.barrier.sync(),
            self.event.wait(),
            weft.readable(self.read),
            weft.never(),
            None,
            weft.select(self.full.send_many([Value()]), weft.select(self.other.recv_many(2), inner=self.ch.recv())),
        )

    def shut(self):
        os.close(self.read)
        os.close(self.write)


class SelectingKind(Recv):
    def open(self):
        self.selecting = weft.selecting(a=self.ch, b=self.other)

    def make(self):
        return anext(self.selecting)


class After(Kind):
    """Nobody meets a timer but the clock."""

    fails_when_closed = False
    delay = 60.0

    def make(self):
        return weft.after(self.delay)

    def meet(self):
        self.delay = 0.0


class SelectTimers(After):
    def make(self):
        return weft.select(weft.after(self.delay), weft.after(70), weft.at(1e9), weft.tick(60).recv())


class Tick(Kind):
    fails_when_closed = False

    def open(self):
        self.tick = weft.tick(60)

    def make(self):
        return self.tick.recv()

    def meet(self):
        self.tick.close()


class Barrier(Kind):
    fails_when_closed = False

    def open(self):
        self.barrier = weft.Barrier(2)

    def make(self):
        return self.barrier.sync().map(lambda place: Value())

    def meet(self):
        weft.select(self.barrier.sync(), default=None).wait()


class Event(Kind):
    fails_when_closed = False

    def open(self):
        self.event = weft.Event()

    def make(self):
        return self.event.wait()

    def meet(self):
        self.event.set()


class Readable(Kind):
    fails_when_closed = False

    def open(self):
        self.read, self.write = os.pipe()

    def make(self):
        return weft.readable(self.read)

    def meet(self):
        os.write(self.write, b"x")

    def shut(self):
        os.close(self.read)
        os.close(self.write)


class Writable(Readable):
    def open(self):
        super().open()
        os.set_blocking(self.write, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.write, bytes(1 << 16))

    def make(self):
        return weft.writable(self.write)

    def meet(self):
        os.set_blocking(self.read, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.read(self.read, 1 << 16)


KINDS = [
    *(Recv, Next, RecvMany, Send, SendMany, SelectRecv, SelectSend, SelectItself, SelectEverything, SelectingKind),
    *(After, SelectTimers, Tick, Barrier, Event, Readable, Writable),
]
CLOCKS = (After, SelectTimers)  # cannot be met while they wait
SENDERS = (Send, SendMany, SelectSend)


# --- ways to end, in a loop ------------------------------------------------------------------------------------------


class Ending:
    """`async def` for what is awaited; around it a loop that the test turns by hand."""

    def __init__(self, kind, loop, task=True):
        self.kind, self.loop = kind, loop
        self.op = self.make()
        self.coro = self.perform(self.op)
        self.op = None
        self.task = loop.create_task(self.coro)
        self.task._log_destroy_pending = False

    def make(self):
        return self.kind.make()

    async def perform(self, op):
        return await op

    def turn(self, times=3):
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def end(self): ...

    def outcome(self):
        deadline = self.loop.time() + LIMIT
        while not self.task.done() and self.loop.time() < deadline:
            self.turn()
        assert self.task.done(), f"{self.kind}: {self.task}"
        return "cancelled" if self.task.cancelled() else self.task.exception() or "returned"


class AtOnce(Ending):
    def __init__(self, kind, loop):
        kind.meet()
        super().__init__(kind, loop)

    def end(self):
        assert self.outcome() == "returned" or isinstance(self.kind, Tick)


class AfterParking(Ending):
    def end(self):
        self.turn()
        assert not self.task.done()
        self.kind.meet()
        assert self.outcome() == "returned" or isinstance(self.kind, Tick)


class Cancelled(Ending):
    def end(self):
        self.turn()
        self.task.cancel("a message")
        assert self.outcome() == "cancelled"


class CancelledAfterCommit(Ending):
    """The commit wins: it completes, and the cancel is kept for a next suspension that does not come."""

    def end(self):
        self.turn()
        self.kind.meet()
        self.task.cancel(Value())
        # A descriptor's readiness is news only when the loop has looked.
        assert self.outcome() == "returned" or isinstance(self.kind, Tick | Readable)


class CancelledLate(Ending):
    """The same with a next suspension, where the cancel is delivered."""

    async def perform(self, op):
        await op
        await asyncio.sleep(0)

    def end(self):
        self.turn()
        self.kind.meet()
        self.task.cancel("a message")
        assert self.outcome() == "cancelled" or isinstance(self.kind, Tick)


class TimedOut(Ending):
    async def perform(self, op):
        async with asyncio.timeout(0.0001):
            await op

    def end(self):
        assert isinstance(self.outcome(), TimeoutError)


class DestroyedParked(Ending):
    def end(self):
        self.turn()
        self.coro.close()


class DestroyedCommitted(Ending):
    def end(self):
        self.turn()
        self.kind.meet()
        self.coro.close()


class ThrownInto(Ending):
    """Another scheduler's exception, thrown into the coroutine while it waits."""

    def end(self):
        self.turn()
        with pytest.raises(Mishap):
            self.coro.throw(Mishap())


class LoopClosedParked(Ending):
    def end(self):
        self.turn()
        self.loop.close()


class LoopClosedCommitted(Ending):
    def end(self):
        self.turn()
        self.kind.meet()
        self.loop.close()


class LoopClosedThenMet(Ending):
    def end(self):
        self.turn()
        self.loop.close()
        self.kind.meet()


class MapFails(Ending):
    def make(self):
        kept = Value()

        def fails(value):
            raise Mishap(value, kept)

        return self.kind.make().map(fails)

    def end(self):
        self.turn()
        self.kind.meet()
        assert isinstance(self.outcome(), Mishap) or isinstance(self.kind, Tick)


class ExplicitAwait(Ending):
    async def perform(self, op):
        return await Through(op)

    def end(self):
        self.turn()
        self.kind.meet()
        assert self.outcome() == "returned" or isinstance(self.kind, Tick)


class Through:
    def __init__(self, op):
        self.op = op

    def __await__(self):
        return (yield from self.op.__await__())


class Unperformed(Ending):
    async def perform(self, op):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del op

    def end(self):
        assert self.outcome() == "returned"


class Over(Ending):
    """The channels end while it waits."""

    def end(self):
        self.turn()
        self.over()
        self.turn()
        if self.task.done():
            self.task.exception()

    def over(self): ...


class Closed(Over):
    def over(self):
        self.kind.ch.close()
        self.kind.other.close()


class ClosedWithCause(Over):
    """The cause's traceback leads to this frame, and that to the channel."""

    def over(self):
        try:
            raise Mishap(self.kind, Value())
        except Mishap as error:
            self.kind.ch.close(error)
            self.kind.other.close(error)


class Poisoned(Over):
    def over(self):
        try:
            raise Mishap(self.kind, Value())
        except Mishap as error:
            self.kind.ch.poison(error)
            self.kind.other.poison()


class LastEndGone(Over):
    def over(self):
        for ch in (self.kind.ch, self.kind.other):
            if isinstance(self.kind, SENDERS):
                rx = ch.receiver()
                assert rx.clone() is not rx
                rx.close()
                del rx
            else:
                tx = ch.sender()
                tx.clone().send_nowait(Value()) if ch.capacity and not len(ch) else None
                tx.close(Mishap(tx))


LATER = [
    AfterParking,
    CancelledAfterCommit,
    CancelledLate,
    DestroyedCommitted,
    LoopClosedCommitted,
    MapFails,
    ExplicitAwait,
]
MET = [AtOnce, *LATER]
UNMET = [Cancelled, TimedOut, DestroyedParked, ThrownInto, LoopClosedParked, Unperformed]
ENDED = [Closed, ClosedWithCause, Poisoned, LastEndGone, LoopClosedThenMet]


def combinations():
    for kind in KINDS:
        for ending in (*MET, *UNMET, *ENDED):
            if kind in CLOCKS and (ending in LATER or ending is LoopClosedThenMet):
                continue
            if kind in (Barrier, SelectItself) and ending in (AtOnce, LoopClosedThenMet):
                continue  # without a party that waits there is nobody to meet
            if issubclass(ending, Over) and not kind.fails_when_closed:
                continue
            marks = [NOTICED_LATER] if ending is Unperformed and not worlds.COUNTED else []
            yield pytest.param(kind, ending, id=f"{kind.__name__}-{ending.__name__}", marks=marks)


# Where references are not counted, the warning comes when the test has left the block that ignores it.
NOTICED_LATER = pytest.mark.filterwarnings("ignore:.*was never performed:RuntimeWarning")


@pytest.mark.parametrize("loop", [name for name in ("asyncio", "uvloop") if not missing(name)])
@pytest.mark.parametrize(("kind", "ending"), list(combinations()))
def test_nothing_stays_behind_in_a_loop(kind, ending, loop):
    new_loop = loop_factory(loop)

    def work():
        with contextlib.closing(new_loop()) as event_loop:
            event_loop.set_exception_handler(lambda loop, context: None)
            this = kind()
            case = ending(this, event_loop)
            try:
                case.end()
            finally:
                if not event_loop.is_closed() and not case.task.done():
                    case.task.cancel()
                    case.turn()
                this.shut()
        del case, this

    if sys.flags.dev_mode:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            leaves_nothing(work, counted=loop == "asyncio")
    else:
        leaves_nothing(work, counted=loop == "asyncio")


# --- what is kept on purpose ------------------------------------------------------------------------------------------

KEEPS = worlds.COUNTED and not sysconfig.get_config_var("Py_GIL_DISABLED")


def kept():
    """The objects of operations that have ended, for the next ones."""
    return list(filter(worlds.is_kept, gc.get_objects()))


@pytest.mark.skipif(not KEEPS, reason="objects of operations are kept in builds of CPython with a GIL")
def test_the_object_of_an_operation_is_used_again_by_the_next_unless_somebody_has_found_it(no_gc):
    ch = weft.Channel(1)
    ch.send(1).wait()
    found = kept()
    assert found
    made = [ch.recv() for _ in range(2 * len(found) + 1)]
    assert not {id(op) for op in found} & {id(op) for op in made}
    for op in made:
        op.close()
    assert ch.recv().wait() == 1


@pytest.mark.skipif(not KEEPS, reason="objects of operations are kept in builds of CPython with a GIL")
def test_an_operation_that_is_made_while_garbage_is_cleared_keeps_what_it_sends(no_gc):
    ch = weft.Channel.unbounded()
    made = []

    class Last:
        """What has no fields the collector does not see: it goes when what holds it is cleared."""

        __slots__ = ()

        def __del__(self):
            made.append(ch.send("sent"))

    class Knot:
        pass

    for _ in range(20):
        knot = Knot()
        knot.itself, knot.op, knot.last = knot, ch.recv(), Last()
        knot.op.close()
        del knot
    gc.collect()
    assert len(made) == 20
    for op in made:
        op.wait()
    assert [ch.recv_nowait() for _ in made] == ["sent"] * 20


# --- ways to end, in a thread ----------------------------------------------------------------------------------------


def waits(kind, ending):
    """One operation by `.wait()`, ended in this way; the thread that meets it is the test's own."""
    if ending == "at once":
        kind.meet()
        with contextlib.suppress(weft.Closed):
            kind.make().wait()
        return
    if ending == "timeout":
        with pytest.raises(TimeoutError):
            kind.make().wait(0.0002)
        return
    if ending == "no time at all":
        with pytest.raises(TimeoutError):
            kind.make().wait(0)
        return
    if ending == "map fails":
        kind.meet()
        with pytest.raises((Mishap, weft.Closed)):
            kind.make().map(fail).wait()
        return
    if ending == "in a loop's thread":

        async def main():
            with pytest.raises(weft.BlockingInLoopError):
                kind.make().wait()

        asyncio.run(main())
        return
    failures = []

    def parked():
        try:
            kind.make().wait(LIMIT)
        except (weft.Closed, Mishap, weft.Cancelled) as error:
            failures.append(type(error))
            if isinstance(error, weft.Cancelled):
                raise

    if ending == "group cancelled":
        with weft.Group() as group:
            group.spawn(parked, on="thread")
            group.cancel()
        return
    thread = threading.Thread(target=parked)
    thread.start()
    if isinstance(kind, Barrier):
        kind.barrier.sync().wait(LIMIT)  # it is met whenever it comes
    elif ending == "after parking":
        if isinstance(kind, SelectItself):
            until(lambda: kind.ch.statistics().parked_receivers)  # no buffer keeps what comes before it
        kind.meet()
    elif ending == "closed":
        kind.ch.close()
        kind.other.close(Mishap(kind))
        if isinstance(kind, SENDERS):
            kind.meet()  # what was being sent is still delivered
    elif ending == "poisoned":
        kind.ch.poison(Mishap(kind))
        kind.other.poison()
    thread.join(LIMIT)
    assert not thread.is_alive()


def fail(value):
    raise Mishap(value)


WAITS = [
    "at once",
    "timeout",
    "no time at all",
    "map fails",
    "in a loop's thread",
    "after parking",
    "group cancelled",
    "closed",
    "poisoned",
]


def thread_combinations():
    for kind in KINDS:
        for ending in WAITS:
            if kind in (SelectingKind, Next):
                continue  # in a thread it is a step of `for`: tested by itself
            if kind in CLOCKS and ending == "after parking":
                continue
            if ending in ("closed", "poisoned") and (not kind.fails_when_closed or kind is SelectEverything):
                continue
            if kind in (Barrier, SelectItself) and ending in ("at once", "map fails"):
                continue  # needs a party that waits already
            yield pytest.param(kind, ending, id=f"{kind.__name__}-{ending}")


@pytest.mark.parametrize(("kind", "ending"), list(thread_combinations()))
def test_nothing_stays_behind_in_a_thread(kind, ending):
    def work():
        this = kind()
        try:
            waits(this, ending)
        finally:
            this.shut()

    leaves_nothing(work, 12)


def test_nothing_stays_behind_of_a_for_in_a_thread():
    def work():
        for iterated in (
            lambda ch: ch,
            lambda ch: ch.receiver(),
            lambda ch: (value for _, value in weft.selecting(ch)),
        ):
            ch = weft.Channel(2)
            tx = ch.sender()

            def feed(tx=tx):
                with tx:
                    for _ in range(5):
                        tx.send(Value()).wait()

            thread = threading.Thread(target=feed)
            thread.start()
            assert sum(isinstance(value, Value) for value in iterated(ch)) == 5
            thread.join()

    leaves_nothing(work)


def test_nothing_stays_behind_of_nowait_calls_and_overflow():
    def work():
        for overflow in ("block", "drop_oldest", "drop_newest", "error"):
            dropped = []
            ch = weft.Channel(2, overflow=overflow, on_undelivered=dropped.append)
            for _ in range(5):
                with contextlib.suppress(weft.WouldBlock):
                    ch.send_nowait(Value())
                with contextlib.suppress(weft.WouldBlock):
                    ch.send(Value()).wait(0) if overflow != "block" else None
            ch.recv_nowait()
            ch.poison()
            with pytest.raises(weft.Poisoned):
                ch.send_nowait(Value())
            with pytest.raises(weft.Poisoned):
                ch.recv_nowait()

    leaves_nothing(work, counted=True)


def test_nothing_stays_behind_of_a_value_dropped_with_its_channel():
    recovered = []

    def work():
        ch = weft.Channel(3)
        ch.send_nowait(Value())
        told = weft.Channel(3, on_undelivered=recovered.append)
        told.send_nowait(Value())
        del ch, told
        if not worlds.COUNTED:
            collect()
        assert len(recovered) == 1
        recovered.clear()

    leaves_nothing(work, counted=True)


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["task", "thread"])
@pytest.mark.parametrize(
    "ending", ["returns", "fails", "cancelled", "parked when cancelled", "joined", "join cancelled", "join timed out"]
)
def test_nothing_stays_behind_of_a_group_and_its_processes(ending, on):
    def child(ch, value):
        if ending == "fails":
            raise Mishap(value)
        if on == "task":

            async def body():
                return await ch.recv()

            return body()
        return ch.recv().wait()

    async def main():
        ch = weft.Channel()
        with contextlib.suppress(ExceptionGroup):
            async with weft.Group() as group:
                processes = [group.spawn(child, ch, Value(), on=on) for _ in range(2)]
                if ending == "parked when cancelled":
                    while ch.statistics().parked_receivers < 2:
                        await asyncio.sleep(0)
                if ending in ("cancelled", "parked when cancelled"):
                    group.cancel()
                if ending == "join cancelled":
                    joiner = asyncio.ensure_future(joined(processes[0]))
                    await asyncio.sleep(0)
                    joiner.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await joiner
                if ending == "join timed out":
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0):
                            await processes[0].join()
                if ending in ("cancelled", "parked when cancelled", "fails"):
                    return  # the only one: see "PyPy" in CONTRIBUTING.md
                for _ in processes:
                    await ch.send(Value())
                if ending == "joined":
                    for process in processes:
                        assert isinstance(await process.join(), Value)

    async def joined(process):
        return await process.join()

    leaves_nothing(lambda: asyncio.run(main()), 12, counted=on == "task")


def test_nothing_stays_behind_of_a_group_of_threads():
    def child(ch):
        return ch.recv().wait()

    def failing(value):
        raise Mishap(value)

    def work():
        ch = weft.Channel()
        with weft.Group() as group:
            process = group.spawn(child, ch)
            ch.send(Value()).wait()
            assert isinstance(process.join().wait(), Value)
        with pytest.raises(ExceptionGroup), weft.Group() as group:
            group.spawn(child, ch)
            group.spawn(failing, Value())
        with weft.Group() as group:
            group.spawn(child, ch)
            group.cancel_after(0.001)

    leaves_nothing(work, 12)


# --- cycles ----------------------------------------------------------------------------------------------------------


def collected(make):
    """`make()` returns weak references to things that only lead to each other; all are dead after a collection."""
    references = make()
    collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_a_channel_that_holds_itself_is_collected():
    def make():
        ch = weft.Channel(2)
        ch.send_nowait(ch)
        ch.send_nowait(value := Value())
        value.to = ch
        return weakref.ref(ch), weakref.ref(value)

    collected(make)


def test_a_channel_whose_callback_holds_it_is_collected():
    def make():
        held = []
        ch = weft.Channel(2, on_undelivered=held.append)
        held.append(ch)
        ch.send_nowait(held)
        return (weakref.ref(ch),)

    collected(make)


def test_two_ends_that_travel_through_their_own_channel_are_collected():
    def make():
        ch = weft.Channel(2)
        tx, rx = ch.split()
        tx.send_nowait(tx)
        tx.send_nowait(rx)
        return (weakref.ref(ch),)

    collected(make)


@pytest.mark.parametrize("kind", [Recv, Send, RecvMany, SendMany, SelectRecv, SelectSend, SelectItself, SelectingKind])
@pytest.mark.parametrize("closed", [True, False], ids=["loop closed", "loop dropped"])
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_parked_task_that_only_its_channel_knows_is_collected_with_it(kind, closed):
    def make():
        loop = asyncio.SelectorEventLoop()
        loop.set_exception_handler(lambda loop, context: None)
        this = kind()

        async def party():
            kept = this, Value()
            await this.make()
            return kept

        task = loop.create_task(party())
        task._log_destroy_pending = False
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()
        assert not task.done()
        # asyncio refers to all tasks weakly: the channel is what keeps this one.
        references = weakref.ref(task), weakref.ref(this.ch), weakref.ref(this.other), weakref.ref(loop)
        if closed:
            loop.close()
        return references

    collected(make)


@pytest.mark.parametrize("kind", [After, SelectTimers, Tick, SelectEverything, Barrier, Event])
def test_a_task_parked_on_anything_is_collected_with_its_closed_loop(kind):
    references = []
    this = kind()

    async def party(this):
        value = Value()
        references.append(weakref.ref(value))
        await this.make()
        return value

    loop = asyncio.SelectorEventLoop()
    loop.set_exception_handler(lambda loop, context: None)
    task = loop.create_task(party(this))
    task._log_destroy_pending = False
    for _ in range(2):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert not task.done()
    references += [weakref.ref(loop), weakref.ref(task)]
    loop.close()
    this.shut()
    del task, loop, this
    collect()
    assert [reference() for reference in references] == [None] * len(references)


@pytest.mark.parametrize("end", ["close", "poison"])
def test_a_channel_whose_cause_leads_back_to_it_is_collected(end):
    def make():
        ch = weft.Channel(1)
        ch.send_nowait(value := Value())
        value.to = ch
        try:
            raise Mishap(ch)
        except Mishap as error:
            getattr(ch, end)(error)
        with contextlib.suppress(Mishap, weft.Closed):
            ch.recv_nowait()
            ch.recv_nowait()
        return weakref.ref(ch), weakref.ref(value)

    collected(make)


def test_an_error_that_carries_its_channel_and_value_is_collected():
    def make():
        ch = weft.Channel()
        ch.close()
        try:
            ch.send(Value()).wait()
        except weft.Closed as error:
            kept = error
        kept.value.to = kept
        return weakref.ref(ch), weakref.ref(kept.value)

    collected(make)


def test_an_operation_whose_map_leads_back_to_it_is_collected():
    def make():
        value = Value()
        op = weft.always(value)
        value.to = op
        op.map(lambda _: op)
        op.wait()
        return (weakref.ref(value),)

    collected(make)


@pytest.mark.filterwarnings("ignore:.*was never performed:RuntimeWarning")
def test_a_select_that_leads_back_to_itself_is_collected():
    def make():
        value = Value()
        ch = weft.Channel()
        value.to = weft.select(ch.send(value), ch.recv().map(lambda _: value), again=weft.always(value))
        return weakref.ref(value), weakref.ref(ch)

    collected(make)


def test_the_error_of_a_select_keeps_nothing_when_it_is_gone(run):
    references = []

    async def main():
        ch = weft.Channel()
        references.append(weakref.ref(ch))
        ch.poison()
        try:
            await weft.select(a=ch.recv(), b=ch.recv())
        except weft.Poisoned as error:
            assert error.case in "ab"
            traceback.clear_frames(error.__traceback__)

    run(main)
    collect()
    assert references[0]() is None


# --- memory that the collector does not see --------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_is_stable_over_many_operations_in_a_loop():
    def work():
        async def main():
            ch, other, silent = weft.Channel(), weft.Channel(4), weft.Channel()
            barrier = weft.Barrier(2)
            tick = weft.tick(0.0005)

            async def peer():
                for _ in range(20):
                    await ch.send(Value())
                    await other.send_many([Value()] * 6)
                    await barrier.sync()
                other.close(Mishap())

            task = asyncio.ensure_future(peer())
            for _ in range(20):
                case = None
                while case != 0:
                    case, _ = await weft.select(
                        ch.recv(), weft.after(60), tick.recv().map(str), weft.never(), policy="priority"
                    )
                await other.recv_many(3)
                await barrier.sync()
                with contextlib.suppress(weft.WouldBlock, Mishap):
                    while True:
                        other.recv_nowait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await weft.select(silent.recv(), weft.after(60), weft.Barrier(2).sync())
            await task
            with pytest.raises(Mishap):
                await other.recv()

        asyncio.run(main())

    stays_small(work, 150)


@pytest.mark.slow
def test_memory_is_stable_over_many_channels_ends_and_errors():
    def work():
        for _ in range(50):
            recovered = []
            ch = weft.Channel(3, name="short-lived", on_undelivered=recovered.append)
            tx, rx = ch.split()
            tx.send_nowait(Value())
            with tx.clone() as second:
                second.send_nowait(Value())
            rx.clone().close()
            weft.selecting(ch).discard(0)
            weft.Barrier(3)
            weft.Event().set()
            weft.tick(1).close()
            with contextlib.suppress(TimeoutError):
                weft.select(weft.Channel().recv(), weft.tick(1).recv(), weft.Barrier(2).sync()).wait(0.00001)
            rx.close()
            with pytest.raises(weft.NoReceivers):
                tx.send_nowait(Value())

    stays_small(work, 200)


@pytest.mark.slow
def test_memory_is_stable_over_many_threads_that_wait():
    def work():
        ch = weft.Channel()
        read, write = os.pipe()

        def party():
            weft.select(ch.recv(), weft.readable(read)).wait(LIMIT)

        threads = [threading.Thread(target=party) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            ch.send(Value()).wait(LIMIT)
        for thread in threads:
            thread.join()
        os.close(read)
        os.close(write)

    stays_small(work, 400)
    until(lambda: threading.active_count() < 10)


@pytest.mark.slow
def test_memory_that_grows_is_noticed():
    kept = []

    def work():
        kept.append([Value() for _ in range(5000)])

    with pytest.raises(AssertionError, match="bytes more after 100 rounds"):
        stays_small(work, 100)


@pytest.mark.skipif(not hasattr(sys, "gettotalrefcount"), reason="only a debug build counts all references")
def test_a_reference_that_is_not_given_back_is_noticed():
    kept = []
    with pytest.raises(AssertionError, match="references more after 25 rounds"):
        leaves_nothing(lambda: kept.append(Value), counted=True)


def test_no_descriptor_stays_open():
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc here to ask for the open descriptors")

    def work():
        this = Readable()
        with contextlib.suppress(TimeoutError):
            this.make().wait(0.0001)

        async def main():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0001):
                    await this.make()
            task = asyncio.ensure_future(perform(this.make()))
            await asyncio.sleep(0)
            this.meet()
            await task

        asyncio.run(main())
        thread = threading.Thread(target=lambda: weft.readable(this.read).wait())
        thread.start()
        thread.join()
        this.shut()

    async def perform(op):
        return await op

    work()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        work()
    collect()
    assert len(os.listdir("/proc/self/fd")) <= before


# --- at the interpreter's exit ---------------------------------------------------------------------------------------


def quiet(python, program, *options):
    assert python(program, *options) == ""


def test_ends_dropped_at_exit_say_nothing(python):
    quiet(
        python,
        """
        import sys, weft
        ch = weft.Channel(4, on_undelivered=lambda value: None)
        tx, rx = ch.split()
        tx.send_nowait(tx)
        tx.send_nowait(ch)
        sys.kept = [ch, tx, rx]
        sys.kept.append(sys.kept)
        op = ch.recv()
        op.wait()
        """,
    )


def test_finalizers_may_use_channels_until_the_very_end(python):
    quiet(
        python,
        """
        import sys, weft

        class Late:
            def __init__(self):
                self.ch = weft.Channel(1)
                self.me = self

            def __del__(self):
                self.ch.send_nowait(1)
                self.ch.recv().wait(0)
                try:
                    self.ch.recv_nowait()
                except Exception:
                    pass

        sys.late = Late()
        late = Late()
        ch = weft.Channel(2, on_undelivered=lambda value, other=weft.Channel(1): other.send_nowait(value))
        ch.send_nowait(ch)
        """,
    )


def test_a_loop_left_open_at_exit_says_nothing_of_weft(python):
    quiet(
        python,
        """
        import asyncio, weft
        loop = asyncio.new_event_loop()
        ch = weft.Channel()

        async def party():
            await weft.select(ch.recv(), weft.after(60))

        task = loop.create_task(party())
        task._log_destroy_pending = False
        loop.call_soon(loop.stop)
        loop.run_forever()
        """,
        "-W",
        "ignore::ResourceWarning",
    )


DAEMONS = {
    "parked for ever": """
        def party():
            ch.recv().wait()
        """,
    "parked in a select": """
        def party():
            weft.select(ch.recv(), weft.after(60), weft.readable(read)).wait()
        """,
    "waiting again and again": """
        def party():
            while True:
                try:
                    ch.recv().wait(0.01)
                except TimeoutError:
                    pass
        """,
    "waiting very briefly": """
        def party():
            while True:
                try:
                    ch.recv().wait(0.00001)
                except TimeoutError:
                    pass
        """,
    "polling": """
        def party():
            while True:
                try:
                    weft.readable(read).wait(0.001)
                except TimeoutError:
                    pass
        """,
    "talking": """
        def party():
            while True:
                weft.select(ch.recv(), ch.send(1)).wait()
        """,
    # The interpreter ends a thread when it wants to run Python code: so in all of these it was weft that called.
    "in a map": """
        def busy(value):
            for _ in range(1000):
                pass

        def party():
            while True:
                weft.always(1).map(busy).wait()
        """,
    "in a finalizer": """
        class Busy:
            def __del__(self):
                for _ in range(1000):
                    pass

        full = weft.Channel(1, overflow="drop_oldest")

        def party():
            while True:
                full.send_nowait(Busy())
        """,
    "in a callback": """
        def busy(value):
            for _ in range(1000):
                pass

        full = weft.Channel(1, overflow="drop_oldest", on_undelivered=busy)

        def party():
            while True:
                full.send_nowait(1)
        """,
    "in a case's hash": """
        class Busy:
            def __hash__(self):
                for _ in range(1000):
                    pass
                return 1

        def party():
            while True:
                weft.selecting().add(Busy(), ch)
        """,
    "in a task of a loop": """
        import asyncio

        async def sends(ch):
            while True:
                for _ in range(300):
                    pass
                await ch.send(1)

        async def receives(ch):
            while True:
                for _ in range(300):
                    pass
                await ch.recv()

        async def main():
            mine = weft.Channel()
            await asyncio.gather(sends(mine), receives(mine))

        def party():
            asyncio.run(main())
        """,
    "in an idle loop": """
        import asyncio

        async def main():
            await weft.select(ch.recv(), weft.after(60), weft.readable(read))

        def party():
            asyncio.run(main())
        """,
}


def daemons(case, count=4):
    lines = DAEMONS[case].replace("\n        ", "\n").strip()
    return f"""
import os, threading, time, weft
read, write = os.pipe()
ch = weft.Channel()
{lines}
for _ in range({count}):
    threading.Thread(target=party, daemon=True).start()
time.sleep(0.02)  # in the middle of what they do
"""


@pytest.mark.parametrize("case", DAEMONS)
def test_daemon_threads_die_quietly_at_exit(python, case):
    for _ in range(4):
        quiet(python, daemons(case))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["parked for ever", "waiting again and again", "waiting very briefly", "in a map", "in a task of a loop"]
)
def test_daemon_threads_die_quietly_at_exit_time_after_time(python, case):
    for _ in range(12):
        quiet(python, daemons(case))
