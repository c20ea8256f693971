"""The surface of counted ends: `sender()`, `receiver()`, `split()`, `clone()`, `close()`."""

import asyncio
import gc
import threading

import pytest
import weft
from worlds import parked, perform, until_parked


def test_split_gives_one_sender_and_one_receiver():
    ch = weft.Channel(2)
    tx, rx = ch.split()
    assert isinstance(tx, weft.Sender) and isinstance(rx, weft.Receiver)
    s = ch.statistics()
    assert (s.senders, s.receivers) == (1, 1)
    tx.send("v").wait()
    assert rx.recv().wait() == "v"


def test_an_end_has_only_its_own_direction():
    tx, rx = weft.Channel(2).split()
    for name in ("recv", "recv_nowait", "recv_many", "__iter__", "__aiter__"):
        assert not hasattr(tx, name), name
        assert hasattr(rx, name), name
    for name in ("send", "send_nowait", "send_many"):
        assert not hasattr(rx, name), name
        assert hasattr(tx, name), name


def test_an_end_does_all_its_channel_does_in_that_direction(run):
    tx, rx = weft.Channel(4).split()
    tx.send_nowait(1)
    assert tx.send_many([2, 3]).wait() == 2
    assert rx.recv_nowait() == 1
    assert rx.recv_many(5).wait() == [2, 3]
    assert weft.select(tx.send(4), weft.never()).wait() == (0, None)
    assert weft.select(rx.recv(), weft.never()).wait() == (0, 4)
    tx.send_nowait(5)
    tx.close()
    assert list(rx) == [5]

    async def main():
        tx, rx = weft.Channel(4).split()
        async with tx:
            await tx.send("v")
        return [v async for v in rx]

    assert run(main) == ["v"]


def test_ends_are_counted():
    ch = weft.Channel(2)
    ends = [ch.sender(), ch.sender()]
    ends.append(ends[0].clone())
    assert ch.statistics().senders == 3
    ends.pop().close()
    ends.pop().close()
    assert ch.statistics().senders == 1 and not ch.closed
    ends.pop().close()
    assert ch.statistics().senders == 0 and ch.closed


def test_closing_an_end_twice_counts_once():
    ch = weft.Channel(2)
    one, two = ch.sender(), ch.sender()
    one.close()
    one.close()
    assert not ch.closed and ch.statistics().senders == 1
    rx, other = ch.receiver(), ch.receiver()
    rx.close()
    rx.close()
    assert not ch.closed and ch.statistics().receivers == 1
    two.close(), other.close()


def test_an_end_that_was_closed_and_then_collected_counts_once():
    ch = weft.Channel(2)
    one, two = ch.sender(), ch.sender()
    one.close()
    del one
    gc.collect()
    assert ch.statistics().senders == 1
    two.close()


def test_an_end_that_is_garbage_collected_counts_as_closed():
    ch = weft.Channel(2)
    tx = ch.sender()
    tx.send_nowait("v")
    del tx
    gc.collect()
    assert ch.closed and list(ch) == ["v"]


def test_leaving_with_closes_the_end(run):
    ch = weft.Channel(2)
    with ch.sender() as tx, ch.receiver() as rx:
        tx.send_nowait("v")
        assert rx.recv_nowait() == "v"
    s = ch.statistics()
    assert (s.senders, s.receivers) == (0, 0)

    async def main():
        ch = weft.Channel(2)
        async with ch.sender() as tx, ch.receiver() as rx:
            await tx.send("v")
            assert await rx.recv() == "v"
        assert ch.closed

    run(main)


def test_using_an_end_after_its_close_raises_closed_when_performed_not_when_made():
    ch = weft.Channel(2)
    keep_tx, keep_rx = ch.split()
    tx, rx = keep_tx.clone(), keep_rx.clone()
    tx.close()
    rx.close()
    send, recv = tx.send("v"), rx.recv()
    with pytest.raises(weft.Closed) as caught:
        send.wait(0)
    assert caught.value.value == "v"
    with pytest.raises(weft.Closed):
        recv.wait(0)
    for op in (tx.send_many([1]), rx.recv_many(2)):
        with pytest.raises(weft.Closed):
            op.wait(0)
    with pytest.raises(weft.Closed):
        tx.send_nowait("v")
    with pytest.raises(weft.Closed):
        rx.recv_nowait()
    assert not ch.closed
    keep_tx.send_nowait("the others go on")
    assert keep_rx.recv_nowait() == "the others go on"


