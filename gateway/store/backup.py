"""A backup of a store while a gateway writes to it, and the way back.

What makes it consistent is the order: other rooms' small files, then the checkpoint, then the names, then the
segments, oldest first. So what the small files point at is in the segments; everything before the checkpoint's place
is; and what is behind it is there without a gap, up to the last whole record of the last segment. What a checkpoint
names stays until the one after the next, and where a file is gone all the same, the look is taken anew.

A sealed segment never changes and is copied once. What still changes (checkpoint, the last segment) gets its CRC
behind its name, and a segment that merging put in the place of another its uid, so that nothing the manifest names is
ever written over: the new manifest, put in place at the end, is the new backup, and an interrupted run leaves the one
before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
from google_crc32c import extend
from google_crc32c import value as crc32c

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store import hint
from gateway.store.checkpoint import Checkpoint
from gateway.store.files import Files
from gateway.store.manifest import PART, Entry, chunks, put, read_manifest, write_manifest
from gateway.store.reading import Gap, passages, read_header
from gateway.store.recovery import LOCK_NAME, segment_name
from gateway.store.small import NEIGHBOURS
from gateway.store.survey import epoch_of, look, read_segment, steadily

_OURS: Final = re.compile(r"(?:\d{10}\.(?:log|hint)|checkpoint|checkpoint\.old)(?:\.[0-9a-f]{8})?(?:\.part)?")

Progress = Callable[[int], None]


@attrs.define
class Copied:
    """What one run did."""

    files: int = 0
    bytes: int = 0
    kept: int = 0
    """Files that were in the backup already."""
    deleted: int = 0


def backup(files: Files, directory: Path, target: Path, now_ms: int, progress: Progress) -> Copied:
    """Bring the backup in `target` up to date with the store in `directory`. Blocks. Raises StoreError."""
    if target.resolve() == directory.resolve():
        raise StoreError(f"{target}: is the store itself; name another directory")
    sight = steadily(directory, lambda: look(files, directory))
    epoch = epoch_of(files, directory, sight)
    files.make_directory(target)
    lock = _lock(files, target)
    try:
        before = _begin(files, target, epoch, now_ms)
        made, copied = steadily(directory, lambda: _Run(files, directory, target, before, progress).copy())
        write_manifest(files, target, epoch, now_ms, made)
        copied.deleted = _delete_others(files, target, made)
    except OSError as error:
        raise StoreError(f"{error.filename or target}: {error.strerror}") from error
    finally:
        files.close(lock)
    return copied


# ------------------------------------------------------------------------------------------------------- inside


def _lock(files: Files, target: Path) -> int:
    lock = files.lock(target / LOCK_NAME)
    if isinstance(lock, str):
        raise StoreError(f"{target}: is in use by process {lock}; wait until it has ended")
    return lock


def _begin(files: Files, target: Path, epoch: str, now_ms: int) -> dict[str, Entry]:
    """The files of the backup that is there. A new one is marked as such first, so that it can be gone on with."""
    manifest = read_manifest(files, target)
    if manifest is None:
        others = [name for name in files.names(target) if name != LOCK_NAME]
        if others:
            raise StoreError(
                f"{target}: holds {others[0]} and is no backup; name an empty directory, or one to be made"
            )
        write_manifest(files, target, epoch, now_ms, {})
        files.sync_directory(target.parent)
        return {}
    if manifest.epoch != epoch:
        raise StoreError(
            f"{target}: is a backup of another store (epoch {manifest.epoch}, not {epoch}); name another directory"
        )
    return manifest.files


def _delete_others(files: Files, target: Path, made: dict[str, Entry]) -> int:
    """Delete what the manifest does not name any more; never what is not ours."""
    wanted = {entry.name for entry in made.values()}
    gone = [name for name in files.names(target) if name not in wanted and _OURS.fullmatch(name)]
    for room in NEIGHBOURS:
        if (target / room).is_dir():
            gone += [f"{room}/{name}" for name in files.names(target / room) if f"{room}/{name}" not in wanted]
    for name in gone:
        files.unlink(target / name)
    return len(gone)


def _needed(checkpoint: Checkpoint | None, numbers: Sequence[int]) -> list[int]:
    """The segments that a start with `checkpoint` needs. FileNotFoundError where one of them has gone since."""
    if checkpoint is None:
        wanted, row = set[int](), 1
    else:
        wanted, row = {kept.number for kept in checkpoint.segments}, checkpoint.segment
    there = [number for number in numbers if number in wanted or number >= row]
    wanted |= set(range(row, max(numbers, default=0) + 1))
    if wanted - set(there):
        raise FileNotFoundError(segment_name(min(wanted - set(there))))
    return there


class _Run:
    """One pass over the store. FileNotFoundError: something was let go meanwhile; begin anew."""

    def __init__(
        self, files: Files, directory: Path, target: Path, before: dict[str, Entry], progress: Progress
    ) -> None:
        self._files = files
        self._directory = directory
        self._target = target
        self._before = before
        self._progress = progress
        self._made: dict[str, Entry] = {}
        self._copied = Copied()

    def copy(self) -> tuple[dict[str, Entry], Copied]:
        for room in NEIGHBOURS:
            self._room(room)
        checkpoint = self._checkpoint()
        sight = look(self._files, self._directory)  # behind the checkpoint: nothing that follows it is overlooked
        numbers = _needed(checkpoint, sight.numbers)
        for number in numbers:
            if number == sight.numbers[-1]:
                self._last(number)
            else:
                self._sealed(number)
        return self._made, self._copied

    def _room(self, room: str) -> None:
        """Small files that are only ever replaced as a whole."""
        directory = self._directory / room
        if not directory.is_dir():
            return
        self._files.make_directory(self._target / room)
        for name in self._files.names(directory):
            if (directory / name).is_file() and not name.endswith(".new"):
                self._changing(f"{room}/{name}", (directory / name).read_bytes())
        self._files.sync_directory(self._target / room)

    def _checkpoint(self) -> Checkpoint | None:
        """The newest that can be read. Not the one before: the segments that only it needs may be gone."""
        for name in (checkpoints.NAME, checkpoints.OLD_NAME):
            if not (self._directory / name).exists():
                continue
            self._changing(checkpoints.NAME, (self._directory / name).read_bytes())
            with suppress(StoreError):
                return checkpoints.load(self._files, self._target / self._made[checkpoints.NAME].name)
        self._made.pop(checkpoints.NAME, None)
        return None

    def _sealed(self, number: int) -> None:
        path = self._directory / segment_name(number)
        header = read_header(self._files, path)
        uid = header.uid if header else ""
        for source in (path, hint.path_of(path)):
            if source is path or source.exists():
                self._once(source, uid)
        if read_header(self._files, path) != header:  # merging has put another in its place meanwhile
            raise FileNotFoundError(path)

    def _once(self, source: Path, uid: str) -> None:
        """Copy a file that does not change any more, where the backup has not got it.

        What the backup has is kept whatever has become of the store's own: where that has changed it is damaged.
        """
        known = self._before.get(source.name)
        if known is not None and known.sealed and known.uid == uid and uid and self._is_there(known):
            self._made[source.name] = known
            self._copied.kept += 1
            return
        is_other = known is not None and known.sealed and known.uid != uid  # merged meanwhile
        name = f"{source.name}.{uid[:8]}" if is_other and uid else source.name
        size = source.stat().st_size
        crc = self._copy(source, name, size)
        self._made[source.name] = Entry(name, size, crc, uid, sealed=True)

    def _is_there(self, entry: Entry) -> bool:
        path = self._target / entry.name
        return path.exists() and path.stat().st_size == entry.size

    def _copy(self, source: Path, name: str, size: int) -> int:
        """The CRC of what was copied."""
        files, part = self._files, self._target / (name + PART)
        part.unlink(missing_ok=True)
        opened = files.open(source)
        try:
            file = files.create(part)
            crc = 0
            try:
                for chunk in chunks(files, opened, size):
                    files.write(file, chunk)
                    crc = extend(crc, chunk)
                    self._progress(len(chunk))
                files.sync(file)
            finally:
                files.close(file)
        finally:
            files.close(opened)
        files.replace(part, self._target / name)
        self._note(size)
        return crc

    def _last(self, number: int) -> None:
        """The segment that is being written, up to its last whole record. Should the checkpoint
        know of more, what is missing is damage, and a start says so."""
        path = self._directory / segment_name(number)
        data = read_segment(self._files, path)
        header = read_header(self._files, path)
        size = header.size if header else 0
        for passage in passages(data, size):
            if not isinstance(passage, Gap):
                size = passage.end
        self._changing(path.name, data[:size], header.uid if header else "")

    def _changing(self, name: str, data: bytes, uid: str = "") -> None:
        """Copy what will change; what has the same bytes is there already."""
        crc = crc32c(data)
        entry = Entry(f"{name}.{crc:08x}", len(data), crc, uid)
        self._made[name] = entry
        if self._before.get(name) == entry and (self._target / entry.name).exists():
            self._copied.kept += 1
            return
        put(self._files, self._target / entry.name, data)
        self._progress(len(data))
        self._note(len(data))

    def _note(self, size: int) -> None:
        self._copied.files += 1
        self._copied.bytes += size
