"""What Anthropic, Cohere, AI21 and Replicate say beyond the recorded samples: whole, and cut anywhere.

Each case is taken from a vendor's reference, its SDK's types, or a public report of what it or a server of its dialect
sends. A stream must say the same with its line ends, comments and cuts changed.
"""

import json

import pytest

from llm_council._wire.openai_chat import decode_error as decode_ai21_error
from llm_council._wire.openai_chat import decode_response as decode_chat
from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import join
from llm_council.providers import _anthropic, _cohere, _replicate
from llm_council.providers.ai21 import CHAT as AI21_CHAT
from llm_council.providers.ai21 import ChatStream as AI21Stream
from llm_council.testing._mirrors import replicate
from llm_council.testing._mirrors.anthropic import decode_request


def named(*values, done=False):
    """Write events that are named after their type."""
    frames = [f"event: {value['type']}\n".encode() + b"data: " + dumps(value) + b"\n\n" for value in values]
    return b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def read(reader, body, step=None):
    pieces = [body] if step is None else [body[at : at + step] for at in range(0, len(body), step)]
    made = reader()
    chunks = [chunk for piece in pieces for chunk in made.feed(piece)]
    return join([*chunks, *made.finish()])


def spellings(body):
    """Return the same stream as other servers and proxies write it."""
    yield body
    yield b"\xef\xbb\xbf" + body
    yield body.replace(b"\n", b"\r\n")
    yield b": hi\n\n" + body.replace(b"\n\n", b"\n\n: keep-alive\n\n")
    yield body.replace(b"event: ", b"event:").replace(b"data: {", b"data:{")


def everywhere(reader, body):
    """Read a stream whole and cut in each way; return what it says, which is always the same."""
    said = read(reader, body)
    for spelt in spellings(body):
        assert read(reader, spelt) == said
    for step in (1, 2, 3, 7):
        assert read(reader, body, step) == said
    return said


# Anthropic: whole replies


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


def test_several_texts_with_citations_and_the_vendors_own_tools_are_one_answer():
    said = _anthropic.decode_response(message(SEARCH, FOUND, text("It is "), text("42", citations=[CITED]), text(".")))
    assert (said.text, said.tool_calls, said.finish_reason) == ("It is 42.", (), "stop")
    assert said.extra["blocks"] == [SEARCH, FOUND]
    assert said.extra["citations"] == [CITED]


def test_thinking_shown_and_hidden_goes_back_in_its_order():
    said = _anthropic.decode_response(message(THOUGHT, HIDDEN, text("42"), CALL, stop="tool_use"))
    assert (said.reasoning, said.text, said.finish_reason) == ("hm", "42", "tool_calls")
    assert [part.data for part in said.reasoning_parts] == [THOUGHT, HIDDEN]
    request = decode_request({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "?"}]})
    asked = type(request)(messages=[*request.messages, said.to_message()])
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
def test_why_it_stopped(word, finish):
    said = _anthropic.decode_response(message(text("4"), stop=word))
    assert (said.finish_reason, said.raw_finish_reason) == (finish, word)
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
    said = _anthropic.decode_response(reply)
    assert (said.text, said.refusal, said.finish_reason) == (None, None, "content_filter")


@pytest.mark.parametrize("reply", [{}, {"content": None}, {"content": "x", "type": "message"}, [], None, "x"])
def test_what_is_no_message_is_none(reply):
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
def test_odd_usage(usage, counted):
    found = _anthropic.decode_response(message(text("4"), usage=usage)).usage
    assert (found and (found.input_tokens, found.output_tokens, found.cached_tokens)) == counted


def test_fields_of_later_versions_do_no_harm():
    said = _anthropic.decode_response(
        message(
            {"type": "compaction", "content": "…"}, {"type": 7}, {}, text("42", parsed_output=None),
            container={"id": "c", "expires_at": "2026"}, context_management={"applied_edits": []}, novel=[1],
        )
    )  # fmt: skip
    assert (said.text, len(said.extra["blocks"])) == ("42", 3)
    assert said.extra["container"]["id"] == "c"


# Anthropic: streams


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


