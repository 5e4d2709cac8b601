"""The bytes of a record. This is the only place that knows them; the test holds golden bytes against it.

A segment file is the 8 bytes `PUSHLOG1` and then records, each of them, little-endian:

    offset  size  field
    0       4     crc      CRC-32C of everything that follows, body included
    4       4     length   of the body
    8       1     kind     see Kind
    9       1     flags    see Flag
    10      2     zero
    12      4     number   MESSAGE: its route in this segment; ROUTE: the route it defines; SETTLE: the subscription
    16      8     position MESSAGE: its own; others: the next position to be given
    24      8     time_ms  since the epoch
    32      ...   body

    HEADER        JSON, first record of every segment: format, version, epoch, segment, base, created_ms
    MESSAGE       the delivery JSON as consumers get it; with TIMED, before it: u64 due_ms, u64 expires_ms (0 none)
    ROUTE         JSON: {"topic": ..., "subscriptions": [number, ...]}; stands before the first message that uses it
    SETTLE        u32 cause, u32 count of messages, then pairs of u64: closed ranges of positions
    SUBSCRIPTION  JSON: {"number", "name", "settings"}; settings null where it was deleted
    BACKFILL      SETTLE's ranges without cause: older positions that are routed to subscription `number` afterwards
    SEEK          u64 position, u64 again, u64 skipped: subscription `number` is due what it has from `position` on, of
                  which `again` had been settled, and nothing before it, of which `skipped` had not been settled
    REDRIVE       u64 count of messages, then SETTLE's ranges: they are not settled any more, but due once more
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, count, repeat
from mmap import mmap
from operator import add
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

from gateway.model import Ranges

MAGIC: Final = b"PUSHLOG1"
FORMAT: Final = 1

_CRC: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<IBBHIQQ")  # everything between crc and body
_FULL: Final = struct.Struct("<IIBBHIQQ")
_TIMES: Final = struct.Struct("<QQ")
_SETTLE: Final = struct.Struct("<II")
_SEEK: Final = struct.Struct("<QQQ")
_REDRIVE: Final = struct.Struct("<Q")
HEAD_BYTES: Final = _FULL.size
BODY_BYTES_MAX: Final = 1 << 30


class Kind(enum.IntEnum):
    HEADER = 1
    MESSAGE = 2
    ROUTE = 3
    SETTLE = 4
    SUBSCRIPTION = 5
    BACKFILL = 6
    SEEK = 7
    REDRIVE = 8


class Flag:
    """Bits of a record's flags. Plain integers: an IntFlag takes a microsecond to be asked, and every record is."""

    NONE: Final = 0
    TIMED: Final = 1
    """The body begins with due_ms and expires_ms."""
    OWN_ID: Final = 2
    """The producer gave the id: it takes part in deduplication."""
    KEYED: Final = 4
    """It has a key: it takes part in the order of subscriptions that ask for one."""


class Record(NamedTuple):
    """One record as read; `end` is the offset behind it."""

    offset: int
    end: int
    kind: int
    flags: int
    number: int
    position: int
    time_ms: int
    body: bytes


def encode(kind: Kind, body: bytes, *, number: int = 0, position: int = 0, time_ms: int = 0, flags: int = 0) -> bytes:
    """One record."""
    rest = _HEAD.pack(len(body), kind, flags, 0, number, position, time_ms) + body
    return _CRC.pack(crc32c(rest)) + rest


def encode_messages(
    bodies: Sequence[bytes], routes: Sequence[int] | int, flags: Sequence[int] | int, position: int, time_ms: int
) -> list[bytes]:
    """MESSAGE records of consecutive positions, as parts to be joined: two a record, the second without the crc.

    `routes` and `flags`: one for all, or one each. The hot path: the loops run inside map, which takes a third off a
    loop of statements.
    """
    heads = map(
        _HEAD.pack,
        map(len, bodies),
        repeat(int(Kind.MESSAGE)),
        repeat(flags) if isinstance(flags, int) else flags,
        repeat(0),
        repeat(routes) if isinstance(routes, int) else routes,
        count(position),
        repeat(time_ms),
    )
    parts = [b""] * (2 * len(bodies))
    parts[1::2] = rests = list(map(add, heads, bodies))
    parts[::2] = map(_CRC.pack, map(crc32c, rests))
    return parts


