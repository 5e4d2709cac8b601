from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import Gateway, Outcome
from tests.cli.fake import FakeData


def results(outcome: Outcome) -> list[Any]:
    return [orjson.loads(line) for line in outcome.lines]


def test_a_message_is_published_with_all_that_is_said_of_it(gateway: Gateway, data: FakeData) -> None:
    outcome = gateway(
        *("pub", "trade.paid", '{"amount": 12.0}', "--id", "a1", "--key", "k", "--attribute", "x=y=z"),
        *("--delay-ms", "5", "--ttl-ms", "7", "--durability", "written"),
    )
    assert outcome.code == 0
    assert results(outcome) == [{"id": "a1", "position": 1, "durability": "written"}]
    assert data.durabilities == ["written"]
    assert data.published == [
        {
            "topic": "trade.paid",
            "id": "a1",
            "key": "k",
            "attributes": {"x": "y=z"},
            "delay_ms": 5,
            "ttl_ms": 7,
            "data": {"amount": 12.0},
        }
    ]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_data_may_come_from_standard_input(gateway: Gateway, data: FakeData, arguments: list[str]) -> None:
    assert gateway("pub", "t", *arguments, stdin=b'{"a":1}').code == 0
    assert data.published == [{"topic": "t", "data": {"a": 1}}]


def test_text_that_is_not_json_asks_for_its_media_type(gateway: Gateway, data: FakeData) -> None:
    outcome = gateway("pub", "t", "hello")
    assert outcome.code == 1
    assert "--content-type text/plain" in outcome.err
    assert gateway("pub", "t", "hello", "--content-type", "text/plain").code == 0
    assert data.published == [{"topic": "t", "data_base64": "aGVsbG8=", "content_type": "text/plain"}]


def test_a_message_that_is_refused_is_one_line_and_exit_code_1(gateway: Gateway, data: FakeData) -> None:
    outcome = gateway("pub", "a..b", "1")
    assert (outcome.code, outcome.out, outcome.err) == (1, "", "error: it has an empty word\n")


def test_a_file_of_message_objects_has_a_result_for_each_line(gateway: Gateway, data: FakeData, tmp_path: Path) -> None:
    file = tmp_path / "messages.ndjson"
    lines = [
        b'{"topic":"a","data":{"n": 1.0},"id":"x","key":"k","attributes":{"c":"d"},"delay_ms":3,"ttl_ms":4}',
        b"",
        b'{"topic":"a..b","data":2}',
        b"not json",
        b'{"topic":"b","data_base64":"AP8=","content_type":"image/png"}',
        b'{"topic":"b"}',
        b'{"topic":"b","data":1,"colour":2}',
        b"\xff",
    ]
    file.write_bytes(b"\r\n".join(lines))
    outcome = gateway("pub", "--lines", str(file))
    assert outcome.code == 1
    assert outcome.err == "error: some messages were refused; their results say why\n"
    said = {result["line"]: result.get("position") or result["error"]["code"] for result in results(outcome)}
    assert said == {1: 1, 3: "bad_topic", 4: "bad_request", 5: 2, 6: "bad_request", 7: "bad_request", 8: "bad_request"}
    assert data.published == [
        {
            "topic": "a",
            "data": {"n": 1.0},
            "id": "x",
            "key": "k",
            "attributes": {"c": "d"},
            "delay_ms": 3,
            "ttl_ms": 4,
        },
        {"topic": "b", "data_base64": "AP8=", "content_type": "image/png"},
    ]


def test_each_line_may_be_a_payload(gateway: Gateway, data: FakeData, tmp_path: Path) -> None:
    file = tmp_path / "payloads.ndjson"
    file.write_bytes(b"".join(b"%d\n" % number for number in range(5000)))
    outcome = gateway("pub", "t", "--each-line", str(file), "--key", "k")
    assert outcome.code == 0
    assert len(outcome.lines) == 5000
    assert [message["data"] for message in data.published] == list(range(5000))
    assert {message["key"] for message in data.published} == {"k"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["t", "1", "--each-line", "{file}"],
        ["--each-line", "{file}"],
        ["t", "--lines", "{file}"],
        ["--lines", "{file}", "--id", "a"],
        ["t", "--lines", "{file}", "--each-line", "{file}"],
        ["t", "1", "--attribute", "novalue"],
        ["t", "1", "--durability", "hoped"],
    ],
)
def test_options_that_do_not_go_together_are_a_wrong_command_line(
    gateway: Gateway, data: FakeData, tmp_path: Path, arguments: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1\n")
    outcome = gateway("pub", *(argument.replace("{file}", str(file)) for argument in arguments))
    assert outcome.code == 2
    assert data.published == []


def test_the_credential_and_the_name_go_into_the_handshake(
    gateway: Gateway, data: FakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "secret")
    assert gateway("pub", "t", "1").code == 0
    assert data.headers[b"authorization"] == b"Bearer secret"
    assert data.headers[b"user-agent"].startswith(b"gateway-cli/")
