from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import msgspec
import orjson
import pytest
import trio

from gateway.errors import GatewayError, StoreError, StoreLockedError
from gateway.model import Durability, Message, Settle, Settlement, Start, Verb
from gateway.store import checkpoint as checkpoints
from gateway.store.recovery import segment_name
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import BEGAN_MS, Client, Driven, config, driven, message
from tests.store.test_files import HOLD_LOCK

EVERYTHING = (0, 2**53 - 1)


# ----------------------------------------------------------------------------------------------------------- the way


async def test_what_is_published_is_delivered_byte_for_byte_and_settled_once(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish(Message("trade.paid", data=msgspec.Raw(b'{ "n" : 1.50 }')))
        await gateway.deliver()
        epoch = gateway.engine.epoch.encode()
        assert client.bodies == [
            b'{"position":1,"id":"%b-1","topic":"trade.paid","time_ms":%d,"data":{ "n" : 1.50 }}' % (epoch, BEGAN_MS)
        ]
        [delivery] = client.deliveries
        assert (delivery.subscription, delivery.count, delivery.attempts) == ("orders", 1, {})
        assert await gateway.ack(client, (1, 1)) == 1
        assert await gateway.ack(client, (1, 1)) == 0
        gateway.pass_time(10 * 60_000)
        await gateway.deliver()
        assert len(client.bodies) == 1
        assert gateway.statistics().acked == 1


async def test_every_subscription_gets_what_matches_it_and_no_other(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("all", ">")
        await gateway.subscribe("paid", "*.paid")
        await gateway.subscribe("other", "other")
        await gateway.publish(message("trade.paid"), message("trade.sent"), message("refund.paid"))
        assert await gateway.consume("all") == [1, 2, 3]
        assert await gateway.consume("paid") == [1, 3]
        assert await gateway.consume("other") == []


async def test_nothing_is_delivered_before_it_is_durable(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        held = disk.hold("sync")
        await gateway.publish(message(), durability=Durability.WRITTEN)
        await gateway.deliver()
        assert client.bodies == []
        held.release()
        with trio.fail_after(5):
            await gateway.engine.wait_ready()
        await gateway.deliver()
        assert client.received == [1]


async def test_a_redelivery_says_which_attempt_it_is(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(3)
        await gateway.deliver()
        await gateway.ack(client, (2, 2))
        gateway.pass_time(30_000)
        await gateway.deliver()
        assert client.received == [1, 2, 3, 1, 3]
        assert [delivery.attempts for delivery in client.deliveries] == [{}, {"1": 2, "3": 2}]


async def test_a_settlement_counts_what_it_met_and_what_it_did_not(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(4)
        await gateway.deliver()
        done = await gateway.settle(client, Verb.NACK, (1, 2), (4, 6), delay_ms=0)
        assert (done.counts[Verb.NACK], done.unknown) == (3, 2)
        gone = gateway.attach()
        gateway.engine.detach(gone.consumer, gateway.now)
        done = await gateway.settle(gone, Verb.ACK, (1, 3), (3, 4))
        assert (done.counts[Verb.ACK], done.unknown) == (0, 4)


async def test_what_is_sent_to_one_that_has_left_goes_to_another(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        gone = gateway.attach()
        await gateway.publish_many(2)
        taken = gateway.engine.take(gateway.now)
        assert taken is not None
        gateway.engine.detach(gone.consumer, gateway.now)
        gateway.engine.detach(gone.consumer, gateway.now)
        gateway.engine.send(*taken, gateway.now)
        gateway.engine.handed(taken[1], gateway.now)
        assert gone.bodies == []
        assert await gateway.consume() == [1, 2]


async def test_a_pull_takes_one_delivery_and_says_when_it_holds_nothing_more(tmp_path: Path) -> None:
    released: list[object] = []
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        pull = gateway.attach(window=2, once=True)
        pull.consumer.on_released = released.append
        await gateway.publish_many(5)
        await gateway.deliver()
        assert pull.received == [1, 2]
        await gateway.ack(pull, (1, 1))
        await gateway.deliver()
        assert (pull.received, released) == ([1, 2], [])
        await gateway.ack(pull, (2, 2))
        assert released == [pull.consumer]


# ------------------------------------------------------------------------------------------------- limits, fairness


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
        await gateway.publish(*(message(ttl_ms=500) for _ in range(200)), message())
        await gateway.deliver()
        assert len(client.received) == 201
        for position in range(1, 202):  # each a piece of its own
            nack = Settle(Verb.NACK, [(position, position)], delay_ms=900)
            gateway.engine.settle(Settlement(client.consumer, [nack]), gateway.now)
        client.forget()
        gateway.pass_time(1000)
        with trio.fail_after(5):
            await gateway.engine.wait_ready()
        await gateway.deliver(frames_max=1)
        assert client.received == []
        await gateway.deliver()
        assert client.received == [201]
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


# -------------------------------------------------------------------------------------------------------- cold bodies


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
        await gateway.deliver()
        assert (client.received, other.received) == ([], [5])
        await gateway.engine.load(cold[1])
        gateway.engine.send(*cold, gateway.now)
        gateway.engine.handed(cold[1], gateway.now)
        await gateway.deliver()
        assert client.received == [1, 2, 3, 4]


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
        assert len(cold[1].bodies) == 3
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()


# ------------------------------------------------------------------------------------------------------- dead letters


async def test_a_message_whose_attempts_are_used_up_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(attempts_max=2)
        client = gateway.attach()
        await gateway.publish(message(data="one"), message(data="two"))
        for _ in range(2):
            await gateway.deliver()
            gateway.pass_time(30_000)
        letters = await gateway.engine.dead_letters()
        assert [(dead.topic, dead.subscription, dead.attempts, dead.cause) for dead in letters] == [
            ("dead.orders", "orders", 2, "lease")
        ] * 2
        assert [dead.body for dead in letters] == client.bodies[:2]
        assert await gateway.engine.dead_letters() == []
        assert gateway.statistics().in_flight == 2
        gateway.engine.bury(letters[1], gateway.now)
        assert (gateway.statistics().in_flight, gateway.statistics().dead_lettered) == (1, 1)


async def test_a_crash_before_a_dead_letter_is_stored_loses_nothing(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        gateway.pass_time(30_000)
        first, _ = await gateway.engine.dead_letters()
        gateway.engine.bury(first, gateway.now)
        await gateway.publish_many(1, "nobody")
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == [2]
        assert (gateway.statistics().dead_lettered, gateway.statistics().acked) == (1, 1)


async def test_a_term_carries_its_reason(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(dead_letter="graveyard")
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 1), reason="no such order")
        [dead] = await gateway.engine.dead_letters()
        assert (dead.topic, dead.cause, dead.reason) == ("graveyard", "term", "no such order")


async def test_without_a_dead_letter_topic_the_message_ends(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(dead_letter="", attempts_max=1)
        gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        gateway.pass_time(30_000)
        assert await gateway.engine.dead_letters() == []
        assert gateway.statistics().dead_lettered == 1


async def test_a_subscription_that_would_get_its_own_dead_letters_goes_on(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("orders", ">", attempts_max=1, backoff_ms=(1000,))
        client = gateway.attach()
        await gateway.publish_many(1)
        for attempt in range(1, 5):
            await gateway.deliver()
            assert client.received == [1] * attempt
            gateway.pass_time(30_000)
            gateway.pass_time(1000)
        assert await gateway.engine.dead_letters() == []
        assert gateway.statistics().waiting == 1


async def test_the_dead_letters_of_a_deleted_subscription_are_forgotten(tmp_path: Path) -> None:
    """Its messages may be gone by the time somebody asks for them."""
    async with driven(tmp_path, cache_bytes=0, segment_bytes=3000) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        gateway.pass_time(30_000)
        await gateway.delete()
        await gateway.seal()
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()
        assert await gateway.engine.dead_letters() == []


async def test_a_dead_letter_of_a_subscription_deleted_since_is_buried_without_a_trace(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        gateway.pass_time(30_000)
        [dead] = await gateway.engine.dead_letters()
        await gateway.delete()
        gateway.engine.bury(dead, gateway.now)


# ----------------------------------------------------------------------------------------------------------- deletion


async def test_deleting_a_subscription_tells_its_consumers_and_forgets_all_it_was_due(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(5)
        clients = [gateway.attach(window=2), gateway.attach(window=1)]
        await gateway.deliver()
        await gateway.delete()
        assert [client.deleted for client in clients] == [True, True]
        with pytest.raises(GatewayError, match="subscription 'orders' does not exist"):
            gateway.engine.subscription("orders", gateway.now)
        with pytest.raises(GatewayError, match="does not exist"):
            gateway.attach()
        assert await gateway.ack(clients[0]) == 0
        for client in clients:
            gateway.engine.unblock(client.consumer)
            gateway.engine.detach(client.consumer, gateway.now)
        gateway.pass_time(60_000)
        await gateway.deliver()
        await gateway.subscribe()
        assert gateway.statistics().routed == 0
        await gateway.publish_many(1)
        assert await gateway.consume() == [6]


async def test_a_frame_that_is_handed_over_after_the_deletion_starts_no_lease(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        taken = gateway.engine.take(gateway.now)
        assert taken is not None
        await gateway.delete()
        gateway.engine.send(*taken, gateway.now)
        gateway.engine.handed(taken[1], gateway.now)
        gateway.pass_time(60_000)
        assert client.bodies == []


async def test_a_batch_on_its_way_while_its_subscription_is_deleted_is_stored(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("gone", ">")
        await gateway.subscribe()
        batches = [gateway.batch(message()), gateway.batch(message("trade.a"), message("trade.b", id="1"))]
        for batch in batches:
            gateway.engine.route(batch)
        await gateway.delete("gone")
        gateway.engine.append(batches, gateway.now)
        await gateway.publish_many(1)
        assert await gateway.consume() == [1, 2, 3, 4]


async def test_a_subscription_gets_what_is_stored_after_it_was_made_however_early_it_was_sent(tmp_path: Path) -> None:
    """A publish that is answered behind its creation is matched by it (promise 1)."""
    async with driven(tmp_path) as gateway:
        batches = [gateway.batch(message()), gateway.batch(message("trade.a"), message("trade.b", id="1"))]
        for batch in batches:
            gateway.engine.route(batch)
        await gateway.subscribe(start=Start.START)
        gateway.engine.append(batches, gateway.now)
        await gateway.publish_many(1)
        assert await gateway.consume() == [1, 2, 3, 4]


async def test_a_deletion_survives_a_restart(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe("orders", "trade.>")
        await gateway.subscribe("other", "trade.>")
        await gateway.publish_many(2)
        await gateway.delete()
    async with driven(tmp_path) as gateway:
        assert [view.name for view in gateway.engine.subscriptions(gateway.now)] == ["other"]
        assert await gateway.consume("other") == [1, 2]


# -------------------------------------------------------------------------------------------------- start at the start


@pytest.mark.parametrize("reopen", [False, True])
async def test_a_subscription_may_start_at_the_start(tmp_path: Path, reopen: bool) -> None:
    async with driven(tmp_path, segment_bytes=2000, crash=True) as gateway:
        await gateway.subscribe("keeper", ">")
        for _ in range(20):
            await gateway.publish(message("trade.paid"), message("other"), message("trade.sent"))
        await gateway.subscribe("orders", "*.paid", start=Start.START)
        assert gateway.statistics().routed == 20
        await gateway.publish(message("trade.paid"), message("other"))
        if not reopen:
            assert await gateway.consume() == [*range(1, 61, 3), 61]
    async with driven(tmp_path, segment_bytes=2000) as gateway:
        assert gateway.statistics().routed == 21
        assert await gateway.consume() == ([] if not reopen else [*range(1, 61, 3), 61])


async def test_a_crash_while_the_past_is_searched_is_made_good_at_the_next_start(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.publish(message("trade.paid"), message("other"), message("trade.paid"))
        await gateway.subscribe("orders", "trade.>", start=Start.START)
        await gateway.publish(message("trade.paid"))
    path = tmp_path / segment_name(1)
    data = path.read_bytes()
    async with driven(tmp_path / "copy") as _:
        pass
    backfill = data.index(orjson.dumps("start"))  # within the SUBSCRIPTION record; the BACKFILL stands behind it
    del backfill
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == [1, 3, 4]


async def test_nothing_is_delivered_to_a_subscription_whose_past_is_not_known_yet(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk) as gateway, trio.open_nursery() as nursery:
        await gateway.publish_many(2)
        held = disk.hold("sync")
        nursery.start_soon(lambda: gateway.subscribe(start=Start.START))
        await trio.to_thread.run_sync(held.reached.wait, 5)
        client = gateway.attach()
        done = trio.Event()
        batch = gateway.batch(message(), done=done)
        gateway.engine.route(batch)
        gateway.engine.append([batch], gateway.now)
        held.release()
        await gateway.wait(done)
        while gateway.statistics().routed < 3:
            await gateway.deliver()
            assert client.received == []
            await trio.lowlevel.checkpoint()
        await gateway.deliver()
        assert client.received == [1, 2, 3]
        assert await gateway.ack(client) == 3
        assert gateway.statistics().acked == 3


# ----------------------------------------------------------------------------------------------------------- restarts


async def test_a_restart_keeps_subscriptions_settings_and_what_was_settled(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe("orders", "trade.>", lease_ms=5000, attempts_max=3, backoff_ms=(1, 2), dead_letter="")
        await gateway.subscribe("other", "x", "y.>", window_max=7, paused=True)
        await gateway.publish_many(6)
        client = gateway.attach()
        await gateway.deliver()
        await gateway.ack(client, (1, 2), (4, 4))
        await gateway.settle(client, Verb.TERM, (5, 5))
        before = list(gateway.engine.subscriptions(gateway.now))
    async with driven(tmp_path) as gateway:
        after = list(gateway.engine.subscriptions(gateway.now))
        assert [(view.name, view.settings) for view in after] == [(view.name, view.settings) for view in before]
        shown = gateway.statistics()
        assert (shown.acked, shown.dead_lettered, shown.waiting, shown.in_flight) == (3, 1, 2, 0)
        assert await gateway.consume() == [3, 6]


async def test_a_restart_keeps_changed_settings(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe("orders", "trade.>")
        await gateway.publish_many(1)
        await gateway.subscribe("orders", "other", lease_ms=777)
        await gateway.publish(message("trade.paid"), message("other"))
    async with driven(tmp_path) as gateway:
        assert gateway.engine.subscription("orders", gateway.now).settings.lease_ms == 777
        assert await gateway.consume() == [1, 3]
        await gateway.publish(message("trade.paid"), message("other"))
        assert await gateway.consume() == [5]


async def test_a_message_goes_to_those_it_was_stored_for_whatever_was_changed_since(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe("orders", "trade.>")
        await gateway.publish_many(2)
        await gateway.subscribe("orders", "other")
        await gateway.subscribe("late", "trade.>")
    async with driven(tmp_path) as gateway:
        assert await gateway.consume("orders") == [1, 2]
        assert await gateway.consume("late") == []


@pytest.mark.parametrize("crash", [True, False])
async def test_delays_and_ttls_survive_a_restart(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(delay_ms=10_000), message(ttl_ms=5_000), message(delay_ms=1_000, ttl_ms=1_000))
        assert (gateway.statistics().delayed, gateway.statistics().waiting) == (2, 1)
    async with driven(tmp_path, now=BEGAN_MS + 2_000) as gateway:
        assert (gateway.statistics().delayed, gateway.statistics().waiting) == (1, 2)
        assert await gateway.consume() == [2]
        assert gateway.statistics().expired == 1
        gateway.pass_time(7_999)
        assert await gateway.consume() == []
        gateway.pass_time(1)
        assert await gateway.consume() == [1]
    async with driven(tmp_path, now=BEGAN_MS) as gateway:
        shown = gateway.statistics()
        assert (shown.acked, shown.expired, shown.delayed, shown.waiting) == (2, 1, 0, 0)


async def test_a_second_start_takes_nothing_away(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(5)
        client = gateway.attach()
        await gateway.deliver()
        await gateway.ack(client, (2, 3))
    for _ in range(3):
        async with driven(tmp_path) as gateway:
            assert (gateway.statistics().acked, gateway.statistics().waiting) == (2, 3)
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == [1, 4, 5]


async def test_positions_go_on_where_they_ended(tmp_path: Path) -> None:
    for first in (1, 4, 7):
        async with driven(tmp_path) as gateway:
            assert await gateway.publish_many(3) == [first, first + 1, first + 2]


# ----------------------------------------------------------------------------------------------------------- segments


async def test_a_settled_segment_is_deleted_when_the_next_is_sealed_and_never_needed_again(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=3000, crash=True) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(3)
        assert await gateway.consume() == [1, 2, 3]
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()
        positions = await gateway.publish_many(2)
        assert gateway.engine.statistics().segments_released > 0
    async with driven(tmp_path, segment_bytes=3000) as gateway:
        assert await gateway.consume() == positions
        assert gateway.statistics().acked == 5


async def test_a_segment_stays_while_anything_in_it_is_due_to_anybody(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=3000) as gateway:
        await gateway.subscribe("quick")
        await gateway.subscribe("slow")
        await gateway.publish_many(3)
        await gateway.consume("quick")
        client = gateway.attach("slow")
        await gateway.deliver()
        await gateway.ack(client, (1, 1), (3, 3))
        await gateway.seal()
        assert (tmp_path / segment_name(1)).exists()
        await gateway.ack(client, (2, 2))
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()


async def test_a_segment_of_a_deleted_subscription_is_not_kept_for_it(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=3000) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(3)
        await gateway.delete()
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()


async def test_a_checkpoint_and_the_tail_behind_it_tell_what_the_whole_log_tells(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=4000, crash=True) as gateway:
        await gateway.publish_many(5)
        await gateway.subscribe("kept", ">")  # holds the first segment: the log still tells everything
        await gateway.subscribe("past", "trade.*", start=Start.START)
        await gateway.subscribe("gone", ">")
        client = gateway.attach("past", window=1000)
        for round_ in range(12):
            await gateway.publish(message(data="x" * 100), message("other"), message(ttl_ms=1, id=f"{round_}"))
            gateway.pass_time(50)
            await gateway.deliver()
            await gateway.ack(client, (3 * round_, 3 * round_ + 1))
            await gateway.settle(client, Verb.TERM, (3 * round_ + 2, 3 * round_ + 2))
            await gateway.dead_letters()
        await gateway.delete("gone")
        await gateway.subscribe("kept", "other", lease_ms=4321)
        assert gateway.engine.statistics().checkpoints > 1
    both = []
    for without in (False, True):
        if without:
            (tmp_path / checkpoints.NAME).unlink()
        async with driven(tmp_path, segment_bytes=4000, crash=True) as gateway:
            catalogue = gateway.engine._catalogue
            fronts = {subscription.name: subscription.front for subscription in catalogue}
            queues = [{n: list(q) for n, q in segment.queues.items()} for segment in gateway.engine._log.segments]
            both.append((catalogue.snapshot(1), fronts, queues, list(gateway.engine.subscriptions(gateway.now))))
    assert both[0] == both[1]
    assert both[0][3][1].statistics.acked > 10


# -------------------------------------------------------------------------------------------------------------- repeats


async def answers(gateway: Driven, *messages: Message) -> list[tuple[int, bool] | str]:
    """(position, repeat) or the error's code, for each message of one call."""
    batch = await gateway.publish(*messages)
    if batch.results is None:
        return [(batch.first + index, False) for index in range(len(messages))]
    return [
        result.code if isinstance(result, GatewayError) else (result.position, result.duplicate)
        for result in batch.results
        if result is not None
    ]


async def test_a_repeat_is_answered_with_the_first_s_place_and_stored_once(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        assert await answers(gateway, message(id="1", data=1)) == [(1, False)]
        assert await answers(gateway, message(id="1", data=1), message(id="2")) == [(1, True), (2, False)]
        assert await answers(gateway, message(id="1", data=2)) == ["id_conflict"]
        assert await answers(gateway, message("trade.sent", id="1", data=2)) == [(3, False)]
        assert await gateway.consume() == [1, 2, 3]


async def test_a_repeat_within_one_call_is_one_too(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        sent = [message(id="1"), message(), message(id="1"), message(id="1", data=2), message(id="2"), message(id="2")]
        assert await answers(gateway, *sent) == [
            (1, False),
            (2, False),
            (1, True),
            "id_conflict",
            (3, False),
            (3, True),
        ]
        assert await gateway.consume() == [1, 2, 3]


async def test_an_id_may_be_used_again_when_its_window_is_over(tmp_path: Path) -> None:
    async with driven(tmp_path, limits_dedup_window_s=10) as gateway:
        assert await answers(gateway, message(id="1")) == [(1, False)]
        gateway.pass_time(9_999)
        assert await answers(gateway, message(id="1")) == [(1, True)]
        gateway.pass_time(10_001)
        assert await answers(gateway, message(id="1")) == [(2, False)]


@pytest.mark.parametrize("crash", [True, False])
async def test_repeats_are_recognised_over_a_restart(tmp_path: Path, crash: bool) -> None:
    sent = [
        message(id="1", data={"a": [1, 2]}),
        Message("trade.paid", id="2", data=msgspec.Raw(b' {"a":1}\n')),
        Message("trade.paid", id="3", data_base64="AAEC", content_type="image/png"),
        message(id="4", delay_ms=5, ttl_ms=10**6, key="k", attributes={"a": "b"}),
    ]
    async with driven(tmp_path, crash=crash, limits_dedup_window_s=10) as gateway:
        assert await answers(gateway, *sent) == [(1, False), (2, False), (3, False), (4, False)]
    async with driven(tmp_path, now=BEGAN_MS + 9_999, crash=True, limits_dedup_window_s=10) as gateway:
        assert await answers(gateway, *sent) == [(1, True), (2, True), (3, True), (4, True)]
        assert await answers(gateway, message(id="1", data=2), message("trade.paid", id="3")) == ["id_conflict"] * 2
        gateway.pass_time(10_001)
        assert await answers(gateway, message(id="1", data=2)) == [(5, False)]
    async with driven(tmp_path, now=BEGAN_MS + 10_000, limits_dedup_window_s=10) as gateway:
        assert await answers(gateway, message(id="2", data=2)) == [(6, False)]


async def test_repeats_are_recognised_although_their_first_is_settled_and_its_segment_full(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=3000, limits_dedup_window_s=10, crash=True) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(id="1"))
        await gateway.consume()
        await gateway.seal()
    async with driven(tmp_path, segment_bytes=3000, limits_dedup_window_s=10) as gateway:
        assert await answers(gateway, message(id="1")) == [(1, True)]
        gateway.pass_time(10_000)
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()


# ------------------------------------------------------------------------------------------------------------ failures


async def test_a_store_that_another_process_holds_is_refused_and_let_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(StoreLockedError, match=f"in use by process {process.pid}"):
            async with driven(tmp_path):
                raise AssertionError("it was opened")
        process.kill()
    async with driven(tmp_path) as gateway:
        await gateway.publish_many(1)


async def test_a_store_that_cannot_be_read_is_refused_and_let_go(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=1000) as gateway:
        await gateway.subscribe("keeper", ">")
        for _ in range(3):
            await gateway.publish_many(1, size=1000)
    path = tmp_path / segment_name(1)
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    disk = FaultyFiles()
    with pytest.raises(StoreError, match=f"{segment_name(1)}: the record at byte"):
        async with driven(tmp_path, disk):
            raise AssertionError("it was opened")
    path.write_bytes(sound)
    async with driven(tmp_path) as gateway:
        assert await gateway.publish_many(1) == [4]


@pytest.mark.parametrize(("verb", "error"), [("write", errno.ENOSPC), ("write", errno.EIO), ("sync", errno.EIO)])
async def test_once_the_store_has_failed_everything_is_refused(tmp_path: Path, verb: str, error: int) -> None:
    disk = FaultyFiles()
    gateway = Driven(tmp_path, disk, BEGAN_MS, {})
    await gateway.engine.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.notify)
        nursery.start_soon(ends, gateway)
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        disk.fail(verb, error=error, kept=3)
        batch = await gateway.publish(message())
        assert batch.error is not None
        assert (batch.error.code, batch.error.kind.temporary) == ("store_failed", True)
        for refused in (
            lambda: gateway.publish(message()),
            lambda: gateway.ack(client),
            lambda: gateway.subscribe("another"),
            lambda: gateway.delete(),
        ):
            with pytest.raises((GatewayError, StoreError), match="the store has failed"):
                await refused()
        assert gateway.statistics().acked == 0
        nursery.cancel_scope.cancel()
    await gateway.engine.aclose()
    async with driven(tmp_path) as gateway:
        assert (await gateway.consume())[:2] == [1, 2]


async def ends(gateway: Driven) -> None:
    with pytest.raises(StoreError, match="the store has failed"):
        await gateway.engine.run()


# ---------------------------------------------------------------------------------------------------------- statistics


async def test_statistics_show_where_the_store_stands(tmp_path: Path) -> None:
    async with driven(tmp_path, cache_bytes=10_000) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(3)
        await gateway.publish(message(id="1"))
        await gateway.consume()
        shown = gateway.engine.statistics()
        assert (shown.positions_end, shown.durable_end, shown.segments, shown.dedup_ids) == (5, 5, 1, 1)
        assert (shown.bodies_hits, shown.bodies_misses, shown.pending_bytes) == (4, 0, 0)
        assert shown.commits > 2
        assert shown.bytes > 4 * 100


async def test_the_oldest_unsettled_message_is_shown_with_its_time(tmp_path: Path) -> None:
    async with driven(tmp_path, cache_bytes=0) as gateway:
        await gateway.subscribe()
        assert gateway.statistics().oldest_ms is None
        await gateway.publish_many(1)
        gateway.now += 500
        await gateway.publish_many(1)
        assert gateway.statistics().oldest_ms == BEGAN_MS
        client = gateway.attach()
        await gateway.deliver()
        await gateway.ack(client, (1, 1))
        assert gateway.statistics().oldest_ms == BEGAN_MS + 500
        await gateway.ack(client)
        assert gateway.statistics().oldest_ms is None


def test_bounds_that_no_configuration_would_allow_are_for_tests_only(tmp_path: Path) -> None:
    made = config(tmp_path, segment_bytes=1000, limits_dedup_window_s=3, deliver_frame_messages_max=2)
    assert (made.store.segment_bytes, made.limits.dedup_window_s, made.deliver.frame_messages_max) == (1000, 3, 2)
