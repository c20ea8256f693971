"""The surface of select. Its laws are L5 and L6; the cases of Go's select are in test_go_table.py."""

import copy
import gc
import pickle
import time
import weakref

import pytest
import weft
from weft import lowlevel
from worlds import Within, needs, parked, perform, sending, until_parked


class Weak:
    """Something of which one can see that it is gone."""


def test_the_result_is_a_tuple_with_names(world):
    ch = weft.Channel(1)
    ch.send_nowait("v")
    selected = world.start(perform, weft.select(ch.recv())).join()
    assert isinstance(selected, weft.Selected) and isinstance(selected, tuple)
    assert selected == (0, "v") and (selected.case, selected.value) == (0, "v")
    case, value = selected
    assert (case, value) == (0, "v")


def test_the_result_is_copied_pickled_and_compared_as_any_tuple_with_names():
    selected = weft.select(part=weft.always([1])).wait()
    assert type(selected) is weft.Selected
    assert selected == weft.Selected("part", [1]) and repr(selected) == "Selected(case='part', value=[1])"
    for copied in (copy.copy(selected), copy.deepcopy(selected), pickle.loads(pickle.dumps(selected))):
        assert copied == selected and type(copied) is weft.Selected
    assert selected._replace(case=0) == (0, [1])


def test_a_result_that_holds_itself_is_collected():
    held = []
    held.append(weft.select(weft.always(held)).wait())
    held.append(thing := Weak())
    gone = weakref.ref(thing)
    del held, thing
    gc.collect()
    assert gone() is None


def test_a_result_of_a_result_of_many_results_ends():
    value = None
    for _ in range(100_000):
        value = weft.select(weft.always(value)).wait()
    del value


def test_the_case_is_the_position_or_the_keyword():
    ready = [weft.Channel(1) for _ in range(4)]
    never = weft.Channel()
    for wanted in (0, 1, "x", "y"):
        for ch in ready:
            if not len(ch):
                ch.send_nowait("v")
        cases = {0: never, 1: never, "x": never, "y": never}
        cases[wanted] = ready[0]
        assert (
            weft.select(cases[0].recv(), cases[1].recv(), x=cases["x"].recv(), y=cases["y"].recv()).wait(0).case
            == wanted
        )


def test_keywords_may_be_named_like_anything_but_default_and_policy():
    ch = weft.Channel(1)
    ch.send_nowait("v")
    assert weft.select(**{"timeout": weft.never(), "self": weft.never(), "ops": ch.recv()}).wait() == ("ops", "v")


def test_a_match_statement_reads_it():
    ch = weft.Channel(1)
    ch.send_nowait("v")
    match weft.select(part=ch.recv(), late=weft.never()).wait():
        case "part", value:
            assert value == "v"
        case _:
            raise AssertionError


def test_making_a_select_takes_its_cases_over():
    ch = weft.Channel(1)
    op = ch.recv()
    select = weft.select(op)
    with pytest.raises(RuntimeError):
        op.wait(0)
    with pytest.raises(ValueError, match="select"):
        weft.select(op)
    ch.send_nowait("v")
    assert select.wait() == (0, "v")


def test_none_is_switched_off_but_keeps_its_position():
    ch = weft.Channel(1)
    ch.send_nowait("v")
    assert weft.select(None, None, ch.recv(), x=None).wait() == (2, "v")


def test_default_makes_it_non_blocking():
    ch = weft.Channel()
    assert weft.select(ch.recv(), default="nothing").wait() == ("default", "nothing")
    assert parked(ch) == (0, 0)


def test_default_is_awaitable_and_does_not_yield(run):
    async def main():
        return await weft.select(weft.Channel().recv(), default=7)

    assert run(main) == ("default", 7)


def test_default_by_itself_is_allowed():
    assert weft.select(default=1).wait() == ("default", 1)


def test_a_ready_case_beats_the_default():
    ch = weft.Channel(1)
    ch.send_nowait("v")
    assert weft.select(ch.recv(), default=None).wait() == (0, "v")


def test_a_closed_case_raises_with_its_name():
    live, ended = weft.Channel(), weft.Channel()
    ended.close()
    for op, case in [
        (weft.select(live.recv(), ended.recv()), 1),
        (weft.select(live.recv(), gone=ended.recv()), "gone"),
        (weft.select(live.recv(), gone=ended.send("v")), "gone"),
        (weft.select(gone=ended.recv(), default=1), "gone"),
    ]:
        with pytest.raises(weft.Closed) as caught:
            op.wait()
        assert caught.value.case == case and caught.value.channel is ended
    assert parked(live) == (0, 0)


def test_a_case_closed_with_an_error_raises_that_error():
    ended = weft.Channel()
    error = KeyError("why")
    ended.close(error)
    with pytest.raises(KeyError) as caught:
        weft.select(weft.never(), ended.recv()).wait()
    assert caught.value is error


def test_outside_of_a_select_there_is_no_case():
    ended = weft.Channel()
    ended.close()
    with pytest.raises(weft.Closed) as caught:
        ended.recv().wait()
    assert caught.value.case is None


