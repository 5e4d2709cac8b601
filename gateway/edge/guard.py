"""The door of both planes: may this come from where it says, and who asks?

A web page can have its visitor's browser connect to any address that the visitor reaches, a gateway on loopback too
(RFC 6454, RFC 6455 §10.2). So a request that names an origin is taken only from the origins of the configuration, and
from pages that the gateway itself serves. While there are no credentials, a gateway on loopback also looks at the name
it was called by: a name of the attacker's that resolves to 127.0.0.1 would make the page one of the gateway's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import partial
from typing import Final, cast
from urllib.parse import parse_qsl, urlsplit

from gateway.auth.access import Access
from gateway.auth.audit import Audit
from gateway.config import Auth, is_loopback, parse_address
from gateway.errors import GatewayError
from gateway.flow.ring import Wait
from gateway.principal import NOBODY
from gateway.wire.http import Response
from gateway.wire.request import Request

_NEVER_IN_A_QUERY: Final = frozenset(
    ("token", "access_token", "api_key", "apikey", "authorization", "bearer", "jwt", "credential", "password", "secret")
)
_HOSTS_MAX: Final = 100
_BEARER: Final = b"bearer "
_PREFLIGHT: Final = b"access-control-request-method"
_PREFLIGHT_MAX_AGE_S: Final = 600


class Guard:
    """Of one listener, whose address is `address`."""

    def __init__(self, access: Access, audit: Audit, address: str) -> None:
        self.access = access
        self.audit = audit
        self._hosts: set[bytes] = set()  # found to be our own before: an address takes 3 us to look at
        self._checks_host = not access.required and is_loopback(parse_address(address)[0])
        self._take(access.settings)

    def _take(self, settings: Auth) -> None:
        self._settings = settings
        self._origins = frozenset(origin.lower().encode("ascii") for origin in settings.origins)
        self._own = frozenset([*settings.hosts, *_hosts_of(settings.origins)])
        self._hosts.clear()

    async def admit(self, request: Request, remote: str) -> None:
        """Say who asks, in `request.principal`: NOBODY where credentials are needed and none came.

        Raises GatewayError where it is refused, and writes that to the audit log.
        """
        wait = self.admit_now(request, remote)
        if wait is not None:
            await wait()

    def admit_now(self, request: Request, remote: str) -> Wait | None:
        """The same; what is left of it, where credentials are seen for the first time."""
        try:
            authorization = self._look_again(request)
            if not self.access.required:
                return None
            if authorization is None:
                request.principal = NOBODY
                return None
            token = _token(authorization)
            known = self.access.known(token)
            if known is None:
                return partial(self._authenticate, request, token, remote)
            request.principal = known
        except GatewayError as error:
            self.refuse(request, error, remote)
            raise
        return None

    async def _authenticate(self, request: Request, token: str, remote: str) -> None:
        try:
            request.principal = await self.access.authenticate(token, remote)
        except GatewayError as error:
            self.refuse(request, error, remote)
            raise

    def _look_again(self, request: Request) -> bytes | None:
        """`look`, which says the same of a head that came before, as long as the settings are those it looked by."""
        known = cast("tuple[Auth, bytes | None, bytes | None] | None", request.notes.get(self))
        if known is not None and known[0] is self.access.settings:
            _, token, request.origin = known
            return token
        token = self.look(request)
        request.notes[self] = self._settings, token, request.origin
        return token

    def look_only(self, request: Request, remote: str) -> Response | None:
        """The first half of `admit`, where the call decides about the second; the answer to a preflight."""
        try:
            self.look(request)
        except GatewayError as error:
            self.refuse(request, error, remote)
            raise
        return self.preflight(request)

    def refuse(self, request: Request, error: GatewayError, remote: str) -> None:
        """Write a refusal to the audit log."""
        path = request.path.decode("ascii", "backslashreplace")  # never the query: it may hold what must not be shown
        self.audit.refused(request.principal, request.method, path, error, remote)

    def look(self, request: Request) -> bytes | None:
        """What needs no waiting: where the request comes from. The token it carries, None where it carries none."""
        if self._settings is not self.access.settings:
            self._take(self.access.settings)
        origin = host = authorization = None
        for name, value in request.headers:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = _once(name, origin, value)
            elif name == b"authorization":
                authorization = _once(name, authorization, value)
        if b"?" in request.target:
            _check_query(request.query)
        if self._checks_host and host is not None and not self._is_own(host):
            raise GatewayError(
                "permission_denied",
                "without credentials a gateway on loopback is called by its address or as localhost only; name the "
                "host it is called by in auth.hosts, or configure credentials",
            )
        if origin is not None:
            self._check_origin(origin, host)
            request.origin = origin
        return authorization

    def _is_own(self, host: bytes) -> bool:
        if host in self._hosts:
            return True
        name = _host_name(host)
        if name != "localhost" and name not in self._own and not _is_address(name):
            return False
        if len(self._hosts) < _HOSTS_MAX:
            self._hosts.add(host)
        return True

    def _check_origin(self, origin: bytes, host: bytes | None) -> None:
        if origin.lower() in self._origins:
            return
        served = origin.lower().partition(b"://")[2]
        if host is not None and served == host.lower():
            return  # a page of the gateway itself, or of the proxy in front of it; the name was looked at before
        raise GatewayError(
            "permission_denied", "pages of this origin may not use the gateway; name the origin in auth.origins"
        )

    def preflight(self, request: Request) -> Response | None:
        """The answer to a browser that asks before it sends (Fetch standard, CORS preflight); None where it is none."""
        if request.method != "OPTIONS" or request.origin is None or request.header(_PREFLIGHT) is None:
            return None
        asked = request.header(b"access-control-request-headers") or b"authorization, content-type"
        return Response(
            204,
            b"",
            [
                (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, DELETE"),
                (b"access-control-allow-headers", asked),
                (b"access-control-max-age", b"%d" % _PREFLIGHT_MAX_AGE_S),
            ],
        )


def _token(authorization: bytes) -> str:
    if authorization[: len(_BEARER)].lower() != _BEARER:
        raise GatewayError("invalid_token", "Authorization: write Bearer and the token; nothing else is taken")
    return authorization[len(_BEARER) :].strip().decode("latin-1")


def check_known(request: Request) -> None:
    """Refuse who has to say who it is, and has not."""
    if request.principal is NOBODY:
        raise no_credentials()


def no_credentials() -> GatewayError:
    return GatewayError("no_credentials", "credentials are needed here; send Authorization: Bearer with a key or token")


def _once(name: bytes, before: bytes | None, value: bytes) -> bytes:
    if before is not None:
        raise GatewayError("bad_request", f"header {name.decode('ascii')}: was sent twice")
    return value


def _check_query(query: bytes) -> None:
    """A credential in an address ends in logs, histories and referrers (RFC 6750 §5.3)."""
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name.lower() in _NEVER_IN_A_QUERY:
            raise GatewayError(
                "bad_request",
                f"?{name.lower()}=: credentials never go into the query string; send Authorization: Bearer, and "
                f"replace what was sent here",
            )


def _hosts_of(origins: Iterable[str]) -> list[str]:
    return [urlsplit(origin).hostname or "" for origin in origins]


def _host_name(host: bytes) -> str:
    """The name of a Host header, without its port and brackets, in lower case."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
