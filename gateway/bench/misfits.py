"""Consumers that do not keep up, each in its own way, to see what they do to those that do."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

import orjson
import trio

from gateway.bench.layout import DELIVERY, read_delivery
from gateway.bench.link import LinkLostError, WebSocketLink
from gateway.bench.load import subscribe
from gateway.bench.pace import now_us
from gateway.bench.tally import Tally

LATE_S: Final = 5.0
_AGAIN_S: Final = 0.1


class Misfit(enum.StrEnum):
    """What is wrong with a consumer."""

    SLOW_READER = "never reads"
    NO_ACK = "never acks"
    LATE_ACK = "acks after 5 s"


class MisfitSubscriber:
    """One of them. Where the gateway closes it, it comes back and is no better."""

    def __init__(self, kind: Misfit, name: str, dial: Callable[[], Awaitable[WebSocketLink]], tally: Tally) -> None:
        self._kind = kind
        self._name = name
        self._dial = dial
        self._tally = tally
        self._link: WebSocketLink | None = None
        self._window = 0
        self._scope = trio.CancelScope()
        self._unacked: deque[tuple[float, list[tuple[int, int]]]] = deque()  # when its ack is due, and of what

    async def attach(self, window: int) -> None:
        """Connect and subscribe. Raises LinkLostError."""
        self._link = await self._dial()
        self._window = window
        self._link.offer(subscribe(self._name, window))
        await self._hear(self._link)

    async def run(self) -> None:
        """Until it is stopped, whatever the gateway does about it."""
        with self._scope:
            while True:
                try:
                    if self._link is None:
                        await self.attach(self._window)
                    await self._live()
                except LinkLostError:
                    self._tally.misfits_closed += 1
                    self._leave()
                    await trio.sleep(_AGAIN_S)

    async def _live(self) -> None:
        link = self._link
        assert link is not None
        if self._kind is Misfit.SLOW_READER:
            await trio.sleep_forever()
        while True:
            wait_s = self._unacked[0][0] - trio.current_time() if self._unacked else inf
            with trio.move_on_after(max(wait_s, 0.0)):
                await self._hear(link)
            self._ack_what_is_due(link)

    async def _hear(self, link: WebSocketLink) -> None:
        ranges: list[tuple[int, int]] = []
        for text in await link.receive():
            if text.startswith(DELIVERY) and self._kind is Misfit.LATE_ACK:
                seen = read_delivery(text)
                self._tally.note_received(self._name, seen, now_us(), timed=False)
                ranges += seen.ranges
        if ranges:
            self._unacked.append((trio.current_time() + LATE_S, ranges))

    def _ack_what_is_due(self, link: WebSocketLink) -> None:
        now = trio.current_time()
        while self._unacked and self._unacked[0][0] <= now:
            _, ranges = self._unacked.popleft()
            link.offer(orjson.dumps({"op": "ack", "subscription": self._name, "ranges": ranges}))

    def stop(self) -> None:
        """It is gone, and what it held goes to others."""
        self._scope.cancel()
        self._leave()

    def _leave(self) -> None:
        if self._link is not None:
            self._link.abort()
        self._link = None
        self._unacked.clear()
