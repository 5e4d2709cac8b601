"""Wire protocol version 2 of Taobao Message Channel (protocol.md §6): one message a binary WebSocket frame.

    byte version = 2 | byte type | headers ... | int16 0                               all little-endian

    int16 0  end of headers
    int16 1  custom          counted-string key | byte format | value
    int16 2  status code     int32; some clients write int16
    int16 3  status phrase   counted string
    int16 4  flag            int32; an answer carries the flag of what it answers
    int16 5  token           counted string

A counted string is int32 bytes and UTF-8. Values: 0 void, 1 counted string, 2 byte, 3 int16, 4 int32, 5 int64, 6 date
(int64 ms), 7 bytes (int32 length). Headers come in any order; a custom that comes twice counts as it came last.

Public clients expect more than the page says: they know an answer to a CONNECT by its flag, and take a message for one
of theirs only where it carries the token that they were given; so every message of ours has it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Final

import attrs

from gateway.errors import GatewayError

VERSION: Final = 2
KIND: Final = "__kind"
_END, _CUSTOM, _STATUS, _PHRASE, _FLAG, _TOKEN = range(6)


class MessageType(enum.IntEnum):
    """What a message is to the other side."""

    CONNECT = 0
    CONNECTACK = 1
    SEND = 2
    SENDACK = 3


class Kind(enum.IntEnum):
    """What a SEND or SENDACK is about: its custom `__kind`."""

    PULL_REQUEST = 1
    CONFIRM = 2
    DATA = 3
    FAILED = 20


class Format(enum.IntEnum):
    """How a custom value is written."""

    VOID = 0
    STRING = 1
    BYTE = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    DATE = 6
    BYTES = 7


_INTEGERS: Final = {
    Format.BYTE: struct.Struct("<B"),
    Format.INT16: struct.Struct("<h"),
    Format.INT32: struct.Struct("<i"),
    Format.INT64: struct.Struct("<q"),
    Format.DATE: struct.Struct("<q"),
}
_int16, _int32 = struct.Struct("<h"), struct.Struct("<i")


@attrs.frozen
class Value:
    """One custom value: text, an integer, bytes, or None, and how it is written."""

    format: Format
    content: str | int | bytes | None = None


@attrs.frozen(kw_only=True)
class Frame:
    """One message. What is None is not written."""

    type: MessageType
    token: str | None = None
    flag: int | None = None
    status: int | None = None
    phrase: str | None = None
    customs: dict[str, Value] = attrs.field(factory=dict)

    @property
    def kind(self) -> int | None:
        """Its `__kind`, whatever width it was written in."""
        return self.integer(KIND)

    def integer(self, key: str) -> int | None:
        """A custom as an integer; None where there is none. Clients write the width that the value fits, or text."""
        value = self.customs.get(key)
        if value is None or value.content is None:
            return None
        if isinstance(value.content, str):
            digits = value.content.removeprefix("-")
            if digits.isascii() and digits.isdigit() and len(digits) <= 19:
                return int(value.content)
        elif isinstance(value.content, int):
            return value.content
        raise bad_frame(f"the custom {key!r} is not an integer")

    def text(self, key: str) -> str:
        """A custom as text; empty where there is none. A number is its digits."""
        value = self.customs.get(key)
        if value is None or value.content is None:
            return ""
        if isinstance(value.content, bytes):
            raise bad_frame(f"the custom {key!r} is not text")
        return str(value.content)


def bad_frame(why: str) -> GatewayError:
    """What is answered to bytes that are no message of this protocol."""
    return GatewayError("bad_request", f"not a message of TMC wire protocol 2: {why}")


# --------------------------------------------------------------------------------------------------------- decoding


class _Reader:
    """Takes one thing after the other off the bytes, or says where there was none."""

    def __init__(self, data: bytes, status: struct.Struct) -> None:
        self.data = data
        self.at = 2
        self.status = status

    def number(self, what: str, layout: struct.Struct) -> int:
        if self.at + layout.size > len(self.data):
            raise bad_frame(f"it ends at byte {len(self.data)}, within {what}")
        number: int = layout.unpack_from(self.data, self.at)[0]
        self.at += layout.size
        return number

    def counted(self, what: str) -> bytes:
        began = self.at
        size = self.number(f"the length of {what}", _int32)
        if not 0 <= size <= len(self.data) - self.at:
            raise bad_frame(f"{what} at byte {began} would have {size} bytes; {len(self.data) - self.at} follow")
        found = self.data[self.at : self.at + size]
        self.at += size
        return found

    def text(self, what: str) -> str:
        began = self.at
        try:
            return str(self.counted(what), "utf-8")
        except UnicodeDecodeError:
            raise bad_frame(f"{what} at byte {began} is not UTF-8") from None

    def value(self, key: str) -> Value:
        began = self.at
        number = self.number(f"the format of {key!r}", _INTEGERS[Format.BYTE])
        try:
            found = Format(number)
        except ValueError:
            raise bad_frame(f"the custom {key!r} at byte {began} has the unknown format {number}") from None
        if found is Format.VOID:
            return Value(found)
        if found is Format.STRING:
            return Value(found, self.text(f"the custom {key!r}"))
        if found is Format.BYTES:
            return Value(found, self.counted(f"the custom {key!r}"))
        return Value(found, self.number(f"the custom {key!r}", _INTEGERS[found]))


def decode(data: bytes) -> Frame:
    """One binary frame as a message. Raises `bad_request`, which names the byte."""
    if len(data) < 2:
        raise bad_frame(f"it has {len(data)} bytes")
    if data[0] != VERSION:
        raise bad_frame(f"the version is {data[0]}; {VERSION} is spoken here")
    try:
        MessageType(data[1])
    except ValueError:
        raise bad_frame(f"the message type {data[1]} is unknown") from None
    reader = _Reader(data, _int32)
    found: dict[int, object] = {}
    try:
        return _decode(reader, found)
    except GatewayError:
        if _STATUS not in found:
            raise
        return _decode(_Reader(data, _int16), {})  # written in the other width, or wrong in this one too


def _decode(reader: _Reader, found: dict[int, object]) -> Frame:
    customs: dict[str, Value] = {}
    while (header := reader.number("a header type", _int16)) != _END:
        if header == _CUSTOM:
            key = reader.text("the key of a custom")
            customs[key] = reader.value(key)
        else:
            found[header] = None
            found[header] = _header(reader, header)
    if reader.at != len(reader.data):
        raise bad_frame(f"{len(reader.data) - reader.at} bytes stand behind the end of headers")
    return Frame(
        type=MessageType(reader.data[1]),
        token=found.get(_TOKEN),  # type: ignore[arg-type]  # `_header` gives each its type
        flag=found.get(_FLAG),  # type: ignore[arg-type]
        status=found.get(_STATUS),  # type: ignore[arg-type]
        phrase=found.get(_PHRASE),  # type: ignore[arg-type]
        customs=customs,
    )


def _header(reader: _Reader, header: int) -> str | int:
    if header == _STATUS:
        return reader.number("the status code", reader.status)
    if header == _PHRASE:
        return reader.text("the status phrase")
    if header == _FLAG:
        return reader.number("the flag", _int32)
    if header == _TOKEN:
        return reader.text("the token")
    raise bad_frame(f"the header type {header} at byte {reader.at - 2} is unknown")


# --------------------------------------------------------------------------------------------------------- encoding


def encode(frame: Frame) -> bytes:
    """A message as one binary frame's payload. OverflowError where a number does not fit its width."""
    parts = [bytes((VERSION, frame.type))]
    if frame.status is not None:
        parts.append(_int16.pack(_STATUS) + _pack(_int32, frame.status))
    if frame.phrase is not None:
        parts.append(_int16.pack(_PHRASE) + _counted(frame.phrase.encode()))
    if frame.flag is not None:
        parts.append(_int16.pack(_FLAG) + _pack(_int32, frame.flag))
    if frame.token is not None:
        parts.append(_int16.pack(_TOKEN) + _counted(frame.token.encode()))
    parts += (custom(key, value) for key, value in frame.customs.items())
    parts.append(_int16.pack(_END))
    return b"".join(parts)


