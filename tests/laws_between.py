"""The laws between two places, as far as they are tested alike whatever the other place is: test_places.py and
test_os_processes.py have each of these tests, with their own `here`, `there` and `sides` (sender's side, receiver's side).
What is no test is the body of some whose names or parameters differ.
"""

from __future__ import annotations

import contextlib
import sys
import threading

import abroad
import freight
import pytest
import weft
import worlds
from places import drained, failure_of, outcome, spin, text_of
from worlds import LIMIT, parked, until, until_parked

# --- L1 Rendezvous --------------------------------------------------------------------------------------------------


def test_l1_send_completes_only_when_a_receiver_took_the_value(sides):
    sender, receiver = sides
    ch = weft.Channel()
    tx = sender.start(abroad.sending, ch, "v")
    until_parked(ch, senders=1)
    assert not tx.done and len(ch) == 0
    assert receiver.start(abroad.receiving, ch, 1).join() == ["v"]
    tx.join()


def test_l1_a_parked_receiver_takes_the_value_at_once(sides):
    sender, receiver = sides
    ch = weft.Channel()
    rx = receiver.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    sender.start(abroad.sending, ch, "v").join()
    assert rx.join() == ["v"]


def test_l1_a_rendezvous_channel_holds_nothing(sides):
    sender, receiver = sides
    ch = weft.Channel()
    tx, rx = sender.start(abroad.sending, ch, *range(20)), receiver.start(abroad.receiving, ch, 20)
    while not rx.done:
        assert len(ch) == 0 == ch.statistics().buffered
        worlds.turn()
    assert rx.join() == list(range(20))
    tx.join()


def test_l1_nobody_waits_with_nowait(there):
    ch = weft.Channel()
    rx = there.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    ch.send_nowait("met")
    assert rx.join() == ["met"]
    with pytest.raises(weft.WouldBlock) as refused:
        ch.send_nowait(["nobody", "there"])
    assert refused.value.value == ["nobody", "there"]
    tx = there.start(abroad.sending, ch, "back")
    until_parked(ch, senders=1)
    assert ch.recv_nowait() == "back"
    tx.join()


# --- L2 Order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 1, 7, None])
def test_l2_one_senders_values_arrive_in_order(sides, capacity):
    sender, receiver = sides
    ch = weft.Channel.unbounded() if capacity is None else weft.Channel(capacity)
    rx = receiver.start(abroad.draining, ch)
    sender.start(abroad.sending, ch, *range(100)).join()
    ch.close()
    assert rx.join() == list(range(100))


def test_l2_many_at_once_arrive_in_order(sides):
    sender, receiver = sides
    ch = weft.Channel(5)
    rx = receiver.start(abroad.receiving_many, ch, 10)
    until_parked(ch, receivers=1)
    count = sender.start(abroad.sending_many, ch, ["a", "b", ["c"]]).join()
    got = rx.join() + drained(ch)
    assert count >= 1 and got == ["a", "b", ["c"]][:count]


def parked_receivers_are_served_in_order(here, there):
    ch = weft.Channel()
    parties = []
    for n in range(4):
        parties.append((here, there)[n % 2].start(abroad.receiving, ch, 1))
        until_parked(ch, receivers=n + 1)
    for n in range(4):
        ch.send_nowait(n)
    assert [party.join() for party in parties] == [[n] for n in range(4)]


def parked_senders_are_served_in_order(here, there, capacity):
    ch = weft.Channel(capacity)
    for n in range(capacity):
        ch.send_nowait(n)
    parties = []
    for n in range(4):
        parties.append((there, here)[n % 2].start(abroad.sending, ch, capacity + n))
        until_parked(ch, senders=n + 1)
    assert [ch.recv_nowait() for _ in range(capacity + 4)] == list(range(capacity + 4))
    for party in parties:
        party.join()


def test_l2_the_overflow_policy_error_raises_there(there):
    ch = weft.Channel(1, overflow="error")
    error = there.start(abroad.sending, ch, 1, [2]).failure()
    assert type(error) is weft.WouldBlock and error.value == [2]
    assert drained(ch) == [1]


def test_l2_a_newcomer_never_overtakes_one_that_is_parked_there(there):
    ch = weft.Channel(1)
    ch.send_nowait("first")
    tx = there.start(abroad.sending, ch, "second")
    until_parked(ch, senders=1)
    assert ch.recv_nowait() == "first"
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("newcomer")
    assert ch.recv_nowait() == "second"
    tx.join()


