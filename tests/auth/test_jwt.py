"""Tokens, good ones and bad ones: each bad one is a named case with its code and its reason."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import jwk, jwt
from gateway.auth.grant import Grant
from gateway.auth.jwt import Subject
from gateway.config import Jwt
from gateway.errors import GatewayError
from tests.auth.making import AUDIENCE, NOW_MS, NOW_S, b64, claims, jwks, key, public_jwk, settings, token

LEEWAY_S = 10
RING = jwk.parse(
    jwks(
        public_jwk("RS256", kid="k1"),
        public_jwk("ES256", kid="k2"),
        public_jwk("EdDSA", kid="k3"),
    ),
    ["RS256", "ES256", "EdDSA"],
)


def verify(text: str, entry: Jwt | None = None, ring: jwk.KeyRing = RING, now_ms: int = NOW_MS) -> Subject:
    """As `Access` does it, without waiting for anything."""
    entry = entry or settings()
    parsed = jwt.parse(text)
    if not jwt.check_issuer(parsed, entry):
        raise jwt.invalid("is of an issuer that is not trusted here (iss)")
    subject = jwt.check_claims(parsed, entry, LEEWAY_S, now_ms)
    signer = jwk.find(ring, parsed.kid, parsed.algorithm)
    if signer is None:
        raise jwt.invalid("names a key that its issuer does not have")
    jwt.check_signature(parsed, signer)
    return subject


def refusal(text: str, **more: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        verify(text, **more)
    return caught.value


@pytest.mark.parametrize(("algorithm", "kid"), [("RS256", "k1"), ("ES256", "k2"), ("EdDSA", "k3")])
def test_a_good_token_says_who_and_until_when(algorithm: str, kid: str) -> None:
    subject = verify(token(algorithm, kid=kid))
    assert subject == Subject("login:alice", Grant(), (NOW_S + 600) * 1000)


def test_a_shared_secret_signs_too() -> None:
    ring = jwk.parse(jwks(public_jwk("HS256", kid="s")), ["HS256"])
    assert verify(token("HS256", kid="s"), settings(algorithms=("HS256",)), ring).name == "login:alice"


def test_a_token_brings_its_permissions_along() -> None:
    subject = verify(token(push={"publish": ["trade.>"], "roles": ["ops"]}), settings(roles=("reader",)))
    assert subject.grant == Grant(publish=("trade.>",), roles=("ops", "reader"))


def test_a_claim_counts_only_where_it_is_named() -> None:
    assert verify(token(push={"admin": [">"]}), settings(claim="")).grant == Grant()
    assert verify(token(push={"admin": [">"]}), settings(claim="https://example.org/push")).grant == Grant()


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
def test_an_audience_may_be_one_of_several(audience: Any) -> None:
    assert verify(token(aud=audience))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_a_type_that_says_access_is_taken(kind: str) -> None:
    assert verify(signed({"alg": "RS256", "kid": "k1", "typ": kind}, claims()))


def test_unknown_header_parameters_are_passed_over() -> None:
    assert verify(signed({"alg": "RS256", "kid": "k1", "x5t": "abc", "nonce": "n"}, claims()))


def test_the_leeway_holds_on_both_sides_and_ends() -> None:
    assert verify(token(nbf=NOW_S + LEEWAY_S))
    assert verify(token(iat=NOW_S + LEEWAY_S))
    late = token(exp=NOW_S - LEEWAY_S + 1)
    assert verify(late).expires_ms == (NOW_S + 1) * 1000, "it is good until the leeway is over, and no longer"
    assert verify(token(exp=NOW_S + 1)).expires_ms == (NOW_S + 1) * 1000, "a live connection gets no leeway"
    assert refusal(token(exp=NOW_S - LEEWAY_S)).code == "credentials_expired"


# ------------------------------------------------------------------------------------------------------ bad tokens


def signed(header: dict[str, Any], content: Any, name: str = "first") -> str:
    """A token with any header, signed by an RSA key as RS256 whatever the header says."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    message = f"{b64(header)}.{b64(content)}"
    private: Any = key("RS256", name).raw_value
    return f"{message}.{b64(private.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def hmac_signed(header: dict[str, Any], secret: bytes) -> str:
    message = f"{b64(header)}.{b64(claims())}"
    return f"{message}.{b64(hmac.digest(secret, message.encode(), sha256))}"


def public_pem() -> bytes:
    found: Any = key("RS256")
    pem: bytes = found.as_pem(private=False)
    return pem


def parts(text: str) -> list[str]:
    return text.split(".")


GOOD = token()
HEAD, BODY, SIGNATURE = parts(GOOD)
RSA = {"alg": "RS256", "kid": "k1"}
INVALID, EXPIRED = "invalid_token", "credentials_expired"


def with_header(header: Any, signature: str = SIGNATURE) -> str:
    return f"{b64(header)}.{BODY}.{signature}"


