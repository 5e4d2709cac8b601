from __future__ import annotations

from typing import NoReturn

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from gateway.errors import StoreError
from gateway.node import Node

ERROR = {"code", "message", "temporary"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/nope", 404, "not_found"),
        ("PUT", "/v1/subscriptions/", 404, "not_found"),
        ("GET", "/v1/subscriptions/a/b", 404, "not_found"),
        ("GET", "/livez/", 404, "not_found"),
        ("GET", "/livez%0A", 404, "not_found"),
        ("GET", "/LIVEZ", 404, "not_found"),
        ("OPTIONS", "/nope", 404, "not_found"),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("DELETE", "/v1/subscriptions", 405, "method_not_allowed"),
        ("PATCH", "/v1/subscriptions/orders", 405, "method_not_allowed"),
        ("GET", "/v1/connections/c-1", 405, "method_not_allowed"),
        ("TRACE", "/metrics", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_a_call_is_answered_with_the_error_object(
    control: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await control.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == ERROR
    assert answer.json()["code"] == code


async def test_an_unknown_path_is_named_and_where_the_known_ones_stand(control: httpx.AsyncClient) -> None:
    answer = await control.get("/v1/subscriptions/a/%2e?x=1")
    assert answer.json()["message"] == (
        "/v1/subscriptions/a/%2e is not a call of the control plane; /openapi.json lists them"
    )


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/v1/subscriptions", "GET, HEAD, OPTIONS"),
        ("/v1/subscriptions/orders", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/v1/connections/c-1", "DELETE, OPTIONS"),
    ],
)
async def test_options_and_a_wrong_method_say_what_is_allowed(
    control: httpx.AsyncClient, path: str, allow: str
) -> None:
    options = await control.options(path)
    assert (options.status_code, options.headers["allow"], options.content) == (204, allow, b"")
    assert (await control.post(path)).headers["allow"] == allow


async def test_options_of_the_whole_server_are_answered(node: Node) -> None:
    host, _, port = node.control_address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b"".join([part async for part in stream])
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: " in answer


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/metrics", "/openapi.json", "/v1/subscriptions", "/nope"])
async def test_head_is_get_without_the_body(control: httpx.AsyncClient, path: str) -> None:
    head, get = await control.head(path), await control.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # its numbers change
        assert head.headers["content-length"] == get.headers["content-length"]


async def test_an_unexpected_failure_is_logged_and_its_cause_is_not_told(
    node: Node, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(now: int) -> NoReturn:
        raise RuntimeError("a secret")

    monkeypatch.setattr(node.engine, "subscriptions", fail)
    with capture_logs() as logs:
        answer = await control.get("/v1/subscriptions")
    assert answer.status_code == 500
    assert answer.json().keys() == ERROR
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert (await control.get("/livez")).status_code == 200


async def test_a_failed_store_is_said(node: Node, control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(name: str) -> NoReturn:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(node.engine, "delete_subscription", fail)
    answer = await control.delete("/v1/subscriptions/orders")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_failed")
    assert answer.headers["retry-after"] == "1"


async def test_no_call_takes_a_thread_of_the_web_framework(
    control: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_arguments: object, **_more: object) -> NoReturn:
        raise AssertionError("a thread was asked for")

    monkeypatch.setattr("anyio.to_thread.run_sync", forbidden)
    settings = b'{"topics":["trade.>"]}'
    calls = [
        await control.put("/v1/subscriptions/orders", content=settings),
        await control.get("/v1/subscriptions"),
        await control.get("/v1/connections"),
        await control.get("/livez"),
        await control.get("/readyz"),
        await control.get("/healthz"),
        await control.get("/metrics"),
        await control.get("/openapi.json"),
        await control.get("/v1/subscriptions/nope"),
        await control.get("/nope"),
        await control.post("/livez"),
        await control.delete("/v1/subscriptions/orders"),
    ]
    assert [answer.status_code for answer in calls] == [201, 200, 200, 200, 200, 200, 200, 200, 404, 404, 405, 204]
