"""What becomes of a slow client, in one table: throttled, paused, closed (design §6).

A client is *overdue* from the moment its socket last took a byte of what waits for it, or from when its leases began to
run out without a word of it; the longer of the two counts. A byte, or any settling word, and it is overdue no more.

    state       from                             its window     what it is told
    healthy     -                                adaptive       `window`, where that changed
    throttled   throttle_after_s; or narrow      the floor up   `window` with the reason
    paused      pause_after_s                    0              `window` of size 0
    closed      close_after_s                    -              `error` slow_consumer, and the close code 3008

A throttled client still is given something, so that it can show that it lives. Of a paused one the frames that its
socket has not taken go to others at once, and the rest as its leases run out.
"""

from __future__ import annotations

import enum

from gateway.config import Flow


class State(enum.StrEnum):
    """How a consumer keeps up; in the order of the ladder."""

    HEALTHY = "healthy"
    THROTTLED = "throttled"
    PAUSED = "paused"
    CLOSED = "closed"


class Reason(enum.StrEnum):
    """Why a window or a state changed."""

    NONE = ""
    ACK_LATENCY = "ack_latency"
    """Acks take longer than they did."""
    LEASES_EXPIRED = "leases_expired"
    """Leases ran out without a word."""
    UNSENT = "unsent"
    """The socket takes nothing."""
    RECOVERED = "recovered"


class Ladder:
    """The table, with the configured times."""

    def __init__(self, settings: Flow) -> None:
        self._rungs = (
            (settings.close_after_s, State.CLOSED),
            (settings.pause_after_s, State.PAUSED),
            (settings.throttle_after_s, State.THROTTLED),
        )

    def state(self, overdue_s: float, *, narrow: bool) -> State:
        """Where a consumer stands that has been overdue for so long; `narrow`: its window is much less than its cap."""
        for after_s, state in self._rungs:
            if overdue_s >= after_s:
                return state
        return State.THROTTLED if narrow else State.HEALTHY