# --- L3 Conservation ------------------------------------------------------------------------------------------------


def storm_loses_nothing(one, two, capacity):
    """Timeouts and cancels, wherever the parties can be cancelled."""
    ch = weft.Channel(capacity)
    senders = [(one, two)[n % 2].start(abroad.storm_of_sends, ch, n * 10_000, 150, n) for n in range(4)]
    receivers = [(one, two)[n % 2].start(abroad.storm_of_receives, ch, n) for n in range(4)]
    until(lambda: ch.statistics().received > 60)
    for party in (senders[1], receivers[1]):
        party.cancel()
    if one.cancels:
        for party in (senders[2], receivers[2]):
            party.cancel()
    gave = [value for party in senders for value in outcome(party)]
    ch.close()
    took = [value for party in receivers for value in outcome(party)]
    assert sorted(gave) == sorted(took + drained(ch))
    stats = ch.statistics()
    assert stats.sent == len(gave) == stats.received + stats.dropped
    assert parked(ch) == (0, 0)


def test_l3_a_value_that_cannot_be_made_loses_no_other_that_came_with_it(there):
    ch = weft.Channel(3)
    there.start(abroad.receiving, ch, 0).join()
    for value in (1, freight.Refuses(), 3):
        ch.send_nowait(value)
    got = []
    for _ in range(3):
        try:
            got += ch.recv_many(3).wait(0)
        except LookupError as error:
            got.append(str(error))
        except TimeoutError:
            break
    assert got == [1, "it is not made here", 3]


# --- L4 Commit wins -------------------------------------------------------------------------------------------------


def test_l4_a_receive_cancelled_there_has_taken_nothing(there):
    ch = weft.Channel()
    rx = there.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    rx.cancel()
    until_parked(ch)
    assert isinstance(rx.failure(), weft.Cancelled)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("for nobody")
    assert ch.statistics()[-3:] == (0, 0, 0)


def test_l4_a_send_cancelled_there_has_given_nothing(there):
    ch = weft.Channel()
    tx = there.start(abroad.sending, ch, "v")
    until_parked(ch, senders=1)
    tx.cancel()
    until_parked(ch)
    assert isinstance(tx.failure(), weft.Cancelled)
    with pytest.raises(weft.WouldBlock):
        ch.recv_nowait()


def cancelled_when_met_completes(here, there):
    """Met from there, and cancelled before it was resumed."""
    ch = weft.Channel()
    rx = here.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    tx = there.start(abroad.sending, ch, "v")
    spin(lambda: ch.statistics().received == 1)
    rx.cancel()
    assert rx.join() == ["v"]
    tx.join()


def test_l4_a_party_cancelled_here_leaves_its_peer_there_to_the_next(here, there):
    if not here.cancels:
        pytest.skip("nobody can cancel a plain thread")
    ch = weft.Channel()
    one, two = here.start(abroad.receiving, ch, 1), here.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=2)
    one.cancel()
    until(lambda: one.done)
    there.start(abroad.sending, ch, "v").join()
    assert two.join() == ["v"] and isinstance(one.failure(), worlds.CANCELLED)


# --- L5 One of many -------------------------------------------------------------------------------------------------


def test_l5_two_selects_that_face_each_other_pair(sides):
    one, two = sides
    a, b = weft.Channel(), weft.Channel()
    first = one.start(abroad.facing, 100, a, b, True)
    second = two.start(abroad.facing, 100, a, b, False)
    sent, got = first.join()
    sent_back, got_back = second.join()
    assert sent == got_back and sent_back == got
    assert len(sent) + len(got) == 100
    assert parked(a) == parked(b) == (0, 0)


def test_l5_a_select_never_meets_itself_but_one_from_there(sides):
    one, two = sides
    ch = weft.Channel()
    first = one.start(abroad.swapping, ch, "one", 100)
    second = two.start(abroad.swapping, ch, "two", 100)
    sent, got = first.join()
    sent_back, got_back = second.join()
    assert sent == got_back and sent_back == got
    assert all(who == "two" for who, _ in got) and all(who == "one" for who, _ in got_back)


