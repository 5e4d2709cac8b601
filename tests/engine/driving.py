"""An engine without the flow: its stages as plain calls, its clock a number, its consumers a list of what they got."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import orjson
import trio

from gateway.broker.lease import Consumer
from gateway.config import Config, Deliver, Filter, Limits, Store
from gateway.engine.base import DeadLetter
from gateway.engine.embedded import EmbeddedEngine
from gateway.errors import GatewayError, StoreError
from gateway.model import (
    Batch,
    Delivery,
    Durability,
    Message,
    Settle,
    Settlement,
    Stored,
    SubscriptionSettings,
    SubscriptionStatistics,
    Verb,
)
from gateway.store.files import Files
from gateway.wire.payload import split_bodies
from tests import conservation

BEGAN_MS = 1_795_326_701_000
TICK_MS = 100
SECTIONS = {"limits": Limits, "deliver": Deliver, "filter": Filter}


def config(directory: Path, **settings: Any) -> Config:
    """Settings of the store by their names, of others as `limits_...` and `deliver_...`. Bounds are not asked."""
    sections: dict[str, dict[str, Any]] = {"store": {"directory": str(directory)}, **{name: {} for name in SECTIONS}}
    for name, value in settings.items():
        section, _, key = name.partition("_")
        if section in SECTIONS:
            sections[section][key] = value
        else:
            sections["store"][name] = value
    return Config(
        store=Store(**sections["store"]),
        limits=Limits(**sections["limits"]),
        deliver=Deliver(**sections["deliver"]),
        filter=Filter(**sections["filter"]),
    )


def message(topic: str = "trade.paid", data: Any = None, **more: Any) -> Message:
    return Message(topic, data=msgspec.Raw(orjson.dumps(data)), **more)


def bodies_of(delivery: Delivery) -> list[bytes]:
    """The delivery JSON of each message; a delivery holds them joined."""
    return split_bodies(delivery.bodies)


class Client:
    """Somebody attached to a subscription. `received` are positions in the order they came, `bodies` what they were."""

    def __init__(self) -> None:
        self.consumer: Consumer
        self.deliveries: list[Delivery] = []
        self.deleted = False

    @property
    def received(self) -> list[int]:
        return [orjson.loads(body)["position"] for body in self.bodies]

    @property
    def bodies(self) -> list[bytes]:
        return [body for delivery in self.deliveries for body in bodies_of(delivery)]

    @property
    def data(self) -> list[Any]:
        return [orjson.loads(body)["data"] for body in self.bodies]

    def forget(self) -> None:
        self.deliveries.clear()

    def on_deleted(self) -> None:
        self.deleted = True


class Driven:
    """An open engine; `nursery` runs its flusher, and its `committed` as the notify stage does."""

    def __init__(self, directory: Path, files: Files | None, now: int, settings: dict[str, Any]) -> None:
        self.now = now
        self.engine = EmbeddedEngine(config(directory, **settings), lambda: self.now, files)
        self.commits = 0

    async def notify(self) -> None:
        def told(entries: list[Batch | Settlement]) -> None:
            for entry in entries:
                if entry.done is not None:
                    entry.done(entry)  # type: ignore[arg-type]  # each takes its own kind

        await self.engine.tell_commits(told)

    # ---------------------------------------------------------------------------------------------- publishing

    async def publish(self, *messages: Message, durability: Durability = Durability.FSYNCED) -> Batch:
        """One call from its routing to its answer."""
        done = trio.Event()
        batch = self.batch(*messages, durability=durability, done=done)
        self.engine.route(batch)
        while not self.engine.is_routed(batch):
            await self.engine.ask_filters(batch)
        self.engine.append([batch], self.now)
        await self.wait(done)
        return batch

    def batch(
        self, *messages: Message, durability: Durability = Durability.FSYNCED, done: trio.Event | None = None
    ) -> Batch:
        told = trio.Event() if done is None else done
        batch = Batch(list(messages), durability, 0, lambda _batch: told.set())
        batch.topics = {each.topic for each in messages}
        batch.plain = all(
            each.id is None
            and not (each.delay_ms or each.ttl_ms or each.key or each.attributes)
            and each.data is not msgspec.UNSET
            for each in messages
        )
        return batch

    async def publish_many(self, count: int, topic: str = "trade.paid", size: int = 0) -> list[int]:
        """So many messages, told apart by their data; their positions."""
        batch = await self.publish(*(message(topic, f"{topic} {number}" + "." * size) for number in range(count)))
        assert batch.error is None
        return list(range(batch.first, batch.first + count))

    @staticmethod
    async def wait(done: trio.Event) -> None:
        with trio.fail_after(10):
            await done.wait()

    # ------------------------------------------------------------------------------------------- subscriptions

    async def subscribe(self, name: str = "orders", *topics: str, **settings: Any) -> None:
        with trio.fail_after(10):
            await self.engine.put_subscription(
                name, SubscriptionSettings(topics=topics or ("trade.>",), **settings), self.now
            )

    async def delete(self, name: str = "orders") -> None:
        with trio.fail_after(10):
            await self.engine.delete_subscription(name)

    def statistics(self, name: str = "orders") -> SubscriptionStatistics:
        """Promise 6 holds whenever anybody looks."""
        shown = self.engine.subscription(name, self.now).statistics
        conservation.check_shown(attrs.asdict(shown))
        return shown

    def attach(self, name: str = "orders", window: int | None = None, **more: Any) -> Client:
        client = Client()
        client.consumer = self.engine.attach(
            name, window=window, send=client.deliveries.append, label="test", on_deleted=client.on_deleted, **more
        )
        return client

    # ------------------------------------------------------------------------------------------------- pushing

    async def deliver(self, frames_max: int = 1000) -> None:
        """Hand over what is due, frame after frame, as the deliver stage does."""
        for _ in range(frames_max):
            taken = self.engine.take(self.now)
            if taken is None:
                if not self.engine._turns:
                    return
                continue  # it has looked at much and found little
            consumer, delivery = taken
            if not self.engine.is_loaded(delivery):
                await self.engine.load(delivery)
            self.engine.send(consumer, delivery, self.now)
            self.engine.handed(delivery, self.now)

    async def settle(self, client: Client, verb: Verb, *ranges: tuple[int, int], **more: Any) -> Settlement:
        """One call, answered once it is durable."""
        done = trio.Event()
        settlement = Settlement(client.consumer, [Settle(verb, ranges, **more)], lambda _settlement: done.set())
        if not self.engine.settle(settlement, self.now):
            while self.engine.tick(self.now):
                await trio.lowlevel.checkpoint()
        await self.wait(done)
        return settlement

    async def ack(self, client: Client, *ranges: tuple[int, int]) -> int:
        """The number of messages that the answer names; everything without ranges."""
        settlement = await self.settle(client, Verb.ACK, *(ranges or [(0, 2**53 - 1)]))
        return settlement.counts[Verb.ACK]

    async def consume(self, name: str = "orders", window: int = 1000) -> list[int]:
        """Everything that is due now, acked; the positions."""
        client = self.attach(name, window)
        found: list[int] = []
        while True:
            await self.deliver()
            if not client.deliveries:
                break
            found += client.received
            assert await self.ack(client) == len(client.received)
            client.forget()
        self.engine.detach(client.consumer, self.now)
        return found

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        while self.engine.tick(self.now):
            pass

    async def dead_letters(self) -> list[DeadLetter]:
        """What is to be published to dead-letter topics; buried as if it had been."""
        letters = await self.engine.dead_letters()
        for letter in letters:
            self.engine.bury(letter, self.now)
        return letters

    # ---------------------------------------------------------------------------------------------- segments

    async def seal(self) -> None:
        """Have the active segment sealed, and what is settled deleted: a few large messages that go to nobody."""
        log = self.engine._log
        number = log.active.number
        while log.active.number < number + 2:  # what one checkpoint lets go is deleted behind the next
            await self.publish_many(1, "nobody", log.settings.segment_bytes)
            await self.publish_many(1, "nobody")


@asynccontextmanager
async def driven(
    directory: Path,
    files: Files | None = None,
    *,
    now: int = BEGAN_MS,
    crash: bool = False,
    conserved: bool = True,
    **settings: Any,
) -> AsyncIterator[Driven]:
    """Open the store in `directory`, run it, and close it; with `crash`, as kill -9 would: nothing is flushed.

    Behind the body each message of each subscription must be in one hand (promise 6); but for a store that may be
    damaged, of which what cannot be read is owed still and stands in no index.
    """
    driven = Driven(directory, files, now, settings)
    await driven.engine.open()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driven.engine.run)
            nursery.start_soon(driven.notify)
            yield driven
            if conserved:
                conservation.check_engine(driven.engine)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            if crash:
                await trio.to_thread.run_sync(driven.engine._log.close)
            else:
                await driven.engine.aclose()


def answer_of(batch: Batch, index: int = 0) -> Stored | GatewayError:
    """What the producer is told of one message."""
    if batch.results is None:
        return Stored(batch.messages[index].id or "", batch.first + index)
    result = batch.results[index]
    assert result is not None
    return result


__all__ = ["BEGAN_MS", "TICK_MS", "Client", "Driven", "StoreError", "answer_of", "config", "driven", "message"]
