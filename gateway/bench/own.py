"""A gateway of our own: a child process on free ports with a store in a fresh directory, and nothing left of either."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

import attrs
import trio

from gateway.bench.link import LinkLostError
from gateway.bench.plan import Address, Target

ANY_PORT: Final = "127.0.0.1:0"
START_S: Final = 30.0
STOP_S: Final = 20.0
"""A drain without clients takes milliseconds; this is for one that hangs."""
_DYING_S: Final = 1.0
"""Its connections break a moment before it is gone."""
BANNER: Final = re.compile(r"data plane +http://(\S+):(\d+).*control plane +http://(\S+):(\d+)\n", re.DOTALL)
_LOG: Final = "bench-server.log"
_CONFIG: Final = "gateway.toml"
_CONNECTIONS_SPARE: Final = 20_000


@attrs.frozen
class Setup:
    """How a gateway of our own differs from one that is told nothing."""

    config: str = ""
    """A configuration file; {directory} in it is the gateway's own."""
    files: Mapping[str, str] = attrs.field(factory=dict)
    """Files in that directory, by name."""
    token: str | None = None
    """The credential that it will know us by."""
    command: Sequence[str] = (sys.executable,)
    """What runs it."""


class OwnGateway:
    """A gateway in a process of its own. May be killed, and started again on what it left."""

    def __init__(self, directory: str, connections: int, setup: Setup) -> None:
        self._directory = directory
        self._connections = connections
        self._setup = setup
        self._process: trio.Process | None = None
        for name, text in {**setup.files, _CONFIG: setup.config}.items():
            Path(directory, name).write_text(text.replace("{directory}", directory), encoding="utf-8")
            Path(directory, name).chmod(0o600)

    async def start(self) -> Target:
        """Until it says where it listens. Raises LinkLostError where it does not start."""
        with _open_log(self._directory) as log:
            self._process = await trio.lowlevel.open_process(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"GATEWAY_LISTEN__CONNECTIONS_MAX": str(_CONNECTIONS_SPARE + self._connections)},
                start_new_session=True,  # a Ctrl-C is for us; we tell the child when we are done with it
            )
        data, control = await self._wait_listening(self._process)
        return Target(data, control, self._process.pid, self._directory)

    def _command(self) -> list[str]:
        config, store = (str(Path(self._directory, name)) for name in (_CONFIG, "data"))
        command = [*self._setup.command, "-m", "gateway", "serve", "--config", config]
        return [*command, "--listen", ANY_PORT, "--control", ANY_PORT, "--data", store]

    async def _wait_listening(self, process: trio.Process) -> tuple[Address, Address]:
        """The addresses that the gateway prints once it listens."""
        assert process.stdout is not None
        said, token = "", self._setup.token
        with trio.move_on_after(START_S):
            async for data in process.stdout:
                said += data.decode(errors="replace")
                match = BANNER.search(said)
                if match:
                    return Address(match[1], int(match[2]), token), Address(match[3], int(match[4]), token)
        raise LinkLostError(f"the gateway did not start: {self._last_words()}")

    def _last_words(self) -> str:
        lines = Path(self._directory, _LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-20:]) or "it said nothing"

    async def why_it_ended(self) -> str | None:
        """None where it runs."""
        assert self._process is not None
        with trio.move_on_after(_DYING_S):
            await self._process.wait()
        code = self._process.returncode
        return None if code is None else f"the gateway ended with {code}: {self._last_words()}"

    async def kill(self) -> None:
        """SIGKILL: nothing is said, nothing is flushed."""
        assert self._process is not None
        self._process.kill()
        await self.end()

    async def end(self) -> None:
        """TERM, and KILL where that does not do; waits until the process is gone."""
        process = self._process
        if process is None:
            return
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            with trio.move_on_after(STOP_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


def _open_log(directory: str) -> IO[bytes]:
    return open(Path(directory, _LOG), "ab")


@asynccontextmanager
async def own_gateway(parent: str | None, connections: int, setup: Setup) -> AsyncIterator[tuple[OwnGateway, Target]]:
    """Start a gateway with a store in a new directory in `parent`, ready for so many connections; drain and remove it.

    Settings of the environment (`GATEWAY_...`) hold for it too, but for its addresses and its store. Raises
    LinkLostError where it does not start.
    """
    raise_descriptor_limit()
    directory = tempfile.mkdtemp(prefix="gateway-bench-", dir=parent)
    try:
        gateway = OwnGateway(directory, connections, setup)
        try:
            target = await gateway.start()
            yield gateway, target
        except* LinkLostError:
            why = await gateway.why_it_ended()
            if why is None:
                raise
            raise LinkLostError(why) from None
        finally:
            await gateway.end()
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(shutil.rmtree, directory)


def raise_descriptor_limit() -> None:
    """As many descriptors as this user may have, here and in the child."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
