"""Publishing over HTTP: one message as the body itself, or many in JSON or NDJSON (protocol.md §3)."""

from __future__ import annotations

from functools import partial
from typing import Final, cast
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

from gateway.config import Limits
from gateway.edge.answers import answer_one
from gateway.edge.http import HttpConnection
from gateway.edge.joining import Joining
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.flow.ring import Wait
from gateway.model import Batch, Durability, Message, is_traceparent
from gateway.wire import cloudevents, payload, push_v1, strict
from gateway.wire.http import Response, error_response
from gateway.wire.request import Request

_ATTRIBUTE: Final = b"push-attr-"
_OCTETS: Final = "application/octet-stream"


class Publisher:
    """The two publishing calls."""

    def __init__(self, admit: Admit, limits: Limits, epoch: str, joining: Joining) -> None:
        self._admit = admit
        self._joining = joining
        self._limits = limits
        self._epoch = epoch

    def publish_one(self, request: Request, connection: HttpConnection, topic: bytes) -> Wait | None:
        """POST /v1/topics/{topic}/messages"""
        known = request.notes.get(self)
        if known is not None:  # nothing but JSON, and a head that was seen before
            name, durability = cast("tuple[str, Durability]", known)
            payload.check_json(request.body)
            message = Message(topic=name)
            message.data = msgspec.Raw(request.body)
            if self._joining.add(message, len(request.body), durability, request.principal, connection):
                return None
        else:
            name = unquote_to_bytes(topic).decode("utf-8", "replace")
            message, durability = self._message(request, name)
            if _is_plain(request, message):
                request.notes[self] = name, durability
        done = partial(answer_one, connection, self._epoch)
        batch = Batch([message], durability, len(request.body), done, request.principal)
        batch.origin = connection.remote
        if known is not None:
            batch.shallow = strict.is_shallow(request.body)
        return self._admit.offer(batch)

    def _message(self, request: Request, topic: str) -> tuple[Message, Durability]:
        message = Message(topic=topic)
        is_event = False
        durability = Durability.FSYNCED
        media_type: str | None = None
        for name, raw in request.headers:
            if name == b"content-type":
                media_type = _text(name, raw).strip()
            elif name.startswith(b"push-"):
                if name == b"push-durability":
                    durability = parse_durability(_text(name, raw))
                else:
                    _set_header(message, name, _text(name, raw))
            elif name == b"traceparent":
                _set_traceparent(message, _text(name, raw).strip())
            elif name.startswith(cloudevents.HEADER):
                is_event = True
        if is_event:
            message = _both(cloudevents.decode_headers(request.headers, topic), message)
        elif media_type is not None and cloudevents.is_cloudevents(_essence(media_type)):
            return _both(_structured(request.body, _essence(media_type), topic), message), durability
        if is_event and not request.body:
            cloudevents.set_no_data(message)
        else:
            _set_payload(message, request.body, media_type)
        return message, durability

    def publish_many(self, request: Request, connection: HttpConnection) -> Wait | None:
        """POST /v1/messages"""
        media_type = (request.header(b"content-type") or b"application/json").decode("latin-1")
        essence = media_type.partition(";")[0].strip().lower()
        messages, errors = _decode_many(essence, request.body)
        header = request.header(b"push-durability")
        durability = Durability.FSYNCED if header is None else parse_durability(_text(b"push-durability", header))
        check_batch(messages, self._limits, len(request.body))
        done = partial(_answer_many, connection, self._epoch)
        batch = Batch(messages, durability, len(request.body), done, request.principal)
        batch.origin = connection.remote
        for index, error in errors.items():
            batch.answer(index, error)
        return self._admit.offer(batch)


def _is_plain(request: Request, message: Message) -> bool:
    """Whether the head says no more of its message than that it is JSON, whatever the body is."""
    types = [value for name, value in request.headers if name == b"content-type"]
    essence = _essence(types[0].decode("latin-1")) if len(types) == 1 else ""
    return (
        payload.is_json_type(essence)
        and not cloudevents.is_cloudevents(essence)
        and message.id is None
        and message.key is None
        and message.attributes is None
        and not message.delay_ms
        and not message.ttl_ms
    )


def _decode_many(essence: str, body: bytes) -> payload.Decoded:
    """Messages of a body of this media type."""
    decode = _DECODERS.get(essence)
    if decode is None:
        raise GatewayError(
            "unsupported_media_type",
            f"{essence}: send application/json (an array of messages), application/x-ndjson or {cloudevents.BATCH}",
        )
    return decode(payload.decode_text(body))


