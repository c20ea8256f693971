"""The surface of a channel, one test per sentence of docs/design/semantics.md and of the design's table."""

import asyncio
import gc
import sys
import threading
import traceback

import pytest
import weft
from worlds import collect, draining, parked, perform, sending, until_parked

# --- making one -----------------------------------------------------------------------------------------------------


def test_the_default_is_a_rendezvous():
    assert weft.Channel().capacity == 0


def test_a_channel_can_be_made_with_its_type():
    ch = weft.Channel[int](64)
    assert isinstance(ch, weft.Channel) and ch.capacity == 64


def test_unbounded_is_a_visible_word():
    ch = weft.Channel[int].unbounded()
    assert ch.capacity is None and ch.statistics().capacity is None
    for n in range(10_000):
        ch.send_nowait(n)
    assert len(ch) == 10_000


def test_unbounded_works_without_a_type_and_takes_a_name():
    ch = weft.Channel.unbounded(name="all of it")
    assert isinstance(ch, weft.Channel) and ch.name == "all of it"


def test_the_name_is_what_was_given():
    assert weft.Channel(name="orders").name == "orders"
    assert weft.Channel(3, name="ünïcode 🧵").name == "ünïcode 🧵"


def test_without_a_name_it_is_the_line_that_made_it():
    ch = weft.Channel()
    line = sys._getframe().f_lineno - 1
    assert ch.name.endswith(f"test_surface_channels.py:{line}")


def test_the_repr_says_what_it_is():
    ch = weft.Channel(4, name="orders")
    ch.send_nowait(1)
    assert "orders" in repr(ch) and "Channel" in repr(ch)
    ch.close()
    assert "closed" in repr(ch)


def test_every_object_can_be_sent():
    ch = weft.Channel(1)

    class Odd:
        def __eq__(self, other):
            raise ZeroDivisionError

        def __bool__(self):
            raise ZeroDivisionError

        __hash__ = None

    for value in (
        None,
        False,
        0,
        "",
        (),
        ch,
        Odd(),
        NotImplemented,
        ...,
        type,
        ValueError("not raised"),
        weft.Closed(),
    ):
        ch.send_nowait(value)
        assert ch.recv_nowait() is value
        assert ch.send(value).wait() is None
        assert ch.recv().wait() is value
        assert weft.select(ch.send(value)).wait() == (0, None)
        assert weft.select(ch.recv()).wait().value is value


def test_a_channel_does_not_keep_what_it_gave_away():
    class Value:
        pass

    import weakref

    ch = weft.Channel(4)
    value = Value()
    alive = weakref.ref(value)
    ch.send_nowait(value)
    del value
    assert alive() is not None
    value = ch.recv_nowait()
    del value
    collect()
    assert alive() is None


def test_a_dropped_channel_drops_what_it_holds():
    import weakref

    class Value:
        pass

    value = Value()
    alive = weakref.ref(value)
    ch = weft.Channel(4)
    ch.send_nowait(value)
    ch.send_nowait(ch)  # a cycle through its own buffer
    del value, ch
    gc.collect()
    assert alive() is None


def test_channels_are_compared_by_identity_and_can_be_keys_and_be_referenced_weakly():
    import weakref

    a, b = weft.Channel(), weft.Channel()
    assert a == a and a != b and len({a, b}) == 2
    assert weakref.ref(a)() is a


# --- send, recv -----------------------------------------------------------------------------------------------------


def test_send_completes_with_none_and_recv_with_the_value(world):
    ch = weft.Channel(1)
    assert world.start(perform, ch.send("v")).join() is None
    assert world.start(perform, ch.recv()).join() == "v"


def test_send_nowait_and_recv_nowait_act_now_or_raise_would_block():
    ch = weft.Channel(1)
    assert ch.send_nowait("v") is None
    with pytest.raises(weft.WouldBlock) as caught:
        ch.send_nowait("w")
    assert caught.value.value == "w" and caught.value.channel is ch
    assert ch.recv_nowait() == "v"
    with pytest.raises(weft.WouldBlock) as caught:
        ch.recv_nowait()
    assert caught.value.channel is ch and not hasattr(caught.value, "value")


