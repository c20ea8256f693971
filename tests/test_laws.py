"""The laws, one section each. What each means exactly, and what it does not promise: docs/design/laws.md.

A test here has its law's number in its name and its promise for a name. `pair` is every ordered pair of worlds, sender's
first; `cancelling` is every world in which a party can be cancelled; `looped` every event loop with asyncio's own tasks.
"""

import asyncio
import gc
import os
import socket
import sys
import threading
import time

import pytest
import weft
from worlds import (
    CANCELLED,
    COUNTED,
    PAUSE,
    Within,
    draining,
    fewer,
    make_world,
    parked,
    perform,
    receiving,
    sending,
    take_turns,
    until,
    until_parked,
)

# --- L1 Rendezvous --------------------------------------------------------------------------------------------------


def test_l1_send_completes_only_when_a_receiver_took_the_value(pair):
    here, there = pair
    ch = weft.Channel()
    tx = here.start(sending, ch, "v")
    until_parked(ch, senders=1)
    take_turns()
    assert not tx.done and len(ch) == 0
    rx = there.start(receiving, ch, 1)
    assert rx.join() == ["v"]
    tx.join()


def test_l1_a_parked_receiver_takes_the_value_at_once(pair):
    here, there = pair
    ch = weft.Channel()
    rx = there.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    tx = here.start(sending, ch, "v")
    tx.join()
    assert rx.join() == ["v"]


def test_l1_a_rendezvous_channel_holds_nothing(pair):
    here, there = pair
    ch = weft.Channel()
    tx = here.start(sending, ch, *range(20))
    rx = there.start(receiving, ch, 20)
    while not rx.done:
        assert len(ch) == 0 == ch.statistics().buffered
        take_turns(1)
    assert rx.join() == list(range(20))
    tx.join()


def test_l1_a_select_is_held_to_it_too(pair):
    here, there = pair
    ch = weft.Channel()
    tx = here.start(perform, weft.select(ch.send("v"), weft.never()))
    until_parked(ch, senders=1)
    take_turns()
    assert not tx.done
    assert there.start(receiving, ch, 1).join() == ["v"]
    assert tx.join() == (0, None)


def test_l1_without_a_receiver_nothing_is_sent():
    ch = weft.Channel()
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")
    with pytest.raises(TimeoutError):
        ch.send("v").wait(0)
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    assert ch.statistics().sent == 0


# --- L2 Order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 7, None])
def test_l2_one_senders_values_arrive_in_order(pair, capacity):
    here, there = pair
    ch = weft.Channel.unbounded() if capacity is None else weft.Channel(capacity)
    rx = there.start(draining, ch)
    tx = here.start(sending, ch, *range(100))
    tx.join()
    ch.close()
    assert rx.join() == list(range(100))


def test_l2_parked_receivers_are_served_first_come_first_served(pair):
    here, there = pair
    ch = weft.Channel()
    parties = []
    for n in range(6):
        parties.append((here, there)[n % 2].start(receiving, ch, 1))
        until_parked(ch, receivers=n + 1)
    for n in range(6):
        ch.send_nowait(n)
    assert [party.join() for party in parties] == [[n] for n in range(6)]


@pytest.mark.parametrize("capacity", [0, 2])
def test_l2_parked_senders_are_served_first_come_first_served(pair, capacity):
    here, there = pair
    ch = weft.Channel(capacity)
    for n in range(capacity):
        ch.send_nowait(n)
    parties = []
    for n in range(6):
        parties.append((here, there)[n % 2].start(sending, ch, capacity + n))
        until_parked(ch, senders=n + 1)
    assert [ch.recv_nowait() for _ in range(capacity + 6)] == list(range(capacity + 6))
    for party in parties:
        party.join()


def test_l2_a_newcomer_never_overtakes_a_parked_sender(world):
    ch = weft.Channel(1)
    ch.send_nowait("first")
    tx = world.start(sending, ch, "second")
    until_parked(ch, senders=1)
    assert ch.recv_nowait() == "first"
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("newcomer")  # the free slot went to the parked one
    assert ch.recv_nowait() == "second"
    tx.join()


def test_l2_a_newcomer_never_overtakes_a_parked_receiver(world):
    ch = weft.Channel(1)
    rx = world.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    ch.send_nowait("for the parked one")
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    assert rx.join() == ["for the parked one"]


def test_l2_one_that_leaves_the_queue_leaves_the_order_of_the_others(cancelling):
    ch = weft.Channel()
    parties = []
    for n in range(5):
        parties.append(cancelling.start(receiving, ch, 1))
        until_parked(ch, receivers=n + 1)
    for n in (2, 0, 4):
        parties[n].cancel()
    until_parked(ch, receivers=2)
    ch.send_nowait("a")
    ch.send_nowait("b")
    assert (parties[1].join(), parties[3].join()) == (["a"], ["b"])
    for n in (2, 0, 4):
        assert isinstance(parties[n].failure(), CANCELLED)


def test_l2_a_select_waits_in_the_same_queue_as_everybody_else(world):
    ch = weft.Channel()
    first = world.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    second = world.start(perform, weft.select(weft.never(), ch.recv()))
    until_parked(ch, receivers=2)
    third = world.start(receiving, ch, 1)
    until_parked(ch, receivers=3)
    for value in "abc":
        ch.send_nowait(value)
    assert (first.join(), second.join(), third.join()) == (["a"], (1, "b"), ["c"])


def test_l2_one_wake_up_for_many_keeps_the_order(pair):
    here, there = pair
    ch = weft.Channel(64)

    def sending_many():
        values = list(range(200))
        while values:
            del values[: (yield ch.send_many(values))]

    def receiving_many():
        got = []
        while len(got) < 200:
            got += yield ch.recv_many(7)
        return got

    rx = there.start(receiving_many)
    tx = here.start(sending_many)
    assert rx.join() == list(range(200))
    tx.join()


# --- L3 Conservation ------------------------------------------------------------------------------------------------
# The storms, with every value of a million operations accounted for, are in test_conservation.py and test_storms.py.


def test_l3_what_a_cancelled_receiver_did_not_take_goes_to_the_next(cancelling):
    ch = weft.Channel()
    gone = cancelling.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    gone.cancel()
    assert isinstance(gone.failure(), CANCELLED)
    until_parked(ch)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")
    stays = cancelling.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert stays.join() == ["v"]


