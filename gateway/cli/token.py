"""`gateway token create | check`: JSON Web Tokens for trying things out, and why one is refused."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click
import orjson
import trio

from gateway import config
from gateway.auth import signing
from gateway.auth.access import Access
from gateway.auth.grant import SCOPES
from gateway.cli.exits import CommandError
from gateway.cli.key import grant_options, to_grant
from gateway.config.settings import JWT_ALGORITHMS
from gateway.errors import GatewayError
from gateway.principal import Principal


@click.group()
def token() -> None:
    """Create and check tokens."""


@token.command()
@click.argument("subject")
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), required=True, help="Private key: PEM, JWK, or secret."
)
@click.option("--algorithm", type=click.Choice(JWT_ALGORITHMS), default="RS256", show_default=True)
@click.option("--issuer", required=True, help="iss: as in the [[jwt]] entry.")
@click.option("--audience", required=True, help="aud: as in the [[jwt]] entry.")
@click.option("--kid", help="Name of the key, where the issuer has several.")
@click.option("--ttl-s", type=click.IntRange(1), default=3600, show_default=True, help="Good for so long.")
@click.option("--claim", default="push", show_default=True, help="The claim that holds the permissions.")
@grant_options
def create(
    subject: str,
    key_file: Path,
    algorithm: str,
    issuer: str,
    audience: str,
    kid: str | None,
    ttl_s: int,
    claim: str,
    **options: Any,
) -> None:
    """Sign a token for SUBJECT and print it: for tests, and for platforms without an issuer of their own."""
    grant = to_grant(options)
    claims: dict[str, Any] = {"iss": issuer, "aud": audience, "sub": subject}
    now_s = int(time.time())
    claims |= {"iat": now_s, "exp": now_s + ttl_s}
    if grant.as_dict():
        claims[claim] = grant.as_dict()
    try:
        click.echo(signing.sign(key_file.read_bytes(), algorithm, claims, kid))
    except ValueError as error:
        raise CommandError(f"{key_file}: {error}") from None


@token.command()
@click.option("--config", "configuration", type=click.Path(path_type=Path), required=True, help="The gateway's own.")
@click.option(
    "--token-file", type=click.File("r"), default="-", show_default=True, help="Where the token is; - is stdin."
)
def check(configuration: Path, token_file: Any) -> None:
    """Check a token or API key as a gateway with this configuration would: who it is and what it may do, or why not.

    The token is read from a file or from standard input, never from the command line, which every user can read.
    """
    settings = config.load(configuration, os.environ)
    text = token_file.read().strip()
    found = trio.run(_check, settings, text)
    shown = found.as_dict() if isinstance(found, GatewayError) else _describe(found)
    click.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
    if isinstance(found, GatewayError):
        raise CommandError("the token is refused")


async def _check(settings: config.Config, text: str) -> Principal | GatewayError:
    access = Access(settings, lambda: time.time_ns() // 1_000_000)
    if not access.required:
        raise CommandError("this configuration has no credentials: auth.keys_file, [[jwt]]")
    access.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.run)
        found: Principal | GatewayError
        try:
            await access.wait_fresh()
            found = await access.authenticate(text)
        except GatewayError as error:
            found = error
        nursery.cancel_scope.cancel()
    return found


def _describe(principal: Principal) -> dict[str, object]:
    scopes = {scope: list(getattr(principal, scope).patterns) for scope in SCOPES}
    return {"principal": principal.name, **scopes, "expires_ms": principal.expires_ms, "quota": principal.quota}
