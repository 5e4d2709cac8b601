import ast
from pathlib import Path

import orjson
import pytest

import gateway
from gateway.errors import TABLE, ConfigError, GatewayError, Kind, StoreError, StoreLockedError

RFC_6455 = range(1000, 1012)
RECONNECT = range(3000, 3500)
DO_NOT_RECONNECT = range(3500, 4000)

NAMED_BY_THE_PROTOCOL = {1001, 3001, 3005, 3008, 3012, 3013, 3500, 3501, 3502, 3503, 3504, 3507}

rows = pytest.mark.parametrize(("code", "kind"), TABLE.items(), ids=TABLE)


@rows
def test_a_close_code_lies_in_a_range_that_tells_the_client_what_to_do(code: str, kind: Kind) -> None:
    assert kind.close in RFC_6455 or kind.close in RECONNECT or kind.close in DO_NOT_RECONNECT
    assert kind.close in RFC_6455 or kind.close in NAMED_BY_THE_PROTOCOL


@rows
def test_only_a_temporary_error_tells_the_client_to_reconnect(code: str, kind: Kind) -> None:
    if kind.close in RECONNECT:
        assert kind.temporary


@rows
def test_a_status_says_whose_fault_it_is(code: str, kind: Kind) -> None:
    assert 400 <= kind.status <= 599
    if kind.status in (408, 500, 503):
        assert kind.temporary
    elif kind.status not in (
        401,
        429,
    ):  # expired credentials are renewed; a quota is full for a while, a limit for good
        assert not kind.temporary


@rows
def test_a_code_is_lower_case_words(code: str, kind: Kind) -> None:
    assert code.replace("_", "").isalpha()
    assert code.islower()


def test_close_codes_that_a_browser_may_not_see_are_not_sent() -> None:
    assert {1004, 1005, 1006}.isdisjoint(kind.close for kind in TABLE.values())


def test_an_error_is_the_object_of_the_protocol() -> None:
    error = GatewayError("subscription_not_found", 'subscription "orders" does not exist; create it')
    assert orjson.loads(error.as_json()) == {
        "code": "subscription_not_found",
        "message": 'subscription "orders" does not exist; create it',
        "temporary": False,
    }
    assert str(error) == error.message
    assert error.kind is TABLE["subscription_not_found"]


def test_a_locked_store_is_a_store_error_and_a_wrong_configuration_is_neither() -> None:
    assert issubclass(StoreLockedError, StoreError)
    assert not issubclass(ConfigError, StoreError | GatewayError)


def test_every_code_that_the_program_raises_stands_in_the_table() -> None:
    raised = {
        (file.name, node.lineno, node.args[0].value)
        for file in Path(gateway.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "GatewayError"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert raised
    assert [place for place in raised if place[2] not in TABLE] == []
