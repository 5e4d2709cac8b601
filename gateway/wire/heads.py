"""Requests that begin with the same bytes as one before need not be parsed again.

A client on a kept-alive connection sends the same request line and the same headers with every publish; only the body
differs. So a head that has been parsed is remembered with what it said, and a request that begins with those very bytes
is that head and a body: 1 us where llhttp and its callbacks take 9. What planes find out about a head, such as whose
call it is, is remembered beside it. Bytes that differ in anything are parsed.
"""

from __future__ import annotations

from typing import Final

from gateway.principal import ANONYMOUS
from gateway.wire.request import Request

_END: Final = b"\r\n\r\n"
_HEADS_MAX: Final = 512
"""In each of two generations: clients times the lengths of their bodies. A rare one costs what parsing costs."""
_HEAD_BYTES_MAX: Final = 1024
"""Longer heads carry cookies and the like, and change. All together are at most 1 MiB."""


class Head:
    """A request without its body, which has `length` bytes. `size`: its own bytes."""

    __slots__ = ("length", "request", "size")

    def __init__(self, request: Request, size: int, length: int) -> None:
        self.request = request
        self.size = size
        self.length = length

    def with_body(self, body: bytes) -> Request:
        request, before = Request.__new__(Request), self.request
        request.method, request.target, request.version = before.method, before.target, before.version
        request.headers, request.keep_alive, request.notes = before.headers, before.keep_alive, before.notes
        request.upgrade, request.principal, request.origin, request.body = False, ANONYMOUS, None, body
        return request


class Heads:
    """Of all connections of a listener."""

    def __init__(self) -> None:
        self._new: dict[bytes, Head] = {}
        self._old: dict[bytes, Head] = {}

    def find(self, data: bytes) -> Head | None:
        """The head that `data`, the beginning of a request, begins with; None where it is not known."""
        end = data.find(_END, 0, _HEAD_BYTES_MAX) + len(_END)
        head = self._new.get(data[:end])
        if head is None and (head := self._old.get(data[:end])) is not None:
            self._keep(data[:end], head)
        return head

    def learn(self, data: bytes, request: Request, length: int) -> None:
        """Remember the head of `request`, which has a body of this length and came, from its beginning, in `data`.

        The body may be cut off there; what comes behind it may not be there.
        """
        end = data.find(_END, 0, _HEAD_BYTES_MAX) + len(_END)
        head = data[:end]
        if end > len(_END) and len(data) <= end + length and head.count(b"\n") == head.count(b"\r\n"):
            bare = Head(request, end, length).with_body(b"")  # the body is not kept
            self._keep(head, Head(bare, end, length))

    def _keep(self, data: bytes, head: Head) -> None:
        if len(self._new) >= _HEADS_MAX:
            self._new, self._old = {}, self._new
        self._new[data] = head