def test_l5_a_select_over_a_channel_from_there_and_one_from_here_commits_once(here, there):
    for first in ("there", "here"):
        far, near = weft.Channel(), weft.Channel()
        there.start(abroad.receiving, far, 0).join()
        party = here.start(abroad.choosing, "random", ("recv", far), ("recv", near))
        until_parked(near, receivers=1)
        if first == "there":
            there.start(abroad.sending, far, "far").join()
            assert party.join() == (0, "far")
        else:
            near.send_nowait("near")
            assert party.join() == (1, "near")
        assert parked(far) == parked(near) == (0, 0)
        for ch in (far, near):
            with pytest.raises(weft.WouldBlock):
                ch.send_nowait("late")


def test_l5_a_case_that_lost_leaves_its_peer_there_parked(there):
    far, near = weft.Channel(), weft.Channel(1)
    near.send_nowait("near")
    tx = there.start(abroad.sending, far, "far")
    until_parked(far, senders=1)
    assert weft.select(near.recv(), far.recv(), policy="priority").wait(LIMIT) == (0, "near")
    assert parked(far) == (1, 0) and not tx.done
    assert far.recv_nowait() == "far"
    tx.join()


# --- L6 Fairness ----------------------------------------------------------------------------------------------------


def test_l6_priority_is_strict_there_too(there):
    chosen = there.start(abroad.choosing_often, 50, "priority", *two_that_are_ready(50)).join()
    assert chosen == [(0, n) for n in range(50)]


def test_l6_random_is_no_order_there_either(there):
    chosen = there.start(abroad.choosing_often, 200, "random", *two_that_are_ready(200)).join()
    assert 40 < sum(case for case, _ in chosen) < 160  # fails by chance once in 10**17 runs


def test_l6_selecting_serves_nobody_twice_while_another_waits(here, there):
    for reader, writer in ((here, there), (there, here)):
        channels = {name: weft.Channel(10) for name in "abc"}
        for name, ch in channels.items():
            writer.start(abroad.sending, ch, *[f"{name}{n}" for n in range(10)]).join()
        events = reader.start(abroad.registered, channels, 30).join()
        for start in range(0, 30, 3):
            assert len({case for case, _ in events[start : start + 3]}) == 3
        for name in "abc":
            assert [value for case, value in events if case == name] == [f"{name}{n}" for n in range(10)]


def test_l6_selecting_waits_for_values_from_the_other_place(sides):
    writer, reader = sides
    channels = {name: weft.Channel() for name in "ab"}
    party = reader.start(abroad.registered, channels, 6)
    until(lambda: all(parked(ch)[1] for ch in channels.values()))
    for n in range(3):
        for name in "ba":
            writer.start(abroad.sending, channels[name], n).join()
    assert sorted(party.join()) == [(name, n) for name in "ab" for n in range(3)]


def test_l6_what_selecting_did_not_serve_there_is_still_in_its_channel(there):
    """Values are taken only when they are asked for."""
    channels = {name: weft.Channel(3) for name in "ab"}
    for name, ch in channels.items():
        ch.send_many([f"{name}0", f"{name}1"]).wait()
    events = there.start(abroad.registered, channels, 2).join()
    assert sorted(events) == [("a", "a0"), ("b", "b0")]
    assert [drained(ch) for ch in channels.values()] == [["a1"], ["b1"]]


def test_l7_a_channel_that_ends_leaves_selecting_there(there):
    one, two, spoilt, quiet = (weft.Channel(2) for _ in range(4))
    one.send_nowait(1)
    one.close(ValueError("why"))
    two.send_nowait(2)
    two.close()
    spoilt.poison()
    quiet.close()
    events = there.start(
        abroad.registered_until_over, {"one": one, "two": two, "spoilt": spoilt, "quiet": quiet}
    ).join()
    assert sorted(events) == [("Poisoned", "spoilt"), ("ValueError", None), ("one", 1), ("two", 2)]


def two_that_are_ready(count):
    a, b = weft.Channel(count), weft.Channel(count)
    for n in range(count):
        a.send_nowait(n)
        b.send_nowait(n)
    return ("recv", a), ("recv", b)


# --- L7 Close, L8 Poison --------------------------------------------------------------------------------------------


def test_l7_what_was_sent_before_the_close_is_still_delivered(sides):
    one, two = sides
    ch = weft.Channel(5)
    one.start(abroad.sending, ch, 1, 2, 3).join()
    one.start(abroad.closing, ch, None).join()
    one.start(abroad.closing, ch, ValueError("too late")).join()
    assert two.start(abroad.draining, ch).join() == [1, 2, 3]
    error = one.start(abroad.sending, ch, ["v"]).failure()
    assert type(error) is weft.Closed and error.value == ["v"]
    assert type(two.start(abroad.receiving, ch, 1).failure()) is weft.Closed


