from __future__ import annotations

import orjson
import pytest
import trio.testing
from starlette.requests import Request

from gateway.control import call
from gateway.errors import GatewayError


def request(raw: bytes) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request({"type": "http", "headers": []}, receive)


async def test_a_body_is_plain_data() -> None:
    assert await call.body(request(b'{"a":[1,null]}')) == {"a": [1, None]}


@pytest.mark.parametrize("raw", [b"", b"{", b"topics=trade", b"\xff", b"NaN", b'{"a":1}}', b"[" * 5000])
async def test_a_body_that_is_not_json_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(GatewayError, match=r"the body is (empty|not JSON)") as caught:
        await call.body(request(raw))
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("number", [0, 1, 99, 100, 250])
async def test_an_array_of_any_length_is_whole(number: int) -> None:
    assert orjson.loads((await call.json_array(range(number))).body) == list(range(number))


async def test_a_long_array_lets_others_run() -> None:
    with trio.testing.assert_checkpoints():
        await call.json_array(range(100))
    with trio.testing.assert_no_checkpoints():
        await call.json_array(range(99))


def test_an_error_says_when_to_come_back_where_that_helps() -> None:
    answer = call.error(GatewayError("draining", "later", retry_after_s=7), {"x-more": "1"})
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["x-more"]) == (503, "7", "1")
    assert orjson.loads(answer.body) == {"code": "draining", "message": "later", "temporary": True}
    assert "retry-after" not in call.error(GatewayError("not_found", "never")).headers
