"""Recorded replies of Cohere and requests of its client, compared with that client's own reading and writing."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
import strategies
import wire_samples
from hypothesis import given
from strategies import examples
from wire_samples import EXPECTED, INDEX, ORACLES, SAMPLES, body_of, joined, named, reply

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import AuthenticationFailed, ContentFiltered, ProviderError, RateLimited, ServerFailed
from llm_council.models import (
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    StructuredOutput,
    TextPart,
    Tool,
)
from llm_council.providers._cohere import ChatStream, decode_error, decode_response, encode_request

pytestmark = pytest.mark.slow

ROWS = [row for row in INDEX if row["file"].startswith("cohere/")]


FINISHES = {"COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == (expected["text"] or "")
    assert (response.reasoning or "") == (expected["thinking"] or "")
    assert response.extra.get("tool_plan") == expected["tool_plan"]
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        (call["id"], call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert response.raw_finish_reason == expected["finish_reason"]
    assert response.finish_reason == FINISHES.get(expected["finish_reason"], "error")
    used, counted = response.usage, expected["usage"]
    if counted["tokens"] is None:
        assert used is None
        return
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (
        counted["tokens"]["input_tokens"],
        counted["tokens"]["output_tokens"],
    )
    assert used.cached_tokens == counted["cached_tokens"]


@named([row for row in ROWS if row["status"] == 200 and not row["body_file"]])
def test_a_whole_reply_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    response = decode_response(loads(dumps(body)))
    assert_as_expected(response, EXPECTED[row["file"]])
    assert (response.request_id, response.raw) == (body["id"], body)
    assert response.extra.get("citations") == body["message"].get("citations")
    for call in response.tool_calls:
        assert isinstance(call.parse(), dict)
    assert_valid(encode_request(GenerateRequest(model="m", messages=[Message("user", "?"), response.to_message()])))


def read(pieces: list[bytes]) -> GenerateResponse:
    return joined(ChatStream(), pieces)


@named([row for row in ROWS if row["body_file"]])
def test_a_stream_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = body_of(row)
    whole = read([body])
    assert_as_expected(whole, EXPECTED[row["file"]])
    assert read([body[at : at + 1] for at in range(len(body))]) == whole
    for cut in range(1, len(body), max(1, len(body) // 60)):
        assert read([body[:cut], body[cut:]]) == whole


def test_the_error_of_a_failed_answer_is_in_extra() -> None:
    body = (SAMPLES / "cohere" / "014-stream_text-sql-agent.sse").read_bytes()
    extra = read([body]).extra
    assert extra["error_type"] == "INVALID_TOOL_GENERATION"
    assert "invalid tool generation" in extra["error"]


@named([row for row in ROWS if row["status"] != 200])
def test_a_recorded_error_has_its_class_and_retryable_flag(row: dict[str, Any]) -> None:
    answer = reply(row)
    error = decode_error(answer["status"], answer["headers"], dumps(answer["body"]), now=0.0)
    table: dict[int, tuple[type[ProviderError], bool]] = {
        401: (AuthenticationFailed, False),
        429: (RateLimited, True),
        498: (ContentFiltered, False),
        500: (ServerFailed, True),
    }
    assert (type(error), error.retryable) == table[row["status"]]
    assert answer["body"]["message"][:300] in error.message
    assert (error.request_id, error.retry_after) == (answer["body"]["id"], None)


# Requests


def refuse(uri: str) -> Any:
    raise AssertionError(f"a schema wants to fetch {uri}")


SPEC = json.loads((ORACLES / "specs" / "derived" / "cohere.v2chat.request.schema.json").read_text())
CHECKER = jsonschema_rs.validator_for(SPEC, retriever=refuse)
ROLES = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def assert_valid(payload: dict[str, Any]) -> None:
    """Close every level of the published schema, since a misspelt key would pass otherwise."""
    assert [error.message for error in CHECKER.iter_errors(payload)] == []
    assert set(payload) <= set(SPEC["properties"])
    parts = SPEC["$defs"]
    for turn in payload["messages"]:
        assert set(turn) <= set(parts[f"{ROLES[turn['role']]}MessageV2"]["properties"])
        for call in turn.get("tool_calls", ()):
            assert set(call["function"]) <= {"name", "arguments"}
    for tool in payload.get("tools", ()):
        assert set(tool["function"]) <= set(parts["ToolV2"]["properties"]["function"]["properties"])
    assert set(payload.get("response_format", ())) <= set(parts["JsonResponseFormatV2"]["properties"])
    assert set(payload.get("thinking", ())) <= set(parts["Thinking"]["properties"])


ASK = Message("user", "Weather in Paris?")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "City name"}},
    "required": ["city"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}},
    "required": ["answer", "confidence"],
    "additionalProperties": False,
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
WEATHER = Tool(name="get_weather", description="Get weather", parameters=CITY, strict=True)
CAPTURED: dict[str, dict[str, Any]] = {
    "image": {
        "model": "command-a-vision-07-2025",
        "messages": [Message("user", [TextPart(text="What?"), ImagePart(url=PIXEL)])],
    },
    "json_schema": {"structured_output": StructuredOutput(json_schema=ANSWER)},
    "safety_mode": {"extra": {"safety_mode": "STRICT"}},
    "stream": {"stream": True},
    "thinking": {"model": "command-a-reasoning-08-2025", "reasoning": ReasoningConfig(budget_tokens=500)},
    "tools": {"tools": [WEATHER], "tool_choice": "required"},
}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_request_equals_that_of_the_official_client(name: str) -> None:
    captured = wire_samples.captured("cohere", name)
    if not captured["stream"]:
        del captured["stream"]  # what we leave out, it writes
    request = GenerateRequest(**{"model": "command-a-03-2025", "messages": [ASK], **CAPTURED[name]})
    payload = encode_request(request)
    assert payload == captured
    assert_valid(payload)


@examples(20)
@given(strategies.representable("cohere"))
def test_any_request_meets_the_schema(request: GenerateRequest) -> None:
    assert_valid(loads(dumps(encode_request(request))))
