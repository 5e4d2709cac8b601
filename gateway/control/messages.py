"""Messages and their traces, by id (protocol.md §5)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import attrs
import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.control.call import JSON, Answer, Call, Right, json, ref
from gateway.control.sources import Sources
from gateway.errors import GatewayError
from gateway.model import POSITION_MAX, Position


class MessageCalls:
    """The calls on messages."""

    def __init__(self, sources: Sources) -> None:
        self._query = sources.query

    def calls(self) -> list[Call]:
        return [
            Call(
                name="getMessage",
                method="GET",
                path="/v1/messages/{id}",
                summary="A stored message, and every position of its id",
                description=(
                    "Answers while the message is in the store: it may go once all its subscriptions have settled it. "
                    "Where the id is at several positions, the last is meant unless `position` names one."
                ),
                options=("position",),
                answers=(Answer(200, "The message as it is delivered.", {JSON: ref("StoredMessage")}),),
                errors=("message_not_found",),
                respond=self.get,
            ),
            Call(
                name="getMessageTrace",
                method="GET",
                path="/v1/messages/{id}/trace",
                summary="Everything that happened to a message",
                description=(
                    "Step by step, with where it stands now with each of its subscriptions, and followed through dead "
                    "letters and back. Answers as long as the trace is kept, also when the message itself is gone."
                ),
                options=("position",),
                answers=(Answer(200, "Its trace.", {JSON: ref("Trace")}),),
                errors=("message_not_found", "not_supported"),
                respond=self.trace,
                needs=Right.VIEW,
            ),
        ]

    async def get(self, request: Request) -> Response:
        message_id = _id(request)
        position, positions, body = await self._query.message(message_id, _asked(request))
        head = orjson.dumps({"id": message_id, "position": position, "positions": positions})
        return Response(head[:-1] + b',"message":' + body + b"}", media_type=JSON)  # the stored bytes, as they are

    async def trace(self, request: Request) -> Response:
        return json(attrs.asdict(await self._query.trace(_id(request), _asked(request))))


def _id(request: Request) -> str:
    """Read off the path as it came: an id may hold a slash, which the routes keep encoded."""
    raw: bytes = request.scope["raw_path"]
    return unquote_to_bytes(raw.split(b"/")[3]).decode("utf-8", "replace")


def _asked(request: Request) -> Position | None:
    text = request.query_params.get("position")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 17 and int(text) <= POSITION_MAX):
        raise GatewayError("bad_request", f"position: {text!r} is not a position; use a whole number")
    return int(text)
