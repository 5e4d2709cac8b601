"""Flow control against clients of many speeds, in simulated time: the real windows and ladder, no sockets.

    python -m tests.edge.simulation DIRECTORY

writes flow_control.csv, a row for each client and second, and flow_control.svg, a panel for each client, to DIRECTORY.
"""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

import attrs

from gateway.broker.choosing import Takers
from gateway.broker.lease import Consumer, Lease
from gateway.broker.slice import Slice
from gateway.broker.subscription import Subscription
from gateway.config import Flow
from gateway.edge.flow_control import Feed, FlowControl
from gateway.edge.ladder import State
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.model import Delivery

STEP_MS: Final = 10
LEASE_MS: Final = 30_000
FRAME_MAX: Final = 500
KERNEL_BYTES: Final = 256 * 1024
MESSAGE_BYTES: Final = 1000
NEVER: Final = 2**62


@attrs.define(eq=False)
class Frame:
    """One delivery on its way through a client."""

    lease: Lease
    delivery: Delivery
    bytes_left: float  # that the socket, and then the client, has still to take
    unread: float = 0.0
    deadline_ms: int = NEVER
    gone: bool = False  # recalled, or run out


Speed = Callable[[int], float]
"""What a client does a second, at a time in milliseconds since the start."""


def steady(per_s: float) -> Speed:
    return lambda _now: per_s


ALL_AT_ONCE, AS_FAST_AS_LOOPBACK, QUICK = steady(NEVER), steady(1e9), steady(20_000)


