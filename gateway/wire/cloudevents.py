"""CloudEvents 1.0: events that come in over HTTP (binary, structured, batch), and deliveries that go out as JSON.

In (protocol.md §3): `id` -> id, `type` -> topic unless the path names one, `partitionkey` -> key; the rest become
attributes with the prefix `ce_`; `data` and `data_base64` as they are, byte for byte. Out is the way back, with two
extensions: `topic`, and `position`, which is text, for a CloudEvents integer ends at 2^31. Attributes whose names
CloudEvents cannot have go together, as JSON text, into the extension `pushattributes`.
Sources: CloudEvents 1.0.2, its JSON format, and its HTTP protocol binding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

import msgspec
import orjson

from gateway.errors import GatewayError
from gateway.model import Message
from gateway.wire import payload, strict
from gateway.wire.push_v1 import Delivered, Messages

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PREFIX: Final = "ce_"
HEADER: Final = b"ce-"
"""How the headers of an event in binary mode begin."""
_NAME: Final = re.compile(r"[a-z0-9]+")
_REQUIRED: Final = ("specversion", "id", "source", "type")
_OURS: Final = {"id", "specversion", "data", "partitionkey", "topic", "position", "pushattributes"}
"""Names of an outgoing event that attributes do not set."""
_QUOTED_PAIR: Final = re.compile(r"\\(.)")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder(str | int | bool | None)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_delivered = msgspec.json.Decoder(Delivered)

# -------------------------------------------------------------------------------------------------------------- in


def is_cloudevents(media_type: str) -> bool:
    """Whether a media type (without parameters, lower case) is one of CloudEvents'."""
    return media_type.startswith("application/cloudevents")


def decode_structured(text: str, topic: str) -> Message:
    """One event in the JSON format, for `topic`. `bad_request` names the attribute that is wrong."""
    message = _event(text, topic)
    if not strict.is_strict(text):
        strict.check_numbers(message)
    return message


def decode_batch(text: str) -> payload.Decoded:
    """Many events in the JSON batch format, each for the topic that its `type` names."""
    raws = _split(text)
    messages: list[Message] = []
    errors: dict[int, GatewayError] = {}
    for index, raw in enumerate(raws):
        try:
            messages.append(_event(raw, None))
        except GatewayError as error:
            why = strict.too_deep("data").message if strict.is_mark(raw) else error.message
            errors[index] = GatewayError(error.code, f"events[{index}]: {why}")
            messages.append(Message(topic=""))
    if not strict.is_strict(text):
        strict.refuse_numbers(messages, errors)
    return messages, errors


def _split(text: str) -> list[msgspec.Raw]:
    """The events of a batch, each as it is; a mark in place of those that are too deep."""
    try:
        return _raws.decode(text)
    except msgspec.ValidationError:
        raise GatewayError("bad_request", "the body must be a JSON array of CloudEvents") from None
    except RecursionError as error:
        shallow = strict.without_deep(text, level=1)
        if shallow is None:
            raise payload.not_json("the body", error) from None
        return _split(shallow)
    except msgspec.DecodeError as error:
        raise payload.not_json("the body", error) from None


def decode_headers(headers: Iterable[tuple[bytes, bytes]], topic: str) -> Message:
    """One event in binary mode, for `topic`, without its payload."""
    context: dict[str, str] = {}
    for name, raw in headers:
        if name.startswith(HEADER):
            context[name[len(HEADER) :].decode("latin-1")] = _header_value(raw)
        elif name == b"content-type":
            context["datacontenttype"] = raw.decode("latin-1").strip()
    return _message(context, topic)


def _header_value(raw: bytes) -> str:
    """HTTP binding §3.1.3.2: quotes are taken off, then it is percent-decoded once."""
    text = raw.decode("latin-1").strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise GatewayError(
            "bad_request", f"CloudEvent: header value {text[:60]!r} is not percent-encoded UTF-8"
        ) from None


def _event(text: str | msgspec.Raw, topic: str | None) -> Message:
    try:
        members = _object.decode(text)
    except msgspec.ValidationError:
        raise GatewayError("bad_request", "a CloudEvent must be a JSON object") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise payload.not_json("the CloudEvent", error) from None
    data, base64 = members.pop("data", None), members.pop("data_base64", None)
    context = {name: value for name, raw in members.items() if (value := _attribute(name, raw)) is not None}
    message = _message(context, topic)
    if base64 is not None:
        if data is not None:
            raise GatewayError("bad_request", "CloudEvent: it has both data and data_base64; send one of them")
        message.data_base64 = _attribute("data_base64", base64)
        message.content_type = context.get("datacontenttype")
    elif data is not None:
        message.data = data.copy()  # not the whole batch with it
    else:
        set_no_data(message)
    return message


def set_no_data(message: Message) -> None:
    """An event need not have a payload; here it is an empty one."""
    message.data_base64 = ""


def _attribute(name: str, raw: msgspec.Raw) -> str | None:
    """CloudEvents' types as their text (1.0.2, §Type System); None for null, which is as if it were not there."""
    try:
        value = _value.decode(raw)
    except msgspec.ValidationError:
        raise GatewayError("bad_request", f"CloudEvent: {name}: must be text, a whole number, true or false") from None
    except msgspec.DecodeError as error:
        raise GatewayError("bad_request", f"CloudEvent: {name}: {error}") from None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None else str(value)