def test_a_search_with_citations_and_a_ping_between_any_two_events():
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
    said = everywhere(_anthropic.MessageStream, opened() + named(*values))
    assert (said.text, said.tool_calls, said.finish_reason) == ("It is 42\u2028 🗼", (), "stop")
    assert said.extra["blocks"] == [{**SEARCH, "input": {"query": "naïve 🗼"}}, FOUND]
    assert said.extra["citations"] == [CITED]


def test_thinking_that_is_signed_hidden_or_omitted():
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
    said = everywhere(_anthropic.MessageStream, body)
    assert (said.text, said.reasoning) == ("42", "six sevens")
    assert [part.data for part in said.reasoning_parts] == [
        {"type": "thinking", "thinking": "six sevens", "signature": "c2ln"},
        HIDDEN,
        {"type": "thinking", "thinking": "", "signature": "b21pdA=="},
    ]


def test_calls_whose_input_comes_in_pieces_whole_or_not_at_all():
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
    said = everywhere(_anthropic.MessageStream, body)
    assert [call.parse() for call in said.tool_calls] == [{"city": "Liège"}, {"b": [None]}, {"a": 1}]
    assert (said.finish_reason, said.usage.output_tokens, said.usage.input_tokens) == ("tool_calls", 9, 5)


def test_a_message_that_begins_with_all_of_its_content():
    """What programs of the vendor's own tools call arrives so, and nothing follows but the end."""
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_9"}
    result = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"stdout": "x"}}
    start = message(result, THOUGHT, text("I "), HIDDEN, text("see."), {**CALL, "caller": caller}, stop="tool_use")
    said = everywhere(_anthropic.MessageStream, named({"type": "message_start", "message": start}, STOP))
    whole = _anthropic.decode_response(start)
    assert (said.text, said.tool_calls, said.finish_reason) == ("I see.", whole.tool_calls, "tool_calls")
    assert (said.reasoning_parts, said.extra["blocks"]) == (whole.reasoning_parts, [result])
    cut = named({"type": "message_start", "message": start})
    with pytest.raises(TruncatedReply):
        read(_anthropic.MessageStream, cut)
    more = [
        {"type": "content_block_start", "index": 6, "content_block": text("")},
        delta(6, "text_delta", text=" 42"),
        END,
        STOP,
    ]
    later = everywhere(_anthropic.MessageStream, cut + cut + named(*more))
    assert (later.text, len(later.tool_calls), later.raw_finish_reason) == ("I see. 42", 1, "end_turn")


def test_what_is_said_of_a_message_beside_its_delta():
    edits = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 2}]}
    dropped = [{"type": "thinking_dropped", "path": "messages.0.content.0", "reason": "model_binding_mismatch"}]
    last = {**END, "context_management": edits, "input_transformations": dropped}
    last["delta"] = {**END["delta"], "container": {"id": "c", "expires_at": "2027"}}
    said = everywhere(_anthropic.MessageStream, opened(text("42")) + named(last, STOP))
    assert said.extra == {
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
    said = everywhere(_anthropic.MessageStream, opened() + named(*values))
    assert (said.text, said.finish_reason) == ("42", "stop")
    assert (said.usage.input_tokens, said.usage.output_tokens) == (5, None)


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


def test_a_stream_that_breaks_off_is_no_answer():
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
def test_anthropics_refusals(status, kind, words, error):
    body = {"type": "error", "error": {"type": kind, "message": words, "details": None}, "request_id": "req_1"}
    found = _anthropic.decode_error(status, {"request-id": "req_1", "retry-after": "2"}, dumps(body))
    assert (type(found), found.code, found.request_id, words in found.message) == (error, kind, "req_1", True)
    assert found.retryable is issubclass(error, (ServerFailed, RateLimited))


BODIES = [
    b"",
    b"null",
    b"[]",
    b'"busy"',
    b"<html><h1>502</h1></html>",
    b"\xef\xbb\xbf<!DOCTYPE html>",
    b"upstream connect error",
    b"\xff\xfe",
    b'{"error": null}',
    b'{"error": {"message": ["x"]}}',
    b'{"type":"error","error":{}}',
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(
    "decode", [_anthropic.decode_error, _cohere.decode_error, _replicate.decode_error, decode_ai21_error]
)
@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationFailed), (429, RateLimited), (502, ServerFailed), (422, RequestRejected)]
)
def test_odd_bodies_are_typed_by_their_status(decode, body, status, error):
    found = decode(status, {"retry-after": "3", "content-type": "text/html"}, body)
    assert (type(found), found.status, found.retry_after) == (error, status, 3.0)
    assert "<" not in found.message


