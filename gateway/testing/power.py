"""What may stand on a disk when the power goes, or the process dies, at any moment of a recorded run.

`faulty.FaultyFiles` records what was done to the files of one directory as a list of changes. A `Surface` that was told
the first n of them knows what is certain to be there, and what is pending: done, but by no sync promised to stay. An
application may count on no more than this (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014): `sync`
keeps the contents of one file, `sync_directory` the names of one directory. Any part of what is pending may be there or
not, whatever the order in which it was done, and a write may be there in part, or as zeros.

    surface = Surface()
    for change in disk.changes[:n]:
        surface.tell(change)
    for way, files in ways_of(surface, random):
        lay_out(files, directory)                   # now open the store there, and ask it what was promised
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random

import attrs


@attrs.frozen
class Named:
    """Names that stand for other files now (their numbers), or for none; all of them at once, as rename(2) does."""

    names: Mapping[str, int | None]


@attrs.frozen
class Wrote:
    file: int
    offset: int
    data: bytes


@attrs.frozen
class Cut:
    file: int
    size: int


@attrs.frozen
class Synced:
    file: int


@attrs.frozen
class NamesSynced:
    """The directory was synced."""


Pending = Named | Wrote | Cut
Change = Pending | Synced | NamesSynced
Contents = dict[str, bytes]
"""What a directory holds, by name."""

SECTOR_BYTES = 512
"""What a disk writes as a whole or not at all."""
SINGLY_MAX = 8
"""Changes that are left out, or left alone, one by one: the last of those that are pending. Caches are never synced."""
KILLED = "what a killed process leaves"


class Surface:
    """One directory on its disk."""

    def __init__(self) -> None:
        self.pending: list[Pending] = []
        self._names: dict[str, int] = {}
        self._contents: dict[int, bytes] = {}

    def tell(self, change: Change) -> None:
        """The next change was done."""
        if isinstance(change, Synced):
            self._keep([each for each in self.pending if not isinstance(each, Named) and each.file == change.file])
        elif isinstance(change, NamesSynced):
            self._keep([each for each in self.pending if isinstance(each, Named)])
        else:
            self.pending.append(change)

    def _keep(self, kept: list[Pending]) -> None:
        _carry_out(kept, self._names, self._contents)
        same = {id(each) for each in kept}
        self.pending = [each for each in self.pending if id(each) not in same]

    def found(self, kept: Iterable[Pending]) -> Contents:
        """What is there when of what is pending just this has reached the disk."""
        names, contents = dict(self._names), dict(self._contents)
        _carry_out(kept, names, contents)
        return {name: contents.get(file, b"") for name, file in names.items()}


def _carry_out(changes: Iterable[Pending], names: dict[str, int], contents: dict[int, bytes]) -> None:
    for change in changes:
        if isinstance(change, Named):
            for name, file in change.names.items():
                if file is None:
                    names.pop(name, None)
                else:
                    names[name] = file
        elif isinstance(change, Wrote):
            before = contents.get(change.file, b"").ljust(change.offset, b"\0")
            behind = before[change.offset + len(change.data) :]
            contents[change.file] = before[: change.offset] + change.data + behind
        else:
            contents[change.file] = contents.get(change.file, b"")[: change.size].ljust(change.size, b"\0")


def ways_of(surface: Surface, random: Random, more: int = 2) -> Iterator[tuple[str, Contents]]:
    """Ways in which the disk may be found, by name: the likely ones, the worst ones, and `more` at random.

    The first is KILLED: everything that was done, in its order. No contents are said twice. One thing is left out: that
    of a file's first write the beginning is missing and the rest is there. Nobody could tell it from damage.
    """
    said: list[Contents] = []
    for name, kept in _kept(surface.pending, random, more):
        found = surface.found(kept)
        if found not in said:
            said.append(found)
            yield name, found


def _kept(pending: list[Pending], random: Random, more: int) -> Iterator[tuple[str, list[Pending]]]:
    yield KILLED, pending
    yield "no more than was synced", []
    yield "names, but not what was written", [each for each in pending if isinstance(each, Named)]
    yield "what was written, but no names", [each for each in pending if not isinstance(each, Named)]
    yield "zeros instead of what was written", [_zeroed(each) for each in pending]
    for index, change in list(enumerate(pending))[-SINGLY_MAX:]:
        if isinstance(change, Wrote):
            torn = _torn(change, random)
            yield f"write {index} torn, what is behind it lost", [*pending[:index], torn]
            yield f"write {index} torn, what is behind it there", [*pending[:index], torn, *pending[index + 1 :]]
        yield f"all but change {index}", [*pending[:index], *pending[index + 1 :]]
        yield f"change {index} alone", [change]
    for number in range(more if len(pending) > 1 else 0):
        some = [each for each in pending if random.random() < 0.5]
        yield f"some changes ({number})", [_torn(e, random) if random.random() < 0.2 else e for e in some]


def _zeroed(change: Pending) -> Pending:
    return attrs.evolve(change, data=bytes(len(change.data))) if isinstance(change, Wrote) else change


def _torn(change: Pending, random: Random) -> Pending:
    """The first part of a write; or what is behind its first sectors, and zeros in their place."""
    if not isinstance(change, Wrote) or len(change.data) < 2:
        return change
    sectors = range(SECTOR_BYTES - change.offset % SECTOR_BYTES, len(change.data), SECTOR_BYTES)
    if change.offset and sectors and random.random() < 0.3:
        at = random.choice(sectors)
        return attrs.evolve(change, data=bytes(at) + change.data[at:])
    return attrs.evolve(change, data=change.data[: random.randrange(1, len(change.data))])


def lay_out(contents: Contents, directory: Path) -> None:
    """Have `directory`, which is made where it is not there, hold these files and no others."""
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if path.name not in contents:
            path.unlink()
    for name, data in contents.items():
        (directory / name).write_bytes(data)
