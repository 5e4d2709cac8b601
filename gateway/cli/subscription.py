"""`gateway subscription create | list | show | delete | pause | ...`: the control plane's calls."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any, Final

import click
import orjson

from gateway.cli.http import call, path_of
from gateway.cli.options import control_url_option, token_option

ALL: Final = "/v1/subscriptions"
FILE_COLUMNS: Final = 200
"""Width of a table that goes to a file or a pipe."""


class Moment(click.ParamType[int]):
    """A time, as milliseconds since the epoch or as ISO 8601; without a zone it is the machine's."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(value) if value.isdecimal() else int(datetime.fromisoformat(value).timestamp() * 1000)
        except ValueError:
            self.fail(f"{value}: write 2026-11-24T09:00:00+00:00, or milliseconds since the epoch", param, ctx)


@click.group()
def subscription() -> None:
    """Create, list, show, delete, pause and resume subscriptions; seek, redrive, and ask why."""


@subscription.command()
@click.argument("name")
@click.option("--topic", "topics", metavar="PATTERN", multiple=True, help="Such as 'trade.>'; may be given repeatedly.")
@click.option("--filter", metavar="CEL", help="Deliver only what it is true of: 'data.amount > 10'. '' for all.")
@click.option("--format", type=click.Choice(["native", "cloudevents"]), help="How its messages are written.")
@click.option("--lease-ms", type=int, help="How long a consumer has for a message.")
@click.option("--attempts-max", type=int, help="Deliveries before a message goes to the dead letters.")
@click.option("--backoff-ms", metavar="MS,MS,...", help="Delays after a nack: first, second, ...; the last repeats.")
@click.option("--dead-letter", metavar="TOPIC", help="Where dead letters go; '' for nowhere.")
@click.option("--ordered/--not-ordered", default=None, help="A message waits for the one before it of its key.")
@click.option("--retention-s", type=int, help="How long a message waits for a consumer before it expires.")
@click.option("--window-max", type=int, help="Messages in flight to one consumer.")
@click.option("--start", type=click.Choice(["start", "end"]), help="Where a new subscription begins.")
@click.option("--paused/--not-paused", default=None, help="Hold deliveries back, or let them go.")
@control_url_option
@token_option
def create(name: str, topics: tuple[str, ...], backoff_ms: str | None, control_url: str, **settings: Any) -> None:
    """Create the subscription NAME, or change the settings given where there is one; prints it."""
    change = {key: value for key, value in settings.items() if value is not None}
    if topics:
        change["topics"] = list(topics)
    if backoff_ms is not None:
        change["backoff_ms"] = _steps(backoff_ms)
    _print(call("PUT", control_url, f"{ALL}/{path_of(name)}", change))


@subscription.command("list")
@click.option("--json", "as_json", is_flag=True, help="As the gateway says it.")
@control_url_option
@token_option
def list_(as_json: bool, control_url: str) -> None:
    """List all subscriptions and where they stand."""
    answer = call("GET", control_url, ALL)
    if as_json:
        _print(answer)
    else:
        _print_table(orjson.loads(answer))


@subscription.command()
@click.argument("name")
@control_url_option
@token_option
def show(name: str, control_url: str) -> None:
    """Show one subscription: its settings and where it stands."""
    _print(call("GET", control_url, f"{ALL}/{path_of(name)}"))


@subscription.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@control_url_option
@token_option
def delete(name: str, yes: bool, control_url: str) -> None:
    """Delete the subscription NAME and all it is due. Asks first where there is a terminal to ask."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {name} and everything that waits for it?", abort=True, err=True)
    call("DELETE", control_url, f"{ALL}/{path_of(name)}")
    click.echo(f"deleted {name}", err=True)


@subscription.command()
@click.argument("name")
@control_url_option
def pause(name: str, control_url: str) -> None:
    """Hold the deliveries of NAME back. What consumers hold they keep."""
    _print(call("POST", control_url, f"{ALL}/{path_of(name)}/pause"))


@subscription.command()
@click.argument("name")
@control_url_option
def resume(name: str, control_url: str) -> None:
    """Let the deliveries of NAME go on."""
    _print(call("POST", control_url, f"{ALL}/{path_of(name)}/resume"))


@subscription.command()
@click.argument("name")
@click.option("--start", "edge", flag_value="start", help="From the first of its messages that is kept.")
@click.option("--end", "edge", flag_value="end", help="Behind the last message there is.")
@click.option("--position", type=int, help="From this position on.")
@click.option("--time", "time_ms", type=Moment(), help="From the first message stored at this time or later.")
@control_url_option
def seek(name: str, edge: str | None, position: int | None, time_ms: int | None, control_url: str) -> None:
    """Have NAME read on from another place. What its consumers hold is taken back."""
    places: list[Any] = [] if edge is None else [edge]
    places += [{what: value} for what, value in (("position", position), ("time_ms", time_ms)) if value is not None]
    if len(places) != 1:
        raise click.UsageError("name one place: --start, --end, --position N or --time TIME")
    _print(call("POST", control_url, f"{ALL}/{path_of(name)}/seek", {"to": places[0]}))


@subscription.command()
@click.argument("name")
@control_url_option
def redrive(name: str, control_url: str) -> None:
    """Deliver again what NAME gave up: its dead letters, to it alone, in order."""
    _print(call("POST", control_url, f"{ALL}/{path_of(name)}/redrive"))


@subscription.command()
@click.argument("name")
@click.argument("position", type=int)
@control_url_option
def why(name: str, position: int, control_url: str) -> None:
    """Say why the message at POSITION is not being delivered to NAME."""
    _print(call("GET", control_url, f"{ALL}/{path_of(name)}/why?position={position}"))


def create_missing(name: str, topics: tuple[str, ...], control_url: str) -> None:
    """Create `name` with these topics; where it is there already, they replace its own."""
    call("PUT", control_url, f"{ALL}/{path_of(name)}", {"topics": list(topics)})


def _steps(text: str) -> list[int]:
    try:
        return [int(step) for step in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--backoff-ms {text}: write whole numbers joined by commas") from None


def _print(answer: bytes) -> None:
    click.echo(orjson.dumps(orjson.loads(answer), option=orjson.OPT_INDENT_2))


_COLUMNS: Final = ("waiting", "in_flight", "delayed", "acked", "dead_lettered", "consumers")


def _print_table(subscriptions: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("name", "topics"):
        table.add_column(column, overflow="fold")
    for column in (*_COLUMNS, "oldest"):
        table.add_column(column.replace("_", " "), justify="right", no_wrap=True)
    now_ms = time.time_ns() // 1_000_000
    for each in subscriptions:
        statistics = each["statistics"]
        oldest_ms = statistics.get("oldest_ms")
        age = "" if oldest_ms is None else f"{max(0, now_ms - oldest_ms) / 1000:.0f} s"
        name = each["name"] + (" (paused)" if each.get("paused") else "")
        counts = [f"{statistics.get(column, 0):,}" for column in _COLUMNS]
        table.add_row(escape(name), escape(" ".join(each["topics"])), *counts, age)
    Console(width=None if sys.stdout.isatty() else FILE_COLUMNS).print(table)
