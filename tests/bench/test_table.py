from __future__ import annotations

import attrs
import pytest

from gateway.bench.budget import BUDGETS, judge
from gateway.bench.record import Record
from gateway.bench.scenarios import SCENARIOS
from gateway.bench.table import markdown
from tests.bench.test_record import case, outcome, record_of

CPU, JETSTREAM, SYNC = BUDGETS[:3]


def with_peers(record: Record) -> Record:
    peers = {"jetstream": [{"rate": 5000, "msgs_s": 5000}, {"rate": 0, "msgs_s": 50_000}]}
    return attrs.evolve(record, peers=peers)


@pytest.mark.parametrize(("cpu_us", "met"), [(8.0, True), (8.1, False)])
def test_a_budget_is_an_upper_bound(cpu_us: float, met: bool) -> None:
    found = judge(record_of(pipeline=outcome(case(cpu_us=cpu_us))), CPU)
    assert (found.must, found.measured, found.met) == (8, cpu_us, met)
    assert found.ratio == pytest.approx(cpu_us / 8)


@pytest.mark.parametrize(("per_s", "met"), [(65_000.0, True), (64_999.0, False)])
def test_or_a_multiple_of_a_peer(per_s: float, met: bool) -> None:
    found = judge(with_peers(record_of(pipeline=outcome(case(per_s=per_s)))), JETSTREAM)
    assert found.must == pytest.approx(65_000)
    assert found.met is met


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(record_of(), CPU).met is None
    assert judge(record_of(pipeline=outcome(case())), SYNC).met is None


def test_what_was_measured_at_a_part_of_its_size_is_not_judged() -> None:
    assert judge(record_of(pipeline=outcome(case(), scale=0.5)), CPU).measured is None


def test_every_budget_belongs_to_a_scenario() -> None:
    assert {budget.scenario for budget in BUDGETS} <= SCENARIOS.keys()


def test_the_table_says_where_when_and_what() -> None:
    text = markdown(with_peers(record_of(pipeline=outcome(case(wrong="1 lost", extra={"growth_bytes": 2.0**21})))))
    assert "2026-11-24, commit abc: 2 x P, 16.0 GiB, Linux 6, store on ext4; gateway 1." in text
    assert "A turn of an empty loop took 12 to 12 ns." in text
    assert "| pipeline 1→1 | server CPU a message | ≤ 8 µs | 5 µs | 0.62 | met |" in text
    assert "| pipeline | 1→1 | 100,000 messages | 5.0 us/message |" in text
    assert "**1 lost** growth: 2.0 MiB" in text
    assert "| jetstream | 5,000/s | 5,000 |" in text


def test_a_smaller_size_is_said() -> None:
    assert "pipeline (at 0.1 of its size)" in markdown(record_of(pipeline=outcome(case(), scale=0.1)))
