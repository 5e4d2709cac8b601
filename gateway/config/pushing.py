"""The push side: leases, delivery frames, flow control."""

from __future__ import annotations

import attrs

from gateway.config.setting import KIB, MIB, setting


@attrs.frozen(kw_only=True)
class Deliver:
    """The push side."""

    tick_ms: int = setting(100, "Clock of leases, backoff and delay: all are due within one tick.", 1, 10_000)
    frame_messages_max: int = setting(
        500, "Messages in one delivery frame; keeps one frame's work under a few milliseconds.", 1, 100_000
    )
    frame_bytes_max: int = setting(
        256 * KIB, "Body bytes in one delivery frame; a single larger message goes alone.", KIB, 2**30
    )
    handing_ms: int = setting(
        60_000,
        "A frame that its client's socket has not taken by then goes to others; a longer lease is waited for.",
        1000,
        2**40,
    )
    heap_leases_max: int = setting(
        200_000, "Leases kept as objects, 300 bytes each; beyond it the oldest are moved before their time.", 1, 2**31
    )
    direct_bytes_max: int = setting(
        64 * MIB,
        "Records of old leases and of what backs off, in memory; beyond it in a file. Holds 1.4 million.",
        MIB,
        2**40,
    )
    dead_letter_bytes_max: int = setting(
        16 * MIB, "Bodies of dead letters on their way to their topic; the others wait in the log.", KIB, 2**34
    )
    sweep_ms: int = setting(
        1000, "How often messages that nobody takes are asked whether their time is over.", 10, 60_000
    )
    keys_max: int = setting(
        100_000,
        "Keys of an ordered subscription with a message out, 300 bytes each; others wait.",
        1,
        2**31,
    )
    subscriptions_max: int = setting(100_000, "Subscriptions of one gateway.", 1, 2**31)


@attrs.frozen(kw_only=True)
class Flow:
    """Flow control: how much each WebSocket consumer is given, and what becomes of a slow one."""

    floor_messages: int = setting(8, "The adaptive window does not fall below this many messages.", 1, 1_000_000)
    near_ms: int = setting(
        100, "Ack latencies below this are as good as any; the window shrinks beyond twice the best.", 1, 60_000
    )
    in_flight_bytes_max: int = setting(
        16 * MIB, "Bytes in flight to one consumer; a single larger message goes alone.", 4 * KIB, 2**34
    )
    throttle_after_s: float = setting(
        1.0,
        "A client overdue for this long is given the least: its socket takes nothing, or its leases run out.",
        0.05,
        3600,
    )
    pause_after_s: float = setting(
        10.0, "Overdue for this long, it is given nothing; its leases run out and go to others.", 0.05, 86400
    )
    close_after_s: float = setting(60.0, "Overdue for this long, it is closed with 3008.", 0.05, 86400)
    kernel_bytes_max: int = setting(
        256 * KIB,
        "Unsent bytes that the kernel takes of one connection: so a client that does not read is noticed early.",
        16 * KIB,
        2**30,
    )
    unsent_bytes_max: int = setting(
        256 * MIB,
        "Bytes that may wait for the sockets of all connections together; beyond it those that have stood still for "
        "longest are cut.",
        MIB,
        2**40,
    )
