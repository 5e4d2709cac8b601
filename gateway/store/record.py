"""The bytes of a record. This is the only place that knows them; the test holds golden bytes against it.

A segment file is the 8 bytes `PUSHLOG1` and then records, each of them, little-endian:

    offset  size  field
    0       4     crc      CRC-32C of everything that follows, body included
    4       4     length   of the body
    8       1     kind     see Kind
    9       1     flags    see Flag
    10      2     zero
    12      4     number   MESSAGES: their route in this segment; ROUTE: the route it defines; SETTLE: the subscription
    16      8     position MESSAGES: of the first of them; others: the next position to be given
    24      8     time_ms  since the epoch
    32      ...   body

    HEADER        JSON, first record of every segment: format, version, epoch, segment, last, uid, base, created_ms; and
                  where it was merged from the segments up to `last`: end, count (of the messages in it)
    MESSAGES      messages that were appended together; see below
    ROUTE         JSON: {"topic": ..., "subscriptions": [number, ...]}; stands before the first message that uses it
    SETTLE        u32 cause, u32 count of messages, then pairs of u64: closed ranges of positions
    SUBSCRIPTION  JSON: {"number", "name", "settings"}; settings null where it was deleted
    BACKFILL      u64 end, RangeSet.encode(): positions below end that are routed to subscription `number` afterwards
    SEEK          u64 position, u64 again, u64 skipped: subscription `number` is due what it has from `position` on, of
                  which `again` had been settled, and nothing before it, of which `skipped` had not been settled
    REDRIVE       u64 count of messages, then SETTLE's ranges: they are not settled any more, but due once more
    ATTEMPTS      u64 deliveries so far, then SETTLE's ranges: of messages that came back
    BACKOFF       u64 due_ms, then SETTLE's ranges: when they are due again; behind their ATTEMPTS

The body of MESSAGES is columns of `count` entries, and behind them the delivery JSON of all, joined by commas: a frame
for a consumer is a slice of it, and a batch costs one head, one CRC and one join however many messages it has.

    u32 count
    u32 length[count]                     bytes of each delivery JSON
    u32 step[count]           SPARSE      position less that of the first; without it positions are consecutive
    u32 route[count]          ROUTED      of each; without it `number` is the route of all
    u64 due_ms[count]         TIMED       0: at once
    u64 expires_ms[count]     TIMED       0: never
    u64 key[count]            KEYED       hash of the ordering key; 0: none
    u128 id[count]            OWN_ID      hash of topic and producer's id; 0: none. As it came from the hash, 16 bytes
    u64 digest[count]         OWN_ID      hash of the payload, 8 bytes
    {...},{...},...
"""

from __future__ import annotations

import enum
import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import attrs
from google_crc32c import extend
from google_crc32c import value as crc32c

from gateway.model import Ranges

MAGIC: Final = b"PUSHLOG1"
FORMAT: Final = 2

_CRC: Final = struct.Struct("<I")
HEAD_FORMAT: Final = "<IBBHIQQ"
"""Everything between crc and body: length, kind, flags, 0, number, position, time_ms."""
_HEAD: Final = struct.Struct(HEAD_FORMAT)
_FULL: Final = struct.Struct("<IIBBHIQQ")
_HEAD_OF: Final = struct.Struct("<IIIIQQ")  # _FULL, with kind, flags and zeros as one number
_COUNT: Final = struct.Struct("<I")
_TIMES: Final = struct.Struct("<QQ")
_KEY: Final = struct.Struct("<Q")
_SETTLE: Final = struct.Struct("<II")
_SEEK: Final = struct.Struct("<QQQ")
_REDRIVE: Final = struct.Struct("<Q")
_SETTLED: Final = struct.Struct(f"{HEAD_FORMAT}IIQQ")  # a SETTLE of one range, without its crc
HEAD_BYTES: Final = _FULL.size
_SETTLED_BYTES: Final = _CRC.size + _SETTLED.size - HEAD_BYTES  # of its body
PLAIN: Final = 2
"""The kind of a head of MESSAGES without flags."""
_HEAD_LIKE: Final = re.compile(rb"(?=[\x01-\x3f][\x00-\x3f]\x00\x00)", re.DOTALL)
"""What stands at byte 8 of every head: kind, flags and two zeros. JSON has no zeros."""
BODY_BYTES_MAX: Final = 1 << 30
RECORD_BYTES: Final = 128 * 1024
"""A record of messages is not made longer: it is what one damaged byte can take away. A longer message stands alone."""


