"""`gateway pub`: one message, or a file of them."""

from __future__ import annotations

import base64
import os
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

import attrs
import click
import msgspec
import orjson
import trio

from gateway import client, model
from gateway.cli.exits import CommandError
from gateway.cli.options import NAME, token, token_option, url_option, websocket_url
from gateway.errors import GatewayError
from gateway.wire import payload

if TYPE_CHECKING:
    from collections.abc import Callable

LINES_AT_ONCE: Final = 4000
"""Lines that are published and answered together: a few of the gateway's largest batches, so that one is under way
while the next is read."""


@attrs.frozen
class Defaults:
    """What the options say of every message."""

    topic: str | None
    durability: str
    content_type: str | None
    members: dict[str, Any]

    def message(self, data: bytes) -> client.Message:
        """A message whose payload is `data`: JSON, unless --content-type says otherwise."""
        if self.topic is None:
            raise click.UsageError("name a TOPIC")
        return client.Message(
            topic=self.topic, data=data, content_type=self.content_type or "application/json", **self.members
        )


@click.command()
@click.argument("topic", required=False)
@click.argument("data", required=False)
@click.option("--lines", type=click.File("rb"), metavar="FILE", help="Publish one message object a line; - is stdin.")
@click.option(
    "--each-line", type=click.File("rb"), metavar="FILE", help="Publish each line as the payload of a message."
)
@click.option("--id", help="The producer's id: the gateway stores it once within two minutes.")
@click.option("--key", help="Messages of one key belong together.")
@click.option("--attribute", "attributes", metavar="K=V", multiple=True, help="May be given repeatedly.")
@click.option("--delay-ms", type=click.IntRange(0), default=0, help="Deliver no earlier.")
@click.option("--ttl-ms", type=click.IntRange(0), default=0, help="Deliver no later; 0 for no limit.")
@click.option(
    "--durability", type=click.Choice([each.value for each in model.Durability]), default="fsynced", show_default=True
)
@click.option("--content-type", metavar="TYPE", help="Of a payload that is not JSON, such as text/plain.")
@url_option
@token_option
def pub(
    topic: str | None,
    data: str | None,
    lines: IO[bytes] | None,
    each_line: IO[bytes] | None,
    attributes: tuple[str, ...],
    durability: str,
    content_type: str | None,
    url: str,
    **members: Any,
) -> None:
    """Publish DATA, which is JSON, to TOPIC; or standard input, where DATA is - or is left out.

    \b
      gateway pub trade.order.paid '{"amount":12}' --id a1
      gateway pub notes.new 'plain text' --content-type text/plain
      gateway pub --lines messages.ndjson        {"topic":"...","data":...} a line, as the protocol has it
      gateway pub trade.order.paid --each-line payloads.ndjson

    Prints what was stored where, one JSON object for each message. Exits with 1 where a message was refused.
    """
    defaults = Defaults(topic, durability, content_type, {**members, "attributes": _attributes(attributes)})
    if lines is not None and each_line is not None:
        raise click.UsageError("--lines and --each-line exclude each other")
    file = lines or each_line
    if file is None:
        body = sys.stdin.buffer.read() if data in (None, "-") else str(data).encode()
        trio.run(partial(_publish_one, websocket_url(url), defaults, body))
        return
    if data is not None:
        raise click.UsageError("DATA and a file exclude each other")
    if members["id"] is not None:
        raise click.UsageError("--id names one message; in a file each has its own")
    if lines is not None and topic is not None:
        raise click.UsageError("with --lines each message names its own topic; --each-line takes TOPIC")
    if each_line is not None:
        defaults.message(b"")
    parse = _message_object if lines is not None else defaults.message
    if trio.run(partial(_publish_lines, websocket_url(url), defaults, file, parse)):
        raise CommandError("some messages were refused; their results say why")


def _attributes(pairs: tuple[str, ...]) -> dict[str, str]:
    attributes = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--attribute {pair}: write NAME=VALUE")
        attributes[name] = value
    return attributes


