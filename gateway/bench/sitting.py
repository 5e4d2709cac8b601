"""One scenario after the other: bounded in time, to be seen while it goes on, and ended by a signal."""

from __future__ import annotations

import gc
import math
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Final

import attrs
import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.bench import machine
from gateway.bench.ground import Going, Ground
from gateway.bench.link import LinkLostError
from gateway.bench.record import Case, Outcome
from gateway.bench.scenarios.scenario import Scenario

FAILED: Final = "failed"
_REFRESH_S: Final = 0.2
_LEAST_S: Final = 120.0
"""However small the scale, gateways have to start."""


def carry_out(scenario: Scenario, ground: Ground) -> Outcome | None:
    """Measure; None where a signal came first. Raises LinkLostError, also where it does not end."""
    loop_ns = machine.loop_ns()
    cases = trio.run(_carry_out, scenario, ground)
    if cases is None:
        return None
    if len(cases) > 1:  # they are there to be compared
        cases = [attrs.evolve(case, detail=None) for case in cases]
    return Outcome(date=_date(), scale=ground.scale, loop_ns=loop_ns, cases=cases)


def failed(ground: Ground, why: str) -> Outcome:
    """In place of a scenario that could not be carried out."""
    case = Case(name=FAILED, load=str(ground.going), wrong=why)
    return Outcome(date=_date(), scale=ground.scale, loop_ns=machine.loop_ns(), cases=[case])


def _date() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


async def _carry_out(scenario: Scenario, ground: Ground) -> list[Case] | None:
    cases: list[Case] | None = None
    limit_s = max(_LEAST_S, scenario.limit_s * ground.scale)
    with trio.move_on_after(limit_s if math.isfinite(limit_s) else math.inf) as limit:
        async with _signals() as scope, _progress(ground.going):
            with _no_collections():
                cases = await scenario.run(ground)
            scope.cancel()
    if limit.cancelled_caught:
        raise LinkLostError(f"it did not end within {limit_s:.0f} s; it was at: {ground.going}")
    return cases


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
async def _progress(going: Going) -> AsyncIterator[None]:
    """A progress bar on standard error where that is a terminal, and a line for each case where it is not."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)

    async def draw() -> None:
        said = going.what
        while True:
            stage, done, total = going.look()
            if console.is_terminal:
                bar.update(task, completed=done, total=total, description=f"{going.what}: {stage}", refresh=True)
            elif said != going.what:
                said = going.what
                click.echo(said, err=True)
            await trio.sleep(_REFRESH_S)

    with bar:
        task = bar.add_task("")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(draw)
            yield
            nursery.cancel_scope.cancel()
