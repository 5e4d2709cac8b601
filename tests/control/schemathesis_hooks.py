"""Loaded by schemathesis itself (SCHEMATHESIS_HOOKS): what the document can say in words only."""

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A creation needs `topics`, a change does not; schemathesis cannot know which of the two a PUT will be."""
    if case.method == "PUT" and isinstance(case.body, dict):
        case.body.setdefault("topics", ["orders.>"])
        if isinstance(text := case.body.get("filter"), str) and len(text) <= 4096:
            case.body["filter"] = "true"  # that it is CEL cannot be said in a schema
