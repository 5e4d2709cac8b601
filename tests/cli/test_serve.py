from __future__ import annotations

from pathlib import Path

import pytest

from gateway import node
from gateway.config import Config
from gateway.errors import StoreLockedError
from tests.cli.conftest import Gateway


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that a gateway was run with."""
    configs: list[Config] = []
    monkeypatch.setattr(node, "run", lambda config, reload: configs.append(config))
    monkeypatch.setattr("gateway.cli.logs.configure", lambda log: None)
    return configs


def test_flags_go_before_the_environment_and_that_before_the_file(
    gateway: Gateway, ran: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[listen]\ndata="127.0.0.1:1"\ncontrol="127.0.0.1:2"\n[log]\nlevel="error"\nformat="json"\n')
    monkeypatch.setenv("GATEWAY_LISTEN__CONTROL", "127.0.0.1:3")
    monkeypatch.setenv("GATEWAY_LOG__LEVEL", "warning")
    outcome = gateway("serve", "--config", str(file), "--log-level", "debug", "--data", "/tmp/store")
    assert outcome.code == 0
    [config] = ran
    assert (config.listen.data, config.listen.control) == ("127.0.0.1:1", "127.0.0.1:3")
    assert (config.log.level, config.log.format, config.store.directory) == ("debug", "json", "/tmp/store")


def test_listening_beyond_loopback_has_to_be_said(gateway: Gateway, ran: list[Config]) -> None:
    outcome = gateway("serve", "--listen", "0.0.0.0:8080")
    assert outcome.code == 1
    assert "--insecure" in outcome.err
    assert gateway("serve", "--listen", "0.0.0.0:8080", "--insecure").code == 0
    assert [config.listen.insecure for config in ran] == [True]


def test_addresses_of_the_other_commands_are_no_settings(
    gateway: Gateway, ran: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_URL", "http://elsewhere")
    monkeypatch.setenv("GATEWAY_CONTROL_URL", "http://elsewhere")
    assert gateway("serve").code == 0


def test_a_wrong_setting_is_one_line_and_exit_code_1(gateway: Gateway, ran: list[Config], tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[listen]\nbacklg = 5\n")
    outcome = gateway("serve", "--config", str(file))
    assert outcome.code == 1
    assert outcome.err == f"error: {file}: listen.backlg: unknown key; did you mean backlog?\n"
    assert ran == []


@pytest.mark.parametrize(("error", "code"), [(StoreLockedError("held by process 1"), 75)])
def test_a_store_that_another_process_holds_is_exit_code_75(
    gateway: Gateway, ran: list[Config], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def refuse(config: Config, reload: object) -> None:
        raise error

    monkeypatch.setattr(node, "run", refuse)
    outcome = gateway("serve")
    assert (outcome.code, outcome.err) == (code, f"error: {error}\n")


def test_a_second_signal_while_draining_is_an_interrupt(
    gateway: Gateway, ran: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def force(config: Config, reload: object) -> None:
        raise node.ForcedExitError("SIGINT")

    monkeypatch.setattr(node, "run", force)
    assert gateway("serve").code == 130
