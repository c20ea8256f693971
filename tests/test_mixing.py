"""L3, L4 and L5 where worlds mix: the two ends of one channel live in different worlds, or in two loops, runs or hubs of the
same one, and

- one of them is cancelled, at each step: parked; met, but not yet resumed; resumed and waiting for something else;
- the world of one of them ends, by a loop that is closed, a run of trio's that breaks down, or a thread that ends with
  its hub, while operations of all kinds are parked in it;
- one select has its partners in several worlds at once.

True in all of them: the other party sees nothing of it, each value is in one place, the channel works afterwards.

"Met, but not yet resumed" is held still: a callback occupies the loop, run or hub of the party to be cancelled until the
other party has met it, and cancels it then. A thread has no such callbacks; who meets it cancels it in the same breath.
A plain thread cannot be cancelled, it can only run out of patience; and neither it nor a group's child thread can end
while it is parked. What is promised at each step: docs/design/semantics.md, "Cancellation" and "Interpreters, threads,
fork".
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
import weft
from worlds import (
    CANCELLED,
    LIMIT,
    WORLDS,
    AnyioOnAsyncio,
    Asyncio,
    Gevent,
    GroupThreads,
    Trio,
    Within,
    collect,
    fewer,
    gevent,
    make_pair,
    make_world,
    missing,
    pairs,
    parked,
    perform,
    receiving,
    sending,
    until,
    until_parked,
)

HERE = [name for name in WORLDS if not missing(name)]


@contextmanager
def opened(*them):
    """The worlds, open, each once. One that has ended is left as it is."""
    with ExitStack() as stack:
        for world in dict.fromkeys(them):
            world.open()
            stack.callback(lambda world=world: getattr(world, "has_ended", False) or world.close())
        yield them


def wait_for(condition):
    """As `until`, for a callback that occupies a loop: nobody is stepped meanwhile."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.0001)


def expect_nothing(ch):
    """No value in it, and nobody waits to give one."""
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()


def expect_nobody(ch):
    """Nobody waits to receive, or would seem to."""
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("for nobody")
    assert parked(ch) == (0, 0)


# --- a cancel, at each step -----------------------------------------------------------------------------------------

CANCELS = [
    (pair, side)
    for pair in pairs(HERE)
    for side, name in zip(("sender", "receiver"), pair.split(">"), strict=True)
    if name != "threads"
]
PATIENCE = [
    (pair, side)
    for pair in pairs(HERE)
    for side, name in zip(("sender", "receiver"), pair.split(">"), strict=True)
    if name == "threads"
]
cancels = pytest.mark.parametrize(("mixture", "side"), [pytest.param(*case, id=", ".join(case)) for case in CANCELS])


