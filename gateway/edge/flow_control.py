"""Flow control: how fast each consumer is fed (design §6). One task, ten looks a second.

A look goes over the consumers that have something in flight or are not healthy, and over no others: an idle one costs
nothing. What is measured costs nothing a message: acks are counted by the subscription, and one delivery at a time is
timed, as TCP timed one segment a window (RFC 6298 §3), never one that is delivered again (Karn's rule, §3 there).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import perf_counter
from typing import Final, Protocol

import attrs
import trio

from gateway.broker.lease import Consumer
from gateway.config import Flow
from gateway.edge.ladder import Ladder, Reason, State
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.kit.window import Rate, Window
from gateway.model import Delivery, Ranges

PERIOD_S: Final = 0.1
_TURN: Final = 500
"""Consumers looked at before other tasks run: about a millisecond."""
_SAID_EVERY_MS: Final = 1000
_MATERIAL: Final = 0.25
"""A window is told again when it has changed by this share of what was told."""
_NOTHING, _ACKED = -1, -2


class Client(Protocol):
    """The connection of one or several consumers."""

    heard_ms: int
    """When it last settled anything."""

    def stalled_s(self, now: float) -> float:
        """For how long its socket has taken nothing of what waits; 0 where it takes, or nothing waits."""

    def say_window(self, subscription: str, size: int, reason: str) -> None: ...

    def close_slow(self, error: GatewayError) -> None: ...


class Feed:
    """One consumer of a connection, as flow control knows it."""

    __slots__ = (
        "_control",
        "_timed_in_flight",
        "acked",
        "client",
        "consumer",
        "expired",
        "overdue_since_ms",
        "rate",
        "reason",
        "said",
        "said_ms",
        "sample",
        "since_ms",
        "state",
        "timed",
        "timed_ms",
        "window",
        "words",
        "words_seen",
    )

    consumer: Consumer
    window: Window

    def __init__(self, control: FlowControl, client: Client) -> None:
        now = control.clock()
        self.client = client
        self.rate = Rate(now)
        self.state = State.HEALTHY
        self.reason = Reason.NONE
        self.since_ms = now  # of its state
        self.overdue_since_ms = 0  # when leases began to run out without a word
        self.acked = self.expired = 0  # as of the last look
        self.words = self.words_seen = 0  # settling operations; as of the last look
        self.said = 0  # the window as the client was last told
        self.said_ms = now  # when; 0: it must be told of a step
        self.timed = _NOTHING  # a position whose ack is waited for
        self.timed_ms = 0
        self.sample: tuple[int, int] | None = None  # its latency, and what was in flight when it was handed over
        self._timed_in_flight = 0
        self._control = control

    def begin(self, consumer: Consumer) -> None:
        """It is attached now."""
        control = self._control
        self.consumer = consumer
        self.window = Window(consumer.window, control.settings.floor_messages, control.settings.near_ms)
        self.said = self.window.size
        control.apply(self, self.window.size)

    # ----------------------------------------------------------------------------------- told by the connection

    def deliver(self, delivery: Delivery, size: int) -> None:
        """A frame of `size` bytes is on its way to the socket."""
        self._control.active[self] = None
        self.consumer.charge(delivery.count, size)

    def handed(self, delivery: Delivery, now: int) -> None:
        """The socket has taken it."""
        if self.timed == _NOTHING and not delivery.attempts:
            self.timed, self.timed_ms = delivery.last, now
            self._timed_in_flight = self.consumer.in_flight

    def heard(self, ranges: Ranges, now: int, *, settles: bool) -> None:
        """The client said something of these positions; `settles`: it is done with them."""
        self.words += 1
        # only the outermost are looked at: it is the same cost for one range and for a thousand
        if self.timed >= 0 and settles and ranges and ranges[0][0] <= self.timed <= ranges[-1][1]:
            self.timed = _ACKED
            self.sample = (now - self.timed_ms, self._timed_in_flight)

    def watch(self) -> None:
        """Its socket has stood still."""
        self._control.active[self] = None

    def leave(self) -> None:
        self._control.active.pop(self, None)

    # ------------------------------------------------------------------------------------------------- measured

    def acked_per_s(self, now: int) -> float:
        return self.rate.update(self.consumer.acked, now)

    def latency_ms(self, now: int) -> float | None:
        """From delivery to ack: of the last that was timed, or of the one that is under way where that is longer."""
        known = self.window.latency_ms
        if self.timed < 0:
            return known
        waited = float(now - self.timed_ms)
        return waited if known is None or waited > known else known


@attrs.define
class FlowStatistics:
    """Counters since the start."""

    looks: int = 0
    busy_seconds: float = 0.0
    windows_said: int = 0
    steps: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys((state.value for state in State), 0))
    """Times a consumer came to a state."""


class FlowControl:
    """All consumers of a node that are connections."""

    def __init__(self, engine: Engine, settings: Flow, frame_bytes_max: int, clock: Callable[[], int]) -> None:
        self.settings = settings
        self.clock = clock
        self.active: dict[Feed, None] = {}
        """Consumers that the next look is for."""
        self.statistics = FlowStatistics()
        self._engine = engine
        self._ladder = Ladder(settings)
        self._bytes_floor = min(frame_bytes_max, settings.in_flight_bytes_max)

    async def run(self) -> None:
        while True:
            await trio.sleep(PERIOD_S)
            feeds = list(self.active)
            self.statistics.looks += 1
            for start in range(0, len(feeds), _TURN):
                self.look(feeds[start : start + _TURN], trio.current_time())
                await trio.lowlevel.checkpoint()

    def slow(self) -> dict[str, float]:
        """Consumers that are not healthy, by state."""
        states = [feed.state for feed in self.active]
        return {state.value: states.count(state) for state in (State.THROTTLED, State.PAUSED)}

    def look(self, feeds: Collection[Feed], now_s: float) -> None:
        """Measure these, decide, and act; `now_s`: the run loop's time."""
        began, now = perf_counter(), self.clock()
        for feed in feeds:
            if feed in self.active:
                self._look(feed, now, now_s)
        self.statistics.busy_seconds += perf_counter() - began

    def _look(self, feed: Feed, now: int, now_s: float) -> None:
        stalled_s = feed.client.stalled_s(now_s)
        was = feed.window.size
        self._measure(feed, now)
        if (
            feed.state is not State.HEALTHY
            or stalled_s
            or feed.overdue_since_ms
            or not was == feed.window.size == feed.said
        ):
            self._judge(feed, now, stalled_s, was)
        if not feed.consumer.in_flight and feed.state is State.HEALTHY and not stalled_s:
            del self.active[feed]

    def _judge(self, feed: Feed, now: int, stalled_s: float, was: int) -> None:
        """Where it stands now, and what follows; for a healthy one that nothing has happened to there is no need."""
        overdue_s = stalled_s
        if feed.overdue_since_ms:
            overdue_s = max(overdue_s, (now - feed.overdue_since_ms) / 1000)
        if overdue_s >= self.settings.throttle_after_s:
            feed.window.cut()
        state = self._ladder.state(overdue_s, narrow=feed.window.is_narrow)
        if state is State.CLOSED and not self._may_close(feed, now, stalled_s):
            state = State.PAUSED
        reason = self._reason(feed, stalled_s, was)
        if state is not feed.state:
            self._step(feed, state, reason, now)
        elif reason is not Reason.NONE and feed.window.size != was:
            feed.reason = reason
        size = 0 if state in (State.PAUSED, State.CLOSED) else feed.window.size
        if size != feed.consumer.window:
            self.apply(feed, size)
        self._say(feed, size, now)

    def _measure(self, feed: Feed, now: int) -> None:
        """What has happened since the last look, into the window."""
        consumer, window = feed.consumer, feed.window
        feed.rate.update(consumer.acked, now)
        acked, feed.acked = consumer.acked - feed.acked, consumer.acked
        expired, feed.expired = consumer.expired - feed.expired, consumer.expired
        if feed.words != feed.words_seen:
            feed.words_seen = feed.words
            feed.client.heard_ms = now
            feed.overdue_since_ms = 0
        if feed.sample is not None:
            window.observe(*feed.sample)
            feed.sample, feed.timed = None, _NOTHING
        if expired and expired >= acked:
            window.lose(expired)
            feed.overdue_since_ms = feed.overdue_since_ms or now
        if feed.timed >= 0 and now - feed.timed_ms > consumer.subscription.settings.lease_ms:
            feed.timed = _NOTHING  # it runs out, and another consumer acks it

    def _may_close(self, feed: Feed, now: int, stalled_s: float) -> bool:
        """A connection that settles for another of its subscriptions stays, and the stuck one stays paused."""
        return stalled_s > 0 or now - feed.client.heard_ms >= self.settings.close_after_s * 1000

    def _reason(self, feed: Feed, stalled_s: float, was: int) -> Reason:
        if stalled_s >= self.settings.throttle_after_s:
            return Reason.UNSENT
        if feed.overdue_since_ms:
            return Reason.LEASES_EXPIRED
        if feed.window.size < was:
            return Reason.ACK_LATENCY
        return Reason.RECOVERED if feed.reason is not Reason.NONE else Reason.NONE

    def _step(self, feed: Feed, state: State, reason: Reason, now: int) -> None:
        """Up or down the ladder."""
        feed.state, feed.reason, feed.since_ms = state, reason, now
        self.statistics.steps[state.value] += 1
        feed.said_ms = 0
        if state is State.PAUSED:
            self._engine.recall(feed.consumer, now)
        elif state is State.CLOSED:
            name = feed.consumer.subscription.name
            why = "its socket took nothing" if reason is Reason.UNSENT else f"nothing was settled for {name!r}"
            feed.client.close_slow(
                GatewayError(
                    "slow_consumer",
                    f"{why} for {self.settings.close_after_s:g} s (flow.close_after_s); what it held goes to others",
                )
            )

    def apply(self, feed: Feed, size: int) -> None:
        """Have the engine keep to the window: so many messages, and their share of the bytes."""
        share = int(self.settings.in_flight_bytes_max * size / feed.window.cap)
        self._engine.resize(feed.consumer, size, max(share, self._bytes_floor))

    def _say(self, feed: Feed, size: int, now: int) -> None:
        """Tell the client, where its window has materially changed; at most once a second but for a step."""
        if feed.state is State.CLOSED or size == feed.said:
            return
        material = abs(size - feed.said) >= _MATERIAL * feed.said or size == feed.window.cap
        if feed.said_ms and not (material and now - feed.said_ms >= _SAID_EVERY_MS):
            return
        feed.said, feed.said_ms = size, now
        self.statistics.windows_said += 1
        feed.client.say_window(feed.consumer.subscription.name, size, feed.reason.value)
