"""Go's channels and select as a table, derived from the Go specification.

Sources: The Go Programming Language Specification, sections "Send statements", "Receive operator", "Close", "Select
statements", "Length and capacity". Where Go panics (send on or close of a closed channel) weft raises `Closed`, or is
idempotent (L7); a nil channel is a case that is `None`. A receive from a closed channel gives Go's zero value with
ok = false; weft raises `Closed`.
"""

import math
import threading
from collections import Counter, deque
from fractions import Fraction

import pytest
import weft
from worlds import parked, perform, receiving, until, until_parked

# --- the blocking matrix --------------------------------------------------------------------------------------------
# state of the channel x operation -> "blocks", "closed", or the value it gives


def empty():
    return weft.Channel(2)


def full():
    ch = weft.Channel(2)
    ch.send_nowait("b1")
    ch.send_nowait("b2")
    return ch


def half():
    ch = weft.Channel(2)
    ch.send_nowait("b1")
    return ch


def rendezvous():
    return weft.Channel()


def closed_empty():
    ch = weft.Channel(2)
    ch.close()
    return ch


def closed_holding():
    ch = half()
    ch.close()
    return ch


MATRIX = {
    # state: (send, recv)
    empty: ("passes", "blocks"),
    full: ("blocks", "b1"),
    half: ("passes", "b1"),
    rendezvous: ("blocks", "blocks"),
    closed_empty: ("closed", "closed"),
    closed_holding: ("closed", "b1"),
}
CELLS = [
    (state, operation, answer)
    for state, answers in MATRIX.items()
    for operation, answer in zip(("send", "recv"), answers, strict=True)
]
cells = pytest.mark.parametrize(
    "state, operation, answer", CELLS, ids=[f"{operation}-{state.__name__}" for state, operation, _ in CELLS]
)


def make(ch, operation):
    return ch.send("v") if operation == "send" else ch.recv()


@cells
def test_an_operation_by_itself(state, operation, answer):
    ch = state()
    op = make(ch, operation)
    if answer == "blocks":
        with pytest.raises(TimeoutError):
            op.wait(0)
        assert parked(ch) == (0, 0)
    elif answer == "closed":
        with pytest.raises(weft.Closed):
            op.wait(0)
    else:
        assert op.wait(0) == (None if answer == "passes" else answer)


@cells
def test_the_nowait_form(state, operation, answer):
    ch = state()
    call = (lambda: ch.send_nowait("v")) if operation == "send" else ch.recv_nowait
    if answer == "blocks":
        with pytest.raises(weft.WouldBlock):
            call()
    elif answer == "closed":
        with pytest.raises(weft.Closed):
            call()
    else:
        assert call() == (None if answer == "passes" else answer)


@cells
def test_a_select_with_one_case_is_the_operation(state, operation, answer):
    ch = state()
    select = weft.select(case=make(ch, operation))
    if answer == "blocks":
        with pytest.raises(TimeoutError):
            select.wait(0)
        assert parked(ch) == (0, 0)
    elif answer == "closed":
        with pytest.raises(weft.Closed) as caught:
            select.wait(0)
        assert caught.value.case == "case"
    else:
        assert select.wait(0) == ("case", None if answer == "passes" else answer)


@cells
def test_a_select_with_a_default_never_waits(state, operation, answer):
    ch = state()
    select = weft.select(case=make(ch, operation), default="d")
    if answer == "blocks":
        assert select.wait() == ("default", "d")
        assert parked(ch) == (0, 0)
    elif answer == "closed":
        with pytest.raises(weft.Closed):
            select.wait()
    else:
        assert select.wait() == ("case", None if answer == "passes" else answer)


@cells
def test_beside_a_case_that_is_switched_off_nothing_changes(state, operation, answer):
    ch = state()
    select = weft.select(None, make(ch, operation), None)
    if answer == "blocks":
        with pytest.raises(TimeoutError):
            select.wait(0)
    elif answer == "closed":
        with pytest.raises(weft.Closed) as caught:
            select.wait(0)
        assert caught.value.case == 1
    else:
        assert select.wait(0) == (1, None if answer == "passes" else answer)


