"""Processes of the system: the laws across their borders, what crosses, and what is left when one of them dies.

A pool of three children serves most tests, so that not each has to wait for a start; who is to be killed is started anew.
The scripts that parties perform there are in `abroad.py` and `kin.py`, and what is tested just so with interpreters in
`laws_between.py`.
"""

import array
import contextlib
import datetime
import decimal
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import abroad
import freight
import kin
import laws_between
import pytest
import weft
import worlds
from laws_between import *  # noqa: F403
from places import DRIVERS, LINUX, Resident, at_home, drained, failure_of, source, spin, text_of, wakings
from weft import _interpreter, _os_process
from worlds import IN_PYTHON, LIMIT, parked, until, until_parked

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has linked processes"),
    pytest.mark.skipif(IN_PYTHON, reason="processes need the extension"),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="processes are linked by Unix sockets"),
]

ROUNDS = int(os.environ.get("WEFT_ROUNDS", "50"))
FORKING = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
NO_INTERPRETERS = pytest.mark.skipif(_interpreter.reason_against() is not None, reason="no interpreters here")
PLACES = ["process", pytest.param("interpreter", marks=NO_INTERPRETERS), "thread"]
KILLS = int(os.environ.get("WEFT_KILLS", "0"))  # `make kills`
SOON = 5  # seconds: what is promised at once has long happened


# --- parties --------------------------------------------------------------------------------------------------------


class Child:
    """Parties in one child of the pool, each performed by a thread, or by a task of the child's loop."""

    cancels = True

    def __init__(self, pool, number, kind):
        self.pool, self.number, self.kind = pool, number, kind

    def start(self, script, *args):
        return Resident(self.pool.spawn(DRIVERS[self.kind], script, *args, worker=self.number))

    def call(self, function, *args):
        """What a plain function comes to there."""
        return self.begin(function, *args).join().wait(LIMIT)

    def begin(self, function, *args):
        return self.pool.spawn(function, *args, worker=self.number)


@pytest.fixture(scope="module")
def pool():
    with weft.Pool(3, on="process") as pool:
        try:
            yield pool
        finally:
            pool.cancel()


@pytest.fixture(params=DRIVERS)
def there(request, pool):
    return Child(pool, 0, request.param)


@pytest.fixture
def place():
    return "process"


@pytest.fixture
def child(pool):
    return Child(pool, 0, "thread")


@pytest.fixture(params=["threads", "asyncio"])
def here(request):
    with at_home(request.param) as world:
        yield world


@pytest.fixture(params=["out", "in", "between"])
def sides(request, here, there, pool):
    """(sender's side, receiver's side): one of them here and the other in a child, or both in children."""
    if request.param == "between":
        other = Child(pool, 1, "task" if there.kind == "thread" else "thread")
        return there, other
    return (here, there) if request.param == "out" else (there, here)


@contextlib.contextmanager
def dying_group():
    """A group that a death is to fail; what else it fails with is the test's to see."""
    group = weft.Group()
    try:
        with group:
            yield group
    except BaseExceptionGroup as failed:
        deaths, rest = failed.split(weft.PeerDied)
        assert deaths is not None, "nothing has died"
        if rest is not None:
            raise


