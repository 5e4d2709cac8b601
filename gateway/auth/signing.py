"""Signing tokens, for `gateway token create` and for tests. A gateway itself signs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey

from gateway.auth.jwk import SECRET_BYTES_MIN, Registry

_CLASSES: Mapping[str, type[Key]] = {"HS256": OctKey, "RS256": RSAKey, "ES256": ECKey, "EdDSA": OKPKey}


def sign(key: bytes, algorithm: str, claims: Mapping[str, Any], kid: str | None = None) -> str:
    """A token with these claims. `key`: a private key as PEM or JWK, or a secret of at least 32 bytes.

    Raises ValueError, which says nothing of the key but what is wrong with it.
    """
    header = {"alg": algorithm, "typ": "JWT", **({"kid": kid} if kid is not None else {})}
    try:
        private = _import(key.strip(), algorithm)
        return jws.serialize_compact(header, orjson.dumps(claims), private, registry=Registry(frozenset([algorithm])))
    except (JoseError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise ValueError(f"is no private key for {algorithm} ({type(error).__name__})") from None


def _import(key: bytes, algorithm: str) -> Key:
    if key.startswith(b"{"):
        return JWKRegistry.import_key(orjson.loads(key))
    if algorithm == "HS256" and len(key) < SECRET_BYTES_MIN:
        raise ValueError(f"is a secret of {len(key)} bytes; HS256 needs {SECRET_BYTES_MIN} random ones")
    try:
        return _CLASSES[algorithm].import_key(key)
    except ValueError:
        raise ValueError(f"is no private key for {algorithm}") from None
