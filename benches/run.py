"""weft beside its rivals: one table, one JSON file.

    python benches/run.py                                        everything, some fifteen minutes
    python benches/run.py --only pipe_0,ping_pong --rivals weft,asyncio,go
    python benches/run.py --quick                                does everything run and answer right?

Each cell is measured in a fresh interpreter, the rivals of a program in turn (A B C, A B C, ...), and the medians
of the rounds are compared. README.md tells how to read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not benches/ itself, whose names could hide others

from benches import report  # noqa: E402
from benches.native import NATIVE  # noqa: E402
from benches.programs import PROGRAMS, Program  # noqa: E402
from benches.rivals import RIVALS  # noqa: E402

REFERENCE = "weft"


@dataclass
class Contender:
    """A rival that was found, how to start it, what it can do."""

    name: str
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    missing: str = ""
    programs: dict[str, dict] = field(default_factory=dict)

    def ask(self, arguments: list[str], timeout: float) -> list[dict]:
        """Run it; one answer a line. What went wrong is an answer too, under "error"."""
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                capture_output=True,
                text=True,
                timeout=timeout,
                cwd=ROOT,
                env=os.environ | self.environment,
                check=False,
            )
            out, error = done.stdout, ""
            if done.returncode:
                last = (done.stderr.strip().splitlines() or [""])[-1]
                error = f"exit code {done.returncode}: {last[:120]}"
        except subprocess.TimeoutExpired as late:
            out, error = (late.stdout or b"").decode(), f"no answer in {timeout:g} s"
        answers = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return [*answers, {"error": error}] if error else answers


def find(name: str) -> Contender:
    if name in NATIVE:
        build, environment = NATIVE[name]
        try:
            contender = Contender(name, [str(build())], environment)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            return Contender(name, missing=str(error))
        if name == "posix":  # one program, no list
            contender.version = "C"
            contender.programs = {"thread_ping_pong": {"how": "two bare semaphores: floor", "share": 1.0}}
            return contender
    else:
        contender = Contender(name, [sys.executable, "-m", "benches.child", name])
    answer = contender.ask(["--list"], 60)[-1]
    if "programs" not in answer:
        contender.missing = answer.get("missing") or answer.get("error") or "no list of programs"
        return contender
    contender.version, contender.programs = answer["version"], answer["programs"]
    return contender


def size(program: Program, contender: Contender, scale: float) -> int:
    return program.size(scale * contender.programs[program.name]["share"])


def measure(programs: list[Program], contenders: list[Contender], args: argparse.Namespace) -> dict[tuple, list[dict]]:
    """All answers by (program, rival), one per round."""
    answers: dict[tuple, list[dict]] = {}

    def ask(contender: Contender, some: list[Program]) -> None:
        words = [f"{program.name}:{size(program, contender, args.scale)}" for program in some]
        options = ["--seconds", str(args.seconds)]
        if contender.name in RIVALS:
            options += ["--gc", args.gc]
        found = contender.ask([*options, *words], args.timeout)
        told = {answer["program"]: answer for answer in found if "program" in answer}
        why = next((answer.get("error") or answer.get("missing") for answer in found if "program" not in answer), None)
        for program in some:
            answer = told.get(program.name, {"program": program.name, "error": why or "no answer"})
            answers.setdefault((program.name, contender.name), []).append(answer)

    if args.quick:  # one process a rival: starting interpreters would be most of the time
        for contender in contenders:
            some = [program for program in programs if program.name in contender.programs]
            if some:
                progress(contender.name)
                ask(contender, some)
        return answers
    for number, program in enumerate(programs, 1):
        able = [contender for contender in contenders if program.name in contender.programs]
        for lap in range(args.rounds):
            for contender in able:
                progress(f"{number}/{len(programs)} {program.name}, round {lap + 1}, {contender.name}")
                if not any("error" in answer for answer in answers.get((program.name, contender.name), ())):
                    ask(contender, [program])
    return answers


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def summarise(programs: list[Program], contenders: list[Contender], answers: dict, scale: float) -> list[dict]:
    """The table's cells, with their status: ok, failed, none (it has no such thing), not installed."""
    cells = []
    for program in programs:
        for contender in contenders:
            cell = {"program": program.name, "rival": contender.name, "status": "none", "unit": program.unit}
            cells.append(cell)
            if contender.missing:
                cell |= {"status": "not installed", "note": contender.missing}
            if program.name not in contender.programs:
                continue
            cell |= {"how": contender.programs[program.name]["how"], "n": size(program, contender, scale)}
            rounds = answers[program.name, contender.name]
            wrong = next((answer["error"] for answer in rounds if "error" in answer), None)
            if wrong:
                cell |= {"status": "failed", "note": wrong}
                continue
            medians = [statistics.median(answer["ns"]) for answer in rounds]
            middle = statistics.median(medians)
            cell |= {
                "status": "ok",
                "rounds_ns": medians,
                "cpu_ns": statistics.median(statistics.median(answer["cpu"]) for answer in rounds),
                "median_ns": middle,
                "min_ns": min(medians),
                "max_ns": max(medians),
                "mad_ns": statistics.median(abs(each - middle) for each in medians),
            }
            if rounds[0]["percentiles"]:
                for name, values in zip(("p50_ns", "p99_ns", "p999_ns"), zip(*(a["percentiles"] for a in rounds))):
                    cell[name] = statistics.median(values)
        row = {cell["rival"]: cell for cell in cells if cell["program"] == program.name}
        reference = row.get(REFERENCE, {}).get("median_ns")
        for cell in row.values():
            if reference and cell["status"] == "ok":
                cell["ratio_to_weft"] = cell["median_ns"] / reference
    return cells