def offsets_of(parts: Sequence[bytes], offset: int) -> list[int]:
    """Where each record of `encode_messages` begins when the first is written at `offset`, and where the last ends."""
    return list(accumulate(map(_CRC.size.__add__, map(len, parts[1::2])), initial=offset))


def with_times(body: bytes, due_ms: int, expires_ms: int) -> bytes:
    """The body of a TIMED message."""
    return _TIMES.pack(due_ms, expires_ms) + body


def split_times(record: Record) -> tuple[int, int, bytes]:
    """(due_ms, expires_ms, delivery JSON) of a MESSAGE; zeros where it is not TIMED."""
    if record.flags & Flag.TIMED:
        due_ms, expires_ms = _TIMES.unpack_from(record.body)
        return due_ms, expires_ms, record.body[_TIMES.size :]
    return 0, 0, record.body


def encode_settle(cause: int, counted: int, ranges: Ranges) -> bytes:
    """The body of a SETTLE."""
    return _SETTLE.pack(cause, counted) + encode_ranges(ranges)


def decode_settle(body: bytes) -> tuple[int, int, list[tuple[int, int]]]:
    """(cause, count, ranges) of a SETTLE."""
    cause, counted = _SETTLE.unpack_from(body)
    return cause, counted, decode_ranges(body[_SETTLE.size :])


def encode_seek(position: int, again: int, skipped: int) -> bytes:
    """The body of a SEEK."""
    return _SEEK.pack(position, again, skipped)


def decode_seek(body: bytes) -> tuple[int, int, int]:
    """(position, again, skipped) of a SEEK."""
    position, again, skipped = _SEEK.unpack(body)
    return position, again, skipped


def encode_redrive(counted: int, ranges: Ranges) -> bytes:
    """The body of a REDRIVE."""
    return _REDRIVE.pack(counted) + encode_ranges(ranges)


def decode_redrive(body: bytes) -> tuple[int, list[tuple[int, int]]]:
    """(count, ranges) of a REDRIVE."""
    (counted,) = _REDRIVE.unpack_from(body)
    return counted, decode_ranges(body[_REDRIVE.size :])


def encode_ranges(ranges: Ranges) -> bytes:
    return array("Q", [bound for pair in ranges for bound in pair]).tobytes()


def decode_ranges(body: bytes) -> list[tuple[int, int]]:
    bounds = array("Q", body)
    return list(zip(bounds[::2], bounds[1::2], strict=True))


def decode(data: bytes | memoryview, offset: int = 0, base: int = 0) -> Record | None:
    """The record at `offset` of `data`; None where there is no whole record with the right CRC.

    `base` is added to the offsets of the result: where `data` begins in its file.
    """
    if offset + HEAD_BYTES > len(data):
        return None
    crc, length, kind, flags, _, number, position, time_ms = _FULL.unpack_from(data, offset)
    end = offset + HEAD_BYTES + length
    if end > len(data) or crc32c(bytes(data[offset + 4 : end])) != crc:
        return None
    body = bytes(data[offset + HEAD_BYTES : end])
    return Record(base + offset, base + end, kind, flags, number, position, time_ms, body)


class Head(NamedTuple):
    """A record's head alone, unchecked."""

    kind: int
    number: int
    position: int
    body: int
    """Offset where the body begins."""
    end: int


def heads(data: bytes | mmap, offset: int, end: int) -> Iterator[Head]:
    """The heads of records known to be right, from `offset` up to `end`."""
    while offset < end:
        _, length, kind, _, _, number, position, _ = _FULL.unpack_from(data, offset)
        body = offset + HEAD_BYTES
        offset = body + length
        yield Head(kind, number, position, body, offset)


def scan(data: bytes, base: int = 0) -> Iterator[Record]:
    """Records one after the other, until the first that is not whole and right."""
    offset = 0
    while (record := decode(data, offset, base)) is not None:
        yield record
        offset = record.end - base
