"""`gateway pull`: the long-poll, once."""

from __future__ import annotations

import sys
from typing import Final

import click
import msgspec

from gateway.cli.http import call, path_of
from gateway.cli.options import token_option, url_option

ANSWER_S: Final = 15.0
"""How much longer than `wait_ms` the answer may take."""


class _Pulled(msgspec.Struct):
    lease: str = ""
    lease_ms: int = 0
    messages: list[msgspec.Raw] = []


class _Position(msgspec.Struct):
    position: int


@click.command()
@click.argument("name")
@click.option("--max", "max_", type=click.IntRange(1), default=100, show_default=True, help="Most messages to take.")
@click.option("--wait-ms", type=click.IntRange(0), default=20_000, show_default=True, help="How long to wait for one.")
@click.option("--ack/--no-ack", default=True, show_default=True, help="Ack what was printed, or leave it leased.")
@url_option
@token_option
def pull(name: str, max_: int, wait_ms: int, ack: bool, url: str) -> None:
    """Wait until the subscription NAME has messages, print them as JSON lines, and ack them.

    Prints nothing where none came in time. With --no-ack they come again once their lease is over.
    """
    path = f"/v1/subscriptions/{path_of(name)}"
    answer = call("POST", url, f"{path}/pull", {"max": max_, "wait_ms": wait_ms}, wait_ms / 1000 + ANSWER_S)
    pulled = msgspec.json.decode(answer, type=_Pulled)
    if not pulled.messages:
        return
    sys.stdout.buffer.writelines(bytes(message) + b"\n" for message in pulled.messages)
    sys.stdout.buffer.flush()
    if ack:
        positions = [msgspec.json.decode(message, type=_Position).position for message in pulled.messages]
        call("POST", url, f"{path}/settle", {"lease": pulled.lease, "ack": [[each, each] for each in positions]})
    else:
        click.echo(f"{len(pulled.messages)} messages are leased for {pulled.lease_ms} ms: {pulled.lease}", err=True)
