"""The bytes of events, held against the drawing in event.py; CRCs by the bitwise algorithm of the store's test."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store import record as records
from gateway.trace import event as events
from gateway.trace.event import LISTED, SPAN, Event, Step
from tests.store.test_record import crc32c


def little(*fields: tuple[int, int]) -> bytes:
    """(size, value) pairs as little-endian bytes."""
    return b"".join(value.to_bytes(size, "little") for size, value in fields)


def drawn(kind: int, flags: int, number: int, position: int, time_ms: int, body: bytes) -> bytes:
    """A record as event.py and record.py draw it."""
    rest = little((4, len(body)), (1, kind), (1, flags), (2, 0), (4, number), (8, position), (8, time_ms)) + body
    return struct.pack("<I", crc32c(rest)) + rest


GOLDEN: dict[str, tuple[bytes, bytes]] = {
    "accepted": (
        events.encode(Step.ACCEPTED, 10, 12, 1000, 0, 3, 999, 3, 0, 4, 5, 6, events.encode_numbers([1, 7, 2, 8])),
        drawn(
            16,
            0,
            3,
            10,
            1000,
            bytes.fromhex("0c00000000000000 e703000000000000 03000000 00000000 04000000 05000000 06000000")
            + bytes.fromhex("01000000 07000000 02000000 08000000"),
        ),
    ),
    "handed": (
        events.encode(Step.HANDED, 1, 0x0102, 7, 0, 2, 30_007, 5, 2, 9),
        drawn(
            32, 0, 2, 1, 7,
            bytes.fromhex("0201000000000000 3775000000000000 05000000 02000000 09000000 00000000 00000000"),
        ),
    ),
    "acked, two ranges": (
        events.encode(Step.ACKED, 1, 9, 7, SPAN, 2, 0, 6, 0, 9, 0, 0, records.encode_ranges([(1, 4), (8, 9)])),
        drawn(
            33, 1, 2, 1, 7,
            bytes.fromhex("0900000000000000 0000000000000000 06000000 00000000 09000000 00000000 00000000")
            + bytes.fromhex("0100000000000000 0400000000000000 0800000000000000 0900000000000000"),
        ),
    ),
    "returned, listed": (
        events.encode(Step.RETURNED, 1, 5, 7, LISTED, 2, 99, 3, 1, 0, 3, 4, events.listing([1, 3, 5])[3]),
        drawn(
            37, 2, 2, 1, 7,
            bytes.fromhex("0500000000000000 6300000000000000 03000000 01000000 00000000 03000000 04000000")
            + bytes.fromhex("0100000000000000 0300000000000000 0500000000000000"),
        ),
    ),
    "ids": (
        events.encode(Step.IDS, 4, 4, 7, messages=1, tail=events.encode_hashes([4, 0x1122334455667788])),
        drawn(
            17, 0, 0, 4, 7,
            bytes.fromhex("0400000000000000 0000000000000000 01000000 00000000 00000000 00000000 00000000")
            + bytes.fromhex("0400000000000000 8877665544332211"),
        ),
    ),
    "acked, each": (
        events.encode_each(Step.ACKED, 8, 9, 7, [8, 0x1122, 2 | 3 << 32, 1 | 6 << 32, 9, 0, 4, 0]),
        drawn(
            33, 4, 0, 8, 7,
            bytes.fromhex("0900000000000000 0000000000000000 02000000 00000000 00000000 00000000 00000000")
            + bytes.fromhex("0800000000000000 2211000000000000 02000000 03000000 01000000 06000000")
            + bytes.fromhex("0900000000000000 0000000000000000 04000000 00000000 00000000 00000000"),
        ),
    ),
    "traceparent": (
        events.encode(Step.TRACEPARENT, 4, 4, 7, messages=1, tail=events.encode_parents([(4, "00-" + "a" * 52)])),
        drawn(
            18, 0, 0, 4, 7,
            bytes.fromhex("0400000000000000 0000000000000000 01000000 00000000 00000000 00000000 00000000")
            + bytes.fromhex("0400000000000000") + b"00-" + b"a" * 52,
        ),
    ),
    "name": (
        events.encode_plain(Step.NAME, b"orders", 7, 3),
        drawn(2, 0, 3, 0, 7, b"orders"),
    ),
    "route": (
        events.encode_plain(Step.ROUTE, events.encode_numbers([1, 2]), 7, 3),
        drawn(3, 0, 3, 0, 7, bytes.fromhex("01000000 02000000")),
    ),
    "lost": (
        events.encode_lost(5, 6, 7),
        drawn(4, 0, 0, 0, 7, bytes.fromhex("0500000000000000 0600000000000000")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_every_kind_has_its_golden_bytes(name: str) -> None:
    encoded, expected = GOLDEN[name]
    assert encoded.hex(" ", 4) == expected.hex(" ", 4)


def test_a_trace_file_does_not_pass_for_a_segment_of_the_store() -> None:
    assert events.MAGIC == b"PUSHTRC1"
    assert len({events.MAGIC, records.MAGIC}) == 2


@pytest.mark.parametrize(
    ("step", "number"),
    [
        *[(Step.HEADER, 1), (Step.INDEX, 5), (Step.STAGE, 19), (Step.FILTERED, 20), (Step.REFUSED, 24)],
        *[(Step.DUPLICATE, 25), (Step.EXPIRED, 34), (Step.DEAD_LETTERED, 35), (Step.EXTENDED, 36), (Step.DOOMED, 38)],
        *[(Step.BURIED, 48), (Step.DEAD_LETTER, 49), (Step.REDRIVEN, 50), (Step.SOUGHT, 51), (Step.ROUTED, 52)],
        *[(Step.STARTED, 64), (Step.STOPPED, 65), (Step.CHANGED, 66)],
    ],
)
def test_numbers_of_steps_never_change(step: Step, number: int) -> None:
    assert step == number


u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(low=u64, high=u64, at=u64, number=u32, other=u64, messages=u32, attempt=u32, who=u32, what=u32, why=u32)
def test_an_event_comes_back_as_it_went(
    low: int, high: int, at: int, number: int, other: int, messages: int, attempt: int, who: int, what: int, why: int
) -> None:
    data = events.encode(Step.HANDED, low, high, at, 0, number, other, messages, attempt, who, what, why)
    record = records.decode(data)
    assert record is not None
    assert events.decode(record) == Event(
        Step.HANDED, 0, number, low, high, at, other, messages, attempt, who, what, why, b""
    )
    assert events.high_of(data, records.HEAD_BYTES) == high


def test_events_that_share_a_record_come_back_as_they_were() -> None:
    data = events.encode_each(Step.HANDED, 8, 9, 100, [9, 500, 2 | 3 << 32, 1 | 6 << 32, 8, 700, 4, 2])
    record = records.decode(data)
    assert record is not None
    assert list(events.decode_all(record)) == [
        Event(Step.HANDED, 0, 2, 9, 9, 106, 500, 1, 1, 3, 0, 0, b""),
        Event(Step.HANDED, 0, 4, 8, 8, 100, 700, 1, 2, 0, 0, 0, b""),
    ]
    alone = records.decode(events.encode(Step.HANDED, 1, 2, 7, 0, 2, 30_007, 2, 2, 9))
    assert alone is not None
    assert list(events.decode_all(alone)) == [events.decode(alone)]


def read(data: bytes) -> Event:
    record = records.decode(data)
    assert record is not None
    return events.decode(record)


@given(st.sets(st.integers(1, 300), min_size=1).map(sorted))
def test_a_listing_is_about_its_positions_and_no_others(positions: list[int]) -> None:
    low, high, flags, tail = events.listing(positions)
    event = read(events.encode(Step.HANDED, low, high, 0, flags, tail=tail))
    assert [position for position in range(302) if event.about(position)] == positions
    assert (tail == b"") is (len(positions) == high - low + 1)


def test_the_producer_of_a_message_is_found_by_its_place() -> None:
    tail = events.encode_numbers([2, 7, 1, 8, 3, 7])
    event = read(events.encode(Step.ACCEPTED, 10, 15, 0, who=7, tail=tail))
    assert [events.producer_of(event, position) for position in range(10, 16)] == [7, 7, 8, 7, 7, 7]
    assert events.producer_of(read(events.encode(Step.ACCEPTED, 10, 15, 0, who=7)), 12) == 7


def test_ids_are_told_apart_by_their_hash() -> None:
    assert events.hash_id("a1") != events.hash_id("a2")
    assert events.hash_bytes("a1") == events.encode_hashes([events.hash_id("a1")])
    assert events.hash_bytes("\ud800")  # a lone surrogate is an id like any other


def test_trace_contexts_come_back_with_their_positions() -> None:
    parents = [(4, "00-" + "a" * 52), (2**53 - 1, "00-" + "b" * 52)]
    assert events.decode_parents(events.encode_parents(parents)) == parents
    assert events.decode_lost(GOLDEN["lost"][0][records.HEAD_BYTES :]) == (5, 6)
