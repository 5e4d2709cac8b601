"""Sections that are lists of tables, `[[name]]`, and the types that come with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from gateway.config import entries, generate, load, reference
from gateway.config.setting import required, setting
from gateway.config.settings import Limits
from gateway.errors import ConfigError


@attrs.frozen(kw_only=True)
class Pet:
    """An animal of the house."""

    name: str = required("What it is called.")
    kind: str = setting("cat", "cat or dog.", choices=("cat", "dog"))
    legs: int = setting(4, "Legs.", 0, 8)
    eats: tuple[str, ...] = setting((), "What it eats.", choices=("fish", "meat"))
    more: dict[str, Any] = setting({}, "Whatever.")

    def __attrs_post_init__(self) -> None:
        if self.kind == "dog" and "fish" in self.eats:
            raise ValueError("eats: a dog eats no fish; leave it out")


@attrs.frozen(kw_only=True)
class House:
    limits: Limits = attrs.field(factory=Limits)
    pet: tuple[Pet, ...] = ()


def load_text(directory: Path, text: str) -> House:
    file = directory / "house.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, None, None, House)


def test_each_table_of_a_list_is_an_entry(tmp_path: Path) -> None:
    text = '[[pet]]\nname = "a"\n[[pet]]\nname = "b"\nkind = "dog"\neats = ["meat"]\n[pet.more]\nx = 1\n'
    assert load_text(tmp_path, text).pet == (Pet(name="a"), Pet(name="b", kind="dog", eats=("meat",), more={"x": 1}))


def test_no_table_is_an_empty_list(tmp_path: Path) -> None:
    assert load_text(tmp_path, "") == House()


WRONG: list[tuple[str, str, str]] = [
    ("[pet]\nname = 'a'\n", "pet", "must be a list of tables; write [[pet]]"),
    ("pet = 3\n", "pet", "must be a list of tables; write [[pet]]"),
    ("pet = [3]\n", "pet[0]", "must be a table; write [[pet]]"),
    ("[[limits]]\n", "limits", "must be a table; write [limits]"),
    ("[[pet]]\n", "pet[0]", "name is missing: What it is called."),
    ("[[pet]]\nname = 'a'\n[[pet]]\nnane = 'b'\n", "pet[1].nane", "unknown key; did you mean name?"),
    ("[[pet]]\nname = 'a'\n[[pet]]\nname = 'a'\n", "pet[1].name", "is the name of "),
    ("[[pet]]\nname = 1\n", "pet[0].name", "must be text"),
    ("[[pet]]\nname = 'a'\nkind = 'cow'\n", "pet[0].kind", "'cow': use cat or dog"),
    ("[[pet]]\nname = 'a'\nlegs = 9\n", "pet[0].legs", "9 is too large"),
    ("[[pet]]\nname = 'a'\neats = 'fish'\n", "pet[0].eats", "must be a list of texts"),
    ("[[pet]]\nname = 'a'\neats = ['fish', 1]\n", "pet[0].eats", "must be a list of texts"),
    ("[[pet]]\nname = 'a'\neats = ['fish', 'hay']\n", "pet[0].eats", "'hay': use fish or meat"),
    ("[[pet]]\nname = 'a'\nmore = 3\n", "pet[0].more", "must be a table"),
    ("[[pet]]\nname = 'a'\nkind = 'dog'\neats = ['fish']\n", "pet[0]", "eats: a dog eats no fish; leave it out"),
]


@pytest.mark.parametrize(("text", "where", "mend"), WRONG)
def test_what_is_wrong_in_an_entry_is_named_with_its_place_and_mend(
    tmp_path: Path, text: str, where: str, mend: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'house.toml'}: {where}: ")
    assert mend in str(caught.value)


def test_a_list_does_not_come_from_the_environment() -> None:
    with pytest.raises(ConfigError, match="environment: GATEWAY_PET__NAME: unknown setting"):
        load(None, {"GATEWAY_PET__NAME": "a"}, None, House)


def test_the_generated_file_has_an_entry_to_uncomment(tmp_path: Path) -> None:
    text = generate(House)
    assert '\n# An animal of the house.\n# [[pet]]\n# What it is called.\n# name = ""\n' in text
    assert load_text(tmp_path, text) == House()
    uncommented = re.sub(r"^# (?=\[\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)
    assert load_text(tmp_path, uncommented) == House(pet=(Pet(name=""),))


def test_the_reference_says_what_is_required_and_where() -> None:
    table = reference(House)
    assert "| `pet[].name` | required | What it is called. |" in table
    assert "| `pet[].eats` | `[]` | What it eats. |" in table
    assert [entry.type for entry in entries(House) if entry.repeated] == ["str", "str", "int", "list", "table"]
