"""What the tests send to other places, and what is done with it there. A place finds all this by its import path, so it
needs nothing but weft.
"""

from __future__ import annotations

import enum
import gc
import sys
from dataclasses import dataclass, field
from typing import Any

import weft

# --- things to send -------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    CRIMSON = "red"  # another name of the same member
    BLUE = ("b", 3)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str, enum.Enum):  # noqa: UP042 (the text of the two differs)
    YES = "yes"


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    RUN = enum.auto()


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Frozen:
    a: int
    b: tuple[int, ...] = (1, 2)


@dataclass(slots=True)
class Slotted:
    a: Any
    b: list[int] = field(default_factory=list)


@dataclass
class Nested:
    name: str
    points: list[Point] = field(default_factory=list)
    index: dict[str, Frozen] = field(default_factory=dict)
    hidden: int = field(default=0, repr=False, compare=True)

    class Inner(enum.Enum):
        ONE = 1


@dataclass
class Converts:
    """Says itself how it is pickled."""

    a: int

    def __reduce__(self):
        return Converts, (self.a + 1,)


@dataclass
class Counted:
    """Counts how often it was made by its constructor, which is not to run again where it arrives."""

    a: int

    def __post_init__(self):
        self.a += 1


@dataclass(frozen=True)
class Holds:
    end: Any


class Plain:
    """Neither known nor a data class."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other):
        return type(other) is Plain and other.value == self.value

    __hash__ = object.__hash__


class Numbers(list):
    """More than its contents."""

    label = "none"


class Text(str):
    pass


class Block:
    """Memory of its own, which it offers out of band."""

    def __init__(self, content):
        self.content = content

    def __reduce_ex__(self, protocol):
        import pickle

        return Block, (pickle.PickleBuffer(self.content),)


class Unfit:
    """Cannot be pickled."""

    def __reduce__(self):
        raise ValueError("it stays at home")


class Calls:
    """Pickling it calls a function given to it, which is not sent."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        self.call()
        return Plain, (None,)


class Refuses:
    """Cannot be made where it arrives."""

    def __reduce__(self):
        return refuse, ()


def refuse():
    raise LookupError("it is not made here")


# --- exceptions -----------------------------------------------------------------------------------------------------


class Boom(Exception):
    pass


class TwoArguments(Exception):
    """Its `args` are not what its constructor takes."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class OnlyKeywords(Exception):
    def __init__(self, *, code):
        super().__init__(code)
        self.code = code


class NeverMind(BaseException):
    pass


def local_error():
    class Local(Exception):
        pass

    return Local("defined inside a function")


def holding_error():
    error = Boom("it holds what cannot be pickled")
    error.lock = sys._getframe()
    return error


# --- what is done with them there -----------------------------------------------------------------------------------


def itself(value):
    return value


def nothing(_):
    pass


def unwrapped(value):
    """The end of a channel in a value."""
    while not isinstance(value, weft.Sender | weft.Receiver):
        if isinstance(value, dict):
            value = value["end"]
        elif isinstance(value, list | tuple):
            value = value[0]
        else:
            value = getattr(value, next(name for name in ("x", "a", "value", "end") if hasattr(value, name)))
    return value


def described(value):
    # Python 3.12 has no `datetime` in C there.
    return type(value).__module__.replace("_pydatetime", "datetime"), type(value).__qualname__, repr(value)


def fails_with(error):
    raise error


def raises_boom(text):
    def deeper():
        raise Boom(text)

    deeper()


def raises_group(_):
    errors = []
    for kind in (Boom, ValueError):
        try:
            raise kind(kind.__name__)
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("several", errors)


def raises_local(_):
    raise local_error()


def raises_holding(_):
    raise holding_error()


def raises_with_note(_):
    error = Boom("noted")
    error.add_note("in the margin")
    raise error


kept: list[Any] = []


def keep(value):
    kept.append(value)


def first_byte(_):
    return kept[-1][0]


def write_first_byte(value):
    kept[-1][0] = value


def forget(_):
    kept.clear()
    gc.collect()


def alias_shape(value):
    """Whether both items are one, and whether it is the third's only one."""
    return value[0] is value[1]


def in_itself(value):
    (inner,) = value.values() if isinstance(value, dict) else value
    return inner is value


def depth(value):
    count = 0
    while value:
        value, count = value[0], count + 1
    return count


def sends_over(end_and_value):
    end, value = end_and_value
    with end:
        end.send(value).wait(20)


def statistics(channel):
    stats = channel.statistics()
    return stats.senders, stats.receivers


def serve(requests, answers):
    """Does what it is asked until nobody is left to ask: (function, value), answered by (whether it went well, result)."""
    while True:
        function = value = None
        try:
            function, value = requests.recv().wait()
        except weft.Closed:
            return
        except Exception as error:
            answers.send((False, error)).wait()
            continue
        try:
            answers.send((True, function(value))).wait()
        except Exception as error:
            answers.send((False, error)).wait()


def swap(requests, answers):
    """Sends back each value with its address, and nobody else holds it meanwhile."""
    for value in requests:
        answers.send(id(value)).wait()
        back = answers.send(value)
        del value
        back.wait()


class Meddler:
    """Uses the channel that it passes through, as it is taken to pieces and as it is made."""

    def __init__(self, ch, seen):
        self.ch, self.seen = ch, seen

    def __reduce__(self):
        self.seen.send_nowait(("taken to pieces", self.ch.statistics().buffered, self.ch.closed))
        return _meddle, (self.ch, self.seen)


def _meddle(ch, seen):
    seen.send_nowait(("made", len(ch), ch.closed))
    return Meddler(ch, seen)
