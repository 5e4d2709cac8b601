"""Modules whose tests do not stand where a mirror of the tree would have them: what they do is seen elsewhere.

tests/test_house.py holds the table to the tree. A module that gets a test of its own leaves it.
"""

from __future__ import annotations

from typing import Final

AS_A_WHOLE: Final = {"bench": "tests/bench/test_cli.py"}
"""Rooms that are tested by playing them through; what they compute by has its mirrors all the same."""

ELSEWHERE: Final = {
    "auth.signing": "tests/cli/test_credentials.py",
    "broker.expiry": "tests/engine/test_sweeping.py",
    "broker.owned": "tests/broker/test_subscription_model.py",
    "broker.revisit": "tests/engine/test_steering.py",
    "broker.why": "tests/engine/test_steering.py",
    "cli.http": "tests/cli/test_subscription.py",
    "cli.key": "tests/cli/test_credentials.py",
    "cli.options": "tests/cli/test_cli.py",
    "cli.permission": "tests/cli/test_credentials.py",
    "cli.token": "tests/cli/test_credentials.py",
    "client.connection": "tests/client/test_gateway.py",
    "client.session": "tests/client/test_subscription.py",
    "config.credentials": "tests/config/test_load.py",
    "config.edges": "tests/config/test_load.py",
    "config.keeping": "tests/config/test_load.py",
    "config.pushing": "tests/config/test_load.py",
    "config.reference": "tests/test_readme.py",
    "config.routing": "tests/config/test_load.py",
    "config.setting": "tests/config/test_lists.py",
    "config.settings": "tests/config/test_load.py",
    "config.tmc": "tests/config/test_load.py",
    "config.values": "tests/config/test_load.py",
    "control.exposition": "tests/control/test_metrics.py",
    "control.messages": "tests/control/test_app.py",
    "control.sources": "tests/control/test_openapi.py",
    "edge.answers": "tests/edge/test_publish.py",
    "edge.tmc": "tests/edge/test_tmc_session.py",
    "edge.tmc_applications": "tests/edge/test_tmc_session.py",
    "edge.tmc_calls": "tests/edge/test_tmc_rest.py",
    "edge.tmc_messages": "tests/edge/test_tmc_session.py",
    "engine.base": "tests/engine/test_embedded.py",
    "engine.filterprocess": "tests/engine/test_longfilters.py",
    "engine.keeping": "tests/engine/test_merging.py",
    "engine.past": "tests/engine/test_history.py",
    "engine.sieve": "tests/engine/test_routing.py",
    "engine.stragglers": "tests/engine/test_merging.py",
    "flow.merge": "tests/crash/test_kill.py",
    "kit.chunk": "tests/kit/test_ranges.py",
    "source.base": "tests/source/test_watch.py",
    "source.libpq": "tests/source/test_postgres.py",
    "source.outbox_sql": "tests/source/test_postgres.py",
    "source.place": "tests/source/test_tail.py",
    "steps": "tests/trace/test_telling.py",
    "store.flusher": "tests/store/test_log.py",
    "store.manifest": "tests/store/test_backup.py",
    "store.restore": "tests/store/test_backup.py",
    "store.survey": "tests/store/test_verify.py",
    "trace.wording": "tests/trace/test_lines.py",
    "wire.request": "tests/edge/test_http.py",
}
"""By module, the test that would notice if it were broken."""
