"""Payloads, replies and streams written by hand with the field names of OpenAI's Responses API reference."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council._wire.payloads import dumps
from llm_council._wire.responses import ResponsesOptions, ResponseStream, decode_error, decode_response, encode_request
from llm_council.errors import ApiError, RateLimited, ServerFailed
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


def read_chunks(events: list[dict[str, Any]]) -> list[GenerateChunk]:
    stream = ResponseStream()
    chunks = [chunk for event in events for chunk in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    return [*chunks, *stream.finish()]


def test_each_event_of_a_stream_gives_its_chunk() -> None:
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
        {"type": "response.completed", "response": REPLY},
    ]
    begun = ToolCallDelta(index=0, id="call_1", name="add", extra={"id": "fc_1"})
    shell = ToolCallDelta(index=1, id="call_2", name="sh", extra={"type": "custom"})
    chunks = read_chunks(events)
    assert chunks == [
        GenerateChunk(request_id="resp_1", model="gpt-5-2025"),
        GenerateChunk(reasoning="Hm"),
        GenerateChunk(text="Fo"),
        GenerateChunk(text="ur"),
        GenerateChunk(tool_calls=(begun,)),
        GenerateChunk(tool_calls=(ToolCallDelta(index=0, arguments="{}"),)),
        GenerateChunk(tool_calls=(shell,)),
        GenerateChunk(tool_calls=(ToolCallDelta(index=1, arguments="ls"),)),
        GenerateChunk(
            finish_reason=FinishReason.TOOL_CALLS,
            raw_finish_reason="completed",
            usage=COUNTED,
            cost=Cost(usd=0.25, source=CostSource.REPORTED, complete=True),
            reasoning_parts=(ReasoningPart(text="Hm", signature="abc", vendor="openai", data=THOUGHT),),
            extra={"service_tier": "default", "response_id": "resp_1", "annotations": [NOTE]},
        ),
    ]
    assert_all_facts(join(chunks))


RAW_THOUGHT = {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "So"}]}


@pytest.mark.parametrize(
    ("events", "chunk"),
    [
        ([{"type": "response.reasoning_text.delta", "content_index": 0, "delta": "So"}], GenerateChunk(reasoning="So")),
        ([{"type": "response.refusal.delta", "content_index": 0, "delta": "No."}], GenerateChunk(refusal="No.")),
        ([{"type": "response.output_item.done", "item": MESSAGE}], GenerateChunk(text="Four")),
        ([{"type": "response.output_item.done", "item": THOUGHT}], GenerateChunk(reasoning="Hm")),
        ([{"type": "response.output_item.done", "item": RAW_THOUGHT}], GenerateChunk(reasoning="So")),
        (
            [{"type": "response.output_item.done", "item": {**CALL, "call_id": "call_3", "arguments": '{"a":2}'}}],
            GenerateChunk(
                tool_calls=(
                    ToolCallDelta(index=0, id="call_3", name="add", extra={"id": "fc_1"}),
                    ToolCallDelta(index=0, arguments='{"a":2}'),
                )
            ),
        ),
        ([{"type": "response.in_progress", "response": {"model": "m"}}], GenerateChunk(model="m")),
        ([{"type": "response.queued", "response": {"id": "resp_2"}}], GenerateChunk(request_id="resp_2")),
    ],
)
def test_an_event_alone_gives_its_chunk(events: list[dict[str, Any]], chunk: GenerateChunk) -> None:
    stream = ResponseStream()
    assert [found for event in events for found in stream.feed(b"data: " + dumps(event) + b"\n\n")] == [chunk]


def test_paragraphs_of_reasoning_are_separated_by_their_indices() -> None:
    """An event's ``output_index`` or, where a server leaves it out, its ``item_id`` names the item."""
    place = {"item_id": "rs_1", "type": "response.reasoning_summary_text.delta"}
    stream = ResponseStream()
    events = [
        {**place, "summary_index": 0, "delta": "One"},
        {**place, "summary_index": 1, "delta": "Two"},
        {"type": "response.output_item.done", "item": {**THOUGHT, "id": "rs_1", "summary": [
            {"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}]}},
    ]  # fmt: skip
    chunks = [found for event in events for found in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    assert [chunk.reasoning for chunk in chunks] == ["One", "\n\nTwo", ".."]


@pytest.mark.parametrize(
    ("word", "facts", "raw", "finish"),
    [
        ("completed", {}, "completed", FinishReason.STOP),
        ("incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}, "max_output_tokens",
         FinishReason.LENGTH),
        ("incomplete", {"incomplete_details": {"reason": "content_filter"}}, "content_filter",
         FinishReason.CONTENT_FILTER),
        ("cancelled", {}, "cancelled", FinishReason.of("cancelled")),
    ],
)  # fmt: skip
def test_the_name_of_the_last_event_stands_for_a_status_that_is_left_out(
    word: str, facts: dict[str, Any], raw: str, finish: FinishReason | None
) -> None:
    reply = {key: value for key, value in REPLY.items() if key not in ("status", "output")}
    answer = join(read_chunks([{"type": f"response.{word}", "response": {**reply, **facts, "output": [MESSAGE]}}]))
    assert (answer.text, answer.raw_finish_reason, answer.finish_reason) == ("Four", raw, finish)


@pytest.mark.parametrize("status", ["cancelled", "queued", "in_progress", "incomplete"])
def test_a_reply_that_has_not_ended_may_have_no_output(status: str) -> None:
    answer = decode_response({"id": "resp_1", "status": status})
    assert (answer.text, answer.raw_finish_reason) == (None, status)


ERROR = {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}


def test_a_refused_request_is_an_error() -> None:
    found = decode_error(429, {"Retry-After": "7", "x-request-id": "req_1"}, dumps({"error": ERROR}))
    assert isinstance(found, RateLimited)
    assert (found.status, found.code, found.retry_after, found.request_id) == (429, "rate_limit_exceeded", 7.0, "req_1")
    assert "Slow down." in found.message


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "message": "Slow down.", "code": "rate_limit_exceeded", "param": None},  # as specified
        {"type": "error", "error": ERROR},  # as recorded
        {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": ERROR, "output": []}},
    ],
)
def test_an_error_in_a_stream_is_raised_with_the_text_so_far(event: dict[str, Any]) -> None:
    stream = ResponseStream()
    stream.feed(b'data: {"type": "response.created", "response": {"id": "resp_1"}}\n\n')
    stream.feed(b'data: {"type": "response.output_text.delta", "delta": "Fo"}\n\n')
    with pytest.raises(RateLimited, match="Slow down") as caught:
        stream.feed(b"data: " + dumps(event) + b"\n\n")
    assert (caught.value.code, caught.value.request_id) == ("rate_limit_exceeded", "resp_1")
    assert str(caught.value.partial) == "Fo"


def test_an_error_after_the_last_event_is_raised() -> None:
    """Some servers write an error as bare JSON where an event belongs."""
    stream = ResponseStream()
    stream.feed(b'data: {"type": "response.created", "response": {"id": "resp_1"}}\n\n')
    with pytest.raises(RateLimited, match="Slow down"):
        stream.feed(b'{"type": "error", "message": "Slow down.", "code": "rate_limit_exceeded"}\n')


def test_a_failed_reply_is_an_error() -> None:
    with pytest.raises(RateLimited):
        decode_response({"id": "resp_1", "status": "failed", "error": ERROR, "output": []})
    with pytest.raises(ServerFailed, match="failed while it answered") as caught:
        decode_response({"id": "resp_1", "status": "failed", "output": []})
    assert (caught.value.code, caught.value.request_id) == ("server_error", "resp_1")


def test_items_that_go_back_unchanged_are_not_written_twice() -> None:
    items = [
        THOUGHT,
        {**MESSAGE, "phase": "commentary", "content": [{"type": "output_text", "text": "Adding.", "annotations": []}]},
        {**CALL, "namespace": "ns"},
        {**CUSTOM, "id": "ctc_1"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "status": None},
    ]
    answer = decode_response({**REPLY, "output": [*items, {**CALL, "id": "fc_2", "call_id": "call_3",
                                                          "namespace": "ns"}]})  # fmt: skip
    turn = Message("assistant", [*answer.reasoning_parts, TextPart(text="Adding.")], tool_calls=answer.tool_calls)
    results = [Message("tool", "5", tool_call_id=call.id) for call in answer.tool_calls]
    payload = encode_request(GenerateRequest(messages=[Message("user", "Hi"), turn, *results]))
    assert payload["input"] == [
        {"role": "user", "content": "Hi"},
        *items[:4],
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {
            "type": "function_call",
            "id": "fc_2",
            "call_id": "call_3",
            "name": "add",
            "arguments": "{}",
            "namespace": "ns",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "5"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "5"},
        {"type": "function_call_output", "call_id": "call_3", "output": "5"},
    ]


def test_reasoning_is_read_before_its_summary_and_a_calls_own_id_replaces_a_missing_one() -> None:
    both = {**RAW_THOUGHT, "summary": [{"type": "summary_text", "text": "In short"}]}
    call = {key: value for key, value in CALL.items() if key != "call_id"}
    answer = decode_response({**REPLY, "output": [both, call]})
    assert answer.reasoning == "So"
    assert answer.tool_calls[0].id == "fc_1"


def test_formats_of_the_chat_apis_are_rewritten() -> None:
    inner = {"name": "answer", "schema": SCHEMA, "strict": True}
    for asked, written in (
        ({"type": "json_schema", "json_schema": inner}, {"type": "json_schema", **inner}),
        ({"type": "json_object"}, {"type": "json_object"}),
    ):
        payload = encode_request(GenerateRequest(prompt="Hi", response_format=asked))
        assert payload == {"input": "Hi", "text": {"format": written}}
    unnamed = StructuredOutput(json_schema=SCHEMA, name="")
    assert encode_request(GenerateRequest(prompt="Hi", structured_output=unnamed))["text"]["format"]["name"] == "output"
    schema = StructuredOutput(json_schema=SCHEMA, name="an answer!", strict=False)
    payload = encode_request(
        GenerateRequest(prompt="Hi", structured_output=schema, extra={"reasoning": {"summary": "auto"}}),
        ResponsesOptions(reasons=True, summary="detailed"),
    )
    assert payload == {
        "input": "Hi",
        "text": {"format": {"type": "json_schema", "name": "an_answer_", "schema": SCHEMA, "strict": False}},
        "reasoning": {"summary": "auto"},
    }


REFUSAL = {**MESSAGE, "content": [{"type": "refusal", "refusal": "No."}]}


def test_a_refusal_is_read_whole_and_streamed() -> None:
    reply = {**REPLY, "output": [REFUSAL]}
    delta = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "No."}
    for answer in (
        decode_response(reply),
        join(read_chunks([delta, {"type": "response.completed", "response": reply}])),
    ):
        assert (answer.text, answer.refusal, answer.finish_reason) == (None, "No.", FinishReason.CONTENT_FILTER)


def test_an_incomplete_reply_gives_its_reason() -> None:
    details = {"reason": "max_output_tokens"}
    answer = decode_response({**REPLY, "output": [MESSAGE], "status": "incomplete", "incomplete_details": details})
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.LENGTH, "max_output_tokens")


@pytest.mark.parametrize(("kind", "key"), [("output_text", "text"), ("refusal", "refusal")])
def test_parts_of_a_message_are_distinguished_by_their_content_index(kind: str, key: str) -> None:
    place = {"type": f"response.{kind}.delta", "output_index": 0, "item_id": "msg_1"}
    parts = [{"type": kind, key: "One."}, {"type": kind, key: "Two."}]
    stream = ResponseStream()
    events: list[dict[str, Any]] = [
        {**place, "content_index": 0, "delta": "One"},
        {**place, "content_index": 1, "delta": "Two"},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {"type": "message", "id": "msg_1", "content": parts},
        },
    ]
    chunks = [found for event in events for found in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    assert [getattr(chunk, key) for chunk in chunks] == ["One", "Two", ".."]


def test_paragraphs_of_shown_reasoning_are_separated_by_their_content_index() -> None:
    place = {"type": "response.reasoning_text.delta", "output_index": 0, "item_id": "rs_1"}
    stream = ResponseStream()
    events: list[dict[str, Any]] = [{**place, "content_index": at, "delta": word} for at, word in enumerate("ab")]
    chunks = [found for event in events for found in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    assert "".join(chunk.reasoning for chunk in chunks) == "a\n\nb"


def test_the_status_of_the_last_reply_wins_over_the_name_of_its_event() -> None:
    reply = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
    (chunk,) = ResponseStream().feed(b"data: " + dumps({"type": "response.completed", "response": reply}) + b"\n\n")
    assert chunk.raw_finish_reason == "max_output_tokens"


@pytest.mark.parametrize(
    "error",
    [{"type": "error", "message": "Odd."}, {"error": {"message": "Odd."}}],
    ids=["flat, as the API reference says", "nested, as servers send it"],
)
def test_an_error_is_raised_as_an_event_and_after_the_last_event(error: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"Odd\."):
        ResponseStream().feed(b"data: " + dumps(error) + b"\n\n")
    stream = ResponseStream()
    stream.feed(b'data: {"type": "response.created", "response": {"id": "resp_1"}}\n\n' + dumps(error) + b"\n")
    with pytest.raises(ApiError, match=r"Odd\."):
        stream.finish()


def test_an_item_without_an_index_is_found_by_its_id() -> None:
    part = {"type": "output_text", "text": "One."}
    events: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "item": {"type": "message", "id": "msg_1"}},
        {"type": "response.output_item.added", "item": {"type": "message", "id": "msg_2"}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "content_index": 0, "delta": "One"},
        {"type": "response.output_text.delta", "item_id": "msg_2", "content_index": 0, "delta": "Two"},
        {"type": "response.output_item.done", "item": {"type": "message", "id": "msg_1", "content": [part]}},
    ]
    stream = ResponseStream()
    chunks = [found for event in events for found in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    assert [chunk.text for chunk in chunks] == ["One", "Two", "."]


def test_arguments_that_arrive_before_their_call_are_a_part_of_it() -> None:
    call = {"type": "function_call", "id": "fc_1", "name": "add", "arguments": '{"a":2}'}
    events: list[dict[str, Any]] = [
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"a"'},
        {"type": "response.output_item.done", "output_index": 0, "item": call},
    ]
    stream = ResponseStream()
    chunks = [found for event in events for found in stream.feed(b"data: " + dumps(event) + b"\n\n")]
    assert [delta for chunk in chunks for delta in chunk.tool_calls] == [
        ToolCallDelta(index=0, id="fc_1", name="add", arguments='{"a"', extra={"id": "fc_1"}),
        ToolCallDelta(index=0, arguments=":2}"),
    ]


def test_calls_that_only_the_whole_reply_holds_are_read() -> None:
    calls = [{"type": "function_call", "call_id": f"call_{at}", "name": "add", "arguments": "{}"} for at in (1, 2)]
    event = {"type": "response.completed", "response": {"status": "completed", "output": calls}}
    (chunk,) = ResponseStream().feed(b"data: " + dumps(event) + b"\n\n")
    assert [delta.id for delta in chunk.tool_calls if delta.id] == ["call_1", "call_2"]


def test_refusals_and_reasoning_that_only_the_whole_reply_holds_are_read() -> None:
    for item, field, words in (
        (REFUSAL, "refusal", "No."),
        (THOUGHT, "reasoning", "Hm"),
        (RAW_THOUGHT, "reasoning", "So"),
    ):
        event = {"type": "response.completed", "response": {"status": "completed", "output": [item]}}
        (chunk,) = ResponseStream().feed(b"data: " + dumps(event) + b"\n\n")
        assert getattr(chunk, field) == words
    event = {"type": "response.completed", "response": {"status": "completed", "output": [REFUSAL]}}
    (chunk,) = ResponseStream().feed(b"data: " + dumps(event) + b"\n\n")
    assert chunk.finish_reason is FinishReason.CONTENT_FILTER


def test_paragraphs_that_only_the_end_of_an_item_holds_are_separated() -> None:
    parts = [{"type": "summary_text", "text": word} for word in "ab"]
    item = {"type": "reasoning", "id": "rs_1", "summary": parts}
    event = {"type": "response.output_item.done", "output_index": 0, "item": item}
    (chunk,) = ResponseStream().feed(b"data: " + dumps(event) + b"\n\n")
    assert chunk.reasoning == "a\n\nb"


def test_an_error_may_be_named_by_its_event_alone() -> None:
    body = b'event: error\ndata: {"code": "rate_limit_exceeded", "message": "Odd."}\n\n'
    with pytest.raises(RateLimited, match=r"Odd\."):
        ResponseStream().feed(body)


def test_the_result_of_an_echoed_custom_call_keeps_its_type_without_the_calls_extra() -> None:
    turns = [
        Message("user", "Hi"),
        Message("assistant", [ReasoningPart(vendor="openai", data=CUSTOM)]),
        Message("tool", "5", tool_call_id="call_2"),
    ]
    payload = encode_request(GenerateRequest(messages=turns, model="m"))
    assert payload["input"][-1] == {"type": "custom_tool_call_output", "call_id": "call_2", "output": "5"}
