"""How far a file has been published, kept over restarts in a small file of its own."""

from __future__ import annotations

from pathlib import Path

import attrs
import msgspec

from gateway.source.base import SourceError
from gateway.store import small
from gateway.store.files import Files


@attrs.frozen
class Place:
    """Behind the last line of a file that is published.

    `inode` names the file while it is renamed; `generation` grows whenever another file is begun, or the same one was
    cut and begins anew, so that (generation, inode, offset) never means two lines. `tail` is the end of what was read:
    a file that does not have it in front of `offset` is not the one that was read.
    """

    inode: int
    generation: int
    offset: int = 0
    line: int = 0
    """Lines in front of `offset`."""
    tail: str = ""
    """In hexadecimal."""
    changed_ns: int = 0
    """When the file was last written to, as far as that is published: files that were begun after it are newer."""


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    inode: int
    generation: int
    offset: int
    line: int
    tail: str
    changed_ns: int


_decode = msgspec.json.Decoder(_Kept).decode


def load(files: Files, path: Path) -> Place | None:
    """The place that was saved last; None where none ever was. Blocks. Raises SourceError."""
    try:
        data = small.load(files, path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    if data is None:
        return None
    try:
        kept = _decode(data)
    except msgspec.DecodeError as error:
        raise SourceError(f"{path}: is damaged: {error}; remove it, and the file is begun anew") from None
    return Place(kept.inode, kept.generation, kept.offset, kept.line, kept.tail, kept.changed_ns)


def save(files: Files, path: Path, place: Place) -> None:
    """Durable on return. Blocks. Raises SourceError."""
    try:
        small.save(files, path, msgspec.json.encode(attrs.asdict(place)))
    except OSError as error:
        raise SourceError(f"{path}: cannot be written: {error.strerror}") from None