class Encounter:
    """Two who meet on one channel: the victim, who is to be cancelled, and a peer.

    On rendezvous and buffered, by itself and in a select. A sender to a buffered channel finds it full.
    """

    def __init__(self, pair, side, capacity, chooses):
        here, there = pair
        self.sends = side == "sender"
        self.world, self.peers = (here, there) if self.sends else (there, here)
        self.channel = weft.Channel(capacity)
        self.rest = weft.Channel()  # what the victim waits for when it has resumed
        self.chooses = chooses
        self.saw = []
        self.held = threading.Event()
        self.before = ["before"] if self.sends and capacity else []
        for value in self.before:
            self.channel.send_nowait(value)

    @classmethod
    def each(cls, pair, side):
        for capacity in (0, 1):
            for chooses in (False, True):
                yield cls(pair, side, capacity, chooses)

    def op(self, value):
        """What the victim does; `value` when it sends."""
        op = self.channel.send(value) if self.sends else self.channel.recv()
        return weft.select(self.rest.recv(), op) if self.chooses else op

    def start(self):
        def victim():
            self.saw.append((yield self.op("v")))
            yield self.rest.recv()

        self.victim = self.world.start(victim)
        self.until_parked(1)

    def until_parked(self, count):
        """So many wait at the victim's side."""
        until_parked(self.channel, senders=count) if self.sends else until_parked(self.channel, receivers=count)

    def is_met(self):
        return parked(self.channel) == (0, 0)

    def answer(self):
        """What meets the victim."""
        return self.channel.recv() if self.sends else self.channel.send("v")

    def answer_nowait(self):
        return self.channel.recv_nowait() if self.sends else self.channel.send_nowait("v")

    def cancel_here(self):
        """Cancel the victim from within its own loop, run or hub: now, not when a callback comes to it."""
        if isinstance(self.world, Gevent):
            self.victim.task.kill(block=False)
        elif isinstance(self.world, AnyioOnAsyncio):
            self.victim.scope.cancel()
        else:
            self.victim.task.cancel()

    def cancel_around(self, meet):
        """Have it met, and cancel it before it resumes."""
        # gevent's kill is a request that the hub carries out: made before the two meet, it comes after.
        asked_before = isinstance(self.world, Gevent)
        if asked_before:
            self.cancel_here()
        result = meet()
        assert not self.saw or isinstance(self.world, GroupThreads)  # a thread may run when it likes
        if not asked_before:
            self.cancel_here()
        return result

    def hold(self):
        """A callback that occupies the victim's loop, run or hub until it has been met."""

        def be_met():
            self.held.set()
            wait_for(self.is_met)

        self.cancel_around(be_met)

    def meet_when_held(self):
        assert self.held.wait(LIMIT)
        return (yield self.answer())

    def meet_and_cancel(self):
        """For a victim that runs only when this party does not."""
        return self.cancel_around(self.answer_nowait)
        yield

    def expect_that_the_next_is_met(self, next_in_line):
        """The victim has gone; one who waited behind it, in the other world, meets one who comes."""
        self.until_parked(1)
        peer = self.peers.start(perform, self.channel.recv() if self.sends else self.channel.send("w"))
        got = peer.join(), next_in_line.join()
        if self.before:
            assert got == ("before", None) and self.channel.recv_nowait() == "w"
        else:
            assert got == (("w", None) if self.sends else (None, "w"))
        self.expect_that_all_goes_on(sent=1 + len(self.before))

    def expect_that_it_was_met(self, peer):
        """Met once, though it was cancelled; and the peer saw no more than that."""
        result = None if self.sends else "v"
        assert isinstance(self.victim.failure(), CANCELLED)
        assert self.saw == [weft.Selected(1, result) if self.chooses else result]
        expected = [*self.before, "v"] if self.sends else [None]
        assert peer.join() == expected.pop(0)
        if not self.sends:
            expected = []
        assert [self.channel.recv_nowait() for _ in expected] == expected
        self.expect_that_all_goes_on(sent=1 + len(self.before))

    def expect_that_all_goes_on(self, sent):
        """Nothing is left in the channel; its next two meet."""
        ch = self.channel
        expect_nothing(ch)
        assert parked(ch) == parked(self.rest) == (0, 0)
        s = ch.statistics()
        assert (s.sent, s.received, s.dropped) == (sent, sent, 0)
        tx, rx = (self.world, self.peers) if self.sends else (self.peers, self.world)
        sender, receiver = tx.start(sending, ch, "next"), rx.start(receiving, ch, 1)
        assert receiver.join() == ["next"]
        sender.join()


