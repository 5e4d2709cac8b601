from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.engine.times import position_at
from gateway.store.record import Columns
from gateway.store.segment import Segment

END = 10


def stored(*segments: Sequence[tuple[int, int]]) -> list[Segment]:
    """Segments of records, each by (messages, when), from position 1 on."""
    made: list[Segment] = []
    base = 1
    for number, records in enumerate(segments, 1):
        segment = Segment(number, Path(), base, records[0][1] if records else 0, "")
        for count, time_ms in records:
            segment.growing.add(Columns(array("I", [2] * count)), 0, 2, 0, 1, time_ms)
            segment.last_ms = time_ms
        made.append(segment)
        base = segment.end
    return made


@pytest.mark.parametrize(
    ("time_ms", "position"),
    [(0, 1), (100, 1), (101, 3), (200, 3), (201, 6), (300, 6), (301, 8), (400, 8), (401, END)],
)
def test_the_first_position_of_the_first_record_that_is_so_young(time_ms: int, position: int) -> None:
    assert position_at(stored([(2, 100), (3, 200)], [(2, 300), (2, 400)]), END, time_ms) == position


def test_what_is_not_durable_yet_was_never_stored() -> None:
    assert position_at(stored([(2, 100), (3, 200)]), 3, 150) == 3
    assert position_at(stored([(2, 100), (3, 200)]), 2, 150) == 2


def test_a_segment_that_has_nothing_yet_is_passed_over() -> None:
    assert position_at(stored([(2, 100)], []), END, 101) == END
