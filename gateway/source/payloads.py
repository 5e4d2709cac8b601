"""A payload that comes without a media type."""

from __future__ import annotations

import msgspec

from gateway.errors import GatewayError
from gateway.model import Message
from gateway.wire import payload


def set_payload(message: Message, body: bytes, otherwise: str | None) -> None:
    """JSON is embedded as it came; anything else travels in base64, with the media type `otherwise`.

    None: anything else is `bad_request`.
    """
    try:
        payload.check_json(body)
    except GatewayError:
        if otherwise is None:
            raise
        message.content_type = otherwise
        message.data_base64 = payload.to_base64(body)
    else:
        message.data = msgspec.Raw(body)
