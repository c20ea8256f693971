"""Worlds: the places a party of a check can live in; parties: the scripts that live there.

A party is a *script*: a generator that yields operations and is sent their results, or thrown their errors.

    def sender(ch):
        yield ch.send(1)

A world performs a script its own way: a task awaits each operation, a thread calls `.wait()`. So a check is written
once and holds everywhere. Threads and asyncio are here; a scheduler's author adds one more, by subclassing `World`.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Generator
from typing import Any, ClassVar, Final

from weft._weft import Op

__all__ = ["PAUSE", "Asyncio", "AsyncioInThread", "Party", "Script", "Threads", "Within", "World"]

Script = Generator[Any, Any, Any]

PAUSE: Final = object()
"""`yield PAUSE`: give the others a turn."""


class Within:
    """`yield Within(op, seconds)`: perform `op`, but give up with `TimeoutError`; each world by its own means."""

    def __init__(self, op: Op[Any], seconds: float) -> None:
        self.op = op
        self.seconds = seconds


class Party:
    """One script at work in one world. A world runs it with `run`, where parties await, or `call`, where they call.

    Attributes:
        handle: the world's own, to find its task or greenlet again: for `World.cancel`. The kit only ever forgets it.
        value: what the script returned.
        error: what it ended with instead.
    """

    def __init__(self, script: Script, world: World) -> None:
        self.world = world
        self.handle: Any = None
        self.value: Any = None
        self.error: BaseException | None = None
        self._script: Script | None = script
        self._name: str = getattr(script, "__name__", type(script).__name__)
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._ended = False

    def run(self) -> Coroutine[Any, Any, None]:
        """A coroutine, for the scheduler, that awaits each operation. It raises only what the scheduler threw into it to
        end it: all else is the party's outcome."""
        self._coroutine = self._run()
        return self._coroutine

    async def _run(self) -> None:
        script, reply, error = self._script, None, None
        assert script is not None
        try:
            while True:
                step = script.send(reply) if error is None else script.throw(error)
                reply = error = None
                try:
                    if step is PAUSE:
                        await self.world.pause()
                    elif isinstance(step, Within):
                        reply = await self.world.within(step.op, step.seconds)
                    else:
                        reply = await step
                except BaseException as caught:
                    error = caught
        except StopIteration as stop:
            self.value = stop.value
        except BaseException as caught:
            self.error = caught
            if isinstance(caught, (self.world.cancelled, GeneratorExit)):
                raise  # the scheduler wants it back
        finally:
            self._ended = True
            del script, error

    def call(self) -> None:
        """The same for a scheduler whose parties call `.wait()`; to be called in the party. It raises nothing but what
        the scheduler threw into it."""
        script, reply, error = self._script, None, None
        assert script is not None
        try:
            while True:
                step = script.send(reply) if error is None else script.throw(error)
                reply = error = None
                try:
                    if step is PAUSE:
                        self.world.pause()
                    elif isinstance(step, Within):
                        reply = step.op.wait(step.seconds)
                    else:
                        reply = step.wait()
                except BaseException as caught:
                    error = caught
        except StopIteration as stop:
            self.value = stop.value
        except BaseException as caught:
            self.error = caught
            if isinstance(caught, self.world.cancelled):
                raise
        finally:
            self._ended = True
            del script, error

    @property
    def done(self) -> bool:
        """Whether it has ended, or never will begin."""
        return self._ended or self.never_ran

    @property
    def never_ran(self) -> bool:
        """Whether it was cancelled before its first step."""
        if self._ended:
            return False
        closed = self._coroutine is not None and inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CLOSED
        return (closed or self.world.is_gone(self)) and not self._ended

    @property
    def was_cancelled(self) -> bool:
        """Whether it ended with the scheduler's own cancellation."""
        return self.never_ran or isinstance(self.error, self.world.cancelled)

    def forget(self) -> None:
        """Let go of everything that keeps its frames alive."""
        self.handle = self.error = self._script = self._coroutine = None
        self._ended = True

    def __repr__(self) -> str:
        return f"<party {self._name} in {type(self.world).__name__}>"


