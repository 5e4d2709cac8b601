"""The engine in this process: the log store and the broker's nouns, joined.

Publishing: `route` -> `append` -> (the log's flusher) -> `committed`. Pushing: `wait_ready` -> `take` -> (`load`) ->
`send` -> `handed` -> `settle`. Every decision is synchronous and on the run loop; only the flusher, `load` and the few
calls that change subscriptions wait for the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import random
from typing import Any, Final, cast

import msgspec
import trio

from gateway.broker.clockwork import TIERS, Clockwork
from gateway.broker.dedup import Dedup
from gateway.broker.delay import count_delayed, wake
from gateway.broker.lease import Consumer, Lease
from gateway.broker.queue import Past
from gateway.broker.subscription import Cause, Subscription
from gateway.config import Config
from gateway.engine.appender import Appender
from gateway.engine.base import Commits, DeadLetter, EngineStatistics, Send, Upstream
from gateway.engine.catalogue import Catalogue, encode_past, subscription_record
from gateway.engine.delivering import Deliveries, Turns, tell_released
from gateway.engine.doomed import DoomedMessages
from gateway.engine.gate import Gate
from gateway.engine.giveway import GiveWay
from gateway.engine.history import matching, sources
from gateway.engine.holds import Holds
from gateway.engine.keeping import is_done_with
from gateway.engine.longfilters import LongFilters
from gateway.engine.lookup import Lookup
from gateway.engine.merging import MergeStatistics, Merging
from gateway.engine.past import let_past, sift_past
from gateway.engine.reader import LostMessagesError, Reader
from gateway.engine.routing import Router
from gateway.engine.scratch import ScratchFile
from gateway.engine.scrubbing import Scrubbing
from gateway.engine.sieve import Rule
from gateway.engine.standing import standing
from gateway.engine.steering import Steering
from gateway.engine.sweeping import Sweeping
from gateway.errors import GatewayError, StoreError
from gateway.kit.ranges import RangeSet, count, normalise
from gateway.model import Batch, Delivery, SeekTo, Settlement, Sought, SubscriptionSettings, SubscriptionView, Verb, Why
from gateway.steps import UNTRACED, Steps
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.flusher import Commit
from gateway.store.index import Index
from gateway.store.log import Log
from gateway.store.record import Kind, Record
from gateway.store.segment import Segment

_SETTLED_MAX: Final = 1000
"""Leases that one settle may be about, at 5 to 10 us each; the rest in steps. A frame is one lease, but where it is put
together from what came back, or came due, and so never more than a window of the default size."""
_TOLD_MAX: Final = 10_000
"""Ranges of a past that the trace is told of: more of them would be a pause."""


class EmbeddedEngine:
    """See `engine.base.Engine`. One store, one run loop."""

    def __init__(
        self, config: Config, clock: Callable[[], int], files: Files | None = None, steps: Steps = UNTRACED
    ) -> None:
        now = clock()
        self.config = config
        self._clock = clock
        self._steps = steps
        self._scratch = ScratchFile(config.store.directory, config.deliver.direct_bytes_max)
        self._clockwork = Clockwork(
            config.deliver.tick_ms,
            now,
            self._scratch.shelf(config.deliver.tick_ms),
            handing_ms=config.deliver.handing_ms,
            heap_leases_max=config.deliver.heap_leases_max,
        )
        self._delays = self._clockwork.delays
        self._catalogue = Catalogue(self._clockwork, config.deliver.subscriptions_max, config.deliver.keys_max)
        self._catalogue.steps = steps
        self._long_filters = LongFilters(config.filter, clock)
        self._router = Router(self._catalogue, config.filter, self._long_filters, steps)
        window_ms = config.limits.dedup_window_s * 1000
        self._dedup = Dedup(window_ms, config.limits.dedup_ids_max, now - window_ms)  # what is found is older than now
        self._log = Log(config.store, files)
        self._log.snapshot = self._snapshot
        self._log.releasable = self._releasable
        self._appender = Appender(self._log, self._catalogue, self._dedup)
        self._opened_ms = now
        self._held = Holds()
        self._turns = Turns(lambda: self._log.durable_end)
        self._reader = Reader(self._log, self._held)
        self._lookup = Lookup(self._log, self._reader)
        self._doomed = DoomedMessages(self._reader, config.deliver.dead_letter_bytes_max)
        self._deliveries = Deliveries(self._reader, self._turns, self._held)
        self._merging = Merging(self._log, self._catalogue, config.store, window_ms, lambda: self._held.everything > 0)
        self._scrubbing = Scrubbing(self._log, self._held)
        self._sweeping = Sweeping(self._log, self._catalogue, self._write_news)
        self._steering = Steering(self._log, self._catalogue, self._turns, self._deliveries)
        self._created: list[Callable[[str], None]] = []
        self._on_deleted: dict[Consumer, Callable[[], None]] = {}
        self._unfinished: deque[Settlement] = deque()  # each about more leases than are settled at once

    @property
    def epoch(self) -> str:
        return self._log.epoch

    # ------------------------------------------------------------------------------------------------ life

    async def open(self) -> None:
        self._opened_ms = self._clock()
        try:
            await trio.to_thread.run_sync(self._log.open, self, self._opened_ms)
            self._log.start()
            count_delayed(self._log.segments, self._delays.passed, self._catalogue)
            for subscription in self._catalogue:
                if subscription.unfilled:  # the crash came before its past was found
                    await self._fill(subscription)
        except BaseException:
            self._log.close()
            raise

    async def run(self) -> None:
        await self._log.run()

    async def aclose(self) -> None:
        await self._long_filters.aclose()
        try:
            await self._log.flush()
        finally:
            self._scratch.end()
            await trio.to_thread.run_sync(self._log.close)

    # replay, called by recovery

    def restore(self, state: dict[str, Any]) -> None:
        self._catalogue.restore(state)

    def messages(self, low: int, high: int, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            if number in self._catalogue.by_number:
                self._catalogue.by_number[number].routed += high - low + 1

    @property
    def ids_since_ms(self) -> int:
        return self._opened_ms - self._dedup.window_ms

    def remember_ids(self, segment: Segment, index: Index) -> None:
        self._appender.recall(index, self._opened_ms)

    def control(self, record: Record) -> None:
        self._catalogue.replay(record)

    def _snapshot(self) -> dict[str, Any]:
        return self._catalogue.snapshot(self._log.segments[0].base)

    def _releasable(self, segment: Segment) -> bool:
        if self._held.everything or segment.ids_ms + self._dedup.window_ms > self._clock():
            return False
        return is_done_with(segment, self._catalogue.by_number) and not self._held.keeps(segment)

    # ------------------------------------------------------------------------------------------- publishing

    @property
    def routes_at_once(self) -> bool:
        return not self._catalogue.filters

    def route(self, batch: Batch) -> None:
        self._router.route(batch)

    def is_routed(self, batch: Batch) -> bool:
        return self._router.is_routed(batch)

    async def ask_filters(self, batch: Batch) -> None:
        await self._router.ask(batch)

    def filter_errors(self) -> dict[str, int]:
        known = self._catalogue.by_number
        return {known[number].name: errors for number, errors in self._catalogue.filter_errors().items()}

    def set_gate(self, name: str, gate: Gate | None) -> None:
        self._catalogue.gates.set(name, gate)

    def on_created(self, tell: Callable[[str], None]) -> None:
        self._created.append(tell)

    @property
    def has_room(self) -> bool:
        return self._log.has_room

    async def wait_room(self) -> None:
        await self._log.wait_room()

    def bring_from(self, upstream: Upstream) -> None:
        self._log.coming = upstream.__len__
        self._log.bring_in = upstream.bring_in

    def expect(self) -> None:
        self._log.expect()

    def append(self, batches: Sequence[Batch], now: int) -> None:
        self._appender.append(batches, now)

    @property
    def commits(self) -> Commits:
        return self._log

    async def tell_commits(self, told: Callable[[list[Batch | Settlement]], None]) -> None:
        log = self._log

        def tell(commit: Commit) -> None:
            told(self._committed(commit))
            self._turns.wake()  # for what is left to be delivered

        try:
            log.on_commit = tell
            tell(log.unreported())
            await trio.sleep_forever()
        finally:
            log.on_commit = None

    def _committed(self, commit: Commit) -> list[Batch | Settlement]:
        """What of it is for whoever waits; subscriptions are woken."""
        for number in commit.routed:
            subscription = self._catalogue.by_number.get(number)
            if subscription is not None:
                self._turns.bring(subscription)
        entries = cast("list[Batch | Settlement]", commit.entries)
        if self._log.failed:
            error = GatewayError("store_failed", f"{self._log.failed}; the gateway is going down")
            for entry in entries:
                entry.error = error
        put_off = cast("list[Batch | Settlement]", commit.put_off)
        if put_off:
            error = GatewayError("store_failed", "there is no room on the disk; this may be carried out once there is")
            for entry in put_off:
                entry.error = error
        return entries + put_off

    # ---------------------------------------------------------------------------------------- subscriptions

    async def put_subscription(
        self, name: str, settings: SubscriptionSettings, now: int
    ) -> tuple[SubscriptionView, bool]:
        self._begin(now)
        self._log.bring_in()  # what has been routed goes as it was routed
        subscription = self._catalogue.by_name.get(name)
        created = subscription is None
        if subscription is None:
            subscription = self._catalogue.create(name, settings, self._log.end)
            for tell in self._created:
                tell(name)
        else:
            if settings.paused is not subscription.settings.paused:
                self._steps.changed(name, "paused" if settings.paused else "resumed")
            self._steering.change(subscription, settings)
        body = subscription_record(subscription, settings)
        self._log.control(Kind.SUBSCRIPTION, body, number=subscription.number)
        await self._log.sync()
        if created and subscription.unfilled:
            await self._fill(subscription)
            await self._log.sync()
        self._turns.mark(subscription)
        return self._view(subscription, now), created

    async def _fill(self, subscription: Subscription) -> None:
        """Find the past of a subscription that starts at the start. It is given nothing before that is done."""
        filter_ = self._catalogue.filters.get(subscription.number)
        log = self._log
        with self._held.all():
            past = await trio.to_thread.run_sync(
                matching,
                log.shelf,
                sources(log.segments, log.unsealed),
                subscription.settings.topics,
                subscription.created,
            )
            if filter_ is not None:
                ranges = list(past.positions)
                ranges, errors = await sift_past(self._reader, self._long_filters, self.config.filter, filter_, ranges)
                past = Past(RangeSet(0, ranges), past.end)
                self._catalogue.count_filter_error(Rule(filter_, (subscription.number,), (subscription.name,)), errors)
            gate = self._catalogue.gates.get(subscription.name)
            if gate is not None:
                past = Past(RangeSet(0, await let_past(self._reader, gate, list(past.positions))), past.end)
        if subscription.deleted:
            return
        self._catalogue.fill(subscription, past)
        subscription.recount(self._log.segments)
        self._log.control(Kind.BACKFILL, encode_past(past), number=subscription.number)
        self._steps.routed(subscription.name, list(islice(past.positions, _TOLD_MAX)), "backfill")

    async def delete_subscription(self, name: str) -> None:
        subscription = self._catalogue.known(name)
        self._begin(self._clock())
        self._log.bring_in()
        consumers = list(subscription.consumers)
        self._catalogue.remove(subscription)
        self._turns.drop(subscription)
        self._log.control(Kind.SUBSCRIPTION, subscription_record(subscription, None), number=subscription.number)
        self._steps.changed(name, "deleted")
        for consumer in consumers:
            tell = self._on_deleted.pop(consumer, None)
            if tell:
                tell()
        await self._log.sync()

    async def seek(self, name: str, to: SeekTo, now: int) -> Sought:
        with self._held.all():
            return await self._steering.seek(name, to, lambda: self._begin(now))

    async def redrive(self, name: str, now: int) -> int:
        self._begin(now)
        return await self._steering.redrive(name)

    async def why(self, name: str, position: int, now: int) -> Why:
        with self._held.all():
            return await self._steering.why(name, position, now)

    def subscription(self, name: str, now: int) -> SubscriptionView:
        return self._view(self._catalogue.known(name), now)

    def subscription_exists(self, name: str) -> None:
        self._catalogue.known(name)

    def subscription_count(self) -> int:
        return len(self._catalogue.by_name)

    def subscriptions(self, now: int) -> Iterator[SubscriptionView]:
        for name in sorted(self._catalogue.by_name):
            if name in self._catalogue.by_name:  # others ran since
                yield self.subscription(name, now)

    def _view(self, s: Subscription, now: int) -> SubscriptionView:
        oldest = s.oldest(self._log.segments, self._log.durable_end)
        oldest_ms = None
        if oldest is not None and (segment := self._log.segment_of(oldest)) is not None:
            oldest_ms = segment.index.time_ms(segment.index.ordinal(oldest))
        return SubscriptionView(s.name, s.settings, s.statistics(oldest_ms))

    # -------------------------------------------------------------------------------------------- consumers

    def attach(
        self,
        name: str,
        *,
        window: int | None,
        send: Send,
        label: str,
        on_deleted: Callable[[], None],
        once: bool = False,
        size_max: int | None = None,
        waits: bool = True,
    ) -> Consumer:
        subscription = self._catalogue.known(name)
        cap = subscription.settings.window_max
        size = min(size_max or self.config.deliver.frame_bytes_max, self.config.deliver.frame_bytes_max)
        consumer = Consumer(subscription, min(window or cap, cap), size, send, label, once=once)
        self._on_deleted[consumer] = on_deleted
        subscription.attach(consumer, waits=waits)
        if waits:
            self._turns.mark(subscription)
        return consumer

    def detach(self, consumer: Consumer, now: int) -> None:
        self._on_deleted.pop(consumer, None)
        subscription = consumer.subscription
        if consumer in subscription.consumers:
            subscription.detach(consumer, now)
            self._write_news(subscription, now)
            self._turns.mark(subscription)

    def unblock(self, consumer: Consumer) -> None:
        if consumer in consumer.subscription.consumers:
            consumer.blocked = False
            consumer.update()
            self._turns.mark(consumer.subscription)

    def resize(self, consumer: Consumer, window: int, window_bytes: int) -> None:
        if consumer in consumer.subscription.consumers:
            consumer.resize(window, window_bytes)
            self._turns.mark(consumer.subscription)

    def recall(self, consumer: Consumer, now: int) -> None:
        subscription = consumer.subscription
        if consumer in subscription.consumers:
            subscription.recall(consumer, now)
            self._write_news(subscription, now)
            self._turns.mark(subscription)

    # ----------------------------------------------------------------------------------------- the push side

    async def wait_ready(self) -> None:
        await self._turns.wait()

    def take(self, now: int) -> tuple[Consumer, Delivery] | None:
        while (subscription := self._turns.take()) is not None:
            consumer = subscription.choose()
            if consumer is None:
                continue
            lease = subscription.take_newest(consumer, self._log.segments[-1], self._log.durable_end, now)
            if lease is not None:
                return consumer, self._deliveries.make_one(subscription, lease)
            delivery, moved = self._take(subscription, consumer, now)
            if delivery is not None:
                return consumer, delivery
            if moved:
                return None  # much was looked at and nothing due: others run before it goes on
        return None

    def take_for(self, consumer: Consumer, now: int) -> Delivery | None:
        subscription = consumer.subscription
        delivery = None
        if not self._turns and not subscription.held_up:
            delivery, _ = self._take(subscription, consumer, now)
        if delivery is None:
            consumer.update()
            self._turns.mark(subscription)
        return delivery

    def _take(self, subscription: Subscription, consumer: Consumer, now: int) -> tuple[Delivery | None, bool]:
        """What is due to `consumer`, if anything is; and whether the subscription has come further."""
        front = subscription.front
        leases = subscription.take(
            consumer,
            self._log.segments,
            self._log.durable_end,
            self.config.deliver.frame_messages_max,
            min(consumer.size_max, consumer.window_bytes - consumer.in_flight_bytes),
            now,
        )
        moved = bool(leases or subscription.news) or subscription.front != front or subscription.searching
        if moved:
            self._turns.mark(subscription)  # perhaps more; behind the others, so that all get their turn
        self._write_news(subscription, now)
        return self._deliveries.make(subscription, leases) if leases else None, moved

    def is_loaded(self, delivery: Delivery) -> bool:
        return self._deliveries.is_loaded(delivery)

    async def load(self, delivery: Delivery) -> None:
        await self._deliveries.load(delivery)

    def send(self, consumer: Consumer, delivery: Delivery, now: int) -> None:
        for lease in delivery.leases:
            if lease.held:  # reading it may have taken longer than it may be held
                if consumer in consumer.subscription.consumers:
                    consumer.send(delivery)
                return

    def handed(self, delivery: Delivery, now: int) -> None:
        self._steps.handed(delivery, now)
        for lease in delivery.leases:
            if lease.held:
                lease.consumer.subscription.start(lease, now)

    # ---------------------------------------------------------------------------------------------- settling

    def settle(self, settlement: Settlement, now: int) -> bool:
        if self._ack_one(settlement, now):
            return True
        self._begin(now)
        unfinished = self._unfinished
        waits = bool(unfinished) and any(each.consumer is settlement.consumer for each in unfinished)
        if waits or not self._carry_out(settlement, now):
            self._unfinished.append(settlement)
            return False
        return True

    def _ack_one(self, settlement: Settlement, now: int) -> bool:
        """The short way of an ack of one message that was leased by itself, as those of a pull mostly are.

        False, and nothing done, where it is not that: what carries out the rest takes 1.5 times as long.
        """
        consumer, settles = settlement.consumer, settlement.settles
        if len(settles) != 1 or settlement.leaves or not isinstance(consumer, Consumer):
            return False
        (settle,) = settles
        if settle.verb is not Verb.ACK or len(settle.ranges) != 1:
            return False
        ((low, high),) = settle.ranges
        if low != high or not self._ack(consumer, low, high, now, lazy=settlement.done is None):
            return False
        settlement.counts[Verb.ACK] = 1
        tell_released(consumer)
        if settlement.done is not None:
            self._log.submit(settlement)
        return True

    def ack(self, consumer: Consumer, low: int, high: int, now: int) -> int:
        return 0 if consumer.on_released is not None else self._ack(consumer, low, high, now, lazy=True)

    def _ack(self, consumer: Consumer, low: int, high: int, now: int, *, lazy: bool) -> int:
        subscription = consumer.subscription
        if self._unfinished or consumer not in subscription.consumers:
            return 0
        self._begin(now)
        accepted = consumer.filed is not None
        piece = subscription.ack(consumer, low, high, now)
        if piece is None:
            return 0
        met = len(piece.positions)
        self._log.settle(subscription.number, Cause.ACKED, met, ((piece.span_low, high),), lazy=lazy)
        if not accepted or subscription.settings.ordered:  # or all that is due has been given its turn before
            self._turns.mark(subscription)
        return met

    def _carry_out(self, settlement: Settlement, now: int) -> bool:
        """One step of it; whether that was the last."""
        consumer = settlement.consumer
        held = isinstance(consumer, Consumer) and consumer in consumer.subscription.consumers
        finished = True
        for index, settle in enumerate(settlement.settles):
            if held and isinstance(consumer, Consumer):
                ranges, rest = consumer.portion(settle.ranges, _SETTLED_MAX)
                part = msgspec.structs.replace(settle, ranges=ranges) if rest else settle
                met, unknown = consumer.subscription.settle(consumer, part, now, random())
                settlement.counts[settle.verb] += met
                settlement.unknown += unknown
                if rest:
                    settlement.settles[: index + 1] = [msgspec.structs.replace(settle, ranges=rest)]
                    finished = False
                    break
            else:
                settlement.unknown += count(normalise(settle.ranges))
        if held and isinstance(consumer, Consumer):
            self._write_news(consumer.subscription, now, lazy=settlement.done is None)
            self._turns.mark(consumer.subscription)
            if finished:
                tell_released(consumer)
            if finished and settlement.leaves:
                self.detach(consumer, now)
        if finished and settlement.done is not None:
            self._log.submit(settlement)
        return finished

    def _carry_on(self, now: int) -> None:
        """One step of what was too much to be settled at once: before leases end, as it was said before that."""
        settlement = self._unfinished.popleft()
        self._begin(now)
        if not self._carry_out(settlement, now):
            self._unfinished.appendleft(settlement)
        elif settlement.carried_out is not None:
            settlement.carried_out(settlement)

    def tick(self, now: int) -> bool:
        if self._unfinished:
            self._carry_on(now)
        touched: dict[Subscription, None] = {}
        for item in self._clockwork.advance(now):
            if isinstance(item, Lease):
                subscription = item.consumer.subscription
                subscription.expire(item, now)
                tell_released(item.consumer)
            else:
                subscription = item.subscription
                subscription.due(item)
            touched[subscription] = None
        leaving = self._clockwork.leaving
        if leaving:
            subscription = leaving[0].subscription
            touched[subscription] = None
            if not subscription.release(leaving[0], now):
                leaving.popleft()
        self._go_on(touched | self._come_due(now), now)
        return self._clockwork.behind or self._delays.behind or bool(self._unfinished)

    def _go_on(self, touched: dict[Subscription, None], now: int) -> None:
        for subscription in touched:
            self._write_news(subscription, now)
            self._turns.mark(subscription)

    def _come_due(self, now: int) -> dict[Subscription, None]:
        """One step of what was published with a delay; who has something of it."""
        came = self._delays.advance(self._log.segments, now)
        return wake(came, self._catalogue.by_number, self._catalogue.backfilled) if came else {}

    def _write_news(self, subscription: Subscription, now: int, *, lazy: bool = True) -> None:
        """Put what was settled into the log, and collect what must be dead-lettered."""
        if subscription.news:
            self._begin(now)
            for settled in subscription.news:
                self._log.settle(subscription.number, settled.cause, settled.count, settled.ranges, lazy=lazy)
            subscription.news.clear()
        if subscription.tried:
            self._begin(now)
            for tried in subscription.tried:
                body = records.encode_attempts(tried.attempts, normalise(tried.ranges))
                self._log.control(Kind.ATTEMPTS, body, number=subscription.number, lazy=True)
                if tried.due_ms:
                    body = records.encode_backoff(tried.due_ms, normalise(tried.ranges))
                    self._log.control(Kind.BACKOFF, body, number=subscription.number, lazy=True)
            subscription.tried.clear()
        if subscription.doomed:
            for item in subscription.doomed:
                piece = item.slice
                self._steps.doomed(subscription.name, piece.positions, piece.attempts, item.cause, item.reason)
            self._doomed.add(subscription.doomed)
            subscription.doomed.clear()

    async def sweep(self, now: int) -> None:
        give_way = GiveWay()
        self._go_on(self._come_due(now), now)
        while self._delays.behind:  # or a time to live could be over before the delay in front of it is known to be
            await give_way()
            self._go_on(self._come_due(now), now)
        with self._held.all():
            await self._sweeping.sweep(now)

    async def merge(self, now: int) -> bool:
        return await self._merging.merge(now)

    async def scrub(self, size: int) -> int:
        return await self._scrubbing.scrub(size)

    async def merge_all(self, now: int, told: Callable[[MergeStatistics], None]) -> MergeStatistics:
        """Everything that is worth it, without pauses, `told` behind each merge; for a store that nobody uses."""
        await self.sweep(now)
        for _ in range(2):  # so that both checkpoints have their places behind all that is sealed
            await self._log.checkpoint()
        while await self._merging.merge(now, hurry=True):
            told(self._merging.statistics)
        return self._merging.statistics

    async def dead_letters(self) -> list[DeadLetter]:
        return await self._doomed.take()

    def bury(self, dead: DeadLetter, now: int) -> None:
        self._doomed.bury(dead)
        self._write_news(dead.handle.subscription, now)
        self._turns.mark(dead.handle.subscription)  # its key may go on

    # ----------------------------------------------------------------------------------------------- asking

    @property
    def kept(self) -> tuple[int, int]:
        return self._log.segments[0].base, self._log.durable_end

    async def read(self, position: int) -> bytes | None:
        if not self._holds(position):
            return None
        try:
            return await self._reader.one(position)
        except LostMessagesError:  # damaged, or merged away
            return None

    async def lookup(self, message_id: str) -> list[int]:
        with self._held.all():
            return await self._lookup.find(message_id)

    def standing(self, position: int) -> dict[str, bool] | None:
        return standing(self._catalogue, self._log.segments, position) if self._holds(position) else None

    def _holds(self, position: int) -> bool:
        segment = self._log.segment_of(position)
        return segment is not None and position < self._log.durable_end and segment.index.has(position)

    def statistics(self) -> EngineStatistics:
        log, merges = self._log, self._merging.statistics
        return EngineStatistics(
            positions_end=log.end,
            durable_end=log.durable_end,
            pending_bytes=log.pending_bytes,
            commits=log.statistics.commits,
            commit_seconds=log.statistics.commit_seconds,
            records=log.statistics.records,
            bytes=log.statistics.bytes,
            checkpoints=log.writer.statistics.checkpoints,
            segments=len(log.segments),
            segments_released=log.writer.statistics.segments_released,
            is_full=log.is_full,
            by_kernel=log.by_kernel,
            merges=merges.merges,
            merged_segments=merges.segments,
            merged_bytes=merges.moved_bytes,
            merge_freed_bytes=merges.freed_bytes,
            merge_failures=merges.failures,
            sealed_bytes=self._scrubbing.sealed_bytes,
            scrubbed_bytes=self._scrubbing.statistics.bytes,
            scrub_damaged=self._scrubbing.statistics.damaged,
            damaged_parts=log.statistics.damaged_parts,
            damaged_messages=self._deliveries.lost,
            mapped_bytes=log.shelf.served_bytes,
            bodies_bytes=log.recent.size,
            bodies_hits=log.recent.hits,
            bodies_misses=log.recent.misses,
            dedup_ids=len(self._dedup),
            inflight_records=dict(zip(TIERS, self._clockwork.records(), strict=True)),
            inflight_settled=dict(zip(TIERS, self._clockwork.settled, strict=True)),
        )

    def _begin(self, now: int) -> None:
        """Before anything is written: seal a full segment; refuse where the store has failed."""
        try:
            self._log.begin(now)
        except StoreError as error:
            raise GatewayError("store_failed", f"{error}; the gateway is going down") from None
