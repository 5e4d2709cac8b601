"""Messages whose deliveries are over, on their way to a dead-letter topic."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.broker.slice import Slice
from gateway.broker.subscription import Doomed
from gateway.engine.base import DeadLetter
from gateway.engine.reader import Reader


class DoomedMessages:
    """Collects what subscriptions give up, and hands it out one message at a time, with its body."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._doomed: list[Doomed] = []

    def add(self, doomed: Iterable[Doomed]) -> None:
        self._doomed += doomed

    async def take(self) -> list[DeadLetter]:
        """All that was collected since the last call."""
        doomed, self._doomed = self._doomed, []
        letters: list[DeadLetter] = []
        for item in doomed:
            if not item.subscription.deleted:  # or its messages may be gone
                letters += [await self._letter(item, piece) for piece in _single(item.slice)]
        return letters

    async def _letter(self, item: Doomed, piece: Slice) -> DeadLetter:
        subscription = item.subscription
        topic = subscription.settings.dead_letter_topic(subscription.name)
        return DeadLetter(
            topic=topic or f"dead.{subscription.name}",  # switched off since: these were promised one
            body=await self._reader.one(piece.first),
            subscription=subscription.name,
            attempts=piece.attempts,
            cause=item.cause,
            reason=item.reason,
            handle=(subscription, piece),
        )


def _single(piece: Slice) -> Iterable[Slice]:
    """The messages of a slice, each as a slice of its own."""
    while len(piece) > 1:
        first, piece = piece.cut(1)
        yield first
    yield piece
