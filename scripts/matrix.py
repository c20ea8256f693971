"""Build a wheel for each CPython and PyPy found, install it into an empty venv, test it there, and print a table.

The interpreters are those of `scripts/find-python --all`. With LAB=command in the environment, also those that
`command run scripts/find-python --all` finds: `command run PROGRAM ...` is to run a program in the current folder, at
the same path, on a machine (a chroot, a container) with more interpreters and this one's cargo.

Each suite runs on a copy of the tests in a temporary folder, so that it is the installed package that is tested.
Arguments are handed to pytest. What each step printed is kept in target/matrix/<name>/log, pytest's report beside it.

A row counts tests by their outcome. "laws" are those of the laws among them that ran (LAWS), and "pairs" the ordered
pairs of worlds they ran between: so a suite that was narrowed, or that left half of itself out, is seen to be one. Worlds
that cannot be visited there are named in the row, and kinds of builds that were not found, at the end.
"""

import os
import re
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

# The files whose tests are the laws'.
LAWS = ["test_laws", "test_conformance", "test_mixing", "test_gevent", "test_places", "test_os_processes"]

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
PYTHONPATH=tests "$venv/python" -c "$ABSENT" >"$log/absent"
"$venv/python" -m pytest --junitxml="$log/report.xml" "$@"
"""

ABSENT = """
import worlds
print("; ".join(f"{name} ({reason})" for name in worlds.WORLDS if (reason := worlds.missing(name))))
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


def counts(report: Path) -> dict[str, int]:
    """What pytest's report says: how many tests had which outcome, tests of the laws that ran, and pairs in these."""
    suites = ET.parse(report).getroot()
    suite = suites[0].attrib
    failed, skipped = int(suite["failures"]) + int(suite["errors"]), int(suite["skipped"])
    laws = [
        test.attrib["name"]
        for test in suites.iter("testcase")
        if set(test.attrib["classname"].split(".")) & set(LAWS) and test.find("skipped") is None
    ]
    # "[trio>asyncio-0]", "[trio>asyncio, sender]", "[trio, its run broke > asyncio]": each is of the pair trio, asyncio.
    pairs = {pair for name in laws for pair in re.findall(r"(\w+)(?:, [\w ]+?)? ?> ?(\w+)", name)}
    return {
        "passed": int(suite["tests"]) - failed - skipped,
        "failed": failed,
        "skipped": skipped,
        "laws": len(laws),
        "pairs": len(pairs),
    }


def not_found(names: list[str]) -> str:
    """Says which kinds of builds are not among these interpreters; nothing when all are. The letters are CPython's."""
    kinds = {"free-threaded": r"\dtd?$", "debug": r"\dt?d$"}
    none = [kind for kind, letters in kinds.items() if not any(re.search(letters, name) for name in names)]
    return f"not found, so not tested: a {' build, a '.join(none)} build" if none else ""


def run(name: str, python: str, prefix: list[str], arguments: list[str]) -> tuple[str, bool]:
    """Build and test on one interpreter. Returns its line of the table, and whether all went well."""
    folder = ROOT / "target" / "matrix" / name
    folder.mkdir(parents=True, exist_ok=True)
    report, absent = folder / "report.xml", folder / "absent"
    for written in (report, absent):
        written.unlink(missing_ok=True)
    environment = {
        **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "CONDA_PREFIX")},
        "ROOT": str(ROOT),
        "PYTHON": python,
        "COPIED": " ".join(COPIED),
        "ABSENT": ABSENT,
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
    line = "".join(f" {number:{max(len(what), 6)}}" for what, number in counts(report).items())
    line = f"{name:12}{line} {monotonic() - start:6.0f} s"
    if worlds := absent.read_text().strip():
        line += f"  without {worlds}"
    return (f"{line}  see {folder / 'log'}" if failed_step else line), failed_step is None


def main() -> int:
    print(f"{'python':12} passed failed skipped   laws  pairs   time", flush=True)
    found = interpreters()
    well = []
    for name, python, prefix in found:
        line, good = run(name, python, prefix, sys.argv[1:])
        print(line, flush=True)
        well.append(good)
    if missing := not_found([name for name, _, _ in found]):
        print(missing)
    return 0 if well and all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
