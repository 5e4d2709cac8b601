import threading
from collections.abc import Callable, Iterator

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
