"""JSON Web Tokens (RFC 7519) as credentials: read, verified, and turned into a subject and what it was granted.

What is cheap is looked at first, the signature last: a token that could not be good anyhow costs no cryptography. The
checks are those of RFC 8725: a fixed list of algorithms for each key, issuer and audience compared, nothing fetched
that a token names (`jku`, `x5u`, `jwk` are ignored), nothing critical that is not understood.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson
from joserfc import jws
from joserfc.errors import JoseError

from gateway.auth.grant import Grant, decode
from gateway.auth.jwk import TrustedKey
from gateway.config import Jwt
from gateway.errors import GatewayError

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")
_SUBJECT_CHARS_MAX: Final = 100
_SECONDS_MAX: Final = 2**53 / 1000
_TYPES: Final = ("JWT", "AT+JWT")
"""`typ` says what a token is for (RFC 8725 §3.11): an ID token or a logout token of the same issuer is no credential
here where it says so."""


@attrs.frozen
class Parsed:
    """A token that was read, and is not trusted yet."""

    text: str
    algorithm: str
    kid: str | None
    claims: Mapping[str, Any]


@attrs.frozen
class Subject:
    """Who a verified token speaks of."""

    name: str
    """`<name of the [[jwt]] entry>:<sub>`."""
    grant: Grant
    expires_ms: int


def invalid(why: str) -> GatewayError:
    return GatewayError("invalid_token", f"the token {why}")


def parse(token: str) -> Parsed:
    """Read a token without trusting it. Raises `invalid_token`."""
    segments = token.split(".")
    if len(segments) == 5:
        raise invalid("is encrypted (JWE); send a signed one (JWS)")
    if len(segments) != 3:
        raise invalid(f"has {len(segments)} parts; a JWT has three, an API key begins with pgk_")
    header, claims = _object(segments[0], "header"), _object(segments[1], "claims")
    if not _SEGMENT.fullmatch(segments[2]):
        raise invalid("has no signature" if not segments[2] else "has a signature that is not base64url")
    algorithm, kid, type_ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str):
        raise invalid("names no algorithm (alg)")
    if kid is not None and not isinstance(kid, str):
        raise invalid("has a kid that is no text")
    if type_ is not None and (not isinstance(type_, str) or type_.upper().removeprefix("APPLICATION/") not in _TYPES):
        raise invalid("is of another type; its typ must be JWT or at+jwt")
    if "crit" in header:
        raise invalid("says that something is critical (crit), and nothing is understood here")
    return Parsed(token, algorithm, kid, claims)


def _object(segment: str, what: str) -> dict[str, Any]:
    """One part: strict base64url without padding, and in it a JSON object; NaN and lone surrogates are no JSON."""
    if not _SEGMENT.fullmatch(segment):
        raise invalid(f"has {what} that are not base64url" if segment else f"has no {what}")
    try:
        raw = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        found = orjson.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        raise invalid(f"has {what} that are not JSON in base64url") from None
    if not isinstance(found, dict):
        raise invalid(f"has {what} that are no JSON object")
    return found


def check_issuer(parsed: Parsed, settings: Jwt) -> bool:
    """Whether the token says that it comes from this issuer."""
    return parsed.claims.get("iss") == settings.issuer


def check_claims(parsed: Parsed, settings: Jwt, leeway_s: int, now_ms: int) -> Subject:
    """Who the token speaks of, if its signature is good. Raises `invalid_token` or `credentials_expired`."""
    if parsed.algorithm not in settings.algorithms:
        raise invalid(f"is signed in a way that is not permitted; permitted is {', '.join(settings.algorithms)}")
    claims, now_s = parsed.claims, now_ms / 1000
    _check_audience(claims.get("aud"), settings.audience)
    expires_s = _time(claims, "exp")
    if expires_s is None:
        raise invalid("never expires; it needs exp")
    for name in ("nbf", "iat"):
        begins_s = _time(claims, name)
        if begins_s is not None and begins_s > now_s + leeway_s:
            raise invalid(f"is not valid yet ({name}); are the clocks right?")
    if now_s >= expires_s + leeway_s:
        raise GatewayError("credentials_expired", "the token has expired (exp); get a fresh one")
    if now_s >= expires_s:
        expires_s += leeway_s
    return Subject(_subject(claims, settings), _grant(claims, settings), int(expires_s * 1000))


def _check_audience(audience: object, wanted: str) -> None:
    named = audience if isinstance(audience, list) else [audience]
    if wanted not in [each for each in named if isinstance(each, str)]:
        raise invalid("is for another audience (aud)" if audience else "names no audience (aud)")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate; bounded, so that arithmetic stays exact."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise invalid(f"has {name} that is no number of seconds")
    return min(float(value), _SECONDS_MAX)


def _subject(claims: Mapping[str, Any], settings: Jwt) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        raise invalid("names nobody (sub)")
    if len(subject) > _SUBJECT_CHARS_MAX or not subject.isprintable():
        raise invalid(f"has a sub that is no name: 1 to {_SUBJECT_CHARS_MAX} printable characters")
    return f"{settings.name}:{subject}"


def _grant(claims: Mapping[str, Any], settings: Jwt) -> Grant:
    """What the token brings along, and the roles that its issuer's subjects have anyhow."""
    claim = claims.get(settings.claim) if settings.claim else None
    try:
        brought = Grant() if claim is None else decode(claim)
    except ValueError as error:
        raise invalid(f"has a claim {settings.claim!r} that is no grant: {error}") from None
    return attrs.evolve(brought, roles=(*brought.roles, *settings.roles))


def check_signature(parsed: Parsed, trusted: TrustedKey) -> None:
    """Raises `invalid_token` where the key did not sign this."""
    if parsed.algorithm not in trusted.algorithms:
        raise invalid("is signed with an algorithm that its key is not used with")
    try:
        jws.deserialize_compact(parsed.text, trusted.key, registry=trusted.registry)
    except (JoseError, ValueError, TypeError):
        raise invalid("has a signature that is not its issuer's") from None
