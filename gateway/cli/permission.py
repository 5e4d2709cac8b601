"""`gateway permission diff`: what a change of the permissions file would give and take."""

from __future__ import annotations

from pathlib import Path

import attrs
import click
import orjson

from gateway.auth import policy
from gateway.auth.audit import clean


@click.group()
def permission() -> None:
    """Preview a change of permissions."""


@permission.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Show what putting AFTER in the place of BEFORE would give (+) and take (-), for each principal and role.

    What counts is what the patterns mean: one that a wider pattern covers is neither given nor taken. Roles are listed
    too, because keys and tokens may bring them along.
    """
    changes = list(policy.diff(policy.read(before), policy.read(after)))
    for change in changes:
        if as_json:
            click.echo(orjson.dumps(attrs.asdict(change)))
        else:
            sign = "+" if change.gained else "-"
            click.echo(f"{sign} {clean(change.who)}: {change.scope} {change.pattern}")
    if not changes and not as_json:
        click.echo("nothing is given and nothing is taken", err=True)