async def _publish_one(url: str, defaults: Defaults, body: bytes) -> None:
    message = defaults.message(body)
    if defaults.content_type is None:
        _check_json(body)
    async with client.connect(url, token=token(), name=NAME) as gateway:
        [result] = await gateway.publish_batch([message], durability=defaults.durability)
    if not isinstance(result, client.Stored):
        raise result
    click.echo(_describe(result))


def _check_json(body: bytes) -> None:
    try:
        payload.check_json(body)
    except GatewayError:
        raise CommandError(
            "DATA is not JSON: put text in double quotes ('\"hello\"'), or say --content-type text/plain"
        ) from None


async def _publish_lines(
    url: str, defaults: Defaults, file: IO[bytes], parse: Callable[[bytes], client.Message]
) -> int:
    """Publish a file; the number of messages that were refused."""
    refused = 0
    with _progress(file) as advance:
        async with client.connect(url, token=token(), name=NAME) as gateway:
            async for numbers, lines in _chunks(file):
                parsed = [_parse(parse, line) for line in lines]
                messages = [each for each in parsed if isinstance(each, client.Message)]
                results = iter(await gateway.publish_batch(messages, durability=defaults.durability))
                outcomes = [each if isinstance(each, GatewayError) else next(results) for each in parsed]
                refused += sum(not isinstance(outcome, client.Stored) for outcome in outcomes)
                text = b"".join(
                    _describe(outcome, number) + b"\n" for number, outcome in zip(numbers, outcomes, strict=True)
                )
                await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)
                advance(sum(map(len, lines)))
    return refused


async def _chunks(file: IO[bytes]) -> AsyncIterator[tuple[list[int], list[bytes]]]:
    """The lines of a file that are not empty, with their numbers, many at once."""
    numbered = enumerate(file, 1)
    while chunk := await trio.to_thread.run_sync(list, islice(numbered, LINES_AT_ONCE), abandon_on_cancel=True):
        kept = [(number, line) for number, line in chunk if not line.isspace()]
        yield [number for number, _ in kept], [line for _, line in kept]


def _parse(parse: Callable[[bytes], client.Message], line: bytes) -> client.Message | GatewayError:
    try:
        return parse(line.rstrip(b"\r\n"))
    except GatewayError as error:
        return error


def _message_object(line: bytes) -> client.Message:
    """One message object of protocol.md §4."""
    [message], errors = payload.decode_each([payload.decode_text(line)])
    if errors:
        error = errors[0]
        raise GatewayError(error.code, error.message.replace("messages[0]", "the line", 1))
    if message.data_base64 is not None:
        payload.check_base64(message.data_base64)
        data, content_type = base64.b64decode(message.data_base64), message.content_type
    elif message.data is not msgspec.UNSET:
        data, content_type = bytes(message.data), "application/json"
    else:
        raise GatewayError("bad_request", "the line has neither data nor data_base64")
    return client.Message(
        topic=message.topic,
        data=data,
        content_type=content_type,
        id=message.id,
        key=message.key,
        attributes=message.attributes,
        delay_ms=message.delay_ms,
        ttl_ms=message.ttl_ms,
    )


def _describe(result: client.Result, line: int | None = None) -> bytes:
    """One result as a JSON object, in the words of the protocol."""
    out: dict[str, object] = {} if line is None else {"line": line}
    match result:
        case client.Stored():
            out |= {"id": result.id} if result.id is not None else {}
            out |= {"position": result.position, "durability": result.durability}
            out |= {"duplicate": True} if result.duplicate else {}
        case client.GatewayError():
            out["error"] = result.as_dict()
        case _:
            out["error"] = {"code": "outcome_unknown", "message": str(result), "temporary": True}
    return orjson.dumps(out)


def _write(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


@contextmanager
def _progress(file: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """A progress bar over a file's bytes, on standard error where that is a terminal; gives what moves it on."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("publishing", total=_size(file))
        yield lambda size: progress.advance(task, size)


def _size(file: IO[bytes]) -> int | None:
    """How many bytes a file holds; None where it is a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
