from __future__ import annotations

import trio
import trio.testing

from gateway.flow.ring import Ring
from gateway.flow.route import Route
from gateway.model import Batch, Durability, Message
from tests.flow.engine import ScriptedEngine


async def test_every_batch_is_routed_and_goes_on_in_order(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    forward: Ring[Batch] = Ring("append", 3)
    route = Route(engine.as_engine, 10, forward)
    nursery.start_soon(route.run)
    batches = [Batch([Message("a")] * 2, Durability.FSYNCED, 1, lambda _: None) for _ in range(8)]
    for batch in batches:
        route.ring.put_nowait(batch, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert forward.statistics().depth == 3  # the next stage is full: this one waits, and its ring fills
    assert len(engine.routed) == 4
    assert [await forward.get() for _ in batches] == batches == engine.routed
    assert (forward.statistics().items, forward.statistics().messages) == (8, 16)
