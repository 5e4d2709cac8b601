"""Publishing: repeats are recognised, and whoever is there when a message gets its place gets the message."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.errors import GatewayError
from gateway.model import Batch, Message, Start
from gateway.store.recovery import segment_name
from tests.engine.driving import BEGAN_MS, Driven, driven, message

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


# -------------------------------------------------------------------------------------------------------------- records


def records_of(gateway: Driven) -> list[tuple[int, int]]:
    """(first position, messages) of each MESSAGES record of the active segment."""
    index = gateway.engine._log.active.growing
    ends = [*index.firsts[1:], len(index)]
    return [(first + 1, end - first) for first, end in zip(index.firsts, ends, strict=True)]


def routed(gateway: Driven, topic: str, count: int = 1) -> Batch:
    batch = gateway.batch(*[message(topic, f"{topic} {n}") for n in range(count)])
    gateway.engine.route(batch)
    return batch


@pytest.mark.parametrize("crash", [True, False])
async def test_small_batches_that_go_different_ways_share_a_record(tmp_path: Path, crash: bool) -> None:
    async with driven(tmp_path, crash=crash) as gateway:
        for name, *topics in (("all", "trade.>"), ("paid", "trade.paid"), ("sent", "trade.sent")):
            await gateway.subscribe(name, *topics)
        topics = ["trade.paid", "trade.sent", "trade.sent", "nobody.s", "trade.paid"]
        batches = [routed(gateway, topic, 1 + (topic == "nobody.s")) for topic in topics]
        gateway.engine.append(batches, gateway.now)
        await gateway.publish_many(1)
        assert records_of(gateway) == [(1, 6), (7, 1)]
        assert [(batch.first, batch.time_ms) for batch in batches] == [(n, gateway.now) for n in (1, 2, 3, 4, 6)]
        clients = {name: gateway.attach(name) for name in ("all", "paid", "sent")}
        await gateway.deliver()
        data = {name: client.data for name, client in clients.items()}
        assert data["all"][:4] == ["trade.paid 0", "trade.sent 0", "trade.sent 0", "trade.paid 0"]
        assert (len(data["all"]), data["sent"]) == (5, ["trade.sent 0", "trade.sent 0"])
        assert [client.received for client in clients.values()] == [[1, 2, 3, 6, 7], [1, 6, 7], [2, 3]]
        if not crash:
            await gateway.seal()
        await gateway.engine._log.sync()
    async with driven(tmp_path) as gateway:
        assert [await gateway.consume(name) for name in clients] == [[1, 2, 3, 6, 7], [1, 6, 7], [2, 3]]


async def test_a_large_run_has_a_record_of_its_own(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("all", ">")
        sizes = [("a", 1), ("b", 20), ("b", 20), ("a", 1), ("c", 1), ("d", 33), ("d", 1), ("a", 1)]
        gateway.engine.append([routed(gateway, topic, count) for topic, count in sizes], gateway.now)
        await gateway.engine._log.sync()
        assert records_of(gateway) == [(1, 1), (2, 40), (42, 2), (44, 34), (78, 1)]
        assert await gateway.consume("all") == list(range(1, 79))


# --------------------------------------------------------------------------------------------------------------- routes


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
