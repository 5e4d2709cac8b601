"""An operator's own stage, `module:callable`: found at the start, called so that it can neither stop nor end the node.

A plain callable runs in a thread: where it does not come back in time the thread is left to itself, and its batch
fails. An async one runs on the run loop under the same time limit; it must not block, for then nothing else runs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

import structlog
import trio

from gateway.errors import ConfigError
from gateway.flow.stage import MessageView, StageError
from gateway.model import Batch

_log = structlog.get_logger("gateway.stage")
_THREADS_MAX: Final = 4
"""Calls of one stage that may hang at once; beyond it the stage fails at once, or threads would pile up."""


class Plugin:
    """See `stage.Work`."""

    def __init__(self, name: str, timeout_ms: int) -> None:
        """`name` is `module:callable`. Raises ConfigError where there is no such callable."""
        self.name = name
        self._callable = find(name)
        self._timeout_s = timeout_ms / 1000
        self._limiter = trio.CapacityLimiter(_THREADS_MAX)
        self._is_async = inspect.iscoroutinefunction(self._callable) or inspect.iscoroutinefunction(
            getattr(self._callable, "__call__", None)  # noqa: B004  # an instance whose __call__ is async
        )

    async def __call__(self, batch: Batch, indexes: Sequence[int]) -> Sequence[object]:
        views = [MessageView(batch.messages[index]) for index in indexes]
        with trio.move_on_after(self._timeout_s) as limit:
            outcomes = await (self._await(views) if self._is_async else self._in_thread(views))
        if limit.cancelled_caught:
            raise StageError(f"it did not come back within {self._timeout_s:g} s")
        if isinstance(outcomes, _Raised):
            _log.error("a stage failed", stage=self.name, exc_info=outcomes.error)
            raise StageError(f"it raised {type(outcomes.error).__name__}, see the gateway's log")
        return cast("Sequence[object]", outcomes)

    async def _await(self, views: list[MessageView]) -> object:
        try:
            return await cast("Awaitable[object]", self._callable(views))
        except (Exception, SystemExit) as error:
            return _Raised(error)

    async def _in_thread(self, views: list[MessageView]) -> object:
        if not self._limiter.available_tokens:
            raise StageError(f"{_THREADS_MAX} of its calls never came back; it is not called any more")
        return await trio.to_thread.run_sync(self._call, views, abandon_on_cancel=True, limiter=self._limiter)

    def _call(self, views: list[MessageView]) -> object:
        try:
            return self._callable(views)
        except BaseException as error:  # its own thread: not even an exit is the node's
            return _Raised(error)


class _Raised:
    """What a callable raised, as a value: it must not be taken for an error of the gateway's."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def find(name: str) -> Callable[[Sequence[MessageView]], object]:
    """The callable of `module:callable`; ConfigError with the mend where there is none."""
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise ConfigError(f"stage {name!r}: use schema, projection, or module:callable, such as shop.stages:enrich")
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"stage {name!r}: {module_name} cannot be imported: {type(error).__name__}: {error}; "
            f"install it where the gateway runs"
        ) from None
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError(f"stage {name!r}: {module_name} has no callable {path}")
    return cast("Callable[[Sequence[MessageView]], object]", found)
