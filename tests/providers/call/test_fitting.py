"""Requests are fitted, never silently: what is not sent as asked stands in the adjustments."""

from typing import Any

import attrs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from llm_council import middleware
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models import (
    Adjustment,
    AudioPart,
    DocumentPart,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    ProviderCapabilities,
    ReasoningConfig,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
)
from llm_council.providers._call.fitting import (
    emulate_schema,
    fit,
    fit_unless_marked,
    fits_requests,
    is_emulated,
    may_be_ignored,
    schema_violations,
    unreported_violations,
)
from llm_council.providers._call.profiles import ModelProfile, profile_for
from llm_council.providers.base import ProviderAdapter

ALL = ProviderCapabilities(streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True)
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
PROFILES = [
    profile_for("openai", name)
    for name in (None, "gpt-4o", "o1-mini", "o3", "gpt-5", "gpt-5.1", "gpt-5.1-codex", "gpt-5.5", "gpt-5.4-mini")
] + [
    profile_for(name, None)
    for name in ("openrouter", "vllm", "lmstudio", "ollama-openai", "openai-compatible", "local", "anthropic")
]


def changes_of(adjustments):
    return [(a.field, a.action) for a in adjustments]


@pytest.mark.slow
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
    fields = {a.field for a in adjustments}
    if "structured_output" in fields:  # the schema goes into the prompt, or into the older field
        fields |= {"messages", "prompt", "response_format"}
    assert touched <= fields


@pytest.mark.parametrize(
    ("model", "effort", "accepted"),
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
def test_sampling_depends_on_the_model_and_its_reasoning(model, effort, accepted):
    reasoning = ReasoningConfig(effort=effort) if effort else None
    request = GenerateRequest(prompt="x", temperature=0.5, top_p=0.9, reasoning=reasoning)
    fitted, adjustments = fit(request, ALL, profile_for("openai", model))
    assert (fitted.temperature, fitted.top_p) == ((0.5, 0.9) if accepted else (None, None))
    dropped = [change for change in changes_of(adjustments) if change[0] != "reasoning"]  # some know no word for "none"
    assert dropped == ([] if accepted else [("temperature", "dropped"), ("top_p", "dropped")])


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
    assert changes_of(adjustments) == [("reasoning", "lowered")]


def test_reasoning_goes_where_it_cannot_be_controlled():
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(effort="low"))
    fitted, adjustments = fit(request, attrs.evolve(ALL, reasoning=False))
    assert fitted.reasoning is None
    assert changes_of(adjustments) == [("reasoning", "dropped")]


def test_stop_texts_are_cut_to_as_many_as_are_taken():
    request = GenerateRequest(prompt="x", stop=list("abcdef"))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-4o"))
    assert fitted.stop == tuple("abcd")
    assert changes_of(adjustments) == [("stop", "lowered")]
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
    prompt = 'Answer by {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]} please'
    request = GenerateRequest(prompt=prompt, structured_output=StructuredOutput(json_schema=SCHEMA))
    assert fit(request, attrs.evolve(ALL, structured_output=False))[0].prompt == prompt


def test_a_server_that_takes_the_word_json_alone_gets_it():
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
    fitted, adjustments = fit(request, ALL, ModelProfile(structured="json_object"))
    assert fitted.response_format == {"type": "json_object"}
    assert changes_of(adjustments) == [("structured_output", "emulated")]


def test_strict_mode_gets_the_schema_in_its_subset():
    optional = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=optional))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-5.4"))
    assert fitted.structured_output.json_schema["required"] == ["a", "b"]
    assert fitted.structured_output.strict
    assert changes_of(adjustments) == [("structured_output", "projected")]
    free = {"type": "object"}
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=free))
    fitted, adjustments = fit(request, ALL, profile_for("openai", "gpt-5.4"))
    assert not fitted.structured_output.strict
    assert changes_of(adjustments) == [("structured_output", "lowered")]


def test_where_an_answer_misses_an_emulated_schema_is_said():
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
    assert schema_violations(request, 'Here: {"answer": "42"}') == ()
    (violation,) = schema_violations(request, '{"answer": 42}')
    assert "$.answer" in violation.reason
    assert schema_violations(GenerateRequest(prompt="x"), "anything") == ()


def effort(word, budget=None):
    return ReasoningConfig(effort=word, budget_tokens=budget)


