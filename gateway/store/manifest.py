"""What a backup holds: one file, put in place last, that names all others with their size and CRC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway import __version__
from gateway.errors import StoreError
from gateway.store.files import Files

NAME: Final = "backup.json"
FORMAT: Final = 1
PART: Final = ".part"
"""Behind the name of a file that is being written."""
_CHUNK_BYTES: Final = 1 << 20


class Entry(msgspec.Struct, frozen=True):
    """One file of the store: under which name it lies in the backup."""

    name: str
    size: int
    crc32c: int
    uid: str = ""
    """Of a segment, and of a hint file that of its segment."""
    sealed: bool = False
    """It never changes any more."""


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `files`: by the name in the store."""

    format: int
    version: str
    epoch: str
    made_ms: int
    files: dict[str, Entry]


_decode: Final = msgspec.json.Decoder(Manifest).decode


def read_manifest(files: Files, target: Path) -> Manifest | None:
    """The manifest of a backup; None where there is none."""
    path = target / NAME
    try:
        file = files.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = files.read(file, 0, files.size(file))
    finally:
        files.close(file)
    try:
        manifest = _decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{path}: is no manifest of a backup ({error})") from error
    if manifest.format != FORMAT:
        raise StoreError(f"{path}: was written by version {manifest.version} in format {manifest.format}; use that one")
    return manifest


def write_manifest(files: Files, target: Path, epoch: str, made_ms: int, entries: dict[str, Entry]) -> None:
    """Put it in place. What it names is durable before it, and it is on return."""
    manifest = Manifest(FORMAT, __version__, epoch, made_ms, entries)
    files.sync_directory(target)
    put(files, target / NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    files.sync_directory(target)


def put(files: Files, path: Path, data: bytes) -> None:
    """Write a file beside its name, synced, and put it in place."""
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    file = files.create(part)
    try:
        files.write(file, data)
        files.sync(file)
    finally:
        files.close(file)
    files.replace(part, path)


def chunks(files: Files, file: int, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file."""
    for offset in range(0, size, _CHUNK_BYTES):
        yield files.read(file, offset, min(_CHUNK_BYTES, size - offset))
