"""The thread that listens for other interpreters, where neither a blocked thread nor a loop's descriptor can be told.

The extension starts it when it is first needed. It must have ended before the interpreter does. In the program's first
interpreter it is told when all threads that are no daemons have ended, which may wait for other places until then. Another
interpreter has no daemons: there `threading` waits for it, and tells it beforehand, in the way in which
`concurrent.futures` ends its threads.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import atexit
import threading

from weft import _crossing, _weft

__all__ = ["start_listening"]


def start_listening() -> None:
    """Start the thread. Called once in each interpreter."""
    first = not _crossing.is_elsewhere()
    thread = threading.Thread(target=_weft._listen, name="weft listening", daemon=first)
    if first:
        atexit.register(_stop_listening, thread)  # elsewhere it is told by `_worker.leave_early`
    thread.start()


def _stop_listening(thread: threading.Thread) -> None:
    _weft._leave()
    thread.join()
