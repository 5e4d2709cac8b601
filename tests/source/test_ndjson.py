"""A file of JSON lines as a source: what is published, what is refused, and what is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
import trio

from gateway.config import Limits
from gateway.config.settings import Source as SourceSettings
from gateway.errors import GatewayError
from gateway.source.base import State
from gateway.source.ndjson import NdjsonSource
from tests.conftest import Log
from tests.source.conftest import KeepWatch, Taker, until


class Upstream:
    """A file of lines, and sources that follow it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "events.ndjson"
        self.state = directory / "state"

    def write(self, *lines: str, end: str = "\n") -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(line + end for line in lines))

    def saved(self) -> int:
        """The offset behind the last line that a restart will not read again."""
        file = self.state / "lines.json"
        return int(orjson.loads(file.read_bytes())["offset"]) if file.exists() else -1

    def source(self, *, topic: str = "a.b", start: str = "start") -> NdjsonSource:
        settings = SourceSettings(
            name="lines", type="ndjson", topic=topic, path=str(self.path), start=start, poll_ms=10
        )
        source = NdjsonSource(settings, Limits(), self.state)
        source.rest_s = 0.05
        return source


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path)


async def test_lines_are_published_as_they_come_byte_for_byte(upstream: Upstream, keep_watch: KeepWatch) -> None:
    upstream.write('{"n":1.50,  "s":"买"}', "", "[2]\r", "3")
    taker, source = Taker(), upstream.source()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 3)
    assert taker.data() == ['{"n":1.50,  "s":"买"}'.encode(), b"[2]", b"3"]
    assert {message.topic for message in taker.messages.values()} == {"a.b"}
    upstream.write("4")
    await until(lambda: source.statistics.published == 4)
    await until(lambda: source.statistics.behind == 0)


async def test_without_a_topic_a_line_is_a_message(upstream: Upstream, keep_watch: KeepWatch) -> None:
    upstream.write(
        '{"topic":"x.y","data":{"a":1},"id":"mine","key":"k","attributes":{"p":"q"}}', '{"topic":"z","data":2}'
    )
    taker, source = Taker(), upstream.source(topic="")
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 2)
    first, second = taker.messages.values()
    assert (first.id, first.topic, first.key, first.attributes) == ("mine", "x.y", "k", {"p": "q"})
    assert second.id is not None
    assert second.id.startswith("lines-1-")


async def test_bad_lines_are_counted_and_named_and_hold_up_nobody(
    upstream: Upstream, keep_watch: KeepWatch, log: Log
) -> None:
    upstream.write("1", "{", "NaN", '"\\ud800"', "[" * 2000 + "]" * 2000, "9" * (1024 * 1024 + 1), "2")
    taker, source = Taker(strict=True), upstream.source()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 2)
    await until(lambda: source.statistics.refused == 5)
    assert taker.data() == [b"1", b"2"]
    named = [entry["line"] for entry in log if entry["event"] == "a line cannot be published"]
    assert sorted(named) == [2, 3, 4, 5, 6]


async def test_bad_messages_are_named_too(upstream: Upstream, keep_watch: KeepWatch, log: Log) -> None:
    upstream.write(
        '{"topic":"a..b","data":1}', '{"data":1}', '{"topic":"a","data":1,"more":2}', '{"topic":"a","data":1}'
    )
    taker, source = Taker(strict=True), upstream.source(topic="")
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 1)
    await until(lambda: source.statistics.refused == 3)
    assert {entry["line"] for entry in log} == {1, 2, 3}


async def test_a_flood_of_bad_lines_is_no_flood_of_log_lines(
    upstream: Upstream, keep_watch: KeepWatch, log: Log
) -> None:
    upstream.write(*["x"] * 400)
    taker, source = Taker(), upstream.source()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.refused == 400)
    assert len(log) == 11
    assert log[-1]["more"] == 390


