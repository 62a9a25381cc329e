"""Requests are fitted, never silently: what is not sent as asked stands in the adjustments."""

import attrs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import CapabilityMissing
from llm_council.models import (
    GenerateRequest,
    ImagePart,
    Message,
    ProviderCapabilities,
    ReasoningConfig,
    StructuredOutput,
    Tool,
)
from llm_council.providers._call.fitting import fit, is_emulated, unmet
from llm_council.providers._call.profiles import ModelProfile, profile_for

ALL = ProviderCapabilities(streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True)
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
PROFILES = [
    profile_for("openai", name)
    for name in (None, "gpt-4o", "o1-mini", "o3", "gpt-5", "gpt-5.1", "gpt-5.1-codex", "gpt-5.5", "gpt-5.4-mini")
] + [
    profile_for(name, None)
    for name in ("openrouter", "vllm", "lmstudio", "ollama-openai", "openai-compatible", "local")
]


def told(adjustments):
    return [(a.field, a.action) for a in adjustments]


@given(strategies.requests(), strategies.capabilities(), st.sampled_from([None, *PROFILES]))
def test_what_is_fitted_fits(request_, capabilities, profile):
    try:
        fitted, adjustments = fit(request_, capabilities, profile)
    except CapabilityMissing:
        assert request_.tools or any(not isinstance(turn.content, str) for turn in request_.messages)
        return
    again, nothing = fit(fitted, capabilities, profile)
    assert again is fitted
    assert nothing == ()
    if not adjustments:
        assert fitted is request_
    touched = {
        field.name
        for field in attrs.fields(GenerateRequest)
        if getattr(fitted, field.name) != getattr(request_, field.name)
    }
    said = {a.field for a in adjustments}
    if "structured_output" in said:  # the schema goes into the prompt, or into the older field
        said |= {"messages", "prompt", "response_format"}
    assert touched <= said


@pytest.mark.parametrize(
    ("model", "effort", "kept"),
    [
        ("gpt-4o", None, True),
        ("o3", None, False),
        ("gpt-5", None, False),
        ("gpt-5-mini", "low", False),
        ("gpt-5.1", None, True),
        ("gpt-5.1", "high", False),
        ("gpt-5.1", "none", True),
        ("gpt-5.1-codex-max", "none", False),
        ("gpt-5.5", None, False),
        ("gpt-5.6-sol", "none", True),
    ],
)
def test_sampling_depends_on_the_model_and_its_reasoning(model, effort, kept):
    reasoning = ReasoningConfig(effort=effort) if effort else None
    request = GenerateRequest(prompt="x", temperature=0.5, top_p=0.9, reasoning=reasoning)
    fitted, adjustments = fit(request, ALL, profile_for("openai", model))
    assert (fitted.temperature, fitted.top_p) == ((0.5, 0.9) if kept else (None, None))
    dropped = [change for change in told(adjustments) if change[0] != "reasoning"]  # some know no word for "none"
    assert dropped == ([] if kept else [("temperature", "dropped"), ("top_p", "dropped")])


def test_max_tokens_is_lowered_to_what_an_answer_can_have():
    fitted, (change,) = fit(GenerateRequest(prompt="x", max_tokens=9000), attrs.evolve(ALL, max_tokens=4096))
    assert fitted.max_tokens == 4096
    assert (change.field, change.action, change.asked, change.sent) == ("max_tokens", "lowered", 9000, 4096)
    assert change.reason


def test_temperature_is_lowered_to_the_highest():
    fitted, (change,) = fit(GenerateRequest(prompt="x", temperature=3), ALL, profile_for("openai", "gpt-4o"))
    assert fitted.temperature == 2.0
    assert (change.action, change.asked) == ("lowered", 3)


@pytest.mark.parametrize(
    ("asked", "accepted", "sent", "action"),
    [
        ("max", ["low", "medium", "high"], "high", "lowered"),
        ("minimal", ["none", "low", "high"], "low", "raised"),
        ("medium", ["low", "high"], "low", "lowered"),
        ("none", ["low", "high"], None, "dropped"),
        ("low", [], None, "dropped"),
    ],
)
def test_effort_becomes_the_nearest_word(asked, accepted, sent, action):
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(effort=asked))
    fitted, (change,) = fit(request, ALL, ModelProfile(efforts=accepted))
    assert (fitted.reasoning.effort if fitted.reasoning else None) == sent
    assert (change.field, change.action) == ("reasoning", action)


def test_a_budget_of_thinking_goes_where_only_words_are_taken():
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(effort="low", budget_tokens=500))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-5"))
    assert fitted.reasoning == ReasoningConfig(effort="low")
    assert told(adjustments) == [("reasoning", "lowered")]


