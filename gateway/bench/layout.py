"""The messages under test: all of one length, with the time of their sending at a fixed place.

    payload     "0000001234567890xxxx...x"    a JSON string of --size bytes, quotes included: 16 digits of microseconds
                {"at":"0000001234567890","type":"t7","amount":12,"rest":"xx...x"}    and something to look at

A delivery frame is read by that layout and by protocol.md §1, without parsing it: bodies of one length stand at equal
distances, so the first two say where all the others are. 0.2 us a message, where json takes 2 and a search 0.6.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import Final

import attrs

STAMP_DIGITS: Final = 16
SIZE_MIN: Final = STAMP_DIGITS + 2

Run = tuple[int, int]
"""(time stamp, number of messages that carry it)"""

_POSITION: Final = b'{"position":'
_DATA: Final = b'"data":'
_AT: Final = b'{"at":'
_BODY: Final = re.compile(rb'\{"position":(\d+),.*?"data":(?:\{"at":)?"(\d{%d})' % STAMP_DIGITS)
_STRING: Final = b'"%0*d%b'
_FIELDS: Final = b'{"at":"%0*d","type":"t7","amount":12,"rest":"%b'
DELIVERY: Final = b'{"op":"messages",'
"""How a delivery frame begins; everything else that the gateway sends is an answer or an announcement."""


class Layout:
    """The bytes of the messages; of several topics, each is the next one's."""

    def __init__(self, topics: str | Sequence[str], size_bytes: int, *, fields: bool = False) -> None:
        """`fields`: the payload is an object."""
        self._topics = [topic.encode("ascii") for topic in ([topics] if isinstance(topics, str) else topics)]
        self._next_topic = cycle(self._topics)
        self._form, end = (_FIELDS, b'"}') if fields else (_STRING, b'"')
        size = len(self._form % (STAMP_DIGITS, 0, end))
        self._rest = b"x" * (size_bytes - size) + end

    def payload(self, stamp: int) -> bytes:
        """The payload of one message that was sent at `stamp`, in microseconds."""
        return self._form % (STAMP_DIGITS, stamp, self._rest)

    def publish(self, reference: int, runs: Iterable[Run]) -> bytes:
        """A publish operation; `reference` is its `id`."""
        messages: list[bytes] = []
        for stamp, count in runs:
            payload = self.payload(stamp)
            if len(self._topics) == 1:
                messages += [b'{"topic":"%b","data":%b}' % (self._topics[0], payload)] * count
            else:
                topics = islice(self._next_topic, count)
                messages += [b'{"topic":"%b","data":%b}' % (topic, payload) for topic in topics]
        return b'{"op":"publish","id":%d,"messages":[%b]}' % (reference, b",".join(messages))


@attrs.frozen
class Seen:
    """What a delivery frame holds."""

    count: int
    ranges: list[tuple[int, int]]
    """Its positions, in the order of the frame."""
    stamps: Mapping[bytes, int]
    """Time stamp, as it stands there -> number of messages that carry it."""


def read_delivery(frame: bytes) -> Seen:
    """Positions and time stamps of a delivery frame."""
    first, last = frame.index(_POSITION), frame.rindex(_POSITION)
    low, high = _digits(frame, first), _digits(frame, last)
    if len(low) != len(high) or frame.endswith(b"}}"):
        return _search(frame)  # bodies of two lengths, or `attempts` behind them: redelivered, so in any order
    stride = frame.find(_POSITION, first + 1) - first if first < last else 1
    count = (last - first) // stride + 1
    if count != int(high) - int(low) + 1:
        return _search(frame)  # positions between them are somebody else's
    start = frame.index(_DATA, first) + len(_DATA) + 1
    if frame.startswith(_AT, start - 1):
        start += len(_AT)
    stamps = Counter([frame[at : at + STAMP_DIGITS] for at in range(start, start + last - first + 1, stride)])
    return Seen(count, [(int(low), int(high))], stamps)


def _digits(frame: bytes, at: int) -> bytes:
    at += len(_POSITION)
    return frame[at : frame.index(b",", at)]


def _search(frame: bytes) -> Seen:
    found: list[tuple[bytes, bytes]] = _BODY.findall(frame)
    positions = [int(position) for position, _ in found]
    return Seen(len(found), runs_of(positions), Counter(stamp for _, stamp in found))


def runs_of(positions: Iterable[int]) -> list[tuple[int, int]]:
    """Positions -> closed ranges of those that follow each other, in the order they came."""
    ranges: list[tuple[int, int]] = []
    for position in positions:
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return ranges
