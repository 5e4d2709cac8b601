"""`gateway key create | list | revoke`: the API keys of a keys file. A running gateway reads it again by itself."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson

from gateway import config
from gateway.auth import apikey, grant
from gateway.auth.apikey import ApiKey
from gateway.auth.grant import SCOPES, Grant
from gateway.cli.exits import CommandError

F = TypeVar("F", bound=Callable[..., Any])
_DAY_MS: Final = 86_400_000
_HELP: Final = {
    "publish": "Topics it may publish to.",
    "subscribe": "Subscriptions it may consume.",
    "view": "Subscriptions it may look at; '>': the gateway too.",
    "admin": "Subscriptions it may change; '>': the gateway too.",
    "read": "Topics that subscriptions it makes may read.",
}


def grant_options(command: F) -> F:
    """--role, and an option for each scope: together a grant (see `to_grant`)."""
    for scope in reversed(SCOPES):
        option = click.option(f"--{scope}", metavar="PATTERN", multiple=True, help=_HELP[scope])
        command = option(command)
    return click.option("--role", "roles", metavar="ROLE", multiple=True, help="Of the permissions file.")(command)


def to_grant(options: dict[str, Any]) -> Grant:
    """The grant that the options say; every one may be given repeatedly."""
    try:
        return grant.decode({name: list(options[name]) for name in ("roles", *SCOPES)})
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def file_options(command: F) -> F:
    command = click.option(
        "--config",
        "configuration",
        type=click.Path(path_type=Path),
        help="Take auth.keys_file from this configuration.",
    )(command)
    return click.option("--keys-file", type=click.Path(path_type=Path), help="The keys file (auth.keys_file).")(command)


def keys_file_of(keys_file: Path | None, configuration: Path | None) -> Path:
    """The keys file that the options, or the environment, name."""
    if keys_file is not None:
        return keys_file
    settings = config.load(configuration, os.environ)
    if not settings.auth.keys_file:
        raise click.UsageError("name the keys file: --keys-file FILE, or --config with auth.keys_file")
    return Path(settings.auth.keys_file)


@click.group()
def key() -> None:
    """Create, list and revoke API keys."""


@key.command()
@click.argument("principal")
@grant_options
@click.option("--expires-days", type=click.IntRange(1), help="How long it is good; for ever without this.")
@file_options
def create(
    principal: str, expires_days: int | None, keys_file: Path | None, configuration: Path | None, **options: Any
) -> None:
    """Make a key for PRINCIPAL and print it, this once: only its hash is kept.

    What it may do: its roles and patterns given here, and what the permissions file says of PRINCIPAL.
    """
    file = keys_file_of(keys_file, configuration)
    now_ms = time.time_ns() // 1_000_000
    expires_ms = None if expires_days is None else now_ms + expires_days * _DAY_MS
    try:
        text, record = apikey.make(principal, to_grant(options), now_ms, expires_ms)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with apikey.changing(file) as records:
        records[record.id] = record
    click.echo(text)
    click.echo(f"key {record.id} of {principal}, in {file}; it is not shown again", err=True)


@key.command("list")
@click.option("--json", "as_json", is_flag=True, help="As the file says it.")
@file_options
def list_(as_json: bool, keys_file: Path | None, configuration: Path | None) -> None:
    """List the keys: whose they are, what they may do, and whether they are good."""
    records = apikey.read(keys_file_of(keys_file, configuration))
    if as_json:
        listed = [{k: v for k, v in each.as_dict().items() if k != "sha256"} for each in records.values()]
        click.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2))
    else:
        _print_table(list(records.values()))


def _print_table(records: list[ApiKey]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("id", "principal", "state", "grant"):
        table.add_column(column, overflow="fold")
    now_ms = time.time_ns() // 1_000_000
    for record in records:
        table.add_row(record.id, escape(record.principal), _state(record, now_ms), escape(_describe(record.grant)))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _state(record: ApiKey, now_ms: int) -> str:
    if record.revoked_ms is not None:
        return "revoked"
    if record.expires_ms is None:
        return "good"
    left_days = (record.expires_ms - now_ms) / _DAY_MS
    return "expired" if left_days <= 0 else f"good for {left_days:.1f} days"


def _describe(given: Grant) -> str:
    parts = [f"{name} {' '.join(value)}" for name, value in given.as_dict().items() if isinstance(value, list)]
    return "; ".join(parts)


@key.command()
@click.argument("id_", metavar="ID")
@file_options
def revoke(id_: str, keys_file: Path | None, configuration: Path | None) -> None:
    """Revoke the key ID. A running gateway refuses it, and ends its connections, within seconds."""
    file = keys_file_of(keys_file, configuration)
    key_id = id_.removeprefix(apikey.PREFIX).partition("_")[0]  # a whole key is taken too
    if not file.exists():
        raise CommandError(f"{file}: is not there; gateway key create makes it")
    with apikey.changing(file) as records:
        record = records.get(key_id)
        if record is None:
            raise CommandError(f"{file}: has no key of this id; gateway key list shows them")
        if record.revoked_ms is None:
            records[key_id] = apikey.revoked(record, time.time_ns() // 1_000_000)
    click.echo(f"revoked {key_id} of {record.principal}", err=True)