async def test_a_restart_publishes_what_is_new_only(upstream: Upstream, keep_watch: KeepWatch) -> None:
    upstream.write(*map(str, range(1200)))
    taker, source = Taker(), upstream.source()
    watch = await keep_watch(source, taker)
    await until(lambda: upstream.saved() == upstream.path.stat().st_size)
    assert source.statistics.published == 1200
    watch.stop()
    upstream.write("new")
    upstream.write('"new"')
    again = upstream.source()
    await keep_watch(again, taker)
    await until(lambda: again.statistics.published == 1)
    assert taker.published == 1201
    assert again.statistics.refused == 1


async def test_a_crash_between_the_answer_and_the_saving_repeats_the_same_ids(
    upstream: Upstream, keep_watch: KeepWatch
) -> None:
    upstream.write("1", "2")
    taker, source = Taker(), upstream.source()
    taker.hold = trio.Event()
    watch = await keep_watch(source, taker)
    await until(lambda: taker.calls == 1)
    watch.stop()  # the gateway had it, the place was never saved
    taker.hold = None
    for _ in range(2):
        again = upstream.source()
        watch = await keep_watch(again, taker)
        await until(lambda again=again: again.statistics.state is State.RUNNING and again.statistics.behind == 0)  # type: ignore[misc]
        await until(lambda: taker.published >= 2)
        watch.stop()
    assert len(taker.messages) == 2


async def test_rotation_in_both_ways(upstream: Upstream, keep_watch: KeepWatch) -> None:
    taker, source = Taker(), upstream.source()
    upstream.write("1")
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 1)
    upstream.write("2")
    upstream.path.rename(upstream.path.with_name("events.ndjson.1"))
    upstream.write("3")
    await until(lambda: source.statistics.published == 3)
    os.truncate(upstream.path, 0)
    upstream.write("4", "5")
    await until(lambda: source.statistics.published == 5)
    assert taker.data() == [b"1", b"2", b"3", b"4", b"5"]
    assert len(taker.messages) == 5, "no two lines have the same id"


async def test_a_file_that_is_not_there_yet_is_waited_for(upstream: Upstream, keep_watch: KeepWatch, log: Log) -> None:
    taker, source = Taker(), upstream.source()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.WAITING)
    assert source.statistics.error == f"{upstream.path}: No such file or directory"
    upstream.write("1")
    await until(lambda: source.statistics.published == 1)
    assert source.statistics.error == ""


async def test_a_gateway_that_takes_nothing_is_tried_again(upstream: Upstream, keep_watch: KeepWatch, log: Log) -> None:
    upstream.write("1", "2")
    taker, source = Taker(), upstream.source()
    taker.errors = [GatewayError("overloaded", "no room")]
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 2)
    assert source.statistics.failures == 1


async def test_it_may_begin_at_the_end(upstream: Upstream, keep_watch: KeepWatch) -> None:
    upstream.write("1", "2")
    taker, source = Taker(), upstream.source(start="end")
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.RUNNING)
    upstream.write("3")
    await until(lambda: source.statistics.published == 1)
    assert taker.data() == [b"3"]


async def test_a_damaged_place_is_said_and_nothing_is_guessed(
    upstream: Upstream, keep_watch: KeepWatch, log: Log
) -> None:
    upstream.write("1")
    upstream.state.mkdir()
    (upstream.state / "lines.json").write_bytes(b'{"inode":1')
    taker, source = Taker(), upstream.source()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.WAITING)
    assert "is damaged" in source.statistics.error
    assert taker.calls == 0


async def test_the_place_is_kept_in_one_small_file(upstream: Upstream, keep_watch: KeepWatch) -> None:
    upstream.write("10", "20")
    taker, source = Taker(), upstream.source()
    await keep_watch(source, taker)
    file = upstream.state / "lines.json"
    await until(lambda: upstream.saved() == 6)
    assert list(upstream.state.iterdir()) == [file]
    kept = orjson.loads(file.read_bytes())
    assert (kept["line"], kept["generation"]) == (2, 1)
    assert kept["inode"] == upstream.path.stat().st_ino
