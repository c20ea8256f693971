"""What there is here for the examples that use all the cores."""

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


def without_processes():
    """Why there are no processes of the system to spawn functions in; None when there are."""
    if sys.implementation.name != "cpython" or os.environ.get("WEFT_PURE") == "1":
        return "processes of the system need CPython and weft's extension"
    if sys.platform not in ("linux", "darwin"):
        return f"processes of the system are linked by Unix sockets, which {sys.platform} has not"
    return None