class World(ABC):
    """A scheduler, as the checks see it: subclass this, and give it to `conformance.laws`' checks.

    `open`, `close` and `start` are needed. Each other method adds checks: those that need one that is missing are
    skipped, and say so. All are called in one thread, that of the check, except `pause` and `within`.
    """

    awaits: ClassVar[bool] = True
    """Parties await operations, and `start` runs `party.run()`; False: they call `.wait()`, and it runs `party.call()`.
    """

    cancelled: ClassVar[type[BaseException] | tuple[type[BaseException], ...]] = ()
    """What a cancelled party sees: the scheduler's own exception."""

    cooperative: ClassVar[bool] = True
    """Parties run one at a time, and each until it waits."""

    @abstractmethod
    def open(self) -> None:
        """Make a fresh scheduler. When the check does not step it (`turn`), let it run, in a thread of its own."""

    @abstractmethod
    def close(self) -> None:
        """End it. Every party has ended by then."""

    @abstractmethod
    def start(self, party: Party) -> None:
        """Have the scheduler run `party.run()` or `party.call()`, soon, as a task (greenlet, ...) of its own."""

    def turn(self) -> None:  # noqa: B027  (a world whose loop runs by itself has nothing to do)
        """Optional: run the loop once: all that can run now, and return without waiting. With this the loop runs only
        when the check says so, and "met, but not yet resumed" is a state to be looked at."""

    def cancel(self, party: Party) -> None:
        """Optional: cancel it, as a program would. It may have been started only now, and may have ended."""
        raise NotImplementedError

    def pause(self) -> Any:
        """Optional: called in a party to give the others a turn. Where parties await, `async def`."""
        raise NotImplementedError

    def within(self, op: Op[Any], seconds: float) -> Any:
        """Optional, `async def`, where parties await: perform `op` with the scheduler's own timeout, and raise
        `TimeoutError` when it was too long."""
        raise NotImplementedError

    def run(self, party: Party) -> None:
        """Optional, where the check steps: run the loop by itself, as a program does, until `party` has ended."""
        raise NotImplementedError

    def stop(self) -> None:
        """Optional: shut the scheduler down though parties wait in it. What it does to them is its affair; nothing of it
        runs any more when this returns. `close` is not called then."""
        raise NotImplementedError

    def is_gone(self, party: Party) -> bool:
        """Optional, where parties call: whether it has ended, though it may never have begun, having been cancelled
        before."""
        return False

    @classmethod
    def offers(cls, method: str) -> bool:
        """Whether an optional method was given."""
        if method == "within" and not cls.awaits:
            return True
        return getattr(cls, method) is not getattr(World, method)


class Threads(World):
    """Plain threads. Nobody can cancel a plain thread: it can only run out of patience."""

    awaits = False
    cooperative = False

    def open(self) -> None: ...

    def close(self) -> None: ...

    def start(self, party: Party) -> None:
        party.handle = threading.Thread(target=party.call, name=repr(party), daemon=True)
        party.handle.start()

    def pause(self) -> None:
        time.sleep(0)


class _Tasks(World):
    """Tasks of an asyncio loop, whoever runs it."""

    cancelled = asyncio.CancelledError
    loop: asyncio.AbstractEventLoop

    def open(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.loop.set_exception_handler(lambda loop, context: None)  # outcomes are read from the party

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def within(self, op: Op[Any], seconds: float) -> Any:
        async with asyncio.timeout(seconds):
            return await op


class Asyncio(_Tasks):
    """Tasks in an asyncio loop that the check steps."""

    def close(self) -> None:
        self.loop.close()

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def start(self, party: Party) -> None:
        party.handle = self.loop.create_task(party.run())

    def cancel(self, party: Party) -> None:
        party.handle.cancel()

    def run(self, party: Party) -> None:
        self.loop.run_until_complete(party.handle)

    def stop(self) -> None:
        self.loop.close()


class AsyncioInThread(_Tasks):
    """Tasks in an asyncio loop that has a thread to itself."""

    def open(self) -> None:
        super().open()
        self._thread = threading.Thread(target=self.loop.run_forever, name="asyncio of a check", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def start(self, party: Party) -> None:
        def begin() -> None:
            party.handle = self.loop.create_task(party.run())

        self.loop.call_soon_threadsafe(begin)

    def cancel(self, party: Party) -> None:
        self.loop.call_soon_threadsafe(lambda: party.handle.cancel())
