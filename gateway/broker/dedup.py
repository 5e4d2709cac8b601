"""Recognising a publish that was sent before: by (topic, id), for at least the window and at most twice as long.

Two generations, the younger filling, the older read; turning them forgets a whole generation without a scan.

A generation is a hash table with chains, outside the heap. 40 bytes an id, little-endian:

     0  16s  id_hash of topic and id     24  8s  digest of the payload
    16   Q   position                    32   I  the next record of its chain        36  4x

and 2 to 4 for the heads of the chains: 44 bytes, where a dictionary takes 300. The heads are laid out for all ids that
a generation may hold (1 MiB of them for half a million), so nothing is ever moved to grow, and no growth stops the
world; memory that is not written costs nothing. Two ids of one hash would be taken for one: see kit/hashes.py.
"""

from __future__ import annotations

import mmap
from hashlib import blake2b
from struct import Struct
from typing import Final

from gateway.kit.hashes import id_hash
from gateway.kit.table import PAGE_BYTES, Table, anonymous

_RECORD: Final = Struct("<16sQ8sI4x")
_HEAD: Final = Struct("<I")
RECORD_BYTES: Final = _RECORD.size
_EXTENT_RECORDS: Final = 1 << 14
_HEADS_MAX: Final = 1 << 24
"""Chains of a generation: 64 MiB of heads. Beyond twice as many ids the chains become longer, not the heads."""


class _Generation:
    """Ids of one stretch of time."""

    __slots__ = ("_heads", "_mask", "_table")

    def __init__(self, ids_max: int) -> None:
        self._table = Table(RECORD_BYTES, _EXTENT_RECORDS)
        chains = 1 << max(min(ids_max, _HEADS_MAX).bit_length() - 1, 0)
        self._mask = chains - 1
        self._heads: mmap.mmap | None = None  # made with the first id: many gateways never see one

    def __len__(self) -> int:
        return len(self._table)

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        if self._heads is None:
            return None
        (slot,) = _HEAD.unpack_from(self._heads, self._head_of(key))
        while slot:
            mapping, at = self._table.place(slot)
            found, position, digest, slot = _RECORD.unpack_from(mapping, at)
            if found == key:
                return position, digest
        return None

    def add(self, key: bytes, position: int, digest: bytes) -> None:
        """The newest of a key is the one that is found."""
        if self._heads is None:
            size = (self._mask + 1) * _HEAD.size
            self._heads = anonymous(-(-size // PAGE_BYTES) * PAGE_BYTES)
        head = self._head_of(key)
        (first,) = _HEAD.unpack_from(self._heads, head)
        slot = self._table.take()
        mapping, at = self._table.place(slot)
        _RECORD.pack_into(mapping, at, key, position, digest, first)
        _HEAD.pack_into(self._heads, head, slot)

    def _head_of(self, key: bytes) -> int:
        return (hash(key) & self._mask) * _HEAD.size

    def close(self) -> None:
        """Give the memory back at once."""
        self._table.clear()
        if self._heads is not None:
            self._heads.close()
            self._heads = None


class Dedup:
    """What was published under an id of the producer's own. `ids_max` bounds both generations together."""

    __slots__ = ("_older", "_turned_ms", "_younger", "ids_max", "window_ms")

    def __init__(self, window_ms: int, ids_max: int, now_ms: int) -> None:
        self.window_ms = window_ms
        self.ids_max = ids_max
        self._younger = _Generation(ids_max // 2)
        self._older = _Generation(ids_max // 2)
        self._turned_ms = now_ms

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)

    def find(self, topic: str, message_id: str, now_ms: int) -> tuple[int, bytes] | None:
        """(position, digest of the payload) of the first message under this id; None where it is not remembered."""
        return self.find_hashed(id_hash(topic, message_id), now_ms)

    def find_hashed(self, key: bytes, now_ms: int) -> tuple[int, bytes] | None:
        """The same, by `id_hash`."""
        self.turn(now_ms)
        return self._younger.find(key) or self._older.find(key)

    def remember(self, topic: str, message_id: str, position: int, digest: bytes, now_ms: int) -> None:
        self.remember_hashed(id_hash(topic, message_id), position, digest, now_ms)

    def remember_hashed(self, key: bytes, position: int, digest: bytes, time_ms: int) -> None:
        """The same, by `id_hash`: what recovery knows without reading a body. Times must come in their order."""
        self.turn(time_ms)
        self._younger.add(key, position, digest)

    def turn(self, now_ms: int) -> None:
        """Begin a new generation where the window, or the bound, has been filled."""
        passed_ms = now_ms - self._turned_ms
        if passed_ms >= self.window_ms:
            if passed_ms >= 2 * self.window_ms:
                self._younger.close()
            self._begin()
            self._turned_ms = now_ms - passed_ms % max(self.window_ms, 1)  # however late this call comes
        elif len(self._younger) >= self.ids_max // 2:
            self._begin()
            self._turned_ms = now_ms

    def _begin(self) -> None:
        self._older.close()
        self._older, self._younger = self._younger, _Generation(self.ids_max // 2)


def digest(payload: bytes, encoded: str | None) -> bytes:
    """What tells one payload from another: 8 bytes of BLAKE2b over its bytes, in whichever form it came.

    Space around JSON is not counted: it is not found again when a stored message is read back.
    """
    return blake2b(
        payload.strip(b" \t\r\n") if encoded is None else b"\0" + encoded.encode("ascii"), digest_size=8
    ).digest()