@contextmanager
def no_switch():
    """No thread takes the interpreter from another that does not let go of it (where there is one lock for all)."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(LIMIT)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@cancels
def test_l4_a_party_cancelled_while_parked_leaves_its_peer_to_the_next(mixture, side):
    with opened(*make_pair(mixture)) as both:
        for e in Encounter.each(both, side):
            e.start()
            next_in_line = e.peers.start(perform, e.channel.send("w") if e.sends else e.channel.recv())
            e.until_parked(2)
            e.victim.cancel()
            assert isinstance(e.victim.failure(), CANCELLED) and e.saw == []
            e.expect_that_the_next_is_met(next_in_line)


@cancels
def test_l4_a_party_cancelled_when_met_but_not_yet_resumed_completes_and_hears_of_it_next(mixture, side):
    with opened(*make_pair(mixture)) as both:
        for e in Encounter.each(both, side):
            e.start()
            if e.world is e.peers or isinstance(e.world, GroupThreads):
                with no_switch():
                    e.expect_that_it_was_met(e.peers.start(e.meet_and_cancel))
            else:
                peer = e.peers.start(e.meet_when_held)
                e.world.post(e.hold)
                e.expect_that_it_was_met(peer)


@cancels
def test_l4_a_party_cancelled_after_it_resumed_keeps_what_it_did(mixture, side):
    with opened(*make_pair(mixture)) as both:
        for e in Encounter.each(both, side):
            e.start()
            peer = e.peers.start(perform, e.answer())
            until(lambda: e.saw)  # noqa: B023
            until_parked(e.rest, receivers=1)
            e.victim.cancel()
            e.expect_that_it_was_met(peer)


@pytest.mark.parametrize(("mixture", "side"), [pytest.param(*case, id=", ".join(case)) for case in PATIENCE])
def test_l4_a_thread_whose_patience_ran_out_leaves_its_peer_to_the_next(mixture, side):
    with opened(*make_pair(mixture)) as both:
        for e in Encounter.each(both, side):
            victim = e.world.start(perform, Within(e.op("v"), 0.002))
            next_in_line = e.peers.start(perform, e.channel.send("w") if e.sends else e.channel.recv())
            assert isinstance(victim.failure(), TimeoutError)
            e.expect_that_the_next_is_met(next_in_line)


# --- a world that ends ----------------------------------------------------------------------------------------------


class ClosedLoop:
    """A loop that is closed while tasks are parked in it, and nobody cancels them."""

    has_ended = False

    def stop(self):
        if self.elsewhere:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(LIMIT)
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # it is what is meant
        self.loop.close()
        self.has_ended = True
        if not self.elsewhere:
            Asyncio.close(self)


class BrokenRun:
    """A run of trio's that breaks down: its clock fails, and nothing of it runs again."""

    has_ended = False

    def open(self):
        import trio

        class Clock(trio.abc.Clock):
            broken = False

            def start_clock(self):
                pass

            def current_time(self):
                if self.broken:
                    raise ZeroDivisionError
                return time.monotonic()

            def deadline_to_sleep_time(self, deadline):
                return deadline - self.current_time()

        def run():
            try:
                trio.run(self.main, clock=self.clock)
            except trio.TrioInternalError as error:
                self.ruins = error  # the tasks hang from its traceback

        self.clock, self.token = Clock(), None
        self.thread = threading.Thread(target=run, name="trio that breaks", daemon=True)
        self.thread.start()
        until(lambda: self.token is not None, "the run starts")

    def break_down(self):
        """Called in the run."""
        self.clock.broken = True

    def stop(self):
        self.post(self.break_down)
        self.wait_until_ended()

    def wait_until_ended(self):
        self.thread.join(LIMIT)
        assert not self.thread.is_alive() and self.ruins
        self.has_ended = True


class DestroyedHub(Gevent):
    """A thread that destroys its hub and ends, with greenlets parked in it."""

    has_ended = False
    destroys = True

    def main(self):
        self.hub = gevent.get_hub()
        self.over = gevent.event.Event()
        keeps = self.hub.loop.async_()
        keeps.start(lambda: None)  # a hub that watches nothing ends
        self.over.wait()
        keeps.close()
        if self.destroys:
            self.hub.destroy()

    def break_down(self):
        """Called in the hub."""
        self.over.set()

    def stop(self):
        self.post(self.break_down)
        self.wait_until_ended()

    def wait_until_ended(self):
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()
        self.has_ended = True


class LeftHub(DestroyedHub):
    """A thread that ends without a word to its hub."""

    destroys = False


# How each world can end with operations parked in it: a new world, elsewhere unless it is a loop that the test steps.
ENDINGS = {
    **{
        f"{name}, closed": type(f"Closed{WORLDS[name].__name__}", (ClosedLoop, WORLDS[name]), {})
        for name in HERE
        if issubclass(WORLDS[name], Asyncio)
    },
    **{
        f"{name}, broken down": type(f"Broken{WORLDS[name].__name__}", (BrokenRun, WORLDS[name]), {})
        for name in HERE
        if issubclass(WORLDS[name], Trio)
    },
    **({"gevent, destroyed": DestroyedHub, "gevent, left": LeftHub} if "gevent" in HERE else {}),
}
MIXED = [(ending, peers) for ending in ENDINGS for peers in HERE]


def is_stepped(name):
    return issubclass(WORLDS[name], Asyncio | Trio | Gevent)


def clear_away(dying):
    """What is left of a world that has ended. It makes noise: trio's own coroutines want to wait when they are closed."""
    vars(dying).clear()
    dying.has_ended = True
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        for _ in range(2):  # on PyPy the tasks of a run go one after the other
            collect()
    finally:
        sys.unraisablehook = before


