"""The messages of a store as lines."""

from __future__ import annotations

from array import array
from pathlib import Path

import orjson
import pytest

from gateway.store.export import export
from gateway.store.files import Files
from gateway.store.reading import Lost
from gateway.store.record import Columns
from gateway.store.recovery import segment_name
from tests.store.building import SegmentFile, contents, segments


class Reads(Files):
    """Notes how much of which file is read."""

    def __init__(self) -> None:
        self.whole: list[str] = []

    def open(self, path: Path, *, append: bool = False) -> int:
        self.whole.append(path.name)
        return super().open(path, append=append)


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
    segments(tmp_path, 5, 4)
    files = Reads()
    assert len(list(export(files, tmp_path, never, 6))) == 4
    assert files.whole.count(segment_name(1)) == 0


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
