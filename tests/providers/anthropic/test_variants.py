"""Anthropic's dialect beyond the recorded samples: whole replies, streams cut anywhere, and refusals.

Each case is from the vendor's reference, its SDK's types, or a public report of what servers of the dialect send.
"""

import pytest
from stream_variants import assert_class_of_odd_bodies, named, read, read_every_way, spellings

from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ApiError,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
    TruncatedReply,
)
from llm_council.providers import _anthropic
from llm_council.testing._mirrors.anthropic import decode_request


def message(*content, stop="end_turn", **more):
    usage = {"input_tokens": 5, "output_tokens": 3}
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(content),
        "stop_reason": stop, "stop_sequence": None, "usage": usage, **more,
    }  # fmt: skip


def text(words, **more):
    return {"type": "text", "text": words, **more}


SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "title": "T", "url": "https://x.test", "encrypted_content": "E"}],
}
CITED = {"type": "web_search_result_location", "url": "https://x.test", "cited_text": "6x7"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "b3Bhcw=="}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}


def test_texts_around_server_tools_are_joined_and_their_citations_collected():
    response = _anthropic.decode_response(
        message(SEARCH, FOUND, text("It is "), text("42", citations=[CITED]), text("."))
    )
    assert (response.text, response.tool_calls, response.finish_reason) == ("It is 42.", (), "stop")
    assert response.extra["blocks"] == [SEARCH, FOUND]
    assert response.extra["citations"] == [CITED]


def test_thinking_and_redacted_thinking_are_sent_back_in_order():
    response = _anthropic.decode_response(message(THOUGHT, HIDDEN, text("42"), CALL, stop="tool_use"))
    assert (response.reasoning, response.text, response.finish_reason) == ("hm", "42", "tool_calls")
    assert [part.data for part in response.reasoning_parts] == [THOUGHT, HIDDEN]
    request = decode_request({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]})
    asked = type(request)(messages=[*request.messages, response.to_message()])
    back = _anthropic.encode_request(asked)["messages"][-1]["content"]
    assert back == [THOUGHT, HIDDEN, text("42"), CALL]


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", None),  # the vendor's own tools are still at work: no whole answer
        ("compaction", None),
        (None, None),
    ],
)
def test_stop_reasons(word, finish):
    response = _anthropic.decode_response(message(text("4"), stop=word))
    assert (response.finish_reason, response.raw_finish_reason) == (finish, word)
    delta = {"type": "message_delta", "delta": {"stop_reason": word, "stop_sequence": "END"}}
    streamed = read(_anthropic.MessageStream, opened(text("4")) + named(delta, STOP))
    assert (streamed.finish_reason, streamed.raw_finish_reason) == (finish, word)
    assert streamed.extra["stop_sequence"] == "END"


@pytest.mark.parametrize("content", [None, [], [None], "missing"])
def test_a_refusal_without_content(content):
    reply = {**message(stop="refusal", stop_details={"type": "refusal", "category": None, "explanation": None})}
    reply["content"] = content
    if content == "missing":
        del reply["content"]
    response = _anthropic.decode_response(reply)
    assert (response.text, response.refusal, response.finish_reason) == (None, None, "content_filter")


@pytest.mark.parametrize("reply", [{}, {"content": None}, {"content": "x", "type": "message"}, [], None, "x"])
def test_json_that_is_no_message_is_malformed(reply):
    with pytest.raises(MalformedReply):
        _anthropic.decode_response(reply)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (None, None),
        ({}, None),
        ({"input_tokens": None, "output_tokens": None}, None),
        ({"input_tokens": 0, "output_tokens": 0}, (0, 0, None)),
        ({"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": None}, (5, 3, None)),
        ({"input_tokens": 5.0, "output_tokens": 3.0, "cache_creation": None, "server_tool_use": None}, (5, 3, None)),
        ({"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 11}, (23, None, 7)),
        ({"output_tokens": 3, "iterations": [{"type": "message"}], "inference_geo": None}, (None, 3, None)),
        ("many", None),
        ({"input_tokens": "5", "output_tokens": -1}, None),
    ],
)
def test_usage_with_missing_null_and_invalid_counts(usage, counted):
    found = _anthropic.decode_response(message(text("4"), usage=usage)).usage
    assert (found and (found.input_tokens, found.output_tokens, found.cached_tokens)) == counted


def test_unknown_blocks_and_fields_are_kept_or_ignored():
    response = _anthropic.decode_response(
        message(
            {"type": "compaction", "content": "…"}, {"type": 7}, {}, text("42", parsed_output=None),
            container={"id": "c", "expires_at": "2026"}, context_management={"applied_edits": []}, novel=[1],
        )
    )  # fmt: skip
    assert (response.text, len(response.extra["blocks"])) == ("42", 3)
    assert response.extra["container"]["id"] == "c"


