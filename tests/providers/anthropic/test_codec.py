"""Anthropic's dialect by example: payloads for requests, and responses for unusual replies."""

import pytest

from llm_council._wire.payloads import dumps
from llm_council.errors import (
    AuthenticationFailed,
    ContextTooLong,
    InvalidOption,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
)
from llm_council.models import GenerateRequest, Message, ReasoningConfig, Tool, ToolCall, join
from llm_council.models.messages import ImagePart, ReasoningPart, TextPart
from llm_council.providers._anthropic import (
    MessagesOptions,
    MessageStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.providers._anthropic.request import thinking_budget
from llm_council.testing._mirrors.anthropic import decode_request, encode_error, frame

ADAPTIVE = MessagesOptions()
BUDGET = MessagesOptions(thinking="budget")


def sent(*turns, options=ADAPTIVE, **facts):
    return encode_request(GenerateRequest(messages=turns, **facts), options)


def test_instructions_of_all_turns_are_joined_into_the_system_field():
    payload = sent(Message("system", "a"), Message("user", "u"), Message("developer", "b"), Message("user", "v"))
    assert payload["system"] == "a\n\nb"
    assert payload["messages"] == [{"role": "user", "content": [text("u"), text("v")]}]


def text(words, **more):
    return {"type": "text", "text": words, **more}


def test_instructions_with_a_cache_mark_are_sent_as_blocks():
    turns = Message("system", [TextPart(text="long", cache=True), "short"]), Message("user", "u")
    mark = {"type": "ephemeral"}
    assert sent(*turns)["system"] == [text("long", cache_control=mark), text("short")]
    assert "cache_control" not in sent(*turns)
    hour = sent(*turns, prompt_cache="1h")
    assert hour["cache_control"] == hour["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    bare = sent(*turns, prompt_cache=True, options=MessagesOptions(cache_control=False))
    assert (bare["system"], "cache_control" in bare) == ("longshort", False)


def test_tool_results_and_user_turns_are_merged_with_the_results_first():
    calls = [ToolCall(id="a", name="f", arguments='{"x": 1}'), ToolCall(id="functions.g:1", name="g")]
    image = ImagePart(data="aGk=", media_type="image/png")
    payload = sent(
        Message("user", "go"),
        Message("assistant", "so", tool_calls=calls),
        Message("user", "hurry"),
        Message("tool", "1", tool_call_id="a"),
        Message("tool", ["see", image], tool_call_id="functions.g:1"),
    )
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert payload["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                text("so"),
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "functions_g_1", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {
                    "type": "tool_result",
                    "tool_use_id": "functions_g_1",
                    "content": [text("see"), {"type": "image", "source": source}],
                },
                text("hurry"),
            ],
        },
    ]


def test_requests_that_the_api_would_reject_raise_invalid_option():
    with pytest.raises(InvalidOption, match="tool_call_id"):
        sent(Message("tool", "1"))
    with pytest.raises(InvalidOption, match="needs a user's turn"):
        sent(Message("system", "s"), Message("user", ""))


def test_empty_texts_are_dropped_and_invalid_arguments_are_wrapped_in_an_object():
    call = ToolCall(id="", name="f", arguments='{"x": ')
    payload = sent(Message("user", "u"), Message("assistant", ""), Message("assistant", "", tool_calls=[call]))
    broken = {"type": "tool_use", "id": "call", "name": "f", "input": {"invalid_json": '{"x": '}}
    assert payload["messages"] == [{"role": "user", "content": "u"}, {"role": "assistant", "content": [broken]}]


def test_an_image_url_is_sent_as_a_url_source():
    payload = sent(Message("user", [ImagePart(url="https://x.example/a.png", detail="low")]))
    source = {"type": "url", "url": "https://x.example/a.png"}
    assert payload["messages"][0]["content"] == [{"type": "image", "source": source}]


def test_only_signed_thinking_of_this_vendor_is_sent_back():
    data = {"type": "thinking", "thinking": "hm", "signature": "s", "novel": 1}
    hidden = {"type": "redacted_thinking", "data": "x"}
    parts = [
        ReasoningPart(text="hm", signature="s", vendor="anthropic", data=data),
        ReasoningPart(vendor="anthropic", data=hidden),
        ReasoningPart(text="by hand", signature="t", vendor="anthropic"),
        ReasoningPart(text="another's", signature="t", vendor="openrouter"),
        ReasoningPart(text="nobody signed it", vendor="anthropic"),
        ReasoningPart(vendor="anthropic", data={"novel": 1}),
        TextPart(text="42"),
    ]
    payload = sent(Message("user", "u"), Message("assistant", parts))
    own = {"type": "thinking", "thinking": "by hand", "signature": "t"}
    assert payload["messages"][1]["content"] == [data, hidden, own, text("42")]


