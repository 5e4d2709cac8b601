"""Live connections and waiting pulls with credentials: hello, expiry and revocation, over real sockets."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from gateway.auth import apikey
from gateway.auth.grant import Grant
from gateway.node import Node
from tests.conftest import Log, StartNode
from tests.edge.raw import RawHttp, RawWebSocket, open_http, open_raw_websocket

SHOP = Grant(publish=("shop.>",), subscribe=("shop.>",))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Secured:
    """A node with credentials, its files, and the subscription `shop.orders`."""

    def __init__(self, directory: Path) -> None:
        self.keys_file = directory / "keys.json"
        self.permissions = directory / "permissions.toml"
        self.permit("")
        with apikey.changing(self.keys_file):
            pass
        self.node: Node

    @property
    def flags(self) -> dict[str, Any]:
        return {
            "auth.keys_file": str(self.keys_file),
            "auth.permissions_file": str(self.permissions),
            "auth.reload_s": 0.05,
        }

    def permit(self, text: str) -> None:
        written = self.permissions.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        os.replace(written, self.permissions)

    def key(self, grant: Grant = SHOP, principal: str = "shop", life_ms: int | None = None) -> str:
        expires_ms = None if life_ms is None else now_ms() + life_ms
        text, record = apikey.make(principal, grant, now_ms(), expires_ms)
        with apikey.changing(self.keys_file) as keys:
            keys[record.id] = record
        return text

    def revoke(self, key: str) -> None:
        with apikey.changing(self.keys_file) as keys:
            record = keys[key.split("_")[1]]
            keys[record.id] = apikey.revoked(record, now_ms())


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def secured(start_node: StartNode, tmp_path: Path) -> Secured:
    made = Secured(tmp_path)
    operator = made.key(Grant(admin=(">",)), "operator")
    made.node = await start_node({**made.flags, "auth.hello_timeout_s": 1.0})
    async with open_http(made.node.control_address) as http:
        body = orjson.dumps({"topics": ["shop.>"]})
        answer = await http.request("PUT", "/v1/subscriptions/shop.orders", body, bearer(operator))
        assert answer.status == 201
    return made


async def ask(websocket: RawWebSocket, **operation: Any) -> dict[str, Any]:
    await websocket.send({"id": 1, **operation})
    return await websocket.receive()


@asynccontextmanager
async def subscribed(secured: Secured, key: str) -> AsyncIterator[RawWebSocket]:
    async with open_raw_websocket(secured.node.address, bearer(key)) as websocket:
        assert (await ask(websocket, op="subscribe", subscription="shop.orders"))["op"] == "ok"
        yield websocket


async def fresh(secured: Secured, key: str) -> str:
    """Wait until the node knows a key that was made after its start."""
    with trio.fail_after(5):
        while True:
            try:
                await secured.node.access.authenticate(key)
            except Exception:
                await trio.sleep(0.01)
            else:
                return key


# ------------------------------------------------------------------------------------------------------------- hello


async def test_a_handshake_without_credentials_says_hello_and_then_may(secured: Secured, log: Log) -> None:
    key = await fresh(secured, secured.key())
    async with open_raw_websocket(secured.node.address) as websocket:
        refused = await ask(websocket, op="subscribe", subscription="shop.orders")
        assert (refused["code"], refused["id"]) == ("no_credentials", 1)
        assert (await ask(websocket, op="hello", token=key, client="page/1"))["op"] == "ok"
        assert (await ask(websocket, op="subscribe", subscription="shop.orders"))["op"] == "ok"
        [view] = [connection.view() for connection in secured.node.connections]
        assert (view.principal, view.client) == ("shop", "page/1")


async def test_who_says_no_hello_in_time_is_closed_with_3502(secured: Secured, log: Log) -> None:
    async with open_raw_websocket(secured.node.address) as websocket:
        said = await websocket.receive()
        assert said["code"] == "no_credentials"
        assert await websocket.close_code() == 3502


async def test_a_hello_with_a_wrong_token_is_closed_with_3500(secured: Secured, log: Log) -> None:
    async with open_raw_websocket(secured.node.address) as websocket:
        said = await ask(websocket, op="hello", token="wrong")
        assert (said["code"], said["id"]) == ("invalid_token", 1)
        assert "wrong" not in said["message"]
        assert await websocket.close_code() == 3500


async def test_before_hello_a_large_frame_is_not_even_parsed(secured: Secured, log: Log) -> None:
    async with open_raw_websocket(secured.node.address) as websocket:
        await websocket.send({"op": "publish", "id": 1, "messages": [{"topic": "shop.a", "data": "x" * 20_000}]})
        assert (await websocket.receive())["code"] == "no_credentials"
        assert await websocket.close_code() == 3502


@pytest.mark.parametrize("path", ["/v1/connect?token=x", "/v1/topics/shop.a/messages?access_token=x"])
async def test_a_token_in_the_query_is_refused_by_name(secured: Secured, path: str, log: Log) -> None:
    async with open_http(secured.node.address) as http:
        answer = await http.post(path, b"1")
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "never go into the query string" in answer.json["message"]


async def test_a_401_says_how_to_authenticate(secured: Secured, log: Log) -> None:
    async with open_http(secured.node.address) as http:
        without = await http.post("/v1/messages", b"[]")
        wrong = await http.post("/v1/messages", b"[]", bearer("x"))
    assert without.headers["www-authenticate"] == 'Bearer realm="push gateway"'
    assert wrong.headers["www-authenticate"] == 'Bearer realm="push gateway", error="invalid_token"'


# ------------------------------------------------------------------------------------------------------------ expiry


async def test_a_live_connection_is_closed_with_3005_when_its_time_is_over(secured: Secured, log: Log) -> None:
    key = await fresh(secured, secured.key(life_ms=1500))
    async with subscribed(secured, key) as websocket:
        assert (await websocket.receive())["code"] == "credentials_expired"
        assert await websocket.close_code() == 3005
    async with open_http(secured.node.address) as http:
        answer = await http.post("/v1/messages", b"[]", bearer(key))
        assert (answer.status, answer.code) == (401, "credentials_expired")


async def test_a_hello_with_fresh_credentials_keeps_it_open(secured: Secured, log: Log) -> None:
    key, longer = secured.key(life_ms=1500), secured.key()
    await fresh(secured, longer)
    async with subscribed(secured, key) as websocket:
        assert (await ask(websocket, op="hello", token=longer))["op"] == "ok"
        await trio.sleep(1.7)
        assert (await ask(websocket, op="publish", messages=[{"topic": "shop.a", "data": 1}]))["op"] in (
            "published",
            "messages",
        )


async def test_a_hello_of_somebody_else_is_refused_and_changes_nothing(secured: Secured, log: Log) -> None:
    key, other = secured.key(), secured.key(principal="bank")
    await fresh(secured, other)
    async with subscribed(secured, key) as websocket:
        assert (await ask(websocket, op="hello", token=other))["code"] == "permission_denied"
        assert (await ask(websocket, op="unsubscribe", subscription="shop.orders"))["op"] == "ok"


async def test_a_waiting_pull_waits_no_longer_than_its_credentials(secured: Secured, log: Log) -> None:
    key = await fresh(secured, secured.key(life_ms=1000))
    began = trio.current_time()
    async with open_http(secured.node.address) as http:
        answer = await http.post("/v1/subscriptions/shop.orders/pull", b'{"wait_ms":60000}', bearer(key))
    assert (answer.status, answer.json["messages"]) == (200, [])
    assert trio.current_time() - began < 5


# -------------------------------------------------------------------------------------------------------- revocation


async def test_a_revoked_key_ends_its_live_connections_and_waiting_pulls(secured: Secured, log: Log) -> None:
    key, other = secured.key(), secured.key()
    await fresh(secured, other)
    async with (
        subscribed(secured, key) as websocket,
        open_raw_websocket(secured.node.address, bearer(other)) as bystander,
        open_http(secured.node.address) as http,
    ):
        await send_pull(http, key)
        began = trio.current_time()
        secured.revoke(key)
        assert (await websocket.receive())["code"] == "invalid_token"
        assert await websocket.close_code() == 3500
        answer = await http.answer()
        assert (answer.status, answer.code) == (401, "invalid_token")
        assert trio.current_time() - began < 5
        assert (await ask(bystander, op="subscribe", subscription="shop.orders"))["op"] == "ok"
    refused = [entry for entry in log if entry["event"] == "refused"]
    assert refused
    assert all(key not in str(entry) for entry in log)


async def send_pull(http: RawHttp, key: str) -> None:
    body = b'{"wait_ms":60000}'
    head = f"POST /v1/subscriptions/shop.orders/pull HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    await http.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await trio.sleep(0.1)


async def test_a_subscription_that_is_taken_away_closes_with_3503(secured: Secured, log: Log) -> None:
    secured.permit("[principals.shop]\nsubscribe = ['shop.>']\n")
    key = await fresh(secured, secured.key(Grant()))
    with trio.fail_after(5):
        while not (await secured.node.access.authenticate(key)).may_subscribe("shop.orders"):
            await trio.sleep(0.01)
    async with subscribed(secured, key) as websocket, open_http(secured.node.address) as http:
        await send_pull(http, key)
        secured.permit("[principals.shop]\npublish = ['shop.>']\n")
        assert (await websocket.receive())["code"] == "permission_denied"
        assert await websocket.close_code() == 3503
        answer = await http.answer()
        assert (answer.status, answer.code) == (403, "permission_denied")


async def test_what_is_given_and_taken_of_publishing_counts_from_then_on(secured: Secured, log: Log) -> None:
    key = await fresh(secured, secured.key(Grant(subscribe=("shop.>",))))
    messages = [{"topic": "shop.a", "data": 1}, {"topic": "bank.a", "data": 1}]

    async def codes(websocket: RawWebSocket) -> list[str]:
        answer = await ask(websocket, op="publish", messages=messages)
        return [each["error"]["code"] if "error" in each else "" for each in answer["results"]]

    async with open_raw_websocket(secured.node.address, bearer(key)) as websocket:
        assert await codes(websocket) == ["permission_denied", "permission_denied"]
        secured.permit("[principals.shop]\npublish = ['shop.>']\n")
        with trio.fail_after(5):
            while await codes(websocket) != ["", "permission_denied"]:
                await trio.sleep(0.02)
        secured.permit("")
        with trio.fail_after(5):
            while await codes(websocket) != ["permission_denied", "permission_denied"]:
                await trio.sleep(0.02)


async def test_pages_and_credentials_do_not_mix_by_themselves(secured: Secured, log: Log) -> None:
    key = await fresh(secured, secured.key())
    async with open_http(secured.node.address) as http:
        answer = await http.post("/v1/topics/shop.a/messages", b"1", {**bearer(key), "Origin": "https://evil.example"})
        assert (answer.status, answer.code) == (403, "permission_denied")
        answer = await http.request("OPTIONS", "/v1/messages", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers


async def test_a_listed_page_may_read_the_answer(start_node: StartNode) -> None:
    page = "https://app.example.org"
    made = await start_node_with_origins(start_node, page)
    async with open_http(made.address) as http:
        preflight = {"Origin": page, "Access-Control-Request-Method": "POST"}
        answer = await http.request("OPTIONS", "/v1/messages", headers=preflight)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, page)
        answer = await http.post("/v1/topics/shop.a/messages", b"1", {"Origin": page})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (201, page)
    async with open_raw_websocket(made.address, {"Origin": page}) as websocket:
        assert (await ask(websocket, op="hello"))["op"] == "ok"


async def start_node_with_origins(start_node: StartNode, page: str) -> Node:
    return await start_node({"auth.origins": (page,)})


# ---------------------------------------------------------------------------------------------------------- failures


async def test_an_address_that_sends_bad_credentials_is_slowed_down_on_every_way_in(
    start_node: StartNode, tmp_path: Path, log: Log
) -> None:
    made = Secured(tmp_path)
    key = made.key()
    made.node = await start_node({**made.flags, "auth.failures_burst": 3, "auth.failures_per_s": 0.01})
    wrong = {"Authorization": "Bearer pgk_wrong"}
    async with open_http(made.node.address) as http, open_raw_websocket(made.node.address) as websocket:
        assert (await http.post("/v1/topics/shop.a/messages", b"1", bearer(key))).status == 201
        codes = [(await http.post("/v1/topics/shop.a/messages", b"1", wrong)).code for _ in range(4)]
        assert codes == ["invalid_token"] * 4
        answer = await http.post("/v1/topics/shop.a/messages", b"1", wrong)
        assert (answer.status, answer.code) == (429, "too_many_failures")
        assert int(answer.headers["retry-after"]) >= 1
        said = await ask(websocket, op="hello", token="pgk_wrong")
        assert (said["code"], said["temporary"]) == ("too_many_failures", True)
        async with open_http(made.node.control_address) as control:
            assert (await control.request("GET", "/v1/subscriptions", headers=wrong)).status == 429
        assert (await http.post("/v1/topics/shop.a/messages", b"1", bearer(key))).status == 201
        assert (await ask(websocket, op="hello", token=key))["op"] == "ok"
    refused = [entry["what"] for entry in log if entry["event"] == "refused" and entry["code"] == "too_many_failures"]
    assert refused == ["POST", "hello", "GET"]
    assert made.node.access.failures.refused == 3
