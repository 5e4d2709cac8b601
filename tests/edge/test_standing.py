from __future__ import annotations

from pathlib import Path

import pytest

from gateway.edge.standing import Standing
from gateway.errors import GatewayError
from gateway.principal import ANONYMOUS, NOBODY
from tests.auth.making import NOW_MS, NOW_S, token
from tests.auth.test_access import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.access.load()
    return house


async def refused(standing: Standing, text: str | None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await standing.hello(text)
    return caught.value


async def test_nobody_may_do_nothing_before_a_good_hello(house: House) -> None:
    standing = Standing(house.access, NOBODY, 10.0)
    with pytest.raises(GatewayError, match="say hello with a token first"):
        standing.check_known()
    assert (await refused(standing, None)).code == "no_credentials"
    assert (await refused(standing, "x")).code == "invalid_token"
    await standing.hello(token())
    standing.check_known()
    assert standing.principal.name == "login:alice"


def test_who_says_no_hello_in_time_is_overdue(house: House) -> None:
    standing = Standing(house.access, NOBODY, 10.0)
    assert standing.overdue(9.9, NOW_MS) is None
    error = standing.overdue(10.0, NOW_MS)
    assert error is not None
    assert (error.code, error.kind.close) == ("no_credentials", 3502)


async def test_at_exp_it_is_over_unless_a_fresh_token_came(house: House) -> None:
    standing = Standing(house.access, NOBODY, 10.0)
    await standing.hello(token(exp=NOW_S + 60))
    assert standing.overdue(99.0, (NOW_S + 60) * 1000 - 1) is None
    error = standing.overdue(99.0, (NOW_S + 60) * 1000)
    assert error is not None
    assert (error.code, error.kind.close) == ("credentials_expired", 3005)
    await standing.hello(token(exp=NOW_S + 120))
    assert standing.overdue(99.0, (NOW_S + 60) * 1000) is None


async def test_a_fresh_token_is_of_the_same_principal(house: House) -> None:
    standing = Standing(house.access, NOBODY, 10.0)
    await standing.hello(token())
    assert (await refused(standing, token(sub="bob"))).code == "permission_denied"
    assert standing.principal.name == "login:alice"


async def test_where_nobody_is_asked_a_token_is_not_looked_at(house: House) -> None:
    standing = Standing(house.access, ANONYMOUS, 0.0)
    await standing.hello("whatever")
    standing.check_known()
    assert standing.overdue(99.0, NOW_MS) is None
    standing.renew()
    assert standing.principal is ANONYMOUS
