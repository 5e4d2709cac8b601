"""A file of JSON lines that grows and is rotated: every line is a message, or the payload of one.

Where `topic` is set a line is a payload; where it is not a line is a message object, as `POST /v1/messages` takes it.
A line's id is made of the source's name, the file and the offset, so a line that is read again after a crash is known.
The place behind what is published is saved after it is answered as fsynced, never before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import structlog
import trio

from gateway.config import Limits
from gateway.config.settings import Source as SourceSettings
from gateway.errors import GatewayError
from gateway.model import Message
from gateway.source import place as places
from gateway.source.base import Publish, SourceError, SourceStatistics, State
from gateway.source.place import Place
from gateway.source.tail import Line, Tail
from gateway.store.files import Files
from gateway.wire import payload

_log = structlog.get_logger("gateway.source")
_LINES_MAX: Final = 500
_REST_S: Final = 2.0
"""How long a renamed file must have rested before it is left: a writer goes on with it until it notices."""
_LOGGED_MAX: Final = 10
"""Bad lines of one batch that are logged one by one."""


class NdjsonSource:
    """See the module and `base.Source`."""

    unit = "bytes"

    def __init__(self, settings: SourceSettings, limits: Limits, directory: Path, files: Files | None = None) -> None:
        self.name = settings.name
        self.statistics = SourceStatistics()
        self.rest_s = _REST_S
        self._settings = settings
        self._state = directory / f"{settings.name}.json"
        self._files = files or Files()
        self._line_bytes_max = limits.payload_bytes_max + limits.attributes_bytes_max + 4096
        self._lines_max = min(_LINES_MAX, limits.batch_messages_max)

    async def run(self, publish: Publish) -> None:
        tail = Tail(Path(self._settings.path), self._line_bytes_max, self.rest_s)
        try:
            await self._run(tail, publish)
        except OSError as error:
            raise SourceError(f"{self._settings.path}: {error.strerror}") from None
        finally:
            tail.close()

    async def _run(self, tail: Tail, publish: Publish) -> None:
        saved = await trio.to_thread.run_sync(self._open, tail)
        self.statistics.state, self.statistics.error = State.RUNNING, ""
        while True:
            if tail.place != saved:  # it is begun, or another file: the ids of its lines must mean it after a crash too
                saved = await self._save(tail.place)
            lines = await trio.to_thread.run_sync(tail.read, self._lines_max, trio.current_time())
            if lines:
                if tail.place.generation != saved.generation:
                    saved = await self._save(_begin(tail.place))
                await self._publish(lines, tail.place, publish)
            elif tail.place == saved:
                self.statistics.behind = tail.behind()
                await trio.sleep(self._settings.poll_ms / 1000)

    def _open(self, tail: Tail) -> Place | None:
        """Blocks."""
        saved = places.load(self._files, self._state)
        lost = tail.open(saved, at_end=self._settings.start == "end")
        if lost is not None:
            _log.warning("a source lost its place", source=self.name, path=self._settings.path, error=lost)
        return saved

    async def _save(self, place: Place) -> Place:
        await trio.to_thread.run_sync(places.save, self._files, self._state, place)
        return place

    async def _publish(self, lines: list[Line], place: Place, publish: Publish) -> None:
        """Publish what can be; the rest is counted and named. Raises GatewayError where one must be tried again."""
        self.statistics.read += len(lines)
        refused: list[tuple[Line, GatewayError]] = []
        taken: list[tuple[Line, Message]] = []
        for line in lines:
            try:
                message = self._message(line, place)
            except GatewayError as error:
                refused.append((line, error))
            else:
                if message is not None:
                    taken.append((line, message))
        outcomes = await publish([message for _, message in taken]) if taken else []
        for (line, _), outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, GatewayError):
                if outcome.kind.temporary:
                    raise outcome  # all of them come again; those that are stored are recognised
                refused.append((line, outcome))
        self.statistics.published += sum(not isinstance(outcome, GatewayError) for outcome in outcomes)
        self._tell(refused)

    def _tell(self, refused: list[tuple[Line, GatewayError]]) -> None:
        self.statistics.refused += len(refused)
        for line, error in refused[:_LOGGED_MAX]:
            _log.warning(
                "a line cannot be published",
                source=self.name,
                path=self._settings.path,
                line=line.number,
                error=f"{error.code}: {error.message}",
            )
        if len(refused) > _LOGGED_MAX:
            _log.warning("more lines cannot be published", source=self.name, more=len(refused) - _LOGGED_MAX)

    def _message(self, line: Line, place: Place) -> Message | None:
        """A line as a message; None where it is empty. GatewayError where it can be none."""
        if line.text is None:
            raise GatewayError("payload_too_large", f"the line is longer than {self._line_bytes_max} bytes")
        text = line.text.lstrip(b"\0").strip()  # a file that was cut under a writer begins with zeros
        if not text:
            return None
        if self._settings.topic:
            payload.check_json(text)
            message = Message(topic=self._settings.topic, data=msgspec.Raw(text))
        else:
            [message], errors = payload.decode_each([payload.decode_text(text)])
            if errors:
                raise errors[0]
        if message.id is None:
            message.id = f"{self.name}-{place.generation}-{place.inode}-{line.offset}"
        return message


def _begin(place: Place) -> Place:
    """The begin of the same file."""
    return Place(place.inode, place.generation, changed_ns=place.changed_ns)
