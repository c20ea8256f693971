"""How weft's processes scale: nanoseconds per communication, memory per parked process, latency under load.

    python benches/scale.py                 beside asyncio's tasks and goroutines, up to a million; a quarter of an hour
    python benches/scale.py --most 10000    none with more processes than that
    python benches/scale.py --quick         does everything run and answer right?

Each figure is the median of `--rounds` rounds, each in a fresh process (scale_child.py, go/scale.go). A
round is everything once, so that a machine that slows down does so for all.
It prints Markdown tables and writes benches/results/scale.json, from which plots.py draws.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not benches/ itself, whose names could hide others

from benches import report  # noqa: E402
from benches.run import Contender, find, progress  # noqa: E402

PYTHON = ("weft-processes", "asyncio")
GO = ("go-1", "go")  # one thread, and one for each core
NAMES = {
    "weft-processes": "weft, processes of a Group",
    "asyncio": "asyncio, tasks and Queue(1)",
    "go-1": "Go on one thread",
    "go": "Go on all cores",
}
PROCESSES = [10**power for power in range(7)]
PROCESSES[0] = 2  # fewer do not communicate
PARKED = [10**5, 10**6]
SHAPES = ("ring", "crowd")
MOST = {"asyncio": 10**5}  # a ring of a million queues takes 5 GB and a minute
TIMES = ("p50", "p90", "p99", "p99.9", "max")


def contenders() -> list[Contender]:
    """The rivals, by the programs that measure them."""
    found = []
    for name in PYTHON:
        version = report.machine()["python"]
        found.append(Contender(name, [sys.executable, "-m", "benches.scale_child", name], version=version))
    for name in GO:
        rival = find(name)
        rival.command = [*rival.command, "--scale"]
        found.append(rival)
    return found


def measurements(args: argparse.Namespace) -> list[tuple[str, int, str]]:
    """What is asked for: the measurement, its number, its option."""
    sizes = [n for n in PROCESSES if n <= args.most]
    asked = [(shape, n, str(args.communications)) for n in sizes for shape in SHAPES]
    parked = [n for n in PARKED if n <= args.most] or [args.most]
    asked += [("memory", n, channels) for n in parked for channels in ("shared", "own")]
    return asked + [("latency", args.ticks, pair) for pair in ("chatty", "quiet")]


def measure(args: argparse.Namespace, rivals: list[Contender]) -> list[dict]:
    """One cell for each measurement of each rival, from all rounds. A round is everything once: sizes are compared, too."""
    asked = [
        (*measurement, rival)
        for measurement in measurements(args)
        for rival in rivals
        if measurement[0] == "latency" or measurement[1] <= MOST.get(rival.name, args.most)
    ]
    rounds: list[list[dict]] = [[] for _ in asked]
    for lap in range(args.rounds):
        for (measurement, n, option, rival), answers in zip(asked, rounds):
            progress(f"round {lap + 1} of {args.rounds}: {measurement} {n} {option}, {rival.name}")
            answers.append(rival.ask([measurement, str(n), option], args.timeout)[-1])
    progress("")
    cells = []
    for (measurement, n, option, rival), answers in zip(asked, rounds):
        wrong = next((answer["error"] for answer in answers if "error" in answer), None)
        told = {"error": wrong} if wrong else summary(answers)
        cells.append({"measurement": measurement, "rival": rival.name, "n": n, "option": option} | told)
    return cells


def summary(answers: list[dict]) -> dict:
    """The median of the rounds, and of single figures the least and the greatest."""
    found: dict = {}
    for key, first in answers[0].items():
        values = [answer[key] for answer in answers]
        if isinstance(first, list):
            found[key] = [statistics.median(column) for column in zip(*values)]
            found[key][-1] = max(value[-1] for value in values)  # the worst there was
        elif first is not None:
            found[key] = statistics.median(values)
            found[f"{key}_min"], found[f"{key}_max"] = min(values), max(values)
    return found


def cell(result: dict, measurement: str, rival: str, n: int, option: str = "") -> dict:
    """What was measured; empty where it was not. Without an option, the first there is."""
    for each in result["cells"]:
        if (each["measurement"], each["rival"], each["n"]) == (measurement, rival, n) and option in (
            "",
            each["option"],
        ):
            return each if "error" not in each else {}
    return {}


def sizes(result: dict, measurement: str) -> list[int]:
    return sorted({each["n"] for each in result["cells"] if each["measurement"] == measurement})


def rivals(result: dict) -> list[str]:
    return [name for name, told in result["rivals"].items() if told["status"] == "ok"]


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]]


def tables(result: dict) -> str:
    names = rivals(result)
    head = [NAMES[name] for name in names]
    out = []
    for shape, title in (
        ("ring", "Nanoseconds per communication: a token goes round N processes"),
        ("crowd", "The same between two processes, while N - 2 others wait"),
    ):
        lines = []
        for n in sizes(result, shape):
            cells = [cell(result, shape, name, n) for name in names]
            lines.append(
                [f"{n:,}", *(f"{c['ns']:.0f} ({c['ns_min']:.0f} to {c['ns_max']:.0f})" if c else "" for c in cells)]
            )
        out += [title, "", *table(["N", *head], lines), ""]
    lines = []
    for n in sizes(result, "memory"):
        for channels, title in (("shared", "one channel for all"), ("own", "a channel each")):
            cells = [cell(result, "memory", name, n, channels) for name in names]
            lines.append([f"{n:,}, {title}", *(f"{c['bytes']:.0f}" if c else "" for c in cells)])
    out += ["Bytes per process that waits", "", *table(["", *head], lines), ""]
    if parts := result["parts"]:
        listed = ", ".join(f"{name} {size}" for name, size in parts.items())
        out += [f"Of weft's, in bytes: {listed}", ""]
    lines = []
    for kind, title in (
        ("sleep", "a task that sleeps"),
        ("call", "a callback of the loop"),
        ("round_trip", "a round trip"),
    ):
        for pair in ("chatty", "quiet"):
            for name in names:
                for n in sizes(result, "latency"):
                    if times := cell(result, "latency", name, n, pair).get(kind):
                        lines.append([title, pair, NAMES[name], *map(report.time_text, times)])
    out += ["Ticks of a millisecond beside two processes: how late they are told", ""]
    return "\n".join([*out, *table(["", "the two", "", *TIMES], lines)])


class Target(NamedTuple):
    text: str
    figure: float
    limit: float


def targets(result: dict) -> list[Target]:
    """What weft's processes are held to: each figure is at most its limit."""
    weft, found = "weft-processes", []
    for shape in SHAPES:
        few, many = (cell(result, shape, weft, n) for n in (100, 10**6))
        if few and many:
            found.append(
                Target(f"{shape}, a communication: of 1,000,000 processes / of 100", many["ns"] / few["ns"], 2)
            )
    for n in sizes(result, "memory"):
        if parked := cell(result, "memory", weft, n, "shared"):
            found.append(Target(f"bytes per process that waits, {n:,} of them", parked["bytes"], 450))
    for n in sizes(result, "latency"):
        if ticks := cell(result, "latency", weft, n, "chatty"):
            found.append(Target("ms until a callback's tick, p99, beside two that talk", ticks["call"][2] / 1e6, 1))
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each in a fresh process (default 5)")
    parser.add_argument("--most", type=int, default=10**6, help="processes at the most (default 1000000)")
    parser.add_argument(
        "--communications", type=int, default=200_000, help="in each round at the least (default 200000)"
    )
    parser.add_argument("--ticks", type=int, default=5000, help="of a millisecond, in each round (default 5000)")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds until a rival is given up (default 300)")
    parser.add_argument("--json", type=Path, default=ROOT / "benches/results/scale.json", help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one tiny round")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.most, args.communications, args.ticks = 1, min(args.most, 10), 100, 10
    if args.rounds < 1 or args.most < 2:
        parser.error("--rounds must be 1 or more, --most 2 or more")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    began, here = time.time(), report.machine()
    found = contenders()
    there = [rival for rival in found if not rival.missing]
    cells = measure(args, there)
    parts = next(rival for rival in found if rival.name == "weft-processes").ask(["parts"], args.timeout)[-1]
    result = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "machine": here | {"load_at_end": report.load()},
        "settings": {key: getattr(args, key) for key in ("rounds", "most", "communications", "ticks", "quick")},
        "rivals": {
            rival.name: {"status": "not installed", "note": rival.missing}
            if rival.missing
            else {"status": "ok", "version": rival.version}
            for rival in found
        },
        "parts": {} if "error" in parts else parts,  # PyPy has no sizes
        "cells": cells,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{here['cpu']}, {here['cores']} cores, {here['system']}, {here['python']}", end=", ")
    print(f"load {here['load_at_start']} to {report.load()}, rounds {args.rounds}\n\n{tables(result)}")
    print("\nWhat weft is held to: measured, at the most")
    for target in targets(result):
        verdict = "kept" if target.figure <= target.limit else "MISSED"
        print(f"  {verdict:6}  {target.figure:8.2f}  {target.limit:5g}  {target.text}")
    print()
    failed = [each for each in cells if "error" in each]
    for each in failed:
        print(f"FAILED: {each['measurement']} {each['n']} {each['option']}, {each['rival']}: {each['error']}")
    for rival in found:
        print(f"{rival.name}: NOT INSTALLED: {rival.missing}" if rival.missing else f"{rival.name}: {rival.version}")
    print(f"\n{args.json}: the same as JSON")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
