"""Builds of CPython without the GIL: weft does not bring it back, and keeps its promises when threads really run at once.

The race below is worth running everywhere: with the GIL it still switches threads between any two instructions.
"""

import asyncio
import random
import sys
import sysconfig
import threading
from collections import Counter

import pytest
import weft
from worlds import LIMIT, needs

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
free_threaded = pytest.mark.skipif(
    not FREE, reason="this build of CPython has a GIL: there is nothing to leave disabled"
)


@free_threaded
def test_importing_leaves_the_gil_disabled(python):
    out = python(
        """
        import sys
        before = sys._is_gil_enabled()
        import weft
        weft.Channel(1).send_nowait(1)
        print(before, sys._is_gil_enabled())
        """
    )
    assert out == "False False\n"


@free_threaded
def test_the_gil_is_disabled_here():
    """Or the rest of this file proves less than it says."""
    assert not sys._is_gil_enabled()


@pytest.fixture
def switching():
    """Where there is a GIL, let go of it as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*parties):
    """Run them at once, each in a thread; the first error of any is raised."""
    errors, start = [], threading.Barrier(len(parties))

    def run(party):
        start.wait()
        try:
            party()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(party,), daemon=True) for party in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT * 3)
        assert not thread.is_alive(), "a party hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_many_senders_and_receivers_race_for_one_channel(capacity, switching):
    ch = weft.Channel(capacity)
    got = [[] for _ in range(3)]
    tx = ch.sender()

    def sends(n, tx):
        def party():
            with tx:
                for k in range(1500):
                    tx.send((n, k)).wait()

        return party

    def receives(mine):
        return lambda: mine.extend(ch)

    parties = [sends(n, tx.clone()) for n in range(3)] + [receives(mine) for mine in got]
    tx.close()
    together(*parties)
    assert Counter(value for mine in got for value in mine) == Counter((n, k) for n in range(3) for k in range(1500))
    for mine in got:
        for n in range(3):
            ks = [k for sender, k in mine if sender == n]
            assert ks == sorted(ks), "one sender's values arrive in order"


def test_facing_selects_race(switching):
    a, b = weft.Channel(), weft.Channel()
    taken, given = [[] for _ in range(4)], [[] for _ in range(4)]

    def party(n):
        def run():
            for k in range(600):
                value = (n, k)
                try:
                    case, got = weft.select(a.send(value), b.recv(), b.send(value), a.recv()).wait(0.2)
                except TimeoutError:
                    return  # the others are done
                if case in (0, 2):
                    given[n].append(value)
                else:
                    taken[n].append(got)

        return run

    together(*(party(n) for n in range(4)))
    assert Counter(v for mine in taken for v in mine) == Counter(v for mine in given for v in mine)


def test_one_operation_is_performed_once_however_many_try(switching):
    for _ in range(200):
        ch = weft.Channel(8)
        op = ch.send("once")
        results = []

        def attempt(op=op, results=results):
            try:
                op.wait(1)
            except RuntimeError:
                results.append("refused")
            else:
                results.append("sent")

        together(attempt, attempt, attempt)
        assert sorted(results) == ["refused", "refused", "sent"]
        assert len(ch) == 1


def test_closing_poisoning_and_ends_race_with_everything(switching):
    for n in range(60):
        dropped = []
        ch = weft.Channel(n % 3, on_undelivered=dropped.append)
        given, taken, kept = [], [], []

        def sends(ch=ch, given=given, kept=kept):
            for k in range(40):
                try:
                    ch.send(k).wait()
                    given.append(k)
                except weft.Closed as error:
                    kept.append(error.value)

        def receives(ch=ch, taken=taken):
            try:
                for value in ch:
                    taken.append(value)
            except weft.Poisoned:
                pass

        def ends(ch=ch, n=n):
            for _ in range(random.randrange(5)):
                ch.statistics(), len(ch), repr(ch), ch.closed
            ch.close() if n % 2 else ch.poison()

        together(sends, receives, ends)
        while True:
            try:
                taken.append(ch.recv_nowait())
            except weft.Closed:
                break
        assert sorted(given) == sorted(taken + dropped)
        assert sorted(given + kept) == list(range(40))


def test_a_standing_select_races_with_its_own_changes(switching):
    """Many threads feed the channels of one `selecting`, another adds and discards cases, one takes."""
    stays = [weft.Channel(1) for _ in range(3)]
    comes_and_goes = weft.Channel(1)
    ready = weft.selecting(*stays)
    taken = []

    def feeds(ch, n):
        def run():
            for k in range(300):
                ch.send((n, k)).wait()
            ch.close()

        return run

    def changes():
        for _ in range(200):
            ready.add("guest", comes_and_goes)
            ready.discard("guest")

    def takes():
        for _, value in ready:
            taken.append(value)

    together(takes, changes, *(feeds(ch, n) for n, ch in enumerate(stays)))
    assert sorted(taken) == [(n, k) for n in range(3) for k in range(300)]


def test_loops_in_many_threads_share_everything(switching):
    ch, back, barrier, event = weft.Channel(), weft.Channel(3), weft.Barrier(3), weft.Event()
    got = []

    async def party(n):
        await barrier.sync()
        for k in range(150):
            if n == 0:
                await weft.select(ch.send(k), weft.after(60))
                got.append(await back.recv())
            elif n == 1:
                case, value = await weft.select(ch.recv(), weft.never(), weft.after(60))
                await back.send(value)
        if n == 0:
            event.set()
        await event.wait()

    together(*(lambda n=n: asyncio.run(party(n)) for n in range(3)))
    assert got == list(range(150))


def test_two_discards_of_one_case_are_as_good_as_one(switching):
    for _ in range(300):
        ready = weft.selecting(a=weft.Channel(1))
        together(*(lambda ready=ready: ready.discard("a") for _ in range(3)))
        assert len(ready) == 0
        ready.add("a", weft.Channel(1))


def test_of_two_threads_that_add_one_case_one_is_told_that_it_is_there(switching):
    for _ in range(300):
        ready, results = weft.selecting(), []

        def add(ready=ready, results=results):
            try:
                ready.add("a", weft.Channel(1))
            except ValueError:
                results.append("there already")
            else:
                results.append("added")

        together(add, add, add)
        assert sorted(results) == ["added", "there already", "there already"]
        assert len(ready) == 1


def test_a_standing_select_that_only_looks_is_not_woken_later_by_whom_it_met(switching):
    """Channels close while their consumer is between its first look and its sleep."""
    for n in range(400):
        channels = [weft.Channel(1) for _ in range(3)]
        last = weft.Channel(1)
        ready = weft.selecting(*channels, last)
        taken = []

        def takes(ready=ready, taken=taken):
            for _, value in ready:
                taken.append(value)

        def ends(channels=channels, last=last, n=n):
            for ch in channels:
                ch.close()
            last.send(n).wait()
            last.close()

        together(takes, ends)
        assert taken == [n]


def test_an_operation_that_several_threads_use_at_once_is_used_by_one(switching):
    """Performed, given to a select, and mapped: whoever comes first; the others are told, and nothing happens twice."""
    for _ in range(300):
        ch = weft.Channel(8)
        op = ch.send("once")
        done = []

        def attempt(use, done=done):
            try:
                use()
            except (RuntimeError, ValueError):
                pass
            else:
                done.append(use)

        def wait(op=op):
            op.wait(1)

        def select(op=op):
            weft.select(op).wait(1)

        def change(op=op):
            op.map(lambda value: value)

        together(*(lambda use=use: attempt(use) for use in (wait, select, change, wait)))
        performed = [use for use in done if use is not change]
        assert len(performed) <= 1
        assert len(ch) == len(performed)
        if not performed:  # each of them came while it was being mapped
            op.wait(1)


def test_a_snapshot_may_be_taken_while_operations_come_and_go(switching):
    stop = threading.Event()

    async def talk():
        a, b = weft.Channel(), weft.Channel()

        async def echo():
            async for value in a:
                await b.send(value)

        task = asyncio.ensure_future(echo())
        while not stop.is_set():
            await a.send(1)
            await weft.select(b.recv(), weft.after(60))
        a.close()
        await task

    def look():
        try:
            for _ in range(15):
                str(weft.snapshot())
        finally:
            stop.set()

    together(lambda: asyncio.run(talk()), lambda: asyncio.run(talk()), look)


@needs("the extension")
def test_a_channel_that_becomes_shared_while_threads_use_it_loses_nothing(switching):
    """What is put in after the look whether it is shared must be fit for other places all the same."""
    for n in range(60):
        ch = weft.Channel(n % 4)
        other = weft.Channel(1)
        taken = [[] for _ in range(3)]

        def sends(m, ch=ch, other=other):
            for k in range(0, 40, 2):
                ch.send([m, k]).wait()
                weft.select(ch.send([m, k + 1]), other.recv()).wait()

        def receives(mine, ch=ch, other=other):
            for k in range(40):
                if k % 2:
                    mine.append(ch.recv().wait())
                else:
                    mine.append(weft.select(ch.recv(), other.recv()).wait().value)

        def takes_turns(mine, ch=ch):
            ready = weft.selecting(ch)
            for _ in range(40):
                mine.append(next(ready).value)

        def share(ch=ch):
            weft._weft._share(ch)

        together(
            *(lambda m=m, sends=sends: sends(m) for m in range(3)),
            lambda receives=receives, taken=taken: receives(taken[0]),
            lambda receives=receives, taken=taken: receives(taken[1]),
            lambda takes_turns=takes_turns, taken=taken: takes_turns(taken[2]),
            share,
            share,
        )
        got = sorted(tuple(value) for mine in taken for value in mine)
        assert got == sorted((m, k) for m in range(3) for k in range(40))


def test_schedulers_that_threads_add_at_once_are_all_there(python):
    out = python(
        """
        import threading
        import weft
        from weft import lowlevel

        asked = set()

        def scheduler(n):
            def identify():
                asked.add(n)

            return identify

        def adds(n):
            start.wait()
            for k in range(5):
                lowlevel.add_scheduler(scheduler((n, k)), wait=lambda op, timeout: None)
                weft.Channel(1).send(1).wait()

        start = threading.Barrier(8)
        threads = [threading.Thread(target=adds, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            weft.Channel().recv().wait(0.001)
        except TimeoutError:
            pass
        print(len(asked))
        """
    )
    assert out == "40\n"