def custom(key: str, value: Value) -> bytes:
    """One custom header."""
    head = _int16.pack(_CUSTOM) + _counted(key.encode()) + bytes((value.format,))
    content = value.content
    if value.format is Format.VOID:
        return head
    if value.format is Format.STRING:
        assert isinstance(content, str)
        return head + _counted(content.encode())
    if value.format is Format.BYTES:
        assert isinstance(content, bytes)
        return head + _counted(content)
    assert isinstance(content, int)
    return head + _pack(_INTEGERS[value.format], content)


def _counted(data: bytes) -> bytes:
    return _int32.pack(len(data)) + data


def _pack(layout: struct.Struct, number: int) -> bytes:
    try:
        return layout.pack(number)
    except struct.error:
        raise OverflowError(f"{number} does not fit {layout.size} bytes") from None


def text(content: str) -> Value:
    return Value(Format.STRING, content)


def _head(key: bytes, format_: Format) -> bytes:
    return _int16.pack(_CUSTOM) + _counted(key) + bytes((format_,))


_ID, _TIME = _head(b"id", Format.INT64), _head(b"time", Format.DATE)
_TOPIC, _CONTENT = _head(b"topic", Format.STRING), _head(b"content", Format.STRING)
_END_BYTES: Final = _int16.pack(_END)
_int64 = struct.Struct("<q")


def push_template(token: str) -> Callable[[int, bytes, int, bytes, bytes], bytes]:
    """How pushes to one client are built: (id, topic, time in ms, content, more customs) -> the frame's payload.

    What they have in common is encoded once: 1 us a push, where `encode` takes 8.
    """
    begin = encode(
        Frame(type=MessageType.SEND, token=token, customs={KIND: Value(Format.BYTE, Kind.DATA)})
    ).removesuffix(_END_BYTES)
    first, topic_head, content_head = begin + _ID, _TOPIC, _CONTENT
    int64, int32 = _int64.pack, _int32.pack

    def build(position: int, topic: bytes, time_ms: int, content: bytes, more: bytes) -> bytes:
        return b"".join(
            (
                first,
                int64(position),
                topic_head,
                int32(len(topic)),
                topic,
                content_head,
                int32(len(content)),
                content,
                _TIME,
                int64(time_ms),
                more,
                _END_BYTES,
            )
        )

    return build