@cells
def test_beside_a_case_that_is_ready_a_blocking_one_is_not_taken(state, operation, answer):
    ch = state()
    if answer == "blocks":
        for _ in range(30):
            assert weft.select(make(ch, operation), ready=weft.always(1)).wait() == ("ready", 1)
    else:
        seen = set()
        for _ in range(60):  # 2 ** -59 to see only one of two
            ch = state()
            try:
                seen.add(weft.select(mine=make(ch, operation), ready=weft.always(1)).wait().case)
            except weft.Closed as error:
                seen.add(error.case)
        assert seen == {"mine", "ready"}


@pytest.mark.parametrize("state, operation", [cell[:2] for cell in CELLS if cell[2] == "blocks"])
def test_an_operation_that_blocks_parks_until_a_partner_comes(world, state, operation):
    ch = state()
    party = world.start(perform, make(ch, operation))
    until_parked(ch, senders=operation == "send", receivers=operation == "recv")
    if operation == "send":
        assert [ch.recv_nowait() for _ in range(len(ch) + 1)][-1] == "v"
        assert party.join() is None
    else:
        ch.send_nowait("partner")
        assert party.join() == "partner"


def test_nil_cases_only_wait_for_ever(world):
    op = weft.select(None, x=None)
    with pytest.raises(TimeoutError):
        op.wait(0)
    party = world.start(perform, weft.select(None, weft.select(None), weft.after(0.005)))
    assert party.join().case == 2


def test_nil_cases_only_with_a_default_take_the_default():
    assert weft.select(None, x=None, default=7).wait() == ("default", 7)


def test_a_default_may_be_none():
    ch = weft.Channel()
    assert weft.select(ch.recv(), default=None).wait() == ("default", None)


# --- parked, then the channel changes -------------------------------------------------------------------------------


def test_a_close_ends_a_parked_receive(world):
    ch = weft.Channel()
    party = world.start(perform, ch.recv())
    until_parked(ch, receivers=1)
    ch.close()
    assert type(party.failure()) is weft.Closed


def test_a_close_ends_a_parked_select_and_names_the_case(world):
    a, b = weft.Channel(), weft.Channel()
    party = world.start(perform, weft.select(first=a.recv(), second=b.recv()))
    until_parked(b, receivers=1)
    b.close()
    error = party.failure()
    assert type(error) is weft.Closed and error.case == "second" and error.channel is b
    assert parked(a) == (0, 0)


def test_a_close_lets_a_parked_send_be_received(world):
    ch = weft.Channel()
    party = world.start(perform, ch.send("v"))
    until_parked(ch, senders=1)
    ch.close()
    assert ch.recv_nowait() == "v"
    assert party.join() is None
    with pytest.raises(weft.Closed):
        ch.recv_nowait()


def test_every_parked_receiver_learns_of_the_close(world):
    ch = weft.Channel()
    parties = [world.start(perform, ch.recv()) for _ in range(5)]
    until_parked(ch, receivers=5)
    ch.close()
    assert all(type(party.failure()) is weft.Closed for party in parties)


# --- select ---------------------------------------------------------------------------------------------------------


def test_operands_are_evaluated_once_in_order_when_the_select_is_made():
    """Go evaluates channel and value expressions exactly once, in source order; here they are arguments."""
    order = []

    def value(n):
        order.append(n)
        return n

    a, b = weft.Channel(1), weft.Channel(1)
    op = weft.select(a.send(value(1)), b.send(value(2)), default=value(3))
    assert order == [1, 2, 3]
    op.wait()
    assert order == [1, 2, 3]
    assert len(a) + len(b) == 1


def test_both_directions_on_one_channel_never_meet(world):
    ch = weft.Channel()
    with pytest.raises(TimeoutError):
        weft.select(ch.send(1), ch.recv()).wait(0)
    assert weft.select(ch.send(1), ch.recv(), default=None).wait() == ("default", None)
    party = world.start(perform, weft.select(ch.send(1), ch.recv()))
    until_parked(ch, senders=1, receivers=1)
    ch.send_nowait(2)
    assert party.join() == (1, 2)


def test_both_directions_on_a_buffered_channel_take_the_one_that_can():
    ch = weft.Channel(1)
    assert weft.select(ch.send("v"), ch.recv()).wait(0) == (0, None)
    assert weft.select(ch.send("w"), ch.recv()).wait(0) == (1, "v")


