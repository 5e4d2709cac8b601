"""Order by key, as promise 4 has it, on the whole engine. `statistics` checks conservation every time."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import trio

from gateway.model import SeekTo, Start, Verb
from tests.engine.driving import Client, Driven, driven, message

LEASE_MS = 30_000


async def publish(gateway: Driven, keys: str) -> list[int]:
    """One message a character; a space is none of the subscription's, a dot has no key."""
    batch = await gateway.publish(
        *(message("other" if key == " " else "trade.paid", key, key=None if key in ". " else key) for key in keys)
    )
    return list(range(batch.first, batch.first + len(keys)))


async def settle(gateway: Driven, client: Client, verb: Verb, *positions: int, **more: int) -> None:
    await gateway.settle(client, verb, *((position, position) for position in positions), **more)


def news(client: Client) -> list[int]:
    """What came since the last call."""
    found = client.received
    client.forget()
    return found


async def test_a_key_s_next_message_waits_for_the_one_before(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "aab. cba")
        await gateway.deliver()
        assert news(client) == [1, 3, 4, 6]
        gateway.statistics()
        await settle(gateway, client, Verb.ACK, 1)
        await gateway.deliver()
        assert news(client) == [2]
        await settle(gateway, client, Verb.ACK, 2, 3)
        await gateway.deliver()
        assert sorted(news(client)) == [7, 8]
        await gateway.ack(client)
        assert gateway.statistics().acked == 7


async def test_a_stuck_key_delays_only_itself(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "ab" * 50)
        seen: list[int] = []
        for _ in range(60):
            await gateway.deliver()
            got = news(client)
            seen += got
            await settle(gateway, client, Verb.ACK, *(position for position in got if position % 2 == 0))
        assert seen == [1, *range(2, 101, 2)]
        assert gateway.statistics().waiting == 49
        assert gateway.engine._catalogue.known("orders").keys == 1
        await settle(gateway, client, Verb.ACK, 1)
        gateway.engine.detach(client.consumer, gateway.now)
        assert await gateway.consume() == list(range(3, 100, 2))


@pytest.mark.parametrize("verb", [Verb.NACK, Verb.TERM])
async def test_a_message_that_comes_back_or_dies_keeps_its_key_until_it_is_settled(tmp_path: Path, verb: Verb) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "aab")
        await gateway.deliver()
        assert news(client) == [1, 3]
        await settle(gateway, client, verb, 1)
        await gateway.deliver()
        assert news(client) == []
        if verb is Verb.NACK:
            gateway.pass_time(12_000)
            await gateway.deliver()
            assert news(client) == [1]
            await settle(gateway, client, Verb.ACK, 1)
        else:
            await gateway.dead_letters()
        await gateway.deliver()
        assert news(client) == [2]


async def test_an_expired_lease_brings_back_the_same_message_and_not_the_next(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "aaa")
        for attempt in (1, 2):
            await gateway.deliver()
            assert news(client) == [1], attempt
            gateway.pass_time(LEASE_MS)
        gateway.engine.detach(client.consumer, gateway.now)
        assert await gateway.consume() == [1, 2, 3]


async def test_a_message_whose_time_is_over_lets_the_next_follow(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await gateway.publish(message(key="a"), message(key="a", ttl_ms=500), message(key="a"))
        await gateway.deliver()
        assert news(client) == [1]
        gateway.pass_time(1000)
        await settle(gateway, client, Verb.ACK, 1)
        await gateway.deliver()
        assert news(client) == [3]
        assert gateway.statistics().expired == 1


@pytest.mark.parametrize("crash", [True, False])
async def test_the_order_holds_over_a_restart(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash, segment_bytes=3000) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "ab a" * 20)
        await gateway.deliver()
        assert news(client) == [1, 2]
        await settle(gateway, client, Verb.ACK, 2)
        await gateway.publish_many(1, "nobody")
    async with driven(tmp_path) as gateway:
        client = gateway.attach()
        await gateway.deliver()
        assert news(client) == [1, 6]
        gateway.engine.detach(client.consumer, gateway.now)
        found = await gateway.consume()
        assert [p for p in found if p % 4 == 2] == list(range(6, 80, 4))
        assert [p for p in found if p % 4 != 2] == [p for p in range(1, 81) if p % 4 in (1, 0)]


