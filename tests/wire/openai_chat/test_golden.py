"""Payloads, replies and streams written by hand with the field names of the vendors' API references."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council._wire.openai_chat import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.payloads import dumps
from llm_council.errors import ApiError, MalformedReply, ModelNotFound, RateLimited, ServerFailed
from llm_council.models import (
    Cost,
    CostSource,
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


def test_every_shape_of_a_message_is_read() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}], "signature": "s"}
    message = {
        "role": "assistant",
        "content": [thought, {"type": "text", "text": "4"}, {"type": "output_text", "text": "2"}],
        "tool_calls": [
            {"id": "call_1", "type": "custom", "custom": {"name": "sh", "input": "ls"}},
            {"id": "ws_1", "type": "web_search"},
        ],
        "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}],
    }
    mistral = ChatOptions(vendor="mistral", echo="content")
    answer = decode_response({"choices": [{"message": message, "finish_reason": "stop"}]}, mistral)
    assert (answer.text, answer.reasoning) == ("42", "Hm")
    assert answer.reasoning_parts == (ReasoningPart(text="Hm", signature="s", vendor="mistral", data=thought),)
    assert answer.tool_calls == (ToolCall(id="call_1", name="sh", arguments="ls", extra={"type": "custom"}),)
    assert answer.extra == {"images": message["images"]}
    refused = [{"type": "refusal", "refusal": "No."}]
    assert decode_response({"choices": [{"message": {"content": refused}}]}).refusal == "No."
    legacy = {"content": None, "function_call": {"name": "add", "arguments": '{"a":2}'}}
    answer = decode_response({"choices": [{"message": legacy, "finish_reason": "function_call"}]})
    assert answer.tool_calls == (ToolCall(id="call_0", name="add", arguments='{"a":2}'),)


@pytest.mark.parametrize(
    ("echo", "block", "text"),
    [
        (None, {"type": "reasoning.text", "text": "Hm", "signature": "s", "index": 0}, "Hm"),
        (None, {"type": "reasoning.summary", "summary": "In short", "signature": "s", "index": 0}, "In short"),
    ],
)
def test_openrouters_blocks_of_reasoning_are_read(echo: str | None, block: dict[str, Any], text: str) -> None:
    reply = {"choices": [{"message": {"content": "4", "reasoning": "R", "reasoning_details": [block]}}]}
    assert decode_response(reply).reasoning_parts == (
        ReasoningPart(text=text, signature="s", vendor="openai", data=block),
    )


@pytest.mark.parametrize(
    ("usage", "facts"),
    [
        # OpenRouter, with a key of the user's own
        ({"cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.5}}, {"usd": 0.75}),
        ({"cost_in_usd_ticks": 5_000_000_000}, {"usd": 0.5}),  # xAI
        ({"prompt_cache_hit_tokens": 7}, {"cached": 7}),  # DeepSeek
        ({"cached_tokens": 7}, {"cached": 7}),  # Moonshot
    ],
)
def test_the_vendors_own_keys_of_usage_are_read(usage: dict[str, Any], facts: dict[str, Any]) -> None:
    answer = decode_response({"choices": [{"message": {"content": "4"}}], "usage": usage})
    assert (answer.cost and answer.cost.usd) == facts.get("usd")
    assert (answer.usage and answer.usage.cached_tokens) == facts.get("cached")


def read_chunks(events: list[dict[str, Any]], options: ChatOptions | None = None) -> list[GenerateChunk]:
    stream = ChatStream(options or ChatOptions())
    chunks = [chunk for event in events for chunk in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    return [*chunks, *stream.feed(b"data: [DONE]\n\n"), *stream.finish()]


def test_each_event_of_a_stream_gives_its_chunk() -> None:
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4.1", "provider": "Azure"}

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}

    begun = {"type": "reasoning.text", "text": "H", "index": 0}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}
    shell = {"index": 1, "id": "call_2", "type": "custom", "custom": {"name": "sh", "input": ""}}
    chunks = read_chunks(
        [
            event({"role": "assistant", "content": ""}),
            event({"reasoning_content": "H"}),
            event({"reasoning": "m", "reasoning_details": [begun]}),
            event({"reasoning_details": [{**begun, "text": "m", "signature": "s"}]}),
            event({"content": "4"}),
            event({"content": "2"}),
            event({"refusal": "No."}),
            event({"tool_calls": [call]}),
            event({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":2}'}}]}),
            event({"tool_calls": [shell]}),
            event({"tool_calls": [{"index": 1, "custom": {"input": "ls"}}]}),
            event({"annotations": [{"type": "url_citation"}], "images": [{"type": "image_url"}]}),
            {**event({}, "tool_calls", native_finish_reason="tool_use"), "service_tier": "flex"},
            {**common, "choices": [], "usage": USAGE, "system_fingerprint": "fp_1"},
        ]
    )
    whole = {**begun, "text": "Hm", "signature": "s"}
    assert chunks == [
        GenerateChunk(request_id="chatcmpl-1", model="gpt-4.1", extra={"provider": "Azure"}),
        GenerateChunk(reasoning="H"),
        GenerateChunk(reasoning="m"),
        GenerateChunk(text="4"),
        GenerateChunk(text="2"),
        GenerateChunk(refusal="No."),
        GenerateChunk(tool_calls=(ToolCallDelta(index=0, id="call_1", name="add"),)),
        GenerateChunk(tool_calls=(ToolCallDelta(index=0, arguments='{"a":2}'),)),
        GenerateChunk(tool_calls=(ToolCallDelta(index=1, id="call_2", name="sh", extra={"type": "custom"}),)),
        GenerateChunk(tool_calls=(ToolCallDelta(index=1, arguments="ls"),)),
        GenerateChunk(
            finish_reason=FinishReason.CONTENT_FILTER,
            raw_finish_reason="tool_calls",
            extra={"native_finish_reason": "tool_use", "service_tier": "flex"},
        ),
        GenerateChunk(
            usage=COUNTED,
            cost=Cost(usd=0.25, source=CostSource.REPORTED, complete=True),
            extra={"system_fingerprint": "fp_1"},
        ),
        GenerateChunk(
            reasoning_parts=(ReasoningPart(text="Hm", signature="s", vendor="openai", data=whole),),
            extra={"annotations": [{"type": "url_citation"}], "images": [{"type": "image_url"}]},
        ),
    ]


def test_a_streams_parts_of_content_are_read() -> None:
    """Mistral's reasoning models stream their thoughts as parts of the content (API reference, ``ThinkChunk``)."""

    def event(content: Any) -> dict[str, Any]:
        return {"choices": [{"delta": {"content": content}}]}

    def thought(text: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}

    chunks = read_chunks(
        [
            event([thought("H")]),
            event([{**thought("m"), "signature": "s"}]),
            event([{"type": "text", "text": "4"}, {"type": "refusal", "refusal": "No."}]),
            {"choices": [{"delta": {"function_call": {"name": "add", "arguments": "{}"}}}]},
            {"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]},
        ],
        ChatOptions(vendor="mistral", echo="content"),
    )
    whole = {**thought("Hm"), "signature": "s"}
    assert chunks == [
        GenerateChunk(reasoning="H"),
        GenerateChunk(reasoning="m"),
        GenerateChunk(text="4", refusal="No."),
        GenerateChunk(tool_calls=(ToolCallDelta(index=0, id="call_0", name="add", arguments="{}"),)),
        GenerateChunk(text="2", finish_reason=FinishReason.CONTENT_FILTER, raw_finish_reason="stop"),
        GenerateChunk(reasoning_parts=(ReasoningPart(text="Hm", signature="s", vendor="mistral", data=whole),)),
    ]


def test_groqs_own_object_in_a_stream_holds_usage_and_errors() -> None:
    counted = read_chunks([{"choices": [{"delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": USAGE}}])
    assert counted[0].usage == COUNTED
    with pytest.raises(RateLimited):
        read_chunks([{"choices": [], "x_groq": {"error": {"message": "Slow.", "code": "rate_limit_exceeded"}}}])


def test_an_error_is_read() -> None:
    error = {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    found = decode_error(429, {"Retry-After": "7", "x-request-id": "req_1"}, dumps({"error": error}))
    assert isinstance(found, RateLimited)
    assert (found.status, found.code, found.retry_after, found.request_id) == (429, "rate_limit_exceeded", 7.0, "req_1")
    assert "Slow down." in found.message


def test_an_error_in_a_stream_is_raised_with_the_text_so_far() -> None:
    stream = ChatStream()
    stream.feed(b'data: {"id": "chatcmpl-1", "choices": [{"delta": {"content": "4"}}]}\n\n')
    error = {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}
    with pytest.raises(RateLimited) as caught:
        stream.feed(b"data: " + dumps({"error": error}) + b"\n\n")
    assert (caught.value.code, caught.value.request_id) == ("rate_limit_exceeded", "chatcmpl-1")
    assert str(caught.value.partial) == "4"


def test_a_failed_choice_is_an_error() -> None:
    with pytest.raises(ServerFailed):
        decode_response({"choices": [{"message": {"content": "4"}, "finish_reason": "error"}]})
    error = {"code": 429, "message": "Slow down."}
    with pytest.raises(RateLimited):
        decode_response({"choices": [{"message": {"content": "4"}, "error": error}]})


def test_schemas_and_reasoning_go_by_the_documented_words_by_default() -> None:
    request = GenerateRequest(
        messages=[
            Message("user", "Hi"),
            Message("assistant", [ReasoningPart(vendor="openai", text="Hm"), TextPart(text="4")]),
        ],
        structured_output=StructuredOutput(json_schema=SCHEMA, name="an answer!", strict=False),
    )
    payload = encode_request(request, ChatOptions(schema="json_schema", echo="reasoning"))
    assert payload["messages"][1] == {"role": "assistant", "content": "4", "reasoning": "Hm"}
    assert payload["response_format"]["json_schema"]["name"] == "an_answer_"
    assert encode_request(request, ChatOptions(schema="none")) == {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "4"}]
    }


def test_a_schema_without_a_name_is_sent_as_output() -> None:
    unnamed = GenerateRequest(prompt="Hi", structured_output=StructuredOutput(json_schema=SCHEMA, name=""))
    assert encode_request(unnamed)["response_format"]["json_schema"]["name"] == "output"


def test_a_cache_mark_without_a_lifetime_has_a_type_alone() -> None:
    payload = encode_request(GenerateRequest(prompt="Hi", prompt_cache=True), ChatOptions(cache_control=True))
    assert payload["cache_control"] == {"type": "ephemeral"}


def test_a_thought_goes_back_as_the_server_wrote_it() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}], "signature": "s"}
    part = ReasoningPart(text="Hm", signature="s", vendor="mistral", data=thought)
    call = ToolCall(id="call_1", name="add", arguments="{}", extra={"extra_content": {"google": {}}, "other": 1})
    request = GenerateRequest(messages=[Message("assistant", [part, TextPart(text="4")], tool_calls=[call])])
    options = ChatOptions(vendor="mistral", echo="content", tool_call_keys=["extra_content"])
    function = {"name": "add", "arguments": "{}"}
    assert encode_request(request, options)["messages"] == [
        {
            "role": "assistant",
            "content": [thought, {"type": "text", "text": "4"}],
            "tool_calls": [{"extra_content": {"google": {}}, "id": "call_1", "type": "function", "function": function}],
        }
    ]


