"""One row of the control plane's table: the routes and the OpenAPI document are both made from it."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

import attrs
import orjson
import trio
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.model import NAME_BYTES_MAX
from gateway.principal import Principal
from gateway.wire.http import error_response


class Right(enum.Enum):
    """What a principal needs to make a call. Where the path has a {name}, of that subscription; else of the gateway."""

    OPEN = "open"
    """Nothing: probes and the document."""
    KNOWN = "known"
    """To say who it is; the call itself looks at what it may see."""
    VIEW = "view"
    ADMIN = "admin"


Respond = Callable[[Request], Awaitable[Response]]
Schema = dict[str, Any]
"""A JSON Schema, as OpenAPI 3.1 takes it (draft 2020-12)."""

JSON: Final = "application/json"
_TURN: Final = 100
"""Items of a long answer made before other tasks run: about a millisecond of them."""


@attrs.frozen
class Answer:
    """One way a call succeeds. `content`: schema by media type; empty where there is no body."""

    status: int
    description: str
    content: dict[str, Schema] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Call:
    """What the control plane can be asked: `method` on `path`, answered by `respond`.

    `errors` are codes of `errors.TABLE` that are this call's own; those that HTTP itself knows need not be named.
    """

    name: str
    method: str
    path: str
    summary: str
    description: str = ""
    body: Schema | None = None
    query: tuple[str, ...] = ()
    """Names of required query parameters, described in `schemas.PARAMETERS`."""
    options: tuple[str, ...] = ()
    """Names of those that may be left out."""
    answers: tuple[Answer, ...]
    errors: tuple[str, ...] = ()
    respond: Respond
    needs: Right = Right.ADMIN
    """Every call that does not say otherwise is for who administers the gateway, or the subscription in its path."""

    def permit(self, principal: Principal, name: str | None) -> None:
        """Raise `permission_denied` where `principal` may not make this call; `name`: the subscription in the path."""
        if self.needs is Right.VIEW and not principal.may_view(name or ">"):
            raise principal.denied(f"look at {_what(name)}")
        if self.needs is Right.ADMIN and not principal.may_admin(name or ">"):
            raise principal.denied(f"change {_what(name)}")


def _what(name: str | None) -> str:
    return "the gateway as a whole" if name is None else f"the subscription {name[:NAME_BYTES_MAX]!r}"


def principal_of(request: Request) -> Principal:
    """Who makes this call."""
    found: Principal = request.scope["gateway"].principal
    return found


def ref(name: str) -> Schema:
    """The schema of this name in `control.schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def json(content: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, media_type=JSON)


async def json_array(items: Iterable[Any]) -> Response:
    """A JSON array of any length, made in turns so that it holds up nobody."""
    encoded: list[bytes] = []
    for item in items:
        encoded.append(orjson.dumps(item))
        if len(encoded) % _TURN == 0:
            await trio.lowlevel.checkpoint()
    return Response(b"[" + b",".join(encoded) + b"]", media_type=JSON)


def error(cause: GatewayError, headers: dict[str, str] | None = None) -> Response:
    """The error object of protocol.md §2 as an answer."""
    plain = error_response(cause)
    return Response(plain.body, plain.status, {**dict(_text(plain.headers or ())), **(headers or {})})


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield name.decode("latin-1"), value.decode("latin-1")


async def body(request: Request) -> Any:
    """The request's body as plain data; it is JSON whatever its media type says (`curl -d` says form)."""
    raw = await request.body()
    if not raw:
        raise GatewayError("bad_request", "the body is empty; send a JSON object")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as cause:
        raise GatewayError("bad_request", f"the body is not JSON: {cause}") from None
