"""Sources as the configuration names them. A new kind of source is a file, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.config.settings import Source as SourceSettings
from gateway.source.base import Source
from gateway.source.ndjson import NdjsonSource

DIRECTORY: Final = "sources"
"""In the store's directory: what sources remember over a restart."""


def build(config: Config) -> list[Source]:
    """Every source of the configuration, not running yet."""
    return [_KINDS[settings.type](config, settings) for settings in config.source]


def _postgres(config: Config, settings: SourceSettings) -> Source:
    from gateway.source.postgres import PostgresSource  # libpq is loaded for those who have such a source

    return PostgresSource(settings, config.limits)


def _ndjson(config: Config, settings: SourceSettings) -> Source:
    return NdjsonSource(settings, config.limits, Path(config.store.directory) / DIRECTORY)


_KINDS: Final[dict[str, Callable[[Config, SourceSettings], Source]]] = {"postgres": _postgres, "ndjson": _ndjson}
