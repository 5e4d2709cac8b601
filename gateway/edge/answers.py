"""The answer to a publish of one message over HTTP (protocol.md §3)."""

from __future__ import annotations

import orjson

from gateway.edge.http import HttpConnection
from gateway.errors import GatewayError
from gateway.model import Batch, Stored
from gateway.wire.http import Response, error_response


def answer_one(connection: HttpConnection, epoch: str, batch: Batch, index: int = 0) -> None:
    """Answer whoever published message `index` of `batch`."""
    if batch.error is not None:
        connection.respond(error_response(batch.error))
        return
    message = batch.messages[index]
    if batch.results is None and message.id is None:
        position = batch.first + index
        # the hot path of HTTP: formatted, not encoded
        body = f'{{"id":"{epoch}-{position}","position":{position},"durability":"{batch.durability}"}}'.encode()
        connection.respond(Response(201, body))
        return
    result = Stored(message.id or "", batch.first) if batch.results is None else batch.results[index]
    if isinstance(result, Stored):
        answer = {"id": result.id, "position": result.position, "durability": batch.durability.value}
        if result.duplicate:
            answer["duplicate"] = True
        connection.respond(Response(200 if result.duplicate else 201, orjson.dumps(answer)))
    else:
        connection.respond(error_response(result or GatewayError("internal", "the message has no result")))
