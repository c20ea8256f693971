"""Build a wheel for each CPython and PyPy found, install it into an empty venv, test it there, and print a table.

The interpreters are those of `scripts/find-python --all`. With LAB=command in the environment, also those that
`command run scripts/find-python --all` finds: `command run PROGRAM ...` is to run a program in the current folder, at
the same path, on a machine (a chroot, a container) with more interpreters and this one's cargo.

Each suite runs on a copy of the tests in a temporary folder, so that it is the installed package that is tested.
Arguments are handed to pytest. What each step printed is kept in target/matrix/<name>/log.
"""

import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent
COPIED = [
    "tests",
    "examples",
    "benches",
    "docs",
    "pyproject.toml",
    "README.md",
]  # what the suite reads, without the package

PREPARE = """
rm -rf venv wheel
"$PYTHON" -m venv venv
venv/bin/python -m pip install --quiet 'pip>=25.1'
venv/bin/python -m pip install --quiet --group "$ROOT/pyproject.toml:build" --group "$ROOT/pyproject.toml:test"
"""
BUILD = """
VIRTUAL_ENV=$PWD/venv PYO3_PYTHON=$PWD/venv/bin/python venv/bin/maturin build --release --strip \
    --manifest-path "$ROOT/crates/weft-python/Cargo.toml" --interpreter venv/bin/python --out wheel
venv/bin/python -m pip install --quiet --no-deps wheel/*.whl
"""
TEST = """
log=$PWD venv=$PWD/venv/bin
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
for part in $COPIED; do [ ! -e "$ROOT/$part" ] || cp -R "$ROOT/$part" "$run"; done
cd "$run"
export PATH="$venv:$PATH" VIRTUAL_ENV="$log/venv"
"$venv/python" -m pytest --junitxml="$log/report.xml" "$@"
"""


def interpreters() -> list[tuple[str, str, list[str]]]:
    """Name, path and command prefix of each."""
    prefixes = {"": []}
    if lab := os.environ.get("LAB", "").strip():
        prefixes["lab-"] = [*shlex.split(lab), "run"]
    found = []
    for label, prefix in prefixes.items():
        listing = subprocess.run([*prefix, "scripts/find-python", "--all"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        found += [(label + version, path, prefix) for version, path in map(str.split, listing.stdout.splitlines())]
    return found


def run(name: str, python: str, prefix: list[str], arguments: list[str]) -> tuple[str, bool]:
    """Build and test on one interpreter. Returns its line of the table, and whether all went well."""
    folder = ROOT / "target" / "matrix" / name
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX")},
        "ROOT": str(ROOT),
        "PYTHON": python,
        "COPIED": " ".join(COPIED),
        "CARGO_TARGET_DIR": str(ROOT / "target" / ("lab" if prefix else "matrix/cargo")),  # another C library there
    }
    start = monotonic()
    steps = {"venv": PREPARE, "build": BUILD, "tests": TEST}
    with (folder / "log").open("w") as log:

        def fails(script: str) -> bool:
            # The prefix runs from ROOT, the folder it is sure to show.
            command = [*prefix, "sh", "-ec", f'cd "$0"\n{script}', str(folder), *arguments]
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            return subprocess.call(command, cwd=ROOT, env=environment, **streams) != 0

        failed_step = next((step for step, script in steps.items() if fails(script)), None)
    if not report.exists():
        return f"{name:12} {failed_step} failed: see {folder / 'log'}", False
    suite = ET.parse(report).getroot()[0].attrib
    total, skipped = int(suite["tests"]), int(suite["skipped"])
    failed = int(suite["failures"]) + int(suite["errors"])
    line = f"{name:12} {total - failed - skipped:6} {failed:6} {skipped:7} {monotonic() - start:6.0f} s"
    return (f"{line}  see {folder / 'log'}" if failed_step else line), failed_step is None


def main() -> int:
    print(f"{'python':12} passed failed skipped   time", flush=True)
    well = []
    for name, python, prefix in interpreters():
        line, good = run(name, python, prefix, sys.argv[1:])
        print(line, flush=True)
        well.append(good)
    return 0 if well and all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
