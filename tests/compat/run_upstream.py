"""The originals' own tests, unmodified, against what weft has in their place: `make compat`. The first three are those of
the look-alikes in `weft.compat`, the last those of the tasks that processes are in an asyncio loop.

    queue     CPython's test.test_queue, of the interpreter that runs this
    asyncio   CPython's test.test_asyncio.test_queues, of the interpreter that runs this
    janus     the tests in janus' source archive, which pip downloads into a temporary folder
    tasks     what CPython's test.test_asyncio.test_tasks has for each kind of asyncio.Task

Only the names that a test module sees are other ones while it is loaded: `queue`, `asyncio.Queue`, `janus`.

What cannot pass stands in EXCLUDED with its reason. It is run all the same: an excluded test that passes is an error,
as is one that does not exist, so the list stays honest. The exit status is 0 when all is as it should be, 1 when
something failed, 2 when a suite could not be run.
"""

from __future__ import annotations

import argparse
import contextvars
import faulthandler
import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import types
import unittest
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

HANG = 300  # seconds a suite may take before every thread's stack is shown and all ends
JANUS = "janus==2.0.0"

# Coroutines that block the thread of the loop they run in, which weft refuses (law L11). They do not need that loop: they
# are run a second time without one, and have to pass there.
BLOCKING = [
    "test_sync.py::TestQueue::test_queue_join",
    "test_sync.py::TestQueue::test_simple_queue",
    "test_sync.py::TestLifoQueue::test_queue_join",
    "test_sync.py::TestLifoQueue::test_simple_queue",
    "test_sync.py::TestPriorityQueue::test_queue_join",
    "test_sync.py::TestPriorityQueue::test_simple_queue",
    "test_sync.py::TestFailingQueue::test_failing_queue",
]

# Which tests of a suite cannot pass, and why. Of CPython's not every version has each.
EXCLUDED = {
    "queue": {
        "test.test_queue.CSimpleQueueTest.test_simplequeue_sizeof": "it counts the bytes of the one in C",
    },
    "asyncio": {},
    "janus": {
        "test_mixed.py::TestMixedMode::test_get_loop_ok": "a queue here belongs to no loop: it has no `_loop`",
        "test_mixed.py::TestMixedMode::test_get_loop_different_loop": "a second loop is welcome, not an error",
        **dict.fromkeys(BLOCKING, "it blocks a running loop, which weft refuses (law L11); without a loop it passes"),
    },
    "tasks": {
        "test_context_4": "a process runs in a copy of the context it was given: `Group.spawn(context=)`",
        "test_get_context": "the same",
        "test_error_in_call_soon": "it begins in weft's own queue, which gets over a `call_soon` that fails",
        "test_log_destroyed_pending_task": "where it was made is kept in debug mode, and there processes are asyncio's own tasks",
        "test_task_source_traceback": "the same",
        "test_log_traceback": "no error is left to be logged: its group raises it",
        "test_set_exception_causes_invalid_state": "it calls the method of asyncio.Future's own type on the task",
        "test_set_result_causes_invalid_state": "the same",
        "test_eager_start_true_no_loop": "a process does not begin within the call that spawns it",
        "test_gather_discards_awaited_by_for_pending": "asyncio's call graphs are of its own tasks alone",
        "test_gather_discards_awaited_by_for_cancelled_sibling": "the same",
        "test_task_disallow_multiple_initialization": "it has no `__init__` that could do anything",
    },
}


class Missing(Exception):
    """A suite is not there to be run."""