@attrs.define(eq=False, kw_only=True)
class Client:
    """What there is for it a second, how fast it reads and works, and when it acks what it has done."""

    name: str
    arrives: Speed = ALL_AT_ONCE  # messages; a backlog that never ends
    reads: Speed = AS_FAST_AS_LOOPBACK  # bytes
    works: Speed = QUICK  # messages, one after the other
    acks_after_ms: int = 2  # behind that, and without holding up the next
    acks: bool = True

    heard_ms: int = 0
    said: list[tuple[int, int, str]] = attrs.field(factory=list)
    closed_ms: int | None = None
    now: int = 0
    backlog: float = 0.0
    done: int = 0
    progress_ms: int = 0
    outbox: deque[Frame] = attrs.field(factory=deque)
    kernel: deque[Frame] = attrs.field(factory=deque)
    working: deque[tuple[Frame, float]] = attrs.field(factory=deque)  # with the messages still to be worked on
    acking: deque[tuple[int, Frame]] = attrs.field(factory=deque)
    leased: deque[Frame] = attrs.field(factory=deque)
    position: int = 0
    feed: Feed = attrs.field(init=False)

    # ------------------------------------------------------------------------- as flow control sees it

    def stalled_s(self, now: float) -> float:
        return (self.now - self.progress_ms) / 1000 if self.outbox else 0.0

    def say_window(self, subscription: str, size: int, reason: str) -> None:
        self.said.append((self.now, size, reason))

    def close_slow(self, error: GatewayError) -> None:
        self.closed_ms = self.now

    # ---------------------------------------------------------------------------------------- one step

    def begin(self, control: FlowControl, window: int) -> None:
        known = SimpleNamespace(name=self.name, settings=SimpleNamespace(lease_ms=LEASE_MS), takers=Takers())
        self.feed = Feed(control, self)
        self.feed.begin(Consumer(cast("Subscription", known), window, 2**20, lambda _: None, self.name))

    def step(self, now: int, absolute: int) -> None:
        self.now = now
        if self.closed_ms is not None:
            return
        self._expire(now)
        self.backlog = min(self.backlog + self.arrives(now) * STEP_MS / 1000, NEVER)
        while self.feed.consumer.credit > 0 and self.backlog >= 1:
            self._deliver(int(min(FRAME_MAX, self.feed.consumer.credit, self.backlog)))
            self._send(now, absolute)
        self._send(now, absolute)
        self._read(now)
        self._work(now)
        while self.acking and self.acking[0][0] <= now:
            self._ack(self.acking.popleft()[1], absolute)

    def _deliver(self, count: int) -> None:
        consumer = self.feed.consumer
        lease = Lease(consumer, Slice(range(self.position + 1, self.position + count + 1), self.position + 1))
        self.position += count
        consumer.hold(lease)
        self.backlog -= count
        delivery = Delivery(self.name, LEASE_MS)
        delivery.count, delivery.last = count, self.position
        self.feed.deliver(delivery, count * MESSAGE_BYTES)
        if not self.outbox:
            self.progress_ms = self.now
        self.outbox.append(Frame(lease, delivery, count * MESSAGE_BYTES, count * MESSAGE_BYTES))

    def _send(self, now: int, absolute: int) -> None:
        """The kernel takes what it has room for; a frame that it has whole begins its leases."""
        room = KERNEL_BYTES - sum(frame.unread for frame in self.kernel)
        while self.outbox and room > 0:
            frame = self.outbox[0]
            taken = min(room, frame.bytes_left)
            frame.bytes_left -= taken
            room -= taken
            self.progress_ms = now
            if frame.bytes_left > 0:
                break
            self.outbox.popleft()
            self.kernel.append(frame)
            if not frame.gone:
                frame.deadline_ms = now + LEASE_MS
                self.leased.append(frame)
                self.feed.handed(frame.delivery, absolute)
        consumer = self.feed.consumer
        if self.outbox:
            consumer.block()
        elif consumer.blocked:
            consumer.blocked = False
            consumer.update()

    def _read(self, now: int) -> None:
        left = self.reads(now) * STEP_MS / 1000
        while self.kernel and left > 0:
            frame = self.kernel[0]
            taken = min(left, frame.unread)
            frame.unread -= taken
            left -= taken
            if frame.unread <= 0:
                self.kernel.popleft()
                self.working.append((frame, frame.delivery.count))

    def _work(self, now: int) -> None:
        left = self.works(now) * STEP_MS / 1000
        while self.working and left > 0:
            frame, todo = self.working.popleft()
            if todo > left:
                self.working.appendleft((frame, todo - left))
                return
            left -= todo
            if self.acks:
                self.acking.append((now + self.acks_after_ms, frame))

    def _ack(self, frame: Frame, absolute: int) -> None:
        piece = frame.lease.slice
        self.feed.heard([(piece.first, piece.last)], absolute, settles=True)
        if not frame.gone:
            frame.gone = True
            self.feed.consumer.drop(frame.lease)
            self.feed.consumer.acked += len(piece)
            self.done += len(piece)

    def _expire(self, now: int) -> None:
        while self.leased and (self.leased[0].gone or self.leased[0].deadline_ms <= now):
            frame = self.leased.popleft()
            if not frame.gone:
                self._take_back(frame)
                self.feed.consumer.expired += frame.delivery.count

    def recall(self) -> None:
        for frame in self.outbox:
            if not frame.gone:
                self._take_back(frame)

    def _take_back(self, frame: Frame) -> None:
        frame.gone = True
        self.feed.consumer.drop(frame.lease)
        self.backlog += frame.delivery.count


@attrs.frozen
class Row:
    """One client at one second."""

    client: str
    second: int
    window: int
    in_flight: int
    acked_per_s: float
    ack_latency_ms: float
    unsent_bytes: int
    state: str
    reason: str


class _Engine:
    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = {client.name: client for client in clients}

    def resize(self, consumer: Consumer, window: int, window_bytes: int) -> None:
        consumer.resize(window, window_bytes)

    def recall(self, consumer: Consumer, now: int) -> None:
        self._clients[consumer.label].recall()


def simulate(clients: list[Client], seconds: int, window: int = 1000, settings: Flow | None = None) -> list[Row]:
    """Let `clients` live for so long; a row for each and every second."""
    now, began = 0, 1_000_000
    control = FlowControl(cast("Engine", _Engine(clients)), settings or Flow(), 256 * 1024, lambda: began + now)
    rows: list[Row] = []
    for client in clients:
        client.begin(control, window)
    for now in range(STEP_MS, seconds * 1000 + 1, STEP_MS):
        for client in clients:
            client.step(now, began + now)
            if client.outbox:
                client.feed.watch()  # as the watchdog does
        if now % 100 == 0:
            control.look([feed for feed in list(control.active) if feed.state is not State.CLOSED], now / 1000)
        if now % 1000 == 0:
            rows += [_row(client, now, began + now) for client in clients]
    return rows


