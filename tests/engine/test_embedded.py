from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.broker.lease import Consumer
from gateway.errors import GatewayError, StoreError, StoreLockedError
from gateway.model import Durability, Message, SeekTo, Settle, Settlement, Start, Verb, WhyReason
from gateway.store import checkpoint as checkpoints
from gateway.store import flusher
from gateway.store.recovery import segment_name
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import BEGAN_MS, Driven, config, driven, message
from tests.store.building import locked

# -------------------------------------------------------------------------------------------------------------- the way


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


async def test_the_short_way_of_an_ack_ends_where_the_long_one_does(tmp_path: Path) -> None:
    async def go(directory: Path, *, short: bool) -> object:
        async with driven(directory, crash=True) as gateway:
            await gateway.subscribe()
            client = gateway.attach(window=3)
            for _ in range(3):
                await gateway.publish_many(1)
                await gateway.deliver()
            assert gateway.engine.ack(client.consumer, 1, 2, gateway.now) == 0  # two frames brought these
            await gateway.publish_many(1)  # which waits for the window
            if short:
                assert gateway.engine.ack(client.consumer, 2, 2, gateway.now) == 1
            else:
                gateway.engine.settle(Settlement(client.consumer, [Settle(Verb.ACK, [(2, 2)])]), gateway.now)
            assert gateway.engine.ack(client.consumer, 2, 2, gateway.now) == 0
            await gateway.deliver()
            assert client.received == [1, 2, 3, 4]
            await gateway.publish_many(1, "nobody")  # brings to the disk what is lazy
            live = gateway.statistics()
        async with driven(directory) as gateway:
            assert await gateway.consume() == [1, 3, 4]
            return live, gateway.statistics()

    assert await go(tmp_path / "short", short=True) == await go(tmp_path / "long", short=False)


@pytest.mark.parametrize("once", [True, False], ids=["pull", "connection"])
async def test_the_short_way_of_an_answered_ack_ends_where_the_long_one_does(tmp_path: Path, once: bool) -> None:
    async def go(directory: Path, ranges: list[tuple[int, int]]) -> object:
        async with driven(directory, crash=True) as gateway:
            await gateway.subscribe()
            client = gateway.attach(window=2, once=once)
            released: list[Consumer] = []
            client.consumer.on_released = released.append
            await gateway.publish_many(1)
            await gateway.deliver()
            answers: list[Settlement] = []
            for _ in range(2):  # what was settled before is not known any more
                settlement = Settlement(client.consumer, [Settle(Verb.ACK, ranges)], answers.append)
                assert gateway.engine.settle(settlement, gateway.now)
            assert answers == []
            await gateway.publish_many(1)  # behind whose commit they are told
            assert released[0] is client.consumer
            answered = [(answer.counts[Verb.ACK], answer.unknown) for answer in answers]
            live = gateway.statistics()
        async with driven(directory) as gateway:
            return answered, len(released), live, gateway.statistics(), await gateway.consume()

    short, long = await go(tmp_path / "short", [(1, 1)]), await go(tmp_path / "long", [(1, 1), (1, 1)])
    assert short == long


@pytest.mark.parametrize("says", [{"leaves": True}, {"ranges": [(1, 2)]}, {"verb": Verb.TERM}], ids=str)
async def test_an_answered_settle_that_says_more_than_an_ack_of_one_message_has_no_short_way(
    tmp_path: Path, says: dict[str, Any]
) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        settle = Settle(says.get("verb", Verb.ACK), says.get("ranges", [(1, 1)]))
        settlement = Settlement(client.consumer, [settle], leaves=says.get("leaves", False))
        assert not gateway.engine._ack_one(settlement, gateway.now)
        assert gateway.statistics().in_flight == 1