class Kind(enum.IntEnum):
    HEADER = 1
    MESSAGES = 2
    ROUTE = 3
    SETTLE = 4
    SUBSCRIPTION = 5
    BACKFILL = 6
    SEEK = 7
    REDRIVE = 8
    ATTEMPTS = 9
    BACKOFF = 10


class Flag:
    """Bits of a record's flags. Plain integers: an IntFlag takes a microsecond to be asked, and every record is."""

    NONE: Final = 0
    TIMED: Final = 1
    """Some of the messages have a delay or a TTL."""
    OWN_ID: Final = 2
    """Some have an id that the producer gave: they take part in deduplication."""
    KEYED: Final = 4
    """Some have a key."""
    SPARSE: Final = 8
    """Positions are not consecutive: messages between them are gone."""
    ROUTED: Final = 16
    """Not all go the same way."""


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


class Alone(NamedTuple):
    """What stands in a MESSAGES record of one message; zeros and nothing for what it does not have."""

    start: int
    """Where its delivery JSON begins in the file."""
    due_ms: int
    expires_ms: int
    key: int
    id: bytes
    digest: bytes


@attrs.define(slots=True)
class Columns:
    """What MESSAGES holds beside the delivery JSON, an entry a message; None for columns that it does not have."""

    lengths: array[int]
    steps: array[int] | None = None
    routes: array[int] | None = None
    due_ms: array[int] | None = None
    expires_ms: array[int] | None = None
    keys: array[int] | None = None
    ids: bytes = b""
    """16 bytes each; empty where there are none."""
    digests: bytes = b""
    """8 bytes each; empty where there are none."""
    size: int = 0
    """Bytes of the columns in the body: where the first delivery JSON begins."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def flags(self) -> int:
        return (
            (Flag.TIMED if self.due_ms is not None else 0)
            | (Flag.OWN_ID if self.ids else 0)
            | (Flag.KEYED if self.keys is not None else 0)
            | (Flag.SPARSE if self.steps is not None else 0)
            | (Flag.ROUTED if self.routes is not None else 0)
        )

    def cut(self, start: int, stop: int) -> Columns:
        """Those of messages [start, stop)."""
        return Columns(
            self.lengths[start:stop],
            None if self.steps is None else array("I", [step - self.steps[start] for step in self.steps[start:stop]]),
            None if self.routes is None else self.routes[start:stop],
            None if self.due_ms is None else self.due_ms[start:stop],
            None if self.expires_ms is None else self.expires_ms[start:stop],
            None if self.keys is None else self.keys[start:stop],
            self.ids[16 * start : 16 * stop],
            self.digests[8 * start : 8 * stop],
        )

    def pick(self, chosen: Sequence[int], routes: array[int] | None) -> Columns:
        """Those of the messages `chosen`, ascending, by the given routes; what none of them has is left out."""
        first = chosen[0] if self.steps is None else self.steps[chosen[0]]
        steps = array("I", [(at if self.steps is None else self.steps[at]) - first for at in chosen])
        return Columns(
            array("I", [self.lengths[at] for at in chosen]),
            steps if steps[-1] >= len(chosen) else None,
            routes,
            *_times_of(self, chosen),
            _picked(self.keys, chosen),
            *_ids_of(self, chosen),
        )


def _picked(column: array[int] | None, chosen: Sequence[int]) -> array[int] | None:
    picked = None if column is None else array(column.typecode, [column[at] for at in chosen])
    return picked if picked is not None and any(picked) else None


def _times_of(columns: Columns, chosen: Sequence[int]) -> tuple[array[int] | None, array[int] | None]:
    if columns.due_ms is None or columns.expires_ms is None:
        return None, None
    due_ms = array("Q", [columns.due_ms[at] for at in chosen])
    expires_ms = array("Q", [columns.expires_ms[at] for at in chosen])
    return (due_ms, expires_ms) if any(due_ms) or any(expires_ms) else (None, None)


def _ids_of(columns: Columns, chosen: Sequence[int]) -> tuple[bytes, bytes]:
    ids = b"".join([columns.ids[16 * at : 16 * at + 16] for at in chosen])
    return (ids, b"".join([columns.digests[8 * at : 8 * at + 8] for at in chosen])) if any(ids) else (b"", b"")


def encode(kind: Kind, body: bytes, *, number: int = 0, position: int = 0, time_ms: int = 0, flags: int = 0) -> bytes:
    """One record."""
    return seal(_HEAD.pack(len(body), kind, flags, 0, number, position, time_ms) + body)


def seal(rest: bytes) -> bytes:
    """One record, of everything behind its crc."""
    return _CRC.pack(crc32c(rest)) + rest


def encode_messages(columns: Columns, joined: bytes, *, route: int, position: int, time_ms: int) -> bytes:
    """The front of a MESSAGES record, to be followed by `joined`, which is its delivery JSON and is not copied."""
    flags = columns.flags
    parts = [_COUNT.pack(len(columns.lengths)), columns.lengths.tobytes()]
    if flags:
        few = (columns.steps, columns.routes, columns.due_ms, columns.expires_ms, columns.keys)
        parts += [column.tobytes() for column in few if column is not None]
        parts += [columns.ids, columns.digests]
    front = b"".join(parts)
    columns.size = len(front)
    rest = _HEAD.pack(len(front) + len(joined), Kind.MESSAGES, flags, 0, route, position, time_ms) + front
    return _CRC.pack(extend(crc32c(rest), joined)) + rest


def decode_columns(body: bytes, flags: int) -> Columns:
    """The columns of a MESSAGES record's body."""
    (count,) = _COUNT.unpack_from(body)
    at = _COUNT.size

    def take(size: int) -> bytes:
        nonlocal at
        at += size * count
        return body[at - size * count : at]

    columns = Columns(array("I", take(4)))
    if flags & Flag.SPARSE:
        columns.steps = array("I", take(4))
    if flags & Flag.ROUTED:
        columns.routes = array("I", take(4))
    if flags & Flag.TIMED:
        columns.due_ms = array("Q", take(8))
        columns.expires_ms = array("Q", take(8))
    if flags & Flag.KEYED:
        columns.keys = array("Q", take(8))
    if flags & Flag.OWN_ID:
        columns.ids = take(16)
        columns.digests = take(8)
    columns.size = at
    return columns


