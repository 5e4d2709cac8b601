from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from gateway.bench import record
from gateway.bench.record import Case, Counts, Machine, Memory, Outcome, Record
from gateway.bench.tally import Percentiles

MACHINE = Machine(processor="P", processors=2, memory_bytes=2**34, kernel="Linux 6", store_filesystem="ext4")
LATENCY = Percentiles(p50_ms=1, p90_ms=1.5, p99_ms=2, p99_9_ms=3, max_ms=4, mean_ms=1.1)


def case(name: str = "1→1", **figures: object) -> Case:
    made = Case(
        name=name, load="some", per_s=100_000.0, cpu_us=5.0, latency={"delivery": LATENCY}, memory=Memory(anon=1)
    )
    return attrs.evolve(made, **figures)  # type: ignore[arg-type]  # whatever the test names


def outcome(*cases: Case, scale: float = 1.0) -> Outcome:
    return Outcome(date="2026-11-24T18:00:00+00:00", scale=scale, loop_ns=12.4, cases=list(cases))


def record_of(**outcomes: Outcome) -> Record:
    return Record(machine=MACHINE, versions={"gateway": "1"}, commit="abc", outcomes=outcomes)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    made = record_of(pipeline=outcome(case(counts=Counts(published=7), extra={"x_bytes": None})))
    made = attrs.evolve(made, peers={"jetstream": [{"rate": 0, "msgs_s": 1}]})
    record.write(made, tmp_path / "r.json")
    assert record.read(tmp_path / "r.json") == made


def test_records_of_one_sitting_are_joined() -> None:
    old, new = record_of(rate=outcome(), pipeline=outcome(case("old"))), record_of(pipeline=outcome(case("new")))
    joined = old.joined(new)
    assert joined.outcomes == {"rate": outcome(), "pipeline": outcome(case("new"))}


def test_records_of_two_commits_are_not() -> None:
    with pytest.raises(ValueError, match="'abc' is not 'def'"):
        record_of().joined(attrs.evolve(record_of(), commit="def"))


@pytest.mark.parametrize("text", ["", "{}", "[", '{"machine": 1}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match="is no record"):
        record.read(tmp_path / "r.json")


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: No such file"):
        record.read(Path("nowhere.json"))


def test_peers_are_lines_of_their_load_generator(tmp_path: Path) -> None:
    (tmp_path / "p").write_text('closed b""\n{"driver":"nats","rate":0}\n{"driver":"nats","rate":5000}\n')
    assert record.read_peers(f"jetstream={tmp_path / 'p'}") == (
        "jetstream",
        [{"driver": "nats", "rate": 0}, {"driver": "nats", "rate": 5000}],
    )


@pytest.mark.parametrize("text", ["x", "=x", "x=", "x=/nowhere"])
def test_peers_that_cannot_be_read_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="--peers"):
        record.read_peers(text)
