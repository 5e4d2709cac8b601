"""From events to spans: what a trace of many programs shows of a message's time in the gateway.

Only messages that came with a sampled `traceparent` (W3C Trace Context §3.2.2.5) have spans, all of them children of
the producer's: one from its acceptance to its storage, one for each delivery, from the moment that the socket had it to
its settling, its return or its end. A message is followed from its acceptance on; what a node took over at its start is
not, and of too many at once the oldest are given up, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from gateway.model import Position, Ranges
from gateway.trace import event as events
from gateway.trace.event import Event, Step
from gateway.trace.wording import Names

_RECENT_MAX: Final = 1000
"""Acceptances looked back at for a trace context: it is told right behind the acceptances of its batch."""
_ENDS: Final = {
    Step.ACKED: "acked",
    Step.RETURNED: "returned",
    Step.DOOMED: "given_up",
    Step.EXPIRED: "expired",
    Step.DEAD_LETTERED: "dead_lettered",
}
_LAST: Final = (Step.ACKED, Step.EXPIRED, Step.DEAD_LETTERED)
"""Nothing comes behind these for the subscription."""


@attrs.frozen(kw_only=True)
class Span:
    """One piece of a message's way. `error`: why it did not go well; empty where it did."""

    name: str
    traceparent: str
    begin_ms: int
    end_ms: int
    attributes: dict[str, str | int]
    error: str = ""


@attrs.define
class _Message:
    """A message with a sampled trace context, and the deliveries of it that are under way."""

    traceparent: str
    topic: str
    waiting: set[str]
    handed: dict[str, Event] = attrs.field(factory=dict)


class Journeys:
    """The messages that are followed."""

    def __init__(self, messages_max: int) -> None:
        self.given_up = 0
        """Messages since the start that were followed no further, for others came."""
        self._messages_max = messages_max
        self._messages: dict[Position, _Message] = {}
        self._recent: list[Event] = []

    def __len__(self) -> int:
        return len(self._messages)

    def spans(self, event: Event, names: Names) -> Iterator[Span]:
        """The spans that end with this event."""
        if event.step is Step.ACCEPTED:
            self._recent = [*self._recent[-_RECENT_MAX + 1 :], event] if self._recent else [event]
        elif event.step is Step.TRACEPARENT:
            yield from self._accepted(event, names)
        elif self._messages:
            if event.step is Step.HANDED:
                self._handed(event, names)
            elif event.step in _ENDS:
                yield from self._ended(event, names)

    def _accepted(self, event: Event, names: Names) -> Iterator[Span]:
        recent, self._recent = self._recent, []
        for position, traceparent in events.decode_parents(event.tail):
            accepted = next((each for each in reversed(recent) if each.low <= position <= each.high), None)
            if accepted is None or not int(traceparent[-2:], 16) & 1:
                continue
            topic, subscriptions = names.text(accepted.what), names.texts(accepted.number)
            yield Span(
                name=f"publish {topic}",
                traceparent=traceparent,
                begin_ms=accepted.other,
                end_ms=accepted.time_ms,
                attributes=_attributes("publish", position, topic)
                | {"gateway.durability": names.text(accepted.why), "gateway.subscriptions": len(subscriptions)},
            )
            if subscriptions:
                self._follow(position, _Message(traceparent, topic, set(subscriptions)))

    def _follow(self, position: Position, message: _Message) -> None:
        self._messages[position] = message
        if len(self._messages) > self._messages_max:
            del self._messages[next(iter(self._messages))]
            self.given_up += 1

    def _handed(self, event: Event, names: Names) -> None:
        subscription = names.text(event.number)
        for position in self._followed(event.ranges):
            if subscription in self._messages[position].waiting:
                self._messages[position].handed[subscription] = event

    def _ended(self, event: Event, names: Names) -> Iterator[Span]:
        subscription, outcome = names.text(event.number), _ENDS[event.step]
        for position in self._followed(event.ranges):
            message = self._messages[position]
            if subscription not in message.waiting:
                continue
            handed = message.handed.pop(subscription, None)
            if handed is not None or event.step in (Step.EXPIRED, Step.DEAD_LETTERED):
                yield _delivery(message, position, subscription, handed, event, names, outcome)
            if event.step in _LAST:
                message.waiting.discard(subscription)
                if not message.waiting:
                    del self._messages[position]

    def _followed(self, ranges: Ranges) -> list[Position]:
        """Those of `ranges` that are followed; by way of the fewer."""
        if sum(high - low + 1 for low, high in ranges) <= len(self._messages):
            return [each for low, high in ranges for each in range(low, high + 1) if each in self._messages]
        return [each for each in self._messages if any(low <= each <= high for low, high in ranges)]


def _delivery(
    message: _Message,
    position: Position,
    subscription: str,
    handed: Event | None,
    event: Event,
    names: Names,
    outcome: str,
) -> Span:
    attributes = _attributes("deliver", position, message.topic)
    attributes |= {"messaging.destination.subscription.name": subscription, "gateway.outcome": outcome}
    if handed is not None:
        attributes |= {"gateway.attempt": handed.attempt, "gateway.consumer": names.text(handed.who)}
    why = ": ".join(text for text in (names.text(event.what), names.text(event.why)) if text)
    return Span(
        name=f"deliver {subscription}",
        traceparent=message.traceparent,
        begin_ms=event.time_ms if handed is None else handed.time_ms,
        end_ms=event.time_ms,
        attributes=attributes,
        error="" if event.step is Step.ACKED else f"{outcome}: {why}" if why else outcome,
    )


def _attributes(operation: str, position: Position, topic: str) -> dict[str, str | int]:
    """OpenTelemetry's semantic conventions for messaging, where they have a word for it."""
    return {
        "messaging.system": "push_gateway",
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
        "gateway.position": position,
    }