# Cohere


def spoken(*, done=True, end=None, rest=()):
    return named(
        {"id": "c-1", "type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
        *rest,
        end or {"type": "message-end", "id": "c-1", "delta": {"finish_reason": "COMPLETE", "usage": None}},
        done=done,
    )


def content(kind, index, **facts):
    return {"type": f"content-{kind}", "index": index, "delta": {"message": {"content": facts}}}


def tool(kind, index, call):
    return {"type": f"tool-call-{kind}", "index": index, "delta": {"message": {"tool_calls": call}}}


def chat():
    return _cohere.ChatStream(model="command-x")


def test_cohere_thinks_answers_and_cites():
    cited = {"start": 0, "end": 2, "text": "42", "sources": [{"type": "document", "id": "d:0"}], "type": "TEXT_CONTENT"}
    rest = [
        content("start", 0, type="thinking", thinking=""),
        content("delta", 0, thinking="six "),
        content("delta", 0, thinking="sevens"),
        {"type": "content-end", "index": 0},
        content("start", 1, type="text", text=""),
        content("delta", 1, text="4"),
        content("delta", 1, text="2\u2028 🗼"),
        {"type": "citation-start", "index": 0, "delta": {"message": {"citations": cited}}},
        {"type": "citation-end", "index": 0},
        {"type": "content-end", "index": 1},
        {"type": "debug", "prompt": "…"},
    ]
    for done in (True, False):
        said = everywhere(chat, spoken(rest=rest, done=done))
        assert (said.text, said.reasoning, said.finish_reason) == ("42\u2028 🗼", "six sevens", "stop")
        assert (said.extra["citations"], said.model, said.usage) == ([cited], "command-x", None)


def test_cohere_calls_tools_with_and_without_arguments():
    function = {"name": "f", "arguments": ""}
    rest = [
        {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will "}}},
        {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "look."}}},
        tool("start", 0, {"id": "a", "type": "function", "function": function}),
        tool("delta", 0, {"function": {"arguments": '{"x":'}}),
        tool("delta", 0, {"function": {"arguments": "1}"}}),
        tool("end", 0, None),
        tool("start", 1, {"id": "b", "type": "function", "function": {"name": "g", "arguments": None}}),
        tool("delta", 1, None),
        {"type": "tool-call-end", "index": 1},
    ]
    end = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL", "usage": {"tokens": {"input_tokens": 5.0}}}}
    said = everywhere(chat, spoken(rest=rest, end=end))
    assert [(call.id, call.name, call.parse()) for call in said.tool_calls] == [("a", "f", {"x": 1}), ("b", "g", {})]
    assert (said.finish_reason, said.extra["tool_plan"], said.usage.input_tokens) == ("tool_calls", "I will look.", 5)


def test_cohere_events_that_only_their_name_tells():
    body = spoken(rest=[content("start", 0, type="text", text="42")])
    bare = body
    for word in (b"message-start", b"content-start", b"message-end"):
        bare = bare.replace(b'"type":"' + word + b'"', b'"novel":1')
    assert b'"type":"message' not in bare
    assert read(chat, bare).text == read(chat, body).text == "42"


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls"),
        ("ERROR", "error"), ("TIMEOUT", "error"), ("NOVEL", None), (None, None),
    ],
)  # fmt: skip
def test_why_cohere_stopped(word, finish):
    said = _cohere.decode_response({"id": "c", "finish_reason": word, "message": {"content": [text("4")]}})
    assert (said.finish_reason, said.raw_finish_reason) == (finish, word)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "assistant", "content": None, "tool_calls": None, "citations": None, "tool_plan": None}, None),
        ({"role": "assistant"}, None),
        ({"content": []}, None),
        ({"content": [text(None)]}, ""),
        ({"content": "4"}, "4"),
        ({"content": [text("4"), {"type": "novel"}, {"type": "thinking", "thinking": None}, text("2")]}, "42"),
    ],
)
def test_odd_content_of_coheres(message, words):
    assert _cohere.decode_response({"message": message, "finish_reason": "COMPLETE"}).text == words


