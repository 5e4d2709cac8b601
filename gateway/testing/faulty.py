"""A disk that is watched, fails on demand, and loses its power.

Give it to whatever takes `store.files.Files`: the engine, the log, a recovery. Every call is noted in `calls` and, but
for syncs, passed on to the real files of a temporary directory; beyond that it does what it was told:

    disk = FaultyFiles()
    disk.fail("sync", nth=2)                        # the second fdatasync fails with EIO
    disk.fail("write", error=ENOSPC, kept=100)      # the next write puts 100 bytes down, then finds the disk full
    disk.fail(ever=True)                            # every call from here on: the process is as good as dead
    held = disk.hold("sync"); ...; held.release()   # the next fdatasync takes until then

`cut_power` brings the directory to what a disk may hold after the power has gone: bytes that were never synced are
lost or torn, and so are new names whose directory was never synced. What an application may rely on is taken from
Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014): no more than that `sync` keeps the contents of one
file and `sync_directory` the names of one directory.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import attrs

from gateway.store.files import Files

_ALWAYS_WORK: Final = ("close",)
"""Calls that a fault of every kind spares: a test must be able to clean up."""


@attrs.frozen
class Call:
    """One call, before it was carried out."""

    verb: str
    """The method of `Files`."""
    name: str
    """The file's, without its directory."""
    size: int = 0
    """Bytes to be written, or to be read."""


@attrs.define(eq=False)
class Held:
    """A call that is being kept waiting; `release` lets it, and those behind it, go on."""

    verb: str
    name: str
    reached: threading.Event = attrs.field(factory=threading.Event)
    """Set once the call has come."""
    _released: threading.Event = attrs.field(factory=threading.Event)

    def release(self) -> None:
        self._released.set()

    def wait(self) -> None:
        self.reached.set()
        self._released.wait()


@attrs.define
class _Fault:
    verb: str
    name: str
    error: int
    kept: int
    ever: bool
    left: int  # matching calls up to and with the one that fails


