"""What each feature on the way costs: the saturated pipeline with all of them off, each on, and all on."""

from __future__ import annotations

import time
from typing import Final

import attrs
import orjson

from gateway.auth import apikey
from gateway.auth.grant import Grant
from gateway.bench.ground import Ground
from gateway.bench.own import Setup
from gateway.bench.plan import one_to_one
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario

_MESSAGES: Final = 150_000
_ROUNDS: Final = 2
"""Of each the one that cost least counts: what the machine does besides only adds."""
EQUALITY: Final = 'data.type == "t7"'
"""A filter that is looked up; all messages pass it."""
COMPARISON: Final = "data.amount > 10"
"""A filter that is evaluated; all messages pass it."""
SCHEMA: Final = {
    "type": "object",
    "required": ["at", "type", "amount"],
    "properties": {
        "at": {"type": "string", "pattern": "^[0-9]+$"},
        "type": {"type": "string"},
        "amount": {"type": "number", "minimum": 0},
    },
}


@attrs.frozen(kw_only=True)
class Features:
    """Which are on."""

    credentials: bool = False
    filter: str = ""
    schema: bool = False
    trace: bool = False


CASES: Final = {
    "all off": Features(),
    "credentials": Features(credentials=True),
    "a filter that is looked up": Features(filter=EQUALITY),
    "a filter that is evaluated": Features(filter=COMPARISON),
    "a schema": Features(schema=True),
    "the trace": Features(trace=True),
    "all on": Features(credentials=True, filter=EQUALITY, schema=True, trace=True),
}


def setup(features: Features) -> Setup:
    """A gateway with these features."""
    lines = ["[trace]", f"enabled = {str(features.trace).lower()}"]
    files, token = {}, None
    if features.credentials:
        everything = (">",)
        grant = Grant(publish=everything, subscribe=everything, view=everything, admin=everything, read=everything)
        token, key = apikey.make("bench", grant, time.time_ns() // 1_000_000)
        files["keys.json"] = orjson.dumps({"keys": [key.as_dict()]}).decode()
        lines += ["[auth]", 'keys_file = "{directory}/keys.json"']
    if features.schema:
        files["schema.json"] = orjson.dumps(SCHEMA).decode()
        lines += ["[[pipeline]]", 'name = "checked"', 'stages = ["schema"]', 'schema = "{directory}/schema.json"']
    return Setup(config="\n".join(lines) + "\n", files=files, token=token)


async def all_on(ground: Ground) -> list[Case]:
    """Its payload is an object, so that there is something to look at. Each on a gateway of its own."""
    messages = ground.sized(_MESSAGES, 200)
    best: dict[str, Case] = {}
    for _ in range(ground.sized(_ROUNDS)):
        for name, features in CASES.items():
            load = one_to_one(messages=messages, filter=features.filter, fields=True)
            case = await ground.plan(load, name, "all-on", setup(features))
            if name not in best or (case.cpu_us or 0) < (best[name].cpu_us or 0):
                best[name] = case
    off = best["all off"].cpu_us or 0
    return [attrs.evolve(case, extra={"more_us": round((case.cpu_us or 0) - off, 3)}) for case in best.values()]


SCENARIO: Final = Scenario(
    "all-on", "credentials, a filter, a schema and the trace: each, and all together", all_on, own_only=True
)
