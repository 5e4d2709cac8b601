"""The WebSocket subprotocol `push.v1.json` (protocol.md §4): one JSON object a text frame.

The gateway's side decodes client operations with `decode` and builds its own frames with the `encode_*` functions; the
SDK's side mirrors it with `decode_server` and `orjson` on plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import orjson

from gateway.errors import GatewayError
from gateway.model import (
    POSITION_MAX,
    Batch,
    Delivery,
    Durability,
    Message,
    Ranges,
    Settle,
    Settlement,
    Stored,
    Verb,
)
from gateway.wire import payload, strict

SUBPROTOCOL: Final = "push.v1.json"

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | str | None  # orjson writes no longer integers

Reference = int | str | None
"""The client's own `id` of an operation: an integer of 64 bits or a string."""

_Position = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]
_Duration = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]
_RangeList = list[tuple[_Position, _Position]]


class Operation(msgspec.Struct, tag_field="op", tag=str.lower, forbid_unknown_fields=True, gc=False):
    """What a client sends; the class name in lower case is its `op`."""


class Hello(Operation):
    id: _Id = None
    token: str | None = None
    client: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Subscribe(Operation):
    subscription: str
    id: _Id = None
    window: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


class Unsubscribe(Operation):
    subscription: str
    id: _Id = None


class Ack(Operation):
    subscription: str
    ranges: _RangeList
    id: _Id = None


class Nack(Operation):
    subscription: str
    ranges: _RangeList
    delay_ms: _Duration | None = None
    reason: str = ""
    id: _Id = None


class Extend(Operation):
    subscription: str
    ranges: _RangeList
    lease_ms: Annotated[int, msgspec.Meta(ge=1, le=POSITION_MAX)] | None = None
    id: _Id = None


class Term(Operation):
    subscription: str
    ranges: _RangeList
    reason: str = ""
    id: _Id = None


class _PublishStrict(Operation, tag="publish"):
    messages: list[Message]
    id: _Id = None
    durability: Durability = Durability.FSYNCED


class _PublishLoose(Operation, tag="publish"):
    """The same with messages left undecoded, to find the wrong ones among them."""

    messages: list[msgspec.Raw]
    id: _Id = None
    durability: Durability = Durability.FSYNCED


class Publish(msgspec.Struct, gc=False):
    """A decoded publish; `errors` names the messages that are wrong by themselves (see `payload`)."""

    messages: list[Message]
    id: int | str | None
    durability: Durability
    errors: dict[int, GatewayError]


class _Envelope(msgspec.Struct):
    """Just enough of a wrong operation to answer it."""

    op: object = None
    id: _Id = None


Settling = Ack | Nack | Extend | Term
AnyOperation = Hello | Subscribe | Unsubscribe | Ack | Nack | Extend | Term | Publish
_WireOperation = Hello | Subscribe | Unsubscribe | Ack | Nack | Extend | Term | _PublishStrict
_BY_NAME: Final[dict[str, type[Operation]]] = {
    str(cls.__struct_config__.tag): cls
    for cls in (Hello, Subscribe, Unsubscribe, Ack, Nack, Extend, Term, _PublishStrict)
}
_decoder: msgspec.json.Decoder[_WireOperation] = msgspec.json.Decoder(_WireOperation)
_loose_publish = msgspec.json.Decoder(_PublishLoose)
_envelope = msgspec.json.Decoder(_Envelope)


class BadOperationError(GatewayError):
    """A client object that cannot be carried out. `fatal`: it was no object of this protocol at all."""

    def __init__(self, code: str, message: str, reference: Reference = None, *, fatal: bool = False) -> None:
        super().__init__(code, message)
        self.reference = reference
        self.fatal = fatal


