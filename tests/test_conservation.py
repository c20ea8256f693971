"""L3, in bulk: after any number of cancels, timeouts and lost partners each value is in exactly one place.

Storms: parties that send, receive, select, get cancelled and run out of patience at random, in tasks, in threads, and in
both at once. In the end the books are balanced: returned to a receiver + still in the channel + back with its sender
= everything there was, each value once. Together they perform more than a million operations.

Then a model: Hypothesis drives one channel and a channel of thirty lines of plain Python through the same steps.
"""

import asyncio
import gc
import os
import random
import threading
from collections import Counter, deque
from contextlib import suppress

import pytest
import weft
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from worlds import COUNTED, fewer, loop_factory, make_world, missing, parked, until

SEED = int(os.environ.get("WEFT_SEED", "1978"))
operations = Counter()  # performed in each storm, for the last test


class Books:
    """Who has which value. Each party writes to lists of its own, so that no lock of ours orders what weft should."""

    def __init__(self):
        self.given, self.taken, self.kept, self.performed = [], [], [], []

    def party(self):
        entries = given, taken, kept, performed = [], [], [], []
        for book, entry in zip((self.given, self.taken, self.kept, self.performed), entries, strict=True):
            book.append(entry)
        return given, taken, kept, performed

    def balance(self, channels, what):
        """`given`: the send completed. `kept`: the send raised, so the value is its sender's."""
        left = []
        for ch in channels:
            assert parked(ch) == (0, 0), ch.statistics()
            with suppress(weft.WouldBlock, weft.Closed):
                while True:
                    left.append(ch.recv_nowait())
        given, taken, kept = (
            Counter(value for entry in book for value in entry) for book in (self.given, self.taken, self.kept)
        )
        there = taken + Counter(left)
        assert not (twice := {v: n for v, n in (there + kept).items() if n != 1}), f"in two places: {twice}"
        assert not (lost := given - there), f"given, but neither received nor in a channel: {lost}"
        assert not (conjured := there - given), f"received, but its send raised: {conjured}"
        operations[what] += sum(sum(entry) for entry in self.performed)


async def task_party(n, channels, books, rounds, rng):
    """Sends and receives at random until it has done its rounds. Its cancels are caught: it goes on after each."""
    given, taken, kept, performed = books.party()
    unfinished = rounds
    serial = 0
    while unfinished:
        try:
            while unfinished:
                unfinished -= 1
                choice = rng.random()
                a, b = rng.sample(channels, 2)
                value = (n, serial)
                serial += 1
                sending = None
                try:
                    if choice < 0.35:
                        sending = value
                        await a.send(value)
                        sending = None
                        given.append(value)
                    elif choice < 0.70:
                        taken.append(await a.recv())
                    elif choice < 0.80:
                        taken.extend(await a.recv_many(3))
                    elif choice < 0.95:
                        sending = value
                        case, got = await weft.select(a.send(value), b.recv())
                        sending = None
                        if case == 0:
                            given.append(value)
                        else:
                            taken.append(got)
                            kept.append(value)
                    else:
                        case, got = await weft.select(a.recv(), b.recv(), weft.after(0))
                        if case != 2:
                            taken.append(got)
                finally:
                    if sending is not None:
                        kept.append(sending)
        except asyncio.CancelledError:
            asyncio.current_task().uncancel()
    performed.append(rounds)


def thread_party(n, channels, books, rounds, rng, stop=None):
    given, taken, kept, performed = books.party()
    for serial in range(rounds):
        if stop is not None and stop.is_set():
            rounds = serial
            break
        choice = rng.random()
        a, b = rng.sample(channels, 2)
        value = (n, serial)
        patience = rng.choice((0, 0, 0.00005, 0.0002, 0.001))
        sending = None
        try:
            if choice < 0.4:
                sending = value
                a.send(value).wait(patience)
                sending = None
                given.append(value)
            elif choice < 0.8:
                taken.append(a.recv().wait(patience))
            elif choice < 0.95:
                sending = value
                case, got = weft.select(a.send(value), b.recv()).wait(patience)
                sending = None
                if case == 0:
                    given.append(value)
                else:
                    taken.append(got)
                    kept.append(value)
            else:
                taken.extend(a.recv_many(3).wait(patience))
        except TimeoutError:
            pass
        finally:
            if sending is not None:
                kept.append(sending)
    performed.append(rounds)


