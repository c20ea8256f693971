"""What passes between interpreters, and between processes, and what they cost, beside what the machine itself takes.

    python benches/cores.py                 some three minutes
    python benches/cores.py --only echo     one measurement; `--list` tells which there are
    python benches/cores.py --quick         does everything run and answer right?

Each figure is the median of `--rounds` rounds, with the least and the greatest; each in each round is of a fresh process
(cores_child.py, floor_semaphores.c). A ratio is that of two figures of one round. It prints Markdown tables and writes
benches/results/cores.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not benches/ itself, whose names could hide others

from benches import report  # noqa: E402
from benches.native import semaphores  # noqa: E402
from benches.run import Contender, progress  # noqa: E402

Answer = dict[str, float]


class Row(NamedTuple):
    """A figure: what is measured, and how the table has it."""

    text: str
    option: str
    n: int
    show: Callable[[float], str]
    fields: tuple[str, ...]
    cpu: int | None = None
    """On this core alone."""

    @property
    def key(self) -> str:
        return self.option if self.cpu is None else f"{self.option} on one core"


def microseconds(ns: float) -> str:
    return f"{ns / 1000:.1f} µs" if ns < 1e6 else f"{ns / 1e6:.1f} ms"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def per_second(rate: float) -> str:
    return f"{rate / 1e6:.2f} M/s"


def gigabytes(rate: float) -> str:
    return f"{rate / 1e9:.1f} GB/s"


def mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def echoes(cpu: int | None) -> list[Row]:
    show, fields = microseconds, ("p50", "p90")
    return [
        Row("two semaphores in C, two threads", "semaphores", 20_000, show, fields, cpu),
        Row("`Channel()`, rendezvous", "weft-0", 20_000, show, fields, cpu),
        Row("`Channel(1)`", "weft-1", 20_000, show, fields, cpu),
    ]


ROWS = {
    "echo": [
        *echoes(None),
        Row("`Channel()`, both spin", "weft-spin", 20_000, microseconds, ("p50", "p90")),
        Row("the standard library's queue", "queue", 100, microseconds, ("p50", "p90")),
        Row("the same, looking without a pause", "queue-busy", 10_000, microseconds, ("p50", "p90")),
        *echoes(0),
    ],
    "across": [
        Row("a bare Unix socket pair, from Python", "socket", 20_000, microseconds, ("p50", "p90")),
        Row("`Channel()`, rendezvous", "weft-0", 10_000, microseconds, ("p50", "p90")),
        Row("`Channel(1)`", "weft-1", 10_000, microseconds, ("p50", "p90")),
        Row("`Channel(8)`", "weft-8", 10_000, microseconds, ("p50", "p90")),
        Row("`Channel()`, both spin", "weft-spin", 10_000, microseconds, ("p50", "p90")),
        Row("`multiprocessing.Queue`", "queue", 10_000, microseconds, ("p50", "p90")),
    ],
    "small": [
        Row("ints, `send`", "ints", 1_000_000, per_second, ("per_second",)),
        Row("ints, `send_many` and `recv_many`", "ints-many", 1_000_000, per_second, ("per_second",)),
        Row("tuples of an int and a float, `send`", "tuples", 500_000, per_second, ("per_second",)),
        Row("the same, `send_many` and `recv_many`", "tuples-many", 500_000, per_second, ("per_second",)),
        Row("ints, the standard library's queue", "queue", 100_000, per_second, ("per_second",)),
    ],
    "large": [
        Row("1 MiB of `bytes`", "bytes", 3200, gigabytes, ("bytes_per_second",)),
        Row("the same, pickled and back", "pickle-bytes", 400, gigabytes, ("bytes_per_second",)),
        Row("8 MiB of a `memoryview`", "memoryview", 400, gigabytes, ("bytes_per_second",)),
        Row("an `array` of 8 MiB, pickled and back", "pickle-array", 50, gigabytes, ("bytes_per_second",)),
    ],
    "blocks": [
        Row("8 MiB of a `memoryview`, to a process", "to", 200, gigabytes, ("bytes_per_second",)),
        Row("from a process", "from", 200, gigabytes, ("bytes_per_second",)),
        Row("from one process to another", "across", 200, gigabytes, ("bytes_per_second",)),
        Row("8 MiB of `bytes`, to a process", "bytes", 200, gigabytes, ("bytes_per_second",)),
        Row("the same, `multiprocessing.Queue`", "queue", 30, gigabytes, ("bytes_per_second",)),
    ],
    "messages": [
        Row("ints, `send`, to a process", "ints", 300_000, per_second, ("per_second",)),
        Row("from a process", "from", 300_000, per_second, ("per_second",)),
        Row("from one process to another", "across", 300_000, per_second, ("per_second",)),
        Row("ints, `send_many` and `recv_many`, to a process", "ints-many", 500_000, per_second, ("per_second",)),
        Row("ints, `multiprocessing.Queue`", "queue", 100_000, per_second, ("per_second",)),
    ],
    "map": [
        Row("`Pool(1).map`", "1", 200, milliseconds, ("seconds",)),
        Row("`Pool(2).map`", "2", 200, milliseconds, ("seconds",)),
        Row('`Pool(1, on="process").map`', "process-1", 200, milliseconds, ("seconds",)),
        Row('`Pool(2, on="process").map`', "process-2", 200, milliseconds, ("seconds",)),
        Row("the same in one bare process", "bare-1", 200, milliseconds, ("seconds",)),
        Row("in two", "bare-2", 200, milliseconds, ("seconds",)),
    ],
    "start": [
        Row(
            '`on="interpreter"`, until its result; and in one that is idle',
            "weft",
            1,
            milliseconds,
            ("seconds", "cpu", "again"),
        ),
        Row("a bare interpreter, until it has run `pass`", "bare", 1, milliseconds, ("seconds", "cpu")),
    ],
    "memory": [
        Row("an interpreter that waits in a `recv`", "weft", 8, mebibytes, ("bytes",)),
        Row("a bare interpreter", "bare", 8, mebibytes, ("bytes",)),
    ],
}
TITLES = {
    "echo": "A round trip to another interpreter and back",
    "across": "A round trip to another process and back",
    "small": "Small values to another interpreter, buffered",
    "large": "Blocks of memory to another interpreter, sent until received",
    "blocks": "Blocks of memory between processes",
    "messages": "Small values between processes, buffered",
    "map": "Pure computing, 20 pieces",
    "start": "To start an interpreter",
    "memory": "Memory of each interpreter",
}
HEADS = {
    "p50": "p50",
    "p90": "p90",
    "per_second": "values per second",
    "bytes_per_second": "rate",
    "seconds": "time",
    "cpu": "processor's time",
    "again": "when idle",
    "bytes": "memory",
}


class Target(NamedTuple):
    """`over` divided by (or less) `under`, where there is one, is to be at least or at most `limit`."""

    text: str
    measurement: str
    over: str
    under: str
    field: str
    sense: str  # ">=" or "<="
    limit: float
    scale: float = 1
    less: bool = False


TARGETS = [
    Target("map: 1 interpreter / 2", "map", "1", "2", "seconds", ">=", 1.8),
    Target("map: 1 process / 2", "map", "process-1", "process-2", "seconds", ">=", 1.8),
    Target("map in bare processes: 1 / 2, what the machine gave", "map", "bare-1", "bare-2", "seconds", ">=", 1.8),
    Target("start, ms beyond a bare interpreter", "start", "weft", "bare", "seconds", "<=", 50, 1000, less=True),
    Target("the same, ms of the processor", "start", "weft", "bare", "cpu", "<=", 50, 1000, less=True),
    *(
        Target(
            f"echo, p50: {words} / semaphores{place}",
            "echo",
            f"{option}{place}",
            f"semaphores{place}",
            "p50",
            "<=",
            1.5,
        )
        for place in ("", " on one core")
        for option, words in (("weft-0", "rendezvous"), ("weft-1", "capacity 1"))
    ),
    Target("echo, p50 when both spin, µs", "echo", "weft-spin", "", "p50", "<=", 5, 1e-3),
    *(
        Target(f"{option}, million a second", "small", option, "", "per_second", ">=", 1, 1e-6)
        for option in ("ints", "ints-many", "tuples", "tuples-many")
    ),
    Target("1 MiB of bytes: weft / pickling", "large", "bytes", "pickle-bytes", "bytes_per_second", ">=", 20),
    *(
        target
        for option, words in (("weft-0", "rendezvous"), ("weft-1", "capacity 1"), ("weft-8", "capacity 8"))
        for target in (
            Target(f"echo of a process, p50: {words} / socket pair", "across", option, "socket", "p50", "<=", 1.3),
            Target(f"echo of a process, p50: {words} / multiprocessing", "across", option, "queue", "p50", "<=", 1),
        )
    ),
    *(
        target
        for option, words in (("to", "to a process"), ("from", "from a process"), ("across", "process to process"))
        for target in (
            Target(f"8 MiB {words}, GB/s", "blocks", option, "", "bytes_per_second", ">=", 2, 1e-9),
            Target(f"8 MiB {words}: weft / multiprocessing", "blocks", option, "queue", "bytes_per_second", ">=", 4),
        )
    ),
    *(
        Target(f"small values {words}: weft / multiprocessing", "messages", option, "queue", "per_second", ">=", 5)
        for option, words in (("ints", "to a process"), ("from", "from a process"), ("across", "process to process"))
    ),
    Target("8 MiB: memoryview / pickling", "large", "memoryview", "pickle-array", "bytes_per_second", ">=", 20),
]


def ask(measurement: str, row: Row, n: int, timeout: float) -> Answer | dict[str, str]:
    """One figure of one round; or why there is none, under "missing" or "error"."""
    if row.cpu is not None and not hasattr(os, "sched_setaffinity"):
        return {"missing": "this system does not keep a process on one core"}
    if row.option == "semaphores":
        try:
            command = [str(semaphores()), f"thread_ping_pong:{n}"]
        except RuntimeError as error:
            return {"missing": str(error)}
        if row.cpu is not None:
            command = [
                sys.executable,
                "-c",
                f"import os, sys; os.sched_setaffinity(0, {{{row.cpu}}}); os.execv(sys.argv[1], sys.argv[1:])",
                *command,
            ]
        answer = Contender("semaphores", command).ask([], timeout)[-1]
        return answer if "error" in answer else {"p50": answer["percentiles"][0], "p90": answer["p90"]}
    command = [sys.executable, "-m", "benches.cores_child", measurement, row.option, str(n)]
    return Contender("child", command).ask([] if row.cpu is None else ["--cpu", str(row.cpu)], timeout)[-1]


def measure(args: argparse.Namespace) -> dict[str, dict[str, list[dict]]]:
    """The answers of all rounds, by measurement and row. A round is everything once."""
    asked = [(name, row) for name, rows in ROWS.items() if name in args.only for row in rows]
    answers: dict[str, dict[str, list[dict]]] = {name: {row.key: [] for row in ROWS[name]} for name in args.only}
    for lap in range(args.rounds):
        for name, row in asked:
            progress(f"round {lap + 1} of {args.rounds}: {name}, {row.key}")
            few = min(row.n, max(row.n // 1000, 64)) if name != "memory" else 2
            answers[name][row.key].append(ask(name, row, few if args.quick else row.n, args.timeout))
    progress("")
    return answers


def note(answers: list[dict]) -> str:
    """Why there is no figure; nothing when there is one."""
    return next(
        (f"{kind}: {answer[kind]}" for answer in answers for kind in ("missing", "error") if kind in answer), ""
    )


def table(name: str, answers: dict[str, list[dict]]) -> list[str]:
    fields = max((row.fields for row in ROWS[name]), key=len)
    lines = [
        f"| {TITLES[name]} | " + " | ".join(HEADS[field] for field in fields) + " |",
        "|---" * (len(fields) + 1) + "|",
    ]
    for row in ROWS[name]:
        cells = [note(answers[row.key])]
        if not cells[0]:
            cells = []
            for field in row.fields:
                values = [answer[field] for answer in answers[row.key]]
                middle, least, most = map(row.show, (statistics.median(values), min(values), max(values)))
                cells.append(f"{middle} ({least} to {most})")
        cells += [""] * (len(fields) - len(cells))
        place = "" if row.cpu is None else ", all on one core"
        lines.append(f"| {row.text}{place} | " + " | ".join(cells) + " |")
    return lines


def judge(target: Target, answers: dict[str, list[dict]]) -> dict | None:
    """A target with what was measured; `kept` is None where the rounds leave it open. None: it was not measured."""
    over, under = answers.get(target.over, []), answers.get(target.under, [])
    if not over or note(over) or (target.under and (not under or note(under))):
        return None
    values = [answer[target.field] for answer in over]
    if target.under and target.less:
        values = [a - b[target.field] for a, b in zip(values, under)]
    elif target.under:
        values = [a / b[target.field] for a, b in zip(values, under)]
    values = [value * target.scale for value in values]
    median, least, most = statistics.median(values), min(values), max(values)
    kept = median >= target.limit if target.sense == ">=" else median <= target.limit
    words = {"text": target.text, "sense": target.sense, "limit": target.limit}
    return words | {
        "value": median,
        "least": least,
        "most": most,
        "kept": None if least < target.limit < most else kept,
    }


def told(result: dict) -> str:
    """The report."""
    here = result["machine"]
    out = [
        f"{here['cpu']}, {here['cores']} cores, {here['system']}, {here['python']}, load {here['load_at_start']} to "
        f"{here['load_at_end']}; {result['rounds']} rounds in {result['seconds']} s"
        + (", QUICK: a smoke test, the figures mean nothing" if result["quick"] else "")
    ]
    for name, answers in result["answers"].items():
        out += ["", *table(name, answers)]
    out += ["", "| What weft is held to | | | bound | |", "|---|---|---|---|---|"]
    for target in result["targets"]:
        verdict = {True: "kept", False: "MISSED", None: "unsure"}[target["kept"]]
        spread = f"{target['least']:.3g} to {target['most']:.3g}"
        out.append(
            f"| {target['text']} | {target['value']:.3g} | {spread} | {target['sense']} {target['limit']:g} | {verdict} |"
        )
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help="measurements, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=120, help="seconds until a figure is given up")
    parser.add_argument("--json", type=Path, default=ROOT / "benches" / "results" / "cores.json", help="where it goes")
    parser.add_argument("--quick", action="store_true", help="one round of few: does everything run and answer right?")
    parser.add_argument("--list", action="store_true", help="what there is")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:8}{title}" for name, title in TITLES.items()))
        return 0
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in ROWS]:
        print(f"cores.py: no measurement {unknown[0]!r}; there are {', '.join(ROWS)}", file=sys.stderr)
        return 1
    if args.quick:
        args.rounds = 1
    machine, began = report.machine(), time.monotonic()
    answers = measure(args)
    judged = [judge(target, answers.get(target.measurement, {})) for target in TARGETS]
    result = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine | {"load_at_end": report.load()},
        "rounds": args.rounds,
        "quick": args.quick,
        "answers": answers,
        "targets": [target for target in judged if target is not None],
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(told(result))
    failed = [
        f"{name}, {key}: {note(list_)}" for name, rows in answers.items() for key, list_ in rows.items() if note(list_)
    ]
    return int(any(": error: " in text for text in failed))


if __name__ == "__main__":
    sys.exit(main())