def opened(*blocks):
    start = {"type": "message_start", "message": {**message(stop=None), "usage": {"input_tokens": 5}}}
    return named(start) + b"".join(
        named({"type": "content_block_start", "index": index, "content_block": block})
        for index, block in enumerate(blocks)
    )


def delta(index, kind, **facts):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **facts}}


def closed(index):
    return {"type": "content_block_stop", "index": index}


STOP = {"type": "message_stop"}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": None}


def test_a_streamed_search_with_citations_and_pings():
    ping = {"type": "ping"}
    values = [
        ping,
        {"type": "content_block_start", "index": 0, "content_block": {**SEARCH, "input": {}}},
        delta(0, "input_json_delta", partial_json=""),
        delta(0, "input_json_delta", partial_json='{"query":'),
        ping,
        delta(0, "input_json_delta", partial_json='"naïve 🗼"}'),
        closed(0),
        {"type": "content_block_start", "index": 1, "content_block": FOUND},
        closed(1),
        {"type": "content_block_start", "index": 2, "content_block": text("", citations=[])},
        delta(2, "text_delta", text="It is "),
        delta(2, "citations_delta", citation=CITED),
        delta(2, "text_delta", text="42\u2028 🗼"),
        closed(2),
        ping,
        END,
        STOP,
    ]
    response = read_every_way(_anthropic.MessageStream, opened() + named(*values))
    assert (response.text, response.tool_calls, response.finish_reason) == ("It is 42\u2028 🗼", (), "stop")
    assert response.extra["blocks"] == [{**SEARCH, "input": {"query": "naïve 🗼"}}, FOUND]
    assert response.extra["citations"] == [CITED]


def test_streamed_thinking_that_is_signed_redacted_or_omitted():
    body = opened({"type": "thinking", "thinking": "", "signature": ""}, HIDDEN, {"type": "thinking", "thinking": ""})
    body += named(
        delta(0, "thinking_delta", thinking="six "),
        delta(0, "thinking_delta", thinking="sevens"),
        delta(0, "signature_delta", signature="c2ln"),
        closed(0),
        closed(1),
        delta(2, "signature_delta", signature="b21pdA=="),  # display: omitted
        closed(2),
        {"type": "content_block_start", "index": 3, "content_block": text("")},
        delta(3, "text_delta", text="42"),
        closed(3),
        END,
        STOP,
    )
    response = read_every_way(_anthropic.MessageStream, body)
    assert (response.text, response.reasoning) == ("42", "six sevens")
    assert [part.data for part in response.reasoning_parts] == [
        {"type": "thinking", "thinking": "six sevens", "signature": "c2ln"},
        HIDDEN,
        {"type": "thinking", "thinking": "", "signature": "b21pdA=="},
    ]


def test_streamed_calls_with_input_in_pieces_whole_or_missing():
    body = opened({**CALL, "input": {}}, {**CALL, "id": "toolu_2", "input": {"b": [None]}}, {**CALL, "id": "toolu_3"})
    body += named(
        delta(0, "input_json_delta", partial_json=""),
        delta(0, "input_json_delta", partial_json='{"city":"Li\\u00e8'),
        delta(0, "input_json_delta", partial_json='ge"}'),
        closed(0),
        delta(1, "input_json_delta", partial_json=""),
        closed(1),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        STOP,
    )
    response = read_every_way(_anthropic.MessageStream, body)
    assert [call.parse() for call in response.tool_calls] == [{"city": "Liège"}, {"b": [None]}, {"a": 1}]
    assert (response.finish_reason, response.usage.output_tokens, response.usage.input_tokens) == ("tool_calls", 9, 5)


def test_message_start_that_holds_the_whole_content():
    """What programs of the vendor's own tools call arrives so, and nothing follows but the end."""
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_9"}
    result = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"stdout": "x"}}
    start = message(result, THOUGHT, text("I "), HIDDEN, text("see."), {**CALL, "caller": caller}, stop="tool_use")
    response = read_every_way(_anthropic.MessageStream, named({"type": "message_start", "message": start}, STOP))
    whole = _anthropic.decode_response(start)
    assert (response.text, response.tool_calls, response.finish_reason) == ("I see.", whole.tool_calls, "tool_calls")
    assert (response.reasoning_parts, response.extra["blocks"]) == (whole.reasoning_parts, [result])
    cut = named({"type": "message_start", "message": start})
    with pytest.raises(TruncatedReply):
        read(_anthropic.MessageStream, cut)
    more = [
        {"type": "content_block_start", "index": 6, "content_block": text("")},
        delta(6, "text_delta", text=" 42"),
        END,
        STOP,
    ]
    later = read_every_way(_anthropic.MessageStream, cut + cut + named(*more))
    assert (later.text, len(later.tool_calls), later.raw_finish_reason) == ("I see. 42", 1, "end_turn")