class FaultyFiles(Files):
    """The operating system's files, watched. May be called from any thread."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._faults: list[_Fault] = []
        self._holds: list[Held] = []
        self._guard = threading.Lock()
        self._paths: dict[int, Path] = {}  # open file -> where it is
        self._synced: dict[Path, int] = {}  # bytes at the front of a file that are on the disk
        self._undo: list[Callable[[], None]] = []  # takes back names that are not on the disk, newest last

    # ---------------------------------------------------------------------------------------------- telling

    def fail(
        self,
        verb: str = "*",
        *,
        nth: int = 1,
        error: int = errno.EIO,
        name: str = "*",
        kept: int = 0,
        ever: bool = False,
    ) -> None:
        """Have the `nth` call of `verb`, from now on, on a file whose name matches `name`, fail with `error`.

        A write that fails puts down the first `kept` bytes of its data. `ever`: so do all matching calls behind it.
        """
        self._faults.append(_Fault(verb, name, error, kept, ever, nth))

    def hold(self, verb: str, name: str = "*") -> Held:
        """Keep the next call of `verb` waiting until it is released."""
        held = Held(verb, name)
        self._holds.append(held)
        return held

    def count(self, verb: str, name: str = "*") -> int:
        """How many calls of `verb` there were."""
        return sum(_matches(verb, name, call.verb, call.name) for call in self.calls)

    def verbs(self, name: str = "*") -> list[str]:
        """The verbs of the calls on files whose name matches, in their order."""
        return [call.verb for call in self.calls if fnmatchcase(call.name, name)]

    @property
    def open_files(self) -> list[str]:
        """The names of the files that are open now; a lock is not counted."""
        return sorted(path.name for path in self._paths.values())

    def cut_power(self, *, kept: float = 0.0, names: bool = False) -> None:
        """Leave the directory as a disk may be found: `kept` is the share of the unsynced bytes of each file that got
        there, `names` whether new names did. Whoever has the files open must be done with them.

        Everything (1.0, True) is what is found after kill -9.
        """
        for path, synced in self._synced.items():
            if path.exists() and path.stat().st_size > synced:
                os.truncate(path, synced + int((path.stat().st_size - synced) * kept))
        if not names:
            for undo in reversed(self._undo):
                undo()
        self._undo.clear()

    # ------------------------------------------------------------------------------------------------ calls

    def make_directory(self, path: Path) -> None:
        self._call("make_directory", path)
        super().make_directory(path)

    def names(self, directory: Path) -> list[str]:
        self._call("names", directory)
        return super().names(directory)

    def create(self, path: Path) -> int:
        self._call("create", path)
        file = super().create(path)
        self._paths[file] = path
        self._synced[path] = 0
        self._undo.append(lambda: path.unlink(missing_ok=True))
        return file

    def open(self, path: Path, *, append: bool = False) -> int:
        self._call("open", path)
        file = super().open(path, append=append)
        self._paths[file] = path
        self._synced.setdefault(path, super().size(file))
        return file

    def size(self, file: int) -> int:
        self._call("size", self._paths[file])
        return super().size(file)

    def write(self, file: int, data: bytes) -> None:
        try:
            self._call("write", self._paths[file], len(data))
        except _PartlyError as partly:
            super().write(file, data[: partly.kept])
            raise partly.error from None
        super().write(file, data)

    def read(self, file: int, offset: int, size: int) -> bytes:
        self._call("read", self._paths[file], size)
        return super().read(file, offset, size)

    def map(self, file: int) -> mmap.mmap:
        self._call("map", self._paths[file])
        return super().map(file)

    def sync(self, file: int) -> None:
        path = self._paths[file]
        self._call("sync", path)
        self._synced[path] = super().size(file)  # noted only: the real disk would prove nothing, and take its time

    def sync_directory(self, directory: Path) -> None:
        self._call("sync_directory", directory)
        self._undo.clear()

    def truncate(self, file: int, size: int) -> None:
        path = self._paths[file]
        self._call("truncate", path, size)
        super().truncate(file, size)
        self._synced[path] = min(self._synced[path], size)

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace", target)
        before = target.read_bytes() if target.exists() else None
        super().replace(source, target)
        self._synced[target] = self._synced.pop(source)

        def undo() -> None:
            os.replace(target, source)
            if before is not None:
                target.write_bytes(before)

        self._undo.append(undo)

    def unlink(self, path: Path) -> None:
        self._call("unlink", path)
        before = path.read_bytes()
        super().unlink(path)
        self._synced.pop(path, None)

        def undo() -> None:
            path.write_bytes(before)

        self._undo.append(undo)

    def close(self, file: int) -> None:
        self._paths.pop(file, None)
        super().close(file)

    def lock(self, path: Path) -> int | str:
        self._call("lock", path)
        return super().lock(path)

    def _call(self, verb: str, path: Path, size: int = 0) -> None:
        """Note a call and do to it what was asked for: nothing, a wait, or an error."""
        with self._guard:
            self.calls.append(Call(verb, path.name, size))
            held = next((h for h in self._holds if _matches(h.verb, h.name, verb, path.name)), None)
            fault = self._next_fault(verb, path.name)
        if held is not None:
            held.wait()
            if held in self._holds:
                self._holds.remove(held)
        if fault is not None:
            error = OSError(fault.error, os.strerror(fault.error), str(path))
            if verb == "write" and fault.kept:
                raise _PartlyError(error, fault.kept)
            raise error

    def _next_fault(self, verb: str, name: str) -> _Fault | None:
        found: _Fault | None = None
        for fault in list(self._faults):
            if verb in _ALWAYS_WORK or not _matches(fault.verb, fault.name, verb, name):
                continue
            fault.left -= 1
            if fault.left <= 0 and found is None:
                found = fault
                if not fault.ever:
                    self._faults.remove(fault)
        return found


class _PartlyError(Exception):
    """A write that fails half way."""

    def __init__(self, error: OSError, kept: int) -> None:
        super().__init__()
        self.error = error
        self.kept = kept


def _matches(verb_pattern: str, name_pattern: str, verb: str, name: str) -> bool:
    return verb_pattern in ("*", verb) and fnmatchcase(name, name_pattern)
