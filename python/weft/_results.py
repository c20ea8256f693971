"""The fields of the tuples that weft makes. Their types and docstrings are in `_weft.pyi`.

The extension's classes of the same names, which are the public ones, are subclasses of these. This module imports
nothing from weft, so that the extension can import it while it is being imported.
"""

# pyright: reportUntypedNamedTuple=false

from collections import namedtuple

__all__ = ["Selected", "Statistics"]


class Selected(namedtuple("Selected", ["case", "value"])):
    __slots__ = ()


class Statistics(
    namedtuple(
        "Statistics",
        [
            "name",
            "capacity",
            "buffered",
            "senders",
            "receivers",
            "parked_senders",
            "parked_receivers",
            "sent",
            "received",
            "dropped",
        ],
    )
):
    __slots__ = ()
