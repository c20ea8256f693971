"""What is not Python: Go, the floor in C, the clock of instructions.py. Built into benches/.build, again when a source is newer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / ".build"


def _stale(target: Path, sources: list[Path]) -> bool:
    return not target.exists() or target.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def _built(target: Path, sources: list[Path], command: list[str], **options) -> Path:
    if _stale(target, sources):
        BUILD.mkdir(exist_ok=True)
        done = subprocess.run([*command], capture_output=True, text=True, timeout=300, check=False, **options)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[:300]}")
    return target


def go() -> Path:
    if not shutil.which("go"):
        raise RuntimeError("no `go` on PATH")
    folder = HERE / "go"
    target = BUILD / "weftbench"
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOWORK": "off"}
    command = ["go", "build", "-o", str(target), "."]
    return _built(target, [*folder.glob("*.go"), folder / "go.mod"], command, cwd=folder, env=environment)


def semaphores() -> Path:
    if not shutil.which("cc"):
        raise RuntimeError("no `cc` on PATH")
    source, target = HERE / "floor_semaphores.c", BUILD / "floor_semaphores"
    return _built(target, [source], ["cc", "-O2", "-pthread", "-o", str(target), str(source)])


def slow_clock() -> Path:
    if not shutil.which("cc"):
        raise RuntimeError("no `cc` on PATH")
    source, target = HERE / "slow_clock.c", BUILD / "slow_clock.so"
    return _built(target, [source], ["cc", "-O2", "-shared", "-fPIC", "-o", str(target), str(source)])


# name: (how to build it, environment); they speak the command line of child.py
NATIVE = {
    "go": (go, {}),
    "go-1": (go, {"GOMAXPROCS": "1"}),
    "posix": (semaphores, {}),
}
