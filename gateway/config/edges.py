"""What comes in and goes out: listeners, HTTP, WebSocket, long-poll, and what a call may hold."""

from __future__ import annotations

import attrs

from gateway.config.setting import KIB, MIB, setting


@attrs.frozen(kw_only=True)
class Listen:
    """Where the gateway accepts connections."""

    data: str = setting("127.0.0.1:8080", "HOST:PORT of the data plane: HTTP and WebSocket. Port 0 takes a free one.")
    control: str = setting("127.0.0.1:8081", "HOST:PORT of the control plane.")
    insecure: bool = setting(False, "Listen beyond loopback although no credentials are configured.")
    backlog: int = setting(1024, "Connections the kernel holds until they are accepted.", 1, 65535)
    connections_max: int = setting(
        20_000, "Open connections of each plane; an idle one takes about 26 KiB.", 1, 1_000_000
    )
    connections_per_address_max: int = setting(
        0,
        "Open connections of one remote address on each plane; 0 for no limit but connections_max. Behind a proxy all "
        "clients have the proxy's address.",
        0,
        1_000_000,
    )


@attrs.frozen(kw_only=True)
class Http:
    """Limits and deadlines of HTTP/1.1, on both planes."""

    request_line_bytes_max: int = setting(8 * KIB, "Longest request target; a longer one is answered 414.", 64, MIB)
    header_bytes_max: int = setting(
        32 * KIB, "All headers of a request; more is answered 431. Holds 16 KiB of attributes.", 256, MIB
    )
    headers_max: int = setting(128, "Number of headers of a request; more is answered 431.", 4, 10_000)
    body_bytes_max: int = setting(
        6 * MIB, "Largest body; more is answered 413. Holds a batch of 4 MiB in base64.", KIB, 2**31
    )
    header_timeout_s: float = setting(
        10.0, "From the first byte of a request to the end of its headers; then 408.", 0.05, 3600
    )
    body_timeout_s: float = setting(60.0, "From the end of the headers to the end of the body; then 408.", 0.05, 86400)
    idle_timeout_s: float = setting(
        75.0, "A kept-alive connection without a request is closed after this.", 0.05, 86400
    )
    write_timeout_s: float = setting(
        30.0, "A client that takes no byte of what it is due for this long is disconnected.", 0.05, 3600
    )


@attrs.frozen(kw_only=True)
class Limits:
    """What one message, batch or call may hold; `welcome` shows these."""

    payload_bytes_max: int = setting(MIB, "Payload of one message.", 1, 2**30)
    attributes_bytes_max: int = setting(16 * KIB, "Names and values of one message's attributes together.", 0, MIB)
    id_chars_max: int = setting(128, "Characters of a message id or key.", 1, 4096)
    batch_messages_max: int = setting(1000, "Messages in one publish call.", 1, 100_000)
    batch_bytes_max: int = setting(4 * MIB, "Payload bytes in one publish call.", 1, 2**30)
    delay_ms_max: int = setting(30 * 24 * 3600 * 1000, "Longest delay of a message: 30 days.", 0, 2**40)
    dedup_window_s: int = setting(120, "How long a repeated id is recognised.", 0, 86400)
    dedup_ids_max: int = setting(
        1_000_000, "Ids remembered for that; the oldest half is forgotten early beyond it.", 2, 2**32
    )


@attrs.frozen(kw_only=True)
class Ring:
    """The bounded channels between stages."""

    items_max: int = setting(256, "Batches that may wait in front of one stage.", 1, 65536)
    bytes_max: int = setting(
        64 * MIB,
        "Bytes of publishes under way in all stages together; holds several of the largest batches.",
        MIB,
        2**34,
    )
    wait_ms: int = setting(
        5000, "How long a producer waits for a place in a full ring before it is told `overloaded`.", 0, 600_000
    )


@attrs.frozen(kw_only=True)
class WebSocket:
    """The WebSocket edge."""

    frame_bytes_max: int = setting(
        8 * MIB, "Largest message of a client; a larger one closes with 1009. Holds a batch of 4 MiB.", KIB, 2**30
    )
    handshake_timeout_s: float = setting(10.0, "From the upgrade to its end.", 0.05, 600)
    heartbeat_s: float = setting(25.0, "A ping is sent this often.", 0.05, 3600)
    pong_timeout_s: float = setting(8.0, "No pong within this closes with 3012.", 0.05, 3600)
    close_timeout_s: float = setting(5.0, "How long a closing handshake may take before the socket is cut.", 0.05, 600)
    unsent_bytes_max: int = setting(
        MIB,
        "Bytes that may wait for one client's socket; beyond it nothing more is leased to it or read from it.",
        4 * KIB,
        2**30,
    )
    subscriptions_max: int = setting(1000, "Subscriptions one connection may attach to.", 1, 1_000_000)


@attrs.frozen(kw_only=True)
class Pull:
    """Long-poll: pull turned to push."""

    messages_max: int = setting(1000, "Largest `max` of a pull.", 1, 100_000)
    bytes_max: int = setting(4 * MIB, "Largest `max_bytes` of a pull.", KIB, 2**30)
    wait_ms_max: int = setting(300_000, "Largest `wait_ms` of a pull.", 0, 86_400_000)
    waiting_max: int = setting(20_000, "Pulls that may wait at once; beyond it `pull_limit`.", 1, 1_000_000)


@attrs.frozen(kw_only=True)
class Quota:
    """How much one principal may publish; more is refused with `quota_exceeded` (429)."""

    messages_per_s: float = setting(0.0, "Messages a second; 0 for no quota.", 0, 1e9)
    bytes_per_s: float = setting(0.0, "Bytes a second, as received; 0 for no quota.", 0, 1e12)
    burst_s: float = setting(
        1.0, "A principal that rested may have so many seconds' worth at once; a batch is taken whole.", 0.1, 3600
    )


@attrs.frozen(kw_only=True)
class Shutdown:
    """The drain."""

    drain_s: float = setting(10.0, "Clients have this long to finish after TERM or INT; then they are cut.", 0, 3600)
    reconnect_ms_min: int = setting(500, "Lower end of the spread that `drain` tells clients to wait.", 0, 600_000)
    reconnect_ms_max: int = setting(20_000, "Upper end of that spread.", 0, 3_600_000)
