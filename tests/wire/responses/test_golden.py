"""Payloads, replies and streams written by hand with the field names of OpenAI's Responses API reference."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council._wire.payloads import dumps
from llm_council._wire.responses import ResponsesOptions, ResponseStream, decode_response, encode_request
from llm_council.models import (
    FinishReason,
    GenerateRequest,
    ImagePart,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    Usage,
    join,
)

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}],
           "encrypted_content": "abc"}  # fmt: skip


def test_a_full_request_has_the_documented_fields() -> None:
    shell = ToolCall(id="call_2", name="sh", arguments="ls", extra={"type": "custom"})
    request = GenerateRequest(
        model="gpt-5",
        messages=[
            Message("system", "Be terse."),
            Message("developer", "Use the tools."),
            Message("user", [TextPart(text="Look"), ImagePart(url="https://x.example/a.png", detail="low")]),
            Message("system", "Go on."),
            Message(
                "assistant",
                [ReasoningPart(vendor="openai", data=THOUGHT), TextPart(text="Adding.")],
                tool_calls=[ToolCall(id="call_1", name="add", arguments='{"a":2}', extra={"id": "fc_1"})],
            ),
            Message("tool", "5", tool_call_id="call_1"),
            Message("assistant", tool_calls=[shell]),
            Message("tool", [ImagePart(data="aGk=", media_type="image/png")], tool_call_id="call_2"),
        ],
        max_tokens=100,
        temperature=0.2,
        top_p=0.9,
        tools=[Tool(name="add", description="Add.", parameters=SCHEMA, strict=True)],
        tool_choice="add",
        structured_output=StructuredOutput(json_schema=SCHEMA, name="answer", strict=True),
        reasoning=ReasoningConfig(effort="high"),
        stream=True,
        extra={"user": "u1", "text": {"verbosity": "low"}, "parallel_tool_calls": False},
    )
    options = ResponsesOptions(store=False, summary="auto", body={"truncation": "auto"})
    assert encode_request(request, options) == {
        "truncation": "auto",
        "model": "gpt-5",
        "instructions": "Be terse.\n\nUse the tools.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"},
                ],
            },
            {"role": "developer", "content": "Go on."},
            THOUGHT,
            {"role": "assistant", "content": "Adding."},
            {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a":2}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "5"},
            {"type": "custom_tool_call", "call_id": "call_2", "name": "sh", "input": "ls"},
            {
                "type": "custom_tool_call_output",
                "call_id": "call_2",
                "output": [{"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"}],
            },
        ],
        "max_output_tokens": 100,
        "temperature": 0.2,
        "top_p": 0.9,
        "tools": [{"type": "function", "name": "add", "description": "Add.", "parameters": SCHEMA, "strict": True}],
        "tool_choice": {"type": "function", "name": "add"},
        "text": {
            "format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True},
            "verbosity": "low",
        },
        "reasoning": {"effort": "high", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
        "user": "u1",
        "parallel_tool_calls": False,
    }


@pytest.mark.parametrize("word", ["auto", "none", "required"])
def test_a_small_request_is_text_and_mode_words(word: str) -> None:
    request = GenerateRequest(prompt="Hi", max_tokens=1, tool_choice=word, tools=[Tool(name="f", parameters=SCHEMA)])
    assert encode_request(request) == {
        "input": "Hi",
        "max_output_tokens": 16,
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": None}],
        "tool_choice": word,
    }


USAGE = {
    "input_tokens": 20,
    "output_tokens": 9,
    "total_tokens": 29,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 3},
    "output_tokens_details": {"reasoning_tokens": 4},
    "cost": 0.25,
}
COUNTED = Usage(input_tokens=20, output_tokens=9, cached_tokens=8, cache_write_tokens=3, reasoning_tokens=4)
NOTE = {"type": "url_citation"}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Four", "annotations": [NOTE]}],
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": "{}",
        "status": "completed"}  # fmt: skip
CUSTOM = {"type": "custom_tool_call", "call_id": "call_2", "name": "sh", "input": "ls"}
REPLY: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5-2025",
    "status": "completed",
    "service_tier": "default",
    "output": [THOUGHT, MESSAGE, CALL, CUSTOM],
    "usage": USAGE,
}


def assert_all_facts(answer: Any) -> None:
    assert (answer.text, answer.reasoning, answer.refusal) == ("Four", "Hm", None)
    assert answer.tool_calls == (
        ToolCall(id="call_1", name="add", arguments="{}", extra={"id": "fc_1"}),
        ToolCall(id="call_2", name="sh", arguments="ls", extra={"type": "custom"}),
    )
    assert answer.reasoning_parts == (ReasoningPart(text="Hm", signature="abc", vendor="openai", data=THOUGHT),)
    assert (answer.usage, answer.cost and answer.cost.usd) == (COUNTED, 0.25)
    assert (answer.request_id, answer.model) == ("resp_1", "gpt-5-2025")
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.TOOL_CALLS, "completed")
    assert answer.extra == {"service_tier": "default", "response_id": "resp_1", "annotations": [NOTE]}


def test_a_whole_reply_is_read_with_all_its_facts() -> None:
    assert_all_facts(decode_response(REPLY))


def read(events: list[dict[str, Any]]) -> Any:
    stream = ResponseStream()
    chunks = [chunk for event in events for chunk in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    return join([*chunks, *stream.finish()])


def test_a_stream_is_read_event_by_event() -> None:
    opened = {**CALL, "arguments": "", "status": "in_progress"}
    events = [
        {"type": "response.created", "response": {**REPLY, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "Hm"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Fo"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "ur"},
        {"type": "response.output_item.added", "output_index": 2, "item": opened},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"},
        {"type": "response.output_item.added", "output_index": 3, "item": {**CUSTOM, "input": ""}},
        {"type": "response.custom_tool_call_input.delta", "output_index": 3, "delta": "ls"},
    ]
    assert_all_facts(read([*events, {"type": "response.completed", "response": REPLY}]))


REFUSAL = {**MESSAGE, "content": [{"type": "refusal", "refusal": "No."}]}


def test_a_refusal_is_read_whole_and_streamed() -> None:
    reply = {**REPLY, "output": [REFUSAL]}
    delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No."}
    for answer in (decode_response(reply), read([delta, {"type": "response.completed", "response": reply}])):
        assert (answer.text, answer.refusal, answer.finish_reason) == (None, "No.", FinishReason.CONTENT_FILTER)


def test_an_incomplete_reply_gives_its_reason() -> None:
    details = {"reason": "max_output_tokens"}
    answer = decode_response({**REPLY, "output": [MESSAGE], "status": "incomplete", "incomplete_details": details})
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.LENGTH, "max_output_tokens")
