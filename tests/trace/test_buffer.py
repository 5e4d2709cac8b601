from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.trace.event import Step
from gateway.trace.files import scan, scan_index
from gateway.trace.lines import Reading
from tests.trace.told import BEGAN_MS, Told


def kinds(told: Told) -> list[int]:
    return [record.kind for file in told.trace.all for record in scan(told.trace.files, file.path)]


def test_a_name_is_defined_once_a_file_before_its_first_use(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.stored(1)
    told.stored(2)
    told.write()
    names = [Step.NAME] * 4  # orders, the producer, the topic, the durability
    assert kinds(told) == [Step.HEADER, Step.NAME, Step.ROUTE, *names[1:], Step.ACCEPTED, Step.ACCEPTED]


def test_a_full_buffer_drops_events_and_says_how_many(tmp_path: Path) -> None:
    told = Told(tmp_path, buffer_bytes=400)
    for position in range(1, 101):
        told.now += 1
        told.stored(position)
    assert told.buffer.events + told.buffer.lost == 100
    assert told.buffer.lost > 90
    assert told.buffer.pending < 400 + 300  # one event and its names may pass the bound
    lost, first_lost_ms = told.buffer.lost, BEGAN_MS + told.buffer.events + 1
    told.write()
    told.stored(200)
    told.write()
    assert told.buffer.lost == lost
    reading = Reading()
    lines = [line for file in told.trace.all for r in scan(told.trace.files, file.path) for line in reading.lines(r)]
    assert [line["step"] for line in lines] == ["accepted"] * (100 - lost) + ["lost"] + ["accepted"]
    assert lines[-2] == {"time_ms": BEGAN_MS + 100, "step": "lost", "events": lost, "since_ms": first_lost_ms}
    assert lines[-1]["positions"] == [[200, 200]]  # what comes behind a loss is readable all the same
    assert lines[-1]["topic"] == "trade.paid"


def test_a_full_file_is_sealed_and_the_next_one_has_its_own_names(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=1000)
    for position in range(1, 31):
        told.stored(position)
        told.write()
    assert len(told.trace.all) > 2
    for file in told.trace.all[:-1]:
        records = [record.kind for record in scan(told.trace.files, file.path)]
        assert records[0] == Step.HEADER
        assert records[-1] == Step.INDEX
        assert records.count(Step.NAME) == 4
    assert [len(told.about(position)) for position in range(32)] == [0, *[1] * 30, 0]


def test_a_reason_is_cut_and_any_text_is_taken(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.steps.returned("orders", [1], 1, "nack", "x" * 5000, 0)
    told.steps.returned("orders", [1], 2, "nack", "\ud800", 0)
    told.write()
    first, second = told.message(1).steps
    assert first.why == "x" * 1024
    assert second.why == "?"


# ------------------------------------------------------------------------------------------------- rows of one record


def tell_one(told: Told, step: str, subscription: str, position: int) -> None:
    if step == "handed":
        told.handed([position], who=f"c-{position}", subscription=subscription)
    else:
        told.steps.settled(subscription, [position], 1 if step == "acked" else 2)


def lines_of(told: Told) -> list[tuple[object, ...]]:
    """All that stands in the files, in its order."""
    reading = Reading()
    lines = [line for file in told.trace.all for r in scan(told.trace.files, file.path) for line in reading.lines(r)]
    return [(line["step"], line.get("subscription"), line["positions"], line["time_ms"]) for line in lines]


STEPS = {"handed": "delivered", "acked": "acked", "expired": "expired"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*STEPS, "other", "write"]),
            st.sampled_from(["orders", "audit"]),
            st.integers(1, 9),
            st.sampled_from([0, 0, 1, 999, 5000]),
        ),
        max_size=30,
    )
)
def test_what_comes_one_behind_the_other_is_read_as_it_was_told(
    tmp_path_factory: pytest.TempPathFactory, told_before: list[tuple[str, str, int, int]]
) -> None:
    told = Told(tmp_path_factory.mktemp("trace"))
    expected: list[tuple[object, ...]] = []
    for step, subscription, position, passed_ms in told_before:
        told.now += passed_ms
        if step == "write":
            told.write()
            continue
        if step == "other":
            told.steps.extended(subscription, [position], 5)
        else:
            tell_one(told, step, subscription, position)
        expected.append((STEPS.get(step, "extended"), subscription, [[position, position]], told.now))
    told.write()
    assert lines_of(told) == expected
    assert told.buffer.events == len(expected)
    assert told.buffer.pending == 0
    for position in range(1, 10):
        assert len(told.about(position)) == sum(line[2] == [[position, position]] for line in expected)


def test_many_deliveries_are_few_records(tmp_path: Path) -> None:
    told = Told(tmp_path)
    for number in range(600):
        tell_one(told, "handed", f"s-{number % 3}", 1)
    pending = told.buffer.pending
    told.write()
    assert kinds(told).count(Step.HANDED) == 3  # no record is longer than 8 KiB and its head
    assert len(told.about(1)) == 600
    assert told.trace.all[0].written <= pending + 3 * 80
    scanned = scan_index(told.trace.files, told.trace.all[0].path)
    assert list(scanned.about(1, 10**9)) == list(told.buffer._index.about(1, 10**9))


def test_rows_find_no_room_as_events_do_not_and_are_lost_with_their_chunk(tmp_path: Path) -> None:
    told = Told(tmp_path, buffer_bytes=400)
    for _ in range(100):
        tell_one(told, "acked", "orders", 1)
    assert told.buffer.events + told.buffer.lost == 100
    assert told.buffer.lost > 80
    told.write()
    lost = told.buffer.lost
    tell_one(told, "acked", "orders", 2)
    chunk = told.buffer.take(told.now, 1 << 60)
    tell_one(told, "acked", "orders", 3)
    told.buffer.abandon(chunk, told.now)
    assert told.buffer.lost == lost + 2
    tell_one(told, "acked", "orders", 4)
    told.finish()
    assert (told.about(2), told.about(3), len(told.about(4))) == ([], [], 1)
