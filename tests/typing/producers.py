"""What type checkers make of producers. It is checked, not run; see test_types.py."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator
from typing import TypeVar, assert_type

import weft

T = TypeVar("T")


@weft.producer
async def lines(url: str, *, limit: int = 0) -> AsyncIterator[str]:
    yield url[:limit]


@weft.producer(capacity=16)
async def sizes(url: str) -> AsyncGenerator[int, None]:
    yield len(url)


@weft.producer
async def chunks() -> AsyncIterable[bytes]:
    yield b""


@weft.producer
def numbers(n: int) -> Iterator[int]:
    yield n


@weft.producer(capacity=1)
def words(n: int) -> Generator[str, None, None]:
    yield str(n)


@weft.producer
async def repeated(value: T) -> AsyncIterator[T]:
    yield value


class Source:
    @weft.producer
    async def values(self, n: int) -> AsyncIterator[float]:
        yield n / 2

    @weft.producer(capacity=2)
    def names(self, n: int) -> Iterator[str]:
        yield str(n)

    @classmethod
    @weft.producer
    async def of_class(cls, n: int) -> AsyncIterator[int]:
        yield n

    @staticmethod
    @weft.producer
    async def plain(n: int) -> AsyncIterator[int]:
        yield n


async def the_receiver_is_of_what_is_yielded(source: Source) -> None:
    async with lines("here", limit=2) as rx:
        assert_type(rx, weft.Receiver[str])
        async for line in rx:
            assert_type(line, str)
    async with sizes("here") as sizes_rx:
        assert_type(sizes_rx, weft.Receiver[int])
    async with chunks() as chunks_rx:
        assert_type(chunks_rx, weft.Receiver[bytes])
    async with numbers(1) as numbers_rx:
        assert_type(numbers_rx, weft.Receiver[int])
    async with words(1) as words_rx:
        assert_type(words_rx, weft.Receiver[str])
    async with repeated(b"x") as repeated_rx:
        assert_type(repeated_rx, weft.Receiver[bytes])
    async with source.values(1) as values_rx:
        assert_type(values_rx, weft.Receiver[float])
    async with source.names(1) as names_rx:
        assert_type(names_rx, weft.Receiver[str])
    async with Source.of_class(1) as class_rx:
        assert_type(class_rx, weft.Receiver[int])
    async with Source.plain(1) as plain_rx:
        assert_type(plain_rx, weft.Receiver[int])


def in_a_thread_too() -> str:
    with lines("here") as rx:
        assert_type(rx, weft.Receiver[str])
        return next(rx)


async def a_block_swallows_nothing() -> int:
    async with lines("here"):
        return 1


def the_arguments_are_checked(source: Source) -> None:
    lines()  # type: ignore[call-arg]
    lines(1)  # type: ignore[arg-type]
    lines("here", limit="2")  # type: ignore[arg-type]
    source.values("1")  # type: ignore[arg-type]


async def no_yield() -> str:
    return ""


def only_generators_are_taken() -> None:
    weft.producer(no_yield)  # type: ignore[arg-type]
    weft.producer(capacity="16")  # type: ignore[call-overload]