def test_l3_what_a_cancelled_sender_did_not_give_stays_with_it(cancelling):
    ch = weft.Channel(1)
    ch.send_nowait("there before")
    gone = cancelling.start(sending, ch, "v")
    until_parked(ch, senders=1)
    gone.cancel()
    assert isinstance(gone.failure(), CANCELLED)
    until_parked(ch)
    assert ch.recv_nowait() == "there before"
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    assert ch.statistics().sent == 1


def test_l3_a_timeout_takes_nothing_and_gives_nothing(world):
    ch = weft.Channel()
    for op in (ch.send("v"), ch.recv(), ch.recv_many(3), ch.send_many(["v"])):
        party = world.start(perform, Within(op, 0.005))
        assert isinstance(party.failure(), TimeoutError)
        assert parked(ch) == (0, 0)
    s = ch.statistics()
    assert (s.sent, s.received, s.buffered) == (0, 0, 0)


def test_l3_a_timeout_against_a_late_partner_is_all_or_nothing(pair):
    """The partner comes at the very moment patience runs out: both succeed or both fail."""
    here, there = pair
    met = 0
    for n in range(40):
        ch = weft.Channel()
        patience = 0.0005 * (n % 4 + 1)
        rx = there.start(perform, Within(ch.recv(), patience))
        tx = here.start(perform, Within(ch.send(n), patience))
        until(lambda: rx.done and tx.done)  # noqa: B023
        assert (rx.error is None) == (tx.error is None), (rx.error, tx.error)
        if rx.error is None:
            assert rx.value == n
            met += 1
        else:
            assert isinstance(rx.error, TimeoutError) and isinstance(tx.error, TimeoutError)
    del met  # any number is right


def test_l3_a_value_committed_to_a_loop_that_was_shut_down_goes_back_to_the_front(looped):
    ch = weft.Channel(4)
    rx = looped.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    for n in range(5):
        ch.send_nowait(n)  # 0 is committed to the receiver, which never runs again
    looped.loop.close()
    rx.task._log_destroy_pending = False
    rx.task = None
    rx.forget()
    looped.parties.clear()
    gc.collect()
    assert [ch.recv_nowait() for _ in range(5)] == list(range(5))


def test_l3_nothing_is_delivered_to_a_loop_that_was_shut_down(looped):
    ch = weft.Channel()
    rx = looped.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    rx.task._log_destroy_pending = False
    looped.loop.close()
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")  # its task is still in memory, but it can never run
    assert parked(ch) == (0, 0)


def test_l3_what_a_sender_had_to_give_whose_loop_was_shut_down_is_received_by_whoever_comes_next(looped):
    ch = weft.Channel()
    tx = looped.start(sending, ch, "v")
    until_parked(ch, senders=1)
    tx.task._log_destroy_pending = False
    looped.loop.close()
    assert ch.recv_nowait() == "v"
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    s = ch.statistics()
    assert (s.sent, s.received) == (1, 1) and parked(ch) == (0, 0)
    stays = looped.parties.pop()
    del stays, tx
    gc.collect()
    assert parked(ch) == (0, 0) and len(ch) == 0


def test_l3_a_failed_send_gives_its_value_back(world):
    ch = weft.Channel(1)
    ch.close()
    value = object()
    for op in (ch.send(value), weft.select(ch.send(value)), weft.select(weft.never(), ch.send(value))):
        error = world.start(perform, op).failure()
        assert isinstance(error, weft.Closed) and error.value is value


def test_l3_an_operation_never_performed_changes_nothing():
    ch = weft.Channel(2)
    ch.send_nowait("kept")
    for make in (ch.recv, lambda: ch.send("v"), lambda: weft.select(ch.recv()), lambda: ch.recv_many(2)):
        with pytest.warns(RuntimeWarning):
            make()
            gc.collect()
    assert len(ch) == 1 and ch.recv_nowait() == "kept"


# --- L4 Commit wins -------------------------------------------------------------------------------------------------


def test_l4_a_cancelled_recv_has_taken_nothing(cancelling):
    ch = weft.Channel(1)
    rx = cancelling.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    rx.cancel()
    if not cancelling.elsewhere and hasattr(rx.task, "cancelling"):
        assert parked(ch) == (0, 0)  # withdrawn by the cancel itself, not when the task gets to run
    assert isinstance(rx.failure(), CANCELLED)
    ch.send_nowait("v")
    assert ch.recv_nowait() == "v" and ch.statistics().received == 1


def test_l4_a_cancelled_send_has_given_nothing(cancelling):
    ch = weft.Channel()
    tx = cancelling.start(sending, ch, "v")
    until_parked(ch, senders=1)
    tx.cancel()
    assert isinstance(tx.failure(), CANCELLED)
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()
    assert ch.statistics().sent == 0


def test_l4_a_cancelled_select_has_done_nothing(cancelling):
    a, b = weft.Channel(), weft.Channel()
    party = cancelling.start(perform, weft.select(a.recv(), b.send("v"), weft.after(3600)))
    until_parked(a, receivers=1)
    until_parked(b, senders=1)
    party.cancel()
    assert isinstance(party.failure(), CANCELLED)
    assert parked(a) == parked(b) == (0, 0)


def committed_then_cancelled(world, ch, op, commit, cancels=1):
    """A task parked on `op`, met by `commit`, then cancelled before it could resume. What it saw, step by step."""
    saw = []

    def script():
        saw.append((yield op))
        task = asyncio.current_task()
        saw.append(task.cancelling())
        try:
            yield PAUSE
        except asyncio.CancelledError:
            saw.append("cancelled at the next suspension")
            saw.append(task.cancelling())
            raise
        saw.append("never cancelled")

    party = world.start(script)
    until(lambda: parked(ch) != (0, 0))
    commit()
    for _ in range(cancels):
        party.cancel()
    until(lambda: party.done)
    return saw


def test_l4_a_committed_recv_completes_and_the_cancel_comes_at_the_next_suspension(looped):
    ch = weft.Channel()
    saw = committed_then_cancelled(looped, ch, ch.recv(), lambda: ch.send_nowait("v"))
    assert saw == ["v", 1, "cancelled at the next suspension", 1]


def test_l4_a_committed_send_completes_and_the_cancel_comes_at_the_next_suspension(looped):
    ch = weft.Channel()
    got = []
    saw = committed_then_cancelled(looped, ch, ch.send("v"), lambda: got.append(ch.recv_nowait()))
    assert got == ["v"]
    assert saw == [None, 1, "cancelled at the next suspension", 1]


