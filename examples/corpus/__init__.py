"""What wordcount.py counts, how it tells of it, and the plain loop its answer is compared with.

No concurrency here.
"""

import argparse
import re
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

ROOT = Path(sysconfig.get_path("stdlib"))
WORD = re.compile(r"\w+")


def sources():
    """Yield the paths of the standard library's sources, without what was installed beside it."""
    for path in ROOT.rglob("*.py"):
        if "site-packages" not in path.relative_to(ROOT).parts and path.is_file():
            yield path


def words(data):
    """How many bytes `data` has, and how often each word stands in it (not all of it is UTF-8)."""
    return len(data), Counter(WORD.findall(data.decode(errors="replace")))


class Tally:
    """What was counted so far, and since when."""

    def __init__(self):
        self.start, self.files, self.size, self.total = time.monotonic(), 0, 0, Counter()
        self.complete = True

    def add(self, size, found):
        self.files += 1
        self.size += size
        self.total.update(found)

    def __str__(self):
        seconds = time.monotonic() - self.start or 1e-9  # a coarse clock may stand still
        return f"{self.files} files, {self.size / 1e6:.1f} MB, {self.size / 1e6 / seconds:.1f} MB/s"

    def progress(self, *queues):
        """Rewrite one line on a terminal; say nothing where it would only fill a log."""
        if sys.stdout.isatty():
            depths = ", ".join(f"{q.name} {q.statistics().buffered}/{q.capacity}" for q in queues)
            print(f"\r{f'{self}; {depths}':<79}", end="", flush=True)

    def stop(self, limit):
        self.complete = False
        print("\n" * sys.stdout.isatty() + f"stopped by the limit of {limit} s")

    def report(self, check):
        """Print the result. The exit code: 1 when it is not complete, or was checked and differs; else 0."""
        print(f"\r{'':<79}\r{self}" if sys.stdout.isatty() else self)
        common = ", ".join(f"{word} {n}" for word, n in self.total.most_common(6)) or "none"
        print(f"{self.total.total()} words, {len(self.total)} different; most common: {common}")
        if not (check and self.complete):
            return 0 if self.complete else 1
        plain = Tally()
        for path in sources():
            plain.add(*words(path.read_bytes()))
        same = (plain.files, plain.size, plain.total) == (self.files, self.size, self.total)
        print(f"plain loop: {plain}\n{'the same counts' if same else 'THE COUNTS DIFFER'}")
        return 0 if same else 1


def arguments():
    parser = argparse.ArgumentParser(description="count the words of the standard library")
    parser.add_argument("--limit", type=float, default=120, help="seconds it may take")
    parser.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="compare with a plain loop"
    )
    return parser.parse_args()
