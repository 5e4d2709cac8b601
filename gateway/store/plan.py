"""Which sealed segments are merged into one: those next to each other in which little is still due.

The rule bounds what merging costs: a byte is moved only where three others go (with a share of 0.25), and a merge that
frees less than a part of a segment is not worth its checkpoint. What was merged before is small, and is merged again
with what has become nearly empty beside it; so segments stay few however long a straggler waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from gateway.kit.ranges import RangeSet
from gateway.store.segment import Segment

_GAIN_SHARE: Final = 0.125
"""Of a segment's full size: a merge that frees less waits until there is more to free."""


@attrs.frozen(eq=False)
class Measured:
    """A sealed segment, and what of it is still due to anybody."""

    segment: Segment
    due: RangeSet
    """Positions, all of them in the segment."""
    messages: int
    due_bytes: int


@attrs.frozen(eq=False)
class Plan:
    """Segments to be merged, ascending; nothing stands between them."""

    sources: tuple[Measured, ...]

    @property
    def bytes(self) -> int:
        return sum(source.segment.size for source in self.sources)

    @property
    def due_bytes(self) -> int:
        return sum(source.due_bytes for source in self.sources)

    @property
    def messages(self) -> int:
        return sum(source.messages for source in self.sources)

    @property
    def freed_bytes(self) -> int:
        """About: heads and columns of what is moved are not counted."""
        return self.bytes - self.due_bytes


def is_candidate(due_bytes: int, segment_bytes: int, live_share: float) -> bool:
    """Whether so little is due in a segment that it may be merged with its neighbours."""
    return due_bytes <= live_share * segment_bytes


def choose(measured: Sequence[Measured | None], segment_bytes: int, live_share: float) -> Plan | None:
    """The merge that frees most; None where none is worth it.

    `measured` are the segments as they stand in the log, None for one that is left alone. `segment_bytes`: of a full
    segment, and the most that is moved into one.
    """
    plans = (
        plan
        for row in _rows(measured)
        for part in _parts(row, segment_bytes)
        if (plan := _trimmed(part, live_share)) is not None
    )
    best = max(plans, key=lambda plan: plan.freed_bytes, default=None)
    return best if best is not None and best.freed_bytes >= _GAIN_SHARE * segment_bytes else None


def _rows(measured: Sequence[Measured | None]) -> Iterator[list[Measured]]:
    """What stands together."""
    row: list[Measured] = []
    for one in measured:
        if one is not None:
            row.append(one)
        elif row:
            yield row
            row = []
    if row:
        yield row


def _parts(row: Sequence[Measured], due_bytes_max: int) -> Iterator[list[Measured]]:
    """A row cut where more would be moved than one segment holds."""
    part: list[Measured] = []
    due = 0
    for one in row:
        if part and due + one.due_bytes > due_bytes_max:
            yield part
            part, due = [], 0
        part.append(one)
        due += one.due_bytes
    yield part


def _trimmed(part: Sequence[Measured], live_share: float) -> Plan | None:
    """Without the ends that make it not worth it, and those in which nothing is due: they are deleted whole."""
    sources = list(part)
    while sources:
        plan = Plan(tuple(sources))
        if plan.due_bytes > live_share * plan.bytes:
            del sources[0 if _share(sources[0]) >= _share(sources[-1]) else -1]
        elif not sources[0].messages:
            del sources[0]
        elif not sources[-1].messages:
            del sources[-1]
        elif len(sources) == 1 and sources[0].messages == sources[0].segment.count:
            return None  # all of it is due: it would become what it is, again and again
        else:
            return plan
    return None


def _share(one: Measured) -> float:
    return one.due_bytes / max(one.segment.size, 1)
