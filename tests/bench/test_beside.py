"""One beside a load says how long its publishes took, and when; and that something was wrong."""

from __future__ import annotations

import pytest
import trio

from gateway.bench.beside import Beside, beside
from gateway.bench.child import LoadProcess
from gateway.bench.clients.order import Result
from gateway.bench.ground import Ground
from gateway.bench.link import LinkLostError
from gateway.bench.pace import now_us


class Ended(LoadProcess):
    """One that has ended, and left this behind."""

    def __init__(self, result: Result) -> None:
        self.result = result

    async def end(self) -> Result:
        return self.result


async def test_what_was_due_meanwhile_is_timed_and_nothing_else() -> None:
    other = Beside(Ended(Result(timed={"confirm": [(100, 9_000), (200, 1_000), (299, 3_000), (300, 9_000)]})))
    await other.end()
    took = other.took("confirm", 200, 300)
    assert took is not None
    assert (took.p50_ms, took.max_ms) == (1.0, 3.0)
    assert other.took("confirm", 301, 400) is None
    assert other.took("delivery", 0, 400) is None


@pytest.mark.parametrize("figures", [{"refused": 1}, {"lost": 2}])
async def test_one_that_does_not_add_up_is_no_measurement(figures: dict[str, int]) -> None:
    with pytest.raises(LinkLostError):
        await Beside(Ended(Result(**figures))).end()  # type: ignore[arg-type]  # whatever the test names


async def test_it_publishes_until_it_is_told_to_end() -> None:
    async with Ground().gateway() as target, beside(target) as other:
        began_us = now_us()
        await trio.sleep(0.1)
        await other.end()
    for what in ("confirm", "delivery"):
        took = other.took(what, began_us, now_us())
        assert took is not None
        assert took.p50_ms > 0
