"""What can go wrong on the client's side, and which ends of a connection are worth another try.

What the gateway answers is a `gateway.errors.GatewayError` with its code. What the SDK itself has to say is a
`ClientError`.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import TABLE, GatewayError, Kind


class ClientError(Exception):
    """What the SDK itself says; every exception of this file is one."""


class NotConnectedError(ClientError):
    """The first connection could not be made; the message names the address and the cause."""


class ConnectionEndedError(ClientError):
    """The connection is over and trying again would not help, or the program has left `connect`.

    `code`: the WebSocket close code (3500-3999: the gateway wants no reconnect; 1000: this program closed it), or the
    HTTP status where the handshake was refused. `reason`: what the gateway said.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason or 'the connection has ended'} ({code})")
        self.code = code
        self.reason = reason


class OutcomeUnknownError(ClientError):
    """The connection was lost between a publish and its answer: the message may be stored or not.

    Give a message an `id`, and the SDK sends it again by itself: the gateway recognises the id and stores it once.
    """


class LeaseLostError(ClientError):
    """An ack that was to be confirmed came too late: the message comes again, or somebody else has settled it."""


RECONNECT_CODES: Final = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014})
"""Ends of RFC 6455 and its registry that pass by themselves. Missing are those that say that our own bytes were wrong
(1002, 1003, 1007, 1008, 1009, 1010): the same bytes would be refused again."""

FINAL_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 410, 414, 426, 431, 501, 505})
"""HTTP answers to the handshake that stay the same however often it is tried."""


def may_reconnect(code: int) -> bool:
    """Whether a connection that ended with this close code is worth another (protocol.md §2: 3000-3499 are)."""
    return code in RECONNECT_CODES or 3000 <= code <= 3499


class _NewerError(GatewayError):
    """An error of a later gateway, whose code this version's table does not hold."""

    def __init__(self, code: str, message: str, temporary: bool) -> None:
        super().__init__(code, message)
        self._temporary = temporary

    @property
    def kind(self) -> Kind:
        return Kind(503 if self._temporary else 400, 1011, self._temporary)


def answered(code: str, message: str, temporary: bool) -> GatewayError:
    """The exception for an error object of the gateway (protocol.md §2)."""
    return GatewayError(code, message) if code in TABLE else _NewerError(code, message, temporary)


def answered_object(error: object) -> GatewayError:
    """The same for an error object that was parsed as plain JSON."""
    if not isinstance(error, dict):
        return GatewayError("internal", f"the gateway answered with an error that is no object: {error!r}")
    return answered(str(error.get("code")), str(error.get("message")), bool(error.get("temporary")))
