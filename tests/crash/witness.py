"""What was said and heard during a recorded run, and when: enough to say what must be true after any prefix of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs
import orjson

DEDUP_MS: Final = 110_000
"""Ids this young must be recognised: a little less than limits.dedup_window_s."""


@attrs.define
class Known:
    """What was known at one moment. Messages go by their payload, which is used once; positions by subscription."""

    sent: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    """When, and when its time is over; 0 never."""
    answered: dict[int, str] = attrs.field(factory=dict)
    """By position, fsynced."""
    written: dict[int, str] = attrs.field(factory=dict)
    """By position: answered as written, so a killed process has it and a power cut may lose it."""
    refused: set[str] = attrs.field(factory=set)
    ids: dict[str, tuple[int, str, int]] = attrs.field(factory=dict)
    """Answered ids: position, payload, and when."""

    created: set[str] = attrs.field(factory=set)
    subscribed: set[str] = attrs.field(factory=set)
    deleting: set[str] = attrs.field(factory=set)
    deleted: set[str] = attrs.field(factory=set)

    due: dict[str, set[int]] = attrs.field(factory=dict)
    seen: dict[int, bytes] = attrs.field(factory=dict)
    """Bodies that were delivered, to whomever."""
    settling: dict[str, set[int]] = attrs.field(factory=dict)
    settled: dict[str, set[int]] = attrs.field(factory=dict)
    retention_ms: dict[str, int] = attrs.field(factory=dict)
    swept_ms: dict[str, int] = attrs.field(factory=dict)
    """What was over then is settled."""
    now: int = 0

    def text(self, position: int) -> str:
        """The payload of a message that was answered or seen."""
        text: str = (
            self.answered.get(position) or self.written.get(position) or orjson.loads(self.seen[position])["data"]
        )
        return text

    def is_over(self, name: str, position: int, now: int) -> bool:
        """Whether its TTL, or the retention of the subscription, has run out for it."""
        sent_ms, expires_ms = self.sent[self.text(position)]
        return 0 < expires_ms <= now or sent_ms < now - self.retention_ms[name]


class Witness:
    """Notes facts; `moment` is the number of changes that were done to the disk so far."""

    def __init__(self, moment: Callable[[], int]) -> None:
        self._moment = moment
        self._facts: list[tuple[int, Callable[[Known], Any]]] = []

    def _note(self, fact: Callable[[Known], Any]) -> None:
        self._facts.append((self._moment(), fact))

    def until(self, moment: int | None = None) -> Known:
        """What was known when so many changes had been done; all of it without a number."""
        known = Known()
        for at, fact in self._facts:
            if moment is None or at <= moment:
                fact(known)
        return known

    def clock(self, now: int) -> None:
        self._note(lambda known: setattr(known, "now", now))

    # ---------------------------------------------------------------------------------------------- publishing

    def sent(self, payloads: dict[str, int], now: int) -> None:
        """Each with its ttl_ms."""
        said = {payload: (now, now + ttl_ms if ttl_ms else 0) for payload, ttl_ms in payloads.items()}
        self._note(lambda known: known.sent.update(said))

    def answered(self, position: int, payload: str, readers: list[str], *, durable: bool) -> None:
        """It was answered with this position; `readers` are the subscriptions that it is for."""

        def fact(known: Known) -> None:
            (known.answered if durable else known.written)[position] = payload
            if durable:
                for reader in readers:
                    known.due.setdefault(reader, set()).add(position)

        self._note(fact)

    def named(self, message_id: str, position: int, payload: str, now: int) -> None:
        """The message just answered has an id of its producer's."""
        self._note(lambda known: known.ids.__setitem__(message_id, (position, payload, now)))

    def refused(self, *payloads: str) -> None:
        """With a definite error."""
        self._note(lambda known: known.refused.update(payloads))

    # ------------------------------------------------------------------------------------------- subscriptions

    def creating(self, name: str, retention_s: int) -> None:
        def fact(known: Known) -> None:
            known.created.add(name)
            known.retention_ms[name] = 1000 * retention_s

        self._note(fact)

    def subscribed(self, name: str) -> None:
        self._note(lambda known: known.subscribed.add(name))

    def deleting(self, name: str) -> None:
        self._note(lambda known: known.deleting.add(name))

    def deleted(self, name: str) -> None:
        self._note(lambda known: known.deleted.add(name))

    def swept(self, now: int) -> None:
        """What was over for those that were there is settled, and that is durable."""
        self._note(lambda known: known.swept_ms.update(dict.fromkeys(known.subscribed - known.deleting, now)))

    # ---------------------------------------------------------------------------------------------- delivering

    def delivered(self, name: str, position: int, body: bytes) -> None:
        def fact(known: Known) -> None:
            known.seen[position] = body
            known.due.setdefault(name, set()).add(position)

        self._note(fact)

    def settling(self, name: str, positions: list[int]) -> None:
        """A consumer said something of them after which they may not come again."""
        self._note(lambda known: known.settling.setdefault(name, set()).update(positions))

    def settled(self, name: str, positions: list[int]) -> None:
        """It was told that they were acked."""
        self._note(lambda known: known.settled.setdefault(name, set()).update(positions))
