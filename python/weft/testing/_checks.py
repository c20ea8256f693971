"""The checks: each is a promise in a sentence, for one law, played on a `Stage`.

A check of a *pair* has two roles, so it is played alone (both in the tested world) and in both directions against
another world; the others are played in the tested world alone. What a law means exactly is in docs/design/laws.md.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft._errors import BlockingInLoopError, Closed, NoReceivers, Poisoned, WouldBlock
from weft._weft import Channel, Op, after, always, never, readable, select, selecting, writable
from weft.testing._stage import LawBroken, Stage, expect, expect_equal, parked
from weft.testing._world import PAUSE, Party, Script, Within

__all__ = ["CHECKS", "Check"]

FAR = 3600.0  # seconds: later than every check ends
WAKE = "`wake` has to make the party runnable each time it is called, from any thread, and to rouse a loop that sleeps"
COMMIT = "a cancelled party has to ask `withdraw`, and when that says False to `take` the result and be cancelled later"


def collect() -> None:
    """All that was dropped is gone. On PyPy a finalizer keeps all it leads to until the next time."""
    for _ in range(1 if sys.implementation.name == "cpython" else 6):
        gc.collect()


@dataclass(frozen=True)
class Check:
    """`needs`: the optional methods of the tested world, or its properties, without which it cannot be played."""

    law: str
    name: str
    play: Callable[[Stage], None]
    pair: bool
    needs: tuple[str, ...]


CHECKS: list[Check] = []


def check(law: str, *needs: str, pair: bool = False) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def register(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        CHECKS.append(Check(law, play.__name__, play, pair, needs))
        return play

    return register


# --- scripts many checks need -----------------------------------------------------------------------------------------


def performing(op: Op[Any]) -> Script:
    return (yield op)


def sending(ch: Any, *values: Any) -> Script:
    for value in values:
        yield ch.send(value)


def receiving(ch: Any, count: int = 1) -> Script:
    got: list[Any] = []
    for _ in range(count):
        got.append((yield ch.recv()))
    return got


def draining(ch: Any) -> Script:
    """Everything until the channel is closed."""
    got: list[Any] = []
    try:
        while True:
            got.append((yield ch.recv()))
    except Closed:
        return got


def chosen(selected: Any) -> tuple[int, Any]:
    """What a select gave, its case being a position."""
    case, value = selected
    return case, value


def expect_would_block(call: Callable[..., Any], *args: Any, otherwise: str) -> None:
    try:
        result = call(*args)
    except WouldBlock:
        return
    raise LawBroken(f"{otherwise} (it gave {result!r})")


# --- L1 Rendezvous ----------------------------------------------------------------------------------------------------


@check("L1", pair=True)
def send_completes_only_when_a_receiver_took_the_value(stage: Stage) -> None:
    ch = stage.channel()
    tx = stage.start(stage.here, sending, ch, "v")
    stage.until_parked(ch, senders=1)
    stage.turns(10)
    expect(not tx.done and len(ch) == 0, "the send completed before anybody received; suspend until `wake` was called")
    expect_equal(stage.join(stage.start(stage.there, receiving, ch)), ["v"], "the receiver got")
    stage.join(tx)


@check("L1", pair=True)
def a_parked_receiver_takes_the_value_at_once(stage: Stage) -> None:
    ch = stage.channel()
    rx = stage.start(stage.there, receiving, ch)
    stage.until_parked(ch, receivers=1)
    stage.join(stage.start(stage.here, sending, ch, "v"))
    expect_equal(stage.join(rx), ["v"], "the receiver got")


@check("L1", pair=True)
def a_rendezvous_channel_holds_nothing(stage: Stage) -> None:
    ch = stage.channel()
    tx = stage.start(stage.here, sending, ch, *range(20))
    rx = stage.start(stage.there, receiving, ch, 20)

    def nothing_in_it() -> bool:
        expect_equal(len(ch), 0, "the channel of capacity 0 holds")
        return rx.done

    stage.until(nothing_in_it, "20 values arrive")
    expect_equal(stage.join(rx), list(range(20)), "the receiver got")
    stage.join(tx)


@check("L1", pair=True)
def a_select_is_held_to_it_too(stage: Stage) -> None:
    ch = stage.channel()
    tx = stage.start(stage.here, performing, select(ch.send("v"), never()))
    stage.until_parked(ch, senders=1)
    stage.turns(10)
    expect(not tx.done, "the select completed before anybody received")
    expect_equal(stage.join(stage.start(stage.there, receiving, ch)), ["v"], "the receiver got")
    expect_equal(stage.join(tx), (0, None), "the select gave")


# --- L2 Order ---------------------------------------------------------------------------------------------------------


@check("L2", pair=True)
def one_senders_values_arrive_in_order(stage: Stage) -> None:
    for capacity in (0, 1, 7):
        ch = stage.channel(capacity)
        rx = stage.start(stage.there, draining, ch)
        stage.join(stage.start(stage.here, sending, ch, *range(60)))
        ch.close()
        expect_equal(stage.join(rx), list(range(60)), f"through a capacity of {capacity}, the receiver got")


@check("L2", pair=True)
def parked_receivers_are_served_first_come_first_served(stage: Stage) -> None:
    ch = stage.channel()
    parties: list[Party] = []
    for n in range(6):
        parties.append(stage.start((stage.here, stage.there)[n % 2], receiving, ch))
        stage.until_parked(ch, receivers=n + 1)
    for n in range(6):
        ch.send_nowait(n)
    expect_equal([stage.join(party) for party in parties], [[n] for n in range(6)], "the receivers got, as they came")


@check("L2", pair=True)
def parked_senders_are_served_first_come_first_served(stage: Stage) -> None:
    for capacity in (0, 2):
        ch = stage.channel(capacity)
        for n in range(capacity):
            ch.send_nowait(n)
        parties: list[Party] = []
        for n in range(6):
            parties.append(stage.start((stage.here, stage.there)[n % 2], sending, ch, capacity + n))
            stage.until_parked(ch, senders=n + 1)
        expect_equal([ch.recv_nowait() for _ in range(capacity + 6)], list(range(capacity + 6)), "received")
        for party in parties:
            stage.join(party)


@check("L2", "cooperative")
def those_that_wait_are_served_in_the_order_in_which_they_ran(stage: Stage) -> None:
    ch = stage.channel()
    ran: list[int] = []

    def waiting(n: int) -> Script:
        ran.append(n)
        return (yield ch.recv())

    parties = [stage.start(stage.here, waiting, n) for n in range(5)]
    stage.until_parked(ch, receivers=5)
    for n in range(5):
        ch.send_nowait(n)
    got = {n: stage.join(party) for n, party in enumerate(parties)}
    expect_equal(
        [got[n] for n in ran],
        list(range(5)),
        "receivers that began to wait one after the other got; `begin` and `park` have to follow each other without "
        "another party in between, else a newcomer overtakes",
    )


@check("L2")
def a_newcomer_never_overtakes_a_parked_sender(stage: Stage) -> None:
    ch = stage.channel(1)
    ch.send_nowait("first")
    tx = stage.start(stage.here, sending, ch, "second")
    stage.until_parked(ch, senders=1)
    expect_equal(ch.recv_nowait(), "first", "received")
    expect_would_block(ch.send_nowait, "newcomer", otherwise="a newcomer took the slot of the sender that was parked")
    expect_equal(ch.recv_nowait(), "second", "received")
    stage.join(tx)


@check("L2")
def a_newcomer_never_overtakes_a_parked_receiver(stage: Stage) -> None:
    ch = stage.channel(1)
    rx = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    ch.send_nowait("for the parked one")
    expect_would_block(ch.recv_nowait, otherwise="a newcomer took the value of the receiver that was parked")
    expect_equal(stage.join(rx), ["for the parked one"], "the receiver got")


@check("L2", "cancel")
def one_that_is_cancelled_leaves_the_order_of_the_others(stage: Stage) -> None:
    ch = stage.channel()
    parties: list[Party] = []
    for n in range(5):
        parties.append(stage.start(stage.here, receiving, ch))
        stage.until_parked(ch, receivers=n + 1)
    for n in (2, 0, 4):
        stage.cancel(parties[n])
    for n in (2, 0, 4):
        stage.expect_cancelled(parties[n])
    stage.until_parked(ch, receivers=2)
    ch.send_nowait("a")
    ch.send_nowait("b")
    expect_equal([stage.join(parties[1]), stage.join(parties[3])], [["a"], ["b"]], "those that stayed got")


@check("L2", pair=True)
def a_select_waits_in_the_same_queue_as_everybody_else(stage: Stage) -> None:
    ch = stage.channel()
    first = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    second = stage.start(stage.there, performing, select(never(), ch.recv()))
    stage.until_parked(ch, receivers=2)
    third = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=3)
    for value in "abc":
        ch.send_nowait(value)
    got = [stage.join(party) for party in (first, second, third)]
    expect_equal(got, [["a"], (1, "b"), ["c"]], "one receiver, a select and another receiver got")


@check("L2", pair=True)
def one_wake_up_for_many_keeps_the_order(stage: Stage) -> None:
    ch = stage.channel(16)

    def sending_many() -> Script:
        values = list(range(100))
        while values:
            del values[: (yield ch.send_many(values))]

    def receiving_many() -> Script:
        got: list[int] = []
        while len(got) < 100:
            got += yield ch.recv_many(7)
        return got

    rx = stage.start(stage.there, receiving_many)
    tx = stage.start(stage.here, sending_many)
    expect_equal(stage.join(rx), list(range(100)), "the receiver got")
    stage.join(tx)


# --- L3 Conservation --------------------------------------------------------------------------------------------------


@check("L3", "cancel")
def what_a_cancelled_receiver_did_not_take_goes_to_the_next(stage: Stage) -> None:
    ch = stage.channel()
    gone = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    stage.cancel(gone)
    stage.expect_cancelled(gone)
    expect_would_block(ch.send_nowait, "v", otherwise="a value was given to a receiver that had been cancelled")
    stays = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    ch.send_nowait("v")
    expect_equal(stage.join(stays), ["v"], "the next receiver got")


@check("L3", "cancel")
def what_a_cancelled_sender_did_not_give_stays_with_it(stage: Stage) -> None:
    ch = stage.channel(1)
    ch.send_nowait("there before")
    gone = stage.start(stage.here, sending, ch, "v")
    stage.until_parked(ch, senders=1)
    stage.cancel(gone)
    stage.expect_cancelled(gone)
    expect_equal(ch.recv_nowait(), "there before", "received")
    expect_would_block(ch.recv_nowait, otherwise="a sender that had been cancelled gave its value all the same")
    expect_equal(ch.statistics().sent, 1, "values sent")


@check("L3", "cancel")
def a_cancel_at_any_step_leaves_the_value_in_one_place(stage: Stage) -> None:
    """The cancel comes some turns after the start, and the partner some turns after, or before, that."""
    for steps in range(6):
        for partner_first in (False, True):
            ch = stage.channel()
            rx = stage.start(stage.here, receiving, ch)
            stage.turns(steps)
            sent = False
            if partner_first:
                with suppress(WouldBlock):
                    ch.send_nowait("v")
                    sent = True
                stage.turns(steps % 2)
            stage.cancel(rx)
            if not partner_first:
                with suppress(WouldBlock):
                    ch.send_nowait("v")
                    sent = True
            stage.until(lambda: rx.done, f"{rx} ends, cancelled after {steps} turns")  # noqa: B023
            got = (["v"] if rx.value == ["v"] else []) + in_it(ch)
            when = f"cancelled after {steps} turns, {'after' if partner_first else 'before'} its partner came"
            expect_equal(got, ["v"] if sent else [], f"{when}: received, or still in the channel")
            expect_equal(parked(ch), (0, 0), f"{when}: parked (senders, receivers)")


def in_it(ch: Channel[Any]) -> list[Any]:
    """What can be received now, received."""
    got: list[Any] = []
    with suppress(WouldBlock, Closed):
        while True:
            got.append(ch.recv_nowait())
    return got


@check("L3", "cancel", pair=True)
def a_storm_of_cancels_loses_nothing_and_doubles_nothing(stage: Stage) -> None:
    for capacity in (0, 2):
        ch = stage.channel(capacity)
        senders: list[Party] = []
        receivers: list[Party] = []
        for n in range(30):
            senders.append(stage.start(stage.here, sending, ch, n))
            receivers.append(stage.start(stage.there, receiving, ch))
            stage.turns(n % 3)
            for parties in (senders, receivers):
                if n % 2 and parties[n - n % 4].world is stage.tested:
                    stage.cancel(parties[n - n % 4])
        # Whoever is left meets what it can; then the channel ends.
        stage.until(
            lambda: 0 in parked(ch) and sum(party.done for party in senders + receivers) + sum(parked(ch)) == 60,  # noqa: B023
            f"the rest comes to an end, or waits; {WAKE}",
        )
        ch.close()
        kept = in_it(ch)
        stage.until(lambda: all(party.done for party in senders + receivers), "all have ended")  # noqa: B023
        kept += in_it(ch)
        got: list[Any] = []
        for party in receivers:
            got += party.value or ()
        given = [n for n, party in enumerate(senders) if party.error is None and not party.never_ran]
        expect_equal(sorted(got + kept), given, "received, or left in the channel; against what the senders have sent")


@check("L3", "within", pair=True)
def a_timeout_against_a_late_partner_is_all_or_nothing(stage: Stage) -> None:
    for n in range(16):
        ch = stage.channel()
        patience = 0.0005 * (n % 4 + 1)
        rx = stage.start(stage.there, performing_within, ch.recv(), patience)
        tx = stage.start(stage.here, performing_within, ch.send(n), patience)
        stage.until(lambda: rx.done and tx.done, "both end")  # noqa: B023
        outcomes = f"the receiver has {rx.value!r}, {rx.error!r}; the sender {tx.error!r}"
        expect((rx.error is None) == (tx.error is None), f"one succeeded and the other did not: {outcomes}")
        if rx.error is None:
            expect_equal(rx.value, n, "received")
        else:
            expect(isinstance(rx.error, TimeoutError) and isinstance(tx.error, TimeoutError), outcomes)


def performing_within(op: Op[Any], seconds: float) -> Script:
    return (yield Within(op, seconds))


@check("L3", "within")
def a_timeout_takes_nothing_and_gives_nothing(stage: Stage) -> None:
    ch = stage.channel()
    for op in (ch.send("v"), ch.recv(), ch.recv_many(3), select(ch.send("v"), ch.recv())):
        error = stage.failure(stage.start(stage.here, performing_within, op, 0.002))
        expect(isinstance(error, TimeoutError), f"a time that ran out raised {error!r}")
        expect_equal(parked(ch), (0, 0), "parked (senders, receivers)")
    statistics = ch.statistics()
    expect_equal((statistics.sent, statistics.received, statistics.buffered), (0, 0, 0), "sent, received, buffered")


@check("L3", "stop", "turn")
def what_was_given_to_a_party_that_vanished_goes_back_to_the_front(stage: Stage) -> None:
    ch = stage.channel(4)
    rx = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    for n in range(5):
        ch.send_nowait(n)  # 0 is the receiver's, which does not run any more
    stage.stop(stage.here)
    got: list[int] = rx.value or []
    stage.forget(rx)
    collect()
    expect_equal(
        got + in_it(ch),
        list(range(5)),
        "the loop was shut down when a value had been given to a party that had not resumed; received, or still in the "
        "channel (a party that ends without `take` has to call `undo`)",
    )


@check("L3", "stop", "turn")
def nothing_is_given_to_a_loop_that_was_shut_down(stage: Stage) -> None:
    ch = stage.channel()
    rx = stage.start(stage.here, receiving, ch)
    choosing = stage.start(stage.here, performing, select(ch.recv(), after(FAR)))
    stage.until_parked(ch, receivers=2)
    stage.stop(stage.here)
    expect_would_block(
        ch.send_nowait,
        "v",
        otherwise="a value was given to a party that can never run; `wake` has to answer False when its loop has ended",
    )
    expect_equal(parked(ch), (0, 0), "parked (senders, receivers)")
    stage.forget(rx, choosing)


@check("L3", "stop", "turn")
def what_a_sender_had_to_give_whose_loop_was_shut_down_is_received_once_or_never(stage: Stage) -> None:
    ch = stage.channel()
    tx = stage.start(stage.here, sending, ch, "v")
    stage.until_parked(ch, senders=1)
    stage.stop(stage.here)
    got = in_it(ch)
    expect(got in ([], ["v"]), f"one value was sent, and {got!r} received")
    expect_equal(ch.statistics().sent, len(got), "values sent")
    stage.forget(tx)
    collect()
    expect_equal((parked(ch), len(ch)), ((0, 0), 0), "parked (senders, receivers), and buffered")


@check("L3", "stop", "turn")
def the_next_in_line_gets_what_a_vanished_party_would_have_got(stage: Stage) -> None:
    ch = stage.channel()
    gone = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(ch.recv().wait()), daemon=True)
    thread.start()
    stage.until_parked(ch, receivers=2)
    stage.stop(stage.here)
    with suppress(WouldBlock):
        ch.send_nowait("v")
    stage.until(lambda: not thread.is_alive(), "the next receiver in line, a thread, gets the value")
    expect_equal(got, ["v"], "the next receiver in line got")
    stage.forget(gone)


@check("L3", pair=True)
def a_failed_send_gives_its_value_back(stage: Stage) -> None:
    ch = stage.channel(1)
    ch.close()
    value = object()
    for op in (ch.send(value), select(ch.send(value)), select(never(), ch.send(value))):
        error: Any = stage.failure(stage.start(stage.here, performing, op))
        expect(isinstance(error, Closed), f"a send on a closed channel raised {error!r}")
        expect(error.value is value, f"a send that failed should carry its value; it has {error.value!r}")


# --- L4 Commit wins ---------------------------------------------------------------------------------------------------


@check("L4", "cancel")
def a_cancelled_recv_has_taken_nothing(stage: Stage) -> None:
    ch = stage.channel(1)
    rx = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    stage.cancel(rx)
    stage.expect_cancelled(rx)
    ch.send_nowait("v")
    expect_equal(in_it(ch), ["v"], "in the channel; a cancelled party has to be taken back with `withdraw`")
    expect_equal(ch.statistics().received, 1, "values received")


@check("L4", "cancel")
def a_cancelled_send_has_given_nothing(stage: Stage) -> None:
    ch = stage.channel()
    tx = stage.start(stage.here, sending, ch, "v")
    stage.until_parked(ch, senders=1)
    stage.cancel(tx)
    stage.expect_cancelled(tx)
    expect_would_block(ch.recv_nowait, otherwise="a cancelled send gave its value; take it back with `withdraw`")
    expect_equal(ch.statistics().sent, 0, "values sent")


@check("L4", "cancel")
def a_cancelled_select_has_done_nothing(stage: Stage) -> None:
    a, b = stage.channel(), stage.channel()
    party = stage.start(stage.here, performing, select(a.recv(), b.send("v"), after(FAR)))
    stage.until_parked(a, receivers=1)
    stage.until_parked(b, senders=1)
    stage.cancel(party)
    stage.expect_cancelled(party)
    expect_equal((parked(a), parked(b)), ((0, 0), (0, 0)), "still parked (senders, receivers), on each channel")


def met_then_cancelled(stage: Stage, ch: Channel[Any], op: Op[Any], meet: Callable[[], Any], cancels: int = 1) -> Any:
    """A party waits on `op`, is met, then cancelled before it could resume. What it got; the cancel has to come where it
    waits next."""
    saw: list[Any] = []
    other = stage.channel()

    def script() -> Script:
        try:
            saw.append((yield op))
        except Closed as error:
            saw.append(error)
        saw.append("resumed")
        yield other.recv()
        saw.append("never cancelled")

    party = stage.start(stage.here, script)
    stage.until(lambda: parked(ch) != (0, 0), "the party waits")
    meet()
    for _ in range(cancels):
        stage.cancel(party)
    stage.until(lambda: party.done or parked(other) == (0, 1), "the party resumes")
    expect(saw, f"the cancel won over an operation that had been met already: {COMMIT}")
    stage.until(
        lambda: party.done,
        "an operation was met, then its party cancelled; the cancellation comes where the party waits next",
    )
    expect_equal(saw[1:], ["resumed"], "after its result, the party went on with")
    expect(party.was_cancelled, f"the party should have been cancelled where it waited next; it ended {party.error!r}")
    expect_equal(parked(other), (0, 0), "parked (senders, receivers), where the cancel was delivered")
    return saw[0]


@check("L4", "cancel", "turn")
def a_recv_that_was_met_completes_and_the_cancel_comes_at_the_next_wait(stage: Stage) -> None:
    ch = stage.channel()
    expect_equal(met_then_cancelled(stage, ch, ch.recv(), lambda: ch.send_nowait("v")), "v", "the recv gave")


@check("L4", "cancel", "turn")
def a_send_that_was_met_completes_and_the_cancel_comes_at_the_next_wait(stage: Stage) -> None:
    ch = stage.channel()
    got: list[Any] = []
    saw = met_then_cancelled(stage, ch, ch.send("v"), lambda: got.append(ch.recv_nowait()))
    expect_equal((saw, got), (None, ["v"]), "the send gave, and its partner got")


@check("L4", "cancel", "turn")
def a_select_that_was_met_completes_and_the_cancel_comes_at_the_next_wait(stage: Stage) -> None:
    ch, other = stage.channel(), stage.channel()
    op = select(other.recv(), ch.recv(), after(FAR))
    expect_equal(met_then_cancelled(stage, ch, op, lambda: ch.send_nowait("v")), (1, "v"), "the select gave")
    expect_equal(parked(other), (0, 0), "still parked (senders, receivers), on a case that lost")


@check("L4", "cancel", "turn")
def an_end_that_was_told_is_not_hidden_by_a_cancel(stage: Stage) -> None:
    """Closing a channel commits its parked receivers to `Closed`, as a value would."""
    ch = stage.channel()
    saw = met_then_cancelled(stage, ch, ch.recv(), ch.close)
    expect(isinstance(saw, Closed), f"a party that was told `Closed` and then cancelled saw {saw!r}")


@check("L4", "cancel", "turn")
def several_cancels_after_the_commit_are_no_more_than_one(stage: Stage) -> None:
    ch = stage.channel()
    saw = met_then_cancelled(stage, ch, ch.recv(), lambda: ch.send_nowait("v"), cancels=3)
    expect_equal(saw, "v", "the recv gave")


@check("L4", "cancel", "turn")
def a_party_whose_last_act_was_met_returns_its_value(stage: Stage) -> None:
    ch = stage.channel()
    rx = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    ch.send_nowait("v")
    stage.cancel(rx)
    stage.until(lambda: rx.done, "the party ends")
    expect_equal((rx.value, rx.error), (["v"], None), f"the party's value and error; {COMMIT}")


@check("L4", "cancel", "turn")
def a_cancel_that_came_first_wins_though_the_party_has_not_run_since(stage: Stage) -> None:
    ch = stage.channel()
    rx = stage.start(stage.here, receiving, ch)
    stage.until_parked(ch, receivers=1)
    stage.cancel(rx)
    sent = False
    with suppress(WouldBlock):
        ch.send_nowait("v")
        sent = True
    stage.until(lambda: rx.done, "the party ends")
    # Whoever withdraws only when the party runs again may be met in between; then the commit wins.
    if sent:
        expect_equal(rx.value, ["v"], "the value was sent to it, so it should have got")
    else:
        expect(rx.was_cancelled, f"cancelled before anybody came, it ended with {rx.value!r}, {rx.error!r}")
    expect_equal(parked(ch), (0, 0), "parked (senders, receivers)")


@check("L4", "cancel")
def a_party_that_is_cancelled_before_its_first_step_does_nothing_by_halves(stage: Stage) -> None:
    ch = stage.channel()
    rx = stage.start(stage.here, receiving, ch)
    stage.cancel(rx)
    stage.until(lambda: rx.done, "the party ends")
    expect(
        rx.was_cancelled, f"it should have been cancelled, at the latest where it waits first; it ended {rx.error!r}"
    )
    expect_equal(parked(ch), (0, 0), "parked (senders, receivers)")
    expect_would_block(ch.send_nowait, "v", otherwise="a value was given to a party that had been cancelled")


@check("L4", "cancel")
def a_cancel_after_the_end_does_nothing(stage: Stage) -> None:
    ch = stage.channel(1)
    ch.send_nowait("v")
    rx = stage.start(stage.here, receiving, ch)
    expect_equal(stage.join(rx), ["v"], "the receiver got")
    stage.turns(3)
    stage.cancel(rx)
    stage.turns(3)
    expect_equal((rx.value, rx.error), (["v"], None), "its value and error, after the cancel")


# --- L5 One of many ---------------------------------------------------------------------------------------------------


@check("L5", pair=True)
def a_select_commits_exactly_one_of_two_ready_cases(stage: Stage) -> None:
    a, b = stage.channel(), stage.channel()
    parties = [stage.start(stage.here, sending, a, "a"), stage.start(stage.here, sending, b, "b")]
    stage.until_parked(a, senders=1)
    stage.until_parked(b, senders=1)
    chooser = stage.start(stage.there, performing, select(a.recv(), b.recv()))
    case, value = chosen(stage.join(chooser))
    expect_equal(value, "ab"[case], f"case {case} gave")
    stage.join(parties[case])
    other = (a, b)[1 - case]
    expect_equal((parties[1 - case].done, parked(other)), (False, (1, 0)), "the other sender is done, and parked")
    expect_equal(stage.join(stage.start(stage.there, receiving, other)), ["ab"[1 - case]], "received afterwards")
    stage.join(parties[1 - case])


@check("L5", pair=True)
def the_cases_that_lost_are_as_if_never_tried(stage: Stage) -> None:
    a, b, c = stage.channel(), stage.channel(), stage.channel()
    chooser = stage.start(stage.there, performing, select(a.recv(), b.send("b"), x=c.recv()))
    stage.until_parked(a, receivers=1)
    stage.until_parked(b, senders=1)
    stage.until_parked(c, receivers=1)
    stage.join(stage.start(stage.here, sending, c, "c"))
    expect_equal(stage.join(chooser), ("x", "c"), "the select gave")
    for ch in (a, b):
        s = ch.statistics()
        expect_equal((parked(ch), s.sent, s.received), ((0, 0), 0, 0), "a case that lost: parked, sent, received")


@check("L5", pair=True)
def two_selects_that_face_each_other_pair(stage: Stage) -> None:
    a, b = stage.channel(), stage.channel()
    one = stage.start(stage.here, performing, select(a.send("from one"), b.recv()))
    stage.until_parked(a, senders=1)
    other = stage.start(stage.there, performing, select(a.recv(), b.send("from other")))
    got = (stage.join(one), stage.join(other))
    expect(got in [((0, None), (0, "from one")), ((1, "from other"), (1, None))], f"the two selects gave {got!r}")
    expect_equal((parked(a), parked(b)), ((0, 0), (0, 0)), "still parked (senders, receivers)")


@check("L5", pair=True)
def a_crowd_of_facing_selects_leaves_nobody_behind(stage: Stage) -> None:
    a, b, rounds = stage.channel(), stage.channel(), 40

    def one() -> Script:
        seen: list[Any] = []
        for n in range(rounds):
            case, value = yield select(a.send(n), b.recv())
            seen.append(("a", n) if case == 0 else ("b", value))
        return seen

    def other() -> Script:
        seen: list[Any] = []
        for n in range(rounds):
            case, value = yield select(a.recv(), b.send(n))
            seen.append(("a", value) if case == 0 else ("b", n))
        return seen

    first, second = stage.start(stage.here, one), stage.start(stage.there, other)
    expect_equal(stage.join(first), stage.join(second), "what one side saw")
    expect_equal((parked(a), parked(b)), ((0, 0), (0, 0)), "still parked (senders, receivers)")


@check("L5", pair=True)
def a_select_never_meets_itself(stage: Stage) -> None:
    ch = stage.channel()
    party = stage.start(stage.here, performing, select(ch.send("own"), ch.recv()))
    stage.until_parked(ch, senders=1, receivers=1)
    stage.turns(10)
    expect(not party.done, "a select that sends and receives on one channel met itself")
    expect_equal(stage.join(stage.start(stage.there, receiving, ch)), ["own"], "received")
    expect_equal(stage.join(party), (0, None), "the select gave")


@check("L5", pair=True)
def a_select_over_many_channels_withdraws_from_all(stage: Stage) -> None:
    channels = [stage.channel() for _ in range(40)]
    party = stage.start(stage.there, performing, select(*(ch.recv() for ch in channels)))
    stage.until_parked(channels[-1], receivers=1)
    stage.join(stage.start(stage.here, sending, channels[31], "v"))
    expect_equal(stage.join(party), (31, "v"), "the select gave")
    expect(all(parked(ch) == (0, 0) for ch in channels), "a case that lost is still parked")


@check("L5", pair=True)
def of_two_senders_to_one_parked_select_only_one_gets_through(stage: Stage) -> None:
    for _ in range(10):
        a, b = stage.channel(), stage.channel()
        chooser = stage.start(stage.there, performing, select(a.recv(), b.recv()))
        senders = [stage.start(stage.here, sending, a, "a"), stage.start(stage.there, sending, b, "b")]
        case, value = chosen(stage.join(chooser))
        expect_equal(value, "ab"[case], f"case {case} gave")
        stage.join(senders[case])
        left = (a, b)[1 - case]
        stage.until_parked(left, senders=1)
        expect_equal(left.recv_nowait(), "ab"[1 - case], "the sender that lost had kept")
        stage.join(senders[1 - case])


@check("L5")
def a_timer_ends_a_select_that_nobody_meets(stage: Stage) -> None:
    ch = stage.channel()
    begun = time.monotonic()
    case, due = stage.join(stage.start(stage.here, performing, select(ch.recv(), late=after(0.01))))
    expect_equal(case, "late", "the case that committed")
    expect(
        begun + 0.01 <= due + 0.001 <= time.monotonic() + 0.001,
        f"a timer of 10 ms, begun at {begun}, was due at {due}, and fired before that: `fire` it when its time has come",
    )
    expect_equal(parked(ch), (0, 0), "still parked (senders, receivers)")


@check("L5")
def the_earliest_timer_is_the_one_that_commits(stage: Stage) -> None:
    op = select(after(FAR), after(0.004), stage.channel().recv(), after(FAR))
    case, _ = stage.join(stage.start(stage.here, performing, op))
    expect_equal(case, 1, "the case that committed; `timer` says which is due first")


@check("L5")
def timers_of_several_parties_all_go_off_and_none_too_early(stage: Stage) -> None:
    def waiting(seconds: float) -> Script:
        begun = time.monotonic()
        due = yield after(seconds)
        return begun + seconds <= due + 0.001 and due <= time.monotonic() + 0.001

    parties = [stage.start(stage.here, waiting, n * 0.003) for n in (3, 1, 4, 2)]
    expect_equal([stage.join(party) for party in parties], [True] * 4, "timers that went off, and not too early")


@check("L5", pair=True)
def a_select_with_a_timer_is_met_and_gives_the_timer_up(stage: Stage) -> None:
    ch, next_one = stage.channel(), stage.channel()

    def choosing() -> Script:
        first = yield select(ch.recv(), after(0.02))
        second = yield next_one.recv()
        return first, second

    for n in range(3):
        chooser = stage.start(stage.there, choosing)
        stage.until(lambda: parked(ch) == (0, 1) or parked(next_one) == (0, 1), "the select waits")
        with suppress(WouldBlock):
            ch.send_nowait(n)
        stage.until_parked(next_one, receivers=1)
        stage.join(stage.start(stage.there, performing, after(0.025)))  # what was left behind would go off now
        stage.turns(3)
        expect(not chooser.done, f"a timer that had been given up ended the next wait: {chooser.error!r}")
        stage.join(stage.start(stage.here, sending, next_one, "w"))
        first, second = stage.join(chooser)
        expect(first[0] == 1 or first == (0, n), f"the select gave {first!r}")
        expect_equal(second, "w", "the operation after it gave")


@contextmanager
def connection() -> Generator[tuple[socket.socket, socket.socket], None, None]:
    """Two sockets, connected, that never block."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@check("L5")
