"""Vertex AI's dialect: URLs, errors, recorded replies, and requests compared with those of the official clients."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import ApiError, InvalidOption, ModelNotFound, RateLimited, RequestRejected, ServerFailed
from llm_council.models import (
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    Tool,
    ToolCall,
    join,
)
from llm_council.providers import _anthropic, _google
from llm_council.providers.vertex import decode_claude_error, encode_claude, host, is_claude, resource
from llm_council.testing._mirrors import anthropic as claude_server
from llm_council.testing._mirrors import gemini as gemini_server

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[4] / "shared")
ORACLES = SHARED / "oracles"
SAMPLES = ORACLES / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no wire samples at {SAMPLES}: set LLM_COUNCIL_SHARED")


@pytest.mark.parametrize(
    ("model", "claude", "path"),
    [
        ("gemini-2.5-flash", False, "publishers/google/models/gemini-2.5-flash"),
        ("google/gemini-2.5-flash", False, "publishers/google/models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", False, "publishers/google/models/gemini-2.5-flash"),
        ("publishers/google/models/gemini-2.5-flash", False, "publishers/google/models/gemini-2.5-flash"),
        ("claude-sonnet-4-5@20250929", True, "publishers/anthropic/models/claude-sonnet-4-5@20250929"),
        ("anthropic/claude-opus-5", True, "publishers/anthropic/models/claude-opus-5"),
        ("endpoints/123", False, "endpoints/123"),
        ("a?b#c", False, "publishers/google/models/a%3Fb%23c"),
    ],
)
def test_a_model_name_gives_its_publisher_and_path(model: str, claude: bool, path: str) -> None:
    assert is_claude(model) is claude
    assert resource(model, project="house-1", location="europe-west1") == (
        f"/projects/house-1/locations/europe-west1/{path}"
    )


def test_models_of_other_publishers_are_invalid() -> None:
    with pytest.raises(InvalidOption, match="'mistralai'"):
        resource("mistralai/mistral-large", project="p", location="l")


@given(st.binary(max_size=80), st.integers(400, 599))
def test_any_error_body_becomes_an_api_error(body: bytes, status: int) -> None:
    error = decode_claude_error(status, {}, body)
    assert isinstance(error, ApiError)
    assert error.status == status


def test_errors_for_claude_are_decoded_in_googles_and_anthropics_form() -> None:
    theirs = decode_claude_error(529, {}, dumps(claude_server.encode_error("busy", kind="overloaded_error")))
    assert (type(theirs), theirs.code, theirs.retryable) == (ServerFailed, "overloaded_error", True)
    details = [{"retryDelay": "7s"}]
    body = gemini_server.encode_error("slow", code=429, status="RESOURCE_EXHAUSTED", details=details)
    googles = decode_claude_error(429, {}, dumps(body), request_id="r-1")
    assert (type(googles), googles.code, googles.retry_after) == (RateLimited, "RESOURCE_EXHAUSTED", 7.0)
    assert googles.request_id == "r-1"


# Recorded replies and requests

INDEX = json.loads((SAMPLES / "INDEX.json").read_text()) if SAMPLES.is_dir() else []
EXPECTED = json.loads((ORACLES / "EXPECTED.json").read_text())["expected"] if SAMPLES.is_dir() else {}
ROWS = [row for row in INDEX if row["file"].startswith("vertex_") and "enum_as_int" not in row["kinds"]]
ERRORS = [row for row in INDEX if row["file"].startswith("vertex_") and row["status"] >= 400]


def named(rows: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[row["file"] for row in rows])


def reply(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads((SAMPLES / row["file"]).read_text())["response"]


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == (expected["text"] or "")
    assert response.raw_finish_reason == (expected["block_reason"] or expected["finish_reason"])
    named = [call["name"] for call in expected["function_calls"] if "name" in call]
    assert [call.name for call in response.tool_calls] == named
    for call, found in zip(response.tool_calls, expected["function_calls"], strict=False):
        if "args" in found:
            assert call.parse() == found["args"]
    counts = expected["usage"]
    if "promptTokenCount" in counts:
        assert response.usage is not None
        assert response.usage.input_tokens == counts["promptTokenCount"]
        assert response.usage.reasoning_tokens == counts.get("thoughtsTokenCount")
    assert response.model == expected["model"]


@needs_samples
@named([row for row in ROWS if row["status"] == 200 and not row["body_file"]])
def test_a_whole_reply_of_gemini_is_decoded_as_expected(row: dict[str, Any]) -> None:
    assert_as_expected(_google.decode_response(reply(row)["body"]), EXPECTED[row["file"]])


def read(pieces: list[bytes]) -> GenerateResponse:
    stream = _google.GeminiStream()
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


@needs_samples
@named([row for row in ROWS if row["body_file"]])
def test_a_stream_of_gemini_is_decoded_as_expected(row: dict[str, Any]) -> None:
    body = (SAMPLES / row["file"]).parent.joinpath(Path(row["body_file"]).name).read_bytes()
    whole = read([body])
    assert_as_expected(whole, EXPECTED[row["file"]])
    assert read([body[at : at + 1] for at in range(len(body))]) == whole
    for cut in range(1, len(body), max(1, len(body) // 40)):
        assert read([body[:cut], body[cut:]]) == whole


@needs_samples
@named(ERRORS)
def test_a_recorded_error_has_its_class_and_retryable_flag(row: dict[str, Any]) -> None:
    answer = reply(row)
    decode = decode_claude_error if row["file"].startswith("vertex_claude") else _google.decode_error
    error = decode(answer["status"], answer["headers"], dumps(answer["body"]))
    table: dict[int, tuple[type[ApiError], bool]] = {
        400: (RequestRejected, False),
        404: (ModelNotFound, False),
        429: (RateLimited, True),
        529: (ServerFailed, True),
    }
    assert (type(error), error.retryable) == table[row["status"]]
    assert answer["body"]["error"]["message"][:200] in error.message
    assert error.code == (answer["body"]["error"].get("status") or answer["body"]["error"].get("type"))


@needs_samples
def test_the_hosts_are_those_of_the_official_client() -> None:
    known = json.loads((ORACLES / "sdk_requests" / "vertex_claude" / "_base_urls_by_region.json").read_text())
    assert {location: f"{host(location)}/v1/" for location in known} == known


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
WEATHER = Tool(name="get_weather", description="Get weather", parameters=CITY)
CALLED = Message("assistant", tool_calls=[ToolCall(id="toolu_1", name="get_weather", arguments={"city": "Paris"})])
CLAUDE: dict[str, dict[str, Any]] = {
    "basic": {"messages": [Message("system", "Be terse."), ASK], "stop": ["END"]},
    "json_schema": {"structured_output": StructuredOutput(json_schema=ANSWER)},
    "stream": {"stream": True},
    "tool_result": {"messages": [ASK, CALLED, Message("tool", "18C", tool_call_id="toolu_1")], "tools": [WEATHER]},
    "tools_named": {"tools": [WEATHER], "tool_choice": "get_weather"},
}


def captured(vendor: str, name: str) -> dict[str, Any]:
    return json.loads((ORACLES / "sdk_requests" / vendor / f"{name}.json").read_text())["request"]


@needs_samples
@pytest.mark.parametrize("name", CLAUDE)
def test_a_request_to_claude_equals_that_of_the_official_client(name: str) -> None:
    asked = captured("vertex_claude", name)
    request = GenerateRequest(**{"model": "claude-sonnet-4-6", "messages": [ASK], "max_tokens": 100, **CLAUDE[name]})
    assert encode_claude(_anthropic.encode_request(request), version="2026-10-21") == asked["body"]
    place = resource("claude-sonnet-4-6", project="example-project", location="us-east5")
    assert asked["path"] == f"/v1{place}:{'streamRawPredict' if request.stream else 'rawPredict'}"


HI = Message("user", "Hi")
SIGNED = ToolCall(id="fc1", name="get_weather", arguments={"city": "Paris"}, extra={"thoughtSignature": "c2ln"})
GEMINI: dict[str, dict[str, Any]] = {
    "basic": {
        "messages": [Message("system", "Be terse."), ASK],
        "max_tokens": 100,
        "temperature": 0.2,
        "top_p": 0.9,
        "stop": ["END"],
        "extra": {"generationConfig": {"topK": 5, "seed": 7}},
    },
    "json_schema": {"messages": [HI], "structured_output": StructuredOutput(json_schema=ANSWER)},
    "multi_turn": {"messages": [HI, Message("assistant", "Hello"), Message("user", "Bye")]},
    "thinking_budget": {"messages": [HI], "reasoning": ReasoningConfig(budget_tokens=1024)},
    "tool_result": {
        "messages": [
            Message("user", "Weather?"),
            Message("assistant", [ReasoningPart(text="not Google's", vendor="another")], tool_calls=[SIGNED]),
            Message("tool", "18C", tool_call_id="fc1"),
        ]
    },
    "tools_auto": {"messages": [Message("user", "Weather?")], "tools": [WEATHER]},
}


def plain(value: Any) -> Any:
    """Write keys in camel case, without the empty objects and the role of instructions that Google's client adds."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    known = {key.replace("_", "").lower(): plain(item) for key, item in value.items() if item != {}}
    return {key: {"parts": item["parts"]} if key == "systeminstruction" else item for key, item in known.items()}


