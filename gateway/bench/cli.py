"""`gateway bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import attrs
import click
from click.core import ParameterSource
from rich.console import Console

from gateway.bench import machine, plan, record, table
from gateway.bench.ground import Ground
from gateway.bench.link import LinkLostError
from gateway.bench.profile import Profile
from gateway.bench.record import Outcome, Record
from gateway.bench.report import print_outcome, print_report
from gateway.bench.scenarios import SCENARIOS
from gateway.bench.scenarios.scenario import Scenario
from gateway.bench.sitting import carry_out, failed
from gateway.cli.options import token_option

IDLE_MAX: Final = 25_000
"""One address has 28,000 ports to connect from."""
CUSTOM: Final = "custom"
"""The name of what options describe."""
_ALL: Final = "all"
_WIDTH: Final = 120
"""Columns that the table of a scenario needs."""
_LOAD: Final = tuple(field.name for field in attrs.fields(plan.Plan) if field.name not in ("filter", "fields"))
"""The options that describe a load of one's own, by the names of their parameters."""


@click.command(context_settings={"max_content_width": 120})
@click.argument("names", nargs=-1, metavar="[SCENARIO]...", type=click.Choice([*SCENARIOS, _ALL]))
@click.option("--messages", type=click.IntRange(0), default=200_000, show_default=True, help="Messages to publish.")
@click.option(
    "--size", "size_bytes", type=click.IntRange(18, 2**20), default=256, show_default=True, help="Bytes of a payload."
)
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
@click.option(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(0, min_open=True),
    help="Messages per second. [default: what it takes]",
)
@click.option("--http", is_flag=True, help="Publish one message a request over HTTP/1.1, kept alive.")
@click.option(
    "--idle", type=click.IntRange(0, IDLE_MAX), default=0, help="WebSocket connections that stand idle meanwhile."
)
@click.option("--own-topics", is_flag=True, help="Each subscription reads a topic of its own; messages go round.")
@click.option("--slow-readers", type=click.IntRange(0), default=0, help="Of the subscribers, so many never read.")
@click.option("--no-ack", type=click.IntRange(0), default=0, help="So many of them never acknowledge.")
@click.option("--late-ack", type=click.IntRange(0), default=0, help="So many of them acknowledge after 5 seconds.")
@click.option("--backlog", type=click.IntRange(0), default=0, help="Messages published before there is a consumer.")
@click.option("--scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Part of a scenario's size.")
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
@click.option("--profile", type=click.Path(path_type=Path), help="Flame graphs of the gateway: .svg, .txt or .json.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the record; - prints it.")
@click.option("--add", is_flag=True, help="Keep what the file of --json says of other scenarios.")
@click.option("--peers", multiple=True, metavar="NAME=FILE", help="Lines of the peers' load generator.")
@click.option("--table", "recorded", type=click.Path(path_type=Path), help="Print a record as Markdown.")
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
    """Measure a gateway: throughput, latency, CPU and memory, and whether anything is lost.

    Starts a gateway of its own with an empty store in a temporary directory, loads it, and removes both; or loads the
    one at --url, on a topic and subscriptions of its own. Without SCENARIO the load is what the options say, and by
    default a saturated pipeline. Exit code 1: not everything that was published came back.

    \b
    {scenarios}
    """
    try:
        if options["recorded"] is not None:
            _print_table(options)
            return
        scenarios = _chosen(context, options)
        ground = _ground(options)
        peers = dict(map(record.read_peers, options["peers"]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    outcomes: dict[str, Outcome] = {}
    made = Record(
        machine=machine.machine(options["directory"], own=ground.given is None),
        versions=machine.versions(),
        commit=machine.commit(),
        outcomes=outcomes,
        peers=peers,
    )
    for scenario in scenarios:
        outcomes[scenario.name] = _measure(ground, scenario, alone=len(scenarios) == 1)
        if options["out"] != Path("-"):
            _show(scenario, outcomes[scenario.name])
            _write(made, options)  # each time, so that an end in the middle takes nothing away
    if options["out"] == Path("-"):
        click.echo(record.encode(made), nl=False)
    if any(case.wrong for outcome in outcomes.values() for case in outcome.cases):
        context.exit(1)


bench.help = (bench.help or "").format(
    scenarios="\n    ".join([*(f"{each.name:14}{each.what}" for each in SCENARIOS.values()), f"{_ALL:14}all of them"])
)


def _chosen(context: click.Context, options: dict[str, Any]) -> list[Scenario]:
    """What is to be measured, in the order of the table. Raises ValueError."""
    names: tuple[str, ...] = options["names"]
    load = {name: options[name] for name in _LOAD}
    if not names:
        if options["scale"] != 1:
            raise ValueError("--scale goes with a scenario; without one, say --messages")
        own = plan.make_plan(**load)

        async def run(ground: Ground) -> list[record.Case]:
            return [await ground.plan(own, CUSTOM, CUSTOM)]

        return [Scenario(CUSTOM, "as the options say", run, limit_s=float("inf"))]
    given = [name for name in _LOAD if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise ValueError(f"--{given[0].replace('_', '-')} describes a load of your own: leave out {names[0]!r}")
    scenarios = [each for each in SCENARIOS.values() if each.name in names or _ALL in names]
    if options["url"] is None:
        return scenarios
    refused = [each.name for each in scenarios if each.own_only]
    if refused and _ALL not in names:
        raise ValueError(f"{refused[0]} needs gateways of its own: leave out --url")
    return [each for each in scenarios if not each.own_only]


def _ground(options: dict[str, Any]) -> Ground:
    """Raises ValueError with the mend."""
    url, pid, directory = options["url"], options["pid"], options["directory"]
    if url is None and pid is not None:
        raise ValueError("--pid goes with --url")
    if url is not None and directory is not None:
        raise ValueError("--directory is for a gateway of our own; leave out --url")
    given = None
    if url is not None:
        given = plan.Target(plan.parse_address(url), plan.parse_address(options["control_url"]), pid)
    profile = None if options["profile"] is None else Profile(options["profile"])
    return Ground(given=given, directory=directory, scale=options["scale"], profile=profile)


def _measure(ground: Ground, scenario: Scenario, *, alone: bool) -> Outcome:
    """One of them; where it fails and is not alone, the others go on."""
    outcome: Outcome | None = None
    try:
        outcome = carry_out(scenario, ground)
    except* LinkLostError as group:
        why = str(_first(group))
        if alone:
            raise click.ClickException(f"{scenario.name}: {why}") from None
        outcome = failed(ground, why)
    if outcome is None:
        raise click.Abort
    return outcome


def _show(scenario: Scenario, outcome: Outcome) -> None:
    """A load of one's own with all there is to know of it; of a scenario the figures that compare."""
    [first, *_] = outcome.cases
    if scenario.name == CUSTOM and first.detail is not None:
        print_report(first.detail, Console())
    else:
        console = Console()
        console.width = max(console.width, _WIDTH)
        print_outcome(f"{scenario.name}: {scenario.what}", outcome, console)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _write(made: Record, options: dict[str, Any]) -> None:
    file: Path | None = options["out"]
    if file is None:
        return
    try:
        if options["add"] and file.exists():
            made = record.read(file).joined(made)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    record.write(made, file)


def _print_table(options: dict[str, Any]) -> None:
    """--table, with --peers joined in; --json keeps them. Raises ValueError."""
    if options["names"]:
        raise ValueError("--table prints a record and measures nothing: leave out the scenarios")
    found = record.read(options["recorded"])
    peers = found.peers | dict(map(record.read_peers, options["peers"]))
    found = attrs.evolve(found, peers=peers)
    if options["out"] is not None:
        record.write(found, options["out"])
    click.echo(table.markdown(found), nl=False)
