"""Processes of the system that other places start: processes, and interpreters. They are started by the program's first process,
and belong to who asked for them.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import kin
import pytest
import weft
from places import LINUX, source, spin, text_of
from test_os_processes import causes, failure_of, is_gone
from weft import _interpreter, _os_process
from worlds import IN_PYTHON, LIMIT, until

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has linked processes"),
    pytest.mark.skipif(IN_PYTHON, reason="processes need the extension"),
    pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="processes are linked by Unix sockets"),
]

NO_INTERPRETERS = pytest.mark.skipif(_interpreter.reason_against() is not None, reason="no interpreters here")
PLACES = ["process", pytest.param("interpreter", marks=NO_INTERPRETERS)]


def only_result(function, *args, on):
    with weft.Group() as group:
        return group.spawn(function, *args, on=on).join().wait(LIMIT)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("function", [kin.spawns, kin.spawns_soon])
def test_a_process_is_started_from_there(place, function):
    (pid, parent, _), spawner = only_result(function, "process", kin.who, on=place)
    assert parent == os.getpid() != pid and spawner != pid
    assert (spawner == os.getpid()) == (place == "interpreter")


@NO_INTERPRETERS
def test_an_interpreter_is_started_in_a_process_and_a_process_from_that():
    ((pid, *_), inner), outer = only_result(kin.spawns, "interpreter", kin.spawns, "process", kin.who, on="process")
    assert inner == outer != os.getpid() and pid not in (inner, os.getpid())


def test_processes_are_started_four_deep():
    found = only_result(kin.spawns, "process", kin.spawns, "process", kin.spawns, "process", kin.who, on="process")
    pids = []
    while isinstance(found[0], tuple):
        found, pid = found
        pids.append(pid)
    assert len({*pids, found[0], os.getpid()}) == 5


@pytest.mark.parametrize("place", PLACES)
def test_a_pool_of_processes_is_had_there(place):
    assert only_result(kin.maps, 2, list(range(20)), on=place) == ([n * n for n in range(20)], 2)


def test_run_has_workers_there():
    assert only_result(kin.runs_workers, [1, 2, 3], on="process") == [1, 4, 9]


def test_it_has_the_folder_and_the_environment_and_the_path_of_who_asked():
    folder = os.getcwd()
    assert only_result(kin.leaves_something_to_inherit, on="process") == ("/", "inherited", "/weft/test")
    assert os.getcwd() == folder and "WEFT_TEST" not in os.environ


@pytest.mark.parametrize("place", PLACES)
def test_one_that_cannot_be_started_fails_with_the_reason(place):
    error = failure_of(kin.cannot_start_one, on=place)
    assert type(error) is weft.RemoteError and "FileNotFoundError" in text_of(error)


@pytest.mark.parametrize("place", PLACES)
def test_ends_are_passed_on_to_it(place):
    jobs, results = weft.Channel(), weft.Channel(3)
    with weft.Group() as group:
        group.spawn(kin.between, "process", kin.echo, jobs.receiver(), results.sender(), on=place)
        with jobs.sender() as tx:
            for value in (1, "two", [3]):
                tx.send(value).wait(LIMIT)
                assert results.recv().wait(LIMIT) == value
    assert results.closed and jobs.statistics().receivers == 0


@pytest.mark.parametrize(
    "place, exitcode",
    [
        ("process", 7),
        ("process", -signal.SIGKILL),
        pytest.param("interpreter", 0, marks=NO_INTERPRETERS),
    ],
)
def test_who_started_it_is_told_of_its_death(place, exitcode):
    pid, errors = only_result(kin.is_told_of_a_death, exitcode, weft.Channel(), on=place)
    assert set(errors) == {(pid, exitcode)}
    assert is_gone(pid)


def test_its_error_comes_up_with_its_traceback():
    error = failure_of(kin.between, "process", kin.boom, "far below", on="process")
    assert type(error).__name__ == "Boom" and error.args == ("far below",)
    assert any("in boom" in str(part) for part in causes(error))


@pytest.mark.parametrize(
    "function, place",
    [pytest.param(kin.until_cancelled, "interpreter", marks=NO_INTERPRETERS), (kin.until_cancelled_soon, "process")],
)
def test_a_cancel_goes_down_to_it(function, place):
    started, told = weft.Channel(1), weft.Channel(1)
    with weft.Group() as group:
        process = group.spawn(kin.between, "process", function, started, told, on=place)
        pid = started.recv().wait(LIMIT)
        process.cancel()
        assert told.recv().wait(LIMIT) == "cancelled"
    assert process.cancelled()
    spin(lambda: is_gone(pid), "it ends")


@LINUX
@pytest.mark.parametrize("function", ["waits", "waits_soon", pytest.param("computes", marks=pytest.mark.slow)])
def test_it_ends_with_who_asked_for_it_and_leaves_nothing(function):
    memory, before = set(os.listdir("/dev/shm")), (len(_os_process._peers), threading.active_count())
    own, given, started = weft.Channel(), weft.Channel(), weft.Channel(2)
    with contextlib.suppress(ExceptionGroup), weft.Group() as group:
        ends = own.sender(), given.sender()
        middle = group.spawn(kin.holds_below, "process", function, ends, started, on="process")
        for end in ends:
            end.close()
        pids = []
        try:
            pids += [started.recv().wait(LIMIT), started.recv().wait(LIMIT)]
            assert len(_os_process._peers) == before[0] + 2
            os.kill(pids[0], signal.SIGKILL)
            until(lambda: middle.done)
            with pytest.raises(weft.PeerDied) as died:
                middle.result()
            assert (died.value.pid, died.value.exitcode) == (pids[0], -signal.SIGKILL)
            spin(lambda: is_gone(pids[1]), "it ends")
        finally:
            for pid in pids:
                if not is_gone(pid):  # what computes would not end with the group
                    os.kill(pid, signal.SIGKILL)
    spin(lambda: own.closed and given.closed, "its ends are closed")
    spin(lambda: (len(_os_process._peers), threading.active_count()) <= before, "its threads here end")
    assert set(os.listdir("/dev/shm")) <= memory


def test_a_snapshot_there_lists_it():
    found = only_result(kin.snapshot_of_below, weft.Channel(1), on="process")
    assert "(process)" in found[0] and "(thread)" in found[1]


def test_a_forked_child_of_a_process_starts_none_and_says_so():
    assert "this process was forked" in only_result(kin.forks, on="process")


@NO_INTERPRETERS
@pytest.mark.parametrize("on", PLACES)
def test_an_interpreter_that_has_listened_and_has_idle_ones_of_its_own_ends_without_a_word(on):
    program = source(
        f"""
        with weft.Group() as group:
            print(group.spawn(kin.hears_of_what_is_dropped_elsewhere, "interpreter", on={on!r}).join().wait({LIMIT}))
        """,
        "kin",
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * LIMIT)
    assert (ended.stdout, ended.stderr) == ("[1]\n", "")
