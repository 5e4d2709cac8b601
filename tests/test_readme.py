"""The README, held to the program: generated parts, tests that it names, and snippets that are run.

`python -m tests.test_readme` writes the generated parts anew.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

import gateway
from gateway import cli, config
from gateway.auth import apikey, policy
from gateway.bench import record, table
from tests.e2e.process import GatewayProcess

TOP: Final = Path(__file__).parent.parent
README: Final = TOP / "README.md"
RECORDED: Final = TOP / "tests" / "bench" / "recorded.json"


# ------------------------------------------------------------------------------------------------ generated parts


def house_map() -> str:
    """The table of `gateway.__doc__`: its indented lines."""
    lines = [line for line in (gateway.__doc__ or "").splitlines() if line.startswith("    ")]
    return "```\n" + textwrap.dedent("\n".join(lines)) + "\n```\n"


def commands() -> str:
    rows = ["| command | what it does |", "|---|---|"]
    rows += [f"| `gateway {name}` | {help_} |" for name, (_, help_) in cli.COMMANDS.items()]
    rows += [f"| `gateway {name}` | {command.get_short_help_str()} |" for name, command in cli.cli.commands.items()]
    return "\n".join(rows) + "\n"


def figures() -> str:
    """The tables of the sitting that is kept in the tree."""
    return table.markdown(record.read(RECORDED))


GENERATED: Final = {
    "commands": commands,
    "configuration": config.reference,
    "figures": figures,
    "map": house_map,
}


def renew(text: str) -> str:
    """`text` with every generated part as it has to be."""
    for name, generate in GENERATED.items():
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        head, found, rest = text.partition(begin)
        _, found_end, tail = rest.partition(end)
        assert found, f"README.md: {begin!r} is missing"
        assert found_end, f"README.md: {end!r} is missing"
        text = f"{head}{begin}\n{generate()}\n{end}{tail}"
    return text


def test_the_generated_parts_are_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == renew(text), "run `python -m tests.test_readme` to write them anew"


def test_a_stale_part_is_found() -> None:
    text = README.read_text(encoding="utf-8")
    for words in ("| `gateway serve` |", "| `listen.data` |", "tick wheel", "| pipeline 1→1 |"):
        assert renew(text.replace(words, "something else")) == text != text.replace(words, "something else")


# ----------------------------------------------------------------------------------------------- what it refers to


def defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def named_in_faults() -> list[tuple[str, str]]:
    """Tests that the table of deploy/README.md names: the file below tests/, and the function where one is named."""
    text = (TOP / "deploy" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"`((?:\w+/)?test_\w+\.py)(?:::(\w+))?`", text)


def test_the_tests_of_the_table_of_faults_exist() -> None:
    named = named_in_faults()
    assert len(named) > 20
    for file, function in named:
        path = TOP / "tests" / file
        assert path.is_file(), file
        assert not function or function in defined_in(path), f"{file}::{function}"


def test_the_log_lines_of_the_table_of_faults_are_in_the_program() -> None:
    text = (TOP / "deploy" / "README.md").read_text(encoding="utf-8")
    program = "".join(path.read_text(encoding="utf-8") for path in (TOP / "gateway").rglob("*.py"))
    quoted = re.findall(r"(?:error|warning|info): `([^`]+)`", text)
    assert len(quoted) > 10
    for words in quoted:
        assert words.removesuffix("...").split(": ")[0] in program, words


def test_every_test_that_is_named_exists() -> None:
    named: list[tuple[str, str]] = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README.read_text(encoding="utf-8"))
    assert len(named) > 10
    missing = [f"{file}::{test}" for file, test in named if test not in defined_in(TOP / file)]
    assert missing == []


def test_every_file_that_is_linked_exists() -> None:
    links: list[str] = re.findall(r"\]\(([\w./-]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (TOP / link).exists()] == []


def test_every_heading_that_is_linked_exists() -> None:
    text = README.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in text.splitlines()}
    links: list[str] = re.findall(r"\]\(#([\w-]+)\)", text)
    assert links
    assert [link for link in links if link not in headings] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (TOP / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake (\w+)", "".join(re.findall(r"```sh\n.*?```|`make \w+`", README.read_text(), re.S))))
    assert {"run", "test"} <= named <= targets


def test_every_option_that_is_named_exists() -> None:
    lines: list[str] = re.findall(r"^gateway bench(.*?)(?:#.*)?$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) >= 4
    command = cli.cli.get_command(None, "bench")  # type: ignore[arg-type]  # the group does not look at it
    assert command is not None
    for line in lines:
        command.make_context("bench", line.split())


# -------------------------------------------------------------------------------------------------- run snippets


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway to run the snippets against, one after the other as a reader does."""
    with GatewayProcess(tmp_path_factory.mktemp("readme")) as gateway:
        yield gateway
        assert gateway.terminate() == 0


def addressed(snippet: str, gateway: GatewayProcess) -> str:
    """A snippet with the ports of this gateway."""
    return snippet.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.data_port}").replace(
        "127.0.0.1:8081", f"127.0.0.1:{gateway.control_port}"
    )


