"""The laws with the two parties in different places: one here, in each scheduler that a channel may be used from, and one
in another interpreter. What the laws mean exactly: docs/design/laws.md.

`sides` is (sender's side, receiver's side): one of them is here, the other one there, a blocked thread or a task. What a
party there performs is in `abroad.py`, and what is tested just so with processes of the system in `laws_between.py`.
Another place is one more name in PLACES.
"""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import abroad
import freight
import laws_between
import pytest
import weft
import worlds
from laws_between import *  # noqa: F403
from places import DRIVERS, LINUX, Resident, at_home, failure_of, source, wakings
from worlds import IN_PYTHON, LIMIT, parked, until, until_parked

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has interpreters of their own"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with Python 3.12"),
    pytest.mark.skipif(IN_PYTHON, reason="interpreters need the extension"),
]

PLACES = ["interpreter"]
HERE = ["threads", "asyncio", "processes", "trio", "gevent"]


class There:
    """Parties in another place, each performed by a thread, or by a task in a loop of its own."""

    def __init__(self, place, kind, group):
        self.place, self.kind, self.group = place, kind, group

    def start(self, script, *args):
        process = self.group.spawn(DRIVERS[self.kind], script, *args, on=self.place)
        return Resident(process)


@contextlib.contextmanager
def abroad_group():
    """A group for parties there. What the test has left in it is cancelled."""
    with weft.Group() as group:
        try:
            yield group
        finally:
            group.cancel()


def _known(names):
    return [name for name in names if not worlds.missing(name)]


@pytest.fixture(params=[f"{place}:{kind}" for place in PLACES for kind in DRIVERS])
def there(request):
    with abroad_group() as group:
        yield There(*request.param.split(":"), group)


@pytest.fixture(params=PLACES)
def place(request):
    return request.param


@pytest.fixture(params=_known(HERE))
def here(request):
    with at_home(request.param) as world:
        yield world


@pytest.fixture(params=["out", "in"])
def sides(request, here, there):
    return (here, there) if request.param == "out" else (there, here)


# --- L2 Order -------------------------------------------------------------------------------------------------------


def test_l2_parked_receivers_are_served_first_come_first_served(here, there):
    laws_between.parked_receivers_are_served_in_order(here, there)


@pytest.mark.parametrize("capacity", [0, 2])
def test_l2_parked_senders_are_served_first_come_first_served(here, there, capacity):
    laws_between.parked_senders_are_served_in_order(here, there, capacity)


@pytest.mark.parametrize(
    "overflow, kept", [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])], ids=["drop_oldest", "drop_newest"]
)
def test_l2_an_overflow_policy_is_the_same_from_there(there, overflow, kept):
    lost = []
    ch = weft.Channel(2, overflow=overflow, on_undelivered=lost.append)
    there.start(abroad.sending, ch, *range(5)).join()
    assert [ch.recv_nowait(), ch.recv_nowait()] == kept
    assert ch.statistics().dropped == 3
    for n in range(3):
        ch.send_nowait(n)
    until(lambda: len(lost) == 4)  # three of there, and one of here


# --- L3 Conservation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 3])
def test_l3_a_storm_of_timeouts_and_cancels_loses_nothing(here, there, capacity):
    laws_between.storm_loses_nothing(here, there, capacity)


# --- L4 Commit wins -------------------------------------------------------------------------------------------------


def test_l4_a_party_cancelled_when_met_from_there_but_not_yet_resumed_completes(here, there):
    if not here.cancels:
        pytest.skip("nobody can cancel a plain thread")
    laws_between.cancelled_when_met_completes(here, there)


def test_l4_a_wait_that_ran_out_of_time_has_done_nothing(there):
    ch = weft.Channel()
    ready = there.start(abroad.receiving, ch, 0)
    ready.join()
    for op in (ch.send([1]), ch.recv(), weft.select(ch.send(1), ch.recv())):
        with pytest.raises(TimeoutError):
            op.wait(0.001)
    assert parked(ch) == (0, 0) and ch.statistics().sent == 0


# --- L7 Close, L8 Poison --------------------------------------------------------------------------------------------


def test_l7_parked_receivers_are_told_at_once(sides):
    assert "abroad.py" in str(laws_between.told_of_close(*sides))


def test_l7_a_reason_that_holds_channels_is_made_for_each_who_is_told(sides):
    one, two = sides
    ch, other = weft.Channel(), weft.Channel(1, name="other")
    reason = freight.Boom("see the other one")
    reason.instead, reason.memory = other.sender(), memoryview(bytearray(1 << 15))
    one.start(abroad.closing, ch, reason).join()
    del reason
    for side in (one, two, one):
        error = side.start(abroad.receiving, ch, 1).failure()
        assert type(error) is freight.Boom
        error.instead.send_nowait(1)
        assert other.recv_nowait() == 1


