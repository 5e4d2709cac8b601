"""Publishes on their way: waiting for the socket, waiting for the answer, or given up with the connection.

Synchronous: `gateway.py` puts publications in and waits for them, `connection.py` takes frames out and brings answers.
Publications that wait while the socket is busy go out in one frame, so that many tasks that each publish one message
cost the gateway little more than one that publishes batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import attrs
import msgspec
import trio

from gateway.client.errors import ClientError, ConnectionEndedError, OutcomeUnknownError, answered_object
from gateway.client.message import Message, encode
from gateway.errors import GatewayError
from gateway.model import Position
from gateway.wire import push_v1

MERGED_MESSAGES_MAX: Final = 256
MERGED_BYTES_MAX: Final = 256 * 1024
"""How much is put into one frame although it came in several calls; larger frames would only wait longer."""
RESEND_SHARE: Final = 5 / 6
"""A message with an id is sent again within this share of the time for which the gateway remembers ids; the rest is for
the way there."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message has its place in the log, and `durability` says what was reached before the answer.

    `id`: the producer's; None where it gave none and the gateway did not tell the one it chose. `duplicate`: the
    gateway had the message already, and `position` is where.
    """

    position: Position
    id: str | None = None
    duplicate: bool = False
    durability: str = "fsynced"


Result = Stored | GatewayError | ClientError


@attrs.frozen
class Limits:
    """What one publish frame may hold: the gateway's word in `welcome`, or its documented defaults."""

    messages: int = 1000
    bytes: int = 4 * 1024 * 1024
    dedup_window_s: int = 120

    @property
    def message_bytes(self) -> int:
        """The largest message object that surely fits a frame: `bytes` of payload, in base64, and its head."""
        return self.bytes * 3 // 2

    @property
    def resend_s(self) -> float:
        """How long after it was first sent a message with an id may be sent again."""
        return self.dedup_window_s * RESEND_SHARE

    @classmethod
    def of(cls, welcome: dict[str, int]) -> Limits:
        documented = cls()
        return cls(
            max(1, welcome.get("batch_messages_max", documented.messages)),
            max(1, welcome.get("batch_bytes_max", documented.bytes)),
            welcome.get("dedup_window_s", documented.dedup_window_s),
        )


class Publication:
    """Messages of one call that travel in one frame. `open` are the indexes of those without a result."""

    __slots__ = (
        "abandoned",
        "bodies",
        "done",
        "durability",
        "first_sent_s",
        "ids",
        "in_doubt",
        "open",
        "results",
        "size",
    )

    def __init__(self, durability: str) -> None:
        self.durability = durability
        self.bodies: list[bytes] = []
        self.ids: list[str | None] = []
        self.size = 0
        self.open: list[int] = []
        self.results: list[Result | None] = []
        self.first_sent_s: float | None = None
        self.in_doubt = False  # a connection was lost while it was in flight
        self.abandoned = False  # the caller was cancelled: not worth sending again
        self.done = trio.Event()

    def add(self, body: bytes, id_: str | None) -> None:
        self.open.append(len(self.results))
        self.bodies.append(body)
        self.ids.append(id_)
        self.results.append(None)
        self.size += len(body)

    def add_failed(self, error: GatewayError) -> None:
        """A message that is not sent, in its place among the others."""
        self.bodies.append(b"")
        self.ids.append(None)
        self.results.append(error)

    def settle(self, results: Iterable[Result]) -> None:
        for index, result in zip(self.open, results, strict=True):
            self.results[index] = result
        self.open = []
        self.done.set()

    def fail(self, error: GatewayError | ClientError) -> None:
        self.settle([error] * len(self.open))

    def doubt(self, now_s: float, resend_s: float) -> None:
        """Its connection is gone. What cannot be sent again without a risk of storing it twice gets its result."""
        self.in_doubt = True
        too_late = self.first_sent_s is not None and now_s - self.first_sent_s >= resend_s
        still_open = []
        for index in self.open:
            if too_late or self.abandoned or self.ids[index] is None:
                self.results[index] = OutcomeUnknownError(
                    "the connection was lost before the gateway answered: the message may be stored or not"
                )
            else:
                still_open.append(index)
        self.open = still_open
        if not still_open:
            self.done.set()


def split(messages: Iterable[Message], durability: str, limits: Limits) -> Iterator[Publication]:
    """A call's messages in publications that keep the gateway's limits of one batch.

    A message that cannot be sent has its error as its result at once. Raises TypeError for what JSON cannot say.
    """
    gathered = Publication(durability)
    for message in messages:
        try:
            body = _encode_within(message, limits)
        except GatewayError as error:
            gathered.add_failed(error)
            continue
        if gathered.open and (len(gathered.open) == limits.messages or gathered.size + len(body) > limits.bytes):
            yield gathered
            gathered = Publication(durability)
        gathered.add(body, message.id)
    if gathered.results:
        yield gathered


def _encode_within(message: Message, limits: Limits) -> bytes:
    """Refuse what no frame can hold: the gateway would close the connection over it."""
    body = encode(message)
    if len(body) > limits.message_bytes:
        raise GatewayError(
            "payload_too_large",
            f"a message for {message.topic} has {len(body)} bytes; put its data elsewhere and publish a reference",
        )
    return body