def curl(snippet: str, gateway: GatewayProcess) -> Any:
    """Run a snippet in a shell, as it stands; the answer."""
    command = addressed(snippet, gateway).replace("curl ", "curl --silent --show-error --fail-with-body --noproxy '*' ")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def shape(value: Any) -> Any:
    """The names in a value, and nothing of what they hold."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else type(value)


def test_the_first_message_is_published_pulled_and_settled_as_it_says(running: GatewayProcess) -> None:
    subscribe, publish, pull, settle = [snippet for snippet in snippets("sh") if snippet.startswith("curl")]
    shown = [json.loads(answer) for answer in snippets("json")]
    assert len(shown) == 3

    assert curl(subscribe, running)["topics"] == ["trade.order.>"]
    published = curl(publish, running)
    assert shape(published) == shape(shown[0])
    assert published["durability"] == "fsynced"

    pulled = curl(pull, running)
    assert shape(pulled) == shape(shown[1])
    assert pulled["messages"][0]["data"] == shown[1]["messages"][0]["data"]
    assert pulled["messages"][0]["id"] == published["id"]

    assert shown[1]["lease"] in settle
    settled = curl(settle.replace(shown[1]["lease"], pulled["lease"]), running)
    assert settled == shown[2]
    assert running.statistics("orders")["acked"] == 1


def test_the_keys_are_made_as_it_says_and_the_configuration_loads(tmp_path: Path) -> None:
    [commands_] = [snippet for snippet in snippets("sh") if snippet.startswith("gateway key create")]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", commands_], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    records = apikey.read(tmp_path / "keys.json")
    names = [apikey.recognise(records, (tmp_path / f"{n}.key").read_text().strip(), 0) for n in ("operator", "shop")]
    assert [record.principal for record in names] == ["operator", "shop"]

    [settings] = [snippet for snippet in snippets("toml") if "keys_file" in snippet]
    [permissions] = [snippet for snippet in snippets("toml") if "[roles." in snippet]
    (tmp_path / "permissions.toml").write_text(permissions, encoding="utf-8")
    roles = policy.read(tmp_path / "permissions.toml")
    (tmp_path / "gateway.toml").write_text(settings, encoding="utf-8")
    loaded = config.load(tmp_path / "gateway.toml")
    assert set(loaded.jwt[0].roles) <= roles.roles.keys()
    assert {"shop", f"{loaded.jwt[0].name}:alice"} == roles.principals.keys()


def read_a_line(process: subprocess.Popen[str], containing: str) -> str:
    """The first line that has the word; the process must not end before it."""
    assert process.stdout is not None
    for line in process.stdout:
        if containing in line:
            return line
    pytest.fail(f"no line with {containing!r}: {process.communicate()[1]}")


def wait_until_acked(gateway: GatewayProcess, count: int) -> None:
    deadline = time.monotonic() + 10
    while gateway.statistics("orders")["acked"] < count:
        assert time.monotonic() < deadline, gateway.statistics("orders")
        time.sleep(0.02)


def test_the_python_snippet_publishes_and_receives(running: GatewayProcess) -> None:
    running.put_subscription("orders", topics=["trade.order.>"])
    acked = running.statistics("orders")["acked"]
    [program] = snippets("python")
    command = [sys.executable, "-W", "error", "-c", addressed(program, running)]
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where these tests run in the background
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hears
    ) as process:
        try:
            assert "trade.order.paid {'order': 18, 'amount': 3}" in read_a_line(process, "trade")
            wait_until_acked(running, acked + 1)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10)
        finally:
            process.kill()


def node_with_websocket() -> list[str] | None:
    """Node.js as a stand-in for a browser's console; its WebSocket is the browser's."""
    for flags in ([], ["--experimental-websocket"]):
        command = [shutil.which("node") or "node", *flags, "--eval"]
        try:
            done = subprocess.run([*command, "WebSocket"], capture_output=True, timeout=30, check=False)
        except OSError:
            return None
        if done.returncode == 0:
            return command
    return None


def test_the_browser_snippet_subscribes_and_acks(running: GatewayProcess) -> None:
    command = node_with_websocket()
    if command is None:
        pytest.skip("needs Node.js with WebSocket (20.10 or later)")
    running.put_subscription("orders", topics=["trade.order.>"])
    acked = running.statistics("orders")["acked"]
    [program] = snippets("js")
    with subprocess.Popen(
        [*command, addressed(program, running)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert json.loads(read_a_line(process, "ok"))["id"] == 1
            curl(next(snippet for snippet in snippets("sh") if '"order"' in snippet), running)
            frame = json.loads(read_a_line(process, "messages"))
            assert frame["messages"][0]["data"] == {"order": 17, "amount": 12.5}
            wait_until_acked(running, acked + 1)
        finally:
            process.kill()


if __name__ == "__main__":
    README.write_text(renew(README.read_text(encoding="utf-8")), encoding="utf-8")
