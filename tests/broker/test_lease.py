from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.choosing import Takers
from gateway.broker.clockwork import Clockwork
from gateway.broker.lease import Consumer, Lease
from gateway.broker.slice import Slice
from gateway.broker.subscription import Subscription
from gateway.kit.ranges import normalise
from gateway.model import Ranges, SubscriptionSettings

positions = st.sets(st.integers(1, 60), min_size=2).map(lambda found: compact(sorted(found)))


def compact(found: list[int]) -> Sequence[int]:
    """As the queue gives them: a range where they are contiguous."""
    return range(found[0], found[-1] + 1) if found[-1] - found[0] == len(found) - 1 else found


def spans(pieces: Sequence[Slice]) -> list[tuple[int, int]]:
    return [(piece.span_low, piece.last) for piece in pieces]


@given(positions=positions, span=st.integers(0, 3), data=st.data())
def test_however_a_slice_is_cut_its_pieces_tile_its_span(
    positions: Sequence[int], span: int, data: st.DataObject
) -> None:
    pieces = [Slice(positions, positions[0] - span, 3)]
    while len(pieces[-1]) > 1 and data.draw(st.booleans(), label="cut again"):
        index = data.draw(st.integers(1, len(pieces[-1]) - 1), label="index")
        pieces[-1:] = pieces[-1].cut(index)
    assert [position for piece in pieces for position in piece.positions] == list(positions)
    assert {piece.attempts for piece in pieces} == {3}
    low = positions[0] - span
    for span_low, last in spans(pieces):
        assert span_low == low
        low = last + 1
    assert low == positions[-1] + 1


def test_a_range_that_is_cut_stays_a_range() -> None:
    before, after = Slice(range(5, 10**9), 2).cut(7)
    assert (before.positions, after.positions) == (range(5, 12), range(12, 10**9))
    assert spans([before, after]) == [(2, 11), (12, 10**9 - 1)]


def test_a_list_that_is_cut_keeps_what_lies_between() -> None:
    before, after = Slice([3, 7, 9], 2).cut(1)
    assert spans([before, after]) == [(2, 3), (4, 9)]


@given(positions=positions, low=st.integers(0, 62), high=st.integers(0, 62))
def test_within_finds_the_messages_of_a_range(positions: Sequence[int], low: int, high: int) -> None:
    start, stop = Slice(positions, 0).within(low, high)
    assert list(positions[start:stop]) == [p for p in positions if low <= p <= high]


class World:
    """As much of a subscription as a consumer needs."""

    def __init__(self) -> None:
        self.takers = Takers()


def consumer(window: int) -> Consumer:
    return Consumer(cast("Subscription", World()), window, 10_000, lambda _delivery: None, "test")


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_overlapping_finds_every_lease_that_holds_a_position_of_the_range(
    leased: list[bool], data: st.DataObject
) -> None:
    """Leases of one subscription never overlap; they come and go in any order."""
    holder = consumer(1000)
    edges = sorted(data.draw(st.sets(st.integers(1, 200), min_size=2 * len(leased), max_size=2 * len(leased))))
    leases = [Lease(holder, Slice([low, high], low)) for low, high in zip(edges[::2], edges[1::2], strict=True)]
    for lease in data.draw(st.permutations(leases)):
        holder.hold(lease)
    for lease, stays in zip(leases, leased, strict=True):
        if not stays:
            holder.drop(lease)
    held = [lease for lease, stays in zip(leases, leased, strict=True) if stays]
    assert holder.leases == held
    assert holder.in_flight == 2 * len(held)
    assert [lease.held for lease in leases] == leased

    low = data.draw(st.integers(0, 201))
    high = data.draw(st.integers(low, 201))
    found = holder.overlapping(low, high)
    wanted = [lease for lease in held if any(low <= p <= high for p in lease.slice.positions)]
    assert [lease for lease in found if any(low <= p <= high for p in lease.slice.positions)] == wanted


def test_credit_is_what_the_window_leaves() -> None:
    holder = consumer(4)
    assert (holder.credit, holder.free_share) == (4, 1.0)
    holder.hold(Lease(holder, Slice(range(1, 4), 1)))
    assert (holder.credit, holder.free_share) == (1, 0.25)


def test_a_consumer_stands_among_the_takers_exactly_while_it_has_credit() -> None:
    holder = consumer(2)
    takers = holder.subscription.takers
    holder.update()
    assert holder in takers
    lease = Lease(holder, Slice(range(1, 3), 1))
    holder.hold(lease)
    assert holder not in takers
    holder.drop(lease)
    assert holder in takers
    holder.block()
    assert (holder in takers, holder.credit) == (False, 0)
    holder.blocked = False
    holder.update()
    assert holder in takers


@given(
    young=st.sets(st.integers(1, 30)),
    aged=st.sets(st.integers(1, 30)),
    bounds=st.lists(st.tuples(st.integers(0, 35), st.integers(0, 35)), min_size=1, max_size=4),
    count_max=st.integers(1, 6),
)
def test_what_is_said_of_many_leases_is_cut_into_portions(
    young: set[int], aged: set[int], bounds: list[tuple[int, int]], count_max: int
) -> None:
    """All of them together say the same; each is about few leases, and the last leaves nothing."""
    clockwork = Clockwork(100, 1_000_000)
    subscription = Subscription(1, "orders", SubscriptionSettings(topics=("own.>",)), 1, clockwork)
    consumer = Consumer(subscription, 1000, 10_000, lambda _delivery: None, "test")
    for position in young | aged:
        lease = Lease(consumer, Slice(range(position, position + 1), position, 1))
        consumer.hold(lease)
        if position not in young:
            consumer.age(lease, clockwork.shelf, 10_300)
    ranges = normalise((min(pair), max(pair)) for pair in bounds)
    said = {position for low, high in ranges for position in range(low, high + 1)}
    heard: set[int] = set()
    rest: Ranges = ranges
    for _ in range(200):
        part, rest = consumer.portion(rest, count_max)
        here = {position for low, high in part for position in range(low, high + 1)}
        assert not heard & here
        heard |= here
        assert len(here & young) <= count_max
        assert len(here & (aged - young)) <= count_max
        if not rest:
            break
    assert heard == said


def test_what_was_taken_back_before_it_was_sent_weighs_nothing_but_its_own_bytes() -> None:
    one = consumer(10)
    one.charge(2, 300)  # both have gone back already
    assert one.in_flight_bytes == 300
    one.in_flight = 3
    one.charge(2, 300)
    assert one.in_flight_bytes == 600
    one.in_flight = 1
    assert one.in_flight_bytes == 200
    one.in_flight = 2
    one.charge(1, 50)
    assert one.in_flight_bytes == 250
