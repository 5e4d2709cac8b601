"""JSON over HTTP, one call at a time: all that a command needs. The standard library has it."""

from __future__ import annotations

import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import quote

import msgspec
import orjson

from gateway.cli.exits import CommandError
from gateway.cli.options import NAME, token
from gateway.errors import TABLE, GatewayError


class _Error(msgspec.Struct):
    """The error object of protocol.md §2."""

    code: str
    message: str


def call(method: str, base: str, path: str, body: object = None, timeout_s: float = 30.0) -> bytes:
    """Make one call; the body of the answer.

    Raises GatewayError with what the gateway answered, CommandError where there is no gateway that answers.
    """
    headers = {"User-Agent": NAME, "Accept": "application/json"}
    data = None
    if body is not None:
        data = orjson.dumps(body)
        headers["Content-Type"] = "application/json"
    credential = token()
    if credential is not None:
        headers["Authorization"] = f"Bearer {credential}"
    url = base.rstrip("/") + path
    try:
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        with error:
            raise _answered(error.code, error.read()) from None
    except urllib.error.URLError as error:
        raise CommandError(f"{url}: {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise CommandError(f"{url}: {error or type(error).__name__}") from None


def _answered(status: int, content: bytes) -> Exception:
    try:
        error = msgspec.json.decode(content, type=_Error)
    except msgspec.DecodeError:
        return CommandError(f"answered with HTTP status {status}; is it a push gateway?")
    return GatewayError(error.code, error.message) if error.code in TABLE else CommandError(error.message)


def path_of(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")
