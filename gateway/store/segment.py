"""One segment: a file of records, what is always known of it, and its index.

The index of the active segment grows in memory. A sealed segment keeps none: it is mapped from the hint file when it is
asked for, and the shelf lets go of it again (shelf.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.store.index import GrowingIndex, Index


class Segment:
    """Positions [base, end) stand here and nowhere else; a merged segment holds only some of them.

    `number` is in its file's name, `last` that of the last segment that was merged into it, else the same. `uid` tells
    its file from every other that had or will have the name.
    """

    __slots__ = (
        "_end",
        "_index",
        "_open_index",
        "base",
        "count",
        "created_ms",
        "defined",
        "due_ms",
        "expires_ms",
        "file",
        "ids_ms",
        "last",
        "last_ms",
        "merged",
        "moving_from",
        "next_due_ms",
        "number",
        "path",
        "size",
        "uid",
        "witness",
        "written",
    )

    def __init__(
        self,
        number: int,
        path: Path,
        base: int,
        created_ms: int,
        uid: str,
        last: int | None = None,
        *,
        merged: bool = False,
    ) -> None:
        self.number = number
        self.last = number if last is None else last
        self.merged = merged
        self.path = path
        self.moving_from: Path | None = None  # its file is found here until it has been put in its place
        self.base = base
        self.created_ms = created_ms
        self.uid = uid
        self.size = 0
        self.written = 0  # of it, what is in the file
        self.file = -1  # descriptor; opened by the flusher, by recovery, or by the shelf
        self.count = 0  # messages in it, once sealed
        self.last_ms = created_ms  # when its newest message was appended
        self.ids_ms = 0  # when its last message with an id of the producer's was; 0 none
        self.due_ms = 0  # the latest due_ms in it; 0 none is delayed
        self.next_due_ms = -1  # once sealed: when the cursor of what is delayed comes to one here; -1 is not known
        self.expires_ms = 0  # the latest expires_ms in it; 0 none has a TTL
        self.defined: dict[tuple[str, tuple[int, ...]], int] = {}  # routes that its ROUTE records define
        self.witness: tuple[int, int] | None = (
            None  # (subscription, position) last seen to be due; see `engine.keeping`
        )
        self._end = base
        self._index: Index | None = GrowingIndex(base)
        self._open_index: Callable[[Segment], Index] | None = None

    @property
    def sealed(self) -> bool:
        return self._open_index is not None

    @property
    def end(self) -> int:
        """The first position that is not in this segment."""
        if self._open_index is not None or self._index is None:
            return self._end
        return self.base + len(self._index.starts)  # asked several times for each delivery

    @property
    def growing(self) -> GrowingIndex:
        """The index while the segment is active, and after it until its hint file is written."""
        assert isinstance(self._index, GrowingIndex)
        return self._index

    @property
    def index(self) -> Index:
        """The index; mapped from the hint file where the segment is sealed."""
        if self._index is None:
            assert self._open_index is not None
            self._index = self._open_index(self)
        return self._index

    def seal(self, open_index: Callable[[Segment], Index], *, end: int | None = None, count: int | None = None) -> None:
        """Nothing is appended any more. Its index stays until `let_go`, which may come once the hint file is there."""
        self._end = self.end if end is None else end
        self.count = len(self.growing) if count is None else count
        self._open_index = open_index
        self.defined = {}

    def let_go(self) -> None:
        """Forget the mapped index."""
        assert self._open_index is not None
        self._index = None


def consecutive(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending positions as closed ranges."""
    if isinstance(positions, range):
        return [(positions.start, positions.stop - 1)] if positions else []
    ranges: list[tuple[int, int]] = []
    start, last = 0, len(positions) - 1
    while start <= last:
        low = high = positions[start]
        if start < last and positions[start + 1] == low + 1:
            start = _run_end(positions, start)
            high = positions[start]
        ranges.append((low, high))
        start += 1
    return ranges


def _run_end(positions: Sequence[int], start: int) -> int:
    """Where the last stands of the run of consecutive positions that begins at `start`.

    In strides, first longer, then shorter: a frame of a busy log is a few runs of a hundred, and takes 7 us, not 50.
    """
    offset, last, stop, stride = positions[start] - start, len(positions) - 1, start, 1
    while stride:
        at = stop + stride
        if at <= last and positions[at] - at == offset:
            stop, stride = at, stride * 2
        else:
            stride //= 2
    return stop
