from collections import Counter
from itertools import groupby, pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.layout import SIZE_MIN, Layout, read_delivery, runs_of
from gateway.broker.body import compose_plain
from gateway.model import Delivery, Message
from gateway.wire.push_v1 import Publish, decode, encode_messages

LAYOUT = Layout("bench.event", 64)


def published(stamps: list[int], layout: Layout = LAYOUT) -> list[Message]:
    operation = decode(layout.publish(7, [(stamp, 1) for stamp in stamps]).decode())
    assert isinstance(operation, Publish)
    return operation.messages


def delivery_frame(positions: list[int], stamps: list[int], attempts: dict[str, int] | None = None) -> bytes:
    """The frame as the gateway builds it."""
    delivery = Delivery("bench.0", 30_000)
    delivery.attempts = attempts or {}
    for position, message in zip(positions, published(stamps), strict=True):
        delivery.bodies += compose_plain("bench.event", [message], position, "0a1b2c3d", 1_795_326_701_000)
    payload = encode_messages(delivery)
    return payload if isinstance(payload, bytes) else b"".join(payload)


@given(st.integers(SIZE_MIN, 2000), st.integers(0, 10**16 - 1))
def test_a_payload_has_its_size_and_is_json(size: int, stamp: int) -> None:
    payload = Layout("t", size).payload(stamp)
    assert len(payload) == size
    assert int(orjson.loads(payload)[:16]) == stamp


def test_a_publish_says_each_message_with_its_stamp() -> None:
    operation = decode(LAYOUT.publish(7, [(5, 2), (6, 1)]).decode())
    assert isinstance(operation, Publish)
    assert operation.id == 7
    assert [message.topic for message in operation.messages] == ["bench.event"] * 3
    assert [bytes(message.data or b"") for message in operation.messages] == [LAYOUT.payload(s) for s in (5, 5, 6)]


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=40, unique=True), st.data())
def test_a_delivery_is_read_as_a_parser_reads_it(positions: list[int], data: st.DataObject) -> None:
    contiguous = data.draw(st.booleans())
    if contiguous:
        positions = list(range(positions[0], positions[0] + len(positions)))
    elif data.draw(st.booleans()):
        positions.sort()
    stamps = data.draw(st.lists(st.integers(0, 9), min_size=len(positions), max_size=len(positions)))
    attempts = {} if positions == sorted(positions) else {str(positions[0]): 2}
    frame = delivery_frame(positions, stamps, attempts)

    parsed = orjson.loads(frame)["messages"]
    seen = read_delivery(frame)
    assert seen.count == len(positions)
    assert [position for low, high in seen.ranges for position in range(low, high + 1)] == positions
    assert seen.stamps == Counter(message["data"][:16].encode() for message in parsed)


@pytest.mark.parametrize(
    ("positions", "ranges"),
    [
        ([1], [(1, 1)]),
        ([8, 9, 10, 11], [(8, 11)]),
        ([95, 96, 98, 99], [(95, 96), (98, 99)]),
        (list(range(1, 1200)), [(1, 1199)]),
    ],
)
def test_positions_are_told_as_ranges(positions: list[int], ranges: list[tuple[int, int]]) -> None:
    assert read_delivery(delivery_frame(positions, [1] * len(positions))).ranges == ranges


@pytest.mark.parametrize("positions", [[8, 9, 10], [9, 10], [99, 100, 101], [7, 8, 12]])
def test_stamps_are_found_where_positions_gain_a_digit(positions: list[int]) -> None:
    stamps = [71, 72, 73][: len(positions)]
    assert read_delivery(delivery_frame(positions, stamps)).stamps == {b"%016d" % stamp: 1 for stamp in stamps}


def test_a_redelivery_may_come_in_any_order() -> None:
    seen = read_delivery(delivery_frame([1, 2, 7, 8, 5], [3] * 5, {"5": 2}))
    assert seen.ranges == [(1, 2), (7, 8), (5, 5)]


@given(st.lists(st.integers(0, 50)))
def test_runs_hold_what_they_were_made_of_and_are_as_long_as_can_be(positions: list[int]) -> None:
    runs = runs_of(positions)
    assert [position for low, high in runs for position in range(low, high + 1)] == positions
    steps = sum(1 for ascending, _ in groupby(pairwise(positions), lambda p: p[1] == p[0] + 1))
    assert len(runs) <= max(steps * len(positions), len(positions))
    assert all(high + 1 != low for (_, high), (low, _) in pairwise(runs))
