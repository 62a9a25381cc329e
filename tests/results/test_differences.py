"""Statements that only one draft makes, found by comparing words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.results.differences import compare
from tests.strategies import examples


def only(**drafts: str) -> dict[str, list[str]]:
    return {seat: list(statements) for seat, statements in compare(drafts).only.items()}


def test_markup_order_and_small_changes_of_wording_are_no_differences() -> None:
    one = "# Advice\n\n**Use PostgreSQL** for the orders. It has `jsonb` with indexes."
    two = "- It has jsonb with good indexes.\n- Use PostgreSQL for the orders!"
    assert only(ann=one, bob=two) == {"ann": [], "bob": []}
    assert compare({"ann": one, "bob": two}).shared == 2


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("The call is safe in all threads.", "The call is not safe in all threads."),
        ("You can use it in all threads.", "You cannot use it in all threads."),
        ("It doesn't lose any of the writes.", "It does lose any of the writes."),
        ("It takes 12 seconds to start here.", "It takes 120 seconds to start here."),
    ],
)
def test_a_negation_or_another_number_is_a_difference(one: str, two: str) -> None:
    assert only(ann=one, bob=two) == {"ann": [one], "bob": [two]}


def test_a_statement_of_two_drafts_is_in_no_list_and_not_shared_by_all() -> None:
    found = compare({"ann": "Use A here. Yes.", "bob": "Use A here. Yes.", "cid": "Take the bus. Yes."})
    assert dict(found.only) == {"ann": (), "bob": (), "cid": ("Take the bus.",)}
    assert found.shared == 1


def test_code_is_compared_line_by_line() -> None:
    assert only(ann="```python\nx = 1\ny = x\n```", bob="```\nx = 2\ny = x\n```") == {
        "ann": ["x = 1"],
        "bob": ["x = 2"],
    }


def test_languages_without_spaces_are_compared_too() -> None:
    assert only(ann="これは猫です。大きい犬がいます。", bob="これは猫です。") == {
        "ann": ["大きい犬がいます。"],
        "bob": [],
    }


def test_a_long_statement_is_cut() -> None:
    (shown,) = only(ann="word " * 1000, bob="other")["ann"]
    assert len(shown) == 600


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=200), max_size=4))
@examples(50)
def test_equal_drafts_have_no_differences_and_every_seat_is_listed(drafts: dict[str, str]) -> None:
    found = compare(drafts)
    assert list(found.only) == list(drafts)
    doubled = compare({f"{seat}{copy}": text for seat, text in drafts.items() for copy in "ab"})
    assert not any(doubled.only.values())
