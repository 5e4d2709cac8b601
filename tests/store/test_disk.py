from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from gateway.store.disk import Disk


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.close()


async def carry_out(disk: Disk, job: Callable[[], None]) -> None:
    disk.begin(job)
    with trio.fail_after(5):
        while not disk.finished:
            await trio.lowlevel.wait_readable(disk.descriptor)
            disk.acknowledge()


async def test_jobs_are_done_one_after_the_other_off_the_run_loop(disk: Disk) -> None:
    done: list[int] = []
    threads: set[int] = set()
    for number in range(20):

        def job(number: int = number) -> None:
            done.append(number)
            threads.add(threading.get_ident())

        await carry_out(disk, job)
    assert done == list(range(20))
    assert len(threads - {threading.get_ident()}) == 1


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), TypeError("a mistake of ours")])
async def test_whatever_a_job_raises_is_told_and_the_next_is_done(disk: Disk, error: Exception) -> None:
    def fails() -> None:
        raise error

    await carry_out(disk, fails)
    assert disk.error is error
    await carry_out(disk, lambda: None)
    assert disk.error is None


async def test_a_job_can_say_something_before_it_is_over(disk: Disk) -> None:
    go_on = threading.Event()

    def job() -> None:
        disk.tell()
        go_on.wait(5)

    disk.begin(job)
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(disk.descriptor)
    disk.acknowledge()
    assert not disk.finished
    go_on.set()
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(disk.descriptor)
    assert disk.finished


def test_a_disk_that_never_had_a_job_is_closed_too() -> None:
    Disk().close()


# -------------------------------------------------------------------------------------------------------- appends


@pytest.fixture
def ringed() -> Iterator[Disk]:
    disk = Disk(uring=True)
    if not disk.appends:
        pytest.skip("no io_uring here")
    yield disk
    disk.close()


async def finish(disk: Disk) -> None:
    with trio.fail_after(5):
        while not disk.finished:
            await trio.lowlevel.wait_readable(disk.descriptor)
            disk.acknowledge()


async def test_appends_and_jobs_take_turns(ringed: Disk, tmp_path: Path) -> None:
    done: list[int] = []
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    for number in range(10):
        assert ringed.append(file, b"%d" % number)
        await finish(ringed)
        assert (ringed.error, ringed.appended) == (None, 1)
        await carry_out(ringed, lambda number=number: done.append(number))  # type: ignore[misc]
    assert os.pread(file, 100, 0) == b"0123456789"
    assert done == list(range(10))
    os.close(file)


async def test_an_append_that_finds_no_room_leaves_all_of_it_to_a_job(ringed: Disk) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    assert ringed.append(full, b"x")
    await finish(ringed)
    assert (ringed.error, ringed.appended, ringed.appends) == (None, 0, True)
    os.close(full)


async def test_an_append_that_fails_says_why(ringed: Disk, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    assert ringed.append(file, b"x")
    await finish(ringed)
    assert isinstance(ringed.error, OSError)
    assert ringed.error.errno == errno.EBADF
    os.close(file)


async def test_a_file_system_that_cannot_do_it_is_not_asked_again(ringed: Disk) -> None:
    ring = ringed._ring
    assert ring is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ring, "append", lambda _file, _data: os.eventfd_write(ringed.descriptor, 1))
        patched.setattr(ring, "result", lambda: -errno.EOPNOTSUPP)
        assert ringed.append(0, b"x")
        await finish(ringed)
    assert (ringed.error, ringed.appended, ringed.appends) == (None, 0, False)
    assert not ringed.append(0, b"x")


async def test_where_the_kernel_takes_nothing_the_thread_does(
    ringed: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_file: int, _data: bytes) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(ringed._ring, "append", refuse)
    assert not ringed.append(0, b"x")
    assert not ringed.appends
    await carry_out(ringed, (tmp_path / "done").touch)
    assert (tmp_path / "done").exists()


def test_without_io_uring_there_are_no_appends(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr("gateway.store.disk.Uring", refuse)
    disk = Disk(uring=True)
    assert not disk.appends
    disk.close()
