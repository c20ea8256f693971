"""Worlds: the places a party can live in, so that a law is written once and holds everywhere.

A party is a *script*: a generator that yields operations and is sent their results (or thrown their errors).

    def sender(ch):
        yield ch.send(1)

A world performs a script its own way: a task awaits each operation, a thread calls `.wait()` (what that is in detail,
`weft.testing` says, the kit for the schedulers of others). The test itself is a third party, plain code on the main
thread. It starts scripts, cancels them, joins them, and learns how far they are from `ch.statistics()`, never by
sleeping:

    tx = world.start(sender, ch)
    until_parked(ch, senders=1)

A loop world is *stepped* by the test (it runs only inside `until`), unless it lives `elsewhere`, in a thread of its own.
Stepping is what makes "committed, but not yet resumed" a state that a test can hold still and look at.

To add a scheduler: subclass `World`, give `start` and `close` (and `turn` when the test drives it), list it in WORLDS.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import importlib
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import weft
from abroad import draining as draining
from abroad import receiving as receiving
from abroad import sending as sending
from weft.testing import conformance
from weft.testing.conformance import PAUSE as PAUSE  # for the tests, as Within
from weft.testing.conformance import Script
from weft.testing.conformance import Within as Within

# Seconds after which a promise counts as broken; never waited for when the promise is kept.
LIMIT = float(os.environ.get("WEFT_TEST_LIMIT", "20"))

# Without the extension: weft in Python alone (weft._pure), on PyPy or with WEFT_PURE=1.
IN_PYTHON = isinstance(weft.Channel.send, FunctionType)

# References are counted: what is dropped is gone at once, not at the next collection.
COUNTED = sys.implementation.name == "cpython"

# What a cancelled party sees: the scheduler's own exception.
CANCELLED: tuple[type[BaseException], ...] = (asyncio.CancelledError, weft.Cancelled)

try:
    import trio
except ImportError:
    trio = None
else:
    CANCELLED += (trio.Cancelled,)
try:
    import anyio
except ImportError:
    anyio = None
try:
    import gevent
    import gevent.event
    import greenlet
except ImportError:
    gevent = None
else:
    CANCELLED += (greenlet.GreenletExit,)


def needs(what: str) -> pytest.MarkDecorator:
    """A mark for the few tests that ask for more than the laws promise: skipped where there is no such thing."""
    there, instead = {
        "counted references": (COUNTED, "what is dropped goes at the next collection"),
        "the extension": (not IN_PYTHON, "weft runs in Python alone"),
    }[what]
    return pytest.mark.skipif(not there, reason=f"needs {what}: here {instead}")


def collect() -> None:
    """All that was dropped is gone, and what only its finalizer held."""
    # On PyPy a finalizer keeps all it leads to until the next time: coroutine, task, loop and so on, one after the other.
    for _ in range(1 if COUNTED else 6):
        gc.collect()


def objects() -> list[object]:
    """What the collector knows, without what weft keeps of operations that have ended for the next ones."""
    return [thing for thing in gc.get_objects() if not is_kept(thing)]


def is_kept(thing: object) -> bool:
    return type(thing) is weft.Op and "kept for" in repr(thing)


def fewer(count: int) -> int:
    """How many rounds of a storm: Python alone is slower."""
    return count // 4 if IN_PYTHON else count


# --- the test's own side --------------------------------------------------------------------------------------------

_stepped: list[World] = []


def turn() -> None:
    """One turn for everybody: each stepped loop runs once, and other threads may have the interpreter."""
    for world in list(_stepped):
        world.turn()
    time.sleep(0 if _stepped else 0.0001)


def until(condition: Callable[[], Any], what: str | Callable[[], str] = "") -> None:
    """Take turns until `condition()` holds. Fails, rather than hangs, when it does not come to hold."""
    deadline = time.monotonic() + LIMIT
    turns = 0
    while not condition():
        turns += 1
        if turns % 100 == 0 and not COUNTED:
            collect()  # it may be a finalizer that is waited for
        if time.monotonic() > deadline:
            raise AssertionError(
                f"did not happen within {LIMIT:g} s: {what() if callable(what) else what or condition}"
            )
        turn()


def parked(ch) -> tuple[int, int]:
    """(senders, receivers) that wait on the channel now."""
    s = ch.statistics()
    return s.parked_senders, s.parked_receivers


def until_parked(ch, *, senders: int = 0, receivers: int = 0) -> None:
    want = (senders, receivers)
    try:
        until(lambda: parked(ch) == want)
    except AssertionError:
        raise AssertionError(f"wanted parked (senders, receivers) = {want}, it stays at {parked(ch)}") from None


def take_turns(count: int = 10) -> None:
    """Time for something that must *not* happen. Proves a negative only in stepped worlds, where nothing else runs."""
    for _ in range(count):
        turn()


def run_in_asyncio(main, *args, debug=None, limit=LIMIT, loop_factory=None) -> Any:
    """Run a coroutine function in a fresh loop, with a limit."""

    async def limited():
        async with asyncio.timeout(limit):
            return await main(*args)

    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(limited())


def run_in_trio(main, *args, **options) -> Any:
    """The same in a fresh run of trio."""

    async def limited():
        with trio.fail_after(LIMIT):
            return await main(*args)

    return trio.run(limited, **options)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop of that kind."""
    return SINGLES[name]().new_loop


