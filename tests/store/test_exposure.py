"""What others than the owner have rights to is named."""

from __future__ import annotations

from pathlib import Path

from gateway.store.exposure import exposed
from tests.conftest import Log
from tests.store.building import recovered, segments


def test_files_that_others_may_read_and_a_directory_that_they_may_write_to_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o755)
    for name, mode in (("a", 0o600), ("b", 0o640), ("c", 0o602)):
        (directory / name).touch()
        (directory / name).chmod(mode)
    (directory / "link").symlink_to(directory / "b")
    names = ["a", "b", "c", "gone", "link"]
    assert exposed(directory, names) == ["b", "c"]
    directory.chmod(0o770)
    assert exposed(directory, names) == [".", "b", "c"]


def test_a_start_says_so_once_for_all(tmp_path: Path, log: Log) -> None:
    segments(tmp_path, 1)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    recovered(tmp_path)
    [said] = [entry for entry in log if "chmod" in entry["event"]]
    assert (said["files"], said["count"], said["log_level"]) == (["0000000001.log"], 1, "warning")
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    log.clear()
    recovered(tmp_path)
    assert not [entry for entry in log if "chmod" in entry["event"]]
