from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gateway.auth import apikey
from gateway.auth.access import Access
from gateway.auth.grant import Grant
from gateway.config import Auth, Config, Jwt
from gateway.errors import ConfigError, GatewayError
from gateway.principal import ANONYMOUS, NOBODY
from tests.auth.making import NOW_MS, NOW_S, jwks, public_jwk, settings, token
from tests.conftest import Log


class Time:
    def __init__(self) -> None:
        self.ms = NOW_MS

    def __call__(self) -> int:
        return self.ms


class House:
    """The files of one configuration, and the access that reads them."""

    def __init__(self, directory: Path, *, jwt: tuple[Jwt, ...] | None = None) -> None:
        self.keys = directory / "keys.json"
        self.permissions = directory / "permissions.toml"
        jwks_file = directory / "jwks.json"
        jwks_file.write_bytes(jwks(public_jwk("RS256", kid="k1")))
        with apikey.changing(self.keys):
            pass
        self.permit("")
        self.time = Time()
        auth = Auth(keys_file=str(self.keys), permissions_file=str(self.permissions), reload_s=0.05)
        entries = (settings(keys=str(jwks_file)),) if jwt is None else jwt
        self.jwks = jwks_file
        self.access = Access(Config(auth=auth, jwt=entries), self.time)

    def permit(self, text: str) -> None:
        written = self.permissions.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        os.replace(written, self.permissions)

    def make_key(self, principal: str = "shop", grant: Grant | None = None, expires_ms: int | None = None) -> str:
        key, record = apikey.make(principal, grant or Grant(), NOW_MS, expires_ms)
        with apikey.changing(self.keys) as keys:
            keys[record.id] = record
        return key

    def revoke(self, key: str) -> None:
        with apikey.changing(self.keys) as keys:
            record = keys[key.split("_")[1]]
            keys[record.id] = apikey.revoked(record, NOW_MS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Access]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.access.run)
            yield self.access
            nursery.cancel_scope.cancel()

    async def change(self) -> None:
        """Wait until something has changed."""
        changed = trio.Event()
        self.access.on_change = changed.set
        with trio.fail_after(5):
            await changed.wait()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def refusal(access: Access, text: str) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await access.authenticate(text)
    return caught.value


async def test_a_key_is_a_principal_with_what_key_and_file_say(house: House) -> None:
    key = house.make_key(grant=Grant(publish=("trade.>",), roles=("reader",)))
    house.permit("[roles.reader]\nview = ['>']\n[principals.shop]\nsubscribe = ['shop.>']\n")
    house.access.load()
    principal = await house.access.authenticate(key)
    assert principal.name == "shop"
    assert principal.may_publish("trade.paid")
    assert principal.may_view()
    assert principal.may_subscribe("shop.orders")
    assert not principal.may_admin("shop.orders")


async def test_a_token_is_a_principal_with_what_claim_and_file_say(house: House) -> None:
    house.permit('[principals."login:alice"]\nsubscribe = ["alice.>"]\n')
    house.access.load()
    principal = await house.access.authenticate(token(push={"publish": ["trade.>"]}))
    assert (principal.name, principal.expires_ms) == ("login:alice", (NOW_S + 600) * 1000)
    assert principal.may_publish("trade.paid")
    assert principal.may_subscribe("alice.orders")


async def test_a_token_is_verified_once_until_it_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.access.load()
    text = token()
    first = await house.access.authenticate(text)
    assert house.access.known(text) is first
    assert await house.access.authenticate(text) is first
    house.time.ms = (NOW_S + 600) * 1000
    assert house.access.known(text) is None
    again = await house.access.authenticate(text)
    assert again.expires_ms == (NOW_S + 610) * 1000, "the leeway"
    house.time.ms += 10_000
    assert (await refusal(house.access, text)).code == "credentials_expired"


async def test_what_is_remembered_is_bounded_and_holds_no_token(house: House) -> None:
    auth = Auth(keys_file=str(house.keys), tokens_known_max=3)
    access = Access(Config(auth=auth), house.time)
    keys = [house.make_key(f"p{number}") for number in range(10)]
    access.load()
    for key in keys:
        await access.authenticate(key)
        assert len(access._known) <= 3
    assert all(key.encode() not in known for key in keys for known in access._known)


