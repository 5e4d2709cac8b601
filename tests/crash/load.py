"""A producer and a consumer of a gateway that dies under them; all they say and hear goes into a history."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from gateway.wire.push_v1 import Error, Messages, Ok, Published, decode_server
from tests.crash.history import History
from tests.e2e.process import GatewayProcess

SUBSCRIPTION: Final = "crash"
UNDER_WAY_MAX: Final = 50
HANDSHAKE_S: Final = 10
MERGE_S: Final = 3
STATES: Final = ("acked", "in_flight", "waiting", "delayed", "expired", "dead_lettered")
CONFIG: Final = """
[store]
segment_bytes = 65536
merge_interval_s = 0.05
"""
"""Segments that are full, and merged, many times between two ends."""
MERGING: Final = """
merge_bytes_per_s = 524288
[limits]
dedup_window_s = 0
"""
"""And they are merged at once, for nobody needs the ids in them, and so slowly that an end can come in between."""
_JSON = msgspec.json.Encoder()


@asynccontextmanager
async def connected(gateway: GatewayProcess) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket whose socket is closed whatever happens: the library leaves it open where the peer died."""
    stream = await trio.open_tcp_stream("127.0.0.1", gateway.data_port)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(HANDSHAKE_S):  # the library waits for ever where the peer dies in between
                ws = await wrap_client_stream(
                    nursery, stream, "127.0.0.1", "/v1/connect", subprotocols=["push.v1.json"], max_message_size=1 << 24
                )
            yield ws
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