def decode(text: str) -> AnyOperation:
    """One frame of a client to its operation. Raises BadOperationError, with the client's `id` where it can be read."""
    try:
        operation = _decoder.decode(text)
        if isinstance(operation, _PublishStrict):
            return _checked(Publish(operation.messages, operation.id, operation.durability, {}), text)
        return operation
    except msgspec.ValidationError as error:
        problem = error
    except RecursionError as error:
        shallow = strict.without_deep(text, level=2)
        if shallow is None:
            raise _not_json(error) from None
        return decode(shallow)
    except msgspec.DecodeError as error:
        raise _not_json(error) from None
    try:
        envelope = _envelope.decode(text)
    except msgspec.ValidationError as error:
        is_object = text.lstrip().startswith("{")
        raise BadOperationError(
            "bad_request",
            f"the frame must be one JSON object with `op`, and `id` an integer or a string: {payload.explain(error)}",
            fatal=not is_object,
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:  # further on than what was wrong first
        raise _not_json(error) from None
    if not isinstance(envelope.op, str):
        raise BadOperationError("bad_request", f"op must be one of {', '.join(_BY_NAME)}", envelope.id)
    cls = _BY_NAME.get(envelope.op)
    if cls is None:
        raise BadOperationError(
            "unknown_operation",
            f"op {envelope.op[:60]!r} is unknown; use one of {', '.join(_BY_NAME)}",
            envelope.id,
        )
    if cls is _PublishStrict:
        return _decode_loosely(text, envelope.id)
    raise BadOperationError("bad_request", f"{envelope.op}: {payload.explain(problem, cls)}", envelope.id)


def _not_json(error: Exception) -> BadOperationError:
    if isinstance(error, RecursionError):
        return BadOperationError("bad_request", strict.too_deep("the frame").message, fatal=True)
    return BadOperationError("bad_request", f"the frame is not JSON: {error}", fatal=True)


def _decode_loosely(text: str, reference: Reference) -> Publish:
    try:
        loose = _loose_publish.decode(text)
    except msgspec.ValidationError as error:
        raise BadOperationError("bad_request", f"publish: {payload.explain(error, _PublishLoose)}", reference) from None
    messages, errors = payload.decode_each(loose.messages)
    return _checked(Publish(messages, loose.id, loose.durability, errors), text)


def _checked(publish: Publish, text: str) -> Publish:
    """The same, with errors for messages that strict parsers do not take."""
    if not strict.is_strict(text):
        strict.refuse_numbers(publish.messages, publish.errors)
    return publish


def check_ranges(ranges: Ranges) -> Ranges:
    """Ranges of a settling operation as they are; `bad_request` where one runs backwards."""
    for low, high in ranges:
        if low > high:
            raise GatewayError("bad_request", f"ranges: [{low},{high}] runs backwards; write [low,high]")
    return ranges


def to_settle(operation: Settling) -> Settle:
    """A settling operation as the flow's word."""
    ranges = check_ranges(operation.ranges)
    match operation:
        case Ack():
            return Settle(Verb.ACK, ranges)
        case Nack():
            return Settle(Verb.NACK, ranges, delay_ms=operation.delay_ms, reason=operation.reason)
        case Extend():
            return Settle(Verb.EXTEND, ranges, lease_ms=operation.lease_ms)
        case Term():
            return Settle(Verb.TERM, ranges, reason=operation.reason)


# ---------------------------------------------------------------------------------------------- gateway -> client


def encode_ok(reference: Reference, **more: object) -> bytes:
    return orjson.dumps({"op": "ok", "id": reference, **more})


def encode_error(error: GatewayError, reference: Reference = None) -> bytes:
    head: dict[str, object] = {"op": "error"}
    if reference is not None:
        head["id"] = reference
    return orjson.dumps(head | error.as_dict())


def encode_settled(reference: Reference, verb: Verb, settlement: Settlement) -> bytes:
    """`acked` counts what an ack settled; the other verbs answer with their own participle beside it."""
    return encode_ok(reference, **{PARTICIPLES[verb]: settlement.counts[verb]}, unknown=settlement.unknown)


PARTICIPLES: Final = {Verb.ACK: "acked", Verb.NACK: "nacked", Verb.EXTEND: "extended", Verb.TERM: "terminated"}


def encode_published(reference: Reference, batch: Batch) -> bytes:
    """`positions` where all were accepted, new and contiguous; a result for each message otherwise."""
    if batch.error is not None:
        return encode_error(batch.error, reference)
    head = {"op": "published", "id": reference, "durability": batch.durability.value}
    if batch.results is None:
        return orjson.dumps(head | {"positions": [batch.first, batch.first + len(batch.messages) - 1]})
    return orjson.dumps(head | {"results": results(batch.results)})


def results(items: Sequence[Stored | GatewayError | None]) -> list[dict[str, object]]:
    """The `results` of a publish, in input order."""
    out: list[dict[str, object]] = []
    for item in items:
        if isinstance(item, Stored):
            entry: dict[str, object] = {"id": item.id, "position": item.position}
            if item.duplicate:
                entry["duplicate"] = True
            out.append(entry)
        else:
            error = item or GatewayError("internal", "the message has no result; please report this")
            out.append({"error": error.as_dict()})
    return out


_SMALL: Final = 4096
"""Bytes that are copied sooner than they are handed on as a part of their own."""
_ONE: Final = b'{"op":"messages","subscription":"%b","lease_ms":%d,"messages":[%b]}'


def encode_messages(delivery: Delivery) -> bytes | list[bytes | memoryview]:
    """The parts of a delivery frame: stored bytes where they lie, and what stands around them; all of a small one."""
    bodies = delivery.bodies
    if len(bodies) == 1 and len(bodies[0]) < _SMALL and not delivery.attempts:
        return _ONE % (delivery.subscription.encode("ascii"), delivery.lease_ms, bodies[0])
    front = b'{"op":"messages","subscription":"%b","lease_ms":%d,"messages":['
    attempts = b'],"attempts":%b}' % orjson.dumps(delivery.attempts) if delivery.attempts else b"]}"
    return _around(front % (delivery.subscription.encode("ascii"), delivery.lease_ms), delivery.bodies, attempts)


def encode_pulled(lease: str, delivery: Delivery) -> list[bytes | memoryview]:
    """The parts of the answer to a pull (protocol.md §3)."""
    front = b'{"lease":"%b","lease_ms":%d,"messages":[' % (lease.encode("ascii"), delivery.lease_ms)
    return _around(front, delivery.bodies, b'],"attempts":%b}' % orjson.dumps(delivery.attempts))


def _around(front: bytes, bodies: Sequence[bytes | memoryview], end: bytes) -> list[bytes | memoryview]:
    parts: list[bytes | memoryview] = [b","] * (2 * len(bodies) + 1)
    parts[0] = front
    parts[1::2] = bodies
    if bodies:
        parts[-1] = end
    else:
        parts.append(end)
    return parts


def encode_welcome(connection: str, node: str, heartbeat_s: float, limits: dict[str, int]) -> bytes:
    heartbeat: float = int(heartbeat_s) if heartbeat_s == int(heartbeat_s) else heartbeat_s
    return orjson.dumps(
        {"op": "welcome", "connection": connection, "node": node, "heartbeat_s": heartbeat, "limits": limits}
    )


def encode_window(subscription: str, size: int, reason: str) -> bytes:
    """The adaptive window of a subscription has changed, and why; 0: it is paused."""
    return orjson.dumps({"op": "window", "subscription": subscription, "size": size, "reason": reason})


def encode_drain(reconnect_ms: tuple[int, int]) -> bytes:
    return orjson.dumps({"op": "drain", "reconnect_ms": list(reconnect_ms)})


# ------------------------------------------------------------------------------------------------ the SDK's side


class Delivered(msgspec.Struct, gc=False):
    """One message as it is delivered (protocol.md §1). `data` is the producer's JSON, byte for byte."""

    position: int
    id: str
    topic: str
    time_ms: int
    key: str | None = None
    attributes: dict[str, str] = {}
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None
    content_type: str | None = None


class ServerFrame(msgspec.Struct, tag_field="op", tag=str.lower, gc=False):
    """What the gateway sends; members that a later version adds are passed over."""


class Welcome(ServerFrame):
    connection: str
    node: str = ""
    heartbeat_s: float = 25
    limits: dict[str, int] = {}


class Ok(ServerFrame):
    id: int | str | None = None
    acked: int | None = None
    nacked: int | None = None
    extended: int | None = None
    terminated: int | None = None
    unknown: int | None = None


class Error(ServerFrame):
    code: str
    message: str
    temporary: bool
    id: int | str | None = None


class Published(ServerFrame):
    id: int | str | None = None
    durability: str = ""
    positions: tuple[int, int] | None = None
    results: list[dict[str, object]] | None = None


class Messages(ServerFrame):
    subscription: str
    lease_ms: int
    messages: list[Delivered]
    attempts: dict[str, int] = {}


class Window(ServerFrame):
    subscription: str
    size: int
    reason: str = ""


class Drain(ServerFrame):
    reconnect_ms: tuple[int, int] = (500, 20_000)


AnyServerFrame = Welcome | Ok | Error | Published | Messages | Window | Drain
_server_decoder: msgspec.json.Decoder[AnyServerFrame] = msgspec.json.Decoder(AnyServerFrame)


def decode_server(text: str | bytes) -> AnyServerFrame:
    """One frame of the gateway; raises msgspec.DecodeError where it is none."""
    return _server_decoder.decode(text)
