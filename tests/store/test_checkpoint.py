import errno
from pathlib import Path
from typing import Any

import orjson
import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store.checkpoint import Checkpoint, Kept, save
from gateway.store.files import Files
from gateway.testing.faulty import FaultyFiles

KEPT = (Kept(1, 1, 1, 40, "aa"), Kept(2, 4, 40, 90, "bb"))
BEFORE = Checkpoint("0badf00d", 1, 10, KEPT[:1], {"subscriptions": []})
AFTER = Checkpoint("0badf00d", 2, 4711, KEPT, {"subscriptions": [{"name": "orders", "ranges": [[1, 2]]}]})


def load(files: Files, directory: Path) -> Checkpoint | None:
    return checkpoints.load(files, directory / checkpoints.NAME)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30)
@given(state=st.dictionaries(st.text(max_size=5), plain, max_size=4), segment=st.integers(1, 2**31))
def test_a_checkpoint_comes_back_as_it_was_saved(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any], segment: int
) -> None:
    directory = tmp_path_factory.getbasetemp() / "checkpoint"
    directory.mkdir(exist_ok=True)
    saved = Checkpoint("0badf00d", segment, 2**40, KEPT, state)
    save(Unsynced(), directory, saved)
    assert load(Files(), directory) == saved


class Unsynced(Files):
    """Files in a hurry."""

    def sync(self, file: int) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert load(Files(), tmp_path) is None


def test_the_contents_are_synced_before_the_name_and_the_name_before_the_return(tmp_path: Path) -> None:
    disk = FaultyFiles()
    save(disk, tmp_path, BEFORE)
    assert [call.verb for call in disk.calls] == ["create", "write", "sync", "replace", "sync_directory"]


def test_the_one_before_is_kept_beside_it(tmp_path: Path) -> None:
    for saved in (BEFORE, AFTER, AFTER):
        save(Files(), tmp_path, saved)
    assert checkpoints.load(Files(), tmp_path / checkpoints.OLD_NAME) == AFTER
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint", "checkpoint.old"]


def test_one_left_half_written_by_a_crash_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.tmp").write_bytes(b"half")
    save(Files(), tmp_path, BEFORE)
    assert load(Files(), tmp_path) == BEFORE
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("nth", range(1, 8))
def test_a_crash_at_any_call_leaves_the_old_or_the_new(tmp_path: Path, nth: int, kept: float, names: bool) -> None:
    save(Files(), tmp_path, BEFORE)
    disk = FaultyFiles()
    disk.fail(nth=nth, ever=True, kept=7)
    whole = nth == 7
    if whole:
        save(disk, tmp_path, AFTER)
    else:
        with pytest.raises(OSError, match="Input/output"):
            save(disk, tmp_path, AFTER)
    disk.cut_power(kept=kept, names=names)
    found = load(Files(), tmp_path) or checkpoints.load(Files(), tmp_path / checkpoints.OLD_NAME)
    assert found in ([AFTER] if whole else [BEFORE, AFTER])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failure_keeps_the_old_and_leaves_no_file_open(tmp_path: Path, error: int) -> None:
    save(Files(), tmp_path, BEFORE)
    disk = FaultyFiles()
    disk.fail("write", error=error, kept=5)
    with pytest.raises(OSError, match=r"checkpoint\.tmp"):
        save(disk, tmp_path, AFTER)
    assert disk.open_files == []
    assert load(Files(), tmp_path) == BEFORE


def test_a_wrong_byte_anywhere_is_found(tmp_path: Path) -> None:
    save(Files(), tmp_path, AFTER)
    path = tmp_path / checkpoints.NAME
    good = path.read_bytes()
    for at in range(len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="checkpoint: is damaged"):
            load(Files(), tmp_path)


def test_every_cut_is_found(tmp_path: Path) -> None:
    save(Files(), tmp_path, AFTER)
    path = tmp_path / checkpoints.NAME
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(StoreError, match="checkpoint: is damaged"):
            load(Files(), tmp_path)


def test_one_of_a_later_version_says_so(tmp_path: Path) -> None:
    line = orjson.dumps({"format": 3, "epoch": "x", "segment": 1, "offset": 1, "first": 1, "state": {}})
    (tmp_path / checkpoints.NAME).write_bytes(line + b"\ncrc32c %08x\n" % crc32c(line))
    with pytest.raises(StoreError, match="has format 3, this version reads 2; use the one that wrote it"):
        load(Files(), tmp_path)
