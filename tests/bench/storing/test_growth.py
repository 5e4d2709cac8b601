"""A line through what was measured, and what lies on it beyond."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.bench.storing.growth import Line, curves, grown


def restart(messages: int, ready_s: float) -> dict[str, Any]:
    empty, killed = (
        {"start": what, "ready_s": ready_s, "cpu_s": ready_s / 2, "resident_bytes": 100 << 20}
        for what in ("an empty store", "behind a kill -9")
    )
    return {"restart": {"filled": {"messages": messages}, "starts": [empty, killed]}}


def test_what_grows_in_a_line_is_on_it() -> None:
    line = Line.through([(1_000_000, 0.6), (3_000_000, 0.8), (10_000_000, 1.5)])
    assert line.fixed == pytest.approx(0.5)
    assert line.per_million == pytest.approx(0.1)
    assert line.off == pytest.approx(0, abs=1e-9)
    assert line.at(100_000_000) == pytest.approx(10.5)


def test_what_does_not_says_how_far_it_is_off() -> None:
    line = Line.through([(1_000_000, 1.0), (2_000_000, 4.0), (3_000_000, 9.0)])
    assert line.off == pytest.approx(1 / 3)  # it is 4 n - 10 / 3: two thirds at the first, for 1


def test_what_falls_does_not_grow_and_is_never_less_than_nothing() -> None:
    line = Line.through([(1_000_000, 22.0), (3_000_000, 14.0)])
    assert (line.fixed, line.per_million, line.at(100_000_000)) == (18.0, 0.0, 18.0)
    part = grown([restart(1_000_000, 0.8), restart(2_000_000, 0.7), restart(3_000_000, 0.6)])
    assert part is not None
    assert part.rows[0][2] == "does not grow (off by 17% at most); 100 M would be 0.70 s"


def test_one_size_has_no_growth_and_a_part_that_failed_has_no_figures() -> None:
    assert curves([restart(1_000_000, 0.6), {"failed": "OSError: no disk"}]) == []
    assert grown([{"drain": {"ratio": 0.9}}]) is None


def test_the_sizes_are_put_in_order_and_an_empty_store_is_none() -> None:
    found = curves([restart(3_000_000, 0.8), restart(1_000_000, 0.6)])
    assert [(curve.name, curve.unit) for curve in found] == [
        ("restart behind a kill -9, to /readyz", "s"),
        ("restart behind a kill -9, CPU", "s"),
        ("restart behind a kill -9, resident", "MiB"),
    ]
    assert found[0].points == [(1_000_000, 0.6), (3_000_000, 0.8)]


def test_the_table_has_what_was_measured_the_line_and_what_is_beyond() -> None:
    part = grown([restart(1_000_000, 0.6), restart(3_000_000, 0.8)])
    assert part is not None
    assert part.rows[0] == (
        "restart behind a kill -9, to /readyz",
        "1 M 0.60 · 3 M 0.80 s",
        "0.50 +0.100 a million; 100 M would be 10.50 s",
    )
    assert part.plain["growth"][2]["beyond"] == {"100000000": pytest.approx(100)}