STOPPED_AFTER_A_THOUGHT = [{"choices": [{"delta": {"reasoning": "Hm"}}]}, {"choices": [{"finish_reason": "stop"}]}]


def test_reasoning_as_text_alone_does_not_go_back_where_the_server_wants_its_blocks() -> None:
    reply = {"choices": [{"message": {"content": "4", "reasoning": "Hm"}}]}
    for echo in ("reasoning_details", "content", None):
        assert decode_response(reply, ChatOptions(echo=echo)).reasoning_parts == ()
        parts = [chunk.reasoning_parts for chunk in read_chunks(STOPPED_AFTER_A_THOUGHT, ChatOptions(echo=echo))]
        assert not any(parts)
    assert decode_response(reply, ChatOptions(echo="reasoning")).reasoning_parts[0].text == "Hm"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ({"type": "custom", "custom": {"name": "sh", "input": "ls"}, "function": None}, "ls"),
        ({"type": "function", "function": {"name": "sh", "arguments": "{}"}, "custom": None}, "{}"),
        ({"type": "tool", "function": {"name": "sh", "arguments": "{}"}}, "{}"),
    ],
    ids=["custom, with an empty function", "function, with an empty custom", "another type, with a function"],
)
def test_a_call_is_read_from_the_key_that_its_type_names(call: dict[str, Any], arguments: str) -> None:
    (found,) = decode_response({"choices": [{"message": {"tool_calls": [{"id": "call_1", **call}]}}]}).tool_calls
    assert (found.id, found.name, found.arguments) == ("call_1", "sh", arguments)


