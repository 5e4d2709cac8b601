"""Where a message is, by its id: the gateway's own says its position, a producer's is looked up in the indexes.

Each sealed segment's hint file has its ids' hashes in order, so a lookup is a search in each segment in which there are
any, newest first, and no message is touched but those that are found; these are read, to see that it is not their
hashes alone that are the same. What the gateway's own id says is a handle of any message, as its position is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from gateway.broker.body import own_position
from gateway.engine.history import Source, sources
from gateway.engine.reader import LostMessagesError, Reader
from gateway.kit.hashes import half_id_hash
from gateway.store.log import Log
from gateway.store.shelf import Shelf

FOUND_MAX: Final = 100
"""An id may be used again once it is forgotten: no more than the last so many of it are told."""


class _Stored(msgspec.Struct):
    id: str


_decode: Final = msgspec.json.Decoder(_Stored).decode


class Lookup:
    """Over the log; whoever asks holds the segments (`Holds.all`)."""

    def __init__(self, log: Log, reader: Reader) -> None:
        self._log = log
        self._reader = reader

    async def find(self, message_id: str) -> list[int]:
        """Positions of the durable messages that have this id, ascending; the last `FOUND_MAX` of them."""
        log = self._log
        hashed = half_id_hash(message_id)
        growing: list[int] = []
        sealed: list[Source] = []
        for segment, index in sources(log.segments, log.unsealed):
            if index is not None:
                growing += index.find_id(hashed, FOUND_MAX)
            elif segment.ids_ms:
                sealed.append((segment, None))
        found = set(growing)
        if sealed and len(found) < FOUND_MAX:
            found.update(await trio.to_thread.run_sync(_search, log.shelf, sealed, hashed))
        newest = sorted(position for position in found if position < log.durable_end)[-FOUND_MAX:]
        named = [position for position in newest if await self._is(position, message_id)]
        own = own_position(log.epoch, message_id)
        return sorted({*named, own}) if own is not None and self._has(own) else named

    def _has(self, position: int) -> bool:
        segment = self._log.segment_of(position)
        return segment is not None and position < self._log.durable_end and segment.index.has(position)

    async def _is(self, position: int, message_id: str) -> bool:
        """Whether that is its id; one that cannot be read is taken at its hash's word."""
        try:
            return _decode(await self._reader.one(position)).id == message_id
        except LostMessagesError:
            return True


def _search(shelf: Shelf, sealed: Sequence[Source], hashed: int) -> list[int]:
    """Newest first, until there are enough. Blocks."""
    found: list[int] = []
    for segment, _ in reversed(sealed):
        found += shelf.read_index(segment).find_id(hashed, FOUND_MAX)
        if len(found) >= FOUND_MAX:
            break
    return found
