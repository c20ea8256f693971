"""weft as a guest of gevent: `.wait()` parks one greenlet, and every other goes on.

The laws themselves are in test_laws.py, where "gevent" is one of the worlds. Here is what only greenlets have: the hub,
`kill`, `gevent.Timeout`, patched programs, and groups with greenlets for children.

The test is the main greenlet. `until` gives the hub a turn at a time, so a greenlet that was woken and has not run yet
is a state that a test can hold still. What would change this interpreter (patching, the order of imports, a hub that
ends) is tried in a new one.
"""

import asyncio
import contextvars
import gc
import itertools
import os
import threading
import time
import traceback
import weakref

import pytest
import weft
from worlds import LIMIT, collect, make_world, objects, parked, until, until_parked

gevent = pytest.importorskip("gevent")
greenlet = pytest.importorskip("greenlet")

pytest.importorskip("gevent.event")
pytest.importorskip("gevent.pool")
pytest.importorskip("gevent.threadpool")

import weft._gevent  # noqa: E402

HUGE = [10.0**9, 10.0**12, 1e300]  # seconds, of which no loop can count the last


class Mishap(Exception):
    """Raised by the tests."""


class Value:
    """A value that can be watched."""


@pytest.fixture(autouse=True)
def hub():
    """This thread's hub. Nothing stays parked in it after a test, and a test that would park for ever fails."""
    world = make_world("gevent")
    world.open()
    late = gevent.Timeout(LIMIT, AssertionError(f"the main greenlet is parked for more than {LIMIT:g} s"), ref=False)
    late.start()
    before = parked_in(world.hub)
    try:
        yield gevent.get_hub()
    finally:
        late.close()
        world.close()
    assert parked_in(world.hub) == before, "a greenlet is parked, or its wait was not ended properly"


def parked_in(hub):
    """How many of its greenlets are parked in weft."""
    home = getattr(hub, "_weft_home", None)
    return 0 if home is None else home.parked


def spawned(fn, *args):
    """A greenlet that has run until it switched for the first time. Its error is read from it, not printed."""

    began = []

    def quietly():
        began.append(True)
        try:
            return fn(*args)
        except (Exception, gevent.Timeout) as error:
            return error

    started = gevent.spawn(quietly)
    until(lambda: began)
    return started


def receiver(ch):
    """A greenlet that is parked on `ch.recv()`."""
    started = spawned(lambda: ch.recv().wait())
    until_parked(ch, receivers=1)
    return started


def joined(started):
    """The greenlet's result."""
    until(lambda: started.dead, f"{started!r} ends")
    return started.value


