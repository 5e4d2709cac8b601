from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest

from gateway import cli
from tests.cli.fake import FakeControl, FakeData


class Outcome:
    """What one command line did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


Gateway = Callable[..., Outcome]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Gateway:
    """Carry out a command line as the entry point would; `stdin` is what it may read, from a terminal or not."""
    for name in ("GATEWAY_URL", "GATEWAY_CONTROL_URL", "GATEWAY_TOKEN", "GATEWAY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)

    def gateway(*arguments: str, stdin: bytes = b"", terminal: bool = False) -> Outcome:
        file = io.BytesIO(stdin)
        monkeypatch.setattr("sys.stdin", _Terminal(file) if terminal else io.TextIOWrapper(file))
        code = cli.run(arguments)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return gateway


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> Iterator[FakeControl]:
    """A control plane, and a data plane for the HTTP calls, that the commands find by themselves."""
    with FakeControl() as control:
        monkeypatch.setenv("GATEWAY_CONTROL_URL", control.url)
        monkeypatch.setenv("GATEWAY_URL", control.url)
        yield control


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> Iterator[FakeData]:
    """A data plane that the commands find by themselves."""
    with FakeData() as data:
        monkeypatch.setenv("GATEWAY_URL", data.url)
        yield data
