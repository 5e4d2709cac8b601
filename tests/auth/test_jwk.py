from __future__ import annotations

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.auth import jwk
from tests.auth.making import jwks, key, private, public_jwk, secret

ALL = ("HS256", "RS256", "ES256", "EdDSA")


def pem(algorithm: str) -> bytes:
    found: Any = key(algorithm)
    raw: bytes = found.as_pem(private=False)
    return raw


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_each_key_takes_the_algorithm_of_its_type_and_no_other(algorithm: str) -> None:
    for raw in (pem(algorithm), json.dumps(public_jwk(algorithm)).encode(), jwks(public_jwk(algorithm))):
        [trusted] = jwk.parse(raw, ALL)
        assert trusted.algorithms == {algorithm}


def test_a_secret_is_one_for_hs256() -> None:
    for raw in (secret() + b"\n", jwks(public_jwk("HS256"))):
        [trusted] = jwk.parse(raw, ALL)
        assert trusted.algorithms == {"HS256"}


def test_what_is_not_permitted_is_not_taken_from_a_key_either() -> None:
    with pytest.raises(ValueError, match="is a key for RS256; permitted are ES256"):
        jwk.parse(pem("RS256"), ["ES256"])
    with pytest.raises(ValueError, match="holds no key for ES256"):
        jwk.parse(jwks(public_jwk("RS256")), ["ES256"])


def test_a_private_key_in_a_set_is_used_without_its_secrets() -> None:
    [trusted] = jwk.parse(private("RS256"), ALL)
    assert not trusted.key.is_private


def test_an_address_answers_no_secrets() -> None:
    with pytest.raises(ValueError, match="holds no key"):
        jwk.parse(jwks(public_jwk("HS256")), ALL, from_network=True)
    with pytest.raises(ValueError, match="no JWKS"):
        jwk.parse(pem("RS256"), ALL, from_network=True)
    with pytest.raises(ValueError, match="no JWKS"):
        jwk.parse(json.dumps(public_jwk("RS256")).encode(), ALL, from_network=True)


def test_a_key_of_a_set_that_cannot_be_used_is_passed_over() -> None:
    odd: list[Any] = [
        3,
        {"kty": "AKP"},
        {"kty": "RSA"},
        public_jwk("RS256", use="enc"),
        public_jwk("RS256", alg="RS512"),
        public_jwk("RS256") | {"kid": 7},
        public_jwk("RS256", kid="good"),
    ]
    [trusted] = jwk.parse(jwks(*odd), ALL)
    assert trusted.kid == "good"


def weak() -> dict[str, bytes]:
    rsa = RSAKey.generate_key(1024)
    return {
        "a short secret": b"a" * 31,
        "no secret": b"",
        "a short RSA key": rsa.as_pem(private=False),
        "another curve": ECKey.generate_key("P-384").as_pem(private=False),
        "a key for agreement": OKPKey.generate_key("X25519").as_pem(private=False),
        "no key": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "no JSON": b"{",
        "no set": b'{"keys": 3}',
        "too many": jwks(*[{"kty": "oct"}] * (jwk.KEYS_MAX + 1)),
        "too large": b"a" * (jwk.KEY_BYTES_MAX + 1),
    }


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_what_is_weak_or_no_key_is_refused() -> None:
    for name, raw in weak().items():
        with pytest.raises(ValueError, match=r"is |has |holds "):
            pytest.fail(f"{name}: {jwk.parse(raw, ALL)}")


def test_a_public_key_is_no_secret() -> None:
    with pytest.raises(ValueError, match="empty, or a public key"):
        jwk._import_secret(pem("RS256"))


def test_an_error_says_nothing_of_the_key() -> None:
    document = {"kty": "oct", "k": "c2hvcnQtc2VjcmV0"}
    with pytest.raises(ValueError, match="secret of 12 bytes") as caught:
        jwk.parse(json.dumps(document).encode(), ALL)
    assert "c2hvcnQ" not in str(caught.value)


def test_a_key_is_found_by_its_name() -> None:
    ring = jwk.parse(jwks(public_jwk("RS256", kid="a"), public_jwk("ES256", kid="b")), ALL)
    assert jwk.find(ring, "a", "RS256") is ring[0]
    assert jwk.find(ring, "c", "RS256") is None
    assert jwk.find(ring, None, "ES256") is ring[1]


def test_the_only_key_of_a_file_needs_no_name() -> None:
    ring = jwk.parse(pem("RS256"), ALL)
    assert jwk.find(ring, "whatever", "RS256") is ring[0]
    two = jwk.parse(jwks(public_jwk("RS256"), public_jwk("ES256")), ALL)
    assert jwk.find(two, "whatever", "RS256") is None
