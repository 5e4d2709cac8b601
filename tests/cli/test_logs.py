from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest
import structlog

from gateway.cli import logs
from gateway.config import Log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_json_is_an_event_a_line_that_says_who_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(level="info", format="json"))
    logger = structlog.get_logger("gateway.somewhere")
    logger.debug("too quiet")
    logger.info("opened", connection="c-1")
    [line] = capsys.readouterr().err.splitlines()
    event = orjson.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "opened", "connection": "c-1", "level": "info", "logger": "gateway.somewhere"}


def test_an_exception_is_told_in_its_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(format="json"))
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
    [line] = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in orjson.loads(line)["exception"]


@pytest.mark.parametrize("format_", ["console", "json"])
def test_an_exception_shows_no_variable_because_it_may_be_a_token(
    capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    logs.configure(Log(format=format_))
    token = "-".join(["s3cr3t", "t0ken"])
    try:
        _ = 1 / len(token[99:])
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told
    assert "s3cr3t-t0ken" not in told


def test_people_read_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(format="console"))
    structlog.get_logger("gateway.somewhere").warning("careful")
    assert "careful" in capsys.readouterr().err


def test_auto_is_json_where_no_terminal_reads(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Log(format="auto"))
    structlog.get_logger().error("down")
    assert orjson.loads(capsys.readouterr().err)["event"] == "down"
