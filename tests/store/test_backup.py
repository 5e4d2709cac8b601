"""A backup is a store as it was at one moment, whatever the gateway does meanwhile; and the way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreError, StoreLockedError
from gateway.store import survey
from gateway.store.backup import Copied, backup
from gateway.store.files import Files
from gateway.store.manifest import read_manifest
from gateway.store.record import Kind
from gateway.store.recovery import segment_name
from gateway.store.restore import restore
from gateway.store.verify import verify
from tests.store.building import (
    NOW_MS,
    SegmentFile,
    locked,
    recovered,
    save_checkpoint,
    segments,
)


def backed_up(store: Path, target: Path, files: Files | None = None) -> Copied:
    return backup(files or Files(), store, target, NOW_MS, lambda _: None)


def restored(source: Path, directory: Path) -> Path:
    restore(Files(), source, directory, lambda _: None)
    return directory


def positions(directory: Path) -> list[int]:
    return recovered(directory)[1].there


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two sealed segments with hint files, an active one, a checkpoint in it, and what other rooms keep."""
    directory = tmp_path / "store"
    directory.mkdir()
    built = segments(directory, 6, 6, 4)
    recovered(directory)
    save_checkpoint(directory, 3, built[2].offsets[1], kept=built)
    (directory / "sources").mkdir()
    (directory / "sources" / "outbox.json").write_bytes(b"at 7")
    (directory / "trace").mkdir()
    (directory / "trace" / "trace-000000000001.log").write_bytes(b"not the store")
    return directory


def add_segment(directory: Path, number: int, base: int) -> SegmentFile:
    """What is active is sealed, and another begins."""
    file = SegmentFile.begin(number, base)
    file.route(1, "trade.paid", [1])
    file.messages(3)
    file.write(directory)
    recovered(directory)
    return file


def test_what_is_restored_is_the_store(store: Path, tmp_path: Path) -> None:
    before = contents_of_files(store)
    done = backed_up(store, tmp_path / "backup")
    assert done.files == 7
    assert contents_of_files(store) == before
    again = restored(tmp_path / "backup", tmp_path / "again")
    there = contents_of_files(again)
    assert there.keys() == before.keys() | {"lock"}
    assert {name: there[name] for name in before} == before
    assert (again / "sources" / "outbox.json").read_bytes() == b"at 7"
    assert not (again / "trace").exists()
    assert verify(Files(), again, lambda _: None).lost == []
    assert positions(again) == list(range(1, 17))


def contents_of_files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}


def test_what_was_copied_and_is_sealed_is_not_copied_again(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    assert backed_up(store, tmp_path / "backup") == Copied(0, 0, 7, 0)
    add_segment(store, 4, 17)
    done = backed_up(store, tmp_path / "backup")
    assert (done.files, done.kept, done.deleted) == (3, 6, 1)  # segment 3 sealed and its hint, and 4; 3 as it was goes
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(1, 20))


def merged_in_place(store: Path) -> SegmentFile:
    """Another segment 1, of the same length."""
    path = store / segment_name(1)
    other = SegmentFile.begin(1, 1, uid="f" * 16)
    other.route(1, "trade.paid", [1])
    other.messages(6)
    assert len(other.data) == path.stat().st_size
    other.write(store)
    (store / "0000000001.hint").unlink()
    return other


def test_a_sealed_segment_of_the_same_name_that_is_another_is_copied(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    other = merged_in_place(store)
    done = backed_up(store, tmp_path / "backup")
    assert (done.files, done.deleted) == (1, 2)
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert (again / segment_name(1)).read_bytes() == other.data
    assert backed_up(store, tmp_path / "backup").files == 0


def test_an_interrupted_run_writes_over_no_segment_that_was_merged_since(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    before = (store / segment_name(1)).read_bytes()
    merged_in_place(store)

    class Ends(Files):
        def replace(self, source: Path, target: Path) -> None:
            if target.name == "backup.json":
                raise KilledError
            super().replace(source, target)

    with pytest.raises(KilledError):
        backed_up(store, tmp_path / "backup", Ends())
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert (again / segment_name(1)).read_bytes() == before


def test_a_sealed_segment_that_was_cut_short_does_not_replace_the_copy_that_is_whole(
    store: Path, tmp_path: Path
) -> None:
    whole = (store / segment_name(1)).read_bytes()
    backed_up(store, tmp_path / "backup")
    (store / segment_name(1)).write_bytes(whole[:-10])
    backed_up(store, tmp_path / "backup")
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert (again / segment_name(1)).read_bytes() == whole
    assert verify(Files(), again, lambda _: None).lost == []


def test_what_the_checkpoint_does_not_name_any_more_goes_from_the_backup(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    (tmp_path / "backup" / "note.txt").write_text("mine")
    [_, second, third] = read_back(store)
    save_checkpoint(store, 3, third.offsets[1], kept=[second, third])
    assert backed_up(store, tmp_path / "backup").deleted == 3  # the segment, its hint file, and the old checkpoint
    names = [path.name for path in (tmp_path / "backup").iterdir()]
    assert segment_name(1) not in names
    assert "note.txt" in names
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(7, 17))


def read_back(store: Path) -> list[SegmentFile]:
    """The segments of the fixture, as they were built."""
    other = store.parent / "built"
    other.mkdir(exist_ok=True)
    return segments(other, 6, 6, 4)


def test_the_active_segment_ends_at_its_last_whole_record(store: Path, tmp_path: Path) -> None:
    path = store / segment_name(3)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-60:-10])
    backed_up(store, tmp_path / "backup")
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert (again / segment_name(3)).read_bytes() == whole
    assert recovered(again)[0].cut_bytes == 0


