"""`selecting`: many channels registered once, served fairly, values taken only when asked for."""

import asyncio
import gc
import threading
from collections import Counter

import pytest
import weft
from worlds import parked, perform, sending, take_turns, until, until_parked


def filled(*counts):
    """Closed channels, holding 0, 1, ... count - 1 each."""
    channels = []
    for count in counts:
        ch = weft.Channel(count + 1)
        for n in range(count):
            ch.send_nowait(n)
        ch.close()
        channels.append(ch)
    return channels


async def collect(events):
    return [event async for event in events]


@pytest.fixture(params=["for", "async for"])
def everything(request, run):
    """All events of a selecting, by `for` or by `async for`."""
    if request.param == "for":
        return list
    return lambda events: run(collect, events)


def test_the_events_are_selected_tuples(everything):
    a, b = filled(1, 1)
    events = everything(weft.selecting(a, b=b))
    assert sorted(events, key=str) == sorted([(0, 0), ("b", 0)], key=str)
    assert all(isinstance(event, weft.Selected) for event in events)


def test_every_value_comes_once_and_each_channel_in_order(everything):
    events = everything(weft.selecting(*filled(5, 0, 17, 3)))
    for case, count in enumerate((5, 0, 17, 3)):
        assert [value for c, value in events if c == case] == list(range(count))


def test_closed_channels_leave_and_it_ends_when_all_have(everything):
    assert everything(weft.selecting(*filled(0, 0, 0))) == []


def test_of_no_channels_it_ends_at_once(everything):
    assert everything(weft.selecting()) == []


def test_nobody_is_served_twice_while_another_ready_one_waits(everything):
    """The bound of L6: while k are ready, each k events in a row are of k different channels."""
    events = everything(weft.selecting(*filled(50, 50, 50, 50)))
    cases = [case for case, _ in events]
    for start in range(len(cases) - 3):
        assert len(set(cases[start : start + 4])) == 4, cases[start : start + 4]


def test_the_bound_holds_when_some_run_dry():
    counts = (3, 30, 11, 1)
    served = Counter()
    last = {}
    for turn, (case, _) in enumerate(weft.selecting(*filled(*counts))):
        left = [c for c in range(4) if served[c] < counts[c]]
        if case in last:
            between = {c for c, t in last.items() if t > last[case]}
            assert set(left) - {case} <= between, (turn, case, left, between)
        served[case] += 1
        last[case] = turn
    assert tuple(served[c] for c in range(4)) == counts


def test_the_bound_holds_for_one_that_becomes_ready_later():
    busy, late = weft.Channel(100), weft.Channel(1)
    for n in range(50):
        busy.send_nowait(n)
    events = iter(weft.selecting(busy=busy, late=late))
    assert [next(events).case for _ in range(5)] == ["busy"] * 5
    late.send_nowait("v")
    assert "late" in [next(events).case for _ in range(2)]


def test_a_thousand_channels_with_one_busy_one_lose_nobody():
    channels = [weft.Channel(1) for _ in range(1000)]
    events = iter(weft.selecting(*channels))
    for n in (999, 0, 500):
        channels[n].send_nowait(n)
    assert {next(events).case for _ in range(3)} == {999, 0, 500}
    for n in range(1000):
        channels[n].send_nowait(n)
    assert sorted(next(events).case for _ in range(1000)) == list(range(1000))


# --- values are taken only when asked for ---------------------------------------------------------------------------


def test_values_are_taken_only_when_asked_for():
    a, b = weft.Channel(4), weft.Channel(4)
    for ch in (a, b):
        ch.send_nowait(1)
        ch.send_nowait(2)
    events = weft.selecting(a, b)
    assert len(a) == len(b) == 2
    it = iter(events)
    assert len(a) + len(b) == 4
    next(it)
    assert len(a) + len(b) == 3
    del it, events
    gc.collect()
    assert len(a) + len(b) == 3


def test_a_rendezvous_sender_stays_parked_until_it_is_asked_for(world):
    ch, other = weft.Channel(), weft.Channel(2)
    other.send_nowait("other")
    events = iter(weft.selecting(ch, other))
    tx = world.start(sending, ch, "v")
    until_parked(ch, senders=1)
    assert next(events).case in (0, 1)
    take_turns()
    got = next(events)
    assert {got.case} <= {0, 1}
    tx.join()
    assert parked(ch)[0] == 0


def test_between_two_events_another_may_take_the_value():
    ch = weft.Channel(4)
    ch.send_nowait(1)
    ch.send_nowait(2)
    events = iter(weft.selecting(ch))
    assert next(events) == (0, 1)
    assert ch.recv_nowait() == 2  # it is in the channel, nowhere else
    ch.send_nowait(3)
    assert next(events) == (0, 3)


