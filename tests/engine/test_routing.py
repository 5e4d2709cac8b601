"""Filters on the way of a batch: who gets what, what is stored, what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from gateway.engine.sieve import Route
from gateway.errors import GatewayError
from gateway.model import Format, Message, Start, SubscriptionSettings
from tests.engine.driving import Driven, driven, message


async def sent(d: Driven, *data: Any, topic: str = "trade.paid") -> None:
    for each in data:
        batch = await d.publish(message(topic, each))
        assert batch.error is None


async def got(d: Driven, name: str = "orders") -> list[Any]:
    client = d.attach(name)
    await d.deliver()
    found = client.data
    await d.ack(client)
    d.engine.detach(client.consumer, d.now)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "data.n > 1",  # asked at once
        "data.n == 2 && topic == 'trade.paid'",  # looked up
        "[2, 3].exists(n, n == data.n)",  # asked in the process
    ],
)
async def test_a_subscription_gets_what_its_filter_is_true_of(tmp_path: Path, text: str) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders", filter=text)
        await d.subscribe("all")
        await sent(d, {"n": 1}, {"n": 2}, {"m": 1}, 5)
        assert await got(d) == [{"n": 2}]
        assert await got(d, "all") == [{"n": 1}, {"n": 2}, {"m": 1}, 5]
        assert d.statistics().routed == 1
        assert d.engine.filter_errors() == {"orders": 2}


async def test_each_message_of_a_batch_goes_its_own_way_in_order(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("odd", filter="data % 2 == 1")
        await d.subscribe("three", filter="data == 3")
        await d.subscribe("loops", filter="[1, 4].exists(n, n == data)")
        await d.subscribe("other", "nobody", filter="data == 3")
        await d.publish(*(message(data=n) for n in range(8)))
        assert await got(d, "odd") == [1, 3, 5, 7]
        assert await got(d, "three") == [3]
        assert await got(d, "loops") == [1, 4]
        assert await got(d, "other") == []


async def test_filters_see_topic_key_and_attributes(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders", ">", filter='topic.endsWith(".paid") && key == "k" && attributes["a-b"] == "x"')
        await d.subscribe("keyed", ">", filter='key == "k"')
        raw = msgspec.Raw(b"1")
        await d.publish(
            Message("trade.paid", data=raw, key="k", attributes={"a-b": "x"}),
            Message("trade.paid", data=raw, attributes={"a-b": "x"}),
            Message("trade.paid", data=raw, key="k"),
            Message("trade.sent", data_base64="AA==", key="k", attributes={"a-b": "x"}),
        )
        assert d.statistics().routed == 1
        assert d.statistics("keyed").routed == 3


async def test_messages_that_go_the_same_way_are_still_written_as_one(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders", filter="data > 5")
        batch = d.batch(*(message(data=n) for n in (6, 7, 8)))
        d.engine.route(batch)
        assert len(batch.routes) == 1
        other = d.batch(message(data=9))
        d.engine.route(other)
        assert other.routes[0] is batch.routes[0]


async def test_without_filters_a_batch_has_the_topics_route_and_its_payload_is_not_looked_at(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders")
        await d.subscribe("filtered", "elsewhere", filter="data > 1")
        batch = d.batch(message(data=1), message(data=2))
        d.engine.route(batch)
        assert d.engine.is_routed(batch)
        assert batch.routes == [d.engine._catalogue.route("trade.paid")]
        assert batch.decoded is None


async def test_a_payload_is_decoded_once_for_all_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def loads(data: bytes) -> object:
        decoded.append(bytes(data))
        return msgspec.json.decode(data)

    monkeypatch.setattr(orjson, "loads", loads)
    async with driven(tmp_path) as d:
        for name, text in {"a": "data.n > 1", "b": "data.n == 1", "c": "data.n < 9", "e": "data.n < 9"}.items():
            await d.subscribe(name, filter=text)
        decoded.clear()
        batch = d.batch(message(data={"n": 1}))
        d.engine.route(batch)
        assert [d.engine._catalogue.by_number[n].name for n in _route(batch.routes[0]).numbers] == ["b", "c", "e"]
        assert decoded == [b'{"n":1}']
        assert sum(each.evaluations for each in set(d.engine._catalogue.filters.values())) == 2  # a distinct text each


def _route(route: object) -> Route:
    assert isinstance(route, Route)
    return route


async def test_what_was_decided_is_what_a_restart_rebuilds(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as d:
        await d.subscribe("orders", filter="data > 1")
        await sent(d, 1, 2)
        await d.engine.put_subscription("orders", SubscriptionSettings(topics=("trade.>",), filter="data < 1"), d.now)
        await sent(d, 0, 3)
    async with driven(tmp_path) as d:
        assert d.statistics().routed == 2
        assert await got(d) == [2, 0]
        await sent(d, 0, 3)
        assert await got(d) == [0]


async def test_a_change_while_a_batch_is_under_way_counts(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders", filter="data > 1")
        batch = d.batch(message(data=1), message(data=2))
        d.engine.route(batch)
        assert d.engine.is_routed(batch)
        await d.subscribe("late", filter="data == 1")
        assert not d.engine.is_routed(batch)
        await d.engine.ask_filters(batch)
        assert d.engine.is_routed(batch)
        d.engine.append([batch], d.now)
        await d.publish(message("nobody"))
        assert (await got(d), await got(d, "late")) == ([2], [1])


async def test_the_last_filter_may_go_while_a_batch_is_under_way(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders", filter="data > 1")
        batch = d.batch(message(data=1), message(data=2))
        d.engine.route(batch)
        await d.subscribe("orders")
        assert d.engine.is_routed(batch)  # the appender asks for the topic's route
        d.engine.append([batch], d.now)
        await d.publish(message("nobody"))
        assert await got(d) == [1, 2]


async def test_a_wrong_filter_changes_nothing(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        with pytest.raises(GatewayError, match="filter: column 8"):
            await d.subscribe("orders", filter="data > ")
        assert d.engine.subscription_count() == 0
        await d.subscribe("orders", filter="data > 1")
        with pytest.raises(GatewayError, match="filter: column 8"):
            await d.subscribe("orders", "else.>", filter="data > ")
        await sent(d, 1, 2)
        assert await got(d) == [2]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("data > 2", 2),  # of a text it cannot be said, nor of what is not JSON
        ("data == 3", 1),
        ("[3, 4].exists(n, n == data)", 1),
    ],
)
async def test_a_subscription_that_begins_at_the_start_gets_what_matches_of_the_past(
    tmp_path: Path, text: str, errors: int
) -> None:
    async with driven(tmp_path) as d:
        await d.publish(*(message(data=n) for n in [*range(4), "x"]))
        await d.publish(Message("trade.sent", data_base64="AA=="))
        await d.subscribe("orders", filter=text, start=Start.START)
        assert d.statistics().routed == 1
        await sent(d, 1, 3)
        assert await got(d) == [3, 3]
        assert d.engine.filter_errors() == {"orders": errors}


@pytest.mark.parametrize("cache_bytes", [0, 1_000_000], ids=["from the disk", "from memory"])
async def test_a_subscription_gets_its_messages_as_cloudevents_wherever_they_are(
    tmp_path: Path, cache_bytes: int
) -> None:
    async with driven(tmp_path, cache_bytes=cache_bytes) as d:
        await d.subscribe("orders", format=Format.CLOUDEVENTS)
        await sent(d, {"n": 1.0})
        client = d.attach()
        await d.deliver()
        [body] = client.bodies
        assert body.startswith(b'{"specversion":"1.0"')
        assert body.endswith(b',"data":{"n":1.0}}')


async def test_a_payload_that_is_too_large_has_no_data_for_filters(tmp_path: Path) -> None:
    async with driven(tmp_path, filter_data_bytes_max=100, filter_inline_bytes_max=50) as d:
        await d.subscribe("orders", filter="data.n > 1")
        await d.subscribe("equal", filter="data.n == 2")
        for size in (10, 60, 100):
            await sent(d, {"n": 2, "x": "x" * size})
        assert [each["x"].count("x") for each in await got(d)] == [10, 60]
        assert len(await got(d, "equal")) == 2
        assert d.engine.filter_errors() == {"orders": 1, "equal": 1}


async def test_a_slow_filter_is_ended_and_rests_and_others_go_on(tmp_path: Path) -> None:
    async with driven(tmp_path, filter_timeout_ms=50) as d:
        await d.subscribe("slow", filter="data.l.all(a, data.l == data.l)")
        await d.subscribe("quick", filter="data.l.exists(a, a == 3)")
        batch = await d.publish(message(data={"l": list(range(9000))}), message(data={"l": [3]}))
        assert batch.error is None
        assert d.statistics("quick").routed == 2
        assert d.statistics("slow").routed == 0  # the second did not take long, but its filter rests
        assert d.engine.filter_errors() == {"slow": 2, "quick": 0}
        d.pass_time(1000)
        await sent(d, {"l": [3]})
        assert d.statistics("slow").routed == 1


async def test_errors_are_forgotten_with_the_subscription(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("orders", filter="data.gone == 1")
        await d.subscribe("other", "trade.*", filter="data.gone == 1")
        await sent(d, {}, {})
        await d.subscribe("third")
        await sent(d, {})
        assert d.engine.filter_errors() == {"orders": 3, "other": 3}
        await d.delete("orders")
        assert d.engine.filter_errors() == {"other": 3}