def test_a_damaged_end_that_the_checkpoint_knows_of_is_still_damage(store: Path, tmp_path: Path) -> None:
    built = read_back(store)
    third = built[2]
    third.add(Kind.SETTLE, b"of no message: no position is missing without it", number=1)
    save_checkpoint(store, 3, len(third.data), kept=built)
    data = bytearray(third.data)
    data[-5] ^= 1
    (store / segment_name(3)).write_bytes(data)
    backed_up(store, tmp_path / "backup")
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert verify(Files(), again, lambda _: None).lost != []


class Busy(Files):
    """A gateway that does something just before a file of the store is opened for the first time."""

    def __init__(self, name: str, deed: Callable[[], Any]) -> None:
        self._name = name
        self._deed: Callable[[], Any] | None = deed

    def open(self, path: Path, *, append: bool = False) -> int:
        if path.name == self._name and path.parent.name == "store" and self._deed is not None:
            deed, self._deed = self._deed, None
            deed()
        return super().open(path, append=append)


def let_go_of_the_first(store: Path) -> None:
    """As two checkpoints would that do not name it."""
    [_, second, third] = read_back(store)
    for offset in third.offsets[1:3]:
        save_checkpoint(store, 3, offset, kept=[second, third])
    (store / segment_name(1)).unlink()
    (store / "0000000001.hint").unlink()


@pytest.mark.parametrize("name", [segment_name(1), segment_name(2), "checkpoint", segment_name(3)])
def test_a_segment_is_deleted_meanwhile(store: Path, tmp_path: Path, name: str) -> None:
    backed_up(store, tmp_path / "backup", Busy(name, lambda: let_go_of_the_first(store)))
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert positions(again)[-10:] == list(range(7, 17))
    assert verify(Files(), again, lambda _: None).lost == []


@pytest.mark.parametrize("name", [segment_name(1), segment_name(3), "checkpoint"])
def test_a_segment_is_sealed_meanwhile(store: Path, tmp_path: Path, name: str) -> None:
    backed_up(store, tmp_path / "backup", Busy(name, lambda: add_segment(store, 4, 17)))
    again = restored(tmp_path / "backup", tmp_path / "again")
    there = positions(again)
    assert there == list(range(1, len(there) + 1))
    assert len(there) >= 16


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_segment_is_merged_meanwhile(store: Path, tmp_path: Path, nth: int) -> None:
    """At any time between the look at its header and the copy of its hint file; the merged one is longer here."""
    opened: list[Path] = []

    class Merges(Files):
        def open(self, path: Path, *, append: bool = False) -> int:
            if path == store / segment_name(1):
                opened.append(path)
                if len(opened) == nth:
                    self._merge()
            return super().open(path, append=append)

        def _merge(self) -> None:
            file = SegmentFile.begin(1, 1, last=2, end=13, uid="f" * 16)
            file.route(1, "trade.paid", [1])
            file.messages(12, each=1)
            file.write(store)
            (store / "0000000001.hint").unlink()

    backed_up(store, tmp_path / "backup", Merges())
    manifest = read_manifest(Files(), tmp_path / "backup")
    assert manifest is not None
    assert manifest.files[segment_name(1)].uid == "f" * 16
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert (again / segment_name(1)).read_bytes() == (store / segment_name(1)).read_bytes()
    assert positions(again) == list(range(1, 17))