@pytest.fixture
def doomed(request):
    """A world that can end, and one for the peers. "stepped": where the first is a loop, the test steps it."""
    ending, name, how = request.param
    kind = ENDINGS[ending]
    stepped = how == "stepped" and issubclass(kind, Asyncio)
    dying = kind(elsewhere=not stepped)
    with opened(dying, make_world(name, elsewhere=stepped and is_stepped(name))) as both:
        yield both
    clear_away(dying)


def doom(how):
    return pytest.mark.parametrize(
        "doomed", [pytest.param((*case, how), id=" > ".join(case)) for case in MIXED], indirect=True
    )


RECEIVES = {
    "recv": lambda ch: ch.recv(),
    "recv_many": lambda ch: ch.recv_many(2),
    "select": lambda ch: weft.select(weft.never(), ch.recv()),
    "selecting": lambda ch: weft.selecting(a=ch).__anext__(),
}
SENDS = {
    "send": lambda ch: ch.send("v"),
    "send_many": lambda ch: ch.send_many(["v", "kept by its sender"]),
    "select": lambda ch: weft.select(weft.never(), ch.send("v")),
}


def totals(ch):
    """sent, received, dropped; nothing is left, and nobody waits."""
    s = ch.statistics()
    assert (s.buffered, s.parked_senders, s.parked_receivers) == (0, 0, 0)
    return s.sent, s.received, s.dropped


@doom("elsewhere")
def test_l3_a_receive_whose_world_has_ended_is_passed_over(doomed):
    dying, there = doomed
    scenes = []
    for kind, receive in RECEIVES.items():
        alone, queue = weft.Channel(name=f"{kind}, alone"), weft.Channel(name=f"{kind}, in a queue")
        for ch in alone, queue:
            dying.start(perform, receive(ch))
            until_parked(ch, receivers=1)
        next_in_line = there.start(receiving, queue, 1)
        until_parked(queue, receivers=2)
        scenes.append((alone, queue, next_in_line))
    dying.stop()
    for alone, queue, next_in_line in scenes:
        tx = there.start(sending, queue, "v")
        assert next_in_line.join() == ["v"], queue
        tx.join()
        tx = there.start(sending, alone, "v")
        until_parked(alone, senders=1)
        assert alone.recv_nowait() == "v"
        tx.join()
        assert totals(alone) == totals(queue) == (1, 1, 0)


@doom("elsewhere")
def test_l3_the_value_of_a_send_whose_world_has_ended_is_received_by_whoever_comes_next(doomed):
    dying, there = doomed
    scenes = []
    for capacity in 0, 1:
        before = ["before"] * capacity
        for kind, send in SENDS.items():
            name = f"{kind}, capacity {capacity}, "
            alone, queue = weft.Channel(capacity, name=name + "alone"), weft.Channel(capacity, name=name + "in a queue")
            for ch in alone, queue:
                for value in before:
                    ch.send_nowait(value)
                dying.start(perform, send(ch))
                until_parked(ch, senders=1)
            next_in_line = there.start(sending, queue, "w")
            until_parked(queue, senders=2)
            scenes.append((alone, queue, before, next_in_line))
    dying.stop()
    for alone, queue, before, next_in_line in scenes:
        for ch, values in (alone, [*before, "v"]), (queue, [*before, "v", "w"]):
            assert there.start(receiving, ch, len(values)).join() == values, ch
            expect_nothing(ch)
            assert totals(ch) == (len(values), len(values), 0)
        next_in_line.join()