BAD: dict[str, str] = {
    "nothing": "",
    "a word": "secret",
    "a key that is none": "pgk_x",
    "not ASCII": "\xff\xfe",
    "a surrogate": "\ud800",
    "a giant": "a" * 100_000,
    "a giant key": "pgk_" + "a" * 100_000,
    "many dots": "." * 8000,
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_credential_is_refused_and_never_shown(house: House, name: str) -> None:
    house.access.load()
    error = await refusal(house.access, BAD[name])
    assert error.code == "invalid_token"
    assert len(BAD[name]) < 8 or BAD[name] not in error.message


async def test_an_issuer_that_is_not_trusted_is_refused(house: House) -> None:
    house.access.load()
    assert "issuer that is not trusted" in (await refusal(house.access, token(iss="https://evil.example/"))).message


async def test_without_any_keys_yet_the_answer_is_to_try_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    async def down(_: str) -> bytes:
        raise OSError("down")

    entry = settings(keys="https://login.example.org/jwks")
    access = Access(Config(jwt=(entry,)), lambda: NOW_MS, down)
    access.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.run)
        await access.wait_fresh()
        error = await refusal(access, token())
        assert (error.code, error.kind.temporary) == ("keys_unavailable", True)
        assert access.troubles == ["jwt 'login': down"]
        nursery.cancel_scope.cancel()
    log.clear()


# ------------------------------------------------------------------------------------------------------- revocation


async def test_a_revoked_key_is_refused_within_a_moment_and_so_is_who_has_it(house: House) -> None:
    key = house.make_key()
    house.access.load()
    async with house.running() as access:
        principal = await access.authenticate(key)
        assert access.renew(principal).name == "shop"
        house.revoke(key)
        await house.change()
        assert (await refusal(access, key)).code == "invalid_token"
        with pytest.raises(GatewayError, match="was revoked"):
            access.renew(principal)


async def test_a_key_that_is_removed_from_the_file_is_gone(house: House) -> None:
    key = house.make_key()
    house.access.load()
    async with house.running() as access:
        principal = await access.authenticate(key)
        with apikey.changing(house.keys) as keys:
            keys.clear()
        await house.change()
        with pytest.raises(GatewayError, match="was removed"):
            access.renew(principal)


async def test_changed_permissions_reach_those_who_are_here(house: House) -> None:
    key = house.make_key()
    house.permit("[principals.shop]\npublish = ['a']\n[principals.'login:alice']\npublish = ['a']\n")
    house.access.load()
    async with house.running() as access:
        principals = [await access.authenticate(key), await access.authenticate(token())]
        assert all(each.may_publish("a") for each in principals)
        house.permit("[principals.shop]\npublish = ['b']\n")
        await house.change()
        shop, alice = (access.renew(each) for each in principals)
        assert (shop.may_publish("a"), shop.may_publish("b")) == (False, True)
        assert not alice.may_publish("a")
        assert not (await access.authenticate(token())).may_publish("a")


async def test_a_key_that_its_issuer_withdraws_ends_who_it_signed_for(house: House) -> None:
    house.access.load()
    async with house.running() as access:
        principal = await access.authenticate(token())
        house.jwks.write_bytes(jwks(public_jwk("RS256", "second", kid="k1")))
        await house.change()
        with pytest.raises(GatewayError, match="withdrawn"):
            access.renew(principal)


async def test_a_file_that_is_broken_changes_nothing_and_is_said(house: House, log: Log) -> None:
    key = house.make_key()
    house.permit("[principals.shop]\npublish = ['a']\n")
    house.access.load()
    async with house.running() as access:
        house.permit("[principals.shop]\npublish = ['a..']\n")
        house.keys.write_bytes(b"{")
        with trio.fail_after(5):
            while len(access.troubles) < 2:
                await trio.sleep(0.01)
        assert (await access.authenticate(key)).may_publish("a")
        errors = [entry for entry in log if entry["log_level"] == "error"]
        assert len(errors) == 2
        assert all("the last good one stays" in entry["event"] for entry in errors)
        house.permit("[principals.shop]\npublish = ['b']\n")
        await house.change()
        assert (await access.authenticate(key)).may_publish("b")
    log.clear()


async def test_two_changes_within_one_tick_of_the_file_s_clock_are_both_seen(house: House) -> None:
    house.access.load()
    house.permit("[principals.a]\npublish = ['a']\n")
    status = house.permissions.stat()
    async with house.running():
        await house.change()
        content = house.permissions.read_text().replace("principals.a", "principals.b")
        with house.permissions.open("r+") as opened:  # in place: the same inode, size and time
            opened.write(content)
        os.utime(house.permissions, ns=(status.st_atime_ns, status.st_mtime_ns))
        await house.change()


def test_everybody_and_nobody_are_not_made_anew(house: House) -> None:
    house.access.load()
    assert house.access.renew(ANONYMOUS) is ANONYMOUS
    assert house.access.renew(NOBODY) is NOBODY


