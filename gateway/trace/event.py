"""The bytes of a trace event. This is the only place that knows them; the test holds golden bytes against it.

A trace file is the 8 bytes `PUSHTRC1` and then records as store/record.py draws them: a head of 32 bytes with CRC-32C,
length, kind, flags, number, position and time, and a body. One record is one event of a whole batch; or, with EACH, as
many events of one step as its tail has rows, each about one message. Here

    kind      a Step
    number    the name of the subscription; ACCEPTED: its route. 0 none
    position  the lowest position the event is about; 0 where it is about none
    time_ms   when it happened, by the node's clock

and the body of an event, little-endian:

    offset  size  field
    0       8     high     the highest position it is about
    8       8     other    ACCEPTED: accepted at, in ms. HANDED, EXTENDED, RETURNED: until, in ms. BURIED: the dead
                           letter's position. DEAD_LETTER: the original's. SOUGHT: where it reads on. STARTED: last
                           sign of life before, in ms
    16      4     messages how many it is about
    20      4     attempt  the delivery it is about, from 1
    24      4     who      name: producer, consumer, or stage; STARTED: the epoch
    28      4     what     name: topic, cause, or outcome
    32      4     why      name: reason
    36      ...   tail     ACCEPTED: pairs of u32: messages, who; where they have more than one producer
                           IDS: pairs of u64: position, hash of the producer's own id
                           REFUSED: u64 each: hash of its own id. DUPLICATE: the same, of one
                           TRACEPARENT: u64 position and 55 bytes of text each
                           else, where it is not about all of low..high: pairs of u64, closed ranges; with LISTED:
                           u64 each, the positions
                           with EACH: u64 position, u64 other, u32 number, u32 who, u32 attempt, and u32 ms since
                           time_ms, of each event; then number, other, attempt and who of the record are 0

Records that are no events:

    HEADER    JSON, first of every file: format, version, node, segment, created_ms
    NAME      UTF-8; later events of this file call it by `number`. Number 0 is the empty text
    ROUTE     u32 each: the names of subscriptions; later events of this file call them together by `number`
    LOST      u64 count, u64 since_ms: events that found no room since then
    INDEX     last of a sealed file: u32 each: number of blocks, names, losses; the blocks of `Index`, five u64 each;
              u32 each: offsets of NAME and ROUTE records, of LOST records; u64 offset of this record. Flag 1: the node
              had written all it knew. A file without one is scanned instead
"""

from __future__ import annotations

import enum
import struct
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, cast

from gateway.model import Position, Ranges
from gateway.store import record as records
from gateway.store.record import Kind, Record
from gateway.store.segment import consecutive

MAGIC: Final = b"PUSHTRC1"
FORMAT: Final = 2
"""1 had no EACH."""
_BODY: Final = struct.Struct("<QQIIIII")
_WHOLE: Final = struct.Struct(f"{records.HEAD_FORMAT}{_BODY.format[1:]}")
_LOW: Final = 2**32 - 1
_LOST: Final = struct.Struct("<QQ")
_PARENT: Final = struct.Struct("<Q55s")


class Step(enum.IntEnum):
    """What can happen to a message, and the few records that are no events."""

    HEADER = 1
    NAME = 2
    ROUTE = 3
    LOST = 4
    INDEX = 5

    ACCEPTED = 16  # and routed, and stored
    IDS = 17  # which of the accepted have ids of their own
    TRACEPARENT = 18  # which of them have a trace context
    STAGE = 19  # a stage did something to it
    FILTERED = 20

    REFUSED = 24
    DUPLICATE = 25

    HANDED = 32  # a delivery attempt: the socket has it
    ACKED = 33
    EXPIRED = 34
    DEAD_LETTERED = 35
    EXTENDED = 36
    RETURNED = 37  # waits again: nack, lease over, or its consumer left
    DOOMED = 38  # on the way to the dead letters

    BURIED = 48  # its dead letter is stored
    DEAD_LETTER = 49  # it is the dead letter of another
    REDRIVEN = 50
    SOUGHT = 51  # the subscription goes to a position
    ROUTED = 52  # to a subscription, afterwards

    STARTED = 64  # the node opened the store; the messages of low..high were in it
    STOPPED = 65
    CHANGED = 66  # a subscription


SPAN: Final = 1
"""Flag: of the positions only those are meant that are the subscription's."""
LISTED: Final = 2
"""Flag: the tail is a list of positions. To find the ranges of interleaved ones takes 0.3 us a message, this 0.02."""


EACH: Final = 4
"""Flag: the tail has a row for each of several events, which are about one message each."""
ROW: Final = 4
"""Numbers of a row: position, other, number and who in one, attempt and the time since the record's in one."""


class Event(NamedTuple):
    """One event as read, its names still numbers."""

    step: Step
    flags: int
    number: int
    low: Position
    high: Position
    time_ms: int
    other: int
    messages: int
    attempt: int
    who: int
    what: int
    why: int
    tail: bytes

    @property
    def ranges(self) -> Ranges:
        """The positions it is about; with SPAN, only those that are the subscription's."""
        if self.flags & LISTED:
            return consecutive(array("Q", self.tail))
        if self.tail and self.step not in _OWN_TAILS:
            return records.decode_ranges(self.tail)
        return [(self.low, self.high)]

    def about(self, position: Position) -> bool:
        """Whether `position` is in its ranges."""
        return self.low <= position <= self.high and any(low <= position <= high for low, high in self.ranges)