@doom("elsewhere")
def test_l3_a_select_on_both_sides_whose_world_has_ended_gives_what_it_sends_or_nothing(doomed):
    """It is met at most once. The first to come decides: one who would give to it passes it over, and it is gone."""
    dying, there = doomed

    def scene(who):
        a, b = weft.Channel(name=f"{who}, a"), weft.Channel(name=f"{who}, b")
        dying.start(perform, weft.select(a.recv(), b.send("w")))
        until_parked(a, receivers=1)
        until_parked(b, senders=1)
        return a, b

    given, taken, queue, facing, turned = map(scene, ("given", "taken", "queue", "facing", "turned"))
    next_to_take, next_to_give = there.start(receiving, queue[0], 1), there.start(sending, queue[1], "y")
    until_parked(queue[0], receivers=2)
    until_parked(queue[1], senders=2)
    dying.stop()

    a, b = given
    tx = there.start(sending, a, "x")
    until_parked(a, senders=1)
    expect_nothing(b)
    assert a.recv_nowait() == "x"
    tx.join()
    assert totals(a) == (1, 1, 0) and totals(b) == (0, 0, 0)

    a, b = taken
    assert there.start(receiving, b, 1).join() == ["w"]
    expect_nobody(a)
    expect_nothing(b)
    assert totals(a) == (0, 0, 0) and totals(b) == (1, 1, 0)

    a, b = queue
    tx = there.start(sending, a, "x")
    assert next_to_take.join() == ["x"]
    tx.join()
    assert there.start(receiving, b, 1).join() == ["y"]
    next_to_give.join()
    assert totals(a) == totals(b) == (1, 1, 0)

    a, b = facing
    assert there.start(perform, weft.select(b.recv(), a.send("x"), policy="priority")).join() == (0, "w")
    assert totals(a) == (0, 0, 0) and totals(b) == (1, 1, 0)

    a, b = turned
    party = there.start(perform, weft.select(a.send("x"), b.recv(), policy="priority"))
    until_parked(a, senders=1)
    until_parked(b, receivers=1)
    assert a.recv_nowait() == "x" and party.join() == (0, None)
    assert totals(a) == (1, 1, 0) and totals(b) == (0, 0, 0)


@doom("elsewhere")
def test_l3_those_who_wait_beside_a_party_whose_world_has_ended_are_told(doomed):
    """Of a close, of poison, of an event that is set: whoever does it, and whoever is in the queue before them."""
    dying, there = doomed
    closed, poisoned, event = weft.Channel(), weft.Channel(), weft.Event()
    for world in dying, there:
        parties = [
            world.start(perform, closed.recv()),
            world.start(perform, poisoned.send("v")),
            world.start(perform, event.wait()),
        ]
        until_parked(closed, receivers=1 if world is dying else 2)
        until_parked(poisoned, senders=1 if world is dying else 2)
    until(lambda: event._channel.statistics().parked_receivers == 2)
    dying.stop()

    def tell():
        closed.close()
        poisoned.poison()
        event.set()
        return "told"
        yield

    assert there.start(tell).join() == "told"
    receiver, sender, waiter = parties
    assert type(receiver.failure()) is weft.Closed
    error = sender.failure()
    assert type(error) is weft.Poisoned and error.value == "v"
    assert waiter.join() is True
    assert totals(closed) == totals(poisoned) == (0, 0, 0)


@doom("elsewhere")
def test_l3_nobody_meets_a_party_at_a_barrier_whose_world_has_ended(doomed):
    dying, there = doomed
    barrier = weft.Barrier(2)
    dying.start(perform, barrier.sync())
    until(lambda: barrier.waiting == 1)
    dying.stop()
    assert isinstance(there.start(perform, Within(barrier.sync(), 0.005)).failure(), TimeoutError)
    two = [there.start(perform, barrier.sync()) for _ in range(2)]
    assert sorted(party.join() for party in two) == [0, 1]
    assert barrier.waiting == 0


def until_done(world, *parties):
    """They have ended; nobody takes turns for it, but the one they live in."""

    def done():
        if not world.elsewhere:
            world.turn()
        return all(party.done for party in parties)

    wait_for(done)


@contextmanager
def stopped_before_they_resume(dying):
    """The block is carried out while nothing of the world runs; then it ends, before anything runs."""
    if not dying.elsewhere:
        yield
        dying.stop()
        return
    held, over = threading.Event(), threading.Event()

    def hold():
        if isinstance(dying, Gevent):  # the hub hears of it before it hears of those who were met
            dying.break_down()
        held.set()
        over.wait(LIMIT)
        if not isinstance(dying, Gevent):
            dying.break_down()

    dying.post(hold)
    assert held.wait(LIMIT)
    yield
    over.set()
    dying.wait_until_ended()


@doom("stepped")
def test_l3_what_was_committed_to_a_party_whose_world_then_ended_goes_back_to_the_front(doomed):
    dying, there = doomed
    scenes = []
    for kind, receive in RECEIVES.items():
        ch = weft.Channel(3, name=kind)
        dying.start(perform, receive(ch))
        until_parked(ch, receivers=1)
        scenes.append(ch)
    given = weft.Channel()
    dying.start(sending, given, "v")
    until_parked(given, senders=1)
    with stopped_before_they_resume(dying):
        peers = [there.start(sending, ch, 1, 2, 3) for ch in scenes]
        taker = there.start(receiving, given, 1)
        until_done(there, *peers, taker)
        assert all(parked(ch) == (0, 0) for ch in [*scenes, given])
    assert taker.join() == ["v"]
    clear_away(dying)
    for ch in scenes:
        assert there.start(receiving, ch, 3).join() == [1, 2, 3], ch
        s = ch.statistics()
        assert (s.sent, s.received, s.dropped, s.buffered) == (3, 3, 0, 0)
    expect_nothing(given)
    assert totals(given) == (1, 1, 0)


