"""Messages whose deliveries are over, on their way to a dead-letter topic."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import structlog

from gateway.broker.slice import Slice
from gateway.broker.subscription import Doomed
from gateway.engine.base import DeadLetter
from gateway.engine.reader import LostMessagesError, Reader

_log = structlog.get_logger("gateway.engine")

_OVERHEAD_BYTES: Final = 500
LOT: Final = 128
"""Letters that are made at once, without others running: 10 us each, and a body read from the disk lets them run."""


class DoomedMessages:
    """Collects what subscriptions give up, and hands it out one message at a time, with its body.

    What waits here is slices; a body is read when it is taken, and `bytes_max` bounds the bodies that are out. A slice
    that a seek, or a deletion, has taken back is passed over.
    """

    def __init__(self, reader: Reader, bytes_max: int) -> None:
        self.bytes_out = 0  # of letters taken and not buried yet
        self._bytes_max = bytes_max
        self._reader = reader
        self._doomed: deque[Doomed] = deque()

    def add(self, doomed: Iterable[Doomed]) -> None:
        self._doomed += doomed

    async def take(self) -> list[DeadLetter]:
        """The next ones that were collected: a lot, or as many as there is room for."""
        letters: list[DeadLetter] = []
        while self._doomed and self.bytes_out < self._bytes_max and len(letters) < LOT:
            item = self._doomed.popleft()
            if is_stale(item):
                continue
            piece, rest = item.slice.cut(1) if len(item.slice) > 1 else (item.slice, None)
            if rest is not None:
                self._doomed.appendleft(Doomed(item.subscription, rest, item.cause, item.reason, item.restarts))
            try:
                letters.append(await self._letter(item, piece))
            except LostMessagesError as lost:
                _log.error("a dead letter cannot be read; it is set aside", error=str(lost))
                item.subscription.keep_damaged(piece)
            else:
                self.bytes_out += size_of(letters[-1])
        return letters

    def bury(self, letter: DeadLetter) -> None:
        """It is stored, and so settled, but where it was taken back meanwhile."""
        self.bytes_out -= size_of(letter)
        item: Doomed = letter.handle
        if not is_stale(item):
            item.subscription.bury(item.slice)

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
            handle=Doomed(subscription, piece, item.cause, item.reason, item.restarts),
        )


def size_of(letter: DeadLetter) -> int:
    """Bytes that it is counted with: an object is some hundred of them."""
    return len(letter.body) + _OVERHEAD_BYTES


def is_stale(item: Doomed) -> bool:
    """Whether it is not to be buried any more."""
    return item.subscription.deleted or item.restarts != item.subscription.restarts
