"""Lines of a file that grows, is renamed, is cut. `now` is passed in."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.source.place import Place
from gateway.source.tail import Tail

REST_S = 2.0


class Followed:
    """A file and its tail; `new` reads what there is, moving on over rotations."""

    def __init__(self, directory: Path, line_bytes_max: int = 1000) -> None:
        self.path = directory / "events.ndjson"
        self.line_bytes_max = line_bytes_max
        self.now = 0.0
        self.tail = Tail(self.path, line_bytes_max, REST_S)

    def write(self, text: bytes, name: str = "") -> None:
        with self.path.with_name(self.path.name + name).open("ab") as file:
            file.write(text)

    def rotate(self, name: str = ".1") -> None:
        self.path.rename(self.path.with_name(self.path.name + name))

    def new(self) -> list[bytes | None]:
        """All that can be read by now and a rest."""
        found: list[bytes | None] = []
        for _ in range(10):
            while lines := self.tail.read(10, self.now):
                found += [line.text for line in lines]
            self.now += REST_S
        return found

    def restart(self) -> str | None:
        place = self.tail.place
        self.tail.close()
        self.tail = Tail(self.path, self.line_bytes_max, REST_S)
        return self.tail.open(place)


@pytest.fixture
def file(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def age(path: Path, seconds: int) -> None:
    """Written to so long ago: tests are faster than clocks of file systems."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - seconds * 10**9))


def test_lines_come_in_order_with_offset_and_number(file: Followed) -> None:
    file.write(b"one\ntwo\n\nthree\n")
    file.tail.open(None)
    lines = file.tail.read(10, 0)
    assert [(line.text, line.offset, line.number) for line in lines] == [
        (b"one", 0, 1),
        (b"two", 4, 2),
        (b"", 8, 3),
        (b"three", 9, 4),
    ]
    assert (file.tail.place.offset, file.tail.place.line) == (15, 4)
    assert file.tail.read(10, 0) == []


def test_a_line_without_its_end_is_waited_for(file: Followed) -> None:
    file.write(b"one\ntw")
    file.tail.open(None)
    assert file.new() == [b"one"]
    file.write(b"o")
    assert file.new() == []
    file.write(b"\n")
    assert file.new() == [b"two"]


def test_no_more_lines_than_asked_for_and_none_lost(file: Followed) -> None:
    file.write(b"".join(b"%d\n" % number for number in range(25)))
    file.tail.open(None)
    sizes = []
    while lines := file.tail.read(10, 0):
        sizes.append(len(lines))
    assert sizes == [10, 10, 5]


def test_the_end_of_a_file_that_was_there_before(file: Followed) -> None:
    file.write(b"old\nolder\npart")
    file.tail.open(None, at_end=True)
    assert (file.tail.place.offset, file.tail.place.line) == (10, 2)
    file.write(b"ly new\n")
    assert file.new() == [b"partly new"]


def test_a_line_longer_than_may_be_is_passed_over_and_named(tmp_path: Path) -> None:
    file = Followed(tmp_path, line_bytes_max=300_000)
    file.write(b"a\n" + b"x" * 700_000)
    file.tail.open(None)
    assert file.new() == [b"a"]
    file.write(b"x" * 300_000 + b"\nb\n")
    lines = file.tail.read(10, 0)
    assert [(line.text, line.number) for line in lines] == [(None, 2)]
    assert file.new() == [b"b"]


def test_a_line_just_within_and_one_just_beyond(file: Followed) -> None:
    file.write(b"x" * 1000 + b"\n" + b"y" * 1001 + b"\nz\n")
    file.tail.open(None)
    assert file.new() == [b"x" * 1000, None, b"z"]


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(file: Followed) -> None:
    file.write(b"1\n")
    file.tail.open(None)
    assert file.new() == [b"1"]
    file.write(b"2\n")
    file.rotate()
    file.write(b"4\n")
    file.write(b"3\n", ".1")  # the writer has not noticed yet
    assert file.new() == [b"2", b"3", b"4"]
    assert file.tail.place.generation == 2


def test_a_renamed_file_is_left_only_once_it_has_rested(file: Followed) -> None:
    file.write(b"1\n")
    file.tail.open(None)
    file.rotate()
    file.write(b"3\n")
    assert [line.text for line in file.tail.read(10, 0.0)] == [b"1"]
    assert file.tail.read(10, 1.0) == []
    file.write(b"2\n", ".1")
    assert [line.text for line in file.tail.read(10, 2.9)] == [b"2"]
    assert file.tail.read(10, 3.0) == []
    assert file.tail.read(10, 4.9) == []
    assert file.tail.place.generation == 1, "it wrote 1.9 s ago"
    assert file.tail.read(10, 5.0) == []
    assert [line.text for line in file.tail.read(10, 5.0)] == [b"3"]


def test_what_stands_at_the_end_of_a_renamed_file_without_a_line_end_is_a_line(file: Followed) -> None:
    file.write(b"1\n2")
    file.tail.open(None)
    file.rotate()
    file.write(b"3\n")
    assert file.new() == [b"1", b"2", b"3"]


