"""Which positions of the past a new subscription would have been given, had it been there."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from gateway.kit.topics import TopicTrie
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.record import Kind
from gateway.store.segment import Segment


def matching_ranges(
    files: Files, segments: Sequence[Segment], patterns: Sequence[str], limit: int
) -> list[tuple[int, int]]:
    """Closed ranges of the positions below `limit` whose topic matches a pattern. Reads heads only. Blocks.

    Everything below `limit` must be in the files already.
    """
    trie: TopicTrie[bool] = TopicTrie()
    for pattern in patterns:
        trie.add(pattern, True)
    ranges: list[tuple[int, int]] = []
    for segment in segments:
        if segment.base < limit and segment.offsets:
            _search(files, segment, trie, limit, ranges)
    return ranges


def _search(files: Files, segment: Segment, trie: TopicTrie[bool], limit: int, ranges: list[tuple[int, int]]) -> None:
    wanted: set[int] = set()
    with files.map(segment.file) as data:
        for head in records.heads(data, len(records.MAGIC), min(segment.size, len(data))):
            if head.position >= limit:
                return  # what follows may still be on its way into the file
            if head.kind == Kind.ROUTE:
                topic = orjson.loads(data[head.body : head.end])["topic"]
                if trie.match(topic):
                    wanted.add(head.number)
            elif head.kind == Kind.MESSAGE and head.number in wanted:
                if ranges and ranges[-1][1] == head.position - 1:
                    ranges[-1] = (ranges[-1][0], head.position)
                else:
                    ranges.append((head.position, head.position))
