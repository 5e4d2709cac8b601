from __future__ import annotations

from base64 import b64decode

import msgspec
import pytest

from gateway.errors import GatewayError
from gateway.model import Message
from gateway.source.payloads import set_payload


@pytest.mark.parametrize("body", [b'{"a": 1.50}', b"1", b'"x"'])
def test_json_is_embedded_as_it_came(body: bytes) -> None:
    message = Message("a")
    set_payload(message, body, "text/plain")
    assert isinstance(message.data, msgspec.Raw)
    assert (bytes(message.data), message.data_base64, message.content_type) == (body, None, None)


@pytest.mark.parametrize("body", [b"plain", b"", b"\xff\x00"])
def test_anything_else_travels_in_base64_with_its_media_type(body: bytes) -> None:
    message = Message("a")
    set_payload(message, body, "text/plain")
    assert message.data_base64 is not None
    assert (b64decode(message.data_base64), message.content_type) == (body, "text/plain")
    assert message.data is msgspec.UNSET


def test_where_only_json_will_do_anything_else_is_refused() -> None:
    with pytest.raises(GatewayError, match="JSON"):
        set_payload(Message("a"), b"plain", None)
