"""What weft says when something goes wrong: what happened, to which channel, and what to do."""

import asyncio
import copy
import pickle
import sys

import pytest
import weft


def made_here(**options):
    """A channel and "file.py:line" of its creation."""
    ch = weft.Channel(**options)
    return ch, f"test_surface_errors.py:{sys._getframe().f_lineno - 1}"


def full(**options):
    ch, line = made_here(capacity=1, **options)
    ch.send_nowait("there before")
    return ch, line


def raised_by(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


# --- the tree -------------------------------------------------------------------------------------------------------


def test_the_tree_of_errors():
    assert issubclass(weft.WeftError, Exception)
    for error in (weft.Closed, weft.WouldBlock, weft.BlockingInLoopError, weft.ForkedChannelError):
        assert issubclass(error, weft.WeftError)
    assert issubclass(weft.Poisoned, weft.Closed)
    assert issubclass(weft.NoReceivers, weft.Closed)
    assert not issubclass(weft.Poisoned, weft.NoReceivers) and not issubclass(weft.NoReceivers, weft.Poisoned)
    assert not issubclass(weft.WouldBlock, weft.Closed)


def test_cancelled_is_no_exception_to_catch_by_accident():
    assert issubclass(weft.Cancelled, BaseException)
    assert not issubclass(weft.Cancelled, Exception)
    assert not issubclass(weft.Cancelled, weft.WeftError)


def test_a_timeout_is_the_builtin_one():
    error = raised_by(lambda: weft.Channel().recv().wait(0))
    assert type(error) is TimeoutError
    assert asyncio.TimeoutError is TimeoutError


# --- each error says which channel ----------------------------------------------------------------------------------


def closed_recv(ch):
    ch.close()
    ch.recv().wait()


def closed_send(ch):
    ch.close()
    ch.send("v").wait()


def poisoned_recv(ch):
    ch.poison()
    ch.recv().wait()


def poisoned_send(ch):
    ch.poison()
    ch.send_nowait("v")


def no_receivers(ch):
    ch.receiver().close()
    ch.send_nowait("v")


def empty(ch):
    ch.recv_nowait()


def nobody(ch):
    ch.send_nowait("v")


def timed_out_recv(ch):
    ch.recv().wait(0)


def timed_out_send(ch):
    ch.send("v").wait(0)


def closed_select(ch):
    ch.close()
    weft.select(weft.never(), ch.recv()).wait()


def closed_iteration(ch):
    ch.poison()
    next(iter(ch))


def in_a_loop(ch):
    async def main():
        ch.recv().wait()

    asyncio.run(main())


WAYS = [
    closed_recv,
    closed_send,
    poisoned_recv,
    poisoned_send,
    no_receivers,
    empty,
    nobody,
    timed_out_recv,
    timed_out_send,
    closed_select,
    closed_iteration,
    in_a_loop,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_error_names_the_channel_and_the_line_that_made_it(way):
    ch, line = made_here(name="orders")
    error = raised_by(lambda: way(ch))
    text = str(error)
    assert "orders" in text, text
    assert line in text, text


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_error_about_a_channel_without_a_name_gives_the_line(way):
    ch, line = made_here()
    assert line in str(raised_by(lambda: way(ch)))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_error_about_the_state_of_a_channel_knows_it(way):
    ch, _ = made_here()
    error = raised_by(lambda: way(ch))
    if isinstance(error, (weft.Closed, weft.WouldBlock)):
        assert error.channel is ch
    else:
        assert type(error) in (TimeoutError, weft.BlockingInLoopError)


ADVICE = [
    # what was done, the error, words of which one must be there: what to do next
    (empty, weft.WouldBlock, ["recv()", "await", "wait"]),
    (nobody, weft.WouldBlock, ["send(", "await", "wait"]),
    (in_a_loop, weft.BlockingInLoopError, ["await"]),
    (no_receivers, weft.NoReceivers, ["receiver"]),
    (poisoned_send, weft.Poisoned, ["poison"]),
    (closed_send, weft.Closed, ["close"]),
]


@pytest.mark.parametrize("way, kind, words", ADVICE, ids=lambda x: getattr(x, "__name__", ""))
def test_an_error_says_what_happened_and_what_to_do(way, kind, words):
    ch, _ = made_here(name="orders")
    error = raised_by(lambda: way(ch))
    assert type(error) is kind
    assert any(word in str(error) for word in words), str(error)


def test_an_error_is_one_line():
    for way in WAYS:
        ch, _ = made_here(name="orders")
        assert "\n" not in str(raised_by(lambda: way(ch)))  # noqa: B023


# --- .value, .channel, .case ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", ["send", "send_nowait", "select", "nested"])
@pytest.mark.parametrize("end", ["close", "poison", "no receivers"])
def test_a_failed_send_carries_its_value_the_very_object(send, end):
    ch, _ = made_here()
    if end == "no receivers":
        ch.receiver().close()
    else:
        getattr(ch, end)()
    value = object()
    calls = {
        "send": lambda: ch.send(value).wait(),
        "send_nowait": lambda: ch.send_nowait(value),
        "select": lambda: weft.select(ch.send(value)).wait(),
        "nested": lambda: weft.select(weft.select(ch.send(value))).wait(),
    }
    error = raised_by(calls[send])
    assert error.value is value and error.channel is ch


def test_a_failed_send_of_none_carries_none():
    ch, _ = made_here()
    ch.close()
    error = raised_by(lambda: ch.send(None).wait())
    assert hasattr(error, "value") and error.value is None


def test_an_error_on_the_receiving_side_has_no_value():
    ch, _ = made_here()
    ch.close()
    error = raised_by(lambda: ch.recv().wait())
    assert not hasattr(error, "value")
    with pytest.raises(AttributeError, match="hasattr"):
        _ = error.value


def test_a_full_channel_gives_the_value_back_too():
    ch, _ = full()
    error = raised_by(lambda: ch.send_nowait("v"))
    assert type(error) is weft.WouldBlock and error.value == "v"


def test_errors_can_be_pickled_and_copied():
    ch, _ = made_here(name="orders")
    ch.close()
    error = raised_by(lambda: weft.select(x=ch.send([1, 2])).wait())
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(copied) is weft.Closed and str(copied) == str(error)
        assert copied.value == [1, 2] and copied.case == "x"


def test_errors_can_be_made_by_hand():
    for kind in (
        weft.Closed,
        weft.Poisoned,
        weft.NoReceivers,
        weft.WouldBlock,
        weft.WeftError,
        weft.BlockingInLoopError,
    ):
        error = kind("why")
        assert str(error) == "why" and error.channel is None and error.case is None


def test_each_failure_is_an_error_of_its_own():
    """Two that fail do not share an exception object, so that neither sees the other's traceback or value."""
    ch, _ = made_here()
    ch.close()
    one, two = raised_by(lambda: ch.send(1).wait()), raised_by(lambda: ch.send(2).wait())
    assert one is not two and (one.value, two.value) == (1, 2)


# --- errors that would end who meets them ---------------------------------------------------------------------------


class Stop(StopIteration):
    pass


class StopAsync(StopAsyncIteration):
    pass


@pytest.mark.parametrize("how", ["instance", "class"])
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, Stop, StopAsync])
def test_what_ends_an_iteration_or_an_await_is_no_cause_of_a_close(kind, how):
    """PEP 479: a receiver would take it for the end of its own iteration, or its value for one that was sent."""
    ch = weft.Channel(1)
    ch.send_nowait("kept")
    tx, rx = ch.split()
    for close in (ch.close, ch.poison, tx.close):
        error = raised_by(lambda close=close: close(kind("v") if how == "instance" else kind))
        assert type(error) is TypeError
        name = "StopIteration" if issubclass(kind, StopIteration) else "StopAsyncIteration"
        assert str(error).startswith(f"{name} cannot be the error of a channel") and "wrap it in another" in str(error)
    assert not ch.closed and rx.recv_nowait() == "kept" and tx.send_nowait("goes on") is None
    ch.close(ValueError(kind("wrapped")))


