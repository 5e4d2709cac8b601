"""`POST /router/rest`: the platform's HTTP calls. Who calls is known by the signature, not by our own credentials."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gateway.auth.access import Access
from gateway.auth.audit import Audit
from gateway.config.settings import Tmc
from gateway.edge.http import HttpConnection
from gateway.edge.tmc_applications import Application, Applications
from gateway.edge.tmc_calls import Call, Calls, json, to_gateway, to_top
from gateway.errors import GatewayError
from gateway.wire import top
from gateway.wire.request import Request
from gateway.wire.top import Parameters, TopError


class Rest:
    """The one path that all calls come by."""

    def __init__(
        self,
        settings: Tmc,
        applications: Applications,
        calls: Calls,
        audit: Audit,
        access: Access,
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._applications = applications
        self._calls = calls
        self._audit = audit
        self._access = access
        self._clock = clock
        self.answered = 0
        self.refused: dict[int, int] = {}
        """Calls refused before they were carried out, by the platform's code."""

    async def handle(self, request: Request, connection: HttpConnection) -> None:
        request_id = secrets.token_hex(6)
        self.answered += 1
        values: dict[str, str] = {}
        try:
            self._access.failures.check(connection.remote)
            values = top.parse_form(request.body)
            application = self.authenticate(values)
            call = Call(values["method"], application, Parameters(values), connection, request_id, len(request.body))
            await self._calls.carry_out(call)
        except (TopError, GatewayError) as error:
            refusal = to_top(error)
            self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
            if refusal.code in top.UNPROVEN or refusal.code in top.PERMISSION:
                why = to_gateway(refusal)
                self._audit.refused(None, "tmc call", values.get("app_key", ""), why, connection.remote)
                if refusal.code in top.UNPROVEN:
                    self._access.failures.note(connection.remote, why)
            connection.respond(json(top.encode_error(refusal, request_id)))

    def authenticate(self, values: dict[str, str]) -> Application:
        """Who calls; TopError where that is not proven, or the call is none of the platform's. In its own order."""
        method = values.get("method", "")
        if not method:
            raise TopError("missing_method")
        key = values.get("app_key", "")
        if not key:
            raise TopError("missing_app_key")
        if not values.get("timestamp"):
            raise TopError("missing_timestamp")
        if not values.get("sign"):
            raise TopError("missing_signature")
        application = self._applications.get(key)
        if application is None:
            raise TopError("invalid_app_key")
        if not top.is_current(values["timestamp"], self._clock(), self._settings.timestamp_window_s * 1000):
            raise TopError(
                "invalid_timestamp",
                f"it must be within {self._settings.timestamp_window_s} s of now, in Beijing's time (GMT+8)",
                "isv.invalid-parameter:timestamp",
            )
        if not top.is_signed(values, application.secret, values.get("sign_method", "md5")):
            raise TopError("invalid_signature")
        if values.get("v", "2.0") != "2.0":
            raise TopError("unsupported_version", "v: 2.0 is spoken here")
        if values.get("format", "json") != "json":
            raise TopError("invalid_format", "format: json is spoken here")
        if not self._calls.knows(method):
            raise TopError("invalid_method", f"{method[:64]} is not a call of this gateway")
        return application