# --- a script most tests need; the others are those that run in other places as well ---------------------------------


def perform(op) -> Script:
    return (yield op)


# --- parties --------------------------------------------------------------------------------------------------------


class Party(conformance.Party):
    """One script at work in one world."""

    def __init__(self, script: Script, world: World):
        super().__init__(script, world)
        self.task: Any = None  # the world's handle: a task, a thread, a weft process
        self._cancel: Callable[[], Any] | None = None
        self._is_gone: Callable[[], bool] = lambda: False

    @property
    def done(self) -> bool:
        if self.never_ran:
            self._ended = True
            self.error = asyncio.CancelledError()
        return self._ended

    def cancel(self) -> None:
        until(lambda: self.task is not None, "the party starts")
        self._cancel()

    def join(self) -> Any:
        """The script's result, or its error raised here."""
        until(lambda: self.done, f"{self} ends")
        if self.error is not None:
            raise self.error
        return self.value

    def failure(self) -> BaseException:
        """The error the script must have ended with."""
        until(lambda: self.done, f"{self} ends")
        assert self.error is not None, f"{self} should have failed, but returned {self.value!r}"
        return self.error


# --- worlds ---------------------------------------------------------------------------------------------------------


class World(ABC):
    """A place for parties. `cancels`: a party can be cancelled from outside. `loop`: its event loop, if it has one."""

    cancels = True
    cancelled = CANCELLED
    loop: Any = None

    def __init__(self, elsewhere: bool = False):
        self.elsewhere = elsewhere
        self.parties: list[Party] = []

    def open(self) -> None: ...  # noqa: B027  (threads have nothing to open)

    def turn(self) -> None: ...  # noqa: B027  (a world that runs by itself has nothing to do)

    @abstractmethod
    def start(self, script: Callable[..., Script], *args) -> Party: ...

    @abstractmethod
    def close(self) -> None:
        """End every party. One that cannot be ended is the test's failure."""

    def pause(self) -> Any:
        """Give the others a turn, from within a party. In a world of tasks an awaitable."""
        time.sleep(0)

    def is_gone(self, party: Party) -> bool:
        """Whether it has ended, though it may never have begun."""
        return party.task is not None and party._is_gone()

    def left(self) -> list[Party]:
        return [party for party in self.parties if not party.done]

    def cancel_all(self) -> None:
        for party in self.left():
            party.cancel()
        until(lambda: not self.left(), lambda: f"cancelled parties end; left: {self.left()}")

    def _party(self, script, args) -> Party:
        party = Party(script(*args), self)
        self.parties.append(party)
        return party


