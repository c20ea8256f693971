"""Values that go to another place: they arrive equal and of the same type, keep their shape, or do not go at all.

Everything here passes through an interpreter of its own, which answers for as long as the module's tests run.
"""

import contextlib
import datetime
import decimal
import enum
import math
import os
import pickle
import struct
import sys
import threading
import uuid
import zoneinfo

import freight
import pytest
import weft
from freight import Calls, Colour, Frozen, Level, Nested, Plain, Point, Rights, Slotted, Unfit
from hypothesis import given, settings
from hypothesis import strategies as st
from weft import _weft
from worlds import IN_PYTHON, LIMIT, until

pytestmark = [
    pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython has interpreters of their own"),
    pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with Python 3.12"),
    pytest.mark.skipif(IN_PYTHON, reason="interpreters need the extension"),
]

PAGE = 1 << 16  # a block of memory that is large enough to be lent


class Elsewhere:
    """The other interpreter."""

    def __init__(self):
        self.requests, self.answers = weft.Channel(name="requests"), weft.Channel(name="answers")

    def __call__(self, function, value=None):
        """What `function(value)` comes to there."""
        self.requests.send((function, value)).wait(LIMIT)
        well, result = self.answers.recv().wait(LIMIT)
        if not well:
            raise result
        return result


@contextlib.contextmanager
def serving():
    there = Elsewhere()
    with weft.Group() as group:
        group.cancel_after(600)
        group.spawn(freight.serve, there.requests.receiver(), there.answers.sender(), on="interpreter")
        try:
            yield there
        finally:
            there.requests.close()


@pytest.fixture(scope="module")
def there():
    with serving() as there:
        yield there


@pytest.fixture
def swap():
    """(tx, rx): what is sent is sent back, after the address that it had there."""
    requests, answers = weft.Channel(), weft.Channel()
    with weft.Group() as group:
        group.spawn(freight.swap, requests.receiver(), answers.sender(), on="interpreter")
        with requests.sender() as tx:
            yield tx, answers.receiver()


def same(a, b):
    """Equal, of one type, and so are their parts; what is not a number equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, set | frozenset):
        return a == b and {(type(x), x) for x in a} == {(type(x), x) for x in b}
    if isinstance(a, datetime.datetime | datetime.time):
        return a == b and a.fold == b.fold and same(a.tzinfo, b.tzinfo)
    if isinstance(a, decimal.Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, Plain):
        return same(a.value, b.value)
    return a == b


def arrives(there, value):
    """Both ways, and as the same there: the type's name and the text say it."""
    assert there(freight.described, value) == freight.described(value)
    back = there(freight.itself, value)
    assert same(back, value), f"{value!r} came back as {back!r}"
    return back


def until_ends(ch, senders, receivers):
    """So many ends are open. What was sent there and came back may be held there a moment longer."""
    until(lambda: ch.statistics()[3:5] == (senders, receivers), lambda: f"it stays at {ch.statistics()}")


# --- kinds ----------------------------------------------------------------------------------------------------------

EIGHT_BYTES = 2**63

ATOMS = [
    *(None, True, False, 0, 1, -1, 255, -256),
    *(EIGHT_BYTES - 1, EIGHT_BYTES, -EIGHT_BYTES, -EIGHT_BYTES - 1, 2 * EIGHT_BYTES - 1, 2 * EIGHT_BYTES),
    *(-2 * EIGHT_BYTES, 10**4000, -(10**4000), 1 << 14000),
    *(0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324, sys.float_info.max),
    *(complex(0, -0.0), complex(math.nan, math.inf), 1 - 2j),
    *("", "text", "\0", "a\0b", "\ud800", "x\udfffy\U0001f600", "\U0010ffff", "Zürich", "\ud83d\ude00", "n" * 100_000),
    *(b"", b"\0\xff", bytes(range(256)), b"x" * 5000),
    *(bytearray(), bytearray(b"\0abc"), bytearray(b"x" * 100_000)),
]

