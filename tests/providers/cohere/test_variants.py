"""Cohere's dialect beyond the recorded samples: whole replies, streams cut anywhere, and refusals.

Each case is from the vendor's reference, its SDK's types, or a public report of what servers of the dialect send.
"""

import pytest
from stream_variants import assert_class_of_odd_bodies, named, read, read_every_way

from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    RequestRejected,
    ServerFailed,
)
from llm_council.providers import _cohere


def text(words, **more):
    return {"type": "text", "text": words, **more}


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


def test_a_stream_with_thinking_text_and_citations():
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
        response = read_every_way(chat, spoken(rest=rest, done=done))
        assert (response.text, response.reasoning, response.finish_reason) == ("42\u2028 🗼", "six sevens", "stop")
        assert (response.extra["citations"], response.model, response.usage) == ([cited], "command-x", None)


def test_streamed_calls_with_and_without_arguments():
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
    response = read_every_way(chat, spoken(rest=rest, end=end))
    assert [(call.id, call.name, call.parse()) for call in response.tool_calls] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {}),
    ]
    assert (response.finish_reason, response.extra["tool_plan"], response.usage.input_tokens) == (
        "tool_calls",
        "I will look.",
        5,
    )


def test_events_without_a_type_are_read_by_their_name():
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
def test_finish_reasons(word, finish):
    response = _cohere.decode_response({"id": "c", "finish_reason": word, "message": {"content": [text("4")]}})
    assert (response.finish_reason, response.raw_finish_reason) == (finish, word)


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
def test_content_with_null_missing_and_unknown_blocks(message, words):
    assert _cohere.decode_response({"message": message, "finish_reason": "COMPLETE"}).text == words


COHERE_REFUSALS = [
    (400, "invalid request: message must be at least 1 token long", RequestRejected),
    (400, "too many tokens: total number of tokens in the prompt cannot exceed 128000", ContextTooLong),
    (402, "please add a payment method", OutOfCredit),
    (404, "model 'command-nope' not found, make sure the correct model ID was used", ModelNotFound),
    (404, "model 'command' was removed on September 15, 2025", ModelNotFound),
    (422, "unknown field: parameter 'x' is not a valid field", RequestRejected),
    (498, "blocked input: the prompt was flagged", ContentFiltered),
    (499, "request cancelled", RequestRejected),
    (503, "service unavailable", ServerFailed),
    (504, "gateway timeout", ServerFailed),
]


@pytest.mark.parametrize(("status", "words", "error"), COHERE_REFUSALS)
def test_errors_are_classified_by_status_and_message(status, words, error):
    found = _cohere.decode_error(status, {}, dumps({"id": "id-1", "message": words}))
    assert (type(found), found.request_id, words in found.message) == (error, "id-1", True)


def test_the_rate_limit_header_gives_the_delay():
    body = dumps({"message": "You are using a Trial key, which is limited to 40 API calls / minute."})
    assert _cohere.decode_error(429, {"X-RateLimit-Reset": "1700000012"}, body, now=1_700_000_000.0).retry_after == 12
    assert _cohere.decode_error(429, {"x-ratelimit-reset": "soon"}, body, now=1_700_000_000.0).retry_after is None
    assert _cohere.decode_error(429, {"retry-after-ms": "1500"}, body).retry_after == 1.5


def test_an_error_body_in_another_form_is_classified_by_its_status():
    assert_class_of_odd_bodies(_cohere.decode_error)