def a_descriptor_ends_a_select_when_it_is_ready_and_not_before(stage: Stage) -> None:
    with connection() as (a, b):
        ch = stage.channel()
        party = stage.start(stage.here, performing, select(ch.recv(), a=readable(a)))
        stage.until_parked(ch, receivers=1)
        stage.turns(10)
        expect(not party.done, "a select said that a descriptor was readable, and it was not")
        b.send(b"x")
        expect_equal(stage.join(party), ("a", a), "the select gave")
        expect_equal(parked(ch), (0, 0), "still parked (senders, receivers)")
        expect_equal(stage.join(stage.start(stage.here, performing, writable(a))), a, "writable gave")


@check("L5")
def a_descriptor_that_becomes_writable_ends_a_select(stage: Stage) -> None:
    with connection() as (a, b):
        with suppress(BlockingIOError):
            while True:
                a.send(bytes(65536))
        ch = stage.channel()
        party = stage.start(stage.here, performing, select(ch.recv(), a=writable(a)))
        stage.until_parked(ch, receivers=1)
        stage.turns(5)
        expect(not party.done, "a select said that a descriptor was writable, and it was full")
        with suppress(BlockingIOError):
            while True:
                b.recv(65536)
        expect_equal(stage.join(party), ("a", a), "the select gave")


