"""The OpenAPI 3.1 document of the control plane, made from the table that its routes are made from.

HEAD and OPTIONS are answered everywhere, as HTTP has them, and not listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import groupby
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway import __version__
from gateway.control.call import JSON, Answer, Call, Right, Schema, json, ref
from gateway.control.schemas import PARAMETERS, SCHEMAS
from gateway.errors import TABLE

_OF_HTTP: Final = (
    *("bad_request", "request_timeout", "payload_too_large", "request_line_too_long", "expectation_failed"),
    *("headers_too_large", "internal", "version_not_supported", "permission_denied"),
)
"""Errors that every call may be answered with before it is looked at, or when the gateway is wrong itself."""
_OF_CREDENTIALS: Final = (
    "no_credentials",
    "invalid_token",
    "credentials_expired",
    "keys_unavailable",
    "too_many_failures",
)
"""Errors of calls that ask who makes them, where the gateway has credentials."""
_BEARER: Final = "bearer"
_SCHEME: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key or a JSON Web Token.",
}
_PARAMETER: Final = re.compile(r"{(\w+)}")


class OpenApi:
    """The document, and the call that answers it."""

    def __init__(self, calls: Iterable[Call], has_credentials: bool) -> None:
        own = Call(
            name="getOpenApi",
            method="GET",
            path="/openapi.json",
            summary="This document",
            answers=(Answer(200, "An OpenAPI document.", {JSON: {"type": "object"}}),),
            respond=self.answer,
            needs=Right.OPEN,
        )
        self.calls = [*calls, own]
        self.document = document(self.calls, has_credentials)

    async def answer(self, request: Request) -> Response:
        return json(self.document)


def document(calls: Iterable[Call], has_credentials: bool) -> Schema:
    """The whole document, of a gateway that asks for credentials or of one that asks nobody."""
    by_path = groupby(sorted(calls, key=_path), key=_path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Push gateway, control plane",
            "version": __version__,
            "description": "Subscriptions, connections and health of a push gateway. HEAD and OPTIONS work everywhere.",
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "paths": {path: _path_item(path, list(group)) for path, group in by_path},
        "components": {"schemas": SCHEMAS, "securitySchemes": {_BEARER: _SCHEME} if has_credentials else {}},
        "security": [{_BEARER: []}] if has_credentials else [],
    }


def _path(call: Call) -> str:
    return call.path


def _path_item(path: str, calls: list[Call]) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True, **PARAMETERS[name]} for name in _PARAMETER.findall(path)
    ]
    operations = {call.method.lower(): _operation(call) for call in calls}
    return {"parameters": parameters, **operations} if parameters else operations


def _operation(call: Call) -> Schema:
    operation: Schema = {"operationId": call.name, "summary": call.summary}
    if call.description:
        operation["description"] = call.description
    named = [(name, True) for name in call.query] + [(name, False) for name in call.options]
    if named:
        operation["parameters"] = [
            {"name": name, "in": "query", "required": required, **PARAMETERS[name]} for name, required in named
        ]
    if call.needs is Right.OPEN:
        operation["security"] = []
    if call.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": call.body}}}
    operation["responses"] = dict(_responses(call))
    return operation


def _responses(call: Call) -> Iterator[tuple[str, Schema]]:
    for answer in call.answers:
        response: Schema = {"description": answer.description}
        if answer.content:
            response["content"] = {media: {"schema": schema} for media, schema in answer.content.items()}
        yield str(answer.status), response
    of_credentials = () if call.needs is Right.OPEN else _OF_CREDENTIALS
    codes = sorted({*_OF_HTTP, *of_credentials, *call.errors}, key=lambda code: (TABLE[code].status, code))
    for status, group in groupby(codes, key=lambda code: TABLE[code].status):
        yield str(status), _error(HTTPStatus(status), list(group))


def _error(status: HTTPStatus, codes: list[str]) -> Schema:
    """An error response: the one error object, with one of `codes`."""
    schema = {"allOf": [ref("Error"), {"properties": {"code": {"enum": codes}}}]}
    response: Schema = {"description": f"{status.phrase}: {', '.join(codes)}.", "content": {JSON: {"schema": schema}}}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = {"type": "integer", "minimum": 1}
        response["headers"] = {"Retry-After": {"description": "Seconds to wait, where that helps.", "schema": seconds}}
    return response
