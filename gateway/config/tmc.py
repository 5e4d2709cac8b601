"""Clients of Taobao Message Channel."""

from __future__ import annotations

from typing import Any

import attrs

from gateway.config.setting import required, setting
from gateway.model import check_pattern, check_subscription_name, check_topic


@attrs.frozen(kw_only=True)
class Tmc:
    """Clients of Taobao Message Channel: WebSocket wire protocol 2 on the path /, and POST /router/rest."""

    enabled: bool = setting(False, "Whether they are served; applications are [[tmc_application]].")
    timestamp_window_s: int = setting(
        600, "How far the time of a signed call may be from now, as at the original.", 1, 86400
    )
    consume_wait_ms: int = setting(1000, "How long taobao.tmc.messages.consume waits for a message.", 0, 30_000)
    idle_timeout_s: float = setting(
        90.0, "A connection that sends nothing is closed after this; clients send every 5 to 30 s.", 0.05, 3600
    )


@attrs.frozen(kw_only=True)
class TmcApplication:
    """An application of TMC. Its groups are the subscriptions `<key>.<group>`; `<key>.default` is always there."""

    key: str = required("Its app_key: letters, digits, _ and -.")
    secret: str = required("What it signs with.")
    topics: tuple[str, ...] = setting((), "Topic patterns that its groups are due, such as taobao_trade_TradeCreate.")
    publish: tuple[str, ...] = setting((), "Topic patterns that it may publish to; empty: its topics.")
    topic_groups: dict[str, Any] = setting({}, "Topic to the group that gets its messages, where it is not default.")

    def __attrs_post_init__(self) -> None:
        check_subscription_name(self.key)
        if "." in self.key:
            raise ValueError(f"key: {self.key!r} has a dot, which stands between key and group")
        if not self.secret:
            raise ValueError("secret is empty; whoever knows the key could sign")
        if not self.topics:
            raise ValueError("topics: name at least one topic pattern; no group would ever get a message")
        for pattern in (*self.topics, *self.publish):
            check_pattern(pattern)
        for topic, group in self.topic_groups.items():
            check_topic(topic)
            if not isinstance(group, str):
                raise ValueError(f"topic_groups: {topic}: must be the name of a group")
