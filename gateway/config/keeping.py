"""What lies on the disk: the store, the trace, the marks of the file system, and what the process says of itself."""

from __future__ import annotations

import re

import attrs

from gateway.config.setting import KIB, MIB, setting


@attrs.frozen(kw_only=True)
class Store:
    """The embedded log store."""

    directory: str = setting("data", "Directory of the store; made where it is missing. One process a directory.")
    segment_bytes: int = setting(
        64 * MIB, "Size at which a segment is sealed; it is freed as a whole.", 64 * KIB, 2**31
    )
    segment_age_s: int = setting(
        86_400, "Age at which a segment is sealed whatever its size, so that retention can free it.", 1, 10**8
    )
    indexes_max: int = setting(
        32, "Sealed segments whose index is mapped at once; each takes the pages of it that are used.", 2, 100_000
    )
    maps_max: int = setting(
        8, "Sealed segments that are mapped at once to be read from; 8 MiB of each are resident at most.", 1, 100_000
    )
    cache_bytes: int = setting(
        32 * MIB, "Recent message bodies kept in memory; older ones are read from the log.", 0, 2**40
    )
    pending_bytes_max: int = setting(
        64 * MIB, "Bytes that may wait for the disk; beyond it the append stage waits.", MIB, 2**34
    )
    commit_rest_ms: float = setting(
        1.0,
        "Rest between two commits while many small ones would take most of the run loop: it is what they wait "
        "longer, and what they save is up to half of the processor time; 0: never.",
        0,
        100,
    )
    io_uring: bool = setting(
        True,
        "Commits are written and synced by the kernel itself (io_uring), where it lets us: less of their time, and no "
        "thread of ours; false: always by the thread.",
    )
    lazy_sync_ms: int = setting(50, "Acks that nobody waits for reach the disk within this time.", 0, 10_000)
    merge_live_share: float = setting(
        0.25,
        "Neighbouring segments of which no more than this share is still due are merged: a byte is moved only where "
        "three go; 0: never.",
        0,
        0.9,
    )
    merge_interval_s: float = setting(
        10.0,
        "Pause between two looks for segments to merge; each merge takes a checkpoint.",
        0.01,
        86400,
    )
    merge_bytes_per_s: int = setting(
        8 * MIB, "What merging moves in a second at most: it shares the disk with publishes.", KIB, 2**40
    )
    scrub_interval_s: float = setting(
        604_800.0,
        "Sealed segments are read and checked once in this time, evenly, so that damage is found while there is a "
        "backup; 0: never.",
        0,
        10**8,
    )
    scrub_bytes_per_s: int = setting(
        8 * MIB, "What that reads in a second at most: it shares the disk with publishes.", 64 * KIB, 2**40
    )


@attrs.frozen(kw_only=True)
class Disk:
    """Marks of the store's file system: the larger of bytes and share counts. Reads and acks go on at either."""

    low_free_bytes: int = setting(512 * MIB, "Below this a warning is logged, and /healthz is degraded.", 0, 2**60)
    low_free_share: float = setting(0.02, "The same as a share of the file system.", 0, 1)
    high_free_bytes: int = setting(
        128 * MIB, "Below this publishes are refused with `disk_full` (503), until there is room again.", 0, 2**60
    )
    high_free_share: float = setting(0.0, "The same as a share of the file system.", 0, 1)


@attrs.frozen(kw_only=True)
class Trace:
    """What happened to every message, kept for a while beside the store."""

    enabled: bool = setting(True, "Keep a trace.")
    directory: str = setting("", "Directory of the trace; empty: `trace` in the store's. One process a directory.")
    segment_bytes: int = setting(
        16 * MIB, "Size at which a file of the trace is sealed; it is deleted as a whole.", 64 * KIB, 2**30
    )
    retention_bytes: int = setting(
        1024 * MIB,
        "Beyond this the oldest files are deleted; a million messages take 1 MiB in batches, 14 one by one.",
        MIB,
        2**50,
    )
    retention_s: int = setting(7 * 86400, "Files whose last event is older are deleted: 7 days.", 60, 10 * 365 * 86400)
    buffer_bytes_max: int = setting(
        4 * MIB, "Events that may wait to be written; beyond it they are dropped and counted.", 64 * KIB, 2**30
    )
    flush_ms: int = setting(
        100, "Events are written this long after the first that waits; a killed gateway loses so much.", 1, 60_000
    )
    export_file: str = setting("", "Write the trace as JSON lines to this file too; empty: do not.")
    export_bytes_max: int = setting(64 * MIB, "Size at which that file is renamed to FILE.1.", 64 * KIB, 2**40)
    export_files_max: int = setting(5, "How many of those files are kept, the current one included.", 1, 1000)
    otlp_endpoint: str = setting(
        "",
        "Send spans of messages with a sampled `traceparent` here by OTLP, such as http://collector:4318/v1/traces; "
        "needs the extra `otlp`. Empty: do not.",
    )
    otlp_messages_max: int = setting(
        100_000, "Messages followed for that at once, 1 KiB each; beyond it the oldest have no more spans.", 1, 10**8
    )

    def __attrs_post_init__(self) -> None:
        if self.otlp_endpoint and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.otlp_endpoint):
            raise ValueError(f"otlp_endpoint: {self.otlp_endpoint!r}: write http://HOST:PORT/v1/traces, or https://")


@attrs.frozen(kw_only=True)
class Log:
    """What the process says of itself, on standard error."""

    level: str = setting("info", "debug, info, warning or error.", choices=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto", "console, json, or auto: console on a terminal, else json.", choices=("console", "json", "auto")
    )
