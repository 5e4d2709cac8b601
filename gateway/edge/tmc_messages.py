"""Messages between TMC and the gateway: `content` is the payload as text, and the rest goes by attributes."""

from __future__ import annotations

import binascii
import gzip
import io
from typing import Final

import msgspec

from gateway.edge.tmc_groups import NICK, PUBLISHER, TARGET, USER_ID
from gateway.errors import GatewayError
from gateway.model import Message
from gateway.wire import cloudevents, payload

TEXT: Final = "text/plain; charset=utf-8"
_INT64_DIGITS: Final = 18
_NO_ATTRIBUTES: Final[dict[str, str]] = {}


class Pushed(msgspec.Struct, gc=False):
    """A stored delivery, as far as TMC shows it."""

    position: int
    topic: str
    time_ms: int
    attributes: dict[str, str] = _NO_ATTRIBUTES
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None

    @property
    def content(self) -> bytes:
        """JSON byte for byte as it was published; other text as it is, and what is no text in base64."""
        if self.data is not msgspec.UNSET:
            return bytes(self.data)
        encoded = (self.data_base64 or "").encode()
        raw = binascii.a2b_base64(encoded)
        try:
            raw.decode()
        except UnicodeDecodeError:
            return encoded
        return raw

    @property
    def publisher(self) -> str:
        return self.attributes.get(PUBLISHER, "")

    @property
    def nick(self) -> str:
        return self.attributes.get(NICK, "")

    @property
    def user_id(self) -> int | None:
        text = self.attributes.get(USER_ID, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= _INT64_DIGITS else None


_pushed = msgspec.json.Decoder(Pushed)


def decode_pushed(body: bytes) -> Pushed:
    """A stored delivery, or the CloudEvent that a subscription made of it: TMC has words of its own for either."""
    try:
        return _pushed.decode(body)
    except msgspec.ValidationError:
        found = cloudevents.decode_event(body)
    data = found.data if found.data_base64 is None else msgspec.UNSET
    return Pushed(found.position, found.topic, found.time_ms, found.attributes, data, found.data_base64)


def to_message(topic: str, content: str, *, publisher: str, target_group: str = "", nick: str = "") -> Message:
    """What an application publishes. JSON stays JSON, byte for byte; anything else is text."""
    message = Message(topic=topic, attributes={PUBLISHER: publisher})
    assert message.attributes is not None
    if target_group:
        message.attributes[TARGET] = target_group
    if nick:
        message.attributes[NICK] = nick
    body = content.encode()
    try:
        payload.check_json(body)
    except GatewayError:
        message.content_type, message.data_base64 = TEXT, payload.to_base64(body)
    else:
        message.data = msgspec.Raw(body)
    return message


def unzip(data: bytes, bytes_max: int) -> str:
    """Content that a client has compressed, as their SDK does with long ones. GatewayError where it cannot be taken."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            found = file.read(bytes_max + 1)
        text = found.decode()
    except (OSError, EOFError, UnicodeDecodeError, gzip.zlib.error):  # type: ignore[attr-defined]
        raise GatewayError("bad_request", "the content is neither text nor gzip of UTF-8 text") from None
    if len(found) > bytes_max:
        raise GatewayError("payload_too_large", f"the content has more than {bytes_max} bytes when unzipped")
    return text
