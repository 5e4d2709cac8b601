"""What each of the platform's TMC calls does here: over the same flow as every other edge, with no logic of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import attrs
import msgspec

from gateway.broker.lease import Consumer
from gateway.config import Config
from gateway.edge.http import HttpConnection
from gateway.edge.longpoll import LongPoll
from gateway.edge.tmc_applications import Application, Applications
from gateway.edge.tmc_groups import DEFAULT, User
from gateway.edge.tmc_messages import Pushed, decode_pushed, to_message
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.flow.ring import Ring
from gateway.model import Batch, Delivery, Durability, Message, Result, Settle, Settlement, Stored, Verb
from gateway.wire import top
from gateway.wire.http import Response
from gateway.wire.payload import split_bodies
from gateway.wire.top import Parameters, TopError

QUANTITY: Final = (10, 200)
IDS_MAX: Final = 200
PRODUCE_MAX: Final = 50
_NICKS_MAX: Final = 200
_PAGE_MAX: Final = 200

Json = dict[str, Any]


class _Produced(msgspec.Struct):
    """One message of taobao.tmc.messages.produce."""

    topic: str = ""
    content: str = ""
    target_group: str = ""


_decode_produced = msgspec.json.Decoder(list[_Produced]).decode


@attrs.frozen
class Call:
    """One call on its way: who, with what, and where the answer goes."""

    method: str
    application: Application
    parameters: Parameters
    connection: HttpConnection
    request_id: str
    size: int
    """Bytes of its body."""

    @property
    def group(self) -> str:
        return self.parameters.text("group_name") or DEFAULT

    @property
    def subscription(self) -> str:
        return self.application.subscription(self.group)

    def answer(self, content: Json) -> None:
        self.connection.respond(json(top.encode_answer(self.method, content, self.request_id)))

    def fail(self, error: GatewayError | TopError) -> None:
        self.connection.respond(self.refusal(error))

    def refusal(self, error: GatewayError | TopError) -> Response:
        return json(top.encode_error(to_top(error), self.request_id))


def json(body: bytes) -> Response:
    return Response(200, body, [(b"content-type", b"application/json;charset=UTF-8")])


def to_top(error: GatewayError | TopError) -> TopError:
    """An error of the gateway in the platform's words; the gateway's own code stands behind `isv.` or `isp.`."""
    if isinstance(error, TopError):
        return error
    code = error.code.replace("_", "-")
    if error.code == "permission_denied":
        return TopError("insufficient_permissions", error.message, f"isv.{code}")
    if error.kind.temporary:
        return TopError("service_unavailable", error.message, f"isp.{code}")
    return TopError("invalid_argument", error.message, f"isv.{code}")


def to_gateway(error: TopError) -> GatewayError:
    """A refusal in the gateway's words, for the audit log."""
    return GatewayError("permission_denied" if error.code in top.PERMISSION else "invalid_token", str(error))


