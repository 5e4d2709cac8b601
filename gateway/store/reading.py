"""Reading segment files whole, or their beginning: what recovery and the tools have in common. Blocks."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import orjson

from gateway import __version__
from gateway.errors import StoreError
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.record import Kind, Record

HEADER_BYTES_MAX: Final = 512
"""A header is shorter, and a disk writes so much as a whole or not at all."""


@attrs.frozen
class Header:
    """The first record of a segment file."""

    epoch: str
    segment: int
    last: int
    uid: str
    base: int
    end: int | None
    """Where it was merged: one past the last position it stands for. None: it was written message by message."""
    created_ms: int
    size: int
    """Bytes up to the first record behind it; 0 where the header is damaged."""
    count: int | None = None
    """Where it was merged: the messages in it."""


def encode_header(header: Header) -> bytes:
    """The first bytes of a segment file; `header.size` is not asked."""
    head: dict[str, object] = {
        "format": records.FORMAT,
        "version": __version__,
        "epoch": header.epoch,
        "segment": header.segment,
        "last": header.last,
        "uid": header.uid,
        "base": header.base,
        "created_ms": header.created_ms,
    }
    if header.end is not None:
        head |= {"end": header.end, "count": header.count}
    record = records.encode(Kind.HEADER, orjson.dumps(head), position=header.base, time_ms=header.created_ms)
    return records.MAGIC + record


@attrs.frozen
class Lost:
    """A damaged part of a segment file, and what it took with it."""

    segment: str
    offset: int
    size: int
    first: int
    """Positions [first, end) were in it, or between its neighbours."""
    end: int
    reason: str


def read_header(files: Files, path: Path) -> Header | None:
    """The header of a segment file; None where it is damaged. StoreError: it is not ours, or of another format."""
    file = files.open(path)
    try:
        data = read_front(files, file, path, HEADER_BYTES_MAX)
    finally:
        files.close(file)
    written = data.strip(b"\0")  # a file may have grown before its data came
    if written and not data.startswith(records.MAGIC[: len(data)]) and not _is_ours(data[: len(records.MAGIC)]):
        raise StoreError(f"{path}: is not a segment of this store (it does not begin with PUSHLOG1); move it away")
    record = records.decode(data, len(records.MAGIC))
    if record is None or record.kind != Kind.HEADER or not data.startswith(records.MAGIC):
        return None
    head = orjson.loads(record.body)
    if head["format"] != records.FORMAT:
        raise StoreError(
            f"{path}: was written by version {head['version']} in format {head['format']}; "
            f"this version reads format {records.FORMAT}: use that version, or a later one"
        )
    return Header(
        head["epoch"],
        head["segment"],
        head["last"],
        head["uid"],
        head["base"],
        head.get("end"),
        head["created_ms"],
        record.end,
        head.get("count"),
    )


def _is_ours(beginning: bytes) -> bool:
    """Whether one half of the magic is right: then the other is damaged."""
    half = len(records.MAGIC) // 2
    return beginning[:half] == records.MAGIC[:half] or beginning[half:] == records.MAGIC[half:]


def read_front(files: Files, file: int, path: Path, size: int) -> bytes:
    """The first `size` bytes of a segment file; StoreError where the disk does not give them."""
    try:
        return files.read(file, 0, size)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise StoreError(f"{path}: cannot be read ({code}); check the disk") from error


def read_all(files: Files, file: int, path: Path) -> bytes:
    """A whole segment file."""
    return read_front(files, file, path, files.size(file))


@attrs.frozen
class Gap:
    """Bytes [start, stop) of a file, in which no record is whole and right."""

    start: int
    stop: int


def passages(data: bytes, offset: int) -> Iterator[Record | Gap]:
    """Every record from `offset` on that is whole and right, and the gaps; one at the end may be a torn tail."""
    while offset < len(data):
        for record in records.scan(data, 0, offset):
            yield record
            offset = record.end
        following = records.resynchronise(data, offset + 1)
        if offset < len(data):
            yield Gap(offset, min(following, len(data)))
        offset = following
