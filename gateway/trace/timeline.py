"""What happened to one message: its events as steps in words, where it stands, and what it became.

The trace is a witness that may miss things; the store is not. So where a message stands is asked of the store, and the
trace says how it came there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from gateway.model import Position
from gateway.store.files import Files
from gateway.trace import event as events
from gateway.trace import search
from gateway.trace.event import SPAN, Event, Step
from gateway.trace.files import TraceFile
from gateway.trace.wording import WORDS, Names

_OVER: Final = {Step.ACKED: "acked", Step.EXPIRED: "expired", Step.DEAD_LETTERED: "dead_lettered"}
_TERMINAL: Final = frozenset(_OVER.values()) | {"skipped"}
STATES: Final = _TERMINAL | {"waiting", "in_flight", "delayed", "settled", "deleted"}
"""Where a message can stand with a subscription."""
_LINKS: Final = {
    Step.BURIED: "dead_letter",
    Step.DEAD_LETTER: "original",
}
_RETURNED: Final = {"nack": "nacked", "lease": "lease_expired", "disconnect": "returned"}
_NOT_ROUTED: Final = (Step.FILTERED, Step.DEAD_LETTER)
"""They name a subscription that the message is not due to."""
_BY_HOLDER: Final = frozenset({*_RETURNED.values(), "acked", "extended", "given_up"})
LINKED_MAX: Final = 16
"""Messages that one trace follows: a message may go through the dead letters again and again."""


@attrs.frozen(kw_only=True)
class TraceStep:
    """One thing that happened to a message."""

    time_ms: int
    step: str
    subscription: str | None = None
    who: str | None = None
    why: str | None = None
    attempt: int | None = None
    until_ms: int | None = None
    other: int | None = None


@attrs.frozen(kw_only=True)
class TraceStanding:
    """Where a message stands with one subscription."""

    subscription: str
    state: str
    since_ms: int | None


@attrs.frozen(kw_only=True)
class TracedMessage:
    """One message's way."""

    position: int
    relation: str
    topic: str | None
    traceparent: str | None
    standing: list[TraceStanding]
    steps: list[TraceStep]


@attrs.frozen(kw_only=True)
class TraceView:
    """All that the trace knows of an id."""

    id: str
    positions: list[int]
    messages: list[TracedMessage]
    refused: list[TraceStep]
    lost: int
    since_ms: int | None


@attrs.define
class Story:
    """What the trace has of one position; read off the files, before the store is asked."""

    position: Position
    topic: str | None = None
    traceparent: str | None = None
    routed: dict[str, None] = attrs.field(factory=dict)
    steps: list[tuple[bool, TraceStep]] = attrs.field(factory=list)
    """True with those that are the message's only if it is routed to their subscription."""
    links: dict[Position, str] = attrs.field(factory=dict)


def read(files: Files, trace: Sequence[TraceFile], position: Position) -> Story:
    """Everything about `position`. Blocks."""
    story = Story(position)
    for event, names in search.about(files, trace, position):
        _tell(story, event, names)
    return story


def _tell(story: Story, event: Event, names: Names) -> None:
    match event.step:
        case Step.IDS:
            return
        case Step.TRACEPARENT:
            story.traceparent = dict(events.decode_parents(event.tail)).get(story.position)
            return
        case Step.ACCEPTED:
            _tell_accepted(story, event, names)
            return
    subscription = names.text(event.number) if WORDS[event.step].number == "subscription" and event.number else None
    if subscription and not event.flags & SPAN and event.step not in _NOT_ROUTED:
        story.routed[subscription] = None
    if event.step in _LINKS and event.other != story.position:
        story.links.setdefault(event.other, _LINKS[event.step])
    story.steps.append((bool(event.flags & SPAN), _step(event, names, subscription)))


def _tell_accepted(story: Story, event: Event, names: Names) -> None:
    """It was accepted before any stage had it, and stored behind them; the event came when both were known."""
    story.topic = names.text(event.what)
    who = names.text(events.producer_of(event, story.position)) or None
    subscriptions = names.texts(event.number)
    story.routed.update(dict.fromkeys(subscriptions))
    before = [TraceStep(time_ms=event.other, step="accepted", who=who, why=story.topic)]
    before += [TraceStep(time_ms=event.other, step="routed", subscription=name) for name in subscriptions]
    story.steps[:0] = [(False, step) for step in before]
    story.steps.append((False, TraceStep(time_ms=event.time_ms, step="stored", why=names.text(event.why))))