def test_l4_a_committed_select_completes_and_the_cancel_comes_at_the_next_suspension(looped):
    ch, other = weft.Channel(), weft.Channel()
    op = weft.select(other.recv(), ch.recv())
    saw = committed_then_cancelled(looped, ch, op, lambda: ch.send_nowait("v"))
    assert saw == [(1, "v"), 1, "cancelled at the next suspension", 1]
    assert parked(other) == (0, 0)


def test_l4_the_next_suspension_does_not_commit_before_the_cancel_is_delivered(looped):
    """Else a task in a busy conversation, met again and again, would never hear of its cancel."""
    ch = weft.Channel()
    saw = []

    def meet():
        try:
            ch.send_nowait("second")
        except weft.WouldBlock:
            saw.append("nobody waits")

    def script():
        saw.append((yield ch.recv()))
        looped.loop.call_soon(meet)
        try:
            saw.append((yield ch.recv()))
        except asyncio.CancelledError:
            saw.append("cancelled")
            raise

    party = looped.start(script)
    until_parked(ch, receivers=1)
    ch.send_nowait("first")
    party.cancel()
    until(lambda: party.done and len(saw) == 3)
    assert saw[0] == "first" and set(saw[1:]) == {"nobody waits", "cancelled"}


def test_l4_each_of_several_cancels_is_counted_as_asyncio_counts_it(looped):
    ch = weft.Channel()
    saw = committed_then_cancelled(looped, ch, ch.recv(), lambda: ch.send_nowait("v"), cancels=3)
    assert saw == ["v", 3, "cancelled at the next suspension", 3]


def test_l4_an_end_that_committed_is_not_hidden_by_a_cancel(looped):
    """Closing a channel commits its parked receivers to `Closed`, as a value would."""
    ch = weft.Channel()

    def script():
        try:
            yield ch.recv()
        except weft.Closed:
            yield PAUSE

    party = looped.start(script)
    until_parked(ch, receivers=1)
    ch.close()
    party.cancel()
    until(lambda: party.done)
    assert isinstance(party.error, asyncio.CancelledError)
    if COUNTED:  # PyPy keeps no context of what is thrown into a generator a second time
        assert isinstance(party.error.__context__, weft.Closed)  # it came first


def test_l4_a_task_whose_last_act_committed_returns_its_value(looped):
    ch = weft.Channel()
    got = []

    async def last_act():
        return await ch.recv()

    async def main():
        task = asyncio.ensure_future(last_act())
        while not ch.statistics().parked_receivers:
            await asyncio.sleep(0)
        ch.send_nowait("v")
        task.cancel()
        got.append(await asyncio.wait([task]))
        got.append(task.cancelled() or task.result())

    party = looped.loop.create_task(main())
    until(party.done)
    party.result()
    assert got[-1] == "v"


def test_l4_a_cancel_before_the_commit_wins_even_when_the_task_has_not_run_since(looped):
    ch = weft.Channel()
    rx = looped.start(receiving, ch, 1)
    until_parked(ch, receivers=1)
    rx.cancel()  # requested; the task has not seen it yet
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")
    assert isinstance(rx.failure(), asyncio.CancelledError)


def test_l4_a_cancel_that_was_taken_back_is_not_delivered(looped):
    ch = weft.Channel()
    saw = []

    def script():
        saw.append((yield ch.recv()))
        saw.append(asyncio.current_task().uncancel())
        for _ in range(5):
            yield PAUSE

    party = looped.start(script)
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    party.cancel()
    party.join()
    assert saw == ["v", 0]


def test_l4_an_operation_that_completes_at_once_does_not_see_a_pending_cancel(looped):
    """One in hundreds hands the loop back first (L13), and is cancelled then: of two in a row it is at most one."""

    def script(ch, saw):
        asyncio.current_task().cancel()
        saw.append((yield ch.recv()))
        yield PAUSE
        saw.append("not reached")

    completed = 0
    for _ in range(2):
        ch, saw = weft.Channel(1), []
        ch.send_nowait("v")
        assert isinstance(looped.start(script, ch, saw).failure(), asyncio.CancelledError)
        if saw:
            assert saw == ["v"]
            completed += 1
        else:
            assert ch.recv_nowait() == "v"
    assert completed >= 1


def test_l4_a_task_that_was_cancelled_before_it_parks_takes_nothing(looped):
    ch = weft.Channel()

    def script():
        asyncio.current_task().cancel()
        yield ch.recv()

    assert isinstance(looped.start(script).failure(), asyncio.CancelledError)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")


# A deadline and a commit that fall into the same turn of the loop, the deadline's callback first: the narrowest race.


async def commit_and_deadline_at_once(ch, waits, commit):
    """Run `waits(deadline)`; make `commit()` and the deadline due in one turn, after the former and before a resumption."""
    loop = asyncio.get_running_loop()
    when = loop.time() + 0.02

    def both_become_due():
        while loop.time() <= when + 0.001:
            pass

    loop.call_at(when - 0.01, both_become_due)
    loop.call_at(when - 0.005, commit)
    return await waits(when)


def test_l4_a_deadline_that_met_a_commit_lets_it_complete_and_leaves_no_trace(looped):
    ch = weft.Channel()
    saw = []

    async def waits(when):
        async with asyncio.timeout_at(when):
            saw.append(await ch.recv())
        saw.append(asyncio.current_task().cancelling())
        for _ in range(5):
            await asyncio.sleep(0)
        saw.append("went on")

    async def main():
        await commit_and_deadline_at_once(ch, waits, lambda: ch.send_nowait("v"))

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert saw == ["v", 0, "went on"]


def test_l4_wait_for_returns_what_had_committed(looped):
    ch = weft.Channel()

    async def waits(when):
        return await asyncio.wait_for(ch.recv(), when - asyncio.get_running_loop().time())

    async def main():
        assert await commit_and_deadline_at_once(ch, waits, lambda: ch.send_nowait("v")) == "v"
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()


def test_l4_wait_for_that_runs_out_has_taken_nothing(looped):
    ch = weft.Channel()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.recv(), 0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.send("v"), 0.001)
        await asyncio.sleep(0)

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert parked(ch) == (0, 0) and ch.statistics().sent == 0


