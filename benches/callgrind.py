"""One program of one rival under callgrind: how many instructions it takes, and in which functions.

Two sizes are run, and the difference of the counts divided by the difference of the messages: what the interpreter's start and
the imports take falls out. No time plays a part in it, so other programs do not disturb the count; what goes by a clock is
given a slow one (slow_clock.c).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benches import native
from benches.programs import Program

ROOT = Path(__file__).resolve().parent.parent


class Count(NamedTuple):
    """Instructions per message: all, and each function's own, by "file:function [object]" as callgrind_annotate names it."""

    total: float
    functions: dict[str, float]


def missing() -> str:
    """Why nothing can be counted; empty when it can."""
    for tool in ("valgrind", "callgrind_annotate"):
        if not shutil.which(tool):
            return f"no `{tool}` on PATH: install valgrind"
    try:
        native.slow_clock()
    except RuntimeError as error:
        return str(error)
    return ""


def run(rival: str, program: Program, n: int) -> tuple[int, int, dict[str, int]]:
    """Messages, instructions, each function's instructions."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        child = [sys.executable, "-m", "benches.child", rival, f"{program.name}:{n}"]
        environment = os.environ | {"PYTHONHASHSEED": "0", "LD_PRELOAD": str(native.slow_clock())}
        done = subprocess.run(
            [*valgrind, *child], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )
        if done.returncode or '"error"' in done.stdout:
            raise RuntimeError(f"{program.name} {rival}: {(done.stdout + done.stderr).strip()[-300:]}")
        found = re.search(r"Collected : (\d+)", done.stderr)
        annotated = subprocess.run(
            ["callgrind_annotate", "--auto=no", "--threshold=100", str(out)], capture_output=True, text=True, check=True
        ).stdout
    assert found, done.stderr
    functions = {
        where: int(own.replace(",", ""))
        for own, where in re.findall(r"^ *([\d,]+) \([^)]*\)  (\S.*)$", annotated, re.M)
        if where != "PROGRAM TOTALS"
    }
    messages = program.messages(n) + program.messages(program.size(n / program.n / 10))  # child.py's warm-up
    return messages, int(found[1]), functions


def count(rival: str, program: Program, few: int, many: int) -> Count:
    messages, instructions, functions = run(rival, program, many)
    less_messages, less_instructions, less_functions = run(rival, program, few)
    more = messages - less_messages
    differences = {where: (own - less_functions.get(where, 0)) / more for where, own in functions.items()}
    return Count((instructions - less_instructions) / more, differences)
