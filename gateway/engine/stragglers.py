"""How much is still due of each sealed segment: what merging decides by.

It is looked at in steps, on the run loop, for the settled sets live there. What was found is remembered: a segment of
which much is due is not looked at again before enough of it has been settled to make a difference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Final

import attrs

from gateway.broker.subscription import Subscription
from gateway.engine.catalogue import Catalogue
from gateway.engine.keeping import due_from
from gateway.errors import StoreError
from gateway.kit.ranges import RangeSet
from gateway.store.plan import Measured, is_candidate
from gateway.store.segment import Segment

_STEP: Final = 500
"""Ranges looked at before others run: half a millisecond."""

Pause = Callable[[], Awaitable[None]]


@attrs.frozen
class _Look:
    """What was found, and when it is worth another look."""

    numbers: frozenset[int]
    """Subscriptions that anything in the segment was routed to."""
    places: tuple[tuple[int, int, int], ...]
    """Of each of them, and of those with a past: number, restarts, end of its past."""
    settled: int
    """Positions of the segment that are settled, over all of them."""
    excess: int
    """So many more must be settled before less than the limit can be due; 0 where that is so now."""
    measured: Measured | None


class Stragglers:
    """`measure` one segment after the other; `forget` those that are gone."""

    def __init__(self, catalogue: Catalogue, segment_bytes: int) -> None:
        self._catalogue = catalogue
        self._segment_bytes = segment_bytes
        self._looks: dict[str, _Look] = {}  # by uid

    def forget_others(self, segments: Iterable[Segment]) -> None:
        kept = {segment.uid for segment in segments}
        for uid in self._looks.keys() - kept:
            del self._looks[uid]

    async def measure(self, segment: Segment, live_share: float, pause: Pause) -> Measured | None:
        """What is due of a sealed segment; None where that is too much for merging, or the segment has gone."""
        look = self._looks.get(segment.uid)
        try:
            numbers = look.numbers if look else frozenset(segment.index.queues)
            holders = self._holders(segment, numbers)
            places = tuple((each.number, each.restarts, each.past.end) for each in holders)
            settled = sum(each.settled.count_in(segment.base, segment.end - 1) for each in holders)
            if look and look.places == places and (settled == look.settled or settled - look.settled < look.excess):
                return look.measured
            found, excess = await self._look(segment, holders, live_share, pause)
        except StoreError:  # deleted while it was looked at
            return None
        self._looks[segment.uid] = _Look(numbers, places, settled, excess, found)
        return found

    def _holders(self, segment: Segment, numbers: frozenset[int]) -> Sequence[Subscription]:
        known = self._catalogue.by_number
        holders = [known[number] for number in numbers if number in known]
        return holders + [s for s in known.values() if segment.base < s.past.end and s.number not in numbers]

    async def _look(
        self, segment: Segment, holders: Sequence[Subscription], live_share: float, pause: Pause
    ) -> tuple[Measured | None, int]:
        """(what is due, or None where it is too much; how many messages it is too much by)."""
        allowed = int(live_share * self._segment_bytes * segment.count / max(segment.size, 1))
        due = RangeSet()
        for holder in holders:
            found = await self._add_due(due, segment, holder, 2 * allowed + 1, pause)
            if found > 2 * allowed:
                return None, found - allowed
        messages = size = 0
        index = segment.index
        for number, (low, high) in enumerate(due):
            if number % _STEP == 0:
                await pause()
            first = index.ordinal(low)
            messages += high - low + 1
            size += sum(piece.stop - piece.start for piece in index.pieces(first, first + high - low))
        if not is_candidate(size, self._segment_bytes, live_share):
            return None, max(messages - allowed, 1)
        return Measured(segment, due, messages, size), 0

    async def _add_due(
        self, due: RangeSet, segment: Segment, holder: Subscription, count_max: int, pause: Pause
    ) -> int:
        """Add to `due` what is one subscription's, about `count_max` messages at most; their number."""
        found, low = 0, segment.base
        while found < count_max:
            ranges = list(islice(due_from(segment, holder, low), _STEP))
            for first, last in ranges:
                due.add(first, last)
                found += last - first + 1
            if len(ranges) < _STEP:
                break
            low = ranges[-1][1] + 1
            await pause()
        return found
