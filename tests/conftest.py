"""Fixtures all tests share. A test that hangs is ended by pytest-timeout (pyproject.toml); `worlds.until` fails long before."""

from __future__ import annotations

import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
import worlds

# Tests, and what is asserted for them, in files that are not called `test_`: say what was compared when it fails.
pytest.register_assert_rewrite("laws_between", "places")

# What a shell starts in the background ignores Ctrl-C, and so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = [name for name in worlds.SINGLES if not worlds.missing(name)]


def pytest_report_header():
    missing = {name: worlds.missing(name) for name in worlds.SINGLES if name not in HERE}
    return f"worlds: {', '.join(HERE)}" + "".join(f"; not {name}: {reason}" for name, reason in missing.items())


def pytest_generate_tests(metafunc):
    """`pair`: each ordered pair of worlds (sender's, receiver's). `world`: each world.

    `cancelling`: each world in which a party can be cancelled. `looped`: each event loop with asyncio's tasks.
    `loop_run`: each kind of asyncio's loops. `arun`: these, and trio.
    """
    for fixture, names in {
        "pair": worlds.pairs([name for name in worlds.WORLDS if name in HERE]),
        "world": worlds.WORLDS,
        "cancelling": worlds.CANCELLING,
        "looped": [*worlds.LOOPS, *worlds.PURE],
        "loop_run": worlds.LOOPS,
        "arun": [*worlds.LOOPS, "trio"],
    }.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [name for name in names if fixture == "pair" or name in HERE], indirect=True)


def pytest_collection_finish():
    """Many tests collect garbage. Leave what pytest itself has made out of it, or each time takes a tenth of a second."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy's collector has generations of its own
        gc.freeze()


@pytest.fixture
def pair(request):
    yield from _open(*worlds.make_pair(request.param))


@pytest.fixture
def world(request):
    world = worlds.make_world(request.param)
    for opened, _ in _open(world, world):
        yield opened


cancelling = looped = world


def _open(a, b):
    opened = []
    try:
        for world in dict.fromkeys((a, b)):
            world.open()
            opened.append(world)
        yield a, b
    finally:
        for world in reversed(opened):
            world.close()


@pytest.fixture
def run():
    """Run a coroutine function in a fresh asyncio loop, with a limit."""

    return worlds.run_in_asyncio


@pytest.fixture
def loop_run(request):
    """Run a coroutine function in a fresh loop of each kind, with a limit; `arun`: in trio as well."""
    if request.param == "trio":
        return worlds.run_in_trio
    return functools.partial(worlds.run_in_asyncio, loop_factory=worlds.loop_factory(request.param))


arun = loop_run


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """The collections that tests ask for do not walk all that libraries and earlier modules have made."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy's collector has no such thing
        gc.freeze()
    yield
    if hasattr(gc, "unfreeze"):
        gc.unfreeze()


@pytest.fixture
def no_gc():
    """Reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def pipe():
    """The two ends of one, as descriptors that do not block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def sockets():
    """Two that are connected."""
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture
def python():
    """Run a program in a new interpreter; its output. For what would freeze, or change, this one."""

    def python(program, *options, limit=worlds.LIMIT):
        ended = subprocess.run(
            [sys.executable, "-W", "error", *options, "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=limit,
        )
        assert ended.returncode == 0, f"exit status {ended.returncode}\n{ended.stderr}"
        return ended.stdout

    return python
