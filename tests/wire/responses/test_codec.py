"""OpenAI's Responses dialect: what is sent, what is read, and what goes wrong inside a 200."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council._wire.responses import ResponsesOptions, ResponseStream, decode_response, encode_request
from llm_council.errors import (
    ApiError,
    InvalidOption,
    MalformedReply,
    OutOfCredit,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    ReasoningPart,
    ToolCall,
    Usage,
    join,
)
from llm_council.testing._mirrors.responses import decode_request, encode_events, encode_response, frame

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA", "status": None}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "f",
    "arguments": "{}",
    "status": "completed",
}
OURS = ResponsesOptions(store=False, reasons=True)


def message(text: str, **facts: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content, **facts}


def reply(*output: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": list(output), **facts}


def asked(*turns: Message, **fields: Any) -> dict[str, Any]:
    return encode_request(GenerateRequest(messages=turns, **fields), OURS)


# What is sent


def test_reasoning_is_requested_encrypted_if_the_vendor_stores_nothing() -> None:
    request = GenerateRequest(prompt="hi")
    assert "store" not in encode_request(request)
    assert encode_request(request, OURS) == {
        "input": "hi",
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    off = GenerateRequest(prompt="hi", reasoning=ReasoningConfig(effort="none"))
    assert encode_request(off, OURS) == {"input": "hi", "store": False, "reasoning": {"effort": "none"}}
    assert "include" not in encode_request(request, ResponsesOptions(store=True, reasons=True))


def test_reasoning_goes_back_before_the_item_that_follows_it() -> None:
    answer = decode_response(reply(THOUGHT, message("Let me look."), CALL))
    sent = asked(Message("user", "go"), answer.to_message(), Message("tool", "18C", tool_call_id="call_1"))["input"]
    assert [item.get("type", item.get("role")) for item in sent] == [
        "user", "reasoning", "assistant", "function_call", "function_call_output",
    ]  # fmt: skip
    assert sent[1] == {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}  # without nulls
    assert sent[3] == {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}


def test_items_in_another_order_go_back_in_that_order() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    later = {**THOUGHT, "id": "rs_2"}
    answer = decode_response(
        reply(THOUGHT, search, message("A remark."), CALL, later, message("Done."), CALL | {"call_id": "c2"})
    )
    assert answer.text == "A remark.Done."
    assert [call.id for call in answer.tool_calls] == ["call_1", "c2"]
    sent = asked(answer.to_message(), Message("user", "go on"))["input"]
    kinds = [item.get("id") or item.get("content") or item["call_id"] for item in sent]
    assert kinds == ["rs_1", "ws_1", "msg_1", "fc_1", "rs_2", "Done.", "fc_1", "go on"]
    again = decode_request({"input": sent})
    assert again.messages[0].text == "A remark.Done."
    assert again.messages[0].tool_calls == answer.tool_calls[1:]


def test_a_remark_on_the_way_stays_one() -> None:
    answer = decode_response(reply(message("Looking.", phase="commentary"), message("42", phase="final_answer")))
    assert answer.text == "Looking.42"
    sent = asked(answer.to_message(), Message("user", "and?"))["input"]
    assert [(item.get("phase"), item["role"]) for item in sent] == [
        ("commentary", "assistant"), ("final_answer", "assistant"), (None, "user"),
    ]  # fmt: skip


def test_ids_of_calls_go_back_with_their_reasoning_alone_and_foreign_reasoning_never() -> None:
    call = ToolCall(id="call_1", name="f", extra={"id": "fc_1"})
    foreign = ReasoningPart(text="hm", vendor="anthropic", data={"type": "thinking"})
    sent = asked(Message("assistant", [foreign], tool_calls=[call]), Message("tool", "1", tool_call_id="call_1"))[
        "input"
    ]
    assert sent[0] == {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}


def test_extra_adds_to_text_and_reasoning() -> None:
    sent = asked(
        Message("user", "hi"),
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        reasoning=ReasoningConfig(effort="low"),
        extra={"text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}, "store": True},
    )
    assert sent["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True},
        "verbosity": "low",
    }
    assert (sent["reasoning"], sent["store"]) == ({"effort": "low", "summary": "auto"}, True)


def test_few_tokens_are_as_many_as_the_vendor_takes() -> None:
    assert asked(Message("user", "hi"), max_tokens=1)["max_output_tokens"] == 16


def test_a_request_that_the_dialect_cannot_express_is_refused() -> None:
    with pytest.raises(InvalidOption, match="tool_call_id"):
        asked(Message("tool", "x"))
    with pytest.raises(InvalidOption, match="empty turns"):
        asked(Message("assistant", ""))


# What is read


def cut(reason: str) -> dict[str, Any]:
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


@pytest.mark.parametrize(
    ("facts", "finish", "word"),
    [
        ({}, FinishReason.STOP, "completed"),
        (cut("max_output_tokens"), FinishReason.LENGTH, "max_output_tokens"),
        (cut("content_filter"), FinishReason.CONTENT_FILTER, "content_filter"),
        (cut("steered"), None, "steered"),
        ({"status": "incomplete", "incomplete_details": None}, None, "incomplete"),
        ({"status": "queued", "output": []}, None, "queued"),
    ],
)  # fmt: skip
def test_why_it_stopped(facts: dict[str, Any], finish: str | None, word: str) -> None:
    answer = decode_response({**reply(message("x")), **facts})
    assert (answer.finish_reason, answer.raw_finish_reason) == (finish, word)


def test_a_call_and_a_refusal_say_why_it_stopped() -> None:
    assert decode_response(reply(CALL)).finish_reason is FinishReason.TOOL_CALLS
    part = {"type": "refusal", "refusal": "I cannot."}
    answer = decode_response(reply(message("", content=[part])))
    assert (answer.text, answer.refusal, answer.finish_reason) == (None, "I cannot.", FinishReason.CONTENT_FILTER)


def test_paragraphs_of_reasoning_are_separated() -> None:
    summary = [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}]
    own = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Three."}]}
    whole = reply({**THOUGHT, "summary": summary}, own, message("x"))
    answer = decode_response(whole)
    assert answer.reasoning == "One.\n\nTwo.\n\nThree."
    assert [part.text for part in answer.reasoning_parts] == ["One.\n\nTwo.", "Three."]
    assert answer.reasoning_parts[0].signature == "gAAA"
    assert read(*encode_events(answer)).reasoning == answer.reasoning


def test_tokens_and_ids() -> None:
    usage = {
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
    }  # fmt: skip
    answer = decode_response(reply(message("x"), usage=usage), request_id="req_1")
    assert answer.usage == Usage(input_tokens=9, cached_tokens=4, output_tokens=5, reasoning_tokens=3)
    assert (answer.request_id, answer.extra["response_id"]) == ("req_1", "resp_1")


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        ([], "$"),
        ({}, "$.output"),
        ({"output": [3]}, "$.output[0]"),
        ({"output": [{"type": "function_call"}]}, "$.output[0].name"),
        (
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": 5}]}]},
            "$.output[0].content[0].text",
        ),
    ],
)
def test_a_broken_reply_names_the_path(broken: Any, path: str) -> None:
    with pytest.raises(MalformedReply) as caught:
        decode_response(broken)
    assert caught.value.path == path


# What streams


def read(*events: dict[str, Any]) -> GenerateResponse:
    stream = ResponseStream()
    chunks = [chunk for event in events for chunk in stream.feed(frame(event))]
    return join([*chunks, *stream.finish()])


DELTA = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"}
FAILED = {
    "type": "response.failed",
    "response": reply(status="failed", error={"code": "server_error", "message": "boom"}),
}
ERRORS: list[tuple[dict[str, Any], type[ApiError], bool]] = [
    ({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}, RateLimited, True),
    ({"type": "error", "code": None, "message": "odd"}, ServerFailed, True),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, RequestRejected, False),
    ({"type": "error", "error": {"code": "insufficient_quota", "message": "no"}}, OutOfCredit, False),
    ({"error": {"message": "proxy", "code": 503}}, ServerFailed, True),
    (FAILED, ServerFailed, True),
    ({"type": "response.failed", "response": reply(status="failed", error=None)}, ServerFailed, True),
]


@pytest.mark.parametrize(("event", "cls", "retryable"), ERRORS)
def test_an_error_in_a_stream_has_its_class_and_the_partial_text(
    event: dict[str, Any], cls: type[ApiError], retryable: bool
) -> None:
    with pytest.raises(cls) as caught:
        read({"type": "response.created", "response": reply()}, DELTA, event)
    assert type(caught.value) is cls
    assert (caught.value.retryable, caught.value.partial, caught.value.request_id) == (retryable, "Hel", "resp_1")


def test_a_reply_that_failed_is_an_error_though_its_status_is_200() -> None:
    with pytest.raises(ServerFailed, match="boom"):
        decode_response(FAILED["response"])
    with pytest.raises(RateLimited):
        decode_response(reply(status="failed", error={"code": "rate_limit_exceeded", "message": "slow"}))


def test_a_stream_without_its_end_was_cut() -> None:
    with pytest.raises(TruncatedReply) as caught:
        read(DELTA)
    assert caught.value.partial == "Hel"


def test_pieces_come_as_they_arrive_and_nothing_twice() -> None:
    events = list(encode_events(decode_response(reply(THOUGHT, message("Hello world"), CALL)), size=6))
    stream = ResponseStream()
    texts = [chunk.text for event in events for chunk in stream.feed(frame(event)) if chunk.text]
    assert texts == ["Hello ", "world"]
    assert (stream.done, stream.finished, stream.partial) == (True, True, "Hello world")


def test_a_whole_reply_instead_of_a_stream_is_taken() -> None:
    stream = ResponseStream(request_id="r")
    assert stream.feed(b'{"output": [], "status": "completed"}') == []
    assert join(stream.finish()).request_id == "r"


def test_a_stream_that_ends_in_done_is_taken() -> None:
    answer = GenerateResponse(text="x", finish_reason="completed", extra={"response_id": "r"})
    stream = ResponseStream()
    for event in encode_events(answer):
        stream.feed(frame(event))
    assert stream.feed(b"data: [DONE]\n\n") == []
    assert encode_response(answer)["output"][0]["content"][0]["text"] == "x"
