"""`gateway bench`."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import attrs
import click
import orjson
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.bench import plan as plans
from gateway.bench.figures import Figures
from gateway.bench.link import LinkLostError
from gateway.bench.own import own_gateway, raise_descriptor_limit
from gateway.bench.plan import Plan, Target
from gateway.bench.report import print_report
from gateway.bench.run import Run
from gateway.bench.tally import Tally
from gateway.cli.options import token_option

IDLE_MAX: Final = 25_000
"""One address has 28,000 ports to connect from."""
_REFRESH_S: Final = 0.2


@click.command(context_settings={"max_content_width": 120})
@click.option("--messages", type=click.IntRange(0), default=200_000, show_default=True, help="Messages to publish.")
@click.option("--size", type=click.IntRange(18, 2**20), default=256, show_default=True, help="Bytes of a payload.")
@click.option("--publishers", type=click.IntRange(1, 10_000), help="Connections that publish. [default: 1; --http: 64]")
@click.option(
    "--subscribers", type=click.IntRange(0, IDLE_MAX), default=1, show_default=True, help="WebSocket consumers."
)
@click.option("--shared", is_flag=True, help="All consumers share one subscription; else each has its own.")
@click.option(
    "--window", type=click.IntRange(1), default=2000, show_default=True, help="Unconfirmed messages of a publisher."
)
@click.option(
    "--batch", type=click.IntRange(1, 1000), help="Messages in a publish frame. [default: 200, or as many as fit]"
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Messages per second. [default: what it takes]")
@click.option("--http", is_flag=True, help="Publish one message a request over HTTP/1.1, kept alive.")
@click.option(
    "--idle", type=click.IntRange(0, IDLE_MAX), default=0, help="WebSocket connections that stand idle meanwhile."
)
@click.option("--own-topics", is_flag=True, help="Each subscription reads a topic of its own; messages go round.")
@click.option("--slow-readers", type=click.IntRange(0), default=0, help="Of the subscribers, so many never read.")
@click.option("--no-ack", type=click.IntRange(0), default=0, help="So many of them never acknowledge.")
@click.option("--late-ack", type=click.IntRange(0), default=0, help="So many of them acknowledge after 5 seconds.")
@click.option("--backlog", type=click.IntRange(0), default=0, help="Messages published before there is a consumer.")
@click.option("--url", help="Measure this gateway and not one of our own, such as http://127.0.0.1:8080.")
@click.option(
    "--control-url", default="http://127.0.0.1:8081", show_default=True, help="With --url: its control plane."
)
@click.option("--pid", type=click.IntRange(1), help="With --url: its process, where it is on this machine.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True),
    help="Where to make the temporary directory of our own gateway.",
)
@token_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON object to this file.")
def bench(
    messages: int,
    size: int,
    publishers: int | None,
    subscribers: int,
    shared: bool,
    window: int,
    batch: int | None,
    rate: float | None,
    http: bool,
    idle: int,
    own_topics: bool,
    slow_readers: int,
    no_ack: int,
    late_ack: int,
    backlog: int,
    url: str | None,
    control_url: str,
    pid: int | None,
    directory: str | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Measure a gateway: throughput, latency, CPU and memory, and whether anything is lost.

    Starts a gateway of its own with an empty store in a temporary directory, loads it, and removes both; or loads the
    one at --url, on a topic and subscriptions of its own. Exit code 1: not everything that was published came back.
    """
    if url is None and pid is not None:
        raise click.UsageError("--pid goes with --url")
    if url is not None and directory is not None:
        raise click.UsageError("--directory is for a gateway of our own; leave out --url")
    try:
        plan = plans.make_plan(
            messages=messages,
            size_bytes=size,
            publishers=publishers,
            subscribers=subscribers,
            shared=shared,
            window=window,
            batch=batch,
            rate_per_s=rate,
            http=http,
            idle=idle,
            own_topics=own_topics,
            slow_readers=slow_readers,
            no_ack=no_ack,
            late_ack=late_ack,
            backlog=backlog,
        )
        given = None if url is None else Target(plans.parse_address(url), plans.parse_address(control_url), pid)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        figures = trio.run(_main, plan, given, directory)
    except* LinkLostError as group:
        raise click.ClickException(str(_first(group))) from None
    if figures is None:
        raise click.Abort
    _tell(figures, as_json, output)
    if not figures.complete or figures.refused or figures.invented:
        click.get_current_context().exit(1)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _main(plan: Plan, given: Target | None, directory: str | None) -> Figures | None:
    """Measure; None where a signal came first."""
    tally = Tally(plan)
    figures: Figures | None = None
    async with _signals() as scope, _progress(tally):
        gateway = nullcontext(given) if given is not None else own_gateway(directory, _connections(plan))
        if given is not None:
            raise_descriptor_limit()
        async with gateway as target:
            with _no_collections():
                figures = await Run(plan, target, tally).measure()
        scope.cancel()
    return figures


def _connections(plan: Plan) -> int:
    return plan.idle + plan.publishers + plan.subscribers


@asynccontextmanager
async def _signals() -> AsyncIterator[trio.CancelScope]:
    """INT and TERM end the body as a cancellation does, so that what it has started ends with it."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        yield nursery.cancel_scope
        nursery.cancel_scope.cancel()


@contextmanager
def _no_collections() -> Iterator[None]:
    """The load's own garbage collector stands still: its pauses would be found in the gateway's latencies."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@asynccontextmanager
async def _progress(tally: Tally) -> AsyncIterator[None]:
    """A progress bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task(tally.stage, total=tally.plan.deliveries or tally.plan.messages)

        async def draw() -> None:
            while True:
                done = tally.received if tally.plan.deliveries else tally.answered
                progress.update(task, completed=done, description=tally.stage, refresh=True)
                await trio.sleep(_REFRESH_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(draw)
            yield
            nursery.cancel_scope.cancel()


def _tell(figures: Figures, as_json: bool, output: Path | None) -> None:
    encoded = orjson.dumps(attrs.asdict(figures), option=orjson.OPT_INDENT_2)
    if output is not None:
        output.write_bytes(encoded + b"\n")
    if as_json:
        click.echo(encoded)
    else:
        print_report(figures, Console())
