"""A producer: a generator that runs as a process of its own and feeds a channel.

True from entering the block to leaving it:
  1. One process steps the generator, from its first line to the last line of its cleanup, and nobody else does. So what
     the generator opens (cancel scopes, task groups, context variables) is opened and closed in one task, in order.
  2. A yield is a send. What ends the wait of the send is raised at the yield: a cancellation as itself, and that nobody
     receives any more as `GeneratorExit`, which is what closing a generator is.
  3. The process sets `_at_work` before it asks `_is_over`, and the channel is closed, or left by its last receiver, before
     `_interrupt` asks `_at_work`: so a generator that goes to work at that moment is stopped by one side or the other.
  4. An error of the generator is in `_failure` before the channel is closed with it, and is raised at a `recv`, or else
     when the block is left. That it was raised at a `recv` shows in its traceback, which has grown.

Neither the process nor the block holds a receiving end: what the consumer drops is dropped, and the channel tells when
the last one has gone (`_when_left`).

Sources: PEP 789, for what goes wrong when a generator is stepped by its consumer's task; PEP 525 and PEP 342, for
`aclose` and `close`.  Laws: docs/design/laws.md, L1, L4, L9, L12.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from functools import partial, wraps
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from weft._entry import running_loop
from weft._errors import BlockingInLoopError, Cancelled, Closed
from weft._group import Group, function_name
from weft._weft import Channel, Scope, _scheduler_here

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from weft._process import Process
    from weft._weft import Receiver, Sender

__all__ = ["Production", "producer"]

P = ParamSpec("P")
T = TypeVar("T")


class _Decorator(Protocol):
    """`producer` with its options, waiting for the function."""

    def __call__(self, fn: Callable[P, AsyncIterable[T] | Iterable[T]], /) -> Callable[P, Production[T]]: ...


@overload
def producer(fn: Callable[P, AsyncIterable[T] | Iterable[T]], /) -> Callable[P, Production[T]]: ...
@overload
def producer(*, capacity: int = 0) -> _Decorator: ...
def producer(fn: Callable[..., Any] | None = None, /, *, capacity: int = 0) -> Any:
    """Make a generator function one that feeds a channel, out of a process of its own.

        @weft.producer                               # or @weft.producer(capacity=16)
        async def lines(url):
            async with connect(url) as connection:
                async for line in connection:
                    yield line

        async with lines(url) as rx:                 # rx: weft.Receiver[str]
            async for line in rx:
                print(line)

    Calling it gives something to enter, once. Inside the block the generator runs: an `async def` as a task when it is
    entered by `async with` (in asyncio or trio), and else in a thread, where it has an asyncio loop of its own; a plain
    generator always in a thread. Each value it yields is sent, and it goes on when that has happened: with a capacity
    of 0 when a receiver has taken it, with more as soon as the buffer has it. The receiver is over when the generator
    has ended.

    **Why not iterate over the generator itself?** A generator that yields inside of a cancel scope, a timeout or a task
    group leaves it open around whatever its consumer does next, in the consumer's task: it cancels the wrong code, its
    errors arrive in the wrong place, and its cleanup runs when, and where, the garbage collector pleases (PEP 789). A
    producer's generator is stepped, and ended, by its own process only. Nothing that it holds open at a yield is around
    the consumer's code: a timeout of its own that runs out at a yield is raised there, to itself.

    **Stopping.** When the block is left, for whatever reason, the generator has ended: its `finally` and `async with`
    have run, in its own task or thread, and were waited for. One that waits at a yield gets `GeneratorExit` there, as
    from `aclose`; one that is at work is cancelled where it waits. (A thread is cancelled in the weft operation it waits
    for. Code that waits in something else is not interrupted, and the block is left when it yields or ends.) Closing or
    dropping the last receiver does the same at once, within the block and in whatever thread that happens, without waiting
    for it. After the block, receivers that are still there get `Poisoned`.

    **Errors.** What the generator raises is raised by `recv`, or the iteration, after the values it yielded before. If
    the block is left before anybody received it, it is raised there, so that it is not lost; never twice. What the body
    of the block raises leaves the block as it is, and so does a cancellation from outside, which cancels the generator;
    when the generator fails as well, with an error nobody received, an `ExceptionGroup` has both. Should the generator
    end by a cancellation that nobody asked for, receivers get `Cancelled`.

    It can decorate methods too; `@classmethod` and `@staticmethod` go above it.

    Args:
        fn: a generator function: an `async def` or a `def` with a `yield` in it. Nothing is ever sent in at the yield.
        capacity: of the channel, an int of 0 or more: how many values the generator may be ahead.

    Raises:
        TypeError: `fn` is not a generator function, or `capacity` is not an int.
        ValueError: `capacity` is negative.
        BlockingInLoopError: entered by `with` in a thread that runs an event loop.
        RuntimeError: entered a second time, or by `async with` outside of a task.

    Source: the generators of occam's and Go's pipelines, which are processes; PEP 789, which asks for it.
    """
    Channel[Any](capacity)  # refuses what is no capacity here, where the mistake is
    if fn is None:
        return partial(_decorate, capacity)
    return _decorate(capacity, fn)


def _decorate(capacity: int, fn: Callable[..., Any], /) -> Callable[..., Production[Any]]:
    import inspect  # slow to import, and who has no producer needs it not

    if not inspect.isasyncgenfunction(fn) and not inspect.isgeneratorfunction(fn):
        raise TypeError(
            f"@weft.producer takes a generator function, `async def` or `def` with a `yield` in it; {fn!r} is none"
            + ("; put @staticmethod or @classmethod above it" if isinstance(fn, staticmethod | classmethod) else "")
        )
    name = function_name(fn)

    @wraps(fn)
    def produce(*args: Any, **keywords: Any) -> Production[Any]:
        # The generator is made here, where wrong arguments are the caller's own TypeError. It starts in the block.
        return Production(fn(*args, **keywords), capacity, name)

    return produce


class Production(Generic[T]):
    """What calling a producer gives: the block in which its generator runs. `weft.producer` explains it."""

    def __init__(
        self, generator: AsyncGenerator[T, None] | Generator[T, None, object], capacity: int, name: str
    ) -> None:
        self._generator: AsyncGenerator[T, None] | Generator[T, None, object] | None = generator
        self._name = name
        self._channel = Channel[T](capacity, name=name)
        self._group = Group(name)  # whose lock guards `_failure` and `_leaving`
        self._process: Process[None] | None = None
        self._at_work = False  # the process is inside the generator's code, not at a yield or in its closing
        self._cancel: Callable[[], object] | None = None  # cancels what the generator waits for
        self._interrupted = False  # `_cancel` was called, and that was not taken back
        self._turn = RLock()  # of a thread: held to interrupt it at work, and to be at work no more
        self._in_thread = not isinstance(generator, AsyncGenerator)
        self._home: asyncio.AbstractEventLoop | None = None  # of a coroutine in a thread
        self._leaving = False
        self._failure: BaseException | None = None
        self._traceback: TracebackType | None = None  # the failure's, before anybody received it

    if not TYPE_CHECKING:  # type checkers refuse it as it is

        def __aiter__(self):
            raise self._not_entered("async for")

        def __iter__(self):
            raise self._not_entered("for")

        def _not_entered(self, what):
            enter = "`async with`" if what == "async for" else "`with`, or `async with` in a task"
            return TypeError(
                f"`{what}` over producer {self._name!r} itself: its generator runs in a block only; enter it with {enter}, "
                "and iterate over the receiver that this gives"
            )

    # Entering and leaving

    async def __aenter__(self) -> Receiver[T]:
        self._reject_second()
        if running_loop() is None and _scheduler_here() is None:
            raise RuntimeError(
                f"`async with` on producer {self._name!r} needs a task of a running loop, asyncio's or trio's; in a plain "
                "thread use `with`"
            )
        await self._group.__aenter__()
        try:
            return self._start()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        verdict: BaseException | None = None
        own = self._leave(error)
        try:
            await self._group.__aexit__(None if own is None else type(own), own, traceback)
        except BaseExceptionGroup as failed:
            verdict = self._verdict(failed, error)
        finally:
            self._left()
            del self, own  # as in `_raise`
        try:
            _raise(verdict, error)
        finally:
            verdict = error = None

    def __enter__(self) -> Receiver[T]:
        self._reject_second()
        if running_loop() is not None or _scheduler_here() is not None:
            raise BlockingInLoopError(
                f"`with` on producer {self._name!r} would block the event loop of this thread; use `async with`"
            )
        self._group.__enter__()
        try:
            return self._start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        verdict: BaseException | None = None
        own = self._leave(error)
        try:
            self._group.__exit__(None if own is None else type(own), own, traceback)
        except BaseExceptionGroup as failed:
            verdict = self._verdict(failed, error)
        finally:
            self._left()
            del self, own
        try:
            _raise(verdict, error)
        finally:
            verdict = error = None

    def _reject_second(self) -> None:
        if self._generator is None:
            raise RuntimeError(
                f"producer {self._name!r} was entered before: a block is entered once, call the function again"
            )

    def _start(self) -> Receiver[T]:
        generator, self._generator = self._generator, None
        tx, rx = self._channel.split()
        self._channel._when_left(self._interrupt)
        name = f"{self._name}-1"
        if isinstance(generator, AsyncGenerator):
            self._process = self._group.spawn(self._feed_async, generator, tx, name=name)
        else:
            # mypy and pyright cannot know that what is not the one is the other.
            self._process = self._group.spawn(self._feed, cast("Generator[T, None, object]", generator), tx, name=name)
        return rx

    def _leave(self, error: BaseException | None) -> BaseException | None:
        """Stop the generator, and return what the group is to be left with.

        An `Exception` of the body is not the group's affair: the group would cancel the generator for it, and then its
        cleanup could not wait for anything (in trio), while closing it can. A cancellation, and what else is no
        `Exception`, is: the generator is cancelled as any process would be. `GeneratorExit` comes from the closing of a
        generator around the block, such as another producer's, and that may wait too.
        """
        with self._group._lock:
            self._leaving = True
            failure, traceback = self._failure, self._traceback
        if failure is not None and failure is not error and failure.__traceback__ is traceback:
            self._group._fail(failure)
        if error is not None and not isinstance(error, Exception | GeneratorExit):
            return error
        self._channel.poison()  # there may be clones of the receiver
        self._interrupt()
        return None

    def _left(self) -> None:
        self._channel._when_left(None)  # which leads back to us
        self._channel.poison()
        # An error that was received leads to the consumer's frame, and that to this.
        self._failure = self._traceback = None

    def _verdict(self, failed: BaseExceptionGroup[BaseException], error: BaseException | None) -> BaseException:
        """What the block is left with: `failed` has the generator's error, and what the group counted of the body's."""
        errors = list(failed.exceptions)
        if isinstance(error, Exception) and not any(error is other for other in errors):
            errors.insert(0, error)
        try:
            if len(errors) == 1:
                return errors[0]
            return BaseExceptionGroup(f"producer {self._name!r}: its block and its generator failed", errors)
        finally:
            del failed, error, errors  # this frame may get into the traceback of one of them

    # Stopping

    def _interrupt(self) -> None:
        """Cancel the generator at what it waits for, unless it is at a yield: there it is about to learn that the channel
        is closed, and the cancellation would hit its cleanup. From whatever thread."""
        if not self._at_work or self._cancel is None:
            return
        if self._home is not None:
            try:
                self._home.call_soon_threadsafe(self._interrupt_at_work)
            except RuntimeError:
                pass  # the loop closed a moment ago: the generator has ended
        elif self._in_thread:
            with self._turn:
                self._interrupt_at_work()
        else:
            assert self._group._host is not None
            self._group._host.call(self._interrupt_at_work)

    def _interrupt_at_work(self) -> None:
        # Not by the process, which might be at a yield by the time it is cancelled. Once, or the cancellation would hit the
        # cleanup after the first.
        if self._at_work and self._cancel is not None and not self._interrupted and not self._group._aborting:
            self._interrupted = True
            self._cancel()

    def _is_over(self) -> bool:
        """Whether nothing more is wanted of the generator."""
        return self._channel.closed or self._group._aborting

    # Feeding. What the generator raises goes into the channel. The process itself fails only with what is to end the
    # whole program.

    async def _feed_async(self, generator: AsyncGenerator[T, None], tx: Sender[T]) -> None:
        if _scheduler_here() is not None:
            host: Any = self._group._host
            with host.interruptible(self._process) as interruption:
                await self._feed_in_task(generator, tx, interruption.cancel, interruption.take_back)
            return
        import asyncio

        task = asyncio.current_task()
        assert task is not None
        if self._group._host is None:
            self._home = asyncio.get_running_loop()
        await self._feed_in_task(generator, tx, task.cancel, task.uncancel)

    async def _feed_in_task(
        self,
        generator: AsyncGenerator[T, None],
        tx: Sender[T],
        cancel: Callable[[], object],
        take_back: Callable[[], object],
    ) -> None:
        thrown: BaseException | None = None
        self._cancel = cancel
        try:
            while True:
                self._at_work = True
                try:
                    if thrown is None and self._is_over():
                        break
                    value = await (generator.__anext__() if thrown is None else generator.athrow(thrown))
                except StopAsyncIteration:
                    break
                finally:
                    self._at_work = False
                    thrown = None
                if self._interrupted and not self._group._aborting:
                    # What it waited for had happened, and it came to a yield all the same: the cancellation would hit
                    # its cleanup now.
                    self._interrupted = False
                    take_back()
                if self._is_over():
                    break
                try:
                    await tx.send(value)
                except Closed:
                    break
                except BaseException as error:
                    thrown = error
                del value  # it is the receiver's, and lives no longer than that wants it
            await generator.aclose()
        except BaseException as error:
            if self._failed(error, tx):
                raise
        finally:
            tx.close()
            thrown = self._cancel = None

    def _feed(self, generator: Generator[T, None, object], tx: Sender[T]) -> None:
        thrown: BaseException | None = None
        scope = Scope(Scope.current())
        self._cancel = scope.cancel
        scope.enter()
        try:
            while True:
                self._at_work = True
                try:
                    if thrown is None and self._is_over():
                        break
                    value = next(generator) if thrown is None else generator.throw(thrown)
                except StopIteration:
                    break
                finally:
                    with self._turn:
                        self._at_work = False
                    if self._interrupted:
                        self._interrupted = False
                        scope._take_back()  # as there
                    thrown = None
                if self._is_over():
                    break
                try:
                    tx.send(value).wait()
                except Closed:
                    break
                except BaseException as error:
                    thrown = error
                del value
            generator.close()
        except BaseException as error:
            if self._failed(error, tx):
                raise
        finally:
            tx.close()
            thrown = self._cancel = None
            scope.exit()

    def _failed(self, error: BaseException, tx: Sender[T]) -> bool:
        """Close the channel with what came out of the generator. True: the process is to fail with it as well."""
        failure = _without_cancellations(error)
        try:
            if isinstance(failure, KeyboardInterrupt | SystemExit | GeneratorExit):
                tx.close(failure)
                return True
            if failure is None:
                tx.close(Cancelled(f"the generator of producer {self._name!r} was cancelled"))
                return False
            # The frames of this file tell nothing, and lead back to the error.
            traceback = failure.__traceback__
            while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
                traceback = traceback.tb_next
            BaseException.with_traceback(failure, traceback)
            with self._group._lock:
                self._failure, self._traceback = failure, traceback
                leaving = self._leaving
            if leaving:
                self._group._fail(failure)
            tx.close(failure)
            return False
        finally:
            del failure, error


def _without_cancellations(error: BaseException) -> BaseException | None:
    """What is left of an error without the cancellations in it. They need not reach their scopes: the process ends.

    Task groups also put in what `aclose` raised at the yield.
    """
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(lambda each: isinstance(each, GeneratorExit) or _is_cancellation(each))[1]
    return None if _is_cancellation(error) else error


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, Cancelled):
        return True
    # Who was cancelled by a scheduler has imported it.
    for module, name in (("asyncio", "CancelledError"), ("trio", "Cancelled")):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return True
    return False


def _raise(verdict: BaseException | None, error: BaseException | None) -> None:
    """Leave a block whose body raised `error` (or did not) with `verdict` (or with that)."""
    try:
        if verdict is not None:
            Group._leave(verdict, error)
    finally:
        # This frame stays in the traceback of what is raised, and must not lead back to it.
        verdict = error = None
