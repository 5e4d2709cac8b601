"""The door: names, origins, queries and headers. Where credentials are checked, a key of a file stands for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from gateway.auth import apikey
from gateway.auth.access import Access
from gateway.auth.audit import Audit
from gateway.auth.grant import Grant
from gateway.config import Audit as AuditSettings
from gateway.config import Auth, Config
from gateway.edge.guard import Guard
from gateway.errors import GatewayError
from gateway.principal import ANONYMOUS, NOBODY
from gateway.wire.request import Request
from tests.conftest import Log

LOOPBACK = "127.0.0.1:8080"
ANY = "0.0.0.0:8080"


def guard(address: str = LOOPBACK, keys: Path | None = None, **settings: Any) -> Guard:
    auth = Auth(keys_file="" if keys is None else str(keys), **settings)
    access = Access(Config(auth=auth), lambda: 0)
    access.load()
    return Guard(access, Audit(AuditSettings(), lambda: 0), address)


def request(target: bytes = b"/v1/messages", method: str = "POST", **headers: str) -> Request:
    made = Request()
    made.method, made.target = method, target
    made.headers = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return made


async def refusal(door: Guard, asked: Request) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await door.admit(asked, "127.0.0.1:1")
    return caught.value


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    file = tmp_path / "keys.json"
    text, record = apikey.make("shop", Grant(publish=("a",)), 0)
    with apikey.changing(file) as keys:
        keys[record.id] = record
    return file, text


# --------------------------------------------------------------------------------------------------------- the name


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "localhost", "LOCALHOST:1", "192.0.2.7", "gw.example.org:8080"],
)
async def test_on_loopback_it_answers_to_addresses_localhost_and_the_names_it_was_given(host: str) -> None:
    asked = request(host=host)
    await guard(hosts=("gw.example.org",)).admit(asked, "")
    assert asked.principal is ANONYMOUS


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost.evil"])
async def test_a_name_of_somebody_else_s_that_leads_here_is_refused(host: str, log: Log) -> None:
    error = await refusal(guard(), request(host=host))
    assert error.code == "permission_denied"
    assert "auth.hosts" in error.message


async def test_beyond_loopback_and_with_credentials_any_name_will_do(key: tuple[Path, str]) -> None:
    await guard(ANY).admit(request(host="gw.internal"), "")
    await guard(keys=key[0]).admit(request(host="gw.internal"), "")


async def test_a_client_without_a_name_for_it_is_no_browser() -> None:
    await guard().admit(request(), "")


# ------------------------------------------------------------------------------------------------------- the origin


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "file://", "http://localhost"]
)
@pytest.mark.parametrize("address", [LOOPBACK, ANY])
async def test_a_page_of_another_origin_is_refused(origin: str, address: str, log: Log) -> None:
    error = await refusal(guard(address), request(host="127.0.0.1:8080", origin=origin))
    assert error.code == "permission_denied"
    assert "auth.origins" in error.message


async def test_a_page_of_the_gateway_itself_may_use_it() -> None:
    asked = request(host="127.0.0.1:8080", origin="http://127.0.0.1:8080")
    await guard().admit(asked, "")
    assert asked.origin == b"http://127.0.0.1:8080"


async def test_a_page_whose_name_was_made_to_lead_here_is_not_the_gateway_s(log: Log) -> None:
    error = await refusal(guard(), request(host="evil.example:8080", origin="http://evil.example:8080"))
    assert error.code == "permission_denied"


async def test_a_head_that_came_before_is_looked_at_anew_where_the_settings_have_changed(log: Log) -> None:
    door = guard(ANY, origins=("https://app.example.org",))
    before = request(host="gw.example.org", origin="https://app.example.org")
    await door.admit(before, "")
    again = request(host="gw.example.org", origin="https://app.example.org")
    again.notes = before.notes
    await door.admit(again, "")
    assert again.origin == b"https://app.example.org"
    door.access.reload(Config(auth=Auth(keys_file="", origins=("https://other.example.org",))))
    again.origin = None
    assert (await refusal(door, again)).code == "permission_denied"
    assert again.origin is None


async def test_a_page_that_is_listed_may_use_it_and_read_the_answer() -> None:
    door = guard(ANY, origins=("https://app.example.org",))
    asked = request(host="gw", origin="https://app.example.org")
    await door.admit(asked, "")
    assert asked.origin == b"https://app.example.org"


async def test_a_browser_that_asks_before_it_sends_is_answered() -> None:
    door = guard(ANY, origins=("https://app.example.org",))
    asked = request(
        method="OPTIONS",
        origin="https://app.example.org",
        access_control_request_method="POST",
        access_control_request_headers="authorization",
    )
    await door.admit(asked, "")
    answer = door.preflight(asked)
    assert answer is not None
    assert (b"access-control-allow-headers", b"authorization") in (answer.headers or [])
    assert door.preflight(request(method="OPTIONS")) is None


@pytest.mark.parametrize("origin", ["app.example.org", "https://app.example.org/", "https://a b", "*", "null"])
def test_an_origin_of_the_configuration_is_one(origin: str) -> None:
    with pytest.raises(ValueError, match="origins"):
        Auth(origins=(origin,))


# -------------------------------------------------------------------------------------------------------- the query


@pytest.mark.parametrize("name", ["token", "access_token", "TOKEN", "api_key", "authorization", "%74oken"])
async def test_a_credential_in_the_query_is_refused_by_name_and_never_shown(name: str, log: Log) -> None:
    error = await refusal(guard(), request(f"/v1/messages?x=1&{name}=s3cr3t".encode()))
    assert error.code == "bad_request"
    assert "never go into the query string" in error.message
    assert "s3cr3t" not in error.message
    assert all("s3cr3t" not in str(entry) for entry in log)


async def test_another_query_is_none_of_its_business() -> None:
    await guard().admit(request(b"/v1/messages?position=3&tokens=2"), "")


# -------------------------------------------------------------------------------------------------- the credentials


async def test_a_good_key_says_who_asks(key: tuple[Path, str]) -> None:
    file, text = key
    door = guard(keys=file)
    for scheme in ("Bearer", "bearer", "BEARER"):
        asked = request(authorization=f"{scheme} {text}")
        await door.admit(asked, "")
        assert asked.principal.name == "shop"


async def test_who_brings_nothing_is_nobody_yet(key: tuple[Path, str]) -> None:
    asked = request()
    await guard(keys=key[0]).admit(asked, "")
    assert asked.principal is NOBODY


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic dXNlcjpwdw==", "pgk_x", "Bearer a b", "Bearer \xff"])
async def test_anything_else_in_authorization_is_an_invalid_token(key: tuple[Path, str], value: str, log: Log) -> None:
    assert (await refusal(guard(keys=key[0]), request(authorization=value))).code == "invalid_token"
    assert [entry["code"] for entry in log] == ["invalid_token"]


async def test_a_header_that_comes_twice_is_refused(key: tuple[Path, str], log: Log) -> None:
    asked = request(authorization=f"Bearer {key[1]}")
    asked.headers *= 2
    assert (await refusal(guard(keys=key[0]), asked)).code == "bad_request"


async def test_while_nobody_is_asked_a_token_is_not_looked_at() -> None:
    asked = request(authorization="Bearer whatever")
    await guard().admit(asked, "")
    assert asked.principal is ANONYMOUS


async def test_a_refusal_stands_in_the_audit_log_without_the_token(key: tuple[Path, str], log: Log) -> None:
    secret = key[1][:-1] + ("a" if key[1][-1] != "a" else "b")
    await refusal(guard(keys=key[0]), request(authorization=f"Bearer {secret}"))
    [entry] = log
    assert (entry["event"], entry["code"], entry["target"]) == ("refused", "invalid_token", "/v1/messages")
    assert secret[len("pgk_") + 13 :] not in str(entry)


def test_a_guard_s_request_is_all_there_is() -> None:
    assert attrs.fields(Auth).origins.default == (), "pages are refused unless they are listed"
