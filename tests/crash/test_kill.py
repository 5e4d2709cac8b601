"""SIGKILL under load, again and again, with a history that is checked (`make crash` runs many cycles)."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from gateway.wire.push_v1 import Error, Messages, Published, decode_server
from tests.crash.history import History
from tests.e2e.process import GatewayProcess

CYCLES = int(os.environ.get("CRASH_CYCLES", "3"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
_JSON = msgspec.json.Encoder()


@asynccontextmanager
async def connected(gateway: GatewayProcess) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket whose socket is closed whatever happens: the library leaves it open where the peer died."""
    stream = await trio.open_tcp_stream("127.0.0.1", gateway.data_port)
    try:
        async with trio.open_nursery() as nursery:
            ws = await wrap_client_stream(
                nursery, stream, "127.0.0.1", "/v1/connect", subprotocols=["push.v1.json"], max_message_size=1 << 24
            )
            yield ws
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def publish(gateway: GatewayProcess, history: History, cycle: int) -> None:
    """Publish without waiting for answers, until the connection is lost."""
    async with connected(gateway) as ws, trio.open_nursery() as tasks:
        waiting: dict[int, list[str]] = {}
        tasks.start_soon(hear_answers, ws, history, waiting)
        for reference in range(1_000_000):
            names = [f"{cycle}-{reference}-{part}" for part in range(random.Random(reference).randint(1, 20))]
            waiting[reference] = names
            messages = []
            for name in names:
                payload = _JSON.encode({"name": name, "fill": "x" * 200})
                history.invoked[name] = payload
                messages.append({"topic": "crash.test", "data": msgspec.Raw(payload)})
            frame = {"op": "publish", "id": reference, "messages": messages}
            await ws.send_message(_JSON.encode(frame).decode())
            while len(waiting) > 50:
                await trio.sleep(0.001)


async def hear_answers(ws: WebSocketConnection, history: History, waiting: dict[int, list[str]]) -> None:
    while True:
        frame = decode_server(await ws.get_message())
        if isinstance(frame, Published):
            assert frame.positions is not None
            names = waiting.pop(int(frame.id or 0))
            for name, position in zip(names, range(frame.positions[0], frame.positions[1] + 1), strict=True):
                history.ok[name] = position
        elif isinstance(frame, Error):
            history.failed.update(waiting.pop(int(frame.id or 0)))


async def consume(gateway: GatewayProcess, history: History, acks: random.Random) -> None:
    """Read and ack some, until the connection is lost; what is not acked must come again."""
    async with connected(gateway) as ws:
        await ws.send_message('{"op":"subscribe","id":1,"subscription":"crash","window":500}')
        while True:
            frame = decode_server(await ws.get_message())
            if not isinstance(frame, Messages):
                continue
            for message in frame.messages:
                history.deliver(msgspec.json.decode(message.data)["name"], message.position, bytes(message.data))
            ranges = [[m.position, m.position] for m in frame.messages if acks.random() < 0.9]
            operation = {"op": "ack", "subscription": "crash", "ranges": ranges}
            await ws.send_message(_JSON.encode(operation).decode())


async def until_lost(run: object, *arguments: object) -> None:
    assert callable(run)
    try:
        await run(*arguments)
    except* (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError):
        pass


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_sigkills(tmp_path: Path) -> None:
    history = History()
    dice = random.Random(SEED)
    with GatewayProcess(tmp_path / "gateway") as gateway:
        gateway.put_subscription("crash", topics=["crash.>"], lease_ms=500)
        for cycle in range(CYCLES):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_lost, publish, gateway, history, cycle)
                nursery.start_soon(until_lost, consume, gateway, history, dice)
                await trio.sleep(dice.uniform(0.2, 0.8))
                await trio.to_thread.run_sync(gateway.kill)
            await trio.to_thread.run_sync(gateway.start)
            assert history.violations() == []
        with trio.move_on_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_lost, consume, gateway, history, random.Random(0))
                while history.missing or gateway.statistics("crash")["waiting"]:
                    await trio.sleep(0.05)
                nursery.cancel_scope.cancel()
        assert history.missing == set()
        assert history.violations() == []
        assert len(history.ok) > 100 * CYCLES
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()
