"""Recognising a publish that was sent before: by (topic, id), for at least the window and at most twice as long.

Two generations, the younger filling, the older read; turning them forgets a whole generation without a scan.
"""

from __future__ import annotations

from hashlib import blake2b

from gateway.kit.hashes import id_hash


class Dedup:
    """What was published under an id of the producer's own. `ids_max` bounds both generations together."""

    __slots__ = ("_older", "_turned_ms", "_younger", "ids_max", "window_ms")

    def __init__(self, window_ms: int, ids_max: int, now_ms: int) -> None:
        self.window_ms = window_ms
        self.ids_max = ids_max
        self._younger: dict[bytes, tuple[int, bytes]] = {}
        self._older: dict[bytes, tuple[int, bytes]] = {}
        self._turned_ms = now_ms

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)

    def find(self, topic: str, message_id: str, now_ms: int) -> tuple[int, bytes] | None:
        """(position, digest of the payload) of the first message under this id; None where it is not remembered."""
        self.turn(now_ms)
        key = id_hash(topic, message_id)
        return self._younger.get(key) or self._older.get(key)

    def remember(self, topic: str, message_id: str, position: int, digest: bytes, now_ms: int) -> None:
        self.remember_hashed(id_hash(topic, message_id), position, digest, now_ms)

    def remember_hashed(self, hashed: bytes, position: int, digest: bytes, now_ms: int) -> None:
        """The same under the id's hash, as it stands in the log."""
        self.turn(now_ms)
        self._younger[hashed] = (position, digest)

    def turn(self, now_ms: int) -> None:
        """Begin a new generation where the window, or the bound, has been filled."""
        passed_ms = now_ms - self._turned_ms
        if passed_ms >= self.window_ms:
            self._older, self._younger = ({} if passed_ms >= 2 * self.window_ms else self._younger), {}
            self._turned_ms = now_ms - passed_ms % max(self.window_ms, 1)  # however late this call comes
        elif len(self._younger) >= self.ids_max // 2:
            self._older, self._younger = self._younger, {}
            self._turned_ms = now_ms


def digest(payload: bytes, encoded: str | None) -> bytes:
    """What tells one payload from another: 8 bytes of BLAKE2b over its bytes, in whichever form it came.

    Space around JSON is not counted: it is not found again when a stored message is read back.
    """
    return blake2b(
        payload.strip(b" \t\r\n") if encoded is None else b"\0" + encoded.encode("ascii"), digest_size=8
    ).digest()
