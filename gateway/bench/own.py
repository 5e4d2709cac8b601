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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

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
_CONNECTIONS_SPARE: Final = 20_000


@asynccontextmanager
async def own_gateway(parent: str | None, connections: int) -> AsyncIterator[Target]:
    """Start a gateway with a store in a new directory in `parent`, ready for so many connections; drain and remove it.

    Settings of the environment (`GATEWAY_...`) hold for it too, but for its addresses and its store. Raises
    LinkLostError where it does not start.
    """
    raise_descriptor_limit()
    directory = tempfile.mkdtemp(prefix="gateway-bench-", dir=parent)
    try:
        with _open_log(directory) as log:
            process = await trio.lowlevel.open_process(
                _command(directory),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {"GATEWAY_LISTEN__CONNECTIONS_MAX": str(_CONNECTIONS_SPARE + connections)},
                start_new_session=True,  # a Ctrl-C is for us; we tell the child when we are done with it
            )
        try:
            data, control = await _wait_listening(process, directory)
            yield Target(data, control, process.pid, directory)
        except* LinkLostError:
            with trio.move_on_after(_DYING_S):
                await process.wait()
            if process.returncode is None:
                raise
            raise LinkLostError(f"the gateway ended with {process.returncode}: {_last_words(directory)}") from None
        finally:
            await _end(process)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(shutil.rmtree, directory)


def _command(directory: str) -> list[str]:
    store = str(Path(directory, "data"))
    return [sys.executable, "-m", "gateway", "serve", "--listen", ANY_PORT, "--control", ANY_PORT, "--data", store]


async def _wait_listening(process: trio.Process, directory: str) -> tuple[Address, Address]:
    """The addresses that the gateway prints once it listens."""
    assert process.stdout is not None
    said = ""
    with trio.move_on_after(START_S):
        async for data in process.stdout:
            said += data.decode(errors="replace")
            match = BANNER.search(said)
            if match:
                return Address(match[1], int(match[2])), Address(match[3], int(match[4]))
    raise LinkLostError(f"the gateway did not start: {_last_words(directory)}")


def _open_log(directory: str) -> IO[bytes]:
    return open(Path(directory, _LOG), "wb")


def _last_words(directory: str) -> str:
    lines = Path(directory, _LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-20:]) or "it said nothing"


async def _end(process: trio.Process) -> None:
    """TERM, and KILL where that does not do; waits until the process is gone."""
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


def raise_descriptor_limit() -> None:
    """As many descriptors as this user may have, here and in the child."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
