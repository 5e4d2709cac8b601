"""A real gateway in a process of its own, that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests import conservation

START_S = 60
"""Much more than it takes: other tests, and other programs, run on the same two cores."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class GatewayProcess:
    """`start` and `kill` as often as you like; the ports and the store stay the same."""

    def __init__(self, directory: Path, *arguments: str, store: Path | None = None) -> None:
        """`store`: where it is, if not in `directory`."""
        self.directory = directory
        self.store = store or directory / "store"
        self.data_port = free_port()
        self.control_port = free_port()
        self.http = f"http://127.0.0.1:{self.data_port}"
        self.websocket = f"ws://127.0.0.1:{self.data_port}/v1/connect"
        self.control = f"http://127.0.0.1:{self.control_port}"
        self.log = directory / "gateway.log"
        self.conserved = True
        """Whether its store is recounted at the end: not where the test has damaged it."""
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> GatewayProcess:
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check_conservation()
        self._end()
        if error is None and self.conserved:
            conservation.check_store(self.store)

    def check_conservation(self) -> None:
        """Promise 6, as it is shown; where the process runs, and asks nobody who he is."""
        if self._process is None or self._process.poll() is not None:
            return
        answer = httpx.get(f"{self.control}/v1/subscriptions")
        for item in answer.json() if answer.status_code == 200 else ():
            conservation.check_shown(item["statistics"])

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until /readyz says yes."""
        command = [sys.executable, "-m", "gateway", "serve", "--data", str(self.store)]
        command += ["--listen", f"127.0.0.1:{self.data_port}", "--control", f"127.0.0.1:{self.control_port}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, *self._arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while True:
            assert self._process.poll() is None, f"the gateway ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"the gateway is not ready: {self.log.read_text()}"
            if self._is_ready():
                return
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        asked = HTTPConnection("127.0.0.1", self.control_port, timeout=1)  # httpx.get reads certificates each time
        try:
            asked.request("GET", "/readyz")
            return asked.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            asked.close()

    def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is flushed."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self, number: int = signal.SIGTERM) -> int:
        """A polite end; the exit status."""
        self.check_conservation()
        self.signal(number)
        assert self._process is not None
        return self._process.wait(timeout=30)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def put_subscription(self, name: str, **settings: Any) -> None:
        httpx.put(f"{self.control}/v1/subscriptions/{name}", json=settings).raise_for_status()

    def statistics(self, name: str) -> dict[str, int]:
        answer = httpx.get(f"{self.control}/v1/subscriptions/{name}")
        answer.raise_for_status()
        statistics: dict[str, int] = answer.json()["statistics"]
        return statistics
