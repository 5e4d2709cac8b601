import re
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, entries, generate, is_loopback, load, parse_address, reference
from gateway.errors import ConfigError

TOP = Path(__file__).parent.parent.parent


def load_text(directory: Path, text: str) -> Config:
    file = directory / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def refusal(*args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args)
    return str(caught.value)


# what is wrong in a file -> the key that is named, and the mend
WRONG_IN_A_FILE: list[tuple[str, str, str]] = [
    ("[lisen]\n", "[lisen]", "unknown section; did you mean listen?"),
    ("[qqqq]\n", "[qqqq]", "unknown section; known are: listen, store"),
    ("listen = 3\n", "listen", "must be a table; write [listen]"),
    ("[store]\nsegment_byte = 1\n", "store.segment_byte", "unknown key; did you mean segment_bytes?"),
    ("[store]\nqqqq = 1\n", "store.qqqq", "unknown key; known are: directory, segment_bytes"),
    ("[listen.tls]\n", "listen.tls", "unknown key; known are: data, control"),
    ("[store]\nsegment_bytes = 1.5\n", "store.segment_bytes", "1.5: must be a whole number"),
    ("[store]\nsegment_bytes = true\n", "store.segment_bytes", "True: must be a whole number"),
    ('[store]\nsegment_bytes = "70000"\n', "store.segment_bytes", "must be a whole number, without quotes"),
    ("[store]\nsegment_bytes = []\n", "store.segment_bytes", "must be a whole number"),
    ("[store]\ndirectory = 7\n", "store.directory", "7: must be text; put it in quotes"),
    ("[http]\nidle_timeout_s = false\n", "http.idle_timeout_s", "must be a number"),
    ('[http]\nidle_timeout_s = "75"\n', "http.idle_timeout_s", "must be a number, without quotes"),
    ("[http]\nidle_timeout_s = 1" + "0" * 400 + "\n", "http.idle_timeout_s", "must be a number"),
    ("[listen]\ninsecure = 1\n", "listen.insecure", "1: must be true or false"),
    ('[listen]\ninsecure = "yes"\n', "listen.insecure", "must be true or false, without quotes"),
    ("[store]\nsegment_bytes = 65535\n", "store.segment_bytes", "65535 is too small; the least is 65536"),
    ("[http]\nidle_timeout_s = 86400.5\n", "http.idle_timeout_s", "86400.5 is too large; the most is 86400"),
    ("[http]\nidle_timeout_s = inf\n", "http.idle_timeout_s", "inf is too large; the most is 86400"),
    ("[http]\nidle_timeout_s = nan\n", "http.idle_timeout_s", "nan is too small; the least is 0.05"),
    ('[log]\nlevel = "loud"\n', "log.level", "'loud': use debug, info, warning or error"),
    ('[log]\nformat = "xml"\n', "log.format", "'xml': use console, json or auto"),
    ('[listen]\ndata = "8080"\n', "listen.data", "must be HOST:PORT, such as 127.0.0.1:8080"),
    ('[listen]\ncontrol = "::1:8081"\n', "listen.control", "stands in brackets, such as [::1]:8080"),
    ('[listen]\ndata = "127.0.0.1:65536"\n', "listen.data", "the port must be a number from 0 to 65535"),
]


@pytest.mark.parametrize(("text", "key", "mend"), WRONG_IN_A_FILE)
def test_what_is_wrong_in_a_file_is_named_with_its_key_and_mend(tmp_path: Path, text: str, key: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'gateway.toml'}: {key}: ")
    assert mend in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refusal(missing) == f"{missing}: cannot be read: No such file or directory; name a file that exists"


