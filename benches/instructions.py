"""How many instructions a message takes: the programs of run.py under callgrind.

    python benches/instructions.py                                              some of the programs, ten minutes
    python benches/instructions.py --only pipe_0 --rivals weft,asyncio          any of them
    python benches/instructions.py --only pipe_0 --rivals weft-processes --parts     and in which part of the program
    python benches/instructions.py --only spawn_join --few 1000 --many 20000    between other sizes

Unlike times these hardly differ from run to run, on a busy machine either; they do between interpreters and processors. An
instruction is not a unit of time: one that waits for memory takes as long as hundreds that do not. callgrind.py says how they
are counted. It prints a Markdown table and writes benches/results/instructions.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not benches/ itself, whose names could hide others

from benches import callgrind, report  # noqa: E402
from benches.programs import PROGRAMS  # noqa: E402
from benches.rivals import RIVALS  # noqa: E402
from benches.run import chosen, find, progress  # noqa: E402

USUAL = (
    "pipe_0,pipe_128,recv_ready,select2_ready,spawn_join,ring,floor_await,floor_step,floor_send,floor_switch",
    "weft,weft-processes,weft-trio,asyncio,trio,python",
)

# The part of the work that a function's own instructions belong to: the first whose pattern is found in "file:function".
PARTS = {
    "weft: the channel": r"weft-core/|weft_core|::try_channel",
    "weft: the loop's queue, and stepping a task": r"_weft::(home|task|group)::",
    "weft: parking and waking": r"_weft::wake|OpObject(>)?::(park|wake|woke|settle|step_parked)|drop_in_place.*(Sleeper|Waker)",
    "weft: making and ending operations": r"_weft::(op::object|channel|stop|origin)::",
    "weft: into an await and out of it": r"_weft|drop_in_place",
    "dictionaries: asyncio's current task, names": r"Objects/dictobject|[Dd]ict|PyObject_Hash|Py_HashPointer|_asyncio",
    "the context of each task": r"PyContext|contextvars",
    "memory: the allocator and the collector's list": r"alloc|PyObject_(Free|GC_|Init)|_Py_NewReference|Python/gc",
    "exceptions: how an await ends": r"PyErr|FetchStopIteration|PyType_IsSubtype",
    "thread-local variables, where libpython is a shared library": r"tls_get_addr",
    "the interpreter: sending into coroutines and awaiting": r"PyGen|PyCoro|PyIter|gen_|coro_",
    "the interpreter: bytecode, calls, integers": r"",
}


def parts(functions: dict[str, float]) -> dict[str, float]:
    found = dict.fromkeys(PARTS, 0.0)
    for function, instructions in functions.items():
        found[next(part for part, pattern in PARTS.items() if re.search(pattern, function))] += instructions
    return found


def table(cells: list[dict]) -> str:
    """A row for each program, a column for each rival."""
    rivals = list(dict.fromkeys(cell["rival"] for cell in cells))
    counted = {(cell["program"], cell["rival"]): f"{cell['instructions']:,.0f}" for cell in cells}
    lines = [["program, per", *rivals], ["---"] + ["---:"] * len(rivals)]
    for name in dict.fromkeys(cell["program"] for cell in cells):
        lines.append([f"{name}, {PROGRAMS[name].unit}", *(counted.get((name, rival), "") for rival in rivals)])
    out = ["| " + " | ".join(line) + " |" for line in lines]
    for cell in cells:
        if found := cell.get("parts"):
            out += ["", f"| {cell['program']}, {cell['rival']} | instructions | of all |", "| --- | ---: | ---: |"]
            ordered = sorted(found.items(), key=lambda each: -each[1])
            share = 100 / cell["instructions"]
            out += [f"| {part} | {own:,.0f} | {own * share:.0f} % |" for part, own in ordered if own * share >= 0.5]
    return "\n".join(out)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PROGRAM,...", default=USUAL[0], help="these programs of run.py")
    parser.add_argument("--rivals", metavar="RIVAL,...", default=USUAL[1], help="these rivals of run.py, in Python")
    parser.add_argument("--few", type=int, default=2_000, help="the smaller size (default 2000)")
    parser.add_argument("--many", type=int, default=12_000, help="the greater size (default 12000)")
    parser.add_argument("--parts", action="store_true", help="also the parts of the work")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benches/results/instructions.json", help="where the JSON goes"
    )
    args = parser.parse_args(argv)
    programs = [PROGRAMS[name] for name in chosen(args.only, list(PROGRAMS), "program")]
    names = chosen(args.rivals, list(RIVALS), "rival")
    if why := callgrind.missing():
        print(f"instructions.py: {why}", file=sys.stderr)
        return 1
    cells = []
    for name in names:
        rival = find(name)
        if rival.missing:
            print(f"{name}: NOT INSTALLED: {rival.missing}")
        for program in programs:
            if program.name in rival.programs:
                progress(f"{name} {program.name}")
                few, many = (program.size(n / program.n) for n in (args.few, args.many))
                count = callgrind.count(name, program, few, many)
                cell = {"program": program.name, "rival": name, "few": few, "many": many, "instructions": count.total}
                cells.append(cell | ({"parts": parts(count.functions)} if args.parts else {}))
    progress("")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"machine": report.machine(), "cells": cells}, indent=1) + "\n")
    print(f"{report.machine()['python']}: instructions\n\n{table(cells)}\n\n{args.json}: the same as JSON")
    return 0


if __name__ == "__main__":
    sys.exit(main())
