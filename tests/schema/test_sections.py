"""An answer in prose under headings becomes an object."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._schema import heading_names, heading_of, read_sections
from tests.strategies import examples

NAMES = ("answer", "reasoning")
BOTH = {"answer": "Paris.", "reasoning": "It is the capital."}


@pytest.mark.parametrize(
    "text",
    [
        "## Answer\nParis.\n\n## Reasoning\nIt is the capital.",
        "# ANSWER:\r\n\r\nParis.\r\n\r\n### reasoning ###\r\nIt is the capital.",
        "## **Answer**\nParis.\n## **Reasoning**\nIt is the capital.",
        "**Answer:** Paris.\n\n**Reasoning:** It is the capital.",
        "__Answer__: Paris.\n__Reasoning__\nIt is the capital.",
        "Answer: Paris.\nReasoning: It is the capital.",
        "Answer\n======\nParis.\n\nReasoning\n---------\nIt is the capital.",
        "Here is my answer.\n\n## Answer\nParis.\n## Reasoning\nIt is the capital.",
        "## Reasoning\nIt is the capital.\n\n## Answer\nParis.",
        "Paris.\n\n## Reasoning\nIt is the capital.",
        "<think>## Answer\nRome.</think>\n## Answer\nParis.\n## Reasoning\nIt is the capital.",
    ],
)
def test_usual_forms_of_headings_are_read(text: str) -> None:
    assert read_sections(text, NAMES) == BOTH


def test_other_headings_and_code_stay_in_their_section() -> None:
    answer = "### Steps\n\nAnswer: no heading here.\n\n```text\n## Reasoning\n```\n\n# Notes\nmore"
    assert read_sections(f"## Answer\n{answer}\n\n## Reasoning\nr\n\n## Answer\nagain", NAMES) == {
        "answer": answer,
        "reasoning": "r\n\n## Answer\nagain",
    }


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("Paris, as everybody knows.", {}),
        ("The answer is Paris.\nReasoning about it is easy.", {}),
        ("## Answer\nParis.", {"answer": "Paris."}),
        ("## Answer\n\n## Reasoning\n", {"answer": "", "reasoning": ""}),
        ("## Reasoning\nIt is.", {"reasoning": "It is."}),
        ("", {}),
    ],
)
def test_missing_sections_are_missing(text: str, sections: dict[str, str]) -> None:
    assert read_sections(text, NAMES) == sections


@given(st.text(alphabet=st.sampled_from("#*_:=-`~ \t\nAnswerasoig"), max_size=200))
@examples(100)
def test_any_text_is_read(text: str) -> None:
    for name, section in read_sections(text, NAMES).items():
        assert name in NAMES
        assert section in text


@pytest.mark.parametrize(
    "text",
    ["Answer" + " " * 50_000 + "x", "#" * 50_000, "answer:\n" * 10_000, "```\n" * 10_000, "Answer " + "# " * 9999],
)
@pytest.mark.timeout(20)  # a quadratic expression would take minutes
def test_long_hostile_texts_are_read_in_little_time(text: str) -> None:
    assert set(read_sections(text, NAMES)) <= set(NAMES)


def test_names_are_those_of_a_schema_of_texts() -> None:
    text, number = {"type": "string"}, {"type": "integer"}
    assert heading_names({"properties": {"answer": text, "next_step": text}}) == ("answer", "next_step")
    assert heading_of("next_step") == "## Next step"
    assert read_sections("## next step\nGo.", ("next_step",)) == {"next_step": "Go."}
    for schema in (None, {}, {"properties": {"a": text, "b": number}}, {"properties": []}, {"properties": {"a": True}}):
        assert heading_names(schema) == ()
