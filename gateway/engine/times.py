"""Which position was stored when."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.store.segment import Segment


def position_at(segments: Sequence[Segment], limit: int, time_ms: int, time_of: Callable[[int], int]) -> int:
    """The first position below `limit` that was stored at `time_ms` or later; `limit` where there is none.

    A log's times do not fall, so it is a search: among the segments by when they were begun, in one of them by what
    `time_of` says of a position.
    """
    low, high = segments[0].base, limit
    for segment in segments:
        if segment.created_ms >= time_ms:
            high = min(segment.base, limit)
            break
        low = segment.base
    while low < high:
        middle = (low + high) // 2
        if time_of(middle) < time_ms:
            low = middle + 1
        else:
            high = middle
    return low
