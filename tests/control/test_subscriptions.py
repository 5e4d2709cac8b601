from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import trio

from gateway.model import BACKOFF_MS_DEFAULT
from gateway.node import Node
from gateway.store.disk import Disk
from gateway.store.files import Files
from tests.control.conftest import client_of, config

ORDERS = "/v1/subscriptions/orders"
SETTINGS = {
    "topics": ["trade.>"],
    "filter": "",
    "format": "native",
    "lease_ms": 30_000,
    "attempts_max": 16,
    "backoff_ms": list(BACKOFF_MS_DEFAULT),
    "dead_letter": "dead.orders",
    "ordered": False,
    "retention_s": 604_800,
    "window_max": 1000,
    "start": "end",
    "paused": False,
}
NOTHING = {
    "waiting": 0,
    "in_flight": 0,
    "delayed": 0,
    "routed": 0,
    "acked": 0,
    "expired": 0,
    "dead_lettered": 0,
    "oldest_ms": None,
    "consumers": 0,
    "skipped": 0,
}


async def put(control: httpx.AsyncClient, name: str = "orders", **settings: Any) -> httpx.Response:
    return await control.put(f"/v1/subscriptions/{name}", json=settings or {"topics": ["trade.>"]})


async def test_put_creates_with_the_defaults(control: httpx.AsyncClient) -> None:
    answer = await put(control)
    assert answer.status_code == 201
    assert answer.json() == {"name": "orders", **SETTINGS, "statistics": NOTHING}
    assert (await control.get(ORDERS)).json() == answer.json()


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"topics": ["a.*", "b.>", ">"]}, {"topics": ["a.*", "b.>", ">"]}),
        ({"lease_ms": 100}, {"lease_ms": 100}),
        ({"lease_ms": 60_000.0}, {"lease_ms": 60_000}),
        ({"attempts_max": 1}, {"attempts_max": 1}),
        ({"backoff_ms": [0]}, {"backoff_ms": [0]}),
        ({"dead_letter": "graveyard"}, {"dead_letter": "graveyard"}),
        ({"dead_letter": ""}, {"dead_letter": ""}),
        ({"dead_letter": None}, {"dead_letter": "dead.orders"}),
        ({"filter": "data.x > 1"}, {"filter": "data.x > 1"}),
        ({"format": "cloudevents"}, {"format": "cloudevents"}),
        ({"window_max": 1_000_000}, {"window_max": 1_000_000}),
        ({"paused": True}, {"paused": True}),
        ({"paused": True, "lease_ms": 500}, {"paused": True, "lease_ms": 500}),
        ({}, {}),
    ],
)
async def test_put_changes_what_is_named_and_nothing_else(
    control: httpx.AsyncClient, change: dict[str, Any], shown: dict[str, Any]
) -> None:
    await put(control)
    answer = await control.put(ORDERS, json=change)
    assert answer.status_code == 200
    assert answer.json() == {"name": "orders", **SETTINGS, **shown, "statistics": NOTHING}
    assert (await control.get(ORDERS)).json() == answer.json()


async def test_a_change_stands_on_the_change_before_it(control: httpx.AsyncClient) -> None:
    await put(control)
    await control.put(ORDERS, json={"lease_ms": 500})
    answer = await control.put(ORDERS, json={"paused": True})
    assert (answer.json()["lease_ms"], answer.json()["paused"]) == (500, True)


async def test_two_changes_at_once_both_count(control: httpx.AsyncClient) -> None:
    await put(control)
    async with trio.open_nursery() as nursery:
        for change in (b'{"lease_ms":500}', b'{"paused":true}', b'{"window_max":7}'):
            nursery.start_soon(partial(control.put, ORDERS, content=change))
    shown = (await control.get(ORDERS)).json()
    assert (shown["lease_ms"], shown["paused"], shown["window_max"]) == (500, True, 7)


async def test_start_counts_at_creation_only(control: httpx.AsyncClient) -> None:
    await put(control, topics=["trade.>"], start="start")
    answer = await control.put(ORDERS, json={"start": "end"})
    assert (answer.status_code, answer.json()["start"]) == (200, "start")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "application/json", ""])
async def test_the_body_is_json_whatever_its_type_says(control: httpx.AsyncClient, content_type: str) -> None:
    answer = await control.put(ORDERS, content=b'{"topics":["a"]}', headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["topics"]) == (201, ["a"])


