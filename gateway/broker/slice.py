"""Pieces of a subscription's queue.

A slice is a run of consecutive messages *of the subscription's queue*: between two of them there may be positions that
belong to others, never one of its own. It spans from just behind the message before it to its own last position, so the
slices of a subscription tile the positions without gaps, and settling them joins into one range however many topics are
interleaved in the log. Whatever happens to a part of a slice happens by cutting it, which keeps the tiling.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec


class Slice(msgspec.Struct, eq=False, gc=False):
    """Consecutive messages of one subscription's queue, ascending, at least one.

    There may be a hundred thousand of them, so the garbage collector is not asked to visit any.
    """

    positions: Sequence[int]
    """A range where they are contiguous in the log, else a list."""
    span_low: int
    """One past the last message of the queue before this slice."""
    attempts: int = 0
    """Deliveries so far."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def first(self) -> int:
        return self.positions[0]

    @property
    def last(self) -> int:
        return self.positions[-1]

    def cut(self, index: int) -> tuple[Slice, Slice]:
        """The messages before `index` and those from it on; neither may be empty."""
        positions = self.positions
        return (
            Slice(positions[:index], self.span_low, self.attempts),
            Slice(positions[index:], positions[index - 1] + 1, self.attempts),
        )

    def singled_out(self, position: int) -> tuple[Slice | None, Slice, Slice | None]:
        """The messages before `position`, which is one of them; it alone; and those behind it."""
        start, stop = self.within(position, position)
        before: Slice | None = None
        piece, after = self.cut(stop) if stop < len(self) else (self, None)
        if start:
            before, piece = piece.cut(start)
        return before, piece, after

    def within(self, low: int, high: int) -> tuple[int, int]:
        """Indices [start, stop) of the messages with low <= position <= high."""
        positions = self.positions
        return bisect_left(positions, low), bisect_right(positions, high)