@check("L5")
def a_select_that_was_met_gives_its_descriptors_up(stage: Stage) -> None:
    """Else the next to wait for the same descriptor is refused, or a party is disturbed that waits for something else."""
    with connection() as (a, b):
        ch, next_one = stage.channel(), stage.channel()

        def choosing() -> Script:
            first = yield select(ch.recv(), readable(a))
            second = yield next_one.recv()
            return first, second

        for n in range(3):
            chooser = stage.start(stage.here, choosing)
            stage.until_parked(ch, receivers=1)
            ch.send_nowait(n)
            stage.until_parked(next_one, receivers=1)
            b.send(b"x")
            expect_equal(stage.join(stage.start(stage.here, performing, readable(a))), a, "readable gave")
            a.recv(1)
            stage.turns(3)
            expect(not chooser.done, f"a descriptor that had been given up ended the next wait: {chooser.error!r}")
            next_one.send_nowait("w")
            expect_equal(stage.join(chooser), ((0, n), "w"), "the select, and the operation after it, gave")


@check("L5", "cancel")
def a_select_that_was_cancelled_gives_its_timer_and_descriptors_up(stage: Stage) -> None:
    with connection() as (a, b):
        ch = stage.channel()
        for _ in range(3):
            party = stage.start(stage.here, performing, select(ch.recv(), readable(a), after(0.02)))
            stage.until(lambda: parked(ch) == (0, 1) or party.done, "the select waits")  # noqa: B023
            stage.cancel(party)
            stage.until(lambda: party.done, f"{party} ends after it was cancelled")  # noqa: B023
            expect_equal(parked(ch), (0, 0), "still parked (senders, receivers)")
        b.send(b"x")
        expect_equal(stage.join(stage.start(stage.here, performing, readable(a))), a, "readable gave")
        stage.join(stage.start(stage.here, performing, after(0.02)))


