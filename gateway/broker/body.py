"""The delivery JSON of a message: built once, at publish; stored, and joined into frames ever after (design §4)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson

from gateway.model import Message


def compose_plain(topic: str, messages: Sequence[Message], first: int, epoch: str, time_ms: int) -> list[bytes]:
    """The delivery JSON of messages that have a topic, the same, and data, and nothing else.

    The hot path: one formatting of a template each, 0.5 us for 256 bytes. The payload's bytes go in as they came.
    """
    text = f'{{"position":%d,"id":"{epoch}-%d","topic":"{topic}","time_ms":{time_ms},"data":%b}}'
    template = text.encode("ascii")
    return [template % (position, position, message.data) for position, message in enumerate(messages, first)]


def compose(message: Message, position: int, epoch: str, time_ms: int) -> bytes:
    """The delivery JSON of any message (protocol.md §1)."""
    head: dict[str, object] = {"position": position, "id": message.id or own_id(epoch, position)}
    head["topic"] = message.topic
    if message.key:
        head["key"] = message.key
    head["time_ms"] = time_ms
    if message.attributes:
        head["attributes"] = message.attributes
    if message.data is not msgspec.UNSET:
        return orjson.dumps(head)[:-1] + b',"data":%b}' % message.data
    head["content_type"] = message.content_type or "application/octet-stream"
    head["data_base64"] = message.data_base64
    return orjson.dumps(head)


def own_id(epoch: str, position: int) -> str:
    """The id that the gateway gives where the producer gave none."""
    return f"{epoch}-{position}"


def own_position(epoch: str, message_id: str) -> int | None:
    """The position that an id of the gateway's own says; None where it is not one of this epoch."""
    begin, _, digits = message_id.rpartition("-")
    if begin == epoch and digits.isascii() and digits.isdigit() and len(digits) < 17 and digits[0] != "0":
        return int(digits)
    return None
