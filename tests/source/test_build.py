"""Sources of the configuration, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import config
from gateway.errors import ConfigError
from gateway.source.build import build
from gateway.source.ndjson import NdjsonSource
from gateway.source.postgres import PostgresSource

LINES = """[[source]]
name = "lines"
type = "ndjson"
path = "events.ndjson"
topic = "a.b"
"""
TABLE = """[[source]]
name = "table"
type = "postgres"
url = "dbname=x"
"""


def load(directory: Path, text: str) -> config.Config:
    file = directory / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def test_each_is_made_by_its_type(tmp_path: Path) -> None:
    lines, table = build(load(tmp_path, LINES + TABLE))
    assert isinstance(lines, NdjsonSource)
    assert isinstance(table, PostgresSource)
    assert (lines.name, table.name) == ("lines", "table")


def test_without_any_there_is_none() -> None:
    assert build(config.Config()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LINES.replace('name = "lines"', ""), "name is missing"),
        (LINES.replace('"lines"', '"../../etc"'), "subscription name"),
        (LINES.replace('ndjson"\npath', 'kafka"\npath'), "kafka"),
        (LINES.replace("a.b", "a..b"), "empty word"),
        (LINES.replace('path = "events.ndjson"', ""), "path is missing; a source of the type ndjson needs it"),
        (LINES + 'start = "middle"', "middle"),
        (TABLE.replace('url = "dbname=x"', ""), "url is missing"),
        (TABLE + 'error_column = ""', "error_column is missing"),
        (TABLE + 'topic_column = ""', "name a topic, or the column that has it"),
        (TABLE + "rows_max = 5000", "rows_max"),
        (TABLE + "colour = 1", "unknown key"),
        (LINES + LINES, "lines"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match="source") as raised:
        load(tmp_path, text)
    assert words in str(raised.value)
