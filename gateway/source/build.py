"""Sources as the configuration names them. A new kind of source is a file, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.config.settings import Source as SourceSettings
from gateway.errors import ConfigError, GatewayError
from gateway.model import check_subscription_name, check_topic
from gateway.source.base import Source

DIRECTORY: Final = "sources"
"""In the store's directory: what sources remember over a restart."""


def build(config: Config, settings: Sequence[SourceSettings]) -> list[Source]:
    """Raises ConfigError, which names the source, the key and the mend."""
    found: dict[str, Source] = {}
    for each in settings:
        _check(each)
        if each.name in found:
            raise ConfigError(f'source "{each.name}": there are two of this name; ids of messages are made of it')
        found[each.name] = _KINDS[each.type](config, each)
    return list(found.values())


def _postgres(config: Config, settings: SourceSettings) -> Source:
    from gateway.source.postgres import PostgresSource  # libpq is for those who have such a source

    return PostgresSource(settings, config.limits)


def _ndjson(config: Config, settings: SourceSettings) -> Source:
    from gateway.source.ndjson import NdjsonSource

    return NdjsonSource(settings, config.limits, Path(config.store.directory) / DIRECTORY)


_KINDS: Final[dict[str, Callable[[Config, SourceSettings], Source]]] = {"postgres": _postgres, "ndjson": _ndjson}


def _check(settings: SourceSettings) -> None:
    where = f'source "{settings.name}"'
    try:
        check_subscription_name(settings.name)
    except GatewayError as error:
        raise ConfigError(f"{where}: name: {error.message}") from None
    if settings.type not in _KINDS:
        raise ConfigError(f"{where}: type: {settings.type!r}: use {' or '.join(_KINDS)}")
    if settings.topic:
        try:
            check_topic(settings.topic)
        except GatewayError as error:
            raise ConfigError(f"{where}: {error.message}") from None
    required = (
        ("url", "table", "id_column", "payload_column", "error_column") if settings.type == "postgres" else ("path",)
    )
    for key in required:
        if not getattr(settings, key):
            raise ConfigError(f"{where}: {key}: is empty; a source of type {settings.type} needs it")
    if settings.type == "postgres" and not (settings.topic or settings.topic_column):
        raise ConfigError(f"{where}: name a topic, or the topic_column that has it")
    if settings.start not in ("start", "end"):
        raise ConfigError(f"{where}: start: {settings.start!r}: use start or end")
