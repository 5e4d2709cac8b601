from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import attrs
import orjson
import pytest
import trio

from gateway.broker.choosing import Takers
from gateway.broker.lease import Consumer, Lease
from gateway.broker.slice import Slice
from gateway.broker.subscription import Subscription
from gateway.config import Flow
from gateway.edge.flow_control import Feed, FlowControl
from gateway.edge.ladder import Reason, State
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.model import Delivery
from gateway.node import Node
from tests.conftest import StartNode
from tests.edge.bystander import statistics, subscription, untouched
from tests.edge.raw import RawHttp, RawWebSocket, open_http, open_raw_websocket

SETTINGS = Flow(throttle_after_s=1, pause_after_s=10, close_after_s=60, in_flight_bytes_max=1_000_000)
LEASE_MS = 30_000


@attrs.define(eq=False)
class FakeClient:
    """A connection that notes what it is told to do."""

    heard_ms: int = 0
    stalled: float = 0.0
    said: list[tuple[int, str]] = attrs.field(factory=list)
    closed: list[GatewayError] = attrs.field(factory=list)

    def stalled_s(self, now: float) -> float:
        return self.stalled

    def say_window(self, subscription: str, size: int, reason: str) -> None:
        self.said.append((size, reason))

    def close_slow(self, error: GatewayError) -> None:
        self.closed.append(error)


@attrs.define(eq=False)
class FakeEngine:
    """Keeps to the windows, and notes who was recalled."""

    recalled: list[Consumer] = attrs.field(factory=list)

    def resize(self, consumer: Consumer, window: int, window_bytes: int) -> None:
        consumer.resize(window, window_bytes)

    def recall(self, consumer: Consumer, now: int) -> None:
        self.recalled.append(consumer)


class World:
    """Flow control, some consumers, and a clock that is turned by hand."""

    def __init__(self, settings: Flow = SETTINGS) -> None:
        self.now = 1_000_000
        self.engine = FakeEngine()
        self.control = FlowControl(cast("Engine", self.engine), settings, 1000, lambda: self.now)
        self.position = 0

    def feed(self, client: FakeClient, window: int = 1000) -> Feed:
        known = SimpleNamespace(name="orders", settings=SimpleNamespace(lease_ms=LEASE_MS), takers=Takers())
        feed = Feed(self.control, client)
        feed.begin(Consumer(cast("Subscription", known), window, 2**20, lambda _: None, "test"))
        return feed

    def deliver(self, feed: Feed, count: int = 1, **attempts: int) -> Lease:
        """A frame of so many messages, each of 100 bytes, that the socket takes at once."""
        lease = Lease(feed.consumer, Slice(range(self.position + 1, self.position + count + 1), self.position + 1))
        self.position += count
        feed.consumer.hold(lease)
        delivery = Delivery("orders", LEASE_MS)
        delivery.count, delivery.last, delivery.attempts = count, self.position, attempts
        feed.deliver(delivery, 100 * count)
        feed.handed(delivery, self.now)
        return lease

    def ack(self, feed: Feed, lease: Lease) -> None:
        feed.heard([(lease.slice.first, lease.slice.last)], self.now, settles=True)
        feed.consumer.drop(lease)
        feed.consumer.acked += len(lease.slice)

    def expire(self, feed: Feed, lease: Lease) -> None:
        feed.consumer.drop(lease)
        feed.consumer.expired += len(lease.slice)

    def look(self, times: int = 1) -> None:
        """A look every 100 ms."""
        for _ in range(times):
            self.now += 100
            self.control.look(list(self.control.active), self.now / 1000)


# ---------------------------------------------------------------------------------------------------- the ladder


def test_a_silent_client_goes_down_the_ladder_step_by_step() -> None:
    world, client = World(), FakeClient()
    feed = world.feed(client)
    world.expire(feed, world.deliver(feed, 1000))
    world.look()
    assert (feed.state, feed.consumer.window) == (State.THROTTLED, 8)
    assert client.said == [(8, "leases_expired")]
    world.look(98)
    assert (feed.state, client.closed, world.engine.recalled) == (State.THROTTLED, [], [])
    world.look(2)
    assert (feed.state, feed.consumer.window) == (State.PAUSED, 0)
    assert client.said[1:] == [(0, "leases_expired")]
    assert world.engine.recalled == [feed.consumer]
    world.look(499)
    assert client.closed == []
    world.look()
    [error] = client.closed
    assert (error.code, error.kind.close) == ("slow_consumer", 3008)
    assert "flow.close_after_s" in error.message
    world.look(100)
    assert (len(client.closed), len(client.said)) == (1, 2)
    assert world.control.statistics.steps == {"healthy": 0, "throttled": 1, "paused": 1, "closed": 1}


