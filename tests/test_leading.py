"""Threads that read a link to another process themselves while they wait: nothing else is late or lost because of it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import kin
import pytest
import weft
from places import source
from worlds import IN_PYTHON, LIMIT

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has linked processes"),
    pytest.mark.skipif(IN_PYTHON, reason="processes need the extension"),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="processes are linked by Unix sockets"),
]


@pytest.fixture(scope="module")
def pool():
    with weft.Pool(2, on="process") as pool:
        yield pool
        pool.cancel()


@pytest.fixture(params=[0, 0.001], ids=["sleeping", "spinning"])
def spinning(request):
    """For how long this thread spins."""
    weft.lowlevel.spin(request.param)
    yield request.param
    weft.lowlevel.spin(0)


@pytest.fixture
def echoes(pool, spinning):
    """Pairs of channels, of each of which another process returns what it gets; two processes in turn."""
    pairs = [(weft.Channel(number % 3), weft.Channel(number % 3)) for number in range(6)]
    with weft.Group() as group:
        for number, (there, back) in enumerate(pairs):
            pool.spawn(kin.echo, there.receiver(), back.sender(), worker=number % 2)
        yield [(group.spawn, there.sender(), back.receiver()) for there, back in pairs]
        for there, _ in pairs:
            there.close()


def test_all_who_wait_are_served_whoever_reads(echoes, spinning):
    """Each waits for its own: now and then the one that reads is not the one that is answered."""
    processes = []
    for number, (spawn, there, back) in enumerate(echoes):

        def talk(seed=number, there=there, back=back):
            weft.lowlevel.spin(spinning)
            dice = random.Random(seed)
            for value in range(300):
                there.send(value).wait(LIMIT)
                if dice.random() < 0.05:
                    time.sleep(dice.random() / 500)
                assert back.recv().wait(LIMIT) == value
            return value

        processes.append(spawn(talk))
    assert [process.join().wait(LIMIT) for process in processes] == [299] * len(echoes)


def test_a_wait_with_a_limit_ends_and_what_comes_later_is_received(echoes):
    (_, there, back), (_, _, silent) = echoes[:2]
    for value in range(50):
        there.send(value).wait(LIMIT)
        assert back.recv().wait(LIMIT) == value
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            silent.recv().wait(0.002)
        assert time.monotonic() - began >= 0.002


def test_a_group_that_is_cancelled_ends_a_wait(echoes):
    (_, there, back), _ = echoes[:2]
    for value in range(20):
        with weft.Group() as group:
            waiting = group.spawn(lambda: back.recv().wait(LIMIT))
            there.send(value).wait(LIMIT)
            assert waiting.join().wait(LIMIT) == value
            waiting = group.spawn(lambda: back.recv().wait(LIMIT))
            time.sleep(random.Random(value).random() / 500)
            group.cancel()
        assert waiting.cancelled()
    there.send("still here").wait(LIMIT)
    assert back.recv().wait(LIMIT) == "still here"


def test_a_local_channel_wakes_a_select_with_one_of_another_process(echoes):
    local, (_, there, back) = weft.Channel(), echoes[0]
    for value in range(50):
        threading.Timer(0.001, lambda value=value: local.send(value).wait(LIMIT)).start()
        assert weft.select(back.recv(), local.recv()).wait(LIMIT) == (1, value)
        there.send(value).wait(LIMIT)
        assert weft.select(back.recv(), local.recv()).wait(LIMIT) == (0, value)


def test_a_signal_interrupts_a_wait_and_the_link_goes_on():
    program = source(
        """
        import os, signal
        there, back = weft.Channel(1), weft.Channel(1)
        with weft.Group() as group:
            group.spawn(kin.echo, there.receiver(), back.sender(), on="process")
            with there.sender() as tx, back.receiver() as rx:
                for value in range(20):
                    tx.send(value).wait()
                    assert rx.recv().wait() == value
                print("waiting", flush=True)
                try:
                    rx.recv().wait()
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                tx.send(20).wait()
                print(rx.recv().wait(), flush=True)
        """,
        "kin",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=LIMIT)[0] == "interrupted\n20\n"
    finally:
        process.kill()


def test_a_thread_that_reads_is_told_of_a_death(spinning):
    with pytest.raises(BaseExceptionGroup) as failed, weft.Group() as group:
        ch, started = weft.Channel(1), weft.Channel(1)
        group.spawn(kin.pours, ch.sender(), started, on="process")
        pid = started.recv().wait(LIMIT)
        for value in range(20):
            assert ch.recv().wait(LIMIT) == value
        threading.Timer(0.01, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(weft.PeerDied):
            while True:
                ch.recv().wait(LIMIT)
    assert failed.group_contains(weft.PeerDied)


def test_who_has_waited_again_and_again_and_then_does_something_else_keeps_nobody_waiting(echoes):
    """What comes for others is left to who was so quick to come back, for a moment only."""
    (_, there, back), (_, elsewhere, answers) = echoes[0], echoes[2]  # of one process
    heard = []
    for value in range(50):
        for again in range(20):
            there.send(again).wait(LIMIT)
            assert back.recv().wait(LIMIT) == again

        def ask(value=value):
            elsewhere.send(value).wait(LIMIT)
            heard.append(answers.recv().wait(LIMIT))

        other = threading.Thread(target=ask)
        other.start()
        until = time.monotonic() + LIMIT
        while len(heard) == value and time.monotonic() < until:
            pass  # computes
        other.join()
    assert heard == list(range(50))


def test_parties_of_one_child_are_all_served(pool):
    """The same in another process, which has one link."""
    there, back = weft.Channel(), weft.Channel()
    with weft.Group() as group:
        for _ in range(5):
            pool.spawn(kin.echo, there.receiver(), back.sender(), worker=0)

        @group.spawn
        def feed():
            with there.sender() as tx:
                for value in range(500):
                    tx.send(value).wait(LIMIT)

        with back.receiver() as rx:
            assert sorted(rx) == list(range(500))