CONTAINERS = [
    *((), (1,), (1, ("two", [3])), [], [1, [2, [3]]], {}, {"a": 1}, {1: "x", None: [], ("k",): {}}),
    *({3: 0, 1: 1, 2: 2}, set(), {1, "a", None}, frozenset(), frozenset({frozenset({1}), (2,)})),
    *([set(), frozenset(), (), {}, []], list(range(10_000)), {str(n): n for n in range(1000)}),
]


@pytest.mark.parametrize(
    "value", ATOMS, ids=lambda value: repr(value)[:30] if not isinstance(value, int) else hex(value)[:30]
)
def test_an_atom_arrives_equal_and_of_its_type(there, value):
    arrives(there, value)


@pytest.mark.parametrize("value", CONTAINERS, ids=lambda value: repr(value)[:30])
def test_a_container_arrives_with_its_contents(there, value):
    arrives(there, value)


def test_what_is_the_only_one_of_its_kind_is_so_there(there):
    for value in (None, True, False, ..., NotImplemented, int, dict, len):
        assert there(freight.itself, value) is value


D, T, DT, TD = datetime.date, datetime.time, datetime.datetime, datetime.timedelta
TWO_EAST = datetime.timezone(TD(hours=2), "two east")


@pytest.mark.parametrize(
    "value",
    [
        *(D(1, 1, 1), D(9999, 12, 31), T(), T(23, 59, 59, 999_999), T(1, fold=1), T(1, tzinfo=datetime.UTC)),
        *(DT(2024, 2, 29, 12, 30, 15, 7), DT(2024, 10, 27, 2, 30, fold=1), DT(1, 1, 1), DT.max),
        *(DT(2024, 1, 1, tzinfo=datetime.UTC), DT(2024, 1, 1, tzinfo=TWO_EAST)),
        *(TD(), TD(microseconds=-1), TD.max, TD.min, TD(days=-3, seconds=5), datetime.UTC, TWO_EAST),
    ],
    ids=repr,
)
def test_dates_and_times_arrive_with_zone_and_fold(there, value):
    arrives(there, value)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="zoneinfo cannot be imported in an interpreter of Python 3.12")
def test_a_time_in_a_named_zone_arrives_in_that_zone(there):
    try:
        zone = zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("this system has no time zones")
    late = DT(2024, 10, 27, 2, 30, tzinfo=zone, fold=1)
    back = arrives(there, late)
    assert back.tzinfo is zone and back.utcoffset() == late.utcoffset()


@pytest.mark.parametrize(
    "text", ["0", "-0", "1.10", "1E+500", "-1E-500", "NaN", "sNaN123", "Infinity", "-Infinity", "9" * 200]
)
def test_a_decimal_arrives_digit_for_digit(there, text):
    arrives(there, decimal.Decimal(text))


def test_a_uuid_arrives(there):
    arrives(there, uuid.UUID(int=2**128 - 1))
    arrives(there, uuid.uuid4())


@pytest.mark.parametrize("member", [Colour.RED, Colour.CRIMSON, Colour.BLUE, Level.HIGH, freight.Word.YES], ids=str)
def test_a_member_of_an_enumeration_arrives_as_that_member(there, member):
    assert arrives(there, member) is member


def test_a_member_of_an_enumeration_inside_a_class_arrives(there):
    assert arrives(there, Nested.Inner.ONE) is Nested.Inner.ONE


@pytest.mark.parametrize(
    "flags", [Rights.READ, Rights.READ | Rights.RUN, Rights(0), ~Rights.WRITE, Rights.READ & Rights.RUN], ids=str
)
def test_combinations_of_flags_arrive(there, flags):
    assert arrives(there, flags) is flags


def test_a_member_of_an_enumeration_that_a_function_made_does_not_go(there):
    Made = enum.Enum("Made", "ONE")
    Made.__module__, Made.__qualname__ = "freight", "nowhere.Made"
    with pytest.raises(TypeError, match=r"value\[1\] cannot go to another place"):
        there(freight.itself, Made.ONE)


