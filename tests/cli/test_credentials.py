"""key, token and permission: against files, and a configuration that names them."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from gateway.auth import apikey
from tests.auth.making import AUDIENCE, ISSUER, jwks, private, public_jwk
from tests.cli.conftest import Gateway
from tests.cli.fake import FakeControl, FakeData


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def create(gateway: Gateway, keys: Path, *arguments: str) -> str:
    outcome = gateway("key", "create", *arguments, "--keys-file", str(keys))
    assert outcome.code == 0, outcome.err
    [key] = outcome.lines
    return key


# ---------------------------------------------------------------------------------------------------------------- key


def test_a_key_is_printed_once_and_kept_as_a_hash(gateway: Gateway, keys: Path) -> None:
    key = create(gateway, keys, "shop", "--publish", "shop.>", "--publish", "x", "--role", "reader")
    [record] = apikey.read(keys).values()
    assert apikey.recognise({record.id: record}, key, 0) is record
    assert (record.principal, record.grant.publish, record.grant.roles) == ("shop", ("shop.>", "x"), ("reader",))
    assert key not in keys.read_text()


def test_a_key_may_end(gateway: Gateway, keys: Path) -> None:
    create(gateway, keys, "shop", "--expires-days", "30")
    [record] = apikey.read(keys).values()
    assert record.expires_ms is not None
    assert record.expires_ms - record.created_ms == 30 * 86_400_000


@pytest.mark.parametrize(
    "arguments", [["a:b"], ["shop", "--publish", "a.."], ["shop", "--expires-days", "0"], [""], ["shop", "--role", ""]]
)
def test_what_is_wrong_makes_no_key(gateway: Gateway, keys: Path, arguments: list[str]) -> None:
    assert gateway("key", "create", *arguments, "--keys-file", str(keys)).code == 2
    assert not keys.exists()


def test_keys_are_listed_without_their_hashes(gateway: Gateway, keys: Path) -> None:
    create(gateway, keys, "shop", "--publish", "shop.>")
    create(gateway, keys, "bank", "--expires-days", "3")
    listed = gateway("key", "list", "--keys-file", str(keys))
    [_, shop, bank] = listed.lines
    assert re.fullmatch(r"[0-9a-f]{12} +shop +good +publish shop\.>", shop.strip())
    assert "good for 3.0 days" in bank
    as_json = gateway("key", "list", "--json", "--keys-file", str(keys))
    assert [each["principal"] for each in orjson.loads(as_json.out)] == ["shop", "bank"]
    assert "sha256" not in as_json.out


def test_a_key_is_revoked_by_its_id_or_whole(gateway: Gateway, keys: Path) -> None:
    first, second = create(gateway, keys, "a"), create(gateway, keys, "b")
    for name in (first.split("_")[1], second):
        outcome = gateway("key", "revoke", name, "--keys-file", str(keys))
        assert outcome.code == 0
        assert second not in outcome.err
    assert all(record.revoked_ms for record in apikey.read(keys).values())
    assert gateway("key", "list", "--keys-file", str(keys)).out.count("revoked") == 2


def test_a_key_that_is_not_there_cannot_be_revoked(gateway: Gateway, keys: Path) -> None:
    assert gateway("key", "revoke", "0" * 12, "--keys-file", str(keys)).code == 1
    create(gateway, keys, "a")
    assert gateway("key", "revoke", "0" * 12, "--keys-file", str(keys)).code == 1


def test_the_file_is_the_one_of_the_configuration(gateway: Gateway, keys: Path, tmp_path: Path) -> None:
    configuration = tmp_path / "gateway.toml"
    configuration.write_text(f'[auth]\nkeys_file = "{keys}"\n')
    assert gateway("key", "create", "shop", "--config", str(configuration)).code == 0
    assert len(apikey.read(keys)) == 1
    assert gateway("key", "create", "shop").code == 2, "no file is named"


# -------------------------------------------------------------------------------------------------------------- token


@pytest.fixture
def configuration(tmp_path: Path, keys: Path) -> Path:
    """A configuration with keys, an issuer and permissions; and the issuer's private key beside it."""
    (tmp_path / "jwks.json").write_bytes(jwks(public_jwk("ES256", kid="k1")))
    (tmp_path / "private.json").write_bytes(private("ES256"))
    permissions = tmp_path / "permissions.toml"
    permissions.write_text('[principals."login:alice"]\nsubscribe = ["alice.>"]\n')
    with apikey.changing(keys):
        pass
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[auth]\nkeys_file = "{keys}"\npermissions_file = "{permissions}"\n'
        f'[[jwt]]\nname = "login"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
        f'keys = "{tmp_path / "jwks.json"}"\nalgorithms = ["ES256"]\n'
    )
    return file


def sign(gateway: Gateway, directory: Path, *arguments: str) -> str:
    outcome = gateway(
        *("token", "create", "alice", "--key", str(directory / "private.json"), "--algorithm", "ES256"),
        *("--issuer", ISSUER, "--audience", AUDIENCE, "--kid", "k1", *arguments),
    )
    assert outcome.code == 0, outcome.err
    [token] = outcome.lines
    return token


