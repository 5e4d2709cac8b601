"""Every way in which a recorded run may be found on the disk after each of its calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import attrs

from gateway.store import checkpoint as checkpoints
from gateway.testing.power import KILLED, Change, Contents, Surface, ways_of


@attrs.frozen
class Point:
    """The first `moment` changes were done; then the process died or the power went, and this was found."""

    moment: int
    way: str
    contents: Contents
    killed: bool
    """The power stayed on."""

    def __str__(self) -> str:
        return f"after change {self.moment}: {self.way}"


def with_a_bad_checkpoint(point: Point) -> Point | None:
    """The same, but a bit of the newest checkpoint has gone wrong; None where there is no other."""
    if not {checkpoints.NAME, checkpoints.OLD_NAME} <= point.contents.keys() or not point.contents[checkpoints.NAME]:
        return None
    data = bytearray(point.contents[checkpoints.NAME])
    data[len(data) // 2] ^= 0x10
    contents = {**point.contents, checkpoints.NAME: bytes(data)}
    return attrs.evolve(point, way=f"{point.way}, and the newest checkpoint is damaged", contents=contents)


def points(changes: Sequence[Change], seed: int, more: int = 2) -> list[Point]:
    """All of them. What is found in the same state later is looked at then, when more was promised."""
    found: dict[tuple[bool, tuple[tuple[str, bytes], ...]], Point] = {}
    for point in _all_points(changes, Random(seed), more):
        found[point.killed, tuple(sorted(point.contents.items()))] = point
    return list(found.values())


def _all_points(changes: Sequence[Change], dice: Random, more: int) -> Iterator[Point]:
    surface = Surface()
    for moment in range(len(changes) + 1):
        for way, contents in ways_of(surface, dice, more):
            yield Point(moment, way, contents, way == KILLED)
        if moment < len(changes):
            surface.tell(changes[moment])
