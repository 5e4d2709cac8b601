"""A trie of topic patterns: which of them match a topic, at a cost of the topic's words and not of their number.

`*` stands for exactly one word, a final `>` for one or more (the rule of NATS subjects).
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.here: dict[T, None] = {}  # patterns that end at this word
        self.rest: dict[T, None] = {}  # patterns that end in > below this word

    def is_empty(self) -> bool:
        return not (self.children or self.here or self.rest)


class TopicTrie(Generic[T]):
    """Values filed under patterns. The same value may stand under several patterns."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, value: T) -> None:
        node = self._root
        words = pattern.split(".")
        for word in words[:-1]:
            node = node.children.setdefault(word, _Node())
        if words[-1] == ">":
            node.rest[value] = None
        else:
            node.children.setdefault(words[-1], _Node()).here[value] = None

    def remove(self, pattern: str, value: T) -> None:
        """Take `value` from `pattern`; KeyError where it is not there."""
        path = [self._root]
        words = pattern.split(".")
        rest = words[-1] == ">"
        for word in words[:-1] if rest else words:
            path.append(path[-1].children[word])
        del (path[-1].rest if rest else path[-1].here)[value]
        for depth in range(len(path) - 1, 0, -1):
            if not path[depth].is_empty():
                break
            del path[depth - 1].children[words[depth - 1]]

    def match(self, topic: str) -> list[T]:
        """The values whose pattern matches `topic`, each once, in no promised order."""
        found: dict[T, None] = {}
        level = [self._root]
        for word in topic.split("."):
            below: list[_Node[T]] = []
            for node in level:
                found.update(node.rest)
                child = node.children.get(word)
                if child is not None:
                    below.append(child)
                child = node.children.get("*")
                if child is not None:
                    below.append(child)
            level = below
        for node in level:
            found.update(node.here)
        return list(found)


def matches(pattern: str, topic: str) -> bool:
    """Whether one pattern matches one topic."""
    trie: TopicTrie[bool] = TopicTrie()
    trie.add(pattern, True)
    return bool(trie.match(topic))
