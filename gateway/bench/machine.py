"""Where and with what a sitting was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.bench import vitals
from gateway.bench.record import Machine

_PACKAGES: Final = ("trio", "trio-websocket", "msgspec", "orjson", "httptools")
_GIT_S: Final = 5.0
_TURNS: Final = 1_000_000


def machine(directory: str | None, *, own: bool) -> Machine:
    """This one; `directory` is where the stores of gateways of our own are made."""
    return Machine(
        processor=_processor(),
        processors=os.cpu_count() or 0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        store_filesystem=vitals.filesystem(directory or tempfile.gettempdir()) if own else "",
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def loop_ns() -> float:
    """Processor time of one turn of an empty loop, over some ten milliseconds: the interpreter's own speed, here
    and now. What else a busy machine does, to caches and to the other half of a core, shows in it."""
    began = time.thread_time()
    for _ in range(_TURNS):
        pass
    return round((time.thread_time() - began) / _TURNS * 1e9, 1)


def versions() -> dict[str, str]:
    """Of the programs that take part, as far as they are installed."""
    found = {"gateway": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the tree that this file stands in."""
    tree = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tree), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_S, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        name = git("rev-parse", "--short=10", "HEAD")
        return name + ("+" if name and git("status", "--porcelain", "--", str(tree.parent)) else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
