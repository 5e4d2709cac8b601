"""What an operator does to a subscription's place: seek, redrive; and asks of it: why.

Each changes the state at once and is durable on return. Its record stands in the log between the settling before and
the settling after it, so a crash leaves either the old place or the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from gateway.broker import revisit, why
from gateway.broker.clockwork import STEP
from gateway.broker.subscription import Subscription
from gateway.engine.catalogue import Catalogue
from gateway.engine.delivering import Deliveries, Turns, tell_released
from gateway.engine.giveway import GiveWay
from gateway.engine.times import position_at
from gateway.errors import GatewayError
from gateway.model import SeekTo, Sought, Start, SubscriptionSettings, Why
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.log import Log
from gateway.store.record import Kind


class Steering:
    """The calls; whoever makes one holds the segments (`Holds.all`)."""

    def __init__(self, log: Log, catalogue: Catalogue, turns: Turns, deliveries: Deliveries) -> None:
        self._log = log
        self._catalogue = catalogue
        self._turns = turns
        self._deliveries = deliveries

    async def seek(self, name: str, to: SeekTo, begin: Callable[[], None]) -> Sought:
        """See `engine.base.Engine.seek`; `begin` is called right before the record is written."""
        self._settled_past(self._catalogue.known(name))
        await self._log.sync()  # or a segment that is not counted could be there again after a crash
        position = self._find(to)
        subscription = self._catalogue.known(name)  # it may have gone meanwhile
        begin()
        with self._restarting(subscription):
            sought = await self._take_back_and_go(subscription, position)
        await self._log.sync()
        return sought

    def change(self, subscription: Subscription, settings: SubscriptionSettings) -> None:
        """Give it other settings. Where they change its order, everything is taken back."""
        if settings.ordered == subscription.settings.ordered:
            self._catalogue.change(subscription, settings)
            return
        with self._restarting(subscription):
            self._catalogue.change(subscription, settings)

    @contextmanager
    def _restarting(self, subscription: Subscription) -> Iterator[None]:
        """Inside, everything that is out is taken back; its consumers are told behind it."""
        still_waiting = self._deliveries.recall(subscription)
        held = [consumer for consumer in subscription.consumers if consumer.in_flight and consumer not in still_waiting]
        yield
        for consumer in still_waiting:
            consumer.blocked = False
            consumer.update()
        for consumer in held:
            tell_released(consumer)
        self._turns.mark(subscription)

    async def _take_back_and_go(self, subscription: Subscription, position: int) -> Sought:
        """What is out may be a million leases: they are taken back in steps, and others run between."""
        subscription.restarting = True
        give_way = GiveWay()
        try:
            while subscription.take_back(STEP):
                await give_way()
        except BaseException:  # what was taken back is in no hand before it goes on
            self._go(subscription, position)
            subscription.recount(self._log.segments)
            raise
        sought = self._go(subscription, position)
        await self._recount(subscription, give_way)
        return sought

    def _go(self, subscription: Subscription, position: int) -> Sought:
        sought = revisit.seek(subscription, position, self._log.segments)
        body = records.encode_seek(sought.position, sought.again, sought.skipped)
        self._log.control(Kind.SEEK, body, number=subscription.number)
        subscription.steps.sought(subscription.name, sought.position)
        return sought

    async def _recount(self, subscription: Subscription, give_way: GiveWay) -> None:
        """A million may not be due yet: they are counted in steps. Nothing is delivered, or settled, meanwhile."""
        subscription.restarting = True
        counting = subscription.recounting(self._log.segments)
        try:
            for _ in counting:
                await give_way()
        finally:
            for _ in counting:  # it was cancelled
                pass
            subscription.restarting = subscription.counting is not None  # by another seek

    def _find(self, to: SeekTo) -> int:
        log = self._log
        if to.position is not None:
            return to.position
        if to.time_ms is None:
            return log.segments[0].base if to.edge is Start.START else log.end
        return position_at(log.segments, log.durable_end, to.time_ms)

    @staticmethod
    def _settled_past(subscription: Subscription) -> None:
        if subscription.unfilled:
            raise GatewayError(
                "overloaded",
                f"what subscription {subscription.name!r} is due of the past is still being searched; try again",
            )

    async def redrive(self, name: str) -> int:
        """See `engine.base.Engine.redrive`."""
        subscription = self._catalogue.known(name)
        redriven = 0
        give_way = GiveWay()
        while not subscription.deleted and (step := revisit.redrive(subscription, self._log.segments)) is not None:
            messages, ranges = step
            redriven += messages
            if messages:
                body = records.encode_redrive(messages, ranges)
                self._log.control(Kind.REDRIVE, body, number=subscription.number)
                subscription.steps.redriven(name, ranges)
            self._turns.mark(subscription)
            await give_way()
        if redriven:
            await self._log.sync()
        return redriven

    async def why(self, name: str, position: int, now: int) -> Why:
        """See `engine.base.Engine.why`."""
        log, subscription = self._log, self._catalogue.known(name)
        if position >= log.end:
            raise GatewayError("not_found", f"position {position}: nothing is stored there; the next is {log.end}")
        segment = log.segment_of(position)
        if segment is None or not segment.index.has(position):  # let go, or merged away: nobody was due it any more
            return why.settled(position, None)
        answer = why.explain(subscription, position, log.segments, log.durable_end, now)
        if answer is not None:
            return answer
        written = [(segment.path, segment.size) for segment in log.segments if segment.end > position]
        await log.sync()
        found = await trio.to_thread.run_sync(
            lambda: why.cause_of(_controls(log.files, written, subscription.number), position)
        )
        return why.settled(position, found)


def _controls(files: Files, written: Sequence[tuple[Path, int]], number: int) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of every record about subscription `number`'s place in those bytes of the segments. Blocks."""
    for path, size in written:
        file = files.open(path)
        try:
            data = files.read(file, 0, size)
        finally:
            files.close(file)
        for record in records.scan(data, 0, len(records.MAGIC)):
            if record.kind in (Kind.SETTLE, Kind.SEEK, Kind.REDRIVE) and record.number == number:
                yield record.kind, record.body
