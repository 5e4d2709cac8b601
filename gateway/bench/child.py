"""A load in a process of its own, seen from here: started, waited for, told to begin, and gone when we are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import cattrs
import orjson
import trio

from gateway.bench.clients.order import FAILED, GO, OVER, PROGRESS, READY, Order, Result
from gateway.bench.link import LinkLostError
from gateway.bench.plan import Address

_END_S: Final = 5.0


class LoadProcess:
    """One order under way."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._rest = b""
        self.done, self.total = 0, 1
        """How far it is."""

    async def wait_ready(self) -> None:
        """Until it is connected. Raises LinkLostError."""
        await self._hear(READY)

    async def carry_out(self) -> Result:
        """Let it begin; what came of it. Raises LinkLostError."""
        await self.begin()
        return await self.wait_over()

    async def begin(self) -> None:
        """Let it begin."""
        await self._go()

    async def end(self) -> Result:
        """Let one end that goes on until it is told; what came of it. Raises LinkLostError."""
        await self._go()
        return await self.wait_over()

    async def _go(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(GO)

    async def wait_over(self) -> Result:
        """What came of it. Raises LinkLostError."""
        return cattrs.structure((await self._hear(OVER))["result"], Result)

    async def _hear(self, awaited: str) -> dict[str, Any]:
        """Read on until it says that."""
        while True:
            said: dict[str, Any] = orjson.loads(await self._line())
            if said["said"] == awaited:
                return said
            if said["said"] == PROGRESS:
                self.done, self.total = said["done"], said["total"]
            elif said["said"] == FAILED:
                raise LinkLostError(said["why"])

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            data = await self._process.stdout.receive_some()
            if not data:
                raise LinkLostError(f"the process of the load ended with {await self._process.wait()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


@asynccontextmanager
async def load_process(load: str, address: Address, arguments: dict[str, Any]) -> AsyncIterator[LoadProcess]:
    """Start it; it is gone after the body."""
    command = [sys.executable, "-m", "gateway.bench.clients"]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    try:
        order = Order(load=load, address=address, arguments=arguments)
        await process.stdin.send_all(orjson.dumps(attrs.asdict(order)) + b"\n")
        yield LoadProcess(process)
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(_END_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()
