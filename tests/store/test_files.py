import os
from pathlib import Path

import pytest

from gateway.store.files import Files
from tests.store.building import locked


@pytest.fixture
def files() -> Files:
    return Files()


def test_a_write_is_whole_however_little_the_kernel_takes_at_a_time(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = files.create(tmp_path / "a")
    write = os.write
    monkeypatch.setattr("os.write", lambda file, data: write(file, data[:3]))
    files.write(file, b"more than three bytes")
    monkeypatch.undo()
    assert files.read(file, 0, 100) == b"more than three bytes"
    files.close(file)


def test_a_read_is_whole_however_little_the_kernel_gives_at_a_time(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = files.open(tmp_path / "a")
    pread = os.pread
    monkeypatch.setattr("os.pread", lambda file, size, offset: pread(file, min(size, 3), offset))
    assert files.read(file, 1, 8) == b"12345678"
    assert files.read(file, 5, 100) == b"56789"
    assert files.read(file, 10, 5) == b""
    files.close(file)


def test_writes_go_to_the_end_even_behind_a_cut(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = files.open(tmp_path / "a", append=True)
    files.truncate(file, 4)
    files.write(file, b"abc")
    files.close(file)
    assert (tmp_path / "a").read_bytes() == b"0123abc"


def test_a_new_file_never_takes_the_place_of_another(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"here")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "a")


def test_what_the_store_makes_is_for_its_owner_alone(files: Files, tmp_path: Path) -> None:
    files.make_directory(tmp_path / "deep" / "store")
    file = files.create(tmp_path / "deep" / "store" / "a")
    lock = files.lock(tmp_path / "deep" / "store" / "lock")
    assert isinstance(lock, int)
    modes = [
        path.stat().st_mode & 0o077 for path in (tmp_path / "deep" / "store", *(tmp_path / "deep/store").iterdir())
    ]
    assert modes == [0, 0, 0]
    files.close(file)
    files.close(lock)


def test_a_map_shows_the_whole_file_and_cannot_change_it(files: Files, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    file = files.open(tmp_path / "a")
    with files.map(file) as data:
        assert data[:] == b"abc"
        with pytest.raises(TypeError):
            data[0] = 1
    files.close(file)


def test_the_lock_is_one_process_s_and_names_it(files: Files, tmp_path: Path) -> None:
    with locked(tmp_path) as holder:
        assert files.lock(tmp_path / "lock") == str(holder)


def test_the_lock_of_a_dead_process_is_free(files: Files, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("12345678\n")
    lock = files.lock(tmp_path / "lock")
    assert isinstance(lock, int)
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    assert files.lock(tmp_path / "lock") == str(os.getpid())
    files.close(lock)