def test_a_call_of_a_function_needs_the_function() -> None:
    with pytest.raises(MalformedReply, match=r"tool_calls\[0\]\.function"):
        decode_response({"choices": [{"message": {"tool_calls": [{"id": "call_1", "type": "function"}]}}]})


def test_only_the_first_choice_of_a_stream_is_read() -> None:
    chunks = read_chunks(
        [
            {"choices": [{"index": 1, "delta": {"content": "no"}}]},
            {"choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}]},
        ]
    )
    assert "".join(chunk.text for chunk in chunks) == "yes"


def test_an_event_named_error_is_an_error_in_either_shape() -> None:
    with pytest.raises(ApiError, match="Overloaded"):
        ChatStream().feed(b'event: error\ndata: {"message": "Overloaded"}\n\n')
    with pytest.raises(ApiError, match="Overloaded") as caught:
        ChatStream().feed(b'event: error\ndata: {"error": {"message": "Overloaded"}, "request_id": "req_1"}\n\n')
    assert caught.value.request_id == "req_1"


def test_an_error_in_the_first_event_has_the_id_of_the_event() -> None:
    with pytest.raises(ApiError) as caught:
        ChatStream().feed(b'data: {"id": "gen-1", "choices": [], "error": {"message": "Overloaded"}}\n\n')
    assert caught.value.request_id == "gen-1"


def test_reasoning_and_refusal_of_both_places_of_one_event_are_joined() -> None:
    content = [{"type": "thinking", "thinking": "a"}, {"type": "refusal", "refusal": "No"}]
    delta = {"content": content, "reasoning": "b", "refusal": ", never"}
    chunk = read_chunks([{"choices": [{"delta": delta, "finish_reason": "stop"}]}])[0]
    assert (chunk.reasoning, chunk.refusal) == ("ab", "No, never")


def test_the_beginning_of_a_tag_at_the_end_of_a_stream_is_text() -> None:
    chunks = read_chunks(
        [{"choices": [{"delta": {"content": "<thi"}, "finish_reason": "stop"}]}], ChatOptions(think_tags=True)
    )
    assert chunks[-1] == GenerateChunk(text="<thi")


def test_pieces_of_a_summary_are_joined_and_encrypted_blocks_are_not() -> None:
    """OpenRouter's guide, "Reasoning tokens": the types of ``reasoning_details``."""

    def event(kind: str, **fields: str) -> dict[str, Any]:
        return {"choices": [{"delta": {"reasoning_details": [{"type": kind, "index": 0, **fields}]}}]}

    chunks = read_chunks(
        [
            event("reasoning.summary", summary="H"),
            event("reasoning.summary", summary="m"),
            event("reasoning.encrypted", data="x"),
            event("reasoning.encrypted", data="y"),
            {"choices": [{"finish_reason": "stop"}]},
        ],
        ChatOptions(echo="reasoning_details"),
    )
    assert [part.data for part in chunks[-1].reasoning_parts] == [
        {"type": "reasoning.summary", "index": 0, "summary": "Hm"},
        {"type": "reasoning.encrypted", "index": 0, "data": "x"},
        {"type": "reasoning.encrypted", "index": 0, "data": "y"},
    ]


def test_pieces_of_a_thought_are_joined_until_its_signature() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "a"},
        {"type": "thinking", "thinking": "b", "signature": "s"},
        {"type": "thinking", "thinking": [{"type": "reference", "reference_ids": [1]}]},
        {"type": "thinking", "thinking": "c"},
    ]
    events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": [thought]}}]} for thought in thoughts]
    chunks = read_chunks([*events, {"choices": [{"finish_reason": "stop"}]}], ChatOptions(echo="content"))
    assert [part.data for part in chunks[-1].reasoning_parts] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "ab"}], "signature": "s"},
        {
            "type": "thinking",
            "thinking": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "c"}],
        },
    ]


