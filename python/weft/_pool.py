"""Pools: many processes on a few workers, each with a loop, a run queue and (in an interpreter) a core of its own.

A pool is a group whose processes run in its workers; the workers end with it. `map` is made of channels: one with the
items, one with the results, and one with as many places as may be in flight.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from math import ceil
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, TypeVarTuple, overload

from weft._entry import is_async, reject_coroutine
from weft._errors import Closed, PeerDied
from weft._group import Group, function_name
from weft._weft import Channel
from weft._worker import ENDED, FAILED, tell_error
from weft._workers import ThreadWorker, Worker, WorkProcess, check_function

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from weft._process import PlacedProcess, Process
    from weft._weft import Receiver, Sender

__all__ = ["Mapping", "Pool", "Workers", "pooled"]

T = TypeVar("T")
R = TypeVar("R")
Ts = TypeVarTuple("Ts")
Place = Literal["interpreter", "process", "thread"]


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """So many workers of one kind."""

    def __init__(self, number: int | None, on: Place | None) -> None:
        if number is None:
            number = usable_cores()
        elif not isinstance(number, int) or isinstance(number, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"workers must be an int or None, not {number!r}")
        elif number < 1:
            raise ValueError(f"workers must be at least 1, not {number}")
        self.on: Place = on or _best_place()
        if self.on not in ("interpreter", "process", "thread"):  # pyright: ignore[reportUnnecessaryContains]
            raise ValueError(f"on={on!r} is not there; a pool's workers are 'interpreter', 'process' or 'thread'")
        reason = _reason_against(self.on)
        if reason is not None:
            raise ValueError(reason)
        self._all: list[Worker] = []
        self._number = number

    def start(self) -> None:
        if self.on == "process":
            from weft._os_process import ProcessWorker

            self._all = [ProcessWorker(with_loop=True) for _ in range(self._number)]
            return
        if self.on == "interpreter":
            from weft._interpreter import InterpreterWorker, runs_threads_instead

            if not runs_threads_instead():
                self._all = [InterpreterWorker(with_loop=True) for _ in range(self._number)]
                return
        self._all = [ThreadWorker() for _ in range(self._number)]

    def __len__(self) -> int:
        return self._number

    def choose(self, number: int | None) -> Worker:
        """The one with this number, or the one with the fewest jobs."""
        if not self._all:
            raise RuntimeError("the workers are not there: they start when the pool is entered, and end with it")
        if number is None:
            return min(self._all, key=lambda worker: worker.load)
        if not 0 <= number < self._number:
            raise ValueError(f"worker={number!r} is not there: the workers are 0 to {self._number - 1}")
        return self._all[number]

    def end(self) -> None:
        workers, self._all = self._all, []
        for worker in workers:
            worker.end()


def _best_place() -> Place:
    from weft import _interpreter, _os_process

    if not _interpreter.reason_against():
        return "interpreter"
    return "thread" if _os_process.reason_against() else "process"


def _reason_against(place: Place) -> str | None:
    """Why there are no such workers here; None: there are."""
    from weft import _interpreter, _os_process

    if place == "process" and (reason := _os_process.reason_against()) is not None:
        return f"on='process' is not there: {reason}"
    if place == "interpreter" and (reason := _interpreter.reason_against()) is not None:
        return f"on='interpreter' is not there: {reason}; on='thread' is"
    return None


current: ContextVar[Workers] = ContextVar("weft workers")


def pooled(group: Group, fn: Callable[..., Any], name: str, caller: FrameType) -> PlacedProcess[Any]:
    """A process of `group` in the workers that `weft.run` started."""
    workers = current.get(None)
    if workers is None:
        raise ValueError("on='pool' needs the workers of weft.run(main, workers=...), or use a weft.Pool")
    if workers.on != "thread":
        check_function(fn, "pool")
    return WorkProcess(group, name, caller, workers.choose(None))


class Pool(Group):
    """A group whose processes run in workers: M processes on N of them.

        async with weft.Pool() as pool:              # or `with`, in a thread
            p = pool.spawn(simulate, 42)             # in the worker with the fewest processes
            async for line in pool.map(parse, lines):
                ...

    Each worker has a loop and a run queue for the processes that are `async def`; any other function runs in a thread of
    the worker. Functions, arguments and results cross as sent values do, so with interpreters a function has to be found by
    its import path.

    Everything else is as in `Group`: the block is left when all processes have ended, and the first that fails ends the
    others. The workers start when it is entered and end when it is left.

    Args:
        workers: how many; None: as many as there are cores this process may use.
        on: "interpreter" (each with a GIL of its own; Python 3.12 or later), "process" (of the operating system) or
            "thread"; None: the first of these that there is here.
        name: for messages; else the file and line that made it.

    Raises:
        TypeError, ValueError: there cannot be such workers.
    """

    def __init__(self, workers: int | None = None, on: Place | None = None, name: str | None = None) -> None:
        if name is None:
            caller = sys._getframe(1)
            name = f"{caller.f_code.co_filename.rpartition('/')[2]}:{caller.f_lineno}"
        super().__init__(name)
        self._workers = Workers(workers, on)
        self._mappings: weakref.WeakSet[Mapping[Any]] = weakref.WeakSet()

    @property
    def workers(self) -> int:
        """How many workers it has."""
        return len(self._workers)

    @overload  # type: ignore[override]
    def spawn(
        self,
        fn: Callable[[*Ts], Coroutine[Any, Any, T]],
        /,
        *args: *Ts,
        name: str | None = None,
        worker: int | None = None,
    ) -> Process[T]: ...
    @overload
    def spawn(
        self, fn: Callable[[*Ts], T], /, *args: *Ts, name: str | None = None, worker: int | None = None
    ) -> Process[T]: ...
    def spawn(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, fn: Callable[[*Ts], Any], /, *args: *Ts, name: str | None = None, worker: int | None = None
    ) -> Process[Any]:
        """A process in a worker.

        Args:
            fn: called there with `args`; when that makes a coroutine, it is a process of the worker's loop.
            name: for messages; else the function's name and a number.
            worker: the number of the worker, from 0, to pin it there; None: the one with the fewest processes.

        Raises:
            TypeError: `fn` cannot be found by its import path, or an argument cannot go to another place.
            ValueError: there is no such worker.
            RuntimeError: the pool is not open.
        """
        reject_coroutine(fn, "pool.spawn(f, x)")
        if self._workers.on != "thread":
            check_function(fn, self._workers.on)
        if name is None:
            name = f"{function_name(fn)}-{self._number()}"
        process: WorkProcess[Any] = WorkProcess(self, name, sys._getframe(1), self._workers.choose(worker))
        self._begin(process, fn, args, is_async=is_async(fn), chosen=True)
        return process

    @overload
    def map(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        source: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        buffer: int | None = None,
    ) -> Mapping[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[T], R],
        source: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        buffer: int | None = None,
    ) -> Mapping[R]: ...
    def map(
        self,
        fn: Callable[[T], Any],
        source: Iterable[T] | AsyncIterable[T],
        *,
        ordered: bool = True,
        buffer: int | None = None,
    ) -> Mapping[Any]:
        """`fn(item)` for every item of `source`, worked out in all workers; to be iterated over, by `for` or `async for`.

        Args:
            fn: a function, or an `async def`, of which several may be under way in a worker.
            source: what has the items: anything to iterate over, a channel or its receiver, an asynchronous iterator.
            ordered: the results come in the order of the items; else as they are ready.
            buffer: how many items may have been taken from `source` whose result has not been asked for, at most; None: four
                for each worker.

        The first error, of `fn` or of `source`, is raised by the iteration and stops all.
        """
        reject_coroutine(fn, "pool.map(f, source)")
        if self._workers.on != "thread":
            check_function(fn, self._workers.on)
        if buffer is None:
            buffer = 4 * len(self._workers)
        elif buffer < 1:
            raise ValueError(f"buffer must be at least 1, not {buffer}")
        mapping: Mapping[Any] = Mapping(buffer, ordered)
        runner = _run_coroutines if is_async(fn) else _run
        each = ceil(buffer / len(self._workers)) if is_async(fn) else 1
        with mapping._items.receiver() as items, mapping._results.sender() as results:
            for number in range(len(self._workers)):
                for _ in range(each):
                    self.spawn(runner, fn, items.clone(), results.clone(), worker=number, name=f"map-{number}")
            feeder: Any = _feed_async if isinstance(source, AsyncIterable) and self._host is not None else _feed
            rest: Any = (source, mapping, mapping._items.sender(), results.clone())
            Group.spawn(self, feeder, *rest)
        self._mappings.add(mapping)
        return mapping

    async def __aenter__(self) -> Self:
        self._workers.start()
        try:
            await super().__aenter__()
        except BaseException:
            self._workers.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._stop_mappings()
        try:
            return await super().__aexit__(kind, error, traceback)
        finally:
            self._workers.end()

    def __enter__(self) -> Self:
        self._workers.start()
        try:
            super().__enter__()
        except BaseException:
            self._workers.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._stop_mappings()
        try:
            return super().__exit__(kind, error, traceback)
        finally:
            self._workers.end()

    def _stop_mappings(self) -> None:
        """What is not asked for until now never will be."""
        for mapping in list(self._mappings):
            mapping.close()


class Mapping(Generic[R]):
    """The results of `Pool.map`, as they come; to be iterated over once, by one party.

    Attributes:
        taken: how many items were taken from the source.
        done: how many results were handed out.
    """

    def __init__(self, buffer: int, ordered: bool) -> None:
        self.taken = 0
        self.done = 0
        self._ordered = ordered
        self._items: Channel[tuple[int, Any]] = Channel(buffer, name="items of a map")
        self._results = Channel[tuple[int, int, Any]].unbounded(name="results of a map")
        self._places: Channel[None] = Channel(buffer, name="places of a map")
        self._receiver = self._results.receiver()
        self._early: dict[int, R] = {}  # results that are not due yet

    def close(self) -> None:
        """No more is wanted: what is under way is stopped."""
        for channel in (self._items, self._results, self._places):
            channel.poison()

    def _due(self) -> bool:
        return bool(self._early) and (not self._ordered or self.done in self._early)

    def _hand_out(self) -> R:
        number = self.done if self._ordered else next(iter(self._early))
        self.done += 1
        self._places.recv_nowait()
        return self._early.pop(number)

    def _note(self, report: tuple[int, int, Any]) -> None:
        number, kind, outcome = report
        if kind == FAILED:
            self.close()
            raise outcome
        self._early[number] = outcome

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        while not self._due():
            try:
                report = self._receiver.recv().wait()
            except Closed:
                raise StopIteration from None
            except Exception:  # a result that cannot be made here
                self.close()
                raise
            self._note(report)
        return self._hand_out()

    def __aiter__(self) -> AsyncIterator[R]:
        return self

    async def __anext__(self) -> R:
        while not self._due():
            try:
                report = await self._receiver.recv()
            except Closed:
                raise StopAsyncIteration from None
            except Exception:  # as above
                self.close()
                raise
            self._note(report)
        return self._hand_out()


def _feed(source: Iterable[Any], mapping: Mapping[Any], items: Sender[Any], results: Sender[Any]) -> None:
    """Hand out the items, one for each place."""
    with items, results:
        try:
            iterator = iter(source)
            while True:
                mapping._places.send(None).wait()
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                items.send((mapping.taken, item)).wait()
                mapping.taken += 1
        except Closed:
            pass  # no more is wanted
        except Exception as error:
            _tell(results, error)


async def _feed_async(
    source: AsyncIterable[Any], mapping: Mapping[Any], items: Sender[Any], results: Sender[Any]
) -> None:
    with items, results:
        try:
            iterator = aiter(source)
            while True:
                await mapping._places.send(None)
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    break
                await items.send((mapping.taken, item))
                mapping.taken += 1
        except Closed:
            pass  # as above
        except Exception as error:
            _tell(results, error)


def _tell(results: Sender[Any], error: BaseException) -> None:
    with suppress(Closed, PeerDied):  # nobody is there to be told
        tell_error(lambda error: results.send_nowait((-1, FAILED, error)), error)


def _run(fn: Callable[[Any], Any], items: Receiver[Any], results: Sender[Any]) -> None:
    """In a worker: the results, one after another."""
    with items, results:
        try:
            for number, item in items:
                results.send((number, ENDED, fn(item))).wait()
        except Closed:
            pass  # no more is wanted
        except Exception as error:
            _tell(results, error)


async def _run_coroutines(fn: Callable[[Any], Any], items: Receiver[Any], results: Sender[Any]) -> None:
    with items, results:
        try:
            async for number, item in items:
                await results.send((number, ENDED, await fn(item)))
        except Closed:
            pass  # as above
        except Exception as error:
            _tell(results, error)
