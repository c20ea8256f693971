"""What type checkers make of select, selecting and the other operations. It is checked, not run; see test_types.py."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

import socket
from typing import Literal, Never, assert_type

import weft
from weft import Op, Selected


async def select_by_position(a: Op[int], b: Op[str], c: Op[bytes], d: Op[None], e: Op[float]) -> None:
    assert_type(await weft.select(a), Selected[Literal[0], int])
    assert_type(await weft.select(a, b), Selected[Literal[0], int] | Selected[Literal[1], str])
    assert_type(
        await weft.select(a, b, c),
        Selected[Literal[0], int] | Selected[Literal[1], str] | Selected[Literal[2], bytes],
    )
    assert_type(
        await weft.select(a, b, c, d),
        Selected[Literal[0], int]
        | Selected[Literal[1], str]
        | Selected[Literal[2], bytes]
        | Selected[Literal[3], None],
    )
    assert_type(
        await weft.select(a, b, c, d, e, policy="priority"),
        Selected[Literal[0], int]
        | Selected[Literal[1], str]
        | Selected[Literal[2], bytes]
        | Selected[Literal[3], None]
        | Selected[Literal[4], float],
    )


async def the_case_tells_the_type_of_the_value(a: Op[int], b: Op[str]) -> None:
    selected = await weft.select(a, b)
    if selected.case == 0:
        assert_type(selected.value, int)
    else:
        assert_type(selected.value, str)
    match await weft.select(a, b):
        case (0, number):
            assert_type(number, int)
        case (1, text):
            assert_type(text, str)


def select_with_a_default(a: Op[int], b: Op[str]) -> None:
    assert_type(weft.select(a, default=None).wait(), Selected[Literal[0], int] | Selected[Literal["default"], None])
    assert_type(
        weft.select(a, b, default=1.5).wait(),
        Selected[Literal[0], int] | Selected[Literal[1], str] | Selected[Literal["default"], float],
    )


def select_with_a_case_switched_off(a: Op[int] | None, b: Op[str]) -> None:
    assert_type(weft.select(a, b).wait(), Selected[Literal[0], int] | Selected[Literal[1], str])


def select_by_keyword(a: Op[int], b: Op[int]) -> None:
    assert_type(weft.select(first=a, second=b).wait(), Selected[str, int])
    assert_type(
        weft.select(first=a, second=b, default=None).wait(), Selected[str, int] | Selected[Literal["default"], None]
    )
    assert_type(
        weft.select(first=a, second=b, default=0.5).wait(), Selected[str, int] | Selected[Literal["default"], float]
    )
    assert_type(weft.select(a, second=b).wait(), Selected[int | str, int])
    assert_type(
        weft.select(a, second=b, default=None).wait(), Selected[int | str, int] | Selected[Literal["default"], None]
    )
    assert_type(
        weft.select(a, second=b, default=0.5).wait(), Selected[int | str, int] | Selected[Literal["default"], float]
    )
    case, value = weft.select(first=a, second=b).wait()
    assert_type(case, str)
    assert_type(value, int)


def select_of_many(ops: list[Op[int]]) -> None:
    assert_type(weft.select(*ops, policy="random").wait().value, int)


def a_select_may_stand_in_a_select(a: Op[int], b: Op[str]) -> None:
    assert_type(
        weft.select(weft.select(a), b).wait(),
        Selected[Literal[0], Selected[Literal[0], int]] | Selected[Literal[1], str],
    )


def select_takes_operations_and_known_policies(ch: weft.Channel[int]) -> None:
    weft.select(ch)  # type: ignore[call-overload]
    weft.select(ch.recv(), policy="fair")  # type: ignore[call-overload]


async def selecting_by_position_and_by_keyword(a: weft.Channel[int], b: weft.Receiver[int]) -> None:
    async for case, value in weft.selecting(a, b):
        assert_type(case, int)
        assert_type(value, int)
    for name, value in weft.selecting(first=a, second=b):
        assert_type(name, str)
        assert_type(value, int)
    for key, value in weft.selecting(a, second=b):
        assert_type(key, int | str)
        assert_type(value, int)


def selecting_can_be_added_to(a: weft.Channel[int], b: weft.Channel[int], clock: weft.Tick) -> None:
    events = weft.selecting(a=a)
    events.add("b", b)
    events.discard("a")
    events.add(1, b)  # type: ignore[arg-type]
    empty: weft.Selecting[tuple[str, int], float] = weft.selecting()
    empty.add(("x", 1), clock)
    for selected in empty:
        assert_type(selected, Selected[tuple[str, int], float])


def selecting_takes_channels(a: weft.Channel[int], tx: weft.Sender[int]) -> None:
    weft.selecting(a.recv())  # type: ignore[call-overload]
    weft.selecting(tx)  # type: ignore[call-overload]


def map_changes_the_result(a: Op[int]) -> None:
    assert_type(a.map(str), Op[str])
    assert_type(a.map(lambda n: [n]), Op[list[int]])


def timers_give_the_time(clock: weft.Tick) -> None:
    assert_type(weft.after(1), Op[float])
    assert_type(weft.sleep(0.5), Op[float])
    assert_type(weft.at(12.5), Op[float])
    assert_type(weft.tick(1).recv(), Op[float])
    clock.close()


def constants() -> None:
    assert_type(weft.always(3), Op[int])
    assert_type(weft.never(), Op[Never])


def files_come_back_as_given(sock: socket.socket) -> None:
    assert_type(weft.readable(3), Op[int])
    assert_type(weft.writable(sock), Op[socket.socket])
    weft.readable("a name")  # type: ignore[type-var]


def barriers_and_events(barrier: weft.Barrier, event: weft.Event) -> None:
    assert_type(barrier.sync(), Op[int])
    assert_type(barrier.parties, int)
    assert_type(barrier.waiting, int)
    assert_type(event.wait(), Op[bool])
    assert_type(event.is_set(), bool)
    assert_type(weft.select(barrier.sync(), event.wait()).wait().value, int | bool)
