"""What a terminal gets to see: models' words shown, never obeyed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.cli._output import visible
from llm_council.results.plain import as_text


@given(st.text(alphabet=st.characters(codec=None)))
def test_visible_leaves_no_control_character(text: str) -> None:
    shown = visible(text)
    left = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"}
    assert not left
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_visible_does_not_change_plain_text(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("\x9b31mred", "<U+009B>31mred"),
        ("a\u202eb", "a<U+202E>b"),
        ("line\r\nnext\ttab", "line\nnext\ttab"),
        ("over\rwritten", "over␍written"),
        ("\ud83d", "?"),
        ("\x7f", "␡"),
    ],
)
def test_visible_replaces_known_terminal_tricks(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_as_text_indents_a_json_answer() -> None:
    answer = {
        "verdict": "approve",
        "all_tests": True,
        "nothing": None,
        "notes": "one\ntwo",
        "issues": [{"path": "a.py", "lines": [1, 2]}, {"path": "b.py", "lines": []}],
    }
    assert as_text(answer).splitlines() == [
        "verdict: approve",
        "all tests: yes",
        "nothing: -",
        "notes:",
        "  one",
        "  two",
        "issues:",
        "  - path: a.py",
        "    lines:",
        "      - 1",
        "      - 2",
        "  - path: b.py",
        "    lines: none",
    ]


def test_as_text_returns_a_string_unchanged() -> None:
    assert as_text("as it is\n\n  kept") == "as it is\n\n  kept"
    assert as_text(["a", ["b"]]) == "- a\n- - b"