def test_the_nowait_calls_meet_parked_partners(world):
    ch = weft.Channel()
    rx = world.start(perform, ch.recv())
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert rx.join() == "v"
    tx = world.start(perform, ch.send("w"))
    until_parked(ch, senders=1)
    assert ch.recv_nowait() == "w"
    tx.join()


# --- many -----------------------------------------------------------------------------------------------------------


def test_recv_many_takes_what_is_there_and_at_most_max():
    ch = weft.Channel(8)
    for n in range(5):
        ch.send_nowait(n)
    assert ch.recv_many(3).wait() == [0, 1, 2]
    assert ch.recv_many(100).wait() == [3, 4]


def test_recv_many_receives_at_least_one(world):
    ch = weft.Channel(8)
    party = world.start(perform, ch.recv_many(5))
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    got = party.join()
    assert got == ["v"]


def test_recv_many_takes_from_parked_senders_too(world):
    ch = weft.Channel(2)
    ch.send_nowait(0)
    ch.send_nowait(1)
    parties = []
    for n in (2, 3, 4):
        parties.append(world.start(perform, ch.send(n)))
        until_parked(ch, senders=n - 1)
    assert ch.recv_many(10).wait() == [0, 1, 2, 3, 4]
    for party in parties:
        party.join()


def test_recv_many_gives_the_rest_before_it_says_closed():
    ch = weft.Channel(8)
    ch.send_nowait(1)
    ch.send_nowait(2)
    ch.close()
    assert ch.recv_many(8).wait() == [1, 2]
    with pytest.raises(weft.Closed):
        ch.recv_many(8).wait()


def test_send_many_sends_from_the_front_what_there_is_room_for():
    ch = weft.Channel(3)
    assert ch.send_many([1, 2, 3, 4, 5]).wait() == 3
    assert ch.recv_many(9).wait() == [1, 2, 3]


def test_send_many_sends_at_least_one(world):
    ch = weft.Channel()
    party = world.start(perform, ch.send_many(["a", "b"]))
    until_parked(ch, senders=1)
    assert ch.recv_nowait() == "a"
    assert party.join() == 1
    assert parked(ch) == (0, 0)


def test_send_many_gives_to_every_parked_receiver(world):
    ch = weft.Channel()
    parties = []
    for n in range(3):
        parties.append(world.start(perform, ch.recv()))
        until_parked(ch, receivers=n + 1)
    assert ch.send_many("abcde").wait() == 3
    assert [party.join() for party in parties] == list("abc")


def test_send_many_takes_any_sequence_and_does_not_change_it():
    for values in ([1, 2], (1, 2), range(1, 3)):
        ch = weft.Channel(8)
        assert ch.send_many(values).wait() == 2
        assert ch.recv_many(8).wait() == [1, 2] == list(values)


def test_a_failed_send_many_gives_the_sequence_back():
    ch = weft.Channel(8)
    ch.close()
    values = [1, 2]
    with pytest.raises(weft.Closed) as caught:
        ch.send_many(values).wait()
    assert list(caught.value.value) == [1, 2]


def test_many_takes_part_in_a_select(world):
    ch, other = weft.Channel(8), weft.Channel()
    assert weft.select(other.recv(), many=ch.send_many([1, 2])).wait() == ("many", 2)
    assert weft.select(other.recv(), many=ch.recv_many(9)).wait() == ("many", [1, 2])
    party = world.start(perform, weft.select(other.recv(), many=ch.recv_many(9)))
    until_parked(ch, receivers=1)
    ch.send_nowait(3)
    assert party.join() == ("many", [3])


# --- overflow -------------------------------------------------------------------------------------------------------


def test_block_parks(world):
    ch = weft.Channel(1, overflow="block")
    ch.send_nowait(1)
    party = world.start(perform, ch.send(2))
    until_parked(ch, senders=1)
    assert ch.recv_nowait() == 1
    party.join()


