"""Which position was stored when."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.store.segment import Segment


def position_at(segments: Sequence[Segment], limit: int, time_ms: int) -> int:
    """The first position below `limit` that was stored at `time_ms` or later; `limit` where there is none.

    A log's times do not fall, so it is a search: among the segments, and among the records of one of them.
    """
    for segment in segments:
        if segment.last_ms >= time_ms:
            index = segment.index
            record = index.record_since(time_ms)
            if record < len(index.times):
                return min(index.position(index.firsts[record]), limit)
    return limit