def test_a_select_over_a_closed_end_names_the_case():
    ch = weft.Channel()
    keep = ch.receiver()
    rx = keep.clone()
    rx.close()
    with pytest.raises(weft.Closed) as caught:
        weft.select(weft.never(), mine=rx.recv()).wait()
    assert caught.value.case == "mine"


def test_clone_on_a_closed_end_raises_closed():
    tx, rx = weft.Channel().split()
    tx.close()
    rx.close()
    for end in (tx, rx):
        with pytest.raises(weft.Closed):
            end.clone()


def test_the_last_sender_closes_with_the_first_cause_a_sender_gave():
    ch = weft.Channel(2)
    one, two, three = ch.sender(), ch.sender(), ch.sender()
    first = KeyError("first")
    ch.send_nowait("v")
    one.close()
    two.close(first)
    assert not ch.closed
    three.close(KeyError("later"))
    assert ch.recv_nowait() == "v"
    with pytest.raises(KeyError) as caught:
        ch.recv_nowait()
    assert caught.value is first


def test_the_last_receiver_leaves_parked_senders_their_values(world):
    ch = weft.Channel()
    rx = ch.receiver()
    party = world.start(perform, ch.send("v"))
    until_parked(ch, senders=1)
    rx.close()
    error = party.failure()
    assert type(error) is weft.NoReceivers and error.value == "v"
    assert parked(ch) == (0, 0) and ch.statistics().dropped == 0


def test_no_receivers_is_a_closed_and_a_receiver_made_later_gets_it_too():
    ch = weft.Channel(2)
    ch.receiver().close()
    with pytest.raises(weft.NoReceivers):
        ch.send("v").wait(0)
    assert issubclass(weft.NoReceivers, weft.Closed)
    with pytest.raises(weft.Closed):
        ch.recv().wait(0)


def test_a_select_learns_that_the_last_receiver_left(world):
    ch, other = weft.Channel(), weft.Channel()
    rx = ch.receiver()
    party = world.start(perform, weft.select(other.recv(), push=ch.send("v")))
    until_parked(ch, senders=1)
    rx.close()
    error = party.failure()
    assert type(error) is weft.NoReceivers and error.case == "push" and error.value == "v"
    assert parked(other) == (0, 0)


def test_an_end_moves_between_threads(pair):
    here, there = pair
    tx, rx = weft.Channel().split()

    def produce(tx):
        for n in range(5):
            yield tx.send(n)
        tx.close()

    def consume(rx):
        got = []
        try:
            while True:
                got.append((yield rx.recv()))
        except weft.Closed:
            return got

    parties = here.start(produce, tx), there.start(consume, rx)
    parties[0].join()
    assert parties[1].join() == list(range(5))


def test_ends_counted_from_many_threads_add_up():
    ch = weft.Channel()
    keep = ch.sender()

    def clone_and_close():
        for _ in range(300):
            keep.clone().close()
            keep.clone()

    threads = [threading.Thread(target=clone_and_close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert ch.statistics().senders == 1 and not ch.closed
    keep.close()
    assert ch.closed


def test_the_readmes_fan_in_closes_by_itself(run):
    """Each worker closes its own clone; nobody has to know who is the last."""

    async def worker(n, out):
        async with out:
            for k in range(3):
                await out.send((n, k))

    async def main():
        tx, rx = weft.Channel().split()
        tasks = [asyncio.create_task(worker(n, tx.clone())) for n in range(3)]
        tx.close()
        got = [v async for v in rx]
        await asyncio.gather(*tasks)
        return got

    got = run(main)
    assert sorted(got) == [(n, k) for n in range(3) for k in range(3)]
    for n in range(3):
        assert [k for m, k in got if m == n] == [0, 1, 2]


def test_ends_can_be_served_by_selecting():
    ch = weft.Channel(4)
    tx, rx = ch.split()
    tx.send_nowait("v")
    tx.close()
    assert list(weft.selecting(it=rx)) == [("it", "v")]
