"""One subscription on one connection: what is leased and not handed out yet, what is said and not sent yet.

Synchronous. It ends with its connection: a resumed subscription gets a new one, and what is said of messages of the
old one is passed over, because their leases are gone.

Messages that wait here keep their leases as long as the program goes on taking messages: without that, a body of a
second and a window of a hundred would let most messages run out of their lease unseen, until they were dead letters.
Where the program has taken none for the length of a lease it is stuck, and its messages are left to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from gateway.client.errors import LeaseLostError
from gateway.client.received import ReceivedMessage
from gateway.client.settling import Extra, Settles
from gateway.model import Position
from gateway.wire import push_v1

ACKS_WAITING_MAX: Final = 500
"""Acks that may wait before they are sent, though messages still wait: as many as a delivery frame holds."""
TICK_S: Final = 1.0
"""How often leases of waiting messages are looked at; a fourth of the lease where that is shorter."""


class Link(Protocol):
    """What an attachment needs of its connection."""

    def due(self, attachment: Attachment) -> None:
        """Send what its consumer has said as soon as the socket takes it."""

    def soon_due(self, attachment: Attachment) -> None:
        """Send it a little later, with what follows."""

    async def ask(self, operation: dict[str, object]) -> push_v1.Ok | push_v1.Error | None:
        """Send an operation and wait for its answer; None where the connection ended first."""


class _Frame:
    """One delivery frame; `next` is the first message that has not been handed out."""

    __slots__ = ("attempts", "deadline_s", "messages", "next")

    def __init__(self, frame: push_v1.Messages, deadline_s: float) -> None:
        self.messages = frame.messages
        self.attempts = frame.attempts
        self.deadline_s = deadline_s
        self.next = 0

    def attempts_of(self, position: Position) -> int:
        return self.attempts.get(str(position), 1) if self.attempts else 1


class Attachment:
    """Its size is bounded by the window that the subscription was attached with: the gateway leases no more."""

    def __init__(self, name: str, window: int | None, link: Link, on_messages: Callable[[], None]) -> None:
        self.name = name
        self.link = link
        self.on_messages = on_messages
        self.alive = True
        self.frames: deque[_Frame] = deque()
        self.settles = Settles(name)
        self.handed_out = 0
        """Messages that the program has and has not settled."""
        self.flush_due = False
        self._lease_s = 30.0
        self._taken_s = 0.0
        self._again: set[Position] = set()  # delivered again, and perhaps still waiting here
        self._acks_max = max(1, min(ACKS_WAITING_MAX, (window or 1000) // 4))

    # --------------------------------------------------------------------------------------------- messages in

    def receive(self, frame: push_v1.Messages, now_s: float) -> None:
        self._lease_s = frame.lease_ms / 1000
        if not self.frames:
            self._taken_s = now_s  # nobody could take anything until now
            self._again.clear()
        if frame.messages:
            self._again.update(map(int, frame.attempts))
            self.frames.append(_Frame(frame, now_s + self._lease_s))
            self.on_messages()

    def take(self, now_s: float) -> ReceivedMessage | None:
        """The next message whose lease still runs; None where none waits."""
        self._taken_s = now_s
        frames = self.frames
        while frames:
            frame = frames[0]
            if frame.deadline_s <= now_s:
                frames.popleft()
                continue
            wire = frame.messages[frame.next]
            frame.next += 1
            if frame.next == len(frame.messages):
                frames.popleft()
            self.handed_out += 1
            return ReceivedMessage(wire, frame.attempts_of(wire.position), self)
        return None

    def take_many(self, limit: int, now_s: float) -> list[ReceivedMessage]:
        """Up to `limit` messages of the first frame that waits."""
        self._taken_s = now_s
        while self.frames and self.frames[0].deadline_s <= now_s:
            self.frames.popleft()
        if not self.frames:
            return []
        frame = self.frames[0]
        chosen = frame.messages[frame.next : frame.next + limit]
        frame.next += len(chosen)
        if frame.next == len(frame.messages):
            self.frames.popleft()
        self.handed_out += len(chosen)
        return [ReceivedMessage(wire, frame.attempts_of(wire.position), self) for wire in chosen]

    def _withdraw(self, position: Position) -> None:
        """A word on a message counts for its redelivery too: where that waits here already, it is not handed out."""
        self._again.discard(position)
        for frame in self.frames:
            if str(position) in frame.attempts:
                waiting = frame.messages[frame.next :]
                frame.messages, frame.next = [wire for wire in waiting if wire.position != position], 0
        self.frames = deque(frame for frame in self.frames if frame.next < len(frame.messages))

    def discard(self) -> None:
        """Nothing more is handed out: what waits goes back to the gateway with the end of the attachment."""
        self.frames.clear()

    def end(self) -> None:
        """The connection, or the place on it, is gone, and with it every lease."""
        self.alive = False
        self.frames.clear()
        self.settles = Settles(self.name)

    # ----------------------------------------------------------------------------------------------- words out

    def settle(self, operation: str, position: Position, extra: Extra = ()) -> None:
        if not self.alive:
            return
        self.handed_out -= 1
        if position in self._again:
            self._withdraw(position)
        if operation == "ack":
            self.settles.ack(position)
            if self.settles.acks_waiting >= self._acks_max:
                self.flush()
            elif self.settles.acks_waiting == 1:
                self.link.soon_due(self)
        else:
            self.settles.say(operation, position, extra)
            self.flush()

    def extend(self, position: Position, extra: Extra) -> None:
        if self.alive:
            self.settles.say("extend", position, extra)
            self.flush()

    async def confirm_ack(self, position: Position) -> None:
        """Ack one message and wait for the answer. Raises LeaseLostError."""
        if not self.alive:
            raise LeaseLostError(f"message {position}: its connection was lost; it comes again")
        self.handed_out -= 1
        self._withdraw(position)
        operation: dict[str, object] = {"op": "ack", "subscription": self.name, "ranges": [[position, position]]}
        answer = await self.link.ask(operation)
        if answer is None:
            raise LeaseLostError(f"message {position}: the connection was lost before the gateway answered")
        if isinstance(answer, push_v1.Error):
            raise LeaseLostError(f"message {position}: {answer.message}")
        if not answer.acked:
            raise LeaseLostError(f"message {position}: its lease was over; it comes again, or is settled by others")

    def flush(self) -> None:
        """Have everything that waits sent as soon as the socket takes it."""
        if self.settles and not self.flush_due:
            self.flush_due = True
            self.link.due(self)

    def take_settles(self) -> Iterator[bytes]:
        """The frames that are due."""
        self.flush_due = False
        return self.settles.frames()

    # --------------------------------------------------------------------------------------------------- leases

    @property
    def tick_s(self) -> float:
        return min(TICK_S, self._lease_s / 4)

    def keep_leases(self, now_s: float) -> None:
        """Extend what waits and has less than half of its lease left, while the program goes on taking messages."""
        self.frames = deque(frame for frame in self.frames if frame.deadline_s > now_s)
        if now_s - self._taken_s > self._lease_s:
            return
        extra: Extra = (("lease_ms", int(self._lease_s * 1000)),)
        for frame in self.frames:
            if frame.deadline_s - now_s < self._lease_s / 2:
                frame.deadline_s = now_s + self._lease_s
                for wire in frame.messages[frame.next :]:
                    self.settles.say("extend", wire.position, extra)
        self.flush()
