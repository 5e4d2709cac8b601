"""Turns, and what a turn hands over."""

from __future__ import annotations

from pathlib import Path

import orjson
import trio

from gateway.model import Verb
from gateway.store.recovery import segment_name
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import bodies_of, driven, message

# ----------------------------------------------------------------------------------------------------- limits and turns


async def test_a_delivery_keeps_to_the_window_the_frame_and_the_bytes(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_frame_messages_max=4, deliver_frame_bytes_max=2000) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(12)
        await gateway.publish_many(4, size=900)
        client = gateway.attach(window=10)
        await gateway.deliver()
        assert [delivery.count for delivery in client.deliveries] == [4, 4, 2]
        await gateway.ack(client)
        client.forget()
        await gateway.deliver()
        assert [delivery.count for delivery in client.deliveries] == [2, 1, 1, 1, 1] or [
            delivery.count for delivery in client.deliveries
        ] == [3, 1, 1, 1]
        assert all(sum(map(len, delivery.bodies)) <= 2000 for delivery in client.deliveries)


async def test_a_pull_s_own_bytes_bound_its_delivery(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(4, size=900)
        for expected in ([1, 2], [3, 4]):
            pull = gateway.attach(once=True, size_max=2500)
            await gateway.deliver()
            assert pull.received == expected


async def test_a_single_message_larger_than_the_bytes_goes_alone(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(2, size=5000)
        pull = gateway.attach(once=True, size_max=1000)
        await gateway.deliver()
        assert pull.received == [1]


async def test_what_came_back_in_many_pieces_keeps_to_the_bytes_of_a_frame(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_frame_bytes_max=3000) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(10, size=900)
        client = gateway.attach()
        await gateway.deliver()
        for position in range(1, 11):
            await gateway.settle(client, Verb.NACK, (position, position), delay_ms=1)
        client.forget()
        gateway.pass_time(100)
        await gateway.deliver()
        assert client.received == list(range(1, 11))
        assert all(sum(map(len, delivery.bodies)) <= 3000 for delivery in client.deliveries)


async def test_subscriptions_take_turns_frame_by_frame(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_frame_messages_max=10) as gateway:
        for name in ("busy", "quiet"):
            await gateway.subscribe(name, f"{name}.>")
        await gateway.publish_many(100, "busy.x")
        await gateway.publish_many(20, "quiet.x")
        clients = {name: gateway.attach(name) for name in ("busy", "quiet")}
        await gateway.deliver(frames_max=4)
        assert {name: len(client.deliveries) for name, client in clients.items()} == {"busy": 2, "quiet": 2}


async def test_who_comes_without_waiting_takes_what_nobody_waits_for(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.subscribe("other", "other.>")
        await gateway.publish_many(3)
        await gateway.publish_many(1, "other.x")
        pulls = [gateway.attach(window=2, once=True, waits=False) for _ in range(3)]
        found = [gateway.engine.take_for(pulls[0].consumer, gateway.now)]
        gateway.attach("other")  # has its turn now, and nobody comes before it
        found.append(gateway.engine.take_for(pulls[1].consumer, gateway.now))
        await gateway.deliver()
        found.append(gateway.engine.take_for(pulls[2].consumer, gateway.now))
        assert [delivery and delivery.count for delivery in found] == [2, None, None]
        assert [pull.received for pull in pulls] == [[], [3], []]
        await gateway.publish_many(1)
        await gateway.deliver()
        assert pulls[2].received == [5]  # it has waited


async def test_consumers_of_one_subscription_share_what_there_is(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_frame_messages_max=10) as gateway:
        await gateway.subscribe()
        clients = [gateway.attach(window=100) for _ in range(4)]
        await gateway.publish_many(80)
        await gateway.deliver()
        assert [len(client.received) for client in clients] == [20] * 4
        assert sorted(p for client in clients for p in client.received) == list(range(1, 81))


async def test_much_that_has_expired_does_not_keep_the_rest_from_being_found(tmp_path: Path) -> None:
    """Nor is it worked off in one go, while everybody else waits."""
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish(*(message(ttl_ms=500) for _ in range(400)), message())
        await gateway.deliver()
        assert len(client.received) == 401
        await gateway.ack(client, *((position, position) for position in range(2, 401, 2)))
        await gateway.settle(client, Verb.NACK, (1, 401), delay_ms=900)  # those between, each a piece of its own
        client.forget()
        gateway.pass_time(1000)
        with trio.fail_after(5):
            await gateway.engine.wait_ready()
        await gateway.deliver(frames_max=1)
        assert client.received == []
        await gateway.deliver()
        assert client.received == [401]
        assert gateway.statistics().expired == 200


async def test_a_blocked_consumer_gets_nothing_until_it_is_unblocked(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        client.consumer.block()
        await gateway.publish_many(1)
        await gateway.deliver()
        assert client.received == []
        gateway.engine.unblock(client.consumer)
        await gateway.deliver()
        assert client.received == [1]


async def test_a_paused_subscription_keeps_everything_until_it_is_resumed(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        await gateway.subscribe(paused=True)
        await gateway.publish_many(2)
        gateway.pass_time(30_000)
        await gateway.deliver()
        assert client.received == [1, 2]
        assert gateway.statistics().waiting == 4
        await gateway.subscribe(paused=False)
        client.forget()
        await gateway.deliver()
        await gateway.deliver()
        assert client.received == [1, 2, 3, 4]


# ---------------------------------------------------------------------------------------------------------- cold bodies


async def test_bodies_that_are_no_longer_in_memory_are_read_back_byte_for_byte(tmp_path: Path) -> None:
    async with driven(tmp_path, cache_bytes=0, segment_bytes=3000) as gateway:
        await gateway.subscribe("paid", "*.paid")
        await gateway.subscribe("all", ">")
        client = gateway.attach("all")
        published: list[bytes] = []
        for number in range(40):
            batch = await gateway.publish(
                message("trade.paid", "x" * number), message("trade.sent", number, ttl_ms=10**6)
            )
            published += [orjson.dumps("x" * number), orjson.dumps(number)]
            assert batch.first == 2 * number + 1
        await gateway.deliver()
        assert client.received == list(range(1, 81))
        assert client.data == [orjson.loads(data) for data in published]
        assert all(body.endswith(b'"data":' + data + b"}") for body, data in zip(client.bodies, published, strict=True))
        assert await gateway.consume("paid") == list(range(1, 81, 2))


async def test_while_a_delivery_is_read_from_the_disk_the_next_waits(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, cache_bytes=0, deliver_frame_messages_max=2) as gateway:
        await gateway.subscribe()
        await gateway.subscribe("other", "other.>")
        client, other = gateway.attach(), gateway.attach("other")
        await gateway.publish_many(4)
        cold = gateway.engine.take(gateway.now)
        assert cold is not None
        assert not gateway.engine.is_loaded(cold[1])
        assert gateway.engine.take(gateway.now) is None
        await gateway.publish_many(1, "other.x")
        await gateway.publish_many(1)
        await gateway.deliver()
        assert (client.received, other.received) == ([], [5])
        await gateway.engine.load(cold[1])
        gateway.engine.send(*cold, gateway.now)
        gateway.engine.handed(cold[1], gateway.now)
        await gateway.deliver()
        assert client.received == [1, 2, 3, 4, 6]


async def test_a_segment_that_is_being_read_is_not_deleted(tmp_path: Path) -> None:
    """Whatever happens to the subscription meanwhile: a closed file's number may be another's by then."""
    async with driven(tmp_path, cache_bytes=0, segment_bytes=3000) as gateway:
        await gateway.subscribe()
        gateway.attach()
        await gateway.publish_many(3)
        cold = gateway.engine.take(gateway.now)
        assert cold is not None
        await gateway.delete()
        await gateway.seal()
        await gateway.engine.load(cold[1])
        assert len(bodies_of(cold[1])) == 3
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()


async def test_what_cannot_be_read_is_set_aside_and_all_else_delivered(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, cache_bytes=0) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(2)
        await gateway.publish_many(2)
        client = gateway.attach(window=10)
        disk.fail("read")
        await gateway.deliver()
        assert client.received == [3, 4]
        assert gateway.engine.statistics().damaged_messages == 2
        shown = gateway.statistics()
        assert (shown.waiting, shown.in_flight) == (2, 2)
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == [1, 2, 3, 4]
