"""What nobody has taken in time: by its own time to live, or by the subscription's retention.

Both are acted on by a sweep, not only when a message's turn comes, and on what cannot be read as on all else. What a
consumer holds, or what is on its way to the dead letters, is left alone; it is looked at again when it came back.
Retention runs from when a message was stored, or, where it was published with a delay, from when it was due.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from gateway.broker.queue import times_of, walk
from gateway.broker.slice import Slice
from gateway.broker.subscription import Cause, Subscription
from gateway.model import POSITION_MAX
from gateway.store.segment import Segment

STEP: Final = 1000
"""Messages looked at in one step: a millisecond or two."""


def expire(subscription: Subscription, positions: Iterable[int], segments: Sequence[Segment]) -> list[int]:
    """The time to live of these is over, all of them the subscription's: those that cannot be settled now."""
    s = subscription
    held: list[int] = []
    pieces: list[Slice] = []
    for position in positions:
        if position in s.settled:
            continue
        if s.is_ahead(position) or s.is_passed_over(segments, position):
            pieces.append(Slice(range(position, position + 1), position))
        elif (piece := s.take_out(position)) is not None:
            pieces.append(piece)
        else:
            held.append(position)
    s.settle_all(pieces, Cause.EXPIRED)
    return held


def expire_before(subscription: Subscription, position: int, cutoff_ms: int, segments: Sequence[Segment]) -> bool:
    """One step of retention: what stands before `position` was stored before `cutoff_ms`. Whether there is more."""
    s = subscription
    s.buried.remove(1, position - 1)  # what was given up cannot be redriven any more
    return (
        _expire_ahead(s, position, cutoff_ms, segments)
        or _expire_ready(s, position, cutoff_ms, segments)
        or _expire_passed_over(s, position, cutoff_ms, segments)
    )


def _expire_ahead(s: Subscription, position: int, cutoff_ms: int, segments: Sequence[Segment]) -> bool:
    """What `take` has still to come to. A message with a delay is kept until it is due, and then as long as others."""
    found = s.next_ahead(segments, position, STEP)
    if found is None:
        return False
    times = times_of(segments, found.positions)
    pieces: list[Slice] = []
    rest: Slice | None = found
    while rest is not None:
        late = next((i for i, p in enumerate(rest.positions) if times.get(p, (0, 0))[0] > cutoff_ms), len(rest))
        piece, rest = _cut(rest, late)
        if piece is not None:
            pieces.append(piece)
        if rest is not None and s.settings.ordered:  # its key is asked when its turn comes; what is behind it waits too
            s.put_back(rest)
            break
        if rest is not None:
            piece, rest = _cut(rest, 1)
            assert piece is not None
            s.keep(piece, segments)
    s.settle_all(pieces, Cause.EXPIRED)
    return bool(pieces) or rest is None


def _cut(piece: Slice, index: int) -> tuple[Slice | None, Slice | None]:
    """The messages before `index` and those from it on; None where there are none."""
    if 0 < index < len(piece):
        return piece.cut(index)
    return (piece, None) if index else (None, piece)


def _expire_ready(s: Subscription, position: int, cutoff_ms: int, segments: Sequence[Segment]) -> bool:
    """What came back and was taken by nobody, and what cannot be read. What backs off comes back first."""
    old: list[int] = []
    looked = 0
    for piece in chain(s.ready_before(position), s.damaged):
        times = times_of(segments, piece.positions)
        old += [p for p in piece.positions if p < position and times.get(p, (0, 0))[0] <= cutoff_ms]
        looked += len(piece)
        if looked >= STEP:
            break
    s.settle_all([found for found in map(s.take_out, old) if found is not None], Cause.EXPIRED)
    return bool(old)


def _expire_passed_over(s: Subscription, position: int, cutoff_ms: int, segments: Sequence[Segment]) -> bool:
    """What waits behind its key."""
    if not s.settings.ordered:
        return False
    low = s.settled.floor
    while True:
        positions, low = walk(segments, s.number, low, min(position, s.front), s.settled, STEP, POSITION_MAX, s.past)
        if not positions:
            return False
        times = times_of(segments, positions)
        old = [p for p in positions if times.get(p, (0, 0))[0] <= cutoff_ms]
        pieces = [Slice(range(p, p + 1), p) for p in old if s.is_passed_over(segments, p)]
        if pieces:
            s.settle_all(pieces, Cause.EXPIRED)
            return True