BAD_BODIES = [
    (b"", "bad_request", "the body is empty"),
    (b"{", "bad_request", "not JSON"),
    (b"topics=trade", "bad_request", "not JSON"),
    (b'{"topics":["\xff"]}', "bad_request", "not JSON"),
    (b"[]", "bad_request", "JSON object"),
    (b"null", "bad_request", "JSON object"),
    (b"{}", "bad_request", "topics: is required"),
    (b'{"lease_ms":1000}', "bad_request", "topics: is required"),
    (b'{"topics":[]}', "bad_request", "at least one"),
    (b'{"topics":"a"}', "bad_request", "must be a list"),
    (b'{"topics":[1]}', "bad_request", "must be text"),
    (b'{"topics":null}', "bad_request", "must be a list"),
    (b'{"topics":["a..b"]}', "bad_pattern", "empty word"),
    (b'{"topics":["a.>.b"]}', "bad_pattern", "last word"),
    (b'{"topics":["a"],"lease_ms":99}', "bad_request", "lease_ms: 99"),
    (b'{"topics":["a"],"lease_ms":1e400}', "bad_request", ""),
    (b'{"topics":["a"],"lease_ms":100.5}', "bad_request", "whole number"),
    (b'{"topics":["a"],"lease_ms":"1000"}', "bad_request", "whole number"),
    (b'{"topics":["a"],"lease_ms":true}', "bad_request", "whole number"),
    (b'{"topics":["a"],"lease_ms":null}', "bad_request", "whole number"),
    (b'{"topics":["a"],"attempts_max":0}', "bad_request", "attempts_max"),
    (b'{"topics":["a"],"window_max":0}', "bad_request", "window_max"),
    (b'{"topics":["a"],"window_max":123456789012345678901234567890}', "bad_request", "window_max"),
    (b'{"topics":["a"],"backoff_ms":[]}', "bad_request", "backoff_ms"),
    (b'{"topics":["a"],"backoff_ms":[-1]}', "bad_request", "backoff_ms"),
    (b'{"topics":["a"],"backoff_ms":1000}', "bad_request", "must be a list"),
    (b'{"topics":["a"],"dead_letter":"a.*"}', "bad_topic", "A-Z"),
    (b'{"topics":["a"],"dead_letter":7}', "bad_request", "must be text"),
    (b'{"topics":["a"],"start":"now"}', "bad_request", 'must be "start" or "end"'),
    (b'{"topics":["a"],"start":7}', "bad_request", 'must be "start" or "end"'),
    (b'{"topics":["a"],"start":[]}', "bad_request", 'must be "start" or "end"'),
    (b'{"topics":["a"],"paused":"yes"}', "bad_request", "true or false"),
    (b'{"topics":["a"],"topic":["b"]}', "bad_request", "did you mean topics?"),
    (b'{"topics":["a"],"statistics":{}}', "bad_request", "unknown setting"),
    (b'{"topics":["a"],"filter":"data.x > "}', "bad_filter", "filter: column 10: Syntax error"),
    (b'{"topics":["a"],"filter":"dat.x > 1"}', "bad_filter", "a filter knows topic, key, attributes, data"),
    (b'{"topics":["a"],"filter":"data.x \\ud800"}', "bad_request", ""),
]


@pytest.mark.parametrize(("raw", "code", "words"), BAD_BODIES, ids=[str(raw) for raw, _, _ in BAD_BODIES])
async def test_a_bad_body_is_refused_and_nothing_is_made(
    control: httpx.AsyncClient, raw: bytes, code: str, words: str
) -> None:
    answer = await control.put(ORDERS, content=raw)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert words in answer.json()["message"]
    assert answer.json()["temporary"] is False
    assert (await control.get("/v1/subscriptions")).json() == []


async def test_a_bad_change_changes_nothing(control: httpx.AsyncClient) -> None:
    before = (await put(control)).json()
    assert (await control.put(ORDERS, content=b'{"paused":true,"lease_ms":1}')).status_code == 400
    assert (await control.get(ORDERS)).json() == before


@pytest.mark.parametrize(
    "name", ["a..b", ".a", "a*", "a%20b", "a%2Fb", "a%00b", "%E4%B8%AD", "%FF", "a%0A", "%2E%2E", "x" * 251]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_bad_name_is_refused(control: httpx.AsyncClient, method: str, name: str) -> None:
    answer = await control.request(method, f"/v1/subscriptions/{name}", content=b'{"topics":["a"]}')
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_name")


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "a%2Eb", "%6Frders", "x" * 250])
async def test_a_good_name_may_be_percent_encoded(control: httpx.AsyncClient, name: str) -> None:
    answer = await put(control, name)
    assert answer.status_code == 201
    assert answer.json()["name"] == name.replace("%2E", ".").replace("%6F", "o")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_subscription_is_not_found(control: httpx.AsyncClient, method: str) -> None:
    answer = await control.request(method, ORDERS)
    assert (answer.status_code, answer.json()["code"]) == (404, "subscription_not_found")
    assert "'orders'" in answer.json()["message"]


