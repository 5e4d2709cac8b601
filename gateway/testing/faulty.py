"""A disk that is watched, fails on demand, and loses its power.

Give it to whatever takes `store.files.Files`: the engine, the log, a recovery. Every call is noted in `calls` and, but
for syncs, passed on to the real files of a temporary directory; beyond that it does what it was told:

    disk = FaultyFiles()
    disk.fail("sync", nth=2)                        # the second fdatasync fails with EIO
    disk.fail("write", error=ENOSPC, kept=100)      # the next write puts 100 bytes down, then finds the disk full
    disk.fail(ever=True)                            # every call from here on: the process is as good as dead
    held = disk.hold("sync"); ...; held.release()   # the next fdatasync takes until then
    disk.reserves = False; disk.room = 10_000       # no fallocate, and a disk that takes so many bytes more

What was done to the files is kept in `changes`, from which power.py makes whatever a disk may hold after the power has
gone; `cut_power` brings the directory itself to one such state.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import threading
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import attrs

from gateway.store.files import Files
from gateway.testing.power import Change, Cut, Named, NamesSynced, Pending, Surface, Synced, Wrote, lay_out

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

    def __init__(self, found: Path | None = None) -> None:
        """`found`: a directory whose files are on the disk as they are now. Without it, files that were there before
        are no part of `changes`."""
        self.calls: list[Call] = []
        self.changes: list[Change] = []
        self._faults: list[_Fault] = []
        self._holds: list[Held] = []
        self._guard = threading.Lock()
        self._paths: dict[int, Path] = {}  # open file -> where it is
        self._files: dict[Path, int] = {}  # where it is -> its number, which it keeps when it is renamed
        self._numbers = itertools.count(1)
        self._known: set[Path] = set()  # every place a file of ours was ever at
        self._open: dict[int, int] = {}  # open file -> its number
        self.reserves = True
        """Whether the file system has fallocate(2)."""
        self.room: int | None = None
        """Bytes that the disk still takes; None is no bound. What is unlinked or cut off comes back to it."""
        for path in sorted(found.iterdir()) if found else ():
            self._find(path)

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

    def mend(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

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
        surface = Surface()
        for change in self.changes:
            surface.tell(change)
        room: dict[int, int] = {}
        for change in surface.pending:
            if isinstance(change, Wrote):
                room[change.file] = room.get(change.file, 0) + len(change.data)
        room = {file: int(size * kept) for file, size in room.items()}
        there: list[Pending] = []
        for change in surface.pending:
            if isinstance(change, Wrote):
                data = change.data[: room[change.file]]
                room[change.file] -= len(data)
                there.append(attrs.evolve(change, data=data))
            elif names or isinstance(change, Cut):
                there.append(change)
        for directory in {path.parent for path in self._known}:
            others = {path.name: path.read_bytes() for path in directory.iterdir() if path not in self._known}
            lay_out({**others, **surface.found(there)}, directory)

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
        self._files[path] = self._open[file] = next(self._numbers)
        self._paths[file] = path
        self._known.add(path)
        self.changes.append(Named({path.name: self._files[path]}))
        return file

    def open(self, path: Path, *, append: bool = False) -> int:
        self._call("open", path)
        file = super().open(path, append=append)
        self._paths[file] = path
        if path not in self._files:
            self._find(path)
        self._open[file] = self._files[path]
        return file

    def _find(self, path: Path) -> None:
        """A file that was there before: all of it is on the disk."""
        self._files[path] = number = next(self._numbers)
        self._known.add(path)
        self.changes += [Wrote(number, 0, path.read_bytes()), Synced(number), Named({path.name: number}), NamesSynced()]

    def size(self, file: int) -> int:
        self._call("size", self._paths[file])
        return super().size(file)

    def reserve(self, file: int, size: int) -> bool:
        self._call("reserve", self._paths[file], size)
        return self.reserves and super().reserve(file, size)

    def free(self, directory: Path) -> int:
        self._call("free", directory)
        return super().free(directory) if self.room is None else self.room

    def _take_room(self, path: Path, size: int) -> None:
        """`size` more bytes of a file; less than none where it gets shorter."""
        if self.room is None:
            return
        taken = min(size, self.room)
        self.room -= taken
        if taken < size:
            raise _PartlyError(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)), taken)

    def write(self, file: int, data: bytes) -> None:
        offset = super().size(file)
        try:
            self._call("write", self._paths[file], len(data))
            self._take_room(self._paths[file], len(data))
        except _PartlyError as partly:
            data = data[: partly.kept]
            super().write(file, data)
            self.changes.append(Wrote(self._open[file], offset, data))
            raise partly.error from None
        super().write(file, data)
        self.changes.append(Wrote(self._open[file], offset, data))

    def read(self, file: int, offset: int, size: int) -> bytes:
        self._call("read", self._paths[file], size)
        return super().read(file, offset, size)

    def map(self, file: int) -> mmap.mmap:
        self._call("map", self._paths[file])
        return super().map(file)

    def sync(self, file: int) -> None:
        self._call("sync", self._paths[file])
        self.changes.append(
            Synced(self._open[file])
        )  # noted only: the real disk would prove nothing, and take its time

    def sync_directory(self, directory: Path) -> None:
        self._call("sync_directory", directory)
        self.changes.append(NamesSynced())

    def truncate(self, file: int, size: int) -> None:
        self._call("truncate", self._paths[file], size)
        self._take_room(self._paths[file], min(0, size - super().size(file)))
        super().truncate(file, size)
        self.changes.append(Cut(self._open[file], size))

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace", target)
        for path in (source, target):
            if path not in self._files and path.exists():
                self._find(path)
        self._take_room(target, -target.stat().st_size if target.exists() else 0)
        super().replace(source, target)
        self._files[target] = self._files.pop(source)
        self._known.add(target)
        self.changes.append(Named({source.name: None, target.name: self._files[target]}))

    def unlink(self, path: Path) -> None:
        self._call("unlink", path)
        if path not in self._files:
            self._find(path)
        self._take_room(path, -path.stat().st_size)
        super().unlink(path)
        del self._files[path]
        self.changes.append(Named({path.name: None}))

    def close(self, file: int) -> None:
        self._paths.pop(file, None)
        self._open.pop(file, None)
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