# --- L6 Fairness ------------------------------------------------------------------------------------------------------


@check("L6")
def priority_takes_the_first_listed_ready_case_every_time(stage: Stage) -> None:
    a, b = stage.channel(60), stage.channel(60)

    def script() -> Script:
        cases: list[int] = []
        for _ in range(90):
            cases.append((yield select(a.recv(), b.recv(), policy="priority")).case)
        return cases

    for n in range(60):
        a.send_nowait(n)
        b.send_nowait(n)
    expect_equal(stage.join(stage.start(stage.here, script)), [0] * 60 + [1] * 30, "the cases taken")


@check("L6")
def random_takes_each_ready_case_about_as_often(stage: Stage) -> None:
    """Loosely: that it is uniform is for weft's own tests; that a scheduler spoils it would be seen here."""
    channels = [stage.channel(300) for _ in range(3)]
    for ch in channels:
        for n in range(300):
            ch.send_nowait(n)

    def script() -> Script:
        served = [0, 0, 0]
        for _ in range(300):
            served[(yield select(*(ch.recv() for ch in channels))).case] += 1
        return served

    served = stage.join(stage.start(stage.here, script))
    expect(min(served) >= 45, f"of three cases that were always ready, each was taken so often: {served}")


@check("L6", pair=True)
def selecting_serves_nobody_twice_while_another_waits(stage: Stage) -> None:
    a, b = stage.channel(4), stage.channel(4)

    def script() -> Script:
        events: Any = selecting(a=a, b=b)
        cases: list[str] = []
        for _ in range(40):
            cases.append((yield events.__anext__()).case)
            while not (len(a) and len(b)) and len(cases) < 20:
                yield PAUSE
        return cases

    def flooding(ch: Channel[Any]) -> Script:
        try:
            while True:
                yield ch.send(None)
        except Closed:
            pass

    parties = [stage.start(stage.here, flooding, ch) for ch in (a, b)]
    stage.until_parked(a, senders=1)
    stage.until_parked(b, senders=1)
    chooser = stage.start(stage.there, script)
    cases = stage.join(chooser)
    a.poison()
    b.poison()
    for party in parties:
        stage.join(party)
    pairs = [cases[n] != cases[n + 1] for n in range(19)]
    expect(all(pairs), f"two channels were ready all the time, and were served so: {cases[:20]}")


