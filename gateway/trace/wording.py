"""Events in words: what each of their fields is called, by the step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

from gateway.trace import event as events
from gateway.trace.event import Event, Step


class Names(Protocol):
    """The names of one file."""

    def text(self, number: int) -> str:
        """What NAME `number` says; empty for 0."""

    def texts(self, number: int) -> list[str]:
        """What ROUTE `number` says; nothing for 0."""


class Words(NamedTuple):
    """The word for a step, and what it calls the fields of its events; empty where it has none."""

    step: str
    number: str = "subscription"
    who: str = ""
    what: str = ""
    why: str = ""
    other: str = ""


WORDS: Final[dict[Step, Words]] = {
    Step.ACCEPTED: Words("accepted", "subscriptions", "producer", "topic", "durability", "accepted_ms"),
    Step.TRACEPARENT: Words("traceparent", ""),
    Step.STAGE: Words("stage", "", "stage", "outcome"),
    Step.FILTERED: Words("filtered", "subscription", "stage", "outcome"),
    Step.REFUSED: Words("refused", "stage", "producer", "topic", "code"),
    Step.DUPLICATE: Words("duplicate", "", "producer", "topic"),
    Step.HANDED: Words("delivered", who="consumer", other="lease_until_ms"),
    Step.ACKED: Words("acked"),
    Step.EXPIRED: Words("expired"),
    Step.DEAD_LETTERED: Words("dead_lettered"),
    Step.EXTENDED: Words("extended", other="lease_until_ms"),
    Step.RETURNED: Words("returned", what="cause", why="reason", other="due_ms"),
    Step.DOOMED: Words("given_up", what="cause", why="reason"),
    Step.BURIED: Words("dead_letter_stored", what="topic", other="dead_letter_position"),
    Step.DEAD_LETTER: Words("dead_letter_of", what="topic", other="original_position"),
    Step.REDRIVEN: Words("redriven"),
    Step.SOUGHT: Words("sought", other="to_position"),
    Step.ROUTED: Words("routed", why="cause"),
    Step.STARTED: Words("node_started", "", "epoch", "", "how", "last_seen_ms"),
    Step.STOPPED: Words("node_stopped"),
    Step.CHANGED: Words("subscription_changed", what="change"),
}
"""Steps without words are the recorder's own."""


def plain(event: Event, names: Names) -> dict[str, Any] | None:
    """The event as a JSON object for collectors; None where it is the recorder's own."""
    words = WORDS.get(event.step)
    if words is None:
        return None
    found: dict[str, Any] = {"time_ms": event.time_ms, "step": words.step}
    if event.messages:
        found["messages"] = event.messages
    if event.high:
        found["positions"] = [list(pair) for pair in event.ranges]
    if event.attempt:
        found["attempt"] = event.attempt
    found.update(fields(event, words, names))
    if event.step is Step.TRACEPARENT:
        found["traceparents"] = [[position, text] for position, text in events.decode_parents(event.tail)]
    return found


def fields(event: Event, words: Words, names: Names) -> Iterator[tuple[str, Any]]:
    """The fields that the step has words for, and that say something."""
    if words.number == "subscriptions":
        yield words.number, names.texts(event.number)
    elif words.number and event.number:
        yield words.number, names.text(event.number)
    for word, number in ((words.who, event.who), (words.what, event.what), (words.why, event.why)):
        if word and number:
            yield word, names.text(number)
    if words.other and event.other:
        yield words.other, event.other