def test_l8_poison_tells_a_parked_sender_at_once(sides):
    one, two = sides
    assert laws_between.told_of_poison(one, two, abroad.sending, ["mine"]).value == ["mine"]


def test_l8_poison_tells_a_parked_receiver_at_once(sides):
    one, two = sides
    laws_between.told_of_poison(two, one, abroad.receiving, 1)


# --- L9 Ends --------------------------------------------------------------------------------------------------------


def given(side, script, end, *args):
    """A party that has an end, which is nobody else's any more."""
    party = side.start(script, end, *args)
    if isinstance(side, There):
        end.close()
    return party


def test_l9_the_last_sender_gone_closes_wherever_it_was(sides):
    one, two = sides
    ch = weft.Channel(5)
    rx = given(two, abroad.draining, ch.receiver())
    given(one, abroad.sending, ch.sender(), 1, 2).join()
    assert rx.join() == [1, 2]
    assert ch.closed and ch.statistics().senders == 0


def test_l9_the_last_receiver_gone_tells_senders_at_once(sides):
    one, two = sides
    ch = weft.Channel()
    rx = given(two, abroad.receiving, ch.receiver(), 1)
    tx = one.start(abroad.sending, ch, "taken", "left over")
    assert rx.join() == ["taken"]
    error = tx.failure()
    assert type(error) is weft.NoReceivers and error.value == "left over"


# --- L10 Progress ---------------------------------------------------------------------------------------------------


@LINUX
def test_l10_nobody_wakes_while_all_are_parked():
    """Threads, tasks and selects here and there, and the thread that listens: counted are the times that any thread of
    the process but this one has gone to sleep again."""
    with abroad_group() as group, at_home("trio" if not worlds.missing("trio") else "threads") as home:
        ch, back = weft.Channel(), weft.Channel()
        parties = [group.spawn(driver, abroad.receiving, ch, 1, on="interpreter") for driver in DRIVERS.values()]
        parties.append(group.spawn(abroad.in_task, abroad.registered, {"a": ch}, 1, on="interpreter"))
        home.start(abroad.receiving, ch, 1)
        threads = worlds.Threads()
        for _ in range(2):
            threads.start(abroad.choosing, "random", ("recv", back), ("recv", ch))
        until(lambda: parked(ch)[1] == 6)
        slept = wakings("self")
        ch.close()
        back.close()
        assert slept <= 3, "somebody polls"


# --- L12 Structure --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [abroad.double, abroad.double_soon])
def test_l12_a_process_there_has_a_result_and_a_name(place, function):
    laws_between.a_process_has_a_result_and_a_name(function, place)


def test_l12_a_process_there_may_use_executors(place):
    with weft.Group() as group:
        process = group.spawn(abroad.uses_executors, 21, on=place)
    assert process.result() == 42


def test_l12_it_is_another_interpreter_of_this_process(place):
    with weft.Group() as group:
        process = group.spawn(abroad.who_am_i, on=place, name="my thread")
    assert process.result() == (os.getpid(), "my thread")
    with weft.Group() as group:
        assert group.spawn(id, None, on=place).join().wait(LIMIT) == id(None)
        assert group.spawn(freight.keep, 1, on=place).join().wait(LIMIT) is None
    assert freight.kept == []


def test_l12_a_group_in_a_loop_has_processes_there_too(place, arun):
    async def main():
        ch = weft.Channel()
        async with weft.Group() as group:
            process = group.spawn(abroad.sum_of, ch.receiver(), on=place)
            soon = group.spawn(abroad.sum_of_soon, ch.receiver(), on=place)
            with ch.sender() as tx:
                for n in range(10):
                    await tx.send(n)
            assert await process.join() + await soon.join() == 45

    arun(main)


def test_l12_interpreters_spawn_interpreters(place):
    with weft.Group() as group:
        process = group.spawn(abroad.spawns_there, 5, on=place)
    assert process.result() == 10


def test_l12_a_failure_two_places_away_comes_with_its_text(place):
    error = failure_of(abroad.spawns_boom, on=place)
    assert type(error) is LookupError and error.args == ("two away",)
    assert "in boom" in str(error.__cause__)


def test_l12_many_processes_there_at_once(place):
    with weft.Group() as group:
        processes = [group.spawn(abroad.double, n, on=place) for n in range(8)]
    assert [process.result() for process in processes] == [2 * n for n in range(8)]


