"""The bytes on disk. The golden ones were written down from the drawing in record.py, their CRCs by `crc32c` below: bit
by bit, from the polynomial of RFC 3720 §12.1."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store import record as records
from gateway.store.record import Flag, Kind, Record

GOLDEN: dict[str, tuple[bytes, str]] = {
    "header": (
        records.encode(Kind.HEADER, b'{"format":1}', position=1, time_ms=1_795_326_701_000),
        "31a765ac 0c000000 01 00 0000 00000000 0100000000000000 c86dcf01a2010000" + b'{"format":1}'.hex(),
    ),
    "message": (
        records.encode(Kind.MESSAGE, b'{"position":7}', number=3, position=7, time_ms=1000, flags=Flag.OWN_ID),
        "680541b0 0e000000 02 02 0000 03000000 0700000000000000 e803000000000000" + b'{"position":7}'.hex(),
    ),
    "message, timed": (
        records.encode(
            Kind.MESSAGE, records.with_times(b"{}", 5, 0x0102), number=1, position=258, time_ms=4, flags=Flag.TIMED
        ),
        "3e61977f 12000000 02 01 0000 01000000 0201000000000000 04000000000000000500000000000000 0201000000000000 7b7d",
    ),
    "route": (
        records.encode(Kind.ROUTE, b'{"topic":"a","subscriptions":[1]}', number=1, position=9, time_ms=2),
        "fa3b4cef 21000000 03 00 0000 01000000 0900000000000000 0200000000000000"
        + b'{"topic":"a","subscriptions":[1]}'.hex(),
    ),
    "settle": (
        records.encode(Kind.SETTLE, records.encode_settle(2, 5, [(1, 4), (6, 6)]), number=2, position=9, time_ms=3),
        "c3b0e4dd 28000000 04 00 0000 02000000 0900000000000000 0300000000000000"
        "02000000 05000000 0100000000000000 0400000000000000 0600000000000000 0600000000000000",
    ),
    "subscription": (
        records.encode(Kind.SUBSCRIPTION, b"{}", number=4, position=1, time_ms=1),
        "0bb8f031 02000000 05 00 0000 04000000 0100000000000000 0100000000000000 7b7d",
    ),
    "backfill": (
        records.encode(Kind.BACKFILL, records.encode_ranges([(1, 2**53 - 1)]), number=4, position=1, time_ms=1),
        "3a5fb21e 10000000 06 00 0000 04000000 0100000000000000 0100000000000000 0100000000000000 ffffffffffff1f00",
    ),
}

bodies = st.binary(max_size=300)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", GOLDEN)
def test_every_kind_has_its_golden_bytes(name: str) -> None:
    encoded, drawn = GOLDEN[name]
    assert encoded.hex() == bytes.fromhex(drawn).hex()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_check_is_crc_32c_of_all_that_follows_it(name: str) -> None:
    encoded, _ = GOLDEN[name]
    assert encoded[:4] == struct.pack("<I", crc32c(encoded[4:]))
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogue of CRC algorithms


def test_a_segment_begins_with_its_magic_and_a_record_with_a_head_of_32_bytes() -> None:
    assert records.MAGIC == b"PUSHLOG1"
    assert records.HEAD_BYTES == 32


@given(
    kind=st.sampled_from(Kind), flags=st.integers(0, 255), number=uint32, position=uint64, time_ms=uint64, body=bodies
)
def test_a_record_comes_back_as_it_was_written(
    kind: Kind, flags: int, number: int, position: int, time_ms: int, body: bytes
) -> None:
    data = records.encode(kind, body, number=number, position=position, time_ms=time_ms, flags=flags)
    record = records.decode(data)
    assert record == Record(0, len(data), kind, flags, number, position, time_ms, body)


@given(before=bodies, base=st.integers(0, 2**40))
def test_offsets_count_from_where_the_data_begins_in_its_file(before: bytes, base: int) -> None:
    data = before + records.encode(Kind.MESSAGE, b"x", position=1)
    record = records.decode(data, len(before), base)
    assert record is not None
    assert (record.offset, record.end) == (base + len(before), base + len(data))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_record_with_any_bit_flipped_is_no_record(name: str) -> None:
    encoded, _ = GOLDEN[name]
    data = bytearray(encoded + bytes(64))  # room behind, so that a longer length is not refused for that alone
    for bit in range(8 * len(encoded)):
        data[bit // 8] ^= 1 << bit % 8
        assert records.decode(bytes(data)) is None, f"bit {bit}"
        data[bit // 8] ^= 1 << bit % 8
    assert records.decode(bytes(data)) is not None


@pytest.mark.parametrize("name", GOLDEN)
def test_a_record_that_is_cut_anywhere_is_no_record(name: str) -> None:
    encoded, _ = GOLDEN[name]
    assert [length for length in range(len(encoded)) if records.decode(encoded[:length]) is not None] == []


def test_zeros_are_no_record() -> None:
    assert [length for length in range(200) if records.decode(bytes(length)) is not None] == []


def test_a_view_is_read_like_bytes() -> None:
    encoded, _ = GOLDEN["settle"]
    assert records.decode(memoryview(encoded)) == records.decode(encoded)


@given(st.lists(st.tuples(bodies, st.integers(0, 3), st.integers(0, 3)), max_size=20), st.integers(1, 2**53), uint64)
def test_messages_encoded_at_once_are_messages_encoded_one_by_one(
    messages: list[tuple[bytes, int, int]], first: int, time_ms: int
) -> None:
    parts = records.encode_messages(
        [m[0] for m in messages], [m[1] for m in messages], [m[2] for m in messages], first, time_ms
    )
    assert b"".join(parts) == b"".join(
        records.encode(Kind.MESSAGE, body, number=route, position=position, time_ms=time_ms, flags=flags)
        for position, (body, route, flags) in enumerate(messages, first)
    )


def test_one_route_and_one_set_of_flags_may_stand_for_all() -> None:
    each = records.encode_messages([b"a", b"bc"], [5, 5], [2, 2], 10, 99)
    assert records.encode_messages([b"a", b"bc"], 5, 2, 10, 99) == each


@given(st.lists(bodies, max_size=20), st.integers(0, 2**31))
def test_offsets_are_where_the_records_are_found(messages: list[bytes], start: int) -> None:
    parts = records.encode_messages(messages, 1, 0, 1, 0)
    data = b"".join(parts)
    offsets = records.offsets_of(parts, start)
    assert offsets.pop() == start + len(data)
    assert offsets == [record.offset for record in records.scan(data, start)]


def test_a_scan_stops_at_the_first_record_that_is_not_right() -> None:
    whole = [records.encode(Kind.MESSAGE, bytes([n] * n), position=n) for n in range(1, 6)]
    data = bytearray(b"".join(whole))
    data[len(whole[0]) + len(whole[1]) + 3] ^= 1
    assert [record.position for record in records.scan(bytes(data))] == [1, 2]


def test_heads_are_read_without_their_bodies() -> None:
    data = b"".join(records.encode(Kind.MESSAGE, b"x" * n, number=n, position=10 + n) for n in range(4))
    found = list(records.heads(b"8 bytes." + data, 8, 8 + len(data)))
    assert [(head.kind, head.number, head.position, head.end - head.body) for head in found] == [
        (Kind.MESSAGE, n, 10 + n, n) for n in range(4)
    ]
    assert found[-1].end == 8 + len(data)


@given(body=bodies, due_ms=uint64, expires_ms=uint64)
def test_times_stand_before_the_delivery_json_and_are_split_from_it(body: bytes, due_ms: int, expires_ms: int) -> None:
    data = records.encode(Kind.MESSAGE, records.with_times(body, due_ms, expires_ms), flags=Flag.TIMED | Flag.OWN_ID)
    record = records.decode(data)
    assert record is not None
    assert records.split_times(record) == (due_ms, expires_ms, body)


def test_a_message_without_times_has_none() -> None:
    record = records.decode(records.encode(Kind.MESSAGE, bytes(32), flags=Flag.OWN_ID))
    assert record is not None
    assert records.split_times(record) == (0, 0, bytes(32))


@given(cause=uint32, counted=uint32, ranges=st.lists(st.tuples(uint64, uint64), max_size=10))
def test_a_settle_comes_back_as_it_was_written(cause: int, counted: int, ranges: list[tuple[int, int]]) -> None:
    assert records.decode_settle(records.encode_settle(cause, counted, ranges)) == (cause, counted, ranges)


def test_a_seek_and_a_redrive_are_read_as_they_were_written() -> None:
    assert records.decode_seek(records.encode_seek(7, 3, 2)) == (7, 3, 2)
    assert records.encode_seek(7, 3, 2).hex() == "070000000000000003000000000000000200000000000000"
    assert records.decode_redrive(records.encode_redrive(2, [(1, 1), (5, 9)])) == (2, [(1, 1), (5, 9)])
    assert records.encode_redrive(1, [(5, 9)]).hex() == "010000000000000005000000000000000900000000000000"
