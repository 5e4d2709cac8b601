from __future__ import annotations

from pathlib import Path

from gateway.trace.event import Step
from gateway.trace.files import scan
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
    lines = [line for file in told.trace.all for r in scan(told.trace.files, file.path) if (line := reading.line(r))]
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
