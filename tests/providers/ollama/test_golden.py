"""Payloads and replies of Ollama's ``POST /api/chat``, written by hand with the field names that Ollama documents.

The laws in ``test_laws.py`` use our own mirror: a name that is misspelt on both sides passes them, and fails here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council.errors import ModelNotFound, ServerFailed
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
from llm_council.providers._ollama import ChatOptions, ChatStream, decode_error, decode_response, encode_request

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}}
LOGPROBS = [{"token": "Rain", "logprob": -0.1, "bytes": [82], "top_logprobs": []}]
TIMES = {
    "total_duration": 182242375,
    "load_duration": 41295167,
    "prompt_eval_duration": 24573166,
    "eval_duration": 115959084,
}
END = {"done": True, "done_reason": "stop", "prompt_eval_count": 169, "eval_count": 15, **TIMES}


def test_a_request_with_every_field() -> None:
    request = GenerateRequest(
        model="llama3.2",
        messages=[
            Message("system", "Be terse."),
            Message("developer", "Answer in French."),
            Message("user", [TextPart(text="Weather here?"), ImagePart(data="iVBORw0KGgo=", media_type="image/png")]),
            Message(
                "assistant",
                [
                    ReasoningPart(text="It may rain.", vendor="ollama"),
                    ReasoningPart(text="not ours", vendor="anthropic"),
                    TextPart(text="One moment."),
                ],
                tool_calls=[ToolCall(id="call_0", name="get_weather", arguments={"city": "Paris"})],
            ),
            Message("tool", "rain", tool_call_id="call_0"),
        ],
        max_tokens=7,
        temperature=0.3,
        top_p=0.9,
        stop=["END", "STOP"],
        tools=[
            Tool(name="get_weather", description="Get weather", parameters=CITY),
            Tool(name="noop", parameters={"type": "object"}),
        ],
        structured_output=StructuredOutput(json_schema=ANSWER),
        reasoning=ReasoningConfig(effort="medium"),
        stream=True,
        extra={"keep_alive": "5m", "options": {"num_ctx": 8192, "seed": 1}},
    )
    assert encode_request(request) == {
        "model": "llama3.2",
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "system", "content": "Answer in French."},
            {"role": "user", "content": "Weather here?", "images": ["iVBORw0KGgo="]},
            {
                "role": "assistant",
                "content": "One moment.",
                "thinking": "It may rain.",
                "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}],
            },
            {"role": "tool", "content": "rain", "tool_name": "get_weather"},
        ],
        "stream": True,
        "tools": [
            {
                "type": "function",
                "function": {"name": "get_weather", "description": "Get weather", "parameters": CITY},
            },
            {"type": "function", "function": {"name": "noop", "parameters": {"type": "object"}}},
        ],
        "format": ANSWER,
        "think": True,
        "options": {
            "num_predict": 7,
            "temperature": 0.3,
            "top_p": 0.9,
            "stop": ["END", "STOP"],
            "num_ctx": 8192,
            "seed": 1,
        },
        "keep_alive": "5m",
    }


def test_a_request_with_nothing_optional() -> None:
    payload = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    assert encode_request(GenerateRequest(model="m", prompt="Hi")) == payload
    assert encode_request(GenerateRequest(prompt="Hi"), model="m") == payload


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"format": "json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER}}},
            {"format": ANSWER},
        ),
        ({"reasoning": ReasoningConfig(effort="none")}, {"think": False}),
        ({"reasoning": ReasoningConfig(effort="minimal")}, {"think": "low"}),
        ({"reasoning": ReasoningConfig(effort="low")}, {"think": "low"}),
        ({"reasoning": ReasoningConfig(effort="medium")}, {"think": "medium"}),
        ({"reasoning": ReasoningConfig(effort="high")}, {"think": "high"}),
        ({"reasoning": ReasoningConfig(effort="xhigh")}, {"think": "high"}),
        ({"reasoning": ReasoningConfig(effort="max")}, {"think": "max"}),
    ],
)
def test_fields_with_several_forms(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    payload = encode_request(GenerateRequest(model="m", prompt="Hi", **asked), ChatOptions(think_levels=True))
    assert payload == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": False, **sent}


def test_fields_that_every_request_carries() -> None:
    options = ChatOptions(body={"keep_alive": 0, "options": {"num_ctx": 4096, "num_gpu": 1}})
    request = GenerateRequest(model="m", prompt="Hi", extra={"options": {"num_ctx": 8192}})
    assert encode_request(request, options) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "keep_alive": 0,
        "options": {"num_ctx": 8192, "num_gpu": 1},
    }


def test_a_whole_reply() -> None:
    reply = {
        "model": "llama3.2",
        "created_at": "2025-07-07T20:32:53.844124Z",
        "message": {
            "role": "assistant",
            "content": "Rain.",
            "thinking": "It may rain.",
            "tool_calls": [
                {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}},
                {"id": "call_x", "function": {"name": "noop", "arguments": {}}},
            ],
        },
        **END,
        "remote_model": "gpt-oss:120b",
        "remote_host": "https://ollama.com:443",
        "logprobs": LOGPROBS,
    }
    response = decode_response(reply, request_id="req-1")
    assert response.text == "Rain."
    assert response.reasoning == "It may rain."
    assert response.reasoning_parts == (ReasoningPart(text="It may rain.", vendor="ollama"),)
    assert response.tool_calls == (
        ToolCall(id="call_0", name="get_weather", arguments='{"city": "Paris"}'),
        ToolCall(id="call_x", name="noop", arguments="{}"),
    )
    assert response.usage == Usage(input_tokens=169, output_tokens=15)
    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.TOOL_CALLS, "stop")
    assert (response.model, response.request_id, response.raw) == ("llama3.2", "req-1", reply)
    assert response.extra == {
        **TIMES,
        "remote_model": "gpt-oss:120b",
        "remote_host": "https://ollama.com:443",
        "logprobs": LOGPROBS,
    }


def test_a_stream_line_by_line() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    lines: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"content": "", "thinking": "It may "}, {"model": "llama3.2", "reasoning": "It may ", "request_id": "r"}),
        ({"content": "", "thinking": "rain."}, {"reasoning": "rain."}),
        ({"content": "Ra"}, {"text": "Ra"}),
        ({"content": "in"}, {"text": "in"}),
        (
            {"content": "", "tool_calls": [call]},
            {"tool_calls": (ToolCallDelta(index=0, id="call_0", name="get_weather", arguments='{"city": "Paris"}'),)},
        ),
        (
            {"content": "", "tool_calls": [{"id": "own", "function": {"name": "noop", "arguments": {}}}]},
            {"tool_calls": (ToolCallDelta(index=1, id="own", name="noop", arguments="{}"),)},
        ),
    ]
    stream = ChatStream(request_id="r")
    for message, facts in lines:
        line = {"model": "llama3.2", "created_at": "2025-07-07T20:22:19Z", "done": False}
        line["message"] = {"role": "assistant", **message}
        assert stream.feed(json.dumps(line).encode() + b"\n") == [GenerateChunk(**facts)], message
    last = {"model": "llama3.2", "message": {"role": "assistant", "content": ""}, **END}
    chunks = [*stream.feed(json.dumps(last).encode() + b"\n"), *stream.finish()]
    assert chunks == [
        GenerateChunk(
            reasoning_parts=(ReasoningPart(text="It may rain.", vendor="ollama"),),
            finish_reason=FinishReason.TOOL_CALLS,
            raw_finish_reason="stop",
            usage=Usage(input_tokens=169, output_tokens=15),
            extra=TIMES,
        )
    ]


def test_thoughts_in_their_field_and_between_tags_of_one_line() -> None:
    stream = ChatStream(ChatOptions(think_tags=True))
    line = b'{"model":"m","message":{"role":"assistant","thinking":"It may ","content":"<think>rain.</think>Rain"}}\n'
    assert stream.feed(line) == [GenerateChunk(model="m", reasoning="It may rain.", text="Rain")]


def test_the_last_line_adds_text_that_began_like_a_tag() -> None:
    stream = ChatStream(ChatOptions(think_tags=True))
    line = {"model": "m", "message": {"role": "assistant", "content": "<thi"}, "done": True, "done_reason": "stop"}
    (chunk,) = stream.feed(json.dumps(line).encode() + b"\n")
    assert (chunk.text, chunk.reasoning, stream.partial) == ("<thi", "", "<thi")
    assert chunk.finish_reason == FinishReason.STOP


def test_errors() -> None:
    error = decode_error(404, {}, b'{"error":"model \'x\' not found"}')
    assert isinstance(error, ModelNotFound)
    assert "model 'x' not found" in error.message
    with pytest.raises(ServerFailed, match="unexpected EOF"):
        decode_response({"error": "unexpected EOF"})
    stream = ChatStream()
    stream.feed(b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n')
    with pytest.raises(ServerFailed, match="unexpected EOF") as caught:
        stream.feed(b'{"error":"unexpected EOF"}\n')
    assert caught.value.partial == "Hel"
