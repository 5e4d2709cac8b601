"""The checkpoint: what the engine knows besides messages, as of one byte of the log.

Written whole, to a new name, synced, and put in place by rename; its last line is the CRC of the first. A restart
loads it and replays the control records behind its place. It is a cache while the first segment still exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import attrs
import orjson
from google_crc32c import value as crc32c

from gateway.errors import StoreError
from gateway.store.files import Files

NAME: Final = "checkpoint"
_FORMAT: Final = 1


@attrs.frozen
class Checkpoint:
    """`state` is the engine's own plain data; all records before (segment, offset) are in it.

    Everything before (segment, offset) was on the disk when the checkpoint was made, and segments from `first` on are
    needed: what is missing of that is damage, never a torn tail.
    """

    epoch: str
    segment: int
    offset: int
    first: int
    state: dict[str, Any]


def save(files: Files, directory: Path, checkpoint: Checkpoint) -> None:
    """Put `checkpoint` in place of the one before; durable on return."""
    line = orjson.dumps({"format": _FORMAT, **attrs.asdict(checkpoint, recurse=False)})
    temporary = directory / f"{NAME}.tmp"
    if temporary.exists():
        files.unlink(temporary)
    file = files.create(temporary)
    try:
        files.write(file, line + b"\ncrc32c %08x\n" % crc32c(line))
        files.sync(file)
    finally:
        files.close(file)
    files.replace(temporary, directory / NAME)
    files.sync_directory(directory)


def load(files: Files, directory: Path) -> Checkpoint | None:
    """The checkpoint in place; None where there is none. StoreError where it is damaged or of a later version."""
    path = directory / NAME
    try:
        file = files.open(path)
    except FileNotFoundError:
        return None
    try:
        line, _, trailer = files.read(file, 0, files.size(file)).partition(b"\n")
    finally:
        files.close(file)
    if trailer != b"crc32c %08x\n" % crc32c(line):
        raise StoreError(f"{path}: is damaged (its CRC does not match)")
    document = orjson.loads(line)
    if document["format"] != _FORMAT:
        raise StoreError(f"{path}: has format {document['format']}, this version reads {_FORMAT}; use a later version")
    return Checkpoint(document["epoch"], document["segment"], document["offset"], document["first"], document["state"])
