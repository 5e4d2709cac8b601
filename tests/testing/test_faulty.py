"""The disk of the crash tests: it fails when it is told to, and only then, and notes all that is done to it."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import Cut, Named, NamesSynced, Synced, Wrote


def write(disk: FaultyFiles, path: Path, *parts: bytes) -> None:
    """A new file of so many writes."""
    file = disk.create(path)
    try:
        for part in parts:
            disk.write(file, part)
        disk.sync(file)
    finally:
        disk.close(file)


def test_without_a_fault_it_is_a_disk(tmp_path: Path) -> None:
    disk = FaultyFiles()
    write(disk, tmp_path / "a", b"one", b"two")
    disk.replace(tmp_path / "a", tmp_path / "b")
    file = disk.open(tmp_path / "b", append=True)
    assert (disk.size(file), disk.read(file, 1, 3)) == (6, b"net")
    disk.truncate(file, 4)
    assert disk.map(file)[:] == b"onet"
    assert disk.open_files == ["b"]
    disk.close(file)
    assert (disk.names(tmp_path), disk.open_files) == (["b"], [])
    disk.unlink(tmp_path / "b")
    assert disk.names(tmp_path) == []


def test_every_call_is_noted_and_every_change(tmp_path: Path) -> None:
    disk = FaultyFiles()
    write(disk, tmp_path / "a", b"one")
    disk.sync_directory(tmp_path)
    disk.replace(tmp_path / "a", tmp_path / "b")
    assert disk.verbs("a") == ["create", "write", "sync"]
    assert (disk.count("write"), disk.count("write", "b"), disk.count("sync*")) == (1, 0, 0)
    assert disk.changes == [
        Named({"a": 1}),
        Wrote(1, 0, b"one"),
        Synced(1),
        NamesSynced(),
        Named({"a": None, "b": 1}),
    ]


def test_what_was_there_before_is_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    disk = FaultyFiles(tmp_path)
    assert disk.changes == [Wrote(1, 0, b"old"), Synced(1), Named({"a": 1}), NamesSynced()]
    file = disk.open(tmp_path / "a", append=True)
    disk.truncate(file, 1)
    disk.close(file)
    assert disk.changes[-1] == Cut(1, 1)


@pytest.mark.parametrize("verb", ["create", "write", "sync"])
def test_the_call_that_was_named_fails_and_no_other(tmp_path: Path, verb: str) -> None:
    disk = FaultyFiles()
    disk.fail(verb, nth=2, error=errno.ENOSPC, name="b*")
    write(disk, tmp_path / "a", b"1")
    write(disk, tmp_path / "b1", b"1")
    with pytest.raises(OSError, match="No space left"):
        write(disk, tmp_path / "b2", b"1")
    write(disk, tmp_path / "b3", b"1")


def test_a_fault_that_stays_stays_until_it_is_mended(tmp_path: Path) -> None:
    disk = FaultyFiles()
    disk.fail("write", ever=True)
    for name in "ab":
        with pytest.raises(OSError, match="Input/output"):
            write(disk, tmp_path / name, b"1")
    assert disk.open_files == [], "what is open can always be closed"
    disk.mend()
    write(disk, tmp_path / "c", b"1")


def test_a_write_that_fails_half_way_has_put_that_half_down(tmp_path: Path) -> None:
    disk = FaultyFiles()
    disk.fail("write", nth=2, kept=2)
    with pytest.raises(OSError, match="Input/output"):
        write(disk, tmp_path / "a", b"one", b"two")
    assert (tmp_path / "a").read_bytes() == b"onetw"
    assert disk.changes[1:] == [Wrote(1, 0, b"one"), Wrote(1, 3, b"tw")]


def test_a_call_that_is_held_waits_until_it_is_let_go(tmp_path: Path) -> None:
    disk = FaultyFiles()
    held = disk.hold("sync", "a")
    thread = threading.Thread(target=write, args=(disk, tmp_path / "a", b"1"))
    thread.start()
    assert held.reached.wait(10)
    assert thread.is_alive()
    write(disk, tmp_path / "b", b"1")  # another file does not wait
    held.release()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("kept", "names", "left"),
    [
        (0.0, False, {"a": b"old"}),
        (0.0, True, {"a": b"old", "b": b""}),
        (0.5, True, {"a": b"oldne", "b": b"12"}),
        (1.0, True, {"a": b"oldnew!", "b": b"1234"}),
    ],
)
def test_a_power_cut_leaves_what_was_synced_and_so_much_of_the_rest(
    tmp_path: Path, kept: float, names: bool, left: dict[str, bytes]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    disk = FaultyFiles()
    file = disk.open(tmp_path / "a", append=True)
    disk.write(file, b"new!")
    disk.close(file)
    file = disk.create(tmp_path / "b")
    disk.write(file, b"1234")
    disk.close(file)
    disk.cut_power(kept=kept, names=names)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == left