async def test_at_the_bound_of_keys_the_subscription_waits_and_loses_nothing(tmp_path: Path) -> None:
    async with driven(tmp_path, deliver_keys_max=3) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "abcdea.")
        await gateway.deliver()
        assert news(client) == [1, 2, 3]
        assert gateway.engine.take(gateway.now) is None
        await settle(gateway, client, Verb.ACK, 2)
        await gateway.deliver()
        assert news(client) == [4]
        gateway.engine.detach(client.consumer, gateway.now)
        assert sorted(await gateway.consume()) == [1, 3, 4, 5, 6, 7]


async def test_a_change_of_the_order_takes_back_what_is_out(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await publish(gateway, "aab")
        await gateway.deliver()
        assert news(client) == [1, 2, 3]
        await gateway.subscribe(ordered=True)
        assert gateway.statistics().in_flight == 0
        await gateway.deliver()
        assert news(client) == [1, 3]
        await settle(gateway, client, Verb.ACK, 3)
        await gateway.subscribe(ordered=False)
        await gateway.deliver()
        assert news(client) == [1, 2]


async def test_redriven_messages_wait_for_their_keys_too(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "aaab")
        await gateway.deliver()
        for position in (1, 2):
            await settle(gateway, client, Verb.TERM, position)
            await gateway.dead_letters()
            await gateway.deliver()
        assert news(client) == [1, 4, 2, 3]
        assert await gateway.engine.redrive("orders", gateway.now) == 2
        await gateway.deliver()
        assert news(client) == [], "3 is out"
        await settle(gateway, client, Verb.ACK, 3)
        await gateway.deliver()
        assert news(client) == [1]
        await settle(gateway, client, Verb.ACK, 1)
        await gateway.deliver()
        assert news(client) == [2]
        await gateway.ack(client)
        assert gateway.statistics().waiting == 0


async def test_a_seek_replays_in_order(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        await publish(gateway, "abab")
        assert sorted(await gateway.consume()) == [1, 2, 3, 4]
        await gateway.engine.seek("orders", SeekTo(edge=Start.START), gateway.now)
        client = gateway.attach()
        await gateway.deliver()
        assert news(client) == [1, 2]


async def test_why_behind_a_key(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(ordered=True)
        client = gateway.attach()
        await publish(gateway, "aaa")
        await gateway.deliver()
        answer = await gateway.engine.why("orders", 3, gateway.now)
        assert (answer.reason.value, answer.behind) == ("key", 1)
        await settle(gateway, client, Verb.ACK, 1)
        assert (await gateway.engine.why("orders", 3, gateway.now)).reason.value == "waiting"
        await gateway.deliver()
        assert (await gateway.engine.why("orders", 3, gateway.now)).behind == 2


async def test_many_keys_many_consumers_and_failures_keep_every_key_in_order(tmp_path: Path) -> None:
    """First deliveries of each key follow position, and no two of a key are unsettled and out at once."""
    async with driven(tmp_path, segment_bytes=20_000, cache_bytes=4000) as gateway:
        await gateway.subscribe(ordered=True, lease_ms=1000, backoff_ms=(200,), attempts_max=1000)
        clients = [gateway.attach(window=window) for window in (3, 20, 50)]
        keys = "".join("abcdefghij"[number * number % 10] for number in range(600))
        await publish(gateway, keys[:300])
        first: list[int] = []
        seen: set[int] = set()
        with trio.fail_after(60):
            for turn in range(2000):
                if turn == 20:
                    await publish(gateway, keys[300:])
                await gateway.deliver()
                out = [p for client in clients for p in client.received]
                held = [keys[p - 1] for p in out]
                assert len(held) == len(set(held)), "one of a key at a time"
                for client in clients:
                    for body in client.bodies:
                        position = orjson.loads(body)["position"]
                        if position not in seen:
                            seen.add(position)
                            first.append(position)
                    got = news(client)
                    await settle(gateway, client, Verb.ACK, *(p for p in got if (p + turn) % 5))
                    await settle(gateway, client, Verb.NACK, *(p for p in got if not (p + turn) % 5))
                gateway.pass_time(100)
                if gateway.statistics().acked == 600:
                    break
        assert gateway.statistics().acked == 600
        for key in set(keys):
            of_key = [position for position in first if keys[position - 1] == key]
            assert of_key == sorted(of_key)