class Load:
    """One cycle after the other; `produce` and `consume` end when the connection is lost."""

    def __init__(self, gateway: GatewayProcess, history: History, seed: int, merging: Path | None = None) -> None:
        """`merging`: the store on whose merges the ends are to come down. Producers use no ids then."""
        self.gateway = gateway
        self.history = history
        self.dice = random.Random(seed)
        self.deaf = False
        self.interrupted = 0
        """Merges on which an end came down."""
        self._merging = merging
        self._with_ids = merging is None
        self._answered = trio.Event()
        self._count = 0
        self._waiting: dict[int, list[str]] = {}

    async def cycle(self, number: int, end: Callable[[], None], *, deaf: bool = False) -> None:
        """Under load for a while, from the first answer on; then `end`, off the run loop, takes the gateway away.

        Of three cycles the first has ids of the producer's where there are any, for as long as which are remembered a
        segment is not merged; the second has none; the third only consumes, so that little is left of what there is.
        `deaf`: what is said from that moment on is not heard, as if the machine had gone.
        """
        self._answered = trio.Event()
        self._with_ids = self._merging is None and number % 3 == 0
        seconds = self.dice.uniform(0.1, 0.4)
        async with trio.open_nursery() as nursery:
            if number % 3 < 2:
                nursery.start_soon(self.produce)
            nursery.start_soon(self.consume, 0.9)
            with trio.move_on_after(HANDSHAKE_S):
                await self._answered.wait()
            if self._merging:
                await self._merge()
                seconds /= 10
            await trio.sleep(seconds)
            self.interrupted += self._is_merging()
            self.deaf = deaf
            await trio.to_thread.run_sync(end)
        self.deaf = False

    async def _merge(self) -> None:
        """Until one has begun; every other time, until it is over: what comes at its end is interrupted too."""
        with trio.move_on_after(MERGE_S):
            while not self._is_merging():
                await trio.sleep(0.005)
            over = self.dice.random() < 0.5
            while over and self._is_merging():
                await trio.sleep(0.001)

    def _is_merging(self) -> bool:
        """A copy has a name of its own until it takes the place of what it was made of."""
        return self._merging is not None and any(name.endswith(".log.tmp") for name in os.listdir(self._merging))

    async def produce(self) -> None:
        """Publish without waiting for answers, until the connection is lost; first what had an id and no answer."""
        again = [name for name in self.history.unknown if name.startswith("id")]
        self._waiting = {}
        async with lost_is_the_end(), connected(self.gateway) as ws, trio.open_nursery() as tasks:
            tasks.start_soon(self._hear_answers, ws)
            for reference in range(1_000_000):
                names = again[:20] or [self._name() for _ in range(self.dice.randint(1, 20))]
                del again[:20]
                self._waiting[reference] = names
                messages = [self._message(name) for name in names]
                frame = {"op": "publish", "id": reference, "messages": messages}
                await ws.send_message(_JSON.encode(frame).decode())
                while len(self._waiting) > UNDER_WAY_MAX:
                    await trio.sleep(0.001)

    def _name(self) -> str:
        self._count += 1
        return f"{self.dice.choice(['id', 'plain']) if self._with_ids else 'plain'}-{self._count}"

    def _message(self, name: str) -> dict[str, object]:
        payload = _JSON.encode({"name": name, "fill": "x" * 200})
        self.history.invoke(name, payload)
        message: dict[str, object] = {"topic": "crash.test", "data": msgspec.Raw(payload)}
        return {**message, "id": name} if name.startswith("id") else message

    async def _hear_answers(self, ws: WebSocketConnection) -> None:
        while True:
            frame = decode_server(await ws.get_message())
            if self.deaf:
                continue
            if isinstance(frame, Published):
                self._answered.set()
                names = self._waiting.pop(int(frame.id or 0))
                if frame.positions is not None:
                    for name, position in zip(names, range(frame.positions[0], frame.positions[1] + 1), strict=True):
                        self.history.answer(name, position)
                for name, result in zip(names, frame.results or (), strict=frame.results is not None):
                    self.history.answer(name, int(str(result["position"])))
            elif isinstance(frame, Error) and frame.code != "store_failed":  # that says nothing: it may be stored
                self.history.fail(self._waiting.pop(int(frame.id or 0)))

    async def consume(self, share: float) -> None:
        """Read and ack a share of it, until the connection is lost; what is not acked must come again."""
        acking: dict[int, list[int]] = {}
        async with lost_is_the_end(), connected(self.gateway) as ws:
            await ws.send_message(f'{{"op":"subscribe","id":0,"subscription":"{SUBSCRIPTION}","window":500}}')
            for reference in range(1, 1_000_000):
                frame = decode_server(await ws.get_message())
                if self.deaf:
                    continue
                self._answered.set()
                if isinstance(frame, Ok) and frame.id in acking:
                    self.history.ack(acking.pop(int(frame.id or 0)) if not frame.unknown else ())
                if not isinstance(frame, Messages):
                    continue
                for message in frame.messages:
                    name = msgspec.json.decode(message.data)["name"]
                    self.history.deliver(name, message.position, bytes(message.data))
                acking[reference] = [m.position for m in frame.messages if self.dice.random() < share]
                ranges = [[position, position] for position in acking[reference]]
                ack = {"op": "ack", "id": reference, "subscription": SUBSCRIPTION, "ranges": ranges}
                await ws.send_message(_JSON.encode(ack).decode())

    async def drain(self, patience_s: float) -> None:
        """Take and ack all that there is, until nothing is missing or waits any more, or nothing comes for so long."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.consume, 1.0)
            came, since = 0, trio.current_time()
            while (self.history.missing or await self._is_waiting()) and trio.current_time() - since < patience_s:
                if self.history.deliveries > came:
                    came, since = self.history.deliveries, trio.current_time()
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    async def _is_waiting(self) -> int:
        return (await trio.to_thread.run_sync(self.gateway.statistics, SUBSCRIPTION))["waiting"]

    def told(self, ends: int) -> str:
        """How far it is."""
        merges = f"{merges_of(self.gateway)} merges and {self.interrupted} interrupted"
        return f"{ends} ends, {merges}, {len(self.history.ok):,} messages answered, nothing broken"

    def check_conservation(self) -> None:
        """Promise 6: what was routed is somewhere, and what was answered is counted."""
        shown = self.gateway.statistics(SUBSCRIPTION)
        assert shown["routed"] == sum(shown[state] for state in STATES), shown
        assert shown["routed"] >= len(self.history.ok)


@asynccontextmanager
async def lost_is_the_end() -> AsyncIterator[None]:
    try:
        yield
    except* (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError, trio.TooSlowError):
        pass


def merges_of(gateway: GatewayProcess) -> int:
    """Those that came to their end, over all of its lives."""
    return gateway.log.read_text(encoding="utf-8").count("merged segments")
