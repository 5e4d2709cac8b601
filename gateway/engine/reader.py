"""Bodies of stored messages: from memory where they are recent, else from the segments."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio

from gateway.broker.bodies import Bodies
from gateway.store.log import Log


class _Time(msgspec.Struct):
    time_ms: int


decode_time = msgspec.json.Decoder(_Time).decode


class Reader:
    """Reads by position. Everything asked for must be durable, and in a segment that is still there."""

    def __init__(self, log: Log, bodies: Bodies) -> None:
        self._log = log
        self._bodies = bodies

    def cached(self, positions: Sequence[int]) -> list[bytes] | None:
        """The delivery JSON of ascending `positions`; None where any of them is not in memory."""
        return self._bodies.get(positions)

    async def read(self, pieces: Sequence[Sequence[int]]) -> list[bytes]:
        """The same from the disk, off the run loop; StoreError where a record is damaged."""
        return await trio.to_thread.run_sync(self._read, pieces)

    async def one(self, position: int) -> bytes:
        """One delivery JSON, wherever it is."""
        found = self.cached((position,)) or await self.read([(position,)])
        return found[0]

    def one_now(self, position: int) -> bytes:
        """The same for those that cannot wait; a single small read may block for it."""
        found = self.cached((position,)) or self._read([(position,)])
        return found[0]

    def time_of(self, position: int) -> int:
        """When the message at `position` was stored. Blocks, from any thread."""
        return decode_time(self._read([(position,)])[0]).time_ms

    def _read(self, pieces: Sequence[Sequence[int]]) -> list[bytes]:
        bodies: list[bytes] = []
        for positions in pieces:
            for segment in list(self._log.segments):
                here = [position for position in positions if segment.base <= position < segment.end]
                if here:
                    bodies += segment.read(self._log.files, here)
        return bodies