def test_l4_a_sibling_that_was_cancelled_by_a_task_group_keeps_what_had_committed(looped):
    ch = weft.Channel()
    kept = []

    async def receiver():
        kept.append(await ch.recv())
        await asyncio.sleep(0)
        kept.append("not reached")

    async def fails():
        while not ch.statistics().parked_receivers:
            await asyncio.sleep(0)
        ch.send_nowait("v")
        raise ZeroDivisionError  # the group cancels the receiver before it resumes

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(receiver())
                group.create_task(fails())
        assert caught.group_contains(ZeroDivisionError)

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert kept == ["v"]


def test_l4_a_shielded_operation_goes_on_when_its_waiter_is_cancelled(looped):
    ch = weft.Channel()
    got = []

    async def inner():
        got.append(await ch.recv())

    async def outer():
        await asyncio.shield(inner())

    async def main():
        task = asyncio.ensure_future(outer())
        while not ch.statistics().parked_receivers:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and parked(ch) == (0, 1)
        ch.send_nowait("v")
        while not got:
            await asyncio.sleep(0)

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert got == ["v"]


def test_l4_a_cancelled_gather_withdraws_all_its_operations(looped):
    a, b = weft.Channel(), weft.Channel()

    async def main():
        task = asyncio.ensure_future(both())
        while not (a.statistics().parked_receivers and b.statistics().parked_senders):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    async def both():
        await asyncio.gather(a.recv(), b.send("v"))

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert parked(a) == parked(b) == (0, 0)


def test_l4_a_thread_whose_time_ran_out_either_took_it_or_did_not(pair):
    """`wait(timeout)` against a partner that comes when it ends: a value, or `TimeoutError` and no value."""
    here, _ = pair
    ch = weft.Channel(1)
    taken = []

    def impatient():
        for _ in range(30):
            try:
                taken.append(ch.recv().wait(0.0003))
            except TimeoutError:
                pass

    thread = threading.Thread(target=impatient)
    thread.start()
    tx = here.start(sending, ch, *range(5))
    until(lambda: not thread.is_alive())
    left = []
    while not tx.done or len(ch):
        try:
            left.append(ch.recv_nowait())
        except weft.WouldBlock:
            take_turns(1)
    tx.join()
    assert taken + left == list(range(5))


# --- L5 One of many -------------------------------------------------------------------------------------------------


def test_l5_a_select_commits_exactly_one_of_two_ready_cases(pair):
    here, there = pair
    a, b = weft.Channel(), weft.Channel()
    parties = [here.start(sending, a, "a"), here.start(sending, b, "b")]
    until_parked(a, senders=1)
    until_parked(b, senders=1)
    case, value = there.start(perform, weft.select(a.recv(), b.recv())).join()
    assert value == "ab"[case]
    parties[case].join()
    assert not parties[1 - case].done
    other = (a, b)[1 - case]
    assert parked(other) == (1, 0)
    assert there.start(receiving, other, 1).join() == ["ab"[1 - case]]
    parties[1 - case].join()


def test_l5_the_cases_that_lost_are_as_if_never_tried(pair):
    here, there = pair
    a, b, c = weft.Channel(), weft.Channel(), weft.Channel()
    chooser = there.start(perform, weft.select(a.recv(), b.send("b"), x=c.recv()))
    until_parked(a, receivers=1)
    until_parked(b, senders=1)
    until_parked(c, receivers=1)
    here.start(sending, c, "c").join()
    assert chooser.join() == ("x", "c")
    for ch in (a, b):
        s = ch.statistics()
        assert (s.parked_senders, s.parked_receivers, s.sent, s.received) == (0, 0, 0, 0)
    with pytest.raises(weft.WouldBlock):
        a.send_nowait("a")
    with pytest.raises(weft.WouldBlock):
        b.recv_nowait()


def test_l5_two_selects_that_face_each_other_pair(pair):
    here, there = pair
    a, b = weft.Channel(), weft.Channel()
    one = here.start(perform, weft.select(a.send("from one"), b.recv()))
    until_parked(a, senders=1)
    other = there.start(perform, weft.select(a.recv(), b.send("from other")))
    first, second = one.join(), other.join()
    assert (first, second) in [((0, None), (0, "from one")), ((1, "from other"), (1, None))]
    assert parked(a) == parked(b) == (0, 0)


def test_l5_a_crowd_of_facing_selects_leaves_nobody_behind(pair):
    here, there = pair
    a, b, rounds = weft.Channel(), weft.Channel(), 50

    def one():
        seen = []
        for n in range(rounds):
            case, value = yield weft.select(a.send(n), b.recv())
            seen.append(("sent a", n) if case == 0 else ("received b", value))
        return seen

    def other():
        seen = []
        for n in range(rounds):
            case, value = yield weft.select(a.recv(), b.send(n))
            seen.append(("sent a", value) if case == 0 else ("received b", n))
        return seen

    one, other = here.start(one), there.start(other)
    assert one.join() == other.join()
    assert parked(a) == parked(b) == (0, 0)


def test_l5_a_select_never_meets_itself(pair):
    here, there = pair
    ch = weft.Channel()
    party = here.start(perform, weft.select(ch.send("own"), ch.recv()))
    until_parked(ch, senders=1, receivers=1)
    take_turns()
    assert not party.done
    assert there.start(receiving, ch, 1).join() == ["own"]
    assert party.join() == (0, None)
    assert parked(ch) == (0, 0)


def test_l5_one_channel_twice_in_one_direction_is_one_value(world):
    ch = weft.Channel()
    party = world.start(perform, weft.select(ch.recv(), ch.recv(), again=ch.recv()))
    until_parked(ch, receivers=3)
    ch.send_nowait("v")
    case, value = party.join()
    assert case in (0, 1, "again") and value == "v"
    assert parked(ch) == (0, 0) and ch.statistics().received == 1


def test_l5_a_select_over_many_channels_withdraws_from_all(world):
    channels = [weft.Channel() for _ in range(50)]
    party = world.start(perform, weft.select(*(ch.recv() for ch in channels)))
    until_parked(channels[-1], receivers=1)
    channels[31].send_nowait("v")
    assert party.join() == (31, "v")
    assert all(parked(ch) == (0, 0) for ch in channels)


