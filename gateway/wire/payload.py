"""Producers' messages: from JSON text to `model.Message`, the payload's bytes untouched.

A message that is wrong by itself is answered by itself: one bad message of a batch does not refuse the others
(protocol.md §3 gives every message its own result). Only text that is no list of messages at all refuses the call.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from gateway.errors import GatewayError
from gateway.model import Durability, Message
from gateway.wire import strict

_messages = msgspec.json.Decoder(list[Message])
_message = msgspec.json.Decoder(Message)
_raws = msgspec.json.Decoder(list[msgspec.Raw])

Decoded = tuple[list[Message], dict[int, GatewayError]]
"""Messages in input order, and the errors of those that are wrong (a placeholder stands in their place)."""

_PLACEHOLDER: Final = Message(topic="")
JSON: Final = "application/json"
JSON_TYPES: Final = (JSON, "text/json")


def decode_text(body: bytes) -> str:
    """UTF-8 bytes to text; `bad_request` names the offset of the first wrong byte."""
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise GatewayError("bad_request", f"the body is not UTF-8: byte {error.start} is wrong; send UTF-8") from None


def decode_array(text: str) -> Decoded:
    """A JSON array of message objects."""
    try:
        messages = _messages.decode(text)
    except msgspec.ValidationError:
        messages, errors = _decode_loosely(text)  # find out which of them
    except RecursionError as error:
        shallow = strict.without_deep(text, level=1)
        if shallow is None:
            raise not_json("the body", error) from None
        messages, errors = _decode_loosely(shallow)
    except msgspec.DecodeError as error:
        raise not_json("the body", error) from None
    else:
        errors = {}
    if not strict.is_strict(text):
        strict.refuse_numbers(messages, errors)
    return messages, errors


def _decode_loosely(text: str) -> Decoded:
    try:
        raws = _raws.decode(text)
    except msgspec.ValidationError:
        raise GatewayError("bad_request", "the body must be a JSON array of message objects") from None
    except (msgspec.DecodeError, RecursionError) as error:  # further on than the first wrong message
        raise not_json("the body", error) from None
    return decode_each(raws)


def split_bodies(bodies: Sequence[bytes | memoryview]) -> list[bytes]:
    """The delivery JSON of each message of a delivery, for those who cannot use it joined as it is stored."""
    return [bytes(body) for body in _raws.decode(b"[%b]" % b",".join(bodies))]


def decode_lines(text: str) -> Decoded:
    """NDJSON: one message object a line; empty lines are passed over."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    messages, errors = decode_each(lines)
    if not strict.is_strict(f"[{','.join(lines)}]"):
        strict.refuse_numbers(messages, errors)
    return messages, errors


def decode_each(items: Sequence[msgspec.Raw | str]) -> Decoded:
    """Messages one by one, each with an error of its own."""
    messages: list[Message] = []
    errors: dict[int, GatewayError] = {}
    for index, item in enumerate(items):
        try:
            messages.append(_message.decode(item))
        except msgspec.ValidationError as error:
            deep = strict.is_mark(item)
            why = strict.too_deep("data").message if deep else explain(error, Message)
            errors[index] = GatewayError("bad_request", f"messages[{index}]: {why}")
        except (msgspec.DecodeError, RecursionError) as error:
            errors[index] = not_json(f"messages[{index}]", error)
        if index in errors:
            messages.append(_PLACEHOLDER)
    return messages, errors


def explain(error: msgspec.ValidationError, struct: type[msgspec.Struct] | None = None) -> str:
    """msgspec's sentence, with the fields that are known where one was not."""
    text = str(error).replace("`$`", "the top").replace("`$.", "`")
    if "Invalid enum value" in text:
        text += f"; use {' or '.join(Durability)}"  # there is no other enum on the wire
    if struct is not None and "unknown field" in text:
        text += f"; known are {', '.join(struct.__struct_fields__)}"
    return text


def not_json(what: str, error: Exception) -> GatewayError:
    """What a decoder says of text that is no JSON, or too deep."""
    if isinstance(error, RecursionError):
        return strict.too_deep(what)
    return GatewayError("bad_request", f"{what} is not JSON: {error}")


def size(message: Message) -> int:
    """Bytes of a message's payload, near enough for a limit where it is base64."""
    if message.data is msgspec.UNSET:
        return len(message.data_base64 or "") * 3 // 4
    return len(memoryview(message.data))


_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def check_json(body: bytes) -> None:
    """Refuse a body that is not one JSON value in UTF-8.

    simdjson makes no objects: 67 us for 64 KiB of small ones, where orjson takes 350. It passes over a byte order mark.
    """
    if strict.is_strict(body) and not body.startswith(_BYTE_ORDER_MARK):
        return
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth" in str(error):
            raise strict.too_deep("the body") from None
        raise GatewayError(
            "bad_request", f"the body is not JSON: {error}; send JSON, or name its media type in Content-Type"
        ) from None


def is_json_type(media_type: str) -> bool:
    """Whether a media type (without parameters, lower case) is JSON."""
    return media_type in JSON_TYPES or media_type.endswith("+json")


_MEDIA_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(\s*;[ -~]*)?")


def is_media_type(text: str) -> bool:
    """Whether `text` is a media type with or without parameters (RFC 9110 §8.3.1), at most 255 characters."""
    return len(text) <= 255 and _MEDIA_TYPE.fullmatch(text) is not None


def check_base64(text: str) -> int:
    """The number of bytes that strict base64 text stands for; `bad_request` where it is none."""
    try:
        size = len(binascii.a2b_base64(text.encode("ascii"), strict_mode=True))
    except (UnicodeEncodeError, binascii.Error):
        size = -1
    if size != len(text) // 4 * 3 - text[-2:].count("=") or len(text) % 4:  # binascii lets padding too many pass
        raise GatewayError("bad_request", "data_base64 is not base64 (RFC 4648 §4, padded, one line)")
    return size


def to_base64(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")
