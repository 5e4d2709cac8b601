"""The delivery JSON of stored messages: from memory where they are recent, else slices of the mapped segments.

What is read is *pieces*: each is the delivery JSON of one or more consecutive messages, joined by commas as a frame has
them. Nothing is copied: a piece is the bytes of a recent record, or a slice of the mapped segment.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from gateway.engine.holds import Holds
from gateway.errors import StoreError
from gateway.store.index import Index, Piece
from gateway.store.log import Log
from gateway.store.segment import Segment, consecutive
from gateway.store.shelf import DamagedError

Buffer = bytes | memoryview
_AHEAD_BYTES: Final = 1024 * 1024
"""Read and checked beyond what was asked for: who works through a backlog asks for what follows next."""


class LostMessagesError(StoreError):
    """Some of the messages asked for cannot be read; `positions` says which."""

    def __init__(self, positions: list[int], reason: str) -> None:
        super().__init__(reason)
        self.positions = positions


class Reader:
    """Reads by position. Everything asked for must be durable, and in a segment that is still there."""

    def __init__(self, log: Log, holds: Holds) -> None:
        self._log = log
        self._holds = holds
        self._found_for: Sequence[int] = ()  # asked for last, and found in memory: the next subscription of a fan-out
        self._found: list[Buffer] = []  # asks for the same

    def cached(self, positions: Sequence[int]) -> list[Buffer] | None:
        """The pieces of ascending `positions` of one segment; None where a record has to be read and checked first.

        All of them must be there: they are due to somebody.
        """
        log = self._log
        if positions == self._found_for:
            log.recent.hits += len(positions)
            return self._found
        segment = log.segment_of(positions[0])
        assert segment is not None  # they are stored
        index = segment.index
        found: list[Buffer] = []
        for piece in _pieces(index, positions):
            buffer = self._buffer(segment, index, piece)
            if buffer is None:
                log.recent.misses += len(positions)
                return None
            found.append(buffer)
        log.recent.hits += len(positions)
        whole = getattr(found[0], "obj", found[0])
        if len(found) == 1 and isinstance(whole, bytes):  # a map that is kept could not be let go
            self._found_for, self._found = positions, found
        return found

    def _buffer(self, segment: Segment, index: Index, piece: Piece) -> Buffer | None:
        record, start, stop, _ = piece
        joined = self._log.recent.get(index.position(index.firsts[record]))
        if joined is not None and not segment.merged:  # or it is of the record that this one was made from
            begins = index.ends[record] - len(joined)
            if stop - start == len(joined):
                return joined
            return memoryview(joined)[start - begins : stop - begins]
        shelf = self._log.shelf
        return shelf.view(segment, piece) if shelf.is_verified(segment, (piece,)) else None

    async def read(self, slices: Sequence[Sequence[int]]) -> list[Buffer]:
        """The same for any positions, reading what has to be off the run loop. They are held by whoever asks.

        LostMessagesError names all of them that are damaged, or that the disk does not give.
        """
        lost: list[int] = []
        reason = ""
        found: list[Buffer] = []
        for positions in slices:
            for segment, part in self._by_segment(positions):
                index = segment.index
                gone = [position for position in part if not index.has(position)] if index.steps is not None else []
                if gone:
                    raise LostMessagesError(gone, f"position {gone[0]} is not in the store any more")
                pieces = _pieces(index, part)
                damaged = await self._verify(segment, index, pieces, found)
                for record, why in damaged.items():
                    reason = str(DamagedError(segment, index, record, why))
                    lost += [p for p in part if index.record_of(index.ordinal(p)) == record]
        if lost:
            raise LostMessagesError(lost, reason)
        return found

    async def _verify(self, segment: Segment, index: Index, pieces: list[Piece], found: list[Buffer]) -> dict[int, str]:
        if not segment.sealed:
            return await self._copy(segment, index, pieces, found)
        shelf = self._log.shelf
        wanted = [piece.record for piece in pieces]
        try:
            opened = shelf.lend(segment)
        except DamagedError as error:
            return dict.fromkeys(wanted, error.reason)
        try:
            damaged = await trio.to_thread.run_sync(shelf.verify, opened, index, wanted + _ahead(index, wanted[-1]))
        finally:
            shelf.give_back(opened)
        found += [shelf.view_in(opened, piece) for piece in pieces if piece.record not in damaged]
        return damaged

    async def _copy(self, segment: Segment, index: Index, pieces: list[Piece], found: list[Buffer]) -> dict[int, str]:
        """From the active segment, which is not mapped while it grows."""
        wanted = list(dict.fromkeys(piece.record for piece in pieces))
        read = await trio.to_thread.run_sync(self._log.shelf.read_unmapped, segment.path, index, wanted)
        for piece in pieces:
            data = read[piece.record]
            if isinstance(data, bytes):
                begins = index.offsets[piece.record]
                found.append(memoryview(data)[piece.start - begins : piece.stop - begins])
        return {record: data for record, data in read.items() if isinstance(data, str)}

    async def one(self, position: int) -> bytes:
        """One delivery JSON, wherever it is. LostMessagesError: nowhere any more, or damaged."""
        segment = self._log.segment_of(position)
        pieces = self.cached((position,)) if segment is not None and segment.index.has(position) else None
        if pieces is None:
            with self._holds.at(position):
                pieces = await self.read([(position,)])
        return bytes(pieces[0])

    def _by_segment(self, positions: Sequence[int]) -> Iterator[tuple[Segment, Sequence[int]]]:
        while positions:
            segment = self._log.segment_of(positions[0])
            if segment is None:
                raise LostMessagesError(list(positions), f"position {positions[0]} is not in the store any more")
            at = next((i for i, position in enumerate(positions) if position >= segment.end), len(positions))
            yield segment, positions[:at]
            positions = positions[at:]


def _ahead(index: Index, record: int) -> list[int]:
    """The records behind `record` that are read along with it."""
    until = bisect_right(index.offsets, index.offsets[record] + _AHEAD_BYTES, record)
    return list(range(record + 1, until))


def _pieces(index: Index, positions: Sequence[int]) -> list[Piece]:
    if isinstance(positions, range):
        first = index.ordinal(positions[0])
        return index.pieces(first, first + len(positions) - 1)
    found: list[Piece] = []
    for low, high in consecutive(positions):
        first = index.ordinal(low)
        found += index.pieces(first, first + high - low)
    return found