@cache
def checker() -> Any:
    def refuse(uri: str) -> Any:
        raise AssertionError(f"a schema wants to fetch {uri}")

    schema = json.loads((ORACLES / "specs" / "derived" / "vertex.generate_content.request.schema.json").read_text())
    return jsonschema_rs.validator_for(schema, retriever=refuse), schema["$defs"]


@needs_samples
@pytest.mark.parametrize("name", GEMINI)
def test_a_request_to_gemini_equals_that_of_the_official_client(name: str) -> None:
    asked = captured("vertex_gemini", name)
    options = _google.GeminiOptions(thinking="budget")
    payload = _google.encode_request(GenerateRequest(model="gemini-2.5-flash", **GEMINI[name]), options)
    assert plain(payload) == plain(asked["body"])
    place = resource("gemini-2.5-flash", project="example-project", location="us-central1")
    assert asked["path"] == f"/v1beta1{place}:generateContent"
    found, parts = checker()
    assert [error.message for error in found.iter_errors(loads(dumps(payload)))] == []
    assert set(payload) <= set(parts["GoogleCloudAiplatformV1GenerateContentRequest"]["properties"])
    assert set(payload.get("generationConfig", ())) <= set(
        parts["GoogleCloudAiplatformV1GenerationConfig"]["properties"]
    )


@examples(25)
@given(st.dictionaries(st.sampled_from(["model", "messages", "anthropic_version", "stream"]), st.text(max_size=5)))
def test_a_body_for_claude_has_the_version_and_no_model(payload: dict[str, str]) -> None:
    body = encode_claude(payload, version="vertex-2023-10-16")
    assert "model" not in body
    assert body["anthropic_version"] == payload.get("anthropic_version", "vertex-2023-10-16")