def turns_of(*blocks):
    """Yield the content that is sent back after an answer of these blocks, whole and streamed."""
    answer = {"type": "message", "model": "m", "content": list(blocks), "stop_reason": "pause_turn"}
    events = [{"type": "message_start", "message": {"type": "message", "model": "m", "content": []}}]
    for index, block in enumerate(blocks):
        begun, pieces = dict(block), []
        if block["type"] == "text":
            begun["text"] = ""
            pieces = [{"type": "text_delta", "text": piece} for piece in block["text"]]
        elif "input" in block:
            begun["input"] = {}
            pieces = [{"type": "input_json_delta", "partial_json": dumps(block["input"]).decode()}]
        events.append({"type": "content_block_start", "index": index, "content_block": begun})
        events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": {"stop_reason": "pause_turn"}}, {"type": "message_stop"}]
    stream = MessageStream()
    chunks = [chunk for event in events for chunk in stream.feed(frame(event))]
    for found in (decode_response(answer), join([*chunks, *stream.finish()])):
        assert (found.finish_reason, found.raw_finish_reason) == (None, "pause_turn")
        yield sent(Message("user", "u"), found.to_message())["messages"][1]["content"]


SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted_content": "E"}]}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
AGAIN = {"type": "thinking", "thinking": "hm, hm", "signature": "t"}
CALLED = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
CITED = {"type": "text", "text": "as it says", "citations": [{"cited_text": "x"}]}


@pytest.mark.parametrize(
    "blocks",
    [
        [THOUGHT, text("Let me look."), SEARCH],  # paused: the vendor's own tools are still at work
        [THOUGHT, text("Let me look."), SEARCH, FOUND, text("It is 42.")],
        [text("a"), THOUGHT, text("b"), AGAIN, CALLED],  # thoughts between words, whose order the vendor checks
        [CITED, SEARCH, FOUND, CITED, THOUGHT, text("a")],
        [CALLED, SEARCH],
        [text("a"), CALLED, SEARCH, {**CALLED, "id": "c2"}],
        [SEARCH, FOUND],
    ],
)
def test_blocks_of_an_answer_are_sent_back_in_their_order(blocks):
    for content in turns_of(*blocks):
        assert content == blocks
        payload = sent(
            Message("user", "u"), *decode_request({"messages": [{"role": "assistant", "content": content}]}).messages
        )
        assert payload["messages"][1]["content"] == blocks


@pytest.mark.parametrize(
    ("asked", "options", "thinking", "effort"),
    [
        ({"effort": "medium"}, MessagesOptions(), {"type": "adaptive"}, "medium"),
        ({"effort": "minimal"}, MessagesOptions(), {"type": "adaptive"}, "low"),
        (
            {"effort": "max"},
            MessagesOptions(display="summarized"),
            {"type": "adaptive", "display": "summarized"},
            "max",
        ),
        ({"effort": "none"}, MessagesOptions(), {"type": "disabled"}, None),
        ({"budget_tokens": 3000}, MessagesOptions(), {"type": "enabled", "budget_tokens": 3000}, None),
        ({"effort": "low", "budget_tokens": 9}, BUDGET, {"type": "enabled", "budget_tokens": 1024}, None),
        ({"effort": "low"}, BUDGET, {"type": "enabled", "budget_tokens": 2048}, None),
        ({}, BUDGET, None, None),
    ],
)
def test_reasoning_becomes_the_thinking_and_effort_fields(asked, options, thinking, effort):
    payload = sent(Message("user", "u"), reasoning=ReasoningConfig(**asked), options=options)
    assert payload.get("thinking") == thinking
    assert payload.get("output_config", {}).get("effort") == effort


@pytest.mark.parametrize(
    ("asked", "max_tokens", "budget"),
    [
        ({"budget_tokens": 5000}, 4096, 2048),
        ({"budget_tokens": 4095}, 4096, 4095),
        ({"effort": "high"}, 4096, 2048),
        ({"effort": "high"}, 2000, None),
        ({"budget_tokens": 1024}, 1024, None),
        ({"budget_tokens": 70_000}, None, 32_000),
    ],
)
def test_a_thinking_budget_is_smaller_than_max_tokens(asked, max_tokens, budget):
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(**asked), max_tokens=max_tokens)
    options = MessagesOptions(thinking="budget", max_output=64_000)
    assert thinking_budget(request, options) == budget
    payload = encode_request(request, options)
    assert payload.get("thinking", {}).get("budget_tokens") == budget
    assert payload["max_tokens"] == (max_tokens or 48_000)


def test_max_tokens_is_always_sent():
    ask = Message("user", "u")
    assert sent(ask)["max_tokens"] == 16_000
    assert sent(ask, options=MessagesOptions(max_tokens=9_000, max_output=4096))["max_tokens"] == 4096
    assert sent(ask, max_tokens=5)["max_tokens"] == 5