FACTS = [
    # the request's fields, the capabilities, the profile, the changes as (field, action, asked, sent)
    ({"max_tokens": 10}, {"max_tokens": 10}, {}, []),
    ({"max_tokens": 11}, {"max_tokens": 10}, {}, [("max_tokens", "lowered", 11, 10)]),
    ({"max_tokens": 15}, {"max_tokens": 20}, {"max_output": 10}, [("max_tokens", "lowered", 15, 10)]),
    ({"max_tokens": 15}, {"max_tokens": 10}, {"max_output": 20}, [("max_tokens", "lowered", 15, 10)]),
    ({"max_tokens": 15}, {}, {"max_output": 10}, [("max_tokens", "lowered", 15, 10)]),
    ({"max_tokens": 15}, {}, {}, []),
    ({}, {"max_tokens": 10}, {}, []),
    ({"temperature": 2.0}, {}, {"max_temperature": 2.0}, []),
    ({"temperature": 2.5}, {}, {"max_temperature": 2.0}, [("temperature", "lowered", 2.5, 2.0)]),
    ({"temperature": 2.5}, {}, {}, []),
    ({}, {}, {"max_temperature": 2.0}, []),
    ({"temperature": 0.0}, {}, {"sampling": "never"}, [("temperature", "dropped", 0.0, None)]),
    ({"top_p": 0.5}, {}, {"sampling": "never"}, [("top_p", "dropped", 0.5, None)]),
    ({"top_p": 0.5}, {}, {"sampling": "without-reasoning"}, []),
    ({"top_p": 0.5}, {}, {"sampling": "without-reasoning", "reasons": True}, [("top_p", "dropped", 0.5, None)]),
    ({"top_p": 0.5, "reasoning": effort("none")}, {}, {"sampling": "without-reasoning", "reasons": True}, []),
    (
        {"top_p": 0.5, "reasoning": effort("low")},
        {},
        {"sampling": "without-reasoning"},
        [("top_p", "dropped", 0.5, None)],
    ),
    (
        {"top_p": 0.5, "reasoning": effort("low")},
        {"reasoning": False},
        {"sampling": "without-reasoning"},
        [("reasoning", "dropped", effort("low"), None)],
    ),
    ({"reasoning": effort("low", 500)}, {}, {}, []),
    ({"reasoning": effort(None, 500)}, {}, {}, []),
    ({"reasoning": effort("low")}, {}, {"efforts": ["low"], "reasoning_budget": False}, []),
    (
        {"reasoning": effort("low", 500)},
        {},
        {"reasoning_budget": False},
        [("reasoning", "lowered", effort("low", 500), effort("low"))],
    ),
    (
        {"reasoning": effort(None, 500)},
        {},
        {"reasoning_budget": False},
        [("reasoning", "dropped", effort(None, 500), None)],
    ),
    (
        {"reasoning": effort("minimal", 500)},
        {},
        {"efforts": ["low", "high"]},
        [("reasoning", "raised", effort("minimal", 500), effort("low", 500))],
    ),
    (
        {"reasoning": effort("max", 500)},
        {},
        {"efforts": ["low", "high", "medium"]},
        [("reasoning", "lowered", effort("max", 500), effort("high", 500))],
    ),
    (
        {"reasoning": effort("none", 500)},
        {},
        {"efforts": ["low"]},
        [("reasoning", "lowered", effort("none", 500), effort(None, 500))],
    ),
    (
        {"reasoning": effort("low")},
        {},
        {"efforts": ["none"]},
        [("reasoning", "dropped", effort("low"), None)],
    ),
    (
        {"reasoning": effort("minimal")},
        {},
        {"efforts": ["max", "none", "medium"]},
        [("reasoning", "raised", effort("minimal"), effort("medium"))],
    ),
    ({"stop": ["a"]}, {}, {"stop": False}, [("stop", "dropped", ("a",), None)]),
    ({}, {}, {"stop": False}, []),
    ({"stop": ["a", "b"]}, {}, {"max_stops": 2}, []),
    ({"stop": ["a", "b", "c"]}, {}, {"max_stops": 2}, [("stop", "lowered", ("a", "b", "c"), ("a", "b"))]),
    ({"stop": ["a", "b"]}, {}, {}, []),
    ({"prompt_cache": True}, {}, {"prompt_cache": "none"}, [("prompt_cache", "dropped", True, None)]),
    ({"prompt_cache": True}, {}, {"prompt_cache": "automatic"}, []),
    ({"prompt_cache": False}, {}, {"prompt_cache": "none"}, []),
]


