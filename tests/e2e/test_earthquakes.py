"""The whole way with real events, three kinds of client, and a SIGKILL in the middle."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
import websockets
from websockets.sync.client import ClientConnection, connect

from gateway import client
from gateway.wire.push_v1 import Messages, decode_server
from tests.e2e import earthquakes
from tests.e2e.process import GatewayProcess

LEASE_MS = 2000


@pytest.fixture(scope="session")
def quakes(pytestconfig: pytest.Config) -> list[bytes]:
    cache = pytestconfig.cache
    assert cache is not None
    found = earthquakes.events(earthquakes.fetch(cache.mkdir("vega-datasets")))
    assert len(found) == earthquakes.COUNT
    return found


class Seen:
    """What one subscription was given: payloads by id, over all its clients."""

    def __init__(self) -> None:
        self.payloads: dict[str, bytes] = {}
        self.deliveries: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, message_id: str, payload: bytes) -> None:
        with self._lock:
            assert self.payloads.setdefault(message_id, payload) == payload
            self.deliveries[message_id] += 1

    def __len__(self) -> int:
        return len(self.payloads)


class ForeignReader(threading.Thread):
    """Reads a subscription with the library `websockets`; reconnects until told to stop."""

    def __init__(self, url: str, subscription: str, seen: Seen) -> None:
        super().__init__(daemon=True)
        self.url, self.subscription, self.seen = url, subscription, seen
        self.stopping = False
        self.connections = 0

    def run(self) -> None:
        while not self.stopping:
            try:
                with connect(self.url, subprotocols=[websockets.Subprotocol("push.v1.json")], max_size=None) as ws:
                    self.connections += 1
                    self._read(ws)
            except (OSError, websockets.WebSocketException):
                time.sleep(0.02)

    def _read(self, ws: ClientConnection) -> None:
        ws.send(json.dumps({"op": "subscribe", "id": 1, "subscription": self.subscription, "window": 50}))
        while not self.stopping:
            try:
                frame = decode_server(ws.recv(timeout=0.1))
            except TimeoutError:
                continue
            if isinstance(frame, Messages):
                for message in frame.messages:
                    self.seen.note(message.id, bytes(message.data))
                ranges = [[m.position, m.position] for m in frame.messages]
                ws.send(json.dumps({"op": "ack", "subscription": self.subscription, "ranges": ranges}))


class _Message(msgspec.Struct):
    position: int
    id: str
    data: msgspec.Raw


class Pulled(msgspec.Struct):
    """The answer to a pull, with payloads as they came."""

    lease: str
    messages: list[_Message]


async def pull_until(gateway: GatewayProcess, subscription: str, seen: Seen, done: trio.Event) -> None:
    """A long-poll client in plain HTTP; survives the gateway's death."""
    url = f"{gateway.http}/v1/subscriptions/{subscription}"
    async with httpx.AsyncClient(timeout=10) as http:
        while not done.is_set():
            try:
                answer = await http.post(f"{url}/pull", json={"max": 20, "wait_ms": 300})
                answer.raise_for_status()
                pulled = msgspec.json.decode(answer.content, type=Pulled)
                for message in pulled.messages:
                    seen.note(message.id, bytes(message.data))
                ranges = [[m.position, m.position] for m in pulled.messages]
                await http.post(f"{url}/settle", json={"lease": pulled.lease, "ack": ranges})
            except httpx.HTTPError:
                await trio.sleep(0.02)


async def publish_over_http(gateway: GatewayProcess, topic: str, events: dict[str, bytes]) -> None:
    """One by one, each with an id, so that trying again cannot store it twice."""
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(timeout=10) as http:
        for message_id, payload in events.items():
            while True:
                try:
                    url = f"{gateway.http}/v1/topics/{topic}/messages"
                    answer = await http.post(url, content=payload, headers=headers | {"push-id": message_id})
                    assert answer.status_code in (200, 201), answer.text
                    break
                except httpx.TransportError:
                    await trio.sleep(0.02)


async def publish_over_websocket(gateway: GatewayProcess, topic: str, events: dict[str, bytes]) -> None:
    async with client.connect(gateway.websocket) as connection:
        items = list(events.items())
        for start in range(0, len(items), 20):
            batch = [
                client.Message(topic=topic, data=payload, id=name, content_type="application/json")
                for name, payload in items[start : start + 20]
            ]
            for result in await connection.publish_batch(batch):
                assert isinstance(result, client.Stored), result
            await trio.sleep(0.005)


async def read_with_sdk(gateway: GatewayProcess, subscription: str, seen: Seen) -> None:
    async with client.connect(gateway.websocket) as connection:
        async for message in connection.subscribe(subscription, window=50):
            seen.note(message.id, message.raw)


async def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    with trio.move_on_after(timeout_s):
        while not await trio.to_thread.run_sync(holds):
            await trio.sleep(0.05)
        return
    pytest.fail(f"not within {timeout_s} s: {what}")


# httpx leaves the generator of a body unfinished where the connection breaks while it is sent
@pytest.mark.filterwarnings("ignore:Async generator .httpx._content.ByteStream:ResourceWarning")
@pytest.mark.slow
async def test_every_earthquake_arrives_byte_for_byte_over_a_sigkill(tmp_path: Path, quakes: list[bytes]) -> None:
    published = {f"quake-{number}": payload for number, payload in enumerate(quakes)}
    halves = [dict(list(published.items())[part::2]) for part in (0, 1)]
    ours, theirs = Seen(), Seen()
    with GatewayProcess(tmp_path / "gateway") as gateway:
        for name in ("ours", "theirs"):
            gateway.put_subscription(name, topics=["quake.>"], lease_ms=LEASE_MS)
        reader = ForeignReader(gateway.websocket, "theirs", theirs)
        reader.start()
        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_with_sdk, gateway, "ours", ours)
            nursery.start_soon(pull_until, gateway, "theirs", theirs, done)
            async with trio.open_nursery() as publishers:
                publishers.start_soon(publish_over_http, gateway, "quake.http", halves[0])
                publishers.start_soon(publish_over_websocket, gateway, "quake.websocket", halves[1])
                await wait_until(lambda: len(ours) > 500 and len(theirs) > 500, "500 events at both")
                await trio.to_thread.run_sync(gateway.kill)
                await trio.to_thread.run_sync(gateway.start)
            expected = len(published)
            await wait_until(lambda: len(ours) == len(theirs) == expected, "every event at both subscriptions")
            await wait_until(lambda: _is_settled(gateway), "everything settled")
            done.set()
            reader.stopping = True
            nursery.cancel_scope.cancel()
        reader.join(timeout=5)
        assert reader.connections >= 2
        assert ours.payloads == published
        assert theirs.payloads == published
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()


def _is_settled(gateway: GatewayProcess) -> bool:
    found = [gateway.statistics(name) for name in ("ours", "theirs")]
    return all(s["waiting"] == s["in_flight"] == s["delayed"] == 0 and s["acked"] == earthquakes.COUNT for s in found)
