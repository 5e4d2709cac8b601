"""One segment: a file of records and its index in memory.

The index holds what delivery needs without touching the file: where each position's record begins, and for each
subscription the positions routed to it. Positions of one segment are consecutive, so a position's place in the index is
a subtraction; consecutive positions of a subscription are one pair, so the usual case costs 4 bytes a message.
"""

from __future__ import annotations

import errno
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import StoreError
from gateway.store import record as records
from gateway.store.files import Files

READ_BYTES = 1 << 20
"""Unit of sequential reading."""


class Segment:
    """Invariants: `offsets[i]` is where the record of position `base + i` begins; `queues[n]` are pairs lo, hi of
    closed ranges, ascending and disjoint, all of them within [base, end)."""

    __slots__ = (
        "base",
        "created_ms",
        "file",
        "ids_ms",
        "keys",
        "number",
        "offsets",
        "path",
        "queues",
        "routes",
        "size",
        "timed",
    )

    def __init__(self, number: int, path: Path, base: int, created_ms: int) -> None:
        self.number = number
        self.path = path
        self.base = base
        self.created_ms = created_ms
        self.size = 0
        self.file = -1  # descriptor; opened by the flusher or by recovery
        self.offsets = array("I")
        self.queues: dict[int, array[int]] = {}  # subscription number -> lo, hi, lo, hi, ...
        self.timed: dict[int, tuple[int, int]] = {}  # position -> due_ms, expires_ms, where it has any
        self.routes: dict[tuple[str, tuple[int, ...]], int] = {}  # what ROUTE records of this file define
        self.keys: dict[int, int] = {}  # position -> hash of its key, where it has one
        self.ids_ms = 0  # time of its last message with an id of the producer's; 0 none

    @property
    def end(self) -> int:
        """The first position that is not in this segment."""
        return self.base + len(self.offsets)

    def route_to(self, subscription: int, low: int, high: int) -> None:
        """Note that the positions [low, high], newer than all before them, are the subscription's."""
        queue = self.queues.get(subscription)
        if queue is None:
            self.queues[subscription] = array("Q", (low, high))
        elif queue[-1] == low - 1:
            queue[-1] = high
        else:
            queue.append(low)
            queue.append(high)

    def backfill(self, subscription: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Note that positions older than all the subscription has here are its own too; ascending ranges."""
        bounds = array("Q")
        for low, high in ranges:
            low, high = max(low, self.base), min(high, self.end - 1)
            if low <= high:
                bounds.extend((low, high))
        if bounds:
            self.queues[subscription] = bounds + self.queues.get(subscription, array("Q"))

    def spread(self, position: int, limit: int) -> int:
        """Bytes on disk from the record of `position` to that of `limit` (exclusive, at most `end`)."""
        stop = self.size if limit >= self.end else self.offsets[limit - self.base]
        return stop - self.offsets[position - self.base]

    def fitting(self, position: int, size_max: int) -> int:
        """One past the last position whose record, with all since `position`, fits `size_max` bytes; at least one."""
        start = self.offsets[position - self.base]
        return max(position + 1, self.base + bisect_right(self.offsets, start + size_max) - 1)

    def read(self, files: Files, positions: Sequence[int]) -> list[bytes]:
        """The delivery JSON of ascending `positions`, every CRC checked; StoreError names what is damaged. Blocks."""
        bodies: list[bytes] = []
        for low, high in consecutive(positions):
            start = self.offsets[low - self.base]
            size = self.spread(low, high + 1)
            data = files.read(self.file, start, size)
            for position in range(low, high + 1):
                offset = self.offsets[position - self.base]
                found = records.decode(data, offset - start, start)
                if found is None or found.position != position:
                    raise StoreError(
                        f"{self.path}: the record of position {position} at byte {offset} is damaged; "
                        f"stop the gateway and restore the segment from a backup"
                    )
                bodies.append(records.split_times(found)[2])
        return bodies


def consecutive(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending positions as closed ranges."""
    if isinstance(positions, range):
        return [(positions.start, positions.stop - 1)] if positions else []
    ranges: list[tuple[int, int]] = []
    for position in positions:
        if ranges and ranges[-1][1] == position - 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return ranges


def read_front(files: Files, file: int, path: Path, size: int) -> bytes:
    """The first `size` bytes of a segment file; StoreError where the disk does not give them."""
    try:
        return files.read(file, 0, size)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise StoreError(f"{path}: cannot be read ({code}); check the disk") from error


def read_all(files: Files, file: int, path: Path) -> bytes:
    """A whole segment file; StoreError where it has none of our beginning."""
    data = read_front(files, file, path, files.size(file))
    if data and not data.startswith(records.MAGIC[: len(data)]):
        raise StoreError(f"{path}: is not a segment of this store (it does not begin with PUSHLOG1); move it away")
    return data
