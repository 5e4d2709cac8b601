"""Which positions of the past a new subscription would have been given, had it been there."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.broker.queue import Past
from gateway.kit.ranges import RangeSet
from gateway.kit.topics import TopicTrie
from gateway.store.index import Index
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf

Source = tuple[Segment, Index | None]
"""A segment, and its index while that is not in a file of its own."""


def sources(segments: Sequence[Segment], unsealed: Sequence[Segment]) -> list[Source]:
    """What `matching` reads; to be made on the run loop."""
    return [(segment, segment.growing if segment in unsealed or not segment.sealed else None) for segment in segments]


def matching(shelf: Shelf, found: Sequence[Source], patterns: Sequence[str], limit: int) -> Past:
    """The positions below `limit` whose topic matches a pattern. Reads indexes only. Blocks."""
    trie: TopicTrie[bool] = TopicTrie()
    for pattern in patterns:
        trie.add(pattern, True)
    positions = RangeSet()
    for segment, growing in found:
        if segment.base < limit:
            _search(shelf.read_index(segment) if growing is None else growing, trie, limit, positions)
    return Past(positions, limit)


def _search(index: Index, trie: TopicTrie[bool], limit: int, positions: RangeSet) -> None:
    wanted = [bool(trie.match(topic)) if topic else False for topic, _ in list(index.routes)]
    count = len(index)
    runs = len(index.route_at)
    for run in range(runs):
        if not wanted[index.route_of[run] - 1]:
            continue
        first = index.route_at[run]
        stop = index.route_at[run + 1] if run + 1 < runs else count
        if index.steps is None:
            _add(positions, index.base + first, min(index.base + stop, limit) - 1)
        else:
            for ordinal in range(first, stop):
                position = index.position(ordinal)
                _add(positions, position, min(position, limit - 1))


def _add(positions: RangeSet, low: int, high: int) -> None:
    if low <= high:
        positions.add(low, high)