def test_two_self_selects_on_one_channel_meet_each_other(pair):
    here, there = pair
    ch = weft.Channel()
    one = here.start(perform, weft.select(ch.send("one"), ch.recv()))
    until_parked(ch, senders=1, receivers=1)
    two = there.start(perform, weft.select(ch.send("two"), ch.recv()))
    assert {one.join(), two.join()} in ({(0, None), (1, "one")}, {(1, "two"), (0, None)})


def test_a_channel_listed_twice_gives_one_value_and_takes_one():
    ch = weft.Channel(4)
    ch.send_nowait("a")
    ch.send_nowait("b")
    assert weft.select(ch.recv(), ch.recv()).wait(0).value == "a"
    assert len(ch) == 1
    weft.select(ch.send("c"), ch.send("c")).wait(0)
    assert len(ch) == 2


def test_facing_selects_pair(pair):
    here, there = pair
    a, b = weft.Channel(), weft.Channel()
    one = here.start(perform, weft.select(a.send(1), b.send(2)))
    until_parked(a, senders=1)
    two = there.start(perform, weft.select(a.recv(), b.recv()))
    case, value = two.join()
    assert value == case + 1 and one.join() == (case, None)


def test_in_a_ring_of_selects_no_two_that_could_meet_are_left():
    """Each of six offers to its right neighbour and to receive from its left: who is left alone has no neighbour left."""
    n = 6
    channels = [weft.Channel() for _ in range(n)]
    answers = [None] * n

    def party(i):
        try:
            answers[i] = weft.select(channels[i].send(i), channels[i - 1].recv()).wait()
        except weft.Poisoned:
            pass

    def settled():
        waiting = sum(parked(ch)[0] for ch in channels)
        return sum(answer is not None for answer in answers) + waiting == n

    threads = [threading.Thread(target=party, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    until(settled)
    for i, answer in enumerate(answers):
        if answer is None:
            assert answers[i - 1] is not None and answers[(i + 1) % n] is not None
        elif answer.case == 1:
            assert answer.value == (i - 1) % n and answers[answer.value] == (0, None)
        else:
            assert answers[(i + 1) % n] == (1, i)
    for ch in channels:
        ch.poison()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_len_and_cap():
    ch = weft.Channel(3)
    assert (len(ch), ch.capacity) == (0, 3)
    ch.send_nowait(None)
    assert (len(ch), ch.capacity) == (1, 3)
    ch.close()
    assert (len(ch), ch.capacity) == (1, 3)
    assert (len(weft.Channel()), weft.Channel().capacity) == (0, 0)


def test_range_over_a_channel_ends_when_it_is_closed_and_empty():
    ch = weft.Channel(3)
    for n in range(3):
        ch.send_nowait(n)
    ch.close()
    assert list(ch) == [0, 1, 2]
    assert list(ch) == []


# --- uniform among the ready ----------------------------------------------------------------------------------------


def chance(statistic, cases):
    """P(chi-square with cases - 1 degrees of freedom > statistic), for an odd number of cases (closed form)."""
    assert cases % 2
    half, term, total = statistic / 2, 1.0, 1.0
    for k in range(1, (cases - 1) // 2):
        term *= half / k
        total += term
    return math.exp(-half) * total


def chi_square(counts, cases):
    expected = sum(counts.values()) / cases
    return sum((counts[case] - expected) ** 2 for case in range(cases)) / expected


def assert_uniform(draws, cases):
    """Fails by bad luck once in more than a million runs."""
    counts = Counter(draws)
    assert chance(chi_square(counts, cases), cases) > 1e-7, counts


@pytest.mark.parametrize("cases", [3, 5, 17])
def test_the_choice_is_uniform_among_buffered_cases(cases):
    channels = [weft.Channel(1) for _ in range(cases)]
    for ch in channels:
        ch.send_nowait("v")
    draws = []
    for _ in range(2000 * cases):
        case, _ = weft.select(*(ch.recv() for ch in channels)).wait(0)
        draws.append(case)
        channels[case].send_nowait("v")
    assert_uniform(draws, cases)


def test_the_choice_is_uniform_among_the_ready_whatever_stands_between_them():
    """Cases that are switched off or cannot go do not lend their chance to a neighbour."""
    channels = [weft.Channel(1) for _ in range(5)]
    never = weft.Channel()
    draws = []
    for ch in channels:
        ch.send_nowait("v")
    ready = [1, 2, 3, 7, 9]
    for _ in range(10_000):
        cases = [never.recv(), *(channels[i].recv() for i in range(3)), None, never.send(0), None]
        cases += [channels[3].recv(), never.recv(), channels[4].recv()]
        case, _ = weft.select(*cases).wait(0)
        draws.append(ready.index(case))
        channels[draws[-1]].send_nowait("v")
    assert_uniform(draws, 5)


def test_the_choice_is_uniform_among_senders_receivers_and_closed_alike():
    draws = []
    for _ in range(6000):
        a, b, c = weft.Channel(1), weft.Channel(1), weft.Channel(1)
        b.send_nowait("v")
        c.close()
        try:
            draws.append(weft.select(a.send("v"), b.recv(), c.recv()).wait(0).case)
        except weft.Closed as error:
            draws.append(error.case)
    assert_uniform(draws, 3)


def test_the_choice_is_uniform_among_parked_partners(world):
    """Capacity 0: ready means that somebody is parked on the other side."""
    channels = [weft.Channel() for _ in range(3)]

    def partner(ch):
        try:
            while True:
                yield ch.send("v")
        except weft.Closed:
            pass

    parties = [world.start(partner, ch) for ch in channels]
    draws = []
    for _ in range(900):
        until(lambda: all(parked(ch) == (1, 0) for ch in channels))
        draws.append(weft.select(*(ch.recv() for ch in channels)).wait(0).case)
    for ch in channels:
        ch.poison()
    for party in parties:
        party.join()
    assert_uniform(draws, 3)


def test_two_selects_draw_independently():
    """The nine pairs of two three-way choices are equally likely: no shared or repeating sequence."""
    channels = [weft.Channel(1) for _ in range(3)]
    for ch in channels:
        ch.send_nowait("v")
    draws = []
    for _ in range(9000):
        two = []
        for _ in range(2):
            case, _ = weft.select(*(ch.recv() for ch in channels)).wait(0)
            channels[case].send_nowait("v")
            two.append(case)
        draws.append(two[0] * 3 + two[1])
    assert_uniform(draws, 9)


# --- programs -------------------------------------------------------------------------------------------------------


def test_the_prime_sieve(world):
    """A chain of filters, one per prime (McIlroy 1968; Hoare 1978)."""

    def numbers(out):
        n = 2
        try:
            while True:
                yield out.send(n)
                n += 1
        except weft.Closed:
            pass

    def without_multiples(prime, source, out):
        try:
            while True:
                n = yield source.recv()
                if n % prime:
                    yield out.send(n)
        except weft.Closed:
            source.poison()  # the stop runs up the chain

    def primes(count):
        found, end = [], weft.Channel()
        world.start(numbers, end)
        while len(found) < count:
            prime = yield end.recv()
            found.append(prime)
            longer = weft.Channel()
            world.start(without_multiples, prime, end, longer)
            end = longer
        end.poison()
        return found

    assert world.start(primes, 12).join() == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]


class PowerSeries:
    """Power series as processes: the n-th value on a channel is the coefficient of x**n.

    Source: M. Douglas McIlroy, "Squinting at Power Series", Software: Practice and Experience 20 (1990).
    """

    def __init__(self, world):
        self.world = world
        self.channels = []

    def channel(self):
        ch = weft.Channel()
        self.channels.append(ch)
        return ch

    def series(self, script, *args):
        """A new series, computed by script(*args, out) for as long as anybody asks."""
        out = self.channel()

        def until_poisoned():
            try:
                yield from script(*args, out)
            except weft.Poisoned:
                pass

        self.world.start(until_poisoned)
        return out

    def split(self, f):
        """Two copies of f. Asks f for the next coefficient when either copy has run dry."""
        a, b = self.channel(), self.channel()

        def splitting():
            for_a, for_b = deque(), deque()
            try:
                while True:
                    case, value = yield weft.select(
                        a=a.send(for_a[0]) if for_a else None,
                        b=b.send(for_b[0]) if for_b else None,
                        more=f.recv() if not (for_a and for_b) else None,
                    )
                    if case == "more":
                        for_a.append(value)
                        for_b.append(value)
                    else:
                        (for_a if case == "a" else for_b).popleft()
            except weft.Poisoned:
                pass

        self.world.start(splitting)
        return a, b

    def constants(self, *first, then=0):
        def script(out):
            for c in first:
                yield out.send(Fraction(c))
            while True:
                yield out.send(Fraction(then))

        return self.series(script)

    def add(self, f, g):
        def script(out):
            while True:
                yield out.send((yield f.recv()) + (yield g.recv()))

        return self.series(script)

    def scale(self, c, f):
        def script(out):
            while True:
                yield out.send(c * (yield f.recv()))

        return self.series(script)

    def shift(self, f, first=Fraction(0)):
        """first + x f"""

        def script(out):
            yield out.send(first)
            while True:
                yield out.send((yield f.recv()))

        return self.series(script)

    def multiply(self, f, g):
        """f g = f0 g0 + x (f0 g' + g0 f' + x f' g') where f = f0 + x f', g = g0 + x g'."""

        def script(out):
            f0, g0 = (yield f.recv()), (yield g.recv())
            yield out.send(f0 * g0)
            f1, f2 = self.split(f)
            g1, g2 = self.split(g)
            rest = self.add(
                self.add(self.scale(f0, g1), self.scale(g0, f1)),
                self.shift(self.series(lambda out: self.lazily(out, f2, g2))),
            )
            while True:
                yield out.send((yield rest.recv()))

        return self.series(script)

    def lazily(self, out, f, g):
        product = self.multiply(f, g)
        while True:
            yield out.send((yield product.recv()))

    def derivative(self, f):
        def script(out):
            yield f.recv()
            n = 1
            while True:
                yield out.send(n * (yield f.recv()))
                n += 1

        return self.series(script)

    def integral(self, f, constant=Fraction(0)):
        def script(out):
            yield out.send(constant)
            n = 1
            while True:
                yield out.send((yield f.recv()) / n)
                n += 1

        return self.series(script)

    def exp(self, f):
        """The x with x' = x f' and x(0) = 1: it feeds on its own output."""
        result = self.channel()
        kept, fed_back = self.split(result)
        solution = self.integral(self.multiply(fed_back, self.derivative(f)), Fraction(1))

        def feed():
            try:
                while True:
                    yield result.send((yield solution.recv()))
            except weft.Poisoned:
                pass

        self.world.start(feed)
        return kept

    def take(self, count, f):
        return self.world.start(receiving, f, count).join()

    def stop(self):
        """Poison every channel until each process has ended (one that was just made may still be starting others)."""

        def stopped():
            for ch in list(self.channels):
                ch.poison()
            return all(party.done for party in self.world.parties)

        until(stopped)


@pytest.fixture
def power(world):
    series = PowerSeries(world)
    yield series
    series.stop()


def test_power_series_add(power):
    total = power.add(power.constants(1, 2, 3), power.constants(then=1))
    assert power.take(5, total) == [2, 3, 4, 1, 1]


def test_power_series_multiply(power):
    # 1/(1-x) squared is 1 + 2x + 3x^2 + ...
    product = power.multiply(power.constants(then=1), power.constants(then=1))
    assert power.take(6, product) == [1, 2, 3, 4, 5, 6]


def test_power_series_multiply_polynomials(power):
    # (1 + x)(1 - x) = 1 - x^2
    product = power.multiply(power.constants(1, 1), power.constants(1, -1))
    assert power.take(5, product) == [1, 0, -1, 0, 0]


def test_power_series_exp(power):
    # exp(x) = sum x^n / n!
    assert power.take(6, power.exp(power.constants(0, 1))) == [Fraction(1, math.factorial(n)) for n in range(6)]


def test_power_series_exp_of_x_squared(power):
    # exp(x^2) = sum x^2n / n!
    expected = [1, 0, 1, 0, Fraction(1, 2), 0]
    assert power.take(6, power.exp(power.constants(0, 0, 1))) == expected
