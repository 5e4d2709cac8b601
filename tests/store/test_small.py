"""A small file that is replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store import small
from gateway.store.files import Files


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    assert small.load(Files(), path) is None
    for content in (b"one", b"", b"three"):
        small.save(Files(), path, content)
        assert small.load(Files(), path) == content
    assert list(path.parent.iterdir()) == [path]


class Failing(Files):
    """Fails at the call of this name."""

    def __init__(self, call: str) -> None:
        def fail(*_: object) -> None:
            raise OSError(28, "no room")

        setattr(self, call, fail)


@pytest.mark.parametrize("call", ["create", "write", "sync", "replace"])
def test_a_failure_leaves_the_old_content(tmp_path: Path, call: str) -> None:
    path = tmp_path / "state.json"
    small.save(Files(), path, b"old")
    with pytest.raises(OSError, match="no room"):
        small.save(Failing(call), path, b"new")
    assert small.load(Files(), path) == b"old"
    small.save(Files(), path, b"newer")
    assert small.load(Files(), path) == b"newer"


def test_the_new_content_is_synced_before_it_takes_the_old_ones_place(tmp_path: Path) -> None:
    calls: list[str] = []

    class Noting(Files):
        def sync(self, file: int) -> None:
            calls.append("sync")
            super().sync(file)

        def replace(self, source: Path, target: Path) -> None:
            calls.append("replace")
            super().replace(source, target)

        def sync_directory(self, directory: Path) -> None:
            calls.append(f"sync {directory.name}")
            super().sync_directory(directory)

    small.save(Noting(), tmp_path / "d" / "f", b"x")
    assert calls == [f"sync {tmp_path.name}", "sync", "replace", "sync d"]