def test_a_file_that_is_wrong_at_the_start_ends_it(house: House) -> None:
    house.permit("[x]\n")
    with pytest.raises(ConfigError, match="unknown section"):
        house.access.load()
    house.permit("")
    house.keys.unlink()
    with pytest.raises(ConfigError, match="gateway key create"):
        house.access.load()


async def test_keys_are_not_taken_where_there_is_no_file_of_them(house: House) -> None:
    access = Access(Config(jwt=(settings(keys=str(house.jwks)),)), house.time)
    access.load()
    assert "auth.keys_file" in (await refusal(access, house.make_key())).message
    assert not Access(Config(), house.time).required


# ---------------------------------------------------------------------------------------------------------- failures


async def test_an_address_with_too_many_bad_credentials_is_not_looked_at_but_for_good_ones(house: House) -> None:
    key, other = house.make_key(), house.make_key("other")
    house.access.load()
    await house.access.authenticate(key, "192.0.2.1:1")
    for _ in range(101):
        with pytest.raises(GatewayError, match="malformed"):
            await house.access.authenticate("pgk_nonsense", "192.0.2.1:1")
    for text in ("pgk_nonsense", other, token()):
        with pytest.raises(GatewayError, match=r"auth\.failures_per_s") as caught:
            await house.access.authenticate(text, "192.0.2.1:2")
        assert caught.value.code == "too_many_failures"
    assert (await house.access.authenticate(key, "192.0.2.1:3")).name == "shop"
    assert (await house.access.authenticate(other, "192.0.2.2:1")).name == "other"
    house.time.ms += 1000
    assert (await house.access.authenticate(token(), "192.0.2.1:1")).name == "login:alice"


# ------------------------------------------------------------------------------------------------------------ reload


def changed(house: House, *jwt: Jwt, **auth: Any) -> Config:
    before = house.access.settings
    return Config(auth=attrs.evolve(before, **auth), jwt=jwt or (settings(keys=str(house.jwks)),))


async def test_a_reload_takes_other_files_and_forgets_what_was_known(house: House, tmp_path: Path) -> None:
    key = house.make_key()
    house.access.load()
    principal = await house.access.authenticate(key)
    house.keys = tmp_path / "others.json"
    other = house.make_key("other")
    called: list[None] = []
    house.access.on_change = lambda: called.append(None)
    house.access.reload(changed(house, keys_file=str(house.keys), token_bytes_max=300))
    assert called
    assert (await house.access.authenticate(other)).name == "other"
    assert (await refusal(house.access, key)).code == "invalid_token"
    assert "at most 300" in (await refusal(house.access, "x" * 301)).message
    with pytest.raises(GatewayError, match="was removed"):
        house.access.renew(principal)


async def test_an_issuer_may_come_go_and_change_and_the_others_stay(house: House, tmp_path: Path) -> None:
    house.access.load()
    file = tmp_path / "second.json"
    file.write_bytes(jwks(public_jwk("ES256", "other", kid="k9")))
    first = settings(keys=str(house.jwks))
    second = settings(name="second", issuer="https://second", keys=str(file))
    theirs = token("ES256", kid="k9", name="other", iss="https://second")
    async with house.running() as access:
        principal = await access.authenticate(token())
        assert (await refusal(access, theirs)).code == "invalid_token"
        access.reload(changed(house, first, second))
        assert access.renew(principal).name == "login:alice"
        assert (await access.authenticate(theirs)).name == "second:alice"
        file.write_bytes(jwks(public_jwk("ES256", "third", kid="k9")))
        await house.change()  # the new one is kept fresh too
        assert (await refusal(access, theirs)).code == "invalid_token"
        access.reload(changed(house, attrs.evolve(first, audience="other"), second))
        with pytest.raises(GatewayError, match="issuer have changed; reconnect") as caught:
            access.renew(principal)
        assert caught.value.kind.close == 3005
        assert (await refusal(access, token())).code == "invalid_token"
        assert (await access.authenticate(token(aud="other"))).name == "login:alice"


@pytest.mark.parametrize("what", ["keys", "permissions", "issuer", "none"])
async def test_a_reload_that_is_wrong_changes_nothing(house: House, tmp_path: Path, what: str) -> None:
    key = house.make_key()
    house.access.load()
    missing = str(tmp_path / "missing")
    wrong = {
        "keys": changed(house, keys_file=missing),
        "permissions": changed(house, permissions_file=missing),
        "issuer": changed(house, settings(keys=missing), token_bytes_max=300),
        "none": Config(),
    }
    with pytest.raises(ConfigError):
        house.access.reload(wrong[what])
    assert (await house.access.authenticate(key)).name == "shop"
    assert (await house.access.authenticate(token())).name == "login:alice"
    assert house.access.token_bytes_max == Auth().token_bytes_max
