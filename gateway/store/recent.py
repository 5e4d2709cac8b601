"""What was appended last, kept in memory under a byte cap; what is older is read from the segments.

A record of messages is kept as the bytes that went into the file, found by the position of its first message.
"""

from __future__ import annotations

from typing import Final

_OVERHEAD_BYTES: Final = 170  # a bytes object's header, and its place in the dictionary


class Recent:
    """The delivery JSON of the last records, oldest first."""

    __slots__ = ("_joined", "bytes_max", "hits", "misses", "size")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        self.hits = 0
        self.misses = 0
        self._joined: dict[int, bytes] = {}

    def add(self, first: int, joined: bytes) -> None:
        """The record whose first message has position `first`; the oldest go where the cap is passed."""
        self._joined[first] = joined
        self.size += len(joined) + _OVERHEAD_BYTES
        while self.size > self.bytes_max:
            oldest = next(iter(self._joined))
            self.size -= len(self._joined.pop(oldest)) + _OVERHEAD_BYTES

    def get(self, first: int) -> bytes | None:
        """The record's delivery JSON, joined by commas; None where it is not here."""
        return self._joined.get(first)

    def clear(self) -> None:
        self._joined.clear()
        self.size = 0
