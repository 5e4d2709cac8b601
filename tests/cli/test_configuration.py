from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Gateway


def test_the_generated_file_passes_the_check(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(gateway("genconfig").out)
    outcome = gateway("checkconfig", str(file))
    assert (outcome.code, outcome.out) == (0, f"{file}: ok\n")


def test_a_file_that_is_wrong_fails_the_check(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[limits]\nbatch_messages_max = 0\n")
    outcome = gateway("checkconfig", str(file))
    assert outcome.code == 1
    assert "limits.batch_messages_max: 0 is too small" in outcome.err


def test_a_file_that_is_not_there_fails_the_check(gateway: Gateway) -> None:
    outcome = gateway("checkconfig", "/nowhere/gateway.toml")
    assert outcome.code == 1
    assert outcome.err.startswith("error: /nowhere/gateway.toml: cannot be read")
