"""A load that goes wrong is seen to go wrong."""

from __future__ import annotations

import pytest

from gateway.bench.clients.order import Result
from gateway.bench.ground import Ground
from gateway.bench.link import LinkLostError
from gateway.bench.measuring import Measured, fresh, measure, percentiles, subscriptions
from gateway.bench.piling import drain, pile_up
from gateway.bench.vitals import Vitals

NOTHING = Vitals(None, None, None, None, None, {})


def measured(**figures: object) -> Measured:
    result = Result(**figures)  # type: ignore[arg-type]  # whatever the test names
    return Measured(result=result, before=NOTHING, after=NOTHING, cpu_s=0.5, passed_s=2.0)


def test_figures_are_of_the_unit_that_was_meant() -> None:
    found = measured(published=100, delivered=1000, elapsed_s=2.0, cpu_s=1.0)
    case = found.case("c", "load", unit="delivery", units=1000)
    assert (case.per_s, case.cpu_us, case.server_cpu_share, case.load_cpu_share) == (500, 500, 0.25, 0.5)
    assert case.wrong == ""


@pytest.mark.parametrize(
    ("figures", "wrong"),
    [
        ({"lost": 1}, "1 lost"),
        ({"invented": 2}, "2 invented"),
        ({"duplicates": 3}, "3 delivered twice"),
        ({"refused": 4, "refusal": "503"}, "4 refused: 503"),
    ],
)
def test_what_does_not_add_up_is_said(figures: dict[str, object], wrong: str) -> None:
    assert measured(**figures).case("c", "load").wrong == wrong


def test_latencies_come_as_counts() -> None:
    found = percentiles(Result(latency={"delivery": {1000: 99, 50_000: 1}, "none": {}}))
    assert found.keys() == {"delivery"}
    assert (found["delivery"].p50_ms, found["delivery"].max_ms) == (1.0, 50.0)


async def test_a_load_that_cannot_connect_says_why() -> None:
    ground = Ground()
    async with ground.gateway() as target:
        order = {"names": ["nobody-made-it"], "topics": ["t"], "how": "each", "messages": 1, "size_bytes": 32}
        with pytest.RaisesGroup(
            pytest.RaisesExc(LinkLostError, match="subscription_not_found"), flatten_subgroups=True
        ):
            await measure(ground, target, "c", "many", {**order, "limit_s": 1.0})


async def test_what_is_drained_is_held_against_what_was_published() -> None:
    async with Ground().gateway() as target:
        name = fresh("t")
        async with subscriptions(target, {name: {"topics": [name]}}):
            published = (await pile_up(target, name, 500, 64)).published
            published.remove(1, 10)  # so ten were not
            tally = await drain(target, name, published)
        assert (tally.received, tally.lost, tally.duplicates, tally.invented) == (500, 0, 0, 10)
