"""What type checkers make of groups, processes and run. It is checked, not run; see test_types.py."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import weft


async def fetch(url: str, times: int = 1) -> bytes:
    return url.encode() * times


def count(data: bytes) -> int:
    return len(data)


class Worker:
    async def work(self, n: int) -> str:
        return str(n)


async def a_process_gives_what_its_function_returns() -> None:
    async with weft.Group() as group:
        assert_type(group, weft.Group)
        p = group.spawn(fetch, "here", 2)
        assert_type(p, weft.Process[bytes])
        assert_type(p.join(), weft.Op[bytes])
        assert_type(await p.join(), bytes)
        assert_type(p.result(), bytes)
        assert_type(p.done, bool)
        assert_type(p.cancelled(), bool)
        assert_type(p.name, str)
        assert_type(group.spawn(count, b"1"), weft.Process[int])
        assert_type(group.spawn(Worker().work, 1), weft.Process[str])
        assert_type(group.spawn(fetch, "here", 2, on="thread", name="fetcher"), weft.Process[bytes])
        assert_type(group.spawn(count, b"1", on="thread"), weft.Process[int])
        assert_type(group.spawn(lambda: 3.5), weft.Process[float])
        # Arguments with a default may be left out.
        assert_type(group.spawn(fetch, "here"), weft.Process[bytes])


async def anything_that_gives_an_awaitable_can_be_a_task(ch: weft.Channel[str]) -> None:
    async with weft.Group() as group:
        assert_type(group.spawn(ch.recv, on="task"), weft.Process[str])


async def what_returns_an_operation_gives_what_that_completes_with(ch: weft.Channel[str]) -> None:
    async with weft.Group() as group:
        assert_type(group.spawn(ch.send, "v"), weft.Process[None])
        assert_type(group.spawn(ch.recv), weft.Process[str])
        assert_type(group.spawn(ch.recv, on="thread"), weft.Process[str])
        assert_type(group.spawn(ch.recv, on="greenlet"), weft.Process[str])
        assert_type(group.spawn(ch.send, "v", on="task"), weft.Process[None])
        assert_type(group.spawn(weft.sleep, 1), weft.Process[float])
        group.spawn(ch.send, 3)  # type: ignore[arg-type]


async def a_place_elsewhere_changes_no_type(group: weft.Group) -> None:
    assert_type(group.spawn(fetch, "here", 2, on="process"), weft.Process[bytes])
    assert_type(group.spawn(fetch, "here", on="interpreter"), weft.Process[bytes])
    assert_type(group.spawn(count, b"1", on="process"), weft.Process[int])
    assert_type(group.spawn(count, b"1", on="interpreter"), weft.Process[int])
    assert_type(group.spawn(count, b"1", on="pool"), weft.Process[int])
    async with weft.Pool(2, on="process") as pool:
        assert_type(pool.spawn(fetch, "here", 2), weft.Process[bytes])
        assert_type(pool.spawn(count, b"1", worker=1), weft.Process[int])
        pool.spawn(count, "1")  # type: ignore[arg-type]
        for length in pool.map(count, [b"1"]):
            assert_type(length, int)
        async for content in pool.map(fetch, ["here"]):
            assert_type(content, bytes)


def spawn_checks_the_arguments(group: weft.Group) -> None:
    group.spawn(fetch)  # type: ignore[call-arg, arg-type]
    group.spawn(fetch, 1)  # type: ignore[arg-type]
    group.spawn(count, b"1", b"2")  # type: ignore[call-arg, arg-type]
    group.spawn(count, b"1", on="task")  # type: ignore[call-overload]
    group.spawn(count, b"1", on="coroutine")  # type: ignore[call-overload]
    group.spawn(fetch("here"))  # type: ignore[call-overload]


def a_group_can_be_entered_both_ways_and_ended(group: weft.Group) -> None:
    with group as same:
        assert_type(same, weft.Group)
        same.cancel_after(2)
        same.cancel()
    assert_type(group.cancelled, bool)


async def a_return_in_a_block_is_a_return() -> int:
    async with weft.Group():
        return 1


def in_both_kinds() -> int:
    with weft.Group():
        return 1


def a_process_is_covariant_in_use(p: weft.Process[bool]) -> int:
    return p.result()


def run_gives_what_main_returns() -> None:
    assert_type(weft.run(fetch, "here", 1), bytes)
    assert_type(weft.run(fetch, "here", 1, debug=True), bytes)
    weft.run(fetch("here"))  # type: ignore[arg-type]
    weft.run(count, b"1")  # type: ignore[arg-type]
    weft.run(fetch, 1, 1)  # type: ignore[arg-type]
    assert_type(weft.run(fetch, "here", 1, backend="trio"), bytes)
    weft.run(fetch, "here", 1, backend="twisted")  # type: ignore[arg-type]
