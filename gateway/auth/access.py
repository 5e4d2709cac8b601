"""A token in, a principal out; and revocation, which reaches who is connected within seconds.

The keys file and the permissions file are looked at every `auth.reload_s`. What is wrong in them is said loudly and
changes nothing: the last good content stays. A change forgets every token that was checked, and calls `on_change`, upon
which the node asks `renew` for each connection that stands.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import attrs
import structlog
import trio

from gateway.auth import apikey, jwk, jwt, policy
from gateway.auth.apikey import ApiKey
from gateway.auth.jwt import Parsed, Subject
from gateway.auth.keysource import Fetch, HttpFetch, KeySource
from gateway.auth.policy import Policy
from gateway.config import Config, Jwt
from gateway.errors import ConfigError, GatewayError
from gateway.principal import Principal

_log = structlog.get_logger("gateway.auth")
T = TypeVar("T")
_SETTLED_S: Final = 2.0
"""A file that was written this recently is read again: two writes within one tick of its clock look alike."""


class WatchedFile(Generic[T]):
    """A file and its last good content."""

    def __init__(self, file: Path, read: Callable[[Path], T]) -> None:
        self.content = read(file)
        self.failing = ""
        """Why the last look brought nothing; empty where it did."""
        self._file = file
        self._read = read
        self._seen: tuple[int, ...] = ()

    def look(self) -> bool:
        """Read the file where it may have changed; whether it has. Blocks."""
        try:
            status = os.stat(self._file)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return False
            content = self._read(self._file)
            self._seen = seen if time.time() - status.st_mtime > _SETTLED_S else ()
        except (ConfigError, OSError) as error:
            why = str(error)
            if why != self.failing:
                _log.error("a file of credentials or permissions is not taken; the last good one stays", error=why)
            self.failing = why
            return False
        self.failing = ""
        changed, self.content = content != self.content, content
        return changed


@attrs.frozen
class Issuer:
    """One [[jwt]] entry, and its keys."""

    settings: Jwt
    keys: KeySource


@attrs.frozen
class _OfToken:
    """What a principal of a token is made from: kept, so that it can be made anew."""

    issuer: Issuer
    subject: Subject
    signer: jwk.TrustedKey


class Access:
    """All credentials of a node. `load` before anything is accepted, `run` for as long as it lives."""

    def __init__(self, config: Config, clock: Callable[[], int], fetch: Fetch | None = None) -> None:
        auth = config.auth
        self.required = config.has_credentials
        """Whether anybody is asked for credentials at all."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when what was permitted may not be any more."""
        self._auth = auth
        self._clock = clock
        fetch = fetch or HttpFetch()
        self._issuers = [Issuer(entry, KeySource(entry, fetch, auth.reload_s)) for entry in config.jwt]
        self._keys: WatchedFile[dict[str, ApiKey]] | None = None
        self._policy: WatchedFile[Policy] | None = None
        self._known: dict[bytes, Principal] = {}

    def load(self) -> None:
        """Read every file once. Raises ConfigError naming what is wrong."""
        if self._auth.keys_file:
            self._keys = WatchedFile(Path(self._auth.keys_file), apikey.read)
        if self._auth.permissions_file:
            self._policy = WatchedFile(Path(self._auth.permissions_file), policy.read)
        for issuer in self._issuers:
            issuer.keys.load()
            issuer.keys.on_change = self._changed

    async def run(self) -> None:
        """Keep all of it fresh."""
        async with trio.open_nursery() as nursery:
            for issuer in self._issuers:
                nursery.start_soon(issuer.keys.run)
            files = [file for file in (self._keys, self._policy) if file is not None]
            while True:
                await trio.sleep(self._auth.reload_s)
                changed = [await trio.to_thread.run_sync(file.look) for file in files]
                if any(changed):
                    _log.info("credentials or permissions have changed")
                    self._changed()

    async def wait_fresh(self) -> None:
        """Wait until every issuer's keys have been asked for once."""
        for issuer in self._issuers:
            await issuer.keys.wait_tried()

    def _changed(self) -> None:
        self._known.clear()
        self.on_change()

    @property
    def token_bytes_max(self) -> int:
        return self._auth.token_bytes_max

    @property
    def tokens_known(self) -> int:
        return len(self._known)

    @property
    def troubles(self) -> list[str]:
        """What could not be refreshed, and why."""
        failing = [file.failing for file in (self._keys, self._policy) if file is not None and file.failing]
        return failing + [f"jwt {i.settings.name!r}: {i.keys.failing}" for i in self._issuers if i.keys.failing]

    # -------------------------------------------------------------------------------------------------- tokens

    def known(self, token: str) -> Principal | None:
        """The principal of a token that was checked before and is still good: 1 us where a signature costs 100."""
        principal = self._known.get(_digest(token))
        if principal is None or (principal.expires_ms is not None and self._clock() >= principal.expires_ms):
            return None
        return principal

    async def authenticate(self, token: str) -> Principal:
        """Check a token. Raises `invalid_token`, `credentials_expired`, or `keys_unavailable` for want of keys."""
        known = self.known(token)
        if known is not None:
            return known
        if len(token) > self._auth.token_bytes_max:
            raise jwt.invalid(f"has {len(token)} bytes; at most {self._auth.token_bytes_max} are read")
        if not token.isascii():
            raise jwt.invalid("is not ASCII")
        if token.startswith(apikey.PREFIX):
            principal = self._of_key(apikey.recognise(self._api_keys(), token, self._clock()))
        else:
            principal = await self._verify(token)
        if len(self._known) >= self._auth.tokens_known_max:
            self._known.clear()
        self._known[_digest(token)] = principal
        return principal

    def renew(self, principal: Principal) -> Principal:
        """The same one with what is permitted now. Raises why its credential is good no more."""
        credential = principal.credential
        if isinstance(credential, ApiKey):
            record = self._api_keys().get(credential.id)
            if record is None or record.sha256 != credential.sha256:
                raise GatewayError("invalid_token", f"API key {credential.id} was removed")
            return self._of_key(apikey.check(record, self._clock()))
        if isinstance(credential, _OfToken):
            signer = credential.signer
            now = jwk.find(credential.issuer.keys.ring, signer.kid, min(signer.algorithms))
            if now is None or now.key != signer.key:
                raise jwt.invalid("was signed with a key that its issuer has withdrawn")
            return self._of_token(credential)
        return principal

    def _api_keys(self) -> dict[str, ApiKey]:
        if self._keys is None:
            raise GatewayError("invalid_token", "API keys are not taken here (auth.keys_file)")
        return self._keys.content

    def _current_policy(self) -> Policy:
        return Policy() if self._policy is None else self._policy.content

    def _of_key(self, record: ApiKey) -> Principal:
        return self._current_policy().principal(
            record.principal, [record.grant], expires_ms=record.expires_ms, credential=record
        )

    def _of_token(self, credential: _OfToken) -> Principal:
        subject = credential.subject
        return self._current_policy().principal(
            subject.name, [subject.grant], expires_ms=subject.expires_ms, credential=credential
        )

    async def _verify(self, token: str) -> Principal:
        parsed = jwt.parse(token)
        issuer = next((each for each in self._issuers if jwt.check_issuer(parsed, each.settings)), None)
        if issuer is None:
            raise jwt.invalid("is of an issuer that is not trusted here (iss)")
        subject = jwt.check_claims(parsed, issuer.settings, self._auth.leeway_s, self._clock())
        signer = await self._signer(issuer, parsed)
        jwt.check_signature(parsed, signer)
        return self._of_token(_OfToken(issuer, subject, signer))

    async def _signer(self, issuer: Issuer, parsed: Parsed) -> jwk.TrustedKey:
        signer = await issuer.keys.find(parsed.kid, parsed.algorithm)
        if signer is not None:
            return signer
        if not issuer.keys.ring:
            raise GatewayError(
                "keys_unavailable",
                f"the keys of issuer {issuer.settings.name!r} could not be fetched yet; try again",
                5,
            )
        named = "names a key (kid) that" if parsed.kid is not None else "names no key (kid), and"
        raise jwt.invalid(f"{named} its issuer does not have for this algorithm")


def _digest(token: str) -> bytes:
    """What a token is remembered by: no secret stays in memory, and comparing digests tells nothing of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
