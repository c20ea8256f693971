"""What workers of all kinds do with jobs: threads, interpreters and processes."""

import contextvars
import multiprocessing
import os
import subprocess
import sys

import abroad
import freight
import pytest
import weft
from weft import _interpreter, _os_process
from worlds import LIMIT

ALL = ("thread", "interpreter", "process")
REASONS = {
    "thread": None,
    "interpreter": _interpreter.reason_against(),
    "process": _os_process.reason_against(),
}


def there(kind):
    reason = REASONS[kind]
    return pytest.param(kind, marks=pytest.mark.skipif(reason is not None, reason=f"no {kind}: {reason}"))


every = pytest.mark.parametrize("kind", [there(kind) for kind in ALL])
elsewhere = pytest.mark.parametrize("kind", [there(kind) for kind in ALL[1:]])


@elsewhere
def test_in_a_cancelled_group_no_worker_starts(kind):
    with weft.Group() as group:
        group.cancel()
        process = group.spawn(abroad.park, on=kind)
    assert process.cancelled()
    assert process._worker is None


@every
@pytest.mark.parametrize("function", ["park", "park_soon"])
def test_a_job_that_is_cancelled_before_its_first_step_counts_as_cancelled(kind, function):
    with weft.Pool(2, on=kind) as pool:
        processes = [pool.spawn(getattr(abroad, function)) for _ in range(20)]
        for process in processes:
            process.cancel()
    assert all(process.cancelled() for process in processes)


@elsewhere
@pytest.mark.parametrize("function", ["gives_what_is_refused", "raises_what_is_refused"])
def test_an_outcome_that_cannot_be_made_here_fails_its_process_alone(kind, function):
    with weft.Pool(1, on=kind) as pool:
        other = pool.spawn(abroad.double, 21)
        assert other.join().wait(LIMIT) == 42
        with pytest.raises(ExceptionGroup) as failed, weft.Group() as group:
            group.spawn(getattr(abroad, function), on=kind)
        (error,) = failed.value.exceptions
        assert isinstance(error, weft.RemoteError)
        assert isinstance(error.__cause__, LookupError)
        assert pool.spawn(abroad.double, 21).join().wait(LIMIT) == 42


@elsewhere
def test_a_pool_is_ended_by_an_outcome_that_cannot_be_made_here_with_its_name(kind):
    with pytest.raises(ExceptionGroup) as failed, weft.Pool(1, on=kind) as pool:
        pool.spawn(abroad.gives_what_is_refused_soon, name="refuser")
    (error,) = failed.value.exceptions
    assert "refuser" in str(failed.value) and "could not be made again here" in str(error)


@elsewhere
def test_a_map_ends_with_the_error_when_a_result_cannot_be_made_here(kind):
    with weft.Pool(1, on=kind) as pool:
        mapping = pool.map(abroad.gives_what_is_refused_soon, range(100))
        with pytest.raises(LookupError):
            list(mapping)
        assert mapping.taken < 100


@elsewhere
def test_arguments_that_cannot_be_made_there_fail_their_process_alone(kind):
    with weft.Pool(1, on=kind) as pool:
        with pytest.raises(ExceptionGroup) as failed, weft.Group() as group:
            group.spawn(abroad.double, freight.Refuses(), on=kind)
        (error,) = failed.value.exceptions
        assert isinstance(error, LookupError)
        assert pool.spawn(abroad.double, 21).join().wait(LIMIT) == 42


@pytest.mark.parametrize("kind", ["interpreter", "process", "pool"])
def test_a_context_cannot_go_to_another_place(kind):
    with weft.Group() as group, pytest.raises(ValueError, match=f"on='{kind}'.*own place"):
        group.spawn(abroad.double, 21, on=kind, context=contextvars.copy_context())


def test_a_thread_worker_is_given_the_objects_themselves():
    value = object()
    with weft.Pool(1, on="thread") as pool:
        assert pool.spawn(list, [value]).join().wait(LIMIT) == [value]


@pytest.mark.skipif(REASONS["process"] is not None or not hasattr(os, "fork"), reason="no processes, or no fork")
def test_a_process_forked_from_one_with_links_is_told_that_it_cannot_start_others():
    program = """
import os, weft, abroad
with weft.Group() as group:
    process = group.spawn(abroad.double, 21, on="process")
assert process.result() == 42
if os.fork() == 0:
    try:
        with weft.Group() as group:
            group.spawn(abroad.double, 21, on="process")
    except ExceptionGroup as failed:
        (error,) = failed.exceptions
        print(error, flush=True)
    ch = weft.Channel(1)
    ch.send(1).wait()
    print(ch.recv().wait(), flush=True)
    os._exit(0)
assert os.wait()[1] == 0
"""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(abroad.__file__), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    first, second = done.stdout.splitlines()
    assert "forked from one that has started some" in first
    assert second == "1"


@pytest.mark.skipif(REASONS["process"] is not None, reason="no processes")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_process_of_multiprocessing_starts_processes_like_any_other(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing, sys
import abroad, weft

def main(n):
    ch = weft.Channel()
    with weft.Group() as group:
        process = group.spawn(abroad.double, n, on="process")
        group.spawn(abroad.in_thread, abroad.sending, ch, "v", on="process")
        assert ch.recv().wait({LIMIT}) == "v"
    sys.exit(process.result())

if __name__ == "__main__":
    weft.Channel(1).send(1).wait()
    process = multiprocessing.get_context({method!r}).Process(target=main, args=(21,))
    process.start()
    process.join()
    print(process.exitcode)
""")
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(abroad.__file__)}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