_OWN_TAILS: Final = frozenset({Step.ACCEPTED, Step.IDS, Step.TRACEPARENT, Step.REFUSED, Step.DUPLICATE})


def encode(
    step: Step,
    low: Position,
    high: Position,
    time_ms: int,
    flags: int = 0,
    number: int = 0,
    other: int = 0,
    messages: int = 0,
    attempt: int = 0,
    who: int = 0,
    what: int = 0,
    why: int = 0,
    tail: bytes = b"",
) -> bytes:
    """One event as a record."""
    size = _BODY.size + len(tail)
    front = _WHOLE.pack(
        size, step, flags, 0, number, low, time_ms, high, other, messages, attempt, who, what, why
    )  # in one: there is an event for each pull
    return records.seal(front + tail if tail else front)


def decode(record: Record) -> Event:
    """The event of a record whose kind is no less than ACCEPTED."""
    high, other, messages, attempt, who, what, why = _BODY.unpack_from(record.body)
    return Event(
        Step(record.kind),
        record.flags,
        record.number,
        record.position,
        high,
        record.time_ms,
        other,
        messages,
        attempt,
        who,
        what,
        why,
        record.body[_BODY.size :],
    )


def decode_all(record: Record) -> Iterator[Event]:
    """The event of such a record; or, with EACH, its events."""
    whole = decode(record)
    if not whole.flags & EACH:
        yield whole
        return
    rows = array("Q", whole.tail)
    for position, other, names, rest in zip(*(rows[column::ROW] for column in range(ROW)), strict=True):
        yield whole._replace(
            flags=whole.flags & ~EACH,
            number=names & _LOW,
            low=position,
            high=position,
            time_ms=whole.time_ms + (rest >> 32),
            other=other,
            messages=1,
            attempt=rest & _LOW,
            who=names >> 32,
            tail=b"",
        )


def encode_each(step: Step, low: Position, high: Position, time_ms: int, rows: Sequence[int]) -> bytes:
    """Events about messages of low..high as one record; `rows`: so many numbers each as ROW says."""
    tail = array("Q", rows).tobytes()
    return encode(step, low, high, time_ms, EACH, messages=len(rows) // ROW, tail=tail)


def high_of(data: bytes, body: int) -> Position:
    """The highest position of an event whose body begins at offset `body` of `data`."""
    return cast("int", struct.unpack_from("<Q", data, body)[0])


def listing(positions: Sequence[Position]) -> tuple[Position, Position, int, bytes]:
    """(low, high, flags, tail) of an event about ascending `positions`."""
    low, high = positions[0], positions[-1]
    if high - low + 1 == len(positions):
        return low, high, 0, b""
    return low, high, LISTED, array("Q", positions).tobytes()


def encode_plain(step: Step, body: bytes, time_ms: int, number: int = 0, flags: int = 0) -> bytes:
    """A record that is no event."""
    return records.encode(cast("Kind", step), body, number=number, time_ms=time_ms, flags=flags)


def encode_lost(count: int, since_ms: int, time_ms: int) -> bytes:
    return encode_plain(Step.LOST, _LOST.pack(count, since_ms), time_ms)


def decode_lost(body: bytes) -> tuple[int, int]:
    """(count, since_ms)."""
    count, since_ms = _LOST.unpack(body)
    return count, since_ms


def hash_id(message_id: str) -> int:
    """What stands for an id of the producer's own: 8 bytes of BLAKE2b."""
    return int.from_bytes(blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def hash_bytes(message_id: str) -> bytes:
    """The same as it stands in a file."""
    return hash_id(message_id).to_bytes(8, "little")


def encode_hashes(pairs: Sequence[int]) -> bytes:
    """The tail of IDS (position, hash, position, hash, ...), REFUSED or DUPLICATE (hashes)."""
    return array("Q", pairs).tobytes()


def decode_hashes(tail: bytes) -> list[int]:
    return array("Q", tail).tolist()


def encode_numbers(numbers: Sequence[int]) -> bytes:
    """The body of ROUTE, or the tail of ACCEPTED: messages, who, messages, who, ..."""
    return array("I", numbers).tobytes()


def decode_numbers(body: bytes) -> list[int]:
    return array("I", body).tolist()


def producer_of(event: Event, position: Position) -> int:
    """Who sent the message at `position` of an ACCEPTED event, as a name."""
    pairs = array("I", event.tail)
    end = event.low
    for messages, who in zip(pairs[::2], pairs[1::2], strict=True):
        end += messages
        if position < end:
            return who
    return event.who


def encode_parents(parents: Sequence[tuple[Position, str]]) -> bytes:
    """The tail of TRACEPARENT."""
    return b"".join(_PARENT.pack(position, text.encode("ascii")) for position, text in parents)


def decode_parents(tail: bytes) -> list[tuple[Position, str]]:
    return [(position, text.decode("ascii")) for position, text in _PARENT.iter_unpack(tail)]
