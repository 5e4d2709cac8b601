"""redeliver: the clock. Leases that ran out, delays that are over, and dead letters on their way to their topic.

A dead letter is published through the same door as everything else; only when it is stored is the original settled. A
crash between the two gives a second dead letter, never none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import msgspec
import structlog
import trio

from gateway.engine.base import DeadLetter, Engine
from gateway.engine.giveway import GiveWay
from gateway.errors import GatewayError
from gateway.model import Batch, Durability, Message
from gateway.steps import UNTRACED, Steps

_log = structlog.get_logger("gateway.redeliver")


class _Original(msgspec.Struct):
    """A stored delivery JSON, as far as a dead letter carries it on."""

    position: int
    id: str
    topic: str
    key: str | None = None
    attributes: dict[str, str] = {}
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None
    content_type: str | None = None


_decode = msgspec.json.Decoder(_Original).decode


@attrs.define
class RedeliverStatistics:
    """Counters since the start."""

    ticks: int = 0
    late_ticks: int = 0
    steps: int = 0
    """Steps beyond the first of a tick: it had much to do."""
    dead_letters: int = 0


class Redeliver:
    """The lease clock."""

    def __init__(
        self,
        engine: Engine,
        tick_ms: int,
        clock: Callable[[], int],
        submit: Callable[[Batch], Awaitable[None]],
        steps: Steps = UNTRACED,
    ) -> None:
        self.statistics = RedeliverStatistics()
        self._engine = engine
        self._tick_s = tick_ms / 1000
        self._clock = clock
        self._submit = submit
        self._steps = steps
        self._again: list[DeadLetter] = []  # could not be published; the next tick tries once more

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            nursery.start_soon(self._bury)

    async def _tick(self) -> None:
        next_tick = trio.current_time()
        while True:
            next_tick += self._tick_s
            late = trio.current_time() - next_tick
            if late > self._tick_s:
                self.statistics.late_ticks += 1
                next_tick += late
            await trio.sleep_until(next_tick)
            self.statistics.ticks += 1
            give_way = GiveWay()
            while self._engine.tick(self._clock()):
                self.statistics.steps += 1
                await give_way()

    async def _bury(self) -> None:
        """Beside the clock: a dead letter may wait for the disk, and for a place; a lease does not."""
        while True:
            await trio.sleep(self._tick_s)
            again, self._again = self._again, []
            await self._publish(again)
            while letters := await self._engine.dead_letters():
                await self._publish(letters)
                await trio.lowlevel.checkpoint()

    async def _publish(self, letters: list[DeadLetter]) -> None:
        for dead in letters:
            message = dead_letter(dead)
            batch = Batch([message], Durability.FSYNCED, len(dead.body), partial(self._stored, dead))
            batch.trusted = True
            batch.origin = "gateway"
            try:
                await self._submit(batch)
            except GatewayError:
                self._again.append(dead)

    def _stored(self, dead: DeadLetter, batch: Batch) -> None:
        refused = batch.error or (batch.results and batch.results[0])
        if isinstance(refused, GatewayError):
            _log.error("a dead letter was refused", subscription=dead.subscription, error=refused.message)
            self._again.append(dead)
            return
        self.statistics.dead_letters += 1
        self._steps.dead_lettered(dead.subscription, _decode(dead.body).position, batch.first, dead.topic)
        self._engine.bury(dead, self._clock())


def dead_letter(dead: DeadLetter) -> Message:
    """The message that a dead letter is published as: the original's payload and key, and why it is here."""
    original = _decode(dead.body)
    attributes = original.attributes | {
        "dead_letter_subscription": dead.subscription,
        "dead_letter_cause": dead.cause,
        "dead_letter_attempts": str(dead.attempts),
        "dead_letter_topic": original.topic,
        "dead_letter_position": str(original.position),
        "dead_letter_id": original.id,
    }
    if dead.reason:
        attributes["dead_letter_reason"] = dead.reason[:1024]
    return Message(
        topic=dead.topic,
        data=original.data,
        data_base64=original.data_base64,
        content_type=original.content_type,
        key=original.key,
        attributes=attributes,
    )
