"""The keys of an issuer, each with the algorithms that it may be used with.

The list of a key is fixed when it is read: by its type, by what its own `alg` says, and by what the configuration
permits. A token chooses a key by `kid`, and never an algorithm that the key was not made for: an RSA key is not an HMAC
secret, whatever the header of a token says (RFC 8725 §3.1, §2.1).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from gateway.config.settings import JWT_ALGORITHMS
from gateway.errors import GatewayError

KEYS_MAX: Final = 100
"""Keys of one issuer; real ones publish two or three."""
KEY_BYTES_MAX: Final = 1024 * 1024
SECRET_BYTES_MIN: Final = 32
"""RFC 7518 §3.2: a key of the size of the hash output or larger."""
_RSA_BITS: Final = (2048, 8192)
"""RFC 7518 §3.3 asks for 2048 at least; larger than 8192 costs milliseconds a token."""


class Registry(JWSRegistry):
    """joserfc's registry of one key: exactly the algorithms of that key, and room for a certificate thumbprint."""

    max_header_length = 4096

    def __init__(self, algorithms: frozenset[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)  # RFC 7515 §4: what is unknown is ignored

    def get_alg(self, name: str) -> Any:
        """Without the warning that RFC 9864 would have EdDSA called Ed25519: it is what issuers say today."""
        if self.allowed is None or name not in self.allowed:
            raise GatewayError("invalid_token", "the token's algorithm is not one that its key is used with")
        return self.algorithms[name]


@attrs.frozen(eq=False)
class TrustedKey:
    """One key, and how it may be used."""

    kid: str | None
    key: Key
    algorithms: frozenset[str]
    registry: Registry


KeyRing = tuple[TrustedKey, ...]


def find(ring: KeyRing, kid: str | None, algorithm: str) -> TrustedKey | None:
    """The key of this `kid`; without one, the only key that takes the algorithm. None where there is none."""
    if kid is not None:
        named = [trusted for trusted in ring if trusted.kid == kid]
        if named:
            return next((trusted for trusted in named if algorithm in trusted.algorithms), named[0])
        nameless = [trusted for trusted in ring if trusted.kid is None]
        return nameless[0] if len(ring) == len(nameless) == 1 else None  # a single key of a file, without a name
    fitting = [trusted for trusted in ring if algorithm in trusted.algorithms]
    return fitting[0] if len(fitting) == 1 else None


def parse(raw: bytes, permitted: Iterable[str], *, from_network: bool = False) -> KeyRing:
    """Read a JWKS, a JWK, a PEM key or certificate, or the bytes of an HMAC secret.

    `permitted`: algorithms of the configuration. `from_network`: no secrets are taken; a published one is none.
    Raises ValueError with the mend. A key of a set that cannot be used is passed over, as RFC 7517 §5 says.
    """
    if len(raw) > KEY_BYTES_MAX:
        raise ValueError(f"has {len(raw)} bytes; at most {KEY_BYTES_MAX} are read")
    allowed = frozenset(permitted)
    stripped = raw.strip()
    if stripped.startswith(b"{"):
        ring = _parse_json(stripped, allowed, from_network)
    elif from_network:
        raise ValueError('is no JWKS; it must answer {"keys": [...]}')
    elif stripped.startswith(b"-----BEGIN"):
        ring = (_trust(_import_pem(stripped), None, allowed),)
    else:
        ring = (_trust(_import_secret(stripped), None, allowed),)
    if not ring:
        raise ValueError(f"holds no key for {', '.join(sorted(allowed))}")
    return ring


def _parse_json(raw: bytes, allowed: frozenset[str], from_network: bool) -> KeyRing:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if "keys" not in document and not from_network:
        return (_trust(_import_jwk(document), document.get("kid"), allowed),)
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise ValueError('is no JWKS: write {"keys": [...]}')
    if len(keys) > KEYS_MAX:
        raise ValueError(f"has {len(keys)} keys; at most {KEYS_MAX} are read")
    ring: list[TrustedKey] = []
    for entry in keys:
        try:
            if not isinstance(entry, dict) or (from_network and entry.get("kty") == "oct"):
                continue
            ring.append(_trust(_import_jwk(entry), entry.get("kid"), allowed))
        except ValueError:
            continue
    return tuple(ring)


def _import_jwk(document: Mapping[str, Any]) -> Key:
    if document.get("use", "sig") != "sig" or "verify" not in document.get("key_ops", ("verify",)):
        raise ValueError("is a key that does not verify signatures (use, key_ops)")
    public = {name: value for name, value in document.items() if name not in ("d", "p", "q", "dp", "dq", "qi", "oth")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of short secrets: they are refused below
            return JWKRegistry.import_key(public)
    except (JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise ValueError(f"is no key: {type(error).__name__}") from None  # no more: a key may be a secret


def _import_pem(raw: bytes) -> Key:
    for cls in (RSAKey, ECKey, OKPKey):
        try:
            return cls.import_key(raw)
        except (JoseError, ValueError, TypeError, UnsupportedAlgorithm):
            continue
    raise ValueError("is no RSA, EC or Ed25519 key in PEM")


def _import_secret(raw: bytes) -> Key:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return OctKey.import_key(raw)
    except (JoseError, ValueError):
        raise ValueError("is no secret for HS256: it is empty, or a public key") from None


def _trust(key: Key, kid: object, allowed: frozenset[str]) -> TrustedKey:
    if kid is not None and not isinstance(kid, str):
        raise ValueError("kid: must be text")
    algorithms = _algorithms(key) & allowed
    named = key.get("alg")
    if isinstance(named, str):
        algorithms &= {named}
    if not algorithms:
        raise ValueError(
            f"is a key for {named or ' '.join(_algorithms(key))}; permitted are {', '.join(sorted(allowed))}"
        )
    return TrustedKey(kid, key, algorithms, Registry(algorithms))


def _algorithms(key: Key) -> frozenset[str]:
    """What a key of this type can be used with; ValueError where it is too weak, or of a kind that is not taken."""
    if isinstance(key, OctKey):
        if len(key.raw_value) < SECRET_BYTES_MIN:
            raise ValueError(f"is a secret of {len(key.raw_value)} bytes; HS256 needs {SECRET_BYTES_MIN} random ones")
        return frozenset(["HS256"])
    if isinstance(key, RSAKey):
        bits = key.raw_value.key_size
        if not _RSA_BITS[0] <= bits <= _RSA_BITS[1]:
            raise ValueError(f"is an RSA key of {bits} bits; from {_RSA_BITS[0]} to {_RSA_BITS[1]} are taken")
        return frozenset(["RS256"])
    if isinstance(key, ECKey) and key.curve_name == "P-256":
        return frozenset(["ES256"])
    if isinstance(key, OKPKey) and key.curve_name == "Ed25519":
        return frozenset(["EdDSA"])
    raise ValueError(f"is a key of a kind that is not taken; use one for {', '.join(JWT_ALGORITHMS)}")
