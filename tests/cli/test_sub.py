from __future__ import annotations

import pytest

from tests.cli.conftest import Gateway
from tests.cli.fake import FakeControl, FakeData

MESSAGES = [f'{{"position":{n},"id":"a","topic":"t","time_ms":1,"data":{{ "n" : {n}.0 }}}}' for n in (1, 2, 3)]


def test_messages_are_printed_as_they_were_delivered_and_then_acked(gateway: Gateway, data: FakeData) -> None:
    data.deliveries = MESSAGES
    outcome = gateway("sub", "orders", "--count", "3")
    assert outcome.code == 0
    assert outcome.lines == MESSAGES
    assert data.acked == [[1, 3]]


def test_what_goes_beyond_the_count_is_neither_printed_nor_acked(gateway: Gateway, data: FakeData) -> None:
    data.deliveries = MESSAGES
    outcome = gateway("sub", "orders", "--count", "2")
    assert outcome.lines == MESSAGES[:2]
    assert data.acked == [[1, 2]]


def test_create_makes_the_subscription_first(gateway: Gateway, control: FakeControl, data: FakeData) -> None:
    control.answers["PUT /v1/subscriptions/orders"] = (201, {})
    data.deliveries = MESSAGES
    assert gateway("sub", "orders", "--create", "--topic", "trade.>", "--count", "3").code == 0
    assert control.calls == [("PUT /v1/subscriptions/orders", {"topics": ["trade.>"]})]


@pytest.mark.parametrize("half", [["--create"], ["--topic", "t"]])
def test_create_and_topic_go_together(gateway: Gateway, half: list[str]) -> None:
    assert gateway("sub", "orders", *half).code == 2


def test_a_subscription_that_is_not_there_is_one_line(gateway: Gateway, data: FakeData) -> None:
    outcome = gateway("sub", "nowhere")
    assert (outcome.code, outcome.err) == (1, "error: there is none\n")


def test_no_gateway_is_one_line(gateway: Gateway) -> None:
    outcome = gateway("sub", "orders", "--url", "http://127.0.0.1:1")
    assert outcome.code == 1
    assert outcome.err.startswith("error: cannot connect to 127.0.0.1:1: ")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a"])
def test_an_address_that_is_none_is_one_line(gateway: Gateway, url: str) -> None:
    outcome = gateway("sub", "orders", "--url", url)
    assert outcome.code == 1
    assert outcome.err == f"error: --url {url}: write http://HOST:PORT, or https:// for TLS\n"
