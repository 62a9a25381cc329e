"""Vendors' recorded replies and captured requests, against what their own clients make of them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from wire_samples import EXPECTED, INDEX, ORACLES, SAMPLES, body_of, cuts, joined, named, reply

from llm_council._wire.openai_chat import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council._wire.payloads import dumps, loads
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import GenerateRequest, GenerateResponse, Message, ReasoningConfig, Tool, ToolCall
from llm_council.models.messages import ImagePart, TextPart

pytestmark = pytest.mark.slow

CHAT = ("openai_chat", "openrouter", "vllm", "lmstudio_chat", "ollama_openai", "openai_compatible")

ROWS = [row for row in INDEX if row["api"] in CHAT and row["file"] in EXPECTED]


def is_stream(row: dict[str, Any]) -> bool:
    return bool(row["body_file"])


WHOLE = [row for row in ROWS if row["status"] == 200 and not is_stream(row) and "error_in_200" not in row["kinds"]]
STREAMS = [row for row in ROWS if row["status"] == 200 and is_stream(row) and "sdk_raised" not in EXPECTED[row["file"]]]
BROKEN = [row for row in ROWS if row["status"] == 200 and is_stream(row) and "sdk_raised" in EXPECTED[row["file"]]]
ERRORS = [row for row in ROWS if row["status"] != 200]


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == (expected["text"] or "")
    assert (response.reasoning or "") == (expected["reasoning"] or "")
    assert response.refusal == expected.get("refusal")
    assert response.raw_finish_reason == expected["finish_reason"]
    if response.refusal:
        assert response.finish_reason == "content_filter"
    else:
        assert response.finish_reason == expected["finish_reason"]
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        (call["id"], call["name"], call["arguments"] or "") for call in expected["tool_calls"]
    ]
    assert response.model == expected["model"]
    usage = expected["usage"]
    if usage is None:
        assert response.usage is None
        return
    assert response.usage is not None
    assert response.usage.input_tokens == usage["prompt_tokens"]
    assert response.usage.output_tokens == usage["completion_tokens"]
    assert response.usage.total_tokens == usage["total_tokens"]
    sent, came = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    assert response.usage.cached_tokens == sent.get("cached_tokens")
    assert response.usage.cache_write_tokens == sent.get("cache_write_tokens")
    assert response.usage.reasoning_tokens == came.get("reasoning_tokens")
    if "cost" in usage:
        assert response.cost is not None
        own_key = usage["cost_details"]["upstream_inference_cost"] if usage.get("is_byok") else 0  # billed elsewhere
        assert response.cost.usd == pytest.approx(usage["cost"] + own_key)
        assert response.cost.complete


@named(WHOLE)
def test_a_whole_reply_reads_as_the_official_client_reads_it(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    response = decode_response(loads(dumps(body)))
    assert_as_expected(response, EXPECTED[row["file"]])
    assert response.raw == body
    details = body["choices"][0]["message"].get("reasoning_details") or []
    assert [part.data for part in response.reasoning_parts] == details


def read_stream(pieces: list[bytes], **options: Any) -> GenerateResponse:
    return joined(ChatStream(ChatOptions(**options)), pieces)


@named(STREAMS)
def test_a_stream_reads_as_the_official_client_reads_it(row: dict[str, Any]) -> None:
    body = body_of(row)
    response = read_stream([body])
    assert_as_expected(response, EXPECTED[row["file"]])
    assert read_stream([body[at : at + 1] for at in range(len(body))][: len(body)]) == response
    for cut in cuts(body, 400):
        assert read_stream([body[:cut], body[cut:]]) == response


@named(BROKEN)
def test_an_error_in_a_stream_has_its_class_and_the_partial_text(row: dict[str, Any]) -> None:
    body = body_of(row)
    expected = {
        "openai_chat/d-stream_error-midstream.json": (ServerFailed, 500, True, "Hel"),
        "openrouter/d-stream_error-midstream.json": (RateLimited, 429, True, "Hi"),
        "vllm/d-stream_error-midstream.json": (ServerFailed, 500, True, None),
        "openrouter/013-stream_length-openrouter-stream-error.json": (RequestRejected, 400, False, None),
    }
    for cut in (0, len(body) // 3, len(body) // 2):
        with pytest.raises(ApiError) as caught:
            read_stream([body[:cut], body[cut:]])
        error = caught.value
        assert EXPECTED[row["file"]]["sdk_raised"]["message"] in error.message
        if row["file"] in expected:
            found = (type(error), error.status, error.retryable, error.partial)
            assert found == expected[row["file"]]


def by_hand(row: dict[str, Any]) -> tuple[type[ProviderError], bool]:
    """What a refusal must be, from its kinds alone."""
    body = json.dumps(reply(row)["body"])
    if "context_length" in row["kinds"]:
        return ContextTooLong, False
    if row["status"] == 404 and ("model_not_found" in body or "exist" in body or "not found" in body):
        return ModelNotFound, False
    table: dict[int, tuple[type[ProviderError], bool]] = {
        400: (RequestRejected, False),
        401: (AuthenticationFailed, False),
        402: (OutOfCredit, False),
        403: (ContentFiltered, False),  # OpenRouter's, of a moderated prompt
        404: (RequestRejected, False),
        429: (RateLimited, True),
        500: (ServerFailed, True),
        503: (ServerFailed, True),
    }
    return table[row["status"]]


@named(ERRORS)
def test_a_refusal_has_the_right_class_flag_and_delay(row: dict[str, Any]) -> None:
    response = reply(row)
    headers = response["headers"]
    error: Any = decode_error(response["status"], headers, dumps(response["body"]))
    cls, retryable = by_hand(row)
    assert type(error) is cls
    assert error.retryable is retryable
    assert error.status == row["status"]
    assert error.request_id == headers.get("x-request-id")
    if "retry-after-ms" in headers:
        assert error.retry_after == pytest.approx(float(headers["retry-after-ms"]) / 1000)
    elif "retry-after" in headers:
        assert error.retry_after == float(headers["retry-after"])
    else:
        assert error.retry_after is None
    error_body = response["body"]["error"] if "error" in response["body"] else response["body"]
    words = error_body if isinstance(error_body, str) else error_body["message"]
    assert words.replace("sk-fake-key", "")[:20] in error.message.replace("sk-fake-key", "")


def test_an_error_inside_a_200_is_typed_by_its_own_code() -> None:
    rows = [row for row in ROWS if "error_in_200" in row["kinds"]]
    assert rows
    for row in rows:
        with pytest.raises(ServerFailed) as caught:
            decode_response(reply(row)["body"])
        assert (caught.value.status, caught.value.retryable) == (502, True)


# Stream framings that break naive decoders.

ADVERSARIAL = json.loads((SAMPLES / "_adversarial" / "INDEX.json").read_text())
FRAMINGS = [case["file"] for case in ADVERSARIAL["cases"] if case["file"].endswith(".sse")]


@pytest.mark.parametrize("name", FRAMINGS)
def test_framings_give_the_same_text_wherever_they_are_cut(name: str) -> None:
    body = (SAMPLES / "_adversarial" / name).read_bytes()
    whole = outcome([body])
    if name.startswith("truncated"):
        assert whole[0] is TruncatedReply
    elif name == "error_frame_then_done.sse":
        assert whole == (RequestRejected, "Héllo 🗼")
    elif name == "bom.sse":  # that decoder loses the first event behind a byte order mark
        assert whole == (GenerateResponse, ADVERSARIAL["expected_text"])
    else:
        assert whole == (GenerateResponse, said_by_hand(name))
    assert outcome([body[at : at + 1] for at in range(len(body))]) == whole
    for cut in range(1, len(body)):
        assert outcome([body[:cut], body[cut:]]) == whole


def said_by_hand(name: str) -> str:
    """Fold the events that an official decoder found; what follows ``[DONE]`` does not count."""
    case = next(case for case in ADVERSARIAL["cases"] if case["file"] == name)
    error_body = ""
    for event in case["sdk_decoded_events"]:
        if event["data"].strip() == "[DONE]":
            break
        for choice in json.loads(event["data"])["choices"]:
            error_body += choice["delta"].get("content") or ""
    return error_body


def outcome(pieces: list[bytes]) -> tuple[type, str | None]:
    try:
        response = read_stream(pieces)
    except (ApiError, TruncatedReply) as error:
        return type(error), error.partial
    return type(response), response.text


# What we send.


def refuse(uri: str) -> Any:
    raise AssertionError(f"a schema wants to fetch {uri}")


@cache
def validator(name: str) -> Any:
    schema = json.loads((ORACLES / "specs" / "derived" / f"{name}.request.schema.json").read_text())
    return jsonschema_rs.validator_for(schema, retriever=refuse), known_keys(schema)


def known_keys(schema: dict[str, Any]) -> set[str]:
    """The published schemas leave the top level open, so that a misspelt key would pass: close it."""

    def keys(node: dict[str, Any]) -> set[str]:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        return set(node.get("properties", ())).union(*(keys(part) for part in node.get("allOf", ())))

    return keys(schema)


def assert_valid(name: str, payload: dict[str, Any]) -> None:
    checker, keys = validator(name)
    assert [error.message for error in checker.iter_errors(payload)] == []
    assert set(payload) <= keys


OPENAI = ChatOptions(max_tokens_field="max_completion_tokens", developer_role="developer")
OPENROUTER = ChatOptions(
    vendor="openrouter", reasoning="object", echo="reasoning_details", cache_control=True, developer_role="developer"
)
WEATHER = Tool(
    name="get_weather",
    description="Get weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "description": "City name"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    strict=True,
)
ASK = Message("user", "Weather in Paris?")
TERSE = Message("system", "Be terse.")
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
CAPTURED: dict[str, tuple[ChatOptions, GenerateRequest]] = {
    "openai_chat/basic": (
        OPENAI,
        GenerateRequest(
            model="gpt-4.1", messages=[TERSE, ASK], max_tokens=100, stop="END", temperature=0.2, extra={"seed": 7}
        ),
    ),
    "openai_chat/developer_reasoning": (
        OPENAI,
        GenerateRequest(
            model="gpt-5.4",
            messages=[Message("developer", "Be terse."), ASK],
            max_tokens=500,
            reasoning=ReasoningConfig(effort="low"),
            extra={"verbosity": "low"},
        ),
    ),
    "openai_chat/tools_auto": (
        OPENAI,
        GenerateRequest(
            model="gpt-4.1",
            messages=[ASK],
            tools=[WEATHER],
            tool_choice="auto",
            extra={"parallel_tool_calls": False},
        ),
    ),
    "openai_chat/tool_result": (
        OPENAI,
        GenerateRequest(
            model="gpt-4.1",
            messages=[
                TERSE,
                ASK,
                Message(
                    "assistant", tool_calls=[ToolCall(id="call_1", name="get_weather", arguments='{"city":"Paris"}')]
                ),
                Message("tool", "18C", tool_call_id="call_1"),
            ],
            tools=[WEATHER],
        ),
    ),
    "openai_chat/image": (
        OPENAI,
        GenerateRequest(
            model="gpt-4.1",
            messages=[Message("user", [TextPart(text="What is this?"), ImagePart(url=PIXEL, detail="low")])],
        ),
    ),
    "openai_chat/stream_usage": (OPENAI, GenerateRequest(model="gpt-4.1", messages=[ASK], stream=True)),
    "openrouter/basic": (
        OPENROUTER,
        GenerateRequest(
            model="openai/gpt-4o-mini", messages=[TERSE, ASK], max_tokens=100, stop=["END"], temperature=0.2
        ),
    ),
    "openrouter/reasoning": (
        OPENROUTER,
        GenerateRequest(model="openai/gpt-5-mini", messages=[ASK], reasoning=ReasoningConfig(effort="low")),
    ),
    "openrouter/stream": (OPENROUTER, GenerateRequest(model="openai/gpt-4o-mini", messages=[ASK], stream=True)),
    "openrouter/tools": (
        OPENROUTER,
        GenerateRequest(model="openai/gpt-4o-mini", messages=[ASK], tools=[WEATHER], tool_choice="auto"),
    ),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_request_equals_the_official_clients(name: str) -> None:
    options, request = CAPTURED[name]
    captured = json.loads((ORACLES / "sdk_requests" / f"{name}.json").read_text())["request"]["body"]
    if captured.get("stream") is False:
        del captured["stream"]  # what we leave out, it writes
    assert encode_request(request, options) == captured
    assert_valid("openrouter.chat" if name.startswith("openrouter") else "openai.chat", captured)


@given(strategies.representable("openai"), st.booleans())
def test_any_request_meets_openais_schema(request: GenerateRequest, stream: bool) -> None:
    payload = encode_request(request, OPENAI, model="gpt-5.4", stream=stream)
    assert_valid("openai.chat", loads(dumps(payload)))


@given(strategies.representable("openai", vendor="openrouter"), st.booleans())
def test_any_request_meets_openrouters_schema(request: GenerateRequest, stream: bool) -> None:
    payload = encode_request(request, OPENROUTER, model="openai/gpt-5-mini", stream=stream)
    assert_valid("openrouter.chat", loads(dumps(payload)))