def test_drop_oldest_drops_the_head_of_the_buffer():
    dropped = []
    ch = weft.Channel(2, overflow="drop_oldest", on_undelivered=dropped.append)
    for n in range(5):
        ch.send(n).wait(0)
    assert dropped == [0, 1, 2] and ch.recv_many(9).wait() == [3, 4]
    s = ch.statistics()
    assert (s.sent, s.dropped, s.received) == (5, 3, 2)


def test_drop_newest_drops_the_value_being_sent_and_the_send_completes():
    dropped = []
    ch = weft.Channel(2, overflow="drop_newest", on_undelivered=dropped.append)
    for n in range(5):
        assert ch.send(n).wait(0) is None
    ch.send_nowait(5)
    assert dropped == [2, 3, 4, 5] and ch.recv_many(9).wait() == [0, 1]
    assert ch.statistics().dropped == 4


def test_error_raises_would_block_with_the_value():
    ch = weft.Channel(1, overflow="error")
    ch.send_nowait(1)
    value = object()
    for send in (ch.send(value).wait, lambda: ch.send_nowait(value), weft.select(ch.send(value)).wait):
        with pytest.raises(weft.WouldBlock) as caught:
            send()
        assert caught.value.value is value
    assert ch.recv_nowait() == 1 and ch.statistics().dropped == 0


def test_a_send_on_a_full_error_channel_is_ready_in_a_select_and_its_outcome_is_the_error():
    full, empty = weft.Channel(1, overflow="error"), weft.Channel()
    full.send_nowait(1)
    value = object()
    for select in (
        lambda: weft.select(empty.recv(), full.send(value), default="not taken"),
        lambda: weft.select(empty.recv(), full.send(value)),
        lambda: weft.select(full.send(value), full.recv(), policy="priority"),
    ):
        with pytest.raises(weft.WouldBlock) as caught:
            select().wait()
        assert caught.value.value is value and caught.value.channel is full
    with pytest.raises(weft.WouldBlock) as caught:
        weft.select(quiet=empty.recv(), loud=full.send(value), default="not taken").wait()
    assert caught.value.case == "loud"
    assert len(full) == 1 and parked(empty) == (0, 0)
    assert weft.select(full.recv(), full.send(value), policy="priority").wait() == (0, 1)
    assert weft.select(empty.recv(), full.send(2), default="not taken").wait() == (1, None)


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "error"])
def test_no_policy_acts_while_somebody_waits_to_receive(world, overflow):
    ch = weft.Channel(1, overflow=overflow)
    party = world.start(perform, ch.recv())
    until_parked(ch, receivers=1)
    ch.send_nowait("for the waiting one")
    ch.send_nowait("buffered")
    assert party.join() == "for the waiting one" and ch.recv_nowait() == "buffered"


def test_drop_newest_and_error_work_at_capacity_zero(world):
    dropped = []
    ch = weft.Channel(overflow="drop_newest", on_undelivered=dropped.append)
    ch.send_nowait(1)
    assert dropped == [1]
    party = world.start(perform, ch.recv())
    until_parked(ch, receivers=1)
    ch.send_nowait(2)
    assert party.join() == 2 and dropped == [1]
    with pytest.raises(weft.WouldBlock):
        weft.Channel(overflow="error").send(1).wait()


def test_without_on_undelivered_dropped_values_are_only_counted():
    ch = weft.Channel(1, overflow="drop_oldest")
    for n in range(3):
        ch.send_nowait(n)
    assert ch.statistics().dropped == 2


def test_on_undelivered_is_called_by_whoever_caused_the_drop():
    callers = []
    ch = weft.Channel(1, overflow="drop_oldest", on_undelivered=lambda value: callers.append(threading.get_ident()))
    ch.send_nowait(1)
    thread = threading.Thread(target=ch.send_nowait, args=(2,))
    thread.start()
    thread.join()
    ch.poison()
    assert callers == [thread.ident, threading.get_ident()]


# --- close ----------------------------------------------------------------------------------------------------------


