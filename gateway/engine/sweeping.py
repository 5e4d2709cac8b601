"""The sweep: what nobody has taken in time is settled as expired, consumers or not, a bounded step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs
import trio

from gateway.broker import expiry
from gateway.broker.owned import is_owned
from gateway.broker.queue import queue_of
from gateway.broker.subscription import Subscription
from gateway.engine.catalogue import Catalogue
from gateway.engine.giveway import GiveWay
from gateway.engine.times import position_at
from gateway.store.index import Index
from gateway.store.log import Log
from gateway.store.segment import Segment

_TURN: Final = 500
"""Subscriptions looked at before other tasks run: half a millisecond where none has anything so old."""

_LOOK_MAX: Final = 5000
"""Times looked at before other tasks run: half a millisecond."""
_NEVER: Final = 1 << 62


@attrs.define
class _Swept:
    """What is known of the times to live in one segment."""

    until_ms: int = 0  # what was over by then is settled
    looked: int = 0  # so many times have been looked at
    next_ms: int = _NEVER  # the first of them behind `until_ms`
    whole: bool = False  # and there will be no others


class Sweeping:
    """One sweep after the other; whoever makes one holds the segments (`Holds.all`)."""

    def __init__(self, log: Log, catalogue: Catalogue, write_news: Callable[[Subscription, int], None]) -> None:
        self._log = log
        self._catalogue = catalogue
        self._write_news = write_news
        self._swept: dict[Segment, _Swept] = {}
        self._held: dict[Subscription, list[int]] = {}  # expired while a consumer had them
        self._horizons: dict[int, tuple[int, int]] = {}  # by retention_s: (found out when, position)

    async def sweep(self, now: int) -> None:
        """See `engine.base.Engine.sweep`."""
        for number, subscription in enumerate(list(self._catalogue), 1):
            if not subscription.unfilled:
                await self._retain(subscription, now)
            if number % _TURN == 0:
                await trio.lowlevel.checkpoint()
        await self._look_again(now)
        for segment in list(self._log.segments):
            await self._expire_in(segment, now)
        for gone in self._swept.keys() - set(self._log.segments):
            del self._swept[gone]

    # -------------------------------------------------------------------------------------------- retention

    async def _retain(self, subscription: Subscription, now: int) -> None:
        cutoff_ms = now - subscription.settings.retention_s * 1000
        if self._log.segments[0].created_ms >= cutoff_ms:
            return  # nothing is so old
        position = self._horizon(subscription.settings.retention_s, cutoff_ms, now)
        give_way = GiveWay()
        while not (subscription.deleted or subscription.restarting) and expiry.expire_before(
            subscription, position, cutoff_ms, self._log.segments
        ):
            self._write_news(subscription, now)
            await give_way()
        self._write_news(subscription, now)

    def _horizon(self, retention_s: int, cutoff_ms: int, now: int) -> int:
        """The first position that was stored since the cutoff; searched for at most once a minute."""
        found_ms, position = self._horizons.get(retention_s, (0, 0))
        if now - found_ms >= min(60_000, retention_s * 100):
            position = position_at(self._log.segments, self._log.durable_end, cutoff_ms)
            if len(self._horizons) > len(self._catalogue.by_name):
                self._horizons.clear()
            self._horizons[retention_s] = (now, position)
        return position

    # ------------------------------------------------------------------------------------------ time to live

    async def _expire_in(self, segment: Segment, now: int) -> None:
        if not segment.expires_ms:
            return
        known = self._swept.setdefault(segment, _Swept())
        if known.whole and known.next_ms > now:
            return
        index, whole = segment.index, segment.sealed
        start, stop = known.looked if known.next_ms > now else 0, len(index.timed_at)
        due, following = await _expiring(index, start, stop, known.until_ms, now)
        known.next_ms = min(following, known.next_ms) if start else following
        known.until_ms, known.looked, known.whole = now, stop, whole
        for subscription in list(self._catalogue.by_number.values()) if due else ():
            if queue_of(segment, subscription.number, subscription.past) is None:
                continue
            own = [p for p in due if is_owned((segment,), subscription.number, p, subscription.past)]
            await self._expire(subscription, own, now)

    async def _look_again(self, now: int) -> None:
        held, self._held = self._held, {}
        for subscription, positions in held.items():
            await self._expire(subscription, positions, now)

    async def _expire(self, subscription: Subscription, positions: Sequence[int], now: int) -> None:
        give_way = GiveWay()
        for some in _in_steps(positions):
            if subscription.deleted:
                return
            held = expiry.expire(subscription, some, self._log.segments)
            if held:
                self._held.setdefault(subscription, []).extend(held)
            self._write_news(subscription, now)
            await give_way()


def _in_steps(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), expiry.STEP):
        yield positions[start : start + expiry.STEP]


async def _expiring(index: Index, start: int, stop: int, after_ms: int, now: int) -> tuple[list[int], int]:
    """Positions whose time was over behind `after_ms` and is by `now`; and when the next one's will be.

    Of the times [start, stop) of the index, in steps.
    """
    due: list[int] = []
    following = _NEVER
    for low in range(start, stop, _LOOK_MAX):
        high = min(low + _LOOK_MAX, stop)
        for ordinal, expires_ms in zip(index.timed_at[low:high], index.expires_ms[low:high], strict=True):
            if after_ms < expires_ms <= now:
                due.append(index.position(ordinal))
            elif now < expires_ms < following:
                following = expires_ms
        if high < stop:
            await trio.lowlevel.checkpoint()
    return due, following
