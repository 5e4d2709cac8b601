"""The bytes of a server's whole frame (RFC 6455 §5.2): never masked, never fragmented, never compressed.

The library under the edge writes control frames and the handshake; data frames are built here, because a header and a
payload that is already bytes cost 3.2 us to send where its `send_message` costs 21 us (design §10).
"""

from __future__ import annotations

import struct
from typing import Final

_FIN_TEXT: Final = 0x81
_FIN_BINARY: Final = 0x82
_FIN_CLOSE: Final = 0x88
PING_FRAME: Final = b"\x89\x00"
"""Any frame of the client answers it: who sends, lives."""


def text_frame(payload: bytes) -> bytes:
    """One complete text frame. `payload` must be UTF-8; what the gateway builds always is."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN_TEXT, size)) + payload
    if size < 65536:
        return struct.pack(">BBH", _FIN_TEXT, 126, size) + payload
    return struct.pack(">BBQ", _FIN_TEXT, 127, size) + payload


def binary_frame(payload: bytes) -> bytes:
    """One complete binary frame."""
    size = len(payload)
    if size < 126:
        return bytes((_FIN_BINARY, size)) + payload
    if size < 65536:
        return struct.pack(">BBH", _FIN_BINARY, 126, size) + payload
    return struct.pack(">BBQ", _FIN_BINARY, 127, size) + payload


def close_frame(code: int) -> bytes:
    """A close frame with this code, and no reason."""
    return struct.pack(">BBH", _FIN_CLOSE, 2, code)
