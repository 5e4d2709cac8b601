from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import httpx
import orjson
import pytest
import trio
import trio.testing
from prometheus_client import exposition
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.registry import CollectorRegistry

from gateway.control import metrics
from gateway.control.exposition import OPENMETRICS, PLAIN, counter, gauge, write
from gateway.control.metrics import subscription_metrics
from gateway.errors import GatewayError
from gateway.model import SubscriptionSettings, SubscriptionStatistics, SubscriptionView
from gateway.node import Node
from gateway.source.base import SourceStatistics, State
from tests.conftest import running

Samples = dict[str, dict[tuple[str, ...], float]]
"""Value by the values of the labels, by the name of the sample."""


def read(text: str) -> Samples:
    """Every sample of an OpenMetrics text; its parser is strict about names, types, units and the end."""
    found: Samples = {}
    for family in parse_openmetrics(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            values = found.setdefault(sample.name, {})
            assert tuple(sample.labels.values()) not in values, f"{sample.name} twice"
            values[tuple(sample.labels.values())] = sample.value
    return found


async def scrape(control: httpx.AsyncClient) -> Samples:
    answer = await control.get("/metrics", headers={"accept": OPENMETRICS})
    assert answer.status_code == 200
    return read(answer.text)


def view(name: str, **numbers: int | None) -> SubscriptionView:
    nothing = dict.fromkeys(("waiting", "in_flight", "delayed", "routed", "acked", "expired", "dead_lettered"), 0)
    statistics = SubscriptionStatistics(**{**nothing, "oldest_ms": None, "consumers": 0, **numbers})  # type: ignore[arg-type]
    return SubscriptionView(name, SubscriptionSettings(topics=("a",)), statistics)


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=0.0.4;escaping=allow-utf-8;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=nonsense", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html;q=nonsense,,;", "text/plain; version=0.0.4; charset=utf-8"),
        ("", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_format_is_openmetrics_where_it_is_asked_for(
    control: httpx.AsyncClient, accept: str, media: str
) -> None:
    answer = await control.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"] == media
    assert answer.headers["vary"] == "accept"
    assert answer.text.endswith("# EOF\n") is ("openmetrics" in media)


async def test_both_formats_say_the_same(control: httpx.AsyncClient) -> None:
    await control.put("/v1/subscriptions/orders", json={"topics": ["a"]})
    plain = (await control.get("/metrics")).text
    assert {sample.name for family in parse_plain(plain) for sample in family.samples} == (await scrape(control)).keys()


async def test_every_name_is_the_gateways_and_ends_with_its_unit(control: httpx.AsyncClient) -> None:
    await control.put("/v1/subscriptions/orders", json={"topics": ["a"]})
    text = (await control.get("/metrics", headers={"accept": OPENMETRICS})).text
    families = list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith("gateway_")
        assert family.documentation.endswith(".")
        assert not family.unit or family.name.endswith(f"_{family.unit}")
        assert not family.name.endswith(("_ms", "_time", "_size", "_count"))


async def test_the_numbers_follow_what_happens(node: Node, control: httpx.AsyncClient, data: httpx.AsyncClient) -> None:
    before = await scrape(control)
    await control.put("/v1/subscriptions/orders", json={"topics": ["a"]})
    batch = [{"topic": "a", "data": n, "id": f"m{n}"} for n in range(5)]
    await data.post("/v1/messages", json=batch)
    await data.post("/v1/messages", json=[*batch[:2], {"topic": "a b", "data": 1}])
    pulled = (await data.post("/v1/subscriptions/orders/pull", json={"max": 4})).json()
    first = pulled["messages"][0]["position"]
    settle = {"lease": pulled["lease"], "ack": [[first, first + 1], [9999, 9999]], "nack": [[first + 2, first + 2]]}
    await data.post("/v1/subscriptions/orders/settle", json=settle)
    after = await scrape(control)

    def rise(name: str, *labels: str) -> float:
        return after[name][labels] - before[name][labels]

    assert rise("gateway_published_messages_total", "accepted") == 5
    assert rise("gateway_published_messages_total", "duplicate") == 2
    assert rise("gateway_published_messages_total", "refused") == 1
    assert rise("gateway_published_batches_total") == 2
    for stage in ("admit", "route", "append"):
        assert rise("gateway_stage_items_total", stage) == 2
        assert rise("gateway_stage_messages_total", stage) == 8
        assert after["gateway_ring_items"][stage,] == 0
        assert after["gateway_ring_limit_items"][stage,] == node.config.ring.items_max
    assert rise("gateway_stage_items_total", "settle") == 1
    assert rise("gateway_stage_refused_messages_total", "admit") == 1
    assert rise("gateway_delivered_frames_total") == 1
    assert rise("gateway_delivered_messages_total") == 4
    assert rise("gateway_redelivered_messages_total") == 0
    assert rise("gateway_settled_messages_total", "ack") == 2
    assert rise("gateway_settled_messages_total", "nack") == 1
    assert rise("gateway_settled_unknown_positions_total") == 1
    assert rise("gateway_pulls_total") == 1
    assert after["gateway_pull_leases"][()] == 1
    assert rise("gateway_log_end_position") >= 5
    assert rise("gateway_log_durable_position") >= 5
    assert rise("gateway_log_commit_seconds_count") >= 2
    assert rise("gateway_log_commit_seconds_sum") > 0
    assert rise("gateway_log_records_total") >= 6
    assert after["gateway_log_by_kernel"][()] in (0, 1)
    assert rise("gateway_log_written_bytes_total") > 5 * 20
    assert after["gateway_bodies_bytes"][()] > 0
    assert after["gateway_dedup_ids"][()] == 5
    assert rise("gateway_inflight_settled_messages_total", "heap") == 3
    assert {tier: after["gateway_inflight_records"][tier,] for tier in ("heap", "direct", "file")} == {
        "heap": 1,
        "direct": 1,  # what was nacked waits for its backoff there
        "file": 0,
    }
    assert after["gateway_inflight_direct_limit_bytes"][()] == node.config.deliver.direct_bytes_max
    assert after["gateway_subscriptions"][()] == 1
    assert after["gateway_listener_accepted_connections_total"]["data",] >= 1
    assert after["gateway_listener_connections"]["control",] >= 1
    assert after["gateway_publishing_bytes"][()] == 0
    assert after["gateway_ready"][()] == 1
    assert rise("gateway_stage_busy_seconds_total", "deliver") > 0


async def test_every_message_of_a_subscription_is_in_one_hand(
    node: Node, control: httpx.AsyncClient, data: httpx.AsyncClient
) -> None:
    """Promise 6, as the metrics show it: at every instant, and with something in every hand."""
    hands = ["acked_messages_total", "in_flight_messages", "waiting_messages"]
    hands += ["delayed_messages", "expired_messages_total", "dead_lettered_messages_total"]

    async def count() -> dict[str, float]:
        found = await scrape(control)
        numbers = {hand: found[f"gateway_subscription_{hand}"]["orders",] for hand in hands}
        assert found["gateway_subscription_routed_messages_total"]["orders",] == sum(numbers.values())
        return numbers

    await control.put("/v1/subscriptions/orders", json={"topics": ["a"]})
    await data.post("/v1/messages", json=[{"topic": "a", "data": 0, "ttl_ms": 1} for _ in range(2)])
    await count()
    published = node.clock()
    while node.clock() <= published + 2:
        await trio.lowlevel.checkpoint()
    await data.post("/v1/messages", json=[{"topic": "a", "data": n} for n in range(10)])
    await data.post("/v1/messages", json=[{"topic": "a", "data": n, "delay_ms": 3_600_000} for n in range(3)])
    assert (await count())["delayed_messages"] == 3
    pulled = (await data.post("/v1/subscriptions/orders/pull", json={"max": 6})).json()
    positions = [message["position"] for message in pulled["messages"]]
    assert len(positions) > 3  # the expired ones may count among the six
    await count()
    settle = {"lease": pulled["lease"], "ack": [positions[:1] * 2], "nack": [positions[1:2] * 2]}
    settle |= {"nack_delay_ms": 3_600_000, "term": [positions[2:3] * 2]}
    await data.post("/v1/subscriptions/orders/settle", json=settle)
    with trio.fail_after(5):
        while (numbers := await count())["dead_lettered_messages_total"] == 0:
            pass
    assert numbers == {
        "acked_messages_total": 1,
        "in_flight_messages": len(positions) - 3,
        "waiting_messages": 10 - len(positions),
        "delayed_messages": 4,
        "expired_messages_total": 2,
        "dead_lettered_messages_total": 1,
    }
    assert (await scrape(control))["gateway_dead_letters_total"][()] == 1


async def test_a_node_that_is_not_ready_shows_it(node: Node, control: httpx.AsyncClient) -> None:
    node.admit.closed = GatewayError("draining", "going down")
    assert (await scrape(control))["gateway_ready"][()] == 0


async def test_connections_are_counted_by_their_close_code(node: Node, control: httpx.AsyncClient) -> None:
    node.connections.closes.update({1000: 2, 3001: 1, 3333: 4, 4999: 1})
    closed = (await scrape(control))["gateway_connections_closed_total"]
    assert (closed["1000",], closed["3001",], closed["3008",], closed["other",]) == (2, 1, 0, 5)
    assert ("3333",) not in closed


async def test_no_more_subscriptions_are_shown_than_the_bound(
    control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SUBSCRIPTIONS_MAX", 2)
    for name in "cab":
        assert (await control.put(f"/v1/subscriptions/{name}", json={"topics": ["t"]})).status_code == 201
    scraped = await scrape(control)
    assert scraped["gateway_subscriptions"][()] == 3
    assert scraped["gateway_subscriptions_left_out"][()] == 1
    each = {name: samples for name, samples in scraped.items() if name.startswith("gateway_subscription_")}
    assert len(each) == 11
    for samples in each.values():
        assert list(samples) == [("a",), ("b",)]


@pytest.mark.parametrize(("oldest_ms", "age_s"), [(None, 0.0), (1_000, 4.0), (4_999, 0.001), (6_000, 0.0)])
def test_the_oldest_message_has_an_age(oldest_ms: int | None, age_s: float) -> None:
    families = {family.name: family for family in subscription_metrics([view("a", oldest_ms=oldest_ms)], 1, 5_000)}
    assert families["gateway_subscription_oldest_age_seconds"].samples[0].value == age_s


FAMILIES: list[Metric] = [
    gauge("gateway_one", "One.", 1),
    counter("gateway_none", "None.", {}, "name"),
    counter("gateway_many", "Many.", {f'"{n}"': n for n in range(120)}, "name"),
    gauge("gateway_few_seconds", "A few.", {"a": 0.5, "#b": 1.5}, "name"),
]


@pytest.mark.parametrize("media", [OPENMETRICS, PLAIN])
async def test_a_text_made_in_turns_is_as_the_library_makes_it_at_once(media: str) -> None:
    class Whole:
        def collect(self) -> list[Metric]:
            return FAMILIES

    registry = CollectorRegistry()
    registry.register(Whole())
    whole = openmetrics.generate_latest if media == OPENMETRICS else exposition.generate_latest
    assert await write(FAMILIES, media) == whole(registry)


async def test_a_long_text_lets_others_run() -> None:
    family = GaugeMetricFamily("gateway_many", "Many.", labels=["name"])
    for n in range(1000):
        family.add_metric([str(n)], n)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await write([family], PLAIN)
        nursery.cancel_scope.cancel()
    assert turns >= 15


async def test_a_source_in_numbers(node: Node, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gateway_source_read_total" not in await scrape(control)
    statistics = SourceStatistics(read=5, published=3, refused=1, behind=7, failures=2, state=State.RUNNING)
    monkeypatch.setattr(node.watch, "sources", [SimpleNamespace(name="outbox", statistics=statistics)])
    found = await scrape(control)
    numbers = {
        "gateway_source_read_total": 5,
        "gateway_source_published_messages_total": 3,
        "gateway_source_refused_total": 1,
        "gateway_source_failures_total": 2,
        "gateway_source_behind": 7,
        "gateway_source_running": 1,
    }
    assert {name: found[name][("outbox",)] for name in numbers} == numbers


async def test_a_pull_of_a_sealed_segment_is_sent_from_where_it_is_stored(tmp_path: Path) -> None:
    """Slices of the mapped file go to the kernel as they are: nothing is copied into one."""
    async with (
        running(tmp_path, {"store.segment_bytes": 65_536, "store.cache_bytes": 0}) as node,
        httpx.AsyncClient(base_url=f"http://{node.address}", trust_env=False) as data,
        httpx.AsyncClient(base_url=f"http://{node.control_address}", trust_env=False) as control,
    ):
        await control.put("/v1/subscriptions/orders", json={"topics": ["trade.>"]})
        for _ in range(3):
            messages = [{"topic": "trade.paid", "data": "x" * 1000} for _ in range(100)]
            assert (await data.post("/v1/messages", json=messages)).status_code == 200
        answer = await data.post("/v1/subscriptions/orders/pull", json={"max": 100, "wait_ms": 1000})
        pulled = answer.json()["messages"]
        assert len(pulled) > 50
        samples = await scrape(control)
    size = sum(len(orjson.dumps(message)) for message in pulled)
    assert samples["gateway_bodies_mapped_bytes_total"][()] >= size
    assert samples["gateway_gathered_bytes_total"][()] >= size
    assert samples["gateway_joined_bytes_total"][()] == 0
