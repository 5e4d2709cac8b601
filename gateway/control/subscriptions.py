"""Subscriptions: put, get, list, delete; and what moves one on: pause, resume, seek, redrive, why (protocol.md §5)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from starlette.requests import Request
from starlette.responses import Response

from gateway.control.call import JSON, Answer, Call, Right, array, body, json, json_array, principal_of, ref
from gateway.control.sources import Sources
from gateway.errors import GatewayError
from gateway.model import POSITION_MAX, Redriven, SubscriptionSettings, check_subscription_name
from gateway.principal import Principal
from gateway.wire.subscription import decode_seek, decode_settings, encode_view

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
                needs=Right.KNOWN,
            ),
            Call(
                name="getSubscription",
                method="GET",
                path=_ONE,
                summary="One subscription: its settings and where it stands",
                answers=(Answer(200, "The subscription.", _VIEW),),
                errors=("bad_name", "subscription_not_found"),
                respond=self.get,
                needs=Right.VIEW,
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
                errors=(
                    "bad_name",
                    "bad_topic",
                    "bad_pattern",
                    "bad_filter",
                    "subscription_limit",
                    "store_failed",
                ),
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
            *self._steering_calls(),
        ]

    def _steering_calls(self) -> Iterator[Call]:
        lost = ("bad_name", "subscription_not_found", "store_failed")
        for name, respond, what in (
            ("pause", self.pause, "Hold deliveries back; what consumers hold they keep"),
            ("resume", self.resume, "Let deliveries go on"),
        ):
            yield Call(
                name=f"{name}Subscription",
                method="POST",
                path=f"{_ONE}/{name}",
                summary=what,
                description="The same as a change of `paused`. The answer comes when it is on the disk.",
                answers=(Answer(200, "The subscription.", _VIEW),),
                errors=lost,
                respond=respond,
            )
        yield Call(
            name="seekSubscription",
            method="POST",
            path=f"{_ONE}/seek",
            summary="Have it read on from another place",
            description=(
                "Everything that was routed to it and is kept, from there on, is due, whether it was settled before or "
                "not; nothing before it is. What consumers hold is taken back, and attempts are forgotten. The answer "
                "comes when it is on the disk."
            ),
            body=ref("Seek"),
            answers=(Answer(200, "Where it stands now.", {JSON: ref("Sought")}),),
            errors=(*lost, "overloaded"),
            respond=self.seek,
        )
        yield Call(
            name="redriveSubscription",
            method="POST",
            path=f"{_ONE}/redrive",
            summary="Make due once more what it gave up",
            description=(
                "Every message that went to its dead letters and is still kept is delivered again, to this "
                "subscription only, in order and with no attempts counted. The dead letters that were stored stay "
                "where they are."
            ),
            answers=(Answer(200, "How many.", {JSON: ref("Redriven")}),),
            errors=lost,
            respond=self.redrive,
        )
        yield Call(
            name="getWhy",
            method="GET",
            path=f"{_ONE}/why",
            summary="Why a message is not being delivered to it",
            query=("position",),
            answers=(Answer(200, "The reason.", {JSON: ref("Why")}),),
            errors=(*lost, "not_found"),
            respond=self.why,
            needs=Right.VIEW,
        )

    async def list_all(self, request: Request) -> Response:
        principal = principal_of(request)
        found = self._engine.subscriptions(self._clock())
        return await json_array(encode_view(view) for view in found if principal.may_view(view.name))

    async def get(self, request: Request) -> Response:
        return json(encode_view(self._engine.subscription(_name(request), self._clock())))

    async def put(self, request: Request) -> Response:
        """Create, or merge the settings given into those that are; durable when answered."""
        name, change = _name(request), await body(request)
        before = self._settings(name)  # from here into the engine nothing waits, so of two changes at once both count
        settings = decode_settings(change, before)
        _check_reading(principal_of(request), name, settings, before)
        if before is not None:
            settings = attrs.evolve(settings, start=before.start)
        view, created = await self._engine.put_subscription(name, settings, self._clock())
        return json(encode_view(view), 201 if created else 200)

    async def delete(self, request: Request) -> Response:
        await self._engine.delete_subscription(_name(request))
        return Response(status_code=204)

    async def pause(self, request: Request) -> Response:
        return await self._set_paused(_name(request), paused=True)

    async def resume(self, request: Request) -> Response:
        return await self._set_paused(_name(request), paused=False)

    async def _set_paused(self, name: str, *, paused: bool) -> Response:
        now = self._clock()
        settings = attrs.evolve(self._engine.subscription(name, now).settings, paused=paused)
        view, _ = await self._engine.put_subscription(name, settings, now)
        return json(encode_view(view))

    async def seek(self, request: Request) -> Response:
        name, to = _name(request), decode_seek(await body(request))
        return json(attrs.asdict(await self._engine.seek(name, to, self._clock())))

    async def redrive(self, request: Request) -> Response:
        return json(attrs.asdict(Redriven(await self._engine.redrive(_name(request), self._clock()))))

    async def why(self, request: Request) -> Response:
        name, position = _name(request), _position(request)
        return json(attrs.asdict(await self._engine.why(name, position, self._clock())))

    def _settings(self, name: str) -> SubscriptionSettings | None:
        try:
            return self._engine.subscription(name, self._clock()).settings
        except GatewayError as cause:
            if cause.code != "subscription_not_found":
                raise
            return None


def _check_reading(
    principal: Principal, name: str, settings: SubscriptionSettings, before: SubscriptionSettings | None
) -> None:
    """Who may administer a subscription may not read topics through it, or write to them, that it has no right to.

    What somebody else has set up may stay as it is.
    """
    for pattern in settings.topics:
        if not principal.may_read(pattern) and (before is None or pattern not in before.topics):
            raise principal.denied(f"have {name!r} read {pattern}")
    target = settings.dead_letter
    changed = before is None or target != before.dead_letter
    if target and target != f"dead.{name}" and changed and not principal.may_publish(target):
        raise principal.denied(f"have dead letters of {name!r} published to {target}")


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return check_subscription_name(name)


def _position(request: Request) -> int:
    values = request.query_params.getlist("position")
    if len(values) != 1 or len(request.query_params.keys()) != 1:
        raise GatewayError("bad_request", "name the message, and nothing else: why?position=4711")
    [text] = values
    if not (text.isascii() and text.isdecimal()) or int(text) > POSITION_MAX:
        raise GatewayError("bad_request", f"position: {text[:40]!r} is not a whole number up to {POSITION_MAX}")
    return int(text)
