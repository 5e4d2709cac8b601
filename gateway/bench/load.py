"""Publishers and subscribers: each a connection and a task that sends as fast as it may, or as it is due."""

from __future__ import annotations

import re
from typing import Final, Protocol

import orjson
import trio

from gateway.bench.layout import DELIVERY, Layout, Run, read_delivery
from gateway.bench.link import HttpLink, LinkLostError, WebSocketLink
from gateway.bench.pace import Pace, now_us
from gateway.bench.plan import Plan
from gateway.bench.tally import Tally

_POSITION: Final = re.compile(rb'"position":(\d+)')
NO_STAMP: Final = 0
"""In a message whose latency says nothing: it is published before there is a consumer."""
_LAST: Final = 1
"""The `id` of a subscriber's last operation."""


class Publisher(Protocol):
    """Sends its share of the messages."""

    async def run(self, share: int, pace: Pace | None) -> None:
        """Publish `share` messages, at `pace` or as fast as it may, until all are answered."""


class WebSocketPublisher:
    """Batches over one WebSocket connection, with many unanswered."""

    def __init__(self, link: WebSocketLink, layout: Layout, plan: Plan, tally: Tally, *, stamped: bool = True) -> None:
        self._stamped = stamped
        self._link = link
        self._layout = layout
        self._plan = plan
        self._tally = tally
        self._unanswered: dict[int, list[Run]] = {}  # at most --window messages, but for a fixed rate
        self._sent = self._answered = 0
        self._answer = trio.Event()

    async def run(self, share: int, pace: Pace | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear_all, share)
            if pace is None:
                await self._send_all(share)
            else:
                await self._send_in_time(share, pace)

    async def _send_all(self, share: int) -> None:
        batch, window = self._plan.batch, self._plan.window
        while self._sent < share:
            count = min(batch, share - self._sent)
            if self._sent - self._answered + count > window:
                self._answer = trio.Event()
                await self._answer.wait()
            else:
                await self._send([(now_us(), count)], count)

    async def _send_in_time(self, share: int, pace: Pace) -> None:
        while self._sent < share:
            now = now_us()
            count = pace.due(self._sent, now, min(self._plan.batch, share - self._sent))
            if count:
                await self._send([(pace.stamp(self._sent + n, now), 1) for n in range(count)], count)
            else:
                await trio.sleep((pace.due_us(self._sent) - now) / 1e6)

    async def _send(self, runs: list[Run], count: int) -> None:
        reference = self._sent
        if not self._stamped:
            runs = [(NO_STAMP, count)]
        self._unanswered[reference] = runs
        self._sent += count
        self._link.offer(self._layout.publish(reference, runs))
        if self._link.unsent_bytes:
            await self._link.wait_sent()
        else:
            await trio.lowlevel.checkpoint()

    async def _hear_all(self, share: int) -> None:
        while self._answered < share:
            for text in await self._link.receive():
                self._hear(orjson.loads(text))
            self._answer.set()

    def _hear(self, answer: dict[str, object]) -> None:
        """`published`, or an error in its place. Its size is that of what was asked, so it is worth parsing."""
        now = now_us()
        reference = answer.get("id")
        if not isinstance(reference, int):
            raise_if_ending(answer)
            return
        count = 0
        for stamp, messages in self._unanswered.pop(reference):
            self._tally.confirm.record(now - stamp, messages)
            count += messages
        self._answered += count
        match answer:
            case {"positions": [int(low), int(high)]}:
                self._tally.note_accepted(low, high, now)
            case {"results": list(results)}:
                for result in results:
                    self._note(result, now)
            case _:
                self._tally.note_refused(count, _why(answer), now)

    def _note(self, result: dict[str, object], now: int) -> None:
        match result:
            case {"position": int(position)}:
                self._tally.note_accepted(position, position, now)
            case {"error": dict(error)}:
                self._tally.note_refused(1, _why(error), now)


class HttpPublisher:
    """One message a request over one kept-alive connection, the next when the answer is there."""

    def __init__(self, link: HttpLink, layout: Layout, topic: str, tally: Tally) -> None:
        self._link = link
        self._layout = layout
        self._tally = tally
        self._head = link.head("POST", f"/v1/topics/{topic}/messages", len(layout.payload(0)))

    async def run(self, share: int, pace: Pace | None) -> None:
        for n in range(share):
            stamp = now_us()
            if pace is not None:
                await trio.sleep(max(0.0, pace.due_us(n) - stamp) / 1e6)
                stamp = pace.stamp(n, now_us())
            status, body = await self._link.exchange(self._head + self._layout.payload(stamp))
            now = now_us()
            self._tally.confirm.record(now - stamp)
            match = _POSITION.search(body)
            if status == 201 and match:
                position = int(match.group(1))
                self._tally.note_accepted(position, position, now)
            else:
                self._tally.note_refused(1, f"{status} {body.decode(errors='replace')}", now)


class Subscriber:
    """One consumer: acknowledges all that one read brought with one operation."""

    def __init__(self, link: WebSocketLink, name: str, tally: Tally, *, timed: bool = True) -> None:
        self._link = link
        self._name = name
        self._tally = tally
        self._timed = timed
        self._early: list[bytes] = []  # frames that came with the answer to the subscribe
        self._settled = trio.Event()

    async def attach(self, window: int) -> None:
        """Subscribe, and wait until that is so. Raises LinkLostError."""
        self._link.offer(subscribe(self._name, window))
        while not (frames := await self._link.receive()):
            pass  # a piece of one
        first, *self._early = frames
        answer = orjson.loads(first)
        if answer["op"] != "ok":
            raise LinkLostError(f"subscription {self._name}: {_why(answer)}")

    async def run(self) -> None:
        """Receive and acknowledge until cancelled."""
        link, tally, name = self._link, self._tally, self._name
        head = b'{"op":"ack","subscription":"%b","ranges":' % name.encode("ascii")
        frames = self._early
        while True:
            ranges: list[tuple[int, int]] = []
            for text in frames or await link.receive():
                if text.startswith(DELIVERY):
                    seen = read_delivery(text)
                    tally.note_received(name, seen, now_us(), timed=self._timed)
                    ranges += seen.ranges
                else:
                    self._hear(orjson.loads(text))
            frames = []
            if ranges:
                link.offer(head + orjson.dumps(ranges) + b"}")
                if link.unsent_bytes:
                    await link.wait_sent()

    def _hear(self, answer: dict[str, object]) -> None:
        if answer.get("id") == _LAST:
            self._settled.set()
        else:
            raise_if_ending(answer)

    async def wait_settled(self) -> None:
        """Wait until the gateway has carried out every acknowledgement, and has it on the disk."""
        self._link.offer(orjson.dumps({"op": "ack", "id": _LAST, "subscription": self._name, "ranges": []}))
        await self._settled.wait()


def subscribe(name: str, window: int) -> bytes:
    """The operation that attaches a consumer."""
    return orjson.dumps({"op": "subscribe", "id": 0, "subscription": name, "window": window})


def raise_if_ending(announcement: dict[str, object]) -> None:
    """LinkLostError for what spoils a measurement; the rest is passed over."""
    if announcement.get("op") in ("error", "drain"):
        raise LinkLostError(_why(announcement))


def _why(answer: dict[str, object]) -> str:
    return f"{answer.get('code', answer.get('op'))}: {answer.get('message', '')}".rstrip(": ")