@pytest.mark.parametrize("content", [b"[store\n", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named_with_the_place(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(content)
    assert refusal(file).startswith(f"{file}: is not TOML: ")


WRONG_IN_THE_ENVIRONMENT: list[tuple[str, str, str]] = [
    ("GATEWAY_STORE__SEGMENT_BYTE", "1", "unknown setting; did you mean GATEWAY_STORE__SEGMENT_BYTES?"),
    ("GATEWAY_STORE__SEGMENT_BYTES", "many", "'many': must be a whole number"),
    ("GATEWAY_STORE__SEGMENT_BYTES", "1.5", "must be a whole number"),
    ("GATEWAY_STORE__SEGMENT_BYTES", "1", "1 is too small; the least is 65536"),
    ("GATEWAY_HTTP__IDLE_TIMEOUT_S", "soon", "'soon': must be a number"),
    ("GATEWAY_HTTP__IDLE_TIMEOUT_S", "1e6", "too large; the most is 86400"),
    ("GATEWAY_LISTEN__INSECURE", "maybe", "'maybe': must be true or false"),
    ("GATEWAY_LISTEN__DATA", "localhost", "must be HOST:PORT"),
    ("GATEWAY_LOG__LEVEL", "LOUD", "use debug, info, warning or error"),
]


@pytest.mark.parametrize(("variable", "value", "mend"), WRONG_IN_THE_ENVIRONMENT)
def test_what_is_wrong_in_the_environment_is_named_with_its_variable_and_mend(
    variable: str, value: str, mend: str
) -> None:
    message = refusal(None, {variable: value})
    assert message.startswith(f"environment: {variable}: ")
    assert mend in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("listen.data", "8080", "flag --listen: '8080': must be HOST:PORT, such as 127.0.0.1:8080"),
        ("deliver.tick_ms", 0, "flag deliver.tick_ms: 0 is too small; the least is 1"),
        ("log.level", "loud", "flag --log-level: 'loud': use debug, info, warning or error"),
    ],
)
def test_what_is_wrong_in_a_flag_is_named_with_its_flag_and_mend(name: str, value: Any, message: str) -> None:
    assert refusal(None, None, {name: value}) == message


CONTRADICTIONS: list[tuple[dict[str, Any], tuple[str, str], str]] = [
    (
        {"limits.payload_bytes_max": 2**23},
        ("limits.payload_bytes_max", "limits.batch_bytes_max"),
        "raise the second",
    ),
    (
        {"websocket.frame_bytes_max": 2**20},
        ("limits.batch_bytes_max", "websocket.frame_bytes_max"),
        "lower the first or raise the second",
    ),
    (
        {"http.body_bytes_max": 2**20},
        ("limits.batch_bytes_max", "http.body_bytes_max"),
        "lower the first or raise the second",
    ),
    ({"http.body_bytes_max": 2**27}, ("ring.bytes_max", "http.body_bytes_max"), "raise the first"),
    ({"websocket.frame_bytes_max": 2**27}, ("ring.bytes_max", "websocket.frame_bytes_max"), "raise the first"),
    (
        {"websocket.heartbeat_s": 5},
        ("websocket.pong_timeout_s", "websocket.heartbeat_s"),
        "lower the first or raise the second",
    ),
    (
        {"shutdown.reconnect_ms_min": 30_000},
        ("shutdown.reconnect_ms_min", "shutdown.reconnect_ms_max"),
        "lower the first or raise the second",
    ),
]


@pytest.mark.parametrize(("flags", "keys", "mend"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_named_together(
    flags: dict[str, Any], keys: tuple[str, str], mend: str
) -> None:
    message = refusal(None, None, flags)
    assert all(key in message for key in keys)
    assert mend in message


def test_defaults_give_way_to_the_file_then_the_environment_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[deliver]\ntick_ms = 1\n[pull]\nmessages_max = 1\n[ring]\nitems_max = 1\n", encoding="utf-8")
    environment = {"GATEWAY_PULL__MESSAGES_MAX": "2", "GATEWAY_RING__ITEMS_MAX": "2"}
    config = load(file, environment, {"ring.items_max": 3})
    assert (config.deliver.tick_ms, config.pull.messages_max, config.ring.items_max) == (1, 2, 3)
    assert config.log == Config().log


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        ("GATEWAY_LISTEN__INSECURE", "Yes", lambda config: config.listen.insecure is True),
        ("GATEWAY_LISTEN__INSECURE", "0", lambda config: config.listen.insecure is False),
        ("GATEWAY_HTTP__IDLE_TIMEOUT_S", "12", lambda config: config.http.idle_timeout_s == 12.0),
        ("GATEWAY_STORE__CACHE_BYTES", "0", lambda config: config.store.cache_bytes == 0),
        ("GATEWAY_STORE__DIRECTORY", "7", lambda config: config.store.directory == "7"),
    ],
)
def test_text_of_the_environment_becomes_the_type_of_its_setting(variable: str, text: str, read: Any) -> None:
    assert read(load(None, {variable: text}))


def test_a_whole_number_in_a_file_is_a_number(tmp_path: Path) -> None:
    assert load_text(tmp_path, "[http]\nidle_timeout_s = 12\n").http.idle_timeout_s == 12.0


@pytest.mark.parametrize("variable", ["GATEWAY_INTERFACE", "PATH", "gateway_store__directory"])
def test_variables_of_other_programs_are_left_alone(variable: str) -> None:
    assert load(None, {variable: "eth0"}) == Config()


CREDENTIALS = '[[jwt]]\nname = "login"\nissuer = "https://i/"\naudience = "a"\nkeys = "keys.pem"\n'


@pytest.mark.parametrize("text", ['[auth]\nkeys_file = "k"\n', CREDENTIALS])
def test_with_credentials_it_may_listen_anywhere(tmp_path: Path, text: str) -> None:
    config = load_text(tmp_path, f'[listen]\ndata = "0.0.0.0:0"\n{text}')
    assert config.has_credentials


WRONG_CREDENTIALS: list[tuple[str, str]] = [
    ('[auth]\npermissions_file = "p"\n', "there are no credentials: set auth.keys_file or add a [[jwt]]"),
    (CREDENTIALS + CREDENTIALS.replace("login", "other"), "two entries have the same issuer"),
    (CREDENTIALS + 'roles = ["r"]\n', "no auth.permissions_file that says what they may do"),
    (CREDENTIALS.replace("keys.pem", "http://i/jwks"), "jwt[0]: keys: http://i/jwks: who answers here decides"),
    (CREDENTIALS.replace('"login"', '"log:in"'), "jwt[0]: name: 'log:in': use 1 to 20 letters"),
    (CREDENTIALS.replace('"https://i/"', '""'), "jwt[0]: issuer: is empty"),
    (CREDENTIALS + "algorithms = []\n", "jwt[0]: algorithms: name at least one"),
    (CREDENTIALS + 'algorithms = ["none"]\n', "jwt[0].algorithms: 'none': use HS256, RS256, ES256 or EdDSA"),
    ("[auth]\nleeway_s = 61\n", "auth.leeway_s: 61 is too large; the most is 60"),
    ('[auth]\norigins = ["*"]\n', "auth: origins: '*': write scheme://host[:port]"),
    ('[trace]\notlp_endpoint = "collector:4317"\n', "trace: otlp_endpoint: 'collector:4317': write http://HOST:PORT"),
]


@pytest.mark.parametrize(("text", "why"), WRONG_CREDENTIALS)
def test_credentials_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert why in str(caught.value)


def test_keys_of_this_machine_need_no_tls(tmp_path: Path) -> None:
    assert load_text(tmp_path, CREDENTIALS.replace("keys.pem", "http://127.0.0.1:1/jwks")).jwt


def test_nothing_given_means_the_defaults() -> None:
    assert load() == Config()


@pytest.mark.parametrize("key", ["data", "control"])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.7:0", "127.example.org:0"])
def test_an_address_beyond_loopback_must_be_called_insecure(key: str, address: str) -> None:
    message = refusal(None, {}, {f"listen.{key}": address})
    assert message.startswith(f"listen.{key}: {parse_address(address)[0]} is not loopback")
    assert "--insecure (listen.insecure = true)" in message
    assert load(None, {}, {f"listen.{key}": address, "listen.insecure": True})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("gateway.example.org:65535", ("gateway.example.org", 65535)),
    ],
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:80a", "host:-1", "host:\u0661", "::1:80", "[]:80", "host:65536"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets|port must be"):
        parse_address(text)


