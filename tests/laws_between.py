"""The laws between two places, as far as they are tested alike whatever the other place is: test_places.py and
test_os_processes.py have each of these tests, with their own `here`, `there` and `sides` (sender's side, receiver's side).
What is no test is the body of some whose names or parameters differ.
"""

from __future__ import annotations

import abroad
import pytest
import weft
from places import drained, outcome, spin, text_of
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
    events = there.start(abroad.registered_until_over, {"one": one, "two": two, "spoilt": spoilt, "quiet": quiet}).join()
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


# --- L12 Structure --------------------------------------------------------------------------------------------------


def a_process_has_a_result_and_a_name(function, place):
    with weft.Group() as group:
        process = group.spawn(function, 21, on=place)
        named = group.spawn(function, 1, on=place, name="named")
        assert process.join().wait(LIMIT) == 42
    assert process.done and process.result() == 42 and not process.cancelled()
    assert process.name.startswith(function.__name__) and named.name == "named" and named.result() == 2
    assert f"({place}) returned" in repr(process) and "laws_between.py" in repr(process)


__all__ = [name for name in dir() if name.startswith("test_")]