def test_between_renaming_and_creating_there_is_nothing_new(file: Followed) -> None:
    file.write(b"1\n")
    file.tail.open(None)
    file.rotate()
    assert file.new() == [b"1"]
    file.write(b"2\n")
    assert file.new() == [b"2"]


def test_several_rotations_in_one_night(file: Followed) -> None:
    """Each file is read, the oldest first, though it was never the path's while anyone looked."""
    file.write(b"1\n")
    file.tail.open(None)
    assert file.new() == [b"1"]
    file.tail.close()
    file.write(b"2\n")
    file.rotate(".3")
    file.write(b"3\n")
    file.rotate(".2")
    file.write(b"4\n")
    file.rotate(".1")
    file.write(b"5\n")
    for name, seconds in ((".3", 30), (".2", 20), (".1", 10)):
        age(file.path.with_name(file.path.name + name), seconds)
    assert file.restart() is None
    assert file.new() == [b"2", b"3", b"4", b"5"]


def test_a_compressed_file_is_never_read_as_lines(file: Followed) -> None:
    file.write(b"1\n")
    file.tail.open(None)
    assert file.new() == [b"1"]
    age(file.path, 30)
    file.rotate(".2")
    with gzip.open(file.path.with_name(file.path.name + ".1.gz"), "wb") as compressed:
        compressed.write(b"2\n")
    file.write(b"3\n")
    assert file.new() == [b"3"]


def test_a_file_that_was_copied_and_cut_begins_anew(file: Followed) -> None:
    file.write(b"1\n2\n")
    file.tail.open(None)
    assert file.new() == [b"1", b"2"]
    os.truncate(file.path, 0)
    file.write(b"3\n")
    [line] = file.tail.read(10, 0)
    assert (line.text, line.offset, line.number) == (b"3", 0, 1)
    assert file.tail.place.generation == 2


def test_a_file_that_was_cut_and_has_grown_beyond_is_noticed_all_the_same(file: Followed) -> None:
    file.write(b"1\n2\n")
    file.tail.open(None)
    assert file.new() == [b"1", b"2"]
    os.truncate(file.path, 0)
    file.write(b"3333\n4\n5\n")
    assert file.new() == [b"3333", b"4", b"5"]


def test_a_restart_goes_on_where_it_was(file: Followed) -> None:
    file.write(b"1\n2\n")
    file.tail.open(None)
    assert file.new() == [b"1", b"2"]
    file.write(b"3\n")
    assert file.restart() is None
    assert file.new() == [b"3"]


def test_a_restart_finds_the_file_that_was_renamed_meanwhile(file: Followed) -> None:
    file.write(b"1\n2\n")
    file.tail.open(None)
    assert file.new() == [b"1", b"2"]
    file.write(b"3\n")
    file.rotate("-20261124")
    file.write(b"4\n")
    assert file.restart() is None
    assert file.new() == [b"3", b"4"]


def test_a_file_that_is_gone_is_said(file: Followed) -> None:
    file.write(b"1\n")
    file.tail.open(None)
    assert file.new() == [b"1"]
    place = file.tail.place
    file.rotate("-gone")
    file.write(b"2\n")
    file.path.with_name(file.path.name + "-gone").unlink()
    assert "gone" in (file.restart() or "")
    assert file.new() == [b"2"]
    assert file.tail.place.generation == place.generation + 1


def test_an_inode_that_was_given_to_another_file_is_noticed(file: Followed) -> None:
    file.write(b"other\nlines\n")
    place = Place(file.path.stat().st_ino, 4, offset=6, line=1, tail=b"first\n".hex())
    assert "begun anew" in (file.tail.open(place) or "")
    assert file.tail.place.generation == 5
    assert file.new() == [b"other", b"lines"]


def test_no_file_yet(file: Followed) -> None:
    with pytest.raises(FileNotFoundError):
        file.tail.open(None)


STEPS = st.lists(st.sampled_from(["line", "part", "rename", "restart", "read"]), max_size=40)


@given(steps=STEPS)
def test_whatever_happens_every_line_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """The model: the lines that were written, whatever was renamed between them."""
    file = Followed(tmp_path_factory.mktemp("tail"))
    file.write(b"")
    file.tail.open(None)
    written, read, open_line, name = [], [], b"", 0
    for number, step in enumerate(steps):
        if step == "line":
            file.write(b"%d\n" % number)
            written.append(open_line + b"%d" % number)
            open_line = b""
        elif step == "part":
            file.write(b"%d," % number)
            open_line += b"%d," % number
        elif step == "rename":
            name += 1
            file.rotate(f".{name}")
            file.write(b"")
            age(file.path.with_name(f"{file.path.name}.{name}"), 1000 - name)
            if open_line:
                written.append(open_line)
                open_line = b""
        elif step == "restart":
            assert file.restart() is None
        else:
            read += file.new()
    read += file.new() + file.new() + file.new()
    while more := file.new():
        read += more
    assert read == written
    file.tail.close()
