import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.topics import TopicTrie, matches

words = st.sampled_from(["a", "b", "trade"])
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda body, rest: ".".join([*body, ">"] if rest or not body else body),
    st.lists(st.one_of(words, st.just("*")), max_size=4),
    st.booleans(),
)
filed = st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=25)


def naive_match(pattern: str, topic: str) -> bool:
    """The model: protocol.md §1, word by word."""
    pattern_words, topic_words = pattern.split("."), topic.split(".")
    if pattern_words[-1] == ">":
        pattern_words.pop()
        if len(topic_words) <= len(pattern_words):
            return False
        topic_words = topic_words[: len(pattern_words)]
    return len(pattern_words) == len(topic_words) and all(
        word in ("*", there) for word, there in zip(pattern_words, topic_words, strict=True)
    )


@given(filed=filed, removed=filed, topic=topics)
def test_the_trie_finds_each_value_once_where_a_pattern_of_it_matches(
    filed: list[tuple[str, int]], removed: list[tuple[str, int]], topic: str
) -> None:
    trie: TopicTrie[int] = TopicTrie()
    model: set[tuple[str, int]] = set()
    for pattern, value in filed:
        trie.add(pattern, value)
        model.add((pattern, value))
    for pattern, value in removed + filed[::2]:
        if (pattern, value) in model:
            trie.remove(pattern, value)
            model.remove((pattern, value))
        else:
            with pytest.raises(KeyError):
                trie.remove(pattern, value)
    found = trie.match(topic)
    assert sorted(found) == sorted({value for pattern, value in model if naive_match(pattern, topic)})


@given(pattern=patterns, topic=topics)
def test_one_pattern_matches_as_the_trie_does(pattern: str, topic: str) -> None:
    assert matches(pattern, topic) == naive_match(pattern, topic)


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("trade.order.paid", "trade.order.paid", True),
        ("trade.order", "trade.order.paid", False),
        ("trade.order.paid", "trade.order", False),
        ("trade.*.paid", "trade.order.paid", True),
        ("trade.*", "trade.order.paid", False),
        ("*", "trade", True),
        ("trade.>", "trade.order.paid", True),
        ("trade.>", "trade.order", True),
        ("trade.>", "trade", False),
        ("trade.>", "trader.order", False),
        (">", "trade", True),
        ("*.>", "trade", False),
        ("*.>", "trade.order", True),
    ],
)
def test_star_is_one_word_and_a_final_angle_one_or_more(pattern: str, topic: str, expected: bool) -> None:
    assert matches(pattern, topic) is expected


def test_a_value_under_overlapping_patterns_is_found_once() -> None:
    trie: TopicTrie[str] = TopicTrie()
    for pattern in (">", "trade.>", "trade.*", "trade.order"):
        trie.add(pattern, "orders")
    assert trie.match("trade.order") == ["orders"]


def test_removing_one_pattern_leaves_the_others_of_the_same_value() -> None:
    trie: TopicTrie[str] = TopicTrie()
    trie.add("trade.order", "orders")
    trie.add("trade.order.>", "orders")
    trie.remove("trade.order", "orders")
    assert trie.match("trade.order") == []
    assert trie.match("trade.order.paid") == ["orders"]


@given(filed)
def test_a_trie_from_which_all_is_removed_keeps_no_nodes(filed: list[tuple[str, int]]) -> None:
    trie: TopicTrie[int] = TopicTrie()
    for pattern, value in filed:
        trie.add(pattern, value)
    for pattern, value in set(filed):
        trie.remove(pattern, value)
    assert trie._root.is_empty()