class Calls:
    """All of them, by name."""

    def __init__(
        self,
        config: Config,
        applications: Applications,
        engine: Engine,
        admit: Admit,
        settle: Ring[Settlement],
        longpoll: LongPoll,
        clock: Callable[[], int],
    ) -> None:
        self._config = config
        self._applications = applications
        self._engine = engine
        self._admit = admit
        self._settle = settle
        self._longpoll = longpoll
        self._clock = clock
        self._held: dict[str, dict[int, str]] = {}  # the leases of consumed messages, by subscription and position
        self._calls: dict[str, Callable[[Call], Awaitable[None]]] = {
            "taobao.tmc.messages.consume": self._consume,
            "taobao.tmc.messages.confirm": self._confirm,
            "taobao.tmc.message.produce": self._produce,
            "taobao.tmc.messages.produce": self._produce_many,
            "taobao.tmc.queue.get": self._queue,
            "taobao.tmc.user.permit": self._permit,
            "taobao.tmc.user.get": self._user,
            "taobao.tmc.user.cancel": self._cancel,
            "taobao.tmc.group.add": self._add_group,
            "taobao.tmc.group.delete": self._delete_group,
            "taobao.tmc.groups.get": self._groups,
        }

    def knows(self, method: str) -> bool:
        return method in self._calls

    async def carry_out(self, call: Call) -> None:
        """See to it that the call is answered, now or later. Raises TopError or GatewayError."""
        await self._calls[call.method](call)

    # ------------------------------------------------------------------------------------------ consume, confirm

    async def _consume(self, call: Call) -> None:
        """A pull turned to push: answered the moment there is something, or empty after a short wait."""
        self._longpoll.wait(
            call.connection,
            self._known(call),
            window=call.parameters.integer("quantity", 100, *QUANTITY),
            size_max=self._config.deliver.frame_bytes_max,
            wait_ms=self._config.tmc.consume_wait_ms,
            encode=partial(self._encode_consumed, call),
            refuse=call.refusal,
            on_forgotten=partial(self._forget, call.subscription),
        )

    def _encode_consumed(self, call: Call, lease: str, delivery: Delivery) -> list[bytes]:
        messages = [decode_pushed(body) for body in split_bodies(delivery.bodies)]
        if messages:
            held = self._held.setdefault(call.subscription, {})
            held.update((message.position, lease) for message in messages)
        shown = {"messages": {"tmc_message": [show(message) for message in messages]}}
        return [top.encode_answer(call.method, shown, call.request_id)]

    def _forget(self, name: str, lease: str) -> None:
        """A consumed delivery is settled, or its leases have run out."""
        held = self._held.get(name, {})
        for position in [position for position, its in held.items() if its == lease]:
            del held[position]

    async def _confirm(self, call: Call) -> None:
        """Settle by id, whichever consume the messages came with."""
        name = self._known(call)
        done = call.parameters.ids("s_message_ids", IDS_MAX)
        failed = call.parameters.ids("f_message_ids", IDS_MAX)
        if not done and not failed:
            raise top.missing("s_message_ids")
        settlements = self._settlements(name, done, failed)
        waiting = len(settlements)

        def settled(settlement: Settlement) -> None:
            nonlocal waiting
            waiting -= 1
            if settlement.error is not None and waiting >= 0:
                waiting = -1
                call.fail(settlement.error)
            elif waiting == 0:
                call.answer({"is_success": True})

        for consumer, settles in settlements.items():
            await self._settle.put(Settlement(consumer, settles, settled))

    def _settlements(self, name: str, done: list[int], failed: list[int]) -> dict[Consumer | None, list[Settle]]:
        """What is said to each consumer that holds one of the messages; None: nobody that was asked over HTTP."""
        held = self._held.get(name, {})
        found: dict[Consumer | None, list[Settle]] = {}
        for verb, positions in ((Verb.ACK, done), (Verb.NACK, failed)):
            ranges: dict[Consumer | None, list[tuple[int, int]]] = {}
            for position in positions:
                consumer = self._longpoll.consumer(held.get(position, ""))
                ranges.setdefault(consumer, []).append((position, position))
            for consumer, its in ranges.items():
                found.setdefault(consumer, []).append(Settle(verb, sorted(its)))
        return found

    def _known(self, call: Call) -> str:
        """The subscription of the call's group; an error where there is no such group."""
        try:
            self._engine.subscription_exists(call.subscription)
        except GatewayError:
            raise top.invalid("group_name", f"there is no group {call.group[:64]!r}") from None
        return call.subscription

    # -------------------------------------------------------------------------------------------------- produce

    async def _produce(self, call: Call) -> None:
        if call.parameters.text("media_content"):
            raise top.invalid("media_content", "files are not taken; put what they hold into the content")
        message = to_message(
            call.parameters.required("topic"),
            call.parameters.required("content"),
            publisher=call.application.key,
            target_group=call.parameters.text("target_group"),
            nick=call.parameters.text("session"),
        )
        await self._submit(call, [message], self._produced)

    def _produced(self, call: Call, results: list[Result]) -> None:
        [result] = results
        if isinstance(result, GatewayError):
            call.fail(result)
        else:
            call.answer({"is_success": True, "msg_ids": {"string": [result.id]}})

    async def _produce_many(self, call: Call) -> None:
        try:
            asked = _decode_produced(call.parameters.required("messages"))
        except msgspec.DecodeError as error:
            raise top.invalid("messages", f"must be a JSON list of topic, content and target_group: {error}") from None
        if not 1 <= len(asked) <= PRODUCE_MAX:
            raise top.invalid("messages", f"{len(asked)} messages; 1 to {PRODUCE_MAX} are taken")
        nick, key = call.parameters.text("session"), call.application.key
        messages = [
            to_message(each.topic, each.content, publisher=key, target_group=each.target_group, nick=nick)
            for each in asked
        ]
        await self._submit(call, messages, self._produced_many)

    def _produced_many(self, call: Call, results: list[Result]) -> None:
        shown: list[Json] = []
        for result in results:
            if isinstance(result, GatewayError):
                error = to_top(result)
                shown.append({"is_success": False, "error_code": error.sub_code, "error_message": error.sub_msg})
            else:
                shown.append({"is_success": True})
        success = all(each["is_success"] is True for each in shown)
        call.answer({"is_all_success": success, "results": {"tmc_produce_result": shown}})

    async def _submit(self, call: Call, messages: list[Message], then: Callable[[Call, list[Result]], None]) -> None:
        def done(batch: Batch) -> None:
            if batch.error is not None:
                call.fail(batch.error)
            else:
                then(call, results_of(batch, self._engine.epoch))

        batch = Batch(messages, Durability.FSYNCED, call.size, done, call.application.principal)
        batch.origin = call.connection.remote
        await self._admit.submit(batch)

    # -------------------------------------------------------------------------------------------------- looking

    async def _queue(self, call: Call) -> None:
        """The original counts since midnight; here it is since the group was made."""
        asked = call.parameters.text("group_name")
        groups = [asked] if asked else [DEFAULT, *call.application.groups.kept.groups]
        shown: list[Json] = []
        for group in groups:
            try:
                view = self._engine.subscription(call.application.subscription(group), self._clock())
            except GatewayError:
                if asked:
                    raise top.invalid("group_name", f"there is no group {asked[:64]!r}") from None
                continue
            put, got = view.statistics.routed, view.statistics.acked
            # `put_toal` is how the platform spells it, and what its SDKs read
            shown.append({"name": group, "broker_name": "gateway", "get_total": got, "put_total": put, "put_toal": put})
        call.answer({"datas": {"tmc_queue_info": shown}})

    async def _user(self, call: Call) -> None:
        nick = call.parameters.required("nick")
        user = call.application.groups.kept.users.get(nick)
        call.answer({} if user is None else {"tmc_user": show_user(nick, user)})

    async def _groups(self, call: Call) -> None:
        names = call.parameters.names("group_names", _PAGE_MAX)
        groups = call.application.groups
        found = sorted(name for name in groups.kept.groups if not names or name in names)
        size = call.parameters.integer("page_size", 40, 1, _PAGE_MAX)
        first = (call.parameters.integer("page_no", 1, 1, 10**6) - 1) * size
        shown: list[Json] = []
        for name in found[first : first + size]:
            group: Json = {"name": name}
            if names:  # as there: members are shown of groups that were asked for
                group["users"] = {"string": sorted(groups.members(name))}
            shown.append(group)
        call.answer({"groups": {"tmc_group": shown}, "total_results": len(found)})

    # ------------------------------------------------------------------------------------------------- changing

    async def _permit(self, call: Call) -> None:
        """There is no OAuth here: the session of the call is the user's name."""
        nick = call.parameters.text("session")
        if not nick:
            raise TopError("missing_session", "session names the user")
        application = call.application
        topics = call.parameters.names("topics", 1000)
        foreign = [topic for topic in topics if not application.reads.covers(topic)]
        if foreign:
            raise top.invalid("topics", f"{', '.join(foreign[:10])}: not among the application's topics")
        platform = call.parameters.text("user_platform") or "tbUIC"
        removed = application.groups.permit(nick, topics, platform, self._clock())
        await self._applications.save(application)
        call.answer({"is_success": True, "removed_topics": {"string": removed}})

    async def _cancel(self, call: Call) -> None:
        nick = call.parameters.required("nick")
        if not call.application.groups.cancel(nick):
            raise top.invalid("nick", "this user has not permitted the application")
        await self._applications.save(call.application)
        call.answer({"is_success": True})

    async def _add_group(self, call: Call) -> None:
        name, nicks = call.parameters.required("group_name"), call.parameters.names("nicks", _NICKS_MAX)
        application = call.application
        async with application.group_lock:
            application.groups.check_addition(name, nicks)
            await self._applications.make_group(application, name)
            created = application.groups.add(name, nicks, self._clock())
            self._applications.group_made(application, name)
            await self._applications.save(application)
        call.answer({"group_name": name, "created": top.format_time(created)})

    async def _delete_group(self, call: Call) -> None:
        name, nicks = call.parameters.required("group_name"), call.parameters.names("nicks", _NICKS_MAX)
        application = call.application
        async with application.group_lock:
            if application.groups.remove(name, nicks):
                await self._applications.remove_group(application, name)
            await self._applications.save(application)
        call.answer({"is_success": True})


def results_of(batch: Batch, epoch: str) -> list[Result]:
    """The result of each message of an answered batch, that did not fail as a whole."""
    if batch.results is None:
        return [
            Stored(message.id or f"{epoch}-{position}", position)
            for position, message in enumerate(batch.messages, batch.first)
        ]
    assert all(batch.results)
    return [result for result in batch.results if result is not None]


def show(message: Pushed) -> Json:
    """A message as `tmc_message`."""
    shown: Json = {
        "id": message.position,
        "topic": message.topic,
        "content": message.content.decode(),
        "pub_time": top.format_time(message.time_ms),
    }
    if message.publisher:
        shown["pub_app_key"] = message.publisher
    if message.nick:
        shown["user_nick"] = message.nick
    if message.user_id is not None:
        shown["user_id"] = message.user_id
    return shown


def show_user(nick: str, user: User) -> Json:
    shown: Json = {
        "user_nick": nick,
        "user_platform": user.platform,
        "is_valid": True,
        "created": top.format_time(user.created_ms),
        "modified": top.format_time(user.modified_ms),
        "group_name": user.group or DEFAULT,
    }
    if user.topics is not None:
        shown["topics"] = {"string": user.topics}
    return shown
