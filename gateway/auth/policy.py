"""The permissions file: roles, principals, and what a change of it gives and takes.

    [roles.ops]
    admin = [">"]

    [principals.shop]                 # the name of an API key
    roles = ["publisher"]
    subscribe = ["shop.>"]

    [principals."login:alice"]        # a subject of the [[jwt]] entry "login"
    admin = ["alice.>"]

A principal has what its own entry says, what its roles say, and what its key or token brings along. The file takes
nothing away; what nobody was given, nobody has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from gateway.auth.grant import SCOPES, Grant, check_name, decode, merge, to_principal
from gateway.errors import ConfigError
from gateway.principal import Principal, Scope

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Tens of thousands of principals; more is a mistake, and would hold up the run loop."""


@attrs.frozen
class Policy:
    """The content of a permissions file."""

    roles: Mapping[str, Grant] = attrs.field(factory=dict)
    principals: Mapping[str, Grant] = attrs.field(factory=dict)

    def effective(self, name: str, brought: Iterable[Grant] = ()) -> Grant:
        """All that `name` has, with what its credential brought; roles resolved; an unknown role gives nothing."""
        grants = [*brought]
        own = self.principals.get(name)
        if own is not None:
            grants.append(own)
        roles = dict.fromkeys(role for grant in grants for role in grant.roles)
        return merge([*grants, *(self.roles[role] for role in roles if role in self.roles)])

    def principal(
        self, name: str, brought: Iterable[Grant], *, expires_ms: int | None = None, credential: object = None
    ) -> Principal:
        return to_principal(name, self.effective(name, brought), expires_ms=expires_ms, credential=credential)


def read(file: Path) -> Policy:
    """Read a permissions file. Raises ConfigError naming the entry and the mend."""
    try:
        raw = file.read_bytes()
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigError(f"{file}: has {len(raw)} bytes; at most {FILE_BYTES_MAX} are read")
        return parse(tomllib.loads(raw.decode("utf-8")), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; name a file that exists") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from None


def parse(document: Mapping[str, Any], origin: str) -> Policy:
    """The same from a document that is read already."""
    for section in document:
        if section not in ("roles", "principals"):
            raise ConfigError(f"{origin}: [{section}]: unknown section; write [roles.NAME] or [principals.NAME]")
    roles = _section(document, "roles", origin)
    principals = _section(document, "principals", origin)
    for name, grant in principals.items():
        for role in grant.roles:
            if role not in roles:
                raise ConfigError(f"{origin}: principals.{name}: role {role!r} is not there; write [roles.{role}]")
    return Policy(roles, principals)


def _section(document: Mapping[str, Any], section: str, origin: str) -> dict[str, Grant]:
    tables = document.get(section, {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{origin}: {section}: must be tables; write [{section}.NAME]")
    found: dict[str, Grant] = {}
    for name, table in tables.items():
        try:
            found[check_name(section, name)] = decode(table, nested=section == "principals")
        except ValueError as error:
            raise ConfigError(f"{origin}: {section}.{name}: {error}") from None
    return found


# --------------------------------------------------------------------------------------------------------- diff


@attrs.frozen
class Change:
    """One pattern that somebody gains or loses. `who`: `principal NAME` or `role NAME`."""

    who: str
    scope: str
    pattern: str
    gained: bool


def diff(before: Policy, after: Policy) -> Iterator[Change]:
    """What the change from one file to another gives and takes, principal by principal and role by role.

    Counted is what it means, not how it is written: a pattern that a wider one of the same scope covers is neither
    gained nor lost. Roles are listed too, because keys and tokens bring them along.
    """
    for name in sorted(before.roles.keys() | after.roles.keys()):
        yield from _compare(f"role {name}", before.roles.get(name, Grant()), after.roles.get(name, Grant()))
    for name in sorted(before.principals.keys() | after.principals.keys()):
        yield from _compare(f"principal {name}", before.effective(name), after.effective(name))


def _compare(who: str, before: Grant, after: Grant) -> Iterator[Change]:
    for scope in SCOPES:
        old, new = before.patterns(scope), after.patterns(scope)
        had, has = Scope(old), Scope(new)
        yield from (Change(who, scope, pattern, False) for pattern in old if not has.covers(pattern))
        yield from (Change(who, scope, pattern, True) for pattern in new if not had.covers(pattern))
