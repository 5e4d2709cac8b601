"""The loads that have names.

file         scenarios
scenario     what one is
plans        pipeline, rate, idle, misfits: a plan each, or a few
many         fanout, sparse, own
http         http-publish, long-poll, large
burst        burst
restart      restart
storm        storm
all_on       all-on
"""

from __future__ import annotations

from typing import Final

from gateway.bench.scenarios import all_on, burst, http, many, plans, restart, storm
from gateway.bench.scenarios.scenario import Scenario

_SINGLE: Final = (burst.SCENARIO, restart.SCENARIO, storm.SCENARIO, all_on.SCENARIO)
_ALL: Final = (*plans.SCENARIOS, *many.SCENARIOS, *http.SCENARIOS, *_SINGLE)
SCENARIOS: Final[dict[str, Scenario]] = {each.name: each for each in _ALL}
"""In the order in which `all` runs them."""
