"""Recorded replies of Anthropic and requests of its client, compared with that client's own reading and writing."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import wire_samples
from wire_samples import EXPECTED, INDEX, ORACLES, SAMPLES, body_of, cuts, envelope, joined, named, reply

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import ApiError, AuthenticationFailed, ModelNotFound, RateLimited, ServerFailed, TruncatedReply
from llm_council.models import (
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    StructuredOutput,
    Tool,
)
from llm_council.models.messages import TextPart
from llm_council.providers._anthropic import (
    MessagesOptions,
    MessageStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.providers._anthropic.request import ThinkingStyle
from llm_council.testing._mirrors.anthropic import decode_request

pytestmark = pytest.mark.slow

ROWS = [row for row in INDEX if row["api"] in ("anthropic", "anthropic_count", "vertex_claude")]
READ = [row for row in ROWS if "text" in EXPECTED.get(row["file"], ())]


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == expected["text"]
    assert (response.reasoning or "") == (expected["thinking"] or "")
    assert response.model == expected["model"]
    assert response.raw_finish_reason == expected["stop_reason"]
    words = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
    assert response.finish_reason == words[expected["stop_reason"]]
    assert response.refusal == (expected["stop_details"] or {}).get("explanation")
    assert [(call.id, call.name) for call in response.tool_calls] == [
        (call["id"], call["name"]) for call in expected["tool_calls"]
    ]
    if response.finish_reason != "length":  # cut JSON stays as it came
        assert [call.parse() for call in response.tool_calls] == [call["input"] for call in expected["tool_calls"]]
    usage = expected["usage"]
    assert response.usage is not None
    assert response.usage.output_tokens == usage["output_tokens"]
    cached, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    assert (response.usage.cached_tokens, response.usage.cache_write_tokens) == (cached, written)
    assert response.usage.input_tokens == usage["input_tokens"] + (cached or 0) + (written or 0)
    kinds = expected["block_types"]
    assert [
        part.data["type"] for part in response.reasoning_parts if part.data and "thinking" in part.data["type"]
    ] == [kind for kind in kinds if kind.endswith("thinking")]
    ours = ("text", "tool_use", "thinking", "redacted_thinking")
    assert [block["type"] for block in response.extra.get("blocks", [])] == [kind for kind in kinds if kind not in ours]


@named([row for row in READ if not row["body_file"]])
def test_a_whole_reply_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    response = decode_response(loads(dumps(body)))
    assert_as_expected(response, EXPECTED[row["file"]])
    assert response.raw == body
    assert [part.data for part in response.reasoning_parts if part.data and "thinking" in part.data["type"]] == [
        block for block in body["content"] if block["type"].endswith("thinking")
    ]
    again = encode_request(
        GenerateRequest(messages=[Message("user", "x"), response.to_message(), Message("user", "y")])
    )
    sent = again["messages"][1:-1]
    assert [as_said(message["content"]) for message in sent] == [as_said(body["content"])] * len(sent)


def as_said(content: Any) -> list[Any]:
    """Return a message's content with neighbouring texts joined, and without blank texts, which the vendor refuses."""
    found: list[Any] = []
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if block["type"] != "text":
            found.append({key: value for key, value in block.items() if key in ("type", "id", "name", "input", "data")})
        elif not block["text"].strip():
            continue
        elif found and isinstance(found[-1], str):
            found[-1] += block["text"]
        else:
            found.append(block["text"])
    return found


def read(pieces: list[bytes]) -> GenerateResponse:
    return joined(MessageStream(), pieces)


@named([row for row in READ if row["body_file"]])
def test_a_stream_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = body_of(row)
    response = read([body])
    assert_as_expected(response, EXPECTED[row["file"]])
    assert read([body[at : at + 1] for at in range(len(body))]) == response
    for cut in cuts(body, 200):
        assert read([body[:cut], body[cut:]]) == response


