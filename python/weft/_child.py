"""The first lines of a process that another one has started: see `_os_process`."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import os
import signal
import sys
import threading

from weft import _crossing, _weft
from weft._errors import Closed, PeerDied
from weft._worker import leave_early, look_up_to, work, work_in_loop

__all__ = ["main"]

PATIENCE = 5.0
"""Seconds that the jobs have to clean up when the root is gone."""


def main(descriptor: int) -> None:
    """Work for the process at the other end of the socket, until it has no more orders."""
    # Ctrl-C goes to all processes of a terminal. The root decides what it means, and cancels.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        orders, reports, program, with_loop = _weft._connect(descriptor)
    except OSError:
        os._exit(1)  # the root was gone before it began
    threading._register_atexit(leave_early)  # type: ignore[attr-defined]
    _crossing.be_elsewhere(program)
    look_up_to(reports)
    watch = Watch()
    try:
        (work_in_loop if with_loop else work)(orders, reports, watch)
    except BaseException:
        if not watch.lost:
            raise
        sys.exit(1)  # nobody is left to be told anything
    workers = sys.modules.get("weft._workers")
    if workers is not None:  # else it has had none
        workers.end_in_order()
    _weft._leave_root()


class Watch:
    """Around the taking of orders. They break off when the root is gone: all jobs are cancelled then, and those that do not
    listen do not keep the process alive, for nobody knows of it any more.

    Attributes:
        lost: whether the root is gone.
    """

    def __init__(self) -> None:
        self.lost = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, Closed | PeerDied):
            self.lost = True
            end = threading.Timer(PATIENCE, os._exit, (1,))
            end.daemon = True
            end.start()