def test_l5_of_two_senders_to_one_parked_select_only_one_gets_through(pair):
    here, there = pair
    for _ in range(20):
        a, b = weft.Channel(), weft.Channel()
        chooser = there.start(perform, weft.select(a.recv(), b.recv()))
        senders = [here.start(sending, a, "a"), there.start(sending, b, "b")]
        case, value = chooser.join()
        assert value == "ab"[case]
        senders[case].join()
        left = (a, b)[1 - case]
        until_parked(left, senders=1)
        assert left.recv_nowait() == "ab"[1 - case]
        senders[1 - case].join()


# --- L6 Fairness ----------------------------------------------------------------------------------------------------
# The statistics of "random" are in test_go_table.py, the bound of `selecting` in test_selecting.py.


def test_l6_priority_takes_the_first_listed_ready_case_every_time(world):
    a, b = weft.Channel(100), weft.Channel(100)

    def script():
        cases = []
        for _ in range(150):
            case, _ = yield weft.select(a.recv(), b.recv(), policy="priority")
            cases.append(case)
        return cases

    for n in range(100):
        a.send_nowait(n)
        b.send_nowait(n)
    assert world.start(script).join() == [0] * 100 + [1] * 50


def test_l6_random_starves_nobody(pair):
    here, there = pair
    a, b = weft.Channel(), weft.Channel()

    def flood(ch):
        try:
            while True:
                yield ch.send(None)
        except weft.Closed:
            pass

    def until_both_were_served():
        served = [0, 0]
        while min(served) < 5:
            served[(yield weft.select(a.recv(), b.recv())).case] += 1

    parties = [here.start(flood, a), there.start(flood, b)]
    until_parked(a, senders=1)
    until_parked(b, senders=1)
    there.start(until_both_were_served).join()
    a.poison()
    b.poison()
    for party in parties:
        party.join()


# --- L7 Close -------------------------------------------------------------------------------------------------------


def test_l7_close_delivers_what_was_buffered_then_says_closed(pair):
    here, there = pair
    ch = weft.Channel(8)
    here.start(sending, ch, 1, 2, 3).join()
    ch.close()
    assert there.start(draining, ch).join() == [1, 2, 3]


def test_l7_close_delivers_what_was_parked(pair):
    here, there = pair
    ch = weft.Channel()
    tx = here.start(sending, ch, "parked before the close")
    until_parked(ch, senders=1)
    ch.close()
    take_turns()
    assert not tx.done
    assert there.start(draining, ch).join() == ["parked before the close"]
    tx.join()


def test_l7_close_tells_every_parked_receiver(pair):
    here, there = pair
    ch = weft.Channel()
    parties = [world.start(receiving, ch, 1) for world in (here, there, here)]
    until_parked(ch, receivers=3)
    ch.close()
    for party in parties:
        error = party.failure()
        assert type(error) is weft.Closed and error.channel is ch
    assert parked(ch) == (0, 0)


def test_l7_close_twice_is_close_once_and_the_first_cause_wins(pair):
    here, there = pair
    ch = weft.Channel()
    first, second = KeyError("first"), KeyError("second")

    def closing(error):
        ch.close(error)
        return
        yield

    here.start(closing, first).join()
    there.start(closing, second).join()
    ch.close()
    assert ch.closed
    assert there.start(receiving, ch, 1).failure() is first
    failed = here.start(sending, ch, "v").failure()
    assert type(failed) is weft.Closed and failed.__cause__ is first and failed.value == "v"


def test_l7_a_send_after_close_carries_its_value_and_is_not_a_silent_drop(pair):
    here, there = pair
    ch = weft.Channel(4)
    ch.close()
    value = object()
    error = here.start(sending, ch, value).failure()
    assert type(error) is weft.Closed and error.value is value and error.channel is ch
    assert there.start(draining, ch).join() == []
    assert ch.statistics().dropped == 0


def test_l7_threads_that_close_and_send_at_the_same_time_agree_on_each_value():
    for _ in range(30):
        ch = weft.Channel.unbounded()
        sent, go = [], threading.Barrier(5)

        def sender(n, ch=ch, sent=sent, go=go):
            go.wait()
            try:
                for k in range(100):
                    ch.send_nowait((n, k))
                    sent.append((n, k))
            except weft.Closed as error:
                assert error.value == (n, k)

        def closer(ch=ch, go=go):
            go.wait()
            ch.close()

        threads = [threading.Thread(target=sender, args=(n,)) for n in range(3)]
        threads += [threading.Thread(target=closer) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ch) == sorted(sent)


# --- L8 Poison ------------------------------------------------------------------------------------------------------


def test_l8_poison_reaches_parked_receivers_at_once(pair):
    here, there = pair
    ch = weft.Channel()
    parties = [world.start(receiving, ch, 1) for world in (here, there)]
    until_parked(ch, receivers=2)
    cause = ValueError("enough")
    ch.poison(cause)
    assert parked(ch) == (0, 0)
    for party in parties:
        error = party.failure()
        assert type(error) is weft.Poisoned and error.__cause__ is cause and error.channel is ch


def test_l8_poison_reaches_parked_senders_at_once_and_gives_their_values_back(pair):
    here, there = pair
    ch = weft.Channel()
    parties = [world.start(sending, ch, name) for world, name in zip((here, there), "ab", strict=True)]
    until_parked(ch, senders=2)
    ch.poison()
    assert [party.failure().value for party in parties] == ["a", "b"]
    assert all(type(party.error) is weft.Poisoned for party in parties)
    assert ch.statistics().dropped == 0


def test_l8_what_poison_dropped_is_counted_and_can_be_recovered(pair):
    here, there = pair
    recovered = []
    ch = weft.Channel(8, on_undelivered=recovered.append)
    here.start(sending, ch, 1, 2, 3).join()
    ch.poison()
    assert recovered == [1, 2, 3]
    s = ch.statistics()
    assert (s.dropped, s.buffered, len(ch)) == (3, 0, 0)
    assert type(there.start(receiving, ch, 1).failure()) is weft.Poisoned
    assert type(here.start(sending, ch, 4).failure()) is weft.Poisoned
    assert recovered == [1, 2, 3]


def test_l8_poison_overrides_close(pair):
    here, there = pair
    recovered = []
    ch = weft.Channel(8, on_undelivered=recovered.append)
    here.start(sending, ch, "left").join()
    ch.close()
    ch.poison()
    assert recovered == ["left"]
    assert type(there.start(receiving, ch, 1).failure()) is weft.Poisoned


