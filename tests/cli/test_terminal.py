"""What a terminal gets to see: models' words shown, never obeyed."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.cli._output import print_line, print_note, print_table, visible
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


# Wrapping


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def shown_at_80(monkeypatch: pytest.MonkeyPatch, call: Callable[..., None], *arguments: Any) -> list[str]:
    """Return the lines that a call prints on a terminal of 80 columns."""
    stream = Terminal()
    with monkeypatch.context() as patch:  # not in a fixture: pytest replaces the streams after it
        patch.setattr("sys.stdout", stream)
        patch.setattr("sys.stderr", stream)
        patch.setenv("COLUMNS", "80")
        call(*arguments)
    return stream.getvalue().splitlines()


NOTE = "council: ada gave no draft: HTTP 401 invalid_api_key for this request; check the key in CYD_API_KEY"


def test_notes_are_wrapped_between_words_and_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = shown_at_80(monkeypatch, print_note, NOTE)
    assert len(first) <= 80
    assert second.startswith("  ")
    assert f"{first} {second.strip()}" == NOTE


def test_a_command_at_the_end_of_a_note_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    note = "council: all answers so far are stored; to continue: council resume 8dc6a8ae42cb5a82 --store runs.db"
    assert shown_at_80(monkeypatch, print_note, note)[-1] == "  council resume 8dc6a8ae42cb5a82 --store runs.db"


def test_lines_and_tables_are_not_wrapped_where_another_program_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    print_note(NOTE)
    print_line(NOTE)
    print_table([("a", NOTE)], ("name", "note"))
    out, err = capsys.readouterr()
    assert err == f"{NOTE}\n"
    assert out == f"{NOTE}\nname  note\na     {NOTE}\n"


def test_a_table_that_is_too_wide_wraps_its_cells_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    header = ("seat", "state", "what was found")
    lines = shown_at_80(monkeypatch, print_table, [("openai", "FAULT", NOTE)], header)
    assert lines[0] == "seat    state  what was found"
    assert lines[1].startswith("openai  FAULT  council: ada")
    assert all(len(line) <= 80 and line.startswith(" " * 15) for line in lines[2:])
    assert " ".join(line[15:] for line in lines[1:]) == NOTE


def test_a_table_of_too_many_columns_becomes_a_block_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    header = ("provider", "streaming", "tools", "schemas", "images", "reasoning", "key", "from")
    row = ("anthropic", "yes", "yes", "yes", "yes", "no", "ANTHROPIC_API_KEY_OF_MINE, not set", "llm-council-sdk 1.0")
    lines = shown_at_80(monkeypatch, print_table, [row, row], header)
    assert all(len(line) <= 80 for line in lines)
    assert lines.count("anthropic") == 2
    text = " ".join(" ".join(lines).split())
    assert text.count("streaming: yes") == text.count("key: ANTHROPIC_API_KEY_OF_MINE, not set") == 2
