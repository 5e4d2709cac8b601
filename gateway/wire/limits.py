"""What one message may hold: asked where it comes in, and again where a stage has made it anew."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.model import Message
from gateway.wire import payload, strict

PLAIN_BYTES_MAX: Final = 1800
"""A shorter payload cannot be nested too deep."""


def check_payload(message: Message, limits: Limits) -> None:
    """Either `data` or `data_base64`, not too large, not too deep."""
    data = message.data
    if (data is msgspec.UNSET) == (message.data_base64 is None):
        raise GatewayError("bad_request", "a message carries either data (JSON) or data_base64 (anything else)")
    if message.data_base64 is not None:
        size = payload.check_base64(message.data_base64)
        if message.content_type is not None and not payload.is_media_type(message.content_type):
            raise GatewayError("bad_request", "content_type: must be a media type, such as text/plain")
    else:
        assert data is not msgspec.UNSET
        size = len(memoryview(data))
        if size > PLAIN_BYTES_MAX:
            strict.check_depth(data)
        if message.content_type is not None:
            raise GatewayError("bad_request", "content_type: goes with data_base64; data is always JSON")
    if size > limits.payload_bytes_max:
        raise GatewayError(
            "payload_too_large",
            f"the payload has {size} bytes; at most {limits.payload_bytes_max} are allowed (limits.payload_bytes_max)",
        )


def is_shallow(data: msgspec.Raw) -> bool:
    """Whether `check_payload` has nothing against how deep it is nested."""
    return len(memoryview(data)) <= PLAIN_BYTES_MAX or strict.is_shallow(bytes(data))


def check_attributes(message: Message, limits: Limits) -> None:
    """Names and values together not too large, and no name empty."""
    if not message.attributes:
        return
    size = sum(len(name.encode()) + len(value.encode()) for name, value in message.attributes.items())
    if size > limits.attributes_bytes_max:
        raise GatewayError(
            "attributes_too_large",
            f"the attributes have {size} bytes; at most {limits.attributes_bytes_max} are allowed "
            f"(limits.attributes_bytes_max)",
        )
    if "" in message.attributes:
        raise GatewayError("bad_request", "attributes: a name is empty")
