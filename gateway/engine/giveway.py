"""Much work in small steps: between two of them others have the run loop for as long as the step had it.

One pass between steps is not enough. A publish takes half a dozen passes from its socket through the append and the
disk to its answer; a step in each of them would make it wait for all of these.
"""

from __future__ import annotations

from time import thread_time
from typing import Final

import trio

_QUIET_S: Final = 0.0002
_QUIET_PASSES: Final = 2
"""Passes that took no longer had nothing in them but wake-ups: nobody needs the time. One is not enough: who ran last
in one pass may run first in the next, with nobody between."""


class GiveWay:
    """Made where the work begins, and called behind each of its steps. Counts time of the processor, so what the
    machine gives to others meanwhile is nobody's."""

    def __init__(self) -> None:
        self._began_s = thread_time()

    async def __call__(self) -> None:
        """Let others run for as long as the step took, or until they need no more."""
        now_s = thread_time()
        until_s = now_s + now_s - self._began_s
        quiet = 0
        while quiet < _QUIET_PASSES:
            before_s = now_s
            await trio.lowlevel.checkpoint()
            now_s = thread_time()
            if now_s >= until_s:
                break
            quiet = quiet + 1 if now_s - before_s < _QUIET_S else 0
        self._began_s = now_s