class Threads(World):
    """Plain threads. Nobody can cancel a plain thread: it can only run out of patience (`Within`)."""

    cancels = False

    def start(self, script, *args):
        party = self._party(script, args)
        party.task = threading.Thread(target=party.call, name=repr(party), daemon=True)
        party.task.start()
        return party

    def close(self):
        for party in self.left():
            party.task.join(0.2)
        assert not self.left(), f"the test left threads behind: {self.left()}"


class Asyncio(World):
    """Tasks in an asyncio loop. Two parties of one such world share the loop."""

    def pause(self):
        return asyncio.sleep(0)

    async def within(self, op, seconds):
        async with asyncio.timeout(seconds):
            return await op

    def new_loop(self):
        return asyncio.SelectorEventLoop()

    def open(self):
        self.loop = self.new_loop()
        self.loop.set_exception_handler(lambda loop, context: None)  # outcomes are read from the party
        if self.elsewhere:
            self.thread = threading.Thread(target=self.loop.run_forever, name="loop elsewhere", daemon=True)
            self.thread.start()
        else:
            _stepped.append(self)

    def turn(self):
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def post(self, callback, *args):
        (self.loop.call_soon_threadsafe if self.elsewhere else self.loop.call_soon)(callback, *args)

    def start(self, script, *args):
        party = self._party(script, args)

        def begin():
            party.task = self.loop.create_task(party.run())

        def cancel():
            if self.elsewhere:
                self.post(party.task.cancel)
            else:
                party.task.cancel()

        party._cancel = cancel
        party._is_gone = lambda: party.task.done()
        self.post(begin)
        return party

    def close(self):
        if self.loop.is_closed():
            if self in _stepped:
                _stepped.remove(self)
            return
        try:
            self.cancel_all()
            take_turns(2)
        finally:
            if self.elsewhere:
                self.loop.call_soon_threadsafe(self.loop.stop)
                self.thread.join(LIMIT)
            else:
                _stepped.remove(self)
            if not self.loop.is_running():
                self.loop.close()


class EagerTasks(Asyncio):
    """Tasks that run their first step at once (Python 3.12)."""

    def new_loop(self):
        loop = super().new_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        return loop


class PurePythonTasks(Asyncio):
    """The task type asyncio falls back on where its C accelerator is missing."""

    def new_loop(self):
        loop = super().new_loop()
        loop.set_task_factory(lambda loop, coro, **kw: asyncio.tasks._PyTask(coro, loop=loop, **kw))
        return loop


class Uvloop(Asyncio):
    def new_loop(self):
        import uvloop

        return uvloop.new_event_loop()


class Rloop(Asyncio):
    def new_loop(self):
        import rloop

        return rloop.new_event_loop()


class Processes(Asyncio):
    """weft's own processes: children of a Group in a loop."""

    def open(self):
        super().open()
        self.group: Any = None

        async def host():
            self.ended = self.loop.create_future()
            async with weft.Group() as self.group:
                await self.ended

        async def begin():
            self.host = asyncio.ensure_future(host())

        self.post(lambda: self.loop.create_task(begin()))
        until(lambda: self.group is not None, "the group opens")

    def start(self, script, *args):
        party = self._party(script, args)
        party.task = self.group.spawn(party.run, on="task")
        party._cancel = party.task.cancel
        party._is_gone = lambda: party.task.done
        return party

    def close(self):
        self.post(lambda: self.ended.done() or self.ended.set_result(None))
        for party in self.left():
            party.cancel()
        until(lambda: self.host.done(), "the group ends")
        super().close()


class GroupThreads(World):
    """Threads that are children of a Group, which can be cancelled."""

    def open(self):
        self.group: Any = None
        self.ended = threading.Event()

        def host():
            with weft.Group() as self.group:
                self.ended.wait()

        self.host = threading.Thread(target=host, name="group of threads", daemon=True)
        self.host.start()
        until(lambda: self.group is not None, "the group opens")

    def start(self, script, *args):
        party = self._party(script, args)
        party.task = self.group.spawn(party.call, on="thread")
        party._cancel = party.task.cancel
        party._is_gone = lambda: party.task.done
        return party

    def close(self):
        for party in self.left():
            party.cancel()
        self.ended.set()
        until(lambda: not self.host.is_alive(), "the group ends")


