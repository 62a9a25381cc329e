"""Payloads, replies and streams written by hand with the field names of the vendors' API references."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council._wire.openai_chat import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council._wire.payloads import dumps
from llm_council.errors import RateLimited
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
CONVERSATION = [
    Message("system", "Be terse."),
    Message("developer", "Use the tools."),
    Message("user", [TextPart(text="Look"), ImagePart(url="https://x.example/a.png", detail="low")], name="ann"),
    Message("user", [ImagePart(data="aGk=", media_type="image/png")]),
    Message("assistant", tool_calls=[ToolCall(id="call_1", name="add", arguments='{"a":2}')]),
    Message("tool", "5", tool_call_id="call_1"),
    Message("assistant", tool_calls=[ToolCall(id="call_2", name="sh", arguments="ls", extra={"type": "custom"})]),
    Message("tool", [TextPart(text="a.txt"), ImagePart(url="https://x.example/b.png")], tool_call_id="call_2"),
]


def test_a_full_request_has_the_documented_fields() -> None:
    request = GenerateRequest(
        model="gpt-4.1",
        messages=CONVERSATION,
        max_tokens=100,
        temperature=0.2,
        top_p=0.9,
        stop=["END", "STOP"],
        tools=[Tool(name="add", description="Add.", parameters=SCHEMA, strict=True)],
        tool_choice="add",
        structured_output=StructuredOutput(json_schema=SCHEMA, name="answer", strict=True),
        reasoning=ReasoningConfig(effort="high"),
        stream=True,
        extra={"user": "u1", "parallel_tool_calls": False},
    )
    options = ChatOptions(
        max_tokens_field="max_completion_tokens", developer_role="developer", body={"service_tier": "flex"}
    )
    add = {"name": "add", "arguments": '{"a":2}'}
    assert encode_request(request, options) == {
        "service_tier": "flex",
        "model": "gpt-4.1",
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "developer", "content": "Use the tools."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
                ],
                "name": "ann",
            },
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": add}],
            },
            {"role": "tool", "content": "5", "tool_call_id": "call_1"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}],
            },
            {"role": "tool", "content": "a.txt", "tool_call_id": "call_2"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Returned by the tool's call call_2:"},
                    {"type": "image_url", "image_url": {"url": "https://x.example/b.png"}},
                ],
            },
        ],
        "max_completion_tokens": 100,
        "temperature": 0.2,
        "top_p": 0.9,
        "stop": ["END", "STOP"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "description": "Add.", "parameters": SCHEMA, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
        "reasoning_effort": "high",
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u1",
        "parallel_tool_calls": False,
    }


HIGH, OFF, BUDGET = ({"effort": "high"}, {"effort": "none"}, {"budget_tokens": 512})


@pytest.mark.parametrize(
    ("style", "asked", "written"),
    [
        ("effort", HIGH, {"reasoning_effort": "high"}),
        ("object", HIGH, {"reasoning": {"effort": "high"}}),
        ("object", BUDGET, {"reasoning": {"max_tokens": 512}}),
        ("vllm", {**HIGH, **BUDGET}, {"reasoning_effort": "high", "thinking_token_budget": 512}),
        ("vllm", OFF, {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}}),
        ("none", HIGH, {}),
    ],
)
def test_reasoning_in_every_style(style: str, asked: dict[str, Any], written: dict[str, Any]) -> None:
    request = GenerateRequest(prompt="Hi", reasoning=ReasoningConfig(**asked), max_tokens=9)
    assert encode_request(request, ChatOptions(reasoning=style)) == {
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        **written,
    }


@pytest.mark.parametrize("word", ["auto", "none", "required"])
def test_the_modes_of_tool_choice_are_words(word: str) -> None:
    request = GenerateRequest(prompt="Hi", tools=[Tool(name="f")], tool_choice=word)
    assert encode_request(request)["tool_choice"] == word


def test_cache_marks_and_json_mode() -> None:
    request = GenerateRequest(
        messages=[Message("user", [TextPart(text="Long", cache=True)])],
        prompt_cache="1h",
        structured_output=StructuredOutput(json_schema=SCHEMA),
    )
    assert encode_request(request, ChatOptions(cache_control=True, schema="json_object")) == {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Long", "cache_control": {"type": "ephemeral"}}]}
        ],
        "response_format": {"type": "json_object"},
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }


@pytest.mark.parametrize(
    ("echo", "part", "written"),
    [
        ("reasoning_content", ReasoningPart(text="Hm", vendor="v"), {"content": "4", "reasoning_content": "Hm"}),
        ("reasoning", ReasoningPart(text="Hm", vendor="v"), {"content": "4", "reasoning": "Hm"}),
        (
            "reasoning_details",
            ReasoningPart(vendor="v", data={"type": "reasoning.text", "text": "Hm"}),
            {"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
        ),
        (
            "content",
            ReasoningPart(text="Hm", vendor="v", signature="s"),
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}], "signature": "s"},
                    {"type": "text", "text": "4"},
                ]
            },
        ),
    ],
)
def test_reasoning_goes_back_where_the_server_wants_it(echo: str, part: ReasoningPart, written: dict[str, Any]) -> None:
    request = GenerateRequest(messages=[Message("assistant", [part, TextPart(text="4")])])
    payload = encode_request(request, ChatOptions(vendor="v", echo=echo))
    assert payload["messages"] == [{"role": "assistant", **written}]


USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 4},
    "cost": 0.25,
}
COUNTED = Usage(input_tokens=20, output_tokens=9, cached_tokens=8, cache_write_tokens=3, reasoning_tokens=4)


def test_a_whole_reply_is_read_with_all_its_facts() -> None:
    message = {
        "role": "assistant",
        "content": "4",
        "reasoning": "Hm",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        "annotations": [{"type": "url_citation"}],
    }
    answer = decode_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-4.1-2025",
            "provider": "Azure",
            "service_tier": "default",
            "system_fingerprint": "fp_1",
            "choices": [
                {"index": 0, "message": message, "finish_reason": "tool_calls", "native_finish_reason": "tool_use"}
            ],
            "usage": USAGE,
        }
    )
    assert (answer.text, answer.reasoning, answer.refusal) == ("4", "Hm", None)
    assert answer.tool_calls == (ToolCall(id="call_1", name="add", arguments="{}"),)
    assert (answer.usage, answer.cost and answer.cost.usd) == (COUNTED, 0.25)
    assert (answer.request_id, answer.model) == ("chatcmpl-1", "gpt-4.1-2025")
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.TOOL_CALLS, "tool_calls")
    assert answer.extra == {
        "provider": "Azure",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "native_finish_reason": "tool_use",
        "annotations": [{"type": "url_citation"}],
    }


def test_a_refusal_is_read() -> None:
    message = {"role": "assistant", "content": None, "refusal": "No."}
    answer = decode_response({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert (answer.text, answer.refusal, answer.finish_reason) == (None, "No.", FinishReason.CONTENT_FILTER)


def test_a_stream_is_read_event_by_event() -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "4"},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "add"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":2}'}}]},
    ]
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4.1"}
    events = [{**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    events.append({**common, "choices": [], "usage": USAGE})
    stream = ChatStream()
    chunks = [chunk for event in events for chunk in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    answer = join([*chunks, *stream.feed(b"data: [DONE]\n\n"), *stream.finish()])
    assert (answer.text, answer.reasoning, answer.usage) == ("4", "Hm", COUNTED)
    assert answer.tool_calls == (ToolCall(id="call_1", name="add", arguments='{"a":2}'),)
    assert (answer.request_id, answer.model, answer.raw_finish_reason) == ("chatcmpl-1", "gpt-4.1", "tool_calls")
    assert answer.cost is not None
    assert answer.cost.usd == 0.25


def test_an_error_is_read() -> None:
    error = {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    found = decode_error(429, {"Retry-After": "7", "x-request-id": "req_1"}, dumps({"error": error}))
    assert isinstance(found, RateLimited)
    assert (found.status, found.code, found.retry_after, found.request_id) == (429, "rate_limit_exceeded", 7.0, "req_1")
    assert "Slow down." in found.message
