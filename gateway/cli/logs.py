"""What the process says of itself: structured events on standard error, for people or for a collector."""

from __future__ import annotations

import logging
import sys

import structlog

from gateway.config import Log


def configure(log: Log) -> None:
    """Set up structlog, and the libraries' own logging, as the settings `log.level` and `log.format` say."""
    level = getattr(logging, log.level.upper())
    for_people = log.format == "console" or (log.format == "auto" and sys.stderr.isatty())
    without_variables = structlog.dev.plain_traceback  # rich's, the default, shows them, and one may be a token
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=without_variables)]
        if for_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            _add_name,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_NamedLogger,
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=max(level, logging.WARNING))


class _NamedLogger(structlog.WriteLogger):
    """Writes lines to standard error, and knows who speaks."""

    def __init__(self, name: str = "gateway") -> None:
        super().__init__(sys.stderr)
        self.name = name


def _add_name(logger: _NamedLogger, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["logger"] = logger.name
    return event