# --- a channel on its first journey ---------------------------------------------------------------------------------


def test_what_is_buffered_travels_with_the_channel(there):
    ch = weft.Channel(5)
    shared = [1]
    for value in ("a", shared, shared, {"end": weft.Channel(name="inner")}):
        ch.send_nowait(value)
    a, one, two, inner = there.start(abroad.receiving, ch, 4).join()
    assert (a, one, two) == ("a", [1], [1]) and inner["end"].name == "inner"


def test_parties_parked_before_the_journey_are_met_from_there(here, there):
    for script, there_script, args, expected in [
        (abroad.receiving, abroad.sending, ("v",), ["v"]),
        (abroad.receiving_many, abroad.sending, ("v",), ["v"]),
    ]:
        ch = weft.Channel()
        party = here.start(script, ch, 1)
        until_parked(ch, receivers=1)
        there.start(there_script, ch, *args).join()
        assert party.join() == expected
    ch = weft.Channel()
    party = here.start(abroad.sending, ch, ["v"])
    until_parked(ch, senders=1)
    assert there.start(abroad.receiving, ch, 1).join() == [["v"]]
    party.join()
    ch = weft.Channel(1)
    ch.send_nowait(0)
    party = here.start(abroad.sending_many, ch, [1, 2])
    until_parked(ch, senders=1)
    assert there.start(abroad.receiving, ch, 2).join() == [0, 1]
    assert party.join() in (1, 2)


def test_selects_parked_before_the_journey_are_met_from_there(here, there):
    a, b = weft.Channel(), weft.Channel()
    party = here.start(abroad.choosing, "random", ("recv", a), ("send", b, ["offered"]))
    until_parked(b, senders=1)
    assert there.start(abroad.receiving, b, 1).join() == [["offered"]]
    assert party.join() == (1, None) and parked(a) == (0, 0)
    a = weft.Channel()
    party = here.start(abroad.choosing, "random", ("recv", a), ("recv", b))
    until_parked(a, receivers=1)
    there.start(abroad.sending, a, "v").join()
    assert party.join() == (0, "v")


def test_selectings_parked_before_the_journey_are_met_from_there(here, there):
    channels = {name: weft.Channel() for name in "ab"}
    party = here.start(abroad.registered, channels, 3)
    until(lambda: all(parked(ch)[1] for ch in channels.values()))
    there.start(abroad.sending, channels["b"], 1, 2).join()
    there.start(abroad.sending, channels["a"], 3).join()
    assert party.join() == [("b", 1), ("b", 2), ("a", 3)]


def test_a_party_parked_before_the_journey_is_told_of_the_end(here, there):
    ch = weft.Channel()
    party = here.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    there.start(abroad.closing, ch, freight.Boom("the end")).join()
    assert type(party.failure()) is freight.Boom


def test_a_party_parked_before_the_journey_can_be_cancelled(here, there):
    if not here.cancels:
        pytest.skip("nobody can cancel a plain thread")
    ch = weft.Channel()
    party = here.start(abroad.receiving, ch, 1)
    until_parked(ch, receivers=1)
    there.start(abroad.receiving, ch, 0).join()
    party.cancel()
    until(lambda: party.done)
    assert parked(ch) == (0, 0)


@pytest.mark.parametrize("how", ["buffered", "parked"])
def test_a_journey_refused_by_what_the_channel_holds_leaves_it_as_it_was(place, how):
    ch = weft.Channel(3 if how == "buffered" else 0)
    unfit = freight.Unfit()
    with weft.Group() as group, at_home("threads") as threads:
        values = [["fit"], unfit, "last"]
        if how == "buffered":
            for value in values:
                ch.send_nowait(value)
        else:
            parties = []
            for n, value in enumerate(values):
                parties.append(threads.start(abroad.sending, ch, value))
                until_parked(ch, senders=n + 1)
        before = ch.statistics()
        with pytest.raises(TypeError, match="cannot go to another place"):
            group.spawn(abroad.draining, ch, on=place)
        assert ch.statistics() == before
        assert [ch.recv_nowait() for _ in range(3)] == values
        if how == "parked":
            for party in parties:
                party.join()
        # Now it goes.
        process = group.spawn(abroad.in_thread, abroad.receiving, ch, 1, on=place)
        ch.send("now").wait(LIMIT)
    assert process.result() == (True, ["now"])


