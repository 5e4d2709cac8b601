"""The hashes that stand for texts of any length: in the log, in the index, in the memory of what was published.

BLAKE2b, not keyed: its 128 bits are not found twice by chance, nor, in the time a window lasts, on purpose.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

_NEVER: Final = b"\1" + bytes(7)


def id_hash(topic: str, message_id: str) -> bytes:
    """16 bytes for a producer's id within its topic; the first 8 are of the id alone (`half_id_hash`)."""
    text = message_id.encode()
    half = blake2b(text, digest_size=8).digest()
    return (half if any(half) else _NEVER) + blake2b(topic.encode() + b"\0" + text, digest_size=8).digest()


def half_id_hash(message_id: str) -> int:
    """What a search by id alone looks for; never 0."""
    half = blake2b(message_id.encode(), digest_size=8).digest()
    return int.from_bytes(half if any(half) else _NEVER, "little")


def key_hash(key: str) -> int:
    """64 bits for an ordering key; never 0. Two keys that share it wait for each other, no more."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1
