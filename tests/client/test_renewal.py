from __future__ import annotations

import pytest

from gateway.client.renewal import AGAIN_S, delay_s, expires_s
from tests.auth.making import NOW_S, b64, token

ENDLESS = ["", "pgk_x", "a.b", "a.b.c", f"a.{b64({})}.c", f"a.{b64([])}.c", f"a.{b64({'exp': 'x'})}.c"]


@pytest.mark.parametrize("text", ENDLESS)
def test_what_says_no_end_has_none(text: str) -> None:
    assert expires_s(text) is None
    assert delay_s(text, NOW_S) is None


def test_a_token_says_when_it_ends() -> None:
    assert expires_s(token(exp=NOW_S + 600)) == NOW_S + 600


@pytest.mark.parametrize(
    ("life_s", "wait_s"), [(3600, 3240), (600, 540), (300, 270), (60, 30), (10, 5), (1, AGAIN_S), (-5, AGAIN_S)]
)
def test_a_token_is_replaced_well_before_its_end(life_s: int, wait_s: float) -> None:
    assert delay_s(token(exp=NOW_S + life_s), NOW_S) == wait_s