# --- L7 Close ---------------------------------------------------------------------------------------------------------


@check("L7", pair=True)
def close_delivers_what_was_buffered_then_says_closed(stage: Stage) -> None:
    ch = stage.channel(8)
    stage.join(stage.start(stage.here, sending, ch, 1, 2, 3))
    ch.close()
    expect_equal(stage.join(stage.start(stage.there, draining, ch)), [1, 2, 3], "received before Closed")


@check("L7", pair=True)
def close_delivers_what_was_parked(stage: Stage) -> None:
    ch = stage.channel()
    tx = stage.start(stage.here, sending, ch, "parked before the close")
    stage.until_parked(ch, senders=1)
    ch.close()
    stage.turns(5)
    expect(not tx.done, f"a sender that was parked at the close ended without a receiver: {tx.error!r}")
    got = stage.join(stage.start(stage.there, draining, ch))
    expect_equal(got, ["parked before the close"], "received before Closed")
    stage.join(tx)


@check("L7", pair=True)
def close_tells_every_parked_receiver(stage: Stage) -> None:
    ch = stage.channel()
    parties = [stage.start(world, receiving, ch) for world in (stage.here, stage.there, stage.here)]
    stage.until_parked(ch, receivers=3)
    ch.close()
    for party in parties:
        error: Any = stage.failure(party)
        expect(type(error) is Closed and error.channel is ch, f"a parked receiver was told {error!r}, not Closed")
    expect_equal(parked(ch), (0, 0), "still parked (senders, receivers)")


