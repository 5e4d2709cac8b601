"""Whose turn it is, and what a turn hands over: deliveries with their bodies, in memory or still on the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import structlog
import trio

from gateway.broker.lease import Consumer, Lease
from gateway.broker.subscription import Subscription
from gateway.engine.holds import Holds
from gateway.engine.reader import LostMessagesError, Reader
from gateway.model import Delivery, Format
from gateway.wire.cloudevents import encode_event
from gateway.wire.payload import split_bodies

_log = structlog.get_logger("gateway.engine")


class Turns:
    """Subscriptions that may have something for somebody, each once, in the order they came.

    `limit` says below which position messages are durable.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._ready: dict[Subscription, None] = {}
        self._marked = trio.Event()

    def __bool__(self) -> bool:
        """Whether anybody waits for a turn."""
        return bool(self._ready)

    def mark(self, subscription: Subscription) -> None:
        """Give `subscription` a turn, where it can use one."""
        if subscription.takers and not subscription.held_up and subscription.has_more(self._limit()):
            self._ready[subscription] = None
            self._marked.set()

    def bring(self, subscription: Subscription) -> None:
        """The same where something new has become durable for it; `wake` is called behind all of them."""
        if subscription.takers:  # whether it is held up is asked when its turn comes
            self._ready[subscription] = None

    def wake(self) -> None:
        """Wake who waits, where somebody has a turn."""
        if self._ready:
            self._marked.set()

    def drop(self, subscription: Subscription) -> None:
        self._ready.pop(subscription, None)

    def take(self) -> Subscription | None:
        """The next one; None where nobody waits for a turn."""
        while self._ready:
            subscription = next(iter(self._ready))
            del self._ready[subscription]
            if not subscription.held_up:
                return subscription
        return None

    async def wait(self) -> None:
        """Until `take` may have something; others run meanwhile."""
        if self._ready:
            await trio.lowlevel.checkpoint()
        else:
            self._marked = trio.Event()
            await self._marked.wait()


class Deliveries:
    """Makes deliveries of leases. Where a body is not in memory, the subscription waits until it has been read."""

    def __init__(self, reader: Reader, turns: Turns, holds: Holds) -> None:
        self._reader = reader
        self._holds = holds
        self._turns = turns
        self._loading: dict[Delivery, Subscription] = {}
        self.lost = 0
        """Messages that could not be read, each time they were to be."""

    def make(self, subscription: Subscription, leases: list[Lease]) -> Delivery:
        delivery = Delivery(subscription.name, subscription.settings.lease_ms)
        if len(leases) > 1:
            leases.sort(key=lambda lease: lease.first)
        delivery.leases = list(leases)
        delivery.last = leases[-1].slice.positions[-1]
        for lease in leases:
            piece = lease.slice
            delivery.count += len(piece.positions)
            if piece.attempts:
                delivery.attempts.update(dict.fromkeys(map(str, piece.positions), piece.attempts + 1))
        for lease in leases:
            bodies = self._reader.cached(lease.slice.positions)
            if bodies is None:
                delivery.bodies.clear()
                self._loading[delivery] = subscription
                self._holds.take(delivery, [(lease.first, lease.slice.last) for lease in leases])
                subscription.loading = True
                self._turns.drop(subscription)
                break
            delivery.bodies += bodies
        _write_as_asked(delivery, subscription)
        return delivery

    def make_one(self, subscription: Subscription, lease: Lease) -> Delivery:
        """The same for one lease of one message that was never delivered."""
        bodies = self._reader.cached(lease.slice.positions)
        if bodies is None or subscription.settings.format is not Format.NATIVE:
            return self.make(subscription, [lease])
        delivery = Delivery(subscription.name, subscription.settings.lease_ms)
        delivery.leases.append(lease)
        delivery.bodies += bodies
        delivery.count = 1
        delivery.last = lease.slice.positions[0]
        return delivery

    def _set_aside(self, subscription: Subscription, delivery: Delivery, lost: set[int]) -> None:
        """Nothing of `delivery` is sent: what cannot be read stays with the subscription, the rest is due again."""
        for lease in cast("list[Lease]", delivery.leases):
            if lease.held:
                subscription.set_aside(lease, lost)
                if lease.consumer.once:
                    lease.consumer.blocked = False
                    lease.consumer.update()
        delivery.leases, delivery.bodies, delivery.count = [], [], 0

    def recall(self, subscription: Subscription) -> list[Consumer]:
        """Have nothing sent that is being read for `subscription`; those of its consumers that go on waiting."""
        waiting: list[Consumer] = []
        for delivery, owner in self._loading.items():
            if owner is subscription and delivery.leases:
                consumer = cast("Lease", delivery.leases[0]).consumer
                delivery.leases.clear()
                if consumer.once:
                    waiting.append(consumer)
        return waiting

    def is_loaded(self, delivery: Delivery) -> bool:
        return delivery not in self._loading

    async def load(self, delivery: Delivery) -> None:
        """Read the bodies from the disk; then it is the subscription's turn again."""
        subscription = self._loading[delivery]
        slices = [cast("Lease", lease).slice.positions for lease in delivery.leases]
        try:
            delivery.bodies = await self._reader.read(slices)
            _write_as_asked(delivery, subscription)
        except LostMessagesError as lost:
            _log.error("messages cannot be read; they are set aside", subscription=subscription.name, error=str(lost))
            self.lost += len(lost.positions)
            self._set_aside(subscription, delivery, set(lost.positions))
        finally:
            del self._loading[delivery]
            self._holds.give_back(delivery)
            subscription.loading = False
            self._turns.mark(subscription)


def tell_released(consumer: Consumer) -> None:
    """Say so to whoever keeps a consumer only for what it holds."""
    if not consumer.in_flight and consumer.on_released is not None:
        consumer.on_released(consumer)


def _write_as_asked(delivery: Delivery, subscription: Subscription) -> None:
    """A subscription may want CloudEvents; 3 us a message, for those that do."""
    if subscription.settings.format is Format.CLOUDEVENTS:
        delivery.bodies = [encode_event(body) for body in split_bodies(delivery.bodies)]
