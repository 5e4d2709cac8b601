"""`gateway genconfig` and `gateway checkconfig`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gateway import config


@click.command()
def genconfig() -> None:
    """Print a configuration file with every default, explained."""
    click.echo(config.generate(), nl=False)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def checkconfig(file: Path) -> None:
    """Check FILE, together with the environment and the files that it names, as `serve` would; says what is wrong and
    the mend."""
    settings = config.load(file, os.environ)
    if settings.has_credentials:
        from gateway.auth.access import Access

        Access(settings, lambda: 0).load()
    if settings.pipeline:
        from gateway.flow.pipeline import Pipelines

        Pipelines(settings)  # schemas are compiled, and operators' stages found
    click.echo(f"{file}: ok")