def test_extra_is_merged_into_the_output_config_and_the_payload():
    extra = {"output_config": {"task_budget": {"type": "tokens", "total": 9}}, "top_k": 3}
    payload = sent(Message("user", "u"), reasoning=ReasoningConfig(effort="low"), extra=extra)
    assert payload["output_config"] == {"effort": "low", "task_budget": {"type": "tokens", "total": 9}}
    assert payload["top_k"] == 3


def test_a_tool_choice_is_sent_only_with_tools():
    ask = Message("user", "u")
    assert "tool_choice" not in sent(ask, tool_choice="required")
    assert sent(ask, tools=[Tool(name="f", parameters={})], tool_choice="required")["tool_choice"] == {"type": "any"}
    assert sent(ask, tools=[Tool(name="f", parameters={})])["tools"][0]["input_schema"] == {"type": "object"}


def test_a_response_format_in_openais_form_becomes_an_output_format():
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    payload = sent(Message("user", "u"), response_format=wanted)
    assert payload["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert "output_config" not in sent(Message("user", "u"), response_format={"type": "json_object"})


# Replies


@pytest.mark.parametrize(
    ("status", "kind", "message", "cls", "retryable"),
    [
        (400, "invalid_request_error", "Your credit balance is too low to access the API.", OutOfCredit, False),
        (400, "invalid_request_error", "You have reached your specified API usage limits.", OutOfCredit, False),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextTooLong, False),
        (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 1", ContextTooLong, False),
        (400, "invalid_request_error", "messages: at least one", RequestRejected, False),
        (402, "billing_error", "pay", OutOfCredit, False),
        (403, "permission_error", "no", PermissionRefused, False),
        (404, "not_found_error", "model: claude-nope", ModelNotFound, False),
        (404, "not_found_error", "Not found", RequestRejected, False),
        (413, "request_too_large", "big", RequestTooLarge, False),
        (429, "rate_limit_error", "slow", RateLimited, True),
        (500, "api_error", "oops", ServerFailed, True),
        (504, "timeout_error", "late", ServerFailed, True),
        (529, "overloaded_error", "busy", ServerFailed, True),
    ],
)
def test_an_error_has_the_same_class_in_a_reply_and_in_a_stream(status, kind, message, cls, retryable):
    body = encode_error(message, kind=kind, request_id="req_1")
    error = decode_error(status, {"Retry-After": "7"}, dumps(body))
    assert (type(error), error.status, error.code, error.retryable) == (cls, status, kind, retryable)
    assert (error.request_id, error.retry_after) == ("req_1", 7.0)
    assert decode_error(status, {}, dumps(body), request_id="req_2").request_id == "req_2"
    with pytest.raises(cls) as caught:
        MessageStream().feed(frame(body))
    assert (caught.value.status, caught.value.retryable, caught.value.request_id) == (status, retryable, "req_1")
    with pytest.raises(cls):
        decode_response(body)


def test_the_header_x_should_retry_decides_whether_an_error_is_retryable():
    body = dumps(encode_error("x", kind="rate_limit_error"))
    assert not decode_error(429, {"x-should-retry": "false"}, body).retryable
    assert decode_error(400, {"x-should-retry": "true"}, dumps(encode_error("x", kind="novel"))).retryable


def test_the_error_type_wins_over_a_status_that_a_gateway_changed():
    for kind, cls in (
        ("rate_limit_error", RateLimited),
        ("overloaded_error", ServerFailed),
        ("billing_error", OutOfCredit),
    ):
        assert type(decode_error(400, {}, dumps(encode_error("x", kind=kind)))) is cls


# Amazon Bedrock and Vertex AI, which serve Claude, have error forms of their own.

AWS_REFUSALS = [
    (400, "ValidationException", "The provided model identifier is invalid.", ModelNotFound),
    (400, "ValidationException", "Input is too long for requested model.", ContextTooLong),
    (400, "ValidationException", "max_tokens: must be positive", RequestRejected),
    (
        403,
        "UnrecognizedClientException",
        "The security token in the request is invalid.",
        AuthenticationFailed,
    ),
    (403, "ExpiredTokenException", "The security token included in the request is expired", AuthenticationFailed),
    (
        403,
        "AccessDeniedException",
        "You don't have access to the model with this ID.",
        PermissionRefused,
    ),
    (404, "ResourceNotFoundException", "This model version has reached the end of its life.", ModelNotFound),
    (408, "ModelTimeoutException", "The model took too long", ServerFailed),
    (424, "ModelErrorException", "The model failed", ServerFailed),
    (429, "ModelNotReadyException", "Model is not ready", ServerFailed),
    (429, "ThrottlingException", "Too many requests", RateLimited),
    (500, "InternalServerException", "Try again", ServerFailed),
]


@pytest.mark.parametrize(("status", "code", "message", "error"), AWS_REFUSALS)
@pytest.mark.parametrize("in_header", [True, False])
def test_errors_of_bedrock_are_classified_by_name(status, code, message, error, in_header):
    body = {"message": message} if in_header else {"__type": f"com.amazon.coral#{code}", "Message": message}
    headers = {"X-Amzn-ErrorType": f"{code}:http://internal.amazon.com/"} if in_header else {}
    found = decode_error(status, {**headers, "x-amzn-requestid": "req-7"}, dumps(body))
    assert type(found) is error
    assert (found.code, found.request_id, message in found.message) == (code, "req-7", True)


GOOGLE_REFUSALS = [
    (401, "UNAUTHENTICATED", {}, AuthenticationFailed, None),
    (403, "PERMISSION_DENIED", {}, PermissionRefused, None),
    (429, "RESOURCE_EXHAUSTED", {"retryDelay": "34.4s"}, RateLimited, 34.4),
    (429, "RESOURCE_EXHAUSTED", {"violations": [{"quotaId": "TokensPerDay"}]}, OutOfCredit, None),
    (404, "NOT_FOUND", {}, ModelNotFound, None),
]


@pytest.mark.parametrize(("status", "code", "detail", "error", "delay"), GOOGLE_REFUSALS)
def test_errors_of_vertex_are_classified_by_googles_codes(status, code, detail, error, delay):
    inner = {"code": status, "message": "Publisher Model `x` was not found.", "status": code, "details": [detail]}
    found = decode_error(status, {}, dumps({"error": inner}))
    assert (type(found), found.code, found.retry_after) == (error, code, delay)


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b'{"error": "busy"}', b'{"message": "busy"}', b'{"error"'])
def test_an_error_body_in_another_form_is_classified_by_its_status(body):
    error = decode_error(503, {"request-id": "r"}, body)
    assert (type(error), error.retryable, error.request_id) == (ServerFailed, True, "r")


