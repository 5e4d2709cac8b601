"""The loads that have names. A file each, or one for those that a plan describes.

file         scenarios
plans        pipeline, rate, idle, misfits
burst        burst
"""

from __future__ import annotations

from typing import Final

from gateway.bench.scenarios import burst, plans
from gateway.bench.scenarios.scenario import Scenario

SCENARIOS: Final[dict[str, Scenario]] = {each.name: each for each in (*plans.SCENARIOS, burst.SCENARIO)}
"""In the order in which `all` runs them."""
