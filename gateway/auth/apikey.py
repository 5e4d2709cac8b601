"""API keys: `pgk_<id>_<secret>`, made here, stored hashed, recognised by their id.

The id is public: it finds the record, stands in lists and logs, and names what is revoked. The secret has 256 random
bits, so a fast hash is the right one: there is nothing to guess, and what slows down guessing (bcrypt, argon2) would
slow down every first request only. The file holds SHA-256 of the whole key; who reads it can impersonate nobody. The
digests are compared in constant time.

    {"keys": [{"id", "principal", "sha256", "grant": {...}, "created_ms", "expires_ms", "revoked_ms"}, ...]}
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import orjson

from gateway.auth.grant import Grant, check_name, decode
from gateway.errors import ConfigError, GatewayError

PREFIX: Final = "pgk_"
_KEY: Final = re.compile(r"pgk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_ID: Final = re.compile(r"[0-9a-f]{12}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Some 200,000 keys; more is a mistake."""


@attrs.frozen(kw_only=True)
class ApiKey:
    """One record of the keys file."""

    id: str
    principal: str
    sha256: str
    grant: Grant = attrs.field(factory=Grant)
    created_ms: int = 0
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def as_dict(self) -> dict[str, object]:
        """What `parse` reads."""
        return {**attrs.asdict(self, recurse=False), "grant": self.grant.as_dict()}


Keys = Mapping[str, ApiKey]
"""Records by their ids."""


def make(principal: str, grant: Grant, now_ms: int, expires_ms: int | None = None) -> tuple[str, ApiKey]:
    """A new key and its record. The key is nowhere else: show it once."""
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    record = ApiKey(
        id=key_id,
        principal=_check_principal(principal),
        sha256=_digest(key),
        grant=grant,
        created_ms=now_ms,
        expires_ms=expires_ms,
    )
    return key, record


def _check_principal(name: str) -> str:
    if ":" in name:
        raise ValueError('principal: names with ":" are those of tokens, ISSUER:SUBJECT; choose one without')
    return check_name("principal", name)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def recognise(keys: Keys, token: str, now_ms: int) -> ApiKey:
    """The record of the key `token`. Raises GatewayError: `invalid_token`, `credentials_expired`."""
    match = _KEY.fullmatch(token)
    if match is None:
        raise GatewayError("invalid_token", "the API key is malformed; was it copied whole?")
    record = keys.get(match[1])
    expected = record.sha256 if record is not None else "0" * 64
    if not hmac.compare_digest(_digest(token), expected) or record is None:
        raise GatewayError("invalid_token", "the API key is not known here")
    return check(record, now_ms)


def check(record: ApiKey, now_ms: int) -> ApiKey:
    """Return the record, or raise why it is good no more."""
    if record.revoked_ms is not None:
        raise GatewayError("invalid_token", f"API key {record.id} was revoked; ask the operator for another")
    if record.expires_ms is not None and now_ms >= record.expires_ms:
        raise GatewayError("credentials_expired", f"API key {record.id} has expired; ask the operator for another")
    return record


def revoked(record: ApiKey, now_ms: int) -> ApiKey:
    """The record of a key that is good no more; it stays in the file, so that its id is never given again."""
    return attrs.evolve(record, revoked_ms=now_ms)


# --------------------------------------------------------------------------------------------------------- file


def read(file: Path) -> dict[str, ApiKey]:
    """Read a keys file. Raises ConfigError; a file that is not there is an error, an empty one holds no key."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}; `gateway key create` makes it (auth.keys_file)"
        ) from None
    return parse(raw, str(file))


def parse(raw: bytes, origin: str) -> dict[str, ApiKey]:
    """The same from its bytes."""
    if not raw.strip():
        return {}
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{origin}: has {len(raw)} bytes; at most {FILE_BYTES_MAX} are read")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise ConfigError(f"{origin}: is not JSON; `gateway key create` writes it") from None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ConfigError(f'{origin}: must be {{"keys": [...]}}; `gateway key create` writes it')
    found: dict[str, ApiKey] = {}
    for index, entry in enumerate(document["keys"]):
        try:
            record = _record(entry)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{origin}: keys[{index}]: {error}") from None
        if record.id in found:
            raise ConfigError(f"{origin}: keys[{index}]: id {record.id} is there already")
        found[record.id] = record
    return found


def _record(entry: object) -> ApiKey:
    if not isinstance(entry, dict):
        raise ValueError("must be an object")
    times = {name: _time(name, entry.get(name)) for name in ("created_ms", "expires_ms", "revoked_ms")}
    key_id, digest, principal = (entry.get(name) for name in ("id", "sha256", "principal"))
    if not isinstance(key_id, str) or not _ID.fullmatch(key_id):
        raise ValueError("id: must be 12 hexadecimal digits")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("sha256: must be 64 hexadecimal digits")
    if not isinstance(principal, str):
        raise ValueError("principal: must be text")
    return ApiKey(
        id=key_id,
        principal=_check_principal(principal),
        sha256=digest,
        grant=decode(entry.get("grant", {})),
        created_ms=times["created_ms"] or 0,
        expires_ms=times["expires_ms"],
        revoked_ms=times["revoked_ms"],
    )


def _time(name: str, value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{name}: must be milliseconds since the epoch")
    return value


@contextmanager
def changing(file: Path) -> Iterator[dict[str, ApiKey]]:
    """Change a keys file: the records to change in place, written when the block is left normally.

    Whole or not at all: a new file is synced and takes the place of the old one, readable by its owner only. Two that
    change it wait for each other.
    """
    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_name(file.name + ".lock"), "a", opener=_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        records = read(file) if file.exists() else {}
        yield records
        written = file.with_name(file.name + ".new")
        with open(written, "wb", opener=_private) as out:
            if file.exists():  # the service's own user must go on reading what the administrator changes
                status = file.stat()
                os.fchmod(out.fileno(), status.st_mode & 0o777)
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                    os.fchown(out.fileno(), status.st_uid, status.st_gid)
            document = {"keys": [record.as_dict() for record in records.values()]}
            out.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(written, file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
