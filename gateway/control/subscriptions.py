"""Subscriptions: put, get, list, delete (protocol.md §5)."""

from __future__ import annotations

import attrs
from starlette.requests import Request
from starlette.responses import Response

from gateway.control.call import JSON, Answer, Call, array, body, json, json_array, ref
from gateway.control.sources import Sources
from gateway.errors import GatewayError
from gateway.model import SubscriptionSettings, check_subscription_name
from gateway.wire.subscription import decode_settings, encode_view

_ALL = "/v1/subscriptions"
_ONE = "/v1/subscriptions/{name}"
_VIEW = {JSON: ref("Subscription")}


class SubscriptionCalls:
    """The calls on subscriptions."""

    def __init__(self, sources: Sources) -> None:
        self._engine = sources.engine
        self._clock = sources.clock

    def calls(self) -> list[Call]:
        return [
            Call(
                name="listSubscriptions",
                method="GET",
                path=_ALL,
                summary="All subscriptions, by name",
                answers=(Answer(200, "Every subscription there is.", {JSON: array(ref("Subscription"))}),),
                respond=self.list_all,
            ),
            Call(
                name="getSubscription",
                method="GET",
                path=_ONE,
                summary="One subscription: its settings and where it stands",
                answers=(Answer(200, "The subscription.", _VIEW),),
                errors=("bad_name", "subscription_not_found"),
                respond=self.get,
            ),
            Call(
                name="putSubscription",
                method="PUT",
                path=_ONE,
                summary="Create a subscription, or change one",
                description=(
                    "Creates the subscription where there is none of this name; `topics` is required then. Otherwise "
                    "the settings given replace those that are, and the others stay; `start` counts at creation only. "
                    "The body is read as JSON whatever its media type says. The answer comes when the change is on the "
                    "disk."
                ),
                body=ref("SubscriptionChange"),
                answers=(Answer(200, "Changed.", _VIEW), Answer(201, "Created.", _VIEW)),
                errors=("bad_name", "bad_topic", "bad_pattern", "not_supported", "subscription_limit", "store_failed"),
                respond=self.put,
            ),
            Call(
                name="deleteSubscription",
                method="DELETE",
                path=_ONE,
                summary="Delete a subscription, and all it was due",
                description=(
                    "Its consumers are told: WebSocket connections are closed with 3507, waiting pulls are answered "
                    "`subscription_deleted`. The answer comes when the deletion is on the disk."
                ),
                answers=(Answer(204, "Deleted."),),
                errors=("bad_name", "subscription_not_found", "store_failed"),
                respond=self.delete,
            ),
        ]

    async def list_all(self, request: Request) -> Response:
        return await json_array(map(encode_view, self._engine.subscriptions(self._clock())))

    async def get(self, request: Request) -> Response:
        return json(encode_view(self._engine.subscription(_name(request), self._clock())))

    async def put(self, request: Request) -> Response:
        """Create, or merge the settings given into those that are; durable when answered."""
        name, change = _name(request), await body(request)
        before = self._settings(name)  # from here into the engine nothing waits, so of two changes at once both count
        settings = decode_settings(change, before)
        if before is not None:
            settings = attrs.evolve(settings, start=before.start)
        view, created = await self._engine.put_subscription(name, settings, self._clock())
        return json(encode_view(view), 201 if created else 200)

    async def delete(self, request: Request) -> Response:
        await self._engine.delete_subscription(_name(request))
        return Response(status_code=204)

    def _settings(self, name: str) -> SubscriptionSettings | None:
        try:
            return self._engine.subscription(name, self._clock()).settings
        except GatewayError as cause:
            if cause.code != "subscription_not_found":
                raise
            return None


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return check_subscription_name(name)
