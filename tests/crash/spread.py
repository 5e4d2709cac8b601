"""Many cases, each judged by itself: a sample in this process, all of them by one process for each processor."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import structlog
import trio

Case = TypeVar("Case")
Judge = Callable[[Path, Case], Awaitable[list[str]]]
"""What is broken in this case, in words; the directory is its own to write to, and may have the files of the last."""
Say = Callable[[str], None]

CHUNK: Final = 16
"""Cases that a process takes at once: few enough for what has been found to be said soon."""
_SAY_S: Final = 15.0


async def judge_some(judge: Judge[Case], cases: Sequence[Case], directory: Path) -> list[str]:
    """All that is broken, in this process."""
    return [said for case in cases for said in await judge(directory, case)]


async def judge_all(judge: Judge[Case], cases: Sequence[Case], say: Say, processes: int | None = None) -> list[str]:
    """The same over processes; how far it is, and whatever is broken, is said as it goes on. `judge` has a name of its
    module's. A case that raises is broken, and the others go on."""
    return await trio.to_thread.run_sync(_judge_all, judge, cases, say, processes or os.cpu_count() or 1)


def _judge_all(judge: Judge[Case], cases: Sequence[Case], say: Say, processes: int) -> list[str]:
    broken: list[str] = []
    done, said_s = 0, time.monotonic()
    context = multiprocessing.get_context("spawn")  # a fork of this process would have its threads' locks, held
    with ProcessPoolExecutor(processes, context, _begin) as pool:
        futures = {pool.submit(_judge_chunk, judge, chunk): len(chunk) for chunk in _chunks(cases)}
        for future in as_completed(futures):
            found = future.result()
            broken += found
            done += futures[future]
            for each in found:
                say(f"BROKEN {each}")
            if time.monotonic() - said_s > _SAY_S or done == len(cases):
                said_s = time.monotonic()
                say(f"{done:,} of {len(cases):,} judged, {len(broken)} broken")
    return broken


def _chunks(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for at in range(0, len(cases), CHUNK):
        yield cases[at : at + CHUNK]


# ------------------------------------------------------------------------------------------- in a process of the pool

_unraisable: Final[list[str]] = []


def _begin() -> None:
    """As strict as the suite is of itself: a warning is an error. What is logged is dropped."""
    warnings.simplefilter("error")
    sys.unraisablehook = lambda hook: _unraisable.append(repr(hook.exc_value))
    structlog.configure(processors=[_drop])


def _drop(*_: Any) -> NoReturn:
    raise structlog.DropEvent


def _judge_chunk(judge: Judge[Case], cases: Sequence[Case]) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="gateway-crash-") as directory:
        return trio.run(_judge_each, judge, cases, Path(directory))


async def _judge_each(judge: Judge[Case], cases: Sequence[Case], directory: Path) -> list[str]:
    broken: list[str] = []
    for case in cases:
        try:
            broken += await judge(directory, case)
        except Exception:  # it has broken more than a promise
            broken.append(traceback.format_exc())
        broken += [f"nobody could be told of {each}" for each in _unraisable]
        _unraisable.clear()
    return broken