def test_a_token_that_is_created_is_good(gateway: Gateway, configuration: Path) -> None:
    token = sign(gateway, configuration.parent, "--publish", "trade.>")
    outcome = gateway("token", "check", "--config", str(configuration), stdin=token.encode())
    assert outcome.code == 0
    found = orjson.loads(outcome.out)
    assert (found["principal"], found["publish"], found["subscribe"]) == ("login:alice", ["trade.>"], ["alice.>"])
    assert found["expires_ms"]


def test_a_token_that_is_not_good_is_told_why(gateway: Gateway, configuration: Path) -> None:
    token = sign(gateway, configuration.parent)
    outcome = gateway("token", "check", "--config", str(configuration), stdin=token[:-8].encode())
    assert outcome.code == 1
    assert orjson.loads(outcome.out)["code"] == "invalid_token"
    assert token[:-8] not in outcome.out + outcome.err


def test_an_api_key_is_checked_too(gateway: Gateway, configuration: Path, keys: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(create(gateway, keys, "shop") + "\n")
    outcome = gateway("token", "check", "--config", str(configuration), "--token-file", str(key))
    assert orjson.loads(outcome.out)["principal"] == "shop"


@pytest.mark.parametrize(
    ("content", "algorithm", "why"),
    [
        (b"short", "HS256", "is a secret of 5 bytes"),
        (b"a" * 40, "RS256", "is no private key for RS256"),
        (private("ES256"), "RS256", "is no private key for RS256"),
        (b"{}", "ES256", "is no private key for ES256"),
    ],
)
def test_a_key_that_cannot_sign_is_named_and_not_shown(
    gateway: Gateway, tmp_path: Path, content: bytes, algorithm: str, why: str
) -> None:
    file = tmp_path / "private"
    file.write_bytes(content)
    outcome = gateway(
        *("token", "create", "alice", "--key", str(file), "--algorithm", algorithm, "--issuer", "i", "--audience", "a")
    )
    assert outcome.code == 1
    assert why in outcome.err
    assert content.decode() not in outcome.err or len(content) < 8


def test_a_configuration_is_checked_with_the_files_it_names(gateway: Gateway, configuration: Path) -> None:
    assert gateway("checkconfig", str(configuration)).code == 0
    (configuration.parent / "permissions.toml").write_text("[x]\n")
    outcome = gateway("checkconfig", str(configuration))
    assert outcome.code == 1
    assert "unknown section" in outcome.err


# ---------------------------------------------------------------------------------------------------------- permission


def test_diff_shows_what_a_change_gives_and_takes(gateway: Gateway, tmp_path: Path) -> None:
    before, after = tmp_path / "before.toml", tmp_path / "after.toml"
    before.write_text("[principals.shop]\npublish = ['a']\n")
    after.write_text("[principals.shop]\npublish = ['b']\n[roles.ops]\nadmin = ['>']\n")
    outcome = gateway("permission", "diff", str(before), str(after))
    assert outcome.lines == [
        "+ role ops: admin >",
        "- principal shop: publish a",
        "+ principal shop: publish b",
    ]
    as_json = gateway("permission", "diff", str(before), str(after), "--json")
    assert orjson.loads(as_json.lines[0]) == {"who": "role ops", "scope": "admin", "pattern": ">", "gained": True}
    same = gateway("permission", "diff", str(before), str(before))
    assert (same.code, same.out, same.err) == (0, "", "nothing is given and nothing is taken\n")
    assert gateway("permission", "diff", str(before), str(tmp_path / "missing")).code == 1


# ---------------------------------------------------------------------------------------- the credential of a command


def test_a_command_carries_the_token_of_its_file(gateway: Gateway, control: FakeControl, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("pgk_x\n")
    control.answers["GET /v1/subscriptions"] = (200, [])
    assert gateway("subscription", "list", "--token-file", str(file)).code == 0
    assert control.headers["Authorization"] == "Bearer pgk_x"


def test_a_command_carries_the_token_of_the_environment(
    gateway: Gateway, control: FakeControl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control.answers["GET /v1/subscriptions"] = (200, [])
    monkeypatch.setenv("GATEWAY_TOKEN", "from-the-environment")
    assert gateway("subscription", "list").code == 0
    assert control.headers["Authorization"] == "Bearer from-the-environment"
    file = tmp_path / "token"
    file.write_text("from-the-file")
    monkeypatch.setenv("GATEWAY_TOKEN_FILE", str(file))
    assert gateway("subscription", "list").code == 0
    assert control.headers["Authorization"] == "Bearer from-the-file"


@pytest.mark.parametrize("content", [None, b"", b"two words\nlines", b"\xff"])
def test_a_token_file_that_holds_no_token_is_an_error(
    gateway: Gateway, control: FakeControl, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    outcome = gateway("subscription", "list", "--token-file", str(file))
    assert outcome.code == 1
    assert "--token-file" in outcome.err
    assert control.calls == []


def test_publishing_carries_it_too(gateway: Gateway, data: FakeData, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("pgk_x\n")
    assert gateway("pub", "a.b", "1", "--token-file", str(file)).code == 0
    assert data.headers[b"authorization"] == b"Bearer pgk_x"
