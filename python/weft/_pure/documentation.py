"""The docstrings of the surface live in the stub file; this brings them into the classes and functions."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FunctionType
from typing import Any, cast

__all__ = ["document", "version"]

_STUB = Path(__file__).parent.parent / "_weft.pyi"


def document(names: dict[str, Any]) -> None:
    """Give each of these, and the methods of the classes, the docstring that the stub has for its name."""
    if sys.flags.optimize > 1 or not _STUB.exists():
        return
    for node in ast.parse(_STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in names:
            thing = names[node.name]
            text = ast.get_docstring(node)
            if text and not thing.__doc__:  # of an overloaded function the first with words
                thing.__doc__ = text
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, ast.FunctionDef) and (text := ast.get_docstring(member)):
                    _document_member(thing, member.name, text)


def _document_member(kind: Any, name: str, text: str) -> None:
    member: Any = next(base.__dict__[name] for base in kind.__mro__ if name in base.__dict__)
    if isinstance(member, classmethod):
        cast("Any", member).__func__.__doc__ = text
    elif name not in kind.__dict__:
        # Shared with other classes, where other words are said of it.
        copy = _copy(member)
        copy.__doc__ = text
        setattr(kind, name, copy)
    else:
        member.__doc__ = text


def _copy(member: Any) -> Any:
    if isinstance(member, property):
        return property(member.fget, member.fset)
    copy = FunctionType(member.__code__, member.__globals__, member.__name__, member.__defaults__, member.__closure__)
    copy.__kwdefaults__ = member.__kwdefaults__
    copy.__annotations__ = member.__annotations__
    copy.__qualname__ = member.__qualname__
    return copy


def version() -> str:
    """The version of the installed package, from the name of its folder: `importlib.metadata` would import `email`, and that
    `socket` and `selectors`."""
    for place in map(Path, sys.path):
        for found in place.glob("weft-*.dist-info"):
            return found.name.removeprefix("weft-").removesuffix(".dist-info")
    return "unknown"