def is_gone(pid):
    """Whether there is no such process, or nothing of it but what its parent has not asked for."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swap(pool):
    """What is sent is sent back."""
    requests, answers = weft.Channel(name="requests"), weft.Channel(name="answers")
    process = pool.spawn(kin.echo, requests.receiver(), answers.sender(), worker=2)
    with requests.sender() as tx:

        def swap(value):
            tx.send(value).wait(LIMIT)
            return answers.recv().wait(LIMIT)

        yield swap
    process.join().wait(LIMIT)


BERLIN_SUMMER = datetime.timezone(datetime.timedelta(hours=2))
VALUES = [
    *(None, True, 0, -1, 255, 2**63 - 1, -(2**63), 2**200, 1.5, -0.0, 1 - 2j),
    *("", "text", "\ud800", "Zürich", b"", b"\0\xff", bytearray(b"abc"), range(3), slice(1, 2), ...),
    *((), (1, ("two", [3])), [1, [2]], {"a": {1: None}}, {1, "a"}, frozenset({2})),
    *(decimal.Decimal("1.10"), uuid.UUID(int=5), datetime.date(2026, 1, 2)),
    *(datetime.datetime(2026, 1, 2, 3, tzinfo=BERLIN_SUMMER), datetime.timedelta(1, 2, 3)),
    *(freight.Plain([1, "two"]), freight.Plain, kin.square, array.array("d", [1.0, 2.0]), signal.SIGINT),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:30])
def test_a_value_comes_back_equal_and_of_its_type(swap, value):
    back = swap(value)
    assert type(back) is type(value) and back == value


@pytest.mark.parametrize("size", [1, 1000, (64 << 10) - 1, 64 << 10, 1 << 20, 5 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray, bytes.decode])
def test_a_large_value_comes_back_as_it_was(swap, kind, size):
    content = (random.Random(size).randbytes(4096).translate(bytes(range(128)) * 2) * (size // 4096 + 1))[:size]
    value = kind(content)
    back = swap(value)
    assert type(back) is type(value) and back == value


def test_many_blocks_in_one_value_come_back(swap):
    blocks = [bytes([n]) * (70 << 10) for n in range(150)]
    assert swap({"all": blocks, "none": b""}) == {"all": blocks, "none": b""}


@pytest.mark.parametrize("make", [bytearray, lambda n: memoryview(bytearray(n)), lambda n: memoryview(bytes(n))])
def test_a_view_arrives_read_only(swap, make):
    view = memoryview(make(1 << 20))
    back = swap(view)
    assert type(back) is memoryview and back == view and back.readonly
    with pytest.raises(TypeError):
        back[0] = 1


@pytest.mark.parametrize("form, shape", [("B", (4, 1 << 15)), ("d", (1 << 14,)), ("i", (8, 8, 1 << 10))])
def test_a_view_keeps_its_form(swap, form, shape):
    view = memoryview(bytes(math.prod(shape) * array.array(form).itemsize)).cast("B").cast(form, shape)
    back = swap(view)
    assert (back.format, back.shape) == (form, shape) and back.tobytes() == view.tobytes()


def test_a_view_that_was_sent_is_not_seen_to_change(swap):
    memory = bytearray(1 << 20)
    back = swap(memoryview(memory))
    memory[0] = 1
    assert back[0] == 0


@LINUX
@pytest.mark.parametrize("size", [64 << 10, 8 << 20])
def test_a_large_view_is_the_block_that_was_passed_on_and_no_copy_of_it(child, size):
    requests, answers = weft.Channel(), weft.Channel()
    process = child.begin(kin.describe, requests.receiver(), answers.sender())
    with requests.sender() as tx:
        tx.send(memoryview(bytearray(size))).wait(LIMIT)
        assert answers.recv().wait(LIMIT) == ("memoryview", True, True, size)
    process.join().wait(LIMIT)


def test_a_numpy_array_comes_back_and_a_large_one_read_only(swap):
    numpy = pytest.importorskip("numpy")
    for value in (numpy.arange(10), numpy.arange(200_000).reshape(400, 500), numpy.ones((3, 4), "f4").T):
        back = swap(value)
        assert back.dtype == value.dtype and back.shape == value.shape and (back == value).all()
    assert not swap(numpy.zeros(1 << 20)).flags.writeable


def test_an_exception_comes_back_with_the_text_of_its_traceback(swap):
    try:
        kin.boom("there")
    except freight.Boom as error:
        raised = error
    back = swap([raised])[0]
    assert type(back) is freight.Boom and back.args == ("there",)
    assert "in boom" in text_of(back)
    group = swap(ExceptionGroup("two", [ValueError(1), OSError(2, "two", "name")]))
    assert [type(error) for error in group.exceptions] == [ValueError, FileNotFoundError]


def test_a_channel_comes_back_as_the_same_channel_and_ends_as_ends_of_it(swap):
    ch = weft.Channel(3, name="travels")
    back = swap({"in": [ch]})["in"][0]
    back.send_nowait("v")
    assert (back.name, back.capacity, ch.recv_nowait()) == ("travels", 3, "v")
    del back
    with ch.sender() as tx, ch.receiver() as rx:
        tx_back, rx_back = swap((tx, rx))
        assert type(tx_back) is weft.Sender and type(rx_back) is weft.Receiver
        tx_back.send_nowait("v")
        assert rx.recv_nowait() == "v"
        tx_back.close()
        rx_back.close()
        del tx_back, rx_back
    swap(None)  # the echo has forgotten what it had
    until(lambda: ch.closed)


def test_an_end_counts_until_the_child_drops_it(swap):
    ch = weft.Channel()
    back = swap([ch.sender() for _ in range(3)])
    assert ch.statistics().senders >= 3
    for end in back:
        end.close()
    del back, end
    swap(None)  # the echo has forgotten what it had
    until(lambda: ch.closed)


def test_a_reply_channel_made_in_a_child_is_answered_here(child):
    requests = weft.Channel()
    asking = child.begin(kin.ask, requests.sender(), 21)
    question, reply = requests.recv().wait(LIMIT)
    reply.send(question * 2).wait(LIMIT)
    assert asking.join().wait(LIMIT) == 42


def test_reply_channels_by_the_hundred(pool):
    requests = weft.Channel()
    serving = pool.spawn(kin.answer, requests.receiver(), worker=1)
    asking = [pool.spawn(kin.ask_often, requests.sender(), 100, worker=number) for number in (0, 1)]
    for process in asking:
        assert process.join().wait(LIMIT) == [2 * number for number in range(100)]
    requests.close()
    serving.join().wait(LIMIT)


def test_a_channel_made_in_a_child_travels_with_what_is_in_it(child):
    ways = weft.Channel(1)
    assert child.call(kin.make_full, ways) == (5, "made in a child")
    ch = ways.recv_nowait()
    assert (ch.capacity, ch.name, len(ch)) == (5, "made in a child", 3)
    assert drained(ch) == [1, [2], "three"]


def test_a_channel_that_a_child_has_closed_travels_as_a_closed_one(child):
    ways = weft.Channel(1)
    child.call(kin.make_closed, ways)
    ch = ways.recv_nowait()
    assert ch.closed and ch.recv_nowait() == "left"
    with pytest.raises(freight.Boom, match="over"):
        ch.recv_nowait()


def test_ends_of_a_channel_made_in_a_child_count_in_both_processes(child):
    ways = weft.Channel()
    sending = child.begin(kin.make_ends, ways)
    rx = ways.recv().wait(LIMIT)
    assert list(rx) == ["through"]
    sending.join().wait(LIMIT)


# --- the laws -------------------------------------------------------------------------------------------------------


def test_l2_many_take_what_there_is_room_for(there):
    ch = weft.Channel(3)
    assert there.start(abroad.sending_many, ch, list(range(10))).join() == 3
    assert there.start(abroad.receiving_many, ch, 2).join() == [0, 1]
    assert there.start(abroad.receiving_many, ch, 2).join() == [2]


def test_l2_the_parked_are_served_first_come_first_served(here, there):
    laws_between.parked_receivers_are_served_in_order(here, there)
    laws_between.parked_senders_are_served_in_order(here, there, 0)


@pytest.mark.parametrize("capacity", [1, 3])
def test_l2_a_full_channel_parks_who_sends_from_there(there, capacity):
    ch = weft.Channel(capacity)
    tx = there.start(abroad.sending, ch, *range(capacity + 2))
    until_parked(ch, senders=1)
    assert len(ch) == capacity and not tx.done
    assert [ch.recv().wait(LIMIT) for _ in range(capacity + 2)] == list(range(capacity + 2))
    tx.join()


@pytest.mark.parametrize("overflow, kept", [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])])
def test_l2_an_overflow_policy_is_the_same_from_there(there, overflow, kept):
    ch = weft.Channel(2, overflow=overflow)
    there.start(abroad.sending, ch, *range(5)).join()
    assert drained(ch) == kept and ch.statistics().dropped == 3


@pytest.mark.parametrize("capacity", [0, 3])
@pytest.mark.parametrize("kinds", ["one child", "two children"])
def test_l3_a_storm_of_timeouts_and_cancels_loses_nothing(here, there, pool, capacity, kinds):
    other = here if kinds == "one child" else Child(pool, 1, "task")
    laws_between.storm_loses_nothing(other, there, capacity)


def test_l4_a_wait_that_runs_out_of_time_there_has_done_nothing(child):
    ch, other = weft.Channel(), weft.Channel()
    assert child.call(kin.hurried, kin.recv_of, ch)
    assert child.call(kin.hurried, kin.send_of, ch, [1])
    assert child.call(kin.hurried, kin.select_of, ch, other)
    assert parked(ch) == parked(other) == (0, 0)
    assert ch.statistics().sent == other.statistics().sent == 0


def test_l4_a_party_cancelled_when_met_from_there_but_not_yet_resumed_completes(there):
    with at_home("asyncio") as world:
        laws_between.cancelled_when_met_completes(world, there)


def test_l4_a_cancel_and_a_value_at_the_same_moment(there):
    """Whoever comes first: a value is with the party, or with the sender, never nowhere."""
    for number in range(100):
        ch = weft.Channel()
        rx = there.start(abroad.receiving, ch, 1)
        until_parked(ch, receivers=1)
        rx.cancel()
        try:
            ch.send_nowait(number)
        except weft.WouldBlock:
            assert isinstance(rx.failure(), weft.Cancelled)
        else:
            assert rx.join() == [number], "the cancel came after the commit"


@pytest.mark.parametrize("first", ["input", "output"])
def test_l5_a_select_there_of_an_input_and_an_output_commits_one(there, first):
    inward, outward = weft.Channel(), weft.Channel()
    party = there.start(abroad.choosing, "random", ("recv", inward), ("send", outward, "out"))
    until(lambda: parked(inward) == (0, 1) and parked(outward) == (1, 0))
    if first == "input":
        inward.send_nowait("in")
        assert party.join() == (0, "in")
    else:
        assert outward.recv_nowait() == "out"
        assert party.join() == (1, None)
    assert parked(inward) == parked(outward) == (0, 0)
    with pytest.raises(weft.WouldBlock):
        inward.send_nowait("late")
    with pytest.raises(weft.WouldBlock):
        outward.recv_nowait()


def test_l5_nothing_waits_with_nowait_or_a_default(there):
    ch, back = weft.Channel(1, name="looked at"), weft.Channel()
    if there.kind == "thread":
        assert there.call(kin.nowait, ch, back) == [
            [2],
            [1],
            "WouldBlock",
            ("default", "nothing"),
            ("default", None),
            (0, None),
            (1, [3]),
            (0, 1, False, "looked at"),
        ]
    else:
        assert there.call(kin.nowait_soon, ch, back) == [("default", "nothing"), (0, None), (1, [3])]
    assert parked(ch) == parked(back) == (0, 0)


def test_l7_the_parked_are_told_at_once(sides):
    laws_between.told_of_close(*sides)


def test_l8_poison_reaches_both_ends_at_once(sides):
    one, two = sides
    assert laws_between.told_of_poison(one, two, abroad.sending, 1).value == 1
    laws_between.told_of_poison(two, one, abroad.receiving, 1)


def test_l8_what_a_child_poisons_is_counted(there):
    ch = weft.Channel(5)
    there.start(abroad.sending, ch, [1], [2]).join()
    there.start(abroad.poisoning, ch, None).join()
    assert ch.statistics().dropped == 2 and ch.closed
    assert type(there.start(abroad.sending, ch, 3).failure()) is weft.Poisoned


def test_l8_the_cause_of_a_poison_given_there_is_the_cause_here(there):
    ch = weft.Channel()
    there.start(abroad.poisoning, ch, ValueError("spoilt")).join()
    with pytest.raises(weft.Poisoned, match="by another process") as poisoned:
        ch.recv_nowait()
    assert type(poisoned.value.__cause__) is ValueError


def test_l9_the_last_sender_gone_closes_wherever_it_was(sides):
    one, two = sides
    ch = weft.Channel(5)
    rx = two.start(abroad.draining, ch.receiver())
    tx = ch.sender()
    party = one.start(kin.sending_then_leaving, tx, 1, 2)
    if isinstance(one, Child):
        tx.close()  # there is another one there
    party.join()
    assert rx.join() == [1, 2]
    assert ch.closed and ch.statistics().senders == 0


def test_l9_the_last_receiver_gone_tells_senders_at_once(sides):
    one, two = sides
    ch = weft.Channel()
    end = ch.receiver()
    rx = two.start(kin.receiving_then_leaving, end, 1)
    if isinstance(two, Child):
        end.close()
    tx = one.start(abroad.sending, ch, "taken", "left over")
    assert rx.join() == ["taken"]
    error = tx.failure()
    assert type(error) is weft.NoReceivers and error.value == "left over"


def test_l9_ends_made_in_a_child_are_counted(child):
    ways, ch = weft.Channel(), weft.Channel(5)
    party = child.begin(kin.open_ends, ways, ch)
    end = ways.recv().wait(LIMIT)
    party.join().wait(LIMIT)
    until(lambda: ch.statistics().senders == 1)
    end.close()
    assert ch.closed and drained(ch) == ["from an end"]


@LINUX
def test_l10_nobody_wakes_while_all_are_parked(pool, here):
    ch, back = weft.Channel(), weft.Channel()
    pids = {pool.spawn(os.getpid, worker=number).join().wait(LIMIT) for number in range(2)}
    parties = [Child(pool, number, kind) for number in range(2) for kind in DRIVERS]
    for party in parties:
        party.start(abroad.receiving, ch, 1)
        party.start(abroad.registered, {"a": ch, "b": back}, 1)
        party.start(abroad.choosing, "random", ("recv", back), ("recv", ch))
    here.start(abroad.receiving, ch, 1)
    until(lambda: parked(ch) == (0, 13) and parked(back) == (0, 8))
    woken = wakings("self", *pids)
    ch.close()
    back.close()
    assert woken <= 5, "somebody polls"


def test_statistics_are_the_same_there(child):
    ch = weft.Channel(3, name="counted")
    ch.send_many([1, 2]).wait()
    ch.recv_nowait()
    assert child.call(kin.book, ch) == tuple(ch.statistics())


def test_a_trio_task_meets_a_child(there):
    pytest.importorskip("trio")

    async def main():
        ch, back = weft.Channel(), weft.Channel()
        party = there.start(abroad.answering, ch, back)
        for n in range(50):
            await ch.send(n)
            case, value = await weft.select(back.recv(), weft.after(LIMIT))
            assert (case, value) == (0, n)
        ch.close()
        return party

    worlds.run_in_trio(main).join()


# --- a select of what the root keeps and what it does not -----------------------------------------------------------


@pytest.mark.parametrize("first", ["channel", "timer"])
def test_a_select_there_with_a_timer(child, first):
    ch = weft.Channel()
    party = child.begin(kin.against_timer, ch, 60 if first == "channel" else 0.02)
    if first == "channel":
        ch.send("v").wait(LIMIT)
        assert party.join().wait(LIMIT) == (0, "v")
    else:
        assert party.join().wait(LIMIT) == (1, None)
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize("first", ["channel", "join"])
def test_a_select_there_with_a_join(child, first):
    ch, gate = weft.Channel(), weft.Channel()
    party = child.begin(kin.against_join, ch, gate)
    until_parked(ch, receivers=1)
    if first == "channel":
        ch.send("v").wait(LIMIT)
        gate.close()
        assert party.join().wait(LIMIT) == (0, "v")
    else:
        gate.close()
        assert party.join().wait(LIMIT) == (1, "joined")
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize(
    "function, first, chosen",
    [
        (kin.against_event, "channel", 0),
        (kin.against_event, "event", 1),
        (kin.against_descriptor, "channel", 0),
        (kin.against_descriptor, "descriptor", 1),
        (kin.against_descriptor_soon, "channel", 1),
        (kin.against_descriptor_soon, "descriptor", 0),
        (kin.against_local, "channel", (0, "v")),
        (kin.against_local, "mine", (1, "mine")),
    ],
)
def test_a_select_there_with_an_event_a_descriptor_or_a_channel_of_the_childs_own(child, function, first, chosen):
    ch, started = weft.Channel(), weft.Channel(1)
    party = child.begin(function, ch, started, first)
    if first == "channel":
        ch.send("v").wait(LIMIT)
    assert party.join().wait(LIMIT) == chosen
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize("first", ["channel", "barrier"])
def test_a_select_there_with_a_barrier_at_which_others_wait_already(there, first):
    ch, started = weft.Channel(), weft.Channel(1)
    party = there.start(abroad.choosing_a_barrier, ch, started)
    started.recv().wait(LIMIT)
    until_parked(ch, receivers=1)
    if first == "channel":
        ch.send("v").wait(LIMIT)
    else:
        started.send("come too").wait(LIMIT)
    chosen, orders = party.join()
    if first == "channel":
        assert chosen == (0, "v")
        assert sorted(orders) == [0, 1, 2]  # the one that took the value came back
    else:
        assert chosen[0] == 1 and sorted([chosen[1], *orders]) == [0, 1, 2]
    assert parked(ch) == (0, 0)


def test_nobody_there_passes_a_barrier_because_of_a_party_that_is_gone(child):
    ch = weft.Channel()
    assert child.call(kin.leaves_a_barrier, ch) == (1, 0, "timed out")
    assert parked(ch) == (0, 0)


def test_a_storm_of_selects_there_with_a_barrier_loses_nothing_and_nobody_passes_alone(there):
    ch = weft.Channel()
    party = there.start(abroad.storm_at_a_barrier, ch, 3, 100)
    given = 0
    dice = random.Random(8)
    while not party.done:
        try:
            ch.send(given).wait(dice.random() / 1000)
            given += 1
        except TimeoutError:
            pass
        except weft.Closed:
            break
    taken, orders = party.join()
    assert sorted(taken) == list(range(given))
    assert all(orders.count(order) == 100 for order in range(3)) and len(orders) == 300
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize("kind", ["timer", "event", "descriptor"])
def test_a_storm_of_receives_beside_something_of_the_childs_own_loses_nothing(pool, kind):
    ch = weft.Channel(1)
    parties = [pool.spawn(kin.storm_of_mixed, ch, kind, 300, seed, worker=seed % 2) for seed in range(3)]
    given = []
    dice = random.Random(5)
    while not all(party.done for party in parties):
        try:
            ch.send(("value", len(given))).wait(dice.random() / 1000)
            given.append(len(given))
        except TimeoutError:
            pass
    taken = [value for party in parties for value in party.result()[0]]
    left = [value for _, value in drained(ch)]
    assert sorted(taken + left) == given
    stats = ch.statistics()
    assert stats.sent == len(given) and stats.received == len(taken) + len(left) and parked(ch) == (0, 0)


@pytest.mark.parametrize("kind", ["timer", "event"])
def test_a_storm_of_sends_beside_something_of_the_childs_own_loses_nothing(pool, kind):
    ch = weft.Channel()
    parties = [pool.spawn(kin.storm_of_offers, ch, kind, seed * 1000, 200, seed, worker=seed % 2) for seed in range(3)]
    taken = []
    dice = random.Random(6)
    while not all(party.done for party in parties):
        with contextlib.suppress(TimeoutError):
            taken.append(ch.recv().wait(dice.random() / 1000))
    given = [value for party in parties for value in party.result()]
    assert sorted(taken) == sorted(given) and parked(ch) == (0, 0)
    assert ch.statistics().sent == len(given)


# --- a channel that leaves its process while somebody waits on it -------------------------------------------------------


@pytest.mark.parametrize("asked", ["wait", "cancel"])
def test_who_waits_to_receive_from_a_channel_that_leaves_a_child_waits_on(child, asked):
    ways = weft.Channel()
    process = child.begin(kin.goes_away_while_waited_on, ways, "receive", asked)
    ch = ways.recv().wait(LIMIT)
    number = 8 if asked == "wait" else 7
    until_parked(ch, receivers=number)
    for n in range(number):
        ch.send(n).wait(LIMIT)
    received = [result for well, result in process.join().wait(LIMIT) if well]
    plain = [value for value in received if isinstance(value, int)]
    many = [value for values in received if isinstance(values, list) for value in values]
    chosen = [value for case, value in (pair for pair in received if isinstance(pair, tuple)) if case in (2, "far")]
    assert sorted(plain + many + chosen) == list(range(number)) and len(received) == number
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize("asked", ["wait", "cancel"])
def test_who_waits_to_send_to_a_channel_that_leaves_a_child_waits_on(child, asked):
    ways = weft.Channel()
    process = child.begin(kin.goes_away_while_waited_on, ways, "send", asked)
    ch = ways.recv().wait(LIMIT)
    number = 6 if asked == "wait" else 5
    until_parked(ch, senders=number)
    got = []
    while parked(ch) != (0, 0):
        got += ch.recv_many(2).wait(LIMIT)
    results = [result for well, result in process.join().wait(LIMIT) if well]
    # How many of two values go is for who receives them.
    many = [value for value in got if value in ({"a": 1}, 2)]
    assert sum(result for result in results if isinstance(result, int)) == len(many) and many[0] == {"a": 1}
    assert got.count("offered") == results.count((0, None)) == (2 if asked == "wait" else 1)
    assert sum(1 for value in got if isinstance(value, list)) == results.count("sent") == 2
    assert len(results) == number


# --- a standing select there -----------------------------------------------------------------------------------------


def test_selecting_there_over_a_channel_of_its_own_too(there):
    ch, started = weft.Channel(3), weft.Channel(1)
    party = there.start(abroad.registered_beside_its_own, ch, 4, started)
    started.recv().wait(LIMIT)
    ch.send("from here").wait(LIMIT)
    events, left = party.join()
    assert events[0] == ("near", "first") and left == 0
    assert sorted(events[1:]) == [("far", "from here"), ("near", "second"), ("near", "third")]


def test_selecting_there_is_added_to_and_taken_from_while_it_waits(there):
    channels = {name: weft.Channel() for name in "ab"}
    turns = weft.Channel()
    party = there.start(abroad.registering_while_it_waits, channels, turns)
    turns.send(("add", "a")).wait(LIMIT)
    channels["a"].send(1).wait(LIMIT)
    turns.send(("add", "b")).wait(LIMIT)
    channels["b"].send(2).wait(LIMIT)
    turns.send(("discard", "a")).wait(LIMIT)
    until_parked(channels["a"])
    turns.send(("discard", "own")).wait(LIMIT)
    until_parked(channels["b"], receivers=1)
    turns.send(("discard", "b")).wait(LIMIT)
    turns.close()
    assert party.join() == [("a", 1), ("b", 2)]
    assert parked(channels["a"]) == parked(channels["b"]) == (0, 0)


def test_selecting_there_that_is_cancelled_has_taken_nothing(there):
    channels = {name: weft.Channel() for name in "ab"}
    party = there.start(abroad.registered, channels, 1)
    until(lambda: all(parked(ch)[1] for ch in channels.values()))
    party.cancel()
    assert isinstance(party.failure(), weft.Cancelled)
    assert all(parked(ch) == (0, 0) and ch.statistics().received == 0 for ch in channels.values())


def test_a_storm_of_selectings_there_loses_nothing(pool):
    channels = {name: weft.Channel(capacity) for name, capacity in (("a", 0), ("b", 3), ("c", 500))}
    parties = [
        pool.spawn(abroad.in_thread, abroad.storm_of_selecting, channels, 300, seed, worker=seed % 2)
        for seed in range(3)
    ]
    given = []
    dice = random.Random(7)
    for number in range(300):
        with contextlib.suppress(TimeoutError):
            dice.choice(list(channels.values())).send(number).wait(dice.random() / 200)
            given.append(number)
    for ch in channels.values():
        ch.close()
    taken = [value for party in parties for value in party.join().wait(LIMIT)[1]]
    left = [value for ch in channels.values() for value in drained(ch)]
    assert sorted(taken + left) == given
    assert all(parked(ch) == (0, 0) for ch in channels.values())


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: lambda: None, lambda: _local()], ids=["lambda", "local function"])
def test_what_cannot_be_found_there_is_refused_at_once(pool, make):
    with weft.Group() as group:
        with pytest.raises(TypeError, match="import path"):
            group.spawn(make(), on="process")
    with pytest.raises(TypeError, match="import path"):
        pool.spawn(make())


def _local():
    def local():
        pass

    return local


def test_an_argument_that_cannot_go_is_refused_at_once(pool):
    with weft.Group() as group:
        with pytest.raises(TypeError, match="cannot go to another place"):
            group.spawn(kin.square, threading.Lock(), on="process")
    with pytest.raises(TypeError, match=r"value.*\[1\].* cannot go to another place"):
        pool.spawn(kin.square, [1, threading.Lock()])


def test_a_value_that_cannot_go_is_refused_where_it_is_sent(child):
    ch = weft.Channel()
    receiving = child.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    with pytest.raises(TypeError, match="cannot go to another place"):
        ch.send(threading.Lock()).wait(LIMIT)
    ch.send("well").wait(LIMIT)
    assert receiving.join() == ["well"]


@pytest.mark.parametrize(
    "function, kind, said",
    [
        (kin.not_for_here, TypeError, "cannot go to another place"),
        (kin.closed_end, weft.Closed, "clone"),
    ],
)
@pytest.mark.parametrize("driver", [kin.call, kin.call_soon])
def test_a_result_that_cannot_go_fails_the_process(driver, function, kind, said):
    error = failure_of(driver, function, on="process")
    assert type(error) is kind and said in str(error)


@pytest.mark.slow
def test_values_too_large_for_one_message_are_refused_and_stay_with_their_sender(child):
    ch = weft.Channel(1)
    well, error = child.begin(kin.send_more_than_a_message, ch, weft.Channel(1)).join().wait(LIMIT * 3)
    assert not well and type(error) is ValueError and "in one message" in str(error)
    assert len(ch) == 0 and parked(ch) == (0, 0)


# --- death ----------------------------------------------------------------------------------------------------------


def begin(group, function, *args):
    """A child that is to die; its process and its number."""
    started = weft.Channel(1)
    process = group.spawn(function, *args, started, on="process")
    return process, started.recv().wait(LIMIT)


def has_died(error, pid, exitcode):
    return type(error) is weft.PeerDied and (error.pid, error.exitcode) == (pid, exitcode)


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__


def test_a_receiver_here_is_told_of_a_killed_sender(here):
    with dying_group() as group:
        ch = weft.Channel()
        process, pid = begin(group, kin.hold, ch.sender())
        rx = here.start(abroad.receiving, ch.receiver(), 1)
        until_parked(ch, receivers=1)
        os.kill(pid, signal.SIGKILL)
        assert has_died(rx.failure(), pid, -signal.SIGKILL)
        until(lambda: process.done)
        with pytest.raises(weft.PeerDied) as died:
            process.result()
        assert has_died(died.value, pid, -signal.SIGKILL) and "SIGKILL" in str(died.value)


def test_a_sender_here_is_told_of_a_killed_receiver(here):
    with dying_group() as group:
        ch = weft.Channel()
        _, pid = begin(group, kin.hold, ch.receiver())
        tx = here.start(abroad.sending, ch, ["mine"])
        until_parked(ch, senders=1)
        os.kill(pid, signal.SIGKILL)
        error = tx.failure()
        assert type(error) is weft.NoReceivers and error.value == ["mine"]
        assert has_died(error.__cause__, pid, -signal.SIGKILL)


@pytest.mark.parametrize("script", [abroad.receiving, abroad.sending])
def test_another_child_is_told_of_a_killed_one(there, script):
    with dying_group() as group:
        ch = weft.Channel()
        end = ch.sender() if script is abroad.receiving else ch.receiver()
        _, pid = begin(group, kin.hold, end)
        end.close()
        party = there.start(script, ch, 1)
        until(lambda: sum(parked(ch)) == 1)
        os.kill(pid, signal.SIGKILL)
        error = party.failure()
        assert any(type(part) is weft.PeerDied for part in causes(error)) or "PeerDied" in str(error.__cause__)


def test_a_select_here_is_told_of_a_killed_sender():
    with dying_group() as group:
        ch, other = weft.Channel(), weft.Channel()
        _, pid = begin(group, kin.hold, ch.sender())
        threading.Timer(0.01, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(weft.PeerDied) as died:
            weft.select(ch.recv(), other.recv()).wait(SOON)
        assert has_died(died.value, pid, -signal.SIGKILL)


@pytest.mark.parametrize("function", [kin.computes, kin.waits, kin.waits_soon])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_killed_child_fails_its_group_which_cancels_the_others(function, number):
    group = weft.Group()
    with pytest.raises(ExceptionGroup) as failed, group:
        sibling = group.spawn(abroad.park)
        process, pid = begin(group, function)
        os.kill(pid, number)
        weft.never().wait(LIMIT)
    assert [type(error) for error in failed.value.exceptions] == [weft.PeerDied]
    assert has_died(failed.value.exceptions[0], pid, -number)
    assert sibling.cancelled() and process.done


@pytest.mark.parametrize("code", [0, 3])
def test_a_function_that_leaves_by_os_exit_has_died_with_that_code(code):
    error = failure_of(kin.exits_at_once, code, on="process")
    assert type(error) is weft.PeerDied and error.exitcode == code


def test_sys_exit_in_a_function_is_what_it_is_in_a_thread():
    for place in ("thread", "process"):
        with pytest.raises(SystemExit) as ended, weft.Group() as group:
            group.spawn(kin.sys_exit, 3, on=place)
        assert ended.value.code == 3


def test_a_loop_is_told_of_a_death(run):
    async def main():
        ch, started = weft.Channel(), weft.Channel(1)
        async with weft.Group() as group:
            group.spawn(kin.hold, ch.sender(), started, on="process")
            pid = await started.recv()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(weft.PeerDied) as died:
                await ch.receiver().recv()
            assert has_died(died.value, pid, -signal.SIGKILL)
            await weft.never()

    with pytest.raises(ExceptionGroup) as failed:
        run(main)
    assert [type(error) for error in failed.value.exceptions] == [weft.PeerDied]


@pytest.mark.parametrize("function", [kin.pours, kin.drinks, kin.drinks_soon, kin.chooses])
def test_a_death_at_any_moment_hangs_nobody(function):
    """The other party is here, and goes on until it is told, or has nobody to wait for."""
    delays, killed = [], 0.0

    def kill(pid):
        nonlocal killed
        killed = time.perf_counter()
        os.kill(pid, signal.SIGKILL)

    for round in range(KILLS or max(1, ROUNDS // 4)):
        dice = random.Random(round)
        ch = weft.Channel(dice.choice([0, 0, 1, 5, 100]))
        with dying_group() as group:
            end = ch.sender() if function is kin.pours else ch.receiver() if function is not kin.chooses else ch
            process, pid = begin(group, function, end)
            if end is not ch:
                end.close()
            killer = threading.Timer(dice.random() / 200, kill, (pid,))
            killer.start()
            moved = 0
            try:
                while True:
                    if function is kin.pours:
                        assert ch.recv().wait(LIMIT) == moved
                    elif function is kin.chooses:
                        weft.select(ch.recv(), ch.send(moved), process.join()).wait(LIMIT)
                    else:
                        ch.send(moved).wait(LIMIT)
                    moved += 1
            except weft.PeerDied as died:
                assert has_died(died, pid, -signal.SIGKILL)
            except weft.NoReceivers as alone:
                assert has_died(alone.__cause__, pid, -signal.SIGKILL) and alone.value == moved
            except weft.Cancelled:
                pass  # the group was told first
            delays.append(time.perf_counter() - killed)
            killer.join()
            stats = ch.statistics()
            assert stats.sent == stats.received + stats.dropped + stats.buffered
            assert parked(ch) == (0, 0)
        assert is_gone(pid)
    say_how_late("from the kill to the error", delays)


def say_how_late(what, delays):
    """For who asks (`-rP`, as `make kills` does)."""
    delays = sorted(1000 * delay for delay in delays)
    half, last = delays[len(delays) // 2], delays[-1]
    print(
        f"{what}: {len(delays)} rounds, median {half:.1f} ms, greatest {last:.1f} ms, past 100 ms {sum(d > 100 for d in delays)}"
    )


@LINUX
@pytest.mark.parametrize("function", ["computes", "waits", "waits_soon", "pours_here"])
def test_children_end_with_a_parent_that_was_killed(function):
    program = source(
        f"""
        with weft.Group() as group:
            started = weft.Channel(3)
            for _ in range(3):
                if {function!r} == "pours_here":
                    group.spawn(kin.pours, weft.Channel(), started, on="process")
                else:
                    group.spawn(getattr(kin, {function!r}), started, on="process")
            print(*[started.recv().wait() for _ in range(3)], flush=True)
            weft.never().wait()
        """,
        "kin",
    )
    memory, delays = set(os.listdir("/dev/shm")), []
    for _ in range(1 + (KILLS // 3 if function != "computes" else 0)):  # those that compute are given time to end
        delays.append(kill_a_parent(program))
    assert set(os.listdir("/dev/shm")) <= memory
    say_how_late("from the kill of their parent to the end of all", delays)


def kill_a_parent(program):
    """How long its three children stayed."""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    children = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(children) == 3 and not any(is_gone(pid) for pid in children)
    time.sleep(random.random() / 200)
    killed = time.perf_counter()
    parent.kill()
    parent.wait(LIMIT)
    parent.stdout.close()
    try:
        spin(lambda: all(is_gone(pid) for pid in children), "the children end")
        return time.perf_counter() - killed
    finally:
        for pid in children:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


@LINUX
def test_a_child_that_is_stopped_stops_nobody_else(run):
    async def main():
        ch, started = weft.Channel(1), weft.Channel(1)
        async with weft.Group() as group:
            group.spawn(kin.drinks, ch.receiver(), started, on="process")
            pid = await started.recv()
            os.kill(pid, signal.SIGSTOP)
            try:
                given = 0
                # More than a socket takes: nobody waits for the child to read, but for room in the channel.
                for _ in range(500):
                    case, _ = await weft.select(ch.send(bytes(60_000)), weft.after(0.05))
                    given += case == 0
                    if case == 1:
                        break
                assert case == 1 and given < 5
                assert len(ch) == 1 and ch.statistics().sent == given
            finally:
                os.kill(pid, signal.SIGCONT)
            group.cancel()

    run(main)


@LINUX
def test_descriptors_and_threads_do_not_grow():
    def once():
        with weft.Group() as group:
            ch = weft.Channel()
            process = group.spawn(abroad.sum_of, ch.receiver(), on="process")
            with pytest.raises(TimeoutError):  # a thread that once waited for another process keeps a pipe
                ch.recv().wait(0.001)
            with ch.sender() as tx:
                tx.send(1).wait(LIMIT)
                tx.send(2).wait(LIMIT)
            assert process.join().wait(LIMIT) == 3

    def killed():
        with dying_group() as group:
            _, pid = begin(group, kin.waits)
            os.kill(pid, signal.SIGKILL)
            weft.never().wait(LIMIT)

    once()
    killed()
    before, peers = kin.descriptors(), len(_os_process._peers)
    for _ in range(ROUNDS * 3 // 10):
        once()
        killed()
    spin(lambda: all(now <= most for now, most in zip(kin.descriptors(), before, strict=True)), "all are given back")
    assert len(_os_process._peers) == peers


@pytest.mark.parametrize("size", [1 << 16, 1 << 20, 32 << 20])
def test_a_large_result_and_a_large_value_before_a_join_hang_nobody(size):
    with weft.Group() as group:
        ch = weft.Channel.unbounded()
        large = group.spawn(kin.large, size, on="process")
        puts = group.spawn(kin.puts_large, ch, size, 3, on="process")
        assert puts.join().wait(LIMIT) == "done"
        assert large.join().wait(LIMIT) == bytes(size)
    assert [len(value) for value in drained(ch)] == [size] * 3


def test_a_program_ends_though_nobody_reads_what_is_left(tmp_path):
    program = source(
        """
        ch = weft.Channel.unbounded()
        with weft.Group() as group:
            group.spawn(kin.puts_large, ch, 1 << 20, 20, on="process")
            for _ in range(100):
                ch.send_nowait(bytes(1 << 16))
        print(len(ch))
        """,
        "kin",
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "120\n", "")


# --- pools ----------------------------------------------------------------------------------------------------------


def test_processes_of_a_pool_are_spread_and_can_be_pinned():
    with weft.Pool(2, on="process") as pool:
        pids = [pool.spawn(os.getpid, worker=number).join().wait(LIMIT) for number in (0, 1, 0, 1)]
        assert pids[:2] == pids[2:] and len({*pids, os.getpid()}) == 3
        waiting = [pool.spawn(kin.waits, weft.Channel(1)) for _ in range(4)]
        assert sorted(process._worker.load for process in waiting) == [2, 2, 2, 2]
        pool.cancel()


@pytest.mark.parametrize("function", [kin.square, kin.square_soon])
@pytest.mark.parametrize("ordered", [True, False])
def test_map_in_processes(function, ordered):
    with weft.Pool(2, on="process") as pool:
        results = list(pool.map(function, range(100), ordered=ordered))
    assert (results if ordered else sorted(results)) == [n * n for n in range(100)]


def test_map_in_processes_from_a_loop(run):
    async def main():
        async with weft.Pool(2, on="process") as pool:
            return [result async for result in pool.map(kin.square_soon, range(30))]

    assert run(main) == [n * n for n in range(30)]


def test_the_first_error_of_a_map_is_raised():
    with weft.Pool(2, on="process") as pool:
        with pytest.raises(freight.Boom, match="five"):
            list(pool.map(kin.fails_on_five, range(100)))
        assert pool.spawn(kin.square, 3).join().wait(LIMIT) == 9


@pytest.mark.parametrize("function", [kin.dies_on_seven, kin.dies_soon_on_seven])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_worker_killed_in_a_map_fails_the_pool(function, ordered):
    with pytest.raises(ExceptionGroup) as failed:
        with weft.Pool(2, on="process") as pool:
            for _ in pool.map(function, range(1000), ordered=ordered):
                pass
    assert {(type(error), error.exitcode) for error in failed.value.exceptions} == {(weft.PeerDied, -signal.SIGKILL)}


def test_a_worker_killed_in_the_middle_fails_the_pool_and_the_others_end():
    group = weft.Pool(2, on="process")
    with pytest.raises(ExceptionGroup) as failed, group as pool:
        pids = []
        for number in range(2):
            started = weft.Channel(1)
            pool.spawn(kin.computes if number == 0 else kin.waits, started, worker=number)
            pids.append(started.recv().wait(LIMIT))
        os.kill(pids[0], signal.SIGKILL)
        weft.never().wait(LIMIT)
    (error,) = failed.value.exceptions
    assert has_died(error, pids[0], -signal.SIGKILL)
    spin(lambda: all(map(is_gone, pids)))


# --- what a process is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [abroad.double, abroad.double_soon])
def test_a_process_has_a_result_and_a_name(function):
    laws_between.a_process_has_a_result_and_a_name(function, "process")


def test_it_is_another_process_and_a_child_of_this_one():
    with weft.Group() as group:
        process = group.spawn(kin.who, on="process", name="my thread")
    pid, parent, thread = process.result()
    assert pid != os.getpid() == parent and thread == "my thread"
    spin(lambda: is_gone(pid))


def test_a_failure_there_is_raised_here_with_its_traceback():
    with pytest.raises(ExceptionGroup) as failed, weft.Group() as group:
        sibling = group.spawn(abroad.park)
        group.spawn(kin.boom, "there", on="process")
    (error,) = failed.value.exceptions
    assert type(error) is freight.Boom and sibling.cancelled()
    assert "in boom" in text_of(error)


@pytest.mark.parametrize("function", [kin.until_cancelled, kin.until_cancelled_soon])
@pytest.mark.parametrize("how", ["process", "group", "deadline", "sibling"])
def test_a_cancel_reaches_it(function, how):
    started, told = weft.Channel(1), weft.Channel(1)
    with contextlib.suppress(ExceptionGroup), weft.Group() as group:
        process = group.spawn(function, started, told, on="process")
        pid = started.recv().wait(LIMIT)
        if how == "process":
            process.cancel()
            with pytest.raises(weft.Cancelled):
                process.join().wait(LIMIT)
        elif how == "group":
            group.cancel()
        elif how == "deadline":
            group.cancel_after(0)
        else:
            group.spawn(abroad.boom, "sibling")
    assert process.cancelled() and told.recv_nowait() == "cancelled"
    spin(lambda: is_gone(pid))


def test_a_cancel_before_it_has_begun():
    with weft.Group() as group:
        process = group.spawn(abroad.park, on="process")
        process.cancel()
    assert process.cancelled()


def test_a_loop_has_processes_there_too(arun):
    async def main():
        async with weft.Group() as group:
            ch = weft.Channel()
            process = group.spawn(abroad.sum_of_soon, ch.receiver(), on="process")
            async with ch.sender() as tx:
                for n in range(10):
                    await tx.send(n)
            case, value = await weft.select(process.join(), weft.after(LIMIT))
            assert (case, value) == (0, 45)
        return process.result()

    assert arun(main) == 45


@pytest.mark.parametrize("function", ["waits", "waits_soon"])
def test_ctrl_c_ends_a_program_and_its_children(function):
    program = source(
        f"""
        with weft.Group() as group:
            started = weft.Channel(1)
            group.spawn(kin.{function}, started, on="process")
            print(started.recv().wait(), flush=True)
            weft.never().wait()
        """,
        "kin",
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pid = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGINT)  # to all of them, as a terminal does
    _, errors = parent.communicate(timeout=LIMIT)
    assert parent.returncode == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")
    spin(lambda: is_gone(pid))


# --- blocks of memory that are used again ---------------------------------------------------------------------------


def test_what_was_received_does_not_change_while_it_is_read(swap):
    kept = []
    for n in range(40):
        kept.append((n, swap(memoryview(bytes([n]) * (1 << 20)))))
        if len(kept) > 5:
            kept.pop(n % 5)  # its block is used again
    assert all(bytes(view) == bytes([n]) * (1 << 20) for n, view in kept)


@LINUX
def test_blocks_are_used_again_and_no_descriptors_pile_up(swap):
    def blocks():
        open_ones = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        return {os.stat(path).st_ino for path in open_ones if "memfd:weft-block" in os.path.realpath(path)}

    before, seen = blocks(), set()
    for _ in range(50):
        swap(memoryview(bytes(1 << 20)))
        seen |= blocks()
    assert len(seen - before) <= 3, "one that is read, one on its way back, one to write to"


@FORKING
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_forked_child_inherits_does_not_change_when_its_parent_lets_go():
    # In a program of its own: not every CPython can fork where there are other interpreters, which some tests leave idle.
    program = source(
        f"""
        requests, answers = weft.Channel(), weft.Channel()

        def swap(letter):
            requests.send(memoryview(letter * (1 << 20))).wait({LIMIT})
            return answers.recv().wait({LIMIT})

        with weft.Group() as group:
            group.spawn(kin.echo, requests.receiver(), answers.sender(), on="process")
            view = swap(b"1")
            ear, mouth = os.pipe()
            pid = os.fork()
            if not pid:
                os.read(ear, 1)
                os._exit(0 if bytes(view) == b"1" * (1 << 20) else 1)
            del view
            for _ in range(20):
                swap(b"2")
            os.write(mouth, b"!")
            print(os.waitpid(pid, 0)[1])
            requests.close()
        """,
        "kin",
        "os",
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=4 * LIMIT
    )
    assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.mark.parametrize("many", [False, True])
def test_what_a_child_received_and_nobody_there_took_up_comes_back_in_order(many):
    ch, turns = weft.Channel(3), weft.Channel()
    with weft.Group() as group:
        process = group.spawn(abroad.leaves_what_it_received, ch, turns, many, on="process")
        assert turns.recv().wait(LIMIT) == "parked"
        until_parked(ch, receivers=1)
        assert ch.send_many(["a", ["b"], "c"]).wait(LIMIT) == 3
        until(lambda: ch.statistics().parked_receivers == 0, "it is met")
        assert turns.recv().wait(LIMIT) == "decided"
    process.result()
    assert [ch.recv().wait(LIMIT) for _ in range(3)] == ["a", ["b"], "c"]
    assert ch.statistics().received == 3


def test_a_selecting_whose_channel_was_sent_away_goes_on():
    out = weft.Channel(1)
    with weft.Group() as group:
        process = group.spawn(kin.moves_a_channel_of_a_selecting, out, on="process")
        out.recv().wait(LIMIT).send("late").wait(LIMIT)
        assert process.join().wait(LIMIT) == [(0, "early"), (0, "late")]


def test_what_a_selecting_was_handed_before_a_channel_of_it_was_sent_away_is_not_lost():
    out = weft.Channel(1)
    with weft.Group() as group:
        process = group.spawn(kin.moves_a_channel_of_a_selecting_that_was_met, out, on="process")
        out.recv().wait(LIMIT).send("late").wait(LIMIT)
        assert process.join().wait(LIMIT) == [(0, "met"), (1, "late")]


def test_two_threads_that_send_one_channel_away_move_it_once():
    out = weft.Channel()
    with weft.Group() as group:
        group.spawn(kin.shares_one_channel_in_threads, out, 100, on="process")
        for n in range(100):
            one, other = out.recv().wait(LIMIT), out.recv().wait(LIMIT)
            assert one.recv().wait(LIMIT) == n
            for ch in (one, other):
                assert ch.statistics().received == 1
                with pytest.raises(ValueError, match=str(n)):
                    ch.recv().wait(LIMIT)


# --- forks, ends of the root, what is told in other words -------------------------------------------------------------


def run_apart(text, *arguments):
    """In a program of its own: not every CPython can fork where there are other interpreters, which some tests leave idle."""
    program = source(text, "kin", "os", "signal", "sys", "time")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments], capture_output=True, text=True, timeout=4 * LIMIT
    )
    assert ended.stderr == ""
    return ended.stdout


@FORKING
def test_a_forked_child_of_a_child_says_nothing_on_its_parents_link():
    """An end that was received, and not taken up when the process forked, is the parent's alone."""
    out = run_apart(
        f"""
        ch, parked, ended, probe = weft.Channel(1), weft.Channel(), weft.Channel(1), weft.Channel(1)
        with weft.Group() as group:
            process = group.spawn(kin.forks_while_it_holds_an_end, ch, parked, ended, on="process")
            parked.recv().wait({LIMIT})
            with probe.sender() as tx:
                ch.send(tx).wait({LIMIT})
            parked.send("sent").wait({LIMIT})
            print(ended.recv().wait({LIMIT}), probe.recv().wait({LIMIT}))
        """
    )
    assert out == "sent still open\n"


