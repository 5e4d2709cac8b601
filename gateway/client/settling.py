"""What a consumer has said of its messages and the gateway has not been told yet.

Acks of messages that were finished one after the other become ranges, so that a frame of acks costs a few bytes for
hundreds of messages. Only positions that touch are joined: an ack settles *every* message leased to the connection
inside its ranges, and a redelivery on its way may lie in any gap, so a range over a gap could settle a message nobody
has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson

FRAME_RANGES_MAX: Final = 10_000
"""Ranges in one frame: about 300 kB, far below any gateway's frame limit."""

Extra = tuple[tuple[str, int | str], ...]
"""The members of an operation beside its ranges, such as `(("delay_ms", 5000),)`: what may share a frame."""


class Settles:
    """The unsent settling operations of one subscription on one connection."""

    __slots__ = ("_acks", "_others", "acks_waiting", "subscription")

    def __init__(self, subscription: str) -> None:
        self.subscription = subscription
        self.acks_waiting = 0
        """Acks since the last `frames`: what the caller's count bound looks at."""
        self._acks: list[list[int]] = []
        self._others: dict[tuple[str, Extra], list[list[int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._acks or self._others)

    def ack(self, position: int) -> None:
        acks = self._acks
        if acks and acks[-1][1] + 1 == position:
            acks[-1][1] = position
        else:
            acks.append([position, position])
        self.acks_waiting += 1

    def say(self, operation: str, position: int, extra: Extra = ()) -> None:
        """Any other operation: `nack`, `extend` or `term`."""
        ranges = self._others.setdefault((operation, extra), [])
        if ranges and ranges[-1][1] + 1 == position:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])

    def frames(self) -> Iterator[bytes]:
        """Take everything out, as frames. Extensions go first: a settled message has no lease to extend."""
        others, acks = self._others, self._acks
        self._others, self._acks, self.acks_waiting = {}, [], 0
        for (operation, extra), ranges in sorted(others.items(), key=_extensions_first):
            yield from self._encode(operation, ranges, extra)
        if acks:
            yield from self._encode("ack", acks, ())

    def _encode(self, operation: str, ranges: list[list[int]], extra: Extra) -> Iterator[bytes]:
        head = {"op": operation, "subscription": self.subscription}
        for start in range(0, len(ranges), FRAME_RANGES_MAX):
            yield orjson.dumps({**head, "ranges": ranges[start : start + FRAME_RANGES_MAX], **dict(extra)})


def _extensions_first(item: tuple[tuple[str, Extra], list[list[int]]]) -> bool:
    return item[0][0] != "extend"
