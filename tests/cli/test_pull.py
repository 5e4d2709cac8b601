from __future__ import annotations

from tests.cli.conftest import Gateway
from tests.cli.fake import FakeControl

PULL = "POST /v1/subscriptions/orders/pull"
SETTLE = "POST /v1/subscriptions/orders/settle"
ANSWER = b'{"lease":"l-1","lease_ms":30000,"messages":[{"position":5,"data":{ "a" : 1.0 }},{"position":9,"data":2}]}'


def test_what_was_pulled_is_printed_as_it_came_and_acked(gateway: Gateway, control: FakeControl) -> None:
    control.answers[PULL] = (200, ANSWER)
    control.answers[SETTLE] = (200, {"acked": 2})
    outcome = gateway("pull", "orders", "--max", "7", "--wait-ms", "50")
    assert outcome.code == 0
    assert outcome.lines == ['{"position":5,"data":{ "a" : 1.0 }}', '{"position":9,"data":2}']
    assert control.calls == [
        (PULL, {"max": 7, "wait_ms": 50}),
        (SETTLE, {"lease": "l-1", "ack": [[5, 5], [9, 9]]}),
    ]


def test_without_ack_the_lease_is_told(gateway: Gateway, control: FakeControl) -> None:
    control.answers[PULL] = (200, ANSWER)
    outcome = gateway("pull", "orders", "--no-ack")
    assert len(outcome.lines) == 2
    assert outcome.err == "2 messages are leased for 30000 ms: l-1\n"
    assert [call for call, _ in control.calls] == [PULL]


def test_nothing_in_time_is_nothing_printed(gateway: Gateway, control: FakeControl) -> None:
    control.answers[PULL] = (200, b'{"lease":"","lease_ms":30000,"messages":[],"attempts":{}}')
    outcome = gateway("pull", "orders")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_a_subscription_that_is_not_there_is_one_line(gateway: Gateway, control: FakeControl) -> None:
    assert gateway("pull", "nowhere").err == "error: there is no such subscription\n"
