"""From the files of a directory to segments with their index, and a replay of what happened since the checkpoint.

A torn tail of the last segment is cut: it was never answered for. Damage anywhere else, such as before the place of the
checkpoint, is an error that names the file and the byte; nothing is skipped. Everything here blocks and runs before the
first connection is accepted.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import msgspec
import orjson
import structlog

from gateway.errors import StoreError
from gateway.kit.hashes import key_hash
from gateway.store import checkpoint as checkpoints
from gateway.store import record as records
from gateway.store.checkpoint import Checkpoint
from gateway.store.files import Files
from gateway.store.record import Flag, Kind, Record
from gateway.store.segment import Segment, read_all, read_front
from gateway.store.small import NEIGHBOURS

LOCK_NAME: Final = "lock"
_SEGMENT: Final = re.compile(r"(\d{10})\.log")
_HEADER_BYTES_MAX: Final = 512
"""A header is shorter, and a disk writes so much as a whole or not at all."""
_log = structlog.get_logger("gateway.store")


class _Keyed(msgspec.Struct):
    key: str


_decode_key = msgspec.json.Decoder(_Keyed).decode


class Replay(Protocol):
    """Who is told what the log holds. Records before the checkpoint are not told again, but for messages' routes."""

    def restore(self, state: dict[str, Any]) -> None:
        """The state of the checkpoint; called once, first, where there is one."""

    def message(self, record: Record, topic: str, numbers: tuple[int, ...], *, new: bool) -> None:
        """A message; `new` where it stands behind the checkpoint."""

    def control(self, record: Record) -> None:
        """A record that is neither message nor route, behind the checkpoint."""


@attrs.define
class Recovered:
    """What was found. `epoch` is empty where the store is new."""

    epoch: str
    segments: list[Segment]
    cut_bytes: int
    """Bytes of a torn tail that were cut."""
    foreign: list[str]
    """Names in the directory that are not ours."""


def segment_name(number: int) -> str:
    return f"{number:010d}.log"


def recover(files: Files, directory: Path, replay: Replay) -> Recovered:
    """Read the store. Raises StoreError where it cannot be trusted."""
    numbers, foreign = _classify(files, directory)
    checkpoint = _load_checkpoint(files, directory, numbers)
    found = Recovered(checkpoint.epoch if checkpoint else "", [], 0, foreign)
    _remove_unbegun(files, directory, numbers, checkpoint, found)
    if checkpoint:
        _check_complete(directory, numbers, checkpoint)
        replay.restore(checkpoint.state)
    for number in numbers:
        last = number == numbers[-1]
        segment = _read_segment(files, directory / segment_name(number), number, last, checkpoint, replay, found)
        if found.segments and segment.base != found.segments[-1].end:
            raise StoreError(
                f"{segment.path}: begins at position {segment.base} but the segment before ends at "
                f"{found.segments[-1].end}: a segment is missing or foreign; restore it from a backup"
            )
        found.segments.append(segment)
    return found


def _classify(files: Files, directory: Path) -> tuple[list[int], list[str]]:
    numbers: list[int] = []
    foreign: list[str] = []
    for name in files.names(directory):
        match = _SEGMENT.fullmatch(name)
        if match:
            numbers.append(int(match.group(1)))
        elif name not in (LOCK_NAME, checkpoints.NAME, f"{checkpoints.NAME}.tmp", *NEIGHBOURS):
            foreign.append(name)
    for before, after in itertools.pairwise(numbers):
        if after != before + 1:
            raise StoreError(f"{directory / segment_name(before + 1)}: is missing; restore it from a backup")
    return numbers, foreign


def _load_checkpoint(files: Files, directory: Path, numbers: list[int]) -> Checkpoint | None:
    try:
        checkpoint = checkpoints.load(files, directory)
    except StoreError as error:
        if numbers[:1] == [1]:  # nothing was deleted yet: the log alone still tells everything
            _log.warning("checkpoint unusable, replaying the whole log", error=str(error))
            return None
        gone = segment_name(numbers[0]) if numbers else "all"
        raise StoreError(f"{error}; restore it from a backup: segments before {gone} are gone") from None
    if checkpoint is None and numbers and numbers[0] != 1:
        raise StoreError(
            f"{directory / checkpoints.NAME}: is missing, and segments before {segment_name(numbers[0])} are gone; "
            f"restore it from a backup"
        )
    return checkpoint


