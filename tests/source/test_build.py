"""Sources of the configuration, and what is wrong with it."""

from __future__ import annotations

import attrs
import pytest

from gateway.config import Config
from gateway.config.settings import Source
from gateway.errors import ConfigError
from gateway.source.build import build
from gateway.source.ndjson import NdjsonSource
from gateway.source.postgres import PostgresSource

LINES = Source(name="lines", type="ndjson", topic="a.b", path="events.ndjson")
TABLE = Source(name="table", type="postgres", url="dbname=x")


def test_each_is_made_by_its_type() -> None:
    lines, table = build(Config(), [LINES, TABLE])
    assert isinstance(lines, NdjsonSource)
    assert isinstance(table, PostgresSource)
    assert (lines.name, table.name) == ("lines", "table")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (attrs.evolve(LINES, name=""), "name:"),
        (attrs.evolve(LINES, name="../../etc"), "name:"),
        (attrs.evolve(LINES, type="kafka"), "type: 'kafka': use postgres or ndjson"),
        (attrs.evolve(LINES, topic="a..b"), "empty word"),
        (attrs.evolve(LINES, path=""), "path: is empty"),
        (attrs.evolve(LINES, start="middle"), "start: 'middle': use start or end"),
        (attrs.evolve(TABLE, url=""), "url: is empty"),
        (attrs.evolve(TABLE, error_column=""), "error_column: is empty"),
        (attrs.evolve(TABLE, topic_column=""), "name a topic, or the topic_column"),
    ],
)
def test_what_is_wrong_is_named(settings: Source, words: str) -> None:
    with pytest.raises(ConfigError, match=f'source "{settings.name}"') as raised:
        build(Config(), [settings])
    assert words in str(raised.value)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two of this name"):
        build(Config(), [LINES, LINES])
