"""Schemas that a vendor refuses, answers that ignore what was asked, and conversations that cross vendors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fault_rows import exempt

from llm_council import errors
from llm_council.models import Message, StructuredOutput, Tool, ToolCall
from llm_council.providers._call import second_way

ANSWER = '{"answer": "yes"}'
SHAPE = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
IN_PROMPT = "it takes no schema, which goes into the prompt at once."


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_way, "_refused", {})


def refused(mock: Any) -> Any:
    return 400, json.dumps(mock.dialect.refusal(400, None, "the schema cannot be compiled")).encode()


def wanted() -> StructuredOutput:
    return StructuredOutput(json_schema=SHAPE)


def changes(answer: Any) -> list[tuple[str, str]]:
    return [(change.field, change.action) for change in answer.adjustments]


@exempt("ai21", IN_PROMPT)
@exempt("replicate", IN_PROMPT)
def test_refused_schema(mock):
    """A schema that the vendor refuses: asked for once more in the prompt, reported, and remembered."""
    seat = mock.mocked(refused(mock), mock.dialect.body(ANSWER))
    answer = mock.ask(seat, structured_output=wanted())
    assert answer.text == ANSWER
    assert changes(answer)[0] == ("structured_output", "emulated")
    assert len(mock.calls) == 2
    assert json.dumps(SHAPE) in json.dumps(json.loads(mock.calls[1].content)).replace('\\"', '"')
    again = mock.ask(seat, structured_output=wanted())
    assert changes(again)[0] == ("structured_output", "emulated")
    assert len(mock.calls) == 3


@exempt("ai21", IN_PROMPT)
@exempt("replicate", IN_PROMPT)
def test_refused_request_with_a_schema(mock):
    """A request that is refused without its schema as well: the first `RequestRejected`; nothing is remembered."""
    seat = mock.mocked(refused(mock))
    mock.fails(seat, errors.RequestRejected, tries=1, structured_output=wanted())
    assert len(mock.calls) == 2
    assert not second_way._refused


@exempt("ai21", IN_PROMPT)
@exempt("replicate", IN_PROMPT)
def test_ignored_schema(mock):
    """A reply that ignores its schema: the answer is returned, and `adjustments` says so, in streams too."""
    answer = mock.ask(mock.mocked(mock.dialect.body("I would say yes.")), structured_output=wanted())
    assert changes(answer)[-1] == ("structured_output", "ignored")
    seat = mock.mocked((200, b"".join(mock.dialect.stream("yes")), {"content-type": mock.dialect.stream_type}))
    assert changes(mock.ask(seat, "stream", structured_output=wanted()))[-1] == ("structured_output", "ignored")


@exempt("ai21", "it takes no `tool_choice`, which is reported as dropped.")
@exempt("ollama", "it takes no `tool_choice`, which is reported as dropped.")
@exempt("replicate", "calls are part of the text, and a missing one is reported as emulated.")
def test_ignored_tool_choice(mock):
    """A reply without a call although `tool_choice` is `required`: returned, and reported in `adjustments`."""
    seat = mock.mocked(mock.dialect.body())
    answer = mock.ask(seat, tools=[Tool(name="look_up")], tool_choice="required")
    assert changes(answer)[-1] == ("tool_choice", "ignored")


@exempt("replicate", "a conversation is text there.")
def test_calls_of_other_vendors(mock):
    """Calls that other vendors made, with long, odd and repeated ids and blank texts: each call and result is sent with
    one id of its own that the vendor takes."""
    long = "call_" + "a" * 86
    calls = [ToolCall(id=call_id, name="look_up", arguments="{}") for call_id in (long, "a.b:c")]
    results = [Message("tool", "one", tool_call_id=call.id, name="look_up") for call in calls]
    turns = [Message("user", "x"), *([Message("assistant", "\n\n", tool_calls=calls), *results] * 2)]
    mock.ask(mock.mocked(mock.dialect.body()), prompt=None, messages=turns, tools=[Tool(name="look_up")])
    body = json.loads(mock.calls[0].content)
    found = list(ids(body))
    assert len(set(found)) == len(found) / 2
    assert '"\\n\\n"' not in json.dumps(body)


def ids(node: Any) -> Any:
    """Yield every id of a call and of a result."""
    if isinstance(node, dict):
        for key, value in node.items():
            is_id = key in ("call_id", "tool_call_id", "tool_use_id")
            if is_id or (key == "id" and ({"function", "name"} & node.keys())):
                yield value
            yield from ids(value)
    elif isinstance(node, list):
        for item in node:
            yield from ids(item)


@exempt("openai", "it takes instructions anywhere.")
@exempt("responses", "it takes instructions anywhere.")
@exempt("ai21", "it takes instructions anywhere.")
@exempt("ollama", "it takes instructions anywhere.")
def test_instruction_between_the_turns(mock):
    """A system turn in the middle, where the vendor takes none: moved to where it takes it, and reported."""
    turns = [Message("user", "a"), Message("assistant", "b"), Message("system", "In French."), Message("user", "c")]
    answer = mock.ask(mock.mocked(mock.dialect.body()), prompt=None, messages=turns)
    assert ("messages", "moved") in changes(answer)
