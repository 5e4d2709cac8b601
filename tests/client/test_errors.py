from __future__ import annotations

import pytest

from gateway.client.errors import ConnectionEndedError, answered, answered_object, may_reconnect
from gateway.errors import TABLE


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 3000, 3008, 3499])
def test_an_end_that_passes_by_itself_is_worth_another_try(code: int) -> None:
    assert may_reconnect(code)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 1015, 2999, 3500, 3999, 4000])
def test_an_end_that_would_come_again_is_not(code: int) -> None:
    assert not may_reconnect(code)


@pytest.mark.parametrize("code", TABLE)
def test_an_error_that_is_known_is_what_it_is_at_the_gateway(code: str) -> None:
    error = answered(code, "why", temporary=not TABLE[code].temporary)
    assert (error.code, error.message, error.kind) == (code, "why", TABLE[code])


@pytest.mark.parametrize("temporary", [True, False])
def test_an_error_of_a_later_gateway_says_itself_whether_to_try_again(temporary: bool) -> None:
    error = answered("of_tomorrow", "why", temporary)
    assert (error.code, error.kind.temporary) == ("of_tomorrow", temporary)


def test_an_error_object_is_taken_as_it_comes() -> None:
    error = answered_object({"code": "not_found", "message": "no such thing", "temporary": False})
    assert (error.code, error.message) == ("not_found", "no such thing")
    assert answered_object({}).code == "None"
    assert answered_object("oops").message == "the gateway answered with an error that is no object: 'oops'"


def test_an_end_without_a_reason_is_said_all_the_same() -> None:
    assert str(ConnectionEndedError(3503, "")) == "the connection has ended (3503)"
    assert str(ConnectionEndedError(401, "no such key")) == "no such key (401)"