class Results:
    """What became of each test: "passed", "failed" or "skipped", with the reason for the latter two."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.details: dict[str, str] = {}

    def add(self, name: str, outcome: str, detail: str = "") -> None:
        if self.outcomes.get(name) != "failed":  # of a test in parts, or its teardown, one failure is enough
            self.outcomes[name], self.details[name] = outcome, detail


def print_report(suite: str, results: Results) -> bool:
    """Print the counts, the excluded tests, and whatever is wrong. Returns whether nothing is."""
    excluded = EXCLUDED[suite]
    counts = Counter(outcome for name, outcome in results.outcomes.items() if name not in excluded)
    print(
        f"{suite}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, "
        f"{len(excluded)} excluded"
    )
    for name, reason in excluded.items():
        print(f"  excluded {name}: {reason}")
    for name, outcome in results.outcomes.items():
        if outcome == "skipped":
            print(f"  skipped  {name}: {results.details[name]}")
    wrong = [
        f"FAILED {name}\n{results.details[name]}"
        for name, outcome in results.outcomes.items()
        if outcome == "failed" and name not in excluded
    ]
    for name in excluded:
        outcome = results.outcomes.get(name)
        if outcome is None:
            wrong.append(f"NO LONGER THERE {name}: take it out of EXCLUDED")
        elif outcome != "failed":
            wrong.append(f"EXCLUDED, BUT IT {outcome.upper()} {name}: take it out of EXCLUDED")
    if not counts["passed"]:
        wrong.append(f"NOTHING RAN in {suite}")
    for line in wrong:
        print(line)
    return not wrong


# --- CPython's --------------------------------------------------------------------------------------------------------


class Recorder(unittest.TestResult):
    """Writes down what became of each test."""

    def __init__(self, results: Results) -> None:
        super().__init__()
        self.results = results

    def addSuccess(self, test):
        self.results.add(test.id(), "passed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.results.add(test.id(), "failed", self.failures[-1][1])

    def addError(self, test, error):
        super().addError(test, error)
        self.results.add(test.id(), "failed", self.errors[-1][1])

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.results.add(test.id(), "failed", f"{subtest}: {error[1]!r}")

    def addSkip(self, test, reason):
        self.results.add(test.id(), "skipped", reason)


def exclude_only(suite: str, is_there: Callable[[str], bool]) -> None:
    EXCLUDED[suite] = {name: why for name, why in EXCLUDED[suite].items() if is_there(name)}


def run_module(module: types.ModuleType) -> Results:
    results = Results()
    unittest.defaultTestLoader.loadTestsFromModule(module).run(Recorder(results))
    return results


def look_alike(name: str, original: types.ModuleType, **names: object) -> types.ModuleType:
    """A module that is as `original`, but for some names."""
    module = types.ModuleType(name)
    module.__dict__.update({key: value for key, value in vars(original).items() if key != "__name__"} | names)
    return module


def load(name: str) -> types.ModuleType:
    """Import a test module of the interpreter's."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name and error.name.partition(".")[0] == "test":
            raise Missing(f"this interpreter has no {name}: it was installed without its tests") from None
        raise


def run_queue() -> Results:
    support = load("test.support.import_helper")
    from weft.compat import queue

    # It loads `queue` twice, with and without the part in C, which has a SimpleQueue of its own. Here both are one.
    replacement = look_alike("queue", queue, _PySimpleQueue=queue.SimpleQueue)
    with mock.patch.object(support, "import_fresh_module", lambda name, **_: {"queue": replacement}[name]):
        module = load("test.test_queue")
    assert module.py_queue is module.c_queue is replacement
    exclude_only("queue", lambda name: hasattr(module.CSimpleQueueTest, name.rpartition(".")[2]))
    return run_module(module)


def run_asyncio() -> Results:
    import asyncio
    import unittest.async_case  # it needs the real one  # noqa: F401

    from weft.compat import asyncio_queues

    names = {name: getattr(asyncio_queues, name) for name in asyncio_queues.__all__}
    load("test.support")
    with mock.patch.dict(sys.modules, asyncio=look_alike("asyncio", asyncio, **names)):
        module = load("test.test_asyncio.test_queues")
    assert module.asyncio.Queue is asyncio_queues.Queue is not asyncio.Queue
    return run_module(module)


def run_tasks() -> Results:
    import asyncio

    import weft._weft

    tests = load("test.test_asyncio.test_tasks")
    numbers = itertools.count(1)

    class Owner:
        def _on_done(self, task):
            pass

    class Kind(type):
        """What the tests call to make a task, and compare with its type."""

        def __call__(cls, coro, *, loop=None, name=None, context=None, eager_start=False):
            if not asyncio.iscoroutine(coro):
                raise TypeError(f"a coroutine was expected, got {coro!r}")
            loop = loop or asyncio.get_running_loop()
            name = f"Task-{next(numbers)}" if name is None else str(name)
            context = contextvars.copy_context() if context is None else context
            return contextvars.Context.run(context, weft._weft.Task, coro, loop, name, Owner())

        def __instancecheck__(cls, instance):
            return isinstance(instance, weft._weft.Task)

        def __getitem__(cls, item):
            return types.GenericAlias(cls, item)

    class Task(metaclass=Kind):
        pass

    class Tasks(tests.BaseTaskTests, tests.SetMethodsTest, tests.test_utils.TestCase):
        Future = asyncio.Future

    Tasks.Task = Task
    Tasks.current_task = staticmethod(asyncio.current_task)  # the tests of 3.14 and later ask for it here
    exclude_only("tasks", lambda name: hasattr(Tasks, name))
    results = Results()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Tasks)
    suite.run(Recorder(results))
    for kept in (results.outcomes, results.details):
        for name in list(kept):
            kept[name.rpartition(".")[2]] = kept.pop(name)
    return results