def events(*values):
    return b"".join(frame(value) for value in values)


START = {
    "type": "message_start",
    "message": {"id": "m", "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}},
}
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
END = {"type": "message_stop"}


def read(body):
    stream = MessageStream()
    chunks = stream.feed(body)
    return join([*chunks, *stream.finish()])


def test_deltas_are_matched_to_blocks_by_index_even_if_a_block_is_never_closed():
    response = read(
        events(
            START,
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "h"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "4"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "a", "name": "f"}},
            {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "b", "name": "g"}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "2"}},
            {"type": "content_block_delta", "index": 7, "delta": {"type": "input_json_delta", "partial_json": "?"}},
            {"type": "novel_event"},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "novel_delta"}},
            STOP,
            END,
        )
        + b"event: error\ndata: after the end nothing counts\n\n"
    )
    assert (response.text, response.reasoning, response.finish_reason) == ("42", "hm", "stop")
    assert [(call.id, call.arguments) for call in response.tool_calls] == [("a", "{}"), ("b", "{}")]
    assert response.reasoning_parts[0].data == {"type": "thinking", "thinking": "hm"}
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 9)
    assert (response.request_id, response.model) == ("m", "c")


def test_a_whole_reply_to_a_streaming_request_is_decoded():
    reply = {"id": "m", "model": "c", "content": [text("42")], "stop_reason": "end_turn"}
    assert read(dumps(reply)).text == "42"
    with pytest.raises(MalformedReply, match="not JSON"):
        read(b"<html>")


def test_a_stream_with_a_stop_reason_and_no_message_stop_is_complete():
    block = {"type": "content_block_start", "index": 0, "content_block": text("42")}
    assert read(events(START, block, STOP)).text == "42"


def test_unknown_fields_of_a_call_are_in_extra_and_its_caller_is_sent_back():
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {}, "caller": caller, "toolset_name": None}
    response = decode_response({"model": "c", "content": [block], "stop_reason": "tool_use"})
    assert response.tool_calls[0].extra == {"caller": caller}
    payload = sent(Message("user", "u"), response.to_message())
    assert payload["messages"][1]["content"][0]["caller"] == caller
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    assert read(events(START, start, STOP, END)).tool_calls == response.tool_calls


def test_stop_details_give_the_explanation_of_a_refusal():
    details = {"type": "refusal", "category": "cyber", "explanation": "not this"}
    reply = {"model": "c", "content": [], "stop_reason": "refusal", "stop_details": details}
    delta = {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}}
    for response in (decode_response(reply), read(events(START, delta, END))):
        assert (response.text, response.refusal, response.finish_reason) == (None, "not this", "content_filter")
        assert response.extra["stop_details"]["category"] == "cyber"
