"""Stores built record by record, without the log that writes them in earnest; a listener for what recovery tells."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson

from gateway.store import checkpoint as checkpoints
from gateway.store import record as records
from gateway.store.checkpoint import Checkpoint, Kept
from gateway.store.files import Files
from gateway.store.index import Index
from gateway.store.record import Columns, Kind, Record
from gateway.store.recovery import LOCK_NAME, Recovered, recover, segment_name
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf

EPOCH = "0badf00d"
NOW_MS = 1_795_326_701_000


@attrs.define
class SegmentFile:
    """The bytes of one segment; `offsets` is where each record after the header begins."""

    number: int = 1
    base: int = 1
    data: bytearray = attrs.field(factory=bytearray)
    offsets: list[int] = attrs.field(factory=list)
    end: int = 0

    @classmethod
    def begin(cls, number: int = 1, base: int = 1, **head: Any) -> SegmentFile:
        segment = cls(number, base, bytearray(records.MAGIC), [], base)
        fields = {
            "format": records.FORMAT,
            "version": "0.1.0",
            "epoch": EPOCH,
            "segment": number,
            "last": number,
            "uid": f"{number:016x}",
            "base": base,
            "created_ms": NOW_MS,
            **head,
        }
        segment.data += records.encode(Kind.HEADER, orjson.dumps(fields), position=base, time_ms=NOW_MS)
        return segment

    def add(self, kind: Kind, body: bytes, *, number: int = 0, position: int | None = None, flags: int = 0) -> None:
        self.offsets.append(len(self.data))
        self.data += records.encode(
            kind, body, number=number, position=self.end if position is None else position, time_ms=NOW_MS, flags=flags
        )

    def route(self, number: int, topic: str, subscriptions: Sequence[int]) -> None:
        self.add(Kind.ROUTE, orjson.dumps({"topic": topic, "subscriptions": subscriptions}), number=number)

    def record(
        self, bodies: Sequence[bytes], route: int = 1, columns: Columns | None = None, *, position: int | None = None
    ) -> None:
        """One MESSAGES record."""
        self.offsets.append(len(self.data))
        joined = b",".join(bodies)
        columns = Columns(array("I")) if columns is None else columns
        columns.lengths = array("I", map(len, bodies))
        first = self.end if position is None else position
        self.data += records.encode_messages(columns, joined, route=route, position=first, time_ms=NOW_MS) + joined
        self.end = first + (columns.steps[-1] + 1 if columns.steps else len(bodies))

    def message(self, body: bytes, route: int = 1, *, due_ms: int = 0, expires_ms: int = 0) -> None:
        columns = Columns(array("I"))
        if due_ms or expires_ms:
            columns.due_ms, columns.expires_ms = array("Q", [due_ms]), array("Q", [expires_ms])
        self.record([body], route, columns)

    def messages(self, count: int, route: int = 1, each: int = 2) -> None:
        """`count` messages, `each` to a record."""
        for first in range(0, count, each):
            self.record([body_of(self.end + index) for index in range(min(each, count - first))], route)

    def write(self, directory: Path) -> Path:
        path = directory / segment_name(self.number)
        path.write_bytes(self.data)
        path.chmod(0o600)
        return path


def body_of(position: int) -> bytes:
    """Bodies of different lengths, so that no offset is right by chance."""
    return orjson.dumps({"position": position, "data": "x" * (position % 7)})


def segments(directory: Path, *sizes: int, first: int = 1, base: int = 1, each: int = 2) -> list[SegmentFile]:
    """Segments of so many messages each, of one topic and one subscription, in `directory`."""
    built: list[SegmentFile] = []
    for number, size in enumerate(sizes, first):
        segment = SegmentFile.begin(number, base)
        segment.route(1, "trade.paid", [1])
        segment.messages(size, each=each)
        segment.write(directory)
        built.append(segment)
        base = segment.end
    return built


def stored(directory: Path, *segments: Sequence[str]) -> None:
    """Segments of messages, each by its topic; routes are defined at their first use. Other records stand between."""
    base = 1
    for number, topics in enumerate(segments, 1):
        file = SegmentFile.begin(number, base)
        known: list[str] = []
        for topic in topics:
            if topic not in known:
                known.append(topic)
                file.route(len(known), topic, [])
            file.message(b"{}", known.index(topic) + 1)
            file.add(Kind.SETTLE, b"passed over", number=1)
        file.write(directory)
        base = file.end


def grown(*segments: Sequence[str]) -> list[Segment]:
    """The same without files: segments with nothing but their growing indexes."""
    made: list[Segment] = []
    base = 1
    for number, topics in enumerate(segments, 1):
        segment = Segment(number, Path(), base, NOW_MS, "")
        index = segment.growing
        for topic in topics:
            if (topic, ()) not in index.routes:
                index.routes.append((topic, ()))
            index.add(Columns(array("I", [2])), 0, 2, 0, index.routes.index((topic, ())) + 1, NOW_MS)
        made.append(segment)
        base = segment.end
    return made


def opened(directory: Path) -> tuple[list[Segment], Shelf]:
    """The segments of a directory, to be read from."""
    shelf = Shelf(Files(), 4, 4)
    return recover(Files(), directory, Told(), shelf).segments, shelf


def save_checkpoint(
    directory: Path,
    segment: int,
    offset: int,
    state: dict[str, Any] | None = None,
    *,
    kept: Sequence[SegmentFile] = (),
) -> None:
    names = tuple(Kept(file.number, file.number, file.base, file.end, f"{file.number:016x}") for file in kept)
    checkpoints.save(Files(), directory, Checkpoint(EPOCH, segment, offset, names, state or {"known": True}))


@attrs.define
class Told:
    """What recovery tells the engine, in order."""

    restored: list[dict[str, Any]] = attrs.field(factory=list)
    found: list[tuple[int, int, tuple[int, ...]]] = attrs.field(factory=list)
    controls: list[Record] = attrs.field(factory=list)
    recalled: list[int] = attrs.field(factory=list)
    ids_since_ms: int = 0
    there: list[int] = attrs.field(factory=list)
    """All positions that the segments hold, whether told or not; filled by `recovered`."""

    def restore(self, state: dict[str, Any]) -> None:
        assert not self.found
        assert not self.controls
        self.restored.append(state)

    def messages(self, low: int, high: int, numbers: tuple[int, ...]) -> None:
        self.found.append((low, high, numbers))

    def remember_ids(self, segment: Segment, index: Index) -> None:
        self.recalled += [index.position(ordinal) for ordinal in index.ids_at]

    def control(self, record: Record) -> None:
        self.controls.append(record)

    @property
    def positions(self) -> list[int]:
        return [position for low, high, _ in self.found for position in range(low, high + 1)]


def recovered(directory: Path, files: Files | None = None) -> tuple[Recovered, Told]:
    """Recover `directory`, and let go of its files."""
    told = Told()
    files = files or Files()
    found = recover(files, directory, told, Shelf(files, 4, 4))
    for segment in found.segments:
        told.there += map(segment.index.position, range(len(segment.index)))
        if segment.file >= 0:
            files.close(segment.file)
    return found, told


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Another process holds the store in `directory`; its id."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory / LOCK_NAME)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


_HOLD = """
import sys
from pathlib import Path
from gateway.store.files import Files
print(Files().lock(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def in_memory(number: int, base: int) -> Segment:
    """A segment without a file; what goes by route 1 is that of subscription 1, by route 2 of subscription 2."""
    segment = Segment(number, Path(f"{number}"), base, 0, "")
    segment.growing.routes = [("own.x", (1,)), ("foreign", (2,))]
    return segment


def note(
    segment: Segment, size: int = 100, *, due_ms: int = 0, expires_ms: int = 0, key: int = 0, route: int = 1
) -> int:
    """One more message in a segment without a file, a record of its own of so many bytes; its position."""
    columns = Columns(array("I", [size]))
    if due_ms or expires_ms:
        columns.due_ms, columns.expires_ms = array("Q", [due_ms]), array("Q", [expires_ms])
        segment.due_ms = max(segment.due_ms, due_ms)
        segment.expires_ms = max(segment.expires_ms, expires_ms)
    if key:
        columns.keys = array("Q", [key])
    segment.growing.add(columns, segment.size, segment.size + size, segment.size, route, 0)
    segment.size += size
    return segment.end - 1
