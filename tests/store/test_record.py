"""The bytes on disk. The golden ones were written down from the drawing in record.py, their CRCs by `crc32c` below: bit
by bit, from the polynomial of RFC 3720 §12.1."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store import record as records
from gateway.store.record import Columns, Flag, Kind, Record


def messages(columns: Columns, bodies: list[bytes], *, route: int, position: int, time_ms: int) -> bytes:
    joined = b",".join(bodies)
    return records.encode_messages(columns, joined, route=route, position=position, time_ms=time_ms) + joined


GOLDEN: dict[str, tuple[bytes, str]] = {
    "header": (
        records.encode(Kind.HEADER, b'{"format":1}', position=1, time_ms=1_795_326_701_000),
        "31a765ac 0c000000 01 00 0000 00000000 0100000000000000 c86dcf01a2010000" + b'{"format":1}'.hex(),
    ),
    "messages": (
        messages(Columns(array("I", [2, 3])), [b"{}", b"{ }"], route=3, position=7, time_ms=1000),
        "ae5b33e2 12000000 02 00 0000 03000000 0700000000000000 e803000000000000"
        "02000000 02000000 03000000" + b"{},{ }".hex(),
    ),
    "messages, everything": (
        messages(
            Columns(
                array("I", [2]),
                array("I", [0]),
                array("I", [9]),
                array("Q", [5]),
                array("Q", [0x0102]),
                array("Q", [6]),
                bytes(range(16)),
                bytes(range(8)),
            ),
            [b"{}"],
            route=1,
            position=258,
            time_ms=4,
        ),
        "9ec0080f 42000000 02 1f 0000 01000000 0201000000000000 0400000000000000"
        "01000000 02000000 00000000 09000000 0500000000000000 0201000000000000 0600000000000000"
        "000102030405060708090a0b0c0d0e0f 0001020304050607 7b7d",
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
    data = before + records.encode(Kind.MESSAGES, b"x", position=1)
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


uint32s = st.lists(uint32, min_size=1, max_size=20)


@given(data=st.data(), count=st.integers(1, 20), flags=st.integers(0, 31))
def test_columns_come_back_as_they_were_written(data: st.DataObject, count: int, flags: int) -> None:
    def column(typecode: str, of: st.SearchStrategy[int]) -> array[int]:
        return array(typecode, data.draw(st.lists(of, min_size=count, max_size=count)))

    written = Columns(
        array("I", data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))),
        column("I", uint32) if flags & Flag.SPARSE else None,
        column("I", uint32) if flags & Flag.ROUTED else None,
        column("Q", uint64) if flags & Flag.TIMED else None,
        column("Q", uint64) if flags & Flag.TIMED else None,
        column("Q", uint64) if flags & Flag.KEYED else None,
        column("Q", uint64).tobytes() * 2 if flags & Flag.OWN_ID else b"",
        column("Q", uint64).tobytes() if flags & Flag.OWN_ID else b"",
    )
    record = records.decode(messages(written, [b"x" * n for n in written.lengths], route=2, position=5, time_ms=6))
    assert record is not None
    assert (record.flags, record.number, record.position, record.time_ms) == (flags, 2, 5, 6)
    read = records.decode_columns(record.body, record.flags)
    assert read == written
    assert len(record.body) == read.size + sum(read.lengths) + count - 1


def test_columns_are_cut_like_the_messages_they_stand_for() -> None:
    whole = Columns(
        array("I", [1, 2, 3]),
        array("I", [0, 4, 9]),
        array("I", [7, 8, 9]),
        array("Q", [1, 2, 3]),
        array("Q", [4, 5, 6]),
        array("Q", [0, 1, 0]),
        bytes(48),
        bytes(range(24)),
    )
    part = whole.cut(1, 3)
    assert (list(part.lengths), list(part.steps or ()), list(part.routes or ())) == ([2, 3], [0, 5], [8, 9])
    assert (list(part.due_ms or ()), list(part.expires_ms or ()), list(part.keys or ())) == ([2, 3], [5, 6], [1, 0])
    assert (part.ids, part.digests) == (bytes(32), bytes(range(8, 24)))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=50), st.integers(1, 1000))
def test_records_take_all_messages_in_order_and_no_more_than_their_size(sizes: list[int], size_max: int) -> None:
    parts = list(records.split(sizes, size_max))
    assert [index for start, stop in parts for index in range(start, stop)] == list(range(len(sizes)))
    for start, stop in parts:
        assert sum(sizes[start:stop]) + (stop - start - 1) <= size_max or stop == start + 1


def test_a_scan_stops_at_the_first_record_that_is_not_right() -> None:
    whole = [records.encode(Kind.MESSAGES, bytes([n] * n), position=n) for n in range(1, 6)]
    data = bytearray(b"".join(whole))
    data[len(whole[0]) + len(whole[1]) + 3] ^= 1
    assert [record.position for record in records.scan(bytes(data))] == [1, 2]


def test_behind_damage_the_next_record_that_is_right_is_found() -> None:
    whole = [records.encode(Kind.SETTLE, bytes([n] * n), position=n) for n in range(1, 6)]
    data = bytearray(b"".join(whole))
    ends = [sum(map(len, whole[: n + 1])) for n in range(5)]
    for at in range(ends[0], ends[2]):
        data[at] ^= 0x10
        broken = 1 if at < ends[1] else 2
        assert records.resynchronise(bytes(data), ends[broken - 1] + 1) == ends[broken]
        data[at] ^= 0x10
    assert records.resynchronise(bytes(data), ends[3] + 1) == len(data)


@given(cause=uint32, counted=uint32, ranges=st.lists(st.tuples(uint64, uint64), max_size=10))
def test_a_settle_comes_back_as_it_was_written(cause: int, counted: int, ranges: list[tuple[int, int]]) -> None:
    body = records.encode_settle(cause, counted, ranges)
    assert records.decode_settle(body) == (cause, counted, ranges)
    for one in ranges[:1]:  # and, where there is one range, the whole record is made at once
        whole = records.encode(
            Kind.SETTLE, records.encode_settle(cause, counted, [one]), number=2, position=9, time_ms=3
        )
        assert records.encode_settled(2, 9, 3, cause, counted, *one) == whole


def test_a_seek_and_a_redrive_are_read_as_they_were_written() -> None:
    assert records.decode_seek(records.encode_seek(7, 3, 2)) == (7, 3, 2)
    assert records.encode_seek(7, 3, 2).hex() == "070000000000000003000000000000000200000000000000"
    assert records.decode_backoff(records.encode_backoff(2**40, [(1, 1), (5, 9)])) == (2**40, [(1, 1), (5, 9)])
    assert records.encode_backoff(1, [(5, 9)]).hex() == "010000000000000005000000000000000900000000000000"
    assert records.decode_redrive(records.encode_redrive(2, [(1, 1), (5, 9)])) == (2, [(1, 1), (5, 9)])
    assert records.encode_redrive(1, [(5, 9)]).hex() == "010000000000000005000000000000000900000000000000"
