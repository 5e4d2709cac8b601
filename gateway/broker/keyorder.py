"""Order by key: of each key at most one message is out, and the next follows when that one is settled (promise 4).

*Out* is a message in any hand of the subscription: leased, back and due, backing off, on its way to the dead letters.
Behind it others of its key may have been passed over by the front. They are not remembered one by one, for a stuck key
may have a million behind it: of a key stand here the message that is out, how many were passed over, and where the
first of them may be. The next is found again in the segments' index, by the hash of the key, in steps that are
bounded; so a key costs the same however much waits behind it, and delays nobody but itself.

How many keys may stand here is bounded. At the bound the front waits until one of them has been settled; nothing is
lost by it. Two keys of one hash wait for each other, which harms neither promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from gateway.broker.slice import Slice

KeysOf = Callable[[Sequence[int]], list[int]]
"""The hashes of the keys of positions, all of one segment; 0 where a message has none."""
Following = Callable[[int, int], Sequence[int]]
"""The next unsettled positions of the subscription from one on, which the front has passed: at most so many, all of one
segment; none: there are no more."""

_LOOK_MAX: Final = 4096
"""Messages whose keys are looked at in one `freed`: a few milliseconds."""
_NEAR: Final = 32
_FAR: Final = 1024
"""Looked at for one key at once: the next one of a busy key is near, that of a key that was stuck may be far."""


class _Key:
    """One key: at most one of its messages is out."""

    __slots__ = ("low", "out", "waiting")

    def __init__(self, out: int) -> None:
        self.out = out  # 0: the next is being looked for
        self.waiting = 0  # messages passed over, at most
        self.low = 0  # none of them stands before this position


class KeyOrder:
    """The keys of one subscription. `keys_max` bounds how many stand here."""

    __slots__ = ("_freed", "_keys", "_out", "keys_max")

    def __init__(self, keys_max: int) -> None:
        self.keys_max = keys_max
        self._keys: dict[int, _Key] = {}
        self._out: dict[int, int] = {}  # position -> its key
        self._freed: dict[int, int] = {}  # keys whose next message is to be looked for, among so many at once

    def __len__(self) -> int:
        """Keys that stand here."""
        return len(self._keys)

    @property
    def searching(self) -> bool:
        """Whether `freed` has something to look for."""
        return bool(self._freed)

    def out_before(self, key: int) -> int | None:
        """The message of `key` that is out; 0 while the next is looked for; None where the key is free."""
        known = self._keys.get(key)
        return None if known is None else known.out

    # ---------------------------------------------------------------------------------------------- the front

    def sort_out(
        self, positions: Sequence[int], span_low: int, keys: Sequence[int]
    ) -> tuple[list[Slice], list[tuple[int, int]], int]:
        """What of `positions`, which the front has come to, may go out: (slices, ranges between, the front behind).

        The ranges between are foreign positions that stand before a message that was passed over: they belong to no
        slice. The front stops before a message for whose key there is no room.
        """
        slices: list[Slice] = []
        between: list[tuple[int, int]] = []
        run: list[int] = []
        low = follows = span_low  # of the run; behind its last message
        for position, key in zip(positions, keys, strict=True):
            if position not in self._out and self._admit(position, key):
                run.append(position)
                follows = position + 1
                continue
            if position not in self._out and key not in self._keys:
                break  # no room
            if run:
                slices.append(Slice(run, low))
                run = []
            if follows < position:
                between.append((follows, position - 1))
            low = follows = position + 1
        else:
            follows = positions[-1] + 1
        if run:
            slices.append(Slice(run, low))
        return slices, between, follows

    def _admit(self, position: int, key: int) -> bool:
        """Whether it may go out; where it may not, it waits behind its key, or for room."""
        if not key:
            return True
        known = self._keys.get(key)
        if known is None:
            if len(self._keys) >= self.keys_max:
                return False
            self._keys[key] = _Key(position)
            self._out[position] = key
            return True
        known.waiting += 1
        known.low = min(known.low, position) if known.low else position
        return False

    # ------------------------------------------------------------------------------------------- what follows

    def settled(self, positions: Iterable[int]) -> None:
        """These are settled: where one was out, its key's next may follow."""
        for position in positions:
            key = self._out.pop(position, 0)
            if not key:
                continue
            known = self._keys[key]
            if known.waiting:
                known.out = 0
                self._freed[key] = _NEAR
            else:
                del self._keys[key]

    def freed(self, following: Following, keys_of: KeysOf) -> Iterator[Slice]:
        """One step: the messages that may go out now since the one before them has been settled."""
        looked = 0
        while self._freed and looked < _LOOK_MAX:
            key, number = next(iter(self._freed.items()))
            known = self._keys[key]
            positions = following(known.low, number)
            if not positions:  # those that waited were settled otherwise
                del self._freed[key], self._keys[key]
                continue
            looked += len(positions)
            found = self._find(key, positions, keys_of(positions))
            if not found:
                known.low = positions[-1] + 1
                self._freed[key] = _FAR
                continue
            known.out, known.low, known.waiting = found, found + 1, known.waiting - 1
            self._out[found] = key
            del self._freed[key]
            yield Slice(range(found, found + 1), found)

    @staticmethod
    def _find(key: int, positions: Sequence[int], keys: list[int]) -> int:
        try:
            return positions[keys.index(key)]
        except ValueError:
            return 0

    def clear(self) -> None:
        """Nothing is out any more."""
        self._keys.clear()
        self._out.clear()
        self._freed.clear()
