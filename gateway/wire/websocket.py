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
    return _front(_FIN_TEXT, len(payload)) + payload


def text_front(size: int) -> bytes:
    """What stands before the `size` bytes of a text frame's payload."""
    return _front(_FIN_TEXT, size)


def binary_frame(payload: bytes) -> bytes:
    """One complete binary frame."""
    return _front(_FIN_BINARY, len(payload)) + payload


def _front(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return struct.pack(">BBH", first, 126, size)
    return struct.pack(">BBQ", first, 127, size)


def close_frame(code: int) -> bytes:
    """A close frame with this code, and no reason."""
    return struct.pack(">BBH", _FIN_CLOSE, 2, code)