@pytest.mark.parametrize(("fields", "can", "takes", "changes"), FACTS)
def test_each_change_is_recorded_with_the_old_and_the_new_value(fields, can, takes, changes):
    request = GenerateRequest(prompt="x", **fields)
    fitted, adjustments = fit(request, attrs.evolve(ALL, **can), ModelProfile(**takes))
    assert [(a.field, a.action, a.asked, a.sent) for a in adjustments] == changes
    assert all(a.reason for a in adjustments)
    if not changes:
        assert fitted is request
    for field, _, _, sent in changes:
        assert getattr(fitted, field) == (() if field == "stop" and sent is None else sent)


@pytest.mark.parametrize(
    ("choice", "takes", "sent", "offered", "changes"),
    [
        (None, {"tool_choice": False}, None, ["add", "mul"], []),
        ("none", {}, "none", ["add", "mul"], []),
        (
            "none",
            {"tool_choice": False},
            None,
            [],
            [("tools", "dropped", TOOLS, None), ("tool_choice", "dropped", "none", None)],
        ),
        ("auto", {"tool_choice": False}, None, ["add", "mul"], [("tool_choice", "dropped", "auto", None)]),
        ("mul", {"tool_choice": False}, None, ["add", "mul"], [("tool_choice", "dropped", "mul", None)]),
        ("auto", {"named_tool_choice": False}, "auto", ["add", "mul"], []),
        ("none", {"named_tool_choice": False}, "none", ["add", "mul"], []),
        ("required", {"named_tool_choice": False}, "required", ["add", "mul"], []),
        ("mul", {}, "mul", ["add", "mul"], []),
        (
            "mul",
            {"named_tool_choice": False},
            "required",
            ["mul"],
            [("tools", "lowered", TOOLS, TOOLS[1:]), ("tool_choice", "renamed", "mul", "required")],
        ),
    ],
)
def test_each_change_of_the_tool_choice_is_recorded(choice, takes, sent, offered, changes):
    request = GenerateRequest(prompt="x", tools=TOOLS, tool_choice=choice)
    fitted, adjustments = fit(request, ALL, ModelProfile(**takes))
    assert (fitted.tool_choice, [tool.name for tool in fitted.tools]) == (sent, offered)
    assert [(a.field, a.action, a.asked, a.sent) for a in adjustments] == changes
    assert all(a.reason for a in adjustments)


def test_the_only_tool_is_offered_as_it_is_when_it_cannot_be_named():
    request = GenerateRequest(prompt="x", tools=TOOLS[:1], tool_choice="add")
    fitted, adjustments = fit(request, ALL, ModelProfile(named_tool_choice=False))
    assert (fitted.tools, fitted.tool_choice) == (TOOLS[:1], "required")
    assert changes_of(adjustments) == [("tool_choice", "renamed")]


LINK = ImagePart(url="https://example.com/cat.png")
DATA = ImagePart(data="aGk=", media_type="image/png")


@pytest.mark.parametrize(
    ("fields", "can", "takes", "capability"),
    [
        ({"tools": TOOLS}, {}, {}, None),
        ({"tools": TOOLS}, {"tool_use": False}, {}, "tool_use"),
        ({"tools": TOOLS}, {}, {"tools": False}, "tool_use"),
        ({}, {"tool_use": False, "multimodal": False}, {"tools": False, "images": False, "image_urls": False}, None),
        ({"images": [LINK]}, {}, {}, None),
        ({"images": [LINK]}, {"multimodal": False}, {}, "multimodal"),
        ({"images": [DATA]}, {}, {"images": False}, "multimodal"),
        ({"images": [LINK]}, {}, {"image_urls": False}, "multimodal"),
        ({"images": [DATA, LINK]}, {}, {"image_urls": False}, "multimodal"),
        ({"images": [DATA]}, {}, {"image_urls": False}, None),
    ],
)
@pytest.mark.parametrize("model", ["m", None])
def test_a_request_is_refused_with_the_capability_that_is_missing(fields, can, takes, capability, model):
    fields = dict(fields)
    messages = [Message("system", "Be brief."), Message("user", ["look", *fields.pop("images", [])])]
    request = GenerateRequest(messages=messages, model=model, **fields)
    if capability is None:
        assert fit(request, attrs.evolve(ALL, **can), ModelProfile(**takes)) == (request, ())
        return
    with pytest.raises(CapabilityMissing) as caught:
        fit(request, attrs.evolve(ALL, **can), ModelProfile(**takes))
    assert (caught.value.capability, caught.value.model) == (capability, model)
    assert str(caught.value).startswith("model 'm' takes" if model else "the provider takes")