def _row(client: Client, now: int, absolute: int) -> Row:
    feed, consumer = client.feed, client.feed.consumer
    return Row(
        client=client.name,
        second=now // 1000,
        window=consumer.window,
        in_flight=consumer.in_flight,
        acked_per_s=round(feed.acked_per_s(absolute), 1),
        ack_latency_ms=round(feed.latency_ms(absolute) or 0.0, 1),
        unsent_bytes=int(sum(frame.bytes_left for frame in client.outbox)),
        state=feed.state.value,
        reason=feed.reason.value,
    )


def many() -> list[Client]:
    """One of each kind."""
    return [
        Client(name="fast"),
        Client(name="works on 50/s", works=steady(50)),
        Client(name="works on 500/s", works=steady(500)),
        Client(name="acks after 5 s, 100/s arrive", arrives=steady(100), acks_after_ms=5000),
        Client(name="acks after 5 s, backlog", acks_after_ms=5000),
        Client(name="reads 200 kB/s", reads=steady(200_000)),
        Client(
            name="bursts of 5,000, works on 1,000/s",
            arrives=lambda now: 5000 * 1000 / STEP_MS if now % 20_000 == STEP_MS else 0,
            works=steady(1000),
        ),
        Client(name="stops from 30 to 75 s", works=lambda now: 0 if 30_000 <= now < 75_000 else 2000),
        Client(name="does not read from 30 to 45 s", reads=lambda now: 0 if 30_000 <= now < 45_000 else 1e7),
        Client(name="never acks", acks=False),
        Client(name="never reads", reads=steady(0)),
    ]


# ------------------------------------------------------------------------------------------------------- output

_WIDTH, _HEIGHT, _GAP, _LEFT = 900, 90, 34, 60
_COLOURS: Final = {"healthy": "#dff3e3", "throttled": "#fdf1cc", "paused": "#f9d9d3", "closed": "#d8d8d8"}


def write(rows: list[Row], directory: Path) -> tuple[Path, Path]:
    """The data as CSV and the plot as SVG; their paths."""
    data, plot = directory / "flow_control.csv", directory / "flow_control.svg"
    with data.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in attrs.fields(Row)])
        writer.writeheader()
        writer.writerows(attrs.asdict(row) for row in rows)
    names = list(dict.fromkeys(row.client for row in rows))
    panels = [_panel(number, [row for row in rows if row.client == name]) for number, name in enumerate(names)]
    height = len(names) * (_HEIGHT + _GAP) + _GAP
    plot.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + _LEFT + 20}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n",
        encoding="utf-8",
    )
    return data, plot


def _panel(number: int, rows: list[Row]) -> str:
    """Window and messages in flight over time; the ground says the state."""
    top, seconds = number * (_HEIGHT + _GAP) + _GAP, len(rows)
    most = max(max(row.window, row.in_flight) for row in rows) or 1

    def x(second: float) -> float:
        return round(_LEFT + second * _WIDTH / seconds, 1)

    def y(value: float) -> float:
        return round(top + _HEIGHT - value * _HEIGHT / most, 1)

    parts = [
        f'<rect x="{x(row.second - 1)}" y="{top}" width="{_WIDTH / seconds + 0.2:.2f}" height="{_HEIGHT}" '
        f'fill="{_COLOURS[row.state]}"/>'
        for row in rows
    ]
    for colour, values in (
        ("#1f5fbf", [row.window for row in rows]),
        ("#c0392b", [row.in_flight for row in rows]),
    ):
        points = " ".join(f"{x(row.second)},{y(value)}" for row, value in zip(rows, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    last = rows[-1]
    title = f"{last.client}: window (blue), in flight (red); at the end {last.acked_per_s:,.0f}/s, {last.state}"
    parts.append(f'<text x="{_LEFT}" y="{top - 5}">{title}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{most:,}</text>')
    parts.append(f'<text x="{_LEFT - 6}" y="{top + _HEIGHT}" text-anchor="end">0</text>')
    return "".join(parts)


if __name__ == "__main__":
    for path in write(simulate(many(), 150), Path(sys.argv[1])):
        print(path)