async def test_the_list_holds_all_by_name(control: httpx.AsyncClient) -> None:
    assert (await control.get("/v1/subscriptions")).json() == []
    for name in ("b", "c", "a"):
        await put(control, name)
    listed = (await control.get("/v1/subscriptions")).json()
    assert [view["name"] for view in listed] == ["a", "b", "c"]
    assert listed[0] == (await control.get("/v1/subscriptions/a")).json()


async def test_the_statistics_are_of_now(control: httpx.AsyncClient, data: httpx.AsyncClient) -> None:
    await put(control)
    await data.post("/v1/topics/trade.paid/messages", content=b'{"n":1}')
    await data.post("/v1/topics/trade.paid/messages", content=b'{"n":2}')
    pulled = (await data.post("/v1/subscriptions/orders/pull", json={"max": 1})).json()
    statistics = (await control.get(ORDERS)).json()["statistics"]
    assert (statistics["routed"], statistics["in_flight"], statistics["waiting"]) == (2, 1, 1)
    assert statistics["oldest_ms"] == pulled["messages"][0]["time_ms"]


async def test_a_deleted_subscription_is_gone_and_its_name_is_free(control: httpx.AsyncClient) -> None:
    await put(control, topics=["a"], paused=True)
    answer = await control.delete(ORDERS)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await control.get(ORDERS)).status_code == 404
    assert (await control.delete(ORDERS)).status_code == 404
    assert (await control.get("/v1/subscriptions")).json() == []
    again = await put(control)
    assert (again.status_code, again.json()["paused"]) == (201, False)


async def test_a_waiting_pull_is_told_that_its_subscription_is_deleted(
    control: httpx.AsyncClient, data: httpx.AsyncClient
) -> None:
    await put(control)
    answers: list[httpx.Response] = []

    async def pull() -> None:
        answers.append(await data.post("/v1/subscriptions/orders/pull", json={"wait_ms": 60_000}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull)
        while (await control.get(ORDERS)).json()["statistics"]["consumers"] == 0:
            pass
        await control.delete(ORDERS)
    assert (answers[0].status_code, answers[0].json()["code"]) == (409, "subscription_deleted")


async def test_one_subscription_too_many_is_refused(
    node: Node, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(control)
    monkeypatch.setattr(node.engine._catalogue, "subscriptions_max", 1)
    answer = await put(control, "more")
    assert (answer.status_code, answer.json()["code"]) == (429, "subscription_limit")
    assert (await control.put(ORDERS, json={"paused": True})).status_code == 200


class Gate:
    """Holds every fdatasync while it is closed."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.entered.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self, file: int) -> None:
        self.entered.set()
        self._open.wait()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(Disk, "append", lambda *_: False)  # all syncs go by Files
    monkeypatch.setattr(Files, "sync", lambda _files, file: gate.pass_through(file))
    return gate


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_nothing_is_answered_before_it_is_on_the_disk(
    gate: Gate, control: httpx.AsyncClient, method: str
) -> None:
    await put(control)
    answers: list[int] = []

    async def call() -> None:
        answers.append((await control.request(method, ORDERS, content=b'{"paused":true}')).status_code)

    gate.close()
    try:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                while not gate.entered.is_set():
                    await trio.lowlevel.checkpoint()
                for _ in range(10):  # an answer would overtake these
                    assert (await control.get("/livez")).status_code == 200
                assert answers == []
                gate.open()
    finally:
        gate.open()
    assert answers == [200 if method == "PUT" else 204]


async def test_what_was_answered_is_there_after_a_crash(
    control: httpx.AsyncClient, nursery: trio.Nursery, tmp_path: Path
) -> None:
    await put(control, "kept", topics=["a"], lease_ms=500)
    await put(control, "changed")
    await control.put("/v1/subscriptions/changed", json={"paused": True})
    await put(control, "deleted")
    await control.delete("/v1/subscriptions/deleted")
    before = (await control.get("/v1/subscriptions")).json()
    shutil.copytree(tmp_path / "store", tmp_path / "crashed")

    again = Node(config(tmp_path / "crashed"))
    nursery.start_soon(again.run)
    with trio.fail_after(5):
        await again.ready.wait()
    async with client_of(again.control_address) as client:
        assert (await client.get("/v1/subscriptions")).json() == before
    assert [view["name"] for view in before] == ["changed", "kept"]
    assert orjson.dumps(before).count(b'"paused":true') == 1
