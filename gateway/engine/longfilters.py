"""Filters that may take long, asked in a process of their own: the run loop goes on, and what takes too long is ended.

A filter has `filter.timeout_ms` of processor time for a message (not of the clock: a busy machine must not cost
messages). Past that its process is gone, the message does not match, and the filter is not asked for a second, then for
two, for at most five minutes. The process is started when it is first needed: a gateway without such filters has none.
"""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final

import attrs
import orjson
import structlog
import trio

from gateway.broker.filter import Activation, Filter, FilterError
from gateway.config import Filter as Settings

_log = structlog.get_logger("gateway.filter")
_WALL_S: Final = 60.0
"""A process that says nothing for this long is taken for hung, whatever its processor time says."""
_ENDS_MAX: Final = 10
_ENDS_MS: Final = 60_000
"""More ends than that in a minute, and no long filter is asked: each costs the pipeline the start of a process."""


@attrs.define(eq=False)
class Question:
    """One filter and one message; `answer` once it is known."""

    filter: Filter
    variables: Activation
    answer: bool | FilterError = False


class LongFilters:
    """Asks, and remembers who took too long."""

    def __init__(self, settings: Settings, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._clock = clock
        self._process: trio.Process | None = None
        self._lines = b""
        self._ends: deque[int] = deque(maxlen=_ENDS_MAX)
        self._turn = trio.Lock()

    async def ask(self, questions: Sequence[Question]) -> None:
        """Have all of them answered. Each filter that is too slow costs `filter.timeout_ms`, and a new process."""
        waiting = list(questions)
        async with self._turn:
            while waiting := self._worth_asking(waiting):
                answered = await self._ask(waiting)
                if answered < len(waiting):
                    await self._end(waiting[answered])
                waiting = waiting[answered + 1 :]

    async def aclose(self) -> None:
        """End the process."""
        with trio.CancelScope(shield=True):
            await self._kill()

    def _worth_asking(self, questions: list[Question]) -> list[Question]:
        """Those of filters that do not rest; the others are answered."""
        now = self._clock()
        too_many = len(self._ends) == _ENDS_MAX and now - self._ends[0] < _ENDS_MS
        worth: list[Question] = []
        for question in questions:
            if question.filter.is_set_aside(now):
                question.answer = FilterError("the filter was too slow of late, and rests")
            elif too_many:
                question.answer = FilterError("too many filters were too slow of late: none that may be is asked")
            else:
                worth.append(question)
        return worth

    # -------------------------------------------------------------------------------------------- the process

    async def _ask(self, questions: list[Question]) -> int:
        """The number of those that were answered before the process ended."""
        try:
            process = await self._started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, process, questions)
                for number, question in enumerate(questions):
                    line = await self._line(process)
                    if line is None:
                        nursery.cancel_scope.cancel()
                        return number
                    question.answer = FilterError(line[1:].decode()) if line[:1] == b"!" else line == b"1"
        except BaseException:
            await self.aclose()  # it is in the middle of something
            raise
        return len(questions)

    async def _started(self) -> trio.Process:
        if self._process is None:
            settings = self._settings
            self._lines = b""
            self._process = await trio.lowlevel.open_process(
                [
                    sys.executable,
                    "-m",
                    "gateway.engine.filterprocess",
                    str(settings.timeout_ms / 1000),
                    str(settings.memory_bytes_max),
                ],
                stdin=-1,
                stdout=-1,
                start_new_session=True,  # Ctrl-C is for the gateway
            )
        return self._process

    async def _tell(self, process: trio.Process, questions: list[Question]) -> None:
        assert process.stdin is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it has ended: its answers say where
            await process.stdin.send_all(b"".join(_frames(questions)))

    async def _line(self, process: trio.Process) -> bytes | None:
        """The next answer; None where the process has ended."""
        assert process.stdout is not None
        while b"\n" not in self._lines:
            more: bytes | bytearray = b""
            with trio.move_on_after(_WALL_S):
                more = await process.stdout.receive_some(65536)
            if not more:
                return None
            self._lines += more
        line, _, self._lines = self._lines.partition(b"\n")
        return line

    async def _kill(self) -> int:
        """End the process where there is one; its status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.aclose()
        await process.stdout.aclose()
        return await process.wait()

    async def _end(self, question: Question) -> None:
        """The process ended over this question: its filter rests."""
        with trio.CancelScope(shield=True):
            status = await self._kill()
        now = self._clock()
        self._ends.append(now)
        why = "took too long" if status == -signal.SIGPROF else "took too much, or its process failed"
        question.answer = FilterError(f"the filter {why}")
        _log.warning(
            f"a filter {why}, and is not asked for a while; nothing matches it meanwhile",
            filter=question.filter.text[:200],
            status=status,
            rest_ms=question.filter.set_aside(now),
        )


def _frames(questions: Sequence[Question]) -> Iterator[bytes]:
    """Questions about the same message, one after the other, are asked together."""
    for _, group in groupby(questions, key=lambda question: id(question.variables)):
        same = list(group)
        filters = [question.filter.text for question in same]
        body = orjson.dumps({"filters": filters, "variables": same[0].variables.variables})
        yield len(body).to_bytes(4, "big") + body
