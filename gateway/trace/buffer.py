"""Events between the stages and the disk: records in a bounded buffer, with the names and the index of their file.

Synchronous and on the run loop. An event that finds no room is dropped and counted, never waited for.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from gateway.trace import event as events
from gateway.trace.event import Step
from gateway.trace.files import STOPPED, TraceFile, file_path, header
from gateway.trace.index import Index

_NAME_CHARS_MAX = 1024
"""Reasons that clients give are cut to this."""
_ROW_BYTES = 8 * events.ROW
_ROWS_MAX = 256 * events.ROW
"""Numbers of the rows of one record: 8 KiB, for it is what one damaged byte can take away, and what a search reads."""
_ROWS_MS_MAX = 1000


@attrs.define(slots=True)
class Chunk:
    """Records of one file that wait to be written."""

    file: TraceFile
    parts: list[bytes]
    events: int = 0
    losses: int = 0
    """Told in it; to be told again where it is lost itself."""


class Buffer:
    """Invariant: numbers of names that waiting records use are defined by records of the same file before them."""

    def __init__(self, directory: Path, node: str, bytes_max: int, file_bytes: int) -> None:
        self.bytes_max = bytes_max
        self.pending = 0
        self.events = 0
        self.lost = 0
        self.file: TraceFile
        self._directory = directory
        self._node = node
        self._file_bytes = file_bytes
        self._index = Index()
        self._chunk: Chunk
        self._names: dict[str, int] = {}
        self._routes: dict[tuple[str, ...], int] = {}
        self._lost_now = 0  # since the last LOST
        self._lost_since_ms = 0
        self._rows: list[int] = []  # of events that come one behind the other, and will be one record
        self._rows_step = Step.HANDED
        self._rows_ms = 0  # when the first of them was told

    def begin(self, number: int, now_ms: int) -> None:
        """What comes from now on goes to file `number`, which is new."""
        self._index = Index()
        self._names = {}
        self._routes = {}
        self.file = TraceFile(number, file_path(self._directory, number), now_ms, self._index)
        self._chunk = Chunk(self.file, [])
        self._rows = []
        self.pending = 0
        self._push(header(self._node, number, now_ms))

    def room(self, now_ms: int) -> bool:
        """Whether one more event may come; otherwise it is counted as lost."""
        if self.pending < self.bytes_max:
            return True
        self.lose(1, now_ms)
        return False

    def lose(self, count: int, since_ms: int) -> None:
        if not self._lost_now:
            self._lost_since_ms = since_ms
        self._lost_now += count
        self.lost += count

    def add(self, record: bytes, publishing: bool, low: int, high: int) -> bool:
        """One event about positions low..high; whether it is the first that waits."""
        if self._rows:
            self._end_rows()
        self.events += 1
        self._chunk.events += 1
        self._index.note(self.file.size, publishing, low, high)
        self._push(record)
        return self._chunk.events == 1

    def add_row(
        self, step: Step, position: int, now_ms: int, subscription: str, who: str = "", other: int = 0, attempt: int = 0
    ) -> bool:
        """One event about one message; whether it is the first that waits.

        There is one for each delivery and each ack of a message that comes alone. Those of one step that are told one
        behind the other, to many subscriptions as a rule, become one record: half the time and half the bytes.
        """
        if self.pending >= self.bytes_max:
            self.lose(1, now_ms)
            return False
        names, rows = self._names, self._rows
        number = names.get(subscription) or self.name(subscription, now_ms)
        whose = (names.get(who) or self.name(who, now_ms)) if who else 0
        since_ms = now_ms - self._rows_ms
        if rows and (step is not self._rows_step or len(rows) >= _ROWS_MAX or not 0 <= since_ms < _ROWS_MS_MAX):
            self._end_rows()
            rows = self._rows
        if not rows:
            self._rows_step, self._rows_ms, since_ms = step, now_ms, 0
        rows += (position, other, number | whose << 32, attempt | since_ms << 32)
        self.pending += _ROW_BYTES
        self.events += 1
        self._chunk.events += 1
        return self._chunk.events == 1

    def _end_rows(self) -> None:
        """Make a record of the events that came one behind the other."""
        rows, self._rows = self._rows, []
        positions = rows[:: events.ROW]
        low, high = min(positions), max(positions)
        self.pending -= _ROW_BYTES * len(positions)
        self._index.note(self.file.size, False, low, high)
        self._push(events.encode_each(self._rows_step, low, high, self._rows_ms, rows))

    def _push(self, record: bytes) -> None:
        self._chunk.parts.append(record)
        self.pending += len(record)
        self.file.size += len(record)

    def name(self, text: str, now_ms: int) -> int:
        """The number that stands for `text` in this file; 0 for the empty text."""
        number = self._names.get(text)
        if number is None:
            if not text:
                return 0
            number = self._names[text] = self._index.name(self.file.size)
            self._push(events.encode_plain(Step.NAME, _utf8(text[:_NAME_CHARS_MAX]), now_ms, number))
        return number

    def route(self, names: tuple[str, ...], now_ms: int) -> int:
        """The number that stands for these subscriptions together."""
        number = self._routes.get(names)
        if number is None:
            if not names:
                return 0
            body = events.encode_numbers([self.name(name, now_ms) for name in names])
            number = self._routes[names] = self._index.name(self.file.size)
            self._push(events.encode_plain(Step.ROUTE, body, now_ms, number))
        return number

    def take(self, now_ms: int, age_ms_max: int) -> Chunk:
        """All that waits, to be written; a file that is full or old is sealed, and a new one begun."""
        if self._rows:
            self._end_rows()
        self._note_losses(now_ms)
        chunk = self._chunk
        chunk.file.last_ms = now_ms
        if chunk.file.size >= self._file_bytes or now_ms - chunk.file.first_ms > age_ms_max:
            self._seal(now_ms, 0)
            self.begin(chunk.file.number + 1, now_ms)
        else:
            self.pending = 0
            self._chunk = Chunk(chunk.file, [])
        return chunk

    def finish(self, now_ms: int) -> Chunk:
        """The rest, sealed: nothing comes any more."""
        if self._rows:
            self._end_rows()
        self._note_losses(now_ms)
        self._seal(now_ms, STOPPED)
        return self._chunk

    def _note_losses(self, now_ms: int) -> None:
        if self._lost_now:
            self._index.losses.append(self.file.size)
            self._push(events.encode_lost(self._lost_now, self._lost_since_ms, now_ms))
            self._chunk.losses = self._lost_now
            self._lost_now = 0

    def _seal(self, now_ms: int, flags: int) -> None:
        body = self._index.encode(self.file.size)
        self._push(events.encode_plain(Step.INDEX, body, now_ms, flags=flags))

    def abandon(self, chunk: Chunk, now_ms: int) -> None:
        """`chunk` could not be written: it is lost, with all that came behind it, and a new file begins."""
        if chunk.losses:
            self._lost_now += chunk.losses  # since the time that is still noted
        self.lose(chunk.events + self._chunk.events, now_ms)
        self.begin(self.file.number + 1, now_ms)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
