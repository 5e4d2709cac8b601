"""Seek, redrive, why. `statistics` checks conservation (promise 6) every time it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.errors import GatewayError
from gateway.model import Batch, Message, SeekTo, Start, Verb, Why
from tests import conservation
from tests.engine.driving import Client, Driven, driven, message

LEASE_MS = 30_000


async def seek(gateway: Driven, **to: Any) -> tuple[int, int, int]:
    with trio.fail_after(10):
        sought = await gateway.engine.seek("orders", SeekTo(**to), gateway.now)
    gateway.statistics()
    return sought.position, sought.again, sought.skipped


async def redrive(gateway: Driven) -> int:
    with trio.fail_after(10):
        redriven = await gateway.engine.redrive("orders", gateway.now)
    gateway.statistics()
    return redriven


async def why(gateway: Driven, position: int) -> Why:
    with trio.fail_after(10):
        return await gateway.engine.why("orders", position, gateway.now)


async def reason(gateway: Driven, position: int) -> str:
    return (await why(gateway, position)).reason.value


# ---------------------------------------------------------------------------------------------------------------- seek


async def test_a_seek_back_makes_settled_messages_due_once_more(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(5)
        assert await gateway.consume() == [1, 2, 3, 4, 5]
        assert await seek(gateway, position=3) == (3, 3, 0)
        shown = gateway.statistics()
        assert (shown.routed, shown.acked, shown.waiting) == (8, 5, 3)
        assert await gateway.consume() == [3, 4, 5]
        assert gateway.statistics().acked == 8


async def test_a_seek_ahead_settles_what_it_goes_past_as_skipped(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(5)
        assert await seek(gateway, position=4) == (4, 0, 3)
        shown = gateway.statistics()
        assert (shown.routed, shown.expired, shown.skipped, shown.waiting) == (5, 3, 3, 2)
        assert await gateway.consume() == [4, 5]


async def test_start_and_end_are_the_ends_of_what_is_kept(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(3)
        assert await seek(gateway, edge=Start.END) == (4, 0, 3)
        assert await gateway.consume() == []
        assert await seek(gateway, edge=Start.START) == (1, 3, 0)
        assert await gateway.consume() == [1, 2, 3]


async def test_a_place_that_is_not_there_is_the_nearest_that_is(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(2)
        assert await seek(gateway, position=900) == (3, 0, 2)
        assert await seek(gateway, position=0) == (1, 2, 0)


async def test_messages_from_before_the_subscription_are_not_its_own(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("others")
        await gateway.publish_many(2)
        await gateway.subscribe()
        await gateway.publish_many(1)
        await gateway.consume()
        assert await seek(gateway, edge=Start.START) == (1, 1, 0)
        assert await gateway.consume() == [3]


async def test_a_time_is_found_among_segments_and_in_them(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=5000) as gateway:
        await gateway.subscribe()
        times: dict[int, int] = {}
        for _ in range(40):
            gateway.now += 10
            for position in await gateway.publish_many(2, size=200):
                times[position] = gateway.now
        assert len(gateway.engine._log.segments) > 3
        for time_ms in range(min(times.values()) - 5, max(times.values()) + 10, 5):
            expected = min((p for p, stored in times.items() if stored >= time_ms), default=max(times) + 1)
            position, *_ = await seek(gateway, time_ms=time_ms)
            assert position == expected
            assert (await gateway.consume())[:1] == ([expected] if expected in times else [])


async def test_a_seek_takes_back_what_consumers_hold(tmp_path: Path) -> None:
    """They are told `unknown` when they settle it; their windows are free, and attempts begin anew."""
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=3)
        await gateway.publish_many(6)
        await gateway.deliver()
        assert client.received == [1, 2, 3]
        assert await seek(gateway, position=2) == (2, 0, 1)
        assert gateway.statistics().in_flight == 0
        settlement = await gateway.settle(client, Verb.ACK, (1, 3))
        assert (settlement.counts[Verb.ACK], settlement.unknown) == (0, 3)
        client.forget()
        await gateway.deliver()
        assert client.received == [2, 3, 4]
        assert [delivery.attempts for delivery in client.deliveries] == [{}]
        gateway.pass_time(LEASE_MS)
        assert gateway.statistics().in_flight == 0, "the first leases do not come back a second time"
        gateway.engine.detach(client.consumer, gateway.now)
        assert await gateway.consume() == [2, 3, 4, 5, 6]


async def test_what_waits_for_its_time_is_due_at_once_behind_a_seek(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        await gateway.settle(client, Verb.NACK, (1, 2), delay_ms=60_000)
        assert gateway.statistics().delayed == 2
        assert await seek(gateway, position=2) == (2, 0, 1)
        client.forget()
        await gateway.deliver()
        assert client.received == [2]
        gateway.pass_time(60_000)
        await gateway.deliver()
        assert client.received == [2, 2], "by its lease, not by the backoff of before"


async def test_a_delivery_that_is_read_from_the_disk_meanwhile_is_not_sent(tmp_path: Path) -> None:
    async with driven(tmp_path, cache_bytes=0) as gateway:
        await gateway.subscribe()
        client = gateway.attach(once=True)
        await gateway.publish_many(2)
        taken = gateway.engine.take(gateway.now)
        assert taken is not None
        consumer, delivery = taken
        assert not gateway.engine.is_loaded(delivery)
        await seek(gateway, position=2)
        await gateway.engine.load(delivery)
        gateway.engine.send(consumer, delivery, gateway.now)
        assert client.deliveries == []
        await gateway.deliver()
        assert client.received == [2], "the pull goes on waiting, and is served"


async def test_dead_letters_on_their_way_are_taken_back(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(3)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 2))
        first = (await gateway.engine.dead_letters())[0]
        await gateway.settle(client, Verb.TERM, (3, 3))
        assert await seek(gateway, position=2) == (2, 0, 1)
        gateway.engine.bury(first, gateway.now)
        shown = gateway.statistics()
        assert (shown.dead_lettered, shown.skipped, shown.waiting, shown.in_flight) == (0, 1, 2, 0)
        assert await gateway.engine.dead_letters() == []


@pytest.mark.parametrize("crash", [True, False])
async def test_a_seek_survives_a_restart(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(6)
        assert await gateway.consume() == [1, 2, 3, 4, 5, 6]
        await seek(gateway, position=3)
        client = gateway.attach(window=2)
        await gateway.deliver()
        assert await gateway.ack(client) == 2
        before = gateway.statistics()
        await gateway.publish_many(1, "nobody")
    async with driven(tmp_path) as gateway:
        after = gateway.statistics()
        assert (after.routed, after.acked, after.waiting) == (before.routed, before.acked, 2) == (10, 8, 2)
        assert await gateway.consume() == [5, 6]


async def test_replay_hands_over_to_live_without_gap_or_repeat(tmp_path: Path) -> None:
    """A seek to the start while messages come in: from then on each of them once, in order."""
    async with driven(tmp_path, cache_bytes=2000, segment_bytes=20_000) as gateway:
        await gateway.subscribe()
        await gateway.subscribe("keeper")  # so that no segment goes
        client = gateway.attach(window=50)
        published = await gateway.publish_many(300, size=50)
        while len(client.received) < 150:
            await gateway.deliver()
            await gateway.ack(client)
        _, again, _ = await seek(gateway, edge=Start.START)
        assert again == 150
        client.forget()

        async def produce() -> None:
            for _ in range(60):
                published.extend(await gateway.publish_many(5, size=50))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            with trio.fail_after(30):
                while len(client.received) < 600:
                    await gateway.deliver()
                    await gateway.ack(client)
        assert client.received == published
        assert gateway.statistics().waiting == 0


async def test_a_seek_while_the_past_is_searched_is_told_to_wait(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        gateway.engine._catalogue.known("orders").unfilled = True
        with pytest.raises(GatewayError, match="still being searched") as refused:
            await seek(gateway, position=1)
        assert refused.value.kind.temporary


# ------------------------------------------------------------------------------------------------------------- redrive


async def give_up(gateway: Driven, client: Client, *positions: int) -> None:
    """Term them, and have their dead letters stored."""
    for position in positions:
        await gateway.settle(client, Verb.TERM, (position, position))
    await gateway.dead_letters()


async def test_a_redrive_brings_dead_letters_back_in_order_and_with_new_attempts(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.subscribe("others")
        client = gateway.attach()
        others = await gateway.publish_many(6)
        await gateway.deliver()
        await give_up(gateway, client, 5, 2, 3)
        bodies = client.bodies
        assert await gateway.ack(client) == 3
        assert await redrive(gateway) == 3
        shown = gateway.statistics()
        assert (shown.routed, shown.acked, shown.dead_lettered, shown.waiting) == (9, 3, 3, 3)
        client.forget()
        await gateway.deliver()
        assert client.received == [2, 3, 5]
        assert client.bodies == [bodies[1], bodies[2], bodies[4]], "byte for byte"
        assert [delivery.attempts for delivery in client.deliveries] == [{}] * len(client.deliveries)
        assert await gateway.ack(client) == 3
        assert gateway.statistics("others").waiting == 6
        assert await gateway.consume("others") == others, "to this subscription only"
        assert await redrive(gateway) == 0


async def test_what_was_acked_between_dead_letters_is_not_redriven(tmp_path: Path) -> None:
    """A restart delivers what is left as one slice, across what is settled; given up, it takes nothing else along."""
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(5)
        await gateway.deliver()
        await gateway.ack(client, (2, 2), (4, 4))
    async with driven(tmp_path) as gateway:
        client = gateway.attach()
        await gateway.deliver()
        assert client.received == [1, 3, 5]
        await gateway.settle(client, Verb.TERM, (1, 5))
        await gateway.dead_letters()
        assert await redrive(gateway) == 3
        client.forget()
        await gateway.deliver()
        assert sorted(client.received) == [1, 3, 5]


@pytest.mark.parametrize("crash", [True, False])
async def test_dead_letters_and_their_redrive_survive_restarts(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(4)
        await gateway.deliver()
        await give_up(gateway, client, 1, 3)
        assert await gateway.ack(client) == 2
    async with driven(tmp_path, crash=crash) as gateway:
        assert await redrive(gateway) == 2
        client = gateway.attach(window=1)
        await gateway.deliver()
        assert client.received == [1]
        await gateway.ack(client)
    async with driven(tmp_path) as gateway:
        shown = gateway.statistics()
        assert (shown.routed, shown.acked, shown.dead_lettered, shown.waiting) == (6, 3, 2, 1)
        assert await gateway.consume() == [3]


async def test_a_segment_stays_while_what_was_given_up_in_it_may_be_redriven(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=2000) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(4, size=500)
        await gateway.deliver()
        await give_up(gateway, client, 2)
        await gateway.ack(client)
        first = gateway.engine._log.segments[0].number
        await gateway.seal()
        await gateway.seal()
        assert gateway.engine._log.segments[0].number == first
        assert await redrive(gateway) == 1
        client.forget()
        await gateway.deliver()
        assert client.received == [2]
        await gateway.ack(client)
        await gateway.seal()
        assert gateway.engine._log.segments[0].number > first


async def test_without_dead_letters_what_is_given_up_is_gone(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(dead_letter="")
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 1))
        assert gateway.statistics().dead_lettered == 1
        assert await redrive(gateway) == 0


async def test_a_seek_decides_over_what_was_given_up_ahead_of_it(tmp_path: Path) -> None:
    """Ahead of it dead letters are due like all else, once; behind it they may still be redriven."""
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(4)
        await gateway.deliver()
        await give_up(gateway, client, 1, 3)
        assert await seek(gateway, position=2) == (2, 1, 0)
        assert await redrive(gateway) == 1
        client.forget()
        await gateway.deliver()
        assert client.received == [1, 2, 3, 4]


# ----------------------------------------------------------------------------------------------------------------- why


async def test_why_filtered(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("orders", "trade.>")
        await gateway.publish_many(1, "stock.low")
        answer = await why(gateway, 1)
        assert answer.reason.value == "filtered"
        assert "trade.>" in answer.detail


async def test_why_no_consumer_and_why_paused(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(1)
        assert await reason(gateway, 1) == "no_consumer"
        gateway.attach()
        assert await reason(gateway, 1) == "waiting"
        await gateway.subscribe(paused=True)
        assert await reason(gateway, 1) == "paused"


async def test_why_waiting_for_a_window(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        gateway.attach(window=1)
        await gateway.publish_many(2)
        await gateway.deliver()
        assert await reason(gateway, 2) == "window"


async def test_why_leased_and_to_whom_and_until_when(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        gateway.attach()
        await gateway.publish_many(3)
        await gateway.deliver()
        answer = await why(gateway, 2)
        assert (answer.reason.value, answer.consumer, answer.attempts) == ("leased", "test", 1)
        assert answer.until_ms == gateway.now + LEASE_MS + (-gateway.now % 100)


async def test_why_leased_before_the_frame_is_handed_over(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        gateway.attach()
        await gateway.publish_many(1)
        assert gateway.engine.take(gateway.now) is not None
        answer = await why(gateway, 1)
        assert (answer.reason.value, answer.consumer, answer.until_ms) == ("leased", "test", None)


async def test_why_backing_off(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        await gateway.settle(client, Verb.NACK, (1, 1), delay_ms=5000)
        answer = await why(gateway, 1)
        assert (answer.reason.value, answer.attempts) == ("backoff", 1)
        assert answer.until_ms is not None
        assert gateway.now + 5000 <= answer.until_ms < gateway.now + 5100


async def test_why_delayed_before_and_behind_the_front(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(delay_ms=5000))
        due_ms = gateway.now + 5000
        for _ in range(2):
            answer = await why(gateway, 1)
            assert answer.reason.value == "delayed"
            assert answer.until_ms is not None
            assert due_ms <= answer.until_ms < due_ms + 100
            gateway.attach()
            await gateway.deliver()


async def test_why_acked(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(2)
        await gateway.consume()
        assert await reason(gateway, 2) == "acked"


async def test_why_expired(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(ttl_ms=1000))
        gateway.pass_time(1000)
        assert await reason(gateway, 1) == "expired"
        assert await gateway.consume() == []
        assert await reason(gateway, 1) == "expired"
        assert gateway.statistics().expired == 1


async def test_why_on_the_way_to_the_dead_letters_and_why_dead_lettered(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 1))
        assert await reason(gateway, 1) == "dead_lettering"
        await gateway.dead_letters()
        assert await reason(gateway, 1) == "dead_lettered"
        await redrive(gateway)
        assert await reason(gateway, 1) == "waiting"
        await gateway.deliver()
        assert await reason(gateway, 1) == "leased"
        await gateway.ack(client)
        assert await reason(gateway, 1) == "acked"


async def test_why_skipped_and_what_a_seek_changes(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=1)
        await gateway.publish_many(3)
        await gateway.deliver()
        await gateway.ack(client)
        await seek(gateway, position=3)
        assert [await reason(gateway, position) for position in (1, 2, 3)] == ["acked", "skipped", "waiting"]
        await seek(gateway, position=1)
        assert await reason(gateway, 2) == "waiting"


async def test_why_of_what_is_not_stored_and_of_what_is_gone(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=2000) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(1, size=500)
        with pytest.raises(GatewayError, match="the next is 2") as refused:
            await why(gateway, 2)
        assert refused.value.code == "not_found"
        await gateway.consume()
        await gateway.seal()
        await gateway.seal()
        assert gateway.engine._log.segments[0].base > 1
        assert await reason(gateway, 1) == "settled"


async def test_a_redrive_of_many_goes_in_steps_and_others_run_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.broker.revisit.RANGES_MAX", 2)
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(20)
        await gateway.deliver()
        await give_up(gateway, client, *range(1, 20, 2))
        assert await gateway.ack(client) == 10
        client.forget()
        assert await redrive(gateway) == 10
        await gateway.deliver()
        assert client.received == list(range(1, 20, 2))
        await gateway.ack(client)
        assert gateway.statistics().waiting == 0


async def test_what_is_redriven_ahead_of_the_front_comes_once(tmp_path: Path) -> None:
    """Behind a restart the front begins at the first that is not settled, and comes to what is redriven by itself."""
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(6)
        await gateway.deliver()
        await give_up(gateway, client, 3, 5)
    async with driven(tmp_path) as gateway:
        client = gateway.attach(window=2)
        await gateway.deliver()
        assert client.received == [1, 2]
        assert await redrive(gateway) == 2
        await gateway.ack(client)
        gateway.engine.detach(client.consumer, gateway.now)
        assert await gateway.consume() == [3, 4, 5, 6]
        assert gateway.statistics().waiting == 0


# ----------------------------------------------------------------------------------- what is not due yet, counted anew


async def delayed(gateway: Driven, count: int) -> None:
    await gateway.subscribe()
    await gateway.publish(*(message(delay_ms=5000 + number) for number in range(count)))
    assert await gateway.consume() == []


async def test_a_seek_counts_in_steps_while_messages_are_published_and_come_due(tmp_path: Path) -> None:
    passes = 0

    async with driven(tmp_path) as gateway, trio.open_nursery() as nursery:
        await delayed(gateway, 1000)

        async def go_on() -> None:
            nonlocal passes
            subscription = gateway.engine._catalogue.known("orders")
            while subscription.counting is None:
                await trio.lowlevel.checkpoint()
            while subscription.counting is not None:
                passes += 1
                gateway.engine.append([routed(gateway, message(delay_ms=1), message(delay_ms=70_000))], gateway.now)
                gateway.pass_time(5100 if passes == 2 else 1)
                gateway.statistics()
                await trio.lowlevel.checkpoint()

        nursery.start_soon(go_on)
        assert await seek(gateway, edge=Start.START) == (1, 0, 0)
        assert passes >= 3
        conservation.check_engine(gateway.engine)
        gateway.pass_time(5000)
        received = await gateway.consume()
        assert len(set(received)) == len(received) == 1000 + passes
        assert gateway.statistics().delayed == passes


def routed(gateway: Driven, *messages: Message) -> Batch:
    batch = gateway.batch(*messages)
    gateway.engine.route(batch)
    return batch


async def test_a_seek_that_is_given_up_has_counted_all_the_same(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway, trio.open_nursery() as nursery:
        await delayed(gateway, 1000)
        subscription = gateway.engine._catalogue.known("orders")
        nursery.start_soon(gateway.engine.seek, "orders", SeekTo(position=0), gateway.now)
        while subscription.counting is None:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert (subscription.not_due, subscription.restarting) == (1000, False)


async def test_of_two_seeks_at_once_the_later_counts(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await delayed(gateway, 1000)
        subscription = gateway.engine._catalogue.known("orders")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.engine.seek, "orders", SeekTo(position=0), gateway.now)
            while subscription.counting is None:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(gateway.engine._steering._take_back_and_go, subscription, 501)  # both are synced
        assert gateway.statistics().delayed == 500
        assert not subscription.restarting
