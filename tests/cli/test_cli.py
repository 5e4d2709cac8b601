from __future__ import annotations

import subprocess
import sys

import pytest

from gateway import __version__
from gateway.cli import COMMANDS
from tests.cli.conftest import Gateway


def test_version_is_the_package_s(gateway: Gateway) -> None:
    outcome = gateway("version")
    assert (outcome.code, outcome.out) == (0, __version__ + "\n")


def test_help_lists_every_command(gateway: Gateway) -> None:
    outcome = gateway("--help")
    assert outcome.code == 0
    commands = outcome.out.partition("Commands:")[2]
    names = [line.split()[0] for line in commands.splitlines() if line]
    assert names == [
        *("serve", "pub", "sub", "pull", "subscription", "key", "token", "permission"),
        *("trace", "store", "bench", "genconfig", "checkconfig", "version"),
    ]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "bench"])
def test_every_command_explains_itself_as_the_list_does(gateway: Gateway, command: str) -> None:
    outcome = gateway(command, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: gateway {command} ")


@pytest.mark.parametrize("arguments", [["frob"], ["version", "--frob"], ["serve", "--listen"], ["pull"]])
def test_a_wrong_command_line_is_exit_code_2(gateway: Gateway, arguments: list[str]) -> None:
    outcome = gateway(*arguments)
    assert outcome.code == 2
    assert "Error: " in outcome.err


def test_light_commands_load_neither_the_run_loop_nor_the_server() -> None:
    program = (
        "import sys\n"
        "from gateway.cli import run\n"
        "run(['version']), run(['--help']), run(['checkconfig', '/nowhere'])\n"
        "heavy = {'trio', 'rich', 'starlette', 'gateway.node', 'gateway.bench'} & sys.modules.keys()\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, __version__ + "\n")


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m gateway genconfig | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