def _step(event: Event, names: Names, subscription: str | None) -> TraceStep:
    words = WORDS[event.step]
    word = words.step
    parts = [names.text(number) for number in (event.what, event.why) if number]
    if event.step is Step.RETURNED:
        word = _RETURNED.get(parts[0], word)
        parts = parts[1:]
    elif event.step is Step.STAGE:
        word, parts = parts[0], parts[1:]
    if event.step is Step.REFUSED and event.number:
        parts.append(f"at {names.text(event.number)}")
    until = words.other.endswith("_until_ms") or words.other == "due_ms"
    return TraceStep(
        time_ms=event.time_ms,
        step=word,
        subscription=subscription,
        who=names.text(event.who) if words.who and words.who != "epoch" and event.who else None,
        why=": ".join(part for part in parts if part) or None,
        attempt=event.attempt or None,
        until_ms=event.other if until and event.other else None,
        other=event.other if words.other.endswith("_position") else None,
    )


def by_id(files: Files, trace: Sequence[TraceFile], message_id: str) -> tuple[list[Position], list[TraceStep]]:
    """(positions of the messages with this id of their producer's, what was refused under it). Blocks."""
    positions: dict[Position, None] = {}
    refused: list[TraceStep] = []
    for event, names in search.by_id(files, trace, message_id):
        if event.step is Step.IDS:
            positions.update(dict.fromkeys(search.positions_of(event, message_id)))
        elif event.step is Step.REFUSED:
            refused.append(_step(event, names, None))
        else:
            positions[event.low] = None
    return sorted(positions), refused


def finish(story: Story, relation: str, kept: Mapping[str, bool] | None) -> TracedMessage:
    """The message's way, with where it stands.

    `kept`: whether it is settled, by subscription, as the store has it; None where the store has it no more, which it
    forgets only when everybody has settled it.
    """
    routed = dict.fromkeys(kept or ()) | story.routed
    steps = [step for spans, step in story.steps if not spans or step.subscription in routed]
    steps = _with_consumers(sorted(steps, key=lambda step: step.time_ms))
    return TracedMessage(
        position=story.position,
        relation=relation,
        topic=story.topic,
        traceparent=story.traceparent,
        standing=[_standing(name, story.position, steps, kept) for name in routed],
        steps=steps,
    )


def _with_consumers(steps: Iterable[TraceStep]) -> list[TraceStep]:
    """Whoever was handed a message last is who settles, extends or gives it back."""
    holders: dict[str | None, str | None] = {}
    found = []
    for step in steps:
        if step.step == "delivered":
            holders[step.subscription] = step.who
        elif step.step in _BY_HOLDER:
            step = attrs.evolve(step, who=holders.pop(step.subscription, None))
            if step.step == "extended":
                holders[step.subscription] = step.who
        found.append(step)
    return found


def _standing(
    name: str, position: Position, steps: Iterable[TraceStep], kept: Mapping[str, bool] | None
) -> TraceStanding:
    state, since_ms = "waiting", None
    deleted = False
    for step in steps:
        if step.subscription not in (name, None):
            continue
        after = _after(step, state, position)
        if after is not None:
            state, since_ms = after, step.time_ms
        if step.step == "subscription_changed":
            deleted = deleted or step.why == "deleted"
    if kept is None or kept.get(name):
        return TraceStanding(subscription=name, state=state if state in _TERMINAL else "settled", since_ms=since_ms)
    if name not in kept:
        return TraceStanding(subscription=name, state="deleted" if deleted else "settled", since_ms=since_ms)
    return TraceStanding(subscription=name, state="waiting" if state in _TERMINAL else state, since_ms=since_ms)


def _after(step: TraceStep, state: str, position: Position) -> str | None:
    """What a step makes of where the message stands; None where nothing."""
    match step.step:
        case "routed" | "redriven":
            return "waiting"
        case "delivered" | "extended" | "given_up":
            return "in_flight"
        case "nacked" | "lease_expired" | "returned":
            return "delayed" if step.until_ms else "waiting"
        case "sought" if step.other is not None and position >= step.other:
            return "waiting"
        case "sought":
            return state if state in _TERMINAL else "skipped"
        case "node_started":  # leases and pauses are forgotten
            return state if state in _TERMINAL else "waiting"
        case "acked" | "expired" | "dead_lettered":
            return step.step
    return None