def test_a_channel_that_never_travelled_still_passes_objects_as_they_are(there):
    there.start(abroad.receiving, weft.Channel(), 0).join()
    ch, thing = weft.Channel(1), object()
    ch.send_nowait(thing)
    assert ch.recv_nowait() is thing


# --- the ends of interpreters and of the program --------------------------------------------------------------------


def run(folder, text, *, status=0, limit=LIMIT * 3, options=("-W", "error"), send=None):
    """Runs a program from a file of its own. Nothing is said but by `print`."""
    file = folder / "program.py"
    file.write_text(source(text, "abroad", "freight", "os", "sys", "threading", "time"))
    ended = subprocess.Popen(
        [sys.executable, *options, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if send is not None:
            assert ended.stdout.readline() == "ready\n"
            ended.send_signal(send)
        out, problems = ended.communicate(timeout=limit)
    finally:
        ended.kill()
        ended.wait()
    assert ended.returncode == status, f"exit status {ended.returncode}\n{problems}"
    return out, problems


def test_a_program_ends_with_idle_interpreters(tmp_path):
    out, problems = run(
        tmp_path,
        """
        with weft.Group() as group:
            processes = [group.spawn(abroad.double, n, on="interpreter") for n in range(4)]
        print(sum(process.result() for process in processes))
        """,
    )
    assert (out, problems) == ("12\n", "")


def test_a_program_ends_with_its_own_status_and_idle_interpreters(tmp_path):
    run(
        tmp_path,
        """
        with weft.Group() as group:
            group.spawn(abroad.double, 1, on="interpreter")
        sys.exit(7)
        """,
        status=7,
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python 3.12 crashes as it ends when asyncio was used elsewhere")
def test_interpreters_end_with_all_sorts_of_things_left_in_them(tmp_path):
    """Parked tasks in a loop that was never closed, full channels, ends, lent memory, and the program goes on with the
    other sides of them."""
    out, problems = run(
        tmp_path,
        """
        for _ in range(8):
            ch, full = weft.Channel(), weft.Channel(9)
            with weft.Group() as group:
                for _ in range(4):
                    group.spawn(abroad.leaves_things, ch, full, on="interpreter")
            got = []
            while True:
                try:
                    got.append(full.recv_nowait())
                except weft.WouldBlock:
                    break
            assert len(got) == 8, len(got)
            del got
            ch.close()
        print("ended")
        """,
        options=(),
    )
    assert out == "ended\n"
    assert "Traceback" not in problems and "Fatal" not in problems, problems


def test_values_outlive_the_interpreter_they_come_from(tmp_path):
    out, problems = run(
        tmp_path,
        """
        from weft import _workers
        ch, kept = weft.Channel(9), weft.Channel()
        with weft.Group() as group:
            group.spawn(freight.keep, kept.receiver(), on="interpreter")
            group.spawn(abroad.in_thread, abroad.sending, ch, b"x" * 100_000, memoryview(bytearray(b"y" * 100_000)), [1],
                        on="interpreter")
        _workers._end_all()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and "listening" not in thread.name:
                thread.join()
        big, view, rest = ch.recv().wait(), ch.recv().wait(), ch.recv().wait()
        assert big == b"x" * 100_000 and bytes(view) == b"y" * 100_000 and rest == [1]
        view[0] = 1
        del big, view
        print(kept.statistics().receivers)
        """,
    )
    assert (out, problems) == ("0\n", "")


@pytest.mark.parametrize("function", ["park", "park_soon"])
def test_ctrl_c_ends_a_program_that_waits_for_what_is_parked_there(tmp_path, function):
    out, problems = run(
        tmp_path,
        f"""
        started = weft.Channel()
        with weft.Group() as group:
            process = group.spawn(abroad.{function}, on="interpreter")
            print("ready", flush=True)
        """,
        status=-signal.SIGINT,
        send=signal.SIGINT,
    )
    assert "KeyboardInterrupt" in problems


@pytest.fixture
def sound_fork(tmp_path):
    """CPython 3.13 aborts in the child when any other interpreter is alive. Nothing is learned there."""
    program = """if True:
        import os
        try:
            import _interpreters
            _interpreters.create("isolated")
        except ImportError:
            import _xxsubinterpreters
            _xxsubinterpreters.create()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    if subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=LIMIT).returncode:
        pytest.skip("this CPython cannot fork beside other interpreters")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python 3.12 cannot fork beside other interpreters")
def test_a_child_made_by_fork_has_interpreters_of_its_own_or_says_so(tmp_path, sound_fork):
    out, problems = run(
        tmp_path,
        """
        with weft.Group() as group:
            group.spawn(abroad.double, 1, on="interpreter")
        ch = weft.Channel()
        with weft.Group() as group:
            group.spawn(abroad.in_thread, abroad.receiving, ch, 1, on="interpreter")
            while not ch.statistics().parked_receivers:
                time.sleep(0.001)
            pid = os.fork()
            if pid == 0:
                try:
                    ch.send_nowait(1)
                except weft.ForkedChannelError:
                    print("told", flush=True)
                finally:
                    os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            ch.send(1).wait(20)
        print("parent")
        """,
        options=(),
    )
    assert out == "told\nparent\n"


def test_functions_of_the_programs_own_file_are_found_there(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        textwrap.dedent(
            """
            import weft

            class Thing:
                def __init__(self, n):
                    self.n = n

            def double(thing):
                return Thing(2 * thing.n)

            if __name__ == "__main__":
                with weft.Group() as group:
                    process = group.spawn(double, Thing(4), on="interpreter")
                thing = process.result()
                assert type(thing) is Thing, type(thing)
                print(thing.n)
            """
        )
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(file)], capture_output=True, text=True, timeout=LIMIT * 3
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("8\n", "", 0)


def test_what_was_typed_in_is_refused_with_advice():
    program = """if True:
        import weft
        def typed(): pass
        with weft.Group() as group:
            try:
                group.spawn(typed, on="interpreter")
            except TypeError as error:
                print("put it in a file" in str(error))
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=LIMIT * 3
    )
    assert (ended.stdout, ended.stderr) == ("True\n", "")


# --- leaks ----------------------------------------------------------------------------------------------------------


def living():
    worlds.collect()
    kinds = {"Channel", "Sender", "Receiver", "Op", "Selecting", "_Memory", "InterpreterProcess", "_Home", "Task"}
    count = {}
    for thing in worlds.objects():
        if type(thing).__name__ in kinds:
            count[type(thing).__name__] = count.get(type(thing).__name__, 0) + 1
    return count


def leaves_nothing(work, rounds=20):
    for _ in range(3):
        work()
    before = living()
    for _ in range(rounds):
        work()
    after = {}
    try:
        until(lambda: after.update(living()) or all(after[kind] <= before.get(kind, 0) + 2 for kind in after))
    except AssertionError:
        raise AssertionError(f"{before} became {after} in {rounds} rounds") from None


def test_channels_ends_and_values_that_went_there_leave_nothing_here(here, there):
    def work():
        ch, back = weft.Channel(), weft.Channel(1)
        tx, rx = ch.split()
        one = here.start(abroad.sending, tx, [1], {"end": back.sender()}, memoryview(bytearray(1 << 15)))
        two = there.start(abroad.draining, rx)
        one.join()
        tx.close()
        rx.close()
        two.join()
        here.parties.clear()

    leaves_nothing(work)


@LINUX
def test_loops_that_were_woken_from_there_leave_no_descriptor_behind(there):
    def work():
        with at_home("asyncio") as loop:
            ch = weft.Channel()
            rx = loop.start(abroad.receiving, ch, 1)
            until_parked(ch, receivers=1)
            there.start(abroad.sending, ch, 1).join()
            assert rx.join() == [1]
        del loop, rx
        worlds.collect()

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    for _ in range(3):
        work()
    before = descriptors()
    for _ in range(10):
        work()
    until(lambda: descriptors() <= before)


def test_processes_there_leave_nothing_here(place):
    def work():
        with contextlib.suppress(ExceptionGroup), weft.Group() as group:
            process = group.spawn(abroad.double, bytes(100_000), on=place)
            process.join().wait(LIMIT)
            group.spawn(abroad.park, on=place).cancel()
            group.spawn(abroad.boom, "x", on=place)

    leaves_nothing(work)


@LINUX
def test_values_of_all_sizes_leave_no_memory_behind(place):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    ch, back = weft.Channel(), weft.Channel()
    with weft.Group() as group:
        group.spawn(abroad.in_thread, abroad.answering, ch.receiver(), back.sender(), on=place)
        rx = back.receiver()
        with ch.sender() as tx:

            def work():
                for value in (bytes(1 << 20), bytearray(1 << 20), [bytes(100)] * 1000, memoryview(bytearray(1 << 20))):
                    op = tx.send(value)
                    del value
                    op.wait(LIMIT)
                    rx.recv().wait(LIMIT)

            for _ in range(10):
                work()
            before = resident()
            for _ in range(60):
                work()
            grown = resident() - before
    assert grown < 30 << 20, f"{grown >> 20} MiB more after 60 rounds of 3 MiB"