@FORKING
def test_a_forked_child_of_the_root_says_nothing_on_its_links():
    out = run_apart(
        f"""
        ch, x, started = weft.Channel(1), weft.Channel(1), weft.Channel()
        with weft.Group() as group:
            waiting = group.spawn(kin.collects, x, started, on="process")
            started.recv().wait({LIMIT})

            def parked():
                sender = group.spawn(kin.passes_an_end, ch, x, on="process")
                sender.join().wait({LIMIT})

            with kin.received_and_not_taken_up(ch, parked) as (loop, task):
                kin.loses_in_a_fork(loop, task)
                with loop.run_until_complete(task) as tx:
                    tx.send("still open").wait({LIMIT})
            print(waiting.join().wait({LIMIT}))
        """
    )
    assert out == "['still open']\n"


@FORKING
def test_a_plain_fork_of_the_root_keeps_no_process_alive():
    program = source(
        f"""
        started = weft.Channel(1)
        with weft.Group() as group:
            group.spawn(kin.waits, started, on="process")
            pid = started.recv().wait({LIMIT})
            fork = os.fork()
            if not fork:
                os.close(1)
                time.sleep(1000)
            print(pid, fork, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        *("kin", "os", "signal", "time"),
    )
    root = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pid, fork = map(int, root.communicate(timeout=LIMIT)[0].split())
    try:
        until(lambda: is_gone(pid), "the process ends with the root")
    finally:
        os.kill(fork, signal.SIGKILL)


@pytest.mark.parametrize("on", PLACES)
def test_all_clean_up_when_the_root_is_gone(on, tmp_path):
    log = tmp_path / "log"
    program = source(
        f"""
        started = weft.Channel(10)
        with weft.Group() as group:
            outer = group.spawn(kin.cleans_up_with_others, {on!r}, 3, started, {str(log)!r}, on="process")
            pids = [started.recv().wait({LIMIT}) for _ in range(3)]
            print(*pids, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        *("kin", "os", "signal"),
    )
    root = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * LIMIT)
    pids = list(map(int, root.stdout.split()))
    until(lambda: all(map(is_gone, pids)), "all end")
    until(lambda: sorted(log.read_text().split()) == ["inner"] * 3 + ["outer"], "all have cleaned up")
    assert "Traceback" not in root.stderr.replace("KeyboardInterrupt", "")


