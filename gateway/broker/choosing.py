"""Whose turn among the consumers of a subscription: the one with the largest free share of its window.

A heap by share that is put right only where it is looked at: a consumer whose share has shrunk since stays where it is
until it comes up; one that has been given back a share is filed anew, and its older entry is passed over. So a lease
and its settling cost O(log n) among n consumers. Of equal shares the one filed first goes first: idle consumers take
turns.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.broker.lease import Consumer

_STALE_MAX: Final = 64
"""Entries that may be out of date before the heap is made anew, for any number of takers."""


class Takers:
    """The consumers that accept something now."""

    __slots__ = ("_filings", "_heap", "_takers")

    def __init__(self) -> None:
        self._takers: dict[Consumer, None] = {}
        self._heap: list[tuple[float, int, Consumer]] = []  # minus the free share when it was filed, and which filing
        self._filings = count()

    def __len__(self) -> int:
        return len(self._takers)

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._takers)

    def __contains__(self, consumer: object) -> bool:
        return consumer in self._takers

    def update(self, consumer: Consumer) -> None:
        """Its window, its credit or what it holds has changed."""
        takers = self._takers
        if consumer.credit <= 0:
            if consumer.filed is not None:
                del takers[consumer]
                consumer.filed = None
                if not takers:
                    self._heap.clear()
            return
        if consumer.filed is None:
            for alone in takers if len(takers) == 1 else ():
                self._file(alone, -alone.free_share)  # as long as it was alone, nobody asked what its share is
            takers[consumer] = None
        elif len(takers) == 1:
            return
        rank = -consumer.free_share
        if consumer.filed is None or rank <= consumer.filed[0]:
            self._file(consumer, rank)

    def _file(self, consumer: Consumer, rank: float) -> None:
        filing = next(self._filings)
        consumer.filed = (rank, filing)
        if len(self._heap) >= 2 * len(self._takers) + _STALE_MAX:
            self._heap = [(*known.filed, known) for known in self._takers if known.filed and known is not consumer]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (rank, filing, consumer))

    def best(self) -> Consumer | None:
        """The consumer with the largest free share of its window; None where none accepts anything."""
        heap = self._heap
        if len(self._takers) == 1:
            return next(iter(self._takers))
        while heap:
            rank, filing, consumer = heap[0]
            if consumer.filed != (rank, filing):  # filed anew since, or no taker
                heapq.heappop(heap)
                continue
            now = -consumer.free_share
            if now == rank:
                return consumer
            filing = next(self._filings)
            consumer.filed = (now, filing)
            heapq.heapreplace(heap, (now, filing, consumer))
        return None
