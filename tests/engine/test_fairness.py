"""Who is served when: between subscriptions, between consumers, and in spite of those who never settle."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from gateway.broker.clockwork import Clockwork
from gateway.broker.lease import Consumer
from gateway.broker.subscription import Subscription
from gateway.model import Settle, SubscriptionSettings, Verb
from tests.engine.driving import BEGAN_MS, TICK_MS, Client, Driven, driven
from tests.store.building import in_memory, note

LEASE_MS = 1000


def served(gateway: Driven, frames: int) -> list[str]:
    """Hand over at most so many frames; the subscriptions they were of."""
    names = []
    for _ in range(frames):
        taken = gateway.engine.take(gateway.now)
        if taken is None:
            break
        consumer, delivery = taken
        gateway.engine.send(consumer, delivery, gateway.now)
        gateway.engine.handed(delivery, gateway.now)
        names.append(delivery.subscription)
    return names


async def test_a_large_backlog_delays_another_subscription_by_one_frame(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("large", "large", window_max=100_000)
        await gateway.subscribe("small", "small")
        gateway.attach("large")
        gateway.attach("small")
        for _ in range(5):
            await gateway.publish_many(1000, "large")
        assert served(gateway, 2) == ["large", "large"]
        await gateway.publish_many(1, "small")
        assert "small" in served(gateway, 2)
        assert gateway.statistics("small").in_flight == 1


async def test_subscriptions_with_a_backlog_take_turns(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        for name in ("a", "b", "c"):
            await gateway.subscribe(name, ">", window_max=100_000)
            gateway.attach(name)
        for _ in range(4):
            await gateway.publish_many(1000)
        names = served(gateway, 12)
        assert {name: names.count(name) for name in "abc"} == {"a": 4, "b": 4, "c": 4}


async def test_a_new_consumer_is_served_without_a_tick(tmp_path: Path) -> None:
    """The others are full, or nearly; it is given the next frame, and no clock has to come round."""
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(window_max=100)
        busy = [gateway.attach() for _ in range(3)]
        await gateway.publish_many(600)
        await gateway.deliver()
        assert [len(client.received) for client in busy] == [100] * 3
        new = gateway.attach()
        await gateway.deliver()
        assert new.received == list(range(301, 401))


async def test_a_consumer_that_never_settles_does_not_stall_its_subscription(tmp_path: Path) -> None:
    """Its leases end, its places in its window are free again, and what it held goes to the others."""
    async with driven(tmp_path, limits_dedup_window_s=0) as gateway:
        await gateway.subscribe(lease_ms=LEASE_MS, window_max=10, attempts_max=1000)
        never, works = gateway.attach(), gateway.attach()
        await gateway.publish_many(200)
        rounds = 0
        while gateway.statistics().acked < 200:
            rounds += 1
            assert rounds < 200, gateway.statistics()
            for _ in range(10):
                await gateway.deliver()
                await gateway.ack(works)
                works.forget()
                assert never.consumer.in_flight <= 10
            gateway.pass_time(LEASE_MS + TICK_MS)
        assert never.consumer.in_flight == 0
        assert len(never.received) > 10, "it was given more once its leases had ended"


async def test_a_consumer_whose_socket_stalls_forever_holds_nothing_forever(tmp_path: Path) -> None:
    """Its frame is never handed over, so its lease never starts; but it is taken back all the same."""
    async with driven(tmp_path, deliver_handing_ms=5000) as gateway:
        await gateway.subscribe(lease_ms=LEASE_MS)
        stalls = gateway.attach()
        await gateway.publish_many(3)
        taken = gateway.engine.take(gateway.now)
        assert taken is not None
        consumer, delivery = taken
        gateway.engine.send(consumer, delivery, gateway.now)
        consumer.block()
        other = gateway.attach()
        gateway.pass_time(5000 - TICK_MS)
        await gateway.deliver()
        assert (other.received, gateway.statistics().in_flight) == ([], 3)
        gateway.pass_time(TICK_MS)
        await gateway.deliver()
        assert other.received == [1, 2, 3]
        gateway.engine.handed(delivery, gateway.now)  # too late: nothing of it is its own any more
        assert (stalls.consumer.in_flight, gateway.statistics().in_flight) == (0, 3)
        assert [list(d.attempts) for d in other.deliveries] == [[]], "nobody had seen them before"


async def test_a_delivery_that_was_read_for_too_long_is_not_sent(tmp_path: Path) -> None:
    async with driven(tmp_path, cache_bytes=0, deliver_handing_ms=5000) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(3)
        taken = gateway.engine.take(gateway.now)
        assert taken is not None
        consumer, delivery = taken
        assert not gateway.engine.is_loaded(delivery)
        gateway.pass_time(30_000)
        assert gateway.statistics().waiting == 3
        await gateway.engine.load(delivery)
        gateway.engine.send(consumer, delivery, gateway.now)
        assert client.received == []
        await gateway.deliver()
        assert client.received == [1, 2, 3]


@pytest.mark.parametrize("ends", ["detach", "delete"])
async def test_a_consumer_that_leaves_with_very_much_gives_it_back_in_steps(tmp_path: Path, ends: str) -> None:
    async with driven(tmp_path, deliver_frame_messages_max=1) as gateway:
        await gateway.subscribe(window_max=100_000)
        leaves = gateway.attach()
        await gateway.publish_many(1000)
        await gateway.deliver(10_000)
        assert gateway.statistics().in_flight == 1000
        if ends == "delete":
            await gateway.delete()
        else:
            gateway.engine.detach(leaves.consumer, gateway.now)
            at_once = gateway.statistics()
            assert 0 < at_once.waiting < 1000, "a step, and not all"
            assert at_once.in_flight + at_once.waiting == 1000
            stays = gateway.attach()
        gateway.pass_time(TICK_MS)
        assert leaves.consumer.in_flight == 0
        assert gateway.engine.statistics().inflight_records["heap"] == 0
        if ends == "detach":
            assert gateway.statistics().waiting == 1000
            await gateway.deliver(10_000)
            assert sorted(stays.received) == list(range(1, 1001))


async def test_extensions_are_bounded_by_the_longest_lease(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(lease_ms=LEASE_MS)
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        await gateway.settle(client, Verb.EXTEND, (1, 1), lease_ms=2**50)
        twelve_hours = 12 * 3600 * 1000
        gateway.pass_time(twelve_hours - TICK_MS)
        assert gateway.statistics().in_flight == 1
        gateway.pass_time(TICK_MS)
        assert gateway.statistics().waiting == 1


async def test_leases_of_every_tier_are_settled_and_counted_and_end_at_their_time(tmp_path: Path) -> None:
    """The way of 30-second leases: some settled at once, some from the direct tier, the rest redelivered in time."""
    async with driven(tmp_path, deliver_frame_messages_max=10) as gateway:
        await gateway.subscribe(lease_ms=30_000)
        client = gateway.attach()
        await gateway.publish_many(100)
        await gateway.deliver()
        assert await gateway.ack(client, (1, 35)) == 35
        for _ in range(160):
            gateway.pass_time(TICK_MS)
            gateway.statistics()
        shown = gateway.engine.statistics()
        assert shown.inflight_records == {"heap": 0, "direct": 7, "file": 0}
        assert await gateway.ack(client, (36, 53), (81, 81)) == 19
        await gateway.settle(client, Verb.EXTEND, (90, 92), lease_ms=60_000)  # this calls 91 to 100 back to the heap
        await gateway.settle(client, Verb.NACK, (94, 94), delay_ms=0)
        await gateway.settle(client, Verb.TERM, (96, 96))
        assert gateway.engine.statistics().inflight_settled == {"heap": 37, "direct": 19, "file": 0}
        client.forget()
        gateway.pass_time(30_000 - 160 * TICK_MS - TICK_MS)
        await gateway.deliver()
        assert client.received == [94], "no other lease has ended"
        client.forget()
        gateway.pass_time(TICK_MS)
        await gateway.deliver()
        left = sorted(set(range(54, 101)) - {81, 90, 91, 92, 94, 96})
        assert sorted(client.received) == left
        assert await gateway.ack(client) == len(left) + 3 + 1


# ------------------------------------------------------------------------------------------------------- what it costs


def _cost_s(consumers: int, messages: int, frame: int) -> float:
    """CPU of leasing and settling so many messages, the consumers all alive and idle between."""
    clockwork = Clockwork(TICK_MS, BEGAN_MS)
    settings = SubscriptionSettings(topics=(">",), window_max=100_000)
    subscription = Subscription(1, "orders", settings, 1, clockwork)
    subscription.unfilled = False
    segment = in_memory(1, 1)
    for _ in range(messages):
        note(segment, 100)
    segment.growing.route_to(1, 1, messages)
    for number in range(consumers):
        subscription.attach(Consumer(subscription, 1000, 10**6, cast("Callable[..., None]", list.append), str(number)))
    began = time.thread_time()
    for _ in range(0, messages, frame):
        consumer = subscription.choose()
        assert consumer is not None
        (lease,) = subscription.take(consumer, [segment], messages + 1, frame, 10**9, BEGAN_MS)
        subscription.start(lease, BEGAN_MS)
        ack = Settle(Verb.ACK, [(lease.first, lease.slice.last)])
        assert subscription.settle(consumer, ack, BEGAN_MS, 0.0) == (frame, 0)
        subscription.news.clear()
    return time.thread_time() - began


@pytest.mark.parametrize("frame", [1, 100])
def test_a_thousand_consumers_cost_no_more_than_twice_what_one_does(frame: int) -> None:
    one, thousand = (min(_cost_s(consumers, 2000 * frame, frame) for _ in range(5)) for consumers in (1, 1000))
    assert thousand < 2 * one


async def test_what_each_client_held_is_what_it_was_sent(tmp_path: Path) -> None:
    """Consumers that come and go while everything is settled by somebody: each message is acked once."""
    async with driven(tmp_path, deliver_frame_messages_max=7) as gateway:
        await gateway.subscribe(lease_ms=LEASE_MS, window_max=20, attempts_max=1000)
        clients: list[Client] = []
        await gateway.publish_many(300)
        acked = 0
        for turn in range(100):
            clients.append(gateway.attach())
            await gateway.deliver()
            if turn % 3 == 2:
                gateway.engine.detach(clients.pop(0).consumer, gateway.now)
            acked += await gateway.ack(clients[turn % len(clients)])
            gateway.pass_time(300)
            assert gateway.statistics().acked == acked
        for client in clients:
            acked += await gateway.ack(client)
        assert acked == 300
