"""The applications of TMC: who they are, their groups as subscriptions, and what of both outlives the process.

A group is the subscription `<app_key>.<group>` with the application's topics, and a gate in front of it that lets
through what `tmc_groups` chooses it for. Groups and permits are durable, as they are at the original: one small file an
application, replaced as a whole, and a call is answered once its change is on the disk. Changes that come while one is
being written are written together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec
import structlog
import trio

from gateway.config.settings import TmcApplication
from gateway.edge.tmc_groups import DEFAULT, Groups, Kept
from gateway.engine.base import Engine
from gateway.engine.gate import Gate
from gateway.errors import GatewayError, StoreError
from gateway.model import SubscriptionSettings
from gateway.principal import Principal, Scope
from gateway.store import small
from gateway.store.files import Files

_log = structlog.get_logger("gateway.tmc")
DIRECTORY: Final = "tmc"
"""In the store's directory."""
LEASE_MS: Final = 60_000
"""The original sends a message again that was not confirmed for a minute."""


class Application:
    """One of them. `groups` is empty until the applications are opened."""

    def __init__(self, settings: TmcApplication) -> None:
        self.key = settings.key
        self.secret = settings.secret
        self.settings = settings
        self.principal = Principal(
            name=f"tmc.{settings.key}",
            publish=Scope(settings.publish or settings.topics),
            subscribe=Scope([f"{settings.key}.*"]),
        )
        self.reads = Scope(settings.topics)
        self.groups = Groups(settings.topics, settings.topic_groups, Kept())
        self.group_lock = trio.Lock()
        """Held while a group is made or removed: it and its subscription go together."""
        self.file_lock = trio.Lock()
        self.changes = 0
        self.changes_saved = 0

    def subscription(self, group: str) -> str:
        """The subscription of a group; of the default one where none is named."""
        return f"{self.key}.{group or DEFAULT}"

    def choose(self, topic: str, attributes: Mapping[str, str]) -> str | None:
        """In front of all its groups: the one that gets the message."""
        return self.groups.choose(topic, attributes)


class Applications:
    """All of them."""

    def __init__(
        self,
        settings: Sequence[TmcApplication],
        engine: Engine,
        directory: Path,
        clock: Callable[[], int],
        files: Files | None = None,
    ) -> None:
        self._by_key = {each.key: Application(each) for each in settings}
        self._engine = engine
        self._directory = directory
        self._clock = clock
        self._files = files or Files()

    def __iter__(self) -> Iterator[Application]:
        return iter(self._by_key.values())

    def get(self, key: str) -> Application | None:
        return self._by_key.get(key)

    async def open(self) -> None:
        """Read what is kept, and see to it that every group has its subscription. Raises StoreError."""
        self._engine.on_created(self._adopt_made)
        for application in self:
            kept = await trio.to_thread.run_sync(self._load, application)
            application.groups = Groups(application.settings.topics, application.settings.topic_groups, kept)
            self._adopt(application)
            for group in (DEFAULT, *kept.groups):
                await self.make_group(application, group)

    def _load(self, application: Application) -> Kept:
        path = self._path(application)
        try:
            data = small.load(self._files, path)
            return Kept() if data is None else msgspec.json.decode(data, type=Kept)
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}; restore it from a backup") from None

    def _adopt(self, application: Application) -> None:
        """Every subscription `<app_key>.<group>` is a group: also one whose making a crash interrupted."""
        now, begin = self._clock(), application.subscription("").removesuffix(DEFAULT)
        for view in self._engine.subscriptions(now):
            group = view.name.removeprefix(begin)
            if group not in (view.name, DEFAULT) and "." not in group:
                application.groups.kept.groups.setdefault(group, now)

    def _adopt_made(self, name: str) -> None:
        """A subscription was made, perhaps on the control plane: where it is a group's by its name, it is a group."""
        key, _, group = name.partition(".")
        application = self._by_key.get(key)
        if application is not None and group and "." not in group:
            if group != DEFAULT:
                application.groups.kept.groups.setdefault(group, self._clock())
            self.group_made(application, group)

    def _path(self, application: Application) -> Path:
        return self._directory / f"{application.key}.json"

    async def make_group(self, application: Application, group: str) -> None:
        """Create its subscription, or give it the application's topics; an operator's other settings stay."""
        name, topics, now = application.subscription(group), application.settings.topics, self._clock()
        try:
            settings = self._engine.subscription(name, now).settings
        except GatewayError:
            settings = None
        self._engine.set_gate(name, Gate(application.choose, group))  # before it is due anything
        if settings is None:
            await self._engine.put_subscription(name, SubscriptionSettings(topics=topics, lease_ms=LEASE_MS), now)
        elif settings.topics != topics:
            await self._engine.put_subscription(name, attrs.evolve(settings, topics=topics), now)

    def group_made(self, application: Application, group: str) -> None:
        """It is among the groups that are chosen from now on: what was decided before is forgotten."""
        self._engine.set_gate(application.subscription(group), Gate(application.choose, group))

    async def remove_group(self, application: Application, group: str) -> None:
        """Its subscription goes, with what was unread in it."""
        name = application.subscription(group)
        self._engine.set_gate(name, None)
        try:
            await self._engine.delete_subscription(name)
        except GatewayError as error:
            if error.code != "subscription_not_found":  # an operator was faster
                raise

    async def save(self, application: Application) -> None:
        """What was changed is on the disk when this returns. Raises GatewayError `store_failed`."""
        application.changes += 1
        mine = application.changes
        async with application.file_lock:
            if application.changes_saved >= mine:
                return  # another's writing took it along
            changes, data = application.changes, msgspec.json.encode(application.groups.kept)
            try:
                await trio.to_thread.run_sync(small.save, self._files, self._path(application), data)
            except OSError as error:
                _log.error("groups and permits cannot be saved", application=application.key, error=str(error))
                raise GatewayError("store_failed", f"groups and permits cannot be saved: {error.strerror}") from None
            application.changes_saved = changes
