"""`--profile`: where the gateway's time goes while it is loaded, by py-spy from outside.

py-spy reads another process's stacks without stopping it, 200 times a second; it is in the `dev` extra. Where it is not
installed, a gateway of our own runs under cProfile, which makes it 3 times slower, counts calls and knows no stacks:
good for an order, not for a figure.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

_FORMATS: Final = {".svg": "flamegraph", ".txt": "raw", ".json": "speedscope"}
_RATE: Final = "200"
_ENDING_S: Final = 30.0
"""It draws when it is told to stop."""
_STARTING_S: Final = 0.5


@attrs.frozen
class Profile:
    """Where profiles go: one file a case. Raises ValueError with the mend."""

    out: Path

    def __attrs_post_init__(self) -> None:
        if self.out.suffix not in _FORMATS:
            raise ValueError(f"--profile {self.out}: end it in .svg (flame graph), .txt (stacks) or .json (speedscope)")

    @property
    def spy(self) -> str | None:
        """py-spy, beside this interpreter or on the path."""
        beside = Path(sys.executable).with_name("py-spy")
        return str(beside) if beside.exists() else shutil.which("py-spy")

    def file(self, case: str) -> Path:
        """`out` with the case in its name."""
        name = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in case).strip("-")
        return self.out.with_name(f"{self.out.stem}-{name}{self.out.suffix}")

    @property
    def command(self) -> list[str]:
        """What runs a gateway so that it can be profiled."""
        if self.spy is not None:
            return [sys.executable]
        return [sys.executable, "-m", "cProfile", "-o", str(self.out.with_suffix(".pstats").absolute())]

    @asynccontextmanager
    async def taken(self, pid: int | None, case: str) -> AsyncIterator[None]:
        """Watch a process over the body."""
        if self.spy is None or pid is None:
            yield
            return
        command = [self.spy, "record", "--pid", str(pid), "--output", str(self.file(case)), "--rate", _RATE]
        command += ["--format", _FORMATS[self.out.suffix], "--nonblocking", "--duration", "36000"]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await trio.sleep(_STARTING_S)
            yield
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(_ENDING_S, shield=True):
                if process.returncode is None:
                    process.send_signal(signal.SIGINT)
                await process.wait()
            if process.returncode is None:
                process.kill()