FOREIGN = {"type": "object", "properties": {"größe": {"type": "number"}}}
FOREIGN_TEXT = '{"type": "object", "properties": {"größe": {"type": "number"}}}'
FOREIGN_INDENTED = """\
{
  "type": "object",
  "properties": {
    "größe": {
      "type": "number"
    }
  }
}"""


def verdict(**fields):
    return GenerateRequest(**fields, structured_output=StructuredOutput(json_schema=FOREIGN, name="verdict"))


@pytest.mark.parametrize(
    ("can", "takes", "sent", "response_format"),
    [
        (True, {"structured": "json_object"}, "json_object", {"type": "json_object"}),
        (False, {"structured": "json_object"}, None, None),
        (True, {"structured": "none"}, None, None),
        (False, {"structured": "json_schema"}, None, None),
    ],
)
def test_an_emulated_schema_is_recorded_with_its_name(can, takes, sent, response_format):
    fitted, (change,) = fit(verdict(prompt="x"), attrs.evolve(ALL, structured_output=can), ModelProfile(**takes))
    assert (change.field, change.action, change.asked, change.sent) == (
        "structured_output",
        "emulated",
        "verdict",
        sent,
    )
    assert change.reason
    assert (fitted.structured_output, fitted.response_format) == (None, response_format)
    assert fitted.prompt.startswith("x\n\n")
    assert fitted.prompt.endswith(f"\n{FOREIGN_TEXT}")


def test_the_schema_follows_the_text_of_the_last_user_turn():
    system, user, assistant = Message("system", "Be brief."), Message("user", "Which?"), Message("assistant", "What?")
    can_not = attrs.evolve(ALL, structured_output=False)
    instruction = fit(verdict(prompt="x"), can_not)[0].prompt.removeprefix("x\n\n")
    for turns, expected in [
        ([system, user], (system, Message("user", f"Which?\n\n{instruction}"))),
        ([user, assistant], (user, assistant, Message("user", instruction))),
        ([system, Message("user", ["See", DATA])], (system, Message("user", ["See", DATA, instruction]))),
    ]:
        assert fit(verdict(messages=turns), can_not)[0].messages == expected


@pytest.mark.parametrize("text", [FOREIGN_TEXT, FOREIGN_INDENTED])
def test_a_schema_in_any_turn_is_not_repeated(text):
    turns = (Message("system", f"Answer by {text}."), Message("user", "Which?"))
    fitted, adjustments = fit(verdict(messages=turns), attrs.evolve(ALL, structured_output=False))
    assert fitted.messages == turns
    assert is_emulated(adjustments)


CLOSED = {**SCHEMA, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "asked_strict", "strict_schema", "action", "sent_schema", "strict"),
    [
        (SCHEMA, True, True, "projected", CLOSED, True),
        (CLOSED, True, True, None, CLOSED, True),
        (SCHEMA, False, True, None, SCHEMA, False),
        (SCHEMA, True, False, None, SCHEMA, True),
        ({"type": "object"}, True, True, "lowered", {"type": "object"}, False),
    ],
)
def test_a_change_of_strict_mode_is_recorded_with_the_schemas_name(
    schema, asked_strict, strict_schema, action, sent_schema, strict
):
    wanted = StructuredOutput(json_schema=schema, name="verdict", strict=asked_strict)
    request = GenerateRequest(prompt="x", structured_output=wanted)
    fitted, adjustments = fit(request, ALL, ModelProfile(strict_schema=strict_schema))
    assert fitted.structured_output == StructuredOutput(json_schema=sent_schema, name="verdict", strict=strict)
    assert [(a.field, a.action, a.asked, a.sent) for a in adjustments] == (
        [("structured_output", action, "verdict", "verdict")] if action else []
    )
    assert all("strict mode" in a.reason for a in adjustments)


