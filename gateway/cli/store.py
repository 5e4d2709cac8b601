"""`gateway store`: what a store holds, whether it is sound, its messages, and copies of it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import orjson

from gateway import config
from gateway.cli.exits import CommandError
from gateway.cli.subscription import FILE_COLUMNS

if TYPE_CHECKING:
    from gateway.engine.census import Census
    from gateway.engine.merging import MergeStatistics
    from gateway.store.reading import Lost

F = TypeVar("F", bound=Callable[..., Any])
_SHOWN_MAX: Final = 40


def store_option(command: F) -> F:
    """--config and --data; `_directory` makes one of them."""
    command = click.option("--data", metavar="DIR", help="Directory of the store.")(command)
    return click.option("--config", "file", type=click.Path(path_type=Path), help="The gateway's configuration file.")(
        command
    )


def _load(file: Path | None, data: str | None) -> config.Config:
    flags: dict[str, object] = {} if data is None else {"store.directory": data}
    return config.load(file, os.environ, flags)


def _directory(file: Path | None, data: str | None) -> Path:
    return Path(_load(file, data).store.directory)


@click.group()
def store() -> None:
    """Look at a store, check it, export its messages, back it up, restore it, and merge what little is left in it.

    All but `merge` and `restore` read the files of a store that a gateway may be using, and change nothing.
    """


@store.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@store_option
def stats(as_json: bool, file: Path | None, data: str | None) -> None:
    """Count the segments, and what waits for each subscription."""
    from gateway.engine import census
    from gateway.store.files import Files

    counted = census.take(Files(), _directory(file, data))
    if as_json:
        click.echo(orjson.dumps(_plain(counted), option=orjson.OPT_INDENT_2))
    else:
        _print(counted, _now_ms())


@store.command()
@store_option
def verify(file: Path | None, data: str | None) -> None:
    """Read every record and hint file, and say what is damaged. Exit code 1 where something is."""
    from gateway.store import verify as verification
    from gateway.store.files import Files

    directory = _directory(file, data)
    with _progress("verifying", verification.size_of(directory)) as progress:
        verdict = verification.verify(Files(), directory, progress)
    for note in verdict.notes:
        click.echo(f"note: {note}", err=True)
    for lost in verdict.lost:
        click.echo(_damage(lost))
    counted = f"{verdict.messages:,} messages in {verdict.segments:,} segments, {verdict.hints:,} hint files"
    if verdict.lost:
        raise CommandError(f"{directory}: {len(verdict.lost)} damaged parts; looked at {counted}")
    click.echo(f"{directory}: sound: {counted}")


@store.command()
@click.option("--since", metavar="POSITION", type=click.IntRange(0), default=0, help="Only from this position on.")
@click.option("--topic", metavar="PATTERN", help="Only of topics that match, such as trade.>.")
@store_option
def export(since: int, topic: str | None, file: Path | None, data: str | None) -> None:
    """Print the stored messages as JSON lines, by position, each as it is delivered."""
    from gateway.model import check_pattern
    from gateway.store.export import export as lines
    from gateway.store.files import Files

    if topic is not None:
        check_pattern(topic)
    lost: list[Lost] = []
    for line in lines(Files(), _directory(file, data), lost.append, since, topic):
        sys.stdout.buffer.write(line)
    sys.stdout.flush()
    for item in lost:
        click.echo(_damage(item), err=True)
    if lost:
        raise CommandError(f"{len(lost)} damaged parts were left out")


@store.command()
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@store_option
def backup(target: Path, file: Path | None, data: str | None) -> None:
    """Copy the store to DIR, or bring the backup there up to date. A gateway may go on writing meanwhile."""
    from gateway.store.backup import backup as run
    from gateway.store.files import Files

    with _progress("copying", None) as progress:
        done = run(Files(), _directory(file, data), target, _now_ms(), progress)
    click.echo(
        f"{target}: copied {done.files:,} files ({done.bytes:,} bytes), {done.kept:,} were there, "
        f"{done.deleted:,} are not needed any more"
    )


@store.command()
@click.argument("source", metavar="BACKUP", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Where the store is to be.")
def restore(source: Path, data: Path) -> None:
    """Make a store in an empty directory of the backup in BACKUP."""
    from gateway.store.files import Files
    from gateway.store.restore import restore as run

    with _progress("restoring", None) as progress:
        manifest = run(Files(), source, data, progress)
    click.echo(f"{data}: restored {len(manifest.files):,} files as of {_clock(manifest.made_ms)}")


@store.command()
@click.option(
    "--live-share",
    metavar="SHARE",
    type=click.FloatRange(0, 0.9, min_open=True),
    help="Merge segments of which at most so much is due. [default: store.merge_live_share]",
)
@store_option
def merge(live_share: float | None, file: Path | None, data: str | None) -> None:
    """Move what is still due of nearly empty segments together, and free the rest; for a store that nobody uses.

    A running gateway does this by itself. What has expired is settled first. It may be interrupted: what was merged by
    then stays merged, and the rest is as it was.
    """
    from gateway.cli import logs
    from gateway.store.files import Files
    from gateway.store.survey import look

    settings = _load(file, data)
    look(Files(), Path(settings.store.directory))  # or a new store would be made
    share = settings.store.merge_live_share if live_share is None else live_share
    if not share:
        raise CommandError("store.merge_live_share is 0: nothing is ever merged; give --live-share")
    logs.configure(settings.log)
    _merge(settings, share)


def _merge(settings: config.Config, share: float) -> None:
    """Say what was done, and where it was interrupted how far it came."""
    import trio

    from gateway.engine.merging import MergeStatistics
    from gateway.engine.offline import merge_store

    done = MergeStatistics()

    def told(statistics: MergeStatistics) -> None:
        nonlocal done
        done = statistics
        click.echo(f"merged {done.segments:,} segments, freed {done.freed_bytes:,} bytes ...", err=True)

    try:
        done = trio.run(partial(merge_store, settings, _now_ms, live_share=share, told=told))
    except BaseException:
        click.echo(f"ended early: {_did(done)}", err=True)
        raise
    click.echo(f"{settings.store.directory}: {_did(done)}")
    if done.failures:
        raise CommandError(f"{done.failures} merges were given up; see what `gateway store verify` says")


def _did(done: MergeStatistics) -> str:
    if not done.merges:
        return "nothing was worth merging"
    moved = f"{done.messages:,} messages ({done.moved_bytes:,} bytes) moved"
    return f"{done.segments:,} segments merged into {done.merges:,}: {moved}, {done.freed_bytes:,} bytes freed"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# ----------------------------------------------------------------------------------------------------- printing


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal; gives what moves it on by so many bytes."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda size: progress.advance(task, size)


def _damage(lost: Lost) -> str:
    size = f", {lost.size:,} bytes" if lost.size else ""
    positions = f", positions {lost.first} to {lost.end - 1}" if lost.end > lost.first else ""
    return f"{lost.segment}: at byte {lost.offset}{size}{positions}: {lost.reason}"


def _plain(counted: Census) -> dict[str, Any]:
    import attrs

    plain = attrs.asdict(counted)
    place = counted.checkpoint
    plain["checkpoint"] = None if place is None else {"segment": place[0], "offset": place[1]}
    for segment, each in zip(plain["segments"], counted.segments, strict=True):
        segment["dead_bytes"] = each.dead_bytes
    plain["totals"] = _totals(counted)
    return plain


def _totals(counted: Census) -> dict[str, int]:
    names = ("messages", "bytes", "due_messages", "due_bytes", "dead_bytes")
    return {name: sum(getattr(each, name) for each in counted.segments) for name in names}


def _print(counted: Census, now_ms: int) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(width=None if sys.stdout.isatty() else FILE_COLUMNS, highlight=False)
    segments = _table("segment", "positions", "messages", "bytes", "due", "live bytes", "dead bytes", "hint")
    for each in counted.segments if len(counted.segments) <= _SHOWN_MAX else counted.segments[-_SHOWN_MAX:]:
        positions = f"{each.base}..{each.end - 1}" if each.end > each.base else "none"
        word = "active" if each.active else "yes" if each.hint else "no"
        numbers = (each.messages, each.bytes, each.due_messages, each.due_bytes, each.dead_bytes)
        segments.add_row(str(each.number), positions, *(f"{number:,}" for number in numbers), word)
    totals = _totals(counted)
    segments.add_row(f"{len(counted.segments)} in all", "", *(f"{number:,}" for number in totals.values()), "")
    if len(counted.segments) > _SHOWN_MAX:
        console.print(f"The last {_SHOWN_MAX} of {len(counted.segments)} segments; --json has all.")
    console.print(segments)
    console.print()
    subscriptions = _table("subscription", "settled below", "routed", "acked", "expired", "dead lettered", "waiting")
    for word in ("oldest", "age"):
        subscriptions.add_column(word, justify="right", no_wrap=True)
    for one in counted.subscriptions:
        figures = (one.floor, one.routed, one.acked, one.expired, one.dead_lettered, one.waiting)
        oldest = ("", "") if one.oldest_ms is None else (_clock(one.oldest_ms), _age(now_ms - one.oldest_ms))
        subscriptions.add_row(escape(one.name), *(f"{number:,}" for number in figures), *oldest)
    console.print(subscriptions)
    console.print()
    place = counted.checkpoint
    console.print(
        "As of what is in the files now: "
        + ("no checkpoint as yet, and the log." if place is None else f"the checkpoint (segment {place[0]}, byte ")
        + ("" if place is None else f"{place[1]}), and the log behind it.")
        + " Waiting counts what is in flight or delayed, too."
    )


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column == "subscription" else "right", overflow="fold")
    return table


def _clock(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(milliseconds / 1000))


def _age(milliseconds: int) -> str:
    """Two units at most: 3 d 4 h."""
    left = max(0, milliseconds) // 1000
    parts: list[str] = []
    for word, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or word == "s":
            parts.append(f"{count} {word}")
    return " ".join(parts[:2])
