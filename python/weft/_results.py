"""The tuples operations complete with.

The extension makes them; its `Selected`, which is the public one, is a subclass of this one. This module imports
nothing from weft, so that the extension can import it while it is being imported.
"""

from typing import Generic, NamedTuple, TypeVar

__all__ = ["Selected", "Statistics"]

CaseT_co = TypeVar("CaseT_co", covariant=True)
ValueT_co = TypeVar("ValueT_co", covariant=True)


class Selected(NamedTuple, Generic[CaseT_co, ValueT_co]):
    """What a select came to: which case, and the result of its operation. `case, value = await select(...)` takes it
    apart."""

    case: CaseT_co
    """The position of the case, its keyword, its key in `selecting`, or "default"."""
    value: ValueT_co
    """What the operation completed with, or the default."""


class Statistics(NamedTuple):
    """A channel's numbers, all taken at one moment."""

    name: str
    """The channel's name."""
    capacity: int | None
    """How many values it buffers; None when there is no bound."""
    buffered: int
    """How many values are in the buffer."""
    senders: int | None
    """How many sending ends are open; None while none was ever made."""
    receivers: int | None
    """How many receiving ends are open; None while none was ever made."""
    parked_senders: int
    """How many operations wait to send."""
    parked_receivers: int
    """How many operations wait to receive."""
    sent: int
    """How many values were sent since the channel was made: always received + dropped + buffered."""
    received: int
    """How many values were received since then."""
    dropped: int
    """How many values were dropped since then: by the overflow policy, by poison, or because no receiver was left."""
