"""`gateway sub`: a subscription on standard output."""

from __future__ import annotations

import sys
from functools import partial

import click
import trio

from gateway import client
from gateway.cli import subscription
from gateway.cli.options import NAME, control_url_option, token, token_option, url_option, websocket_url


@click.command()
@click.argument("name")
@click.option("--create", is_flag=True, help="Create the subscription first, or change its topics.")
@click.option("--topic", "topics", metavar="PATTERN", multiple=True, help="With --create: such as 'trade.>'.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many messages.")
@click.option("--window", type=click.IntRange(1, 1_000_000), help="Most messages to hold unsettled.")
@url_option
@token_option
@control_url_option
def sub(
    name: str,
    create: bool,
    topics: tuple[str, ...],
    count: int | None,
    window: int | None,
    url: str,
    control_url: str,
) -> None:
    """Print the messages of the subscription NAME as they come, one JSON object a line, as they were delivered.

    A message is acked once it has been written out. Ends with Ctrl-C; what was not written comes again.
    """
    if create != bool(topics):
        raise click.UsageError("--create and --topic go together: --create --topic 'trade.>'")
    if create:
        subscription.create_missing(name, topics, control_url)
    trio.run(partial(_print, websocket_url(url), name, window, count))


async def _print(url: str, name: str, window: int | None, count: int | None) -> None:
    left = count
    async with (
        client.connect(url, token=token(), name=NAME) as gateway,
        gateway.subscribe_batches(name, window=window, auto_ack=False) as batches,
    ):
        async for batch in batches:
            printed = batch[:left]
            # in a thread: a reader that pauses, such as `less`, must not keep us from answering pings
            await trio.to_thread.run_sync(_write, printed, abandon_on_cancel=True)
            for message in printed:
                message.ack_nowait()
            if left is not None:
                left -= len(printed)
                if not left:
                    return


def _write(messages: list[client.ReceivedMessage]) -> None:
    sys.stdout.buffer.writelines(message.as_json() + b"\n" for message in messages)
    sys.stdout.buffer.flush()
