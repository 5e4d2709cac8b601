"""A small file that is only ever replaced as a whole: its old content or its new one, whatever happens in between."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.store.files import Files

NEIGHBOURS: Final = ("sources", "tmc")
"""Directories that other rooms keep such files in, beside the log."""


def load(files: Files, path: Path) -> bytes | None:
    """What was saved last; None where nothing ever was. Blocks; OSError where it cannot be read."""
    try:
        file = files.open(path)
    except FileNotFoundError:
        return None
    try:
        return files.read(file, 0, files.size(file))
    finally:
        files.close(file)


def save(files: Files, path: Path, data: bytes) -> None:
    """Durable on return, with the directory it stands in, which is made where it is missing. Blocks; OSError."""
    new = path.with_name(path.name + ".new")
    is_new = not path.parent.exists()
    files.make_directory(path.parent)
    if is_new:
        files.sync_directory(path.parent.parent)
    if new.exists():
        files.unlink(new)  # of a crash
    file = files.create(new)
    try:
        files.write(file, data)
        files.sync(file)
    finally:
        files.close(file)
    files.replace(new, path)
    files.sync_directory(path.parent)