@named([row for row in READ if row["body_file"]][:4])
def test_a_stream_that_ends_too_early_is_truncated(row: dict[str, Any]) -> None:
    body = body_of(row)
    end = body.index(b"event: message_delta")
    for cut in (0, end // 3, end // 2, end):
        with pytest.raises(TruncatedReply) as caught:
            read([body[:cut]])
        assert EXPECTED[row["file"]]["text"].startswith(caught.value.partial or "")


@pytest.mark.parametrize(
    ("name", "partial", "request_id"),
    [
        ("d-stream_error-overloaded-first-event", None, None),
        ("d-stream_error-overloaded-mid", "Hel", "req_011Ce3HwQb6vtbs9LQVmh4oe"),
    ],
)
def test_an_error_in_a_stream_has_the_class_of_its_type(name: str, partial: str | None, request_id: str | None) -> None:
    body = (SAMPLES / "anthropic" / f"{name}.sse").read_bytes()
    for cut in range(len(body)):
        with pytest.raises(ServerFailed) as caught:
            read([body[:cut], body[cut:]])
        error = caught.value
        assert (error.status, error.code, error.retryable) == (529, "overloaded_error", True)
        assert (error.partial, error.request_id) == (partial, request_id)


ERRORS: dict[str, tuple[type[ApiError], int, bool, float | None]] = {
    "anthropic/007-error_404-anthropic-count-tokens-error.json": (ModelNotFound, 404, False, None),
    "anthropic/d-error_401-auth.json": (AuthenticationFailed, 401, False, None),
    "anthropic/d-error_429-rate-limit.json": (RateLimited, 429, True, 12.0),
    "anthropic/d-error_500-api.json": (ServerFailed, 500, True, None),
    "vertex_claude/d-error_404-model.json": (ModelNotFound, 404, False, None),
    "vertex_claude/d-error_429-quota.json": (RateLimited, 429, True, None),
    "vertex_claude/d-error_529-anthropic-envelope.json": (ServerFailed, 529, True, None),
}


@named([row for row in ROWS if row["status"] != 200])
def test_a_recorded_error_has_its_class_retryable_flag_and_delay(row: dict[str, Any]) -> None:
    response = reply(row)
    error = decode_error(response["status"], response["headers"], dumps(response["body"]))
    if row["file"] in ERRORS:
        assert (type(error), error.status, error.retryable, error.retry_after) == ERRORS[row["file"]]
    else:
        assert (error.status, error.retryable) == (row["status"], row["status"] in (408, 429) or row["status"] >= 500)
    assert response["body"]["error"]["message"][:20] in error.message
    assert error.request_id == response["body"].get("request_id")


# Requests


@cache
def validator() -> Any:
    return jsonschema_rs.validator_for(
        json.loads((ORACLES / "specs" / "derived" / "anthropic.messages.request.schema.json").read_text())
    )


ASK = Message("user", "Weather in Paris?")
TERSE = Message("system", "Be terse.")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "City name"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool(name="get_weather", description="Get weather", parameters=CITY)
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}},
    "required": ["answer", "confidence"],
    "additionalProperties": False,
}
ANY: dict[str, Any] = {"model": "claude-sonnet-4-6", "messages": [ASK], "max_tokens": 100}
CAPTURED: dict[str, GenerateRequest] = {
    "basic": GenerateRequest(**{**ANY, "messages": [TERSE, ASK]}, stop="END"),
    "cache": GenerateRequest(
        **{**ANY, "messages": [Message("system", [TextPart(text="Long context", cache=True)]), ASK]},
        prompt_cache="1h",
        extra={"cache_control": {"type": "ephemeral"}},
    ),
    "effort": GenerateRequest(**{**ANY, "model": "claude-opus-4-6"}, reasoning=ReasoningConfig(effort="medium")),
    "json_schema": GenerateRequest(**ANY, structured_output=StructuredOutput(json_schema=ANSWER)),
    "stream": GenerateRequest(**ANY, stream=True),
    "thinking_enabled": GenerateRequest(
        **{**ANY, "model": "claude-sonnet-4-5", "max_tokens": 4096}, reasoning=ReasoningConfig(budget_tokens=2048)
    ),
    "tools_auto": GenerateRequest(
        **ANY, tools=[WEATHER], extra={"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    ),
    "tools_named": GenerateRequest(**ANY, tools=[WEATHER], tool_choice="get_weather"),
    "tools_none": GenerateRequest(**ANY, tools=[WEATHER], tool_choice="none"),
    "tools_required": GenerateRequest(**ANY, tools=[WEATHER], tool_choice="required"),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_request_equals_that_of_the_official_client(name: str) -> None:
    captured = wire_samples.captured("anthropic", name)
    thinking = ThinkingStyle.BUDGET if name == "thinking_enabled" else ThinkingStyle.ADAPTIVE
    sent = encode_request(CAPTURED[name], MessagesOptions(thinking=thinking))
    if name == "effort":  # a wish for effort turns thinking on as well, where a model does not think by itself
        assert sent.pop("thinking") == {"type": "adaptive"}
    assert sent == captured
    assert [error.message for error in validator().iter_errors(sent)] == []


FOREIGN = ("container_upload", "server_tool_use", "tool_reference", "tool_addition", "is_error")


def recorded(row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the recorded requests that use none of the vendor's own tools."""
    body = envelope(row).get("request", {}).get("body")
    return None if body is None or any(f'"{word}"' in json.dumps(body["messages"]) for word in FOREIGN) else body


@named([row for row in ROWS if row["api"] == "anthropic" and recorded(row)])
def test_a_recorded_request_survives_decoding_and_encoding(row: dict[str, Any]) -> None:
    """A request of an application survives decoding and encoding."""
    body = recorded(row)
    assert body is not None
    body.pop("stream", None)
    assert written(encode_request(decode_request(body))) == written(body)


def written(body: dict[str, Any]) -> dict[str, Any]:
    """Write a single text in one way, where the API takes a string or one block."""
    plain = dict(body)
    if isinstance(plain.get("system"), str):
        plain["system"] = [{"type": "text", "text": plain["system"]}]
    plain["messages"] = [
        {**turn, "content": [{"type": "text", "text": turn["content"]}]} if isinstance(turn["content"], str) else turn
        for turn in plain["messages"]
    ]
    return plain