def with_claims(content: Any) -> str:
    return f"{HEAD}.{b64(content)}.{SIGNATURE}"


Make = str | Callable[[], str]
BAD: dict[str, tuple[Make, str, str]] = {
    # malformed
    "empty": ("", INVALID, "1 parts"),
    "one dot": (".", INVALID, "2 parts"),
    "only dots": ("..", INVALID, "no header"),
    "no signature": (f"{HEAD}.{BODY}.", INVALID, "no signature"),
    "four parts": (GOOD + ".x", INVALID, "4 parts"),
    "encrypted": (GOOD + ".x.y", INVALID, "encrypted"),
    "padding": (f"{HEAD}=.{BODY}.{SIGNATURE}", INVALID, "not base64url"),
    "standard base64": (f"{HEAD}.{BODY}.{SIGNATURE[:-2]}+/", INVALID, "signature that is not base64url"),
    "a line feed in the signature": (f"{HEAD}.{BODY}.{SIGNATURE}\n", INVALID, "signature that is not base64url"),
    "a space in the claims": (f"{HEAD}.{BODY} .{SIGNATURE}", INVALID, "not base64url"),
    "a character too many": (f"{HEAD}.{BODY}A.{SIGNATURE}", INVALID, "claims"),
    "header is no JSON": (with_header(b"{"), INVALID, "header that are not JSON"),
    "header is a list": (with_header([]), INVALID, "no JSON object"),
    "claims are no JSON": (with_claims(b"x"), INVALID, "claims that are not JSON"),
    "claims are a text": (with_claims("x"), INVALID, "no JSON object"),
    "claims are not UTF-8": (with_claims(bytes([0xFF])), INVALID, "claims that are not JSON"),
    "NaN": (with_claims(b'{"exp":NaN}'), INVALID, "claims that are not JSON"),
    "a lone surrogate": (with_claims(b'{"sub":"\\ud800"}'), INVALID, "claims that are not JSON"),
    "nested deep": (with_claims(b"[" * 5000), INVALID, "claims that are not JSON"),
    # forged
    "alg none": (with_header({"alg": "none"}, ""), INVALID, "no signature"),
    "alg none with a signature": (with_header({"alg": "none"}), INVALID, "not permitted"),
    "alg None": (with_header({"alg": "None", "kid": "k1"}), INVALID, "not permitted"),
    "no alg": (with_header({}), INVALID, "no algorithm"),
    "alg is a list": (with_header({"alg": ["RS256"]}), INVALID, "no algorithm"),
    "alg in lower case": (with_header({"alg": "rs256", "kid": "k1"}), INVALID, "not permitted"),
    "RS as HS": (lambda: hmac_signed({"alg": "HS256", "kid": "k1"}, public_pem()), INVALID, "not permitted"),
    "RS as PS": (lambda: signed({"alg": "PS256", "kid": "k1"}, claims()), INVALID, "not permitted"),
    "RS as RS512": (lambda: signed({"alg": "RS512", "kid": "k1"}, claims()), INVALID, "not permitted"),
    "RS as ES": (lambda: signed({"alg": "ES256", "kid": "k1"}, claims()), INVALID, "not used with"),
    "another key's kid": (lambda: signed({"alg": "RS256", "kid": "k2"}, claims()), INVALID, "not used with"),
    "another's signature": (token(name="stranger"), INVALID, "not its issuer's"),
    "claims changed": (with_claims(claims(sub="root")), INVALID, "not its issuer's"),
    "header changed": (with_header(RSA | {"x": 1}), INVALID, "not its issuer's"),
    "signature cut": (f"{HEAD}.{BODY}.{SIGNATURE[:-4]}", INVALID, "not its issuer's"),
    "signature of zeros": (f"{HEAD}.{BODY}.{b64(bytes(256))}", INVALID, "not its issuer's"),
    "signature of nothing ES": (
        with_header({"alg": "ES256", "kid": "k2"}, b64(bytes(64))),  # CVE-2022-21449
        INVALID,
        "not its issuer's",
    ),
    "a giant signature": (f"{HEAD}.{BODY}.{'A' * 100_000}", INVALID, "not its issuer's"),
    "a giant header": (lambda: signed(RSA | {"x": "y" * 10_000}, claims()), INVALID, "not its issuer's"),
    "unknown kid": (token(kid="k9"), INVALID, "does not have"),
    "kid is a path": (token(kid="../../etc/passwd"), INVALID, "does not have"),
    "kid is SQL": (token(kid="k1' OR '1'='1"), INVALID, "does not have"),
    "kid is empty": (token(kid=""), INVALID, "does not have"),
    "kid is a number": (lambda: signed({"alg": "RS256", "kid": 1}, claims()), INVALID, "kid"),
    "the key is in the header": (
        lambda: signed({"alg": "RS256", "kid": "k9", "jwk": public_jwk("RS256", "stranger")}, claims(), "stranger"),
        INVALID,
        "does not have",
    ),
    "an address of keys is in the header": (
        lambda: signed({"alg": "RS256", "jku": "https://evil.example/jwks"}, claims(), "stranger"),
        INVALID,
        "not its issuer's",
    ),
    "critical": (lambda: signed(RSA | {"crit": ["exp"]}, claims()), INVALID, "critical"),
    "payload not encoded": (lambda: signed(RSA | {"b64": False, "crit": ["b64"]}, claims()), INVALID, "critical"),
    "a logout token": (lambda: signed(RSA | {"typ": "logout+jwt"}, claims()), INVALID, "another type"),
    "typ is a number": (lambda: signed(RSA | {"typ": 1}, claims()), INVALID, "another type"),
    # of another time, place or person
    "expired": (token(exp=NOW_S - LEEWAY_S - 1), EXPIRED, "expired"),
    "expired long ago": (token(exp=0), EXPIRED, "expired"),
    "no exp": (token(exp=None), INVALID, "never expires"),
    "exp is text": (token(exp=str(NOW_S + 600)), INVALID, "exp that is no number"),
    "exp is true": (token(exp=True), INVALID, "exp that is no number"),
    "exp is negative": (token(exp=-1), INVALID, "exp that is no number"),
    "future": (token(nbf=NOW_S + LEEWAY_S + 1), INVALID, "not valid yet (nbf)"),
    "issued in the future": (token(iat=NOW_S + LEEWAY_S + 1), INVALID, "not valid yet (iat)"),
    "nbf is a list": (token(nbf=[NOW_S]), INVALID, "nbf that is no number"),
    "wrong audience": (token(aud="another-service"), INVALID, "another audience"),
    "audience begins alike": (token(aud=AUDIENCE + "-2"), INVALID, "another audience"),
    "audiences without this one": (token(aud=["a", "b"]), INVALID, "another audience"),
    "audience is an object": (token(aud={AUDIENCE: 1}), INVALID, "another audience"),
    "no audience": (token(aud=None), INVALID, "no audience"),
    "wrong issuer": (token(iss="https://evil.example/"), INVALID, "issuer"),
    "issuer without its slash": (token(iss="https://login.example.org"), INVALID, "issuer"),
    "issuer is a list": (token(iss=["https://login.example.org/"]), INVALID, "issuer"),
    "no issuer": (token(iss=None), INVALID, "issuer"),
    "no subject": (token(sub=None), INVALID, "nobody"),
    "an empty subject": (token(sub=""), INVALID, "nobody"),
    "subject is a number": (token(sub=7), INVALID, "nobody"),
    "a subject with a line feed": (token(sub="alice\nroot"), INVALID, "printable"),
    "a long subject": (token(sub="a" * 101), INVALID, "printable"),
    "permissions are text": (token(push="admin"), INVALID, "no grant"),
    "permissions unknown": (token(push={"sudo": True}), INVALID, "no grant"),
    "permissions malformed": (token(push={"publish": ["a..b"]}), INVALID, "no grant"),
    "permissions without end": (token(push={"publish": ["a.b"] * 1001}), INVALID, "no grant"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_with_its_reason(name: str) -> None:
    made, code, reason = BAD[name]
    text = made() if callable(made) else made
    error = refusal(text)
    assert (error.code, reason in error.message) == (code, True), error.message
    assert error.kind.status == 401
    for part in parts(text):
        assert len(part) < 8 or part not in error.message, "a token is never shown, not even a bad one"


def test_there_are_enough_bad_tokens() -> None:
    assert len(BAD) >= 40


def test_without_a_kid_the_only_key_for_the_algorithm_is_taken() -> None:
    assert verify(token(kid=None))
    two = jwk.parse(jwks(public_jwk("RS256"), public_jwk("RS256", "second")), ["RS256"])
    assert refusal(token(kid=None), ring=two).code == INVALID


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 127))
def test_a_token_with_any_character_changed_is_refused(place: int, change: int) -> None:
    changed = GOOD[:place] + chr(ord(GOOD[place]) ^ change) + GOOD[place + 1 :]
    subject = None
    with contextlib.suppress(GatewayError):
        subject = verify(changed)
    if subject is not None:  # the last character of a part holds bits that base64 leaves out
        assert subject == verify(GOOD)
        assert place in (len(HEAD) - 1, len(HEAD) + len(BODY), len(GOOD) - 1)


@given(st.text(max_size=200))
def test_any_text_is_refused_and_never_fails(text: str) -> None:
    assert refusal(text).code == INVALID


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip"]), st.from_type(object).map(repr)))
def test_any_header_is_refused_and_never_fails(header: dict[str, Any]) -> None:
    assert refusal(with_header(header)).code == INVALID
