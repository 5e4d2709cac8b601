"""A message on its way in: what a consumer is handed, and the verbs to settle it with."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Protocol, overload

import msgspec
import orjson
import trio

from gateway.client.settling import Extra
from gateway.model import Position
from gateway.wire import push_v1
from gateway.wire.cloudevents import DeliveredEvent

_json = msgspec.json.Decoder()
_UNPARSED: Final = object()
_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


class Lessor(Protocol):
    """Who leased the messages: one subscription on one connection. Where it is gone, it passes over what is said."""

    def settle(self, operation: str, position: Position, extra: Extra = ()) -> None: ...

    def extend(self, position: Position, extra: Extra) -> None: ...

    async def confirm_ack(self, position: Position) -> None: ...


class ReceivedMessage:
    """One delivered message, leased to this program until it is settled or its lease runs out.

    A message is settled once, by the first of `ack`, `nack` and `term`; what is said after that is passed over. A
    lease ends with its connection: what is said of a message of a lost connection is passed over as well, and the
    message comes again (delivery is at least once; `attempts` and `id` tell).
    """

    __slots__ = ("_data", "_lessor", "_wire", "attempts", "settled")

    def __init__(self, wire: push_v1.Delivered, attempts: int, lessor: Lessor) -> None:
        self._wire = wire
        self._lessor = lessor
        self._data: Any = _UNPARSED
        self.attempts = attempts
        """How often the message has been delivered to the subscription, this time included."""
        self.settled = False
        """Whether `ack`, `nack` or `term` has been said."""

    def __repr__(self) -> str:
        return f"<message {self.position} {self.topic} id={self.id!r}{' settled' if self.settled else ''}>"

    # ------------------------------------------------------------------------------------------ what it says

    @property
    def position(self) -> Position:
        return self._wire.position

    @property
    def id(self) -> str:
        return self._wire.id

    @property
    def topic(self) -> str:
        return self._wire.topic

    @property
    def key(self) -> str | None:
        return self._wire.key

    @property
    def attributes(self) -> Mapping[str, str]:
        return self._wire.attributes or _EMPTY

    @property
    def time_ms(self) -> int:
        """When the gateway took the message, in milliseconds since the epoch."""
        return self._wire.time_ms

    @property
    def content_type(self) -> str:
        return self._wire.content_type or "application/json"

    @property
    def raw(self) -> bytes:
        """The payload exactly as it was published: JSON text, or the bytes of a payload that is not JSON."""
        if self._wire.data_base64 is None:
            return bytes(self._wire.data)
        return base64.b64decode(self._wire.data_base64)

    @property
    def data(self) -> Any:
        """The payload as Python values, parsed at the first use; `raw` where it is not JSON.

        Raises ValueError where the parser refuses it (1e999 is JSON, and no number of Python's); `raw` still works.
        """
        if self._data is _UNPARSED:
            self._data = self.raw if self._wire.data_base64 is not None else _parse(self._wire.data)
        return self._data

    def as_json(self) -> bytes:
        """The delivery object of protocol.md §1, byte for byte as the gateway sent it; or the CloudEvent it was."""
        wire = self._wire
        if isinstance(wire, DeliveredEvent):
            return wire.sent
        head: dict[str, object] = {"position": wire.position, "id": wire.id, "topic": wire.topic}
        if wire.key:
            head["key"] = wire.key
        head["time_ms"] = wire.time_ms
        if wire.attributes:
            head["attributes"] = wire.attributes
        if wire.data_base64 is None:
            return orjson.dumps(head)[:-1] + b',"data":' + bytes(wire.data) + b"}"
        head["content_type"] = wire.content_type
        head["data_base64"] = wire.data_base64
        return orjson.dumps(head)

    # ------------------------------------------------------------------------------------------ what is said of it

    async def ack(self, *, confirm: bool = False) -> None:
        """Done: never again to this subscription.

        Acks travel together, at most 20 ms later. `confirm` sends this one at once and waits until the gateway has
        answered; raises LeaseLostError where the lease was over before it came.
        """
        await trio.lowlevel.checkpoint()
        if not confirm:
            self.ack_nowait()
        elif not self.settled:
            self.settled = True
            await self._lessor.confirm_ack(self._wire.position)

    async def nack(self, *, delay_ms: int | None = None, reason: str = "") -> None:
        """Not done: again after `delay_ms`, or after what the subscription's backoff says."""
        await trio.lowlevel.checkpoint()
        self.nack_nowait(delay_ms=delay_ms, reason=reason)

    async def term(self, reason: str = "") -> None:
        """Never again: to the dead letters."""
        await trio.lowlevel.checkpoint()
        self.term_nowait(reason)

    async def extend(self, lease_ms: int) -> None:
        """Still at it: the lease lasts `lease_ms` from now."""
        await trio.lowlevel.checkpoint()
        self.extend_nowait(lease_ms)

    def ack_nowait(self) -> None:
        if not self.settled:
            self.settled = True
            self._lessor.settle("ack", self._wire.position)

    def nack_nowait(self, *, delay_ms: int | None = None, reason: str = "") -> None:
        if not self.settled:
            self.settled = True
            extra: Extra = () if delay_ms is None else (("delay_ms", delay_ms),)
            self._lessor.settle("nack", self._wire.position, (*extra, ("reason", reason)) if reason else extra)

    def term_nowait(self, reason: str = "") -> None:
        if not self.settled:
            self.settled = True
            self._lessor.settle("term", self._wire.position, (("reason", reason),) if reason else ())

    def extend_nowait(self, lease_ms: int) -> None:
        if not self.settled:
            self._lessor.extend(self._wire.position, (("lease_ms", lease_ms),))


def _parse(data: msgspec.Raw) -> Any:
    try:
        return _json.decode(data)  # keeps integers of any size, where orjson would round them to a float
    except RecursionError:
        return orjson.loads(bytes(data))  # does not count the caller's own stack against the payload's depth


class ReceivedBatch(Sequence[ReceivedMessage]):
    """Messages that were waiting together, in the order of their delivery. A verb means all that are not settled."""

    __slots__ = ("_messages",)

    def __init__(self, messages: list[ReceivedMessage]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[ReceivedMessage]:
        return iter(self._messages)

    @overload
    def __getitem__(self, index: int) -> ReceivedMessage: ...
    @overload
    def __getitem__(self, index: slice) -> list[ReceivedMessage]: ...
    def __getitem__(self, index: int | slice) -> ReceivedMessage | list[ReceivedMessage]:
        return self._messages[index]

    def __repr__(self) -> str:
        return f"<batch of {len(self._messages)} messages>"

    @property
    def settled(self) -> bool:
        """Whether every message of it is."""
        return all(message.settled for message in self._messages)

    async def ack(self) -> None:
        await trio.lowlevel.checkpoint()
        self.ack_nowait()

    async def nack(self, *, delay_ms: int | None = None, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()
        self.nack_nowait(delay_ms=delay_ms, reason=reason)

    async def extend(self, lease_ms: int) -> None:
        await trio.lowlevel.checkpoint()
        for message in self._messages:
            message.extend_nowait(lease_ms)

    def ack_nowait(self) -> None:
        for message in self._messages:
            message.ack_nowait()

    def nack_nowait(self, *, delay_ms: int | None = None, reason: str = "") -> None:
        for message in self._messages:
            message.nack_nowait(delay_ms=delay_ms, reason=reason)
