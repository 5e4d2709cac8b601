"""Scrubbing: sealed segments are read again, slowly, long after they were written and before somebody is due them.

Damage that is met early can still be mended from a backup. What is found is said once, and what it holds is not served
from a map that was in order before: its record is checked anew when it is due, and set aside then (reader.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from random import randrange
from typing import Final

import attrs
import structlog
import trio

from gateway.engine.holds import Holds
from gateway.errors import StoreError
from gateway.store.index import Index
from gateway.store.log import Log
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf

_log = structlog.get_logger("gateway.engine")
_BEHIND: Final = -1
"""In the place of a record: behind the last one."""


@attrs.define(slots=True)
class ScrubStatistics:
    """Counters since the start."""

    bytes: int = 0
    damaged: int = 0
    """Records, each once."""


@attrs.frozen
class _Looked:
    """One step: records [first, stop) of a segment were read, `damaged` of them for these reasons."""

    index: Index
    stop: int
    size: int
    damaged: dict[int, str]


class Scrubbing:
    """Goes round the sealed segments, beginning anywhere: a node that is often restarted comes to all of them too."""

    def __init__(self, log: Log, holds: Holds, begin: Callable[[int], int] = randrange) -> None:
        self.statistics = ScrubStatistics()
        self._log = log
        self._holds = holds
        self._begin = begin
        self._segment: Segment | None = None
        self._record = 0  # the next of it
        self._said: set[tuple[str, int]] = set()  # uids of segments, and records that are known to be damaged

    @property
    def sealed_bytes(self) -> int:
        """Of all segments that it goes round."""
        return sum(segment.size for segment in self._sealed())

    async def scrub(self, size: int) -> int:
        """Read about `size` bytes of one segment from the disk, at least a record; how many; 0 where none is sealed."""
        segment = self._next()
        if segment is None:
            return 0
        self._holds.take(self, [(segment.base, segment.end - 1)])
        try:
            looked = await trio.to_thread.run_sync(_look, self._log.shelf, segment, self._record, size)
        except StoreError as error:
            self._say(segment, -1, "a hint file is gone", error=str(error))
            self._record = _BEHIND
            return segment.size
        finally:
            self._holds.give_back(self)
        if segment not in self._log.segments:  # merged meanwhile: perhaps another file was read
            return looked.size
        for record, reason in looked.damaged.items():
            self._note(segment, looked.index, record, reason)
        self._record = looked.stop if looked.stop < len(looked.index.firsts) else _BEHIND
        self.statistics.bytes += looked.size
        return looked.size

    def _sealed(self) -> list[Segment]:
        log = self._log
        return [s for s in log.segments if s.sealed and s.count and s not in log.unsealed]

    def _next(self) -> Segment | None:
        """The segment to go on with; behind the last record of one it is the next."""
        sealed = self._sealed()
        if not sealed:
            return None
        now = self._segment
        if now is None:
            following = sealed[self._begin(len(sealed))]
        elif now in sealed and self._record != _BEHIND:
            return now
        else:
            following = next((segment for segment in sealed if segment.base > now.base), sealed[0])
        self._segment, self._record = following, 0
        return following

    def _note(self, segment: Segment, index: Index, record: int, reason: str) -> None:
        self._log.shelf.doubt(segment, record)
        offset = index.offsets[record]
        size = index.ends[record] - offset
        first = index.position(index.firsts[record])
        event = "a record of a sealed segment is damaged; what it holds is set aside once it is due"
        if self._say(segment, record, event, offset=offset, size=size, first=first, reason=reason):
            self.statistics.damaged += 1

    def _say(self, segment: Segment, record: int, event: str, **more: object) -> bool:
        """Once; whether it was the first time."""
        if (segment.uid, record) in self._said:
            return False
        self._said.add((segment.uid, record))
        _log.error(event, file=str(segment.path), **more)
        return True


def _look(shelf: Shelf, segment: Segment, first: int, size: int) -> _Looked:
    """Read and check records from `first` on. Blocks. Raises StoreError where the hint file is gone."""
    index = shelf.read_index(segment)
    offset = index.offsets[first]
    stop = max(first + 1, bisect_right(index.ends, offset + size, first))
    read = shelf.read_unmapped(segment.path, index, range(first, stop), fresh=True)
    damaged = {record: data for record, data in read.items() if isinstance(data, str)}
    return _Looked(index, stop, index.ends[stop - 1] - offset, damaged)