def test_between_the_checkpoint_and_the_names_a_segment_is_deleted(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is found missing then: what the copied checkpoint names is compared with what is there."""
    looks: list[int] = []

    def look(files: Files, directory: Path) -> Any:
        looks.append(1)
        if len(looks) == 2:  # the first is before anything is copied
            let_go_of_the_first(store)
        return real(files, directory)

    real = survey.look
    monkeypatch.setattr("gateway.store.backup.look", look)
    backed_up(store, tmp_path / "backup")
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(7, 17))


def test_a_store_that_misses_a_segment_is_not_backed_up(store: Path, tmp_path: Path) -> None:
    (store / segment_name(2)).unlink()
    with pytest.raises(StoreError, match="verify"):
        backed_up(store, tmp_path / "backup")


class KilledError(Exception):
    """The run ends here."""


def test_an_interrupted_run_leaves_the_backup_before_it(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    add_segment(store, 4, 17)
    for stop in range(1, 4):
        calls: list[int] = []

        def progress(size: int, stop: int = stop, calls: list[int] = calls) -> None:
            calls.append(size)
            if len(calls) == stop:
                raise KilledError

        with pytest.raises(KilledError):
            backup(Files(), store, tmp_path / "backup", NOW_MS, progress)
        again = restored(tmp_path / "backup", tmp_path / f"again{stop}")
        assert positions(again) == list(range(1, 17))
    backed_up(store, tmp_path / "backup")
    assert not list((tmp_path / "backup").glob("*.part"))
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(1, 20))


def test_a_first_run_that_was_interrupted_is_no_backup_and_can_be_gone_on_with(store: Path, tmp_path: Path) -> None:
    def progress(_: int) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        backup(Files(), store, tmp_path / "backup", NOW_MS, progress)
    with pytest.raises(StoreError, match="ever finished"):
        restored(tmp_path / "backup", tmp_path / "again")
    backed_up(store, tmp_path / "backup")
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(1, 17))


def test_a_new_store_without_a_checkpoint_is_backed_up(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    segments(tmp_path / "store", 4, 2)
    backed_up(tmp_path / "store", tmp_path / "backup")
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(1, 7))


def test_a_damaged_checkpoint_is_not_copied_over_a_good_one(store: Path, tmp_path: Path) -> None:
    built = read_back(store)
    save_checkpoint(store, 3, built[2].offsets[2], kept=built)
    (store / "checkpoint").write_bytes(b"damaged")
    backed_up(store, tmp_path / "backup")
    assert positions(restored(tmp_path / "backup", tmp_path / "again")) == list(range(1, 17))


def test_a_backup_of_another_store_is_refused(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    (tmp_path / "other").mkdir()
    SegmentFile.begin(epoch="feedface").write(tmp_path / "other")
    with pytest.raises(StoreError, match="of another store"):
        backed_up(tmp_path / "other", tmp_path / "backup")


def test_a_directory_with_something_else_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "letter").write_text("dear")
    with pytest.raises(StoreError, match="holds letter"):
        backed_up(store, tmp_path / "papers")
    with pytest.raises(StoreError, match="the store itself"):
        backed_up(store, store)
    backed_up(store, tmp_path / "backup")
    with pytest.raises(StoreError, match="not empty"):
        restored(tmp_path / "backup", tmp_path / "papers")


def test_two_at_once_are_refused(store: Path, tmp_path: Path) -> None:
    backed_up(store, tmp_path / "backup")
    with locked(tmp_path / "backup") as pid, pytest.raises(StoreError, match=f"process {pid}"):
        backed_up(store, tmp_path / "backup")
    (tmp_path / "again").mkdir()
    with locked(tmp_path / "again") as pid, pytest.raises(StoreLockedError, match=f"process {pid}"):
        restored(tmp_path / "backup", tmp_path / "again")


@pytest.mark.parametrize("name", [segment_name(1), "checkpoint"])
def test_a_damaged_backup_is_not_restored_and_leaves_nothing(store: Path, tmp_path: Path, name: str) -> None:
    backed_up(store, tmp_path / "backup")
    manifest = read_manifest(Files(), tmp_path / "backup")
    assert manifest is not None
    path = tmp_path / "backup" / manifest.files[name].name
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        restored(tmp_path / "backup", tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["lock"]


def test_where_there_is_no_backup_that_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no backup"):
        restored(store, tmp_path / "again")


def test_a_store_that_was_restored_in_part_is_refused_by_the_gateway(store: Path, tmp_path: Path) -> None:
    class Ends(Files):
        names_given = 0

        def replace(self, source: Path, target: Path) -> None:
            self.names_given += 1
            if self.names_given == 3:
                raise KilledError
            super().replace(source, target)

    backed_up(store, tmp_path / "backup")
    with pytest.raises(KilledError):
        restore(Ends(), tmp_path / "backup", tmp_path / "again", lambda _: None)
    with pytest.raises(StoreError, match="is missing"):
        recovered(tmp_path / "again")
