"""What type checkers make of channels and their ends. It is checked, not run; see test_types.py."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import weft


class Animal: ...


class Dog(Animal): ...


def a_channel_knows_what_it_carries() -> None:
    ch = weft.Channel[int](8)
    assert_type(ch, weft.Channel[int])
    assert_type(ch.send(1), weft.Op[None])
    assert_type(ch.recv(), weft.Op[int])
    assert_type(ch.recv_nowait(), int)
    assert_type(ch.send_many([1, 2]), weft.Op[int])
    assert_type(ch.recv_many(3), weft.Op[list[int]])
    assert_type(ch.recv().wait(), int)
    assert_type(ch.recv().wait(0.5), int)
    assert_type(ch.statistics(), weft.Statistics)
    assert_type(ch.statistics().capacity, int | None)
    assert_type(ch.statistics().buffered, int)
    assert_type(ch.capacity, int | None)
    assert_type(ch.closed, bool)
    assert_type(ch.name, str)
    assert_type(len(ch), int)
    ch.send("one")  # type: ignore[arg-type]
    ch.send_nowait("one")  # type: ignore[arg-type]
    ch.send_many(["one"])  # type: ignore[list-item]


def a_channel_is_made_in_several_ways() -> None:
    assert_type(weft.Channel[str](), weft.Channel[str])
    assert_type(weft.Channel[str](2, overflow="drop_oldest", name="words"), weft.Channel[str])
    assert_type(weft.Channel[str].unbounded(), weft.Channel[str])
    assert_type(weft.Channel[str].unbounded(name="words"), weft.Channel[str])
    declared: weft.Channel[bytes] = weft.Channel()
    assert_type(declared, weft.Channel[bytes])

    def lost(value: int) -> None: ...

    assert_type(weft.Channel(4, on_undelivered=lost), weft.Channel[int])
    weft.Channel[str](4, on_undelivered=lost)  # type: ignore[arg-type]
    weft.Channel[str](4, overflow="drop")  # type: ignore[arg-type]
    weft.Channel[str]("4")  # type: ignore[arg-type]


async def iterating_gives_its_values(ch: weft.Channel[int], rx: weft.Receiver[str], clock: weft.Tick) -> None:
    for a in ch:
        assert_type(a, int)
    async for b in ch:
        assert_type(b, int)
    for c in rx:
        assert_type(c, str)
    async for d in rx:
        assert_type(d, str)
    async for e in clock:
        assert_type(e, float)
    for f in clock:
        assert_type(f, float)


async def awaiting_gives_the_result(ch: weft.Channel[int]) -> None:
    assert_type(await ch.recv(), int)
    assert_type(await ch.recv_many(2), list[int])
    assert_type(await ch.send_many((1, 2)), int)
    await ch.send(1)


async def a_context_manager_gives_itself(ch: weft.Channel[int], tx: weft.Sender[int], rx: weft.Receiver[int]) -> None:
    with ch as a, tx as b, rx as c:
        assert_type(a, weft.Channel[int])
        assert_type(b, weft.Sender[int])
        assert_type(c, weft.Receiver[int])
    async with ch as d, tx as e, rx as f:
        assert_type(d, weft.Channel[int])
        assert_type(e, weft.Sender[int])
        assert_type(f, weft.Receiver[int])


def a_block_swallows_nothing(ch: weft.Channel[int]) -> int:
    with ch:
        return 1


def ends_know_what_they_carry(ch: weft.Channel[int]) -> None:
    tx, rx = ch.split()
    assert_type(tx, weft.Sender[int])
    assert_type(rx, weft.Receiver[int])
    assert_type(ch.sender(), weft.Sender[int])
    assert_type(ch.receiver(), weft.Receiver[int])
    assert_type(tx.clone(), weft.Sender[int])
    assert_type(rx.clone(), weft.Receiver[int])
    assert_type(rx.recv().wait(), int)
    tx.close(ValueError("why"))
    tx.recv()  # type: ignore[attr-defined]
    rx.send(1)  # type: ignore[attr-defined]
    tx.send("one")  # type: ignore[arg-type]


def a_channel_is_invariant(animals: weft.Channel[Animal], dogs: weft.Channel[Dog]) -> None:
    a: weft.Channel[Animal] = dogs  # type: ignore[assignment]
    b: weft.Channel[Dog] = animals  # type: ignore[assignment]
    print(a, b)


def a_sender_is_contravariant(animals: weft.Sender[Animal], dogs: weft.Sender[Dog]) -> None:
    a: weft.Sender[Dog] = animals
    b: weft.Sender[Animal] = dogs  # type: ignore[assignment]
    print(a, b)


def a_receiver_is_covariant(animals: weft.Receiver[Animal], dogs: weft.Receiver[Dog]) -> None:
    a: weft.Receiver[Animal] = dogs
    b: weft.Receiver[Dog] = animals  # type: ignore[assignment]
    print(a, b)


def an_operation_is_covariant(animals: weft.Op[Animal], dogs: weft.Op[Dog]) -> None:
    a: weft.Op[Animal] = dogs
    b: weft.Op[Dog] = animals  # type: ignore[assignment]
    print(a, b)


def errors_carry_channel_value_and_case(error: weft.NoReceivers) -> None:
    closed: weft.Closed = error
    if closed.channel is not None:
        assert_type(closed.channel.name, str)
    print(closed.value, closed.case)
    print(closed.reason)  # type: ignore[attr-defined]


def the_types_are_final() -> None:
    class Mine(weft.Channel[int]): ...  # type: ignore[misc]

    print(Mine)


async def a_value_keeps_its_type_when_it_carries_a_context(ch: weft.Channel[weft.Carried[int]]) -> None:
    await ch.send(weft.carry(1))
    value, context = await ch.recv()
    assert_type(value, int)
    assert_type(context.run(str, value), str)