def test_l7_a_reason_that_cannot_travel_is_refused_where_it_is_given(there):
    ch = weft.Channel()
    rx = there.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    with pytest.raises(TypeError, match="cannot go to another place"):
        ch.close(freight.holding_error())
    assert not ch.closed and parked(ch) == (0, 1)
    ch.close()
    assert type(rx.failure()) is weft.Closed


def test_l7_an_error_of_another_channel_can_be_the_reason(sides):
    one, two = sides
    ch, other = weft.Channel(), weft.Channel(name="other")
    other.close()
    with pytest.raises(weft.Closed) as closed:
        other.recv_nowait()
    rx = two.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    one.start(abroad.closing, ch, closed.value).join()
    for party in (rx, two.start(abroad.receiving, ch, 1), one.start(abroad.receiving, ch, 1)):
        error = party.failure()
        assert type(error) is weft.Closed and "'other'" in str(error)


def test_l7_a_channel_that_was_closed_before_it_travelled_is_closed_there(there):
    ch = weft.Channel(3)
    ch.send_nowait("left")
    try:
        raise freight.Boom("before")
    except freight.Boom as error:
        ch.close(error)
    assert there.start(abroad.receiving, ch, 1).join() == ["left"]
    error = there.start(abroad.receiving, ch, 1).failure()
    assert type(error) is freight.Boom and "before" in str(error)


def told(ch, party, side, script, *args):
    """What a party that is parked on a channel is told when `side` ends the channel by that script."""
    until(lambda: sum(parked(ch)) == 1)
    side.start(script, ch, *args).join()
    assert parked(ch) == (0, 0)
    return party.failure()


def told_of_close(one, two):
    ch = weft.Channel(name="ending")
    error = told(ch, two.start(abroad.receiving, ch, 1), one, abroad.closing, None)
    assert type(error) is weft.Closed and "'ending'" in str(error)
    return error


def test_l7_the_reason_arrives_with_its_type_and_traceback(sides):
    one, two = sides
    ch = weft.Channel()
    error = told(ch, two.start(abroad.receiving, ch, 1), one, abroad.closing_with_raised, "why")
    assert type(error) is ValueError and error.args == ("why",)
    assert "_somewhere_deep" in text_of(error)


def told_of_poison(one, two, script, arg):
    ch = weft.Channel()
    error = told(ch, one.start(script, ch, arg), two, abroad.poisoning, ValueError("spoilt"))
    assert type(error) is weft.Poisoned and "ValueError: spoilt" in text_of(error)
    assert ch.statistics().dropped == 0
    return error


def test_l8_what_is_dropped_there_is_handed_over_where_the_channel_was_made(there):
    for how in ("poison", "leave"):
        lost = []
        ch = weft.Channel(3, on_undelivered=lost.append)
        ch.send_many([["a"], "b", 3]).wait()
        if how == "poison":
            there.start(abroad.poisoning, ch, None).join()
        else:
            turns = weft.Channel()
            with ch.receiver() as end:
                party = there.start(abroad.leaving, end, turns)
            assert lost == [], "the last one is still there"
            turns.send("go").wait(LIMIT)
            party.join()
        until(lambda lost=lost: len(lost) == 3, "it is told")
        assert lost == [["a"], "b", 3] and ch.statistics().dropped == 3


def test_l8_what_an_overflow_policy_drops_there_is_handed_over_here(there):
    lost = []
    ch = weft.Channel(2, overflow="drop_oldest", on_undelivered=lost.append)
    there.start(abroad.sending, ch, *range(5)).join()
    until(lambda: len(lost) == 3, "it is told")
    assert lost == [0, 1, 2] and drained(ch) == [3, 4]


def test_l8_a_channel_made_there_is_told_of_what_others_drop(sides):
    maker, other = sides
    ways = weft.Channel()
    hearing = maker.start(abroad.hearing, ways, 5)
    other.start(abroad.dropping, ways).join()
    assert hearing.join() == [[n] for n in range(5)]


def test_l8_what_poison_drops_is_counted_and_handed_over(there):
    lost = []
    ch = weft.Channel(5, on_undelivered=lost.append)
    there.start(abroad.sending, ch, [1], [2]).join()
    ch.poison()
    assert lost == [[1], [2]] and ch.statistics().dropped == 2
    assert type(there.start(abroad.sending, ch, 3).failure()) is weft.Poisoned


# --- L9 Ends ---------------------------------------------------------------------------------------------------------


