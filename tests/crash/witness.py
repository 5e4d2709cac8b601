"""What was said and heard during a recorded run, and when: enough to say what must be true after any prefix of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

DEDUP_MS: Final = 110_000
"""Ids this young must be recognised: a little less than limits.dedup_window_s."""


@attrs.define
class Known:
    """What was known at one moment. Messages go by their payload, which is used once; positions by subscription."""

    sent: set[str] = attrs.field(factory=set)
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
    now: int = 0


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

    def sent(self, *payloads: str) -> None:
        self._note(lambda known: known.sent.update(payloads))

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

    def creating(self, name: str) -> None:
        self._note(lambda known: known.created.add(name))

    def subscribed(self, name: str) -> None:
        self._note(lambda known: known.subscribed.add(name))

    def deleting(self, name: str) -> None:
        self._note(lambda known: known.deleting.add(name))

    def deleted(self, name: str) -> None:
        self._note(lambda known: known.deleted.add(name))

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
