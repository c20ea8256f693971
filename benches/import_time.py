"""What `import weft` costs: a fresh interpreter with it against one without, and against the imports programs have anyway.

    python benches/import_time.py [runs]

The interpreters take turns, so that a machine that slows down does so for all. Compiled files are written first, as an
installer does. Printed: the median of the differences to an interpreter that imports nothing, in milliseconds, and the
processor's time of the same.
"""

import compileall
import pathlib
import resource
import statistics
import subprocess
import sys
import time

import weft

IMPORTS = ("typing", "weft", "queue", "asyncio")


def run(statement: str) -> tuple[float, float]:
    """Start an interpreter that executes `statement`: seconds by the wall clock, and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", statement], check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    folder = pathlib.Path(weft.__file__).parent
    compileall.compile_dir(folder, quiet=1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in IMPORTS}
    for _ in range(runs):
        bare = run("pass")
        for name, differences in times.items():
            wall, processor = run(f"import {name}")
            differences.append((wall - bare[0], processor - bare[1]))
    for name, differences in times.items():
        wall, processor = (statistics.median(column) * 1e3 for column in zip(*differences, strict=True))
        print(f"import {name:8} {wall:6.1f} ms, processor {processor:6.1f} ms")


if __name__ == "__main__":
    main()