@pytest.mark.parametrize(
    "value",
    [
        *(Point(1), Point(Point(1, 2), [Point(3)]), Frozen(1), Frozen(a=-1, b=()), Slotted(1), Slotted([2], [3])),
        Nested("n", [Point(1, 2)], {"f": Frozen(3, (4, 5))}, 6),
        *(freight.Holds(None), freight.Counted(1)),
    ],
    ids=repr,
)
def test_a_data_class_arrives_with_its_fields(there, value):
    arrives(there, value)


def test_a_data_class_is_not_constructed_again(there):
    counted = freight.Counted(1)
    assert counted.a == 2 == arrives(there, counted).a


def test_default_factories_are_not_shared_by_what_arrives(there):
    one, two = there(freight.itself, [Nested("a"), Nested("b")])
    assert one.points is not two.points and one.points == two.points == []


def test_a_data_class_with_more_than_its_fields_arrives_whole(there):
    point = Point(1, 2)
    point.extra = "more"
    assert there(freight.itself, point).extra == "more"


def test_a_data_class_that_says_how_it_is_pickled_is_asked(there):
    assert there(freight.itself, freight.Converts(1)).a == 3  # there and back


def test_what_else_can_be_pickled_arrives(there):
    labelled = freight.Numbers([1, 2])
    labelled.label = "mine"
    back = there(freight.itself, labelled)
    assert type(back) is freight.Numbers and back == [1, 2] and back.label == "mine"
    for value in (Plain([1]), freight.Text("subclass"), range(3), freight.itself):
        assert same(there(freight.itself, value), value)


# --- shape ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [list, dict, set, lambda: (1, [2]), lambda: frozenset({1}), lambda: bytearray(b"x"), lambda: Point(1),
     lambda: Slotted(1), lambda: Plain(1), lambda: Nested("n")],
    ids=["list", "dict", "set", "tuple", "frozenset", "bytearray", "data class", "with slots", "object", "nested"],
)  # fmt: skip
def test_what_occurs_twice_is_one_thing_there_too(there, make):
    value = make()
    for pair in ([value, value], (value, value), {0: value, 1: value}):
        assert there(freight.alias_shape, pair)
        back = there(freight.itself, pair)
        assert back[0] is back[1]


def test_what_occurs_in_an_object_and_beside_it_is_one_thing_there_too(there):
    for kind in (Point, Slotted, Plain):
        inner = [1]
        outer = kind(inner)
        beside, back = there(freight.itself, [inner, outer])
        assert beside is (back.value if kind is Plain else back.x if kind is Point else back.a)


def test_equal_things_are_not_made_one(there):
    back = there(freight.itself, [[1], [1], Point(1), Point(1)])
    assert back[0] is not back[1] and back[2] is not back[3]


def test_a_container_in_itself_arrives_in_itself(there):
    lists, dicts = [], {}
    lists.append(lists)
    dicts["me"] = dicts
    for value in (lists, dicts):
        assert there(freight.in_itself, value)
        back = there(freight.itself, value)
        assert freight.in_itself(back)
        value.clear()
        back.clear()


def test_a_tuple_in_a_list_in_that_tuple(there):
    inner = []
    knot = (inner,)
    inner.append(knot)
    back = there(freight.itself, knot)
    assert type(back) is tuple and back[0][0] is back
    back[0].clear()
    inner.clear()


def test_a_data_class_in_itself(there):
    point = Point(1)
    point.y = [point]
    back = there(freight.itself, point)
    assert type(back) is Point and back.y[0] is back
    back.y = point.y = None


