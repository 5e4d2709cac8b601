"""Groups and permits of an application: who gets a message, by the platform's rules in their order."""

from __future__ import annotations

import msgspec
import pytest

from gateway.edge import tmc_groups
from gateway.edge.tmc_groups import Groups, Kept
from gateway.wire.top import TopError

TOPICS = ("t.a", "t.b", "t.c")


def make() -> Groups:
    groups = Groups(TOPICS, {"t.b": "bees", "t.c": "gone"}, Kept())
    for nick in ("anna", "bert", "城"):
        groups.permit(nick, [], "tbUIC", 1)
    groups.add("vip", ["anna"], 2)
    groups.add("bees", [], 3)
    groups.add("third", [], 4)
    return groups


@pytest.mark.parametrize(
    ("topic", "attributes", "group"),
    [
        ("t.a", {}, "default"),
        ("t.b", {}, "bees"),
        ("t.c", {}, "default"),
        ("t.a", {"tmc_user_nick": "anna"}, "vip"),
        ("t.b", {"tmc_user_nick": "anna"}, "vip"),
        ("t.a", {"tmc_user_nick": "城"}, "default"),
        ("t.b", {"tmc_user_nick": "bert"}, "bees"),
        ("t.b", {"tmc_user_nick": "anna", "tmc_target_group": "third"}, "third"),
        ("t.b", {"tmc_user_nick": "anna", "tmc_target_group": "nothing"}, "vip"),
        ("t.b", {"tmc_target_group": "default"}, "default"),
        ("t.a", {"tmc_user_nick": "stranger"}, None),
        ("t.a", {"tmc_user_nick": "stranger", "tmc_target_group": "third"}, None),
        ("t.a", {"tmc_user_nick": ""}, "default"),
    ],
)
def test_target_group_then_the_users_then_the_topics_else_default(
    topic: str, attributes: dict[str, str], group: str | None
) -> None:
    assert make().choose(topic, attributes) == group


def test_a_permit_without_topics_is_for_all_and_one_with_topics_for_these() -> None:
    groups = make()
    assert groups.choose("t.c", {"tmc_user_nick": "bert"}) == "default"
    groups.permit("bert", ["t.a"], "tbUIC", 5)
    assert groups.choose("t.a", {"tmc_user_nick": "bert"}) == "default"
    assert groups.choose("t.c", {"tmc_user_nick": "bert"}) is None


def test_a_permit_says_what_it_takes_away() -> None:
    groups = make()
    assert groups.permit("new", ["t.a", "t.b"], "tbUIC", 5) == []
    assert groups.permit("new", ["t.b", "t.c"], "tbUIC", 6) == ["t.a"]
    assert groups.permit("new", [], "tbUIC", 7) == []
    assert groups.permit("new", ["t.b"], "tbUIC", 8) == ["t.a", "t.c"], "it had all of the application's"
    user = groups.kept.users["new"]
    assert (user.created_ms, user.modified_ms) == (5, 8)


def test_a_cancelled_user_is_seen_no_more() -> None:
    groups = make()
    assert groups.cancel("anna")
    assert groups.choose("t.a", {"tmc_user_nick": "anna"}) is None
    assert not groups.cancel("anna")


def test_a_group_that_is_removed_leaves_its_users_to_the_default() -> None:
    groups = make()
    assert groups.remove("vip", [])
    assert groups.choose("t.a", {"tmc_user_nick": "anna"}) == "default"
    assert groups.kept.groups.keys() == {"bees", "third"}


def test_a_group_goes_with_its_last_user() -> None:
    groups = make()
    groups.add("vip", ["bert"], 5)
    assert not groups.remove("vip", ["anna", "stranger"])
    assert groups.members("vip") == ["bert"]
    assert groups.remove("vip", ["bert"])
    assert "vip" not in groups.kept.groups


def test_a_user_is_in_one_group_at_a_time() -> None:
    groups = make()
    assert groups.add("vip", [], 9) == 2, "it was made then"
    groups.add("third", ["anna"], 9)
    assert (groups.members("vip"), groups.members("third")) == ([], ["anna"])


@pytest.mark.parametrize("name", ["", "default", "default2", "x" * 33, "组", "a.b", "a b", "../x"])
def test_a_name_that_no_group_may_have(name: str) -> None:
    with pytest.raises(TopError, match="group_name"):
        make().check_addition(name, [])


def test_users_who_have_not_permitted_are_in_no_group() -> None:
    with pytest.raises(TopError, match="stranger: not permitted"):
        make().check_addition("vip", ["anna", "stranger"])


def test_no_more_groups_or_users_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tmc_groups, "GROUPS_MAX", 3)
    monkeypatch.setattr(tmc_groups, "USERS_MAX", 3)
    groups = make()
    with pytest.raises(TopError, match="3 groups already"):
        groups.check_addition("more", [])
    groups.check_addition("vip", [])
    with pytest.raises(TopError, match="3 users already"):
        groups.permit("more", [], "tbUIC", 5)
    groups.permit("anna", [], "tbUIC", 5)


def test_an_unknown_group_is_not_removed() -> None:
    with pytest.raises(TopError, match="there is no group 'nothing'"):
        make().remove("nothing", [])


def test_what_is_kept_comes_back() -> None:
    groups = make()
    kept = msgspec.json.decode(msgspec.json.encode(groups.kept), type=Kept)
    again = Groups(TOPICS, {"t.b": "bees"}, kept)
    assert again.choose("t.a", {"tmc_user_nick": "anna"}) == "vip"
    assert again.members("vip") == ["anna"]
