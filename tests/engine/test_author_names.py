"""The words by which a draft names its author are hidden; the same names in an answer stay."""

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine.author_names import hide_authors, spelled_freely
from llm_council._engine.fences import hide_names
from llm_council.models import Plan, SeatSpec

NAMES = (
    "Claude Anthropic ChatGPT OpenAI GPT Gemini Google Grok xAI Llama Meta Mistral Qwen Alibaba DeepSeek Kimi Moonshot"
)

TELLING = [
    "I am Claude, made by Anthropic. It is 4. (Claude Sonnet 4.6)",
    "As ChatGPT, trained by OpenAI, I say 4. (GPT-5 mini)",
    "As Gemini 2.5 Pro, a model of Google, I say 4.",
    "I'm an AI assistant made by Anthropic.",
    "It is 4.\n\n\u2014 Claude",
    "It is 4.\nBest regards,\nGemini",
    "Claude here. It is 4.",
    "As an AI language model developed by OpenAI, I can't.",
    "As a large language model trained by Google, I say 4.",
    "I was trained by DeepSeek.",
    "My name is Grok, built by xAI.",
    "This answer was written by Claude.",
    "ChatGPT's answer: 4",
    "Ich bin Claude von Anthropic.",
    "Je suis Mistral, d\u00e9velopp\u00e9 par Mistral AI.",
    "**I am Qwen2.5, created by Alibaba Cloud.**",
    "Claude: It is 4.",
    "I am a language model called Llama 3.1 from Meta.",
    "Hello! I'm Kimi, an AI assistant that was made by Moonshot AI.",
    "OpenAI's policies do not let me.",
    "I'm Claude (Anthropic).",
    "It is 4.\n\nModel: GPT-5",
]


@pytest.mark.parametrize("text", TELLING)
def test_what_a_draft_says_of_its_author_is_hidden(text: str) -> None:
    hidden = hide_authors(text)
    assert "[seat]" in hidden
    assert not [name for name in NAMES.split() if name.lower() in hidden.lower()]


@pytest.mark.parametrize(
    "text",
    [
        "Claude Monet painted it.",
        "Pollux is in Gemini.",
        "I think that Gemini is the constellation.",
        "Windows is developed by Microsoft, and Chrome is made by Google.",
        "OpenAI, Anthropic and Google",
        "As Google says, it is so.",
        "A llama is an animal of the Andes; Llama glama is its name.",
        "Set the tag Meta.",
        "",
    ],
)
def test_a_name_that_says_nothing_of_the_author_stays(text: str) -> None:
    assert hide_authors(text) == text


def test_a_name_that_the_task_mentions_stays() -> None:
    assert hide_authors("I am Claude, made by Anthropic.", keep="who is claude?") == "I am Claude, made by [seat]."


@given(st.text(), st.sampled_from(TELLING))
def test_hiding_changes_nothing_twice(text: str, telling: str) -> None:
    once = hide_authors(f"{text}\n{telling}")
    assert hide_authors(once) == once


@pytest.mark.parametrize(
    ("model", "spelling"),
    [
        ("anthropic/claude-sonnet-4.6", "Claude Sonnet 4.6"),
        ("claude-sonnet-4-5-20250929", "Claude Sonnet 4.5"),
        ("openai/gpt-5-mini", "GPT-5 mini"),
        ("google/gemini-2.5-pro", "Gemini 2.5 Pro"),
        ("meta-llama/llama-3.3-70b-instruct:free", "Llama 3.3 70B"),
    ],
)
def test_a_models_name_is_hidden_in_its_own_spelling(model: str, spelling: str) -> None:
    seats = (SeatSpec(name="a-1", provider="p", model=model), SeatSpec(name="a-2", provider="p", model="other-model"))
    plan = Plan(run_id="1", task="Two and two?", subagent="advisor", seats=seats, rules=1)
    assert hide_names(plan, f"It is 4, says {spelling}.") == "It is 4, says [seat]."
    # A run of 0.1.0 is replayed with the texts that it showed.
    assert hide_names(attrs.evolve(plan, rules=0), f"It is 4, says {spelling}.") == f"It is 4, says {spelling}."


def test_seats_of_one_model_keep_the_names_that_say_nothing_about_who_wrote_what() -> None:
    seats = tuple(SeatSpec(name=f"a-{n}", provider="p", model="claude-x-1") for n in (1, 2))
    plan = Plan(run_id="1", task="Two and two?", subagent="advisor", seats=seats, rules=1)
    assert hide_names(plan, "I am Claude X 1.") == "I am Claude X 1."


def test_a_name_of_one_word_is_matched_as_it_is() -> None:
    assert spelled_freely("tiny") is None


@pytest.mark.parametrize("unit", ["\n", " ", ". ", "-- ", "I ", "my maker  ", "[seat] model ", "GPT-4 "])
@pytest.mark.slow
def test_the_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    # With the square, one of these texts takes minutes, which the suite's limit ends.
    text = f"I am Claude. {unit * (100_000 // len(unit))}"
    assert hide_authors(text).startswith("I am [seat]. ")


PERSONAS = Plan(
    run_id="r",
    task="Is the program safe?",
    subagent="tester",
    seats=(
        SeatSpec(name="pro", provider="local", instructions="Argue for it."),
        SeatSpec(name="con", provider="local", instructions="Argue against it."),
    ),
    rules=1,
)


@pytest.mark.parametrize(
    "text",
    [
        "As the pro, I say yes.",
        "As a con, I say no.",
        "I am pro, and say yes.",
        "**Pro:** It is safe.",
        "It is safe.\n\n-- Pro",
        "Well. This is con: it is not safe.",
    ],
)
def test_a_persona_whose_name_is_a_word_is_hidden_where_it_names_the_author(text: str) -> None:
    hidden = hide_names(PERSONAS, text)
    assert "[seat]" in hidden
    assert not re.search(r"\b(pro|con)\b", hidden, re.IGNORECASE)
    assert hide_names(PERSONAS, hidden) == hidden


@pytest.mark.parametrize(
    "text", ["The pro and con of it.", "It is pro forma, as the program shows.", "A con artist: no."]
)
def test_such_a_name_stays_as_a_word(text: str) -> None:
    assert hide_names(PERSONAS, text) == text


def test_seats_without_a_persona_keep_short_names() -> None:
    plan = attrs.evolve(PERSONAS, seats=tuple(attrs.evolve(seat, instructions="") for seat in PERSONAS.seats))
    assert hide_names(plan, "As the pro, I say yes.") == "As the pro, I say yes."