def encode_settle(cause: int, counted: int, ranges: Ranges) -> bytes:
    """The body of a SETTLE."""
    return _SETTLE.pack(cause, counted) + encode_ranges(ranges)


def encode_settled(number: int, position: int, time_ms: int, cause: int, counted: int, low: int, high: int) -> bytes:
    """A whole SETTLE of one range; in one packing, for there is one for each ack."""
    return seal(_SETTLED.pack(_SETTLED_BYTES, Kind.SETTLE, 0, 0, number, position, time_ms, cause, counted, low, high))


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


def encode_attempts(attempts: int, ranges: Ranges) -> bytes:
    """The body of an ATTEMPTS: the messages in `ranges` came back, and have been delivered so often."""
    return _REDRIVE.pack(attempts) + encode_ranges(ranges)


def decode_attempts(body: bytes) -> tuple[int, list[tuple[int, int]]]:
    """(attempts, ranges) of an ATTEMPTS."""
    return decode_redrive(body)


def encode_backoff(due_ms: int, ranges: Ranges) -> bytes:
    """The body of a BACKOFF: the messages in `ranges` came back, and are due again then."""
    return _REDRIVE.pack(due_ms) + encode_ranges(ranges)


def decode_backoff(body: bytes) -> tuple[int, list[tuple[int, int]]]:
    """(due_ms, ranges) of a BACKOFF."""
    return decode_redrive(body)


def encode_ranges(ranges: Ranges) -> bytes:
    return array("Q", [bound for pair in ranges for bound in pair]).tobytes()


