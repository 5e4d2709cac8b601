"""Who may come in, and the record of who was refused."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import attrs

from gateway.config.address import is_loopback
from gateway.config.setting import KIB, required, setting


@attrs.frozen(kw_only=True)
class Auth:
    """Who may come in. Without `keys_file` and any [[jwt]] nobody is asked, and only loopback is listened on."""

    keys_file: str = setting("", "File of API keys, as `gateway key create` writes it; empty: no API keys are taken.")
    permissions_file: str = setting(
        "", "TOML file of roles and principals, what each may do; empty: only what keys and tokens bring along."
    )
    reload_s: float = setting(
        1.0, "How often these files are looked at; a revocation reaches live connections within it.", 0.05, 4
    )
    leeway_s: int = setting(10, "How far the clocks of token issuers may be off.", 0, 60)
    hello_timeout_s: float = setting(
        10.0, "A WebSocket whose handshake carried no token must send it in `hello` within this; then 3502.", 0.05, 600
    )
    token_bytes_max: int = setting(8 * KIB, "Longest token that is looked at.", 256, 64 * KIB)
    tokens_known_max: int = setting(
        10_000, "Checked tokens that are remembered, so that a signature is verified once.", 1, 1_000_000
    )
    failures_per_s: float = setting(
        10.0,
        "Bad credentials of one address that are looked at in a second; then it is refused unseen, but for credentials "
        "known to be good. Behind a proxy all clients have the proxy's address. 0: no limit.",
        0,
        10_000,
    )
    failures_burst: int = setting(100, "An address that rested may send so many at once.", 1, 1_000_000)
    failures_addresses_max: int = setting(
        10_000, "Addresses remembered for that, 300 bytes each; an IPv6 network of 64 bits counts as one.", 1, 1_000_000
    )
    origins: tuple[str, ...] = setting(
        (), "Origins of web pages that may use the gateway, such as https://app.example.org; all others are refused."
    )
    hosts: tuple[str, ...] = setting(
        (),
        "Host names that a gateway without credentials on loopback may be called by, beside addresses and localhost.",
    )
    open_metrics: bool = setting(False, "Answer /metrics without credentials; /livez, /readyz and /healthz always are.")

    def __attrs_post_init__(self) -> None:
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"origins: {origin!r}: write scheme://host[:port], such as https://app.example.org")


_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._\[\]:-]+")
JWT_ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")


@attrs.frozen(kw_only=True)
class Jwt:
    """An issuer whose JSON Web Tokens are taken. Its subjects are principals called NAME:SUB."""

    name: str = required("What its principals' names begin with; letters, digits, _ and -.")
    issuer: str = required("`iss` of its tokens.")
    audience: str = required("What `aud` of its tokens must name: this gateway.")
    keys: str = required(
        "Its keys: https:// address of a JWKS, or a file that holds a JWKS, a PEM key or certificate, or a secret."
    )
    algorithms: tuple[str, ...] = setting(
        ("RS256",), "Signatures that are taken; each key takes only those of its own type.", choices=JWT_ALGORITHMS
    )
    roles: tuple[str, ...] = setting((), "Roles of the permissions file that all its principals have.")
    claim: str = setting("push", "Claim that says what the principal may do; empty: tokens bring no permissions along.")
    refresh_s: float = setting(300.0, "How often an address is asked for its keys.", 1, 86_400)
    refresh_min_s: float = setting(
        10.0, "It is asked no more often than this, however many tokens name a key that is unknown.", 0.05, 3600
    )

    def __attrs_post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,20}", self.name):
            raise ValueError(f"name: {self.name!r}: use 1 to 20 letters, digits, _ and -")
        for key in ("issuer", "audience", "keys"):
            if not getattr(self, key):
                raise ValueError(f"{key}: is empty")
        if not self.algorithms:
            raise ValueError("algorithms: name at least one")
        if "://" in self.keys:
            parts = urlsplit(self.keys)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
                raise ValueError(f"keys: {self.keys}: who answers here decides who may come in; use https://")


@attrs.frozen(kw_only=True)
class Audit:
    """The audit log: changes in the control plane, and refusals. It always goes to the log, as `gateway.audit`."""

    file: str = setting("", "File that gets it too, as JSON lines; empty: none. It may be rotated at any time.")
    refusals_per_s: int = setting(
        20, "Refusals written per second, five seconds' worth at once; the rest is counted.", 1, 10_000
    )
