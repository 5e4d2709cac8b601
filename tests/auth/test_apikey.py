from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from gateway.auth import apikey
from gateway.auth.grant import Grant
from gateway.errors import ConfigError, GatewayError

NOW_MS = 1_800_000_000_000


def refused(keys: apikey.Keys, token: str, now_ms: int = NOW_MS) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        apikey.recognise(keys, token, now_ms)
    return caught.value


def test_a_key_is_recognised_by_its_hash() -> None:
    key, record = apikey.make("shop", Grant(publish=("a",)), NOW_MS)
    assert apikey.recognise({record.id: record}, key, NOW_MS) is record
    assert key not in repr(record)
    assert key.rpartition("_")[2] not in repr(record.as_dict())


def test_keys_are_of_256_random_bits() -> None:
    keys = {apikey.make("shop", Grant(), NOW_MS)[0] for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == len("pgk_") + 12 + 1 + 43 for key in keys)


def test_a_key_that_is_not_there_is_refused_like_one_with_a_wrong_secret() -> None:
    key, record = apikey.make("shop", Grant(), NOW_MS)
    other, _ = apikey.make("shop", Grant(), NOW_MS)
    wrong = key[:17] + other[17:]
    assert apikey._KEY.fullmatch(wrong)
    assert refused({record.id: record}, wrong).message == refused({}, key).message
    assert refused({}, key).code == "invalid_token"


@pytest.mark.parametrize("key", ["pgk_", "pgk_x", "pgk_0123456789ab_", "pgk_0123456789AB_" + "a" * 43, "x" * 60])
def test_what_is_no_key_is_refused_as_such(key: str) -> None:
    assert "malformed" in refused({}, key).message
    assert len(key) < 8 or key not in refused({}, key).message


def test_a_revoked_key_and_an_expired_one_say_so_and_name_their_id_only() -> None:
    key, record = apikey.make("shop", Grant(), NOW_MS, expires_ms=NOW_MS + 1000)
    error = refused({record.id: record}, key, NOW_MS + 1000)
    assert (error.code, record.id in error.message, key in error.message) == ("credentials_expired", True, False)
    gone = apikey.revoked(record, NOW_MS)
    assert refused({record.id: gone}, key).code == "invalid_token"
    assert "revoked" in refused({record.id: gone}, key).message


def test_principals_of_keys_are_not_those_of_tokens() -> None:
    with pytest.raises(ValueError, match="ISSUER:SUBJECT"):
        apikey.make("login:alice", Grant(), NOW_MS)


# ---------------------------------------------------------------------------------------------------------- the file


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    _, record = apikey.make("shop", Grant(publish=("a.>",), roles=("r",), quota="q"), NOW_MS, NOW_MS + 1)
    with apikey.changing(file) as keys:
        assert keys == {}
        keys[record.id] = record
    assert apikey.read(file) == {record.id: record}
    with apikey.changing(file) as keys:
        keys[record.id] = apikey.revoked(record, NOW_MS)
    assert apikey.read(file)[record.id].revoked_ms == NOW_MS


def test_the_file_is_its_owner_s_only_and_keeps_the_mode_that_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with apikey.changing(file):
        pass
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    with apikey.changing(file):
        pass
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    _, record = apikey.make("shop", Grant(), NOW_MS)
    with apikey.changing(file) as keys:
        keys[record.id] = record
    with suppress(RuntimeError), apikey.changing(file) as keys:
        keys.clear()
        raise RuntimeError
    assert apikey.read(file) == {record.id: record}


ENTRY = {"id": "0123456789ab", "principal": "shop", "sha256": "0" * 64, "grant": {}, "created_ms": 1}
WRONG: list[tuple[bytes, str]] = [
    (b"x", "is not JSON"),
    (b"[]", 'must be {"keys": [...]}'),
    (b'{"keys": {}}', 'must be {"keys": [...]}'),
    (orjson.dumps({"keys": [3]}), "keys[0]: must be an object"),
    (orjson.dumps({"keys": [ENTRY | {"id": "x"}]}), "keys[0]: id: must be 12"),
    (orjson.dumps({"keys": [ENTRY | {"sha256": "x"}]}), "keys[0]: sha256: must be 64"),
    (orjson.dumps({"keys": [ENTRY | {"principal": 3}]}), "keys[0]: principal: must be text"),
    (orjson.dumps({"keys": [ENTRY | {"principal": "a:b"}]}), "keys[0]: principal: names with"),
    (orjson.dumps({"keys": [ENTRY | {"grant": {"x": 1}}]}), "keys[0]: 'x' is unknown"),
    (orjson.dumps({"keys": [ENTRY | {"expires_ms": "soon"}]}), "keys[0]: expires_ms: must be milliseconds"),
    (orjson.dumps({"keys": [ENTRY, ENTRY]}), "keys[1]: id 0123456789ab is there already"),
]


@pytest.mark.parametrize(("raw", "why"), WRONG)
def test_what_is_wrong_in_the_file_is_named(raw: bytes, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apikey.parse(raw, "keys.json")
    assert str(caught.value).startswith("keys.json: ")
    assert why in str(caught.value)


def test_an_empty_file_holds_no_key_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert apikey.parse(b"\n", "keys.json") == {}
    with pytest.raises(ConfigError, match="gateway key create"):
        apikey.read(tmp_path / "keys.json")
