"""Where an issuer's keys come from: a file, or an address that answers a JWKS. Kept fresh in the background.

The last good keys are kept through an outage, however long. A token with a `kid` that is unknown has the address asked
again, at most once in `refresh_min_s`: an issuer that has rotated its keys is understood at once, and tokens with
made-up names cannot make the gateway flood it.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
import trio

from gateway.auth import jwk
from gateway.auth.jwk import KeyRing
from gateway.config import Jwt
from gateway.errors import ConfigError

_log = structlog.get_logger("gateway.auth")
FETCH_TIMEOUT_S: Final = 5.0
"""An address that takes longer is down; a client that waits for it waits no longer."""
Fetch = Callable[[str], Awaitable[bytes]]


class KeySource:
    """The keys of one [[jwt]] entry. `run` keeps them fresh."""

    def __init__(self, settings: Jwt, fetch: Fetch, reload_s: float) -> None:
        self.ring: KeyRing = ()
        self.failures = 0
        """Attempts since the start that brought no keys."""
        self.failing = ""
        """Why the last attempt brought no keys; empty where it did."""
        self.on_change: Callable[[], None] = lambda: None
        self._settings = settings
        self._fetch = fetch
        self._is_address = "://" in settings.keys
        self._refresh_s = settings.refresh_s if self._is_address else reload_s
        self._raw: bytes | None = None
        self._tried_at = -1e9
        self._wanted = trio.Event()
        self._tried = trio.Event()
        self._life = trio.CancelScope()

    def load(self) -> None:
        """Read the file once, before anything is accepted. Raises ConfigError. An address is asked once it runs."""
        if not self._is_address:
            try:
                self._take(_read(self._settings.keys))
            except (OSError, ValueError) as error:
                raise ConfigError(f"jwt {self._settings.name!r}: keys: {self._settings.keys}: {_why(error)}") from None

    async def run(self) -> None:
        """Look again every now and then, and when asked to."""
        with self._life:
            while True:
                await self._refresh()
                self._wanted = trio.Event()
                with trio.move_on_after(self._refresh_s if self.ring else self._settings.refresh_min_s):
                    await self._wanted.wait()
                    await trio.sleep_until(self._tried_at + self._settings.refresh_min_s)

    def stop(self) -> None:
        """Its issuer is trusted no more: `run` returns."""
        self._life.cancel()

    async def find(self, kid: str | None, algorithm: str) -> jwk.TrustedKey | None:
        """The key for a token; asks the address again where it is not known. None where there is none."""
        found = jwk.find(self.ring, kid, algorithm)
        if found is None and self._is_address and self._may_ask():
            tried = self._tried
            self._wanted.set()
            with trio.move_on_after(FETCH_TIMEOUT_S):
                await tried.wait()
            found = jwk.find(self.ring, kid, algorithm)
        return found

    async def wait_tried(self) -> None:
        """Wait until the keys have been asked for at least once."""
        if self._tried_at < 0:
            await self._tried.wait()

    def _may_ask(self) -> bool:
        return trio.current_time() >= self._tried_at + self._settings.refresh_min_s or self._wanted.is_set()

    async def _refresh(self) -> None:
        settings = self._settings
        self._tried_at = trio.current_time()
        try:
            if self._is_address:
                with trio.fail_after(FETCH_TIMEOUT_S):
                    raw = await self._fetch(settings.keys)
            else:
                raw = await trio.to_thread.run_sync(_read, settings.keys)
            self._take(raw)
        except Exception as error:  # whatever a network and its library come up with
            self.failures += 1
            why = _why(error)
            if why != self.failing:  # once, not at every attempt
                _log.error("keys are not refreshed; the last good ones stay", issuer=settings.name, error=why)
            self.failing = why
        else:
            if self.failing:
                _log.info("keys are refreshed again", issuer=settings.name)
            self.failing = ""
        finally:
            tried, self._tried = self._tried, trio.Event()
            tried.set()

    def _take(self, raw: bytes) -> None:
        if raw == self._raw:
            return
        self.ring = jwk.parse(raw, self._settings.algorithms, from_network=self._is_address)
        self._raw = raw
        self.on_change()


def _read(file: str) -> bytes:
    with Path(file).open("rb") as opened:
        return opened.read(jwk.KEY_BYTES_MAX + 1)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, trio.TooSlowError):
        return f"no answer within {FETCH_TIMEOUT_S:g} s"
    return f"{str(error) or type(error).__name__}"[:200]


class HttpFetch:
    """Asks an address with httpx2, which is imported where there is one to ask. No redirect is followed."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None

    async def __call__(self, url: str) -> bytes:
        import httpx2

        if self._context is None and urlsplit(url).scheme == "https":
            self._context = await trio.to_thread.run_sync(ssl.create_default_context)  # reads hundreds of certificates
        verify: ssl.SSLContext | bool = self._context or False
        async with (
            httpx2.AsyncClient(
                verify=verify,
                timeout=FETCH_TIMEOUT_S,
                follow_redirects=False,
                trust_env=self._context is not None,  # a proxy for what leaves the machine only
            ) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"answered with HTTP status {answer.status_code}")
            parts: list[bytes] = []
            size = 0
            async for part in answer.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > jwk.KEY_BYTES_MAX:
                    raise ValueError(f"answered with more than {jwk.KEY_BYTES_MAX} bytes")
            return b"".join(parts)