def test_a_word_leads_back_up_and_the_window_grows_again() -> None:
    world, client = World(), FakeClient()
    feed = world.feed(client)
    world.expire(feed, world.deliver(feed, 1000))
    world.look(150)
    assert feed.state is State.PAUSED
    feed.heard([(1, 1000)], world.now, settles=True)  # too late to count as an ack, and a sign of life
    world.look()
    assert (feed.state, feed.reason, feed.consumer.window) == (State.THROTTLED, Reason.RECOVERED, 8)
    for _ in range(80):
        lease = world.deliver(feed, feed.consumer.window)
        world.now += 5
        world.ack(feed, lease)
        world.look()
    assert (feed.state, feed.consumer.window) == (State.HEALTHY, 1000)
    assert client.said[-1] == (1000, "recovered")
    sizes = [size for size, _ in client.said]
    assert sizes[:3] == [8, 0, 8]
    assert sizes[2:] == sorted(sizes[2:])
    assert 3 < len(sizes) < 12  # not every look


def test_a_socket_that_takes_nothing_goes_down_the_ladder_too() -> None:
    world, client = World(), FakeClient()
    feed = world.feed(client)
    world.deliver(feed, 10)
    states = {}
    for stalled in range(100):
        client.stalled = float(stalled)
        world.look()
        states[stalled] = feed.state
    changes = [second for second in range(1, 100) if states[second] is not states[second - 1]]
    assert changes == [1, 10, 60]
    assert client.said == [(8, "unsent"), (0, "unsent")]
    assert "its socket took nothing for 60 s" in client.closed[0].message


def test_a_byte_that_the_socket_takes_leads_back_up() -> None:
    world, client = World(), FakeClient()
    feed = world.feed(client)
    world.deliver(feed, 10)
    client.stalled = 30.0
    world.look()
    assert feed.state is State.PAUSED
    client.stalled = 0.0
    world.look()
    assert (feed.state, feed.consumer.window) == (State.THROTTLED, 8)


def test_a_connection_that_settles_for_another_subscription_is_not_closed() -> None:
    world, client = World(), FakeClient()
    stuck, lively = world.feed(client), world.feed(client)
    world.expire(stuck, world.deliver(stuck, 1000))
    for _ in range(200):
        world.ack(lively, world.deliver(lively))
        world.look(5)
    assert (stuck.state, lively.state, client.closed) == (State.PAUSED, State.HEALTHY, [])
    world.look(605)
    assert (stuck.state, len(client.closed)) == (State.CLOSED, 1)


def test_one_forgotten_message_among_many_acks_is_no_fault() -> None:
    world, client = World(), FakeClient()
    feed = world.feed(client)
    for _ in range(100):
        world.expire(feed, world.deliver(feed))
        world.ack(feed, world.deliver(feed, 10))
        world.look()
    assert (feed.state, feed.consumer.window, client.said) == (State.HEALTHY, 1000, [])


def test_a_client_that_acks_late_but_steadily_is_healthy() -> None:
    world, client = World(), FakeClient()
    feed = world.feed(client)
    for _ in range(40):
        lease = world.deliver(feed, 200)
        world.look(50)
        world.ack(feed, lease)
        world.look()
    assert (feed.state, feed.consumer.window) == (State.HEALTHY, 1000)
    assert feed.latency_ms(world.now) == pytest.approx(5000, rel=0.05)


# --------------------------------------------------------------------------------------------------- measuring


def test_an_idle_consumer_is_not_looked_at() -> None:
    world = World()
    feeds = [world.feed(FakeClient()) for _ in range(10)]
    assert world.control.active == {}
    lease = world.deliver(feeds[3])
    assert list(world.control.active) == [feeds[3]]
    world.look()
    assert list(world.control.active) == [feeds[3]]
    world.ack(feeds[3], lease)
    world.look()
    assert world.control.active == {}


def test_one_delivery_at_a_time_is_timed() -> None:
    world = World()
    feed = world.feed(FakeClient())
    first = world.deliver(feed, 3)
    world.now += 7
    second = world.deliver(feed, 5)
    world.now += 13
    world.ack(feed, second)
    world.look()
    assert feed.window.latency_ms is None
    world.ack(feed, first)
    world.look()
    assert feed.window.latency_ms == 120  # a look has passed


def test_neither_an_extend_nor_an_ack_of_others_ends_the_measurement() -> None:
    world = World()
    feed = world.feed(FakeClient())
    lease = world.deliver(feed, 3)
    world.now += 10
    feed.heard([(1, 3)], world.now, settles=False)
    feed.heard([(1, 2)], world.now, settles=True)
    feed.heard([], world.now, settles=True)
    world.now += 10
    world.ack(feed, lease)
    assert feed.sample == (20, 3)


