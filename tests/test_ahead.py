"""What a process sends and receives ahead of the first process's answer: nobody can tell, but by how long it takes.

A first send, or receive, on a channel with a buffer asks; from the second on a process has room, or values, that it need not ask for.
So each test does a few of them before it looks.
"""

import os
import signal
import sys
from pathlib import Path

import kin
import pytest
import weft
from worlds import IN_PYTHON, LIMIT, parked, until, until_parked

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has linked processes"),
    pytest.mark.skipif(IN_PYTHON, reason="processes need the extension"),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="processes are linked by Unix sockets"),
]


def filled(capacity, number):
    ch = weft.Channel(capacity)
    for value in range(number):
        ch.send_nowait(value)
    return ch


def drained(ch):
    values = []
    while len(ch):
        values.append(ch.recv_nowait())
    return values


def test_what_a_killed_process_had_not_taken_is_received_by_others_in_order():
    ch, taken = filled(100, 50), weft.Channel()
    with pytest.raises(BaseExceptionGroup) as failed, weft.Group() as group:
        group.spawn(kin.takes, ch, 3, taken, on="process")
        pid, got = taken.recv().wait(LIMIT)
        assert got == [0, 1, 2]
        assert (len(ch), ch.statistics().received) == (47, 3)
        os.kill(pid, signal.SIGKILL)
        weft.never().wait(LIMIT)
    assert failed.group_contains(weft.PeerDied)
    assert drained(ch) == list(range(3, 50))


def test_room_that_a_killed_process_had_is_free_again_and_what_it_sent_is_there():
    ch, given = weft.Channel(8), weft.Channel()
    with pytest.raises(BaseExceptionGroup) as failed, weft.Group() as group:
        group.spawn(kin.gives, ch, 3, given, on="process")
        os.kill(given.recv().wait(LIMIT), signal.SIGKILL)
        weft.never().wait(LIMIT)
    assert failed.group_contains(weft.PeerDied)
    for value in range(3, 8):
        ch.send_nowait(value)
    with pytest.raises(weft.WouldBlock):
        ch.send_nowait(8)
    assert drained(ch) == list(range(8))


def test_a_channel_is_neither_full_nor_empty_because_of_another_process():
    """While that one lives and does nothing."""
    out, into, given, taken = weft.Channel(8), filled(8, 8), weft.Channel(), weft.Channel()
    with weft.Group() as group:
        group.spawn(kin.gives, out, 3, given, on="process")
        group.spawn(kin.takes, into, 3, taken, on="process")
        given.recv().wait(LIMIT)
        taken.recv().wait(LIMIT)
        for value in range(3, 8):
            out.send_nowait(value)
        with pytest.raises(weft.WouldBlock):
            out.send_nowait(8)
        for value in range(8, 11):
            into.send_nowait(value)
        with pytest.raises(weft.WouldBlock):
            into.send_nowait(11)
        assert drained(out) == list(range(8))
        assert drained(into) == list(range(3, 11))
        group.cancel()


def test_a_sender_that_waits_is_let_in_by_each_value_that_is_taken():
    ch, turns, taken = filled(4, 4), weft.Channel(), weft.Channel()
    with weft.Group() as group:
        with turns.sender() as go:
            group.spawn(kin.takes_each, ch, turns.receiver(), taken, on="process")
            for value in range(20):
                sending = group.spawn(lambda value=value: ch.send(value + 4).wait(LIMIT))
                until_parked(ch, senders=1)
                assert len(ch) == 4
                go.send(None).wait(LIMIT)
                assert taken.recv().wait(LIMIT) == value
                sending.join().wait(LIMIT)
            assert parked(ch) == (0, 0)
    assert drained(ch) == list(range(20, 24))


def test_a_value_that_cannot_cross_is_refused_and_nothing_else_is_lost():
    ch, refused = weft.Channel(50), weft.Channel(1)
    with weft.Group() as group:
        group.spawn(kin.gives_what_cannot_cross, ch, refused, on="process")
    assert "value[1] cannot go to another place" in refused.recv_nowait()
    assert drained(ch) == [0, 1, 3]