async def test_an_ack_has_no_short_way_where_others_come_first_or_somebody_is_to_be_told(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        pull, gone = gateway.attach(once=True), gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        pull.consumer.on_released = print
        assert gateway.engine.ack(pull.consumer, 1, 1, gateway.now) == 0
        pull.consumer.on_released = None
        gateway.engine.detach(gone.consumer, gateway.now)
        assert gateway.engine.ack(gone.consumer, 1, 1, gateway.now) == 0
        gateway.engine._unfinished.append(Settlement(pull.consumer, []))
        assert gateway.engine.ack(pull.consumer, 1, 1, gateway.now) == 0
        gateway.engine._unfinished.clear()
        assert gateway.engine.ack(pull.consumer, 1, 1, gateway.now) == 1


async def test_a_settlement_is_answered_only_when_it_is_on_the_disk(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk) as gateway, trio.open_nursery() as nursery:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        held = disk.hold("sync")
        answered = trio.Event()

        async def ack() -> None:
            await gateway.ack(client)
            answered.set()

        nursery.start_soon(ack)
        await trio.to_thread.run_sync(held.reached.wait, 5)
        await wait_all_tasks_blocked()
        assert not answered.is_set()
        held.release()
        await gateway.wait(answered)


async def test_what_one_held_who_leaves_is_the_other_s_at_once(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        gone = gateway.attach()
        await gateway.publish_many(3)
        await gateway.deliver()
        stays = gateway.attach()
        await gateway.deliver()
        assert (gone.received, stays.received) == ([1, 2, 3], [])
        gateway.engine.detach(gone.consumer, gateway.now)
        await gateway.deliver()
        assert stays.received == [1, 2, 3]


async def test_what_ends_with_the_connection_of_its_last_attempt_has_ended_for_good(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(attempts_max=1, dead_letter="")
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        gateway.engine.detach(client.consumer, gateway.now)
        assert gateway.statistics().dead_lettered == 2
    async with driven(tmp_path) as gateway:
        assert gateway.statistics().dead_lettered == 2
        assert await gateway.consume() == []


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


# ------------------------------------------------------------------------------------------------------------- deletion


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


async def test_a_deletion_survives_a_restart(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe("orders", "trade.>")
        await gateway.subscribe("other", "trade.>")
        await gateway.publish_many(2)
        await gateway.delete()
    async with driven(tmp_path) as gateway:
        assert [view.name for view in gateway.engine.subscriptions(gateway.now)] == ["other"]
        assert await gateway.consume("other") == [1, 2]


# --------------------------------------------------------------------------------------------------- start at the start


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
    disk = FaultyFiles()
    async with driven(tmp_path, disk, crash=True, segment_bytes=3000) as gateway:
        await gateway.subscribe("keeper", "trade.>")
        await gateway.publish(message("trade.paid"), message("other"), message("trade.paid"))
        await gateway.seal()
        disk.fail("open", name="*.hint")
        with pytest.raises(StoreError, match="hint: Input/output error"):
            await gateway.subscribe("orders", "trade.>", start=Start.START)
        client = gateway.attach()
        last = (await gateway.publish(message("trade.paid"))).first
        await gateway.deliver()
        assert client.received == []
    for _ in range(2):  # and so it is where the next crash comes before that has reached the disk
        async with driven(tmp_path, crash=True) as gateway:
            assert gateway.statistics().routed == 3
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == [1, 3, last]
    async with driven(tmp_path) as gateway:
        assert (gateway.statistics().routed, await gateway.consume()) == (3, [])


async def test_no_segment_is_deleted_while_the_past_is_searched(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, segment_bytes=3000) as gateway, trio.open_nursery() as nursery:
        await gateway.subscribe("keeper")
        await gateway.publish_many(3)
        await gateway.seal()
        held = disk.hold("open", "*.hint")
        nursery.start_soon(lambda: gateway.subscribe(start=Start.START))
        await trio.to_thread.run_sync(held.reached.wait, 5)
        await gateway.delete("keeper")
        await gateway.seal()
        assert (tmp_path / segment_name(1)).exists()
        held.release()
        while gateway.statistics().routed < 3:
            await trio.lowlevel.checkpoint()
        await gateway.seal()
        assert await gateway.consume() == [1, 2, 3]


async def test_nothing_is_delivered_to_a_subscription_whose_past_is_not_known_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is acked before it is known would be forgotten by it."""
    async with driven(tmp_path) as gateway, trio.open_nursery() as nursery:
        await gateway.publish_many(2)
        synced, go_on = trio.Event(), trio.Event()
        sync = gateway.engine._log.sync

        async def sync_and_dally() -> None:
            await sync()
            synced.set()
            await go_on.wait()

        monkeypatch.setattr(gateway.engine._log, "sync", sync_and_dally)
        nursery.start_soon(lambda: gateway.subscribe(start=Start.START))
        await gateway.wait(synced)
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        assert client.received == []
        go_on.set()
        with trio.fail_after(5):
            await gateway.engine.wait_ready()
        await gateway.deliver()
        assert client.received == [1, 2, 3]
        assert await gateway.ack(client) == 3
        assert gateway.statistics().acked == 3


# ------------------------------------------------------------------------------------------------------------- restarts


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


# ------------------------------------------------------------------------------------------------------------- segments


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
            queues = [{n: list(q) for n, q in segment.index.queues.items()} for segment in gateway.engine._log.segments]
            both.append((catalogue.snapshot(1), fronts, queues, list(gateway.engine.subscriptions(gateway.now))))
    assert both[0] == both[1]
    assert both[0][3][1].statistics.acked > 10


# ------------------------------------------------------------------------------------------------------------- failures


async def test_a_store_that_another_process_holds_is_refused_and_let_go(tmp_path: Path) -> None:
    with locked(tmp_path) as holder, pytest.raises(StoreLockedError, match=f"in use by process {holder}"):
        async with driven(tmp_path):
            raise AssertionError("it was opened")
    async with driven(tmp_path) as gateway:
        await gateway.publish_many(1)


async def test_a_store_that_cannot_be_read_is_refused_and_let_go(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=1000) as gateway:
        await gateway.subscribe("keeper", ">")
        for _ in range(3):
            await gateway.publish_many(1, size=1000)
    path = tmp_path / segment_name(1)
    sound = path.read_bytes()
    path.unlink()
    disk = FaultyFiles()
    with pytest.raises(StoreError, match=f"{segment_name(1)}: is missing"):
        async with driven(tmp_path, disk):
            raise AssertionError("it was opened")
    path.write_bytes(sound)
    async with driven(tmp_path) as gateway:
        assert await gateway.publish_many(1) == [4]


@pytest.mark.parametrize(("verb", "error"), [("write", errno.EIO), ("sync", errno.ENOSPC), ("sync", errno.EIO)])
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


async def test_what_there_is_no_room_for_is_said_to_be_uncertain_and_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher, "_ROOM_S", 0.02)
    disk = FaultyFiles()
    async with driven(tmp_path, disk) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        disk.fail("write", error=errno.ENOSPC, kept=3, ever=True)
        batch = await gateway.publish(message())
        assert batch.error is not None
        assert (batch.error.code, batch.error.kind.status) == ("store_failed", 503)
        settled = await gateway.settle(client, Verb.ACK, (1, 2))
        assert settled.error is not None
        assert "may be carried out once there is" in settled.error.message
        refused = await gateway.publish(message())
        assert refused.error is not None
        assert refused.error.code == "disk_full"
        assert gateway.statistics().waiting == 1, "it is due, but only once it is stored"
        disk.mend()
        await gateway.engine._log.sync()
        client.forget()
        await gateway.deliver()
        assert client.received == [3]
        assert await gateway.ack(client) == 1
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == []


async def ends(gateway: Driven) -> None:
    with pytest.raises(StoreError, match="the store has failed"):
        await gateway.engine.run()


# ----------------------------------------------------------------------------------------------------------- statistics


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


async def test_delayed_messages_of_sealed_segments_come_due_at_their_tick_also_after_a_restart(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=4096, crash=True) as gateway:
        await gateway.subscribe()
        for number in range(40):
            await gateway.publish(message(data="." * 200, delay_ms=1000 * (1 + number * 7 % 40)), message(data=number))
        assert len(await gateway.consume()) == 40
        assert (gateway.statistics().delayed, gateway.statistics().acked) == (40, 40)
        gateway.pass_time(10_000)
        assert (gateway.statistics().delayed, gateway.statistics().waiting) == (30, 10)
        first = await gateway.consume()
        assert len(first) == 10
    async with driven(tmp_path, segment_bytes=4096, now=BEGAN_MS + 10_000) as gateway:
        assert gateway.statistics().delayed == 30
        found: list[int] = []
        for _ in range(30):
            gateway.pass_time(1000)
            due = await gateway.consume()
            assert len(due) == 1
            found += due
        assert len(set(found + first)) == 40
        assert (gateway.statistics().delayed, gateway.statistics().acked) == (0, 80)


async def test_what_is_delayed_and_sought_past_is_skipped_and_sought_back_to_is_delayed_again(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(delay_ms=5000), message(), message(delay_ms=9000))
        assert await gateway.consume() == [2]
        await gateway.engine.seek("orders", SeekTo(position=3), gateway.now)
        assert (gateway.statistics().delayed, gateway.statistics().skipped) == (1, 1)
        await gateway.engine.seek("orders", SeekTo(position=1), gateway.now)
        assert (gateway.statistics().delayed, gateway.statistics().waiting) == (2, 1)
        gateway.pass_time(5000)
        assert await gateway.consume() == [1, 2]
        gateway.pass_time(4000)
        assert await gateway.consume() == [3]


async def test_a_subscription_that_starts_at_the_start_waits_for_what_is_delayed(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("first")
        await gateway.publish(message(delay_ms=5000), message())
        await gateway.subscribe("late", start=Start.START)
        assert await gateway.consume("late") == [2]
        assert gateway.statistics("late").delayed == 1
        gateway.pass_time(5000)
        assert (await gateway.consume("late"), await gateway.consume("first")) == ([1], [1, 2])


@pytest.mark.parametrize("crash", [True, False])
async def test_a_restart_does_not_give_a_message_its_attempts_back(tmp_path: Path, crash: bool) -> None:
    """However often the gateway is started anew: what nobody can take ends among the dead letters."""
    for life in range(1, 4):
        async with driven(tmp_path, crash=crash) as gateway:
            if life == 1:
                await gateway.subscribe(attempts_max=3)
                await gateway.publish_many(3)
            client = gateway.attach()
            await gateway.deliver()
            [delivery] = client.deliveries
            assert delivery.attempts == ({} if life == 1 else {"2": life})
            if life == 1:
                await gateway.ack(client, (1, 1), (3, 3))
            await gateway.settle(client, Verb.NACK, (2, 2), delay_ms=0)
            if life == 3:
                [letter] = await gateway.dead_letters()
                assert (letter.attempts, letter.cause) == (3, "nack")
                assert (gateway.statistics().acked, gateway.statistics().dead_lettered) == (2, 1)


async def test_attempts_stand_in_the_checkpoint_and_a_seek_forgets_them(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=4096, crash=True) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(2)
        client = gateway.attach()
        await gateway.deliver()
        await gateway.settle(client, Verb.NACK, (1, 2), delay_ms=0)
        await gateway.seal()
    async with driven(tmp_path, segment_bytes=4096) as gateway:
        client = gateway.attach()
        await gateway.deliver()
        assert client.deliveries[0].attempts == {"1": 2, "2": 2}
        await gateway.engine.seek("orders", SeekTo(position=1), gateway.now)
        client.forget()
        await gateway.deliver()
        assert client.deliveries[0].attempts == {}


@pytest.mark.parametrize("crash", [True, False])
@pytest.mark.parametrize("sealed", [True, False])
async def test_a_restart_does_not_end_a_backoff(tmp_path: Path, crash: bool, sealed: bool) -> None:
    async with driven(tmp_path, segment_bytes=4096, crash=crash) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(4)
        client = gateway.attach()
        await gateway.deliver()
        await gateway.settle(client, Verb.NACK, (1, 1), (3, 3), delay_ms=600_000)
        await gateway.settle(client, Verb.NACK, (2, 2), delay_ms=0)
        if sealed:
            await gateway.seal()
        now = gateway.now
    async with driven(tmp_path, segment_bytes=4096, now=now + 1000) as gateway:
        why = await gateway.engine.why("orders", 3, gateway.now)
        assert (why.reason, why.attempts) == (WhyReason.BACKOFF, 1)
        client = gateway.attach()
        await gateway.deliver()
        assert client.received == [2, 4]
        assert client.deliveries[0].attempts == {"2": 2}
        assert gateway.statistics().delayed == 2
        await gateway.ack(client, (2, 2), (4, 4))
        why = await gateway.engine.why("orders", 3, gateway.now)
        assert (why.reason, why.attempts, why.consumer) == (WhyReason.BACKOFF, 1, None)
        gateway.pass_time(598_000)
        await gateway.deliver()
        assert client.received == [2, 4]
        gateway.pass_time(600_000 // 64 + 1000)
        await gateway.deliver()
        assert client.received == [2, 4, 1, 3]
        assert client.deliveries[-1].attempts == {"1": 2, "3": 2}


async def test_a_settle_of_very_many_leases_is_carried_out_in_steps_and_in_its_order(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_frame_messages_max=1) as gateway:
        await gateway.subscribe(window_max=5000)
        await gateway.publish_many(2700)
        client = gateway.attach()
        await gateway.deliver(3000)
        assert gateway.statistics().in_flight == 2700
        carried_out: list[str] = []

        def settlement(name: str, verb: Verb, low: int, high: int, *, leaves: bool = False) -> tuple[bool, trio.Event]:
            done = trio.Event()
            made = Settlement(
                client.consumer, [Settle(verb, [(low, high)], delay_ms=0)], lambda _: done.set(), leaves=leaves
            )
            made.carried_out = lambda settled: carried_out.append(f"{name} {settled.counts[verb]} {settled.unknown}")
            return gateway.engine.settle(made, gateway.now), done

        first, acked = settlement("ack", Verb.ACK, 1, 2699)
        second, left = settlement("nack", Verb.NACK, 2600, 2700, leaves=True)
        assert (first, second, gateway.statistics().acked) == (False, False, 1000)
        steps = 1
        while gateway.engine.tick(gateway.now):
            steps += 1
        assert steps >= 3
        assert carried_out == ["ack 2699 0", "nack 1 100"]
        assert (gateway.statistics().acked, gateway.statistics().waiting) == (2699, 1)
        await gateway.wait(acked)
        await gateway.wait(left)
        assert gateway.statistics().consumers == 0


async def test_who_leaves_in_the_midst_of_a_large_settle_gives_the_rest_back(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_frame_messages_max=1) as gateway:
        await gateway.subscribe(window_max=5000)
        await gateway.publish_many(1700)
        client = gateway.attach()
        await gateway.deliver(3000)
        done = trio.Event()
        made = Settlement(client.consumer, [Settle(Verb.ACK, [(0, 2**53 - 1)])], lambda _: done.set())
        assert not gateway.engine.settle(made, gateway.now)
        gateway.engine.detach(client.consumer, gateway.now)
        gateway.pass_time(100)
        await gateway.wait(done)
        assert made.counts[Verb.ACK] == 1000
        assert (gateway.statistics().acked, gateway.statistics().waiting) == (1000, 700)
