from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.history import matching, sources
from gateway.kit.topics import matches
from gateway.store.files import Files
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from tests.store.building import grown, opened, stored

TOPICS = ("trade.paid", "trade.sent", "refund.paid")


def past(
    segments: Sequence[Segment], patterns: list[str], limit: int, shelf: Shelf | None = None
) -> list[tuple[int, int]]:
    unsealed = [segment for segment in segments if not segment.sealed]
    found = matching(shelf or Shelf(Files(), 4, 4), sources(segments, unsealed), patterns, limit)
    assert found.end == limit
    return list(found.positions)


@given(
    segments=st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=3),
    patterns=st.sets(st.sampled_from(["trade.*", "*.paid", "refund.paid", ">", "none"]), min_size=1),
    limit=st.integers(1, 20),
)
def test_the_past_is_what_would_have_matched(segments: list[list[int]], patterns: set[str], limit: int) -> None:
    topics = [TOPICS[place] for chosen in segments for place in chosen]
    made = grown(*([TOPICS[place] for place in chosen] for chosen in segments))
    found = [position for low, high in past(made, sorted(patterns), limit) for position in range(low, high + 1)]
    wanted = [p for p, topic in enumerate(topics, 1) if p < limit and any(matches(each, topic) for each in patterns)]
    assert found == wanted


def test_runs_are_joined_over_the_ends_of_segments_and_read_from_hint_files(tmp_path: Path) -> None:
    stored(tmp_path, [TOPICS[0], TOPICS[1], TOPICS[1]], [TOPICS[1], TOPICS[0]], [TOPICS[1], TOPICS[2]])
    segments, shelf = opened(tmp_path)
    assert [segment.sealed for segment in segments] == [True, True, False]
    assert past(segments, ["trade.sent"], 99, shelf) == [(2, 4), (6, 6)]
    assert past(segments, ["trade.>"], 6, shelf) == [(1, 5)]
    assert past(segments, ["none"], 99, shelf) == []


def test_an_empty_segment_has_no_past(tmp_path: Path) -> None:
    stored(tmp_path, [])
    segments, shelf = opened(tmp_path)
    assert past(segments, [">"], 99, shelf) == []
