"""Google's dialect by example: payloads for requests, and responses for replies, streams and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    ReplyTooLarge,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Limits,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    join,
)
from llm_council.providers._google import GeminiOptions, GeminiStream, decode_error, decode_response, encode_request
from llm_council.providers._google.stream import ArraySplitter
from llm_council.testing._mirrors.gemini import decode_request, encode_array, encode_error, frame

# Requests


def sent(options: GeminiOptions | None = None, **facts: Any) -> dict[str, Any]:
    facts.setdefault("prompt", "hi")
    payload = encode_request(GenerateRequest(**facts), options or GeminiOptions())
    del payload["contents"]
    return payload


def contents(*turns: Message) -> list[dict[str, Any]]:
    return encode_request(GenerateRequest(messages=turns))["contents"]


def test_fields_that_are_not_set_are_not_sent() -> None:
    request = GenerateRequest(prompt="hi", model="m", stream=True, metadata={"a": 1}, idempotency_key="k")
    assert encode_request(request) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_instructions_are_sent_in_system_instruction() -> None:
    turns = [Message("system", "a"), Message("user", "x"), Message("developer", "b"), Message("system", "")]
    assert encode_request(GenerateRequest(messages=turns)) == {
        "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]},
        "contents": [{"role": "user", "parts": [{"text": "x"}]}],
    }


def test_limits_and_sampling_are_sent_in_generation_config() -> None:
    assert sent(max_tokens=5, temperature=0.5, top_p=0.9, stop=["END"]) == {
        "generationConfig": {"maxOutputTokens": 5, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}
    }


SCHEMA = {"type": "object"}
SHAPED = StructuredOutput(json_schema=SCHEMA)


def test_a_schema_is_sent_in_the_form_that_the_model_takes() -> None:
    whole = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    assert sent(structured_output=SHAPED) == {"generationConfig": whole}
    assert sent(response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}}) == {
        "generationConfig": whole
    }
    json_only = {"generationConfig": {"responseMimeType": "application/json"}}
    assert sent(GeminiOptions(schema="json_object"), structured_output=SHAPED) == json_only
    assert sent(response_format={"type": "json_object"}) == json_only
    assert sent(response_format={"type": "text"}) == {}
    assert sent(GeminiOptions(schema="none"), structured_output=SHAPED) == {}


THINKING: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("level", {"effort": "low"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
    ("level", {"effort": "max"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
    ("level", {"effort": "none"}, {"thinkingLevel": "MINIMAL"}),
    ("level", {"budget_tokens": 5}, {}),
    ("level", {}, {}),
    ("budget", {"effort": "medium"}, {"thinkingBudget": 8192, "includeThoughts": True}),
    ("budget", {"effort": "high", "budget_tokens": 5}, {"thinkingBudget": 5, "includeThoughts": True}),
    ("budget", {"effort": "none", "budget_tokens": 5}, {"thinkingBudget": 0}),
    ("budget", {"budget_tokens": 0}, {"thinkingBudget": 0}),
    ("none", {"effort": "high"}, {}),
]


@pytest.mark.parametrize(("style", "asked", "expected"), THINKING)
def test_reasoning_becomes_a_level_or_a_budget_by_model_family(
    style: str, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    payload = sent(GeminiOptions(thinking=style), reasoning=ReasoningConfig(**asked))
    assert payload == ({"generationConfig": {"thinkingConfig": expected}} if expected else {})


def test_tools_and_every_tool_choice_are_encoded() -> None:
    tool = Tool(name="f", description="d", parameters=SCHEMA, strict=True)
    declared = {"name": "f", "description": "d", "parametersJsonSchema": SCHEMA}
    assert sent(tools=[tool]) == {"tools": [{"functionDeclarations": [declared]}]}
    for choice, config in {
        "auto": {"mode": "AUTO"},
        "none": {"mode": "NONE"},
        "required": {"mode": "ANY"},
        "f": {"mode": "ANY", "allowedFunctionNames": ["f"]},
    }.items():
        assert sent(tools=[tool], tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}


def test_extra_is_merged_into_the_payload() -> None:
    extra = {
        "generationConfig": {"topK": 5, "temperature": 0.9, "thinkingConfig": {"includeThoughts": False}},
        "tools": [{"googleSearch": {}}],
        "cachedContent": "cachedContents/x",
    }
    tool = Tool(name="f")
    payload = sent(temperature=0.1, reasoning=ReasoningConfig(effort="low"), tools=[tool], extra=extra)
    thinking = {"thinkingLevel": "LOW", "includeThoughts": False}
    assert payload["generationConfig"] == {"temperature": 0.9, "topK": 5, "thinkingConfig": thinking}
    assert [list(one) for one in payload["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert payload["cachedContent"] == "cachedContents/x"
    assert extra["tools"] == [{"googleSearch": {}}]  # not ours to change
    assert sent(extra=extra)["tools"] == [{"googleSearch": {}}]


def test_images_are_sent_as_data_or_as_urls_with_a_mime_type() -> None:
    parts = [
        ImagePart(data="AA==", media_type="image/png"),
        ImagePart(url="https://x.example/a.png", media_type="image/gif"),
        ImagePart(url="https://x.example/a.b.JPG?width=2.png"),
        ImagePart(url="gs://bucket/a"),
    ]
    assert contents(Message("user", parts))[0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"fileData": {"fileUri": "https://x.example/a.png", "mimeType": "image/gif"}},
        {"fileData": {"fileUri": "https://x.example/a.b.JPG?width=2.png", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "gs://bucket/a"}},
    ]


def test_results_of_parallel_calls_are_sent_in_one_content() -> None:
    calls = [
        ToolCall(id="a", name="f", arguments='{"x": 1}', extra={"thoughtSignature": "s", "other": 1}),
        ToolCall(id="b", name="g"),
        ToolCall(id="", name="h", arguments="not JSON"),
    ]
    image = ImagePart(data="AA==", media_type="image/png")
    encoded = contents(
        Message("user", "x"),
        Message("assistant", tool_calls=calls),
        Message("tool", '{"deg": 18}', tool_call_id="b"),
        Message("tool", [TextPart(text="18C"), image], tool_call_id="a"),
        Message("tool", "[1]", name="h"),
        Message("user", "y"),
    )
    assert encoded[1] == {
        "role": "model",
        "parts": [
            {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "s"},
            {"functionCall": {"id": "b", "name": "g"}},
            {"functionCall": {"name": "h", "args": {"arguments": "not JSON"}}},
        ],
    }
    assert encoded[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "b", "name": "g", "response": {"deg": 18}}},
            {"functionResponse": {"id": "a", "name": "f", "response": {"result": "18C"}}},
            {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"functionResponse": {"name": "h", "response": {"result": "[1]"}}},
        ],
    }
    assert encoded[3] == {"role": "user", "parts": [{"text": "y"}]}


def test_only_signed_reasoning_of_this_vendor_is_sent_back() -> None:
    own = [
        ReasoningPart(text="hm", signature="s1", vendor="gemini"),
        ReasoningPart(signature="s2", vendor="gemini"),
        ReasoningPart(text="other", signature="s3", vendor="anthropic"),
        TextPart(text="answer"),
        ReasoningPart(vendor="gemini", data={"executableCode": {"code": "1"}, "thoughtSignature": "s4"}),
        ReasoningPart(signature="s5", vendor="gemini"),
    ]
    assert contents(Message("user", "x"), Message("assistant", own))[1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "s1"},
        {"text": "answer", "thoughtSignature": "s2"},
        {"executableCode": {"code": "1"}, "thoughtSignature": "s4"},
        {"text": "", "thoughtSignature": "s5"},
    ]


def test_an_empty_turn_of_the_model_is_dropped() -> None:
    encoded = contents(Message("user", "x"), Message("assistant", ""), Message("user", "y"))
    assert [turn["role"] for turn in encoded] == ["user", "user"]


# Replies


def reply(*parts: dict[str, Any], finish: str | None = "STOP", **facts: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "m", "responseId": "r", **facts}


CALL = {"functionCall": {"name": "f", "args": {"x": 1}}}

FINISHES = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(["SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"], "content_filter"),
    **dict.fromkeys(["IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"], "content_filter"),
    **dict.fromkeys(["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"], "error"),
    **dict.fromkeys(["MISSING_THOUGHT_SIGNATURE", "MALFORMED_RESPONSE", "OTHER", "NO_IMAGE"], "error"),
    "SOMETHING_NEW": None,
}


@pytest.mark.parametrize(("word", "expected"), FINISHES.items())
def test_finish_reasons_are_normalised(word: str, expected: str | None) -> None:
    response = decode_response(reply({"text": "x"}, finish=word))
    assert (response.finish_reason, response.raw_finish_reason) == (expected, word)


def test_stop_with_calls_becomes_tool_calls() -> None:
    response = decode_response(reply({"text": "well"}, CALL, CALL))
    assert response.finish_reason == "tool_calls"
    assert [(call.id, call.arguments) for call in response.tool_calls] == [
        ("call_r_0", '{"x": 1}'),
        ("call_r_1", '{"x": 1}'),
    ]
    assert decode_response(reply(CALL, finish="MAX_TOKENS")).finish_reason == "length"
    no_word = reply({"text": "x"}, finish="FINISH_REASON_UNSPECIFIED")
    assert decode_response(no_word).raw_finish_reason is None


def test_thoughts_are_separated_from_the_answer() -> None:
    parts = [{"text": "hm", "thought": True}, {"text": "so", "thought": True, "thoughtSignature": "s"}]
    response = decode_response(reply(*parts, {"text": "42"}))
    assert (response.text, response.reasoning) == ("42", "hmso")
    assert response.reasoning_parts == (ReasoningPart(text="so", signature="s", vendor="gemini"),)
    only = decode_response(reply(*parts, finish="MAX_TOKENS"))
    assert (only.text, only.finish_reason) == (None, "length")


def test_parts_of_other_types_are_sent_back_unchanged() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "s"}
    response = decode_response(reply(code, {"text": "1"}, {"novelPart": {}}))
    assert response.text == "1"
    assert [part.data for part in response.reasoning_parts] == [code, {"novelPart": {}}]
    again = contents(Message("user", "x"), response.to_message())
    assert again[1]["parts"] == [code, {"novelPart": {}}, {"text": "1"}]


def test_a_blocked_prompt_has_the_finish_reason_content_filter() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": []}
    response = decode_response({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 9}})
    assert (response.text, response.finish_reason) == (None, "content_filter")
    assert response.raw_finish_reason == "PROHIBITED_CONTENT"
    assert response.extra == {"promptFeedback": feedback}
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (9, None)


def test_output_tokens_include_thoughts_and_input_tokens_include_tool_use() -> None:
    usage = {"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "cachedContentTokenCount": 4}
    usage |= {"candidatesTokenCount": 2, "thoughtsTokenCount": 7, "totalTokenCount": 24}
    counted = decode_response(reply({"text": "x"}, usageMetadata=usage)).usage
    assert counted is not None
    assert (counted.input_tokens, counted.cached_tokens) == (15, 4)
    assert (counted.output_tokens, counted.reasoning_tokens, counted.total_tokens) == (9, 7, 24)
    assert decode_response(reply({"text": "x"}, usageMetadata={"trafficType": "ON_DEMAND"})).usage is None


@pytest.mark.parametrize("parts", [None, {}, {"parts": None}, {"parts": []}, {"role": "model"}])
def test_a_missing_or_empty_content_gives_no_text(parts: Any) -> None:
    response = decode_response({"candidates": [{"content": parts, "finishReason": "SAFETY"}]})
    assert (response.text, response.finish_reason) == (None, "content_filter")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.candidates"),
        ([], "$.candidates"),
        ({"candidates": []}, "$.candidates"),
        ({"candidates": [{"content": {"parts": [{"text": 5}]}}]}, "$.candidates[0].content.parts[0].text"),
        (reply({"functionCall": {"args": {"a": 1}}}), "$.candidates[0].content.parts[0].functionCall.name"),
        (reply({"functionCall": {"name": "f", "args": []}}), "$.candidates[0].content.parts[0].functionCall.args"),
    ],
)
def test_a_malformed_reply_raises_with_the_path(body: Any, path: str) -> None:
    with pytest.raises(MalformedReply) as caught:
        decode_response(body)
    assert caught.value.path == path


def pieces(*found: tuple[str, str, Any]) -> list[dict[str, Any]]:
    listed = [{"partialArgs": [{"jsonPath": path, kind: value}], "willContinue": True} for path, kind, value in found]
    return [{"functionCall": {"name": "f", "willContinue": True}}, *({"functionCall": piece} for piece in listed)]


def test_partial_arguments_are_assembled() -> None:
    parts = pieces(
        ("$.list[0].name", "stringValue", "a"),
        ("$.list[0].name", "stringValue", "b"),
        ("$.list[1]", "numberValue", 2),
        ("$['odd key'].yes", "boolValue", True),
        ("$.none", "nullValue", "NULL_VALUE"),
    )
    (call,) = decode_response(reply(*parts, {"functionCall": {}})).tool_calls
    assert call.parse() == {"list": [{"name": "ab"}, 2], "odd key": {"yes": True}, "none": None}
    (unended,) = decode_response(reply(*parts, finish=None)).tool_calls
    assert unended == call


@pytest.mark.parametrize("place", ["", "x", "$", "$.a..b", "$.a[", "$.a[99]", "$.a[0].b[1]", "$[0]"])
def test_partial_arguments_with_an_invalid_path_are_malformed(place: str) -> None:
    with pytest.raises(MalformedReply):
        decode_response(reply(*pieces((place, "stringValue", "x"))))


# Streams


def read(*bodies: bytes) -> GenerateResponse:
    stream = GeminiStream()
    chunks = [chunk for body in bodies for chunk in stream.feed(body)]
    return join([*chunks, *stream.finish()])


BEGUN = reply({"text": "Hel"}, finish=None)


@pytest.mark.parametrize("body", [frame(BEGUN), frame(BEGUN) + b'data: {"candi', b"[" + dumps(BEGUN), b"", b": hi\n\n"])
def test_a_stream_without_a_finish_reason_is_truncated(body: bytes) -> None:
    with pytest.raises(TruncatedReply) as caught:
        read(body)
    assert caught.value.partial == ("Hel" if b"Hel" in body else None)


def test_a_stream_is_finished_by_its_finish_reason_and_an_array_is_done_at_its_bracket() -> None:
    stream = GeminiStream()
    stream.feed(frame(BEGUN))
    assert (stream.done, stream.finished, stream.partial) == (False, False, "Hel")
    stream.feed(frame(reply({"text": "lo"})))
    assert (stream.done, stream.finished, stream.partial) == (False, True, "Hello")
    late = stream.feed(frame({"usageMetadata": {"candidatesTokenCount": 3}}))
    assert [chunk.usage and chunk.usage.output_tokens for chunk in late] == [3]
    array = GeminiStream()
    array.feed(encode_array([BEGUN, reply({"text": "lo"})]))
    assert (array.done, array.finished) == (True, True)


def test_a_whole_reply_to_a_streaming_request_is_decoded() -> None:
    assert read(b"\xef", b"\xbb\xbf ", dumps(reply({"text": "Hello"}))).text == "Hello"
    with pytest.raises(MalformedReply, match="not JSON"):
        read(b"<html>nothing here</html>")


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_in_a_stream_has_its_class_and_the_partial_text(wrapped: bool) -> None:
    error: Any = encode_error("overloaded", code=503, status="UNAVAILABLE")
    for body in (frame(BEGUN) + frame([error] if wrapped else error), encode_array([BEGUN, error])):
        with pytest.raises(ServerFailed) as caught:
            read(body)
        assert (caught.value.status, caught.value.retryable, caught.value.partial) == (503, True, "Hel")


def test_an_error_written_as_plain_json_after_the_events_is_raised() -> None:
    error = json.dumps(encode_error("overloaded", code=503, status="UNAVAILABLE"), indent=2).encode()
    for body in (frame(BEGUN) + error, frame(BEGUN) + error.replace(b"\n", b"\r\n") + b"\r\n\r\n"):
        for cut in (0, 7, len(body) - 3):
            with pytest.raises(ServerFailed) as caught:
                read(body[:cut], body[cut:])
            assert (caught.value.status, caught.value.partial) == (503, "Hel")
    with pytest.raises(TruncatedReply):
        read(frame(BEGUN) + error[:20])
    with pytest.raises(TruncatedReply):
        read(frame(BEGUN) + b'{"no": "error"}')


def test_an_error_without_a_status_number_is_classified_by_its_code() -> None:
    for word, cls in {
        "RESOURCE_EXHAUSTED": RateLimited,
        "NOVEL": ServerFailed,
        "INVALID_ARGUMENT": RequestRejected,
    }.items():
        with pytest.raises(ApiError) as caught:
            decode_response({"error": {"message": "no", "status": word}})
        assert type(caught.value) is cls


def test_an_event_larger_than_the_limit_raises() -> None:
    limits = Limits(event=50)
    with pytest.raises(ReplyTooLarge):
        GeminiStream(limits).feed(b'[{"candidates": "' + b"x" * 60)
    with pytest.raises(ReplyTooLarge):
        ArraySplitter(limits).feed(b'[{"candidates": "' + b"x" * 60 + b'"}]')


def test_brackets_in_strings_do_not_split_an_array() -> None:
    body = b'[{"a": "}]\\\\"}\n,\n{"b": "\\"{["}]trailing'
    for size in (1, 2, 100):
        splitter = ArraySplitter()
        found = [one for at in range(0, len(body), size) for one in splitter.feed(body[at : at + size])]
        assert [json.loads(one.data) for one in found] == [{"a": "}]\\"}, {"b": '"{['}]


# Errors

KIND = "type.googleapis.com/google.rpc."


def quota(name: str, delay: str | None = "34.4s") -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = [{"@type": f"{KIND}QuotaFailure", "violations": [{"quotaId": name}]}]
    return [*details, {"@type": f"{KIND}RetryInfo", "retryDelay": delay}] if delay else details


REFUSALS: list[tuple[int, str, str, list[dict[str, Any]], type[ApiError], bool, float | None]] = [
    (400, "INVALID_ARGUMENT", "API key not valid", [{"reason": "API_KEY_INVALID"}], AuthenticationFailed, False, None),
    (400, "INVALID_ARGUMENT", "bad role", [], RequestRejected, False, None),
    (400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8).", [],
     ContextTooLong, False, None),
    (400, "FAILED_PRECONDITION", "User location is not supported", [], PermissionRefused, False, None),
    (401, "UNAUTHENTICATED", "no", [], AuthenticationFailed, False, None),
    (403, "PERMISSION_DENIED", "no", [{"reason": "SERVICE_DISABLED"}], PermissionRefused, False, None),
    (403, "PERMISSION_DENIED", "no", [{"reason": "BILLING_DISABLED"}], OutOfCredit, False, None),
    (404, "NOT_FOUND", "models/x is not found for API version v1beta", [], ModelNotFound, False, None),
    (404, "NOT_FOUND", "Method not found.", [], RequestRejected, False, None),
    (429, "RESOURCE_EXHAUSTED", "quota", quota("GenerateRequestsPerMinutePerProjectPerModel"), RateLimited, True, 34.4),
    (429, "RESOURCE_EXHAUSTED", "quota", quota("GenerateRequestsPerDayPerProject-FreeTier"), OutOfCredit, False, 34.4),
    (429, "RESOURCE_EXHAUSTED", "quota", [{"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quota_limit": "XPerDay"}}],
     OutOfCredit, False, None),
    (429, "RESOURCE_EXHAUSTED", "try later", [], RateLimited, True, None),
    (429, "RESOURCE_EXHAUSTED", "quota", quota("PerMinute", "soon"), RateLimited, True, None),
    (429, "RESOURCE_EXHAUSTED", "quota", quota("PerMinute", "0s"), RateLimited, True, None),
    (499, "CANCELLED", "cancelled", [], RequestRejected, False, None),
    (500, "INTERNAL", "oops", [], ServerFailed, True, None),
    (503, "UNAVAILABLE", "overloaded", [], ServerFailed, True, None),
    (504, "DEADLINE_EXCEEDED", "late", [], ServerFailed, True, None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "word", "message", "details", "cls", "retryable", "delay"), REFUSALS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error_has_its_class_retryable_flag_and_delay(
    status: int,
    word: str,
    message: str,
    details: list[dict[str, Any]],
    cls: type[ApiError],
    retryable: bool,
    delay: float | None,
    wrapped: bool,
) -> None:
    body: Any = encode_error(message, code=status, status=word, details=details)
    error = decode_error(status, {}, dumps([body] if wrapped else body), request_id="q")
    assert (type(error), error.retryable, error.retry_after) == (cls, retryable, delay)
    assert (error.status, error.request_id) == (status, "q")
    assert error.code == (details[0]["reason"] if details and "reason" in details[0] else word)
    assert message in error.message


def test_retry_after_in_a_header_wins_over_the_delay_in_the_body() -> None:
    body = dumps(encode_error("quota", code=429, status="RESOURCE_EXHAUSTED", details=quota("PerMinute")))
    assert decode_error(429, {"Retry-After": "7"}, body).retry_after == 7
    assert decode_error(429, {"Retry-After": "soon"}, body).retry_after == 34.4


def test_error_bodies_in_other_forms_give_a_message() -> None:
    assert "proxy says no" in decode_error(502, {}, b"proxy says no").message
    assert "Bad Gateway" in decode_error(502, {}, b"<html>secrets</html>").message
    assert "plain" in decode_error(400, {}, b'{"error": "plain"}').message


# Requests read by fake vendors


@pytest.mark.parametrize(
    "payload",
    [
        {"contents": [{"role": "user", "parts": [{"videoMetadata": {}}]}]},
        {"contents": [{"role": "user", "parts": [{"inlineData": {"data": "AA=="}}]}]},
        {"contents": [{"role": "model", "parts": [{"functionCall": {}}]}]},
        {"contents": []},
        {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"maxOutputTokens": 0}},
    ],
)
def test_the_fake_server_rejects_malformed_requests(payload: dict[str, Any]) -> None:
    with pytest.raises(MalformedReply):
        decode_request(payload)


def test_fields_that_a_request_lacks_stay_in_extra() -> None:
    payload = {
        "contents": [{"parts": [{"text": "x"}]}],
        "generationConfig": {"topK": 3, "thinkingConfig": {"thinkingBudget": -1}, "responseMimeType": "text/plain"},
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
        "tools": [{"googleSearch": {}}],
    }
    request = decode_request(payload)
    assert request.extra == {key: payload[key] for key in ("generationConfig", "toolConfig", "tools")}
    assert request.messages == (Message("user", "x"),)