def test_without_an_iterator_waiting_nobody_is_received_from():
    ch = weft.Channel()
    events = weft.selecting(ch)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait("v")
    del events


# --- waiting --------------------------------------------------------------------------------------------------------


def test_it_waits_for_a_sender(world):
    a, b = weft.Channel(), weft.Channel()
    got = []
    thread = threading.Thread(target=lambda: got.extend(weft.selecting(a=a, b=b)))
    thread.start()
    world.start(sending, a, 1, 2).join()
    world.start(sending, b, 3).join()
    a.close()
    b.close()
    thread.join(10)
    assert not thread.is_alive()
    assert got == [("a", 1), ("a", 2), ("b", 3)]


def test_it_waits_in_a_loop_for_senders_elsewhere(world):
    a, b = weft.Channel(), weft.Channel()

    async def serve():
        return [event async for event in weft.selecting(a=a, b=b)]

    served = []
    thread = threading.Thread(target=lambda: served.extend(asyncio.run(serve())))
    thread.start()
    world.start(sending, a, 1, 2).join()
    world.start(sending, b, 3).join()
    a.close()
    b.close()
    thread.join(10)
    assert served == [("a", 1), ("a", 2), ("b", 3)]


def test_it_waits_in_a_loop_for_senders_in_the_same_loop(looped):
    a, b = weft.Channel(), weft.Channel()

    async def serve():
        return [event async for event in weft.selecting(a=a, b=b)]

    task = looped.loop.create_task(serve())
    looped.start(sending, a, 1, 2).join()
    looped.start(sending, b, 3).join()
    a.close()
    b.close()
    until(task.done)
    assert task.result() == [("a", 1), ("a", 2), ("b", 3)]


def test_many_senders_in_many_worlds_are_all_heard(pair):
    here, there = pair
    channels = {name: weft.Channel(n) for n, name in enumerate("abcd")}
    parties = [
        (here, there)[n % 2].start(sending, ch, *((name, k) for k in range(30)))
        for n, (name, ch) in enumerate(channels.items())
    ]
    got, errors = [], []

    def serve():
        try:
            for case, value in weft.selecting(**channels):
                assert case == value[0]
                got.append(value)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    for party in parties:
        party.join()
    for ch in channels.values():
        ch.close()
    thread.join(10)
    assert not errors and not thread.is_alive()
    for name in channels:
        assert [k for c, k in got if c == name] == list(range(30))


def test_a_cancelled_iteration_has_taken_nothing_and_can_go_on(run):
    ch = weft.Channel(4)

    async def main():
        events = weft.selecting(ch)

        async def ask():
            return await anext(aiter(events))

        task = asyncio.ensure_future(ask())
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ch.send_nowait("v")
        assert len(ch) == 1
        assert await anext(aiter(events)) == (0, "v")

    run(main)


def test_an_iteration_that_timed_out_has_taken_nothing(run):
    ch = weft.Channel(4)

    async def main():
        events = aiter(weft.selecting(ch))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await anext(events)
        ch.send_nowait("v")
        assert await anext(events) == (0, "v")

    run(main)


def test_iterating_with_for_in_a_running_loop_refuses_to_block(run):
    ch = weft.Channel(4)

    async def main():
        events = weft.selecting(ch)
        with pytest.raises(weft.BlockingInLoopError):
            next(iter(events))
        ch.send_nowait("v")
        assert next(iter(events)) == (0, "v")

    run(main)


# --- add, discard ---------------------------------------------------------------------------------------------------


def test_add_while_running():
    a, b = filled(2, 2)
    events = weft.selecting(a=a)
    got = []
    for case, value in events:
        got.append((case, value))
        if len(got) == 1:
            events.add("b", b)
    assert sorted(got) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_a_case_that_is_added_may_be_any_hashable():
    events = weft.selecting()
    keys = [("tuple", 1), 7, None, frozenset(), "x"]
    for key, ch in zip(keys, filled(1, 1, 1, 1, 1), strict=True):
        events.add(key, ch)
    assert {case for case, _ in events} == set(keys)


def test_add_wakes_an_iteration_that_waits(world):
    a, b = weft.Channel(), weft.Channel(1)
    b.send_nowait("already there")
    events = weft.selecting(a=a)
    got = []
    thread = threading.Thread(target=lambda: got.append(next(iter(events))))
    thread.start()
    until_parked(a, receivers=1)
    events.add("b", b)
    thread.join(10)
    assert got == [("b", "already there")]


def test_discard_while_running():
    a, b = filled(3, 3)
    events = weft.selecting(a=a, b=b)
    got = []
    for case, value in events:
        got.append((case, value))
        events.discard("b")
    assert len([1 for case, _ in got if case == "b"]) <= 1
    assert [value for case, value in got if case == "a"] == [0, 1, 2]
    assert len(b) == 3 - len([1 for case, _ in got if case == "b"])


