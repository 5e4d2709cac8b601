"""A record as Markdown: the budgets, every case, and the peers; the README holds one."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.bench.budget import BUDGETS, Judgement, judge
from gateway.bench.record import Record
from gateway.bench.report import HEAD, extra, row


def markdown(record: Record) -> str:
    """All of it."""
    parts = [_origin(record), _budgets(record), _cases(record)]
    if record.peers:
        parts.append(_peers(record))
    return "\n".join(parts)


def _origin(record: Record) -> str:
    machine = record.machine
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    dates = sorted(outcome.date for outcome in record.outcomes.values())
    when = f"{dates[0][:10]}, " if dates else ""
    store = f", store on {machine.store_filesystem}" if machine.store_filesystem else ""
    loops = [outcome.loop_ns for outcome in record.outcomes.values()]
    pace = f" A turn of an empty loop took {min(loops):.0f} to {max(loops):.0f} ns." if loops else ""
    return (
        f"Recorded {when}commit {record.commit or 'unknown'}: {machine.processors} x {machine.processor}, "
        f"{machine.memory_bytes / 2**30:.1f} GiB, {machine.kernel}{store}; {versions}. "
        f"Gateway and load share the processors.{pace}\n"
    )


def _budgets(record: Record) -> str:
    lines = ["| scenario | figure | must | measured | ratio | |", "|---|---|--:|--:|--:|---|"]
    for budget in BUDGETS:
        found = judge(record, budget)
        lines.append(f"| {budget.scenario} {budget.case} | {budget.what} | {' | '.join(_judged(found))} |")
    return "\n".join(lines) + "\n"


def _judged(found: Judgement) -> Iterator[str]:
    sign = "≤" if found.budget.at_most else "≥"
    unit = found.budget.unit
    yield "not measured" if found.must is None else f"{sign} {_number(found.must)} {unit}".rstrip()
    yield "-" if found.measured is None else f"{_number(found.measured)} {unit}".rstrip()
    yield "-" if found.ratio is None else f"{found.ratio:.2f}"
    yield {True: "met", False: "**not met**", None: "-"}[found.met]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}".rstrip("0").rstrip(".")


def _cases(record: Record) -> str:
    head = ["scenario", *(name or "case" for name in HEAD), "besides"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "--:|" * (len(HEAD) - 1) + "---|"]
    for name, outcome in record.outcomes.items():
        scale = "" if outcome.scale == 1 else f" (at {outcome.scale:g} of its size)"
        for case in outcome.cases:
            besides = "; ".join(extra(*item) for item in case.extra.items())
            wrong = f"**{case.wrong}** " if case.wrong else ""
            lines.append(f"| {name}{scale} | {' | '.join(row(case))} | {wrong}{besides} |")
    return "\n".join(lines) + "\n"


def _peers(record: Record) -> str:
    """As the peers' load generator says it."""
    lines = ["| peer, in the same sitting | rate | messages/s | server CPU | p50 | p99 | p99.9 ms |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for name, runs in record.peers.items():
        for run in runs:
            rate = f"{run['rate']:,}/s" if run.get("rate") else "as fast as it goes"
            figures = " | ".join(str(run.get(field, "-")) for field in ("p50", "p99", "p999"))
            cpu = f"{run.get('server_cpu_us_msg', '-')} us/message"
            lines.append(f"| {name} | {rate} | {run.get('msgs_s', 0):,} | {cpu} | {figures} |")
    return "\n".join(lines) + "\n"
