"""Values that bring their sender's context with them."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import Generic, NamedTuple, TypeVar

__all__ = ["Carried", "carry"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Carried(NamedTuple, Generic[T_co]):
    """A value and a context: `value, context = await channel.recv()` takes them apart."""

    value: T_co
    """What was to be sent."""
    context: Context
    """The context variables as they stood where `carry` was called: a copy, of this value alone. Work on the value in
    it by `context.run(function, value)` or `group.spawn(function, value, context=context)`."""


def carry(value: T) -> Carried[T]:
    """`value` together with a copy of the context variables (`contextvars`, PEP 567) as they stand here, to be sent in
    its place: `await channel.send(weft.carry(request))`.

    A process inherits its spawner's context once, when it is spawned. What changes from value to value, such as the
    request that is served, goes this way. The cost does not depend on how many variables are set.
    """
    return Carried(value, copy_context())
