"""The checkpoint: what the engine knows besides messages, as of one byte of the log.

Written whole, to a new name, synced, and put in place by rename; its last line is the CRC of the first. A restart
loads it and replays the control records behind its place. The one before is kept, and so are the segments that it
names: where the newest is damaged, a restart begins with that and has more to replay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import attrs
import orjson
from google_crc32c import value as crc32c

from gateway.errors import StoreError
from gateway.store.files import Files

NAME: Final = "checkpoint"
OLD_NAME: Final = "checkpoint.old"
TEMPORARY_NAME: Final = "checkpoint.tmp"
_FORMAT: Final = 2


class Kept(NamedTuple):
    """One segment that a checkpoint needs."""

    number: int
    last: int
    base: int
    end: int
    """As of the checkpoint, where it was the active one."""
    uid: str


@attrs.frozen
class Checkpoint:
    """`state` is the engine's own plain data; all records before (segment, offset) are in it.

    Everything before (segment, offset) was on the disk when the checkpoint was made, and `segments` are needed: what is
    missing of that is damage, never a torn tail. Segments before `segment` that are not among them were let go.
    """

    epoch: str
    segment: int
    offset: int
    segments: tuple[Kept, ...]
    state: dict[str, Any]


def save(files: Files, directory: Path, checkpoint: Checkpoint) -> None:
    """Put `checkpoint` in place, and the one before beside it; durable on return."""
    document = {"format": _FORMAT, **attrs.asdict(checkpoint, recurse=False)}
    document["segments"] = [tuple(kept) for kept in checkpoint.segments]
    line = orjson.dumps(document)
    temporary = directory / TEMPORARY_NAME
    if temporary.exists():
        files.unlink(temporary)
    file = files.create(temporary)
    try:
        files.write(file, line + b"\ncrc32c %08x\n" % crc32c(line))
        files.sync(file)
    finally:
        files.close(file)
    if (directory / NAME).exists():
        files.replace(directory / NAME, directory / OLD_NAME)
    files.replace(temporary, directory / NAME)
    files.sync_directory(directory)


def load(files: Files, path: Path) -> Checkpoint | None:
    """The checkpoint at `path`; None where there is none. StoreError where it is damaged or of another format."""
    try:
        file = files.open(path)
    except FileNotFoundError:
        return None
    try:
        line, _, trailer = files.read(file, 0, files.size(file)).partition(b"\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        files.close(file)
    if trailer != b"crc32c %08x\n" % crc32c(line):
        raise StoreError(f"{path}: is damaged (its CRC does not match)")
    document = orjson.loads(line)
    if document["format"] != _FORMAT:
        raise StoreError(
            f"{path}: has format {document['format']}, this version reads {_FORMAT}; use the one that wrote it"
        )
    segments = tuple(Kept(*kept) for kept in document["segments"])
    return Checkpoint(document["epoch"], document["segment"], document["offset"], segments, document["state"])
