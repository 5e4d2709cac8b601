from pathlib import Path
from random import Random

from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import (
    KILLED,
    Change,
    Contents,
    Cut,
    Named,
    NamesSynced,
    Surface,
    Synced,
    Wrote,
    lay_out,
    ways_of,
)

A_FILE: list[Change] = [Named({"a": 1}), Wrote(1, 0, b"first "), Wrote(1, 6, b"second")]
PUT_IN_PLACE: list[Change] = [
    Named({"old": 1}),
    Wrote(1, 0, b"before"),
    Synced(1),
    NamesSynced(),
    Named({"new": 2}),
    Wrote(2, 0, b"behind"),
    Synced(2),
    Named({"new": None, "old": 2}),
]


def surface_of(*changes: Change) -> Surface:
    surface = Surface()
    for change in changes:
        surface.tell(change)
    return surface


def found(*changes: Change, more: int = 20) -> list[Contents]:
    return [contents for _, contents in ways_of(surface_of(*changes), Random(1), more)]


def test_the_first_way_is_what_a_killed_process_leaves() -> None:
    way, contents = next(iter(ways_of(surface_of(*A_FILE), Random(1))))
    assert (way, contents) == (KILLED, {"a": b"first second"})


def test_what_was_synced_with_its_name_is_there_in_every_way() -> None:
    assert found(*A_FILE, Synced(1), NamesSynced()) == [{"a": b"first second"}]


def test_a_file_whose_name_was_not_synced_may_be_gone() -> None:
    assert found(*A_FILE, Synced(1)) == [{"a": b"first second"}, {}]


def test_what_was_not_synced_may_be_there_in_any_part_and_order() -> None:
    ways = found(*A_FILE, NamesSynced())
    assert {"a": b""} in ways
    assert {"a": b"first "} in ways
    assert {"a": b"\0" * 6 + b"second"} in ways
    assert {"a": b"\0" * 12} in ways
    assert any(0 < len(way["a"]) < 6 for way in ways), "torn"


def test_a_rename_is_there_whole_or_not_at_all() -> None:
    for contents in found(*PUT_IN_PLACE):
        assert contents["old"] in (b"before", b"behind")
        assert contents.get("new", b"behind") == b"behind"


def test_names_overtake_each_other() -> None:
    two: list[Change] = [Named({"a": 1}), Named({"b": 2}), NamesSynced(), Named({"a": None}), Named({"b": None})]
    assert {"a": b""} in found(*two)
    assert {"b": b""} in found(*two)


def test_of_a_first_write_the_beginning_is_never_missing_alone() -> None:
    long: list[Change] = [Named({"a": 1}), NamesSynced(), Wrote(1, 0, b"x" * 5000)]
    assert all(not each["a"].strip(b"\0") or each["a"].startswith(b"x") for each in found(*long))


def test_a_cut_is_pending_until_it_is_synced() -> None:
    whole: list[Change] = [*A_FILE, Synced(1), NamesSynced(), Cut(1, 5)]
    assert found(*whole) == [{"a": b"first"}, {"a": b"first second"}]
    assert found(*whole, Synced(1)) == [{"a": b"first"}]


def test_the_faulty_disk_records_what_was_done_to_it(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"before")
    disk = FaultyFiles(tmp_path)
    file = disk.create(tmp_path / "new")
    disk.write(file, b"behind")
    disk.sync(file)
    disk.close(file)
    disk.replace(tmp_path / "new", tmp_path / "old")
    ways = [contents for _, contents in ways_of(surface_of(*disk.changes), Random(1), 0)]
    assert {"old": b"behind"} in ways
    assert {"old": b"before"} in ways
    assert all(contents["old"] in (b"before", b"behind") for contents in ways)


def test_contents_are_laid_out_as_files_and_nothing_else_stays(tmp_path: Path) -> None:
    lay_out({"a": b"1", "b": b"2"}, tmp_path / "made")
    lay_out({"b": b"3"}, tmp_path / "made")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == {"b": b"3"}
