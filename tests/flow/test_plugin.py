from __future__ import annotations

import pytest

from gateway.errors import ConfigError
from gateway.flow.plugin import find
from tests.flow import stages


def test_a_callable_is_found_by_its_name() -> None:
    assert find("tests.flow.stages:mask_cards") is stages.mask_cards
    assert find("tests.flow.stages:stages.tag_eu.__call__".replace("stages.tag", "tag")) == stages.tag_eu.__call__


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shema", "use schema, projection, or module:callable"),
        ("tests.flow.stages:", "use schema, projection, or module:callable"),
        (":x", "use schema, projection, or module:callable"),
        ("tests.flow.stages:absent", "has no callable absent"),
        ("tests.flow.stages:NOT_CALLABLE", "has no callable NOT_CALLABLE"),
        ("tests.no.such:x", "cannot be imported: ModuleNotFoundError"),
        ("..x:y", "cannot be imported"),
    ],
)
def test_what_is_no_callable_is_told_at_the_start(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find(name)
