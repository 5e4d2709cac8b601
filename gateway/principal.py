"""Who asks, and what that one may do: the word that travels with every request, batch and connection.

A `Principal` is made once, when a credential has been checked, and asked for as long as the credential is good. What it
may do is five scopes, each a set of patterns (`*` stands for one word, a final `>` for one or more):

    publish     topics it may publish to
    subscribe   subscriptions it may consume: subscribe, pull and settle
    view        subscriptions it may look at in the control plane; `>`: the gateway as a whole too
    admin       subscriptions it may create, change and delete; `>`: the gateway as a whole too
    read        topics that the subscriptions it makes may read

`admin` implies `view` of the same subscriptions, and on everything `read` of everything; nothing else implies anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from gateway.errors import GatewayError

_KNOWN_MAX: Final = 10_000
"""Answers remembered for each scope; beyond it the memory starts anew."""


class Scope:
    """A set of patterns, and whether it covers a topic, a name, or every topic of another pattern."""

    __slots__ = ("_covered", "_literal", "_match", "everything", "patterns")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        self.everything = ">" in self.patterns
        self._literal = frozenset(pattern for pattern in self.patterns if "*" not in pattern and ">" not in pattern)
        self._match: Callable[[str], object] | None = None  # compiled when it is first needed: 100 us
        self._covered: set[str] = set()

    def covers(self, text: str) -> bool:
        """Whether one of the patterns covers `text`: 0.05 us where it was asked before.

        A pattern covers another where it covers every topic of it. A union is not looked at: `a.b` and `a.*` apart.
        """
        if self.everything or text in self._covered or text in self._literal:
            return True
        if len(self._literal) == len(self.patterns):
            return False
        if self._match is None:
            wild = [_expression(pattern) for pattern in self.patterns if pattern not in self._literal]
            self._match = re.compile("|".join(wild)).fullmatch
        if self._match(text) is None:
            return False
        if len(self._covered) >= _KNOWN_MAX:
            self._covered.clear()
        self._covered.add(text)
        return True

    def covers_all(self, texts: set[str]) -> bool:
        """Whether each of `texts` is covered: one comparison of sets where all were asked before."""
        return self.everything or texts <= self._covered or all(map(self.covers, texts))

    def __repr__(self) -> str:
        return f"Scope({list(self.patterns)})"


def _expression(pattern: str) -> str:
    """A pattern as a regular expression over topics and patterns: its `*` takes a word or a `*`, its `>` takes all."""
    words = [r"[^.>]+" if word == "*" else re.escape(word) for word in pattern.split(".")]
    if pattern.endswith(">"):
        words[-1] = ".+"
    return r"\.".join(words)


NOTHING: Final = Scope()
EVERYTHING: Final = Scope([">"])


@attrs.frozen(kw_only=True, eq=False)
class Principal:
    """See the module. Compared by identity: a credential checked anew is a new one, with what it may do now."""

    name: str
    publish: Scope = NOTHING
    subscribe: Scope = NOTHING
    view: Scope = NOTHING
    admin: Scope = NOTHING
    read: Scope = NOTHING
    expires_ms: int | None = None
    """When its credential ends, in milliseconds since the epoch; None where it does not."""
    quota: str = ""
    """The name of the quota it publishes under; empty: its own name."""
    credential: object = attrs.field(default=None, repr=False)
    """What it was made from, for `auth` to make it anew; nobody else looks at it."""

    def may_publish(self, topic: str) -> bool:
        return self.publish.covers(topic)

    def may_subscribe(self, subscription: str) -> bool:
        return self.subscribe.covers(subscription)

    def may_view(self, subscription: str = ">") -> bool:
        """Whether it may look at this subscription; without an argument, at the gateway as a whole."""
        return self.view.covers(subscription) or self.admin.covers(subscription)

    def may_admin(self, subscription: str = ">") -> bool:
        """Whether it may change this subscription; without an argument, the gateway as a whole."""
        return self.admin.covers(subscription)

    def may_read(self, pattern: str) -> bool:
        """Whether its subscriptions may read this topic, or every topic of this pattern."""
        return self.admin.everything or self.read.covers(pattern)

    def denied(self, what: str) -> GatewayError:
        """The error for what it may not do; `what` goes on "may not ..."."""
        return GatewayError(
            "permission_denied", f"principal {self.name!r} may not {what}; ask the operator to permit it"
        )


ANONYMOUS: Final = Principal(
    name="", publish=EVERYTHING, subscribe=EVERYTHING, view=EVERYTHING, admin=EVERYTHING, read=EVERYTHING
)
"""Everybody, while no credentials are configured: may do everything, and is asked for nothing."""

NOBODY: Final = Principal(name="")
"""A client that has to say who it is, and has not yet; it may do nothing."""
