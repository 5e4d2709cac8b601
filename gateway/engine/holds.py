"""Who reads what: a segment is let go once nobody reads anything of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.model import Ranges
from gateway.store.segment import Segment


class Holds:
    """By positions and not by segments: what is read may be merged into another meanwhile."""

    def __init__(self) -> None:
        self.everything = 0
        """So many need every segment to stay as it is."""
        self._held: dict[object, Ranges] = {}

    @contextmanager
    def all(self) -> Iterator[None]:
        """Every segment stays meanwhile, and none is merged."""
        self.everything += 1
        try:
            yield
        finally:
            self.everything -= 1

    @contextmanager
    def at(self, position: int) -> Iterator[None]:
        """The segment with that position stays meanwhile."""
        holder = object()
        self.take(holder, [(position, position)])
        try:
            yield
        finally:
            self.give_back(holder)

    def take(self, holder: object, ranges: Sequence[tuple[int, int]]) -> None:
        """Segments with any of those positions stay until `holder` gives them back."""
        self._held[holder] = ranges

    def give_back(self, holder: object) -> None:
        del self._held[holder]

    def keeps(self, segment: Segment) -> bool:
        """Whether anybody needs `segment`. Takes a time that grows with those who hold something: ask it last."""
        if self.everything:
            return True
        base, end = segment.base, segment.end
        return any(low < end and high >= base for ranges in self._held.values() for low, high in ranges)
