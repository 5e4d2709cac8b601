"""Whatever happens in whatever order: each message is in one hand (promise 6), and in the end none is missing.

Keys, delays, times to live, nacks, dead letters, seeks, redrives, sweeps, merges, kill -9: drawn by a seed, on a whole
engine.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gateway.model import SeekTo, Verb
from tests.engine.driving import BEGAN_MS, Client, Driven, driven, message

STEPS = 60
LIVES = 4
SETTINGS: dict[str, Any] = {"lease_ms": 2000, "backoff_ms": (300, 2000), "attempts_max": 3, "retention_s": 600}


@attrs.define
class Story:
    """What is known of all messages over the lives of one store."""

    draw: random.Random
    ordered: bool
    keys: dict[int, str] = attrs.field(factory=dict)
    clients: list[Client] = attrs.field(factory=list)
    acked: set[int] = attrs.field(factory=set)
    """Acked and answered, and not sought back to since."""
    now: int = BEGAN_MS

    async def live(self, gateway: Driven) -> None:
        self.clients = [gateway.attach(window=self.draw.choice((1, 5, 30))) for _ in range(2)]
        for _ in range(STEPS):
            what = self.draw.choice(("publish", "publish", "deliver", "settle", "settle", "wait", "rare"))
            await getattr(self, what)(gateway, self.draw.choice(self.clients))
            gateway.statistics()
            self.check_keys(gateway)
        self.now = gateway.now

    async def publish(self, gateway: Driven, _client: Client) -> None:
        for _ in range(self.draw.randint(1, 8)):
            key = self.draw.choice(("", "", "a", "b", "c"))
            delay_ms, ttl_ms = self.draw.choice(((0, 0), (0, 0), (0, 0), (1500, 0), (0, 900), (500, 500)))
            topic = self.draw.choice(("trade.paid", "trade.paid", "other"))
            batch = await gateway.publish(message(topic, key=key or None, delay_ms=delay_ms, ttl_ms=ttl_ms))
            if topic == "trade.paid":
                self.keys[batch.first] = key

    async def deliver(self, gateway: Driven, _client: Client | None = None) -> None:
        before = [len(client.received) for client in self.clients]
        await gateway.deliver(self.draw.randint(1, 20))
        for client, number in zip(self.clients, before, strict=True):
            assert not self.acked.intersection(client.received[number:]), "settled is final"

    def check_keys(self, gateway: Driven) -> None:
        """Of each key one message is leased at a time."""
        subscription = gateway.engine._catalogue.known("orders")
        leases = [lease for consumer in subscription.consumers for lease in consumer.leases]
        held = [self.keys[position] for lease in leases for position in lease.slice.positions]
        held = [key for key in held if key]
        assert not self.ordered or len(held) == len(set(held))

    async def settle(self, gateway: Driven, client: Client) -> None:
        await self.deliver(gateway)
        got = client.received
        client.forget()
        for position in got:
            verb = self.draw.choice((Verb.ACK, Verb.ACK, Verb.ACK, Verb.NACK, Verb.TERM, None))
            if verb is not None:
                done = await gateway.settle(client, verb, (position, position))
                if verb is Verb.ACK and done.counts[Verb.ACK]:
                    self.acked.add(position)

    async def wait(self, gateway: Driven, _client: Client) -> None:
        gateway.pass_time(self.draw.choice((100, 400, 2500)))
        while gateway.engine.tick(gateway.now):
            pass
        await gateway.dead_letters()

    async def rare(self, gateway: Driven, _client: Client) -> None:
        match self.draw.choice(("sweep", "sweep", "redrive", "seek", "seal", "order", "merge")):
            case "sweep":
                await gateway.engine.sweep(gateway.now)
            case "redrive":
                await gateway.dead_letters()
                await gateway.engine.redrive("orders", gateway.now)
            case "seek":
                position = self.draw.randint(0, max(self.keys, default=1) + 1)
                await gateway.engine.seek("orders", SeekTo(position=position), gateway.now)
                self.acked = {p for p in self.acked if p < position}
            case "seal":
                await gateway.seal()
            case "merge":
                await gateway.seal()
                while await gateway.engine.merge(gateway.now):
                    pass
            case "order" if self.draw.random() < 0.2:
                self.ordered = not self.ordered
                await gateway.subscribe(ordered=self.ordered, **SETTINGS)


@pytest.mark.parametrize("seed", [*range(6), 20, 25])
async def test_nothing_is_lost_or_counted_twice_whatever_happens(tmp_path: Path, seed: int) -> None:
    story = Story(random.Random(seed), ordered=bool(seed % 2))
    with trio.fail_after(120):
        for life in range(LIVES):
            async with driven(
                tmp_path, now=story.now, crash=bool(life % 2), segment_bytes=3000, cache_bytes=2000
            ) as gateway:
                if not life:
                    await gateway.subscribe(ordered=story.ordered, **SETTINGS)
                await story.live(gateway)
        async with driven(tmp_path, now=story.now) as gateway:
            await drain(gateway, story)


async def drain(gateway: Driven, story: Story) -> None:
    """Take and ack everything there is: then all is settled."""
    client = gateway.attach(window=1000)
    for _ in range(200):
        await gateway.deliver()
        assert not story.acked.intersection(client.received)
        story.acked.update(client.received)
        await gateway.ack(client)
        client.forget()
        gateway.pass_time(500)
        await gateway.dead_letters()
        await gateway.engine.sweep(gateway.now)
        shown = gateway.statistics()
        if shown.waiting == shown.delayed == shown.in_flight == 0:
            break
    await gateway.deliver()
    shown = gateway.statistics()
    assert (shown.waiting, shown.delayed, shown.in_flight) == (0, 0, 0)
    subscription = gateway.engine._catalogue.known("orders")
    assert all(position in subscription.settled for position in story.keys)
    assert shown.routed >= len(story.keys)
    assert subscription.keys == 0
