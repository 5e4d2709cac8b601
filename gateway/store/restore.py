"""A store out of a backup (backup.py), into a directory that holds nothing.

Files get their names at the end, the checkpoint first and the segments from the last to the first: a store that was
restored in part is refused by the gateway, which misses a segment, and is never begun anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from google_crc32c import extend

from gateway.errors import StoreError, StoreLockedError
from gateway.store import checkpoint as checkpoints
from gateway.store.backup import Progress
from gateway.store.files import Files
from gateway.store.manifest import Entry, Manifest, chunks, read_manifest
from gateway.store.recovery import LOCK_NAME

_PART: Final = ".restoring"


def restore(files: Files, source: Path, directory: Path, progress: Progress) -> Manifest:
    """Make the store. Blocks. Raises StoreError, and leaves nothing behind then."""
    manifest = read_manifest(files, source)
    if manifest is None or not manifest.files:
        raise StoreError(f"{source}: holds no backup" + ("" if manifest is None else " that was ever finished"))
    if directory.exists() and (not directory.is_dir() or set(files.names(directory)) - {LOCK_NAME}):
        raise StoreError(f"{directory}: is not empty; name a directory that is, or one to be made")
    try:
        files.make_directory(directory)
        lock = files.lock(directory / LOCK_NAME)
        if isinstance(lock, str):
            raise StoreLockedError(f"{directory}: is in use by process {lock}; stop it, or name another directory")
        try:
            _fill(files, source, directory, manifest, progress)
        finally:
            files.close(lock)
        files.sync_directory(directory.parent)
    except OSError as error:
        raise StoreError(f"{error.filename or directory}: {error.strerror}") from error
    return manifest


def _fill(files: Files, source: Path, directory: Path, manifest: Manifest, progress: Progress) -> None:
    names = sorted(manifest.files, key=lambda name: (name == checkpoints.NAME, name), reverse=True)
    made: list[Path] = []
    try:
        for name in names:
            path = directory / (name + _PART)
            files.make_directory(path.parent)
            made.append(path)
            _copy(files, source, manifest.files[name], path, progress)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
            if path.parent != directory and not any(path.parent.iterdir()):
                path.parent.rmdir()
        raise
    for name in names:
        files.replace(directory / (name + _PART), directory / name)
    for parent in {(directory / name).parent for name in names} | {directory}:
        files.sync_directory(parent)


def _copy(files: Files, source: Path, entry: Entry, path: Path, progress: Progress) -> None:
    opened = files.open(source / entry.name)
    try:
        file = files.create(path)
        crc = size = 0
        try:
            for chunk in chunks(files, opened, entry.size):
                files.write(file, chunk)
                crc, size = extend(crc, chunk), size + len(chunk)
                progress(len(chunk))
            files.sync(file)
        finally:
            files.close(file)
    finally:
        files.close(opened)
    if (crc, size) != (entry.crc32c, entry.size):
        raise StoreError(f"{source / entry.name}: is damaged (its CRC, or its size, is not that of the manifest)")
