"""`python -m gateway.bench.storing PART...`: runs the parts, prints a table of each, and one JSON object at the end."""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import orjson
import trio
from rich.console import Console
from rich.table import Table

from gateway import __version__
from gateway.bench.storing import parts
from gateway.bench.storing.growth import grown
from gateway.bench.storing.parts import Measurement, Part, Place
from gateway.bench.vitals import filesystem

NAMES: Final = ("append", "size", "restart", "backlog", "drain", "merge", "copies")
_SAY_S: Final = 2.0


@click.command(context_settings={"max_content_width": 120})
@click.argument("names", metavar="PART...", nargs=-1, required=True, type=click.Choice([*NAMES, "all"]))
@click.option(
    "--messages",
    type=click.IntRange(1000),
    multiple=True,
    help="Messages of `restart` and `backlog`; several times for several sizes. [default: 1,000,000]",
)
@click.option(
    "--few",
    type=click.IntRange(1000),
    default=1_000_000,
    show_default=True,
    help="Messages of `drain` and `merge`, and half of those of `copies`, a tenth of those of `size`.",
)
@click.option("--batch", type=click.IntRange(1), multiple=True, help="Batches of `append`. [default: 1 10 200 1000]")
@click.option(
    "--seconds",
    type=float,
    default=4.0,
    show_default=True,
    help="Of `append`, for each batch and way; of `merge`, two and a half times that.",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where to make the temporary directory. Ten million messages take 4 GB.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON object to this file.")
def main(
    names: tuple[str, ...],
    messages: tuple[int, ...],
    few: int,
    batch: tuple[int, ...],
    seconds: float,
    directory: Path | None,
    output: Path | None,
) -> None:
    """Measure the store: append, size, restart, backlog, drain, merge, copies, or all."""
    chosen = NAMES if "all" in names else names
    plan = _plan(chosen, messages or (1_000_000,), few, batch or (1, 10, 200, 1000), seconds)
    with tempfile.TemporaryDirectory(prefix="gateway-storing-", dir=directory) as temporary:
        head = {
            "version": __version__,
            "python": platform.python_version(),
            "filesystem": filesystem(temporary),
            "began": time.strftime("%Y-%m-%dT%H:%M:%S"),
        }
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        document: dict[str, Any] = {**head, "parts": trio.run(_run, plan, Path(temporary), console)}
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    if output is not None:
        output.write_bytes(text)
    else:
        click.echo(text)


def _plan(
    names: tuple[str, ...], messages: tuple[int, ...], few: int, batches: tuple[int, ...], seconds: float
) -> list[Measurement]:
    plan: list[Measurement] = []
    for name in names:
        match name:
            case "append":
                plan.append(partial(parts.appended, batches=batches, seconds=seconds))
            case "size":
                plan.append(partial(parts.sized, batches=batches, messages=few // 10))
            case "restart":
                plan += [partial(parts.restarted, messages=each) for each in messages]
            case "backlog":
                plan += [partial(parts.waited, messages=each) for each in messages]
            case "drain":
                plan.append(partial(parts.drained, messages=few))
            case "merge":
                plan.append(partial(parts.merged, messages=few, seconds=2.5 * seconds))
            case _:
                plan.append(partial(parts.uncopied, messages=few // 2))
    return plan


async def _run(plan: list[Measurement], directory: Path, console: Console) -> list[dict[str, Any]]:
    """A part that fails is said, and the next goes on. Behind parts of several sizes it is said how they grow."""
    found: list[dict[str, Any]] = []
    for number, measurement in enumerate(plan):
        place = Place(directory / str(number), _say, _Counter())
        place.directory.mkdir()
        try:
            part = await measurement(place)
        except Exception as error:  # trio's groups too
            why = f"{type(_first(error)).__name__}: {_first(error)}"
            click.echo(f"failed: {why}", err=True)
            found.append({"failed": why})
        else:
            _print(part, console)
            found.append(part.plain)
    growth = grown(found)
    if growth is not None:
        _print(growth, console)
        found.append(growth.plain)
    return found


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _print(part: Part, console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, title=part.name, title_justify="left")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for row in part.rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _say(what: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {what}", err=True)


class _Counter:
    """Says how far it is, every two seconds."""

    def __init__(self) -> None:
        self._at = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._at > _SAY_S or done == total:
            self._at = now
            _say(f"{what}: {done:,} of {total:,}")


if __name__ == "__main__":
    main()