def test_small_values_large_ones_and_ends_stay_in_order():
    ch, parcels = weft.Channel(1000), weft.Channel()
    with weft.Group() as group:
        group.spawn(kin.gives_all_sorts, ch, parcels, on="process")
        for number in range(50):
            assert ch.recv().wait(LIMIT) == list(range(number + 1))
            assert bytes(ch.recv().wait(LIMIT)) == bytes(number * 400)
            assert type(ch.recv().wait(LIMIT)) is weft.Channel


@pytest.mark.parametrize("function", [kin.passes_on, kin.passes_on_soon])
@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("capacity", [2, 64])
def test_many_parties_of_many_processes_receive_each_value_once_and_in_order(function, places, capacity):
    number = 1000
    ch, onward = weft.Channel(capacity), weft.Channel(capacity)
    with weft.Group() as group:
        with ch.receiver() as rx, onward.sender() as tx:
            for _ in range(places):
                group.spawn(function, rx.clone(), tx.clone(), 3, on="process")

        @group.spawn
        def feed():
            with ch.sender() as feeding:
                for value in range(number):
                    feeding.send(value).wait()

        with onward.receiver() as results:
            passed = list(results)
    assert sorted(value for _, value in passed) == list(range(number))
    if capacity == 64 and places == 1 and function is kin.passes_on_soon:
        assert len({who for who, _ in passed}) > 1


@pytest.mark.parametrize("number", [1, 2, 7, 500])
def test_what_was_sent_before_the_last_end_closed_is_received_before_the_end(number):
    ch = weft.Channel(64)
    with weft.Group() as group:
        with ch.sender() as tx:
            group.spawn(kin.gives_and_closes, tx.clone(), number, on="process")
        with ch.receiver() as rx:
            assert list(rx) == list(range(number))


def test_a_look_without_waiting_finds_what_is_there():
    ch, answers = filled(10, 6), weft.Channel(20)
    with weft.Group() as group:
        group.spawn(kin.tries, ch.receiver(), answers, on="process")
    assert drained(answers) == [0, 1, 2, 3, 4, 5, None]


def test_poison_takes_back_what_a_process_had_not_taken():
    dropped = []
    ch, taken = weft.Channel(100, on_undelivered=dropped.append), weft.Channel()
    for value in range(10):
        ch.send_nowait(value)
    with weft.Group() as group:
        group.spawn(kin.takes, ch, 3, taken, on="process")
        taken.recv().wait(LIMIT)
        ch.poison()
        until(lambda: len(dropped) == 7)
        assert ch.statistics().dropped == 7
        group.cancel()
    assert dropped == [3, 4, 5, 6, 7, 8, 9]


FORKED = """
import asyncio, gc, os, sys, threading, warnings
import weft

warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # with threads of a link

sys.path.insert(0, {path!r})
import kin


async def main():
    ch, taken, go = weft.Channel(8), weft.Channel(8), weft.Channel()
    loop = asyncio.get_running_loop()
    mine = loop.create_task(take(ch))
    await asyncio.sleep(0)  # it is parked, and the first
    async with weft.Group() as group:
        group.spawn(kin.takes_each, ch.receiver(), go.receiver(), taken, on="process")
        ch.send_nowait("mine")  # and is met; this loop has no turn before it was forked
        for n in range(6):
            ch.send_nowait(n)
        elsewhere(go.send(None))
        assert elsewhere(taken.recv()) == 0  # and the others are lent
        pid = os.fork()
        if pid == 0:
            try:
                loop._ready.clear()  # what has to go back when a loop is closed goes back now
                gc.collect()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        for n in range(1, 6):
            elsewhere(go.send(None))
            assert elsewhere(taken.recv()) == n
        go.close()
    assert await mine == "mine"


async def take(ch):
    return await ch.recv()


def elsewhere(op):
    # In a thread: the loop is to have no turn.
    result = []
    thread = threading.Thread(target=lambda: result.append(op.wait(20)))
    thread.start()
    thread.join()
    return result[0]


if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_forked_child_gives_nothing_back_of_what_its_parent_has_lent(python):
    """Its copy of a channel is nobody's, but the words of the leases are its parent's."""
    python(FORKED.replace("{path!r}", repr(str(Path(__file__).parent))))
