"""Options that several commands share, and the addresses they stand for."""

from __future__ import annotations

import os
from typing import Final

import click

from gateway import __version__
from gateway.cli.exits import CommandError

NAME: Final = f"gateway-cli/{__version__}"

url_option = click.option(
    "--url",
    envvar="GATEWAY_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="The gateway's data plane.",
)
control_url_option = click.option(
    "--control-url",
    envvar="GATEWAY_CONTROL_URL",
    default="http://127.0.0.1:8081",
    show_default=True,
    show_envvar=True,
    help="The gateway's control plane.",
)


def token() -> str | None:
    """The credential, for a gateway behind a proxy that asks for one: from the environment only, because every user of
    a machine can read its command lines."""
    return os.environ.get("GATEWAY_TOKEN") or None


def websocket_url(url: str) -> str:
    """The address of the SDK for a base address: http://host:port -> ws://host:port/v1/connect."""
    scheme, separator, rest = url.partition("://")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if not separator or scheme not in schemes:
        raise CommandError(f"--url {url}: write http://HOST:PORT, or https:// for TLS")
    rest = rest.rstrip("/")
    return f"{schemes[scheme]}://{rest}" if rest.endswith("/v1/connect") else f"{schemes[scheme]}://{rest}/v1/connect"
