from __future__ import annotations

import re
from typing import Any

import pytest

from gateway.auth.grant import PATTERNS_MAX, Grant, check_name, decode, merge, to_principal


def test_a_grant_is_what_its_document_says() -> None:
    document = {"roles": ["ops"], "publish": ["trade.>"], "subscribe": ["orders"], "quota": "gold"}
    grant = decode(document)
    assert grant == Grant(roles=("ops",), publish=("trade.>",), subscribe=("orders",), quota="gold")
    assert grant.as_dict() == document
    assert decode({}) == Grant()


WRONG: list[tuple[Any, str]] = [
    ("admin", "must be an object"),
    (None, "must be an object"),
    ({"publsh": ["a"]}, "'publsh' is unknown; known are roles, publish"),
    ({1: ["a"]}, "'1' is unknown"),
    ({"publish": "a"}, "publish: must be a list of texts"),
    ({"publish": [1]}, "publish: must be a list of texts"),
    ({"publish": ["a..b"]}, 'publish: pattern "a..b": it has an empty word'),
    ({"view": ["a.>.b"]}, "view: pattern"),
    ({"admin": [""]}, "admin: pattern"),
    ({"roles": [""]}, "roles: a name has 1 to 128 printable characters"),
    ({"roles": ["a\nb"]}, "roles: a name has"),
    ({"quota": 3}, "quota: must be text"),
    ({"read": ["a"] * (PATTERNS_MAX + 1)}, "read: 1001 entries"),
]


@pytest.mark.parametrize(("document", "why"), WRONG)
def test_what_is_no_grant_is_refused_and_never_a_smaller_one(document: Any, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        decode(document)


def test_a_role_names_no_roles() -> None:
    with pytest.raises(ValueError, match="'roles' is unknown"):
        decode({"roles": ["ops"]}, nested=False)


def test_grants_add_up_and_the_first_quota_counts() -> None:
    merged = merge([Grant(publish=("a", "b")), Grant(publish=("b", "c"), quota="x"), Grant(quota="y")])
    assert merged == Grant(publish=("a", "b", "c"), quota="x")


def test_a_principal_may_what_its_grant_says() -> None:
    principal = to_principal("shop", Grant(publish=("trade.>",)), expires_ms=7, credential=None)
    assert (principal.name, principal.expires_ms) == ("shop", 7)
    assert principal.may_publish("trade.paid")
    assert not principal.may_publish("bank.paid")


@pytest.mark.parametrize("name", ["", "a" * 129, "a\n", "a\x1b[31m", "a\u202eb"])
def test_a_name_prints_and_is_short(name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        check_name("principal", name)
