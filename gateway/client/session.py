"""What is said over one connection: the decisions, without the waiting.

`take_frame` gives the next frame for the socket, `handle` acts on one that came. Answers find their question by its
`id`, messages their subscription by its name. `connection.py` is the shell that waits, on the events of this class.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import orjson
import trio

from gateway.client.attachment import Attachment
from gateway.client.errors import answered
from gateway.client.publishing import Publisher
from gateway.wire import push_v1

logger = logging.getLogger("gateway.client")

Answer = push_v1.Ok | push_v1.Error
OnAnswer = Callable[[Answer | None], None]
"""Called once with the answer to an operation; with None where the connection ends before it."""


class Session:
    """One connection's conversation. `on_welcome` is called as soon as the gateway is ready."""

    def __init__(self, publisher: Publisher, on_welcome: Callable[[Session], None]) -> None:
        self._publisher = publisher
        self._on_welcome = on_welcome
        self._attachments: dict[str, Attachment] = {}
        self._due: deque[Attachment] = deque()
        self._soon_due: list[Attachment] = []
        self._operations: deque[bytes] = deque()
        self._asked: dict[int, OnAnswer] = {}
        self._reference = 0
        self.welcome: push_v1.Welcome | None = None
        self.drain: push_v1.Drain | None = None
        self.last_error: push_v1.Error | None = None
        """What the gateway said before it closed; the close frame itself may say less."""
        self.finishing = False
        self.to_send = trio.Event()
        self.acks_wait = trio.Event()
        self.messages_wait = trio.Event()
        self.progress = trio.Event()  # something was answered or settled
        self.draining = trio.Event()

    # ------------------------------------------------------------------------------------------- subscriptions

    def attach(self, name: str, window: int | None, on_messages: Callable[[], None], on_answer: OnAnswer) -> Attachment:
        """Subscribe over this connection."""
        attachment = Attachment(name, window, self, on_messages)
        self._attachments[name] = attachment
        operation: dict[str, object] = {"op": "subscribe", "subscription": name}
        if window is not None:
            operation["window"] = window
        self.request(operation, on_answer)
        return attachment

    def detach(self, attachment: Attachment, on_answer: OnAnswer) -> None:
        """Say what is still unsaid, and unsubscribe."""
        self._operations.extend(attachment.take_settles())
        self.request({"op": "unsubscribe", "subscription": attachment.name}, on_answer)
        attachment.end()
        if self._attachments.get(attachment.name) is attachment:
            del self._attachments[attachment.name]

    @property
    def attachments(self) -> list[Attachment]:
        return list(self._attachments.values())

    def due(self, attachment: Attachment) -> None:
        self._due.append(attachment)
        self.progress.set()
        self.to_send.set()

    def soon_due(self, attachment: Attachment) -> None:
        self._soon_due.append(attachment)
        self.progress.set()
        self.acks_wait.set()

    def flush_soon_due(self) -> None:
        """The little time that acks may wait for each other is over."""
        self.acks_wait = trio.Event()
        waiting, self._soon_due = self._soon_due, []
        for attachment in waiting:
            attachment.flush()

    # ----------------------------------------------------------------------------------------------------- out

    def say_hello(self, name: str) -> None:
        self._operations.append(orjson.dumps({"op": "hello", "client": name}))
        self.to_send.set()

    def request(self, operation: dict[str, object], on_answer: OnAnswer) -> None:
        """Send an operation that is answered."""
        self._reference += 1
        self._asked[self._reference] = on_answer
        self._operations.append(orjson.dumps({**operation, "id": self._reference}))
        self.to_send.set()

    async def ask(self, operation: dict[str, object]) -> Answer | None:
        """Send an operation and wait for its answer; None where the connection ends first."""
        answers: list[Answer | None] = []
        heard = trio.Event()

        def on_answer(answer: Answer | None) -> None:
            answers.append(answer)
            heard.set()

        self.request(operation, on_answer)
        await heard.wait()
        return answers[0]

    def take_frame(self, now_s: float) -> bytes | None:
        """The next frame for the socket; None where nothing waits. Publishes go last, so that they may gather."""
        while self._due:
            self._operations.extend(self._due.popleft().take_settles())
        if self._operations:
            return self._operations.popleft()
        if self.finishing or self.drain is not None or self.welcome is None:
            return None
        return self._publisher.next_frame(now_s)

    def finish(self) -> None:
        """Have everything sent that is still unsaid, then nothing more."""
        for attachment in self._attachments.values():
            attachment.flush()
        self.finishing = True
        self.to_send.set()

    @property
    def is_busy(self) -> bool:
        """Whether an answer, or the settling of a message in the program's hands, is still to come."""
        return (
            self._publisher.in_flight
            or bool(self._asked)
            or any(attachment.handed_out > 0 for attachment in self._attachments.values())
        )

    def end(self, now_s: float) -> None:
        """The connection is gone: its leases with it, and nobody will answer."""
        for attachment in self._attachments.values():
            attachment.end()
        asked, self._asked = self._asked, {}
        for on_answer in asked.values():
            on_answer(None)
        self._publisher.lose(now_s)

    # ------------------------------------------------------------------------------------------------------ in

    def handle(self, frame: push_v1.AnyServerFrame, now_s: float) -> None:
        """Act on one frame of the gateway."""
        match frame:
            case push_v1.Messages():
                self._handle_messages(frame, now_s)
            case push_v1.Published():
                self._publisher.answer(frame)
            case push_v1.Ok():
                self._answer(frame.id, frame)
            case push_v1.Error():
                self._handle_error(frame)
            case push_v1.Welcome():
                self._handle_welcome(frame)
            case push_v1.Drain():
                self._handle_drain(frame)
            case push_v1.Window():
                logger.debug("%s: window is now %d (%s)", frame.subscription, frame.size, frame.reason)
        self.progress.set()

    def _handle_messages(self, frame: push_v1.Messages, now_s: float) -> None:
        attachment = self._attachments.get(frame.subscription)
        if attachment is not None and self.drain is None:
            attachment.receive(frame, now_s)
            self.messages_wait.set()

    def _handle_error(self, frame: push_v1.Error) -> None:
        if frame.id is None:
            self.last_error = frame
            logger.warning("the gateway says: %s (%s)", frame.message, frame.code)
        elif self._publisher.refuse(frame.id, answered(frame.code, frame.message, frame.temporary)):
            self.to_send.set()  # a draining gateway's publishes wait again
        else:
            self._answer(frame.id, frame)

    def _answer(self, reference: int | str | None, answer: Answer) -> None:
        on_answer = self._asked.pop(reference, None) if isinstance(reference, int) else None
        if on_answer is not None:
            on_answer(answer)

    def _handle_welcome(self, frame: push_v1.Welcome) -> None:
        if self.welcome is None:
            self.welcome = frame
            self._on_welcome(self)
            self.to_send.set()

    def _handle_drain(self, frame: push_v1.Drain) -> None:
        if self.drain is not None:
            return
        self.drain = frame
        for attachment in self._attachments.values():
            attachment.discard()
            attachment.flush()
        self.draining.set()