class Publisher:
    """All publications of one program that have no result yet.

    They are as many as its tasks wait for: a queue here needs no bound of its own.
    """

    def __init__(self) -> None:
        self.limits = Limits()
        self._unsent: deque[Publication] = deque()
        self._in_flight: dict[int, list[Publication]] = {}
        self._reference = 0

    @property
    def in_flight(self) -> bool:
        return bool(self._in_flight)

    def put(self, publication: Publication) -> None:
        if publication.open:
            self._unsent.append(publication)
        else:
            publication.done.set()

    def withdraw(self, publication: Publication) -> None:
        """Nobody waits for it any more: forget it where it has not been sent yet."""
        publication.abandoned = True
        if publication in self._unsent:
            self._unsent.remove(publication)

    def next_frame(self, now_s: float) -> bytes | None:
        """The next frame for the socket, in flight from now on; None where nothing waits."""
        self._drop_what_is_too_late(now_s)
        if not self._unsent:
            return None
        taken = self._gather()
        for publication in taken:
            if publication.first_sent_s is None:
                publication.first_sent_s = now_s
        self._reference -= 1  # counts down: operations of `connection.py` count up, so an `id` means one of them only
        self._in_flight[self._reference] = taken
        return b'{"op":"publish","id":%d,"durability":"%b","messages":[%b]}' % (
            self._reference,
            taken[0].durability.encode(),
            b",".join([publication.bodies[index] for publication in taken for index in publication.open]),
        )

    def _gather(self) -> list[Publication]:
        messages_max = min(MERGED_MESSAGES_MAX, self.limits.messages)
        bytes_max = min(MERGED_BYTES_MAX, self.limits.bytes)
        taken = [self._unsent.popleft()]
        messages, size = len(taken[0].open), taken[0].size
        while self._unsent:
            following = self._unsent[0]
            messages, size = messages + len(following.open), size + following.size
            if messages > messages_max or size > bytes_max or following.durability != taken[0].durability:
                break
            taken.append(self._unsent.popleft())
        return taken

    def answer(self, frame: push_v1.Published) -> None:
        """The gateway's `published`: every message of the frame gets its result."""
        taken = self._take(frame.id)
        if taken is None:
            return
        count = sum(len(publication.open) for publication in taken)
        if frame.positions is not None:
            if frame.positions[1] - frame.positions[0] + 1 != count:
                _fail(taken, _nonsense(count, frame.positions[1] - frame.positions[0] + 1))
                return
            position = frame.positions[0]
            for publication in taken:
                ids = [publication.ids[index] for index in publication.open]
                publication.settle(
                    [Stored(position + step, id_, False, frame.durability) for step, id_ in enumerate(ids)]
                )
                position += len(ids)
            return
        results = frame.results or []
        if len(results) != count:
            _fail(taken, _nonsense(count, len(results)))
            return
        rest = iter(results)
        for publication in taken:
            publication.settle([_result(next(rest), frame.durability) for _ in publication.open])

    def refuse(self, reference: int | str | None, error: GatewayError) -> bool:
        """The gateway's `error` for a whole frame. False where `reference` is no publish.

        A gateway that drains has taken nothing of it: it is sent again over the next connection.
        """
        taken = self._take(reference)
        if taken is None:
            return False
        if error.code in ("draining", "drained"):
            self._unsent.extendleft(reversed(taken))
        else:
            _fail(taken, error)
        return True

    def lose(self, now_s: float) -> None:
        """The connection is gone: what had an id goes back in line, of the rest nobody knows."""
        back = [publication for taken in self._in_flight.values() for publication in taken]
        self._in_flight.clear()
        for publication in back:
            publication.doubt(now_s, self.limits.resend_s)
        self._unsent.extendleft(publication for publication in reversed(back) if publication.open)

    def end(self, error: ConnectionEndedError) -> None:
        """There is no next connection. What was never sent fails with `error`, the outcome of the rest is unknown."""
        unknown = OutcomeUnknownError(f"{error}; the gateway had not answered: the message may be stored or not")
        for taken in self._in_flight.values():
            for publication in taken:
                publication.fail(unknown)
        self._in_flight.clear()
        for publication in self._unsent:
            publication.fail(unknown if publication.in_doubt else error)
        self._unsent.clear()

    def _drop_what_is_too_late(self, now_s: float) -> None:
        """What came back from a lost connection stands in front; it may have waited too long for the next one."""
        while self._unsent and self._unsent[0].in_doubt:
            self._unsent[0].doubt(now_s, self.limits.resend_s)
            if self._unsent[0].open:
                break
            self._unsent.popleft()

    def _take(self, reference: int | str | None) -> list[Publication] | None:
        return self._in_flight.pop(reference, None) if isinstance(reference, int) else None


def _result(item: dict[str, object], durability: str) -> Result:
    if "error" in item:
        return answered_object(item["error"])
    position, id_ = item.get("position"), item.get("id")
    if not isinstance(position, int):
        return GatewayError("internal", f"the gateway answered a publish without a position: {item!r}")
    return Stored(position, id_ if isinstance(id_, str) else None, bool(item.get("duplicate")), durability)


def _fail(taken: list[Publication], error: GatewayError) -> None:
    for publication in taken:
        publication.fail(error)


def _nonsense(asked: int, got: int) -> GatewayError:
    return GatewayError("internal", f"the gateway answered {got} results to {asked} messages; please report this")