def _message(context: dict[str, str], topic: str | None) -> Message:
    """Context attributes to a message without a payload."""
    for name in _REQUIRED:
        if not context.get(name):
            raise GatewayError("bad_request", f"CloudEvent: {name} is missing; it is required")
    if context["specversion"] != "1.0":
        raise GatewayError("bad_request", f"CloudEvent: specversion {context['specversion'][:20]!r}: send 1.0")
    message = Message(topic=context["type"] if topic is None else topic, id=context["id"])
    attributes: dict[str, str] = {}
    for name, value in context.items():
        if not _NAME.fullmatch(name):
            raise GatewayError(
                "bad_request", f"CloudEvent: attribute {name[:60]!r}: a name is lower-case letters and digits"
            )
        if name == "partitionkey":
            message.key = value
        elif name != "id" and (name != "type" or topic is not None):
            attributes[PREFIX + name] = value
    message.attributes = attributes
    return message


# ------------------------------------------------------------------------------------------------------------- out


def encode_event(body: bytes) -> bytes:
    """A delivery JSON as a CloudEvent; the payload's bytes go in as they were published."""
    stored = _delivered.decode(body)
    event, left = _context(stored)
    if left:
        event["pushattributes"] = orjson.dumps(left).decode()
    if stored.data_base64 is None:
        event.setdefault("datacontenttype", "application/json")
        return b'%b,"data":%b}' % (orjson.dumps(event)[:-1], bytes(stored.data))
    if stored.data_base64:
        event.setdefault("datacontenttype", stored.content_type or "application/octet-stream")
        event["data_base64"] = stored.data_base64
    return orjson.dumps(event)


def _context(stored: Delivered) -> tuple[dict[str, str], dict[str, str]]:
    """The attributes of the event, and those of the message that an event cannot have under their names."""
    event = {
        "specversion": "1.0",
        "id": stored.id,
        "source": f"/v1/topics/{stored.topic}",
        "type": stored.topic,
        "time": _rfc3339(stored.time_ms),
        "topic": stored.topic,
        "position": str(stored.position),
    }
    if stored.key:
        event["partitionkey"] = stored.key
    left: dict[str, str] = {}
    for name, value in stored.attributes.items():
        its = name.removeprefix(PREFIX)
        clashes = its == name and (its in event or PREFIX + its in stored.attributes)
        if its in _OURS or clashes or not value or not _NAME.fullmatch(its):
            if name != PREFIX + "specversion":
                left[name] = value
        else:
            event[its] = value
    return event, left


def _rfc3339(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


# -------------------------------------------------------------------------------------------------------- back again


class DeliveredEvent(Delivered, gc=False):
    """A delivery that came as a CloudEvent: `sent` is the event, byte for byte."""

    sent: bytes = b""


class _Events(msgspec.Struct):
    subscription: str
    lease_ms: int
    messages: list[msgspec.Raw]
    attempts: dict[str, int] = {}


_events = msgspec.json.Decoder(_Events)
_STANDARD: Final = frozenset(("source", "type", "subject", "datacontenttype", "dataschema"))
"""Attributes of CloudEvents itself; what else an event has are extensions."""


def decode_events(text: str | bytes) -> Messages:
    """A frame of deliveries that are CloudEvents, as `encode_event` writes them. Raises msgspec.DecodeError."""
    frame = _events.decode(text)
    return Messages(frame.subscription, frame.lease_ms, [*map(decode_event, frame.messages)], frame.attempts)


def decode_event(raw: msgspec.Raw | bytes) -> DeliveredEvent:
    """One such delivery as the message that it was made of, near enough.

    CloudEvents' own attributes become attributes with the prefix `ce_`, where they say more than the message does;
    extensions keep their names. The time is the producer's, where it gave one. Raises msgspec.DecodeError.
    """
    members = _object.decode(raw)
    data, base64 = members.pop("data", None), members.pop("data_base64", None)
    context = {name: msgspec.json.decode(value, type=str) for name, value in members.items()}
    try:
        topic, position = context.pop("topic"), int(context.pop("position"))
        found = DeliveredEvent(position, context.pop("id"), topic, _time_ms(context.pop("time")), sent=bytes(raw))
        attributes: dict[str, str] = msgspec.json.decode(context.pop("pushattributes", "{}"), type=dict[str, str])
    except (KeyError, ValueError) as error:
        raise msgspec.ValidationError(f"a CloudEvent of another make: {error!r}") from None
    found.key = context.pop("partitionkey", None)
    if data is not None:
        found.data = data
    else:
        found.data_base64 = msgspec.json.decode(base64, type=str) if base64 is not None else ""
        found.content_type = context.pop("datacontenttype", None)
    implied = {"specversion": "1.0", "source": f"/v1/topics/{topic}", "type": topic, "datacontenttype": payload.JSON}
    for name, value in context.items():
        if implied.get(name) != value:
            attributes[PREFIX + name if name in _STANDARD else name] = value
    found.attributes = attributes
    return found


def _time_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
