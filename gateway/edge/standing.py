"""Who a WebSocket session speaks for, from its handshake to its end.

NOBODY  --hello with a good token-->  a principal  --hello with a fresh one-->  the same principal, for longer
   |                                       |
   | no hello in time: 3502                | its time is over: 3005; it was revoked: 3500; it lost a subscription: 3503
"""

from __future__ import annotations

from typing import Final

from gateway.auth.access import Access
from gateway.errors import GatewayError
from gateway.principal import ANONYMOUS, NOBODY, Principal

HELLO_BYTES: Final = 2048
"""What a hello holds beside its token: the client's name, its reference, and JSON."""


class Standing:
    """See the module. It decides; the session acts."""

    __slots__ = ("_access", "_hello_by", "_hello_bytes_max", "_remote", "principal")

    def __init__(self, access: Access, principal: Principal, hello_by: float, remote: str = "") -> None:
        """`hello_by`: run-loop time until which a session without credentials may say who it is."""
        self.principal = principal
        self._access = access
        self._hello_by = hello_by
        self._remote = remote
        self._hello_bytes_max = access.token_bytes_max + HELLO_BYTES

    def check_size(self, size: int) -> None:
        """Refuse a frame that is more than a hello, before it is parsed, from who has not said hello yet."""
        if self.principal is NOBODY and size > self._hello_bytes_max:
            raise GatewayError("no_credentials", "say hello with a token first; this frame is more than that")

    def check_known(self) -> None:
        """Refuse an operation before the hello that is needed."""
        if self.principal is NOBODY:
            raise GatewayError("no_credentials", "say hello with a token first; the handshake carried none")

    async def hello(self, token: str | None) -> None:
        """A client says who it is, or brings a fresh token. Raises why it is not taken."""
        if token is None:
            self.check_known()
            return
        if self.principal is ANONYMOUS:
            return  # nobody is asked here, as nobody is over HTTP
        found = await self._access.authenticate(token, self._remote)
        if self.principal is not NOBODY and found.name != self.principal.name:
            raise GatewayError(
                "permission_denied", "a fresh token must be of the same principal; open another connection for another"
            )
        self.principal = found

    def renew(self) -> None:
        """What is permitted may have changed. Raises why its credential is good no more."""
        if self.principal is not ANONYMOUS and self.principal is not NOBODY:
            self.principal = self._access.renew(self.principal)

    def overdue(self, now: float, now_ms: int) -> GatewayError | None:
        """Why the session has to end at run-loop time `now`; None where it need not."""
        if self.principal is NOBODY:
            if now >= self._hello_by:
                return GatewayError("no_credentials", "no hello with a token came in time (auth.hello_timeout_s)")
            return None
        expires_ms = self.principal.expires_ms
        if expires_ms is not None and now_ms >= expires_ms:
            return GatewayError("credentials_expired", "the credentials have expired; reconnect with fresh ones")
        return None