def test_l8_poison_twice_is_poison_once():
    recovered = []
    ch = weft.Channel(8, on_undelivered=recovered.append)
    ch.send_nowait("v")
    first = ValueError("first")
    ch.poison(first)
    ch.poison(ValueError("second"))
    ch.close(ValueError("third"))
    with pytest.raises(weft.Poisoned) as caught:
        ch.recv_nowait()
    assert caught.value.__cause__ is first
    assert recovered == ["v"] and ch.statistics().dropped == 1


# --- L9 Ends --------------------------------------------------------------------------------------------------------


def test_l9_when_the_last_sender_is_gone_receivers_drain_and_are_told(pair):
    here, there = pair
    ch = weft.Channel(8)
    tx = ch.sender()
    more = tx.clone()
    rx = there.start(draining, ch)
    here.start(sending, tx, 1, 2).join()
    tx.close()
    here.start(sending, more, 3).join()
    assert not ch.closed
    until_parked(ch, receivers=1)
    more.close()
    assert ch.closed
    assert rx.join() == [1, 2, 3]


def test_l9_when_the_last_receiver_is_gone_parked_senders_are_told_in_whatever_world(pair):
    here, there = pair
    ch = weft.Channel()
    rx = ch.receiver()
    more = rx.clone()
    parties = [world.start(sending, ch, name) for world, name in zip((here, there), "ab", strict=True)]
    until_parked(ch, senders=2)
    rx.close()
    take_turns()
    assert parked(ch) == (2, 0)
    more.close()
    for party, name in zip(parties, "ab", strict=True):
        error = party.failure()
        assert type(error) is weft.NoReceivers and error.value == name and error.channel is ch


def test_l9_an_end_that_is_dropped_counts_as_closed(pair):
    here, there = pair
    ch = weft.Channel()
    tx, rx = ch.split()
    waiting = there.start(receiving, rx, 1)
    until_parked(ch, receivers=1)
    del tx
    assert type(waiting.failure()) is weft.Closed

    ch = weft.Channel()
    tx, rx = ch.split()
    waiting = here.start(sending, tx, "v")
    until_parked(ch, senders=1)
    del rx
    error = waiting.failure()
    assert type(error) is weft.NoReceivers and error.value == "v"


def test_l9_the_channel_itself_keeps_nothing_alive_once_there_are_ends(world):
    ch = weft.Channel(4)
    tx = ch.sender()
    ch.send_nowait("through the channel")  # still allowed; it just does not count
    tx.close()
    assert ch.closed
    assert world.start(draining, ch).join() == ["through the channel"]


def test_l9_what_was_buffered_when_the_last_receiver_left_is_dropped_and_counted():
    recovered = []
    ch = weft.Channel(4, on_undelivered=recovered.append)
    rx = ch.receiver()
    ch.send_nowait("v")
    rx.close()
    assert recovered == ["v"] and ch.statistics().dropped == 1
    with pytest.raises(weft.NoReceivers):
        ch.send_nowait("w")


def test_l9_an_operation_keeps_its_end_open(pair):
    here, there = pair
    ch = weft.Channel()
    party = here.start(perform, ch.sender().send("v"))
    until_parked(ch, senders=1)
    assert not ch.closed
    assert there.start(receiving, ch, 1).join() == ["v"]
    party.join()
    party.forget()
    del party
    here.parties.clear()
    take_turns(3)
    gc.collect()
    until(lambda: ch.closed)


# --- L10 Progress ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1])
def test_l10_whenever_two_can_meet_they_do(pair, capacity):
    """Ping and pong: each round needs the wake-up of the one before; one lost wake-up would end it."""
    here, there = pair
    ping, pong, rounds = weft.Channel(capacity), weft.Channel(capacity), 150

    def pinger():
        for n in range(rounds):
            yield ping.send(n)
            assert (yield pong.recv()) == n

    def ponger():
        for _ in range(rounds):
            yield pong.send((yield ping.recv()))

    parties = [here.start(pinger), there.start(ponger)]
    for party in parties:
        party.join()


def test_l10_many_on_each_side_all_get_through(pair):
    here, there = pair
    ch = weft.Channel(2)
    receivers = [there.start(receiving, ch, 20) for _ in range(6)]
    senders = [here.start(sending, ch, *range(n * 30, n * 30 + 30)) for n in range(4)]
    got = sum((party.join() for party in receivers), [])
    for party in senders:
        party.join()
    assert sorted(got) == list(range(120))


def test_l10_a_close_is_progress_too(pair):
    here, there = pair
    ch = weft.Channel()
    waiting = [there.start(draining, ch) for _ in range(5)]

    def send_then_close():
        for n in range(10):
            yield ch.send(n)
        ch.close()

    here.start(send_then_close).join()
    assert sorted(sum((party.join() for party in waiting), [])) == list(range(10))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_l10_parked_parties_cause_no_wake_ups(python):
    """A parked thread and a loop with a parked task: their threads are not scheduled once, while nothing happens."""
    assert (
        python("""
        import asyncio, pathlib, threading, time, weft

        def switches(tid):
            status = pathlib.Path(f"/proc/self/task/{tid}/status").read_text()
            return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)

        def asleep(tid):
            return "State:\\tS" in pathlib.Path(f"/proc/self/task/{tid}/status").read_text()

        ch, other, tids = weft.Channel(), weft.Channel(), {}

        def thread():
            tids["thread"] = threading.get_native_id()
            ch.recv().wait()

        def chooser():
            tids["chooser"] = threading.get_native_id()
            weft.select(ch.recv(), other.recv()).wait(3600)

        def loop():
            tids["loop"] = threading.get_native_id()
            asyncio.run(task())

        async def task():
            await weft.select(ch.recv(), weft.after(3600))

        threads = [threading.Thread(target=target, daemon=True) for target in (thread, chooser, loop)]
        for t in threads:
            t.start()
        while ch.statistics().parked_receivers < 3 or not all(map(asleep, tids.values())):
            time.sleep(0.001)
        before = {name: switches(tid) for name, tid in tids.items()}
        time.sleep(0.5)
        after = {name: switches(tid) for name, tid in tids.items()}
        assert before == after, (before, after)
        for n in range(3):
            ch.send_nowait(n)
        for t in threads:
            t.join(10)
            assert not t.is_alive()
        print("idle")
    """)
        == "idle\n"
    )


# --- L11 No frozen loop ---------------------------------------------------------------------------------------------


