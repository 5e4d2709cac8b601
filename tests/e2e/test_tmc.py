"""One subscription, four kinds of consumer at once, and a kill in the middle: they are the same to the flow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import trio

from gateway import client
from gateway.wire import top
from tests.e2e.process import GatewayProcess
from tests.edge.tmc_client import ClosedError, open_tmc

KEY, SECRET, TOPIC = "12345678", "helloworld", "taobao_trade_TradeCreate"
NAME = f"{KEY}.default"
MESSAGES = 2000
CONFIG = f"""
[tmc]
enabled = true
consume_wait_ms = 200
[[tmc_application]]
key = "{KEY}"
secret = "{SECRET}"
topics = ["{TOPIC}"]
"""


class Drain:
    """What came to each kind of consumer, by the number that the message carries."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.done = False
        self.address = f"127.0.0.1:{gateway.data_port}"
        self.seen: dict[str, Counter[int]] = {kind: Counter() for kind in ("tmc", "push", "pull", "consume")}

    def note(self, kind: str, content: str | bytes) -> None:
        self.seen[kind][orjson.loads(content)["n"]] += 1

    @property
    def delivered(self) -> set[int]:
        return {number for counter in self.seen.values() for number in counter}

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Its threads end behind the body, however that ends: nobody else can stop them."""
        try:
            yield
        finally:
            self.done = True

    async def again(self, life: Callable[[], Awaitable[None]]) -> None:
        """Over and over: the gateway is killed meanwhile."""
        while not self.done:
            try:
                await life()
            except* (OSError, httpx.TransportError, trio.BrokenResourceError, ClosedError, AssertionError, ValueError):
                await trio.sleep(0.05)

    async def tmc(self) -> None:
        async with open_tmc(self.address) as consumer:
            answer = await consumer.connect(KEY, SECRET)
            assert answer.status == 0
            await consumer.pull()
            while True:
                with trio.move_on_after(0.5):
                    pushed = await consumer.pushed()
                    self.note("tmc", pushed.customs["content"])
                    await consumer.confirm(pushed.customs["id"])
                    continue
                await consumer.pull()

    async def push(self) -> None:
        async with client.connect(self.gateway.websocket) as gateway, gateway.subscribe(NAME, window=50) as messages:
            async for message in messages:
                assert isinstance(message.data, dict)
                self.seen["push"][message.data["n"]] += 1
                await trio.sleep(0.001)

    def pull(self) -> None:
        url = f"{self.gateway.http}/v1/subscriptions/{NAME}"
        with httpx.Client(timeout=10) as http:
            while not self.done:
                answer = http.post(f"{url}/pull", json={"max": 20, "wait_ms": 200}).raise_for_status().json()
                ranges = []
                for message in answer["messages"]:
                    self.note("pull", orjson.dumps(message["data"]))
                    ranges.append([message["position"], message["position"]])
                if ranges:
                    http.post(f"{url}/settle", json={"lease": answer["lease"], "ack": ranges})

    def consume(self) -> None:
        with httpx.Client(timeout=10) as http:
            while not self.done:
                answer = self.call(http, "taobao.tmc.messages.consume", quantity="20")
                messages = answer["tmc_messages_consume_response"]["messages"]["tmc_message"]
                for message in messages:
                    self.note("consume", message["content"])
                if messages:
                    ids = ",".join(str(message["id"]) for message in messages)
                    self.call(http, "taobao.tmc.messages.confirm", s_message_ids=ids)

    def call(self, http: httpx.Client, method: str, **parameters: str) -> dict[str, Any]:
        form = {"method": method, "app_key": KEY, "timestamp": top.format_time(int(time.time() * 1000)), **parameters}
        form["sign"] = top.sign(form, SECRET)
        found: dict[str, Any] = http.post(f"{self.gateway.http}/router/rest", data=form).raise_for_status().json()
        return found

    async def in_thread(self, life: Callable[[], None]) -> None:
        """HTTP clients that block: the library's own async one does not like the kill."""
        await trio.to_thread.run_sync(life)


async def publish(gateway: GatewayProcess, begin: int, end: int) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        for first in range(begin, end, 100):
            body = orjson.dumps([{"topic": TOPIC, "data": {"n": n}} for n in range(first, first + 100)])
            (await http.post(f"{gateway.http}/v1/messages", content=body)).raise_for_status()


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(90):
        while not await trio.to_thread.run_sync(holds):
            await trio.sleep(0.05)


async def test_four_kinds_of_consumers_drain_one_subscription_over_a_kill(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(CONFIG, encoding="utf-8")
    with GatewayProcess(tmp_path, "--config", str(tmp_path / "gateway.toml")) as gateway:
        drain = Drain(gateway)
        async with trio.open_nursery() as http, trio.open_nursery() as websockets:
            websockets.start_soon(drain.again, drain.tmc)
            websockets.start_soon(drain.again, drain.push)
            http.start_soon(drain.again, partial(drain.in_thread, drain.pull))
            http.start_soon(drain.again, partial(drain.in_thread, drain.consume))
            with drain.ending():
                await until(lambda: gateway.statistics(NAME)["consumers"] == len(drain.seen))
                await publish(gateway, 0, MESSAGES // 2)
                await until(lambda: len(drain.delivered) > MESSAGES // 8 and all(drain.seen.values()))
                gateway.kill()
                await trio.to_thread.run_sync(gateway.start)
                await publish(gateway, MESSAGES // 2, MESSAGES)
                await until(lambda: gateway.statistics(NAME)["acked"] == MESSAGES)
            websockets.cancel_scope.cancel()
        assert drain.delivered == set(range(MESSAGES)), "each at least once"
        assert all(drain.seen.values()), "each kind of consumer had its share"
        found = gateway.statistics(NAME)
        names = ("routed", "acked", "waiting", "in_flight", "delayed", "expired", "dead_lettered")
        assert {name: found[name] for name in names} == {"routed": MESSAGES, "acked": MESSAGES} | dict.fromkeys(
            names[2:], 0
        )
        assert gateway.terminate() == 0
