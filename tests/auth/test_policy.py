from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gateway.auth.grant import Grant
from gateway.auth.policy import Change, Policy, diff, parse, read
from gateway.errors import ConfigError


def policy(text: str) -> Policy:
    return parse(tomllib.loads(text), "permissions.toml")


SHOP = """
[roles.publisher]
publish = ["trade.>"]
[principals.shop]
roles = ["publisher"]
subscribe = ["shop.>"]
[principals."login:alice"]
admin = ["alice.>"]
"""


def test_a_principal_has_its_own_and_what_its_roles_say() -> None:
    principal = policy(SHOP).principal("shop", [])
    assert principal.may_publish("trade.paid")
    assert principal.may_subscribe("shop.orders")
    assert not principal.may_admin("shop.orders")


def test_what_a_credential_brings_along_is_added() -> None:
    principal = policy(SHOP).principal("login:alice", [Grant(roles=("publisher",), view=(">",))], expires_ms=9)
    assert principal.may_publish("trade.paid")
    assert principal.may_admin("alice.orders")
    assert principal.may_view()
    assert principal.expires_ms == 9


def test_who_is_not_named_has_nothing_but_what_was_brought() -> None:
    principal = policy(SHOP).principal("stranger", [Grant(roles=("unknown",))])
    assert principal.publish.patterns == ()


WRONG: list[tuple[str, str]] = [
    ("[role.x]\n", "permissions.toml: [role]: unknown section"),
    ("principals = 3\n", "permissions.toml: principals: must be tables"),
    ("[principals]\nshop = 3\n", "permissions.toml: principals.shop: must be an object"),
    ("[principals.shop]\nroles = ['x']\n", "permissions.toml: principals.shop: role 'x' is not there"),
    ("[roles.x]\nroles = ['y']\n", "permissions.toml: roles.x: 'roles' is unknown"),
    ("[roles.x]\npublish = ['a..']\n", "permissions.toml: roles.x: publish: pattern"),
    ('[principals."a\\u001b"]\n', "printable"),
]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_what_is_wrong_is_named_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(text)
    assert why in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "missing.toml")
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not TOML"):
        read(broken)


def changes(before: str, after: str) -> list[Change]:
    return list(diff(policy(before), policy(after)))


def test_a_change_gives_and_takes() -> None:
    before = "[principals.shop]\npublish = ['a', 'b']\n"
    after = "[principals.shop]\npublish = ['b', 'c']\n[principals.bank]\nadmin = ['>']\n"
    assert changes(before, after) == [
        Change("principal bank", "admin", ">", True),
        Change("principal shop", "publish", "a", False),
        Change("principal shop", "publish", "c", True),
    ]


def test_a_change_of_a_role_is_a_change_of_all_who_have_it() -> None:
    before = "[roles.r]\npublish = ['a']\n[principals.x]\nroles = ['r']\n"
    after = "[roles.r]\n[principals.x]\nroles = ['r']\n"
    lost = [Change("role r", "publish", "a", False), Change("principal x", "publish", "a", False)]
    assert changes(before, after) == lost


def test_what_counts_is_what_patterns_mean_and_not_how_they_are_written() -> None:
    before = "[principals.x]\npublish = ['a.b', 'a.*', 'c']\n"
    after = "[principals.x]\npublish = ['a.>', 'c']\n"
    assert changes(before, after) == [Change("principal x", "publish", "a.>", True)]
    assert changes(after, before) == [Change("principal x", "publish", "a.>", False)]
    assert changes(before, before) == []
