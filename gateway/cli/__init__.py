"""The command line: `gateway`, and `python -m gateway`.

A command's module is imported when the command is asked for, so that `gateway version` answers at once and `gateway
pub` does not load a server. What goes wrong ends in `exits`, which turns it into one line and an exit code.

    file            commands
    serve           serve
    configuration   genconfig, checkconfig
    pub             pub
    sub             sub
    pull            pull
    subscription    subscription create, list, show, delete
    key             key create, list, revoke
    token           token create, check
    permission      permission diff
    trace           trace ID, trace export
    store           store stats, verify, export, backup, restore
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from gateway import __version__
from gateway.cli import exits

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("gateway.cli.serve:serve", "Run a gateway."),
    "pub": ("gateway.cli.pub:pub", "Publish a message, or a file of messages."),
    "sub": ("gateway.cli.sub:sub", "Print a subscription's messages as they come, and ack them."),
    "pull": ("gateway.cli.pull:pull", "Wait for messages over HTTP, print them, and ack them."),
    "subscription": ("gateway.cli.subscription:subscription", "Create, list, show and delete subscriptions."),
    "key": ("gateway.cli.key:key", "Create, list and revoke API keys."),
    "token": ("gateway.cli.token:token", "Create and check JSON Web Tokens."),
    "permission": ("gateway.cli.permission:permission", "Preview a change of permissions."),
    "trace": ("gateway.cli.trace:trace", "Show what happened to a message, or export it all."),
    "store": ("gateway.cli.store:store", "Look at a store, check, export, back up, restore, merge it."),
    "bench": ("gateway.bench.cli:bench", "Measure a gateway: throughput, latency, memory."),
    "genconfig": ("gateway.cli.configuration:genconfig", "Print a configuration file with every default, explained."),
    "checkconfig": ("gateway.cli.configuration:checkconfig", "Check a configuration file without running it."),
}
"""Command -> where it is, and its line in `gateway --help`."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, or when its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return super().get_command(ctx, name)
        module, _, attribute = COMMANDS[name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of `gateway --help`, from the table instead of the modules."""
        rows = [(name, help_) for name, (_, help_) in COMMANDS.items()]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A push gateway: stores every event first, then pushes it, at least once, to those it is due."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; the exit code."""
    try:
        with cli.make_context("gateway", list(arguments)) as context:  # not cli.main: that makes exit codes of its own
            cli.invoke(context)
        sys.stdout.flush()
    except BaseException as error:
        return exits.explain(error)
    return exits.OK


def main() -> None:
    """The entry point of the package."""
    sys.exit(run(sys.argv[1:]))
