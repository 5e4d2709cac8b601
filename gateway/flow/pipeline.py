"""The pipelines between `admit` and `route`: which topics pass which stages, in the order of the configuration.

A topic has at most one pipeline, the first whose patterns match it; without any, it goes straight on. A batch whose
topics have several passes one pipeline after the other, each seeing its own messages only.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.config import Pipeline as Settings
from gateway.flow.convert import Projection, SchemaCheck
from gateway.flow.names import UniqueNames
from gateway.flow.plugin import Plugin
from gateway.flow.ring import Ring, Sink
from gateway.flow.stage import Stage, Work
from gateway.kit.topics import TopicTrie
from gateway.model import Batch
from gateway.steps import UNTRACED, Steps

_TOPICS_MAX: Final = 100_000
"""Topics whose pipeline is remembered; beyond it the memory starts anew."""


class Pipelines:
    """Where `admit` sends its batches. `stages` are the tasks to run, in order."""

    def __init__(self, config: Config, onward: Sink | None = None, steps: Steps = UNTRACED) -> None:
        """Builds every stage. Raises ConfigError where one cannot be. `onward`: to the routing; None only to check."""
        self.stages: list[Stage] = []
        self._onward = onward or Ring("nowhere", 1)
        self._ways_in: list[Sink] = []
        self._known: dict[str, int | None] = {}
        self._trie: TopicTrie[int] = TopicTrie()
        for number, settings in enumerate(config.pipeline):
            for pattern in dict.fromkeys(settings.topics):
                self._trie.add(pattern, number)
            self._ways_in.append(self._build(number, settings, config, steps))

    def _build(self, number: int, settings: Settings, config: Config, steps: Steps) -> Sink:
        """The stages of one pipeline, from the last to the first; the way in."""
        forward: Sink = _Onward(self, number + 1)
        stages: list[Stage] = []
        for place, name in reversed(list(enumerate(settings.stages, 1))):
            stage = Stage(
                f"{settings.name}.{place}.{name}",
                _work(name, settings),
                partial(self._is_of, number),
                forward,
                config.ring.items_max,
                config.limits,
                steps,
            )
            stages.insert(0, stage)
            forward = stage.ring
        self.stages += stages
        return forward

    async def put(self, item: Batch, messages: int = 1) -> None:
        """Send a batch of `admit` on its way."""
        await self.next(item, 0).put(item, messages)

    def next(self, batch: Batch, number: int) -> Sink:
        """The way into the first pipeline from `number` on that is one of the batch's; else onward."""
        if batch.trusted:  # it has been through them once
            return self._onward
        mine = {found for topic in batch.topics if (found := self._of(topic)) is not None and found >= number}
        return self._ways_in[min(mine)] if mine else self._onward

    def _of(self, topic: str) -> int | None:
        if topic in self._known:
            return self._known[topic]
        if len(self._known) >= _TOPICS_MAX:
            self._known.clear()
        found = self._known[topic] = min(self._trie.match(topic), default=None)
        return found

    def _is_of(self, number: int, topic: str) -> bool:
        return self._of(topic) == number


class _Onward:
    """Behind the last stage of a pipeline."""

    def __init__(self, pipelines: Pipelines, number: int) -> None:
        self._pipelines = pipelines
        self._number = number

    async def put(self, item: Batch, messages: int = 1) -> None:
        await self._pipelines.next(item, self._number).put(item, messages)


def _work(name: str, settings: Settings) -> Work:
    if name == "schema":
        return SchemaCheck(Path(settings.schema), settings.name)
    if name == "projection":
        return Projection(settings.projection, settings.name)
    if name == "unique_names":
        return UniqueNames()
    return Plugin(name, settings.timeout_ms)
