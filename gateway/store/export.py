"""The messages of a store as JSON lines, each as it is delivered; a segment at a time. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from gateway.kit.topics import matches
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.reading import Gap, Lost, passages
from gateway.store.record import Kind, Record
from gateway.store.recovery import segment_name
from gateway.store.survey import Sight, header_of, look, read_steadily, steadily

Line = tuple[int, bytes]
"""A message's position, and its line."""
_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
_DAMAGED: Final = "a record is damaged; the messages in it are left out"


def export(
    files: Files, directory: Path, lose: Callable[[Lost], None], since: int = 0, pattern: str | None = None
) -> Iterator[bytes]:
    """Lines, by position. `lose` is told of what is damaged and passed over. Blocks. StoreError: there is no store."""
    run = _Run(files, directory, lose, since, pattern)
    while True:
        sight = steadily(directory, lambda: look(files, directory))
        try:
            for number in sight.numbers:
                yield from run.segment(sight, number)
            return
        except FileNotFoundError:
            continue  # let go meanwhile, or merged into one before: that has what is left of it


class _Run:
    """One pass. It may come by a segment again that has been merged since: `since` and `_done` are how far it is."""

    def __init__(
        self, files: Files, directory: Path, lose: Callable[[Lost], None], since: int, pattern: str | None
    ) -> None:
        self._files = files
        self._directory = directory
        self._lose = lose
        self._since = since
        self._pattern = pattern
        self._done = 0  # segments up to this number

    def segment(self, sight: Sight, number: int) -> Iterator[bytes]:
        path = self._directory / segment_name(number)
        header = header_of(self._files, sight, path, number)
        last = number if header is None else header.last
        if last <= self._done or self._ends_before(sight, last):
            return
        header, data = read_steadily(self._files, sight, path, number)
        lines = _Lines(path, self._since, self._pattern, self._lose)
        for position, line in lines.of(data, header.size if header else 0, number == sight.numbers[-1]):
            self._since = position + 1
            yield line
        self._done = number if header is None else header.last

    def _ends_before(self, sight: Sight, last: int) -> bool:
        """Whether the segment behind `last` tells that nothing from `since` on is before it."""
        following = next((later for later in sight.numbers if later > last), None)
        if not self._since or following is None:
            return False
        path = self._directory / segment_name(following)
        header = header_of(self._files, sight, path, following)
        return header is not None and header.base <= self._since


class _Lines:
    """The lines of one segment."""

    def __init__(self, path: Path, since: int, pattern: str | None, lose: Callable[[Lost], None]) -> None:
        self._path = path
        self._since = since
        self._pattern = pattern
        self._lose = lose
        self._wanted: dict[int, bool] = {}  # by route

    def of(self, data: bytes, start: int, last: bool) -> Iterator[Line]:
        for passage in passages(data, start):
            if isinstance(passage, Gap):
                if not (last and passage.stop == len(data)):  # a torn tail was never answered for
                    self._lose(Lost(str(self._path), passage.start, passage.stop - passage.start, 0, 0, _DAMAGED))
            elif passage.kind == Kind.ROUTE:
                topic: str = orjson.loads(passage.body)["topic"]
                self._wanted[passage.number] = self._pattern is None or matches(self._pattern, topic)
            elif passage.kind == Kind.MESSAGES:
                yield from self._messages(passage)

    def _messages(self, record: Record) -> Iterator[Line]:
        columns = records.decode_columns(record.body, record.flags)
        steps: Sequence[int] = columns.steps or range(len(columns))
        if record.position + steps[-1] < self._since:
            return
        at = columns.size
        for place, (step, length) in enumerate(zip(steps, columns.lengths, strict=True)):
            route = record.number if columns.routes is None else columns.routes[place]
            if record.position + step >= self._since and self._wanted.get(route, self._pattern is None):
                yield record.position + step, _line(record.body[at : at + length])
            at += length + 1


def _line(message: bytes) -> bytes:
    """A payload stands as it was published, and may have been published on several lines; none is in a string."""
    if b"\n" in message or b"\r" in message:
        message = message.translate(_BREAKS)
    return message + b"\n"