def _remove_unbegun(
    files: Files, directory: Path, numbers: list[int], checkpoint: Checkpoint | None, found: Recovered
) -> None:
    """Remove a last segment that a crash kept from being begun: nothing in it was answered for."""
    if not numbers or (checkpoint and numbers[-1] <= checkpoint.segment):
        return
    path = directory / segment_name(numbers[-1])
    file = files.open(path)
    try:
        size = files.size(file)
        beginning = read_front(files, file, path, _HEADER_BYTES_MAX)
        unbegun = _is_unbegun(beginning, size)
        if not beginning.strip(b"\0"):  # a file may have grown before its data came
            unbegun = not read_front(files, file, path, size).strip(b"\0")
    finally:
        files.close(file)
    if unbegun:
        _log.warning("removed a segment that was never begun", file=str(path), size=size)
        files.unlink(path)
        found.cut_bytes += size
        numbers.pop()


def _is_unbegun(data: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `data` is too short for the header that it begins with."""
    if not data.startswith(records.MAGIC[: len(data)]):
        return False
    if size < len(records.MAGIC) + records.HEAD_BYTES:
        return True
    header = next(records.heads(data, len(records.MAGIC), size))
    return size < min(header.end, _HEADER_BYTES_MAX)


def _check_complete(directory: Path, numbers: list[int], checkpoint: Checkpoint) -> None:
    """Refuse where a segment is missing at either end that the checkpoint knows of."""
    for number, missing in (
        (checkpoint.first, not numbers or numbers[0] > checkpoint.first),
        (checkpoint.segment, not numbers or numbers[-1] < checkpoint.segment),
    ):
        if missing:
            raise StoreError(f"{directory / segment_name(number)}: is missing; restore it from a backup")


def _read_segment(
    files: Files,
    path: Path,
    number: int,
    last: bool,
    checkpoint: Checkpoint | None,
    replay: Replay,
    found: Recovered,
) -> Segment:
    file = files.open(path, append=last)
    data = read_all(files, file, path)
    header = records.decode(data, len(records.MAGIC))
    if header is None or header.kind != Kind.HEADER:
        raise StoreError(f"{path}: its header is damaged; restore it from a backup")
    segment = _open_segment(path, number, header, found)
    segment.file = file
    after = (checkpoint.segment, checkpoint.offset) if checkpoint else (0, 0)
    routes: dict[int, tuple[str, tuple[int, ...]]] = {}
    end = header.end
    for record in records.scan(data[end:], end):
        _index(segment, record, routes, (number, record.offset) >= after, replay)
        end = record.end
    segment.size = end
    torn = end < len(data)
    if (torn and not last) or (number == after[0] and end < after[1]):
        raise StoreError(f"{path}: the record at byte {end} is damaged; restore the file from a backup")
    if torn:
        _log.warning("cut a torn tail", file=str(path), offset=end, size=len(data) - end)
        files.truncate(file, end)
        found.cut_bytes += len(data) - end
    if last:
        files.sync(file)  # what was written but perhaps not synced is now relied upon
    return segment


def _open_segment(path: Path, number: int, header: Record, found: Recovered) -> Segment:
    head = orjson.loads(header.body)
    if head["format"] != records.FORMAT:
        raise StoreError(
            f"{path}: was written by version {head['version']} in format {head['format']}; "
            f"this version reads format {records.FORMAT}: use that version, or a later one"
        )
    if head["segment"] != number:
        raise StoreError(f"{path}: says that it is segment {head['segment']}; it was renamed: give it back its name")
    if found.epoch and head["epoch"] != found.epoch:
        raise StoreError(f"{path}: belongs to another store (epoch {head['epoch']}, not {found.epoch}); move it away")
    found.epoch = head["epoch"]
    return Segment(number, path, head["base"], head["created_ms"])


def _index(
    segment: Segment, record: Record, routes: dict[int, tuple[str, tuple[int, ...]]], new: bool, replay: Replay
) -> None:
    if record.kind == Kind.MESSAGE:
        position = segment.end
        if record.position != position:
            raise StoreError(
                f"{segment.path}: position {record.position} at byte {record.offset} where {position} is due; "
                f"the file was put together wrongly: restore it from a backup"
            )
        topic, numbers = routes[record.number]
        segment.offsets.append(record.offset)
        if record.flags & Flag.OWN_ID:
            segment.ids_ms = record.time_ms
        for number in numbers:
            segment.route_to(number, position, position)
        due_ms, expires_ms, body = records.split_times(record)
        if record.flags & Flag.KEYED:
            segment.keys[position] = key_hash(_decode_key(body).key)
        if due_ms or expires_ms:
            segment.timed[position] = (due_ms, expires_ms)
        replay.message(record, topic, numbers, new=new)
    elif record.kind == Kind.ROUTE:
        route = orjson.loads(record.body)
        routes[record.number] = (route["topic"], tuple(route["subscriptions"]))
        segment.routes[routes[record.number]] = record.number
    elif new:
        replay.control(record)
