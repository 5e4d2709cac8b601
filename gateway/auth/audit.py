"""The audit log: who changed what in the control plane, and who was refused what.

Structured, on a logger of its own (`gateway.audit`) and, where `audit.file` names one, as JSON lines in a file. What
clients send is written so that it cannot pass for anything else: cut, and every character that does not print escaped.
Refusals are bounded in rate, because everybody can cause them: what is left out is counted, and the next line says how
many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import orjson
import structlog

from gateway.config import Audit as AuditSettings
from gateway.errors import GatewayError
from gateway.principal import Principal

_log = structlog.get_logger("gateway.audit")
_SHOWN_MAX: Final = 200
_BURST_S: Final = 5
"""Refusals of so many seconds may come at once."""


def clean(text: str) -> str:
    """Text of a client for a line of a log: at most 200 characters, and each of them prints."""
    shown = text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."
    if shown.isprintable() and "\\" not in shown:
        return shown
    return "".join(c if c.isprintable() and c != "\\" else c.encode("unicode_escape").decode("ascii") for c in shown)


class Audit:
    """Writes the audit log; never raises and never waits."""

    def __init__(self, settings: AuditSettings, clock: Callable[[], int]) -> None:
        self.suppressed = 0
        """Refusals left out since the start."""
        self.failures = 0
        """Lines that the file did not take."""
        self.refusals: dict[str, int] = {}
        """Refusals since the start, by code."""
        self._file = settings.file
        self._clock = clock
        self._rate = settings.refusals_per_s
        self._tokens = float(settings.refusals_per_s * _BURST_S)
        self._at_ms = clock()
        self._left_out = 0

    def changed(self, principal: Principal, call: str, target: str, status: int, remote: str) -> None:
        """Somebody changed something in the control plane, or tried to: `status` says how it was answered."""
        self._write(
            "changed", principal=clean(principal.name), call=call, target=clean(target), status=status, remote=remote
        )

    def refused(self, principal: Principal | None, what: str, target: str, error: GatewayError, remote: str) -> None:
        """Somebody was refused: no credentials, bad ones, or too little permission."""
        self.refusals[error.code] = self.refusals.get(error.code, 0) + 1
        now_ms = self._clock()
        self._tokens = min(
            self._tokens + max(0, now_ms - self._at_ms) * self._rate / 1000, float(self._rate * _BURST_S)
        )
        self._at_ms = now_ms
        if self._tokens < 1:
            self.suppressed += 1
            self._left_out += 1
            return
        self._tokens -= 1
        left_out, self._left_out = self._left_out, 0
        self._write(
            "refused",
            principal=clean(principal.name) if principal is not None else "",
            what=what,
            target=clean(target),
            code=error.code,
            reason=clean(error.message),
            remote=remote,
            **({"left_out": left_out} if left_out else {}),
        )

    def _write(self, event: str, **members: str | int) -> None:
        _log.info(event, **members)
        if not self._file:
            return
        line = orjson.dumps({"time_ms": self._clock(), "event": event, **members}) + b"\n"
        try:  # opened for each line, 20 us: a rotated file is left alone, and lines of two writers stay whole
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.failures += 1
            if self.failures == 1:
                _log.error("the audit file takes no lines", file=self._file, error=error.strerror)
