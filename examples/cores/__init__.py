"""What a pool's workers are here, for the examples that use all the cores."""

import os
import sys


def describe(pool):
    """How many workers a pool has, and of which kind."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        kind = "threads, which share no GIL here"
    elif sys.implementation.name != "cpython" or sys.version_info < (3, 12):
        kind = "threads, which share one core: interpreters of their own need CPython 3.12 or later"
    elif os.environ.get("WEFT_PURE") == "1":
        kind = "threads, which share one core: weft in Python alone has no interpreters"
    else:
        kind = "interpreters, each with a GIL of its own"
    return f"{pool.workers} workers: {kind}"
