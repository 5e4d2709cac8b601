"""Those who do nothing wrong while a test does: their connections stay, and their messages come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs

from gateway.model import SubscriptionSettings, SubscriptionStatistics
from gateway.node import Node
from tests.edge.raw import RawHttp, RawWebSocket, open_http, open_raw_websocket

TOPIC = "bystander.event"


async def subscription(node: Node, name: str = "orders", *topics: str, **settings: Any) -> None:
    """Create a subscription of `topics` (trade.> where none is named)."""
    wanted = SubscriptionSettings(topics=topics or ("trade.>",), **settings)
    await node.engine.put_subscription(name, wanted, node.clock())


def statistics(node: Node, name: str = "orders") -> SubscriptionStatistics:
    """Of a subscription, held to promise 6."""
    found = node.engine.subscription(name, node.clock()).statistics
    hands = attrs.asdict(found)
    for key in ("oldest_ms", "consumers"):
        del hands[key]
    assert min(hands.values()) >= 0
    assert hands.pop("routed") == sum(hands.values())
    return found


def positions(node: Node) -> int:
    """Positions given so far; control records take none."""
    return node.engine.statistics().positions_end


@attrs.frozen
class Bystander:
    """A consumer over WebSocket and a producer over one kept connection."""

    node: Node
    consumer: RawWebSocket
    producer: RawHttp

    async def publish_and_receive(self) -> None:
        """One message through everything, over connections that were there before."""
        answer = await self.producer.post(f"/v1/topics/{TOPIC}/messages", b'"still here"')
        assert answer.status == 201
        position = answer.json["position"]
        frame = await self.consumer.receive()
        assert [(m["position"], m["data"]) for m in frame["messages"]] == [(position, "still here")]
        await self.consumer.send(
            {"op": "ack", "id": position, "subscription": "bystander", "ranges": [[position, position]]}
        )
        assert await self.consumer.receive() == {"op": "ok", "id": position, "acked": 1, "unknown": 0}


@asynccontextmanager
async def bystander(node: Node) -> AsyncIterator[Bystander]:
    await subscription(node, "bystander", TOPIC)
    async with open_raw_websocket(node.address) as consumer, open_http(node.address) as producer:
        await consumer.send({"op": "subscribe", "id": 0, "subscription": "bystander"})
        assert (await consumer.receive())["op"] == "ok"
        yield Bystander(node, consumer, producer)


@asynccontextmanager
async def untouched(node: Node, *, stored: int = 0) -> AsyncIterator[None]:
    """Around a fault: others go on over the connections they had, and exactly `stored` messages came in by it."""
    async with bystander(node) as other:
        await other.publish_and_receive()
        before = positions(node)
        yield
        assert positions(node) == before + stored
        await other.publish_and_receive()
        assert statistics(node, "bystander").acked == 2
        assert node.settle.unknown == 0
