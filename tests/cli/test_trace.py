from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import orjson
import pytest

from gateway.cli.trace import parse_since
from tests.cli.conftest import Gateway
from tests.cli.fake import FakeControl
from tests.trace.told import BEGAN_MS, Told

NOTHING: dict[str, Any] = dict.fromkeys(("subscription", "who", "why", "attempt", "until_ms", "other"))
VIEW: dict[str, Any] = {
    "id": "a/1",
    "positions": [3, 4711],
    "messages": [
        {
            "position": 4711,
            "relation": "",
            "topic": "trade.paid",
            "traceparent": "00-x",
            "standing": [{"subscription": "orders", "state": "dead_lettered", "since_ms": BEGAN_MS}],
            "steps": [
                {**NOTHING, "time_ms": BEGAN_MS, "step": "accepted", "who": "c-1", "why": "trade.paid"},
                {
                    **NOTHING,
                    "time_ms": BEGAN_MS + 5,
                    "step": "delivered",
                    "subscription": "orders",
                    "who": "c-[2]",
                    "attempt": 3,
                    "until_ms": BEGAN_MS + 30_000,
                },
                {**NOTHING, "time_ms": BEGAN_MS + 65_005, "step": "lease_expired", "subscription": "orders"},
                {**NOTHING, "time_ms": BEGAN_MS + 9_000_000, "step": "dead_letter_stored", "other": 4712},
            ],
        },
        {
            "position": 4712,
            "relation": "dead_letter",
            "topic": "dead.orders",
            "traceparent": None,
            "standing": [],
            "steps": [{**NOTHING, "time_ms": BEGAN_MS, "step": "accepted"}],
        },
    ],
    "refused": [{**NOTHING, "time_ms": BEGAN_MS, "step": "refused", "who": "c-7", "why": "trade.paid: id_conflict"}],
    "lost": 12,
    "since_ms": BEGAN_MS,
}


def test_a_trace_is_a_timeline_that_can_be_read(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/messages/a%2F1/trace"] = (200, VIEW)
    outcome = gateway("trace", "a/1")
    assert outcome.code == 0
    text = [" ".join(re.sub(r"(20\d\d-\d\d-\d\d )?[\d:]{8}\.\d\d\d", "T", line).split()) for line in outcome.lines]
    assert [line for line in text if line] == [
        "a/1 position 4711 trade.paid",
        "traceparent 00-x",
        "when since step subscription who why",
        "T accepted c-1 trade.paid",
        "T +5 ms delivered (3) orders c-[2] until T",
        "T +65.0 s lease expired orders",
        "T +2.5 h dead letter stored position 4712",
        "orders: dead lettered since T",
        "its dead letter position 4712 dead.orders",
        "when since step subscription who why",
        "T accepted",
        "no subscription was due it",
        "a/1 refused",
        "when since step subscription who why",
        "T refused c-7 trade.paid: id_conflict",
        "The id is also at 3; --position shows those.",
        "12 events of that time were lost; steps may be missing.",
        "The trace reaches back to T.",
    ]


@pytest.mark.parametrize(
    "arguments", [("a1", "--position", "7"), ("--position", "7", "a1"), ("show", "a1", "--position=7")]
)
def test_a_position_chooses_among_messages_of_one_id(
    gateway: Gateway, control: FakeControl, arguments: tuple[str, ...]
) -> None:
    control.answers["GET /v1/messages/a1/trace?position=7"] = (200, {**VIEW, "messages": []})
    assert gateway("trace", *arguments).code == 0


def test_a_message_may_be_called_as_a_command_is(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/messages/export/trace"] = (200, VIEW)
    assert gateway("trace", "show", "export").code == 0


def test_as_json_it_is_what_the_gateway_says(gateway: Gateway, control: FakeControl) -> None:
    control.answers["GET /v1/messages/a1/trace"] = (200, VIEW)
    assert orjson.loads(gateway("trace", "a1", "--json").out) == VIEW


def test_a_message_that_nobody_knows_is_an_error(gateway: Gateway, control: FakeControl) -> None:
    error = {"code": "message_not_found", "message": "message 'a1' is known to nobody", "temporary": False}
    control.answers["GET /v1/messages/a1/trace"] = (404, error)
    outcome = gateway("trace", "a1")
    assert outcome.code == 1
    assert "known to nobody" in outcome.err


def test_the_help_says_both_ways(gateway: Gateway) -> None:
    outcome = gateway("trace", "--help")
    assert outcome.code == 0
    assert "export" in outcome.out
    assert "gateway trace a1" in outcome.out


def test_an_export_is_a_line_for_each_event(gateway: Gateway, tmp_path: Path) -> None:
    told = Told(tmp_path / "trace")
    told.stored(1, 5)
    told.now += 60_000
    told.handed(range(1, 6))
    told.finish()
    lines = [orjson.loads(line) for line in gateway("trace", "export", "--data", str(tmp_path)).lines]
    assert [line["step"] for line in lines] == ["accepted", "delivered"]
    since = gateway("trace", "export", "--data", str(tmp_path), "--since", "2026-11-22T05:52:00+00:00")
    assert [orjson.loads(line)["step"] for line in since.lines] == ["delivered"]


def test_an_export_takes_the_configuration_of_the_gateway(gateway: Gateway, tmp_path: Path) -> None:
    Told(tmp_path / "elsewhere").finish()
    file = tmp_path / "gateway.toml"
    file.write_text(f'[trace]\ndirectory = "{tmp_path / "elsewhere"}"\n')
    outcome = gateway("trace", "export", "--config", str(file))
    assert (outcome.code, outcome.out) == (0, "")


def test_where_there_is_no_trace_that_is_said(gateway: Gateway, tmp_path: Path) -> None:
    outcome = gateway("trace", "export", "--data", str(tmp_path))
    assert outcome.code == 1
    assert "there is no trace" in outcome.err


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("90s", 910_000), ("10m", 400_000), ("0d", 1_000_000), ("1970-01-01T00:00:01+00:00", 1000)],
)
def test_a_time_is_so_long_ago_or_a_date(text: str, expected_ms: int) -> None:
    assert parse_since(text, 1000.0) == expected_ms


@pytest.mark.parametrize("text", ["", "10", "10x", "-5m", "yesterday"])
def test_another_time_is_a_wrong_command_line(text: str) -> None:
    with pytest.raises(click.UsageError, match="--since"):
        parse_since(text, 1000.0)
