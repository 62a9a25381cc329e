"""The start page answers the questions of newcomers: each is a link to the section that has the answer."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
# Words of the question, and what the section must show.
QUESTIONS = {
    "two models of one vendor": ["openai/gpt-5.4", "openai/gpt-5-mini"],
    "seat degraded": ["result.warnings", "result.errors"],
    "cap money": ["Budget(usd="],
    "a dataclass": ["output_type=Review", "dataclasses"],
    "test without keys": ["ScriptedProvider("],
    "go on from an answer": ["history=first"],
    "Where are runs stored": ['store="runs.db"', "LLM_COUNCIL_STORE"],
    "add my gateway": ["base_url", "[providers.gateway]"],
    "my data sent anywhere": ["It sends your task to the", "SECURITY.md"],
    "Does a council pay": ["council eval"],
    "error message mean": ["messages"],
}


def slug(heading: str) -> str:
    """The anchor that a code host and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def sections(page: Path) -> dict[str, str]:
    """The text below each heading of a page, up to the next one of the same level, by its anchor."""
    text = re.sub(r"^```.*?^```$", hide_comments, page.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^(#+) (.*)$", text, flags=re.MULTILINE)
    found: dict[str, str] = {}
    open_sections: list[tuple[int, str]] = []
    for marks, heading, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        open_sections = [(level, anchor) for level, anchor in open_sections if level < len(marks)]
        open_sections.append((len(marks), slug(heading)))
        for _, anchor in open_sections:
            found[anchor] = found.get(anchor, "") + body
    return found


def hide_comments(block: re.Match[str]) -> str:
    return re.sub(r"^#", " #", block[0], flags=re.MULTILINE)


def linked_questions() -> dict[str, str]:
    return dict(re.findall(r"^- \[(.+\?)\]\((.+)\)$", sections(DOCS / "index.md")["questions"], re.MULTILINE))


@pytest.mark.parametrize("words", QUESTIONS)
def test_a_question_of_a_newcomer_is_one_click_from_its_answer(words: str) -> None:
    (target,) = [
        target for question, target in linked_questions().items() if all(word in question for word in words.split())
    ]
    page, _, anchor = target.partition("#")
    answer = sections(DOCS / (page or "index.md"))[anchor]
    assert [shown for shown in QUESTIONS[words] if shown not in answer] == []


def test_every_question_of_the_start_page_is_tested() -> None:
    assert len(linked_questions()) == len(QUESTIONS)