_DECODERS: Final = {
    "application/x-ndjson": payload.decode_lines,
    cloudevents.BATCH: cloudevents.decode_batch,
    **dict.fromkeys(payload.JSON_TYPES, payload.decode_array),
}


def check_batch(messages: list[Message], limits: Limits, size: int) -> None:
    """Refuse a batch that is empty or too large; `size` is its bytes as received, never less than its payload."""
    if not messages:
        raise GatewayError("bad_request", "the batch is empty; send at least one message")
    if len(messages) > limits.batch_messages_max:
        raise GatewayError(
            "batch_too_large",
            f"the batch has {len(messages)} messages; at most {limits.batch_messages_max} are allowed "
            f"(limits.batch_messages_max)",
        )
    if size > limits.batch_bytes_max:
        size = sum(payload.size(message) for message in messages)
        if size > limits.batch_bytes_max:
            raise GatewayError(
                "batch_too_large",
                f"the payloads have {size} bytes together; at most {limits.batch_bytes_max} are allowed "
                f"(limits.batch_bytes_max)",
            )


def parse_durability(text: str) -> Durability:
    try:
        return Durability(text.strip())
    except ValueError:
        raise GatewayError("bad_request", f"Push-Durability: {text!r}: use fsynced or written") from None


def _text(name: bytes, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise GatewayError("bad_request", f"header {name.decode('latin-1')}: is not UTF-8") from None


def _set_header(message: Message, name: bytes, value: str) -> None:
    if name == b"push-id":
        message.id = value
    elif name == b"push-key":
        message.key = value
    elif name == b"push-delay-ms":
        message.delay_ms = _milliseconds(name, value)
    elif name == b"push-ttl-ms":
        message.ttl_ms = _milliseconds(name, value)
    elif name.startswith(_ATTRIBUTE) and len(name) > len(_ATTRIBUTE):
        if message.attributes is None:
            message.attributes = {}
        message.attributes[name[len(_ATTRIBUTE) :].decode("latin-1")] = value
    else:
        raise GatewayError(
            "bad_request",
            f"header {name.decode('latin-1')} is unknown; known are Push-Id, Push-Key, Push-Delay-Ms, Push-Ttl-Ms, "
            f"Push-Durability and Push-Attr-<name>",
        )


def _set_traceparent(message: Message, value: str) -> None:
    """The W3C Trace Context of the call goes on with the message, but for one that is not valid: that is dropped."""
    if is_traceparent(value):
        message.attributes = {**(message.attributes or {}), "traceparent": value}


def _milliseconds(name: bytes, value: str) -> int:
    text = value.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise GatewayError("bad_request", f"header {name.decode('latin-1')}: {value!r} is not a whole number >= 0")
    return int(text)


def _set_payload(message: Message, body: bytes, media_type: str | None) -> None:
    """JSON is embedded as it came; anything else travels in base64. Without a media type, what is JSON is taken so."""
    if media_type is None:
        try:
            payload.check_json(body)
        except GatewayError:
            media_type = _OCTETS
        else:
            message.data = msgspec.Raw(body)
            return
    elif payload.is_json_type(_essence(media_type)):
        payload.check_json(body)
        message.data = msgspec.Raw(body)
        return
    message.content_type = media_type
    message.data_base64 = payload.to_base64(body)


def _essence(media_type: str) -> str:
    """Without parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def _structured(body: bytes, essence: str, topic: str) -> Message:
    """The event in the body."""
    if essence != cloudevents.STRUCTURED:
        raise GatewayError(
            "unsupported_media_type",
            f"{essence}: send one CloudEvent as {cloudevents.STRUCTURED}; many, as {cloudevents.BATCH}, go to "
            f"POST /v1/messages",
        )
    return cloudevents.decode_structured(payload.decode_text(body), topic)


def _both(event: Message, sent: Message) -> Message:
    """The event, with what the gateway's own headers say of it."""
    event.delay_ms, event.ttl_ms = sent.delay_ms, sent.ttl_ms
    event.id, event.key = sent.id or event.id, sent.key or event.key
    event.attributes = {**(event.attributes or {}), **(sent.attributes or {})}
    return event


def _answer_many(connection: HttpConnection, epoch: str, batch: Batch) -> None:
    if batch.error is not None:
        connection.respond(error_response(batch.error))
        return
    if batch.results is None:
        results: list[dict[str, object]] = [
            {"id": message.id or f"{epoch}-{position}", "position": position}
            for position, message in enumerate(batch.messages, batch.first)
        ]
    else:
        results = push_v1.results(batch.results)
    connection.respond(Response(200, orjson.dumps({"results": results, "durability": batch.durability.value})))