@check("L7", pair=True)
def close_twice_is_close_once_and_the_first_cause_wins(stage: Stage) -> None:
    ch = stage.channel()
    first, second = KeyError("first"), KeyError("second")

    def closing(error: BaseException) -> Script:
        yield always(None)
        ch.close(error)

    stage.join(stage.start(stage.here, closing, first))
    stage.join(stage.start(stage.there, closing, second))
    expect(stage.failure(stage.start(stage.there, receiving, ch)) is first, "a receiver gets the first cause itself")
    failed: Any = stage.failure(stage.start(stage.here, sending, ch, "v"))
    expect(type(failed) is Closed and failed.__cause__ is first, f"a sender gets Closed from the cause, not {failed!r}")
    expect_equal(failed.value, "v", "the value it carries")


@check("L7", pair=True)
def a_close_by_one_party_reaches_the_other(stage: Stage) -> None:
    ch = stage.channel()

    def sending_and_closing() -> Script:
        for n in range(10):
            yield ch.send(n)
        ch.close()

    rx = stage.start(stage.there, draining, ch)
    stage.join(stage.start(stage.here, sending_and_closing))
    expect_equal(stage.join(rx), list(range(10)), "received before Closed")


# --- L8 Poison --------------------------------------------------------------------------------------------------------


@check("L8", pair=True)
def poison_reaches_parked_receivers_at_once(stage: Stage) -> None:
    ch = stage.channel()
    parties = [stage.start(world, receiving, ch) for world in (stage.here, stage.there)]
    stage.until_parked(ch, receivers=2)
    cause = ValueError("enough")
    ch.poison(cause)
    expect_equal(parked(ch), (0, 0), "still parked (senders, receivers)")
    for party in parties:
        error = stage.failure(party)
        expect(type(error) is Poisoned and error.__cause__ is cause, f"a parked receiver was told {error!r}")


@check("L8", pair=True)
def poison_reaches_parked_senders_at_once_and_gives_their_values_back(stage: Stage) -> None:
    ch = stage.channel()
    parties = [stage.start(world, sending, ch, name) for world, name in zip((stage.here, stage.there), "ab")]
    stage.until_parked(ch, senders=2)
    ch.poison()
    for party, name in zip(parties, "ab"):
        error: Any = stage.failure(party)
        expect(type(error) is Poisoned, f"a parked sender was told {error!r}")
        expect_equal(error.value, name, "the value it has back")
    expect_equal(ch.statistics().dropped, 0, "values dropped")


@check("L8", pair=True)
def what_poison_dropped_is_counted_and_can_be_recovered(stage: Stage) -> None:
    recovered: list[Any] = []
    ch = stage.channel(8, on_undelivered=recovered.append)
    stage.join(stage.start(stage.here, sending, ch, 1, 2, 3))
    ch.poison()
    expect_equal(recovered, [1, 2, 3], "given to on_undelivered")
    expect_equal(ch.statistics().dropped, 3, "values dropped")
    for party in (stage.start(stage.there, receiving, ch), stage.start(stage.here, sending, ch, 4)):
        error = stage.failure(party)
        expect(type(error) is Poisoned, f"on a poisoned channel an operation raised {error!r}")
    expect_equal(recovered, [1, 2, 3], "given to on_undelivered")


# --- L9 Ends ----------------------------------------------------------------------------------------------------------


@check("L9", pair=True)
def when_the_last_sender_is_gone_receivers_drain_and_are_told(stage: Stage) -> None:
    ch = stage.channel(8)
    tx = ch.sender()
    more = tx.clone()
    rx = stage.start(stage.there, draining, ch)
    stage.join(stage.start(stage.here, sending, tx, 1, 2))
    tx.close()
    stage.join(stage.start(stage.here, sending, more, 3))
    expect(not ch.closed, "the channel closed with a sender left")
    stage.until_parked(ch, receivers=1)
    more.close()
    expect_equal(stage.join(rx), [1, 2, 3], "received before Closed")


