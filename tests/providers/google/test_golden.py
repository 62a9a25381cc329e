"""Payloads and replies of Google's ``generateContent``, written by hand with the field names that Google documents.

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
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
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
from llm_council.providers._google import GeminiOptions, GeminiStream, decode_error, decode_response, encode_request

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}}
CODE = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
RATINGS = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]


def test_a_request_with_every_field() -> None:
    request = GenerateRequest(
        model="gemini-3-pro",
        messages=[
            Message("system", "Be terse."),
            Message("developer", "Answer in French."),
            Message(
                "user",
                [
                    TextPart(text="Weather here?"),
                    ImagePart(data="iVBORw0KGgo=", media_type="image/png"),
                    ImagePart(url="https://example.com/a.jpg?x=1"),
                    ImagePart(url="gs://bucket/a", media_type="image/webp"),
                ],
            ),
            Message(
                "assistant",
                [
                    ReasoningPart(text="Look it up.", signature="s1", vendor="gemini"),
                    ReasoningPart(vendor="gemini", data=CODE),
                    ReasoningPart(text="Foreign.", signature="x", vendor="anthropic"),
                    ReasoningPart(signature="s2", vendor="gemini"),
                    TextPart(text="One moment."),
                    ImagePart(data="BBBB", media_type="image/png"),
                ],
                tool_calls=[
                    ToolCall(id="c1", name="weather", arguments='{"city": "Lyon"}', extra={"thoughtSignature": "s3"}),
                    ToolCall(id="c2", name="time", arguments=""),
                    ToolCall(id="", name="odd", arguments="not JSON"),
                ],
            ),
            Message("tool", '{"degrees": 18}', tool_call_id="c1"),
            Message("tool", [TextPart(text="noon"), ImagePart(data="AAAA", media_type="image/gif")], tool_call_id="c2"),
            Message("tool", "none", name="odd"),
            Message("user", "And tomorrow?"),
        ],
        max_tokens=2000,
        temperature=0.5,
        top_p=0.9,
        stop=["END", "STOP"],
        tools=[Tool(name="weather", description="Weather now.", parameters=CITY), Tool(name="time")],
        tool_choice="auto",
        structured_output=StructuredOutput(json_schema=ANSWER),
        reasoning=ReasoningConfig(effort="high"),
        extra={
            "generationConfig": {"topK": 5},
            "tools": [{"googleSearch": {}}],
            "toolConfig": {"retrievalConfig": {"languageCode": "fr"}},
            "cachedContent": "cachedContents/1",
        },
    )
    assert encode_request(request) == {
        "systemInstruction": {"parts": [{"text": "Be terse."}, {"text": "Answer in French."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Weather here?"},
                    {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
                    {"fileData": {"fileUri": "https://example.com/a.jpg?x=1", "mimeType": "image/jpeg"}},
                    {"fileData": {"fileUri": "gs://bucket/a", "mimeType": "image/webp"}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Look it up.", "thought": True, "thoughtSignature": "s1"},
                    {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
                    {"text": "One moment.", "thoughtSignature": "s2"},
                    {"inlineData": {"mimeType": "image/png", "data": "BBBB"}},
                    {
                        "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Lyon"}},
                        "thoughtSignature": "s3",
                    },
                    {"functionCall": {"id": "c2", "name": "time"}},
                    {"functionCall": {"name": "odd", "args": {"arguments": "not JSON"}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "weather", "response": {"degrees": 18}}},
                    {"functionResponse": {"id": "c2", "name": "time", "response": {"result": "noon"}}},
                    {"inlineData": {"mimeType": "image/gif", "data": "AAAA"}},
                    {"functionResponse": {"name": "odd", "response": {"result": "none"}}},
                ],
            },
            {"role": "user", "parts": [{"text": "And tomorrow?"}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "weather", "description": "Weather now.", "parametersJsonSchema": CITY},
                    {"name": "time", "parametersJsonSchema": {"type": "object", "properties": {}}},
                ]
            },
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}, "retrievalConfig": {"languageCode": "fr"}},
        "generationConfig": {
            "maxOutputTokens": 2000,
            "temperature": 0.5,
            "topP": 0.9,
            "stopSequences": ["END", "STOP"],
            "responseMimeType": "application/json",
            "responseJsonSchema": ANSWER,
            "thinkingConfig": {"thinkingLevel": "HIGH", "includeThoughts": True},
            "topK": 5,
        },
        "cachedContent": "cachedContents/1",
    }


@pytest.mark.parametrize(
    ("name", "mime_type"),
    [
        ("a.png", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("a.JPEG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.heic", "image/heic"),
        ("a.heif?x=1", "image/heif"),
        ("a", None),
    ],
)
def test_the_mime_type_of_an_image_comes_from_its_url(name: str, mime_type: str | None) -> None:
    url = f"https://example.com/{name}"
    payload = encode_request(GenerateRequest(messages=[Message("user", [ImagePart(url=url)])]))
    file = {"fileUri": url} if mime_type is None else {"fileUri": url, "mimeType": mime_type}
    assert payload["contents"] == [{"role": "user", "parts": [{"fileData": file}]}]


def test_adjacent_texts_are_one_part_and_a_last_signature_is_a_part_of_its_own() -> None:
    texts = [TextPart(text="Wea"), TextPart(text="ther?")]
    signed = ReasoningPart(signature="s1", vendor="gemini")
    request = GenerateRequest(messages=[Message("user", texts), Message("assistant", [*texts, signed])])
    assert encode_request(request)["contents"] == [
        {"role": "user", "parts": [{"text": "Weather?"}]},
        {"role": "model", "parts": [{"text": "Weather?"}, {"text": "", "thoughtSignature": "s1"}]},
    ]


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("weather", {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_every_tool_choice(choice: str, written: Any) -> None:
    request = GenerateRequest(prompt="x", tools=[Tool(name="weather", parameters=CITY)], tool_choice=choice)
    assert encode_request(request)["toolConfig"] == {"functionCallingConfig": written}


@pytest.mark.parametrize(
    ("style", "facts", "written"),
    [
        ("level", {"effort": "none"}, {"thinkingLevel": "MINIMAL"}),
        ("level", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("level", {"effort": "low"}, {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("level", {"effort": "medium"}, {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("level", {"effort": "high"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("level", {"effort": "xhigh"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("level", {"effort": "max"}, {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("budget", {"effort": "none"}, {"thinkingBudget": 0}),
        ("budget", {"effort": "minimal"}, {"thinkingBudget": 1024, "includeThoughts": True}),
        ("budget", {"effort": "low"}, {"thinkingBudget": 1024, "includeThoughts": True}),
        ("budget", {"effort": "medium"}, {"thinkingBudget": 8192, "includeThoughts": True}),
        ("budget", {"effort": "high"}, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("budget", {"effort": "xhigh"}, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("budget", {"effort": "max"}, {"thinkingBudget": 24576, "includeThoughts": True}),
        ("budget", {"budget_tokens": 0}, {"thinkingBudget": 0}),
        ("budget", {"budget_tokens": 3000}, {"thinkingBudget": 3000, "includeThoughts": True}),
    ],
)
def test_every_form_of_thinking_config(style: Any, facts: Any, written: Any) -> None:
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(**facts))
    payload = encode_request(request, GeminiOptions(thinking=style))
    assert payload["generationConfig"] == {"thinkingConfig": written}
    assert "generationConfig" not in encode_request(request, GeminiOptions(thinking="none"))


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ("json_schema", {"responseMimeType": "application/json", "responseJsonSchema": ANSWER}),
        ("json_object", {"responseMimeType": "application/json"}),
        ("none", None),
    ],
)
def test_every_form_of_a_json_answer(schema: Any, written: Any) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER}}
    for request in (
        GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=ANSWER)),
        GenerateRequest(prompt="x", response_format=wanted),
    ):
        assert encode_request(request, GeminiOptions(schema=schema)).get("generationConfig") == written
    plain = GenerateRequest(prompt="x", response_format={"type": "json_object"})
    assert encode_request(plain)["generationConfig"] == {"responseMimeType": "application/json"}


USAGE = {
    "promptTokenCount": 100,
    "toolUsePromptTokenCount": 20,
    "cachedContentTokenCount": 60,
    "candidatesTokenCount": 12,
    "thoughtsTokenCount": 40,
    "totalTokenCount": 172,
}
EXTRA: dict[str, Any] = {
    "finishMessage": "done",
    "safetyRatings": RATINGS,
    "citationMetadata": {"citationSources": [{"uri": "u"}]},
    "groundingMetadata": {"webSearchQueries": ["rain"]},
    "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "u"}]},
}
PARTS: list[dict[str, Any]] = [
    {"text": "Look it up.", "thought": True, "thoughtSignature": "s1"},
    CODE,
    {"text": "Rain.", "thoughtSignature": "s2"},
    {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Lyon"}}, "thoughtSignature": "s3"},
]
REPLY: dict[str, Any] = {
    "candidates": [{"index": 0, "content": {"role": "model", "parts": PARTS}, "finishReason": "STOP", **EXTRA}],
    "promptFeedback": {"safetyRatings": RATINGS},
    "usageMetadata": USAGE,
    "modelVersion": "gemini-3-pro",
    "responseId": "r1",
}
EXPECTED = GenerateResponse(
    text="Rain.",
    reasoning="Look it up.",
    reasoning_parts=(
        ReasoningPart(text="Look it up.", signature="s1", vendor="gemini"),
        ReasoningPart(vendor="gemini", data=CODE),
        ReasoningPart(signature="s2", vendor="gemini"),
    ),
    tool_calls=(ToolCall(id="c1", name="weather", arguments='{"city": "Lyon"}', extra={"thoughtSignature": "s3"}),),
    usage=Usage(input_tokens=120, output_tokens=52, cached_tokens=60, reasoning_tokens=40),
    model="gemini-3-pro",
    finish_reason=FinishReason.TOOL_CALLS,
    raw_finish_reason="STOP",
    request_id="r1",
    extra={"promptFeedback": {"safetyRatings": RATINGS}, **EXTRA},
    raw=REPLY,
)


def test_a_whole_reply() -> None:
    assert decode_response(REPLY) == EXPECTED


@pytest.mark.parametrize(
    ("word", "finish"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        *(
            (word, FinishReason.CONTENT_FILTER)
            for word in (
                "SAFETY",
                "RECITATION",
                "LANGUAGE",
                "BLOCKLIST",
                "PROHIBITED_CONTENT",
                "SPII",
                "MODEL_ARMOR",
                "IMAGE_SAFETY",
            )
        ),
        *(
            (word, FinishReason.ERROR)
            for word in (
                "MALFORMED_FUNCTION_CALL",
                "UNEXPECTED_TOOL_CALL",
                "TOO_MANY_TOOL_CALLS",
                "MISSING_THOUGHT_SIGNATURE",
                "MALFORMED_RESPONSE",
                "OTHER",
                "NO_IMAGE",
            )
        ),
        ("NOVEL_WORD", None),
    ],
)
def test_every_finish_reason(word: str, finish: FinishReason | None) -> None:
    candidate = {"content": {"parts": [{"text": "x"}]}, "finishReason": word}
    reply = decode_response({"candidates": [candidate]})
    assert (reply.finish_reason, reply.raw_finish_reason) == (finish, word)


def test_a_blocked_prompt() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": RATINGS}
    reply = decode_response({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 9}})
    assert (reply.finish_reason, reply.raw_finish_reason) == (FinishReason.CONTENT_FILTER, "PROHIBITED_CONTENT")
    assert (reply.text, reply.usage, reply.extra) == (None, Usage(input_tokens=9), {"promptFeedback": feedback})


@pytest.mark.parametrize(
    "reply",
    [{"usageMetadata": {"promptTokenCount": 9}}, {"modelVersion": "gemini-3-pro"}, {"promptFeedback": {"x": 1}}],
)
def test_a_reply_without_candidates_is_an_empty_answer(reply: dict[str, Any]) -> None:
    answer = decode_response(reply)
    assert (answer.text, answer.finish_reason, answer.raw) == (None, None, reply)


@pytest.mark.parametrize("reply", [{}, {"responseId": "r1"}, {"candidates": []}])
def test_a_reply_of_another_form_is_malformed(reply: dict[str, Any]) -> None:
    with pytest.raises(MalformedReply, match="no candidate"):
        decode_response(reply)


def test_only_the_first_candidate_is_read() -> None:
    candidates = [
        {"index": 1, "content": {"parts": [{"text": "b"}]}},
        {"index": 0, "content": {"parts": [{"text": "a"}]}},
    ]
    assert decode_response({"candidates": candidates}).text == "a"


def test_parts_of_the_same_kind_in_one_reply_are_joined() -> None:
    parts = [{"text": "Hm, ", "thought": True}, {"text": "yes.", "thought": True}, {"text": "Ra"}, {"text": "in."}]
    answer = decode_response({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    assert (answer.reasoning, answer.text) == ("Hm, yes.", "Rain.")


def test_a_part_of_another_type_is_sent_back_unchanged() -> None:
    part = {**CODE, "thoughtSignature": "s9"}
    answer = decode_response({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})
    assert answer.reasoning_parts == (ReasoningPart(signature="s9", vendor="gemini", data=part),)


@pytest.mark.parametrize(("facts", "call_id"), [({"responseId": "r1"}, "call_r1_1"), ({}, "call_1")])
def test_a_call_without_an_id_gets_one(facts: dict[str, Any], call_id: str) -> None:
    parts = [{"functionCall": {"id": "own", "name": "f"}}, {"functionCall": {"name": "g"}}]
    answer = decode_response({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}], **facts})
    assert [call.id for call in answer.tool_calls] == ["own", call_id]


def test_a_call_without_an_end_is_returned() -> None:
    call = {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Lyon"}, "willContinue": True}}
    answer = decode_response({"candidates": [{"content": {"parts": [call]}}]})
    assert answer.tool_calls == (ToolCall(id="c1", name="weather", arguments='{"city": "Lyon"}'),)


def event(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **more}], "responseId": "r1"}


def read(*events: dict[str, Any]) -> list[GenerateChunk]:
    stream = GeminiStream()
    bodies = (f"data: {json.dumps(value)}\r\n\r\n".encode() for value in events)
    return [*(chunk for body in bodies for chunk in stream.feed(body)), *stream.finish()]


def test_a_stream_event_by_event() -> None:
    chunks = read(
        {**event(PARTS[0]), "modelVersion": "gemini-3-pro"},
        event(CODE),
        event({"text": "Ra"}),
        event({"text": "in.", "thoughtSignature": "s2"}),
        event(PARTS[3]),
        {
            **event(finishReason="STOP", **EXTRA),
            "usageMetadata": USAGE,
            "promptFeedback": {"safetyRatings": RATINGS},
        },
    )
    assert [chunk.text for chunk in chunks if chunk.text] == ["Ra", "in."]
    assert [(one.index, one.id, one.name, one.arguments) for chunk in chunks for one in chunk.tool_calls] == [
        (0, "c1", "weather", '{"city": "Lyon"}')
    ]
    answer = join(chunks)
    for name in ("text", "reasoning", "reasoning_parts", "tool_calls", "usage", "model", "request_id", "extra"):
        assert getattr(answer, name) == getattr(EXPECTED, name), name
    assert (answer.finish_reason, answer.raw_finish_reason) == (FinishReason.TOOL_CALLS, "STOP")


def test_a_stream_as_an_array() -> None:
    events = [event({"text": 'R"]}'}), event({"text": "ain"}), event(finishReason="STOP")]
    assert decode_response(events).text == 'R"]}ain'
    body = json.dumps(events).encode()
    for step in (1, 5, len(body)):
        stream = GeminiStream()
        chunks = [chunk for at in range(0, len(body), step) for chunk in stream.feed(body[at : at + step])]
        assert stream.done
        answer = join([*chunks, *stream.finish()])
        assert (answer.text, answer.finish_reason) == ('R"]}ain', FinishReason.STOP)


@pytest.mark.parametrize("last", [{}, {"finishReason": "FINISH_REASON_UNSPECIFIED"}])
def test_a_stream_without_a_finish_reason_is_truncated(last: dict[str, Any]) -> None:
    events = [event({"text": "Hel"}), event(**last)]
    with pytest.raises(TruncatedReply) as caught:
        read(*events)
    assert caught.value.partial == "Hel"
    with pytest.raises(TruncatedReply):
        decode_response(events)


def test_the_done_mark_of_a_gateway_is_skipped() -> None:
    stream = GeminiStream()
    stream.feed(f"data: {json.dumps(event({'text': 'x'}, finishReason='STOP'))}\r\n\r\n".encode())
    assert [*stream.feed(b"data: [DONE]\r\n\r\n"), *stream.finish()] == []


def test_facts_that_every_event_repeats_are_reported_once() -> None:
    facts = {"modelVersion": "gemini-3-pro", "promptFeedback": {"safetyRatings": RATINGS}}
    chunks = read({**event({"text": "a"}), **facts}, {**event({"text": "b"}, finishReason="STOP"), **facts})
    assert [(chunk.model, chunk.request_id, chunk.extra) for chunk in chunks] == [
        ("gemini-3-pro", "r1", {"promptFeedback": {"safetyRatings": RATINGS}}),
        (None, None, {}),
    ]


def test_the_arguments_of_a_call_that_continues_are_merged() -> None:
    answer = join(
        read(
            event({"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Lyon"}, "willContinue": True}}),
            event({"functionCall": {"args": {"unit": "C"}}}),
            event(finishReason="STOP"),
        )
    )
    assert [json.loads(call.arguments) for call in answer.tool_calls] == [{"city": "Lyon", "unit": "C"}]


def test_a_call_whose_arguments_arrive_in_pieces() -> None:
    pieces = [
        {"jsonPath": "$.city", "stringValue": "Ly", "willContinue": True},
        {"jsonPath": "$.city", "stringValue": "on"},
        {"jsonPath": "$.days[0]", "numberValue": 2},
        {"jsonPath": "$['exact']", "boolValue": True},
        {"jsonPath": "$.unit", "nullValue": "NULL_VALUE"},
        {"jsonPath": '$["a b"]["c"]', "stringValue": "d"},
    ]
    calls = [{"functionCall": {"partialArgs": [piece], "willContinue": True}} for piece in pieces]
    answer = join(
        read(
            event({"functionCall": {"id": "c1", "name": "weather", "willContinue": True}}),
            *map(event, calls),
            event({"functionCall": {}}),
            event(finishReason="STOP"),
        )
    )
    assert [(call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls] == [
        ("c1", "weather", {"city": "Lyon", "days": [2], "exact": True, "unit": None, "a b": {"c": "d"}})
    ]


@pytest.mark.parametrize(
    ("code", "status", "message", "cls"),
    [
        (400, "INVALID_ARGUMENT", "bad field", RequestRejected),
        (400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens", ContextTooLong),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", AuthenticationFailed),
        (401, "UNAUTHENTICATED", "no credentials", AuthenticationFailed),
        (403, "PERMISSION_DENIED", "not allowed", PermissionRefused),
        (404, "NOT_FOUND", "models/x is not found", ModelNotFound),
        (429, "RESOURCE_EXHAUSTED", "slow down", RateLimited),
        (500, "INTERNAL", "oops", ServerFailed),
        (503, "UNAVAILABLE", "overloaded", ServerFailed),
    ],
)
def test_every_documented_status(code: int, status: str, message: str, cls: type[ApiError]) -> None:
    refusal = {"error": {"code": code, "message": message, "status": status}}
    error = decode_error(code, {}, json.dumps(refusal))
    assert (type(error), error.status, error.code) == (cls, code, status)
    with pytest.raises(cls) as caught:
        read(event({"text": "Hel"}), refusal)
    assert (caught.value.status, caught.value.code, caught.value.partial) == (code, status, "Hel")


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        ("INVALID_ARGUMENT", RequestRejected),
        ("FAILED_PRECONDITION", RequestRejected),
        ("OUT_OF_RANGE", RequestRejected),
        ("NOT_FOUND", RequestRejected),
        ("UNAUTHENTICATED", AuthenticationFailed),
        ("PERMISSION_DENIED", PermissionRefused),
        ("RESOURCE_EXHAUSTED", RateLimited),
        ("INTERNAL", ServerFailed),
    ],
)
def test_an_error_without_a_number_is_classified_by_its_status(status: str, cls: type[ApiError]) -> None:
    with pytest.raises(ApiError) as caught:
        read({"error": {"message": "no", "status": status}})
    assert type(caught.value) is cls


@pytest.mark.parametrize(
    ("reason", "cls"),
    [
        ("API_KEY_INVALID", AuthenticationFailed),
        ("CREDENTIALS_MISSING", AuthenticationFailed),
        ("ACCESS_TOKEN_EXPIRED", AuthenticationFailed),
        ("ACCESS_TOKEN_SCOPE_INSUFFICIENT", AuthenticationFailed),
        ("ACCESS_TOKEN_TYPE_UNSUPPORTED", AuthenticationFailed),
        ("ACCOUNT_STATE_INVALID", AuthenticationFailed),
        ("API_KEY_SERVICE_BLOCKED", PermissionRefused),
        ("API_KEY_HTTP_REFERRER_BLOCKED", PermissionRefused),
        ("API_KEY_IP_ADDRESS_BLOCKED", PermissionRefused),
        ("SERVICE_DISABLED", PermissionRefused),
        ("CONSUMER_SUSPENDED", PermissionRefused),
        ("CONSUMER_INVALID", PermissionRefused),
        ("BILLING_DISABLED", OutOfCredit),
        ("RATE_LIMIT_EXCEEDED", RateLimited),
    ],
)
def test_reasons_in_the_details_of_an_error_decide_its_class(reason: str, cls: type[ApiError]) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]
    refusal = {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT", "details": details}}
    assert type(decode_error(400, {}, json.dumps(refusal))) is cls


def test_code_delay_and_quota_are_read_from_the_details_of_an_error() -> None:
    def error(*details: dict[str, Any]) -> ApiError:
        value = {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": list(details)}
        return decode_error(429, {}, json.dumps({"error": value}))

    assert error({"retryDelay": "34.5s"}).retry_after == 34.5
    assert isinstance(error({"violations": [{"quotaId": "RequestsPerDayPerProject"}]}), OutOfCredit)
    assert isinstance(error({"metadata": {"quota_limit": "RequestsPerDay"}}), OutOfCredit)
    assert isinstance(error({"reason": "BILLING_DISABLED"}), OutOfCredit)
    assert error({"reason": "RATE_LIMIT_EXCEEDED"}).code == "RATE_LIMIT_EXCEEDED"