@pytest.mark.parametrize("kind", ["a channel", "memory"])
@pytest.mark.parametrize("who", ["here", "there"])
def test_a_reason_with_something_that_cannot_travel_in_it_is_told_in_words(kind, who):
    ch, started = weft.Channel(), weft.Channel(1)
    with weft.Group() as group:
        if who == "there":
            told = group.spawn(kin.closes_with, ch, kind, on="process").join().wait(LIMIT)
            with pytest.raises(weft.RemoteError, match=r"ValueError: \('why', <"):
                ch.recv().wait(LIMIT)
        else:
            process = group.spawn(kin.closes_after, ch, started, on="process")
            started.recv().wait(LIMIT)
            ch.close(kin.reason_of(kind))
            told = process.join().wait(LIMIT)
        assert "ValueError" in told and "why" in told


def test_a_channel_that_its_last_receiver_has_left_says_so_when_it_has_moved():
    out = weft.Channel(1)
    with weft.Group() as group:
        assert group.spawn(kin.moves_one_without_receivers, out, on="process").join().wait(LIMIT) == "NoReceivers"
    with pytest.raises(weft.NoReceivers):
        out.recv().wait(LIMIT).send(1).wait(LIMIT)


def test_what_is_given_back_comes_before_what_was_lent():
    ch, parked = weft.Channel(10), weft.Channel()
    with weft.Group() as group:
        process = group.spawn(kin.leaves_what_came_first, ch, parked, on="process")
        parked.recv().wait(LIMIT)
        ch.send_many(list(range(6))).wait(LIMIT)
        parked.send("sent").wait(LIMIT)
        assert process.join().wait(LIMIT) == list(range(6))


