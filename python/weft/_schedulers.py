"""Which schedulers a program has imported, so that operations can wait in them.

weft imports none of them. The extension calls `adopt` when the number of imported modules has changed since it looked
last; that costs an operation one comparison.

A fork waits until nobody adopts: a child in which a module was half imported, by a thread that is not there, would wait
for it for ever.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # `threading` brings much else

__all__ = ["adopt"]

# The module that shows that a scheduler is there, and ours for it. gevent's hub comes before bare greenlets, which it
# uses: the first scheduler that says that it runs here is taken.
_KNOWN = {
    "asyncio": "weft._asyncio",
    "trio.lowlevel": "weft._trio",
    "gevent.hub": "weft._gevent",
    "greenlet": "weft._greenlet",
}
_adopted: set[str] = set()
_lock = RLock()
_adopting = False

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def adopt() -> None:
    """Import our side of every scheduler that the program has imported by now.

    Whoever comes meanwhile, in another thread, waits: to go on without a scheduler that is there would block it. The
    thread that imports may itself perform operations while it does, and goes on.
    """
    global _adopting
    with _lock:
        if _adopting:
            return
        _adopting = True
        from importlib import import_module  # not needed until something is found

        try:
            for theirs, ours in _KNOWN.items():
                module = sys.modules.get(theirs)
                if module is None or theirs in _adopted or _is_being_imported(module):
                    continue
                if theirs == "greenlet" and "gevent" in sys.modules and "gevent.hub" not in _adopted:
                    continue  # gevent is being imported: its hub first
                import_module(ours).add()
                _adopted.add(theirs)
        finally:
            _adopting = False


def _is_being_imported(module: object) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
