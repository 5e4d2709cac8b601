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
from gateway.auth.failures import Failures
from gateway.auth.jwt import Parsed, Subject
from gateway.auth.keysource import Fetch, HttpFetch, KeySource
from gateway.auth.policy import Policy
from gateway.config import Auth, Config, Jwt
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


@attrs.frozen(eq=False)
class Issuer:
    """One [[jwt]] entry, and its keys. Compared by identity: an entry that has changed is another."""

    settings: Jwt
    keys: KeySource
    reload_s: float


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
        self.settings = auth
        """[auth] as it is now: `reload` replaces it."""
        self.failures = Failures(auth, clock)
        self._clock = clock
        self._fetch = fetch or HttpFetch()
        self._issuers = [self._issuer(entry, auth) for entry in config.jwt]
        self._nursery: trio.Nursery | None = None
        self._keys: WatchedFile[dict[str, ApiKey]] | None = None
        self._policy: WatchedFile[Policy] | None = None
        self._known: dict[bytes, Principal] = {}

    def load(self) -> None:
        """Read every file once. Raises ConfigError naming what is wrong."""
        self._keys, self._policy = _watched(self.settings)
        for issuer in self._issuers:
            issuer.keys.load()

    def reload(self, config: Config) -> None:
        """Take [auth] and [[jwt]] as they are now, for who is connected as well. Blocks for as long as files take.

        Raises ConfigError, and then nothing has changed. Whether anybody is asked at all is settled at the start.
        """
        if config.has_credentials != self.required:
            raise ConfigError("auth: whether credentials are needed is settled at the start; restart the gateway")
        keys, permissions = _watched(config.auth)
        kept = {(each.settings, each.reload_s): each for each in self._issuers}
        issuers = [kept.get((entry, config.auth.reload_s)) or self._issuer(entry, config.auth) for entry in config.jwt]
        new = [issuer for issuer in issuers if issuer not in self._issuers]
        for issuer in new:
            issuer.keys.load()
        for issuer in self._issuers:
            if issuer not in issuers:
                issuer.keys.stop()
        if self.settings != config.auth:
            self.failures = Failures(config.auth, self._clock)
        self.settings, self._issuers, self._keys, self._policy = config.auth, issuers, keys, permissions
        if self._nursery is not None:
            for issuer in new:
                self._nursery.start_soon(issuer.keys.run)
        self._changed()

    def _issuer(self, entry: Jwt, auth: Auth) -> Issuer:
        issuer = Issuer(entry, KeySource(entry, self._fetch, auth.reload_s), auth.reload_s)
        issuer.keys.on_change = self._changed
        return issuer

    async def run(self) -> None:
        """Keep all of it fresh."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for issuer in self._issuers:
                nursery.start_soon(issuer.keys.run)
            while True:
                await trio.sleep(self.settings.reload_s)
                files = [file for file in (self._keys, self._policy) if file is not None]
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
        return self.settings.token_bytes_max

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

    async def authenticate(self, token: str, remote: str = "") -> Principal:
        """Check a token that came from `remote`, HOST:PORT.

        Raises `invalid_token`, `credentials_expired`, `keys_unavailable` for want of keys, or `too_many_failures`.
        """
        known = self.known(token)
        if known is not None:
            return known
        self.failures.check(remote)
        try:
            principal = await self._check(token)
        except GatewayError as error:
            self.failures.note(remote, error)
            raise
        if len(self._known) >= self.settings.tokens_known_max:
            self._known.clear()
        self._known[_digest(token)] = principal
        return principal

    async def _check(self, token: str) -> Principal:
        if len(token) > self.settings.token_bytes_max:
            raise jwt.invalid(f"has {len(token)} bytes; at most {self.settings.token_bytes_max} are read")
        if not token.isascii():
            raise jwt.invalid("is not ASCII")
        if token.startswith(apikey.PREFIX):
            return self._of_key(apikey.recognise(self._api_keys(), token, self._clock()))
        return await self._verify(token)

    def renew(self, principal: Principal) -> Principal:
        """The same one with what is permitted now. Raises why its credential is good no more."""
        credential = principal.credential
        if isinstance(credential, ApiKey):
            record = self._api_keys().get(credential.id)
            if record is None or record.sha256 != credential.sha256:
                raise GatewayError("invalid_token", f"API key {credential.id} was removed")
            return self._of_key(apikey.check(record, self._clock()))
        if isinstance(credential, _OfToken):
            if credential.issuer not in self._issuers:
                raise GatewayError("credentials_expired", "the settings of the token's issuer have changed; reconnect")
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
        subject = jwt.check_claims(parsed, issuer.settings, self.settings.leeway_s, self._clock())
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


def _watched(auth: Auth) -> tuple[WatchedFile[dict[str, ApiKey]] | None, WatchedFile[Policy] | None]:
    """The files of keys and permissions, read once; None for one that is not there. Raises ConfigError."""
    keys = WatchedFile(Path(auth.keys_file), apikey.read) if auth.keys_file else None
    permissions = WatchedFile(Path(auth.permissions_file), policy.read) if auth.permissions_file else None
    return keys, permissions


def _digest(token: str) -> bytes:
    """What a token is remembered by: no secret stays in memory, and comparing digests tells nothing of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