@pytest.mark.parametrize("on", PLACES)
def test_a_job_for_which_there_is_no_thread_fails_alone(on):
    started, ended = weft.Channel(1), weft.Channel(1)
    with pytest.raises(ExceptionGroup) as failed, weft.Pool(1, on=on) as pool:
        pool.spawn(kin.refuses_a_thread).join().wait(LIMIT)
        pool.spawn(kin.says_how_it_ends, started, ended)
        started.recv().wait(LIMIT)
        pool.spawn(kin.square, 3)
    (error,) = failed.value.exceptions
    assert type(error) is RuntimeError and "can't start new thread" in str(error)
    assert ended.recv().wait(LIMIT) == "cancelled"  # by the pool, and not lost with its place


def test_modules_of_the_folder_it_stands_in_are_not_taken_for_those_it_needs(tmp_path):
    elsewhere, program = tmp_path / "elsewhere", tmp_path / "program.py"
    elsewhere.mkdir()
    (elsewhere / "json.py").write_text("raise SystemExit('this is not the json that was wanted')")
    text = f"""
        os.chdir({str(elsewhere)!r})
        sys.path.append(pathlib.Path("no text, which Python ignores"))
        with weft.Group() as group:
            print(group.spawn(kin.square, 3, on="process").join().wait({LIMIT}))
        """
    program.write_text(source(text, "kin", "os", "pathlib", "sys"))
    ended = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=2 * LIMIT)
    assert (ended.stdout, ended.stderr) == ("9\n", "")


@NO_INTERPRETERS
def test_what_was_dropped_elsewhere_of_a_channel_that_is_gone_is_told_to_no_other():
    """Nobody has told of it yet when its object goes, and others come, one of them at its address."""
    out = run_apart(
        f"""
        sys.setswitchinterval(5)  # the thread that tells has no turn meanwhile
        ends, ready, others, told = weft.Channel(1), weft.Channel(), [], []
        with weft.Group() as group:
            group.spawn(kin.poisons_a_moment_later, ends, ready, on="interpreter")
            ch = weft.Channel(4, on_undelivered=lambda value: None)
            for value in "ab":
                ch.send_nowait(value)
            ends.send(ch).wait({LIMIT})
            ready.recv().wait({LIMIT})
            until = time.perf_counter() + 0.3
            while time.perf_counter() < until:
                pass
            del ch
            for _ in range(20):
                others.append(weft.Channel(4, on_undelivered=told.append))
                weft._weft._share(others[-1])
        time.sleep(0.1)
        print(told)
        """
    )
    assert out == "[]\n"