def chosen(given: str | None, known: list[str], what: str) -> list[str]:
    """The names asked for, in the order they are known in. A word with a * at its end takes all that begin with it."""
    if not given:
        return known
    words = given.split(",")
    for word in words:
        if word not in known and not (word.endswith("*") and any(name.startswith(word[:-1]) for name in known)):
            raise SystemExit(f"run.py: no {what} {word!r}; there are: {', '.join(known)}")
    return [name for name in known if any(name == w or (w.endswith("*") and name.startswith(w[:-1])) for w in words)]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PROGRAM,...", help="these programs (thread_* takes all that begin so)")
    parser.add_argument("--rivals", metavar="RIVAL,...", help="these rivals")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per cell (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="times each program's size (default 1)")
    parser.add_argument(
        "--seconds", type=float, default=0.25, help="repeat within a round until this long (default 0.25)"
    )
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds until a rival is given up (default 180)")
    parser.add_argument("--cpu", type=int, metavar="N", help="everything on this one core (where the system can)")
    parser.add_argument("--gc", choices=["on", "off"], default="on", help="the collector, for every Python rival")
    parser.add_argument("--json", type=Path, default=ROOT / "benches/results/latest.json", help="where the JSON goes")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one tiny round")
    parser.add_argument("--list", action="store_true", help="name the programs and the rivals, measure nothing")
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.seconds, args.scale = 1, 0.0, min(args.scale, 0.005)
    if args.rounds < 1 or args.scale <= 0:
        parser.error("--rounds and --scale must be positive")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    rivals = chosen(args.rivals, [*RIVALS, *NATIVE], "rival")
    programs = [PROGRAMS[name] for name in chosen(args.only, list(PROGRAMS), "program")]
    if args.list:
        print("programs:", *(f"  {program.name:20} {program.title}" for program in programs), sep="\n")
        print("rivals:", *(f"  {name}" for name in rivals), sep="\n")
        return 0
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})  # the rivals inherit it
    began, here = time.time(), report.machine()
    contenders = [find(name) for name in rivals]
    answers = measure(programs, contenders, args)
    progress("")
    cells = summarise(programs, contenders, answers, args.scale)
    result = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seconds": round(time.time() - began, 1),
        "machine": here | {"load_at_end": report.load()},
        "settings": {
            "cpu": args.cpu,
            "rounds": args.rounds,
            "scale": args.scale,
            "seconds": args.seconds,
            "gc": args.gc,
            "quick": args.quick,
        },
        "rivals": {
            each.name: {"status": "not installed", "note": each.missing}
            if each.missing
            else {"status": "ok", "version": each.version}
            for each in contenders
        },
        "cells": cells,
        "targets": report.targets(cells),
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report.table(result))
    print(f"\n{args.json}: the same and every round, as JSON")
    return 1 if any(cell["status"] == "failed" and cell["rival"] == REFERENCE for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
