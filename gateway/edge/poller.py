"""Which sockets can be read: one epoll for all of them, looked at by one task.

trio arms a socket anew for every wait: a system call, two task switches and an object for each read, 25 us together.
Here a socket stays registered for as long as its connection waits, and what is to be done with what has come is called
from this task, so an ack costs its own work. The connection's task is woken only where it has something to wait for.
"""

from __future__ import annotations

import select
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Final

import trio

from gateway.engine.base import Commits
from gateway.store.timer import Readable

_EVENTS_MAX: Final = 256
_TURN_S: Final = 0.002
"""Sockets looked at, and time passed, before other tasks run."""


class Poller:
    """Sockets by descriptor. A socket that is added must be removed before it is closed."""

    def __init__(
        self,
        gathering: AbstractContextManager[None] | None = None,
        commits: Commits | None = None,
        joining: AbstractContextManager[None] | None = None,
    ) -> None:
        """All are entered for each turn: at its end what was joined goes on its way, the next commit is begun, and what
        was gathered is sent."""
        self._gathering = gathering or nullcontext()
        self._commits = commits
        self._joining = joining or nullcontext()
        self._epoll = select.epoll()
        self._waiting: dict[int, Readable] = {}
        self._left: list[tuple[int, int]] = []  # events of the last turn that had no time any more

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, descriptor: int, readable: Readable) -> None:
        """Call `look` whenever the socket can be read, its end and its errors included, until it is removed."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._waiting[descriptor] = readable

    def remove(self, descriptor: int) -> None:
        del self._waiting[descriptor]
        self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Until cancelled."""
        commits = self._commits
        if commits is None:
            await self._take_turns(nullcontext())
            return
        readables = commits.readables
        for descriptor, readable in readables.items():
            self.add(descriptor, readable)
        commits.attend(attended=True)
        try:
            await self._take_turns(commits)
        finally:
            commits.attend(attended=False)
            for descriptor in readables:
                self.remove(descriptor)

    async def _take_turns(self, commits: AbstractContextManager[None]) -> None:
        gathering, joining = self._gathering, self._joining
        while True:
            if self._left:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            with gathering, commits, joining:
                self._turn()

    def _turn(self) -> None:
        events = self._left or self._epoll.poll(0, _EVENTS_MAX)
        until, waiting = perf_counter() + _TURN_S, self._waiting
        for done, (descriptor, _) in enumerate(events, 1):
            readable = waiting.get(descriptor)  # it may have gone since; a look at one that took its place does no harm
            if readable is not None:
                readable.look()
                if perf_counter() > until:
                    self._left = events[done:]  # first in the next turn, or those in front would always be first
                    return
        self._left = []
