"""Messages and their traces, by id (protocol.md §5)."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import attrs
import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.control.call import JSON, Answer, Call, Right, json, principal_of, ref
from gateway.control.sources import Sources
from gateway.errors import GatewayError
from gateway.model import POSITION_MAX, Position
from gateway.principal import Principal
from gateway.trace.query import unknown
from gateway.trace.timeline import TracedMessage, TraceStep, TraceView


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
                    "For who may `read` its topic; to others it is not there. "
                    "Answers while the message is in the store: it may go once all its subscriptions have settled it. "
                    "Where the id is at several positions, the last is meant unless `position` names one."
                ),
                options=("position",),
                answers=(Answer(200, "The message as it is delivered.", {JSON: ref("StoredMessage")}),),
                errors=("message_not_found",),
                respond=self.get,
                needs=Right.KNOWN,
            ),
            Call(
                name="getMessageTrace",
                method="GET",
                path="/v1/messages/{id}/trace",
                summary="Everything that happened to a message",
                description=(
                    "Step by step, with where it stands now with each of its subscriptions, and followed through dead "
                    "letters and back. Answers as long as the trace is kept, also when the message itself is gone. "
                    "Whole for who may `view` the gateway; who may `read` the message's topic is shown what concerns "
                    "subscriptions that it may `view`."
                ),
                options=("position",),
                answers=(Answer(200, "Its trace.", {JSON: ref("Trace")}),),
                errors=("message_not_found", "not_supported"),
                respond=self.trace,
                needs=Right.KNOWN,
            ),
        ]

    async def get(self, request: Request) -> Response:
        message_id, principal = _id(request), _reader(request)
        position, positions, body = await self._query.message(message_id, _asked(request))
        if not principal.may_read(_topic(body).topic):
            raise unknown(message_id)
        head = orjson.dumps({"id": message_id, "position": position, "positions": positions})
        return Response(head[:-1] + b',"message":' + body + b"}", media_type=JSON)  # the stored bytes, as they are

    async def trace(self, request: Request) -> Response:
        principal = principal_of(request)
        if not principal.may_view():
            _reader(request)
        view = await self._query.trace(_id(request), _asked(request))
        return json(attrs.asdict(view if principal.may_view() else _seen_by(principal, view)))


class _Topic(msgspec.Struct):
    topic: str


_topic = msgspec.json.Decoder(_Topic).decode


def _reader(request: Request) -> Principal:
    """Who asks, where that is somebody who may read anything at all."""
    principal = principal_of(request)
    if not principal.admin.everything and not principal.read.patterns:
        raise principal.denied("read messages")
    return principal


def _seen_by(principal: Principal, view: TraceView) -> TraceView:
    """What concerns the topics that it may read, and the subscriptions that it may look at."""
    messages = [_message_seen_by(principal, each) for each in view.messages if principal.may_read(each.topic or ">")]
    if not messages:
        raise unknown(view.id)
    return attrs.evolve(view, positions=[each.position for each in messages], messages=messages, refused=[])


def _message_seen_by(principal: Principal, message: TracedMessage) -> TracedMessage:
    steps: list[TraceStep] = []
    for step in message.steps:
        if step.subscription is None:
            steps.append(attrs.evolve(step, who=None))
        elif principal.may_view(step.subscription):
            steps.append(step)
    standing = [each for each in message.standing if principal.may_view(each.subscription)]
    return attrs.evolve(message, standing=standing, steps=steps)


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
