"""What every model class guarantees: it is frozen, can be pickled and copied, and refuses unknown keywords."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest
import strategies
from hypothesis import Phase, find, given
from hypothesis import strategies as st
from strategies import examples

from llm_council import events
from llm_council import models as m
from llm_council.errors import InvalidOption, UnknownOption

MODELS = [cls for name in m.__all__ if isinstance(cls := getattr(m, name), type) and attrs.has(cls)]
EVENTS = [cls for name in events.__all__ if isinstance(cls := getattr(events, name), type) and attrs.has(cls)]
FEW = examples(15)
CHECKED = [cls for cls in MODELS if cls.__name__ not in ("GenerateChunk", "ToolCallDelta", "Attempt")]


@FEW
@given(st.data())
@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_every_model_can_be_pickled_and_copied(cls: type, data: st.DataObject) -> None:
    model: Any = data.draw(strategies.instances_of(cls))
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model), attrs.evolve(model)):
        assert type(again) is type(model)
        assert repr(again) == repr(model)
        if not errors_in(model):
            assert again == model


def errors_in(model: Any) -> bool:
    """Return True if the model contains an error. Errors have no equality of their own."""
    return getattr(model, "error", None) is not None


@pytest.mark.parametrize("cls", [*MODELS, *EVENTS], ids=lambda cls: cls.__name__)
def test_every_model_is_frozen(cls: Any) -> None:
    model = object.__new__(cls)
    name = attrs.fields(cls)[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(model, name, 1)


@pytest.mark.parametrize("cls", CHECKED, ids=lambda cls: cls.__name__)
def test_every_model_refuses_unknown_keywords_with_a_suggestion(cls: Any) -> None:
    name = attrs.fields(cls)[0].name
    with pytest.raises(UnknownOption) as caught:
        cls(**{f"{name}x": 1})
    assert caught.value.message == f"{cls.__name__} takes no '{name}x'; did you mean '{name}'?"


def test_a_missing_keyword_raises_type_error() -> None:
    with pytest.raises(TypeError, match="seat"):
        m.Draft()  # type: ignore[call-arg]


def test_constructors_work_as_in_the_page_for_provider_authors() -> None:
    capabilities = m.ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=False, max_tokens=4096
    )
    assert capabilities.has("streaming")
    assert not capabilities.has("multimodal")
    assert not capabilities.has("telepathy")
    assert not capabilities.has("max_tokens")
    answer = m.GenerateResponse(text="x", content="x", model="my-model-v1", finish_reason="stop")
    assert (answer.text, answer.content, answer.model) == ("x", "x", "my-model-v1")
    assert answer.finish_reason == "stop"
    assert m.GenerateResponse(text=None, content=None, model=None, finish_reason=None).text is None
    health = m.DoctorResult(ok=False, message="MY_API_KEY not set")
    assert (health.ok, health.message) == (False, "MY_API_KEY not set")
    assert m.DoctorResult(ok=True, message="API accessible", latency_ms=12.5).latency_ms == 12.5
    request = m.GenerateRequest(prompt="hello")
    assert request.messages == ()
    assert (request.model, request.max_tokens, request.temperature) == (None, None, None)
    chat = m.GenerateRequest(messages=[{"role": "user", "content": "hello"}])
    assert [{"role": turn.role, "content": turn.content} for turn in chat.messages] == [
        {"role": "user", "content": "hello"}
    ]


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (m.GenerateRequest, {}, "needs a prompt or messages"),
    (m.GenerateRequest, {"prompt": ""}, "needs a prompt or messages"),
    (m.GenerateRequest, {"prompt": 7}, "GenerateRequest.prompt: text"),
    (m.GenerateRequest, {"prompt": "x", "temperature": "hot"}, "temperature: a number of 0 or more"),
    (m.GenerateRequest, {"prompt": "x", "temperature": float("nan")}, "temperature: a number of 0 or more"),
    (m.GenerateRequest, {"prompt": "x", "temperature": True}, "temperature: a number of 0 or more"),
    (m.GenerateRequest, {"prompt": "x", "top_p": 1.1}, "top_p: a number from 0 to 1"),
    (m.GenerateRequest, {"prompt": "x", "max_tokens": 0}, "max_tokens: a whole number of 1 or more"),
    (m.GenerateRequest, {"prompt": "x", "max_tokens": 1.5}, "max_tokens: a whole number of 1 or more"),
    (m.GenerateRequest, {"prompt": "x", "timeout_seconds": 0}, "timeout_seconds: a number above 0"),
    (m.GenerateRequest, {"messages": "hello"}, "expected a sequence"),
    (m.GenerateRequest, {"messages": [7]}, "GenerateRequest.messages"),
    (m.GenerateRequest, {"prompt": "x", "tools": [{"nam": "f"}]}, "GenerateRequest.tools"),
    (m.GenerateRequest, {"prompt": "x", "tool_choice": {"type": "x"}}, "GenerateRequest.tool_choice"),
    (m.ReasoningConfig, {"effort": "hard"}, "ReasoningConfig.effort: one of none"),
    (m.ImagePart, {}, "either url or data"),
    (m.ImagePart, {"data": "aGk="}, "needs media_type"),
    (m.ImagePart, {"url": "data:text/plain,hi"}, "must read data:<media type>;base64"),
    (m.TextPart, {"text": None}, "TextPart.text"),
    (m.Tool, {"name": None}, "Tool.name"),
    (m.Limits, {"json_depth": None}, "Limits.json_depth"),
    (m.RetryPolicy, {"max_retries": None}, "RetryPolicy.max_retries"),
    (m.Usage, {"input_tokens": -1}, "Usage.input_tokens"),
    (m.Budget, {"deadline": 0}, "Budget.deadline"),
    (m.Budget, {"quorum": 0}, "Budget.quorum"),
]


@pytest.mark.parametrize(("cls", "facts", "expected"), REFUSED)
def test_an_invalid_value_is_refused_with_class_and_field(cls: Any, facts: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        cls(**facts)
    assert expected in caught.value.message


@FEW
@given(strategies.events())
def test_every_event_can_be_pickled(event: events.Event) -> None:
    assert repr(pickle.loads(pickle.dumps(event))) == repr(event)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [cls for cls in EVENTS if cls is not events.Event], ids=lambda cls: cls.__name__)
def test_the_hypothesis_strategies_generate_every_event(cls: type) -> None:
    until_found = examples(1000, phases=[Phase.generate])
    assert find(strategies.events(), lambda event: type(event) is cls, settings=until_found)
