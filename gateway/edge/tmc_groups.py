"""Which of an application's groups gets a message, and which users it may see messages of at all.

The platform's rules, in their order: the producer's target group, then the user's group, then the topic's group, else
`default`. A message of a user goes to an application only while that user has permitted it, for the topics that the
permit names, or for all of the application's where it names none. A message that is nobody's needs no permit.

What a message says of its user and its group are attributes, which any producer may set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.wire.top import TopError, invalid

DEFAULT: Final = "default"
NICK: Final = "tmc_user_nick"
USER_ID: Final = "tmc_user_id"
TARGET: Final = "tmc_target_group"
PUBLISHER: Final = "tmc_publisher"
GROUP_CHARS_MAX: Final = 32
GROUPS_MAX: Final = 1000
"""Groups of one application: each is a subscription, and is asked about each of its topics' messages."""
USERS_MAX: Final = 1_000_000
"""Users of one application; one takes about 300 bytes of memory."""
_WORD: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


class User(msgspec.Struct, forbid_unknown_fields=True):
    """A user who has permitted the application to see messages."""

    created_ms: int
    modified_ms: int
    topics: list[str] | None = None
    """None: all that the application has, now and later."""
    group: str = ""
    platform: str = "tbUIC"


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """What of an application outlives the process."""

    groups: dict[str, int] = {}
    """By name, when it was made; `default` is not among them."""
    users: dict[str, User] = {}


class Groups:
    """The groups and permits of one application. Synchronous; whoever changes it saves `kept`."""

    def __init__(self, topics: tuple[str, ...], topic_groups: Mapping[str, str], kept: Kept) -> None:
        self.kept = kept
        self._topics = topics
        self._topic_groups = dict(topic_groups)

    def choose(self, topic: str, attributes: Mapping[str, str]) -> str | None:
        """The group that gets the message; None where the application does not."""
        kept = self.kept
        user = None
        nick = attributes.get(NICK)
        if nick:
            user = kept.users.get(nick)
            if user is None or (user.topics is not None and topic not in user.topics):
                return None
        target = attributes.get(TARGET)
        if target and (target in kept.groups or target == DEFAULT):
            return target
        if user is not None and user.group in kept.groups:
            return user.group
        group = self._topic_groups.get(topic, DEFAULT)
        return group if group in kept.groups else DEFAULT

    # ------------------------------------------------------------------------------------------------- permits

    def permit(self, nick: str, topics: list[str], platform: str, now: int) -> list[str]:
        """Let the application see the messages of a user; the topics that this takes away from an earlier permit."""
        users = self.kept.users
        user = users.get(nick)
        before: set[str] = set()
        if user is None:
            if len(users) >= USERS_MAX:
                raise TopError("insufficient_permissions", f"the application has {USERS_MAX} users already")
            user = users[nick] = User(now, now)
        else:
            before = set(self._topics if user.topics is None else user.topics)
        user.topics = topics or None
        user.platform = platform
        user.modified_ms = now
        return sorted(before - set(topics)) if topics else []

    def cancel(self, nick: str) -> bool:
        """Take a user's permit back; False where there was none."""
        return self.kept.users.pop(nick, None) is not None

    # -------------------------------------------------------------------------------------------------- groups

    def check_addition(self, name: str, nicks: list[str]) -> None:
        """Refuse a group that cannot be made, or users who cannot be in it."""
        check_group(name)
        if name not in self.kept.groups and len(self.kept.groups) >= GROUPS_MAX:
            raise TopError("insufficient_permissions", f"the application has {GROUPS_MAX} groups already")
        unknown = [nick for nick in nicks if nick not in self.kept.users]
        if unknown:
            raise invalid("nicks", f"{', '.join(unknown[:10])}: not permitted; call taobao.tmc.user.permit first")

    def add(self, name: str, nicks: list[str], now: int) -> int:
        """Make a group, or add users to it; when it was made."""
        created = self.kept.groups.setdefault(name, now)
        for nick in nicks:
            user = self.kept.users.get(nick)
            if user is not None:
                user.group = name
        return created

    def remove(self, name: str, nicks: list[str]) -> bool:
        """Remove users from a group, all of them where none is named. True where the group itself is gone with them."""
        if name not in self.kept.groups:
            raise invalid("group_name", f"there is no group {name[:GROUP_CHARS_MAX]!r}")
        for nick in nicks or self.members(name):
            user = self.kept.users.get(nick)
            if user is not None and user.group == name:
                user.group = ""
        if nicks and self.members(name):
            return False
        del self.kept.groups[name]
        return True

    def members(self, name: str) -> list[str]:
        return [nick for nick, user in self.kept.users.items() if user.group == name]


def check_group(name: str) -> str:
    """Refuse a name that no group may have. Names that begin with `default` are the platform's own."""
    if not name or len(name) > GROUP_CHARS_MAX or not _WORD.issuperset(name):
        raise invalid("group_name", f"1 to {GROUP_CHARS_MAX} characters of A-Z a-z 0-9 _ -")
    if name.startswith(DEFAULT):
        raise invalid("group_name", f"names that begin with {DEFAULT} are the system's own")
    return name