def test_l11_wait_on_a_thread_that_runs_a_loop_refuses_to_block(looped):
    ch = weft.Channel()
    kept = weft.Channel(1)
    kept.send_nowait("kept")

    async def main():
        for make in (ch.recv, lambda: ch.send("v"), lambda: weft.select(ch.recv()), lambda: weft.after(0.01)):
            with pytest.raises(weft.BlockingInLoopError, match="await"):
                make().wait()
        with pytest.raises(weft.BlockingInLoopError):
            ch.recv().wait(0.01)
        with pytest.raises(weft.BlockingInLoopError):
            next(iter(ch))

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert parked(ch) == (0, 0) and ch.statistics().sent == 0


def test_l11_wait_on_a_thread_that_runs_a_loop_completes_what_needs_no_waiting(looped):
    ch = weft.Channel(2)

    async def main():
        ch.send("a").wait()
        ch.send("b").wait(5)
        assert ch.recv().wait() == "a"
        assert weft.select(ch.recv(), weft.never()).wait() == (0, "b")
        assert weft.select(ch.recv(), default="none").wait() == ("default", "none")
        assert weft.always("now").wait() == "now"
        with pytest.raises(TimeoutError):
            ch.recv().wait(0)  # now or not: nothing to refuse
        ch.close()
        with pytest.raises(weft.Closed):
            ch.recv().wait()

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()


def test_l11_a_worker_thread_of_a_loop_may_block(run):
    ch = weft.Channel()

    async def main():
        receiver = asyncio.create_task(asyncio.to_thread(lambda: ch.recv().wait(10)))
        await ch.send("v")
        return await receiver

    assert run(main) == "v"


# --- L12 Structure --------------------------------------------------------------------------------------------------
# More in test_group.py.


def test_l12_no_process_outlives_its_group(run):
    ch = weft.Channel()
    ended = []

    async def child(n):
        try:
            await ch.recv()
        finally:
            ended.append(n)

    async def main():
        async with weft.Group() as group:
            for n in range(3):
                group.spawn(child, n)
            while ch.statistics().parked_receivers < 3:
                await asyncio.sleep(0)
            group.cancel()
        assert sorted(ended) == [0, 1, 2]

    run(main)


def test_l12_no_error_is_lost(run):
    """The first failure cancels the siblings; what they raise while they end is raised with it."""
    ch = weft.Channel()

    async def task():
        try:
            await ch.recv()
        except asyncio.CancelledError:
            raise KeyError("in a task") from None

    def thread():
        try:
            ch.recv().wait()
        except weft.Cancelled:
            raise OSError("in a thread") from None

    async def main():
        async with weft.Group() as group:
            group.spawn(task)
            group.spawn(thread)
            while parked(ch) != (0, 2):
                await asyncio.sleep(0)
            group.spawn(lambda: 1 / 0)

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert sorted(type(error).__name__ for error in caught.value.exceptions) == [
        "KeyError",
        "OSError",
        "ZeroDivisionError",
    ]


def test_l12_a_base_exception_ends_a_process_like_any_other():
    class Odd(BaseException):
        pass

    def fails():
        raise Odd

    ch = weft.Channel()
    with pytest.raises(BaseExceptionGroup) as caught, weft.Group() as group:
        group.spawn(fails)
        group.spawn(lambda: ch.recv().wait())
    assert caught.group_contains(Odd)
    assert parked(ch) == (0, 0)


# --- L13 Good guest -------------------------------------------------------------------------------------------------

MESSAGES = 100_000


def chatty(world, ch):
    """Two parties that exchange MESSAGES values as fast as they can."""

    def talker():
        for n in range(MESSAGES):
            yield ch.send(n)

    def listener():
        for _ in range(MESSAGES):
            yield ch.recv()

    return world.start(talker), world.start(listener)


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "processes"])
def test_l13_two_chatty_tasks_do_not_starve_the_loop(name):
    """Callbacks, a timer and a socket get their turns: never is the loop away for a tenth of the conversation."""
    if name == "uvloop":
        pytest.importorskip("uvloop")
    world = make_world(name)
    world.open()
    loop = world.loop
    ch = weft.Channel()
    turns, ticks, reads = [], [], []
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    try:

        def so_far():
            return ch.statistics().received

        def again():
            turns.append(so_far())
            loop.call_soon(again)

        def tick():
            ticks.append(so_far())
            loop.call_later(0.001, tick)

        def read():
            reads.append(near.recv(1))
            far.send(b"x")

        loop.add_reader(near, read)
        loop.call_soon(again)
        loop.call_later(0.001, tick)
        far.send(b"x")
        a, b = chatty(world, ch)

        async def until_over():
            while not (a.done and b.done):
                await asyncio.sleep(0)

        loop.run_until_complete(asyncio.wait_for(until_over(), 60))
        a.join(), b.join()
        loop.remove_reader(near)
        for what in (turns, ticks):
            marks = [0, *what, MESSAGES]
            gaps = [later - earlier for earlier, later in zip(marks, marks[1:], strict=False)]
            assert max(gaps) < MESSAGES / 10, f"{max(gaps)} messages went by in one go"
        assert len(reads) >= 10
    finally:
        world.close()
        near.close()
        far.close()


def test_l13_a_task_that_never_has_to_wait_does_not_keep_the_loop(looped):
    """Operations that complete at once do not suspend; after a millisecond of them one does."""
    ch = weft.Channel(1)
    turns = []

    async def main():
        loop = asyncio.get_running_loop()

        def again(n):
            turns.append(n)
            loop.call_soon(again, len(turns))

        loop.call_soon(again, 0)
        for _ in range(fewer(MESSAGES)):
            await ch.send(None)
            await ch.recv()

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert len(turns) > 5


def test_l13_a_burst_is_handed_out_without_keeping_the_loop(looped):
    """Ten thousand receivers woken at once: the loop's other callbacks run in between, not after."""
    ch = weft.Channel()
    crowd = 10_000
    woken_at_turn, turns = [], 0

    async def receiver():
        await ch.recv()
        woken_at_turn.append(turns)
        deadline = time.perf_counter() + 20e-6  # some work
        while time.perf_counter() < deadline:
            pass

    async def main():
        nonlocal turns
        tasks = [asyncio.ensure_future(receiver()) for _ in range(crowd)]
        while ch.statistics().parked_receivers < crowd:
            await asyncio.sleep(0)
        for _ in range(crowd):
            ch.send_nowait(None)
        while len(woken_at_turn) < crowd:
            turns += 1
            await asyncio.sleep(0)
        await asyncio.wait(tasks)

    task = looped.loop.create_task(main())
    until(task.done)
    task.result()
    assert turns > 10  # 200 ms of work, handed out in pieces of 1 ms


