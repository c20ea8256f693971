"""What Python does for values on their way to another place: it takes to pieces what the extension does not know, and pickles
what nobody knows.

The extension writes numbers, text, bytes and containers by itself. For any other object it asks `flatten`; what comes back
is put together by the functions in `REBUILD`, or by `unpickle`.

A class, a function or a member of an enumeration is found by its import path. What the program's own file defines is in
`__main__`, which another place reads from the same file under the name `MAIN`, so that the block under `if __name__ ==
"__main__"` does not run there (as `multiprocessing` does); `main_module` knows it by both names.

A pickle has its large blocks of memory beside it (PEP 574): they are not copied between interpreters. An exception is
pickled with the text of its traceback, which becomes its `__cause__`, as in `concurrent.futures`.
"""

# pyright: reportPrivateUsage=false
# What is private here is private to the package.

from __future__ import annotations

import importlib
import sys
from io import BytesIO
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, cast

try:
    from _pickle import PickleBuffer, Pickler, Unpickler  # `pickle` brings `re` and more, which a worker has to import
except ImportError:
    from pickle import PickleBuffer, Pickler, Unpickler

from weft import _weft
from weft._errors import RemoteError, WeftError
from weft._weft import Channel, Receiver, Sender

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = [
    "MAIN",
    "REBUILD",
    "RemoteTraceback",
    "be_first",
    "blame",
    "flatten",
    "is_elsewhere",
    "main_file",
    "main_module",
    "pack",
    "traceback_of",
    "unpack",
    "unpickle",
]

MAIN = "__weft_main__"  # the program's own file, as another place imports it

_OUT_OF_BAND = 16 * 1024  # smaller blocks of memory are copied into the pickle

# The kinds of `flatten`, which the extension knows by their numbers.
_DECIMAL, _UUID, _DATE, _TIME, _DATE_TIME, _TIME_DELTA, _ENUMERATION, _DATA_CLASS, _PICKLE, _BIG_INTEGER, _WHOLE = (
    range(11)
)


class RemoteTraceback(Exception):
    """The traceback that an exception had in the place it comes from: the `__cause__` it has here. Its text is all there
    is of it."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def in_words(error: BaseException) -> RemoteError:
    """What stands for an error that cannot leave as it is."""
    instead = RemoteError(f"{type(error).__qualname__}: {error}")
    instead.__cause__ = RemoteTraceback(traceback_of(error) or repr(error))
    return instead


def unreadable(why: BaseException) -> RemoteError:
    """What stands for an error that cannot be made again here."""
    error = RemoteError(f"the reason could not be made again here: {why!r}")
    error.__cause__ = why
    return error


def flatten(value: Any, whole: bool, inside: bool) -> tuple[Any, ...]:
    """An object in pieces: a kind and what `REBUILD` has for it. `whole`: a pickle, whatever it is. `inside`: it is a part of
    a value, which has to be pickled with it if the two may have other parts in common.

    Raises:
        Exception: what pickling it raised.
    """
    kind = cast("Any", type(value))
    if not whole:
        module = _public(kind.__module__)
        taker = _TAKERS.get((module, kind.__qualname__))
        if taker is not None and getattr(sys.modules.get(module), kind.__qualname__, None) is kind:
            return taker(value)
        parts = _member(value) or _fields(value)
        if parts is not None:
            return parts
        if inside and kind is not type and kind not in _LEAVES:
            return (_WHOLE,)
    file = BytesIO()
    buffers: list[PickleBuffer] = []

    def beside(buffer: PickleBuffer) -> bool:
        large = buffer.raw().nbytes >= _OUT_OF_BAND
        if large:
            buffers.append(buffer)
        return not large

    pickler = _Pickler(file, buffer_callback=beside)
    pickler.dump(value)
    return _PICKLE, file.getvalue(), buffers, pickler.ends


def _take_date_time(value: Any) -> tuple[Any, ...]:
    return (
        _DATE_TIME,
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold,
        value.tzinfo,
    )


def _take_time(value: Any) -> tuple[Any, ...]:
    return _TIME, value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo


def _take_integer(value: int) -> tuple[Any, ...]:
    return _BIG_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


_LEAVES = (FunctionType, BuiltinFunctionType, memoryview)  # that are pickled, and lead to nothing else

_TAKERS: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("builtins", "int"): _take_integer,
    ("decimal", "Decimal"): lambda value: (_DECIMAL, str(value).encode()),
    ("uuid", "UUID"): lambda value: (_UUID, value.bytes),
    ("datetime", "date"): lambda value: (_DATE, value.year, value.month, value.day),
    ("datetime", "time"): _take_time,
    ("datetime", "datetime"): _take_date_time,
    ("datetime", "timedelta"): lambda value: (_TIME_DELTA, value.days, value.seconds, value.microseconds),
}


def _member(value: Any) -> tuple[Any, ...] | None:
    """A member of an enumeration that can be found by its name."""
    enum = sys.modules.get("enum")
    if enum is None or not isinstance(value, enum.Enum):
        return None
    kind = cast("Any", type(value))
    name: object = value._name_
    if not isinstance(name, str) or kind._member_map_.get(name) is not value or not _is_importable(kind):
        return None
    return _ENUMERATION, _module_of(kind).encode(), kind.__qualname__.encode(), name.encode()


def _fields(value: Any) -> tuple[Any, ...] | None:
    """A data class that is its fields and nothing else, and says nothing itself about how it is pickled."""
    kind = cast("Any", type(value))
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is None or any(getattr(kind, name, None) is not getattr(object, name, None) for name in _PICKLING):
        return None
    state = getattr(value, "__dict__", None)
    if state is None or list(state) != list(fields) or not _is_importable(kind):
        return None
    parts = tuple(part for item in state.items() for part in item)
    return _DATA_CLASS, _module_of(kind).encode(), kind.__qualname__.encode(), parts


_PICKLING = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__new__",
)


def _is_importable(kind: type) -> bool:
    try:
        return find(_module_of(kind), kind.__qualname__) is kind
    except (ImportError, AttributeError):
        return False


def _module_of(kind: Any) -> str:
    return "__main__" if kind.__module__ == MAIN else str(kind.__module__)


# The program's own file

_main: tuple[str | None, str | None] | None = None  # of a place that is not the program's first: file and module name


def main_file() -> tuple[str | None, str | None]:
    """The program's own file, and its name when it was started with `-m`; two None where there is none."""
    if _main is not None:
        return _main
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    return file, None if spec is None else spec.name


