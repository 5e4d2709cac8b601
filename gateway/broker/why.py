"""Why a message is not being delivered: the truth about one position, from the hand that it is in.

The first that applies is answered, from the message's own state (not its own, settled, leased, not due yet) to that of
the subscription (paused, no consumer, no window). How something was settled only the log knows: see `cause_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.broker.owned import is_owned
from gateway.broker.queue import times_of
from gateway.broker.subscription import Cause, Subscription
from gateway.model import Why, WhyReason
from gateway.store import record as records
from gateway.store.record import Kind
from gateway.store.segment import Segment


def explain(
    subscription: Subscription, position: int, segments: Sequence[Segment], durable_end: int, now: int
) -> Why | None:
    """Why the message at `position`, which is in one of `segments`, is not delivered; None where it is settled."""
    s = subscription
    if not is_owned(segments, s.number, position, s.past):
        topics = ", ".join(s.settings.topics)
        return _why(
            position,
            WhyReason.FILTERED,
            f"it was not routed to {s.name}, which reads {topics}; a change of that counts for what comes after it",
        )
    if position in s.settled:
        return None
    return (
        _in_hand(s, position)
        or _behind_its_key(s, position, segments)
        or _not_due(s, position, segments, now)
        or _dying(s, position, segments)
        or _held_up(s, position, durable_end)
    )


def _in_hand(s: Subscription, position: int) -> Why | None:
    """It is with a consumer, or on its way to the dead letters."""
    leased = s.lease_of(position)
    if leased is not None:
        consumer, piece, until_ms = leased
        label, attempts = consumer.label, piece.attempts
        detail = f"{label} has it until {until_ms}, in ms since the epoch"
        if until_ms is None:
            detail = f"it is in a frame that waits for the socket of {label}; the lease has not begun"
        return _why(position, WhyReason.LEASED, detail, consumer=label, until_ms=until_ms, attempts=attempts)
    delayed = s.delay_of(position)
    if delayed is not None:
        piece, until_ms = delayed
        detail = f"it came back and is due at {until_ms}, in ms since the epoch"
        return _why(position, WhyReason.BACKOFF, detail, until_ms=until_ms, attempts=piece.attempts)
    return None


def _behind_its_key(s: Subscription, position: int, segments: Sequence[Segment]) -> Why | None:
    behind = s.behind(segments, position)
    if behind:
        detail = f"the message at {behind} has the same key and is not settled; ask why of that one"
        return _why(position, WhyReason.KEY, detail, attempts=0, behind=behind)
    if behind == 0:
        return _why(
            position, WhyReason.WAITING, "the one before it of its key is settled, and its turn comes", attempts=0
        )
    return None


def _dying(s: Subscription, position: int, segments: Sequence[Segment]) -> Why | None:
    if s.ready_of(position) is not None or s.is_ahead(position) or not s.is_due(segments, position):
        return None
    return _why(position, WhyReason.DYING, "its deliveries are over; its dead letter is on its way to the disk")


def _not_due(s: Subscription, position: int, segments: Sequence[Segment], now: int) -> Why | None:
    """It is in nobody's hand, and too early, or too late, to be in one."""
    due_ms, expires_ms = times_of(segments, (position,)).get(position, (0, 0))
    if expires_ms and expires_ms <= now:
        return _why(position, WhyReason.EXPIRED, f"its time was over at {expires_ms}, in ms since the epoch")
    if due_ms > now:
        detail = f"it was published with a delay and is due at {due_ms}, in ms since the epoch"
        return _why(position, WhyReason.DELAYED, detail, until_ms=due_ms, attempts=0)
    attempts = s.attempts.of(position) if s.is_ahead(position) else 0
    if attempts and (due_ms := s.backoffs.due_ms(position, now)):
        detail = f"it came back before the gateway's start and is due at {due_ms}, in ms since the epoch"
        return _why(position, WhyReason.BACKOFF, detail, until_ms=due_ms, attempts=attempts)
    return None


def _held_up(s: Subscription, position: int, durable_end: int) -> Why:
    """It is due: what keeps the subscription from giving it to somebody."""
    piece = s.ready_of(position)
    attempts = piece.attempts if piece else s.attempts.of(position)
    if s.settings.paused:
        reason, detail = WhyReason.PAUSED, f"{s.name} is paused; resume it"
    elif not s.consumers:
        reason, detail = WhyReason.NO_CONSUMER, f"nobody is attached to {s.name}"
    elif position >= durable_end:
        reason, detail = WhyReason.WAITING, "it waits for the disk: nothing is delivered before it is durable"
    elif s.unfilled:
        reason, detail = WhyReason.WAITING, f"what {s.name} is due of the past is still being searched"
    elif not s.takers:
        reason, detail = WhyReason.WINDOW, f"{_consumers(s)} as much in flight as the window and the socket allow"
    else:
        reason, detail = WhyReason.WAITING, "it is due, and its turn comes"
    return _why(position, reason, detail, attempts=attempts)


def _consumers(s: Subscription) -> str:
    number = len(s.consumers)
    return "its one consumer has" if number == 1 else f"its {number} consumers have"


_WORDS: Final = {
    Cause.ACKED: (WhyReason.ACKED, "a consumer settled it"),
    Cause.EXPIRED: (WhyReason.EXPIRED, "its time was over before it was settled"),
    Cause.DEAD_LETTERED: (WhyReason.DEAD_LETTERED, "it was given up; a redrive brings it back"),
    Cause.SKIPPED: (WhyReason.SKIPPED, "a seek went past it"),
}


def settled(position: int, cause: Cause | None) -> Why:
    """The answer for a message that is settled; `cause` None where the log does not say any more how."""
    if cause is None:
        return _why(position, WhyReason.SETTLED, "it is settled; the records that say how are gone from the log")
    reason, detail = _WORDS[cause]
    return _why(position, reason, detail)


def cause_of(controls: Iterable[tuple[int, bytes]], position: int) -> Cause | None:
    """How a settled message was settled, from the (kind, body) of its subscription's records since it was stored."""
    cause: Cause | None = None
    for kind, body in controls:
        if kind == Kind.SETTLE:
            number, _, ranges = records.decode_settle(body)
            if cause is None and any(low <= position <= high for low, high in ranges):
                cause = Cause(number)  # later ranges may go across it: they were settled around it
        elif kind == Kind.SEEK:
            cause = (cause or Cause.SKIPPED) if position < records.decode_seek(body)[0] else None
        elif any(low <= position <= high for low, high in records.decode_redrive(body)[1]):
            cause = None
    return cause


def _why(
    position: int,
    reason: WhyReason,
    detail: str,
    *,
    consumer: str | None = None,
    until_ms: int | None = None,
    attempts: int | None = None,
    behind: int | None = None,
) -> Why:
    return Why(
        position=position,
        reason=reason,
        detail=detail,
        consumer=consumer,
        until_ms=until_ms,
        attempts=attempts,
        behind=behind,
    )
