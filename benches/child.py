"""One interpreter for one rival: `python -m benches.child RIVAL --list` or `... RIVAL PROGRAM:N ...`.

Prints one JSON object per program, the same as the programs in Go and C do:
    {"program", "ns": [per message, one per repeat], "cpu": [the same of the processor's time],
     "percentiles": [p50, p99, p99.9] or null}                                  or {"program", "error"}
Imports, the loop's creation and one warm-up of a tenth of the size are not timed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.metadata
import inspect
import json
import platform
import sys

from benches.programs import PROGRAMS, Does, Program, Run, now
from benches.rivals import RIVALS, Rival


def percentiles(samples: list[int]) -> list[int] | None:
    if not samples:
        return None
    samples = sorted(samples)
    return [samples[min(int(len(samples) * p), len(samples) - 1)] for p in (0.5, 0.99, 0.999)]


def once(program: Program, does: Does, n: int, runner: asyncio.Runner) -> tuple[float, float, list[int]]:
    """One execution, checked: nanoseconds per message (wall, processor) and the samples."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not on PyPy
        gc.freeze()  # what the libraries loaded is not walked again; collection stays on
    if inspect.iscoroutinefunction(does.function):

        async def timed() -> tuple[Run, int, tuple[int, int]]:
            run = Run(n)
            answer = await does.function(run, *does.args)
            return run, answer, run.elapsed()

        run, answer, elapsed = runner.run(timed())
    else:
        run = Run(n)
        answer = does.function(run, *does.args)
        elapsed = run.elapsed()
    if answer != program.answer(n):
        raise AssertionError(f"wrong answer {answer}, expected {program.answer(n)}")
    wall, cpu = (each / program.messages(n) for each in elapsed)
    return wall, cpu, run.samples


def measure(program: Program, does: Does, n: int, seconds: float, runner: asyncio.Runner) -> dict:
    once(program, does, program.size(n / program.n / 10), runner)
    times: list[float] = []
    cpus: list[float] = []
    samples: list[int] = []
    began = now()
    while not times or (now() - began < seconds * 1e9 and len(times) < 20):
        wall, cpu, some = once(program, does, n, runner)
        times.append(wall)
        cpus.append(cpu)
        samples += some
    return {"program": program.name, "ns": times, "cpu": cpus, "percentiles": percentiles(samples)}


def version(rival: Rival) -> str:
    if not rival.needs:
        return f"{platform.python_implementation()} {platform.python_version()}"
    found = []
    for name in rival.needs:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} {getattr(importlib.import_module(name), '__version__', '?')}")
    return ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM:N")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.0, help="repeat until this long was measured")
    parser.add_argument("--gc", choices=["on", "off"], default="on")
    args = parser.parse_intermixed_args()
    rival = RIVALS[args.rival]
    try:
        for name in rival.needs:
            importlib.import_module(name)
        table = getattr(importlib.import_module(f"benches.rivals.{rival.module}"), rival.table)
    except Exception as error:  # whatever an old library does on a new interpreter belongs in the report
        print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
        return 0
    if args.list:
        programs = {
            name: {"how": does.how, "share": does.share}
            for name, does in table.items()
            if rival.loop == "asyncio" or inspect.iscoroutinefunction(does.function)  # else no loop is in it
        }
        print(json.dumps({"version": version(rival), "programs": programs}))
        return 0
    if args.gc == "off":
        gc.disable()
    factory = importlib.import_module("uvloop").new_event_loop if rival.loop == "uvloop" else asyncio.new_event_loop
    for word in args.programs:
        name, _, n = word.partition(":")
        with asyncio.Runner(loop_factory=factory) as runner:
            try:
                result = measure(PROGRAMS[name], table[name], int(n), args.seconds, runner)
            except Exception as error:
                result = {"program": name, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
