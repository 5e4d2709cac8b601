"""All settings together: the sections of the file, and what can be asked about each setting.

The sections themselves are in edges, keeping, pushing, credentials, routing and tmc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin, get_type_hints

import attrs

from gateway.config.credentials import JWT_ALGORITHMS, Audit, Auth, Jwt
from gateway.config.edges import Http, Limits, Listen, Pull, Quota, Ring, Shutdown, WebSocket
from gateway.config.keeping import Disk, Log, Store, Trace
from gateway.config.pushing import Deliver, Flow
from gateway.config.routing import Filter, Pipeline, Source
from gateway.config.tmc import Tmc, TmcApplication

__all__ = [
    "ENVIRONMENT_PREFIX",
    "JWT_ALGORITHMS",
    "Audit",
    "Auth",
    "Config",
    "Deliver",
    "Disk",
    "Entry",
    "Filter",
    "Flow",
    "Http",
    "Jwt",
    "Limits",
    "Listen",
    "Log",
    "Pipeline",
    "Pull",
    "Quota",
    "Ring",
    "Section",
    "Shutdown",
    "Source",
    "Store",
    "Tmc",
    "TmcApplication",
    "Trace",
    "WebSocket",
    "entries",
    "entries_of",
    "sections",
]

ENVIRONMENT_PREFIX: Final = "GATEWAY_"


@attrs.frozen(kw_only=True)
class Config:
    """All settings of a gateway, checked.

    A field whose type is a class is a section, `[name]`. A field `tuple[Class, ...] = ()` is a list, written `[[name]]`
    once for each entry; entries may have required keys, and where the class has a `name`, no two may share one. What
    the types cannot say, a class of either kind checks in `__attrs_post_init__`, with ValueError or GatewayError.
    """

    listen: Listen = attrs.field(factory=Listen)
    store: Store = attrs.field(factory=Store)
    http: Http = attrs.field(factory=Http)
    limits: Limits = attrs.field(factory=Limits)
    ring: Ring = attrs.field(factory=Ring)
    websocket: WebSocket = attrs.field(factory=WebSocket)
    pull: Pull = attrs.field(factory=Pull)
    trace: Trace = attrs.field(factory=Trace)
    deliver: Deliver = attrs.field(factory=Deliver)
    flow: Flow = attrs.field(factory=Flow)
    auth: Auth = attrs.field(factory=Auth)
    jwt: tuple[Jwt, ...] = ()
    audit: Audit = attrs.field(factory=Audit)
    filter: Filter = attrs.field(factory=Filter)
    pipeline: tuple[Pipeline, ...] = ()
    quota: Quota = attrs.field(factory=Quota)
    disk: Disk = attrs.field(factory=Disk)
    shutdown: Shutdown = attrs.field(factory=Shutdown)
    log: Log = attrs.field(factory=Log)
    tmc: Tmc = attrs.field(factory=Tmc)
    source: tuple[Source, ...] = ()
    tmc_application: tuple[TmcApplication, ...] = ()

    @property
    def has_credentials(self) -> bool:
        """Whether anybody is asked who they are."""
        return bool(self.auth.keys_file or self.jwt)


@attrs.frozen
class Entry:
    """One setting, for the reference and for `genconfig`."""

    section: str
    key: str
    type: str
    """bool, int, float, str, list or table."""
    default: Any
    """attrs.NOTHING where it must be given."""
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    repeated: bool
    """Whether it stands in each entry of a list, `[[section]]`."""

    @property
    def name(self) -> str:
        return f"{self.section}{'[]' if self.repeated else ''}.{self.key}"

    @property
    def variable(self) -> str:
        return f"{ENVIRONMENT_PREFIX}{self.section.upper()}__{self.key.upper()}"


@attrs.frozen
class Section:
    """One section of the file, or one list of them."""

    name: str
    cls: type
    repeated: bool

    @property
    def header(self) -> str:
        return f"[[{self.name}]]" if self.repeated else f"[{self.name}]"


def sections(of: type = Config) -> dict[str, Section]:
    """Every section by its name, in the order of the file."""
    found: dict[str, Section] = {}
    hints = get_type_hints(of)
    for field in attrs.fields(of):
        hint = hints[field.name]
        repeated = get_origin(hint) is tuple
        found[field.name] = Section(field.name, get_args(hint)[0] if repeated else hint, repeated)
    return found


_TYPES: Final = {tuple: "list", dict: "table"}


def entries(of: type = Config) -> Iterator[Entry]:
    """Every setting there is, in the order of the file."""
    for section in sections(of).values():
        yield from entries_of(section)


def entries_of(section: Section) -> Iterator[Entry]:
    """The settings of one section."""
    hints = get_type_hints(section.cls)
    for field in attrs.fields(section.cls):
        hint, meta, default = hints[field.name], field.metadata, field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            default = default.factory()
        yield Entry(
            section=section.name,
            key=field.name,
            type=_TYPES.get(get_origin(hint) or hint) or hint.__name__,
            default=default,
            help=meta["help"],
            low=meta["low"],
            high=meta["high"],
            choices=meta["choices"],
            repeated=section.repeated,
        )
