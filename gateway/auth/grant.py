"""What is given to whom, as the permissions file, the keys file and the claim of a token write it.

    {"roles": ["ops"], "publish": ["trade.>"], "subscribe": ["orders"], "view": [], "admin": [], "read": [],
     "quota": ""}

Every member may be left out. Strict: an unknown member, or a pattern that is none, is an error and not a smaller grant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from gateway.errors import GatewayError
from gateway.model import check_pattern
from gateway.principal import Principal, Scope

SCOPES: Final = ("publish", "subscribe", "view", "admin", "read")
PATTERNS_MAX: Final = 1000
"""Patterns of one scope of one grant: a bound on what one token can make the gateway compile."""
_NAME_CHARS_MAX: Final = 128


@attrs.frozen(kw_only=True)
class Grant:
    """See the module; a value."""

    roles: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    view: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    quota: str = ""

    def patterns(self, scope: str) -> tuple[str, ...]:
        """The patterns of one of `SCOPES`."""
        found: tuple[str, ...] = getattr(self, scope)
        return found

    def as_dict(self) -> dict[str, object]:
        """What `decode` reads, without what is empty."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in attrs.asdict(self, recurse=False).items()
            if value
        }


_MEMBERS: Final = tuple(field.name for field in attrs.fields(Grant))


def decode(document: object, *, nested: bool = True) -> Grant:
    """A grant from plain data. `nested`: whether it may name roles; a role itself may not.

    Raises ValueError naming the member and the mend.
    """
    if not isinstance(document, Mapping):
        raise ValueError('must be an object, such as {"publish": ["trade.>"]}')
    known = [name for name in _MEMBERS if nested or name != "roles"]
    for name in document:
        if name not in known:
            raise ValueError(f"{str(name)[:60]!r} is unknown; known are {', '.join(known)}")
    lists = {name: _texts(name, document[name]) for name in ("roles", *SCOPES) if name in document}
    for scope in SCOPES:
        for pattern in lists.get(scope, ()):
            try:
                check_pattern(pattern)
            except GatewayError as error:
                raise ValueError(f"{scope}: {error.message}") from None
    for role in lists.get("roles", ()):
        check_name("roles", role)
    quota = document.get("quota", "")
    if not isinstance(quota, str):
        raise ValueError("quota: must be text")
    return Grant(**lists, quota=quota)


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f'{name}: must be a list of texts, such as ["a", "b"]')
    if len(value) > PATTERNS_MAX:
        raise ValueError(f"{name}: {len(value)} entries; at most {PATTERNS_MAX} are allowed")
    return tuple(value)


def check_name(what: str, name: str) -> str:
    """Return the name of a principal or a role, or raise ValueError: printable, not empty, at most 128 characters."""
    if not name or len(name) > _NAME_CHARS_MAX or not name.isprintable():
        raise ValueError(f"{what}: a name has 1 to {_NAME_CHARS_MAX} printable characters")
    return name


def merge(grants: Iterable[Grant]) -> Grant:
    """All of them together. The first quota that is named counts."""
    found = list(grants)
    scopes = {
        scope: tuple(dict.fromkeys(pattern for grant in found for pattern in grant.patterns(scope))) for scope in SCOPES
    }
    return Grant(**scopes, quota=next((grant.quota for grant in found if grant.quota), ""))


def to_principal(name: str, grant: Grant, *, expires_ms: int | None, credential: object) -> Principal:
    """The principal that has this grant, its roles resolved already."""
    scopes = {scope: Scope(grant.patterns(scope)) for scope in SCOPES}
    return Principal(name=name, **scopes, expires_ms=expires_ms, quota=grant.quota, credential=credential)
