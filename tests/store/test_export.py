"""The messages of a store as lines."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from gateway.store.export import export
from gateway.store.files import Files
from gateway.store.reading import HEADER_BYTES_MAX, Lost
from gateway.store.record import Columns
from gateway.store.recovery import segment_name
from tests.store.building import SegmentFile, body_of, contents, segments


class Reads(Files):
    """Notes how much of each file is read, and does something as often as a segment is read whole."""

    def __init__(self, deed: Callable[[str], None] = lambda _: None) -> None:
        self.sizes: dict[str, list[int]] = {}
        self._names: dict[int, str] = {}
        self._deed = deed

    def open(self, path: Path, *, append: bool = False) -> int:
        file = super().open(path, append=append)
        self._names[file] = path.name
        return file

    def read(self, file: int, offset: int, size: int) -> bytes:
        name = self._names[file]
        if size > HEADER_BYTES_MAX:
            self._deed(name)
        self.sizes.setdefault(name, []).append(size)
        return super().read(file, offset, size)


def never(lost: Lost) -> None:
    pytest.fail(f"nothing is damaged, but {lost}")


def exported(directory: Path, since: int = 0, pattern: str | None = None) -> tuple[list[int], list[Lost]]:
    lost: list[Lost] = []
    lines = list(export(Files(), directory, lost.append, since, pattern))
    return [orjson.loads(line)["position"] for line in lines], lost


def test_every_message_is_a_line_as_it_is_delivered(tmp_path: Path) -> None:
    segments(tmp_path, 5, 4)
    before = contents(tmp_path)
    lines = list(export(Files(), tmp_path, never))
    assert lines[0] == b'{"position":1,"data":"x"}\n'
    assert exported(tmp_path) == (list(range(1, 10)), [])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("since", [1, 2, 5, 6, 9, 10])
def test_since_a_position(tmp_path: Path, since: int) -> None:
    segments(tmp_path, 5, 4)
    assert exported(tmp_path, since)[0] == list(range(since, 10))


def test_a_segment_before_the_position_is_not_read(tmp_path: Path) -> None:
    segments(tmp_path, 50, 40)
    files = Reads()
    assert len(list(export(files, tmp_path, never, 51))) == 40
    assert max(files.sizes[segment_name(1)]) <= HEADER_BYTES_MAX < max(files.sizes[segment_name(2)])


def merged(directory: Path, first: SegmentFile, *others: SegmentFile) -> SegmentFile:
    """Segments as merging leaves them, put in the place of the first: every third message is still due."""
    file = SegmentFile.begin(first.number, first.base, last=others[-1].number, end=others[-1].end, uid="f" * 16)
    file.route(1, "trade.paid", [1])
    for position in range(first.base, others[-1].end):
        if position % 3 == 0:
            file.end = position
            file.record([body_of(position)])
    file.end = others[-1].end
    file.write(directory)
    return file


def test_what_was_merged_is_exported_once_though_its_sources_are_there(tmp_path: Path) -> None:
    built = segments(tmp_path, 50, 40, 30)
    merged(tmp_path, *built[:2])
    assert exported(tmp_path) == ([*range(3, 91, 3), *range(91, 121)], [])
    assert exported(tmp_path, 60)[0] == [*range(60, 91, 3), *range(91, 121)]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("name", [segment_name(1), segment_name(2), segment_name(3)])
def test_what_is_merged_meanwhile_is_exported_once(tmp_path: Path, name: str, gone: bool) -> None:
    built = segments(tmp_path, 50, 40, 30, 20)
    done: list[str] = []

    def merge(read: str) -> None:
        if read == name and not done:
            done.append(read)
            merged(tmp_path, *built[:3])
            for number in (2, 3) if gone else ():
                (tmp_path / segment_name(number)).unlink()

    lost: list[Lost] = []
    lines = list(export(Reads(merge), tmp_path, lost.append))
    positions = [orjson.loads(line)["position"] for line in lines]
    assert done == [name]
    assert lost == []
    assert positions == sorted(set(positions))
    assert set(positions) >= {*range(3, 121, 3), *range(121, 141)}


def test_of_some_topics(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "trade.paid", [1])
    file.route(2, "stock.low", [1])
    file.messages(2, 1)
    columns = Columns(array("I"), None, array("I", [2, 1]))
    file.record([b'{"position":3}', b'{"position":4}'], 2, columns)
    file.messages(1, 2)
    file.write(tmp_path)
    assert exported(tmp_path, pattern="trade.>")[0] == [1, 2, 4]
    assert exported(tmp_path, pattern="stock.*")[0] == [3, 5]
    assert exported(tmp_path, 4, "stock.*")[0] == [5]


def test_a_payload_of_several_lines_is_one(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "t", [1])
    file.message(b'{"position":1,\r\n"data":\n"a\\nb"}')
    file.write(tmp_path)
    assert list(export(Files(), tmp_path, never)) == [b'{"position":1,  "data": "a\\nb"}\n']


def test_what_is_damaged_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    [first, last] = segments(tmp_path, 6, 4)
    first.data[first.offsets[2] + 40] ^= 1
    first.write(tmp_path)
    (tmp_path / segment_name(2)).write_bytes(last.data[:-3])  # being written
    positions, lost = exported(tmp_path)
    assert positions == [1, 2, 5, 6, 7, 8]
    assert [(item.segment, item.offset) for item in lost] == [(str(tmp_path / segment_name(1)), first.offsets[2])]
