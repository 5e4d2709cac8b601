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
from gateway.store.survey import Sight, header_of, look, read_segment, steadily

_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
_DAMAGED: Final = "a record is damaged; the messages in it are left out"


def export(
    files: Files, directory: Path, lose: Callable[[Lost], None], since: int = 0, pattern: str | None = None
) -> Iterator[bytes]:
    """Lines, by position. `lose` is told of what is damaged and passed over. Blocks. StoreError: there is no store."""
    sight = steadily(directory, lambda: look(files, directory))
    for number in sight.numbers:
        path = directory / segment_name(number)
        try:
            if since and _ends_before(files, directory, sight, number, since):
                continue
            header = header_of(files, sight, path, number)
            data = read_segment(files, path)
        except FileNotFoundError:
            continue  # let go meanwhile: it was due to nobody
        start = header.size if header is not None else 0
        yield from _Lines(path, since, pattern, lose).of(data, start, number == sight.numbers[-1])


def _ends_before(files: Files, directory: Path, sight: Sight, number: int, since: int) -> bool:
    """Whether the next segment tells that nothing from `since` on is in this one."""
    following = next((later for later in sight.numbers if later > number), None)
    if following is None:
        return False
    header = header_of(files, sight, directory / segment_name(following), following)
    return header is not None and header.base <= since


class _Lines:
    """The lines of one segment."""

    def __init__(self, path: Path, since: int, pattern: str | None, lose: Callable[[Lost], None]) -> None:
        self._path = path
        self._since = since
        self._pattern = pattern
        self._lose = lose
        self._wanted: dict[int, bool] = {}  # by route

    def of(self, data: bytes, start: int, last: bool) -> Iterator[bytes]:
        for passage in passages(data, start):
            if isinstance(passage, Gap):
                if not (last and passage.stop == len(data)):  # a torn tail was never answered for
                    self._lose(Lost(str(self._path), passage.start, passage.stop - passage.start, 0, 0, _DAMAGED))
            elif passage.kind == Kind.ROUTE:
                topic: str = orjson.loads(passage.body)["topic"]
                self._wanted[passage.number] = self._pattern is None or matches(self._pattern, topic)
            elif passage.kind == Kind.MESSAGES:
                yield from self._messages(passage)

    def _messages(self, record: Record) -> Iterator[bytes]:
        columns = records.decode_columns(record.body, record.flags)
        steps: Sequence[int] = columns.steps or range(len(columns))
        if record.position + steps[-1] < self._since:
            return
        at = columns.size
        for place, (step, length) in enumerate(zip(steps, columns.lengths, strict=True)):
            route = record.number if columns.routes is None else columns.routes[place]
            if record.position + step >= self._since and self._wanted.get(route, self._pattern is None):
                yield _line(record.body[at : at + length])
            at += length + 1


def _line(message: bytes) -> bytes:
    """A payload stands as it was published, and may have been published on several lines; none is in a string."""
    if b"\n" in message or b"\r" in message:
        message = message.translate(_BREAKS)
    return message + b"\n"