async def cancel_at_random(tasks, rng, burst):
    """Until all have ended: cancel some, let the loop turn a few times. Who waits for a partner that ended is cancelled out."""
    await asyncio.sleep(0)  # a task cancelled before its first step never runs at all
    alive = [task for task in tasks if not task.done()]
    while alive:
        for task in rng.sample(alive, min(burst, len(alive))):
            if not task.done():
                task.cancel()
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        alive = [task for task in alive if not task.done()]


def new_channels():
    return [weft.Channel(), weft.Channel(), weft.Channel(1), weft.Channel(5)]


LOOPS = [name for name in ("asyncio", "uvloop") if not missing(name)]


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_cancelled_at_random_lose_nothing(run, loop):
    books, channels, rng = Books(), new_channels(), random.Random(SEED)

    async def main():
        tasks = [
            asyncio.create_task(task_party(n, channels, books, fewer(10_000), random.Random(SEED + n)))
            for n in range(32)
        ]
        await cancel_at_random(tasks, rng, burst=2)
        for task in tasks:
            task.result()

    run(main, limit=100, loop_factory=loop_factory(loop))
    books.balance(channels, f"tasks {loop}")


@pytest.mark.slow
def test_threads_whose_time_runs_out_lose_nothing():
    books, channels = Books(), new_channels()
    threads = [
        threading.Thread(target=thread_party, args=(n, channels, books, fewer(12_000), random.Random(SEED + n)))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    books.balance(channels, "threads")


@pytest.mark.slow
def test_two_loops_and_threads_at_once_lose_nothing():
    books, channels = Books(), new_channels()
    errors = []

    def loop_in_thread(first):
        async def main():
            rng = random.Random(SEED + first)
            tasks = [
                asyncio.create_task(task_party(n, channels, books, fewer(3_000), random.Random(SEED + n)))
                for n in range(first, first + 10)
            ]
            await cancel_at_random(tasks, rng, burst=1)
            for task in tasks:
                task.result()

        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=loop_in_thread, args=(first,)) for first in (100, 200)]
    threads += [
        threading.Thread(target=thread_party, args=(n, channels, books, fewer(6_000), random.Random(SEED + n)))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert not errors
    books.balance(channels, "mixed")


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_that_are_thrown_away_in_the_middle_lose_nothing(loop):
    """Coroutines closed, and loops closed, before the commit, and between the commit and the resumption."""
    books, channels, rng = Books(), new_channels(), random.Random(SEED)
    given, taken, kept, performed = books.party()
    unknown = (
        set()
    )  # sent by somebody who was destroyed, or never ran again: only a receiver can tell whether it was given

    async def one(n):
        a, b = rng.sample(channels, 2)
        unknown.add(n)
        case, got = await weft.select(a.send(n), b.recv())
        unknown.remove(n)
        if case == 0:
            given.append(n)
        else:
            kept.append(n)
            taken.append(got)

    for generation in range(200):
        event_loop = loop_factory(loop)()
        event_loop.set_exception_handler(lambda loop, context: None)
        tasks = []
        for k in range(60):
            task = event_loop.create_task(one(generation * 100 + k))
            task._log_destroy_pending = False
            tasks.append(task)
        performed.append(len(tasks))
        for _ in range(1 + rng.randrange(4)):
            event_loop.call_soon(event_loop.stop)
            event_loop.run_forever()
        for ch in channels:
            for _ in range(rng.randrange(3)):
                with suppress(weft.WouldBlock):
                    taken.append(ch.recv_nowait())
        if rng.random() < 0.5:
            for task in tasks:
                task.get_coro().close()
        event_loop.close()
        if rng.random() < 0.5:
            del tasks, task
            gc.collect(0)
    # A task that had received, and had handed its loop back before going on, gives the value back when it is destroyed.
    tasks = task = None
    gc.collect()
    for ch in channels:
        with suppress(weft.WouldBlock):
            while True:
                taken.append(ch.recv_nowait())
        ch.poison()  # who is still parked can never run, and never be met
    received = set(taken)
    for n in unknown:
        (given if n in received else kept).append(n)
    books.balance(channels, f"thrown away {loop}")


@pytest.mark.slow
def test_ends_that_come_and_go_lose_nothing(run):
    """Poison, close and vanishing receivers at random: what a receiver did not get is with its sender or was handed over."""

    async def main():
        rng = random.Random(SEED)
        for n in range(fewer(1500)):
            recovered, kept, given, taken = [], [], [], []
            ch = weft.Channel(rng.choice((0, 1, 3)), on_undelivered=recovered.append)
            tx, rx = ch.split()

            async def sender(tx, first, kept=kept, given=given):
                for value in range(first, first + 5):
                    try:
                        await tx.send(value)
                        given.append(value)
                    except weft.Closed as error:
                        kept.append(error.value)
                tx.close()

            async def receiver(rx, taken=taken):
                with rx, suppress(weft.Closed):
                    while True:
                        taken.append(await rx.recv())

            tasks = [asyncio.create_task(sender(tx.clone(), k * 100)) for k in range(3)]
            tasks += [asyncio.create_task(receiver(rx.clone())) for _ in range(2)]
            tx.close()
            for _ in range(1 + rng.randrange(3)):  # 1: one that never began is not in its `with` yet
                await asyncio.sleep(0)
            end = rng.randrange(4)
            if end == 0:
                ch.poison()
            elif end == 1:
                ch.close()
            elif end == 2:
                for task in tasks[3:]:
                    task.cancel()
                del task
            rx.close()
            await asyncio.wait(tasks)
            if end == 2:
                del tasks
                gc.collect(0)
                ch.poison()
            assert sorted(given) == sorted(taken + recovered), (n, end)
            assert sorted(given + kept) == [k * 100 + i for k in range(3) for i in range(5)], (n, end)
            s = ch.statistics()
            assert (s.sent, s.received, s.dropped, s.buffered) == (len(given), len(taken), len(recovered), 0)
        operations["ends"] += fewer(1500) * 15

    run(main, limit=100)


@pytest.mark.slow
def test_a_long_conversation_under_fire_loses_nothing(run):
    """The bulk: few parties, many messages, a cancel here and there."""
    books = Books()
    ch = weft.Channel(2)
    rounds = fewer(150_000)

    async def talker(n):
        given, _, kept, performed = books.party()
        k = 0
        while k < rounds:
            try:
                while k < rounds:
                    k += 1
                    await ch.send((n, k))
                    given.append((n, k))
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                kept.append((n, k))
        performed.append(rounds)

    async def listener():
        _, taken, _, performed = books.party()
        while True:
            try:
                while True:
                    taken.append(await ch.recv())
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
            except weft.Closed:
                break
        performed.append(len(taken))

    async def main():
        rng = random.Random(SEED)
        talkers = [asyncio.create_task(talker(n)) for n in range(2)]
        listeners = [asyncio.create_task(listener()) for _ in range(2)]
        await asyncio.sleep(0)  # a task cancelled before its first step never runs at all
        while not all(task.done() for task in talkers):
            rng.choice(talkers + listeners).cancel()
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
        ch.close()
        await asyncio.wait(talkers + listeners)
        for task in talkers + listeners:
            task.result()

    run(main, limit=100)
    books.balance([ch], "conversation")


@pytest.mark.slow
def test_together_they_were_more_than_a_million_operations():
    if len(operations) < 7:
        pytest.skip("not all storms ran")
    assert sum(operations.values()) > fewer(1_000_000), operations


# --- the model ------------------------------------------------------------------------------------------------------


class Model:
    """A channel in plain Python. A waiting operation is a list [kind, value or max, how it ended]."""

    def __init__(self, capacity, overflow):
        self.capacity, self.overflow = capacity, overflow
        self.buffer, self.senders, self.receivers = deque(), deque(), deque()
        self.end = None  # "closed", "poisoned", "no receivers"
        self.dropped, self.sent, self.received = [], 0, 0

    def send(self, op):
        """Settle a send, or park it."""
        if self.end:
            op[2] = self.end
        elif self.receivers:
            receiver = self.receivers.popleft()
            receiver[2] = ("got", [op[1]] if receiver[0] == "recv_many" else op[1])
            self.sent += 1
            self.received += 1
            op[2] = "sent"
        elif len(self.buffer) < self.capacity:
            self.buffer.append(op[1])
            self.sent += 1
            op[2] = "sent"
        elif self.overflow == "block":
            self.senders.append(op)
        elif self.overflow == "error":
            op[2] = "would block"
        else:
            self.sent += 1
            op[2] = "sent"
            if self.overflow == "drop_oldest":
                self.buffer.append(op[1])
                self.dropped.append(self.buffer.popleft())
            else:
                self.dropped.append(op[1])

    def take(self):
        """The next value, as [value], or []."""
        got = []
        if self.buffer:
            got = [self.buffer.popleft()]
            if self.senders:
                sender = self.senders.popleft()
                sender[2] = "sent"
                self.buffer.append(sender[1])
                self.sent += 1
        elif self.senders:
            sender = self.senders.popleft()
            sender[2] = "sent"
            self.sent += 1
            got = [sender[1]]
        self.received += len(got)
        return got

    def recv(self, op):
        many = op[0] == "recv_many"
        got = self.take()
        while many and got and len(got) < op[1] and (more := self.take()):
            got += more
        if got:
            op[2] = ("got", got if many else got[0])
        elif self.end:
            op[2] = self.end_of_receivers()
        else:
            self.receivers.append(op)

    def withdraw(self, op):
        self.senders = deque(waiting for waiting in self.senders if waiting is not op)
        self.receivers = deque(waiting for waiting in self.receivers if waiting is not op)
        op[2] = "cancelled"

    def close(self):
        self.end = self.end or "closed"
        while self.receivers:
            self.receivers.popleft()[2] = self.end

    def stop(self, end):
        """Poison, or the last receiver gone."""
        if self.end == "poisoned" or (end == "no receivers" and self.end == "no receivers"):
            return
        self.end = end
        self.dropped += self.buffer
        self.buffer.clear()
        while self.senders:
            self.senders.popleft()[2] = end
        while self.receivers:
            self.receivers.popleft()[2] = self.end_of_receivers()

    def end_of_receivers(self):
        return "closed" if self.end == "no receivers" else self.end  # who receives cannot lack receivers


ENDINGS = {
    weft.Poisoned: "poisoned",
    weft.NoReceivers: "no receivers",
    weft.Closed: "closed",
    weft.WouldBlock: "would block",
}


class Against(RuleBasedStateMachine):
    """Every rule does the same to the channel and to the model; after each they must tell the same story."""

    @initialize(
        capacity=st.integers(0, 3),
        overflow=st.sampled_from(["block", "block", "block", "drop_oldest", "drop_newest", "error"]),
    )
    def begin(self, capacity, overflow):
        if overflow == "drop_oldest":
            capacity = max(capacity, 1)
        self.world = make_world("asyncio")
        self.world.open()
        self.dropped = []
        self.ch = weft.Channel(capacity, overflow=overflow, on_undelivered=self.dropped.append)
        self.model = Model(capacity, overflow)
        self.pairs = []  # (the model's op, the party)
        self.ends = {"sender": [], "receiver": []}
        self.serial = 0
        self.cancelled = []

    def teardown(self):
        if hasattr(self, "world"):
            self.world.close()

    def now(self, call, op, act):
        """An operation that does not wait: it ends at once, in the channel as in the model."""
        act(op)
        if op[2] is None:
            self.model.withdraw(op)
            op[2] = "would block"
        try:
            got = call()
            ended = "sent" if op[0] == "send" else ("got", got)
        except weft.WeftError as error:
            ended = ENDINGS[type(error)]
            if op[0] == "send":
                assert error.value == op[1]
        assert ended == op[2]

    def start(self, op, make, act):
        party = self.world.start(self.performing, op[0], make)
        act(op)
        self.pairs.append((op, party))

    @staticmethod
    def performing(kind, make):
        try:
            got = yield make()
        except weft.WeftError as error:
            return ENDINGS[type(error)]
        return "sent" if kind == "send" else ("got", got)

    def value(self):
        self.serial += 1
        return self.serial

    @rule()
    def send_nowait(self):
        value = self.value()
        self.now(lambda: self.ch.send_nowait(value), ["send", value, None], self.model.send)

    @rule()
    def recv_nowait(self):
        self.now(self.ch.recv_nowait, ["recv", None, None], self.model.recv)

    @rule()
    def send(self):
        value = self.value()
        self.start(["send", value, None], lambda: self.ch.send(value), self.model.send)

    @rule(select=st.booleans())
    def recv(self, select):
        def make():
            if select:
                return weft.select(weft.never(), self.ch.recv()).map(lambda selected: selected.value)
            return self.ch.recv()

        self.start(["recv", None, None], make, self.model.recv)

    @rule(maximum=st.integers(1, 4))
    def recv_many(self, maximum):
        self.start(["recv_many", maximum, None], lambda: self.ch.recv_many(maximum), self.model.recv)

    @rule(which=st.randoms(use_true_random=False))
    @precondition(lambda self: any(op[2] is None for op, _ in self.pairs))
    def cancel(self, which):
        op, party = which.choice([pair for pair in self.pairs if pair[0][2] is None])
        party.cancel()
        self.model.withdraw(op)

    @rule()
    def close(self):
        self.ch.close()
        self.model.close()

    @rule(rarely=st.integers(0, 5))
    def poison(self, rarely):
        if rarely == 0:
            self.ch.poison()
            self.model.stop("poisoned")

    @rule(direction=st.sampled_from(["sender", "receiver"]))
    def open_end(self, direction):
        try:
            self.ends[direction].append(getattr(self.ch, direction)())
        except weft.Closed:
            assert self.model.end is not None

    # Where references are not counted, what is dropped is noticed some time.
    @rule(direction=st.sampled_from(["sender", "receiver"]), dropped=st.booleans() if COUNTED else st.just(False))
    def close_end(self, direction, dropped):
        if not self.ends[direction]:
            return
        end = self.ends[direction].pop()
        if not dropped:
            end.close()
        del end
        if not self.ends[direction]:
            if direction == "sender":
                self.model.close()
            elif self.model.end in (None, "closed"):
                self.model.stop("no receivers")

    @invariant()
    def they_tell_the_same_story(self):
        if not hasattr(self, "ch"):
            return
        until(lambda: all(party.done for op, party in self.pairs if op[2] is not None), "what ended in the model ends")
        for op, party in self.pairs:
            if op[2] is None:
                until(lambda: party.task is not None)  # noqa: B023
                assert not party.done
            elif op[2] == "cancelled":
                assert isinstance(party.error, asyncio.CancelledError)
            else:
                assert party.join() == op[2]
        self.pairs = [pair for pair in self.pairs if pair[0][2] is None]
        self.world.parties[:] = [party for _, party in self.pairs]
        until(lambda: parked(self.ch) == (len(self.model.senders), len(self.model.receivers)))
        s = self.ch.statistics()
        assert s.buffered == len(self.ch) == len(self.model.buffer)
        assert self.ch.closed == (self.model.end is not None)
        assert self.dropped == self.model.dropped
        assert (s.sent, s.received, s.dropped) == (self.model.sent, self.model.received, len(self.model.dropped))


Against.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
TestAgainstTheModel = pytest.mark.slow(Against.TestCase)