class Trio(World):
    """Tasks in a trio run, each in a cancel scope of its own. The test steps the run by trio's guest mode, or it has a
    thread of its own."""

    def open(self):
        self.calls = collections.deque()
        self.token: Any = None
        self.over = False
        if self.elsewhere:
            self.thread = threading.Thread(target=trio.run, args=(self.main,), name="trio elsewhere", daemon=True)
            self.thread.start()
        else:
            trio.lowlevel.start_guest_run(
                self.main, run_sync_soon_threadsafe=self.calls.append, done_callback=self.ended
            )
            _stepped.append(self)
        until(lambda: self.token is not None, "the run starts")

    async def main(self):
        async with trio.open_nursery() as self.nursery:
            self.end = trio.Event()
            self.token = trio.lowlevel.current_trio_token()
            await self.end.wait()

    def ended(self, outcome):
        self.over = True
        outcome.unwrap()

    def turn(self):
        for _ in range(len(self.calls)):
            self.calls.popleft()()

    def post(self, callback, *args):
        self.token.run_sync_soon(callback, *args)

    def pause(self):
        return trio.lowlevel.checkpoint()

    async def within(self, op, seconds):
        try:
            with trio.fail_after(seconds):
                return await op
        except trio.TooSlowError as late:
            raise TimeoutError from late

    def start(self, script, *args):
        party = self._party(script, args)
        scope = trio.CancelScope()

        async def run():
            with scope:
                try:
                    await party.run()
                except trio.Cancelled:
                    raise
                except BaseException:
                    pass  # the party has it

        def cancel():
            if self.elsewhere:
                self.post(scope.cancel)
            else:
                scope.cancel()

        party._cancel = cancel

        def begin():
            self.nursery.start_soon(run)
            party.task = scope

        self.post(begin)
        return party

    def close(self):
        try:
            self.cancel_all()
            take_turns(2)
        finally:
            self.post(self.end.set)
            if self.elsewhere:
                self.thread.join(LIMIT)
            else:
                until(lambda: self.over, "the run ends")
                _stepped.remove(self)


class ThroughAnyio:
    """Its timeouts, its checkpoints."""

    def pause(self):
        return anyio.lowlevel.checkpoint()

    async def within(self, op, seconds):
        with anyio.fail_after(seconds):
            return await op


class AnyioOnTrio(ThroughAnyio, Trio):
    """The same through anyio."""


class AnyioOnAsyncio(ThroughAnyio, Asyncio):
    """Tasks that are cancelled by anyio's scopes, which cancel again and again until they have ended."""

    def start(self, script, *args):
        party = self._party(script, args)

        async def run():
            with anyio.CancelScope() as party.scope:
                await party.run()

        def begin():
            party.task = self.loop.create_task(run())

        def cancel():
            until(lambda: hasattr(party, "scope"), "the party starts")
            if self.elsewhere:
                self.post(party.scope.cancel)
                return
            asyncio._set_running_loop(self.loop)  # anyio asks which task calls, and a loop that rests has no answer
            try:
                party.scope.cancel()
            finally:
                asyncio._set_running_loop(None)

        party._cancel = cancel
        party._is_gone = lambda: party.task.done()
        self.post(begin)
        return party