def test_l13_importing_starts_no_thread_and_no_loop(python):
    program = """
        import os, sys, threading
        import weft
        assert threading.active_count() == 1, threading.enumerate()
        if os.path.isdir("/proc/self/task"):
            assert len(os.listdir("/proc/self/task")) == 1
        ch = weft.Channel(1)
        ch.send_nowait(1)
        assert weft.select(ch.recv(), weft.after(60)).wait() == (0, 1)
        try:
            weft.select(ch.recv(), weft.after(0.01)).wait()
        finally:
            assert threading.active_count() == 1, threading.enumerate()
            if os.path.isdir("/proc/self/task"):
                assert len(os.listdir("/proc/self/task")) == 1
        print("one thread")
    """
    assert python(program) == "one thread\n"


# --- L14 No foreign code under a lock -------------------------------------------------------------------------------
# Each in a fresh interpreter: a lock held around foreign code that takes it again freezes the process.

L14 = {
    "on_undelivered": """
        seen = []
        def rescue(value):
            seen.append((value, ch.statistics().buffered))
            try:
                ch.send_nowait("from inside")
            except weft.WeftError:
                pass
            ch.close()
        ch = weft.Channel(2, on_undelivered=rescue)
        ch.send_nowait(1); ch.send_nowait(2)
        ch.poison()
        assert [value for value, _ in seen] == [1, 2], seen
    """,
    "overflow_handler": """
        def rescue(value):
            rescued.append(value)
            if len(rescued) < 3:
                ch.send_nowait(value + 10)
        rescued = []
        ch = weft.Channel(1, overflow="drop_oldest", on_undelivered=rescue)
        ch.send_nowait(0)
        ch.send_nowait(1)
        assert rescued == [0, 1, 10], rescued
        assert ch.recv_nowait() == 11
    """,
    "finaliser_of_a_dropped_value": """
        class Value:
            def __del__(self):
                deaths.append(ch.statistics().buffered)
                ch.close()
                ch.poison()
        deaths = []
        ch = weft.Channel(3)
        for _ in range(3):
            ch.send_nowait(Value())
        ch.poison()
        gc.collect()
        assert len(deaths) == 3, deaths
    """,
    "finaliser_of_a_displaced_value": """
        class Value:
            def __del__(self):
                deaths.append(len(ch))
                try:
                    ch.recv_nowait()
                except weft.WeftError:
                    pass
        deaths = []
        ch = weft.Channel(1, overflow="drop_oldest")
        for _ in range(3):
            ch.send_nowait(Value())
        gc.collect()
        assert deaths
    """,
    "finaliser_of_an_abandoned_channel": """
        class Value:
            def __del__(self):
                deaths.append(1)
                other.send_nowait("died")
        deaths = []
        other = weft.Channel(4)
        ch = weft.Channel(2)
        ch.send_nowait(Value()); ch.send_nowait(Value())
        del ch
        for _ in range(2):  # PyPy finalizes first the channel, next time what it held
            gc.collect()
        assert len(deaths) == 2 and len(other) == 2
    """,
    "finaliser_that_switches_threads": """
        # The destructor lets another thread run, and that thread needs the same channel.
        class Value:
            def __del__(self):
                other = threading.Thread(target=lambda: (ch.statistics(), done.append(1)))
                other.start()
                other.join(10)
        done = []
        ch = weft.Channel(1)
        ch.send_nowait(Value())
        ch.poison()
        gc.collect()
        assert done == [1]
    """,
    "map": """
        ch = weft.Channel(2)
        def inside(value):
            ch.send_nowait(value + 1)
            return ch.recv_nowait()
        ch.send_nowait(1)
        assert ch.recv().map(inside).wait() == 2
        ch.send_nowait(1)
        assert weft.select(ch.recv().map(inside)).wait() == (0, 2)
    """,
    "sequence_given_to_send_many": """
        class Values(list):
            def __iter__(self):
                ch.statistics(); ch.send_nowait("first")
                return super().__iter__()
            def __len__(self):
                ch.statistics()
                return super().__len__()
            def __getitem__(self, n):
                ch.statistics()
                return super().__getitem__(n)
        ch = weft.Channel(8)
        assert ch.send_many(Values([1, 2])).wait() == 2
        assert ch.recv_many(8).wait()[-2:] == [1, 2]
    """,
    "file_object_in_a_select": """
        class File:
            def fileno(self):
                ch.statistics()
                return r
        import os
        r, w = os.pipe()
        os.write(w, b"x")
        ch = weft.Channel()
        file = File()
        assert weft.select(ch.recv(), weft.readable(file)).wait() == (1, file)
    """,
    "garbage_collection_of_ends": """
        # A cycle through the channel's own buffer is collected while operations go on.
        for _ in range(200):
            ch = weft.Channel(2)
            tx, rx = ch.split()
            tx.send_nowait([ch, tx, rx])
            del ch, tx, rx
        gc.collect()
    """,
}


@pytest.mark.parametrize("what", L14)
def test_l14_foreign_code_may_use_the_channel_that_calls_it(python, what):
    import textwrap

    assert python("import gc, threading, weft\n" + textwrap.dedent(L14[what]) + "\nprint('free')\n") == "free\n"


# --- L15 Signals ----------------------------------------------------------------------------------------------------
# This one is the law's own sentence.


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_l15_a_blocked_main_thread_answers_ctrl_c(python):
    assert (
        python("""
        import os, signal, threading, time, weft

        ch = weft.Channel()
        sent_at = 0.0

        def interrupt():
            global sent_at
            while not ch.statistics().parked_receivers:
                time.sleep(0.001)
            time.sleep(0.2)  # it is asleep by now: what comes in the instant before is seen at its next signal or wake-up
            sent_at = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            ch.recv().wait()
        except KeyboardInterrupt:
            took = time.monotonic() - sent_at
        assert took < 2, took  # the law says 0.1; a loaded machine gets more
        assert ch.statistics().parked_receivers == 0
        print("interrupted")
    """)
        == "interrupted\n"
    )
