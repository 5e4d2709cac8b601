"""The delivery JSON of a message: built once, at publish; stored, and joined into frames ever after (design §4)."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from gateway.model import Message


def compose(messages: Sequence[Message], first: int, epoch: str, time_ms: int) -> list[bytes]:
    """The delivery JSON of each message (protocol.md §1), at positions from `first` on.

    The hot path: a message with nothing but topic and data costs one formatting of a template, 0.5 us for 256 bytes.
    The payload's bytes go in as they came.
    """
    bodies: list[bytes] = []
    append = bodies.append
    topic, template = "", b""
    position = first
    for message in messages:
        if message.id is None and not message.key and not message.attributes and message.data_base64 is None:
            if message.topic != topic:
                topic = message.topic
                template = _template(topic, epoch, time_ms)
            append(template % (position, position, message.data))
        else:
            append(_compose_full(message, position, epoch, time_ms))
        position += 1
    return bodies


def own_id(epoch: str, position: int) -> str:
    """The id that the gateway gives where the producer gave none."""
    return f"{epoch}-{position}"


def _template(topic: str, epoch: str, time_ms: int) -> bytes:
    text = f'{{"position":%d,"id":"{epoch}-%d","topic":"{topic}","time_ms":{time_ms},"data":%b}}'
    return text.encode("ascii")


def _compose_full(message: Message, position: int, epoch: str, time_ms: int) -> bytes:
    head: dict[str, object] = {"position": position, "id": message.id or own_id(epoch, position)}
    head["topic"] = message.topic
    if message.key:
        head["key"] = message.key
    head["time_ms"] = time_ms
    if message.attributes:
        head["attributes"] = message.attributes
    if message.data_base64 is None:
        return orjson.dumps(head)[:-1] + b',"data":%b}' % message.data
    head["content_type"] = message.content_type or "application/octet-stream"
    head["data_base64"] = message.data_base64
    return orjson.dumps(head)
