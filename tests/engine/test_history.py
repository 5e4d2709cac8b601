from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.history import matching_ranges
from gateway.kit.topics import matches
from gateway.store.files import Files
from gateway.store.record import Kind
from gateway.store.recovery import recover
from gateway.store.segment import Segment
from tests.store.building import SegmentFile, Told

TOPICS = ("trade.paid", "trade.sent", "refund.paid")


def opened(directory: Path) -> list[Segment]:
    return recover(Files(), directory, Told()).segments


def stored(directory: Path, *segments: Sequence[int]) -> list[Segment]:
    """Segments of messages, each by the number of its topic; routes are defined at their first use."""
    base = 1
    for number, topics in enumerate(segments, 1):
        file = SegmentFile.begin(number, base)
        known: list[int] = []
        for topic in topics:
            if topic not in known:
                known.append(topic)
                file.route(len(known), TOPICS[topic], [])
            file.message(b"{}", known.index(topic) + 1)
            file.add(Kind.SETTLE, b"passed over", number=1)
        file.write(directory)
        base = file.end
    return opened(directory)


class InMemory(Files):
    """Maps what it was given."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self.files = files

    def map(self, file: int) -> Mapped:  # type: ignore[override]
        return Mapped(self.files[file])


class Mapped(bytes):
    def __enter__(self) -> Mapped:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@given(
    segments=st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=3),
    patterns=st.sets(st.sampled_from(["trade.*", "*.paid", "refund.paid", ">", "none"]), min_size=1),
    limit=st.integers(1, 20),
)
def test_the_past_is_what_would_have_matched(segments: list[list[int]], patterns: set[str], limit: int) -> None:
    made: list[Segment] = []
    contents: list[bytes] = []
    topics: list[str] = []
    for number, chosen in enumerate(segments, 1):
        file = SegmentFile.begin(number, len(topics) + 1)
        segment = Segment(number, Path(), file.base, 0)
        for route, topic in enumerate(TOPICS, 1):
            file.route(route, topic, [])
        for place in chosen:
            segment.offsets.append(len(file.data))
            file.message(b"{}", place + 1)
            topics.append(TOPICS[place])
        segment.size, segment.file = len(file.data), len(contents)
        made.append(segment)
        contents.append(bytes(file.data))
    ranges = matching_ranges(InMemory(contents), made, sorted(patterns), limit)
    found = [position for low, high in ranges for position in range(low, high + 1)]
    wanted = [p for p, topic in enumerate(topics, 1) if p < limit and any(matches(each, topic) for each in patterns)]
    assert found == wanted
    assert all(after[0] - before[1] > 1 for before, after in pairwise(ranges))


def test_runs_are_joined_over_the_ends_of_segments(tmp_path: Path) -> None:
    segments = stored(tmp_path, [0, 1, 1], [1, 0], [1, 2])
    assert matching_ranges(Files(), segments, ["trade.sent"], 99) == [(2, 4), (6, 6)]
    assert matching_ranges(Files(), segments, ["trade.>"], 6) == [(1, 5)]
    assert matching_ranges(Files(), segments, ["none"], 99) == []


def test_an_empty_segment_has_no_past(tmp_path: Path) -> None:
    assert matching_ranges(Files(), stored(tmp_path, []), [">"], 99) == []


def test_what_stands_behind_the_limit_may_still_be_half_written(tmp_path: Path) -> None:
    segments = stored(tmp_path, [0, 0, 1])
    file = SegmentFile.begin(1, 4)
    file.add(Kind.SUBSCRIPTION, b"made at 4")
    begun = len(file.data)
    file.route(3, "trade.paid", [])
    file.message(b"{}", 3)
    tail = bytes(file.data[file.offsets[0] :])
    whole = segments[0].path.read_bytes()
    for cut in range(begun - file.offsets[0], len(tail)):
        segments[0].path.write_bytes(whole + tail[:cut])
        segments[0].size = len(whole) + len(tail)
        assert matching_ranges(Files(), segments, [">"], 4) == [(1, 3)]