@check("L9", pair=True)
def when_the_last_receiver_is_gone_parked_senders_are_told(stage: Stage) -> None:
    ch = stage.channel()
    rx = ch.receiver()
    more = rx.clone()
    parties = [stage.start(world, sending, ch, name) for world, name in zip((stage.here, stage.there), "ab")]
    stage.until_parked(ch, senders=2)
    rx.close()
    stage.turns(5)
    expect_equal(parked(ch), (2, 0), "parked (senders, receivers) with a receiver left")
    more.close()
    for party, name in zip(parties, "ab"):
        error: Any = stage.failure(party)
        expect(type(error) is NoReceivers, f"a parked sender was told {error!r}")
        expect_equal(error.value, name, "the value it has back")


@check("L9", pair=True)
def an_end_that_is_dropped_counts_as_closed(stage: Stage) -> None:
    ch = stage.channel()
    tx, rx = ch.split()
    waiting = stage.start(stage.there, receiving, rx)
    stage.until_parked(ch, receivers=1)
    del tx
    collect()
    error: Any = stage.failure(waiting)
    expect(type(error) is Closed, f"a receiver whose last sender was dropped was told {error!r}")

    ch = stage.channel()
    tx, rx = ch.split()
    waiting = stage.start(stage.here, sending, tx, "v")
    stage.until_parked(ch, senders=1)
    del rx
    collect()
    error = stage.failure(waiting)
    expect(type(error) is NoReceivers and error.value == "v", f"a sender whose last receiver was dropped: {error!r}")


@check("L9", pair=True)
def an_operation_keeps_its_end_open_and_lets_go_of_it(stage: Stage) -> None:
    ch = stage.channel()
    party = stage.start(stage.here, performing, ch.sender().send("v"))
    stage.until_parked(ch, senders=1)
    expect(not ch.closed, "the end was closed under its own operation")
    expect_equal(stage.join(stage.start(stage.there, receiving, ch)), ["v"], "received")
    stage.join(party)
    stage.forget(party)
    stage.turns(3)

    def closed() -> bool:
        collect()
        return ch.closed

    stage.until(closed, "the channel closes once the operation is done; something still holds on to the operation")


# --- L10 Progress -----------------------------------------------------------------------------------------------------


@check("L10", pair=True)
def whenever_two_can_meet_they_do(stage: Stage) -> None:
    """Each round needs the wake-up of the one before; one that is lost ends it."""
    rounds = 80
    for capacity in (0, 1):
        ping, pong = stage.channel(capacity), stage.channel(capacity)

        def pinger(ping: Channel[Any] = ping, pong: Channel[Any] = pong) -> Script:
            for n in range(rounds):
                yield ping.send(n)
                expect_equal((yield pong.recv()), n, "came back")

        def ponger(ping: Channel[Any] = ping, pong: Channel[Any] = pong) -> Script:
            for _ in range(rounds):
                yield pong.send((yield ping.recv()))

        for party in [stage.start(stage.here, pinger), stage.start(stage.there, ponger)]:
            stage.join(party)


@check("L10", pair=True)
def many_on_each_side_all_get_through(stage: Stage) -> None:
    ch = stage.channel(2)
    receivers = [stage.start(stage.there, receiving, ch, 10) for _ in range(6)]
    senders = [stage.start(stage.here, sending, ch, *range(n * 15, n * 15 + 15)) for n in range(4)]
    got: list[int] = []
    for party in receivers:
        got += stage.join(party)
    for party in senders:
        stage.join(party)
    expect_equal(sorted(got), list(range(60)), "received")


@check("L10")
def wake_ups_that_come_in_one_burst_all_arrive(stage: Stage) -> None:
    ch = stage.channel()
    parties: list[Party] = []
    for n in range(8):
        parties.append(stage.start(stage.here, receiving, ch))
        stage.until_parked(ch, receivers=n + 1)
    for n in range(8):
        ch.send_nowait(n)
    stage.until(
        lambda: all(party.done for party in parties),
        lambda: f"8 parties, all met before one could run, resume; {sum(party.done for party in parties)} did. {WAKE}",
    )


@check("L10")
def wake_ups_that_come_from_another_thread_all_arrive(stage: Stage) -> None:
    ch = stage.channel()
    parties: list[Party] = []
    for n in range(8):
        parties.append(stage.start(stage.here, receiving, ch))
        stage.until_parked(ch, receivers=n + 1)

    def meet() -> None:
        for n in range(8):
            ch.send_nowait(n)

    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    stage.until(
        lambda: all(party.done for party in parties),
        lambda: f"8 parties that a thread met resume; {sum(party.done for party in parties)} did. {WAKE}",
    )
    thread.join()


@check("L10", "turn")
def a_wake_up_in_vain_is_no_end(stage: Stage) -> None:
    """A `selecting` is woken to look at a channel that was added, and there is nothing in it: it has to wait on."""
    a, b = stage.channel(1), stage.channel(1)
    events: Any = selecting(a=a)

    def script() -> Script:
        return (yield events.__anext__())

    party = stage.start(stage.here, script)
    stage.until(lambda: a.statistics().parked_receivers, "the selecting waits")
    events.add("b", b)
    stage.turns(5)
    expect(
        not party.done,
        f"woken in vain it should wait on, but it ended with {party.value!r}, {party.error!r}; ask `resume` before `take`",
    )
    b.send_nowait("v")
    expect_equal(stage.join(party), ("b", "v"), "the selecting, which had been woken in vain once, gave")


@check("L10", "sleep")
def a_loop_that_sleeps_is_woken_from_another_thread(stage: Stage) -> None:
    for n in range(3):
        ch = stage.channel()
        party = stage.start(stage.here, receiving, ch)
        over = threading.Event()

        def meet(ch: Channel[Any] = ch, n: int = n, over: threading.Event = over) -> None:
            while parked(ch) != (0, 1) and not over.is_set():
                time.sleep(0.0005)
            time.sleep(0.01)  # by now it sleeps; if not, the promise is the same
            with suppress(WouldBlock, Closed):
                ch.send_nowait(n)

        thread = threading.Thread(target=meet, daemon=True)
        thread.start()
        try:
            let_it_run(stage, party, "sleeps though a thread has met a party of it")
        finally:
            over.set()
        thread.join()
        expect_equal(stage.join(party), [n], "the receiver got")


def let_it_run(stage: Stage, party: Party, otherwise: str) -> None:
    """The loop runs by itself until `party` has ended."""
    if type(stage.here).offers("run"):
        stage.here.run(party)
    stage.until(lambda: party.done, f"{party} ends: its loop {otherwise}. {WAKE}")


