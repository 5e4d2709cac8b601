"""Options that several commands share, and the addresses they stand for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

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


TOKEN_BYTES_MAX: Final = 64 * 1024
_TOKEN_FILE: Final = "gateway.token_file"
F = TypeVar("F", bound=Callable[..., Any])


def token_option(command: F) -> F:
    """--token-file; `token` reads it."""

    def keep(context: click.Context, _: click.Parameter, value: Path | None) -> None:
        context.meta[_TOKEN_FILE] = value

    return click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        envvar="GATEWAY_TOKEN_FILE",
        show_envvar=True,
        expose_value=False,
        callback=keep,
        help="File with the API key or token; or the variable GATEWAY_TOKEN holds it.",
    )(command)


def token() -> str | None:
    """The credential, from a file or the environment: never from an option, because every user of a machine can read
    its command lines."""
    context = click.get_current_context(silent=True)
    file: Path | None = context.meta.get(_TOKEN_FILE) if context is not None else None
    if file is None:
        return os.environ.get("GATEWAY_TOKEN", "").strip() or None
    try:
        with file.open("rb") as opened:
            text = opened.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except OSError as error:
        raise CommandError(f"--token-file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"--token-file {file}: holds no token; it is not ASCII") from None
    if not text or not text.isprintable():
        raise CommandError(f"--token-file {file}: must hold one token and nothing else")
    return text


def websocket_url(url: str) -> str:
    """The address of the SDK for a base address: http://host:port -> ws://host:port/v1/connect."""
    scheme, separator, rest = url.partition("://")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if not separator or scheme not in schemes:
        raise CommandError(f"--url {url}: write http://HOST:PORT, or https:// for TLS")
    rest = rest.rstrip("/")
    return f"{schemes[scheme]}://{rest}" if rest.endswith("/v1/connect") else f"{schemes[scheme]}://{rest}/v1/connect"
