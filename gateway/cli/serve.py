"""`gateway serve`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from gateway import config


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file; see gateway genconfig.")
@click.option("--listen", metavar="HOST:PORT", help="Data plane: HTTP and WebSocket.")
@click.option("--control", metavar="HOST:PORT", help="Control plane.")
@click.option("--data", metavar="DIR", help="Directory of the store.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Listen beyond loopback although no credentials are configured."
)
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", metavar="FORMAT", help="console, json or auto.")
def serve(
    file: Path | None,
    listen: str | None,
    control: str | None,
    data: str | None,
    insecure: bool | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run a gateway until TERM or Ctrl-C, which drain it. HUP has it read [auth] and [[jwt]] of its file again.

    Settings come from the defaults, the file, the environment (GATEWAY_SECTION__KEY) and these options; the later wins.
    """
    flags = {
        "listen.data": listen,
        "listen.control": control,
        "listen.insecure": insecure,
        "store.directory": data,
        "log.level": log_level,
        "log.format": log_format,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    load = partial(config.load, file, os.environ, given)
    settings = load()

    from gateway import node
    from gateway.cli import logs

    logs.configure(settings.log)
    try:
        node.run(settings, reload=load if file is not None else None)
    except node.ForcedExitError:
        raise KeyboardInterrupt from None