UPSTREAM = {"raw": '{"error": {"message": "Slow.", "code": "queue_full"}}', "provider_name": "Groq"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "Odd.", "code": "c", "type": "t"}}, "Odd. (HTTP 400 c)"),
        ({"error": {"message": "Odd.", "type": "t"}}, "Odd. (HTTP 400 t)"),
        (
            [{"error": {"message": "Odd.", "code": 400, "status": "INVALID_ARGUMENT"}}],
            "Odd. (HTTP 400 INVALID_ARGUMENT)",
        ),
        ({"error": "Odd.", "error_type": "validation"}, "Odd. (HTTP 400 validation)"),
        ({"error": "Odd.", "code": "c"}, "Odd. (HTTP 400 c)"),
        ({"error": {"error": {"message": "Odd."}}}, "Odd. (HTTP 400)"),
        ({"errors": [{"message": "Odd."}]}, "Odd. (HTTP 400)"),
        ({"detail": {"error": {"message": "Odd."}}}, "Odd. (HTTP 400)"),
        ({"detail": {"message": "Odd."}}, "Odd. (HTTP 400)"),
        ({"detail": {"msg": "Odd."}}, "Odd. (HTTP 400)"),
        ({"detail": "Odd."}, "Odd. (HTTP 400)"),
        ({"detail": [{"loc": ["body", "n"], "msg": "Odd."}, {"msg": "Bad."}]}, "body.n: Odd.; Bad. (HTTP 400)"),
        ({"message": {"detail": [{"loc": ["n"], "msg": "Odd."}]}}, "n: Odd. (HTTP 400)"),
        ({"msg": "Odd."}, "Odd. (HTTP 400)"),
        ("Odd.", "Odd. (HTTP 400)"),
        ({"error": {"message": "Failed", "metadata": UPSTREAM}}, "Failed: Groq: Slow. (HTTP 400 queue_full)"),
        ({"error": {"message": "Odd.", "metadata": {"error_type": "t"}, "code": "c"}}, "Odd. (HTTP 400 t)"),
    ],
    ids=str,
)
def test_every_shape_of_an_error_is_read(body: Any, message: str) -> None:
    """OpenAI, Google's compatible endpoint, Hugging Face, FastAPI's ``detail``, Mistral, OpenRouter's ``metadata``."""
    assert decode_error(400, {}, dumps(body)).message == message