# --- one select, partners in several worlds -------------------------------------------------------------------------

PARTNERS = 4
ROUNDS = fewer(24)  # of each partner
# Neighbours are of different kinds: those in the list after a select's world are its partners.
IN_TURN = [
    name
    for name in (
        "asyncio", "trio", "gevent", "threads", "uvloop", "anyio_trio", "group_threads", "eager", "anyio", "processes"
    )
    if name in HERE
]  # fmt: skip


@pytest.fixture
def several(request):
    """The select's own world, then the partners'."""
    with ExitStack() as stack:
        made = []
        for name in request.param:
            # One loop, run or hub is stepped by the test.
            elsewhere = is_stepped(name) and any(is_stepped(other) for other in request.param[: len(made)])
            world = make_world(name, elsewhere)
            world.open()
            stack.callback(world.close)
            made.append(world)
        yield made


in_several_worlds = pytest.mark.parametrize(
    "several",
    [
        pytest.param(names, id=" > ".join(names))
        for n in range(len(IN_TURN))
        for names in [(IN_TURN[n:] + IN_TURN[:n])[: PARTNERS + 1]]
    ],
    indirect=True,
)


def case(ch, n, value):
    """The select's case for a partner: it receives from the even ones and sends to the odd ones."""
    return ch.send(value) if n % 2 else ch.recv()


def partner_of(ch, n, value):
    """The other side of that."""
    return ch.recv() if n % 2 else ch.send(value)


@in_several_worlds
def test_l5_a_select_parked_for_partners_in_several_worlds_meets_the_one_that_comes(several):
    """Each of them in its turn, and nothing is left of the select where it waited for the others."""
    own, *partners = several
    channels = [weft.Channel(name=f"to {n}") for n in range(len(partners))]
    for n, first in enumerate(partners):
        chooser = own.start(perform, weft.select(*(case(ch, i, "w") for i, ch in enumerate(channels))))
        for i, ch in enumerate(channels):
            until_parked(ch, senders=i % 2, receivers=1 - i % 2)
        peer = first.start(perform, partner_of(channels[n], n, "v"))
        assert chooser.join() == (n, None if n % 2 else "v")
        assert peer.join() == ("w" if n % 2 else None)
        assert all(parked(ch) == (0, 0) for ch in channels)
    assert [ch.statistics().sent for ch in channels] == [1] * len(channels)


@in_several_worlds
def test_l5_each_partner_of_a_select_in_several_worlds_is_met_exactly_once_for_each_of_its_values(several):
    own, *partners = several
    channels = [weft.Channel(n // 2, name=f"to {n}") for n in range(len(partners))]
    taken, given = [[] for _ in partners], [0] * len(partners)

    def chooser():
        left = len(partners) * ROUNDS
        while left:
            # What a case gives is numbered by how often it gave.
            cases = [
                case(ch, i, given[i]) if len(taken[i]) + given[i] < ROUNDS else None for i, ch in enumerate(channels)
            ]
            which, value = yield weft.select(*cases)
            if which % 2:
                given[which] += 1
            else:
                taken[which].append(value)
            left -= 1

    def partner(n):
        """Every second time by a select of its own, which faces the other."""
        got = []
        for k in range(ROUNDS):
            op = partner_of(channels[n], n, k)
            if k % 2:
                op = weft.select(weft.never(), op).map(lambda selected: selected.value)
            got.append((yield op))
        return got

    selects = own.start(chooser)
    peers = [world.start(partner, n) for n, world in enumerate(partners)]
    selects.join()
    for n, peer in enumerate(peers):
        assert peer.join() == (list(range(ROUNDS)) if n % 2 else [None] * ROUNDS)
        assert (taken[n], given[n]) == (([], ROUNDS) if n % 2 else (list(range(ROUNDS)), 0))
        assert totals(channels[n]) == (ROUNDS, ROUNDS, 0)