def test_message_delta_fields_are_in_extra():
    edits = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 2}]}
    dropped = [{"type": "thinking_dropped", "path": "messages.0.content.0", "reason": "model_binding_mismatch"}]
    last = {**END, "context_management": edits, "input_transformations": dropped}
    last["delta"] = {**END["delta"], "container": {"id": "c", "expires_at": "2027"}}
    response = read_every_way(_anthropic.MessageStream, opened(text("42")) + named(last, STOP))
    assert response.extra == {
        "context_management": edits,
        "input_transformations": dropped,
        "container": {"id": "c", "expires_at": "2027"},
    }


def test_null_and_missing_fields_of_events():
    start = {"type": "content_block_start", "index": None, "content_block": {"type": "text", "text": None}}
    values = [
        start, {**delta(None, "text_delta", text="4"), "index": None}, delta(0, "text_delta", text=None),
        delta(0, "novel_delta", novel=1), {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "2"}},
        {"type": "content_block_stop"}, {"type": "message_delta", "delta": None, "usage": {"output_tokens": None}},
        END, STOP,
    ]  # fmt: skip
    response = read_every_way(_anthropic.MessageStream, opened() + named(*values))
    assert (response.text, response.finish_reason) == ("42", "stop")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (5, None)


TOO_LONG = "prompt is too long: 215000 tokens > 200000 maximum"
ANTHROPIC_FAULTS = [
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, ServerFailed, True),
    ({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}, RateLimited, True),
    ({"type": "error", "error": {"type": "api_error", "message": "oops"}, "request_id": "r"}, ServerFailed, True),
    ({"type": "error", "error": {"type": "timeout_error", "message": "late"}}, ServerFailed, True),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, RequestRejected, False),
    ({"type": "error", "error": {"type": "invalid_request_error", "message": TOO_LONG}}, ContextTooLong, False),
    ({"type": "error", "error": {"type": "billing_error", "message": "pay"}}, OutOfCredit, False),
    ({"type": "error", "error": {"type": "novel_error", "message": "?"}}, ServerFailed, True),
    ({"type": "error", "error": None}, ServerFailed, True),
    ({"type": "error"}, ServerFailed, True),
    ({"type": "error", "error": "just words"}, ServerFailed, True),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "error", "again"), ANTHROPIC_FAULTS)
@pytest.mark.parametrize("begun", [True, False])
def test_an_error_inside_a_stream(fault, error, again, begun):
    head = opened(text("")) + named(delta(0, "text_delta", text="Hel")) if begun else b""
    for body in spellings(head + named(fault)):
        for step in (None, 1):
            with pytest.raises(ApiError) as caught:
                read(_anthropic.MessageStream, body, step)
            assert (type(caught.value), caught.value.retryable) == (error, again)
            assert caught.value.partial == ("Hel" if begun else None)


def test_a_stream_that_breaks_off_is_truncated():
    body = opened(text("")) + named(delta(0, "text_delta", text="Hel"), closed(0))
    for cut in (len(body), len(body) - 3):
        with pytest.raises(TruncatedReply) as caught:
            read(_anthropic.MessageStream, body[:cut])
        assert caught.value.partial == "Hel"
    with pytest.raises(TruncatedReply):
        read(_anthropic.MessageStream, b"")


ANTHROPIC_REFUSALS = [
    (402, "billing_error", "Your payment failed", OutOfCredit),
    (403, "permission_error", "Your API key does not have permission", PermissionRefused),
    (404, "not_found_error", "model: claude-nope", ModelNotFound),
    (404, "not_found_error", "Not found", RequestRejected),
    (413, "request_too_large", "Request exceeds the maximum allowed number of bytes.", RequestTooLarge),
    (400, "invalid_request_error", TOO_LONG, ContextTooLong),
    (
        400,
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 199999 + 21333 > 200000, decrease input length",
        ContextTooLong,
    ),
    (400, "invalid_request_error", "You have reached your specified API usage limits. Try on 2026-12-01.", OutOfCredit),
    (504, "timeout_error", "The request timed out", ServerFailed),
    (529, "overloaded_error", "Overloaded", ServerFailed),
]


@pytest.mark.parametrize(("status", "kind", "words", "error"), ANTHROPIC_REFUSALS)
def test_errors_are_classified_by_type_and_message(status, kind, words, error):
    body = {"type": "error", "error": {"type": kind, "message": words, "details": None}, "request_id": "req_1"}
    found = _anthropic.decode_error(status, {"request-id": "req_1", "retry-after": "2"}, dumps(body))
    assert (type(found), found.code, found.request_id, words in found.message) == (error, kind, "req_1", True)
    assert found.retryable is issubclass(error, (ServerFailed, RateLimited))


def test_an_error_body_in_another_form_is_classified_by_its_status():
    assert_class_of_odd_bodies(_anthropic.decode_error)


def test_calls_without_ids_get_different_ids() -> None:
    blocks = [{"type": "tool_use", "name": "weather", "input": {"city": city}} for city in ("Lyon", "Rome")]
    whole = _anthropic.decode_response(message(*blocks, stop="tool_use"))
    assert [call.id for call in whole.tool_calls] == ["call_0", "call_1"]