def test_a_schema_goes_into_the_prompt_where_a_vendor_enforces_all_or_nothing():
    wanted = StructuredOutput(json_schema={"type": "object"}, name="verdict")
    codex = ModelProfile(strict_schema=True, schema_subset="codex")
    fitted, adjustments = fit(GenerateRequest(prompt="x", structured_output=wanted), ALL, codex)
    assert fitted.structured_output is None
    assert '{"type":"object"}' in fitted.prompt.replace(" ", "").replace("\n", "")
    (change,) = adjustments
    assert (change.action, change.asked, change.sent) == ("emulated", "verdict", None)
    assert change.reason.endswith("; the schema stands in the prompt")
    strict = attrs.evolve(wanted, json_schema=SCHEMA)
    fitted, adjustments = fit(GenerateRequest(prompt="x", structured_output=strict), ALL, codex)
    assert fitted.structured_output.json_schema == CLOSED
    assert changes_of(adjustments) == [("structured_output", "projected")]


def test_every_reason_against_strict_mode_is_recorded():
    schema = {
        **CLOSED,
        "properties": {"answer": {"type": "string", "minLength": 1, "maxLength": 9}},
    }
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=schema))
    _, (change,) = fit(request, ALL, ModelProfile(strict_schema=True))
    assert len(change.reason.split("; ")) == 2
    assert "XX" not in change.reason


@pytest.mark.parametrize(
    ("field", "action", "emulated"),
    [("structured_output", "emulated", True), ("structured_output", "projected", False), ("tools", "emulated", False)],
)
def test_only_a_schema_in_the_prompt_is_emulated(field, action, emulated):
    other = Adjustment(field="stop", action="lowered")
    assert is_emulated((other, Adjustment(field=field, action=action))) is emulated
    assert not is_emulated(())


def test_a_schema_that_the_vendor_refuses_moves_into_the_prompt():
    fitted, adjustments = emulate_schema(verdict(prompt="x"))
    assert (fitted, adjustments) == fit(verdict(prompt="x"), attrs.evolve(ALL, structured_output=False))
    assert is_emulated(adjustments)
    assert emulate_schema(GenerateRequest(prompt="x")) == (GenerateRequest(prompt="x"), ())


def test_at_most_three_violations_of_a_schema_are_reported():
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in "abcd"}}
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=schema))
    (found,) = schema_violations(request, '{"a": 1, "b": 1, "c": 1, "d": 1}')
    assert (found.field, found.action, found.asked, found.sent) == ("structured_output", "emulated", None, None)
    violations = found.reason.removeprefix("the answer does not meet it: ").split("; ")
    assert [violation.partition(":")[0] for violation in violations] == ["$.a", "$.b", "$.c"]
    assert schema_violations(request, None) == schema_violations(request, "") != ()


def test_a_violation_is_reported_once_and_as_ignored_where_the_vendor_was_to_enforce_the_schema():
    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
    emulated = (Adjustment(field="structured_output", action="emulated"),)
    bad = GenerateResponse(text='{"answer": 42}')
    violation = schema_violations(request, bad.text)
    assert len(violation) == 1
    assert unreported_violations(request, bad, emulated) == violation
    assert unreported_violations(request, attrs.evolve(bad, adjustments=emulated)) == violation
    assert unreported_violations(request, attrs.evolve(bad, adjustments=violation)) == ()
    assert unreported_violations(request, bad) == schema_violations(request, bad.text, action="ignored")
    assert unreported_violations(request, attrs.evolve(bad, structured={"answer": "42"})) == ()
    assert unreported_violations(request, attrs.evolve(bad, structured={"answer": "42"}), emulated) == ()
    for reason in ("length", "content_filter"):
        assert unreported_violations(request, attrs.evolve(bad, finish_reason=reason)) == ()
    assert unreported_violations(request, GenerateResponse(text='{"answer": "42"}'), emulated) == ()
    calls = attrs.evolve(bad, tool_calls=[ToolCall(id="1", name="add", arguments="{}")])
    assert unreported_violations(request, calls, emulated) == ()


@pytest.mark.parametrize(
    ("fields", "may_be"),
    [
        ({}, False),
        ({"tool_choice": "auto"}, False),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": "none"}, True),
        ({"structured_output": StructuredOutput(json_schema=SCHEMA)}, True),
    ],
)
def test_a_schema_and_a_choice_of_tools_may_be_ignored(fields, may_be):
    tools = [Tool(name="add", description="", parameters=CLOSED)] if "tool_choice" in fields else []
    assert may_be_ignored(GenerateRequest(prompt="x", tools=tools, **fields)) is may_be


