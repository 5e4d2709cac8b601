from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.auth.audit import Audit, clean
from gateway.config import Audit as AuditSettings
from gateway.errors import GatewayError
from gateway.principal import NOBODY, Principal
from tests.conftest import Log

SHOP = Principal(name="shop")
DENIED = SHOP.denied("do that")


class Time:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.ms


def lines(file: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def test_a_change_says_who_what_and_how_it_ended(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "audit.jsonl"
    Audit(AuditSettings(file=str(file)), Time()).changed(SHOP, "putSubscription", "/v1/subscriptions/a", 201, "h:1")
    expected = {
        "event": "changed",
        "principal": "shop",
        "call": "putSubscription",
        "target": "/v1/subscriptions/a",
        "status": 201,
        "remote": "h:1",
    }
    assert lines(file) == [{"time_ms": 1_800_000_000_000, **expected}]
    assert log == [{**expected, "log_level": "info"}]


def test_a_refusal_says_who_was_refused_what_and_why(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(AuditSettings(file=str(file)), Time())
    audit.refused(SHOP, "POST", "/v1/messages", DENIED, "h:1")
    audit.refused(None, "POST", "/v1/messages", GatewayError("no_credentials", "none"), "h:1")
    shop, nobody = lines(file)
    assert (shop["principal"], shop["code"], shop["reason"]) == ("shop", "permission_denied", DENIED.message)
    assert (nobody["principal"], nobody["code"]) == ("", "no_credentials")
    assert audit.refusals == {"permission_denied": 1, "no_credentials": 1}


INJECTIONS = [
    'a\n{"event":"changed","principal":"root"}',
    "a\r\x1b[2Jb",
    "a\u2028b\u2029c\x85d",
    "a\u202eb",
    "\ud800",
    "\x00",
    "\x7f\x9b31m",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_name_cannot_pass_for_anything_else(tmp_path: Path, log: Log, text: str) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(AuditSettings(file=str(file)), Time())
    audit.changed(Principal(name=text), "call", text, 200, "h:1")
    audit.refused(Principal(name=text), "POST", text, GatewayError("bad_request", text), "h:1")
    assert len(file.read_bytes().splitlines()) == 2
    for entry in [*lines(file), *log]:
        assert all(str(value).isprintable() for value in entry.values())


def test_what_was_escaped_differs_from_what_was_written_so() -> None:
    assert clean("a\nb") == "a\\nb"
    assert clean("a\\nb") == "a\\\\nb"
    assert clean("trade.ü.订单") == "trade.ü.订单"
    assert len(clean("x" * 10_000)) == 200


def test_refusals_are_bounded_in_rate_and_what_is_left_out_is_counted(tmp_path: Path, log: Log) -> None:
    file, time = tmp_path / "audit.jsonl", Time()
    audit = Audit(AuditSettings(file=str(file), refusals_per_s=2), time)
    for _ in range(100):
        audit.refused(NOBODY, "POST", "/", DENIED, "h:1")
    assert len(lines(file)) == 10
    assert audit.suppressed == 90
    time.ms += 500
    for _ in range(100):
        audit.refused(NOBODY, "POST", "/", DENIED, "h:1")
    assert [entry.get("left_out") for entry in lines(file)[10:]] == [90]
    assert audit.refusals == {"permission_denied": 200}


def test_changes_are_never_left_out(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(AuditSettings(file=str(file), refusals_per_s=1), Time())
    for _ in range(100):
        audit.changed(SHOP, "call", "/", 200, "h:1")
    assert len(lines(file)) == 100


def test_a_rotated_file_is_left_alone(tmp_path: Path, log: Log) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(AuditSettings(file=str(file)), Time())
    audit.changed(SHOP, "first", "/", 200, "h:1")
    os.replace(file, tmp_path / "audit.jsonl.1")
    audit.changed(SHOP, "second", "/", 200, "h:1")
    assert [entry["call"] for entry in lines(file)] == ["second"]


def test_a_file_that_takes_no_lines_is_said_once_and_stops_nothing(tmp_path: Path, log: Log) -> None:
    audit = Audit(AuditSettings(file=str(tmp_path)), Time())
    for _ in range(3):
        audit.changed(SHOP, "call", "/", 200, "h:1")
    assert audit.failures == 3
    assert [entry["event"] for entry in log] == ["changed", "the audit file takes no lines", "changed", "changed"]
    log.clear()
