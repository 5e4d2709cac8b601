"""A gateway as a process of its own over a store that is there, looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

import attrs

from gateway.bench import vitals
from gateway.bench.link import LinkLostError
from gateway.bench.own import ANY_PORT, BANNER
from gateway.bench.plan import Address, Target

READY_S: Final = 120.0
STOP_S: Final = 60.0


@attrs.frozen(kw_only=True)
class Memory:
    """Resident bytes by proc(5): `anonymous` are the process's own, `file` those of mapped files, libraries too."""

    resident_bytes: int
    anonymous_bytes: int
    file_bytes: int
    peak_bytes: int


@attrs.frozen(kw_only=True)
class Running:
    """A gateway that is ready."""

    process: subprocess.Popen[str]
    data: Address
    control: Address
    ready_s: float
    """From the start of the process to the first 200 of /readyz."""
    cpu_s: float
    """Processor time until then."""

    @property
    def target(self) -> Target:
        return Target(self.data, self.control, self.process.pid)

    def memory(self) -> Memory:
        sizes = vitals.status_bytes(self.process.pid)
        resident, anonymous, file, peak = (sizes[name] for name in ("VmRSS", "RssAnon", "RssFile", "VmHWM"))
        return Memory(resident_bytes=resident, anonymous_bytes=anonymous, file_bytes=file, peak_bytes=peak)


@contextmanager
def gateway_over(store: Path, settings: Mapping[str, str] = {}) -> Iterator[Running]:
    """Start it, with settings as variables; TERM at the end. Raises LinkLostError where it does not get ready."""
    began = time.monotonic()
    command = [sys.executable, "-m", "gateway", "serve", "--data", str(store)]
    with open(store.with_name(store.name + ".err"), "ab") as errors:
        process = subprocess.Popen(
            [*command, "--listen", ANY_PORT, "--control", ANY_PORT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | settings,
            start_new_session=True,
            text=True,
        )
    try:
        data, control = _addresses(process, errors.name)
        _wait_ready(process, control, began)
        ready_s = time.monotonic() - began
        yield Running(process=process, data=data, control=control, ready_s=ready_s, cpu_s=vitals.cpu_s(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _addresses(process: subprocess.Popen[str], errors: str) -> tuple[Address, Address]:
    """What it prints once it listens."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        match = BANNER.search(said)
        if match:
            return Address(match[1], int(match[2])), Address(match[3], int(match[4]))
    raise LinkLostError(f"the gateway did not start; see {errors}")


def _wait_ready(process: subprocess.Popen[str], control: Address, began: float) -> None:
    while time.monotonic() - began < READY_S and process.poll() is None:
        connection = HTTPConnection(control.host, control.port, timeout=READY_S)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.005)
    raise LinkLostError(f"the gateway was not ready within {READY_S:g} s")


def forget_pages(store: Path) -> None:
    """Have the kernel drop the files of a store from its page cache, as after a restart of the machine."""
    for path in store.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fdatasync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)