@pytest.mark.parametrize(
    ("choice", "called", "reason"),
    [
        ("required", [], "the answer calls no tool"),
        ("required", ["add"], None),
        ("none", ["add"], "the answer calls a tool"),
        ("none", [], None),
        ("add", [], "the answer calls another tool, or none"),
        ("add", ["other"], "the answer calls another tool, or none"),
        ("add", ["add"], None),
        ("auto", [], None),
    ],
)
def test_a_choice_of_tools_that_an_answer_ignored_is_reported(choice, called, reason):
    tools = [Tool(name=name, description="", parameters=CLOSED) for name in ("add", "other")]
    request = GenerateRequest(prompt="x", tools=tools, tool_choice=choice)
    calls = [ToolCall(id=str(number), name=name, arguments="{}") for number, name in enumerate(called)]
    found = unreported_violations(request, GenerateResponse(text="x", tool_calls=calls))
    assert [(a.field, a.action, a.asked, a.sent, a.reason) for a in found] == (
        [("tool_choice", "ignored", choice, None, reason)] if reason else []
    )
    assert unreported_violations(request, GenerateResponse(text="x", refusal="No.", tool_calls=calls)) == ()


def test_an_absent_value_is_no_value_that_meets_a_schema():
    anything = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema={"type": ["object", "null"]}))
    assert schema_violations(anything, "prose", structured=None) != ()


@pytest.mark.parametrize(
    ("part", "capability", "words"),
    [
        (DocumentPart(data="JVBERi0=", media_type="application/pdf"), "documents", "takes no documents"),
        (AudioPart(data="UklGRg==", media_type="audio/wav"), "audio", "takes no sound"),
    ],
)
def test_files_need_a_capability_of_their_own(part, capability, words):
    request = GenerateRequest(model="m", messages=[Message("user", [TextPart(text="What?"), part])])
    with pytest.raises(CapabilityMissing, match=f"model 'm' {words}; nothing was sent") as caught:
        fit(request, ALL, None)
    assert (caught.value.capability, caught.value.model) == (capability, "m")
    fitted, adjustments = fit(request, attrs.evolve(ALL, **{capability: True}), None)
    assert (fitted.messages, adjustments) == (request.messages, ())


def test_a_budget_of_reasoning_is_reasoning():
    thinking = GenerateRequest(prompt="x", temperature=0.5, reasoning=ReasoningConfig(budget_tokens=2000))
    takes = ModelProfile(sampling="without-reasoning", efforts=("low", "high"))
    _, adjustments = fit(thinking, ALL, takes)
    assert ("temperature", "dropped") in changes_of(adjustments)
    fitted, _ = fit(attrs.evolve(thinking, reasoning=ReasoningConfig()), ALL, takes)
    assert fitted.temperature == 0.5


TOLD = [
    Message("user", "Which city?"),
    Message("assistant", "", tool_calls=[ToolCall(id="c1", name="look", arguments="{}")]),
    Message("tool", "Oslo", tool_call_id="c1"),
    Message("user", "Sure?"),
    Message("user", "Say it."),
]


def test_a_turn_of_the_models_stands_between_a_result_and_a_user_where_it_must():
    fitted, (change,) = fit(GenerateRequest(messages=TOLD), ALL, ModelProfile(user_after_tool=False))
    read = Message("assistant", "I have read the result.")
    assert fitted.messages == (*TOLD[:3], read, *TOLD[3:])
    assert (change.field, change.action, change.asked, change.sent) == ("messages", "added", None, read.content)
    assert change.reason.startswith("it refuses a user's turn after the result of a tool")
    for takes, turns in ((ModelProfile(), TOLD), (ModelProfile(user_after_tool=False), TOLD[:3])):
        fitted, adjustments = fit(GenerateRequest(messages=turns), ALL, takes)
        assert (fitted.messages, adjustments) == (tuple(turns), ())


def test_a_turn_between_result_and_user_joins_the_turns_that_were_moved():
    takes = ModelProfile(user_after_tool=False, instruction_place="first")
    turns = [*TOLD[:3], Message("system", "Be brief."), TOLD[3]]
    fitted, adjustments = fit(GenerateRequest(messages=turns), ALL, takes)
    assert [turn.role for turn in fitted.messages] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert changes_of(adjustments) == [("messages", "moved"), ("messages", "added")]


