"""`run`: an entry point for who wants one. Nothing in weft needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

from weft._entry import is_async, reject_coroutine, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(
    main: Callable[[*Ts], Coroutine[Any, Any, T]],
    *args: *Ts,
    backend: Literal["asyncio"] = "asyncio",
    debug: bool | None = None,
) -> T:
    """Start an event loop, run `main(*args)` in it, and return its result. It is `asyncio.run` without the coroutine
    object.

    Args:
        main: an `async def`, not yet called.
        backend: what to run it with. "asyncio" is all there is so far.
        debug: asyncio's debug mode; None leaves it to the environment (`PYTHONASYNCIODEBUG`).

    Raises:
        TypeError: `main` is not an `async def`, or was called already.
        ValueError: there is no such backend.
        RuntimeError: this thread already runs a loop.
    """
    if backend != "asyncio":
        raise ValueError(f"backend={backend!r} is not there; there is 'asyncio'")
    reject_coroutine(main, "weft.run(main, arg)")
    if not is_async(main):
        raise TypeError(f"weft.run() takes an `async def` function and its arguments; {main!r} is none")
    if running_loop() is not None:
        raise RuntimeError(
            "weft.run() starts a loop, and this thread already runs one: `await` the function here instead"
        )
    import asyncio  # here, not above: `import weft` leaves asyncio alone

    return asyncio.run(main(*args), debug=debug)