def test_close_is_idempotent_and_the_first_cause_wins():
    ch = weft.Channel(1)
    error = KeyError("first")
    ch.close(error)
    ch.close()
    ch.close(KeyError("second"))
    with pytest.raises(KeyError) as caught:
        ch.recv_nowait()
    assert caught.value is error


def test_the_first_close_wins_even_when_it_had_no_cause():
    ch = weft.Channel(1)
    ch.close()
    ch.close(KeyError("late"))
    with pytest.raises(weft.Closed):
        ch.recv_nowait()


def test_receivers_get_the_error_itself_with_the_traceback_it_had():
    def the_place_where_it_went_wrong():
        raise ValueError("deep")

    ch = weft.Channel()
    try:
        the_place_where_it_went_wrong()
    except ValueError as error:
        ch.close(error)
        given = error
    for receive in (ch.recv_nowait, ch.recv().wait):
        with pytest.raises(ValueError, match="deep") as caught:
            receive()
        assert caught.value is given
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "the_place_where_it_went_wrong" in names


def test_the_traceback_does_not_grow_with_every_receiver():
    ch = weft.Channel()
    ch.close(ValueError("once"))
    lengths = []
    for _ in range(20):
        try:
            ch.recv_nowait()
        except ValueError as error:
            lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths == lengths[:1] * 20


def test_senders_get_closed_with_their_value_and_the_cause():
    ch = weft.Channel()
    error = KeyError("why")
    ch.close(error)
    for send in (lambda: ch.send_nowait("v"), ch.send("v").wait):
        with pytest.raises(weft.Closed) as caught:
            send()
        assert caught.value.value == "v" and caught.value.__cause__ is error and caught.value.channel is ch


def test_a_cause_may_be_an_exception_class():
    ch = weft.Channel()
    ch.close(KeyError)
    with pytest.raises(KeyError):
        ch.recv_nowait()
    ch = weft.Channel()
    ch.poison(KeyError)
    with pytest.raises(weft.Poisoned) as caught:
        ch.recv_nowait()
    assert isinstance(caught.value.__cause__, KeyError)


def test_leaving_with_closes():
    ch = weft.Channel(2)
    with ch as same:
        assert same is ch
        ch.send_nowait("v")
    assert ch.closed and list(ch) == ["v"]


def test_leaving_async_with_closes(run):
    async def main():
        ch = weft.Channel(2)
        async with ch as same:
            assert same is ch
            await ch.send("v")
        assert ch.closed
        return [v async for v in ch]

    assert run(main) == ["v"]


def test_leaving_with_an_error_does_not_swallow_it():
    ch = weft.Channel(2)
    with pytest.raises(ZeroDivisionError), ch:
        raise ZeroDivisionError
    assert ch.closed


# --- poison ---------------------------------------------------------------------------------------------------------


def test_poison_gives_both_sides_poisoned_with_its_cause():
    ch = weft.Channel(2)
    cause = KeyError("why")
    ch.poison(cause)
    with pytest.raises(weft.Poisoned) as caught:
        ch.recv_nowait()
    assert caught.value.__cause__ is cause and caught.value.channel is ch and not hasattr(caught.value, "value")
    with pytest.raises(weft.Poisoned) as caught:
        ch.send_nowait("v")
    assert caught.value.__cause__ is cause and caught.value.value == "v"


def test_poisoning_a_closed_channel_drops_what_was_left():
    dropped = []
    ch = weft.Channel(2, on_undelivered=dropped.append)
    ch.send_nowait("left")
    ch.close()
    ch.poison()
    assert dropped == ["left"] and len(ch) == 0 and ch.statistics().dropped == 1


def test_iteration_raises_poisoned():
    ch = weft.Channel(2)
    ch.poison()
    with pytest.raises(weft.Poisoned):
        list(ch)


# --- iteration ------------------------------------------------------------------------------------------------------


