"""The parts of the measurement: each fills what it needs, measures, and gives rows and plain data."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from gateway.bench.storing import append, beside, copies, drain
from gateway.bench.storing.fill import NAME, Filled, Filling, Settled, fill
from gateway.bench.storing.server import Memory, Running, forget_pages, gateway_over

MIB: Final = 1024 * 1024
_MESSAGE_BYTES: Final = 350
_SEALED: Final = 4
Row = tuple[str, str, str]
"""What, how much, and what to know of it."""


@attrs.frozen
class Part:
    """What one part found."""

    name: str
    rows: list[Row]
    plain: dict[str, Any]


@attrs.frozen
class Place:
    """Where stores are made and removed again, and who hears how far it is."""

    directory: Path
    say: Callable[[str], None]
    count: Callable[[str, int, int], None]
    """What, how many are done, of how many."""

    async def filled(self, name: str, filling: Filling, *, crashed: bool = False) -> tuple[Path, Filled]:
        store = self.directory / name
        tell = partial(self._told, f"filling {name}", filling.messages)
        return store, await fill(store, filling, tell, crashed=crashed)

    def _told(self, what: str, total: int, done: int) -> None:
        self.count(what, done, total)

    def remove(self, store: Path) -> None:
        shutil.rmtree(store)


def names_of(filling: Filling) -> list[str]:
    return [NAME.format(number=number) for number in range(filling.subscriptions)]


# ------------------------------------------------------------------------------------------------------- parts


async def appended(place: Place, batches: Sequence[int], seconds: float) -> Part:
    found = await append.measure(place.directory, list(batches), seconds, place.say)
    rows = [
        (
            f"batches of {each.batch}, {'gathered' if each.gathered else 'one by one'}",
            f"{each.messages_per_s:,.0f}/s · {each.bytes_per_s / 1e6:,.1f} MB/s",
            f"{each.ratio:.2f} of a bare writer's {each.bare_bytes_per_s / 1e6:,.1f} MB/s; "
            f"{each.bytes_a_commit:,} bytes a commit, {each.cpu_us_per_message:.1f} us CPU a message",
        )
        for each in found
    ]
    return Part("append", rows, {"append": [attrs.asdict(each) for each in found]})


async def sized(place: Place, batches: Sequence[int], messages: int) -> Part:
    """Segments are small, so that nearly all of them are sealed and have their hint files."""
    rows: list[Row] = []
    plain: list[dict[str, Any]] = []
    for batch in batches:
        place.say(f"size: batches of {batch}")
        filling = Filling(messages=messages, batch=batch, segment_bytes=MIB)
        store, filled = await place.filled(f"size-{batch}", filling)
        place.remove(store)
        log, hints = filled.log_bytes / messages, filled.hint_bytes / messages
        note = f"{log:.1f} in segments, {hints:.1f} in hint files"
        rows.append((f"256-byte messages, batches of {batch}", f"{log + hints:.1f} bytes each", note))
        plain.append({"batch": batch, "log_bytes": log, "hint_bytes": hints})
    return Part("size", rows, {"size": plain})


async def restarted(place: Place, messages: int) -> Part:
    """Three starts: behind a kill -9, behind an orderly end, and that with nothing in the page cache."""
    filling = Filling(messages=messages, settled=Settled.HALF)
    empty, _ = await place.filled("restart-empty", Filling(messages=1))
    store, filled = await place.filled("restart", filling, crashed=True)
    starts: list[tuple[str, Running, Memory]] = []
    for what, directory, cold in (
        ("an empty store", empty, False),
        ("behind a kill -9", store, False),
        ("behind an orderly end", store, False),
        ("and nothing in the page cache", store, True),
    ):
        place.say(f"restart: {what}")
        starts.append((what, *await trio.to_thread.run_sync(_start, directory, cold)))
    place.remove(store)
    place.remove(empty)
    title = f"{messages:,} messages, {filled.settled:,} settled at random, 10 subscriptions"
    rows: list[Row] = [(title, f"{filled.seconds:.0f} s to fill", _extent(filled))]
    for what, run, memory in starts:
        rows.append((f"start: {what}", f"{run.ready_s:.2f} s to /readyz", f"{run.cpu_s:.2f} s CPU"))
        rows.append(("  resident", _mib(memory.resident_bytes), _memory(memory)))
    plain = [
        {"start": what, "ready_s": run.ready_s, "cpu_s": run.cpu_s, **attrs.asdict(memory)}
        for what, run, memory in starts
    ]
    return Part("restart", rows, {"restart": {"filled": attrs.asdict(filled), "starts": plain}})


def _start(store: Path, cold: bool) -> tuple[Running, Memory]:
    if cold:
        forget_pages(store)
    with gateway_over(store) as running:
        return running, running.memory()


async def waited(place: Place, messages: int) -> Part:
    """Resident memory, and the first message of each of ten consumers, before and behind them."""
    filling = Filling(messages=messages)
    store, filled = await place.filled("backlog", filling)
    place.say("backlog: first messages")
    forget_pages(store)
    with gateway_over(store) as running:
        at_start = running.memory()
        firsts = [await drain.first_message_s(running.target, name) for name in names_of(filling)]
        again = [await drain.first_message_s(running.target, name) for name in names_of(filling)]
        pulls = [await drain.first_pull_s(running.target, name) for name in names_of(filling)]
        count = min(messages // 4, 1_000_000)
        place.say(f"backlog: {count:,} messages to ten consumers")
        rate = await drain.drain(running.target, names_of(filling), count)
        behind = running.memory()
    place.remove(store)
    rows: list[Row] = [
        (f"{messages:,} wait, 10 subscriptions", f"{filled.seconds:.0f} s to fill", _extent(filled)),
        ("resident, at the start", _mib(at_start.resident_bytes), _memory(at_start)),
        ("resident, behind the consumers", _mib(behind.resident_bytes), _memory(behind)),
        ("first message, cold", _milliseconds(firsts), "ten new consumers, files not in the page cache"),
        ("first message, warm", _milliseconds(again), "ten more"),
        ("first pull", _milliseconds(pulls), "HTTP"),
        ("drained, ten subscriptions", f"{rate.per_s:,.0f}/s", f"{rate.cpu_us_per_message:.1f} us CPU a message"),
    ]
    plain = {
        "filled": attrs.asdict(filled),
        "at_start": attrs.asdict(at_start),
        "behind_consumers": attrs.asdict(behind),
        "first_message_cold_s": firsts,
        "first_message_warm_s": again,
        "first_pull_s": pulls,
        "drain": attrs.asdict(rate),
    }
    return Part("backlog", rows, {"backlog": plain})


async def drained(place: Place, messages: int) -> Part:
    """The same gateway and client, in turns: a backlog in sealed segments, and live messages."""
    filling = Filling(messages=messages, subscriptions=1, batch=200)
    store, _ = await place.filled("drain", filling)
    rates: list[drain.Rate] = []
    lives: list[float] = []
    with gateway_over(store) as running:
        for number in range(3):
            place.say(f"drain: round {number + 1} of 3")
            rates.append(await drain.drain(running.target, names_of(filling), messages // 4))
            lives.append(await drain.live(running.target, min(200_000, messages // 4)))
    place.remove(store)
    ratio = max(rate.per_s for rate in rates) / max(lives)
    rows: list[Row] = [
        ("backlog", " · ".join(f"{rate.per_s:,.0f}" for rate in rates) + " /s", "sealed segments, batches of 200"),
        ("live", " · ".join(f"{each:,.0f}" for each in lives) + " /s", "one publisher, one consumer"),
        ("backlog by live", f"{ratio:.2f}", "best of each"),
        ("backlog, CPU of the gateway", f"{min(r.cpu_us_per_message for r in rates):.2f} us a message", ""),
    ]
    plain = {"rates": [attrs.asdict(rate) for rate in rates], "live_per_s": lives, "ratio": ratio}
    return Part("drain", rows, {"drain": plain})


async def merged(place: Place, messages: int, seconds: float) -> Part:
    """Nine of ten batches are settled."""
    filling = Filling(messages=messages, settled=Settled.MOST, segment_bytes=beside.SEGMENT_BYTES)
    store, _ = await place.filled("merge", filling)
    rows: list[Row] = []
    plain: list[dict[str, Any]] = []
    for rate_per_s in beside.RATES_PER_S:
        found: list[beside.Beside] = []
        for merging in beside.TURNS:
            place.say(f"merge: {_pace(rate_per_s)} for {seconds:g} s {'beside' if merging else 'without'} merging")
            found.append(await beside.publish(store, seconds, rate_per_s, merging=merging))
            rows.append(_beside(found[-1]))
        ratio = beside.Ratio.of(found)
        what = f"{_pace(rate_per_s)}, p99 beside merging"
        rows.append((what, f"{ratio.best:.2f} of that without", f"the best of each; of the medians {ratio.median:.2f}"))
        runs = [attrs.asdict(each) for each in found]
        plain.append({"rate_per_s": rate_per_s, "runs": runs, "p99_ratio": attrs.asdict(ratio)})
    place.remove(store)
    return Part("merge", rows, {"merge": plain})


def _pace(rate_per_s: float | None) -> str:
    return "saturated" if rate_per_s is None else f"{rate_per_s:,.0f}/s"


def _beside(found: beside.Beside) -> Row:
    latency = found.publish
    note = f"p50 {latency.p50_ms:.1f}, p99.9 {latency.p99_9_ms:.1f} ms; {found.published_per_s:,.0f}/s, "
    note += f"{found.cpu_us_per_message:.1f} us CPU a message"
    if found.merging:
        copied = _mib(int(found.copied_bytes_per_s))
        note += f"; copying {found.merging_share:.0%} of the time, {copied}/s, {found.merges:.0f} merges"
    what = f"{_pace(found.rate_per_s)}, {'beside' if found.merging else 'without'} merging"
    return what, f"p99 {latency.p99_ms:.1f} ms", note


async def uncopied(place: Place, messages: int) -> Part:
    segment_bytes = messages * _MESSAGE_BYTES // _SEALED  # few enough for all to stay mapped
    filling = Filling(messages=messages, subscriptions=1, batch=200, segment_bytes=segment_bytes)
    store, _ = await place.filled("copies", filling)
    place.say("copies: in the engine")
    counted = await copies.sources(store, min(10_000, messages // 4))
    rows: list[Row] = [
        (
            "bodies from the engine",
            f"{counted.mapped_bytes:,} bytes mapped",
            f"{counted.object_bytes:,} bytes in objects; {counted.messages:,} messages in {counted.parts:,} slices",
        )
    ]
    plain: dict[str, Any] = {"engine": attrs.asdict(counted)}
    with gateway_over(store) as running:
        for what in ("first", "again"):
            place.say(f"copies: system calls, {what}")
            calls = await _calls(place, running, names_of(filling), messages // 2)
            if calls is None:
                rows.append(("system calls", "not seen", "strace is not there, or may not look"))
                break
            rows.append(
                (
                    f"{calls.frame_bytes:,} bytes delivered, {what}",
                    f"{calls.sendmsg_bytes:,} by sendmsg",
                    f"{calls.joined_bytes:,} by send and write, {calls.read_bytes:,} by read and pread",
                )
            )
            plain[what] = attrs.asdict(calls)
            await drain.seek_to_start(running.target, names_of(filling)[0])
    place.remove(store)
    return Part("copies", rows, {"copies": plain})


async def _calls(place: Place, running: Running, names: Sequence[str], count: int) -> copies.Calls | None:
    file = place.directory / "strace.out"
    with copies.traced(running.process.pid, file) as is_attached:
        if not is_attached:
            return None
        rate = await drain.drain(running.target, names, count)
    with suppress(FileNotFoundError):
        calls = copies.calls_of(file, rate.frame_bytes)
        file.unlink()
        return calls
    return None


# ----------------------------------------------------------------------------------------------------- in words


def _extent(filled: Filled) -> str:
    size = filled.log_bytes + filled.hint_bytes
    return f"{filled.segments} segments, {_mib(size)}; {_mib(filled.behind_bytes)} behind the last checkpoint"


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"


def _memory(memory: Memory) -> str:
    own, mapped, peak = map(_mib, (memory.anonymous_bytes, memory.file_bytes, memory.peak_bytes))
    return f"{own} its own, {mapped} mapped files; peak {peak}"


def _milliseconds(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{1000 * ordered[len(ordered) // 2]:.1f} ms, at most {1000 * ordered[-1]:.1f}"


Measurement = Callable[[Place], Awaitable[Part]]