def be_elsewhere(main: tuple[str | None, str | None]) -> None:
    """This is another place of the program whose own file that is."""
    global _main
    _main = main


def is_elsewhere() -> bool:
    """Whether this is not the program's first place."""
    return _main is not None


def main_module() -> ModuleType:
    """What the program's own file defines.

    Raises:
        ImportError: there is no such file.
    """
    if _main is None:
        return sys.modules["__main__"]
    known = sys.modules.get(MAIN)
    if known is not None:
        return known
    import runpy
    from types import ModuleType

    file, name = _main
    module = ModuleType(MAIN)
    if name is not None:
        content = runpy.run_module(name, run_name=MAIN, alter_sys=True)
    elif file is not None:
        content = runpy.run_path(file, run_name=MAIN)
        if sys.version_info >= (3, 15):
            # Its `__spec__` is None, as that of a program is; under another name than `__main__` linecache warns of it when a
            # traceback is made, unless it knows the lines by then.
            import linecache

            linecache.getlines(file)
    else:
        raise ImportError("the program has no file that another place could read: it was typed in, or given with -c")
    module.__dict__.update(content)
    sys.modules[MAIN] = sys.modules["__main__"] = module
    return module


def find(module: str, qualname: str) -> Any:
    """What is found by this import path."""
    found: Any = main_module() if module in ("__main__", MAIN) else importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def _public(module: str) -> str:
    """The module that another place finds the same in. An interpreter of Python 3.12 that is not the first has no `datetime` in C."""
    return "datetime" if module == "_pydatetime" else module


# Pickles

Packed = bytes | tuple[bytes, list[memoryview], list[Any]]
"""Bytes as they are; for all else a pickle, the blocks of memory beside it, and the ends of channels in it."""


def pack(value: Any) -> Packed:
    """A value that is made again only by `unpack`, so that nobody fails over it who only passes it on.

    Raises:
        TypeError: it cannot go to another place; naming the part at fault.
    """
    if type(value) is bytes:
        return value
    try:
        _, content, blocks, ends = flatten(value, whole=True, inside=False)
    except Exception as error:
        _weft._check_crossing(value)  # says which part is at fault
        raise blame(error, "") from error
    return content, [memoryview(block) for block in blocks], ends


def unpack(packed: Packed) -> Any:
    """The value; or what making it raises."""
    return packed if isinstance(packed, bytes) else unpickle(*packed)