def decode_ranges(body: bytes) -> list[tuple[int, int]]:
    bounds = array("Q", body)
    return list(zip(bounds[::2], bounds[1::2], strict=True))


def decode(data: bytes, offset: int = 0, base: int = 0) -> Record | None:
    """The record at `offset` of `data`; None where there is no whole record with the right CRC.

    `base` is added to the offsets of the result: where `data` begins in its file.
    """
    if offset + HEAD_BYTES > len(data):
        return None
    crc, length, kind, flags, _, number, position, time_ms = _FULL.unpack_from(data, offset)
    end = offset + HEAD_BYTES + length
    if end > len(data) or crc32c(data[offset + 4 : end]) != crc:
        return None
    body = data[offset + HEAD_BYTES : end]
    return Record(base + offset, base + end, kind, flags, number, position, time_ms, body)


def scan(data: bytes, base: int = 0, offset: int = 0) -> Iterator[Record]:
    """Records one after the other from `offset` of `data`, until the first that is not whole and right."""
    while (record := decode(data, offset, base)) is not None:
        yield record
        offset = record.end - base


def scan_heads(data: bytes, offset: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """The same without the bodies, which are checked too: (offset, end, kind, number, position, time_ms), where kind is
    that of a record and, above its 8 bits, the flags. A start reads some hundred thousand: this takes half as long."""
    unpack, check, head = _HEAD_OF.unpack_from, crc32c, HEAD_BYTES
    size = len(data)
    while offset + head <= size:
        crc, length, kind, number, position, time_ms = unpack(data, offset)
        end = offset + head + length
        if end > size or check(data[offset + 4 : end]) != crc:
            return
        yield offset, end, kind, number, position, time_ms
        offset = end


def starts_of(data: bytes, offset: int) -> Sequence[int]:
    """Where each delivery JSON begins of the MESSAGES record without flags at `offset`."""
    place = offset + HEAD_BYTES + _COUNT.size
    (count,) = _COUNT.unpack_from(data, place - _COUNT.size)
    if count == 1:
        return (place + 4,)
    lengths = array("I", data[place : place + 4 * count])
    return list(accumulate((length + 1 for length in lengths[:-1]), initial=place + 4 * count))


def decode_alone(data: bytes, offset: int, flags: int) -> Alone | None:
    """The message of the MESSAGES record at `offset`; None where there are more, or one that is not like the others."""
    at = offset + HEAD_BYTES + 2 * _COUNT.size
    if flags & ~(Flag.TIMED | Flag.KEYED | Flag.OWN_ID) or _COUNT.unpack_from(data, offset + HEAD_BYTES) != (1,):
        return None
    due_ms = expires_ms = key = 0
    hashed = digest = b""
    if flags & Flag.TIMED:
        due_ms, expires_ms = _TIMES.unpack_from(data, at)
        at += 16
    if flags & Flag.KEYED:
        (key,) = _KEY.unpack_from(data, at)
        at += 8
    if flags & Flag.OWN_ID:
        hashed, digest = data[at : at + 16], data[at + 16 : at + 24]
        at += 24
    return Alone(at, due_ms, expires_ms, key, hashed, digest)


def resynchronise(data: bytes, offset: int) -> int:
    """Where the next record that is whole and right begins, from `offset` on; the end of `data` where there is none."""
    for found in _HEAD_LIKE.finditer(data, offset + 8):
        if decode(data, found.start() - 8) is not None:
            return found.start() - 8
    return len(data)


def end_of(data: bytes, offset: int) -> int:
    """Where the record at `offset` says that it ends, unchecked."""
    return offset + HEAD_BYTES + int(_FULL.unpack_from(data, offset)[1])


def split(sizes: Sequence[int], size_max: int = RECORD_BYTES) -> Iterator[tuple[int, int]]:
    """How messages of `sizes` bytes are put into records: [start, stop) of each, at most `size_max` or one message."""
    total = sum(sizes) + len(sizes)
    if total <= size_max:
        yield 0, len(sizes)
        return
    start = filled = 0
    for index, size in enumerate(sizes):
        if filled + size > size_max and index > start:
            yield start, index
            start, filled = index, 0
        filled += size + 1
    yield start, len(sizes)
