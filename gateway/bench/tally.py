"""What was published, confirmed and received: the numbers of one run, and whether they add up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs
import trio
from hdrh.histogram import HdrHistogram

from gateway.bench.layout import Seen
from gateway.bench.plan import Plan
from gateway.kit import ranges
from gateway.kit.ranges import RangeSet

_HIGHEST_US: Final = 600_000_000
_FOLD: Final = 8192
"""Different values that wait to be recorded: the library takes 3 us for each call, whatever the count."""


@attrs.frozen
class Percentiles:
    """A latency, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float
    mean_ms: float


class Latency:
    """Microseconds in three significant digits."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, _HIGHEST_US, 3)
        self._waiting: dict[int, int] = {}
        self._max_us = 0

    def record(self, microseconds: int, count: int = 1) -> None:
        waiting = self._waiting
        waiting[microseconds] = waiting.get(microseconds, 0) + count
        if len(waiting) >= _FOLD:
            self._fold()

    def _fold(self) -> None:
        for microseconds, count in self._waiting.items():
            self._max_us = max(self._max_us, microseconds)
            self._histogram.record_value(min(max(microseconds, 1), _HIGHEST_US), count)
        self._waiting.clear()

    def percentiles(self) -> Percentiles | None:
        """None where nothing was recorded."""
        self._fold()
        histogram = self._histogram
        if histogram.get_total_count() == 0:
            return None

        def at(percentile: float) -> float:
            microseconds: int = histogram.get_value_at_percentile(percentile)
            return min(microseconds, self._max_us) / 1000

        mean_ms = round(histogram.get_mean_value() / 1000, 3)
        return Percentiles(at(50), at(90), at(99), at(99.9), self._max_us / 1000, mean_ms)


class Received:
    """What one subscription was handed, by however many consumers."""

    def __init__(self) -> None:
        self.count = 0
        self.positions = RangeSet()

    def missing(self, published: Iterable[tuple[int, int]]) -> int:
        """How many of the positions `published` have not come."""
        return sum(ranges.count(self.positions.gaps(low, high)) for low, high in published)


class Tally:
    """The run as it goes. Times are the load's microseconds."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stage = "starting"
        """What is going on, for the progress bar."""
        self.published = RangeSet()
        self.accepted = 0
        self.refused = 0
        self.refusal = ""
        """Why the first refused message was."""
        self.subscriptions: dict[str, Received] = {}
        self.confirm, self.delivery = Latency(), Latency()
        self.started_us = self.confirmed_us = self.delivered_us = 0
        self.idle = 0
        """Idle connections open."""
        self.backlog = 0
        """Messages that were there before the first consumer."""
        self.drained_us = 0
        """When as many had come; 0 before."""
        self.misfits_closed = 0
        """Times the gateway closed a consumer that did not keep up."""
        self.kept_up_us = 0
        self.kept_up = trio.Event()
        """Every message is answered, and what was accepted has come to all that keep up."""
        self.complete = trio.Event()
        """It has come to the others too, or to those that took their place."""
        self._each: list[Received] = []
        self._misfits: frozenset[str] = frozenset()

    def begin(self, subscriptions: Iterable[str], now: int, misfits: Iterable[str] = ()) -> None:
        """The first message goes out now, to these subscriptions; `misfits` are those that do not keep up."""
        together = Received() if self.plan.own_topics else None  # each message comes to one of them
        self.subscriptions = {name: together or Received() for name in subscriptions}
        self._each = list(dict.fromkeys(self.subscriptions.values()))
        self._misfits = frozenset(misfits)
        self.started_us = now

    def note_backlog(self, low: int, high: int) -> None:
        """The gateway has these positions already."""
        self.published.add(low, high)
        self.backlog += high - low + 1

    def progress(self) -> tuple[str, int, int]:
        """Its stage, how much has come, and how much will."""
        if self.plan.deliveries:
            return self.stage, self.received, self.plan.deliveries
        return self.stage, self.answered + self.idle, self.plan.messages + self.plan.idle

    @property
    def answered(self) -> int:
        return self.accepted + self.refused

    @property
    def received(self) -> int:
        return sum(received.count for received in self._each)

    # ------------------------------------------------------------------------------------------- said by the load

    def note_accepted(self, low: int, high: int, now: int) -> None:
        """The gateway has the positions [low, high]."""
        self.published.add(low, high)
        self.accepted += high - low + 1
        self.confirmed_us = now
        self._check()

    def note_refused(self, count: int, why: str, now: int) -> None:
        self.refusal = self.refusal or why
        self.refused += count
        self.confirmed_us = now
        self._check()

    def note_received(self, subscription: str, seen: Seen, now: int, *, timed: bool = True) -> None:
        """A delivery frame came; `timed`: its latency counts."""
        received = self.subscriptions[subscription]
        received.count += seen.count
        for low, high in seen.ranges:
            received.positions.add(low, high)
        for stamp, count in seen.stamps.items() if timed else ():
            if int(stamp):
                self.delivery.record(now - int(stamp), count)
        self.delivered_us = now
        if not self.drained_us and self.received >= self.backlog * len(self._each):
            self.drained_us = now
        if received.count >= self.due:
            self._check()

    @property
    def due(self) -> int:
        """Messages that must come to each subscription."""
        return self.accepted + self.backlog

    def _check(self) -> None:
        if self.answered != self.plan.messages:
            return
        if not self.kept_up.is_set():
            healthy = {received for name, received in self.subscriptions.items() if name not in self._misfits}
            if all(self._has_all(received) for received in healthy):
                self.kept_up.set()
                self.kept_up_us = max(self.confirmed_us, self.delivered_us)
        if self.kept_up.is_set() and all(self._has_all(received) for received in self._each):
            self.complete.set()

    def _has_all(self, received: Received) -> bool:
        return received.count >= self.due and received.missing(self.published) == 0

    # ------------------------------------------------------------------------------------------ whether it adds up

    @property
    def lost(self) -> int:
        """Deliveries of accepted messages that have not come."""
        return sum(received.missing(self.published) for received in self._each)

    @property
    def duplicates(self) -> int:
        return sum(received.count - ranges.count(received.positions) for received in self._each)

    @property
    def invented(self) -> int:
        """Deliveries of positions that nobody was told of."""
        return sum(
            ranges.count(received.positions) - (self.due - received.missing(self.published)) for received in self._each
        )

    @property
    def elapsed_s(self) -> float:
        """From the first publish to the last delivery or confirmation; to those that keep up, where others do not."""
        end_us = self.kept_up_us if self._misfits and self.kept_up_us else max(self.confirmed_us, self.delivered_us)
        return max(end_us, self.started_us + 1) / 1e6 - self.started_us / 1e6
