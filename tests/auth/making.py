"""Keys, tokens and configurations for the tests of credentials."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any, Final

import attrs
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from gateway.auth import signing
from gateway.config import Jwt

ISSUER: Final = "https://login.example.org/"
AUDIENCE: Final = "push-gateway"
NOW_S: Final = 1_800_000_000
NOW_MS: Final = NOW_S * 1000


@cache
def key(algorithm: str, name: str = "first") -> Key:
    """A private key for `algorithm`; the same one for the same `name`."""
    match algorithm:
        case "RS256":
            return RSAKey.generate_key(2048)
        case "ES256":
            return ECKey.generate_key("P-256")
        case "EdDSA":
            return OKPKey.generate_key("Ed25519")
    return OctKey.generate_key(256)


def private(algorithm: str, name: str = "first") -> bytes:
    """The same as a JWK with all its secrets."""
    return json.dumps(key(algorithm, name).as_dict(private=True)).encode()


def public_jwk(algorithm: str, name: str = "first", **more: str) -> dict[str, Any]:
    found = key(algorithm, name)
    shown = found.as_dict(private=algorithm == "HS256")
    return {k: v for k, v in shown.items() if k != "kid"} | more


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def claims(**more: Any) -> dict[str, Any]:
    """Good claims; None takes one away."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW_S, "exp": NOW_S + 600} | more
    return {name: value for name, value in good.items() if value is not None}


def token(algorithm: str = "RS256", *, kid: str | None = "k1", name: str = "first", **more: Any) -> str:
    """A good token, signed by the key `name`."""
    return signing.sign(private(algorithm, name), algorithm, claims(**more), kid)


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def settings(**more: Any) -> Jwt:
    return attrs.evolve(
        Jwt(name="login", issuer=ISSUER, audience=AUDIENCE, keys="keys.json", algorithms=("RS256", "ES256", "EdDSA")),
        **more,
    )


def secret() -> bytes:
    return secrets.token_hex(32).encode()
