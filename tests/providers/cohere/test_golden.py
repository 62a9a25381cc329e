"""Payloads and replies of Cohere's ``POST /v2/chat``, written by hand with the field names that Cohere documents.

The laws in ``test_laws.py`` use our own mirror: a name that is misspelt on both sides passes them, and fails here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    RateLimited,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    ImagePart,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from llm_council.providers._cohere import ChatStream, decode_error, decode_response, encode_request

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}}
CITATION = {"start": 0, "end": 4, "text": "Rain", "sources": [{"type": "tool", "id": "weather_1:0"}]}
USAGE = {
    "billed_units": {"input_tokens": 119, "output_tokens": 52},
    "tokens": {"input_tokens": 1549, "output_tokens": 103},
    "cached_tokens": 992,
}


def test_a_request_with_every_field() -> None:
    request = GenerateRequest(
        model="command-a-reasoning-08-2025",
        messages=[
            Message("system", "Be terse."),
            Message("developer", "Answer in French."),
            Message(
                "user",
                [
                    TextPart(text="Weather here?"),
                    ImagePart(data="iVBORw0KGgo=", media_type="image/png", detail="low"),
                    ImagePart(url="https://example.com/a.png"),
                ],
            ),
            Message(
                "assistant",
                [
                    ReasoningPart(vendor="cohere", data={"tool_plan": "I will look."}),
                    ReasoningPart(text="It may rain.", vendor="cohere"),
                    ReasoningPart(text="not ours", vendor="anthropic"),
                    TextPart(text="One moment."),
                ],
                tool_calls=[ToolCall(id="weather_1", name="get_weather", arguments={"city": "Paris"})],
            ),
            Message("tool", "rain", tool_call_id="weather_1"),
            Message(
                "assistant",
                [ReasoningPart(vendor="cohere", data={"tool_plan": "Again."})],
                tool_calls=[ToolCall(id="weather_2", name="get_weather", arguments=" ")],
            ),
            Message("tool", "sun", tool_call_id="weather_2"),
            Message("assistant", "Rain."),
            Message("user", [TextPart(text="Than", cache=True), TextPart(text="ks")]),
        ],
        max_tokens=7,
        temperature=0.3,
        top_p=0.9,
        stop=["END", "STOP"],
        tools=[
            Tool(name="get_weather", description="Get weather", parameters=CITY, strict=True),
            Tool(name="noop", parameters={"type": "object"}, strict=True),
        ],
        tool_choice="required",
        structured_output=StructuredOutput(json_schema=ANSWER),
        reasoning=ReasoningConfig(budget_tokens=500),
        stream=True,
        extra={"k": 3, "seed": 1, "safety_mode": "STRICT"},
    )
    assert encode_request(request) == {
        "model": "command-a-reasoning-08-2025",
        "messages": [
            {"role": "system", "content": "Be terse.\n\nAnswer in French."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Weather here?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "tool_plan": "I will look.",
                "content": [
                    {"type": "thinking", "thinking": "It may rain."},
                    {"type": "text", "text": "One moment."},
                ],
                "tool_calls": [
                    {
                        "id": "weather_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "weather_1", "content": "rain"},
            {
                "role": "assistant",
                "tool_plan": "Again.",
                "tool_calls": [
                    {"id": "weather_2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "weather_2", "content": "sun"},
            {"role": "assistant", "content": "Rain."},
            {"role": "user", "content": "Thanks"},
        ],
        "max_tokens": 7,
        "temperature": 0.3,
        "p": 0.9,
        "stop_sequences": ["END", "STOP"],
        "tools": [
            {
                "type": "function",
                "function": {"name": "get_weather", "description": "Get weather", "parameters": CITY},
            },
            {"type": "function", "function": {"name": "noop", "parameters": {"type": "object"}}},
        ],
        "strict_tools": True,
        "tool_choice": "REQUIRED",
        "response_format": {"type": "json_object", "json_schema": ANSWER},
        "thinking": {"type": "enabled", "token_budget": 500},
        "stream": True,
        "k": 3,
        "seed": 1,
        "safety_mode": "STRICT",
    }


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {}),
        ({"tools": [Tool(name="f", parameters={"type": "object"}), Tool(name="g", strict=True)]}, {}),
        ({"tools": [Tool(name="f")], "tool_choice": "auto"}, {}),
        ({"tools": [Tool(name="f")], "tool_choice": "none"}, {"tool_choice": "NONE"}),
        ({"tools": [Tool(name="f")], "tool_choice": "f"}, {"tool_choice": "REQUIRED"}),
        ({"reasoning": ReasoningConfig(effort="none")}, {"thinking": {"type": "disabled"}}),
        ({"reasoning": ReasoningConfig(budget_tokens=0)}, {"thinking": {"type": "disabled"}}),
        ({"reasoning": ReasoningConfig(effort="high")}, {"thinking": {"type": "enabled"}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {"response_format": {"type": "json_object", "json_schema": ANSWER}},
            {"response_format": {"type": "json_object", "json_schema": ANSWER}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER}}},
            {"response_format": {"type": "json_object", "json_schema": ANSWER}},
        ),
    ],
)
def test_fields_with_several_forms(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    payload = encode_request(GenerateRequest(model="command-a-03-2025", prompt="Hi", **asked))
    payload.pop("tools", None)
    assert payload == {"model": "command-a-03-2025", "messages": [{"role": "user", "content": "Hi"}], **sent}


def test_a_whole_reply() -> None:
    reply = {
        "id": "f201af17",
        "message": {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "It may "},
                {"type": "thinking", "thinking": "rain."},
                {"type": "text", "text": "Rain"},
                {"type": "novel", "novel": "unknown"},
                {"type": "text", "text": " in Paris."},
            ],
            "tool_plan": "I will look.",
            "tool_calls": [
                {
                    "id": "weather_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
                },
                {"id": "noop_1", "type": "function", "function": {"name": "noop", "arguments": None}},
            ],
            "citations": [CITATION],
        },
        "finish_reason": "TOOL_CALL",
        "usage": USAGE,
    }
    response = decode_response(reply, model="command-a-03-2025")
    assert response.text == "Rain in Paris."
    assert response.reasoning == "It may rain."
    assert response.reasoning_parts == (
        ReasoningPart(text="It may ", vendor="cohere"),
        ReasoningPart(text="rain.", vendor="cohere"),
        ReasoningPart(vendor="cohere", data={"tool_plan": "I will look."}),
    )
    assert response.tool_calls == (
        ToolCall(id="weather_1", name="get_weather", arguments='{"city":"Paris"}'),
        ToolCall(id="noop_1", name="noop", arguments=""),
    )
    assert response.usage == Usage(input_tokens=1549, output_tokens=103, cached_tokens=992)
    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.TOOL_CALLS, "TOOL_CALL")
    assert (response.request_id, response.model, response.raw) == ("f201af17", "command-a-03-2025", reply)
    assert response.extra == {
        "tool_plan": "I will look.",
        "citations": [CITATION],
        "billed_units": {"input_tokens": 119, "output_tokens": 52},
    }


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("COMPLETE", FinishReason.STOP),
        ("STOP_SEQUENCE", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("TOOL_CALL", FinishReason.TOOL_CALLS),
        ("ERROR", FinishReason.ERROR),
        ("TIMEOUT", FinishReason.ERROR),
        ("NOVEL", None),
    ],
)
def test_finish_reasons(word: str, reason: FinishReason | None) -> None:
    response = decode_response({"id": "x", "message": {"role": "assistant", "content": "Hi"}, "finish_reason": word})
    assert (response.text, response.usage, response.extra) == ("Hi", None, {})
    assert (response.finish_reason, response.raw_finish_reason) == (reason, word)


STREAM: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    (
        {
            "id": "2941521a",
            "type": "message-start",
            "delta": {
                "message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
            },
        },
        {"request_id": "2941521a", "model": "command-a-03-2025"},
    ),
    ({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will "}}}, {}),
    ({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "look."}}}, {}),
    (
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}}},
        None,
    ),
    (
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "It may "}}}},
        {"reasoning": "It may "},
    ),
    (
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"thinking": "rain."}}}},
        {"reasoning": "rain."},
    ),
    ({"type": "content-end", "index": 0}, None),
    (
        {"type": "content-start", "index": 1, "delta": {"message": {"content": {"type": "text", "text": "R"}}}},
        {"text": "R"},
    ),
    ({"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "ain"}}}}, {"text": "ain"}),
    ({"type": "content-end", "index": 1}, None),
    (
        {"type": "content-delta", "index": 2, "delta": {"message": {"content": {"thinking": "Sure?"}}}},
        {"reasoning": "Sure?"},
    ),
    (
        {
            "type": "tool-call-start",
            "index": 0,
            "delta": {
                "message": {
                    "tool_calls": {
                        "id": "weather_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": ""},
                    }
                }
            },
        },
        {"tool_calls": (ToolCallDelta(index=0, id="weather_1", name="get_weather"),)},
    ),
    (
        {
            "type": "tool-call-start",
            "index": 1,
            "delta": {
                "message": {
                    "tool_calls": {"id": "noop_1", "type": "function", "function": {"name": "noop", "arguments": "{"}}
                }
            },
        },
        {"tool_calls": (ToolCallDelta(index=1, id="noop_1", name="noop", arguments="{"),)},
    ),
    (
        {
            "type": "tool-call-delta",
            "index": 0,
            "delta": {"message": {"tool_calls": {"function": {"arguments": "{}"}}}},
        },
        {"tool_calls": (ToolCallDelta(index=0, arguments="{}"),)},
    ),
    ({"type": "tool-call-end", "index": 0}, None),
    ({"type": "citation-start", "index": 0, "delta": {"message": {"citations": CITATION}}}, {}),
    ({"type": "citation-end", "index": 0}, None),
    (
        {
            "type": "message-end",
            "delta": {"finish_reason": "ERROR", "error": "no reply", "error_type": "BAD_TOOL", "usage": USAGE},
        },
        {
            "finish_reason": FinishReason.ERROR,
            "raw_finish_reason": "ERROR",
            "usage": Usage(input_tokens=1549, output_tokens=103, cached_tokens=992),
            "extra": {
                "billed_units": {"input_tokens": 119, "output_tokens": 52},
                "error": "no reply",
                "error_type": "BAD_TOOL",
            },
        },
    ),
]


@pytest.mark.parametrize("typed", [True, False], ids=["by type", "by event name"])
def test_a_stream_event_by_event(typed: bool) -> None:
    """The type of an event is in its JSON and in its name; either is enough."""
    stream = ChatStream(model="command-a-03-2025")
    for event, facts in STREAM:
        written = event if typed else {key: value for key, value in event.items() if key != "type"}
        name = "" if typed else f"event: {event['type']}\n"
        chunks = stream.feed(f"{name}data: {json.dumps(written)}\n\n".encode())
        if event["type"] == "message-end":
            break
        assert chunks == ([] if facts is None else [GenerateChunk(**facts)]), event
    assert STREAM[-1][1] is not None
    *before, last = [*chunks, *stream.feed(b"data: [DONE]\n\n"), *stream.finish()]
    assert before == [GenerateChunk(**STREAM[-1][1])]
    assert last == GenerateChunk(
        reasoning_parts=(
            ReasoningPart(text="It may rain.", vendor="cohere"),
            ReasoningPart(text="Sure?", vendor="cohere"),
            ReasoningPart(vendor="cohere", data={"tool_plan": "I will look."}),
        ),
        extra={"tool_plan": "I will look.", "citations": [CITATION]},
    )


@pytest.mark.parametrize(
    ("status", "message", "cls", "retryable"),
    [
        (400, "invalid request: 'model' is required", ApiError, False),
        (400, "too many tokens: the prompt cannot exceed 128000 tokens", ContextTooLong, False),
        (401, "invalid api token", AuthenticationFailed, False),
        (429, "You are using a Trial key", RateLimited, True),
        (498, "blocked input: please consider revising your input", ContentFiltered, False),
        (500, "internal server error", ServerFailed, True),
    ],
)
def test_errors(status: int, message: str, cls: type[ProviderError], retryable: bool) -> None:
    headers = {"X-RateLimit-Reset": "1700000012"}
    body = json.dumps({"id": "8a1c", "message": message})
    error = decode_error(status, headers, body, now=1_700_000_000.0)
    assert isinstance(error, cls)
    assert message in error.message
    assert (error.request_id, error.retryable) == ("8a1c", retryable)
    if status == 429:
        assert error.retry_after == 12.0
    assert decode_error(status, {"X-Debug-Trace-Id": "t-1"}, json.dumps({"message": message})).request_id == "t-1"


def test_a_stream_that_ends_without_its_last_event_is_truncated() -> None:
    stream = ChatStream()
    stream.feed(b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hel"}}}}\n\n')
    stream.feed(b"data: [DONE]\n\n")
    with pytest.raises(TruncatedReply) as caught:
        stream.finish()
    assert caught.value.partial == "Hel"


def test_a_reply_with_an_error_field_and_an_answer_is_an_answer() -> None:
    """With the finish reason ERROR, ``error`` says why the model stopped; the answer so far still counts."""
    message = {"role": "assistant", "content": [{"type": "text", "text": "Hel"}]}
    response = decode_response({"id": "x", "message": message, "finish_reason": "ERROR", "error": "no reply"})
    assert (response.text, response.finish_reason) == ("Hel", FinishReason.ERROR)
    stream = ChatStream()
    event = {"type": "message-end", "delta": {"finish_reason": "ERROR"}, "error": "no reply", "message": "no reply"}
    (chunk,) = stream.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert chunk.finish_reason == FinishReason.ERROR


@pytest.mark.parametrize("key", ["code", "status", "status_code"])
def test_the_status_of_an_error_with_status_200(key: str) -> None:
    with pytest.raises(RateLimited) as caught:
        decode_response({"id": "8a1c", "message": "too many requests", key: 429})
    assert caught.value.status == 429


def test_an_error_with_status_200() -> None:
    error = {"id": "8a1c", "message": "too many requests", "status_code": 429}
    with pytest.raises(RateLimited, match="too many requests") as caught:
        decode_response(error)
    assert (caught.value.request_id, caught.value.status) == ("8a1c", 429)
    stream = ChatStream()
    stream.feed(b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hel"}}}}\n\n')
    with pytest.raises(RateLimited, match="too many requests") as caught:
        stream.feed(f"data: {json.dumps(error)}\n\n".encode())
    assert (caught.value.partial, caught.value.request_id) == ("Hel", "8a1c")
    with pytest.raises(RateLimited, match="slow down"):
        decode_response({"error": {"message": "slow down", "code": 429}})