COHERE_REFUSALS = [
    (400, "invalid request: message must be at least 1 token long", RequestRejected),
    (400, "too many tokens: total number of tokens in the prompt cannot exceed 128000", ContextTooLong),
    (402, "please add a payment method", OutOfCredit),
    (404, "model 'command-nope' not found, make sure the correct model ID was used", ModelNotFound),
    (404, "model 'command' was removed on September 15, 2025", RequestRejected),
    (422, "unknown field: parameter 'x' is not a valid field", RequestRejected),
    (498, "blocked input: the prompt was flagged", ContentFiltered),
    (499, "request cancelled", RequestRejected),
    (503, "service unavailable", ServerFailed),
    (504, "gateway timeout", ServerFailed),
]


@pytest.mark.parametrize(("status", "words", "error"), COHERE_REFUSALS)
def test_coheres_refusals(status, words, error):
    found = _cohere.decode_error(status, {}, dumps({"id": "id-1", "message": words}))
    assert (type(found), found.request_id, words in found.message) == (error, "id-1", True)


def test_cohere_says_in_a_header_when_to_come_back():
    body = dumps({"message": "You are using a Trial key, which is limited to 40 API calls / minute."})
    assert _cohere.decode_error(429, {"X-RateLimit-Reset": "1700000012"}, body, now=1_700_000_000.0).retry_after == 12
    assert _cohere.decode_error(429, {"x-ratelimit-reset": "soon"}, body, now=1_700_000_000.0).retry_after is None
    assert _cohere.decode_error(429, {"retry-after-ms": "1500"}, body).retry_after == 1.5


# AI21


def jamba():
    return AI21Stream(model="jamba-large")


def test_ai21_streams_with_usage_at_the_end_and_without():
    def chunk(delta, finish=None, **more):
        return b"data: " + dumps(
            {"id": "j", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
        )

    head = [chunk({"role": "assistant", "content": ""}), chunk({"content": "4"}), chunk({"content": "2\u2028 🗼"})]
    last = chunk({}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8})
    for end in ([last], [chunk({"content": None}, "stop")], [chunk({"content": ""}, "length")]):
        said = everywhere(jamba, b"\n\n".join([*head, *end, b"data: [DONE]", b""]))
        assert (said.text, said.model) == ("42\u2028 🗼", "jamba-large")
        assert said.finish_reason == ("length" if b"length" in end[0] else "stop")
        assert (said.usage is None) is (end != [last])


def test_ai21_calls_tools_without_a_text():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    for words in (None, "", "missing"):
        told = {"role": "assistant", "content": words, "reasoning_content": "hm", "tool_calls": [call]}
        if words == "missing":
            del told["content"]
        said = decode_chat(
            {"id": "j", "choices": [{"index": 0, "message": told, "finish_reason": "tool_calls"}]}, AI21_CHAT
        )
        assert (said.text or None, said.reasoning, said.tool_calls[0].parse()) == (None, "hm", {"x": 1})


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]},
         RequestRejected, "body.messages.0: field required"),
        (401, {"detail": "Forbidden: Bad or missing API token."}, AuthenticationFailed, "Bad or missing"),
        (403, {"detail": "Not allowed"}, PermissionRefused, "Not allowed"),
        (429, {"detail": "Too Many Requests"}, RateLimited, "Too Many"),
        (500, {"detail": {"error": "x"}}, ServerFailed, "500"),
        (422, {"detail": []}, RequestRejected, "422"),
    ],
)  # fmt: skip
def test_ai21s_refusals(status, body, error, words):
    found = decode_ai21_error(status, {}, dumps(body))
    assert (type(found), words in found.message) == (error, True)


# Replicate


def prediction(**facts):
    return {
        "id": "p",
        "model": "m/x",
        "version": "v",
        "status": "succeeded",
        "output": ["4", "2"],
        "error": None,
        **facts,
    }


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (["", " 4", "\n", "2"], " 4\n2"), ("42", "42"), ("", ""), ([], ""), (None, None), ({"a": [1]}, '{"a": [1]}'),
        (["a", 1], '["a", 1]'), (42, "42"), (True, "true"),
    ],
)  # fmt: skip
def test_outputs_of_any_shape(output, words):
    assert _replicate.decode_response(prediction(output=output)).text == words


