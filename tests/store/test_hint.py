"""A hint file is believed where it is right and beside the segment it was made of; else it is made anew, the same."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.store import hint
from gateway.store.files import Files
from gateway.store.index import TYPECODES, Index
from gateway.store.record import Columns, Kind
from tests.store.building import NOW_MS, SegmentFile, body_of, contents, opened, recovered, save_checkpoint, segments


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
