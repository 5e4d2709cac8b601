from __future__ import annotations

from pathlib import Path

import pytest

from gateway.bench import costs


async def test_every_case_can_be_measured_and_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "ROUNDS", 1)
    cases = costs.cases(tmp_path)
    assert len(cases) > 8
    for name, (work, topics) in cases.items():
        assert costs.cost_us(work, 3, topics) > 0, name
    batch = costs.batch_of(40)
    cases["route: a filter by CEL"][0](batch)
    assert len({len(route.numbers) for route in batch.routes}) == 2  # type: ignore[attr-defined]  # some match
    assert cases["schema"][0](batch) == [None] * 40
