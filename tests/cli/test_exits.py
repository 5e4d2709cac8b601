from __future__ import annotations

import click
import pytest

from gateway import client
from gateway.cli import exits
from gateway.errors import ConfigError, GatewayError, StoreError, StoreLockedError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("gateway.toml: wrong"), 1),
        (StoreError("broken"), 1),
        (StoreLockedError("process 12 holds it"), 75),
        (GatewayError("overloaded", "too much"), 1),
        (client.NotConnectedError("nobody there"), 1),
        (exits.CommandError("no"), 1),
        (OSError("no space left"), 1),
        (click.ClickException("no"), 1),
    ],
)
def test_what_is_meant_for_people_is_one_line_and_a_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exits.explain(error) == code
    text = error.message if isinstance(error, click.ClickException) else str(error)
    assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (click.Abort(), 130), (click.exceptions.Exit(3), 3)]
)
def test_some_ends_need_no_words(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.explain(error) == code
    assert capsys.readouterr() == ("", "")


def test_groups_of_one_are_opened(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [StoreLockedError("held")])])
    assert exits.explain(group) == 75
    assert exits.explain(BaseExceptionGroup("g", [KeyboardInterrupt()])) == 130


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        exits.explain(ZeroDivisionError())