def in_thread(fn, *args):
    """`fn(*args)` in a thread of its own, and its result, or its error raised here. The hub of this one goes on."""
    outcome = []

    def main():
        try:
            outcome.append((fn(*args), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    until(lambda: not thread.is_alive(), f"{fn.__name__} ends in its thread")
    value, error = outcome.pop()
    if error is not None:
        raise error
    return value


# --- parking --------------------------------------------------------------------------------------------------------


def test_wait_parks_only_its_greenlet():
    ch, turns = weft.Channel(), []
    rx = receiver(ch)
    for n in range(3):
        spawned(turns.append, n)
    assert turns == [0, 1, 2] and not rx.dead
    ch.send("v").wait()
    assert joined(rx) == "v"


def test_the_main_greenlet_parks_like_any_other():
    ch, order = weft.Channel(), []

    def send():
        order.append("other")
        ch.send("v").wait()

    tx = gevent.spawn(send)
    assert ch.recv().wait() == "v"
    assert order == ["other"]
    tx.join()


def test_two_greenlets_of_one_hub_meet_in_order():
    ch = weft.Channel()
    tx = gevent.spawn(lambda: [ch.send(n).wait() for n in range(100)])
    rx = gevent.spawn(lambda: [ch.recv().wait() for _ in range(100)])
    assert joined(rx) == list(range(100)) and joined(tx) == [None] * 100


def test_what_can_be_done_at_once_does_not_switch():
    ch, switched = weft.Channel(1), []
    other = gevent.spawn(switched.append, True)
    ch.send("v").wait()
    assert ch.recv().wait() == "v" and weft.always(1).wait() == 1
    assert switched == []
    other.join()


def exchanged_once():
    ch = weft.Channel()
    rx = receiver(ch)
    ch.send_nowait("v")
    return joined(rx)


def stepped_clock(monkeypatch, seconds):
    """Each look at the clock finds it so many seconds on."""
    start, steps = time.monotonic(), itertools.count(1)
    monkeypatch.setattr(weft._gevent, "monotonic", lambda: start + next(steps) * seconds)


def exchanged(messages, monkeypatch, seconds):
    """How many turns another greenlet of the hub has while two exchange so many messages."""
    ch, turns = weft.Channel(), []
    stepped_clock(monkeypatch, seconds)

    def turn():
        while not rx.dead:
            turns.append(True)
            gevent.sleep(0)

    def send():
        for n in range(messages):
            ch.send(n).wait()
        ch.close()

    rx = gevent.spawn(lambda: list(ch))
    tx, other = gevent.spawn(send), gevent.spawn(turn)
    gevent.joinall([rx, tx, other], timeout=LIMIT)
    assert rx.value == list(range(messages))
    return len(turns)


def test_who_parks_hands_over_to_who_was_met_without_a_turn_of_the_hub(monkeypatch):
    assert exchanged(500, monkeypatch, seconds=0) < 10


def test_l13_two_chatty_greenlets_leave_the_hub_to_others_after_each_slice(monkeypatch):
    assert exchanged(500, monkeypatch, seconds=0.0005) > 50


@pytest.mark.parametrize("what", ["a timer", "a descriptor"])
def test_l13_two_chatty_greenlets_do_not_keep_the_loop_from_its_watchers(what, pipe, monkeypatch):
    """gevent makes fifty calls before it looks at its clock; a slice of ours is one."""
    stepped_clock(monkeypatch, 0.0005)
    ch, over, sent = weft.Channel(), [], []
    os.write(pipe[1], b"x")

    def watch():
        if what == "a timer":
            gevent.get_hub().wait(gevent.get_hub().loop.timer(0))
        else:
            gevent.get_hub().wait(gevent.get_hub().loop.io(pipe[0], 1))
        over.append(True)

    def send():
        while not over and len(sent) < 10_000:
            sent.append(True)
            ch.send("v").wait()
        ch.close()

    started = [gevent.spawn(lambda: list(ch)), gevent.spawn(send), gevent.spawn(watch)]
    gevent.joinall(started, timeout=LIMIT)
    assert over and len(sent) < 50


def test_a_greenlet_that_wants_to_know_is_told_when_it_is_switched_out(monkeypatch):
    """gevent's rule for whoever switches to the hub; its backdoor goes by it."""
    stepped_clock(monkeypatch, seconds=0)
    assert exchanged_once() == "v"  # begins a slice
    ch, told = weft.Channel(), []

    class Wants(gevent.Greenlet):
        def switch_out(self):
            told.append(parked(ch))

    tx = Wants(lambda: [ch.send(n).wait() for n in range(2)])
    rx = receiver(ch)
    tx.start()
    joined(rx)
    assert told == [(1, 0)]
    assert ch.recv().wait() == 1
    joined(tx)


def test_an_error_of_a_raw_greenlet_keeps_nobody_else_from_going_on(capfd):
    """It is raised in the hub, where it switched to the greenlet."""
    ch = weft.Channel(5)

    def fail():
        ch.recv().wait()
        raise Mishap

    gevent.spawn_raw(fail)
    until_parked(ch, receivers=1)
    others = [spawned(lambda: ch.recv().wait()) for _ in range(2)]
    until_parked(ch, receivers=3)
    for n in range(3):
        ch.send_nowait(n)
    assert [joined(other) for other in others] == [1, 2]
    assert "Mishap" in capfd.readouterr().err


def test_a_timeout_takes_nothing():
    ch = weft.Channel(name="quiet")
    with pytest.raises(TimeoutError, match=r"quiet.*not met within 0.001 s"):
        ch.recv().wait(0.001)
    assert parked(ch) == (0, 0)
    rx = spawned(lambda: ch.recv().wait(0.001))
    assert type(joined(rx)) is TimeoutError and parked(ch) == (0, 0)


def test_a_timeout_of_a_send_gives_nothing():
    ch = weft.Channel()
    tx = spawned(lambda: ch.send("v").wait(0.001))
    assert type(joined(tx)) is TimeoutError and parked(ch) == (0, 0)
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()


def test_a_timeout_of_zero_never_switches():
    ch, switched = weft.Channel(), []
    other = gevent.spawn(switched.append, True)
    with pytest.raises(TimeoutError):
        ch.recv().wait(0)
    assert switched == [] and parked(ch) == (0, 0)
    other.join()


@pytest.mark.parametrize("seconds", [*HUGE, float("inf")])
def test_a_huge_timeout_waits(seconds):
    ch = weft.Channel()
    rx = spawned(lambda: ch.recv().wait(seconds))
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert joined(rx) == "v"


@pytest.mark.parametrize("seconds", [*HUGE, float("inf")])
def test_a_huge_delay_in_a_select_waits(seconds):
    ch = weft.Channel()
    rx = spawned(lambda: weft.select(ch.recv(), weft.after(seconds)).wait())
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert joined(rx) == (0, "v")


def test_timeouts_end_in_their_own_order():
    ended = []

    def give_up(seconds):
        try:
            weft.never().wait(seconds)
        except TimeoutError:
            ended.append(seconds)

    gevent.joinall([gevent.spawn(give_up, seconds) for seconds in (0.03, 0.001, 0.015)])
    assert ended == [0.001, 0.015, 0.03]


def test_a_value_that_comes_with_the_timeout_is_taken_or_left_never_lost():
    for seconds in [0.0005 * n for n in range(1, 8)]:
        ch, sent = weft.Channel(), []
        rx = spawned(lambda ch=ch, seconds=seconds: ch.recv().wait(seconds))
        late = time.monotonic() + seconds
        while time.monotonic() < late:
            pass
        try:
            ch.send_nowait("v")
            sent.append("v")
        except weft.WouldBlock:
            pass
        got = joined(rx)
        assert [got] == sent or (type(got) is TimeoutError and not sent)


def test_parked_greenlets_are_served_first_come_first_served():
    ch, got = weft.Channel(), []

    def take(n):
        got.append((n, ch.recv().wait()))

    takers = []
    for n in range(4):
        takers.append(spawned(take, n))
        until_parked(ch, receivers=n + 1)
    for n in range(4):
        ch.send_nowait(n)
    gevent.joinall(takers)
    assert got == [(n, n) for n in range(4)]


# --- kill and gevent.Timeout ----------------------------------------------------------------------------------------


def test_a_killed_recv_has_taken_nothing():
    ch = weft.Channel()
    rx = receiver(ch)
    rx.kill()
    assert type(rx.value) is gevent.GreenletExit and parked(ch) == (0, 0)
    tx = spawned(lambda: ch.send("v").wait())
    assert ch.recv().wait() == "v"
    tx.join()


def test_a_killed_send_has_given_nothing():
    ch = weft.Channel()
    tx = spawned(lambda: ch.send("v").wait())
    until_parked(ch, senders=1)
    tx.kill()
    assert parked(ch) == (0, 0)
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()


def test_a_killed_select_leaves_all_its_channels():
    a, b = weft.Channel(), weft.Channel()
    waiting = spawned(lambda: weft.select(a.recv(), b.send("v"), weft.after(60)).wait())
    until_parked(a, receivers=1)
    waiting.kill()
    assert parked(a) == parked(b) == (0, 0)


def test_kill_passes_over_to_who_waits_next():
    ch = weft.Channel()
    first, second = spawned(lambda: ch.recv().wait()), spawned(lambda: ch.recv().wait())
    until_parked(ch, receivers=2)
    first.kill()
    ch.send_nowait("v")
    assert joined(second) == "v"


def test_killed_before_its_first_step_it_performs_nothing():
    ch = weft.Channel(1)
    tx = gevent.spawn(lambda: ch.send("v").wait())
    tx.kill()
    assert len(ch) == 0


def test_a_kill_with_an_error_raises_that():
    ch = weft.Channel()
    rx = receiver(ch)
    rx.kill(Mishap)
    assert type(rx.value) is Mishap and parked(ch) == (0, 0)


def test_a_raised_gevent_timeout_takes_nothing():
    ch = weft.Channel()
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.001) as timeout:
        ch.recv().wait()
    assert caught.value is timeout and parked(ch) == (0, 0)


def test_a_silent_gevent_timeout_takes_nothing():
    ch, ended = weft.Channel(), False
    with gevent.Timeout(0.001, False):
        ch.recv().wait()
        ended = True
    assert not ended and parked(ch) == (0, 0)


def test_a_gevent_timeout_with_an_error_of_its_own_takes_nothing():
    ch = weft.Channel()
    with pytest.raises(Mishap), gevent.Timeout(0.001, Mishap):
        ch.recv().wait()
    assert parked(ch) == (0, 0)


def test_with_timeout_takes_an_operations_wait():
    ch = weft.Channel()
    assert gevent.with_timeout(0.001, ch.recv().wait, timeout_value="late") == "late"
    assert parked(ch) == (0, 0)


def test_the_inner_of_two_timeouts_comes_first():
    ch = weft.Channel()
    with gevent.Timeout(60), pytest.raises(TimeoutError):
        ch.recv().wait(0.001)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
        ch.recv().wait(60)
    assert parked(ch) == (0, 0)


def test_a_timeout_around_a_send_gives_nothing():
    ch = weft.Channel()
    with gevent.Timeout(0.001, False):
        ch.send("v").wait()
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize("side", ["recv", "send"])
def test_a_kill_after_the_commit_comes_at_the_next_switch(hub, side):
    ch, steps = weft.Channel(), []

    def work():
        try:
            steps.append(ch.recv().wait() if side == "recv" else ch.send("v").wait())
            steps.append("no switch yet")
            gevent.sleep(0)
            steps.append("too far")
        except gevent.GreenletExit:
            steps.append("killed")
            raise

    worker = spawned(work)
    until(lambda: 1 in parked(ch))
    worker.kill(block=False)  # is thrown before the wake-up, which is posted only now:
    if side == "recv":
        ch.send_nowait("v")
    else:
        assert ch.recv_nowait() == "v"
    joined(worker)
    assert steps == ["v" if side == "recv" else None, "no switch yet", "killed"]


def test_a_kill_after_the_commit_makes_the_next_operation_take_nothing():
    first, second = weft.Channel(), weft.Channel()
    got = []

    def work():
        got.append(first.recv().wait())
        got.append(second.recv().wait())

    worker = spawned(work)
    until_parked(first, receivers=1)
    worker.kill(block=False)
    first.send_nowait("v")
    joined(worker)
    assert got == ["v"] and parked(second) == (0, 0)


def test_kill_that_waits_returns_when_a_late_kill_was_delivered():
    ch, got = weft.Channel(), []

    def work():
        got.append(ch.recv().wait())
        weft.never().wait()

    worker = spawned(work)
    until_parked(ch, receivers=1)
    gevent.get_hub().loop.run_callback(ch.send_nowait, "v")
    worker.kill()
    assert worker.dead and got == ["v"]


def test_a_greenlet_that_ends_without_another_switch_is_not_thrown_at(hub, capfd):
    ch = weft.Channel()
    worker = receiver(ch)
    worker.kill(block=False)
    ch.send_nowait("v")
    assert joined(worker) == "v"
    gevent.sleep(0)
    assert capfd.readouterr().err == ""


def test_the_main_greenlet_gets_what_came_too_late_at_its_next_switch(hub):
    ch = weft.Channel()
    other, me = weft.Channel(), greenlet.getcurrent()

    def meet_and_throw():
        ch.send_nowait("v")
        me.throw(Mishap)

    hub.loop.run_callback(meet_and_throw)
    assert ch.recv().wait() == "v"
    with pytest.raises(Mishap):
        other.recv().wait()
    assert parked(other) == (0, 0)


any_timeout = pytest.mark.parametrize("error", [None, False, Mishap], ids=["raised", "silent", "with an error"])


def timed_out_too_late(hub, error, work):
    """How a greenlet ends that does `work(timeout, recv)` in a timeout's block, when its time is up after its `recv` was
    met."""
    ch, timeout = weft.Channel(), gevent.Timeout(60, error)
    worker = spawned(work, timeout, lambda: ch.recv().wait())
    until_parked(ch, receivers=1)
    # What the timeout's timer does, at a time we choose: at the hub's next callback.
    raised = error if isinstance(error, type) else timeout
    hub.loop.run_callback(timeout._on_expiration, worker, raised)
    ch.send_nowait("v")
    return joined(worker)


@any_timeout
def test_a_timeout_after_the_commit_whose_block_was_left_is_not_delivered(hub, error):
    steps = []

    def work(timeout, recv):
        with timeout:
            steps.append(recv())
        gevent.sleep(0)
        gevent.sleep(0.001)
        steps.append("undisturbed")

    timed_out_too_late(hub, error, work)
    assert steps == ["v", "undisturbed"]


@any_timeout
def test_a_timeout_after_the_commit_whose_block_goes_on_comes_at_the_next_switch(hub, error):
    steps = []

    def work(timeout, recv):
        with timeout:
            steps.append(recv())
            gevent.sleep(60)
        steps.append("silenced")

    ended = timed_out_too_late(hub, error, work)
    assert steps == ["v", "silenced"] if error is False else steps == ["v"]
    assert ended is None if error is False else isinstance(ended, Mishap if error else gevent.Timeout)


# --- every operation ------------------------------------------------------------------------------------------------


def test_timers_are_kept_by_the_hub():
    began = time.monotonic()
    due = weft.after(0.01).wait()
    assert began + 0.01 <= due <= time.monotonic()
    assert weft.at(due).wait() == due
    assert weft.sleep(0.001).wait() > due


def test_a_select_gives_up_at_its_timer():
    ch = weft.Channel()
    case, _ = weft.select(news=ch.recv(), late=weft.after(0.001), later=weft.after(60)).wait()
    assert case == "late" and parked(ch) == (0, 0)


def test_ticks_come_while_others_run():
    with weft.tick(0.001) as ticks:
        times = [ticks.recv().wait() for _ in range(3)]
        assert times == sorted(times)
        rx = spawned(lambda: [when for when, _ in zip(ticks, range(3), strict=False)])
        assert len(joined(rx)) == 3


def test_a_descriptor_that_becomes_readable_wakes_only_its_greenlet(pipe):
    r, w = pipe
    rx = spawned(lambda: weft.readable(r).wait())
    gevent.sleep(0)
    assert not rx.dead
    os.write(w, b"x")
    assert joined(rx) == r
    assert weft.writable(w).wait() == w


def test_a_descriptor_that_becomes_writable_wakes_its_greenlet(sockets):
    a, b = sockets
    a.setblocking(False)
    try:
        while True:
            a.send(b"x" * 65536)
    except BlockingIOError:
        pass
    tx = spawned(lambda: weft.writable(a).wait())
    gevent.sleep(0)
    assert not tx.dead
    b.setblocking(False)
    while not tx.dead:
        try:
            b.recv(1 << 20)
        except BlockingIOError:
            pass
        gevent.sleep(0)
    assert joined(tx) is a


def test_a_select_over_a_descriptor_and_a_channel_takes_what_comes(pipe):
    r, w = pipe
    ch = weft.Channel()

    def choose():
        return weft.select(fd=weft.readable(r), ch=ch.recv(), late=weft.after(60)).wait()

    waiting = spawned(choose)
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert joined(waiting) == ("ch", "v")
    waiting = spawned(choose)
    until_parked(ch, receivers=1)
    os.write(w, b"x")
    assert joined(waiting) == ("fd", r) and parked(ch) == (0, 0)


def test_two_greenlets_watch_one_descriptor(pipe):
    r, w = pipe
    both = [spawned(lambda: weft.readable(r).wait()) for _ in range(2)]
    both[0].kill()
    os.write(w, b"x")
    assert joined(both[1]) == r


def test_for_goes_on_until_the_channel_is_closed():
    ch = weft.Channel()
    rx = spawned(lambda: list(ch))
    with ch:
        for n in range(3):
            ch.send(n).wait()
    assert joined(rx) == [0, 1, 2]


def test_a_batch_comes_in_one_piece():
    ch = weft.Channel(4)
    rx = spawned(lambda: ch.recv_many(8).wait())
    until_parked(ch, receivers=1)
    assert ch.send_many([1, 2, 3]).wait() >= 1
    assert joined(rx)[0] == 1


def test_selecting_serves_all_until_all_are_closed():
    a, b = weft.Channel(), weft.Channel()

    def feed(ch, values):
        with ch:
            for value in values:
                ch.send(value).wait()

    feeders = [gevent.spawn(feed, a, range(3)), gevent.spawn(feed, b, "xyz")]
    got = [(case, value) for case, value in weft.selecting(a=a, b=b)]
    assert [v for c, v in got if c == "a"] == [0, 1, 2] and [v for c, v in got if c == "b"] == ["x", "y", "z"]
    gevent.joinall(feeders)


def test_a_killed_selecting_takes_nothing():
    a, b = weft.Channel(), weft.Channel()
    waiting = spawned(lambda: next(weft.selecting(a, b)))
    until_parked(a, receivers=1)
    waiting.kill()
    del waiting
    gc.collect()
    assert parked(a) == parked(b) == (0, 0)


def test_an_event_wakes_all_who_wait():
    event = weft.Event()
    waiting = [spawned(lambda: event.wait().wait()) for _ in range(3)]
    event.set()
    assert [joined(one) for one in waiting] == [True] * 3


def test_a_barrier_lets_greenlets_and_a_thread_go_together():
    barrier = weft.Barrier(3)
    two = [spawned(lambda: barrier.sync().wait()) for _ in range(2)]
    until(lambda: barrier.waiting == 2)
    assert in_thread(lambda: barrier.sync().wait()) == 2
    assert sorted(joined(one) for one in two) == [0, 1]


def test_who_gives_up_at_a_barrier_has_not_come():
    barrier = weft.Barrier(2)
    one = spawned(lambda: barrier.sync().wait())
    until(lambda: barrier.waiting == 1)
    one.kill()
    assert barrier.waiting == 0


def test_close_and_poison_reach_parked_greenlets():
    ch = weft.Channel()
    rx = receiver(ch)
    ch.close()
    assert type(joined(rx)) is weft.Closed
    ch = weft.Channel()
    tx = spawned(lambda: ch.send("v").wait())
    until_parked(ch, senders=1)
    ch.poison()
    error = joined(tx)
    assert type(error) is weft.Poisoned and error.value == "v"


def test_the_last_receiver_gone_tells_a_parked_greenlet():
    tx, rx = weft.Channel().split()
    sender = spawned(lambda: tx.send("v").wait())
    until(lambda: tx.statistics().parked_senders == 1)
    rx.close()
    assert type(joined(sender)) is weft.NoReceivers


def test_map_runs_in_the_greenlet_that_performs():
    ch = weft.Channel()
    rx = spawned(lambda: ch.recv().map(lambda value: (value, greenlet.getcurrent())).wait())
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert joined(rx) == ("v", rx)


def test_selects_of_two_greenlets_meet():
    a, b = weft.Channel(), weft.Channel()
    one = spawned(lambda: weft.select(a.send("v"), b.recv()).wait())
    until_parked(a, senders=1)
    assert weft.select(a.recv(), b.send("w")).wait() in ((0, "v"), (1, None))
    assert joined(one) in ((0, None), (1, "w"))


def test_one_select_never_meets_itself():
    ch = weft.Channel()
    with pytest.raises(TimeoutError):
        weft.select(ch.send("v"), ch.recv()).wait(0.001)


# --- the hub --------------------------------------------------------------------------------------------------------


def test_the_hub_goes_on_while_another_thread_may_come(python):
    out = python(
        """
        import threading
        import gevent, weft

        ch = weft.Channel()
        def send():
            while not ch.statistics().parked_receivers:
                pass
            ch.send("from a thread").wait()
        thread = threading.Thread(target=send)
        thread.start()
        print(ch.recv().wait())  # the hub has nothing else to watch: LoopExit, if weft did not hold it
        thread.join()
        """
    )
    assert out == "from a thread\n"


def test_a_greenlet_that_waits_holds_the_hub_too(python):
    out = python(
        """
        import threading
        import gevent, weft

        ch = weft.Channel()
        rx = gevent.spawn(lambda: ch.recv().wait())
        def send():
            while not ch.statistics().parked_receivers:
                pass
            ch.send("v").wait()
        threading.Thread(target=send).start()
        gevent.joinall([rx], raise_error=True)
        print(rx.value)
        """
    )
    assert out == "v\n"


def test_when_nobody_waits_any_more_the_hub_is_not_held(python):
    out = python(
        """
        import gevent, gevent.event, weft

        ch = weft.Channel()
        rx = gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        rx.kill()
        try:
            ch.recv().wait(0.001)
        except TimeoutError:
            pass
        try:
            gevent.event.Event().wait()
        except gevent.exceptions.LoopExit:
            print("LoopExit, as ever")
        """
    )
    assert out == "LoopExit, as ever\n"


def test_a_callback_of_the_hub_cannot_wait(hub):
    ch, outcomes = weft.Channel(name="elsewhere"), []

    def callback():
        for op in (ch.recv(), ch.send("v"), weft.select(ch.recv(), weft.after(60)), weft.after(60)):
            try:
                outcomes.append(op.wait())
            except weft.BlockingInLoopError as error:
                outcomes.append(error)

    hub.loop.run_callback(callback)
    until(lambda: len(outcomes) == 4)
    assert all(type(outcome) is weft.BlockingInLoopError for outcome in outcomes), outcomes
    assert "hub" in str(outcomes[0]) and "elsewhere" in str(outcomes[0])
    assert parked(ch) == (0, 0)


def test_a_timer_of_the_hub_cannot_wait(hub):
    ch, outcomes = weft.Channel(), []

    def callback():
        try:
            outcomes.append(ch.recv().wait(1))
        except weft.BlockingInLoopError as error:
            outcomes.append(error)

    with hub.loop.timer(0.001) as timer:
        timer.start(callback)
        until(lambda: outcomes)
    assert type(outcomes[0]) is weft.BlockingInLoopError and parked(ch) == (0, 0)


def test_a_callback_of_the_hub_does_what_can_be_done_at_once(hub):
    ch, outcomes = weft.Channel(1), []

    def callback():
        outcomes.append(ch.send("v").wait())
        outcomes.append(ch.recv().wait())
        try:
            ch.recv().wait(0)
        except TimeoutError:
            outcomes.append("late")

    hub.loop.run_callback(callback)
    until(lambda: len(outcomes) == 3)
    assert outcomes == [None, "v", "late"]


def test_joinall_pool_and_link_see_ordinary_greenlets():
    ch, out = weft.Channel(), weft.Channel(64)
    pool = gevent.pool.Pool(3)

    def double():
        for value in ch:
            out.send(value * 2).wait()

    workers = [pool.spawn(double) for _ in range(3)]
    ended = []
    workers[0].link(lambda worker: ended.append(worker.successful()))
    with ch:
        for n in range(10):
            ch.send(n).wait()
    assert pool.join(LIMIT)
    gevent.joinall(workers, raise_error=True)
    until(lambda: ended)
    assert ended == [True]
    assert sorted(out.recv_many(64).wait()) == [n * 2 for n in range(10)]


def test_pool_map_over_operations():
    ch = weft.Channel(3)
    ch.send_many([1, 2, 3]).wait()
    assert sorted(gevent.pool.Pool(2).map(lambda _: ch.recv().wait(), range(3))) == [1, 2, 3]


def test_gevent_events_and_weft_wait_side_by_side():
    event, ch = gevent.event.Event(), weft.Channel()

    def relay():
        event.wait()
        ch.send("v").wait()

    gevent.spawn(relay)
    gevent.spawn(event.set)
    assert ch.recv().wait() == "v"


def test_hubs_of_several_threads_share_a_channel():
    jobs, results = weft.Channel(2), weft.Channel()

    def hub_thread():
        tx = results.sender()

        def work():
            for job in jobs:
                tx.send(job * job).wait()

        try:
            gevent.joinall([gevent.spawn(work) for _ in range(3)], raise_error=True)
        finally:
            tx.close()
            gevent.get_hub().destroy()

    held = results.sender()
    threads = [threading.Thread(target=hub_thread, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()

    def feed():
        with jobs:
            for n in range(50):
                jobs.send(n).wait()

    feeder = gevent.spawn(feed)
    got = [results.recv().wait() for _ in range(50)]
    assert sorted(got) == [n * n for n in range(50)]
    until(lambda: feeder.dead and not any(thread.is_alive() for thread in threads))
    held.close()


@pytest.mark.parametrize("destroyed", [False, True], ids=["left alone", "destroyed"])
def test_a_thread_that_ends_with_parked_greenlets_takes_no_value_along(destroyed):
    ch = weft.Channel()

    def abandon():
        gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        assert parked(ch) == (0, 1)
        if destroyed:
            gevent.get_hub().destroy()

    in_thread(abandon)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")
    rx = receiver(ch)
    ch.send_nowait("w")
    assert joined(rx) == "w"


def test_a_thread_that_is_ending_takes_no_value_along():
    """What a thread has stored is finalized as it ends, in order or (CPython 3.13) in reverse. The last of it holds that
    moment still: greenlet learns only later, from the system, that the thread has ended, and later than
    `Thread.is_alive` says so."""
    ch, ending, tried = weft.Channel(), threading.Event(), threading.Event()
    first, last, finalized = threading.local(), threading.local(), []

    class Stored:
        def __del__(self):
            finalized.append(self)
            if len(finalized) == 2:
                ending.set()
                tried.wait(LIMIT)

    def abandon():
        first.stored = Stored()
        gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        last.stored = Stored()

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    until(ending.is_set)
    try:
        with pytest.raises(weft.WouldBlock):
            ch.send_nowait("v")
    finally:
        tried.set()
    until(lambda: not thread.is_alive())


@pytest.mark.parametrize("sender", ["the thread itself", "another thread"])
@pytest.mark.parametrize("case", ["recv", "recv_many", "select", "selecting"])
def test_what_a_greenlet_was_given_goes_back_when_its_thread_ends_before_it_runs_again(sender, case):
    ch, other = weft.Channel(), weft.Channel()
    perform = {
        "recv": lambda: ch.recv().wait(),
        "recv_many": lambda: ch.recv_many(5).wait(),
        "select": lambda: weft.select(other.recv(), ch.recv(), weft.after(60)).wait(),
        "selecting": lambda: next(weft.selecting(ch, other)),
    }[case]
    parked_there, given = threading.Event(), threading.Event()

    def abandon():
        gevent.spawn(perform)
        gevent.sleep(0)
        if sender == "the thread itself":
            ch.send_nowait("v")
            given.set()
        parked_there.set()
        given.wait()  # not for the hub

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    assert parked_there.wait(LIMIT)
    if sender == "another thread":
        ch.send_nowait("v")
        given.set()
    until(lambda: not thread.is_alive())
    assert ch.recv_nowait() == "v"
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()


def test_what_goes_back_when_a_thread_ends_is_received_by_whoever_waits():
    ch, met, waits = weft.Channel(), threading.Event(), threading.Event()

    def abandon():
        gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        ch.send_nowait("v")
        met.set()
        waits.wait()

    thread = threading.Thread(target=abandon, daemon=True)
    thread.start()
    assert met.wait(LIMIT)
    rx = receiver(ch)
    waits.set()
    assert joined(rx) == "v"
    until(lambda: not thread.is_alive())


def test_a_thread_that_ends_with_a_parked_sender_takes_its_value_along_or_gives_it():
    ch = weft.Channel()

    def abandon():
        gevent.spawn(lambda: ch.send("v").wait())
        gevent.sleep(0)

    in_thread(abandon)
    try:
        assert ch.recv_nowait() == "v"
    except weft.WouldBlock:
        pass
    assert parked(ch) == (0, 0)


def test_a_thread_whose_hub_was_destroyed_gets_a_new_one():
    ch = weft.Channel()

    def twice():
        got = []
        for _ in range(2):
            gevent.spawn(lambda: ch.send("v").wait())
            got.append(ch.recv().wait())
            gevent.sleep(0)
            gevent.get_hub().destroy()
        return got

    assert in_thread(twice) == ["v", "v"]


destroys_loop = pytest.mark.parametrize("destroy_loop", [False, True], ids=["its loop left", "its loop too"])


@destroys_loop
@pytest.mark.parametrize("sender", ["the thread itself", "another thread"])
@pytest.mark.parametrize("case", ["recv", "recv_many", "select", "selecting"])
def test_what_a_greenlet_was_given_goes_back_when_its_hub_is_destroyed(case, sender, destroy_loop):
    ch, other = weft.Channel(), weft.Channel()
    perform = {
        "recv": lambda: ch.recv().wait(),
        "recv_many": lambda: ch.recv_many(5).wait(),
        "select": lambda: weft.select(other.recv(), ch.recv(), weft.after(60)).wait(),
        "selecting": lambda: next(weft.selecting(ch, other)),
    }[case]

    def destroy():
        gevent.spawn(perform)
        gevent.sleep(0)
        if sender == "the thread itself":
            ch.send_nowait("v")
        else:
            thread = threading.Thread(target=ch.send_nowait, args=("v",))
            thread.start()
            thread.join()  # not by the hub, which would let the receiver run
        gevent.get_hub().destroy(destroy_loop)
        collect()
        assert parked(other) == (0, 0)
        got = ch.recv_nowait()
        with pytest.raises(weft.WouldBlock):
            ch.recv_nowait()
        return got

    assert in_thread(destroy) == "v"


def test_what_goes_back_when_a_hub_is_destroyed_is_not_for_its_other_greenlets():
    ch = weft.Channel()

    def destroy():
        for _ in range(3):
            gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        ch.send_nowait("v")
        assert parked(ch) == (0, 2)
        gevent.get_hub().destroy()
        collect()
        return ch.recv_nowait()

    assert in_thread(destroy) == "v"


def test_who_is_parked_in_a_hub_that_is_being_destroyed_is_passed_over():
    ch, other, refused = weft.Channel(), weft.Channel(), []

    class Dropped:
        """A call that a hub is asked for, and that sends when it is let go of."""

        def __call__(self): ...

        def __del__(self):
            with pytest.raises(weft.WouldBlock):
                other.send_nowait("w")
            refused.append(True)

    def destroy():
        gevent.spawn(lambda: ch.recv().wait())
        gevent.spawn(lambda: other.recv().wait())
        gevent.sleep(0)
        ch.send_nowait("v")  # asks for weft's call, which is let go of first
        gevent.get_hub().loop.run_callback(Dropped())
        gevent.get_hub().destroy()
        collect()
        return ch.recv_nowait()

    assert in_thread(destroy) == "v"
    assert refused


def test_what_goes_back_when_a_hub_is_destroyed_is_received_by_whoever_waits():
    ch, met, waits, received = weft.Channel(), threading.Event(), threading.Event(), threading.Event()

    def destroy():
        gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        ch.send_nowait("v")
        met.set()
        waits.wait()  # not for the hub
        gevent.get_hub().destroy()
        collect()
        received.wait()  # the end of this thread would give it back as well

    thread = threading.Thread(target=destroy, daemon=True)
    thread.start()
    assert met.wait(LIMIT)
    rx = receiver(ch)
    waits.set()
    try:
        assert joined(rx) == "v"
    finally:
        received.set()
    until(lambda: not thread.is_alive())


@destroys_loop
def test_a_hub_destroyed_as_it_hands_its_loop_back_gives_back_when_the_next_one_has_somebody_parked(
    destroy_loop, monkeypatch
):
    """After a slice it has nothing to call but by a watcher, which nobody lets go of."""
    monkeypatch.setattr("weft._gevent._SLICE", 0)
    ch, got = weft.Channel(), []

    def destroy():
        for _ in range(2):
            gevent.spawn(lambda: got.append(ch.recv().wait()))
        gevent.sleep(0)
        ch.send_nowait("first")
        ch.send_nowait("second")
        gevent.sleep(0)  # in which one of them goes on, and its slice is over
        assert got == ["first"]
        gevent.get_hub().destroy(destroy_loop)
        gevent.get_hub()
        return ch.recv().wait(LIMIT)

    assert in_thread(destroy) == "second"


def test_what_greenlets_were_given_goes_back_at_once_when_one_of_them_destroys_the_hub():
    ch = weft.Channel(2)

    def destroy():
        gevent.spawn(lambda: (ch.recv().wait(), gevent.get_hub().destroy()))
        gevent.spawn(lambda: ch.recv().wait())
        gevent.sleep(0)
        ch.send_nowait("first")
        ch.send_nowait("second")
        with pytest.raises(gevent.exceptions.LoopExit):
            gevent.sleep(0)
        return ch.recv_nowait()

    assert in_thread(destroy) == "second"


# --- others at the other end ----------------------------------------------------------------------------------------


def test_a_greenlet_and_a_native_thread_feed_each_other():
    there, back = weft.Channel(), weft.Channel()

    def echo():
        for value in there:
            back.send(value + 1).wait()
        back.close()

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()

    def ask():
        with there:
            for n in range(50):
                there.send(n).wait()

    gevent.spawn(ask)
    assert list(back) == list(range(1, 51))
    until(lambda: not thread.is_alive())


def test_a_greenlet_and_an_asyncio_loop_feed_each_other():
    there, back = weft.Channel(), weft.Channel()

    async def echo():
        async for value in there:
            await back.send(value + 1)
        back.close()

    thread = threading.Thread(target=lambda: asyncio.run(echo()), daemon=True)
    thread.start()

    def ask():
        with there:
            for n in range(50):
                there.send(n).wait()

    gevent.spawn(ask)
    assert list(back) == list(range(1, 51))
    until(lambda: not thread.is_alive())


def test_a_thread_of_gevents_pool_waits_as_a_plain_thread(hub):
    ch = weft.Channel()
    pool = gevent.threadpool.ThreadPool(1)
    try:
        result = pool.spawn(lambda: ch.recv().wait())
        until_parked(ch, receivers=1)
        assert parked_in(hub) == 0
        ch.send("v").wait()
        assert result.get(timeout=LIMIT) == "v"
    finally:
        pool.kill()


def test_a_loop_in_a_thread_of_gevent_still_refuses_to_block():
    ch = weft.Channel()

    async def main():
        with pytest.raises(weft.BlockingInLoopError):
            ch.recv().wait()

    asyncio.run(main())
    assert parked(ch) == (0, 0)


# --- patched programs -----------------------------------------------------------------------------------------------

PATCH = "from gevent import monkey; monkey.patch_all()\n"
ORDERS = {
    "patched first": PATCH + "import weft\n",
    "weft first": "import weft\n" + PATCH,
    "weft first, used before": "import weft; weft.always(1).wait()\n" + PATCH,
    "not patched": "import weft\n",
    "weft last, not patched": "import gevent\nimport weft\n",
}

SMALL = """
import threading
import gevent

def program():
    there, back = weft.Channel(), weft.Channel(2)
    try:
        weft.never().wait(0.001)
    except TimeoutError:
        pass

    def echo():
        for value in there:
            back.send(value).wait()
        back.close()

    other = threading.Thread(target=echo)
    other.start()

    def ask():
        with there:
            for n in range(20):
                there.send(n).wait()

    asking = gevent.spawn(ask)
    got = list(back)
    assert got == list(range(20)), got
    asking.join()
    other.join()
    case, _ = weft.select(there=weft.never(), late=weft.after(0.001)).wait()
    assert case == "late"
    with weft.Group() as group:
        one = group.spawn(lambda: weft.Event().wait().wait())  # a thread, patched or not
        two = group.spawn(lambda: weft.after(0.001).wait() and 2, on="greenlet")
        assert two.join().wait() == 2
        group.cancel()
    assert one.cancelled()
    print("done")
"""


@pytest.mark.parametrize("order", ORDERS)
def test_a_program_works_patched_or_not_whatever_was_imported_first(python, order):
    assert python(ORDERS[order] + SMALL + "program()\n") == "done\n"


def test_what_was_made_before_patching_works_after_it(python):
    out = python(
        """
        import threading
        import weft

        ch, event = weft.Channel(1), weft.Event()
        before = threading.Thread(target=lambda: ch.send("from before").wait() or event.wait().wait())
        before.start()  # a native thread; parked on the event when the program is patched
        assert ch.recv().wait() == "from before"

        import warnings
        warnings.simplefilter("ignore")  # gevent wants to be first
        from gevent import monkey
        monkey.patch_all()
        import gevent
        group = weft.Group()
        with group:
            after = group.spawn(lambda: event.wait().wait())
            gevent.spawn(event.set)
            print(after.join().wait())
        while before.is_alive():
            gevent.sleep(0.001)
        """
    )
    assert out == "True\n"


def test_a_group_made_in_a_patched_program_has_greenlets_for_threads(python):
    out = python(
        PATCH
        + """
import gevent, threading, weft
ch = weft.Channel()

def child():
    return ch.recv().wait(), type(gevent.getcurrent()).__name__

with weft.Group() as group:
    children = [group.spawn(child) for _ in range(3)]
    for n in range(3):
        ch.send(n).wait()
print(sorted(child.result()[0] for child in children))

try:
    with weft.Group() as group:
        group.spawn(lambda: weft.never().wait())
        group.spawn(lambda: 1 / 0)
except* ZeroDivisionError as caught:
    print(len(caught.exceptions), caught.exceptions[0].__notes__[0].partition(",")[0])

with weft.Group() as group:
    group.spawn(lambda: weft.never().wait())
    group.cancel_after(0.001)
print(group.cancelled)
"""
    )
    assert out == "[0, 1, 2]\n1 in process '<lambda>-2' (thread)\nTrue\n"


def test_a_real_thread_in_a_patched_program_waits_as_a_plain_thread(python):
    out = python(
        PATCH
        + """
import gevent, weft
there, back = weft.Channel(), weft.Channel()
try:
    weft.never().wait(0.001)
except TimeoutError:
    pass

def native():
    for value in there:
        back.send(value + 1).wait()
    back.close()

start = monkey.get_original("_thread", "start_new_thread")
start(native, ())

def ask():
    with there:
        for n in range(20):
            there.send(n).wait()

gevent.spawn(ask)
print(list(back) == list(range(1, 21)))
print(gevent.get_hub().threadpool.apply(lambda: weft.after(0.001).wait() > 0))
"""
    )
    assert out == "True\nTrue\n"


def test_an_asyncio_loop_in_a_real_thread_talks_to_a_patched_program(python):
    out = python(
        """
        import asyncio, threading
        import weft

        there, back = weft.Channel(), weft.Channel()

        async def echo():
            async for value in there:
                await back.send(value + 1)
            back.close()

        thread = threading.Thread(target=lambda: asyncio.run(echo()))
        thread.start()  # before patching: a real one
        while not there.statistics().parked_receivers:
            pass

        import warnings
        warnings.simplefilter("ignore")  # gevent wants to be first
        from gevent import monkey
        monkey.patch_all(select=False)
        import gevent

        def ask():
            with there:
                for n in range(20):
                    there.send(n).wait()

        gevent.spawn(ask)
        print(list(back) == list(range(1, 21)))
        """
    )
    assert out == "True\n"


def test_signals_reach_a_main_greenlet_that_is_parked(python):
    out = python(
        """
        import os, signal, threading, time
        import gevent, weft

        ch = weft.Channel()
        def interrupt():
            while not ch.statistics().parked_receivers:
                time.sleep(0.001)
            time.sleep(0.2)  # it is asleep by now: L15 promises nothing of the instant before
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            ch.recv().wait()
        except KeyboardInterrupt:
            print("interrupted", ch.statistics().parked_receivers)
        """
    )
    assert out == "interrupted 0\n"


# --- greenlets without a hub ----------------------------------------------------------------------------------------


def bare(fn):
    """`fn()` in a bare greenlet of a thread that has no hub."""
    return in_thread(lambda: greenlet.greenlet(fn).switch())


def test_a_bare_greenlet_does_what_can_be_done_at_once():
    ch = weft.Channel(1)

    def work():
        ch.send("v").wait()
        return ch.recv().wait(), weft.select(weft.always(1)).wait()

    assert bare(work) == ("v", (0, 1))


def test_a_bare_greenlet_meets_a_parked_thread():
    ch = weft.Channel()
    rx = receiver(ch)
    bare(lambda: ch.send("v").wait())
    assert joined(rx) == "v"


@pytest.mark.parametrize("make", ["recv", "send", "select", "after", "join"])
def test_a_bare_greenlet_that_would_have_to_wait_gets_a_clear_error_and_loses_nothing(make):
    ch = weft.Channel(name="quiet")
    op = {
        "recv": ch.recv,
        "send": lambda: ch.send("v"),
        "select": lambda: weft.select(ch.recv(), weft.after(60)),
        "after": lambda: weft.after(60),
        "join": lambda: weft.Event().wait(),
    }[make]

    def work():
        with pytest.raises(weft.BlockingInLoopError, match=r"no hub to switch to; run it in gevent"):
            op().wait()

    bare(work)
    assert parked(ch) == (0, 0)


def test_a_bare_greenlet_may_ask_without_waiting():
    def work():
        with pytest.raises(TimeoutError):
            weft.Channel().recv().wait(0)

    bare(work)


def test_the_greenlet_of_a_thread_itself_waits_as_a_thread():
    ch = weft.Channel()

    def main():
        greenlet.greenlet(lambda: None).switch()
        return ch.recv().wait()

    tx = spawned(lambda: ch.send("v").wait())
    assert in_thread(main) == "v"
    tx.join()


def test_a_foreign_hub_and_its_greenlets_are_refused_alike():
    """A loop of somebody else's, in a greenlet, that runs the others: as eventlet has one."""
    ch, outcomes = weft.Channel(1), []

    def attempt():
        ch.send("v").wait()
        outcomes.append(ch.recv().wait())
        try:
            ch.recv().wait()
        except weft.BlockingInLoopError as error:
            outcomes.append(str(error))

    def loop():
        for _ in range(2):
            greenlet.greenlet(attempt).switch()
        attempt()

    in_thread(lambda: greenlet.greenlet(loop).switch())
    assert outcomes[::2] == ["v"] * 3 and all("has no hub" in text for text in outcomes[1::2])
    assert parked(ch) == (0, 0) and len(ch) == 0


def test_bare_greenlets_are_refused_in_a_program_without_gevent(python):
    out = python(
        """
        import sys
        import weft
        from greenlet import greenlet

        def work():
            try:
                weft.Channel().recv().wait()
            except weft.BlockingInLoopError:
                return "refused"

        print(greenlet(work).switch(), "gevent" in sys.modules)
        """
    )
    assert out == "refused False\n"


# --- groups ---------------------------------------------------------------------------------------------------------


def for_ever():
    weft.never().wait()


def place_of_owner(owner, fn):
    """`fn()` in the main greenlet or in another one; its result."""
    if owner == "main":
        return fn()
    worker = gevent.spawn(fn)
    until(lambda: worker.dead)
    return worker.get()


owners = pytest.mark.parametrize("owner", ["main", "greenlet"])


@owners
def test_a_group_is_left_when_its_greenlets_have_ended(owner):
    ended = []

    def child(n):
        weft.after(0.001).wait()
        ended.append(n)
        return n * n

    def work():
        with weft.Group() as group:
            children = [group.spawn(child, n, on="greenlet") for n in range(3)]
        assert sorted(ended) == [0, 1, 2]
        return [process.result() for process in children]

    assert place_of_owner(owner, work) == [0, 1, 4]


@owners
def test_the_first_failure_cancels_the_siblings_and_is_raised_with_a_note(owner, capfd):
    ch, seen = weft.Channel(), []

    def sibling():
        try:
            ch.recv().wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    def fail():
        raise Mishap("torn")

    def work():
        with pytest.raises(ExceptionGroup, match=r"'looms'.*'fail-2' failed") as caught, weft.Group("looms") as group:
            one = group.spawn(sibling, on="greenlet")
            two = group.spawn(fail, on="greenlet")
        assert one.cancelled() and not two.cancelled()
        (error,) = caught.value.exceptions
        assert type(error) is Mishap
        assert "in process 'fail-2' (greenlet), spawned at" in error.__notes__[0] and __file__ in error.__notes__[0]
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames == ["fail"]

    place_of_owner(owner, work)
    assert seen == [weft.Cancelled] and parked(ch) == (0, 0)
    assert capfd.readouterr().err == ""


def test_gevent_prints_nothing_for_an_error_that_the_group_raises(capfd):
    class Worse(BaseException):
        pass

    def fail(error):
        raise error

    for error in (Mishap(), Worse(), SystemExit(3), KeyboardInterrupt(), gevent.Timeout(1), StopIteration(1)):
        with pytest.raises((BaseExceptionGroup, SystemExit, KeyboardInterrupt)), weft.Group() as group:
            group.spawn(fail, error, on="greenlet")
    gevent.sleep(0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_is_raised_as_it_is(leave):
    def go():
        raise leave

    with pytest.raises(leave), weft.Group() as group:
        group.spawn(go, on="greenlet")


def test_a_stop_iteration_of_a_child_is_told_as_an_error():
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        group.spawn(next, iter(()), on="greenlet")
    (error,) = caught.value.exceptions
    assert type(error) is RuntimeError and type(error.__cause__) is StopIteration


def test_an_error_that_forbids_attributes_is_raised_all_the_same():
    class Stubborn(Exception):
        def __setattr__(self, name, value):
            raise AttributeError(name)

    def fail():
        raise Stubborn

    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        group.spawn(fail, on="greenlet")
    assert type(caught.value.exceptions[0]) is Stubborn


@owners
def test_an_error_of_the_body_cancels_the_children(owner):
    def work():
        with pytest.raises(ExceptionGroup, match="its body failed"), weft.Group() as group:
            child = group.spawn(for_ever, on="greenlet")
            gevent.sleep(0)
            raise Mishap
        assert child.cancelled()

    place_of_owner(owner, work)


@owners
def test_cancel_ends_a_group_without_an_error(owner):
    seen = []

    def child():
        try:
            gevent.sleep(60)
        except gevent.GreenletExit:
            seen.append("killed")
            raise

    def work():
        with weft.Group() as group:
            children = [group.spawn(child, on="greenlet"), group.spawn(for_ever, on="greenlet")]
            gevent.sleep(0)
            group.cancel()
        assert group.cancelled and all(child.cancelled() for child in children)

    place_of_owner(owner, work)
    assert seen == ["killed"]


def test_a_group_can_be_cancelled_by_another_thread():
    with weft.Group() as group:
        child = group.spawn(for_ever, on="greenlet")
        gevent.sleep(0)
        threading.Thread(target=group.cancel).start()
    assert group.cancelled and child.cancelled()


def test_a_group_can_be_cancelled_by_its_own_child():
    with weft.Group() as group:
        sibling = group.spawn(for_ever, on="greenlet")
        child = group.spawn(lambda: (group.cancel(), weft.never().wait()), on="greenlet")
    assert sibling.cancelled() and child.cancelled()


@pytest.mark.parametrize("waiting", ["in weft", "in gevent"])
def test_cancel_after_ends_greenlets_wherever_they_wait(waiting):
    wait = for_ever if waiting == "in weft" else gevent.event.Event().wait
    with weft.Group() as group:
        child = group.spawn(wait, on="greenlet")
        group.cancel_after(0.001)
    assert group.cancelled and child.cancelled()


@pytest.mark.parametrize("early", [True, False], ids=["asked before", "asked after"])
def test_a_deadline_ends_the_children_while_the_body_waits_in_gevent(early):
    with weft.Group() as group:
        if early:
            group.cancel_after(0.001)
        ended = gevent.event.Event()

        def child():
            try:
                gevent.sleep(60)
            finally:
                ended.set()

        child = group.spawn(child, on="greenlet")
        gevent.sleep(0)
        if not early:
            group.cancel_after(0.001)
        assert ended.wait(LIMIT)
    assert child.cancelled() and group.cancelled


def test_a_deadline_can_be_moved_and_taken_back(hub):
    with weft.Group() as group:
        child = group.spawn(gevent.sleep, 0.02, on="greenlet")
        group.cancel_after(0.001)
        group.cancel_after(60)
        group.cancel_after(float("inf"))
    assert not group.cancelled and not child.cancelled()


def test_killing_the_owner_ends_the_children_first():
    order = []

    def child():
        try:
            weft.never().wait()
        finally:
            gevent.sleep(0.001)
            order.append("child")

    def own():
        try:
            with weft.Group() as group:
                group.spawn(child, on="greenlet")
                weft.Event().wait().wait()
        finally:
            order.append("owner")

    owner = spawned(own)
    gevent.sleep(0)
    owner.kill()
    assert order == ["child", "owner"] and type(owner.value) is gevent.GreenletExit


def test_killing_the_owner_again_while_it_leaves_changes_nothing():
    order = []

    def child():
        try:
            weft.never().wait()
        finally:
            gevent.sleep(0.005)
            order.append("child")

    def own():
        try:
            with weft.Group() as group:
                group.spawn(child, on="greenlet")
        finally:
            order.append("owner")

    owner = spawned(own)
    gevent.sleep(0)
    for _ in range(3):
        owner.kill(block=False)
        gevent.sleep(0)
    owner.join()
    assert order == ["child", "owner"] and type(owner.value) is gevent.GreenletExit


def test_a_child_is_told_only_once_that_it_is_cancelled():
    steps = []

    def child():
        try:
            weft.never().wait()
        except weft.Cancelled:
            gevent.sleep(0)
            gevent.sleep(0.001)
            steps.append("tidied up")
            with pytest.raises(weft.Cancelled):
                weft.never().wait()
            raise

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet")
        gevent.sleep(0)
        group.cancel()
    assert steps == ["tidied up"] and process.cancelled()


def test_an_inner_group_that_was_cancelled_does_not_shield_from_the_outer_one():
    steps = []

    def child():
        with weft.Group() as inner:
            inner.cancel_after(0.001)
            weft.never().wait()
        steps.append("inner over")
        gevent.sleep(60)
        steps.append("too far")

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet")
        until(lambda: steps)
        group.cancel()
    assert steps == ["inner over"] and process.cancelled()


@pytest.mark.parametrize("silent", [False, True], ids=["raised", "silent"])
def test_a_gevent_timeout_around_a_group_ends_it(silent):
    order, timeout = [], gevent.Timeout(0.001, False if silent else None)

    def child():
        try:
            weft.never().wait()
        finally:
            gevent.sleep(0)
            order.append("child")

    try:
        with timeout, weft.Group() as group:
            process = group.spawn(child, on="greenlet")
    except gevent.Timeout as caught:
        assert caught is timeout and not silent
    else:
        assert silent
    assert order == ["child"] and process.cancelled() and not group.cancelled


def test_a_gevent_timeout_in_the_body_ends_the_children():
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001), weft.Group() as group:
        child = group.spawn(for_ever, on="greenlet")
        gevent.sleep(60)
    assert child.cancelled()


def test_a_failure_while_a_timeout_ends_the_group_is_not_lost():
    def child():
        try:
            weft.never().wait()
        except weft.Cancelled:
            raise Mishap from None

    with pytest.raises(ExceptionGroup) as caught, gevent.Timeout(0.001), weft.Group() as group:
        group.spawn(child, on="greenlet")
    assert [type(error) for error in caught.value.exceptions] == [Mishap]


def test_greenlets_and_threads_are_children_of_one_group():
    ch = weft.Channel()
    with weft.Group() as group:
        tx = group.spawn(lambda: [ch.send(n).wait() for n in range(20)], on="thread")
        rx = group.spawn(lambda: [ch.recv().wait() for _ in range(20)], on="greenlet")
    assert rx.result() == list(range(20)) and len(tx.result()) == 20


@pytest.mark.parametrize("failing", ["thread", "greenlet"])
def test_a_failure_ends_children_of_either_kind(failing):
    def fail():
        raise Mishap

    with pytest.raises(ExceptionGroup), weft.Group() as group:
        children = [group.spawn(for_ever, on=on) for on in ("thread", "greenlet")]
        gevent.sleep(0)
        group.spawn(fail, on=failing)
    assert all(child.cancelled() for child in children)


variable = contextvars.ContextVar("variable", default="default")


def test_a_child_sees_its_spawners_context_variables_and_keeps_its_own():
    def child():
        seen = variable.get()
        variable.set("child's")
        gevent.sleep(0)
        return seen, variable.get()

    token = variable.set("spawner's")
    try:
        with weft.Group() as group:
            process = group.spawn(child, on="greenlet")
            variable.set("changed later")
            assert process.join().wait() == ("spawner's", "child's")
        assert variable.get() == "changed later"
    finally:
        variable.reset(token)


def test_a_child_runs_with_the_context_it_was_given():
    context = contextvars.Context()
    context.run(variable.set, "given")

    def child():
        seen = variable.get()
        variable.set("child's")
        return seen

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet", context=context)
    assert process.result() == "given" and context[variable] == "given"


def test_a_process_cancelled_before_it_started_never_does():
    ran = []
    with weft.Group() as group:
        process = group.spawn(ran.append, 1, on="greenlet")
        process.cancel()
        sibling = group.spawn(lambda: 2, on="greenlet")
    assert ran == [] and process.cancelled() and sibling.result() == 2


def test_nothing_is_started_in_a_group_that_is_being_cancelled():
    ran = []
    with weft.Group() as group:
        group.cancel()
        process = group.spawn(ran.append, 1, on="greenlet")
    assert ran == [] and process.cancelled()


def test_cancelling_one_process_leaves_its_siblings_alone():
    event = weft.Event()
    with weft.Group() as group:
        one, two = (group.spawn(event.wait().wait, on="greenlet") for _ in range(2))
        gevent.sleep(0)
        one.cancel()
        one.cancel()
        with pytest.raises(weft.Cancelled, match="was cancelled"):
            one.join().wait()
        event.set()
    one.cancel()
    assert one.cancelled() and two.result() is True


def test_a_process_can_be_cancelled_by_another_thread():
    with weft.Group() as group:
        process = group.spawn(gevent.sleep, 60, on="greenlet")
        gevent.sleep(0)
        in_thread(process.cancel)
        with pytest.raises(weft.Cancelled):
            process.join().wait()


def test_a_child_that_does_not_give_in_has_a_result():
    def child():
        try:
            gevent.sleep(60)
        except gevent.GreenletExit:
            return "no"

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet")
        gevent.sleep(0)
        process.cancel()
    assert process.result() == "no" and not process.cancelled()


def test_a_cancelled_child_that_was_met_has_its_value():
    ch, got = weft.Channel(), []

    def child():
        got.append(ch.recv().wait())
        weft.never().wait()

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet")
        until_parked(ch, receivers=1)
        process.cancel()
        ch.send_nowait("v")
    assert got == ["v"] and process.cancelled()


def test_join_completes_in_a_greenlet_a_thread_and_a_loop():
    go = weft.Event()

    def child():
        go.wait().wait()
        return "v"

    async def join():
        return await process.join()

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet")
        elsewhere = weft.Channel(2)
        threads = [
            threading.Thread(target=lambda: elsewhere.send(process.join().wait()).wait()),
            threading.Thread(target=lambda: elsewhere.send(asyncio.run(join())).wait()),
        ]
        for thread in threads:
            thread.start()
        here = spawned(lambda: weft.select(done=process.join(), late=weft.after(60)).wait())
        go.set()
        assert joined(here) == ("done", "v")
        assert [elsewhere.recv().wait() for _ in threads] == ["v", "v"]
        until(lambda: not any(thread.is_alive() for thread in threads))


def test_join_raises_the_childs_own_error():
    def fail():
        raise Mishap("torn")

    with pytest.raises(ExceptionGroup), weft.Group() as group:
        process = group.spawn(fail, on="greenlet")
        with pytest.raises(Mishap, match="torn"):
            process.join().wait()
    with pytest.raises(Mishap, match="torn"):
        process.result()


def test_a_channel_end_given_to_a_child_closes_with_it():
    tx, rx = weft.Channel(1).split()
    with weft.Group() as group:
        group.spawn(lambda tx: tx.send("v").wait(), tx, on="greenlet")
        del tx
        assert list(rx) == ["v"]


def test_scopes_of_two_greenlets_of_one_thread_do_not_touch():
    first_entered, second_left, ch = weft.Event(), weft.Event(), weft.Channel()

    def first():
        with weft.Group() as group:
            first_entered.set()
            second_left.wait().wait()
            group.cancel()
            with pytest.raises(weft.Cancelled):
                ch.recv().wait()
        return ch.recv().wait(60)

    def second():
        first_entered.wait().wait()
        with weft.Group() as group:
            group.cancel()
        second_left.set()
        return ch.recv().wait(60)  # under no group: not cancelled by either

    both = [spawned(first), spawned(second)]
    until_parked(ch, receivers=2)
    ch.send_nowait(1)
    ch.send_nowait(2)
    assert sorted(joined(one) for one in both) == [1, 2]


def test_a_greenlet_spawned_inside_a_group_by_gevent_is_none_of_its_children():
    ch = weft.Channel()
    with weft.Group() as group:
        stranger = receiver(ch)
        group.cancel()
    assert parked(ch) == (0, 1)
    ch.send_nowait("v")
    assert joined(stranger) == "v"


def test_a_cancelled_outer_group_ends_the_inner_groups_of_its_greenlets():
    order = []

    def grandchild():
        try:
            weft.never().wait()
        finally:
            order.append("grandchild")

    def child():
        try:
            with weft.Group() as inner:
                inner.spawn(grandchild, on="greenlet")
        finally:
            order.append("child")

    with weft.Group() as group:
        process = group.spawn(child, on="greenlet")
        gevent.sleep(0)
        gevent.sleep(0)
        group.cancel()
    assert order == ["grandchild", "child"] and process.cancelled()


def test_a_thread_without_a_hub_can_have_greenlets_for_children():
    def work():
        ch = weft.Channel()
        with weft.Group() as group:
            rx = group.spawn(lambda: [ch.recv().wait() for _ in range(3)], on="greenlet")
            group.spawn(lambda: [ch.send(n).wait() for n in range(3)], on="greenlet")
        gevent.get_hub().destroy()
        return rx.result()

    assert in_thread(work) == [0, 1, 2]


def test_a_greenlet_spawned_by_a_child_thread_lives_in_that_thread():
    def child():
        process = group.spawn(threading.get_ident, on="greenlet")
        return process.join().wait() == threading.get_ident()

    with weft.Group() as group:
        process = group.spawn(child, on="thread")
    assert process.result() is True


def test_a_group_hears_of_a_greenlet_whose_thread_has_ended():
    def abandon():
        group.spawn(for_ever, on="greenlet", name="left behind")

    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        group.spawn(abandon, on="thread")
    (error,) = caught.value.exceptions
    assert type(error) is RuntimeError and "'left behind' can never end" in str(error)


def test_a_cancelled_greenlet_whose_thread_has_ended_counts_as_cancelled():
    left = []

    def abandon():
        left.append(group.spawn(for_ever, on="greenlet"))
        left[0].cancel()

    with weft.Group() as group:
        group.spawn(abandon, on="thread")
    assert left[0].cancelled()


def test_on_greenlet_takes_plain_functions_only():
    async def coroutine():
        pass

    with weft.Group() as group:
        with pytest.raises(ValueError, match="on='greenlet' takes a plain function"):
            group.spawn(coroutine, on="greenlet")
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        group.spawn(lambda: coroutine(), on="greenlet")
    assert "no greenlet can run" in str(caught.value.exceptions[0])


def test_on_greenlet_in_a_thread_that_runs_a_loop_is_refused(run):
    async def main():
        async with weft.Group() as group:
            with pytest.raises(ValueError, match="on='greenlet' needs a hub of gevent"):
                group.spawn(print, on="greenlet")
            return await group.spawn(lambda: "still open").join()

    assert run(main) == "still open"


def test_on_greenlet_in_a_trio_run_is_refused():
    trio = pytest.importorskip("trio")

    async def main():
        async with weft.Group() as group:
            with pytest.raises(ValueError, match="on='greenlet' needs a hub of gevent"):
                group.spawn(print, on="greenlet")

    trio.run(main)


def test_a_greenlet_may_be_the_child_of_a_group_in_a_loop():
    """It is spawned from another thread, which has a hub; the group belongs to a task."""
    groups, spawned_there = weft.Channel(), weft.Channel()

    async def main():
        async with weft.Group() as group:
            await groups.send(group)
            process = await spawned_there.recv()
            return await process.join()

    def work():
        process = groups.recv().wait().spawn(lambda: weft.after(0.001).wait() and "v", on="greenlet")
        spawned_there.send(process).wait()
        with pytest.raises(weft.Closed):
            over.recv().wait()
        gevent.get_hub().destroy()

    over = weft.Channel()
    thread = threading.Thread(target=work)
    thread.start()
    result = in_thread(lambda: asyncio.run(main()))
    over.close()
    until(lambda: not thread.is_alive())
    assert result == "v"


def test_without_gevent_on_greenlet_says_so(python):
    out = python(
        """
        import sys
        sys.modules["gevent"] = None  # as if it were not installed
        import weft

        with weft.Group() as group:
            try:
                group.spawn(print, on="greenlet")
            except ModuleNotFoundError as error:
                print(error)
            print(group.spawn(lambda: "still open").join().wait())
        """
    )
    assert out == "on='greenlet' needs gevent, which is not installed\nstill open\n"


# --- imports --------------------------------------------------------------------------------------------------------


def test_weft_imports_neither_gevent_nor_greenlet_by_itself(python):
    out = python(
        """
        import asyncio, sys
        import weft

        async def main():
            async with weft.Group() as group:
                group.spawn(lambda: weft.after(0.001).wait())
                group.spawn(asyncio.sleep, 0)
            await weft.select(weft.never(), weft.after(0.001))

        asyncio.run(main())
        with weft.Group() as group:
            group.spawn(lambda: weft.after(0.001).wait())
        try:
            weft.never().wait(0.001)
        except TimeoutError:
            pass
        print([name for name in sys.modules if name.split(".")[0] in ("gevent", "greenlet")])
        """
    )
    assert out == "[]\n"


WAIT = """
def wait():
    try:
        weft.never().wait(1e-9)
    except TimeoutError:
        pass

"""
PARK = """
import gevent
ch = weft.Channel()
rx = gevent.spawn(lambda: ch.recv().wait())
ch.send("v").wait()
rx.join()
print(rx.value)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import gevent, weft",
        "import weft, gevent",
        "import weft\nwait()\nimport gevent",
        "import weft\nimport greenlet\nwait()\nimport gevent",
        "import greenlet, weft\nwait()\nimport gevent",
        "import gevent.hub\nimport weft\nwait()",
        "import gevent.core\nimport weft\nwait()\nimport gevent.hub",
        "import asyncio, weft\nasyncio.run(asyncio.sleep(0))\nwait()\nimport gevent",
        "import weft\nwait()\nfrom gevent import monkey\nmonkey.patch_all()",
    ],
)
def test_operations_park_greenlets_whatever_was_imported_first(python, imports):
    assert python(WAIT + imports + PARK) == "v\n"


def test_operations_performed_while_gevent_is_imported_do_no_harm(python):
    program = """
import sys
import weft

class Finder:
    def find_spec(self, name, path=None, target=None):
        wait()

wait()
sys.meta_path.insert(0, Finder())
import gevent
sys.meta_path.pop(0)
"""
    assert python(WAIT + program + PARK) == "v\n"


def test_a_thread_that_has_weft_look_for_gevent_does_not_keep_others_from_finding_it(python):
    program = """
import sys, threading
import weft, gevent

entered, waits = threading.Event(), threading.Event()

class Slow:
    "Holds the search for schedulers up until the main greenlet waits."

    def find_spec(self, name, path=None, target=None):
        if name == "weft._gevent":
            entered.set()
            waits.wait(10)

ch = weft.Channel()
tx = gevent.spawn(lambda: ch.send("v").wait())  # now: while a finder is at work, nothing else can be imported
sys.meta_path.insert(0, Slow())
looking = threading.Thread(target=wait)
looking.start()
assert entered.wait(10)
threading.Timer(0.5, waits.set).start()  # by then it waits, for a value or for that search
print(ch.recv().wait(5))
"""
    assert python(WAIT + program) == "v\n"


@pytest.mark.parametrize("loop", ["libev-cext", "libev-cffi", "libuv-cffi"])
def test_every_loop_of_gevent_will_do(python, loop):
    try:
        __import__(
            {"libev-cext": "gevent.libev.corecext", "libev-cffi": "gevent.libev._corecffi"}.get(
                loop, "gevent.libuv._corecffi"
            )
        )
    except ImportError as error:
        pytest.skip(f"gevent was built without it: {error}")
    select_loop = f"import os; os.environ['GEVENT_LOOP'] = {loop!r}\n"
    descriptors = """
r, w = os.pipe()
rx = gevent.spawn(lambda: weft.select(weft.readable(r), weft.after(60)).wait())
gevent.sleep(0)
os.write(w, b"x")
rx.join()
assert rx.value == (0, r)
rx = gevent.spawn(lambda: weft.never().wait(1e300))
gevent.sleep(0)
rx.kill()
"""
    assert python(select_loop + ORDERS["not patched"] + SMALL + "program()\n" + descriptors) == "done\n"


# --- nothing stays behind -------------------------------------------------------------------------------------------

ROUNDS = 20
_pipe = os.pipe()  # nobody writes to it
COUNTED = {
    *("Op", "Channel", "Scope", "Selecting", "Value", "Process", "ThreadProcess", "GreenletProcess", "Group"),
    *("Greenlet", "_Child", "greenlet", "Waiter", "_Wait", "_Home", "timer", "io", "async", "callback", "Timeout"),
    *("traceback", "Context"),
}


def living():
    for _ in range(3):
        gevent.sleep(0)
    gc.collect()
    kinds = {}
    for thing in objects():
        name = type(thing).__name__
        if name in COUNTED:
            kinds[name] = kinds.get(name, 0) + 1
    return kinds


def finished():
    ch = weft.Channel()
    rx = receiver(ch)
    ch.send(Value()).wait()
    assert type(joined(rx)) is Value


def finished_by_another_thread():
    ch = weft.Channel()
    rx = receiver(ch)
    in_thread(ch.send_nowait, Value())
    assert type(joined(rx)) is Value


def killed():
    ch = weft.Channel()
    rx, tx = receiver(ch), None
    rx.kill()
    tx = spawned(lambda: ch.send(Value()).wait())
    until_parked(ch, senders=1)
    tx.kill()


def killed_too_late():
    ch = weft.Channel()
    rx = receiver(ch)
    rx.kill(block=False)
    ch.send_nowait(Value())
    assert type(joined(rx)) is Value


def timed_out():
    ch = weft.Channel()
    with pytest.raises(TimeoutError):
        ch.send(Value()).wait(0.0001)
    with gevent.Timeout(0.0001, False):
        ch.recv().wait(60)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.0001):
        weft.select(ch.recv(), weft.after(60), weft.readable(_pipe[0])).wait()


def selected():
    ch = weft.Channel()
    waiting = spawned(lambda: weft.select(ch.recv(), weft.after(60), weft.readable(_pipe[0])).wait(60))
    until_parked(ch, receivers=1)
    ch.send_nowait(Value())
    assert joined(waiting)[0] == 0


def refused():
    with pytest.raises(weft.BlockingInLoopError):
        bare(lambda: weft.Channel().send(Value()).wait())


def grouped():
    ch = weft.Channel()
    with weft.Group() as group:
        group.cancel_after(60)
        rx = group.spawn(lambda: ch.recv().wait(), on="greenlet")
        group.spawn(lambda: ch.send(Value()).wait(), on="greenlet")
    assert type(rx.result()) is Value


def grouped_and_cancelled():
    with weft.Group() as group:
        group.spawn(lambda value: weft.never().wait(), Value(), on="greenlet")
        group.spawn(lambda value: gevent.sleep(60), Value(), on="greenlet")
        group.spawn(lambda value: None, Value(), on="greenlet").cancel()
        gevent.sleep(0)
        group.cancel()


def grouped_and_failed():
    def fail(value):
        raise Mishap(value)

    with pytest.raises(ExceptionGroup), weft.Group() as group:
        group.spawn(for_ever, on="greenlet")
        group.spawn(fail, Value(), on="greenlet")


def grouped_and_timed_out():
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.0001), weft.Group() as group:
        group.spawn(lambda value: weft.never().wait(), Value(), on="greenlet")


def grouped_with_a_killed_owner():
    def own():
        with weft.Group() as group:
            group.spawn(lambda value: weft.never().wait(), Value(), on="greenlet")

    owner = spawned(own)
    gevent.sleep(0)
    owner.kill()


def left_behind_by_a_thread():
    def abandon():
        group.spawn(lambda value: None, Value(), on="greenlet")
        gevent.get_hub().destroy()

    with pytest.raises(ExceptionGroup), weft.Group() as group:
        group.spawn(abandon, on="thread")


WORKS = [
    *(finished, finished_by_another_thread, killed, killed_too_late, timed_out, selected, refused),
    *(grouped, grouped_and_cancelled, grouped_and_failed, grouped_and_timed_out, grouped_with_a_killed_owner),
    left_behind_by_a_thread,
]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__.replace("_", " "))
def test_nothing_stays_behind(work, hub):
    for _ in range(3):
        work()
    before, watched = living(), hub.loop.activecnt
    for _ in range(ROUNDS):
        work()
    after = living()
    left = {kind: n - before.get(kind, 0) for kind, n in after.items() if n - before.get(kind, 0) >= ROUNDS // 4}
    assert not left, f"left behind after {ROUNDS} rounds: {left}"
    assert hub.loop.activecnt == watched, "a watcher is still active"


def test_what_took_part_in_a_wait_is_freed_without_the_collector():
    """No cycle goes through an operation that waited in a greenlet."""
    gc.collect()
    gc.disable()
    try:
        value, ch = Value(), weft.Channel()
        rx = receiver(ch)
        ch.send_nowait(value)
        joined(rx)
        gone = [weakref.ref(thing) for thing in (value, rx)]
        del value, rx
        gevent.sleep(0)
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_a_group_and_its_greenlets_are_freed_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        value = Value()
        with weft.Group() as group:
            process = group.spawn(lambda value: weft.after(0.0001).wait(), value, on="greenlet")
        gone = [weakref.ref(thing) for thing in (value, process)]
        del value, process, group
        gevent.sleep(0)
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
