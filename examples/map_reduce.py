"""Count the words of a folder on all the cores: batches of files -> a pool -> one dict for each batch -> merged.

What it teaches: hand out work in batches and merge where the work is done, so that little crosses between interpreters:
here names of files go there, and a plain dict comes back for each batch; with `ordered=False` the results are taken as
they are ready. (`wordcount.py` does the same with threads and channels, for reading more than for counting.)
Source: Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters" (2004), whose first example it is.
"""

import argparse
import asyncio
import re
import sys
import sysconfig
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import weft
from cores import describe

WORD = re.compile(r"\w+")


def count(paths):
    """In a worker: how often each word stands in these files."""
    found = Counter()
    for path in paths:
        found.update(WORD.findall(Path(path).read_text(encoding="utf-8", errors="replace")))
    return dict(found)  # a plain dict crosses by itself, an object of another class as a pickle


def files(folder, pattern):
    """The names of the files, without what was installed beside the standard library, and its tests."""
    for path in Path(folder).rglob(pattern):
        if path.is_file() and not {"site-packages", "test", "tests"} & set(path.relative_to(folder).parts):
            yield str(path)


def batches(names, size):
    names = iter(names)
    while batch := list(islice(names, size)):
        yield batch


async def count_all(names, size):
    total, number = Counter(), 0
    async with weft.Pool() as pool:  # as many workers as there are cores
        print(describe(pool), flush=True)
        async for found in pool.map(count, batches(names, size), ordered=False):
            total.update(found)
            number += 1
            if sys.stdout.isatty():  # a progress line would only fill a log
                print(f"\r{number} batches, {total.total()} words", end="", flush=True)
    print("\n" * sys.stdout.isatty(), end="")
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="count the words of a folder")
    parser.add_argument("folder", nargs="?", default=sysconfig.get_path("stdlib"), help="else the standard library's")
    parser.add_argument("--pattern", default="*.py", help="which files")
    parser.add_argument("--most", type=int, default=500, help="how many files at most")
    parser.add_argument("--batch", type=int, default=64, help="how many files a worker is given at a time")
    parser.add_argument("--check", action="store_true", help="compare with a plain loop")
    args, start = parser.parse_args(), time.monotonic()
    names = list(islice(files(args.folder, args.pattern), args.most))
    total = asyncio.run(count_all(names, args.batch))
    common = ", ".join(f"{word} {n}" for word, n in total.most_common(6)) or "none"
    print(f"{total.total()} words, {len(total)} different, in {time.monotonic() - start:.2f} s; most common: {common}")
    if args.check:
        start = time.monotonic()
        same = count(names) == total
        print(f"a plain loop takes {time.monotonic() - start:.2f} s: {'the same' if same else 'ANOTHER'} count")
        sys.exit(not same)
