"""A hint file is believed where it is right and beside the segment it was made of; else it is made anew, the same."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from google_crc32c import value as crc32c

from gateway import __version__
from gateway.store import hint
from gateway.store.files import Files
from gateway.store.index import TYPECODES, Index
from gateway.store.record import Columns, Kind
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from tests.store.building import (
    EPOCH,
    NOW_MS,
    SegmentFile,
    body_of,
    contents,
    opened,
    recovered,
    save_checkpoint,
    segments,
)


def everything(directory: Path) -> list[SegmentFile]:
    """A sealed segment whose messages have all there is to have, and an active one."""
    file = SegmentFile.begin()
    file.route(1, "a", [1, 2])
    file.route(2, "b", [2])
    file.messages(5)
    columns = Columns(
        array("I"),
        None,
        array("I", [2, 1]),
        array("Q", [NOW_MS + 5, 0]),
        array("Q", [0, NOW_MS + 9]),
        array("Q", [77, 0]),
        bytes(range(1, 17)) + bytes(16),
        bytes(16),
    )
    file.record([body_of(6), body_of(7)], 1, columns)
    file.add(Kind.SETTLE, b"passed over", number=1)
    file.write(directory)
    return [file, *segments(directory, 1, first=2, base=8)]


def shown(index: Index) -> dict[str, list[int] | None]:
    named = {name: getattr(index, name) for name in TYPECODES if not name.startswith("ids_sorted")}
    return {name: None if values is None else list(values) for name, values in named.items()}


def test_a_mapped_index_is_the_index_it_was_written_from(tmp_path: Path) -> None:
    everything(tmp_path)
    [sealed, _], _ = opened(tmp_path)
    mapped = sealed.index
    assert isinstance(mapped.starts, memoryview)
    assert (sealed.end, sealed.count, sealed.ids_ms, sealed.due_ms) == (8, 7, NOW_MS, NOW_MS + 5)
    assert {number: list(queue) for number, queue in mapped.queues.items()} == {1: [0, 4, 6, 6], 2: [0, 6]}
    assert mapped.routes == [("a", (1, 2)), ("b", (2,))]
    assert [mapped.route(ordinal)[0] for ordinal in (4, 5, 6)] == ["a", "b", "a"]
    assert mapped.times_of(5) == (NOW_MS + 5, 0)
    assert mapped.key_of(5) == 77
    assert mapped.find_id(int.from_bytes(bytes(range(1, 9)), "little"), 9) == [6]


def test_it_is_read_instead_of_the_messages(tmp_path: Path) -> None:
    built = everything(tmp_path)
    recovered(tmp_path)
    save_checkpoint(tmp_path, 2, 0, kept=built)
    path = tmp_path / "0000000001.log"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # it is not looked at, so it is not found out
    path.write_bytes(data)
    found, _ = recovered(tmp_path)
    assert (found.rebuilt, found.lost) == ([], [])


def _of_another_segment(directory: Path) -> bytes:
    other = directory / "other"
    other.mkdir()
    segments(other, 2, 1)
    recovered(other)
    return (other / "0000000001.hint").read_bytes()


FRONT = (
    '"version":"0.1.0","epoch":"0badf00d","segment":1,"last":1,"uid":"00000000000000ab","base":1,"end":3,"count":2,'
    '"size":343,"created_ms":1795326701000,"last_ms":1795326701005,"ids_ms":0,"due_ms":0,"expires_ms":0,'
    '"routes":[["a",[1]]],"columns":{'
)
GOLDEN: dict[int, tuple[str, str, str]] = {
    2: (
        "4342a4d3",
        '{"format":2,' + FRONT + '"starts":["I",0,2],"firsts":["I",8,2],"offsets":["I",16,2],"ends":["I",24,2],'
        '"times":["Q",32,2],"route_at":["I",48,1],"route_of":["I",56,1]},"queues":[[1,["I",64,2]]]}    ',
        "f000000054010000 0000000001000000 c80000002c010000 f300000057010000 c86dcf01a2010000 cd6dcf01a2010000"
        "0000000000000000 0100000000000000 0000000001000000",
    ),
    3: (
        "b6bfe9e4",
        '{"format":3,' + FRONT + '"starts":["I",0,2],"offsets":["I",8,2],"ends":["I",16,2],'
        '"times":["I",24,2],"route_at":["I",32,1],"route_of":["B",40,1]},"queues":[[1,["I",48,2]]],'
        '"times_from":1795296329728}     ',
        "f000000054010000 c80000002c010000 f300000057010000 c86dcf01cd6dcf01"
        "0000000000000000 0100000000000000 0000000001000000",
    ),
}
"""By format: the CRC, the directory and the columns of a segment with two messages that were published alone."""


def golden(form: int) -> bytes:
    crc, front, columns = GOLDEN[form]
    return b"PUSHHINT" + bytes.fromhex(crc) + struct.pack("<I", len(front)) + front.encode() + bytes.fromhex(columns)


def lone_messages(directory: Path, *times_ms: int, routes: int = 1) -> Segment:
    """A segment in memory with a message at each of `times_ms`, each in a record of its own, going round the routes."""
    segment = Segment(1, directory / "0000000001.log", 1, NOW_MS, "00000000000000ab")
    growing = segment.growing
    for at, time_ms in enumerate(times_ms):
        if at < routes:
            growing.routes.append((chr(97 + at % 26), (1,)))
        offset = 200 + 100 * at
        growing.add(Columns(array("I", [3])), offset, offset + 43, offset + 40, at % routes + 1, time_ms)
    growing.route_to(1, 1, len(times_ms))
    segment.size, segment.last_ms = 243 + 100 * (len(times_ms) - 1), times_ms[-1]
    return segment


@pytest.mark.parametrize("form", GOLDEN)
def test_every_format_has_its_golden_bytes_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int
) -> None:
    path = tmp_path / "0000000001.hint"
    path.write_bytes(golden(form))
    segment = lone_messages(tmp_path, NOW_MS, NOW_MS + 5)
    found = hint.read(Files(), path)
    assert isinstance(found, hint.Directory)
    assert hint.mismatch(found, EPOCH, segment) is None
    index = Shelf(Files(), 2, 2).read_index(segment)
    assert shown(index) | {"times": None, "firsts": None} == shown(segment.growing) | {"times": None, "firsts": None}
    assert [index.time_ms(ordinal) for ordinal in range(2)] == [NOW_MS, NOW_MS + 5]
    assert [index.record_since(NOW_MS + more) for more in (0, 1, 5, 6)] == [0, 1, 1, 2]
    assert [index.record_of(ordinal) for ordinal in range(2)] == [0, 1]
    assert list(index.pieces(0, 1)) == list(segment.growing.pieces(0, 1))
    assert (index.base, index.routes, list(index.queues[1])) == (1, [("a", (1,))], [0, 1])
    monkeypatch.setattr(hint, "__version__", "0.1.0")
    if form == hint.FORMAT:
        assert hint.encode(segment, segment.growing, EPOCH, 3) == golden(form)
    assert hint.is_same(hint.encode(segment, segment.growing, EPOCH, 3, form), golden(form))


def test_a_format_of_later_is_made_anew(tmp_path: Path) -> None:
    everything(tmp_path)
    recovered(tmp_path)
    path = tmp_path / "0000000001.hint"
    later = path.read_bytes().replace(b'"format":3', b'"format":9')
    path.write_bytes(later[:8] + struct.pack("<I", crc32c(later[12:])) + later[12:])
    assert hint.read(Files(), path) == f"it has format 9, written by version {__version__}"


@pytest.mark.parametrize(
    ("times_ms", "typecode", "times_from"),
    [
        ((NOW_MS, NOW_MS + 1), "I", NOW_MS >> 32 << 32),
        ((NOW_MS, NOW_MS + (1 << 32)), "Q", 0),
    ],
)
def test_times_take_four_bytes_where_they_are_of_one_month(
    tmp_path: Path, times_ms: tuple[int, int], typecode: str, times_from: int
) -> None:
    segment = lone_messages(tmp_path, *times_ms)
    hint.write(Files(), segment, segment.growing, EPOCH, 3)
    found = hint.read(Files(), tmp_path / "0000000001.hint")
    assert isinstance(found, hint.Directory)
    assert (found.columns["times"].typecode, found.times_from) == (typecode, times_from)
    index = Shelf(Files(), 2, 2).read_index(segment)
    assert tuple(index.time_ms(ordinal) for ordinal in range(2)) == times_ms


@pytest.mark.parametrize(("routes", "typecode"), [(255, "B"), (256, "H"), (65536, "I")])
def test_routes_take_the_bytes_that_their_number_needs(tmp_path: Path, routes: int, typecode: str) -> None:
    segment = lone_messages(tmp_path, *[NOW_MS] * routes, routes=routes)
    hint.write(Files(), segment, segment.growing, EPOCH, routes + 1)
    found = hint.read(Files(), tmp_path / "0000000001.hint")
    assert isinstance(found, hint.Directory)
    assert found.columns["route_of"].typecode == typecode
    index = Shelf(Files(), 2, 2).read_index(segment)
    assert list(index.route_of) == list(range(1, routes + 1))
    assert index.route(routes - 1) == segment.growing.routes[-1]


BAD: dict[str, Callable[[Path, bytes], bytes | None]] = {
    "missing": lambda _directory, _data: None,
    "empty": lambda _directory, _data: b"",
    "cut": lambda _directory, data: data[:-1],
    "a bit flipped in a column": lambda _directory, data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "a bit flipped in the directory": lambda _directory, data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "something else": lambda _directory, _data: b"?" * 500,
    "of another segment": lambda directory, _data: _of_another_segment(directory),
}


@pytest.mark.parametrize("name", BAD)
def test_a_hint_file_that_cannot_be_believed_is_made_anew_to_the_same_bytes(tmp_path: Path, name: str) -> None:
    everything(tmp_path)
    recovered(tmp_path)
    path = tmp_path / "0000000001.hint"
    good = path.read_bytes()
    bad = BAD[name](tmp_path, good)
    path.unlink() if bad is None else path.write_bytes(bad)
    found, _ = recovered(tmp_path)
    assert found.rebuilt == ["0000000001.log"]
    assert path.read_bytes() == good


def test_every_bit_of_it_is_checked(tmp_path: Path) -> None:
    everything(tmp_path)
    recovered(tmp_path)
    path = tmp_path / "0000000001.hint"
    good = path.read_bytes()
    assert isinstance(hint.read(Files(), path), hint.Directory)
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        assert isinstance(hint.read(Files(), path), str), f"byte {at}"


def test_what_an_interrupted_seal_left_is_removed(tmp_path: Path) -> None:
    everything(tmp_path)
    (tmp_path / "0000000001.hint.tmp").write_bytes(b"half")
    recovered(tmp_path)
    assert "0000000001.hint.tmp" not in contents(tmp_path)
