"""An HTTP request as the edge has it: whole, and parsed."""

from __future__ import annotations

from gateway.principal import ANONYMOUS, Principal


class Request:
    """One complete request. `headers` have lower-case names, in order; `target` is as it was sent."""

    __slots__ = (
        "body",
        "headers",
        "keep_alive",
        "method",
        "notes",
        "origin",
        "principal",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.keep_alive = True
        self.upgrade = False
        """The client asks for WebSocket."""
        self.principal: Principal = ANONYMOUS
        """Who asks, once the edge has looked at its credentials."""
        self.origin: bytes | None = None
        """The web page that may read the answer (the Fetch standard's CORS), once the edge has permitted it."""
        self.notes: dict[object, object] = {}
        """What was found out about the head alone, by whoever found it; shared by all requests that begin the same."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def path(self) -> bytes:
        path = self.target.partition(b"?")[0]
        if path[:4].lower() == b"http":  # the absolute form (RFC 9112 §3.2.2)
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        return path

    @property
    def query(self) -> bytes:
        return self.target.partition(b"?")[2]
