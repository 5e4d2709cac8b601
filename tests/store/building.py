"""Stores built byte by byte, without the log that writes them in earnest, and a listener for what recovery tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson

from gateway.store import checkpoint as checkpoints
from gateway.store import record as records
from gateway.store.checkpoint import Checkpoint
from gateway.store.files import Files
from gateway.store.record import Kind, Record
from gateway.store.recovery import LOCK_NAME, Recovered, recover, segment_name

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

    def message(self, body: bytes, route: int = 1, *, due_ms: int = 0, expires_ms: int = 0) -> None:
        if due_ms or expires_ms:
            self.add(Kind.MESSAGE, records.with_times(body, due_ms, expires_ms), number=route, flags=records.Flag.TIMED)
        else:
            self.add(Kind.MESSAGE, body, number=route)
        self.end += 1

    def messages(self, count: int, route: int = 1) -> None:
        for _ in range(count):
            self.message(body_of(self.end), route)

    def write(self, directory: Path) -> Path:
        path = directory / segment_name(self.number)
        path.write_bytes(self.data)
        return path


def body_of(position: int) -> bytes:
    """Bodies of different lengths, so that no offset is right by chance."""
    return orjson.dumps({"position": position, "data": "x" * (position % 7)})


def segments(directory: Path, *sizes: int, first: int = 1, base: int = 1) -> list[SegmentFile]:
    """Segments of so many messages each, of one topic and one subscription, in `directory`."""
    built: list[SegmentFile] = []
    for number, size in enumerate(sizes, first):
        segment = SegmentFile.begin(number, base)
        segment.route(1, "trade.paid", [1])
        segment.messages(size)
        segment.write(directory)
        built.append(segment)
        base = segment.end
    return built


def save_checkpoint(
    directory: Path, segment: int, offset: int, state: dict[str, Any] | None = None, *, first: int = 1
) -> None:
    checkpoints.save(Files(), directory, Checkpoint(EPOCH, segment, offset, first, state or {"known": True}))


@attrs.define
class Told:
    """What recovery tells the engine, in order."""

    restored: list[dict[str, Any]] = attrs.field(factory=list)
    messages: list[tuple[int, str, tuple[int, ...], bool]] = attrs.field(factory=list)
    controls: list[Record] = attrs.field(factory=list)

    def restore(self, state: dict[str, Any]) -> None:
        assert not self.messages
        assert not self.controls
        self.restored.append(state)

    def message(self, record: Record, topic: str, numbers: tuple[int, ...], *, new: bool) -> None:
        self.messages.append((record.position, topic, numbers, new))

    def control(self, record: Record) -> None:
        self.controls.append(record)

    @property
    def positions(self) -> list[int]:
        return [position for position, *_ in self.messages]


def recovered(directory: Path, files: Files | None = None) -> tuple[Recovered, Told]:
    """Recover `directory`, and let go of its files."""
    told = Told()
    files = files or Files()
    found = recover(files, directory, told)
    for segment in found.segments:
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
