"""The figures as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table

from gateway.bench.figures import Figures
from gateway.bench.plan import describe
from gateway.bench.record import Case, Outcome
from gateway.bench.tally import Percentiles


def print_report(figures: Figures, console: Console) -> None:
    """Two tables, and what has to be known to read them."""
    console.print(f"[bold]{describe(figures.plan)}[/bold]", soft_wrap=True)
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="cyan")
    rows.add_column(justify="right")
    rows.add_column(style="dim")
    for row in _rows(figures):
        rows.add_row(*row)
    console.print(rows)
    if figures.confirm or figures.delivery:
        console.print(_latencies(figures))
    if figures.stages:
        console.print(_stages(figures))
    for note in _notes(figures):
        console.print(note, soft_wrap=True)


def print_outcome(title: str, outcome: Outcome, console: Console) -> None:
    """A row for each case."""
    console.print(f"[bold]{title}[/bold]" + _of_scale(outcome.scale), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="cyan")
    for name, justify in zip(HEAD, ("left", *["right"] * (len(HEAD) - 1)), strict=True):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # it is one of them
    for case in outcome.cases:
        table.add_row(*row(case))
    console.print(table)
    for case in outcome.cases:
        for name, value in case.extra.items():
            console.print(f"  {case.name}: {extra(name, value)}", highlight=False)
        if case.wrong:
            console.print(f"[red]{case.name}: {case.wrong}[/red]", soft_wrap=True)


def _of_scale(scale: float) -> str:
    return "" if scale == 1 else f" [dim](at {scale:g} of its size)[/dim]"


HEAD: Final = ("", "a second", "server CPU", "of a core", "load CPU", "p50", "p90", "p99", "p99.9 ms", "its memory")
"""The columns of a case."""


def row(case: Case) -> tuple[str, ...]:
    """A case in the columns of `HEAD`."""
    latency = case.latency.get("delivery") or case.latency.get("confirm")
    values = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p99_9_ms) if latency else (None,) * 4
    return (
        case.name,
        "-" if case.per_s is None else f"{case.per_s:,.0f} {_plural(case.unit)}",
        "-" if case.cpu_us is None else f"{case.cpu_us:,.1f} us/{case.unit}",
        _show(case.server_cpu_share, "{:.0%}"),
        _show(case.load_cpu_share, "{:.0%}"),
        *(_show(value, "{:.2f}") for value in values),
        _mib(case.memory.anon),
    )


def _plural(unit: str) -> str:
    return "deliveries" if unit == "delivery" else f"{unit}s"


def extra(name: str, value: float | None) -> str:
    """A figure that only one scenario has, by the unit that ends its name."""
    what, _, unit = name.rpartition("_")
    if value is None:
        return f"{name}: -"
    what = what.replace("_", " ")
    forms = {
        "bytes": lambda: _bytes(value),
        "s": lambda: f"{value:,.2f} s",
        "ms": lambda: f"{value:,.2f} ms",
        "us": lambda: f"{value:,.2f} us",
    }
    if name.endswith("_per_s"):
        return f"{what.removesuffix(' per')}: {value:,.0f}/s"
    if unit == "ratio":
        return f"{what} ratio: {value:.2f}"
    if unit in forms:
        return f"{what}: {forms[unit]()}"
    return f"{what} {unit}: {value:,.2f}"


def _bytes(value: float) -> str:
    return f"{value / 2**20:,.1f} MiB" if abs(value) >= 2**20 else f"{value / 1024:,.1f} KiB"


def _rows(figures: Figures) -> Iterator[tuple[str, str, str]]:
    server = figures.server
    if figures.plan.messages:
        yield "published", f"{figures.published_per_s:,.0f}/s", f"{figures.published:,} in {figures.elapsed_s:.2f} s"
        if figures.plan.subscribers:
            yield "delivered", f"{figures.received_per_s:,.0f}/s", f"{figures.received:,}"
        yield from _backlog_rows(figures)
        if figures.plan.misfits:
            yield "closed", f"{figures.misfits_closed:,}", "consumers that did not keep up"
        yield "lost", f"{figures.lost:,}", "accepted and not delivered"
        yield "duplicates", f"{figures.duplicates:,}", ""
        yield "server CPU", _show(server.cpu_us_per_message, "{:.1f} us"), "a message: publish, fsync, deliver, ack"
        yield "server CPU", _show(server.cpu_share, "{:.0%}"), "of one core"
        yield "load CPU", f"{figures.load_cpu_share:.0%}", "of one core; near 100% the load is the limit"
        yield "group commit", _show(server.messages_per_commit, "{:,.1f}"), "messages for each fdatasync"
        yield "commit", _show(server.commit_ms, "{:.2f} ms"), "one write and one fdatasync, on average"
        yield "GC pauses", _show(server.gc_pause_ms, "{:.1f} ms"), _pauses(figures)
    if figures.idle_connections:
        each = server.bytes_per_idle_connection
        yield "idle connection", _show(each, "{:,.0f} bytes"), f"resident memory; {figures.idle_connections:,} open"
    starting = f"{_mib(server.resident_start_bytes)} at the start, {_mib(server.resident_peak_bytes)} at most"
    yield "resident memory", _mib(server.resident_bytes), starting


def _backlog_rows(figures: Figures) -> Iterator[tuple[str, str, str]]:
    backlog = figures.backlog
    if backlog is not None:
        grown = f"published without a consumer; {_mib(backlog.resident_growth_bytes)} more resident"
        yield "backlog", f"{backlog.published_per_s:,.0f}/s", grown
        yield "drained", _show(backlog.drained_per_s, "{:,.0f}/s"), f"in {_show(backlog.drained_s, '{:.2f}')} s"


def _pauses(figures: Figures) -> str:
    longest, count = figures.server.gc_pause_max_ms, figures.server.gc_collections
    if longest is None:
        return f"{count or 0:.0f} collections"
    return f"{count:.0f} collections; the longest since the start {longest:.1f} ms"


def _latencies(figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False, header_style="cyan", title_justify="left")
    table.add_column("milliseconds", style="cyan")
    for name in ("p50", "p90", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for name, latency in (("publish to confirm", figures.confirm), ("publish to delivery", figures.delivery)):
        if latency:
            table.add_row(name, *_columns(latency))
    return table


def _stages(figures: Figures) -> Table:
    """Where the time went; a stage's batches are what it takes in one go."""
    table = Table(box=None, pad_edge=False, header_style="cyan")
    table.add_column("stage", style="cyan")
    for name in ("batches", "messages each", "ring full", "ring peak", "busy", "us/message"):
        table.add_column(name, justify="right")
    for stage in figures.stages:
        table.add_row(
            stage.name,
            f"{stage.batches:,.0f}",
            _show(stage.messages_per_batch, "{:,.1f}"),
            _show(stage.waits, "{:,.0f}"),
            _show(stage.peak_items, "{:,.0f}"),
            _show(stage.busy_share, "{:.1%}"),
            _show(stage.us_per_message, "{:.2f}"),
        )
    return table


def _columns(latency: Percentiles) -> list[str]:
    values = (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p99_9_ms, latency.max_ms)
    return [f"{value:.2f}" for value in values]


def _notes(figures: Figures) -> Iterator[str]:
    if figures.plan.messages and figures.plan.rate_per_s is None and not figures.plan.http:
        yield "[dim]At full speed latency is mostly waiting in --window; measure it with --rate.[/dim]"
    if figures.store_filesystem in ("tmpfs", "ramfs"):
        kind = figures.store_filesystem
        yield f"[yellow]The store was on {kind}, where a sync costs nothing: see --directory.[/yellow]"
    if figures.refused:
        yield f"[red]{figures.refused:,} messages were refused; the first: {figures.refusal}[/red]"
    if figures.invented:
        yield f"[red]{figures.invented:,} deliveries of what was not published[/red]"
    if not figures.complete:
        yield "[red]Not everything came; the figures are of what did.[/red]"


def _show(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.1f} MiB"
