"""Pipelines: which topics pass which stages; and the whole of it in a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import msgspec
import orjson
import pytest
import trio

from gateway import config
from gateway.config import Config, Pipeline
from gateway.errors import ConfigError
from gateway.flow.pipeline import Pipelines
from gateway.flow.ring import Ring
from gateway.model import Batch, Durability, Message
from gateway.node import Node
from tests.conftest import Log, quick_config
from tests.edge.bystander import positions, subscription
from tests.edge.raw import open_http
from tests.flow import stages

MASK = "tests.flow.stages:mask_cards"
TAG = "tests.flow.stages:tag_eu"


def piped(*pipelines: Pipeline) -> Config:
    return attrs.evolve(Config(), pipeline=pipelines)


def batch_of(*topics: str) -> Batch:
    data = msgspec.Raw(b'{"card":"1"}')
    batch = Batch([Message(topic, data=data) for topic in topics], Durability.FSYNCED, 1, lambda _: None)
    batch.topics = set(topics)
    return batch


# ----------------------------------------------------------------------------------------------- where batches go


async def test_a_batch_passes_the_stages_of_its_topics_pipeline_in_order(nursery: trio.Nursery) -> None:
    onward: Ring[Batch] = Ring("route", 10)
    pipelines = Pipelines(piped(Pipeline(name="pay", topics=("pay.>",), stages=(MASK, TAG))), onward)
    assert [stage.name for stage in pipelines.stages] == [f"pay.1.{MASK}", f"pay.2.{TAG}"]
    for stage in pipelines.stages:
        nursery.start_soon(stage.run)
    await pipelines.put(batch_of("pay.card"))
    passed = await onward.get()
    assert passed.messages[0].attributes == {"masked": "card", "tag": "eu"}


async def test_a_topic_has_the_first_pipeline_that_matches_it_and_the_others_go_straight_on(
    nursery: trio.Nursery,
) -> None:
    onward: Ring[Batch] = Ring("route", 10)
    pipelines = Pipelines(
        piped(
            Pipeline(name="cards", topics=("pay.card", "pay.card.*"), stages=(MASK,)),
            Pipeline(name="all", topics=("pay.>",), stages=(TAG,)),
        ),
        onward,
    )
    other = batch_of("other", "other.too")
    assert pipelines.next(other, 0) is onward
    await pipelines.put(other)
    assert await onward.get() is other
    for stage in pipelines.stages:
        nursery.start_soon(stage.run)
    await pipelines.put(batch_of("other", "pay.cash", "pay.card"))
    passed = await onward.get()
    assert [each.attributes for each in passed.messages] == [None, {"tag": "eu"}, {"masked": "card"}]
    assert [stage.passed for stage in pipelines.stages] == [1, 1]


async def test_what_the_gateway_makes_itself_goes_straight_on() -> None:
    onward: Ring[Batch] = Ring("route", 10)
    pipelines = Pipelines(piped(Pipeline(name="all", stages=(MASK,))), onward)
    batch = batch_of("dead.orders")
    batch.trusted = True
    assert pipelines.next(batch, 0) is onward


def test_the_memory_of_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.flow.pipeline._TOPICS_MAX", 10)
    pipelines = Pipelines(piped(Pipeline(name="all", topics=("a.>",), stages=(MASK,))))
    for number in range(35):
        pipelines.next(batch_of(f"a.{number}"), 0)
        assert len(pipelines._known) <= 10


# ------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a b"\nstages = ["schema"]', "name: 'a b': use words"),
        ('name = "a"', "stages: name at least one"),
        ('name = "a"\nstages = ["schema"]', "schema: goes with the stage 'schema'; give both, or neither"),
        ('name = "a"\nstages = ["x:y"]\nprojection = "a"', "projection: goes with the stage 'projection'"),
        ('name = "a"\nstages = ["x:y"]\ntopics = ["a..b"]', "it has an empty word"),
        ('name = "a"\nstages = ["x:y"]\ntimeout_ms = 0', "timeout_ms: 0 is too small"),
        ('stages = ["x:y"]', "name is missing"),
    ],
)
def test_a_wrong_pipeline_is_told_by_its_place_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"[[pipeline]]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    assert said in str(caught.value)
    assert "pipeline[0]" in str(caught.value)


@pytest.mark.parametrize("stage", ["shema", "tests.no.such:x", "tests.flow.stages:absent"])
def test_a_stage_that_cannot_be_found_is_told_at_the_start(stage: str) -> None:
    with pytest.raises(ConfigError, match="stage "):
        Pipelines(piped(Pipeline(name="a", stages=(stage,))))


# ----------------------------------------------------------------------------------------------- a running gateway


@asynccontextmanager
async def running(directory: Path, *pipelines: Pipeline) -> AsyncIterator[Node]:
    node = Node(attrs.evolve(quick_config(directory / "store"), pipeline=pipelines))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        with trio.fail_after(10):
            await node.ready.wait()
        yield node
        node.stop()


async def test_a_message_is_checked_projected_and_masked_before_filters_see_it(tmp_path: Path) -> None:
    schema = tmp_path / "payment.json"
    schema.write_bytes(orjson.dumps({"required": ["payment"], "properties": {"payment": {"required": ["card"]}}}))
    pay = Pipeline(
        name="pay",
        topics=("pay.>",),
        stages=("schema", "projection", MASK),
        schema=str(schema),
        projection="{card: payment.card, sum: payment.sum}",
    )
    async with running(tmp_path, pay) as node, open_http(node.address) as http:
        await subscription(node, "orders", "pay.>", filter='data.card.startsWith("****")')
        one = "/v1/topics/pay.card/messages"
        assert (await http.post(one, b'{"payment":{"card":"1234567812345678","sum":5},"more":1}')).status == 201
        wrong = await http.post(one, b'{"payment":{}}')
        assert (wrong.status, wrong.code) == (422, "schema_mismatch")
        assert wrong.json["message"] == 'data.payment: "card" is a required property'
        many = await http.post(
            "/v1/messages", b'[{"topic":"pay.a","data":{}},{"topic":"pay.b","data":{"payment":{"card":"5678"}}}]'
        )
        assert ["error" in result for result in many.json["results"]] == [True, False]
        pulled = (await http.post("/v1/subscriptions/orders/pull", b'{"wait_ms":50}')).json["messages"]
        assert [message["data"] for message in pulled] == [
            {"card": "************5678", "sum": 5},
            {"card": "************5678", "sum": None},
        ]
        assert [stage.passed for stage in node.pipelines.stages] == [2, 2, 2]
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://{node.control_address}/metrics")).text
        assert 'gateway_stage_refused_messages_total{stage="pay.1.schema"} 2.0' in text
        assert 'gateway_stage_messages_total{stage="pay.1.schema"} 4.0' in text
        assert 'gateway_stage_passed_messages_total{stage="pay.2.projection"} 2.0' in text
        assert f'gateway_ring_items{{stage="pay.3.{MASK}"}} 0.0' in text
        assert 'gateway_stage_busy_seconds_total{stage="pay.1.schema"}' in text


@pytest.mark.parametrize("bad", ["raise_error", "hang", "words"])
async def test_a_stage_that_fails_costs_its_batch_and_nobody_else(tmp_path: Path, log: Log, bad: str) -> None:
    stages.RELEASE.clear()
    pay = Pipeline(name="pay", topics=("pay.>",), stages=(f"tests.flow.stages:{bad}",), timeout_ms=50)
    try:
        async with running(tmp_path, pay) as node, open_http(node.address) as http, open_http(node.address) as other:
            await subscription(node, "orders", ">")
            answer = await http.post("/v1/messages", b'[{"topic":"a","data":1},{"topic":"pay.b","data":2}]')
            assert (answer.status, answer.code, answer.json["temporary"]) == (500, "stage_failed", True)
            assert "nothing of this batch is stored" in answer.json["message"]
            assert positions(node) == 1
            assert (await other.post("/v1/topics/a/messages", b"3")).status == 201
            assert (await http.post("/v1/topics/pay.x/messages", b"4")).code == "stage_failed"
            pulled = (await http.post("/v1/subscriptions/orders/pull", b'{"wait_ms":50}')).json["messages"]
            assert [message["data"] for message in pulled] == [3]
    finally:
        stages.RELEASE.set()
    log.clear()
