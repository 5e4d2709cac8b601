from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.broker.shelf import EXTENT_RECORDS, RECORD_BYTES
from gateway.engine.scratch import ScratchFile

SIZE = RECORD_BYTES * EXTENT_RECORDS


def descriptors(directory: Path) -> list[str]:
    """What this process has open in `directory`."""
    names = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(str(directory)):
            names.append(target)
    return names


def test_the_first_extents_are_in_memory_and_the_others_in_a_file_without_a_name(tmp_path: Path) -> None:
    scratch = ScratchFile(str(tmp_path), 2 * SIZE)
    assert scratch.file_extent == 2
    mappings = [scratch.open(number, SIZE) for number in range(2)]
    assert descriptors(tmp_path) == []
    mappings += [scratch.open(number, SIZE) for number in (3, 2)]
    assert len(descriptors(tmp_path)) == 2 + 1  # the mappings have descriptors of their own
    assert os.listdir(tmp_path) == []
    for number, mapping in enumerate(mappings):
        mapping[:4] = mapping[-4:] = number.to_bytes(4, "little")
    assert [mapping[:4] + mapping[-4:] for mapping in mappings] == [n.to_bytes(4, "little") * 2 for n in range(4)]


def test_the_file_goes_with_its_last_extent_and_comes_again(tmp_path: Path) -> None:
    scratch = ScratchFile(str(tmp_path), 0)
    assert scratch.file_extent == 1, "one at least is in memory"
    for _ in range(2):
        mapping = scratch.open(1, SIZE)
        assert descriptors(tmp_path)
        scratch.close(1, mapping)
        assert descriptors(tmp_path) == []
    scratch.open(1, SIZE)
    scratch.end()
    scratch.end()


def test_its_space_is_reserved_before_it_is_mapped(tmp_path: Path) -> None:
    scratch = ScratchFile(str(tmp_path), 0)
    scratch.open(1, SIZE)
    assert os.fstat(scratch._descriptor).st_blocks * 512 >= SIZE


def test_without_space_on_the_disk_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scratch = ScratchFile(str(tmp_path), 0)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with capture_logs() as entries:
        mapping = scratch.open(1, SIZE)
    mapping[:5] = b"bytes"
    assert (scratch.refusals, entries[0]["log_level"]) == (1, "warning")
    scratch.close(1, mapping)