@check("L10", "sleep", "proc")
def parked_parties_cause_no_wake_ups(stage: Stage) -> None:
    ch, other = stage.channel(), stage.channel()
    thread_ids: set[int] = set()

    def waiting(op: Op[Any]) -> Script:
        thread_ids.add(threading.get_native_id())
        yield op

    parties = [stage.start(stage.here, waiting, op) for op in (ch.recv(), select(ch.recv(), other.send(0), after(FAR)))]
    found: list[tuple[int, int]] = []
    over = threading.Event()

    def watch() -> None:
        while parked(ch) != (0, 2) and not over.is_set():
            time.sleep(0.001)
        asleep = 0
        while asleep < 20 and not over.is_set():  # it has nothing more to do at first, either
            asleep = asleep + 1 if all(map(sleeps, thread_ids)) else 0
            time.sleep(0.001)
        before = sum(map(switches, thread_ids))
        over.wait(0.15)
        found.append((before, sum(map(switches, thread_ids))))
        for _ in range(2):
            with suppress(WouldBlock, Closed):
                ch.send_nowait(None)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for party in parties:
            let_it_run(stage, party, "sleeps though a thread has met a party of it, or never sleeps")
    finally:
        over.set()
    watcher.join()
    expect(found, "the loop never sleeps, though all its parties wait")
    before, after_it = found[0]
    expect_equal(after_it - before, 0, "while all its parties waited, and nothing happened, the loop woke up so often")


def sleeps(thread_id: int) -> bool:
    return "State:\tS" in Path(f"/proc/self/task/{thread_id}/status").read_text()


def switches(thread_id: int) -> int:
    status = Path(f"/proc/self/task/{thread_id}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)


# --- L11 No frozen loop -----------------------------------------------------------------------------------------------


@check("L11", "awaits")
def wait_in_a_party_that_awaits_refuses_to_block(stage: Stage) -> None:
    ch = stage.channel()

    def script() -> Script:
        yield PAUSE
        for make in (ch.recv, lambda: ch.send("v"), lambda: select(ch.recv()), lambda: after(0.01)):
            for timeout in (None, 0.001):
                try:
                    result = make().wait(timeout)
                except BlockingInLoopError:
                    continue
                except TimeoutError:
                    result = "a TimeoutError"
                raise LawBroken(f"`.wait()` blocked the loop, and gave {result!r}; does `identify` know its party?")

    stage.join(stage.start(stage.here, script))
    expect_equal(parked(ch), (0, 0), "parked (senders, receivers)")


@check("L11", "awaits")
def wait_in_a_party_that_awaits_does_what_needs_no_waiting(stage: Stage) -> None:
    ch = stage.channel(2)

    def script() -> Script:
        yield PAUSE
        ch.send("a").wait()
        ch.send("b").wait(5)
        return [ch.recv().wait(), select(ch.recv(), never()).wait(), always("now").wait()]

    expect_equal(stage.join(stage.start(stage.here, script)), ["a", (0, "b"), "now"], "`.wait()` gave")


def others_go_on(stage: Stage, make: Callable[[Channel[Any]], Op[Any]], what: str) -> None:
    stop, ch = stage.channel(), stage.channel()
    waiting = stage.start(stage.here, performing, select(stop.recv(), make(ch)))
    stage.until_parked(stop, receivers=1)

    def counting() -> Script:
        for _ in range(10):
            yield PAUSE
        return "went on"

    expect_equal(stage.join(stage.start(stage.here, counting)), "went on", f"while another waited for {what}, a party")
    expect(not waiting.done, f"what waited for {what} ended: {waiting.value!r}, {waiting.error!r}")
    stop.send_nowait("stop")
    expect_equal(stage.join(waiting), (0, "stop"), "the one that waited got")


@check("L11", "pause")
def a_party_that_waits_for_a_channel_keeps_no_other_from_running(stage: Stage) -> None:
    others_go_on(stage, lambda ch: ch.recv(), "a channel")


@check("L11", "pause")
def a_party_that_waits_for_a_timer_keeps_no_other_from_running(stage: Stage) -> None:
    others_go_on(stage, lambda ch: after(FAR), "a timer")


@check("L11", "pause")
def a_party_that_sleeps_keeps_no_other_from_running(stage: Stage) -> None:
    """Ten turns are over before the timer is: if not for a short one, because the machine is slow, then for a longer."""

    def counting(sleeping: Party) -> Script:
        for _ in range(10):
            yield PAUSE
        return not sleeping.done

    for seconds in (0.03, 0.1, 0.3, 0.9):
        sleeping = stage.start(stage.here, performing, after(seconds))
        before = stage.join(stage.start(stage.here, counting, sleeping))
        stage.join(sleeping)
        if before:
            return
    raise LawBroken("while a party slept for 0.9 s, another did not get 10 turns; watch timers, never sleep for them")


@check("L11", "pause")
def a_party_that_waits_for_a_descriptor_keeps_no_other_from_running(stage: Stage) -> None:
    with connection() as (a, _):
        others_go_on(stage, lambda ch: readable(a), "a descriptor")


# --- L14 No foreign code under a lock ---------------------------------------------------------------------------------


@check("L14", "cooperative", "turn")
def a_party_that_is_met_does_not_run_within_the_call_that_met_it(stage: Stage) -> None:
    ch = stage.channel()
    saw: list[Any] = []

    def script() -> Script:
        saw.append((yield ch.recv()))

    party = stage.start(stage.here, script)
    stage.until_parked(ch, receivers=1)
    ch.send_nowait("v")
    expect_equal(
        saw, [], "the party has run, in the middle of the other's `send`, and got; `wake` only makes it runnable"
    )
    stage.join(party)
    expect_equal(saw, ["v"], "the party got")


@check("L14", "cooperative")
def who_meets_another_goes_on_before_that_one_runs(stage: Stage) -> None:
    ch = stage.channel()
    saw: list[str] = []

    def waiting() -> Script:
        yield ch.recv()
        saw.append("the one that was met")

    def meeting() -> Script:
        ch.send_nowait("v")
        saw.append("the one that met it")
        yield PAUSE

    party = stage.start(stage.here, waiting)
    stage.until_parked(ch, receivers=1)
    stage.join(stage.start(stage.here, meeting))
    stage.join(party)
    expect_equal(saw, ["the one that met it", "the one that was met"], "they ran in this order")


@check("L14", pair=True)
def a_party_goes_on_in_its_own_thread(stage: Stage) -> None:
    ch = stage.channel()
    applied: list[int] = []

    def apply(value: Any) -> Any:
        applied.append(threading.get_ident())
        return value

    def waiting() -> Script:
        threads = [threading.get_ident()]
        for _ in range(20):
            yield ch.recv().map(apply)
            threads.append(threading.get_ident())
        return threads

    rx = stage.start(stage.there, waiting)
    stage.join(stage.start(stage.here, sending, ch, *range(20)))
    threads = stage.join(rx)
    expect_equal(set(threads + applied), {threads[0]}, "a party, and a function given to `map`, ran in these threads")


@check("L14", "cancel")
def what_is_dropped_may_use_the_channel(stage: Stage) -> None:
    """The value of a cancelled sender dies where nobody holds a lock: its destructor uses the channel."""
    ch = stage.channel()
    said: list[Any] = []

    class Value:
        def __del__(self) -> None:
            said.append(parked(ch))

    def script() -> Script:
        yield ch.send(Value())

    tx = stage.start(stage.here, script)
    stage.until_parked(ch, senders=1)
    stage.cancel(tx)
    stage.expect_cancelled(tx)
    stage.forget(tx)
    del tx

    def dropped() -> bool:
        collect()
        return bool(said)

    stage.until(dropped, "the value of a cancelled sender is let go; something still holds on to the operation")
    expect_equal(said, [(0, 0)], "its destructor saw parked (senders, receivers)")
