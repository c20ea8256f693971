"""`select`: checks its cases and makes the operation."""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weft._pure.channel import Channel, Receiver
from weft._pure.op import Op, SelectOp, make_select
from weft._pure.selecting import EventOp

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["select"]


class _NoneGiven:
    def __repr__(self) -> str:
        return "..."


_NONE_GIVEN: Any = _NoneGiven()


def select(*ops: Op | None, default: Any = _NONE_GIVEN, policy: str = "random", **named: Op | None) -> Op:
    if policy not in ("random", "priority"):
        raise ValueError(f'unknown policy \'{policy}\': it is "random" or "priority"')
    if not ops and not named and default is _NONE_GIVEN:
        raise ValueError("select() needs at least one case; to wait for ever, say weft.never()")
    taken: list[Op] = []
    try:
        for label, op in (*enumerate(ops), *named.items()):
            if op is not None:
                _check(label, op)
                op._become_case(label)
                taken.append(op)
        return make_select(tuple(taken), () if default is _NONE_GIVEN else (default,), policy)
    except BaseException:
        for op in taken:
            op._become_free()
        raise


def _check(label: Hashable, op: Any) -> None:
    """Whether it can be a case."""
    case = f"case {label} of select()"
    if not isinstance(op, Op):
        hint = ": say which way, as in channel.recv()" if isinstance(op, Channel | Receiver) else ""
        raise TypeError(f"{case} must be an operation or None, not {type(op).__name__}{hint}")
    if op._phase == "in a select":
        raise ValueError(f"{case}: {op._description()} belongs to a select already; make a new operation for each")
    if not op._ticket:
        raise RuntimeError(f"{case}: {op._description()} was already performed; make a new operation")
    if isinstance(op, SelectOp) and op._default:
        raise ValueError(f"{case} is a select with a default, which is always ready: give the default to the outer one")
    if isinstance(op, EventOp):
        raise TypeError(f"{case}: a round of selecting() cannot stand in a select")
