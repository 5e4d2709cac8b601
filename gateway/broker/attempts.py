"""How often what came back had been delivered: kept over a restart, so that no crash loop delivers a message for ever.

A slice knows its own attempts while it is in a hand; a start puts everything back into the log, where slices are made
anew. So whenever messages come back the log is told how often they were delivered, and here stands the same for all
that are not settled: for each number of deliveries the set of positions, at most a bit a message. What is delivered for
the first time, and settled, is never noted; a delivery that a crash interrupts is not counted.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from gateway.broker.slice import Slice
from gateway.kit.ranges import RangeSet
from gateway.model import Ranges

_EXACT: Final = 64
"""Beyond this, numbers are noted rounded down to its multiples: there are few sets, whatever `attempts_max` is."""


class Attempts:
    """Of one subscription."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[int, RangeSet] = {}  # a position is in at most one of them, and none is empty

    def __bool__(self) -> bool:
        return bool(self._levels)

    def note(self, attempts: int, ranges: Ranges) -> None:
        """The messages in `ranges` have been delivered so often."""
        if not ranges:
            return
        for low, high in ranges:
            self.forget(low, high)
        level = self._levels.setdefault(attempts if attempts < _EXACT else attempts // _EXACT * _EXACT, RangeSet(0))
        for low, high in ranges:
            level.add(max(low, 1), high)

    def forget(self, low: int, high: int) -> None:
        """What is in [low, high] is settled, or begins afresh."""
        for attempts, level in list(self._levels.items()):
            level.remove(max(low, 1), high)
            if not level:
                del self._levels[attempts]

    def of(self, position: int) -> int:
        """Deliveries of the message at `position` that are known of."""
        return next((attempts for attempts, level in self._levels.items() if position in level), 0)

    def parts(self, piece: Slice) -> Iterable[Slice]:
        """`piece`, which the front has come to, cut so that each part has its attempts."""
        if (
            not self._levels
            or piece.attempts
            or not any(level.count_in(piece.first, piece.last) for level in self._levels.values())
        ):
            return (piece,)
        parts: list[Slice] = []
        rest = piece
        for attempts, group in groupby(piece.positions, self.of):
            stop = len(list(group))
            part, rest = rest.cut(stop) if stop < len(rest) else (rest, rest)
            part.attempts = attempts
            parts.append(part)
        return parts

    def encode(self) -> dict[str, str]:
        """As plain data for a checkpoint."""
        return {str(n): b64encode(level.encode()).decode("ascii") for n, level in sorted(self._levels.items())}

    @classmethod
    def decode(cls, plain: dict[str, str]) -> Attempts:
        found = cls()
        for attempts, level in plain.items():
            found._levels[int(attempts)] = RangeSet.decode(b64decode(level))
        return found
