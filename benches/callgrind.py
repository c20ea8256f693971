"""One program of one rival under callgrind: how many instructions its timed part takes, and in which functions.

Two sizes are run, and the difference of the counts is divided by that of the messages: what is done once falls out. No time plays
a part in it, so other programs do not disturb the count; what goes by a clock is given a slow one (slow_clock.c).
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


def run(rival: str, program: Program, n: int) -> tuple[int, dict[str, int]]:
    """Instructions of the timed part, and each function's."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-before=read_processor_time"]
        child = [sys.executable, "-m", "benches.child", rival, f"{program.name}:{n}"]
        environment = os.environ | {"PYTHONHASHSEED": "0", "LD_PRELOAD": str(native.slow_clock())}
        done = subprocess.run(
            [*valgrind, *child], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )
        if done.returncode or '"error"' in done.stdout:
            raise RuntimeError(f"{program.name} {rival}: {(done.stdout + done.stderr).strip()[-300:]}")
        part = max(
            Path(folder).glob("counts.*"), key=lambda part: int(part.suffix[1:])
        )  # up to the last look at the clock
        # A call that began before the part counts as none, and callgrind_annotate takes the costs of such a one for the caller's own.
        part.write_text(part.read_text().replace("\ncalls=0 ", "\ncalls=1 "))
        annotate = ["callgrind_annotate", "--auto=no", "--threshold=100", str(part)]
        annotated = subprocess.run(annotate, capture_output=True, text=True, check=True).stdout
    functions = {
        where: int(own.replace(",", "")) for own, where in re.findall(r"^ *([\d,]+) \(.*?\)  (\S.*)$", annotated, re.M)
    }
    return functions.pop("PROGRAM TOTALS"), functions


def count(rival: str, program: Program, few: int, many: int) -> Count:
    instructions, functions = run(rival, program, many)
    less_instructions, less_functions = run(rival, program, few)
    messages = program.messages(many) - program.messages(few)
    differences = {where: (own - less_functions.get(where, 0)) / messages for where, own in functions.items()}
    return Count((instructions - less_instructions) / messages, differences)
