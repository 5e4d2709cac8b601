"""Where the bytes of a delivery come from: counted in the engine, and in the system calls of a gateway that runs.

In the engine: how many bytes of the bodies that it hands to the edge are slices of a mapped file, and how many are
objects of Python's. In the gateway, by strace: what goes out by sendmsg, out of several places, what goes out joined,
and what is read: a record is read once, for its CRC, before it is served from the map.
"""

from __future__ import annotations

import mmap
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from gateway.bench.storing.fill import NAME, now_ms
from gateway.config import Config, Store
from gateway.engine.embedded import EmbeddedEngine
from gateway.model import Delivery

_CALLS: Final = "sendmsg,sendto,write,pread64,read"
_LINE: Final = re.compile(r"(sendmsg|sendto|write|pread64|read)\((\d+)(?:<([^>]*)>)?.* = (\d+)$")
_RESUMED: Final = re.compile(r"<\.\.\. (sendmsg|sendto|write|pread64|read) resumed>.* = (\d+)$")


@attrs.frozen(kw_only=True)
class Sources:
    """Bytes of bodies, as the engine hands them over."""

    messages: int
    mapped_bytes: int
    object_bytes: int
    parts: int


@attrs.frozen(kw_only=True)
class Calls:
    """Bytes of system calls while so many bytes of delivery frames came."""

    frame_bytes: int
    sendmsg_calls: int
    sendmsg_bytes: int
    joined_bytes: int
    """By send and write, sockets and the log alike."""
    read_bytes: int
    """From files and sockets."""


async def sources(store: Path, count: int) -> Sources:
    """Take so many messages of the first subscription from an engine in this process, which nobody else may use."""
    engine = EmbeddedEngine(Config(store=Store(directory=str(store), cache_bytes=0)), now_ms)
    await engine.open()
    counted, messages, parts = Counter[str](), 0, 0
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            sent: list[Delivery] = []
            consumer = engine.attach(
                NAME.format(number=0), window=10_000, send=sent.append, label="storing", on_deleted=_nothing
            )
            while messages < count:
                taken = engine.take(now_ms())
                if taken is None:
                    break
                delivery = taken[1]
                if not engine.is_loaded(delivery):
                    await engine.load(delivery)
                parts += len(delivery.bodies)
                counted.update(_sizes(delivery.bodies))
                messages += delivery.count
            engine.detach(consumer, now_ms())
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await engine.aclose()
    return Sources(messages=messages, mapped_bytes=counted["mapped"], object_bytes=counted["object"], parts=parts)


def _nothing() -> None:
    """The subscription is not going to be deleted."""


def _sizes(bodies: Iterable[bytes | memoryview]) -> Counter[str]:
    counted = Counter[str]()
    for body in bodies:
        is_mapped = isinstance(body, memoryview) and isinstance(body.obj, mmap.mmap)
        counted["mapped" if is_mapped else "object"] += len(body)
    return counted


@contextmanager
def traced(pid: int, file: Path) -> Iterator[bool]:
    """strace on a process; False where there is none, or it may not."""
    program = shutil.which("strace")
    if program is None:
        yield False
        return
    with subprocess.Popen(
        [program, "-f", "-y", "-e", f"trace={_CALLS}", "-s", "0", "-o", str(file), "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        is_attached = "attached" in process.stderr.readline()
        try:
            yield is_attached
        finally:
            process.terminate()


def calls_of(file: Path, frame_bytes: int) -> Calls:
    """What strace wrote."""
    calls, sizes = Counter[str](), Counter[str]()
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.search(line) or _RESUMED.search(line)
        if match and "eventfd" not in line:
            calls[match[1]] += 1
            sizes[match[1]] += int(match[match.lastindex or 0])
    return Calls(
        frame_bytes=frame_bytes,
        sendmsg_calls=calls["sendmsg"],
        sendmsg_bytes=sizes["sendmsg"],
        joined_bytes=sizes["sendto"] + sizes["write"],
        read_bytes=sizes["pread64"] + sizes["read"],
    )
