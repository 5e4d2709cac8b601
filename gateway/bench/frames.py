"""WebSocket (RFC 6455) as a client that trusts its server: whole frames in and out, no I/O."""

from __future__ import annotations

import base64
import hashlib
import secrets
import struct
from typing import Final

from gateway.wire.push_v1 import SUBPROTOCOL

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_MASKED: Final = 0x80
_ZERO_KEY: Final = bytes(4)
"""A mask that changes nothing, so nothing has to be computed. It must be random only where a script of the web could
choose the payload (RFC 6455 §10.3)."""
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Frame = tuple[int, bytes]
"""(opcode, payload)"""


class Handshake:
    """The upgrade: `request` goes out, `check` judges what comes back."""

    def __init__(self, netloc: str, path: str, authorization: str = "") -> None:
        """`authorization`: a header line of its own, or nothing."""
        key = base64.b64encode(secrets.token_bytes(16))
        self._accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self.request = (
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Protocol: %b\r\n%b\r\n"
        ) % (
            path.encode("ascii"),
            netloc.encode("ascii"),
            key,
            SUBPROTOCOL.encode("ascii"),
            authorization.encode("ascii"),
        )

    def check(self, head: bytes) -> str | None:
        """Why the answer, as far as its empty line, is none of ours; None where it is."""
        status = head.partition(b"\r\n")[0].decode("latin-1")
        if status.split(" ")[1:2] != ["101"]:
            return f"the handshake was answered {status!r}"
        lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        if headers.get(b"sec-websocket-accept") != self._accept:
            return "the answer to the handshake does not belong to it"
        if headers.get(b"sec-websocket-protocol") != SUBPROTOCOL.encode("ascii"):
            return f"the other side does not speak {SUBPROTOCOL}"
        return None


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole frame of a client."""
    size = len(payload)
    if size < 126:
        head = bytes((_FIN | opcode, _MASKED | size))
    elif size < 65536:
        head = struct.pack(">BBH", _FIN | opcode, _MASKED | 126, size)
    else:
        head = struct.pack(">BBQ", _FIN | opcode, _MASKED | 127, size)
    return b"".join((head, _ZERO_KEY, payload))


class FrameReader:
    """Bytes of a server -> frames. The gateway neither fragments nor compresses, so each frame is a message."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes until it is worth a look

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []  # else a large frame would be copied with every piece of it
            data = b"".join(self._pieces)
        frames: list[Frame] = []
        at, end, needed = 0, len(data), 0
        while end - at >= 2:
            size, body = data[at + 1] & 0x7F, at + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : body], "big")
            if end < body or end - body < size:
                needed = body + size if end >= body else 0
                break
            frames.append((data[at] & 0x0F, data[body : body + size]))
            at = body + size
        self._pieces = [data[at:]] if at < end else []
        self._missing = needed - end
        return frames