def test_the_case_of_one_select_does_not_stick_to_the_next():
    ended = weft.Channel()
    ended.poison()
    for case in "ab":
        with pytest.raises(weft.Poisoned) as caught:
            weft.select(**{case: ended.recv()}).wait()
        assert caught.value.case == case


def test_a_select_may_stand_in_a_select(world):
    a, b, c = weft.Channel(1), weft.Channel(1), weft.Channel(1)

    def nested():
        return weft.select(a.recv(), inner=weft.select(x=b.recv(), y=c.recv()))

    party = world.start(perform, nested())
    until_parked(c, receivers=1)
    c.send_nowait("deep")
    assert party.join() == ("inner", ("y", "deep"))
    assert isinstance(party.value.value, weft.Selected)
    assert parked(a) == parked(b) == (0, 0)
    a.send_nowait("v")
    assert nested().wait() == (0, "v")


def test_a_nested_select_may_be_mapped():
    ch = weft.Channel(1)
    ch.send_nowait(2)
    inner = weft.select(x=ch.recv().map(lambda v: v * 10)).map(lambda s: ("inner", s.case, s.value))
    assert weft.select(weft.never(), inner).wait() == (1, ("inner", "x", 20))


def test_a_nested_case_that_is_closed_raises():
    live, ended = weft.Channel(), weft.Channel()
    ended.close()
    with pytest.raises(weft.Closed) as caught:
        weft.select(live.recv(), inner=weft.select(x=ended.recv())).wait()
    assert caught.value.case in ("inner", "x", ("inner", "x"))


def test_policy_priority_takes_the_first_listed():
    a, b = weft.Channel(1), weft.Channel(1)
    for _ in range(50):
        for ch in (a, b):
            if not len(ch):
                ch.send_nowait("v")
        assert weft.select(a.recv(), b.recv(), policy="priority").wait().case == 0


def test_policy_priority_counts_keywords_after_positions():
    a, b = weft.Channel(1), weft.Channel(1)
    for _ in range(20):
        for ch in (a, b):
            if not len(ch):
                ch.send_nowait("v")
        assert weft.select(b.recv(), x=a.recv(), policy="priority").wait().case == 0
        b.send_nowait("v")
        assert weft.select(x=a.recv(), y=b.recv(), policy="priority").wait().case == "x"


def test_policy_random_is_the_default_and_takes_either():
    a, b = weft.Channel(1), weft.Channel(1)
    for options in ({}, {"policy": "random"}):
        seen = set()
        for _ in range(60):
            for ch in (a, b):
                if not len(ch):
                    ch.send_nowait("v")
            seen.add(weft.select(a.recv(), b.recv(), **options).wait().case)
        assert seen == {0, 1}


def test_priority_among_parked_is_whoever_comes_first(world):
    a, b = weft.Channel(), weft.Channel()
    party = world.start(perform, weft.select(a.recv(), b.recv(), policy="priority"))
    until_parked(b, receivers=1)
    b.send_nowait("v")
    assert party.join() == (1, "v")


def test_a_select_times_out_by_wait_and_by_the_schedulers_means(world):
    a, b = weft.Channel(), weft.Channel()
    with pytest.raises(TimeoutError):
        weft.select(a.recv(), b.send("v")).wait(0.001)
    party = world.start(perform, Within(weft.select(a.recv(), b.send("v")), 0.005))
    assert isinstance(party.failure(), TimeoutError)
    assert parked(a) == parked(b) == (0, 0)


def test_hundreds_of_cases(world):
    channels = [weft.Channel() for _ in range(300)]
    party = world.start(perform, weft.select(*(ch.recv() for ch in channels)))
    until_parked(channels[-1], receivers=1)
    channels[-1].send_nowait("last")
    assert party.join() == (299, "last")
    party = world.start(perform, weft.select(**{f"c{n}": ch.recv() for n, ch in enumerate(channels)}))
    until_parked(channels[-1], receivers=1)
    world.start(sending, channels[7], "seven").join()
    assert party.join() == ("c7", "seven")


# --- timers ---------------------------------------------------------------------------------------------------------


def test_after_completes_with_the_time_it_was_due(world):
    before = time.monotonic()
    due = world.start(perform, weft.after(0.02)).join()
    now = time.monotonic()
    assert isinstance(due, float)
    assert before + 0.02 <= due <= now


def test_at_is_on_the_monotonic_clock(world):
    due = time.monotonic() + 0.02
    assert world.start(perform, weft.at(due)).join() == pytest.approx(due, abs=1e-6)
    assert time.monotonic() >= due - 1e-6


def test_a_time_that_has_passed_is_ready_now():
    assert weft.after(0).wait(0) <= time.monotonic()
    assert weft.at(0).wait(0) == 0
    past = time.monotonic() - 5
    assert weft.at(past).wait(0) == pytest.approx(past, abs=1e-6)


