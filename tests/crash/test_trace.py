"""Promise 8 over kills: for every answered publish the trace closes, and what it says is what the store counts."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.e2e.process import GatewayProcess

CYCLES = int(os.environ.get("CRASH_CYCLES", "3"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
OVER = {"acked", "expired", "dead_lettered", "settled"}
OPEN = {"waiting", "in_flight", "delayed"}
SUBSCRIPTIONS = ("orders", "audit")


async def publish(gateway: GatewayProcess, answered: dict[int, str], dice: random.Random) -> None:
    """Batches of a few, some with ids of their own and some that expire, until the connection is lost."""
    async with httpx.AsyncClient(base_url=gateway.http, verify=False) as client:
        for number in range(1_000_000):
            messages: list[dict[str, Any]] = [
                {"topic": "crash.test", "data": number} for _ in range(dice.randint(1, 8))
            ]
            for message in messages:
                if dice.random() < 0.2:
                    message["id"] = f"own/{dice.randrange(10**12)}"
                if dice.random() < 0.1:
                    message["ttl_ms"] = 1
            answer = await client.post("/v1/messages", json=messages)
            if answer.status_code == 200:
                answered.update((each["position"], each["id"]) for each in answer.json()["results"])
            await trio.sleep(0.005)


async def consume(gateway: GatewayProcess, dice: random.Random) -> None:
    """Ack most, nack and drop the others, until the connection is lost. `audit` has no consumer."""
    async with httpx.AsyncClient(base_url=gateway.http, timeout=30, verify=False) as client:
        while True:
            pulled = (await client.post("/v1/subscriptions/orders/pull", json={"max": 20, "wait_ms": 1000})).json()
            said: dict[str, Any] = {"lease": pulled["lease"], "ack": [], "nack": [], "term": []}
            for message in pulled["messages"]:
                verb = dice.choices(["ack", "nack", "term", "nothing"], [80, 10, 5, 5])[0]
                said.setdefault(verb, []).append([message["position"]] * 2)
            said.pop("nothing", None)
            await client.post("/v1/subscriptions/orders/settle", json=said)


async def until_lost(run: Any, *arguments: object) -> None:
    with suppress(httpx.TransportError, OSError, KeyError):
        await run(*arguments)


def standings(control: httpx.Client, position: int, message_id: str) -> dict[str, str]:
    """Where the message stands with each subscription; the trace must be whole or say why it is not."""
    answer = control.get(f"/v1/messages/{message_id.replace('/', '%2F')}/trace", params={"position": position})
    assert answer.status_code == 200, answer.text
    message = answer.json()["messages"][0]
    steps = [step["step"] for step in message["steps"]]
    assert "stored" in steps or any(step["why"] == "after a sudden end" for step in message["steps"]), answer.text
    return {each["subscription"]: each["state"] for each in message["standing"]}


def check(gateway: GatewayProcess, answered: dict[int, str]) -> Counter[str]:
    """Every answered publish closes, and the sums are those of the store."""
    found: dict[str, Counter[str]] = {name: Counter() for name in SUBSCRIPTIONS}
    with httpx.Client(base_url=gateway.control, timeout=30, verify=False) as control:
        for position, message_id in answered.items():
            states = standings(control, position, message_id)
            for name in SUBSCRIPTIONS:
                found[name][states[name]] += 1
                assert states[name] in OVER | OPEN
    for name in SUBSCRIPTIONS:
        counted = gateway.statistics(name)
        unanswered = counted["routed"] - len(answered)  # stored, but the kill came before the answer
        still_open = counted["waiting"] + counted["in_flight"] + counted["delayed"]
        over = counted["acked"] + counted["expired"] + counted["dead_lettered"]
        assert 0 <= still_open - sum(found[name][state] for state in OPEN) <= unanswered
        assert 0 <= over - sum(found[name][state] for state in OVER) <= unanswered
        assert found[name]["dead_lettered"] <= counted["dead_lettered"]
    return found["orders"]


@pytest.mark.slow
async def test_the_trace_of_every_answered_publish_closes_over_sigkills(tmp_path: Path) -> None:
    answered: dict[int, str] = {}
    dice = random.Random(SEED)
    with GatewayProcess(tmp_path / "gateway") as gateway:
        gateway.put_subscription("orders", topics=["crash.>"], lease_ms=200, backoff_ms=[20], attempts_max=2)
        gateway.put_subscription("audit", topics=["crash.>"])
        for _ in range(CYCLES):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_lost, publish, gateway, answered, dice)
                nursery.start_soon(until_lost, consume, gateway, dice)
                await trio.sleep(dice.uniform(0.4, 0.8))
                await trio.to_thread.run_sync(gateway.kill)
            await trio.to_thread.run_sync(gateway.start)
        with trio.move_on_after(0.5):
            await until_lost(consume, gateway, dice)
        await trio.sleep(1)  # leases run out, dead letters are stored: nothing moves any more
        states = await trio.to_thread.run_sync(check, gateway, answered)
        assert len(answered) > 20 * CYCLES
        assert {"acked", "dead_lettered"} <= states.keys()
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()
