"""The hint file of a sealed segment: its index as it is used, mapped and never parsed.

    offset  size  field
    0       8     PUSHHINT
    8       4     crc      CRC-32C of everything that follows
    12      4     length   of the directory
    16      ...   the directory, JSON; then, each at a multiple of 8, the columns that it names (index.TYPECODES)

Since format 3 they are no wider than they have to be: times as u32 from `times_from` on, where one upper half is that
of all; route_of as the smallest of u8, u16, u32; and no firsts where every record holds one message. That is 11 of the
40 bytes of a message that was published alone. Format 2 has none of it, and is read as it is.

A hint file is a cache. It is believed where its CRC is right and it names the segment file that it lies beside: by
epoch, number, uid and size. Anything else is rebuilt from the segment, to the same bytes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import orjson
from google_crc32c import value as crc32c

from gateway import __version__
from gateway.store.files import Files
from gateway.store.index import SORTED, TYPECODES, Index
from gateway.store.segment import Segment

MAGIC: Final = b"PUSHHINT"
FORMAT: Final = 3
_WIDE: Final = 2  # a format whose columns all are as wide as in memory
_READ: Final = (_WIDE, FORMAT)
_FRONT: Final = struct.Struct("<8sII")
_SIZES: Final = {"I": 4, "Q": 8, "B": 1, "H": 2}
_HALF: Final = struct.Struct("<I")


class Column(NamedTuple):
    """Where a column stands in the file."""

    typecode: str
    offset: int
    items: int


class Directory(msgspec.Struct):
    """What the front of a hint file says."""

    format: int
    version: str
    epoch: str
    segment: int
    last: int
    uid: str
    base: int
    end: int
    count: int
    size: int
    created_ms: int
    last_ms: int
    ids_ms: int
    due_ms: int
    expires_ms: int
    routes: list[tuple[str, tuple[int, ...]]]
    columns: dict[str, Column]
    queues: list[tuple[int, Column]]
    """Subscription number, and where its pairs lo, hi stand."""
    times_from: int = 0
    """What is to be added to each of the times, in milliseconds."""


_decode: Final = msgspec.json.Decoder(Directory).decode


def path_of(segment: Path) -> Path:
    """The hint file that lies beside the segment file."""
    return segment.with_suffix(".hint")


def write(files: Files, segment: Segment, index: Index, epoch: str, end: int) -> None:
    """Put the hint file of `segment` in place. Blocks. Not synced: after a power cut it may be rebuilt."""
    path = path_of(segment.path)
    temporary = path.with_suffix(".hint.tmp")
    if temporary.exists():
        files.unlink(temporary)
    file = files.create(temporary)
    try:
        files.write(file, encode(segment, index, epoch, end))
    finally:
        files.close(file)
    files.replace(temporary, path)


def encode(segment: Segment, index: Index, epoch: str, end: int, form: int = FORMAT) -> bytes:
    """The bytes of the hint file. `form`: the format; an older one is only written to be compared with."""
    blobs: list[bytes] = []
    at = 0

    def place(typecode: str, values: Sequence[int] | bytes) -> Column:
        nonlocal at
        blob = bytes(values) if typecode == "B" else memoryview(values).tobytes()  # type: ignore[arg-type]
        column = Column(typecode, at, len(values))
        blob += b"\0" * (-len(blob) % 8)
        blobs.append(blob)
        at += len(blob)
        return column

    named = _columns(index)
    times_from = 0 if form == _WIDE else _narrow(named, len(index.routes))
    columns = {name: place(typecode, values) for name, (typecode, values) in named.items() if len(values)}
    if len(index.digests):
        columns["digests"] = place("B", index.digests)
    queues = [(number, place("I", queue)) for number, queue in sorted(index.queues.items())]
    directory = Directory(
        form,
        __version__,
        epoch,
        segment.number,
        segment.last,
        segment.uid,
        segment.base,
        end,
        len(index),
        segment.size,
        segment.created_ms,
        segment.last_ms,
        segment.ids_ms,
        segment.due_ms,
        segment.expires_ms,
        index.routes,
        columns,
        queues,
        times_from,
    )
    front = msgspec.json.encode(directory)
    front += b" " * (-(_FRONT.size + len(front)) % 8)
    rest = b"".join((struct.pack("<I", len(front)), front, *blobs))
    return MAGIC + struct.pack("<I", crc32c(rest)) + rest


def _parts_of(values: Sequence[int], typecode: str) -> array[int]:
    """The bytes of a column as so many more smaller numbers, the lowest part of each first: no object for each."""
    return array(typecode, memoryview(values).tobytes())  # type: ignore[arg-type]


def _narrow(named: dict[str, tuple[str, Sequence[int]]], routes: int) -> int:
    """Make columns as narrow as they may be; what is to be added to each of the times. `routes`: how many there are."""
    if len(named["firsts"][1]) == len(named["starts"][1]):  # records of one message: they are 0, 1, 2, ...
        del named["firsts"]
    typecode = next(code for code in "BHI" if routes < 1 << 8 * _SIZES[code])
    named["route_of"] = typecode, _parts_of(named["route_of"][1], typecode)[:: 4 // _SIZES[typecode]]
    halves = _parts_of(named["times"][1], "I")
    lower, upper = halves[::2], halves[1::2]
    if not upper or upper.tobytes() != _HALF.pack(upper[0]) * len(upper):
        return 0
    named["times"] = "I", lower
    return upper[0] << 32


def _columns(index: Index) -> dict[str, tuple[str, Sequence[int]]]:
    """By name: the typecode, and the values."""
    named: list[tuple[str, Sequence[int]]] = []
    for name in TYPECODES:
        if name in SORTED:
            continue
        values = getattr(index, name)
        if values is not None:
            named.append((name, values))
    if len(index.ids_at):
        order = sorted(zip(index.ids[::2], index.ids_at, strict=True))
        named.append(("ids_sorted", array("Q", [hashed for hashed, _ in order])))
        named.append(("ids_sorted_at", array("I", [ordinal for _, ordinal in order])))
    if len(index.timed_at):
        timed = sorted(due << 32 | at for due, at in zip(index.due_ms, index.timed_at, strict=True) if due)
        named.append(("due_sorted", array("Q", [key >> 32 for key in timed])))
        named.append(("due_sorted_at", array("I", [key & 0xFFFFFFFF for key in timed])))
    return {name: (TYPECODES[name], values) for name, values in named}


def read(files: Files, path: Path) -> Directory | str:
    """The directory of a hint file, its CRC checked over all of it; or why it cannot be believed. Blocks."""
    try:
        file = files.open(path)
    except FileNotFoundError:
        return "it is missing"
    try:
        data = files.read(file, 0, files.size(file))
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    finally:
        files.close(file)
    if len(data) < _FRONT.size or not data.startswith(MAGIC):
        return "it is not a hint file"
    _, crc, length = _FRONT.unpack_from(data)
    if crc32c(data[12:]) != crc:
        return "its CRC does not match"
    document: dict[str, Any] = orjson.loads(data[_FRONT.size : _FRONT.size + length])
    if document["format"] not in _READ:
        return f"it has format {document['format']}, written by version {document['version']}"
    return _decode(data[_FRONT.size : _FRONT.size + length])


def is_same(data: bytes, other: bytes) -> bool:
    """Whether two hint files say the same, whichever versions wrote them; both have been believed."""
    (one, rest), (another, its_rest) = _parts(data), _parts(other)
    return msgspec.structs.replace(one, version="") == msgspec.structs.replace(another, version="") and rest == its_rest


def _parts(data: bytes) -> tuple[Directory, bytes]:
    at = _FRONT.size + _FRONT.unpack_from(data)[2]
    return _decode(data[_FRONT.size : at]), data[at:]


def mismatch(directory: Directory, epoch: str, segment: Segment) -> str | None:
    """Why the hint is not that of the segment file as it is now; None where it is."""
    for name, said, there in (
        ("epoch", directory.epoch, epoch),
        ("segment", directory.segment, segment.number),
        ("uid", directory.uid, segment.uid),
        ("size", directory.size, segment.size),
    ):
        if said != there:
            return f"it says {name} {said}, the segment {there}"
    return None


def index_of(data: mmap) -> Index:
    """The index over a mapped hint file whose CRC was right when the store was opened, or when it was written."""
    view = memoryview(data)
    _, _, length = _FRONT.unpack_from(data)
    directory = _decode(view[_FRONT.size : _FRONT.size + length])
    at = _FRONT.size + length

    def column(place: Column) -> memoryview:
        start = at + place.offset
        return view[start : start + place.items * _SIZES[place.typecode]].cast(place.typecode)  # type: ignore[call-overload,no-any-return]

    index = Index(directory.base)
    for name, place in directory.columns.items():
        setattr(index, name, column(place))
    if "firsts" not in directory.columns:
        index.firsts = range(directory.count)
    index.times_from = directory.times_from
    index.queues = {number: column(place) for number, place in directory.queues}
    index.routes = directory.routes
    return index
