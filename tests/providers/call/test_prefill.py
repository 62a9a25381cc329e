"""A conversation that ends with the model's own text is a prefill, which newer models refuse."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council.models import (
    GenerateRequest,
    Message,
    ProviderCapabilities,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    ToolCall,
)
from llm_council.providers._call.fitting import fit
from llm_council.providers._call.profiles import profile_for

ALL = ProviderCapabilities(streaming=True, tool_use=True, structured_output=True, reasoning=True)
ASKED = Message("user", "Which city?")
PREFILL = Message("assistant", "The city is (")
GO_ON = Message("user", "Continue exactly where your last message ends.")


def fitted_turns(model: str, *turns: Message, provider: str = "anthropic", **options: Any) -> tuple[Any, list[str]]:
    request = GenerateRequest(model=model, messages=turns, **options)
    fitted, adjustments = fit(request, ALL, profile_for(provider, model))
    return fitted.messages, [change.action for change in adjustments if change.field == "messages"]


@pytest.mark.parametrize(
    ("provider", "model", "effort", "is_refused"),
    [
        ("anthropic", "claude-sonnet-5-5", None, True),
        ("anthropic", "claude-opus-4-6", None, True),
        ("anthropic", "claude-opus-4-5-20251101", None, False),
        ("anthropic", "claude-opus-4-5", "none", False),
        ("anthropic", "claude-opus-4-5", "low", True),
        ("anthropic", "claude-haiku-4-5", None, False),
        ("anthropic", "claude-3-5-haiku-latest", None, False),
        ("openrouter", "mistralai/mistral-large", None, False),
        ("openai", "gpt-5.4", "low", False),
    ],
)
def test_a_model_that_refuses_a_prefill_is_asked_to_go_on(
    provider: str, model: str, effort: str | None, is_refused: bool
) -> None:
    reasoning = None if effort is None else ReasoningConfig(effort=effort)
    turns, actions = fitted_turns(model, ASKED, PREFILL, provider=provider, reasoning=reasoning)
    assert turns == ((ASKED, PREFILL, GO_ON) if is_refused else (ASKED, PREFILL))
    assert actions == (["added"] if is_refused else [])


@pytest.mark.parametrize(
    "last",
    [
        ASKED,
        Message("assistant", "", tool_calls=[ToolCall(id="c1", name="f", arguments="{}")]),
        Message("assistant", " "),  # blank texts are not sent
        Message(
            "assistant",
            [
                TextPart(text="I look it up."),
                ReasoningPart(vendor="anthropic", data={"type": "server_tool_use", "id": "s1", "name": "web_search"}),
            ],
        ),
    ],
    ids=["user", "call", "blank", "server tool"],
)
def test_other_ends_of_a_conversation_are_no_prefill(last: Message) -> None:
    assert fitted_turns("claude-sonnet-5-5", ASKED, last) == ((ASKED, last), [])


def test_a_prefill_may_have_parts() -> None:
    thought = ReasoningPart(vendor="anthropic", data={"type": "thinking", "thinking": "Oslo?", "signature": "c2ln"})
    last = Message("assistant", [thought, TextPart(text="The city is (")])
    assert fitted_turns("claude-sonnet-5-5", ASKED, last) == ((ASKED, last, GO_ON), ["added"])


def test_the_turn_that_is_added_is_recorded() -> None:
    request = GenerateRequest(messages=[ASKED, PREFILL])
    _, (change,) = fit(request, ALL, profile_for("anthropic", "claude-sonnet-5-5"))
    assert (change.field, change.action, change.sent) == ("messages", "added", GO_ON.content)
    assert "prefill" in change.reason or "own" in change.reason


def test_instructions_after_the_prefill_do_not_hide_it() -> None:
    turns, actions = fitted_turns("claude-sonnet-5-5", ASKED, PREFILL, Message("system", "Be brief."))
    assert turns[-2:] == (PREFILL, GO_ON)
    assert actions == ["moved", "added"]


def test_a_schema_in_the_prompt_is_the_last_turn_already() -> None:
    schema = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "string"}}})
    request = GenerateRequest(messages=[ASKED, PREFILL], structured_output=schema)
    capabilities = ProviderCapabilities(structured_output=False)
    fitted, _ = fit(request, capabilities, profile_for("anthropic", "claude-sonnet-5-5"))
    assert [turn.role for turn in fitted.messages] == ["user", "assistant", "user"]
    assert "JSON Schema" in fitted.messages[-1].text
