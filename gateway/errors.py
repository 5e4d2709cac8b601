"""Every error the gateway can answer with, in one table.

A code tells programs what happened; the table turns it into an HTTP status, a WebSocket close code and whether the
same call may succeed later (protocol.md §2). The range of a close code tells the client what to do: 3000-3499
reconnect, 3500-3999 do not. A message names the thing and the mend.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table: what a code means on each interface."""

    status: int
    close: int
    temporary: bool


TABLE: dict[str, Kind] = {
    # the caller's fault: the same call fails again
    "bad_request": Kind(400, 3501, False),
    "bad_topic": Kind(400, 3501, False),
    "bad_pattern": Kind(400, 3501, False),
    "bad_name": Kind(400, 3501, False),
    "bad_filter": Kind(400, 3501, False),
    "unknown_operation": Kind(400, 3501, False),
    "invalid_token": Kind(401, 3500, False),
    "no_credentials": Kind(401, 3502, False),
    "permission_denied": Kind(403, 3503, False),
    "not_found": Kind(404, 3501, False),
    "subscription_not_found": Kind(404, 3501, False),
    "connection_not_found": Kind(404, 3501, False),
    "message_not_found": Kind(404, 3501, False),
    "schema_mismatch": Kind(422, 3501, False),
    "refused_by_stage": Kind(422, 3501, False),
    "method_not_allowed": Kind(405, 3501, False),
    "id_conflict": Kind(409, 3501, False),
    "already_subscribed": Kind(409, 3501, False),
    "length_required": Kind(411, 3501, False),
    "payload_too_large": Kind(413, 1009, False),
    "batch_too_large": Kind(413, 1009, False),
    "attributes_too_large": Kind(413, 3501, False),
    "request_line_too_long": Kind(414, 3501, False),
    "unsupported_media_type": Kind(415, 3501, False),
    "expectation_failed": Kind(417, 3501, False),
    "upgrade_required": Kind(426, 3501, False),
    "headers_too_large": Kind(431, 3501, False),
    "not_supported": Kind(501, 3501, False),
    "version_not_supported": Kind(505, 3501, False),
    "subscription_deleted": Kind(409, 3507, False),
    "subscription_limit": Kind(429, 3504, False),
    # the moment's fault: the same call may succeed later
    "credentials_expired": Kind(401, 3005, True),  # with fresh ones
    "too_many_failures": Kind(429, 3008, True),  # of credentials, from this address
    "request_timeout": Kind(408, 3501, True),
    "quota_exceeded": Kind(429, 3008, True),
    "slow_consumer": Kind(503, 3008, True),
    "no_pong": Kind(503, 3012, True),
    "connection_limit": Kind(503, 3504, True),
    "pull_limit": Kind(503, 3504, True),
    "keys_unavailable": Kind(503, 3001, True),
    "overloaded": Kind(503, 3008, True),
    "disk_full": Kind(503, 3008, True),
    "draining": Kind(503, 3001, True),
    "drained": Kind(503, 3013, True),
    "store_failed": Kind(503, 3001, True),
    "stage_failed": Kind(500, 3501, True),
    "internal": Kind(500, 1011, True),
}


class GatewayError(Exception):
    """An error with a code of `TABLE` and a message for people.

    `retry_after_s`: whole seconds after which a temporary error is worth another try; becomes `Retry-After`.
    """

    def __init__(self, code: str, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def kind(self) -> Kind:
        return TABLE[self.code]

    def as_dict(self) -> dict[str, str | bool]:
        """The error object of protocol.md §2."""
        return {"code": self.code, "message": self.message, "temporary": self.kind.temporary}

    def as_json(self) -> bytes:
        return orjson.dumps(self.as_dict())


class ConfigError(Exception):
    """The configuration is wrong; the message names the source, the key and the mend. Exit code 1."""


class StoreError(Exception):
    """The store cannot be opened or has failed; the node ends. Exit code 1."""


class StoreLockedError(StoreError):
    """Another process holds the store; the message names it. Exit code 75 (EX_TEMPFAIL)."""
