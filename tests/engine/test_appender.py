"""Publishing: repeats are recognised, and whoever is there when a message gets its place gets the message."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.errors import GatewayError
from gateway.model import Message, Start
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