# --- everything is documented ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(weft.__all__) if hasattr(weft, "__all__") else [])
def test_every_public_name_has_a_docstring(name):
    assert (getattr(weft, name).__doc__ or "").strip()


def test_the_public_methods_have_docstrings_and_signatures():
    import inspect

    for cls in (weft.Channel, weft.Sender, weft.Receiver, weft.Op, weft.Group, weft.Event, weft.Barrier):
        for name in dir(cls):
            # An Op also has what tasks and futures look for in an awaitable; that is asyncio's to document.
            if name.startswith("_") or (cls is weft.Op and name not in ("wait", "map")):
                continue
            member = inspect.getattr_static(cls, name)
            assert (getattr(cls, name).__doc__ or "").strip(), f"{cls.__name__}.{name} has no docstring"
            if callable(getattr(cls, name)) and not isinstance(member, type):
                inspect.signature(getattr(cls, name))


def test_all_names_of_the_surface_are_there():
    names = """Channel Sender Receiver Op Selected select selecting after at tick always never sleep Barrier Event readable writable
    Group run WeftError Closed Poisoned NoReceivers WouldBlock BlockingInLoopError ForkedChannelError Cancelled""".split()
    missing = [name for name in names if not hasattr(weft, name)]
    assert not missing
    assert set(names) <= set(weft.__all__)