class _Pickler(Pickler):
    def __init__(self, file: BytesIO, buffer_callback: Callable[[PickleBuffer], Any]) -> None:
        super().__init__(file, 5, buffer_callback=buffer_callback)
        self.ends: list[object] = []
        self._numbers: dict[int, int] = {}  # of the ends, by identity

    def persistent_id(self, obj: object) -> int | None:
        if type(obj) not in (Channel, Sender, Receiver):
            return None
        number = self._numbers.setdefault(id(obj), len(self.ends))
        if number == len(self.ends):
            self.ends.append(obj)
        return number

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, BaseException):
            return _error, (obj.__reduce_ex__(5), traceback_of(obj))
        kind = cast("Any", type(obj))
        if kind.__module__ == "_pydatetime" and kind.__qualname__ == "timezone":
            return kind, obj.__getinitargs__()  # its own reduction has what only another one written in Python knows
        if isinstance(obj, memoryview):
            view = cast("Any", obj)
            block = PickleBuffer(view if view.c_contiguous else view.tobytes())
            return _view, (block, view.format, view.shape)
        return NotImplemented


class _Unpickler(Unpickler):
    def __init__(self, file: BytesIO, buffers: list[Any], ends: list[object]) -> None:
        super().__init__(file, buffers=buffers)
        self._ends = ends

    def persistent_load(self, pid: Any) -> object:
        return self._ends[pid]

    def find_class(self, module: str, name: str) -> Any:
        if module in ("__main__", MAIN):
            return find(module, name)
        return super().find_class(_public(module), name)


def unpickle(data: bytes, buffers: list[Any], ends: list[object]) -> Any:
    """The object that `flatten` pickled."""
    return _Unpickler(BytesIO(data), buffers, ends).load()


def be_first() -> None:
    """Pickle and unpickle something, before there is another interpreter.

    Python 3.12 makes the table of a C function's keywords in the interpreter that first calls it, and frees it in the
    program's first one: when that is another, the program crashes as it ends.
    """
    _, data, buffers, ends = flatten(len, whole=True, inside=False)
    unpickle(data, buffers, ends)


def _view(block: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    flat = memoryview(block).cast("B")
    return flat if form == "B" and len(shape) == 1 else flat.cast(form, shape)  # type: ignore[call-overload]


def traceback_of(error: BaseException) -> str | None:
    """The text of its traceback, whichever place that is of, and of its cause."""
    cause = error.__cause__
    if error.__traceback__ is None and (cause is None or isinstance(cause, RemoteTraceback)):
        return None if cause is None else cause.args[0]
    import traceback

    return "".join(traceback.format_exception(error))


def _error(reduction: tuple[Any, ...], text: str | None) -> BaseException:
    make, arguments, *state = reduction
    error: BaseException
    try:
        error = make(*arguments)
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{make!r} made no exception")
        if state and state[0] is not None:
            error.__setstate__(state[0])
    except Exception as reason:
        name = getattr(make, "__qualname__", repr(make))
        error = RemoteError(f"{name}{arguments!r}; it could not be made again here: {reason!r}")
    if text is not None:
        error.__cause__ = RemoteTraceback(text)
    return error


def blame(error: BaseException, path: str) -> BaseException:
    """The error for a value that cannot be sent, whose part at `path` raised this one."""
    if isinstance(error, WeftError) or not isinstance(error, Exception):
        return error
    if isinstance(error, TypeError) and "cannot go to another place" in str(error):
        return error  # said already, of what is in a channel in it
    reason = RecursionError("it is nested too deeply") if isinstance(error, RecursionError) else error
    instead = TypeError(f"value{path} cannot go to another place of the program: {reason}")
    instead.__cause__ = error
    return instead


# Put together


def _time(hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any) -> Any:
    from datetime import time

    return time(hour, minute, second, microsecond, zone, fold=fold)


def _date_time(
    year: int, month: int, day: int, hour: int, minute: int, second: int, microsecond: int, fold: int, zone: Any
) -> Any:
    from datetime import datetime

    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _date(year: int, month: int, day: int) -> Any:
    from datetime import date

    return date(year, month, day)


def _time_delta(days: int, seconds: int, microseconds: int) -> Any:
    from datetime import timedelta

    return timedelta(days, seconds, microseconds)


def _big_integer(content: bytes) -> int:
    return int.from_bytes(content, "little", signed=True)


def _decimal(text: str) -> Any:
    from decimal import Decimal

    return Decimal(text)


def _uuid(content: bytes) -> Any:
    from uuid import UUID

    return UUID(bytes=content)


def _enumeration(path: tuple[str, str, str]) -> Any:
    module, qualname, member = path
    return find(module, qualname)[member]


def _data_class(path: tuple[str, str]) -> Any:
    return object.__new__(find(*path))


REBUILD: dict[str, Callable[..., Any]] = {
    "big_integer": _big_integer,
    "decimal": _decimal,
    "uuid": _uuid,
    "date": _date,
    "time": _time,
    "date_time": _date_time,
    "time_delta": _time_delta,
    "enumeration": _enumeration,
    "data_class": _data_class,
}