def test_sleep_is_after(world):
    before = time.monotonic()
    due = world.start(perform, weft.sleep(0.01)).join()
    assert before + 0.01 <= due <= time.monotonic()


def test_timers_in_a_select_start_when_it_is_performed(world):
    op = weft.select(weft.after(0.02))
    time.sleep(0.03)
    begun = time.monotonic()
    world.start(perform, op).join()
    assert time.monotonic() - begun >= 0.02


def test_the_shortest_timer_wins(world):
    for _ in range(3):
        op = weft.select(
            slow=weft.after(30), quick=weft.after(0.005), never=weft.never(), later=weft.at(time.monotonic() + 60)
        )
        assert world.start(perform, op).join().case == "quick"


def test_a_channel_beats_a_timer_that_is_not_due(world):
    ch = weft.Channel()
    party = world.start(perform, weft.select(ch.recv(), weft.after(30)))
    until_parked(ch, receivers=1)
    ch.send_nowait("v")
    assert party.join() == (0, "v")


def test_a_timer_ends_a_wait_for_channels(world):
    a, b = weft.Channel(), weft.Channel()
    party = world.start(perform, weft.select(a.recv(), b.send("v"), late=weft.after(0.01)))
    assert party.join().case == "late"
    assert parked(a) == parked(b) == (0, 0)


def test_a_timer_waited_for_too_short_times_out():
    with pytest.raises(TimeoutError):
        weft.after(30).wait(0.001)
    with pytest.raises(TimeoutError):
        weft.select(weft.after(30)).wait(0)


def test_many_timers_end_in_order(run):
    import asyncio

    ended = []
    begin = time.monotonic() + 0.05  # not before all of them wait

    async def one(n):
        await weft.at(begin + n * 0.002)
        ended.append(n)

    async def main():
        await asyncio.gather(*(one(n) for n in (7, 3, 9, 1, 5)))

    run(main)
    assert ended == [1, 3, 5, 7, 9]


def test_tick_gives_the_times_its_ticks_were_due():
    clock = weft.tick(0.01)
    try:
        times = [clock.recv().wait() for _ in range(3)]
    finally:
        clock.close()
    assert all(isinstance(t, float) for t in times)
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert all(gap == pytest.approx(round(gap / 0.01) * 0.01, abs=1e-6) and gap > 0.005 for gap in gaps)


def test_tick_drops_ticks_for_a_slow_receiver():
    clock = weft.tick(0.05)
    try:
        first = clock.recv().wait()
        while time.monotonic() < first + 0.4:  # some eight fall due, and nobody is there
            time.sleep(0.01)
        kept = []
        with pytest.raises(TimeoutError):
            while True:
                kept.append(clock.recv().wait(0))
        assert len(kept) <= 2
        later = clock.recv().wait()
        assert later > first + 0.4
    finally:
        clock.close()


def test_tick_can_stand_in_a_select_and_be_iterated(world, run):
    clock = weft.tick(0.003)
    ch = weft.Channel()
    assert world.start(perform, weft.select(ch.recv(), tick=clock.recv())).join().case == "tick"
    clock.close()
    clock = weft.tick(0.003)
    got = []
    for due in clock:
        got.append(due)
        if len(got) == 3:
            clock.close()
    assert len(got) == 3

    async def main():
        clock = weft.tick(0.003)
        got = []
        async for due in clock:
            got.append(due)
            if len(got) == 3:
                clock.close()
        return got

    assert len(run(main)) == 3


def test_a_closed_tick_is_over():
    clock = weft.tick(0.001)
    clock.close()
    clock.close()
    with pytest.raises(weft.Closed):
        clock.recv().wait()
    assert list(clock) == []


def test_a_tick_that_is_closed_tells_those_who_wait(world):
    clock = weft.tick(3600)
    other = weft.Channel()
    party = world.start(perform, weft.select(other.recv(), tick=clock.recv()))
    until_parked(other, receivers=1)
    clock.close()
    assert isinstance(party.failure(), weft.Closed)
    assert parked(other) == (0, 0)


def test_a_tick_is_no_case_of_selecting_but_of_select():
    clock = weft.tick(0.002)
    with pytest.raises(TypeError, match="takes channels and receivers, not Tick"):
        weft.selecting(clock=clock)
    assert weft.select(clock=clock.recv()).wait().case == "clock"


BY_HAND = [pytest.param(end, marks=needs("the extension")) for end in ("close", "throw", "iterator")]


@pytest.mark.parametrize("end", [*BY_HAND, "undo"])
def test_a_case_that_is_ended_by_hand_stays_a_case(run, end):
    async def main():
        ch = weft.Channel(1)
        op = ch.recv()
        select = weft.select(op, ch.recv())
        if end == "close":
            op.close()
        elif end == "throw":
            with pytest.raises(KeyError):
                op.throw(KeyError("k"))
        elif end == "iterator":
            op.__await__().close()
        else:
            lowlevel.undo(op)
        await ch.send("v")
        assert (await select).value == "v"

    run(main)
