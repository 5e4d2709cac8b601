from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.cli.conftest import Gateway
from tests.cli.fake import FakeControl

VIEW: dict[str, Any] = {
    "name": "orders",
    "topics": ["trade.>"],
    "paused": True,
    "statistics": {"waiting": 12345, "in_flight": 2, "delayed": 0, "acked": 7, "consumers": 1, "oldest_ms": 1},
}


def test_create_sends_only_what_was_given(gateway: Gateway, control: FakeControl) -> None:
    control.answers["PUT /v1/subscriptions/orders"] = (201, VIEW)
    outcome = gateway(
        *("subscription", "create", "orders", "--topic", "trade.>", "--topic", "stock.*", "--lease-ms", "5000"),
        *("--backoff-ms", "100,200", "--dead-letter", "", "--start", "start", "--paused"),
    )
    assert outcome.code == 0
    assert orjson.loads(outcome.out) == VIEW
    settings = {"topics": ["trade.>", "stock.*"], "lease_ms": 5000, "backoff_ms": [100, 200]}
    assert control.calls == [
        ("PUT /v1/subscriptions/orders", {**settings, "dead_letter": "", "start": "start", "paused": True})
    ]


def test_a_change_may_be_one_setting(gateway: Gateway, control: FakeControl) -> None:
    control.answers["PUT /v1/subscriptions/orders"] = (200, VIEW)
    assert gateway("subscription", "create", "orders", "--not-paused").code == 0
    assert control.calls[0][1] == {"paused": False}


def test_steps_that_are_no_numbers_are_a_wrong_command_line(gateway: Gateway, control: FakeControl) -> None:
    outcome = gateway("subscription", "create", "orders", "--backoff-ms", "1s")
    assert outcome.code == 2
    assert control.calls == []


@pytest.mark.parametrize(
    ("arguments", "call", "body"),
    [
        (("pause", "orders"), "POST /v1/subscriptions/orders/pause", None),
        (("resume", "orders"), "POST /v1/subscriptions/orders/resume", None),
        (("seek", "orders", "--start"), "POST /v1/subscriptions/orders/seek", {"to": "start"}),
        (("seek", "orders", "--end"), "POST /v1/subscriptions/orders/seek", {"to": "end"}),
        (("seek", "orders", "--position", "0"), "POST /v1/subscriptions/orders/seek", {"to": {"position": 0}}),
        (("seek", "orders", "--time", "17"), "POST /v1/subscriptions/orders/seek", {"to": {"time_ms": 17}}),
        (
            ("seek", "orders", "--time", "1970-01-01T01:00:01+01:00"),
            "POST /v1/subscriptions/orders/seek",
            {"to": {"time_ms": 1000}},
        ),
        (("redrive", "orders"), "POST /v1/subscriptions/orders/redrive", None),
        (("why", "orders", "4711"), "GET /v1/subscriptions/orders/why?position=4711", None),
    ],
)
def test_what_moves_a_subscription_on_is_one_call_each(
    gateway: Gateway, control: FakeControl, arguments: tuple[str, ...], call: str, body: object
) -> None:
    control.answers[call] = (200, {"said": 1})
    outcome = gateway("subscription", *arguments)
    assert (outcome.code, orjson.loads(outcome.out)) == (0, {"said": 1})
    assert control.calls == [(call, body)]


@pytest.mark.parametrize("arguments", [(), ("--start", "--position", "1"), ("--time", "yesterday")])
def test_a_seek_needs_one_place(gateway: Gateway, control: FakeControl, arguments: tuple[str, ...]) -> None:
    assert gateway("subscription", "seek", "orders", *arguments).code == 2
    assert control.calls == []


def test_list_is_a_table(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/subscriptions"] = (200, [VIEW])
    outcome = gateway("subscription", "list")
    head, row = outcome.lines
    assert " ".join(head.split()) == "name topics waiting in flight delayed acked dead lettered consumers oldest"
    assert row.split()[:7] == ["orders", "(paused)", "trade.>", "12,345", "2", "0", "7"]


def test_list_as_json_is_what_the_gateway_says(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/subscriptions"] = (200, [VIEW])
    assert orjson.loads(gateway("subscription", "list", "--json").out) == [VIEW]


def test_show_is_what_the_gateway_says(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/subscriptions/orders"] = (200, VIEW)
    assert orjson.loads(gateway("subscription", "show", "orders").out) == VIEW


def test_delete_deletes(gateway: Gateway, control: FakeControl) -> None:
    control.answers["DELETE /v1/subscriptions/orders"] = (204, b"")
    outcome = gateway("subscription", "delete", "orders")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "deleted orders\n")


def test_delete_asks_first_where_there_is_a_terminal(gateway: Gateway, control: FakeControl) -> None:
    control.answers["DELETE /v1/subscriptions/orders"] = (204, b"")
    assert gateway("subscription", "delete", "orders", stdin=b"n\n", terminal=True).code == 130
    assert control.calls == []
    assert gateway("subscription", "delete", "orders", stdin=b"y\n", terminal=True).code == 0
    assert gateway("subscription", "delete", "orders", "--yes", terminal=True).code == 0
    assert len(control.calls) == 2


def test_an_error_of_the_gateway_is_one_line(gateway: Gateway, control: FakeControl) -> None:
    outcome = gateway("subscription", "show", "nowhere")
    assert (outcome.code, outcome.err) == (1, "error: there is no such subscription\n")


def test_a_name_is_one_segment_of_the_path(gateway: Gateway, control: FakeControl) -> None:
    gateway("subscription", "show", "a/../b c")
    assert control.calls == [("GET /v1/subscriptions/a%2F..%2Fb%20c", None)]


def test_no_gateway_is_one_line(gateway: Gateway) -> None:
    outcome = gateway("subscription", "list", "--control-url", "http://127.0.0.1:1")
    assert outcome.code == 1
    assert outcome.err == "error: http://127.0.0.1:1/v1/subscriptions: [Errno 111] Connection refused\n"


def test_another_server_is_named(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/subscriptions"] = (418, b"<html>")
    outcome = gateway("subscription", "list")
    assert (outcome.code, outcome.err) == (1, "error: answered with HTTP status 418; is it a push gateway?\n")


def test_the_credential_comes_from_the_environment(
    gateway: Gateway, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "secret")
    gateway("subscription", "list")
    assert control.headers["Authorization"] == "Bearer secret"