def test_iteration_gives_each_value_until_closed_and_drained(run):
    ch = weft.Channel(4)
    for n in range(3):
        ch.send_nowait(n)
    ch.close()
    assert list(ch) == [0, 1, 2]

    async def main():
        ch = weft.Channel()

        async def feed():
            for n in range(3):
                await ch.send(n)
            ch.close()

        task = asyncio.create_task(feed())
        got = [n async for n in ch]
        await task
        return got

    assert run(main) == [0, 1, 2]


def test_iteration_raises_the_error_the_channel_was_closed_with(run):
    ch = weft.Channel(4)
    ch.send_nowait("v")
    ch.close(KeyError("why"))
    got = []
    with pytest.raises(KeyError):
        for v in ch:
            got.append(v)
    assert got == ["v"]

    async def main():
        async for _ in ch:
            pass

    with pytest.raises(KeyError):
        run(main)


def test_iteration_in_a_thread_waits_for_the_next(world):
    ch = weft.Channel()
    got = []
    thread = threading.Thread(target=lambda: got.extend(ch))
    thread.start()
    world.start(sending, ch, 1, 2, 3).join()
    ch.close()
    thread.join(10)
    assert got == [1, 2, 3]


def test_leaving_an_iteration_early_loses_nothing(run):
    ch = weft.Channel(4)
    for n in range(4):
        ch.send_nowait(n)
    for _ in ch:
        break

    async def main():
        async for _ in ch:
            break

    run(main)
    assert len(ch) == 2 and ch.recv_nowait() == 2


def test_several_iterations_share_the_values(world):
    ch = weft.Channel()
    parties = [world.start(draining, ch) for _ in range(3)]
    world.start(sending, ch, *range(30)).join()
    ch.close()
    assert sorted(sum((party.join() for party in parties), [])) == list(range(30))


# --- what it tells --------------------------------------------------------------------------------------------------


def test_len_counts_buffered_values():
    ch = weft.Channel(3)
    for n in range(3):
        assert len(ch) == n
        ch.send_nowait(n)
    ch.recv_nowait()
    assert len(ch) == 2


def test_an_empty_channel_is_not_false():
    assert bool(weft.Channel())


def test_closed_is_true_from_close_poison_and_the_ends_count_on():
    ch = weft.Channel(2)
    ch.send_nowait("still there")
    assert ch.closed is False
    ch.close()
    assert ch.closed is True and len(ch) == 1
    ch = weft.Channel()
    ch.poison()
    assert ch.closed is True
    ch = weft.Channel()
    ch.sender().close()
    assert ch.closed is True
    ch = weft.Channel()
    ch.receiver().close()
    assert ch.closed is True


def test_statistics_tell_all_numbers_at_one_moment(world):
    ch = weft.Channel(2, name="orders")
    s = ch.statistics()
    assert (s.name, s.capacity, s.buffered, s.senders, s.receivers) == ("orders", 2, 0, None, None)
    assert (s.parked_senders, s.parked_receivers, s.sent, s.received, s.dropped) == (0, 0, 0, 0, 0)
    tx, rx = ch.split()
    other = tx.clone()
    for n in range(2):
        tx.send(n).wait()
    party = world.start(perform, other.send(2))
    until_parked(ch, senders=1)
    s = ch.statistics()
    assert (s.buffered, s.senders, s.receivers, s.parked_senders, s.parked_receivers) == (2, 2, 1, 1, 0)
    assert (s.sent, s.received) == (2, 0)
    rx.recv().wait()
    party.join()
    s = ch.statistics()
    assert (s.sent, s.received, s.dropped, s.parked_senders) == (3, 1, 0, 0)
    ch.poison()
    s = ch.statistics()
    assert (s.sent, s.received, s.dropped, s.buffered) == (3, 1, 2, 0)


def test_sent_is_received_plus_dropped_plus_buffered():
    ch = weft.Channel(4, overflow="drop_oldest")
    for n in range(10):
        ch.send_nowait(n)
        if n % 3 == 0:
            ch.recv_nowait()
        s = ch.statistics()
        assert s.sent == s.received + s.dropped + s.buffered == n + 1
