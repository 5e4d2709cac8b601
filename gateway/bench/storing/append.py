"""The log against a bare writer: the same bytes, in turns, in one directory, each with one write and one fdatasync."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import attrs
import msgspec
import trio

from gateway.bench.layout import Layout
from gateway.bench.storing.fill import Nobody, now_ms
from gateway.broker.body import compose_plain
from gateway.config import Store
from gateway.model import Message
from gateway.store.files import Files
from gateway.store.log import Log

TOPIC: Final = "storing.t0"
ROUNDS: Final = 5
_GATHERED_BYTES: Final = 1024 * 1024
"""So much waits at most while the log is kept busy: a few commits."""


@attrs.frozen(kw_only=True)
class Appended:
    """One size of batch. `ratio` is the log's rate by the bare writer's; medians of rounds taken in turns."""

    batch: int
    gathered: bool
    """Batches go on coming while one is synced; else each waits for the one before."""
    bytes_a_commit: int
    messages_per_s: float
    bytes_per_s: float
    bare_bytes_per_s: float
    ratio: float
    cpu_us_per_message: float
    """Of this process, the disk thread included; building the delivery JSON too."""


@attrs.frozen
class _Round:
    messages: int
    size: int
    commits: int
    seconds: float
    cpu_s: float


async def measure(directory: Path, batches: list[int], seconds: float, tell: Callable[[str], None]) -> list[Appended]:
    """For each size of batch, one after the other and gathered."""
    found: list[Appended] = []
    for batch in batches:
        for gathered in (False, True):
            tell(f"append: batches of {batch}, {'gathered' if gathered else 'one after the other'}")
            found.append(await _one(directory, batch, gathered, seconds / ROUNDS / 2))
    return found


async def _one(directory: Path, batch: int, gathered: bool, seconds: float) -> Appended:
    messages = [Message(TOPIC, data=msgspec.Raw(Layout(TOPIC, 256).payload(0)))] * batch
    rounds: list[tuple[_Round, float]] = []
    log = Log(Store(directory=str(directory / f"log-{batch}-{gathered}"), cache_bytes=0))
    await trio.to_thread.run_sync(log.open, Nobody(), now_ms())
    try:
        log.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            await log.sync()
            for _ in range(ROUNDS):
                round_ = await _log_round(log, messages, gathered, seconds)
                bare = await trio.to_thread.run_sync(_bare_round, directory / "bare", round_, seconds)
                rounds.append((round_, bare))
            nursery.cancel_scope.cancel()
    finally:
        await trio.to_thread.run_sync(log.close)
    return _summary(batch, gathered, rounds)


async def _log_round(log: Log, messages: list[Message], gathered: bool, seconds: float) -> _Round:
    statistics = log.statistics
    commits, size, done = statistics.commits, statistics.bytes, 0
    began, cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        log.begin(now_ms())
        bodies = compose_plain(TOPIC, messages, log.end, log.epoch, now_ms())
        log.messages(bodies, log.route(TOPIC, (1,)))
        done += len(messages)
        if not gathered or log.pending_bytes > _GATHERED_BYTES:
            await log.sync()
        else:
            await trio.lowlevel.checkpoint()
    await log.sync()
    passed, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
    return _Round(done, statistics.bytes - size, statistics.commits - commits, passed, cpu_s)


def _bare_round(path: Path, round_: _Round, seconds: float) -> float:
    """Bytes a second of a loop that writes as much as a commit of the log did, and syncs."""
    data = bytes(round_.size // max(1, round_.commits))
    written = 0
    with _appending(path) as file:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            os.write(file, data)
            os.fdatasync(file)
            written += len(data)
        return written / (time.monotonic() - began)


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    """A new file with its blocks reserved, as a segment has them."""
    path.unlink(missing_ok=True)
    files = Files()
    file = files.create(path)
    try:
        files.reserve(file, Store().segment_bytes)
        yield file
    finally:
        files.close(file)
        path.unlink()


def _summary(batch: int, gathered: bool, rounds: list[tuple[_Round, float]]) -> Appended:
    logs = [round_ for round_, _ in rounds]
    return Appended(
        batch=batch,
        gathered=gathered,
        bytes_a_commit=sum(each.size for each in logs) // max(1, sum(each.commits for each in logs)),
        messages_per_s=median(each.messages / each.seconds for each in logs),
        bytes_per_s=median(each.size / each.seconds for each in logs),
        bare_bytes_per_s=median(bare for _, bare in rounds),
        ratio=median(each.size / each.seconds / bare for each, bare in rounds),
        cpu_us_per_message=1e6 * sum(each.cpu_s for each in logs) / max(1, sum(each.messages for each in logs)),
    )
