"""Time to live and retention, for messages that nobody takes. `statistics` checks conservation every time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateway.model import Verb
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import Driven, driven, message

DAY_MS = 24 * 3600 * 1000
RETENTION_S = 3600
LEASE_MS = 30_000


async def sweep(gateway: Driven, later_ms: int = 0) -> int:
    """Let time pass, and sweep; what has expired by then."""
    if later_ms:
        gateway.pass_time(later_ms)
    with trio.fail_after(20):
        await gateway.engine.sweep(gateway.now)
    return gateway.statistics().expired


# --------------------------------------------------------------------------------------------------------- time to live


async def test_a_message_expires_at_its_time_though_nobody_is_there(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(ttl_ms=1000), message(), message(ttl_ms=2000))
        assert await sweep(gateway, 900) == 0
        assert await sweep(gateway, 100) == 1
        assert (await gateway.engine.why("orders", 1, gateway.now)).reason.value == "expired"
        assert await sweep(gateway, 1000) == 2
        assert gateway.statistics().waiting == 1
        assert await gateway.consume() == [2]


@pytest.mark.parametrize("crash", [True, False])
async def test_what_expired_is_in_the_log(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash) as gateway:
        await gateway.subscribe()
        await gateway.publish(*(message(ttl_ms=1000 if number % 2 else 0) for number in range(20)))
        assert await sweep(gateway, 1000) == 10
        await gateway.publish_many(1, "nobody")
    async with driven(tmp_path) as gateway:
        assert (gateway.statistics().expired, gateway.statistics().waiting) == (10, 10)
        assert await sweep(gateway, 1000) == 10
        assert await gateway.consume() == list(range(1, 21, 2))


async def test_what_came_back_and_what_backs_off_expires_too(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish(*(message(ttl_ms=60_000) for _ in range(5)), message())
        await gateway.deliver()
        await gateway.settle(client, Verb.NACK, (2, 3), delay_ms=300_000)
        gateway.engine.detach(client.consumer, gateway.now)
        assert (gateway.statistics().delayed, gateway.statistics().waiting) == (2, 4)
        assert await sweep(gateway, 60_000) == 5
        assert (gateway.statistics().delayed, gateway.statistics().waiting) == (0, 1)
        assert await gateway.consume() == [6]


async def test_what_a_consumer_holds_is_left_to_it_and_expires_when_it_comes_back(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish(message(ttl_ms=1000), message(ttl_ms=1000))
        await gateway.deliver()
        assert await sweep(gateway, 1000) == 0
        assert await gateway.ack(client, (1, 1)) == 1
        gateway.engine.detach(client.consumer, gateway.now)
        assert await sweep(gateway) == 1
        assert gateway.statistics().waiting == 0


@pytest.mark.parametrize("ttl_ms", [1000, 0], ids=["time to live", "retention"])
async def test_what_cannot_be_read_expires_as_all_else(tmp_path: Path, ttl_ms: int) -> None:
    """It would come behind a restart that finds it mended, however old it is by then."""
    disk = FaultyFiles()
    async with driven(tmp_path, disk, cache_bytes=0) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S)
        await gateway.publish(message(), message(ttl_ms=ttl_ms), message())
        client = gateway.attach()
        disk.fail("read")
        await gateway.deliver()
        assert client.received == []
        assert gateway.statistics().waiting == 3
        assert await sweep(gateway, 1000) == (1 if ttl_ms else 0)
        if not ttl_ms:
            assert await sweep(gateway, 1000 * RETENTION_S) == 3
        await gateway.publish(message())
    async with driven(tmp_path, now=gateway.now) as gateway:
        assert await gateway.consume() == ([1, 3, 4] if ttl_ms else [4])


async def test_an_expired_message_of_a_key_lets_the_next_follow(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await gateway.publish(*(message(key="a", ttl_ms=ttl) for ttl in (90_000, 1000, 0)))
        await gateway.deliver()
        assert await sweep(gateway, 1000) == 1, "it waits behind its key"
        await gateway.settle(client, Verb.NACK, (1, 1), delay_ms=600_000)
        assert await sweep(gateway, 90_000) == 2
        client.forget()
        gateway.engine._turns.mark(client.consumer.subscription)
        await gateway.deliver()
        assert client.received == [3]


async def test_a_time_to_live_runs_from_when_a_delayed_message_is_due(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(delay_ms=DAY_MS, ttl_ms=1000))
        assert await sweep(gateway, DAY_MS) == 0
        assert await sweep(gateway, 1000) == 1


async def test_every_subscription_settles_its_own(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.subscribe("stock", "stock.>")
        await gateway.publish(message(ttl_ms=1000), message("stock.low", ttl_ms=1000), message("stock.low"))
        assert await sweep(gateway, 1000) == 1
        assert gateway.statistics("stock").expired == 1


async def test_a_segment_in_which_all_has_expired_is_released(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=2000) as gateway:
        await gateway.subscribe()
        await gateway.publish(*(message(data="." * 300, ttl_ms=1000) for _ in range(5)))
        first = gateway.engine._log.segments[0].number
        await sweep(gateway, 1000)
        await gateway.seal()
        await gateway.seal()
        assert gateway.engine._log.segments[0].number > first


# ------------------------------------------------------------------------------------------------------------ retention


async def test_what_is_older_than_the_retention_expires_and_nothing_younger(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=3000) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S)
        for _ in range(10):
            await gateway.publish_many(3, size=200)
            gateway.now += 60_000
        assert await sweep(gateway) == 0
        gateway.now += RETENTION_S * 1000 - 10 * 60_000
        for minute in range(11):
            assert await sweep(gateway) == min(3 * minute, 30), minute
            gateway.now += 60_000
        assert gateway.statistics().waiting == 0


async def test_what_is_out_is_left_alone_and_expires_when_it_came_back(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S, lease_ms=12 * 3600 * 1000)
        client = gateway.attach()
        await gateway.publish_many(6)
        await gateway.deliver(1)
        await gateway.settle(client, Verb.NACK, (1, 2), delay_ms=7200_000)
        await gateway.settle(client, Verb.NACK, (3, 3), delay_ms=0)
        gateway.engine.take(gateway.now)
        assert await sweep(gateway, RETENTION_S * 1000 + 1) == 0
        gateway.engine.detach(client.consumer, gateway.now)
        assert await sweep(gateway) == 4
        assert gateway.statistics().delayed == 2
        assert await sweep(gateway, 7200_000) == 6


async def test_a_delayed_message_is_kept_until_it_is_due_and_then_as_long_as_others(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S)
        await gateway.publish(message(), message(delay_ms=30 * DAY_MS), message())
        assert await sweep(gateway, 29 * DAY_MS) == 2
        assert gateway.statistics().delayed == 1
        assert await sweep(gateway, DAY_MS + 1000) == 2
        assert await sweep(gateway, RETENTION_S * 1000) == 3


@pytest.mark.parametrize("crash", [True, False])
async def test_retention_survives_a_restart_and_conserves(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S)
        await gateway.publish_many(4)
        assert await sweep(gateway, RETENTION_S * 1000 + 1) == 4
        await gateway.publish_many(2)
    async with driven(tmp_path, now=gateway.now) as gateway:
        assert (gateway.statistics().expired, gateway.statistics().waiting) == (4, 2)
        assert await gateway.consume() == [5, 6]


async def test_retention_of_an_ordered_subscription_takes_what_waits_behind_its_key(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S, ordered=True, lease_ms=12 * 3600 * 1000)
        gateway.attach(window=2)
        await gateway.publish(*(message(key=key) for key in "aabaac"))
        await gateway.deliver()
        assert await sweep(gateway, RETENTION_S * 1000 + 1) == 4
        assert (gateway.statistics().in_flight, gateway.statistics().waiting) == (2, 0)


async def test_what_was_given_up_may_be_redriven_no_longer_than_the_retention(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S)
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 1))
        await gateway.dead_letters()
        await sweep(gateway, RETENTION_S * 1000 + 1)
        assert await gateway.engine.redrive("orders", gateway.now) == 0


async def test_redriven_messages_that_nobody_takes_expire(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(retention_s=RETENTION_S)
        client = gateway.attach()
        await gateway.publish_many(3)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (2, 2))
        await gateway.dead_letters()
        await gateway.ack(client)
        gateway.engine.detach(client.consumer, gateway.now)
        assert await gateway.engine.redrive("orders", gateway.now) == 1
        assert gateway.statistics().waiting == 1
        assert await sweep(gateway, RETENTION_S * 1000 + 1) == 1
        assert gateway.statistics().waiting == 0


async def test_what_comes_between_a_sweep_and_the_seal_expires_in_its_time(tmp_path: Path) -> None:
    async with driven(tmp_path, segment_bytes=4096) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(ttl_ms=60_000))
        await gateway.engine.sweep(gateway.now)
        await gateway.publish(message(ttl_ms=1000))
        await gateway.seal()
        gateway.pass_time(1000)
        await gateway.engine.sweep(gateway.now)
        assert gateway.statistics().expired == 1
        gateway.pass_time(59_000)
        await gateway.engine.sweep(gateway.now)
        assert gateway.statistics().expired == 2


async def test_a_look_at_many_times_lets_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine.sweeping._LOOK_MAX", 10)
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        await gateway.publish(*(message(ttl_ms=1000 + number) for number in range(95)))
        gateway.pass_time(1050)
        await gateway.engine.sweep(gateway.now)
        assert gateway.statistics().expired == 51
        await gateway.publish(message(ttl_ms=5))
        gateway.pass_time(5)
        await gateway.engine.sweep(gateway.now)
        assert gateway.statistics().expired == 57
        gateway.pass_time(10_000)
        await gateway.engine.sweep(gateway.now)
        assert gateway.statistics().expired == 96
