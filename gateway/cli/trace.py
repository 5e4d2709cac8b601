"""`gateway trace ID` and `gateway trace export`: what happened to a message, and everything that happened."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
import orjson

from gateway import config
from gateway.cli.exits import CommandError
from gateway.cli.http import call, path_of
from gateway.cli.options import control_url_option
from gateway.cli.subscription import FILE_COLUMNS

_PAUSE_S: Final = 0.5
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RELATIONS: Final = {"dead_letter": "its dead letter", "original": "the original"}


class IdOrCommand(click.Group):
    """A group whose first argument is a command of it, or else the id that `show` is for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]  # before an option of `show` is looked for here
        return super().parse_args(ctx, args)


@click.group(cls=IdOrCommand)
def trace() -> None:
    """Show what happened to the message ID, or export everything that happened.

    \b
    gateway trace a1                      the way of message a1
    gateway trace a1 --position 4711      where the id is at several positions
    gateway trace export --follow         everything, as JSON lines
    """


@trace.command()
@click.argument("message_id", metavar="ID")
@click.option("--position", type=int, help="Which message, where several have this id; the last is shown otherwise.")
@click.option("--json", "as_json", is_flag=True, help="As the gateway says it.")
@control_url_option
def show(message_id: str, position: int | None, as_json: bool, control_url: str) -> None:
    """Show what happened to the message ID, step by step. `gateway trace ID` is the same."""
    path = f"/v1/messages/{path_of(message_id)}/trace"
    if position is not None:
        path += f"?position={position}"
    answer = orjson.loads(call("GET", control_url, path, timeout_s=300))
    if as_json:
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2))
    else:
        _print(answer)


@trace.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="The gateway's configuration file.")
@click.option("--data", metavar="DIR", help="Directory of the store.")
@click.option(
    "--since", metavar="WHEN", help="Only what happened since: 90s, 10m, 2h, 3d ago, or an ISO date and time."
)
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
def export(file: Path | None, data: str | None, since: str | None, follow: bool) -> None:
    """Print the trace as JSON lines, the oldest first: one a batch and step. Reads the files; needs no gateway."""
    from gateway.trace import lines
    from gateway.trace.files import directory_of

    flags: dict[str, object] = {} if data is None else {"store.directory": data}
    directory = directory_of(config.load(file, os.environ, flags))
    if not directory.is_dir():
        raise CommandError(f"{directory}: there is no trace; name the gateway's --config or --data")

    def pause() -> bool:
        sys.stdout.flush()
        if follow:
            time.sleep(_PAUSE_S)
        return follow

    for line in lines.follow(directory, 0 if since is None else parse_since(since, time.time()), pause):
        sys.stdout.buffer.write(line)


def parse_since(text: str, now_s: float) -> int:
    """Milliseconds since the epoch of `90s`, `10m`, `2h`, `3d` before now, or of an ISO date and time."""
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return int((now_s - int(ago[1]) * _UNITS[ago[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise click.UsageError(
            f"--since {text}: write 90s, 10m, 2h, 3d, or a date and time such as 2026-11-24T14:00"
        ) from None


# ----------------------------------------------------------------------------------------------------- printing


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(width=None if sys.stdout.isatty() else FILE_COLUMNS, highlight=False)
    for message in answer["messages"]:
        relation = _RELATIONS.get(message["relation"])
        title = f"[bold]{escape(answer['id'])}[/]" if relation is None else f"[bold]{relation}[/]"
        console.print(f"{title}  position {message['position']}  {escape(message['topic'] or '')}")
        if message["traceparent"]:
            console.print(f"  traceparent {message['traceparent']}")
        console.print(_table(message["steps"]))
        for standing in message["standing"]:
            since = "" if standing["since_ms"] is None else f" since {_clock(standing['since_ms'])}"
            state = standing["state"].replace("_", " ")
            console.print(f"  {escape(standing['subscription'])}: [bold]{state}[/]{since}")
        if message["steps"] and not message["standing"]:
            console.print("  no subscription was due it")
        console.print()
    if answer["refused"]:
        console.print(f"[bold]{escape(answer['id'])}[/]  refused")
        console.print(_table(answer["refused"]))
    for remark in _remarks(answer):
        console.print(f"[italic]{escape(remark)}[/]")


def _table(steps: Sequence[dict[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=True)
    for column in ("when", "since"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("step", "subscription", "who", "why"):
        table.add_column(column, overflow="fold")
    for row in _rows(steps):
        table.add_row(*map(escape, row))
    return table


def _rows(steps: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    before = None
    for step in steps:
        at = step["time_ms"]
        since = "" if before is None else f"+{_duration(at - before)}"
        before = at
        word = step["step"].replace("_", " ")
        if step["attempt"] and step["step"] == "delivered":
            word += f" ({step['attempt']})"
        why = [step["why"] or ""]
        if step["until_ms"]:
            why.append(f"until {_clock(step['until_ms'])}")
        if step["other"]:
            why.append(f"position {step['other']}")
        yield (
            _clock(at),
            since,
            word,
            step["subscription"] or "",
            step["who"] or "",
            ", ".join(part for part in why if part),
        )


def _remarks(answer: dict[str, Any]) -> Iterator[str]:
    shown = answer["messages"][0]["position"] if answer["messages"] else None
    others = [position for position in answer["positions"] if position != shown]
    if others:
        yield f"The id is also at {', '.join(map(str, others))}; --position shows those."
    if answer["lost"]:
        yield f"{answer['lost']} events of that time were lost; steps may be missing."
    if answer["since_ms"] is not None:
        yield f"The trace reaches back to {_clock(answer['since_ms'])}."


def _clock(milliseconds: int) -> str:
    """A time of day for people, with the date where it is not today's."""
    when = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    today = when.date() == datetime.now().astimezone().date()
    return when.strftime("%H:%M:%S." if today else "%Y-%m-%d %H:%M:%S.") + f"{milliseconds % 1000:03d}"


def _duration(milliseconds: int) -> str:
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