@pytest.mark.parametrize("metrics", [None, {}, {"predict_time": 1.5}, {"input_token_count": None}, "x", {"a": "b"}])
def test_replicate_counts_or_does_not(metrics):
    assert _replicate.decode_response(prediction(metrics=metrics)).usage is None


@pytest.mark.parametrize(
    ("facts", "error", "again"),
    [
        ({"status": "failed", "error": "CUDA out of memory"}, ServerFailed, False),
        ({"status": "failed", "error": "Director: unexpected error handling prediction (E6716)"}, ServerFailed, True),
        ({"status": "failed", "error": "The input or output was flagged as sensitive. (E005)"}, ContentFiltered, False),
        ({"status": "failed", "error": None}, ServerFailed, False),
        ({"status": "failed", "error": {"detail": "x"}}, ServerFailed, False),
        ({"status": "canceled"}, TruncatedReply, False),
        ({"status": "aborted", "output": None}, TruncatedReply, False),
    ],
)
def test_predictions_that_are_no_answer(facts, error, again):
    with pytest.raises(ProviderError) as caught:
        _replicate.decode_response(prediction(**facts))
    found = caught.value
    assert (type(found), found.retryable, found.request_id) == (error, again, "p")
    assert found.partial == (None if facts.get("output", 1) is None else "42")


def test_a_prediction_that_goes_on_is_no_whole_answer():
    for status in ("starting", "processing", "queued", "novel"):
        said = _replicate.decode_response(prediction(status=status))
        assert (said.text, said.finish_reason) == ("42", None)


def stream(*pairs, end=("done", "{}")):
    return b"".join(replicate.frame(pair) for pair in [*pairs, end] if pair[0])


def predicted():
    return _replicate.PredictionStream(request_id="p", model="m/x")


def test_tokens_are_raw_text():
    body = stream(
        ("output", " It"), ("logs", "x"), ("output", "\n"), ("output", ""), ("output", ' {"a": 1}'), ("novel", "?")
    )
    said = read(predicted, body + b": 408: 408 Request Timeout\n\n")
    assert (said.text, said.finish_reason) == (' It\n {"a": 1}', "stop")
    for step in (1, 2, 5):
        assert read(predicted, body, step) == said
    assert read(predicted, b": hi\n\n" + body.replace(b"\n", b"\r\n")) == said


@pytest.mark.parametrize(
    ("end", "error", "again"),
    [
        (("done", '{"reason": "canceled"}'), TruncatedReply, False),
        (("done", '{"reason": "error"}'), ServerFailed, False),
        (("done", '{"reason": "novel"}'), TruncatedReply, False),
        (("error", '{"detail": "E8367: stopped"}'), ServerFailed, True),
        (("error", "words alone"), ServerFailed, False),
        (("", ""), TruncatedReply, True),
    ],
)
def test_streams_that_end_badly(end, error, again):
    with pytest.raises(ProviderError) as caught:
        read(predicted, stream(("output", " It"), end=end))
    assert (type(caught.value), caught.value.partial, caught.value.retryable) == (error, " It", again)


@pytest.mark.parametrize(
    ("status", "body", "error", "delay"),
    [
        (
            401,
            {"title": "Unauthenticated", "detail": "You did not pass a valid token", "status": 401},
            AuthenticationFailed,
            None,
        ),
        (402, {"title": "Insufficient credit", "detail": "Go to billing", "status": 402}, OutOfCredit, None),
        (404, {"detail": "The requested resource could not be found.", "status": 404}, RequestRejected, None),
        (
            422,
            {"title": "Input validation failed", "detail": "- input.prompt: required", "status": 422},
            RequestRejected,
            None,
        ),
        (429, {"detail": "Request was throttled.", "status": 429, "retry_after": 5}, RateLimited, 5),
        (429, {"detail": "Request was throttled.", "status": 429, "retry_after": "soon"}, RateLimited, None),
        (429, {"detail": "Request was throttled.", "status": 429, "retry_after": None}, RateLimited, None),
    ],
)
def test_replicates_refusals(status, body, error, delay):
    found = _replicate.decode_error(status, {"content-type": "application/problem+json"}, json.dumps(body).encode())
    assert (type(found), found.retry_after) == (error, delay)
    assert body.get("title", "") in found.message