def test_l9_an_end_lost_on_the_way_counts_as_closed(there):
    ways = weft.Channel(3)
    there.start(abroad.receiving, ways, 0).join()
    ch = weft.Channel()
    ways.send_nowait(ch.sender())
    ways.send_nowait([1, {"end": ch.sender()}])
    assert ch.statistics().senders == 2
    rx = there.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    ways.poison()
    assert type(rx.failure()) is weft.Closed
    assert ch.statistics().senders == 0


def test_l9_an_end_in_a_channel_that_everybody_has_dropped_counts_as_closed(there):
    ways, ch = weft.Channel(3), weft.Channel()
    there.start(abroad.receiving, ways, 0).join()
    rx = there.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    ways.send_nowait(ch.sender())
    del ways
    assert type(rx.failure()) is weft.Closed


def test_l9_an_end_that_arrives_counts_there_from_before_it_was_given_up_here(there):
    ways, ch = weft.Channel(1), weft.Channel(1)
    there.start(abroad.passing_ends, ways, ch.sender()).join()
    assert not ch.closed and ch.statistics().senders == 1
    end = ways.recv_nowait()
    end.send_nowait("kept open on the way")
    end.close()
    assert drained(ch) == ["kept open on the way"] and ch.closed


@pytest.mark.parametrize("how", ["returns", "fails", "cancelled"])
def test_l9_a_process_that_ends_has_given_up_the_ends_it_was_given(place, how):
    ch, started = weft.Channel(), weft.Channel(1)
    tx = ch.sender()
    function = {
        "returns": abroad.holds_and_returns,
        "fails": abroad.holds_and_fails,
        "cancelled": abroad.holds_and_parks,
    }
    with contextlib.suppress(ExceptionGroup), weft.Group() as group:
        process = group.spawn(function[how], tx, started, on=place)
        tx.close()
        started.recv().wait(LIMIT)
        if how == "cancelled":
            assert not ch.closed
            process.cancel()
    until(lambda: ch.closed)


# --- L11 No frozen loop, L13 Good guest, L14 No foreign code under a lock --------------------------------------------


def test_l11_a_wait_in_a_loop_there_raises_unless_it_can_be_done_at_once(place):
    ch = weft.Channel(1)
    with weft.Group() as group:
        assert group.spawn(abroad.blocks_its_loop, ch, on=place).join().wait(LIMIT) == (True, "its own")
    assert parked(ch) == (0, 0) and len(ch) == 0


def test_l13_a_task_there_that_is_always_served_leaves_the_loop_to_others(place):
    ch = weft.Channel(64)
    with weft.Group() as group:
        turns = group.spawn(abroad.turns_while_it_is_served, ch, 10, on=place)
        with contextlib.suppress(weft.NoReceivers, weft.Closed):
            for n in range(10**9):
                ch.send(n).wait(LIMIT)
        assert turns.join().wait(LIMIT) == 10


def test_l14_what_is_run_to_pass_a_value_may_use_its_channel(sides):
    sender, receiver = sides
    ch, seen = weft.Channel(2), weft.Channel.unbounded()
    rx = receiver.start(abroad.receiving, ch, 3)
    sender.start(abroad.sending, ch, *[freight.Meddler(ch, seen) for _ in range(3)]).join()
    rx.join()
    assert {value[0] for value in drained(seen)} == {"taken to pieces", "made"}


def test_l14_on_undelivered_may_use_its_channel(there):
    lost = []
    ch = weft.Channel(3, on_undelivered=lambda value: lost.append((value, ch.closed, len(ch), ch.close())))
    ch.send_many([1, 2]).wait()
    there.start(abroad.poisoning, ch, None).join()
    until(lambda: len(lost) == 2)
    assert lost == [(1, True, 0, None), (2, True, 0, None)]


# --- L12 Structure --------------------------------------------------------------------------------------------------


def a_process_has_a_result_and_a_name(function, place):
    with weft.Group() as group:
        process = group.spawn(function, 21, on=place)
        named = group.spawn(function, 1, on=place, name="named")
        assert process.join().wait(LIMIT) == 42
    assert process.done and process.result() == 42 and not process.cancelled()
    assert process.name.startswith(function.__name__) and named.name == "named" and named.result() == 2
    assert f"({place}) returned" in repr(process) and "laws_between.py" in repr(process)