def test_what_is_delivered_again_is_not_timed() -> None:
    world = World()
    feed = world.feed(FakeClient())
    world.ack(feed, world.deliver(feed, 3, **{"1": 2}))
    assert feed.sample is None


def test_the_latency_of_a_client_that_does_not_ack_is_how_long_it_has_taken_so_far() -> None:
    world = World()
    feed = world.feed(FakeClient())
    assert feed.latency_ms(world.now) is None
    world.deliver(feed)
    world.look(20)
    assert feed.latency_ms(world.now) == 2000


def test_a_measurement_whose_lease_ran_out_makes_room_for_another() -> None:
    world = World()
    feed = world.feed(FakeClient())
    world.expire(feed, world.deliver(feed))
    for _ in range(LEASE_MS // 100 + 1):
        world.ack(feed, world.deliver(feed))
        world.look()
    world.look()
    world.ack(feed, world.deliver(feed))
    assert feed.sample == (0, 1)


def test_the_bytes_of_a_window_shrink_with_it() -> None:
    world = World()
    feed = world.feed(FakeClient())
    assert feed.consumer.window_bytes == 1_000_000
    world.expire(feed, world.deliver(feed, 500))
    world.look()
    assert (feed.consumer.window, feed.consumer.window_bytes) == (500, 500_000)
    world.expire(feed, world.deliver(feed, 500))
    world.look()
    assert feed.consumer.window_bytes == 8000


def test_bytes_in_flight_take_credit() -> None:
    world = World(attrs.evolve(SETTINGS, in_flight_bytes_max=4096))
    feed = world.feed(FakeClient())
    assert feed.consumer.credit == 1000
    leases = [world.deliver(feed, 10) for _ in range(5)]
    assert (feed.consumer.in_flight_bytes, feed.consumer.credit) == (5000, 0)
    assert feed.consumer not in feed.consumer.subscription.takers
    world.ack(feed, leases[0])
    world.ack(feed, leases[3])
    assert (feed.consumer.in_flight_bytes, feed.consumer.credit) == (3000, 970)
    assert feed.consumer in feed.consumer.subscription.takers
    for lease in (leases[1], leases[2], leases[4]):
        world.ack(feed, lease)
    assert feed.consumer.in_flight_bytes == 0


# ------------------------------------------------------------------------------------------------- a real gateway

STEPS: dict[str, Any] = {"flow.throttle_after_s": 0.1, "flow.pause_after_s": 0.4, "flow.close_after_s": 1.2}
SUBSCRIBE = {"op": "subscribe", "id": "s", "subscription": "orders"}


@asynccontextmanager
async def consumer(node: Node, **more: object) -> AsyncIterator[RawWebSocket]:
    async with open_raw_websocket(node.address) as client:
        await client.send(SUBSCRIBE | more)
        assert (await client.receive())["op"] == "ok"
        yield client


async def publish(http: RawHttp, count: int, size: int = 10) -> None:
    answer = await http.post("/v1/messages", orjson.dumps([{"topic": "trade.a", "data": "x" * size}] * count))
    assert answer.status == 200


async def receive_and_ack(client: RawWebSocket, total: int) -> None:
    """Until so many different messages have come."""
    seen: set[int] = set()
    while len(seen) < total:
        frame = await client.receive()
        if frame["op"] == "messages":
            places = [message["position"] for message in frame["messages"]]
            seen.update(places)
            await client.send({"op": "ack", "subscription": "orders", "ranges": [[places[0], places[-1]]]})


async def until_state(node: Node, state: str) -> Any:
    """The view of the one connection that is `state`, once there is one."""
    with trio.fail_after(10):
        while True:
            for connection in node.connections:
                if (view := connection.view()).state == state:
                    return view
            await trio.sleep(0.005)


async def test_a_client_that_never_reads_loses_its_messages_to_others_and_then_its_connection(
    start_node: StartNode,
) -> None:
    node = await start_node(STEPS)
    await subscription(node)
    total = 400
    async with untouched(node, stored=total), consumer(node) as stuck:
        async with open_http(node.address) as http:
            for _ in range(total // 40):
                await publish(http, 40, size=65536)
        view = await until_state(node, "paused")
        assert (view.reason, view.window) == ("unsent", 0)
        assert view.unsent_bytes > 0
        held = statistics(node).in_flight  # what the kernel has taken; its leases run
        async with consumer(node, window=1_000_000) as other:
            with trio.fail_after(10):
                await receive_and_ack(other, total - held)
            with trio.fail_after(10):
                while 3008 not in node.connections.closes:
                    await trio.sleep(0.01)
            await receive_and_ack(other, held)
        await stuck.end()
    assert node.flow_control.statistics.steps == {"healthy": 0, "throttled": 1, "paused": 1, "closed": 1}


async def test_a_client_that_never_acks_is_told_each_step_and_its_messages_go_to_others(start_node: StartNode) -> None:
    node = await start_node(STEPS)
    await subscription(node, lease_ms=200)
    async with untouched(node, stored=600), consumer(node) as silent:
        async with open_http(node.address) as http:
            await publish(http, 600)
        said: list[tuple[str, Any]] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with trio.fail_after(10):
                    while not said or said[-1][0] != "error":
                        frame = await silent.receive()
                        if frame["op"] != "messages":
                            said.append((frame["op"], frame.get("size", frame.get("code"))))
                    assert await silent.close_code() == 3008

            nursery.start_soon(read)
            await until_state(node, "paused")
            async with consumer(node) as other:
                await receive_and_ack(other, 600)
        assert said[0] == ("window", 400)  # 600 leases ran out
        assert said[-2:] == [("window", 0), ("error", "slow_consumer")]
    assert statistics(node).acked == 600


async def test_a_client_that_reads_again_is_resumed(start_node: StartNode) -> None:
    node = await start_node(STEPS | {"flow.close_after_s": 30})
    await subscription(node)
    total = 400
    async with consumer(node) as slow:
        async with open_http(node.address) as http:
            for _ in range(total // 40):
                await publish(http, 40, size=65536)
        await until_state(node, "paused")
        with trio.fail_after(20):
            await receive_and_ack(slow, total)
        assert max(node.connections.closes, default=0) == 0


async def test_the_kernel_takes_little_of_a_client_that_does_not_read(node: Node) -> None:
    """Else it would take megabytes of each, which nobody counts, and the leases of all of that would run."""
    await subscription(node)
    async with consumer(node):
        async with open_http(node.address) as http:
            for _ in range(5):
                await publish(http, 40, size=65536)
        [connection] = node.connections
        with trio.fail_after(10):
            while not (view := connection.view()).unsent_bytes:
                await trio.sleep(0.005)
        assert view.in_flight * 65536 < 1_500_000


async def test_stalled_consumers_delay_no_producer(node: Node) -> None:
    await subscription(node)

    async def slowest(http: RawHttp) -> float:
        """Of so many publishes, but for the few that another process held up."""
        taken = []
        for _ in range(100):
            began = trio.current_time()
            await publish(http, 10, size=8192)
            taken.append(trio.current_time() - began)
        return sorted(taken)[90]

    async with open_http(node.address) as http:
        alone = await slowest(http)
        async with consumer(node), consumer(node), consumer(node), consumer(node):
            await slowest(http)
            assert sum(connection.view().unsent_bytes > 0 for connection in node.connections) >= 2
            stalled = await slowest(http)
    assert stalled < 3 * alone + 0.02


async def test_bytes_in_flight_are_bounded(start_node: StartNode) -> None:
    node = await start_node({"flow.in_flight_bytes_max": 300_000, "deliver.frame_bytes_max": 100_000})
    await subscription(node)
    async with consumer(node) as client:
        async with open_http(node.address) as http:
            await publish(http, 100, size=10_000)
        received = 0
        with trio.move_on_after(0.3) as patience:
            while True:
                received += len((await client.receive())["messages"])
                patience.deadline = trio.current_time() + 0.3
        assert 25 <= received <= 30
        assert statistics(node).in_flight == received
        await client.send({"op": "ack", "subscription": "orders", "ranges": [[1, 10]]})
        assert len((await client.receive())["messages"]) == pytest.approx(10, abs=2)


async def test_a_message_larger_than_all_bytes_that_may_be_in_flight_goes_alone(start_node: StartNode) -> None:
    node = await start_node({"flow.in_flight_bytes_max": 10_000})
    await subscription(node)
    async with consumer(node) as client:
        async with open_http(node.address) as http:
            await publish(http, 3, size=200_000)
        for position in (1, 2, 3):
            assert [m["position"] for m in (await client.receive())["messages"]] == [position]
            await client.send({"op": "ack", "subscription": "orders", "ranges": [[position, position]]})


async def test_the_latency_of_acks_is_shown(node: Node) -> None:
    await subscription(node)
    async with consumer(node) as client, open_http(node.address) as http:
        await publish(http, 5)
        await client.receive()
        await trio.sleep(0.05)
        await client.send({"op": "ack", "subscription": "orders", "ranges": [[1, 5]]})
        [connection] = node.connections
        with trio.fail_after(5):
            while (shown := connection.view().ack_latency_ms) is None or connection.view().in_flight:
                await trio.sleep(0.005)
        assert 50 <= shown < 2000
