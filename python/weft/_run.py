"""`run`: an entry point for who wants one. Nothing in weft needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, TypeVarTuple

from weft._entry import is_async, reject_coroutine, running_loop
from weft._weft import _scheduler_here  # pyright: ignore[reportPrivateUsage]

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(
    main: Callable[[*Ts], Coroutine[Any, Any, T]],
    *args: *Ts,
    backend: Literal["asyncio", "trio"] = "asyncio",
    debug: bool | None = None,
    workers: int | None = None,
) -> T:
    """Start an event loop, run `main(*args)` in it, and return its result. It is `asyncio.run` without the coroutine
    object, or `trio.run`.

    Args:
        main: an `async def`, not yet called.
        backend: what to run it with: "asyncio", or "trio", which has to be installed.
        debug: asyncio's debug mode; None leaves it to the environment (`PYTHONASYNCIODEBUG`). trio has none.
        workers: start so many workers as well (`Pool`): `g.spawn(f, x, on="pool")` in any group runs in one of them.

    Raises:
        TypeError: `main` is not an `async def`, or was called already.
        ValueError: there is no such backend, or `debug` was given for trio.
        ImportError: trio is not installed.
        RuntimeError: this thread already runs a loop.
    """
    if backend not in ("asyncio", "trio"):
        raise ValueError(f"backend={backend!r} is not there; there are 'asyncio' and 'trio'")
    reject_coroutine(main, "weft.run(main, arg)")
    if not is_async(main):
        raise TypeError(f"weft.run() takes an `async def` function and its arguments; {main!r} is none")
    if running_loop() is not None or _scheduler_here() is not None:
        raise RuntimeError(
            "weft.run() starts a loop, and this thread already runs one: `await` the function here instead"
        )
    result: T = (
        _run(main, args, backend, debug) if workers is None else _run_with_workers(main, args, backend, debug, workers)
    )
    return result


def _run_with_workers(main: Any, args: tuple[Any, ...], backend: str, debug: bool | None, number: int) -> Any:
    from contextvars import copy_context

    from weft._pool import Workers, current

    workers = Workers(number, None)
    context = copy_context()
    context.run(current.set, workers)
    workers.start()
    try:
        return context.run(_run, main, args, backend, debug)
    finally:
        workers.end()


def _run(main: Any, args: tuple[Any, ...], backend: str, debug: bool | None) -> Any:
    if backend == "trio":
        if debug is not None:
            raise ValueError("debug= is asyncio's; trio has no such mode")
        import trio

        return trio.run(main, *args)
    import asyncio  # here, not above: `import weft` leaves asyncio alone

    return asyncio.run(main(*args), debug=debug)