# --- janus' -----------------------------------------------------------------------------------------------------------


def run_janus() -> Results:
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        for command in (
            [*pip, "download", "--no-deps", "--no-binary", ":all:", "--dest", folder, JANUS],
            # Into that folder, or it would join in when weft's own tests are run. What it needs is there: pytest.
            [*pip, "install", "--no-deps", "--target", f"{folder}/packages", "pytest-asyncio>=1"],
        ):
            if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
                raise Missing(f"pip could not get {command[-1]}")
        (archive,) = Path(folder).glob("janus-*.tar.gz")
        shutil.unpack_archive(archive, folder, filter="data")
        (tests,) = Path(folder).glob("janus-*/tests")

        import weft.compat.janus

        results = Results()

        class Plugin:
            outside = ""

            @pytest.fixture
            def benchmark(self):
                """Its benchmarks check what they move about: once is enough for that."""
                return lambda function: function()

            def pytest_runtest_logreport(self, report):
                name = report.nodeid.rpartition("/")[2] + self.outside
                if report.skipped:
                    results.add(name, "skipped", report.longrepr[2])
                elif report.failed or report.when == "call":
                    results.add(name, report.outcome, report.longreprtext)

        class WithoutLoop(Plugin):
            outside = ", without a loop"

            def pytest_pyfunc_call(self, pyfuncitem):
                for _ in pyfuncitem.obj().__await__():
                    pass  # it only ever gives way to others, and there are none
                return True

        # What its own settings for pytest ask for, less the measuring of coverage.
        options = ["-c", os.devnull, "--rootdir", tests, "-p", "no:cacheprovider", "-p", "no:terminal", "-W", "error"]
        options += ["-W", "ignore:unclosed event loop:ResourceWarning"]
        options += ["-W", "ignore:unclosed <socket.socket:ResourceWarning"]
        runs = {
            Plugin(): [
                "-p",
                "pytest_asyncio.plugin",
                "-o",
                "asyncio_mode=strict",
                "-o",
                "asyncio_default_fixture_loop_scope=function",
                tests,
            ],
            WithoutLoop(): ["-o", "markers=asyncio", *(f"{tests}/{name}" for name in BLOCKING)],
        }
        with (
            mock.patch.object(sys, "path", [*sys.path, f"{folder}/packages"]),
            mock.patch.dict(sys.modules, janus=weft.compat.janus),
            mock.patch.dict(os.environ, PYTEST_ADDOPTS="", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        ):
            for plugin, arguments in runs.items():
                status = pytest.main([*map(str, options + arguments)], plugins=[plugin])
                if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                    raise Missing(f"pytest could not run the tests of {JANUS}: {status!r}")
        return results


SUITES = {"queue": run_queue, "asyncio": run_asyncio, "janus": run_janus, "tasks": run_tasks}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"{', '.join(SUITES)}; all of them if none is named")
    suites = parser.parse_args().suites or list(SUITES)
    if unknown := set(suites) - set(SUITES):
        parser.error(f"there is no suite {', '.join(sorted(unknown))}")
    status = 0
    for suite in suites:
        faulthandler.dump_traceback_later(HANG, exit=True)
        try:
            good = print_report(suite, SUITES[suite]())
        except Missing as missing:
            print(f"{suite}: not run: {missing}")
            status = max(status, 2)
        else:
            status = status if good else 1
        sys.stdout.flush()
    return status


if __name__ == "__main__":
    # Not sys.exit: a test that failed half-way leaves threads behind that wait for ever.
    status = main()
    sys.stderr.flush()
    os._exit(status)
