"""What an answer repeats of its prompt is removed, however it is cut into pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.models import GenerateRequest, Message
from llm_council.providers._local.cleaning import AnswerCleaner, clean, clean_value, fence_codes

CODE = "0123456789abcdef"
FENCED = f"[[[ {CODE} Draft A\nIt is Paris.\n{CODE} ]]]"


def test_the_codes_are_those_of_the_fences_in_the_request():
    turns = [Message("system", "Lines '[[[ code' enclose."), Message("user", f"{FENCED}\n\nWhich city?")]
    assert fence_codes(GenerateRequest(messages=turns)) == {CODE}
    assert fence_codes(GenerateRequest(prompt="x = [[[ 1, 2 ]]]")) == frozenset()


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        (FENCED, "It is Paris.\n"),
        (f"[[[ {CODE} Draft A\nParis\n{CODE} ]]]\nIt is Paris.", "Paris\nIt is Paris."),
        (f"It is {CODE}Paris.", "It is Paris."),
        ("[[[ 0123abcd Review 1\nParis", "Paris"),
        (f"[[[ {CODE} Draft A", ""),
        ("Assistant: It is Paris.", "It is Paris."),
        ("It is Paris.\nUser: And Italy?\nAssistant: Rome.", "It is Paris.\n"),
    ],
)
def test_fences_and_speakers_are_removed(answer, cleaned):
    assert clean(answer, {CODE}) == cleaned


@pytest.mark.parametrize(
    "answer",
    [
        "It is Paris.",
        "The user: a person who logs in. The system: what they use.",
        "x = [[[1, 2]]]\nprint(x)\n",
        "Users: many\n\nAssistants: few",
        "system",
    ],
)
def test_other_answers_stay_as_they_are(answer):
    assert clean(answer) == clean(answer, {CODE}) == answer


TEXTS = st.lists(
    st.sampled_from(["Paris", " is", "\n", "User:", "assistant: ", f"[[[ {CODE} Draft A", f"{CODE} ]]]", " ", "a" * 20])
).map("".join)


@examples(100)
@given(TEXTS, st.lists(st.integers(0, 200)), st.sampled_from([(), (CODE,)]))
def test_pieces_give_the_same_as_the_whole(text, cuts, codes):
    cleaner = AnswerCleaner(codes)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [cleaner.feed(text[start:end]) for start, end in pairwise(places)]
    assert "".join(pieces) + cleaner.rest() == clean(text, codes)


def test_words_are_not_held_back_once_a_line_has_begun():
    cleaner = AnswerCleaner()
    assert cleaner.feed("The capital ") == ""
    assert cleaner.feed("of France") == "The capital of France"
    assert cleaner.feed(" is") == " is"


def test_every_text_of_a_value_is_cleaned_and_loses_the_label_of_a_fence():
    value = {"answer": "Draft A: Paris", "list": [f"[[[ {CODE} Draft A\nParis", "Review 2: Rome", 7, None], "b": "No."}
    assert clean_value(value, {CODE}) == {"answer": "Paris", "list": ["Paris", "Rome", 7, None], "b": "No."}
    assert clean_value("Draft A: Paris") == "Draft A: Paris"
    assert clean_value("Draft A:", {CODE}) == "Draft A:"
