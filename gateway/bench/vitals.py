"""The server from outside: CPU time and memory from /proc, everything else from its metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from gateway.bench.link import HttpLink, LinkLostError
from gateway.bench.plan import Target

_UTIME, _STIME = 11, 12
"""Fields of /proc/PID/stat behind the name of the program (proc(5)), which may hold anything."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

COMMITS: Final = "gateway_log_commit_seconds_count"
COMMIT_SECONDS: Final = "gateway_log_commit_seconds_sum"
ACKED: Final = 'gateway_settled_messages_total{verb="ack"}'
PAUSE_SECONDS: Final = "gateway_gc_pause_seconds_total"
PAUSE_MAX_SECONDS: Final = "gateway_gc_pause_max_seconds"
COLLECTIONS: Final = "gateway_gc_collections_total"
CPU_SECONDS: Final = "gateway_process_cpu_seconds_total"
RESIDENT_BYTES: Final = "gateway_process_resident_memory_bytes"


@attrs.frozen
class Vitals:
    """The server at one moment; None for what could not be seen."""

    cpu_s: float | None
    resident_bytes: float | None
    peak_bytes: float | None
    """The most that was ever resident."""
    anon_bytes: float | None
    """Of the resident bytes, those that are its own."""
    file_bytes: float | None
    """Those that are pages of mapped files, which the kernel takes back when it needs them."""
    metrics: dict[str, float]
    """Sample as the metrics name it, labels included -> value."""

    def total(self, name: str) -> float | None:
        """The value of one sample, or the sum of a metric over its labels; None where it is not shown."""
        values = [value for sample, value in self.metrics.items() if name in (sample, sample.partition("{")[0])]
        return sum(values) if values else None


def growth(before: Vitals, after: Vitals, name: str) -> float | None:
    """By how much a counter has grown."""
    old, new = before.total(name), after.total(name)
    return None if old is None or new is None else new - old


def memory_growth(before: Vitals, after: Vitals, count: int = 1) -> float | None:
    """Bytes that came for each of `count`: its own where they are known apart, else the resident ones."""
    for old, new in ((before.anon_bytes, after.anon_bytes), (before.resident_bytes, after.resident_bytes)):
        if old is not None and new is not None:
            return (new - old) / count
    return None


async def look(target: Target, control: HttpLink) -> Vitals:
    """The server now. CPU time is read last, so that the look itself falls before what is measured."""
    metrics = await _metrics(control)
    if target.pid is not None:
        memory = status_bytes(target.pid)
        resident, peak, anon, file = (memory.get(name) for name in ("VmRSS", "VmHWM", "RssAnon", "RssFile"))
        return Vitals(cpu_s(target.pid), resident, peak, anon, file, metrics)
    return Vitals(metrics.get(CPU_SECONDS), metrics.get(RESIDENT_BYTES), None, None, None, metrics)


async def _metrics(control: HttpLink) -> dict[str, float]:
    """The samples of /metrics; none where the gateway shows none."""
    status, text = await control.call("GET", "/metrics")
    if status != 200:
        return {}
    lines = (line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, in ticks of 10 ms. Raises LinkLostError where it is not there."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S


def status_bytes(pid: int) -> dict[str, int]:
    """The sizes that proc(5) shows of a process, such as `VmRSS`. Raises LinkLostError where it is not there."""
    lines = (line.split() for line in _read(pid, "status").splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): int(kibibytes) * 1024 for name, kibibytes, _ in lines}


def _read(pid: int, name: str) -> str:
    try:
        return Path("/proc", str(pid), name).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise LinkLostError(f"process {pid}: {error.strerror}; is --pid the gateway, on this machine?") from None


def filesystem(directory: str) -> str:
    """The type of the file system that holds `directory`: on tmpfs an fdatasync costs nothing. "" where unknown."""
    path = os.path.realpath(directory)
    best, kind = "", ""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for _, point, type_, *_ in map(str.split, mounts):
        if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, kind = point, type_
    return kind
