"""Scores of answers: every scorer, and that a score reads an answer as a vote does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import InvalidOption
from llm_council.evals import EvalTask, read_answer, score
from llm_council.strategies._answer_form import form_of, with_common_keys


def task(scorer: Any, target: Any, choices: tuple[str, ...] = ()) -> EvalTask:
    return EvalTask(id="t", input="?", target=target, scorer=scorer, choices=choices)


CHOICES = ("iron", "pear", "not iron")
TABLE = {"verdict": "Reject", "total": 12.5, "items": [{"n": 2}], "ok": True}


@pytest.mark.parametrize(
    ("scorer", "target", "choices", "given", "value"),
    [
        ("exact", "The Eiffel Tower", (), "I think so.\nANSWER: eiffel tower!", 1),
        ("exact", ["NYC", "New York"], (), "ANSWER: New York", 1),
        ("exact", "red", (), "ANSWER: dark red", 0),
        ("exact", "red", (), "<think>blue</think>Red.", 1),
        ("exact", "red", (), "  ", None),
        ("contains", "dark red", (), "ANSWER: a dark, red wine", 1),
        ("contains", "red", (), "ANSWER: hundred", 0),
        ("exact", "-5", (), "ANSWER: 5", 0),
        ("exact", "-5", (), "ANSWER: \u22125", 1),
        ("exact", "C++", (), "ANSWER: C", 0),
        ("exact", "C++", (), "ANSWER: C#", 0),
        ("exact", "C++", (), "ANSWER: c++.", 1),
        ("exact", "2020-2021", (), "ANSWER: 2020 - 2021", 1),
        ("bool", True, (), "ANSWER: not true", 0),
        ("bool", False, (), "ANSWER: It isn\u2019t true.", 1),
        ("bool", False, (), "ANSWER: No, it is not correct.", 1),
        ("bool", True, (), "ANSWER: never false", 1),
        ("bool", True, (), "ANSWER: It is not the case that it is true.", None),
        ("bool", True, (), "ANSWER: Yes, it does not matter.", 1),
        ("number", 1234.5, (), "ANSWER: 1 234.5", 1),
        ("number", 1234567.5, (), "ANSWER: 1\u2009234\u2009567,5", 1),
        ("number", -12000, (), "ANSWER: -12 000 m", 1),
        ("number", 100, (), "ANSWER: in 2024 100", 1),
        ("number", 18, (), "9 * 2 is\nANSWER: $18.00", 1),
        ("number", "1,800", (), "ANSWER: 1800", 1),
        ("number", 18, (), 18, 1),
        ("number", 0.25, (), "ANSWER: 25 %", 1),
        ("number", 18, (), "ANSWER: 18.1", 0),
        ("number", 18, (), "ANSWER: many", None),
        ({"kind": "number", "rel": 0.01}, 18, (), "ANSWER: 18.1", 1),
        ({"kind": "number", "abs": 0.05}, 0, (), "ANSWER: 0.04", 1),
        ("number", [1, 2], (), "ANSWER: 2", 1),
        ({"kind": "number", "units": {"m": 1, "km": 1000}}, "3 km", (), "ANSWER: 3000 m", 1),
        ({"kind": "number", "units": {"m": 1, "km": 1000}}, 3000, (), "ANSWER: 3 km", 1),
        ({"kind": "number", "units": {"m": 1, "km": 1000}}, 3, (), "ANSWER: 3 miles", None),
        ("choice", "B", CHOICES, "ANSWER: pear", 1),
        ("choice", 1, CHOICES, "ANSWER: b", 1),
        ("choice", "pear", CHOICES, "So (B).\n(B)", 1),
        ("choice", "pear", CHOICES, "ANSWER: iron", 0),
        ("choice", "iron", CHOICES, "ANSWER: not iron", 0),
        ("choice", "iron", CHOICES, "ANSWER: D", None),
        ("choice", "iron", CHOICES, "ANSWER: iron or pear", None),
        ("choice", "pear", CHOICES, "pear", 1),
        ("bool", True, (), "ANSWER: Yes.", 1),
        ("bool", "no", (), False, 1),
        ("bool", "false", (), "ANSWER: true", 0),
        ("bool", True, (), "ANSWER: yes and no", None),
        ("regex", r"\b19\d\d\b", (), "ANSWER: in 1984", 1),
        ({"kind": "regex", "full": True}, r"19\d\d|20\d\d", (), "ANSWER: in 1984", 0),
        ({"kind": "regex", "full": True}, r"(?i)mcmlxxxiv|19\d\d", (), "ANSWER: MCMLXXXIV", 1),
        ("fields", TABLE, (), TABLE, 1),
        ("fields", TABLE, (), {**TABLE, "total": 12, "ok": False}, 0.5),
        ({"kind": "fields", "whole": True}, TABLE, (), {**TABLE, "total": 12}, 0),
        ({"kind": "fields", "paths": ["$.verdict", "items[0].n"]}, TABLE, (), {**TABLE, "total": 9}, 1),
        (
            {"kind": "fields", "paths": [{"path": "$.total", "compare": "number", "abs": 1}]},
            TABLE,
            (),
            {**TABLE, "total": 12},
            1,
        ),
        ("fields", {"a": "x"}, (), 'Here:\n```json\n{"a": "X"}\n```', 1),
        ("fields", {"a": "x"}, (), '{"b": "x"}', None),
        ("fields", {"a": "x"}, (), {"b": "x"}, None),
        ("fields", {"a": "x"}, (), "no", None),
    ],
)
def test_a_score_follows_from_the_answer(
    scorer: Any, target: Any, choices: tuple[str, ...], given: Any, value: float | None
) -> None:
    found = score(task(scorer, target, choices), given)
    assert found.value == value
    assert found.points == (value or 0)
    assert (found.answer is None) == (value is None)


def test_validity_by_the_schema_is_told_apart_from_the_score() -> None:
    fields = task("fields", {"a": "x"})
    assert [score(fields, text).valid for text in ('{"a": "y"}', '{"b": 1}', "none")] == [True, False, None]
    assert score(task("exact", "x"), "x").valid is None


def test_a_pattern_that_would_backtrack_for_years_ends_at_once() -> None:
    for pattern in ("(a+)+b", r"(?=a)(a+)+\1b"):
        assert score(task({"kind": "regex", "full": True}, pattern), "a" * 20_000 + "c").value == 0


def test_a_judged_task_cannot_be_scored_without_a_model() -> None:
    judged = task({"kind": "judge", "rubric": "It is short."}, None)
    with pytest.raises(InvalidOption, match="a judge, which is a model"):
        score(judged, "text")


def test_the_schema_of_fields_holds_nothing_of_the_target_but_keys_and_types() -> None:
    schema = task("fields", {"name": "secret", "sizes": [41, 43], "mixed": [1, "a"], "none": None}).schema
    assert schema == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "sizes": {"type": "array", "items": {"type": "number"}},
            "mixed": {"type": "array"},
            "none": {},
        },
        "required": ["name", "sizes", "mixed", "none"],
    }


_TASKS = (
    task("number", 7),
    task("choice", "pear", CHOICES),
    task("bool", True),
    task("exact", "pear"),
    task("fields", {"a": 1}),
)
_TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["7", "7.0", "$7", "A", "(B)", "pear", "not iron", "yes", "No.", '{"a": 1}', '{"a": 1.0}', "7 %"]),
).flatmap(
    lambda text: st.sampled_from([text, f"ANSWER: {text}", f"So:\n**Answer:** {text}", f"ANSWER: x\nANSWER: {text}"])
)


@given(one=st.sampled_from(_TASKS), texts=st.lists(_TEXTS, min_size=2, max_size=2))
@examples(60)
def test_answers_that_count_as_one_in_a_vote_have_the_same_score(one: EvalTask, texts: list[str]) -> None:
    form = form_of(one.schema, one.vote_on)
    voted = {text: form.read_text(text) for text in texts}
    for text, answer in voted.items():
        assert read_answer(one, text) == answer == score(one, text).answer
        assert (score(one, text).value is None) == (answer is None)
    keyed = with_common_keys({text: answer for text, answer in voted.items() if answer is not None})
    if len({answer.key for answer in keyed.values()}) == 1:
        assert len({score(one, answer).value for answer in keyed.values()}) == 1