@pytest.mark.parametrize("function", [abroad.boom, abroad.boom_soon])
def test_l12_a_failure_there_cancels_the_siblings_and_is_raised(place, function):
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        sibling = group.spawn(abroad.park_soon, on=place)
        thread = group.spawn(abroad.park, on="thread")
        process = group.spawn(function, "far", on=place, name="the one")
    (error,) = caught.value.exceptions
    assert type(error) is LookupError and error.args == ("far",)
    assert function.__name__ in str(error.__cause__)
    assert any("'the one'" in note and place in note for note in error.__notes__)
    assert sibling.cancelled() and thread.cancelled() and not process.cancelled()
    with pytest.raises(LookupError):
        process.result()


def test_l12_a_failure_here_cancels_what_is_there(place):
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        processes = [group.spawn(function, on=place) for function in (abroad.park, abroad.park_soon)]
        raise LookupError("here")
    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert all(process.cancelled() for process in processes)


def test_l12_system_exit_and_stop_iteration_there(place):
    with pytest.raises(SystemExit), weft.Group() as group:
        group.spawn(abroad.exits, on=place)
    assert type(failure_of(abroad.stops, on=place)) is RuntimeError


def test_l12_a_result_that_cannot_travel_is_the_processs_failure(place):
    error = failure_of(abroad.returns_unfit, on=place)
    assert isinstance(error, TypeError) and "cannot go to another place" in str(error)


@pytest.mark.parametrize("function", [abroad.park, abroad.park_soon])
def test_l12_a_process_there_is_cancelled_alone(place, function):
    started = weft.Channel(2)
    with weft.Group() as group:
        process = group.spawn(function, started, on=place)
        other = group.spawn(abroad.sum_of, (numbers := weft.Channel()).receiver(), on=place)
        assert started.recv().wait(LIMIT) == "started"
        process.cancel()
        with pytest.raises(weft.Cancelled):
            process.join().wait(LIMIT)
        with numbers.sender() as tx:
            tx.send(5).wait(LIMIT)
    assert process.cancelled() and other.result() == 5
    process.cancel()  # it has ended: nothing happens


@pytest.mark.parametrize("function", [abroad.park, abroad.park_soon])
def test_l12_a_groups_cancel_and_deadline_reach_there(place, function):
    with weft.Group() as group:
        process = group.spawn(function, on=place)
        group.cancel()
    assert process.cancelled() and group.cancelled
    with weft.Group() as group:
        process = group.spawn(function, on=place)
        group.cancel_after(0.01)
    assert process.cancelled() and group.cancelled


def test_l12_a_join_stands_in_a_select(place):
    never = weft.Channel()
    with weft.Group() as group:
        process = group.spawn(abroad.double, 4, on=place)
        assert weft.select(never.recv(), process.join()).wait(LIMIT) == (1, 8)


@pytest.mark.parametrize("function", [abroad.groups_here, abroad.groups_here_soon])
def test_l12_groups_within_a_process_there(place, function):
    ch = weft.Channel()
    with weft.Group() as group:
        process = group.spawn(function, ch, 5, on=place)
        assert sorted(ch.recv().wait(LIMIT) for _ in range(5)) == list(range(5))
    assert process.result() == "all ended"


def test_l12_a_cancel_goes_down_through_groups_there(place):
    ch = weft.Channel()
    with weft.Group() as group:
        process = group.spawn(abroad.groups_here, ch, 3, on=place)
        until_parked(ch, senders=3)
        process.cancel()
    assert process.done and parked(ch) == (0, 0)


def test_l12_what_cannot_be_found_there_is_refused_at_once(place):
    def local():
        pass

    with weft.Group() as group:
        for function, word in ((lambda: None, "lambda"), (local, "inside another one")):
            with pytest.raises(TypeError, match=word) as caught:
                group.spawn(function, on=place)
            assert "top level" in str(caught.value)
        with pytest.raises(TypeError, match="cannot go to another place"):
            group.spawn(abroad.double, sys._getframe(), on=place)
        with pytest.raises(TypeError, match=r"\[0\]\['lock'\]"):
            group.spawn(abroad.double, {"lock": threading.Lock()}, on=place)
        assert group.spawn(abroad.double, 3, on=place).join().wait(LIMIT) == 6


def test_l12_arguments_that_cannot_be_made_there_fail_the_process(place):
    for _ in range(2):
        error = failure_of(abroad.double, freight.Refuses(), on=place)
        assert type(error) is LookupError and "it is not made here" in str(error)


__all__ = [name for name in dir() if name.startswith("test_")]
