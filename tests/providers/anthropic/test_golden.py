"""Payloads and replies of Anthropic's ``POST /v1/messages``, by hand, with the field names that Anthropic documents.

The laws in ``test_laws.py`` use our own mirror: a name that is misspelt on both sides passes them, and fails here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
)
from llm_council.models import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
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
from llm_council.providers._anthropic import (
    MessagesOptions,
    MessageStream,
    decode_error,
    decode_response,
    encode_request,
)

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}}
THOUGHT = {"type": "thinking", "thinking": "Look it up.", "signature": "EqQB"}
HIDDEN = {"type": "redacted_thinking", "data": "EmwK"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rain"}}
CITED = {"type": "char_location", "cited_text": "Rain", "document_index": 0, "start_char_index": 0, "end_char_index": 4}
MINUTES = {"type": "ephemeral"}


def test_a_request_with_every_field() -> None:
    request = GenerateRequest(
        model="claude-opus-4-6",
        messages=[
            Message("system", "Be terse."),
            Message("developer", "Answer in French."),
            Message(
                "user",
                [
                    TextPart(text="Weather here?"),
                    ImagePart(data="iVBORw0KGgo=", media_type="image/png"),
                    ImagePart(url="https://example.com/a.png"),
                ],
            ),
            Message(
                "assistant",
                [
                    ReasoningPart(text="Look it up.", signature="EqQB", vendor="anthropic"),
                    ReasoningPart(vendor="anthropic", data=HIDDEN),
                    ReasoningPart(text="Foreign.", signature="x", vendor="gemini"),
                    TextPart(text="One moment."),
                ],
                tool_calls=[
                    ToolCall(id="toolu_1", name="weather", arguments='{"city": "Lyon"}'),
                    ToolCall(id="call.2", name="time", arguments="", extra={"caller": {"type": "direct"}}),
                    ToolCall(id="", name="odd", arguments="not JSON"),
                ],
            ),
            Message("tool", "18 C", tool_call_id="toolu_1"),
            Message(
                "tool",
                [TextPart(text="a clock"), ImagePart(data="AAAA", media_type="image/gif")],
                tool_call_id="call.2",
            ),
            Message("user", "And tomorrow?"),
        ],
        max_tokens=2000,
        temperature=0.5,
        top_p=0.9,
        stop=["END", "STOP"],
        tools=[Tool(name="weather", description="Weather now.", parameters=CITY, strict=True), Tool(name="time")],
        tool_choice="auto",
        structured_output=StructuredOutput(json_schema=ANSWER),
        reasoning=ReasoningConfig(effort="high"),
        prompt_cache="1h",
        stream=True,
        extra={"metadata": {"user_id": "u-1"}, "top_k": 5, "output_config": {"novel": 1}},
    )
    assert encode_request(request, MessagesOptions(display="summarized", body={"service_tier": "auto"})) == {
        "service_tier": "auto",
        "model": "claude-opus-4-6",
        "max_tokens": 2000,
        "system": [
            {
                "type": "text",
                "text": "Be terse.\n\nAnswer in French.",
                "cache_control": {"type": "ephemeral", "ttl": "1h"},
            }
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Weather here?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Look it up.", "signature": "EqQB"},
                    {"type": "redacted_thinking", "data": "EmwK"},
                    {"type": "text", "text": "One moment."},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lyon"}},
                    {"type": "tool_use", "id": "call_2", "name": "time", "input": {}, "caller": {"type": "direct"}},
                    {"type": "tool_use", "id": "call", "name": "odd", "input": {"invalid_json": "not JSON"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 C"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": [
                            {"type": "text", "text": "a clock"},
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/gif", "data": "AAAA"},
                            },
                        ],
                    },
                    {"type": "text", "text": "And tomorrow?"},
                ],
            },
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END", "STOP"],
        "tools": [
            {"name": "weather", "description": "Weather now.", "input_schema": CITY, "strict": True},
            {"name": "time", "input_schema": {"type": "object", "properties": {}}},
        ],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": ANSWER}, "novel": 1},
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
        "stream": True,
        "metadata": {"user_id": "u-1"},
        "top_k": 5,
    }


def test_a_request_with_nothing_but_a_prompt() -> None:
    assert encode_request(GenerateRequest(prompt="hi"), MessagesOptions(max_tokens=77)) == {
        "max_tokens": 77,
        "messages": [{"role": "user", "content": "hi"}],
    }


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("weather", {"type": "tool", "name": "weather"}),
    ],
)
def test_every_tool_choice(choice: str, written: Any) -> None:
    request = GenerateRequest(prompt="x", tools=[Tool(name="weather", parameters=CITY)], tool_choice=choice)
    assert encode_request(request)["tool_choice"] == written


@pytest.mark.parametrize(
    ("facts", "options", "written"),
    [
        ({"effort": "none"}, {}, ({"type": "disabled"}, None)),
        ({"effort": "minimal"}, {}, ({"type": "adaptive"}, {"effort": "low"})),
        ({"effort": "low"}, {"thinking": "adaptive"}, ({"type": "adaptive"}, {"effort": "low"})),
        ({"effort": "medium"}, {}, ({"type": "adaptive"}, {"effort": "medium"})),
        ({"effort": "high"}, {}, ({"type": "adaptive"}, {"effort": "high"})),
        ({"effort": "xhigh"}, {}, ({"type": "adaptive"}, {"effort": "xhigh"})),
        ({"effort": "max"}, {}, ({"type": "adaptive"}, {"effort": "max"})),
        ({"budget_tokens": 3000}, {}, ({"type": "enabled", "budget_tokens": 3000}, None)),
        ({"effort": "none"}, {"thinking": "budget"}, ({"type": "disabled"}, None)),
        ({"effort": "none"}, {"thinking": "between-tools"}, ({"type": "between_tools"}, None)),
        ({"effort": "low"}, {"thinking": "between-tools"}, ({"type": "adaptive"}, {"effort": "low"})),
        ({"effort": "minimal"}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 1024}, None)),
        ({"effort": "low"}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 2048}, None)),
        ({"effort": "medium"}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 8192}, None)),
        ({"effort": "high"}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 16384}, None)),
        ({"effort": "xhigh"}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 24576}, None)),
        ({"effort": "max"}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 32000}, None)),
        ({"budget_tokens": 100}, {"thinking": "budget"}, ({"type": "enabled", "budget_tokens": 1024}, None)),
        (
            {"effort": "max"},
            {"thinking": "budget", "max_output": 9000},
            ({"type": "enabled", "budget_tokens": 4500}, None),
        ),
    ],
)
def test_every_form_of_the_thinking_field(facts: Any, options: Any, written: Any) -> None:
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(**facts))
    payload = encode_request(request, MessagesOptions(**options))
    assert (payload["thinking"], payload.get("output_config")) == written


def test_a_budget_is_added_to_the_tokens_of_the_answer() -> None:
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(budget_tokens=3000))
    assert encode_request(request, MessagesOptions(max_tokens=500))["max_tokens"] == 3500
    assert encode_request(request, MessagesOptions(max_tokens=500, max_output=3200))["max_tokens"] == 3200


def test_cache_marks_are_sent_at_marked_parts_and_at_the_request() -> None:
    marked = [TextPart(text="long", cache=True), TextPart(text="short")]
    request = GenerateRequest(messages=[Message("system", marked), Message("user", marked)], prompt_cache=True)
    blocks = [{"type": "text", "text": "long", "cache_control": MINUTES}, {"type": "text", "text": "short"}]
    assert encode_request(request, MessagesOptions(max_tokens=9)) == {
        "max_tokens": 9,
        "system": blocks,
        "messages": [{"role": "user", "content": blocks}],
        "cache_control": MINUTES,
    }


def test_marked_texts_are_joined_if_cache_control_is_off() -> None:
    marked = [TextPart(text="long", cache=True), TextPart(text="short")]
    request = GenerateRequest(messages=[Message("system", marked), Message("user", marked)])
    assert encode_request(request, MessagesOptions(max_tokens=9, cache_control=False)) == {
        "max_tokens": 9,
        "system": "longshort",
        "messages": [{"role": "user", "content": "longshort"}],
    }


def test_blocks_of_an_earlier_answer_go_back_unchanged_and_once() -> None:
    text = {"type": "text", "text": "Let me look.", "citations": [CITED]}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lyon"}}
    parts = [ReasoningPart(vendor="anthropic", data=block) for block in (text, call, SEARCH)]
    answer = Message(
        "assistant",
        [*parts, TextPart(text="Let me look. Rain.")],
        tool_calls=[
            ToolCall(id="toolu_1", name="weather", arguments={"city": "Lyon"}),
            ToolCall(id="toolu_2", name="time", arguments={}),
        ],
    )
    request = GenerateRequest(messages=[Message("user", "Weather?"), answer])
    assert encode_request(request)["messages"][1]["content"] == [
        text,
        call,
        SEARCH,
        {"type": "text", "text": " Rain."},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]


def test_tool_results_come_first_in_a_message() -> None:
    turns = [Message("user", "And?"), Message("tool", "18 C", tool_call_id="toolu_1")]
    assert encode_request(GenerateRequest(messages=turns))["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 C"},
                {"type": "text", "text": "And?"},
            ],
        }
    ]


def test_the_schema_of_a_tool_gets_the_type_object() -> None:
    tool = Tool(name="weather", parameters={"properties": {"city": {"type": "string"}}})
    payload = encode_request(GenerateRequest(prompt="x", tools=[tool]))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert payload["tools"] == [{"name": "weather", "input_schema": schema}]


def test_a_response_format_of_chat_apis_becomes_a_format() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER}}
    payload = encode_request(GenerateRequest(prompt="x", response_format=wanted))
    assert payload["output_config"] == {"format": {"type": "json_schema", "schema": ANSWER}}


USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 300,
    "output_tokens": 52,
    "output_tokens_details": {"thinking_tokens": 40},
    "service_tier": "priority",
}
COUNTED = Usage(input_tokens=420, output_tokens=52, cached_tokens=300, cache_write_tokens=20, reasoning_tokens=40)
REPLY = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-6",
    "content": [
        THOUGHT,
        HIDDEN,
        SEARCH,
        {"type": "text", "text": "Rain.", "citations": [CITED]},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "weather",
            "input": {"city": "Lyon"},
            "caller": {"type": "direct"},
        },
    ],
    "stop_reason": "tool_use",
    "stop_sequence": "END",
    "container": {"id": "container_1"},
    "context_management": {"applied_edits": [1]},
    "input_transformations": [{"type": "x"}],
    "usage": USAGE,
}
EXTRA = {
    "container": {"id": "container_1"},
    "context_management": {"applied_edits": [1]},
    "input_transformations": [{"type": "x"}],
    "stop_sequence": "END",
    "service_tier": "priority",
    "blocks": [SEARCH],
    "citations": [CITED],
}
PARTS = (
    ReasoningPart(text="Look it up.", signature="EqQB", vendor="anthropic", data=THOUGHT),
    ReasoningPart(vendor="anthropic", data=HIDDEN),
    ReasoningPart(vendor="anthropic", data=SEARCH),
)


def test_a_whole_reply() -> None:
    assert decode_response(REPLY) == GenerateResponse(
        text="Rain.",
        reasoning="Look it up.",
        reasoning_parts=PARTS,
        tool_calls=(
            ToolCall(id="toolu_1", name="weather", arguments='{"city":"Lyon"}', extra={"caller": {"type": "direct"}}),
        ),
        usage=COUNTED,
        model="claude-opus-4-6",
        finish_reason=FinishReason.TOOL_CALLS,
        raw_finish_reason="tool_use",
        request_id="msg_1",
        extra=EXTRA,
        raw=REPLY,
    )


def test_blocks_before_a_server_tool_are_echoed() -> None:
    text = {"type": "text", "text": "Let me look.", "citations": None}
    empty = {"type": "text", "text": ""}
    after = {"type": "text", "text": "Rain."}
    answer = decode_response({**REPLY, "content": [text, empty, SEARCH, after]})
    assert [part.data for part in answer.reasoning_parts] == [{"type": "text", "text": "Let me look."}, SEARCH]
    events = [*block(0, {**text, "text": ""}, {"type": "text_delta", "text": "Let me look."}), *block(1, empty)]
    streamed = join(read(START, *events, *block(2, SEARCH), *block(3, after), END, {"type": "message_stop"}))
    assert streamed.reasoning_parts == answer.reasoning_parts
    assert (streamed.text, answer.text) == ("Let me look.Rain.", "Let me look.Rain.")


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("pause_turn", None),
    ],
)
def test_every_stop_reason(word: str, finish: FinishReason | None) -> None:
    reply = decode_response({**REPLY, "stop_reason": word})
    assert (reply.finish_reason, reply.raw_finish_reason) == (finish, word)
    events = [{"type": "message_delta", "delta": {"stop_reason": word}}, {"type": "message_stop"}]
    streamed = join(read(START, *events))
    assert (streamed.finish_reason, streamed.raw_finish_reason) == (finish, word)


def test_the_explanation_of_a_refusal_is_read() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "No."}
    reply = decode_response({**REPLY, "content": [], "stop_reason": "refusal", "stop_details": details})
    assert (reply.refusal, reply.text, reply.extra["stop_details"]) == ("No.", None, details)
    delta = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}}
    assert join(read(START, delta, {"type": "message_stop"})).refusal == "No."


START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-4-6",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 100, "cache_read_input_tokens": 300, "output_tokens": 1},
    },
}


END: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}


def body(*events: dict[str, Any]) -> bytes:
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def read(*events: dict[str, Any]) -> list[GenerateChunk]:
    stream = MessageStream()
    return [*(chunk for event in events for chunk in stream.feed(body(event))), *stream.finish()]


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def test_a_stream_event_by_event() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}, "caller": {"type": "direct"}}
    events = [
        START,
        {"type": "ping"},
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Look "},
            {"type": "thinking_delta", "thinking": "it up."},
            {"type": "signature_delta", "signature": "EqQB"},
        ),
        *block(1, HIDDEN),
        *block(2, {**SEARCH, "input": {}}, {"type": "input_json_delta", "partial_json": '{"query": "rain"}'}),
        *block(
            3,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": "Ra"},
            {"type": "text_delta", "text": "in."},
            {"type": "citations_delta", "citation": CITED},
        ),
        *block(
            4,
            call,
            {"type": "input_json_delta", "partial_json": ""},
            {"type": "input_json_delta", "partial_json": '{"city":'},
            {"type": "input_json_delta", "partial_json": '"Lyon"}'},
        ),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": "END", "container": {"id": "container_1"}},
            "usage": USAGE,
            "context_management": {"applied_edits": [1]},
            "input_transformations": [{"type": "x"}],
        },
        {"type": "message_stop"},
    ]
    chunks = read(*events)
    assert [chunk.text for chunk in chunks if chunk.text] == ["Ra", "in."]
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == ["Look ", "it up."]
    assert [(delta.index, delta.id, delta.name, delta.arguments) for chunk in chunks for delta in chunk.tool_calls] == [
        (0, "toolu_1", "weather", ""),
        (0, None, None, '{"city":'),
        (0, None, None, '"Lyon"}'),
    ]
    assert chunks[0].usage == Usage(input_tokens=400, output_tokens=1, cached_tokens=300)
    answer = join(chunks)
    whole = decode_response(REPLY)
    for name in ("text", "reasoning", "reasoning_parts", "tool_calls", "model", "request_id", "extra", "usage"):
        assert getattr(answer, name) == getattr(whole, name), name
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.TOOL_CALLS, "tool_use")


def test_a_stream_whose_first_event_holds_content() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lyon"}}
    content = [
        THOUGHT,
        {**THOUGHT, "thinking": " Twice."},
        {"type": "text", "text": "Ra", "citations": [CITED]},
        SEARCH,
        {"type": "text", "text": "in."},
        call,
        {**call, "id": "toolu_2"},
    ]
    message = {**START["message"], "content": content, "stop_reason": "tool_use"}
    answer = join(read({**START, "message": message}, {"type": "message_stop"}))
    whole = decode_response(message)
    for name in ("text", "reasoning", "reasoning_parts", "tool_calls", "extra", "finish_reason", "raw_finish_reason"):
        assert getattr(answer, name) == getattr(whole, name), name
    assert (answer.reasoning, answer.raw_finish_reason) == ("Look it up. Twice.", "tool_use")


def test_text_and_citations_at_the_start_of_a_block_are_read() -> None:
    first = {"type": "text", "text": "Ra", "citations": [CITED]}
    cited = {"type": "citations_delta", "citation": {**CITED, "cited_text": "in"}}
    events = [
        *block(
            0,
            {"type": "thinking", "thinking": "Hm"},
            {"type": "signature_delta", "signature": "Eq"},
            {"type": "signature_delta", "signature": "QB"},
        ),
        *block(1, first, {"type": "text_delta", "text": "in."}, cited),
        *block(2, SEARCH),
    ]
    answer = join(read(START, *events, END, {"type": "message_stop"}))
    citations = [CITED, {**CITED, "cited_text": "in"}]
    assert (answer.reasoning, answer.text, answer.extra["citations"]) == ("Hm", "Rain.", citations)
    assert [part.data for part in answer.reasoning_parts] == [
        {"type": "thinking", "thinking": "Hm", "signature": "EqQB"},
        {"type": "text", "text": "Rain.", "citations": citations},
        SEARCH,
    ]


def test_a_block_is_closed_by_its_event_or_by_the_next_block_with_its_index() -> None:
    start, *_, stop = block(1, THOUGHT)
    stream = MessageStream()
    assert stream.feed(body(START, start))[-1].reasoning == "Look it up."
    (closed,) = stream.feed(body(stop))
    assert [part.data for part in closed.reasoning_parts] == [THOUGHT]
    answer = join(read(START, start, *block(1, {"type": "text", "text": "Rain."}), END, {"type": "message_stop"}))
    assert ([part.data for part in answer.reasoning_parts], answer.text) == ([THOUGHT], "Rain.")


def test_the_input_of_a_call_that_was_cut_off_is_echoed_as_text() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    cut = block(0, call, {"type": "input_json_delta", "partial_json": '{"city":'})
    answer = join(read(START, *cut, *block(1, SEARCH), END, {"type": "message_stop"}))
    assert answer.reasoning_parts[0].data == {**call, "input": {"invalid_json": '{"city":'}}
    assert answer.tool_calls[0].arguments == '{"city":'


@pytest.mark.parametrize("typed", [True, False])
def test_the_type_of_an_event_is_in_its_json_or_its_name(typed: bool) -> None:
    stream = MessageStream()
    for event in (START, *block(0, {"type": "text", "text": "Hi"}), END, {"type": "message_stop"}):
        written = event if typed else {key: value for key, value in event.items() if key != "type"}
        name = "" if typed else f"event: {event['type']}\n"
        stream.feed(f"{name}data: {json.dumps(written)}\n\n".encode())
    assert (stream.partial, stream.done) == ("Hi", True)


def test_a_gateways_error_inside_a_stream() -> None:
    event = {"type": "ping", "error": {"code": 429, "message": "slow down"}}
    with pytest.raises(RateLimited, match="slow down"):
        read(START, event)


def test_a_stream_of_a_call_without_arguments() -> None:
    start = {"type": "tool_use", "id": "toolu_1", "name": "time", "input": {}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    answer = join(read(START, *block(0, start), delta, {"type": "message_stop"}))
    assert answer.tool_calls == (ToolCall(id="toolu_1", name="time", arguments="{}"),)


@pytest.mark.parametrize(
    ("status", "kind", "message", "cls"),
    [
        (400, "invalid_request_error", "messages: required", RequestRejected),
        (400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", ContextTooLong),
        (400, "invalid_request_error", "Your credit balance is too low to access the API", OutOfCredit),
        (401, "authentication_error", "invalid x-api-key", AuthenticationFailed),
        (402, "billing_error", "no payment", OutOfCredit),
        (403, "permission_error", "not allowed", PermissionRefused),
        (404, "not_found_error", "model: claude-0", ModelNotFound),
        (413, "request_too_large", "too large", RequestTooLarge),
        (429, "rate_limit_error", "slow down", RateLimited),
        (500, "api_error", "oops", ServerFailed),
        (504, "timeout_error", "too slow", ServerFailed),
        (529, "overloaded_error", "Overloaded", ServerFailed),
    ],
)
def test_every_documented_error(status: int, kind: str, message: str, cls: type[ApiError]) -> None:
    refusal = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    error = decode_error(status, {"retry-after": "7"}, json.dumps(refusal))
    assert (type(error), error.status, error.code, error.request_id) == (cls, status, kind, "req_1")
    assert message in str(error)
    with pytest.raises(cls) as caught:
        MessageStream().feed(body(refusal))
    assert (caught.value.status, caught.value.code, caught.value.request_id) == (status, kind, "req_1")


def test_an_error_in_googles_form() -> None:
    refusal = {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}
    error = decode_error(429, {}, json.dumps(refusal))
    assert (type(error), error.code) == (RateLimited, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("ResourceNotFoundException", ModelNotFound),
        ("UnrecognizedClientException", AuthenticationFailed),
        ("InvalidSignatureException", AuthenticationFailed),
        ("IncompleteSignatureException", AuthenticationFailed),
        ("ExpiredTokenException", AuthenticationFailed),
        ("MissingAuthenticationTokenException", AuthenticationFailed),
        ("AccessDeniedException", PermissionRefused),
        ("ThrottlingException", RateLimited),
        ("ModelNotReadyException", ServerFailed),
        ("ModelTimeoutException", ServerFailed),
        ("ModelErrorException", ServerFailed),
        ("ModelStreamErrorException", ServerFailed),
        ("ServiceUnavailableException", ServerFailed),
        ("InternalServerException", ServerFailed),
        ("ValidationException", RequestRejected),
    ],
)
def test_every_error_of_bedrock(name: str, cls: type[ApiError]) -> None:
    for headers, refusal in (
        ({"X-Amzn-ErrorType": f"{name}:http://internal.amazon.com/"}, {"message": "no"}),
        ({}, {"__type": f"com.amazon#{name}", "Message": "no"}),
    ):
        error = decode_error(400, headers, json.dumps(refusal))
        assert (type(error), error.code) == (cls, name)
        assert "no" in error.message
    with pytest.raises(ApiError) as caught:
        MessageStream().feed(body({"type": "error", "error": {"type": name, "message": "no"}}))
    assert type(caught.value) is cls


def test_an_unknown_path_inside_a_stream() -> None:
    with pytest.raises(RequestRejected) as caught:
        MessageStream().feed(body({"type": "error", "error": {"type": "not_found_error", "message": "no"}}))
    assert caught.value.status == 404
