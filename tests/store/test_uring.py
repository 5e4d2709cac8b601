from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.uring import Uring


@pytest.fixture
def descriptor() -> Iterator[int]:
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def ring(descriptor: int) -> Iterator[Uring]:
    try:
        ring = Uring(descriptor)
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    yield ring
    ring.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield file
    os.close(file)


def ended(ring: Uring, descriptor: int) -> int:
    """The result of the append that is under way."""
    assert select.select([descriptor], [], [], 5)[0]
    os.eventfd_read(descriptor)
    result = ring.result()
    assert result is not None
    return result


def test_bytes_are_appended_one_time_after_the_other(ring: Uring, descriptor: int, file: int) -> None:
    expected = b""
    for number in range(20):  # the rings have room for one or two, and turn over
        data = bytes([number]) * (1 + 5000 * number)
        ring.append(file, data)
        assert ended(ring, descriptor) == len(data)
        expected += data
    assert os.pread(file, len(expected) + 1, 0) == expected
    assert ring.result() is None


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH], ids=["read-only", "a path only"])
def test_what_cannot_be_written_says_why(ring: Uring, descriptor: int, tmp_path: Path, flags: int) -> None:
    (tmp_path / "other").write_bytes(b"as it was")
    file = os.open(tmp_path / "other", flags)
    try:
        ring.append(file, b"x")
        assert ended(ring, descriptor) == -errno.EBADF
    finally:
        os.close(file)
    assert (tmp_path / "other").read_bytes() == b"as it was"


def test_a_full_disk_says_so(ring: Uring, descriptor: int) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ring.append(full, b"x")
        assert ended(ring, descriptor) == -errno.ENOSPC
    finally:
        os.close(full)


def test_where_the_ring_cannot_be_made_nothing_is_left_open(tmp_path: Path) -> None:
    file = os.open(tmp_path / "no eventfd", os.O_RDWR | os.O_CREAT)
    before = os.listdir("/proc/self/fd")
    try:
        with pytest.raises(OSError):  # noqa: PT011  # which one depends on whether there is io_uring at all
            Uring(file)
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(file)
