"""JSON as producers really write it: odd whitespace, escapes, big and split-hair numbers, names twice."""

from __future__ import annotations

import json

from hypothesis import strategies as st

_SPACES = st.text(alphabet=" \t\n\r", max_size=3)
_NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(["1.0", "1", "1.00", "-0", "-0.0", "0e0", "1E5", "1e+05", "12.5e-3", "9007199254740993", "0.1"]),
    st.tuples(st.integers(-999, 999), st.integers(0, 10**25), st.integers(-99, 99)).map("{0[0]}.{0[1]}e{0[2]}".format),
)
_ESCAPES = st.sampled_from(
    [
        "\\u0041",
        "\\u00e4",
        "\\uD83D\\uDE00",
        "\\ud83d\\ude00",
        "\\/",
        "/",
        "\\b\\f\\n\\r\\t",
        '\\"',
        "\\\\",
        "\\u0000",
        "\x7f",
        "\u2028",
    ]
)
_PLAIN = st.text(st.characters(codec="utf-8"), max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1])
_STRINGS = st.lists(st.one_of(_ESCAPES, _PLAIN), max_size=4).map(lambda parts: '"' + "".join(parts) + '"')
_SCALARS = st.one_of(_NUMBERS, _STRINGS, st.sampled_from(["true", "false", "null"]))


@st.composite
def _spaced(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return draw(_SPACES) + draw(inner) + draw(_SPACES)


def _nested(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    values = _spaced(children)
    names = st.one_of(st.sampled_from(['"a"', '"b"', '""']), _STRINGS)  # few names, so that they come twice
    members = st.tuples(_spaced(names), values).map(":".join)
    return st.one_of(
        st.lists(values, max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
        st.lists(members, max_size=4).map(lambda parts: "{" + ",".join(parts) + "}"),
    )


json_texts = st.recursive(_SCALARS, _nested, max_leaves=8)
"""Texts of one JSON value, without whitespace around it."""