class Gevent(World):
    """Greenlets of a hub: of the test's thread, where the test itself is the main greenlet, or of another one."""

    def open(self):
        self.calls = collections.deque()
        if self.elsewhere:
            self.hub: Any = None
            self.over = False
            self.thread = threading.Thread(target=self.main, name="gevent elsewhere", daemon=True)
            self.thread.start()
            until(lambda: self.hub is not None, "the hub starts")
        else:
            self.hub = gevent.get_hub()
            _stepped.append(self)

    def main(self):
        self.hub = gevent.get_hub()
        self.end = gevent.event.Event()
        keeps = self.hub.loop.async_()
        keeps.start(lambda: None)  # a hub that watches nothing ends
        self.end.wait()
        keeps.close()
        self.hub.destroy()

    def turn(self):
        gevent.sleep(0)

    def post(self, callback, *args):
        (self.hub.loop.run_callback_threadsafe if self.elsewhere else self.hub.loop.run_callback)(callback, *args)

    def pause(self):
        gevent.sleep(0)

    def start(self, script, *args):
        party = self._party(script, args)

        def run():
            try:
                party.call()
            except BaseException:
                pass  # the party has it

        def begin():
            party.task = gevent.spawn(run)

        party._cancel = lambda: self.post(party.task.kill, greenlet.GreenletExit, False)
        party._is_gone = lambda: party.task.dead
        self.post(begin)
        return party

    def close(self):
        try:
            self.cancel_all()
        finally:
            if self.elsewhere:
                self.post(self.end.set)
                self.thread.join(LIMIT)
            else:
                _stepped.remove(self)


WORLDS: dict[str, type[World]] = {
    "asyncio": Asyncio,
    "eager": EagerTasks,
    "uvloop": Uvloop,
    "threads": Threads,
    "processes": Processes,
    "group_threads": GroupThreads,
    "trio": Trio,
    "anyio_trio": AnyioOnTrio,
    "anyio": AnyioOnAsyncio,
    "gevent": Gevent,
}
NEEDS = {"trio": trio, "anyio_trio": trio and anyio, "anyio": anyio, "gevent": gevent}
LOOPS = ["asyncio", "eager", "uvloop"]
CANCELLING = [name for name, world in WORLDS.items() if world.cancels]

SINGLES = {**WORLDS, "rloop": Rloop, "pure_python": PurePythonTasks}
# From 3.14 on asyncio.current_task() does not know a task written in Python where the C one is there.
PURE = ["pure_python"] if sys.version_info < (3, 14) else []


def missing(name: str) -> str | None:
    """Why a world cannot be visited here, or None."""
    if name == "eager" and sys.version_info < (3, 12):
        return "eager tasks came with Python 3.12"
    if name in NEEDS and NEEDS[name] is None:
        return f"{name.replace('_', ' and ')} is not installed"
    if name in ("uvloop", "rloop"):
        try:
            importlib.import_module(name)
        except ImportError:
            return f"{name} is not installed"
    return None


def pairs(names=tuple(WORLDS)) -> list[str]:
    """Every ordered pair, "sender>receiver". "asyncio>asyncio" shares a loop; "elsewhere" is a second loop in a thread, and
    "trio_elsewhere" a second run."""
    return (
        [f"{a}>{b}" for a in names for b in names]
        + ["asyncio>elsewhere", "elsewhere>asyncio", "elsewhere>elsewhere2"]
        + [f"{name}>{name}_elsewhere" for name in names if name != "asyncio" and is_stepped(WORLDS[name])]
    )


def make_world(name: str, elsewhere: bool = False) -> World:
    if name.startswith("elsewhere"):
        return Asyncio(elsewhere=True)
    single = name.removesuffix("_elsewhere")
    return SINGLES[single](elsewhere or single != name)


def make_pair(pair: str) -> tuple[World, World]:
    """One world twice, or two; a second loop lives in a thread, so that the two really run at the same time."""
    first, second = pair.split(">")
    a = make_world(first)
    if first == second:
        return a, a
    # One loop, one run and one hub can be stepped in this thread; what comes second is elsewhere.
    return a, make_world(second, elsewhere=is_stepped(SINGLES.get(second, Asyncio)) and is_stepped(type(a)))


def is_stepped(world: type[World]) -> bool:
    return issubclass(world, Asyncio | Trio | Gevent)