def test_a_generated_file_loads_as_it_is_and_with_every_line_uncommented(tmp_path: Path) -> None:
    text = generate()
    assert load_text(tmp_path, text) == Config()
    blocks = text.split("\n\n")
    sections = "\n\n".join(block for block in blocks if "# [[" not in block)  # entries of lists have required keys
    uncommented, count = re.subn(r"^# (?=[a-z_]+ = )", "", sections, flags=re.MULTILINE)
    assert count == len([entry for entry in entries() if not entry.repeated])
    assert load_text(tmp_path, uncommented) == Config()
    assert len(re.findall(r"^# [a-z_]+ = ", text, re.MULTILINE)) == len(list(entries()))


def test_every_default_lies_within_its_own_bounds() -> None:
    for entry in entries():
        assert entry.low is None or entry.low <= entry.default <= (entry.high or 0), entry.name


def test_every_setting_is_explained_bounded_and_in_the_reference() -> None:
    table = reference()
    for entry in entries():
        assert entry.help.endswith("."), entry.name
        assert (entry.low is not None) == (entry.high is not None) == (entry.type in ("int", "float")), entry.name
        assert f"| `{entry.name}` |" in table


def test_units_stand_last_in_the_names_of_times() -> None:
    times = [entry.name for entry in entries() if re.search(r"timeout|heartbeat|wait_|drain|window", entry.key)]
    assert times
    assert all(re.search(r"_(ms|s)(_max|_min)?$", name) for name in times), times


def default(name: str) -> Any:
    return next(entry.default for entry in entries() if entry.name == name)


def unit_value(key: str) -> str:
    unit = (TOP / "deploy" / "push-gateway.service").read_text(encoding="utf-8")
    found = re.search(rf"^{key}=(.*)$", unit, re.MULTILINE)
    assert found, key
    return found[1]


def test_the_systemd_unit_leaves_room_for_the_default_drain_and_connections() -> None:
    patience_s = int(unit_value("TimeoutStopSec").removesuffix("s"))
    assert patience_s > default("shutdown.drain_s") + default("websocket.close_timeout_s")
    assert int(unit_value("LimitNOFILE")) > default("listen.connections_max")
    assert unit_value("WorkingDirectory").removeprefix("%S/") == unit_value("StateDirectory")


def test_the_image_sets_only_what_loads_once_insecure_is_said() -> None:
    dockerfile = (TOP / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    environment = dict(re.findall(r"^\s+(GATEWAY_\w+)=(\S+)", dockerfile, re.MULTILINE))
    assert "is not loopback" in refusal(None, environment)
    config = load(None, environment | {"GATEWAY_LISTEN__INSECURE": "true"})
    ports = [parse_address(address)[1] for address in (config.listen.data, config.listen.control)]
    assert f"EXPOSE {ports[0]} {ports[1]}\n" in dockerfile
    assert f"'127.0.0.1', {ports[1]}" in dockerfile
    assert f'VOLUME ["{config.store.directory}"]' in dockerfile
