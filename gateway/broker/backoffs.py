"""Until when messages wait that came back, where no hand knows it: kept over a restart, beside their attempts.

While the gateway runs, a slice that backs off lies on the shelf. A start puts everything back into the log; so whenever
messages begin to wait the log is told until when, and here stands the same for all of them: for each moment the set of
positions, at most a bit a message. Moments that are far away are rounded up, to a sixty-fourth of the wait at most, so
that there are few sets, whatever the jitter. Nothing is taken out before its moment comes: who asks knows whether the
message is settled, or was made due otherwise.
"""

from __future__ import annotations

import heapq
from base64 import b64decode, b64encode
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from gateway.broker.slice import Slice
from gateway.kit.ranges import RangeSet
from gateway.model import Ranges

_GRAINS: Final = 64


class Backoffs:
    """Of one subscription. Times are in milliseconds since the epoch."""

    __slots__ = ("_moments", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[int, RangeSet] = {}  # by the second in which they are due
        self._moments: list[int] = []  # its keys, a heap

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def note(self, due_ms: int, ranges: Ranges, now_ms: int) -> None:
        """The messages in `ranges` wait from now on until `due_ms`."""
        self._pass(now_ms)
        if due_ms <= now_ms:
            return
        grain_s = max((due_ms - now_ms) // 1000 // _GRAINS, 1)
        grain_s = 1 << (grain_s.bit_length() - 1)  # powers of two, or moments of different waits would never meet
        moment = -(-due_ms // (1000 * grain_s)) * grain_s
        if moment not in self._waiting:
            self._waiting[moment] = RangeSet(0)
            heapq.heappush(self._moments, moment)
        for low, high in ranges:
            self._waiting[moment].add(max(low, 1), high)

    def _pass(self, now_ms: int) -> None:
        while self._moments and self._moments[0] * 1000 <= now_ms:
            del self._waiting[heapq.heappop(self._moments)]

    def due_ms(self, position: int, now_ms: int) -> int:
        """Until when the message at `position` waits; 0: no longer, or not at all."""
        moments = [moment for moment, positions in self._waiting.items() if position in positions]
        due_ms = max(moments, default=0) * 1000
        return due_ms if due_ms > now_ms else 0

    def parts(self, piece: Slice, now_ms: int) -> Iterable[tuple[Slice, int]]:
        """`piece` cut so that each part waits until one moment, or no longer: 0."""
        self._pass(now_ms)
        if not any(positions.count_in(piece.first, piece.last) for positions in self._waiting.values()):
            return ((piece, 0),)
        parts: list[tuple[Slice, int]] = []
        rest = piece
        for due_ms, group in groupby(piece.positions, lambda position: self.due_ms(position, now_ms)):
            stop = len(list(group))
            part, rest = rest.cut(stop) if stop < len(rest) else (rest, rest)
            parts.append((part, due_ms))
        return parts

    def encode(self) -> dict[str, str]:
        """As plain data for a checkpoint."""
        return {str(at): b64encode(each.encode()).decode("ascii") for at, each in sorted(self._waiting.items())}

    @classmethod
    def decode(cls, plain: dict[str, str]) -> Backoffs:
        found = cls()
        found._waiting = {int(at): RangeSet.decode(b64decode(each)) for at, each in plain.items()}
        found._moments = sorted(found._waiting)
        return found