def test_reasoning_goes_where_it_cannot_be_controlled():
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(effort="low"))
    fitted, adjustments = fit(request, attrs.evolve(ALL, reasoning=False))
    assert fitted.reasoning is None
    assert told(adjustments) == [("reasoning", "dropped")]


def test_stop_texts_are_cut_to_as_many_as_are_taken():
    request = GenerateRequest(prompt="x", stop=list("abcdef"))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-4o"))
    assert fitted.stop == tuple("abcd")
    assert told(adjustments) == [("stop", "lowered")]
    assert fit(request, ALL, profile_for("openai", "o3"))[0].stop == ()


TOOLS = (Tool(name="add"), Tool(name="mul"))


@pytest.mark.parametrize(
    ("provider", "choice", "tools", "sent"),
    [
        ("openai", "mul", ["add", "mul"], "mul"),
        ("lmstudio", "mul", ["mul"], "required"),
        ("lmstudio", "required", ["add", "mul"], "required"),
        ("ollama-openai", "required", ["add", "mul"], None),
        ("ollama-openai", "none", [], None),
    ],
)
def test_tool_choice_is_said_as_the_server_understands_it(provider, choice, tools, sent):
    request = GenerateRequest(prompt="x", tools=TOOLS, tool_choice=choice)
    fitted, adjustments = fit(request, ALL, profile_for(provider, None))
    assert ([tool.name for tool in fitted.tools], fitted.tool_choice) == (tools, sent)
    assert bool(adjustments) == (fitted is not request)


def test_nothing_stands_in_for_tools_and_images():
    with pytest.raises(CapabilityMissing, match="takes no tools") as caught:
        fit(GenerateRequest(prompt="x", tools=TOOLS), attrs.evolve(ALL, tool_use=False))
    assert caught.value.capability == "tool_use"
    image = Message("user", ["look", ImagePart(url="https://example.com/cat.png")])
    with pytest.raises(CapabilityMissing) as caught:
        fit(GenerateRequest(messages=[image], model="blind"), attrs.evolve(ALL, multimodal=False))
    assert (caught.value.capability, caught.value.model) == ("multimodal", "blind")
    with pytest.raises(CapabilityMissing, match="data only"):
        fit(GenerateRequest(messages=[image]), ALL, profile_for("ollama-openai", None))
    data = Message("user", [ImagePart(data="aGk=", media_type="image/png")])
    assert fit(GenerateRequest(messages=[data]), ALL, profile_for("ollama-openai", None))[1] == ()


@pytest.mark.parametrize(
    "turns",
    [
        {"prompt": "Which?"},
        {"messages": [Message("system", "Be brief."), Message("user", "Which?")]},
        {"messages": [Message("user", ["Which?", ImagePart(url="https://example.com/cat.png")])]},
        {"messages": [Message("user", "Which?"), Message("assistant", "What?")]},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_said_in_the_prompt(turns):
    request = GenerateRequest(**turns, structured_output=StructuredOutput(json_schema=SCHEMA))
    fitted, adjustments = fit(request, attrs.evolve(ALL, structured_output=False))
    assert fitted.structured_output is None
    last = fitted.turns()[-1]
    assert last.role == "user"
    assert '"required": ["answer"]' in last.text
    assert "".join(turn.text for turn in fitted.turns()).startswith("".join(turn.text for turn in request.turns()))
    assert is_emulated(adjustments)


def test_a_schema_that_the_prompt_says_already_is_not_said_twice():
    said = 'Answer by {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]} please'
    request = GenerateRequest(prompt=said, structured_output=StructuredOutput(json_schema=SCHEMA))
    assert fit(request, attrs.evolve(ALL, structured_output=False))[0].prompt == said


def test_a_server_that_takes_the_word_json_alone_gets_it():
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
    fitted, adjustments = fit(request, ALL, ModelProfile(structured="json_object"))
    assert fitted.response_format == {"type": "json_object"}
    assert told(adjustments) == [("structured_output", "emulated")]


def test_strict_mode_gets_the_schema_in_its_subset():
    optional = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=optional))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-5.4"))
    assert fitted.structured_output.json_schema["required"] == ["a", "b"]
    assert fitted.structured_output.strict
    assert told(adjustments) == [("structured_output", "projected")]
    free = {"type": "object"}
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=free))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-5.4"))
    assert not fitted.structured_output.strict
    assert told(adjustments) == [("structured_output", "lowered")]


def test_where_an_answer_misses_an_emulated_schema_is_said():
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
    assert unmet(request, 'Here: {"answer": "42"}') == ()
    (missed,) = unmet(request, '{"answer": 42}')
    assert "$.answer" in missed.reason
    assert unmet(GenerateRequest(prompt="x"), "anything") == ()