def test_an_errors_parameter_and_the_id_beside_it_are_read() -> None:
    found = decode_error(404, {}, dumps({"error": {"message": "Odd.", "param": "model"}, "request_id": "req_1"}))
    assert (type(found), found.request_id) == (ModelNotFound, "req_1")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"object": "error", "message": "Odd."}, 500),
        ({"success": False, "message": "Odd."}, 500),
        ({"errors": [{"message": "Odd."}]}, 500),
        ({"message": "Odd.", "code": 429}, 429),
        ({"message": "Odd.", "status": "429"}, 429),
        ({"msg": "Odd.", "statusCode": 429}, 429),
        ({"message": "Odd.", "type": "some_error"}, 500),
        ({"message": "Odd.", "type": "insufficient_quota"}, 402),
        ({"error": {"message": "Odd.", "status_code": 429}}, 429),
        ({"error": {"message": "Odd.", "statusCode": 429}}, 429),
        ({"error": {"message": "Odd.", "status": 429}}, 429),
    ],
    ids=str,
)
def test_an_error_in_a_reply_with_status_200_is_raised(reply: dict[str, Any], status: int) -> None:
    with pytest.raises(ApiError, match=r"Odd\.") as caught:
        decode_response(reply)
    assert caught.value.status == status


@pytest.mark.parametrize("answer", [{"choices": []}, {"output": []}, {"message": {}}, {"response": {}}], ids=str)
def test_a_reply_that_holds_an_answer_is_no_error(answer: dict[str, Any]) -> None:
    assert error_inside({**answer, "success": False}) is None