def test_the_tool_that_is_offered_alone_is_projected_too():
    tools = [Tool(name=name, description="", parameters=SCHEMA, strict=True) for name in ("add", "other")]
    takes = ModelProfile(strict_schema=True, named_tool_choice=False)
    fitted, _ = fit(GenerateRequest(prompt="x", tools=tools, tool_choice="add"), ALL, takes)
    assert [(tool.name, tool.parameters) for tool in fitted.tools] == [("add", CLOSED)]


def test_instructions_are_moved_to_the_place_that_a_model_takes():
    turns = [Message("user", "Hi."), Message("assistant", "Hello."), Message("system", "Be brief."), TOLD[0]]
    fitted, (change,) = fit(GenerateRequest(messages=turns), ALL, ModelProfile(instruction_place="first"))
    assert fitted.messages == (turns[2], turns[0], turns[1], turns[3])
    assert (change.field, change.action) == ("messages", "moved")
    assert "at the beginning" in change.reason
    # A schema in the prompt joins the turns that were moved.
    wanted = StructuredOutput(json_schema=SCHEMA)
    asked = GenerateRequest(messages=turns, structured_output=wanted)
    fitted, _ = fit(asked, attrs.evolve(ALL, structured_output=False), ModelProfile(instruction_place="first"))
    assert fitted.messages[0] == turns[2]
    assert "JSON Schema" in fitted.messages[-1].text


def test_every_change_of_a_strict_tool_is_recorded():
    free = {**CLOSED, "properties": {"answer": {"type": "string", "minLength": 1, "maxLength": 9}}}
    tools = [Tool(name="add", description="", parameters=SCHEMA, strict=True)]
    fitted, (change,) = fit(GenerateRequest(prompt="x", tools=tools), ALL, ModelProfile(strict_schema=True))
    assert fitted.tools[0].parameters == CLOSED
    assert (change.field, change.action, change.asked, change.sent) == ("tools", "projected", "add", "add")
    assert change.reason
    tools = [Tool(name="add", description="", parameters=free, strict=True)]
    _, (change,) = fit(GenerateRequest(prompt="x", tools=tools), ALL, ModelProfile(strict_schema=True))
    assert len(change.reason.split("; ")) == 2
    assert "XX" not in change.reason


class Adapter:
    capabilities = attrs.evolve(ALL, max_tokens=10)

    def _profile_of(self, model):
        return ModelProfile(max_output=5) if model == "small" else None

    def generate(self, request):
        """Leave the fitting to the caller."""


def test_a_request_is_fitted_for_an_adapter_that_does_not_fit_it_by_itself():
    adapter, request = Adapter(), GenerateRequest(prompt="x", model="small", max_tokens=20)
    fitted, (change,) = fit_unless_marked(adapter, adapter.generate, request)
    assert (fitted.max_tokens, change.sent) == (5, 5)
    assert fit_unless_marked(adapter, adapter.generate, attrs.evolve(request, model="large"))[0].max_tokens == 10
    unchanged, adjustments = fit_unless_marked(adapter, fits_requests(lambda request: None), request)
    assert unchanged is request
    assert adjustments == ()


@pytest.mark.parametrize("name", middleware.__all__)
def test_every_middleware_leaves_fitting_to_the_adapters_that_it_calls(name):
    cls = getattr(middleware, name)
    if isinstance(cls, type) and issubclass(cls, ProviderAdapter):
        assert cls.generate._fits_requests
        assert cls.stream._fits_requests


def test_an_adapter_without_capabilities_is_refused_by_its_name():
    with pytest.raises(InvalidOption, match=r"str .*capabilities"):
        fit_unless_marked("bare", Adapter().generate, GenerateRequest(prompt="x"))


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"$schema": "https://x.example/unknown"}, {"$ref": "x.json"}])
@pytest.mark.parametrize("profile", [None, ModelProfile(structured="json_object"), ModelProfile(strict_schema=True)])
def test_what_is_no_schema_is_refused_before_an_answer_is_paid_for(
    schema: dict[str, Any], profile: ModelProfile | None
) -> None:
    with pytest.raises(InvalidOption, match="not a JSON Schema"):
        fit(GenerateRequest(prompt="p", structured_output=StructuredOutput(json_schema=schema)), ALL, profile)