@pytest.mark.parametrize("levels", [1, 60, 63, 64, 65, 199, 200, 201, 450])
def test_what_is_nested_arrives_as_deep(there, levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    assert there(freight.depth, [value]) == levels


def test_what_is_nested_too_deeply_arrives_or_says_so(there):
    for kind in (lambda inner: [inner], lambda inner: (inner,), lambda inner: {0: inner}, Point):
        value = None
        for _ in range(10_000):
            value = kind(value)
        try:
            there(freight.nothing, value)
        except TypeError as error:
            assert "too deeply" in str(error)
        while value is not None:  # not by the interpreter's own recursion
            value = value.x if kind is Point else value[0]
    assert there(freight.itself, "still there") == "still there"


# --- large blocks of memory ------------------------------------------------------------------------------------------


def test_a_view_is_of_the_same_memory_on_both_sides(there):
    memory = bytearray(PAGE)
    there(freight.keep, memoryview(memory))
    try:
        memory[0] = 7
        assert there(freight.first_byte) == 7
        there(freight.write_first_byte, 9)
        assert memory[0] == 9
    finally:
        there(freight.forget)


def test_lent_memory_comes_back_when_the_last_reader_has_gone(there):
    memory = bytearray(PAGE)
    there(freight.keep, memoryview(memory))
    with pytest.raises(BufferError):
        memory.append(1)  # it cannot be moved while somebody reads it
    there(freight.forget)
    there(freight.itself)  # whoever sends looks what has come back
    memory.append(1)


def test_a_view_of_what_cannot_be_written_cannot_be_written_there(there):
    there(freight.keep, memoryview(bytes(PAGE)))
    try:
        with pytest.raises(TypeError, match="read-only"):
            there(freight.write_first_byte, 1)
    finally:
        there(freight.forget)


@pytest.mark.parametrize("form, shape", [("B", (PAGE,)), ("d", (PAGE // 8,)), ("i", (4, PAGE // 16)), ("B", (16,))])
def test_a_view_keeps_its_form(there, form, shape):
    view = memoryview(bytearray(os.urandom(math.prod(shape) * struct.calcsize(form)))).cast("B")
    view = view if form == "B" else view.cast(form, shape)
    back = there(freight.itself, view)
    assert (back.format, back.shape, back.tobytes()) == (view.format, view.shape, view.tobytes())


def test_a_view_with_gaps_arrives_without_them(there):
    view = memoryview(bytearray(range(100)))[::3]
    assert there(bytes, view) == bytes(range(0, 100, 3))


def test_memory_that_an_object_offers_out_of_band_is_lent(there):
    memory = bytearray(PAGE)
    back = there(freight.itself, freight.Block(memory))
    memory[5] = 42
    assert memoryview(back.content)[5] == 42


def test_a_small_view_arrives(there):
    back = there(freight.itself, memoryview(bytearray(b"small")))
    assert bytes(back) == b"small"


@pytest.mark.skipif(
    not weft._weft._steps_tasks, reason="without a GIL a count of one is no proof that nobody else holds it"
)
def test_a_large_bytes_that_nobody_else_holds_is_moved(swap):
    tx, rx = swap
    big = os.urandom(PAGE)
    address, content = id(big), bytearray(big)
    op = tx.send(big)
    del big
    op.wait(LIMIT)
    assert rx.recv().wait(LIMIT) == address
    back = rx.recv().wait(LIMIT)
    assert id(back) == address and back == content


def test_a_large_bytes_that_is_held_is_left_as_it_is(swap):
    tx, rx = swap
    big = os.urandom(PAGE)
    content = bytearray(big)
    tx.send(big).wait(LIMIT)
    assert rx.recv().wait(LIMIT) != id(big)
    assert rx.recv().wait(LIMIT) == content == big


def test_a_moved_bytes_that_is_not_received_can_be_had_back():
    ch = weft.Channel(1)
    with serving() as there:
        there(freight.itself, ch)
        op = ch.send(os.urandom(PAGE))
        op.wait(LIMIT)
        assert len(ch.recv().wait(LIMIT)) == PAGE
        ch.send(os.urandom(PAGE)).wait(LIMIT)
        op = ch.send(os.urandom(PAGE))
        with pytest.raises(TimeoutError):
            op.wait(0)
        ch.close()
        with pytest.raises(weft.Closed) as closed:
            ch.send(bytes(PAGE)).wait(LIMIT)
        assert closed.value.value == bytes(PAGE)


# --- channels in values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: [x], lambda x: {"end": (x,)}, Point, Plain, freight.Holds, Slotted],
    ids=["bare", "list", "dict", "data class", "object", "frozen", "slots"],
)  # fmt: skip
def test_an_end_inside_a_value_comes_back_as_an_end_of_the_same_channel(there, wrap):
    ch = weft.Channel(3, name="wrapped")
    tx, rx = ch.split()
    back = there(freight.itself, [wrap(tx), wrap(rx)])
    until_ends(ch, 2, 2)
    tx.send_nowait("before")
    for one in map(freight.unwrapped, back):
        if isinstance(one, weft.Receiver):
            assert one.recv_nowait() == "before"
        else:
            one.send_nowait("after")
            assert [rx.recv_nowait(), rx.recv_nowait()] == ["before", "after"]
            tx.send_nowait("before")
    del back, one
    until_ends(ch, 1, 1)


def test_a_channel_comes_back_as_the_same_channel(there):
    ch = weft.Channel(2, name="travelled")
    back, again = there(freight.itself, [ch, ch])
    assert back is again
    back.send_nowait(1)
    assert (ch.recv_nowait(), back.name) == (1, "travelled")
    assert there(freight.statistics, ch) == (None, None)
    assert "travelled" in there(repr, ch)


@pytest.mark.parametrize("kind", [list, Plain])
def test_an_end_that_occurs_twice_is_one_end_there(there, kind):
    ch = weft.Channel()
    tx = ch.sender()
    back = there(freight.itself, kind([tx, tx]))
    one, two = back if kind is list else back.value
    assert one is two
    until_ends(ch, 2, None)
    one.close()
    assert ch.statistics().senders == 1
    tx.close()


def test_an_end_that_arrives_counts_until_it_is_dropped_there(there):
    ch = weft.Channel()
    tx, rx = ch.split()
    assert there(freight.statistics, ch) == (1, 1)
    there(freight.keep, tx)
    assert ch.statistics().senders == 2
    there(freight.forget)
    until_ends(ch, 1, 1)
    tx.close()
    rx.close()


def test_a_closed_end_does_not_go(there):
    tx, rx = weft.Channel(name="given up").split()
    tx.close()
    with pytest.raises(weft.Closed, match="given up"):
        there(freight.itself, tx)
    rx.close()


def test_an_end_sent_over_a_channel_can_be_used_there(there):
    ch = weft.Channel(1)
    rx = ch.receiver()
    there(freight.sends_over, (ch.sender(), "over"))
    assert list(rx) == ["over"]


# --- exceptions ------------------------------------------------------------------------------------------------------


def test_an_exception_arrives_with_the_text_of_its_traceback(there):
    with pytest.raises(freight.Boom) as caught:
        there(freight.raises_boom, "far away")
    error = caught.value
    assert error.args == ("far away",)
    text = str(error.__cause__)
    assert "deeper" in text and "freight.py" in text and "Boom: far away" in text


def test_the_text_of_a_traceback_goes_on_with_the_exception(there):
    with pytest.raises(freight.Boom) as caught:
        there(freight.raises_boom, "far away")
    caught.value.__traceback__ = None
    again = there(freight.itself, caught.value)
    assert "deeper" in str(again.__cause__)


def test_an_exception_that_was_never_raised_arrives_bare(there):
    error = there(freight.itself, ValueError("quiet", 1))
    assert (type(error), error.args, error.__cause__) == (ValueError, ("quiet", 1), None)


def test_an_exception_keeps_its_notes(there):
    with pytest.raises(freight.Boom) as caught:
        there(freight.raises_with_note)
    assert caught.value.__notes__ == ["in the margin"]


def test_a_group_of_exceptions_arrives_with_each_traceback(there):
    with pytest.raises(ExceptionGroup) as caught:
        there(freight.raises_group)
    assert [type(error) for error in caught.value.exceptions] == [freight.Boom, ValueError]
    for error in caught.value.exceptions:
        assert "raises_group" in str(error.__cause__)


@pytest.mark.parametrize(
    "make", [lambda: freight.TwoArguments(5, "why"), lambda: freight.OnlyKeywords(code=5)], ids=["two", "keywords"]
)
def test_an_exception_that_cannot_be_made_again_is_told(there, make):
    error = make()
    back = there(freight.itself, error)
    assert isinstance(back, weft.WeftError) and type(back).__name__ == "RemoteError"
    assert type(error).__name__ in str(back) and "5" in str(back)


def test_operating_system_errors_keep_their_numbers(there):
    with pytest.raises(FileNotFoundError) as caught:
        there(open, "/there is no such file")
    assert caught.value.errno == 2 and caught.value.filename == "/there is no such file"


@pytest.mark.parametrize("function, name", [(freight.raises_local, "Local"), (freight.raises_holding, "Boom")])
def test_an_exception_that_cannot_be_pickled_fails_its_process_as_a_remote_error(function, name):
    with pytest.raises(ExceptionGroup) as caught, weft.Group() as group:
        group.spawn(function, None, on="interpreter")
    (error,) = caught.value.exceptions
    assert type(error).__name__ == "RemoteError" and isinstance(error, weft.WeftError)
    assert name in str(error) and function.__name__ in str(error.__cause__)


def test_a_base_exception_fails_its_process_as_itself():
    with pytest.raises(BaseExceptionGroup) as caught, weft.Group() as group:
        group.spawn(freight.fails_with, freight.NeverMind("gone"), on="interpreter")
    (error,) = caught.value.exceptions
    assert type(error) is freight.NeverMind and error.args == ("gone",)


# --- refused ---------------------------------------------------------------------------------------------------------


UNFIT = {
    "": Unfit(),
    "[1]": [1, Unfit()],
    "['a'][2].x": {"a": [0, 1, Point(Unfit())]},
    "[0].y.x[3]": (Point(1, Point({3: Unfit()})),),
    "[0]['lock']": [{"lock": threading.Lock()}],
    "[2]": [Plain(1), [2], sys._getframe()],
}
WAYS = {
    "send": lambda ch, value: ch.send(value).wait(0),
    "send_nowait": lambda ch, value: ch.send_nowait(value),
    "select": lambda ch, value: weft.select(ch.send(value), ch.recv()).wait(0),
    "send_many": lambda ch, value: ch.send_many([1, value]).wait(0),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", UNFIT)
def test_a_value_that_cannot_go_names_the_part_at_fault_and_nothing_is_given(there, path, way):
    ch = weft.Channel(5)
    there(freight.nothing, ch)
    before = ch.statistics()
    with pytest.raises(TypeError) as caught:
        WAYS[way](ch, UNFIT[path])
    assert f"value{path} cannot go to another place" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert ch.statistics() == before


def test_a_lambda_does_not_go(there):
    with pytest.raises(TypeError, match=r"value\[1\] cannot go to another place"):
        there(freight.itself, lambda: None)


def test_the_peer_of_a_refused_value_sees_nothing(there):
    ch = weft.Channel()
    there(freight.keep, ch)
    got = []
    receiver = threading.Thread(target=lambda: got.append(ch.recv().wait(LIMIT)))
    receiver.start()
    until(lambda: ch.statistics().parked_receivers == 1)
    with pytest.raises(TypeError):
        ch.send([Unfit()]).wait(LIMIT)
    assert ch.statistics().parked_receivers == 1
    ch.send("fit").wait(LIMIT)
    receiver.join()
    there(freight.forget)
    assert got == ["fit"]


def test_ends_in_a_refused_value_are_not_counted_twice(there):
    ch = weft.Channel()
    tx, rx = ch.split()
    for value in ([tx, rx, Unfit()], Plain([tx, rx, Unfit()])):
        with pytest.raises(TypeError):
            there(freight.itself, value)
        until_ends(ch, 1, 1)
    with tx, rx:
        pass


def test_what_cannot_be_made_there_fails_whoever_receives_it(there):
    with pytest.raises(LookupError, match="it is not made here"):
        there(freight.itself, freight.Refuses())
    assert there(freight.itself, 1) == 1


def test_pickling_code_may_use_the_very_channel(there):
    ch = weft.Channel(5)
    there(freight.nothing, ch)
    ch.send(Calls(lambda: ch.send_nowait("meanwhile"))).wait(0)
    assert ch.recv_nowait() == "meanwhile"
    assert type(ch.recv_nowait()) is Plain


@pytest.mark.parametrize("what", ["append", "pop", "clear"])
def test_a_list_that_changes_while_it_is_sent_goes_as_pickling_finds_it(there, what):
    """As everywhere else; only that it is whole, and that nothing crashes. From CPython 3.14 on pickling refuses it."""

    def changing():
        value = []
        change = {"append": lambda: value.append("new"), "pop": value.pop, "clear": value.clear}[what]
        value[:] = ["first", Calls(change), 3, 4]
        return value

    try:
        expected = pickle.loads(pickle.dumps(changing()))
    except RuntimeError:
        with pytest.raises(TypeError, match="changed"):
            there(freight.itself, changing())
        assert there(freight.itself, "still there") == "still there"
    else:
        rest = {"append": [3, 4, "new"], "pop": [3], "clear": []}[what]
        assert there(freight.itself, changing()) == expected == ["first", Plain(None), *rest]


@pytest.mark.parametrize("kind", [dict, set])
def test_a_mapping_or_set_that_grows_while_it_is_sent_is_refused(there, kind):
    value = kind()
    if kind is dict:
        value |= {"a": Calls(lambda: value.update({len(value): 0})), "z": 0}
    else:
        value |= {Calls(lambda: value.add(len(value)))}
    with pytest.raises(TypeError, match="changed"):
        there(freight.itself, [value])
    assert there(freight.itself, "still there") == "still there"


def test_a_list_whose_items_are_replaced_while_it_is_sent_leaves_no_trace_of_them(there):
    value = []

    def replace():
        value[0] = None
        for place in range(2, 20):
            value[place] = [place]

    value[:] = [["first"], Calls(replace), *range(2, 20)]
    back = there(freight.itself, value)
    assert back[0] == ["first"] and back[1] == Plain(None)
    assert back[2:] == [[place] for place in range(2, 20)]


# --- any value -------------------------------------------------------------------------------------------------------

hashables = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(), st.binary(max_size=50), st.dates(), st.timedeltas(),
        st.uuids(), st.sampled_from([*Colour, *Level, Rights.READ | Rights.RUN]), st.floats(allow_nan=False),
        st.builds(Frozen, st.integers(), st.tuples(st.integers())),
    ),
    lambda inner: st.one_of(st.tuples(inner, inner), st.frozensets(inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
values = st.recursive(
    st.one_of(
        hashables, st.floats(), st.complex_numbers(), st.text(st.characters(), max_size=20), st.decimals(),
        st.datetimes(timezones=st.none() | st.just(datetime.UTC)), st.times(), st.binary().map(bytearray),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(hashables, inner, max_size=5),
        st.sets(hashables, max_size=5), inner.map(Plain), st.lists(inner, max_size=2).map(lambda x: [x, x]),
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(values)
def test_any_value_goes_there_and_back(there, value):
    assert same(there(freight.itself, value), value)


def test_a_channel_that_holds_an_end_of_itself_cannot_go_and_says_so():
    ch = weft.Channel(2, name="in itself")
    ch.send_nowait(ch.sender())
    with pytest.raises(TypeError, match="'in itself'.*holds an end of itself"):
        _weft._share(ch)
    ch.recv_nowait().close()