def test_what_was_discarded_may_be_added_again():
    (a,) = filled(2)
    events = weft.selecting(a=a)
    it = iter(events)
    assert next(it) == ("a", 0)
    events.discard("a")
    events.add("again", a)
    assert next(it) == ("again", 1)
    with pytest.raises(StopIteration):
        next(it)


def test_discarding_the_last_ends_an_iteration_that_waits():
    a = weft.Channel()
    events = weft.selecting(a=a)
    got = []
    thread = threading.Thread(target=lambda: got.extend(events))
    thread.start()
    until_parked(a, receivers=1)
    events.discard("a")
    thread.join(10)
    assert not thread.is_alive() and got == []
    assert parked(a) == (0, 0)


# --- ends that are not quiet ----------------------------------------------------------------------------------------


def test_one_closed_with_an_error_raises_it_has_left_and_iteration_may_go_on(everything):
    bad, (good,) = weft.Channel(2), filled(2)
    bad.send_nowait("before")
    bad.close(KeyError("why"))
    events = weft.selecting(bad=bad, good=good)
    got, errors = [], []
    for _ in range(10):
        try:
            got += everything(Keep(events, got))
            break
        except KeyError as error:
            errors.append(error)
    assert len(errors) == 1
    assert sorted(got, key=str) == sorted([("bad", "before"), ("good", 0), ("good", 1)], key=str)


class Keep:
    """Iterates, but puts what came into a list first, so that it survives an error on the way."""

    def __init__(self, events, got):
        self.events, self.got = events, got

    def __iter__(self):
        for event in self.events:
            self.got.append(event)
        yield from ()

    async def __aiter__(self):
        async for event in self.events:
            self.got.append(event)
        for nothing in ():
            yield nothing


def test_a_poisoned_one_raises_with_its_case():
    bad, (good,) = weft.Channel(), filled(1)
    bad.poison()
    events = iter(weft.selecting(bad=bad, good=good))
    got, errors = [], []
    for _ in range(3):
        try:
            got.append(next(events))
        except weft.Poisoned as error:
            errors.append(error)
        except StopIteration:
            break
    assert [error.case for error in errors] == ["bad"] and got == [("good", 0)]


def test_a_close_wakes_an_iteration_that_waits():
    a, b = weft.Channel(), weft.Channel()
    got = []
    thread = threading.Thread(target=lambda: got.extend(weft.selecting(a, b)))
    thread.start()
    until_parked(a, receivers=1)
    a.close()
    b.close()
    thread.join(10)
    assert not thread.is_alive() and got == []


def test_a_dropped_selecting_withdraws_from_its_channels(world):
    ch = weft.Channel()
    events = weft.selecting(ch)
    it = iter(events)
    del it, events
    gc.collect()
    assert parked(ch) == (0, 0)
    party = world.start(perform, ch.recv())
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert party.join() == "v"


def test_two_selectings_over_one_channel_share_its_values():
    ch = weft.Channel(100)
    got = [[], []]
    threads = [threading.Thread(target=lambda n=n: got[n].extend(v for _, v in weft.selecting(ch))) for n in range(2)]
    for thread in threads:
        thread.start()
    for n in range(500):
        ch.send(n).wait(10)
    ch.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(got[0] + got[1]) == list(range(500))
    assert all(part == sorted(part) for part in got)


def test_a_wake_up_that_finds_nothing_is_passed_on():
    """Two servers wait, one value comes, one takes it: the other goes on waiting and hears of the next."""
    ch = weft.Channel(4)
    got = []
    threads = [threading.Thread(target=lambda: got.append(next(iter(weft.selecting(ch))))) for _ in range(2)]
    for thread in threads:
        thread.start()
    until_parked(ch, receivers=2)
    ch.send_nowait("one")
    until(lambda: len(got) == 1)
    ch.send_nowait("two")
    for thread in threads:
        thread.join(10)
    assert sorted(got) == [(0, "one"), (0, "two")]


def test_a_round_that_was_met_and_is_not_stepped_yet_is_looked_at_by_the_collector():
    """A debug build counts whether each reference is shown to it once."""

    async def main():
        one, other, got = weft.Channel(1), weft.Channel(1), []

        async def takes():
            async for event in weft.selecting(one, other):
                got.append(event.value)
                if event.value == 2:
                    return

        task = asyncio.create_task(takes())
        for value in (1, 2):
            await asyncio.sleep(0)
            one.send_nowait(value)
            gc.collect()
            await asyncio.sleep(0)
        await task
        assert got == [1, 2]

    asyncio.run(main())
