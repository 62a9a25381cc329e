"""Recorded Responses replies and captured requests, against what the official client makes of them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from wire_samples import EXPECTED, INDEX, ORACLES, body_of, joined, named, reply

from llm_council._wire.payloads import dumps, loads
from llm_council._wire.responses import (
    ResponsesOptions,
    ResponseStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.errors import ModelNotFound, OutOfCredit, RequestRejected
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, Message, ReasoningConfig, Tool
from llm_council.models.messages import ImagePart, TextPart
from llm_council.models.request import StructuredOutput

pytestmark = pytest.mark.slow

APIS = ("openai_responses", "openrouter_responses", "lmstudio_responses")

ROWS = [row for row in INDEX if row["api"] in APIS and row["file"] in EXPECTED]
WHOLE = [row for row in ROWS if row["status"] == 200 and not row["body_file"]]
STREAMS = [row for row in ROWS if row["status"] == 200 and row["body_file"]]
ERRORS = [row for row in ROWS if row["status"] != 200]


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == expected["text"]
    assert [(call.id, call.name, call.arguments) for call in response.tool_calls] == [
        (call["call_id"], call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert response.model == expected["model"]
    assert response.raw_finish_reason == (expected["incomplete_reason"] or expected["status"])
    finish = FinishReason.of(response.raw_finish_reason)
    called = expected["tool_calls"] and finish is FinishReason.STOP
    assert response.finish_reason == (FinishReason.TOOL_CALLS if called else finish)
    for summary in expected["reasoning_summaries"]:
        assert summary in (response.reasoning or "")
    usage = expected["usage"]
    if usage is None:
        assert response.usage is None
        return
    assert response.usage is not None
    assert response.usage.input_tokens == usage["input_tokens"]
    assert response.usage.output_tokens == usage["output_tokens"]
    assert response.usage.total_tokens == usage["total_tokens"]
    assert response.usage.cached_tokens == usage["input_tokens_details"]["cached_tokens"]
    assert response.usage.cache_write_tokens == usage["input_tokens_details"]["cache_write_tokens"]
    assert response.usage.reasoning_tokens == usage["output_tokens_details"]["reasoning_tokens"]
    if "cost" in usage:
        assert response.cost is not None
        assert response.cost.usd == pytest.approx(usage["cost"])


@named(WHOLE)
def test_a_whole_reply_reads_as_the_official_client_reads_it(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    response = decode_response(loads(dumps(body)))
    assert_as_expected(response, EXPECTED[row["file"]])
    assert response.raw == body
    reasoning_items = [part.data for part in response.reasoning_parts]
    assert reasoning_items == body["output"][: len(reasoning_items)]
    assert [item for item in body["output"] if item["type"] == "reasoning"] == [
        item for item in reasoning_items if item and item["type"] == "reasoning"
    ]


@named(WHOLE)
def test_an_answer_goes_back_as_the_vendor_takes_it(row: dict[str, Any]) -> None:
    response = decode_response(reply(row)["body"])
    if not (response.text or response.tool_calls or response.reasoning_parts):
        return
    results = [Message("tool", "done", tool_call_id=call.id) for call in response.tool_calls]
    request = GenerateRequest(model="m", messages=[Message("user", "go"), response.to_message(), *results])
    payload = loads(dumps(encode_request(request)))
    assert_valid(payload)
    streamed_text = "".join(
        part["text"]
        for item in payload["input"]
        if item.get("role") == "assistant"
        for part in ([{"text": item["content"]}] if isinstance(item["content"], str) else item["content"])
    )
    assert streamed_text == (response.text or "")
    calls = [item["call_id"] for item in payload["input"] if item.get("type") == "function_call"]
    assert calls == [call.id for call in response.tool_calls]


def read_stream(pieces: list[bytes]) -> GenerateResponse:
    return joined(ResponseStream(), pieces)


@named(STREAMS)
def test_a_stream_reads_as_the_official_client_reads_it(row: dict[str, Any]) -> None:
    body = body_of(row)
    response = read_stream([body])
    assert_as_expected(response, EXPECTED[row["file"]])
    assert read_stream([body[at : at + 1] for at in range(len(body))]) == response
    for cut in range(1, len(body), max(1, len(body) // 40)):  # every byte of it is cut above
        assert read_stream([body[:cut], body[cut:]]) == response


@named(STREAMS)
def test_the_last_event_of_a_stream_equals_the_joined_stream(row: dict[str, Any]) -> None:
    body = body_of(row)
    response = read_stream([body])
    frames = [part for part in body.replace(b"\r\n", b"\n").split(b"\n\n") if b'"response.completed"' in part]
    last = json.loads(frames[-1].partition(b"data:")[2])["response"]
    whole = decode_response(last)
    assert (response.text or "") == (whole.text or "")
    assert (response.reasoning or "").strip() == (whole.reasoning or "").strip()
    assert response.reasoning_parts == whole.reasoning_parts
    assert response.extra == whole.extra
    assert [(call.id, call.arguments, call.extra) for call in response.tool_calls] == [
        (call.id, call.arguments, call.extra) for call in whole.tool_calls
    ]


@named(ERRORS)
def test_a_refusal_has_the_right_class_and_flag(row: dict[str, Any]) -> None:
    response = reply(row)
    error = decode_error(response["status"], response["headers"], dumps(response["body"]))
    error_body = response["body"]["error"]
    by_code = {"model_not_found": ModelNotFound, "insufficient_quota": OutOfCredit}
    assert type(error) is by_code.get(error_body["code"], RequestRejected)
    assert (error.status, error.retryable) == (row["status"], False)
    assert error_body["message"] in error.message


# What we send.


@cache
def validator() -> tuple[Any, set[str]]:
    text = (ORACLES / "specs" / "derived" / "openai.responses.request.schema.json").read_text()
    schema = json.loads(
        text.replace('"$recursiveRef"', '"$dynamicRef"'),
        object_hook=lambda found: {k: v for k, v in found.items() if k not in ("$recursiveAnchor", "$dynamicRef")},
    )

    def refuse(uri: str) -> Any:
        raise AssertionError(f"a schema wants to fetch {uri}")

    def keys(node: dict[str, Any]) -> set[str]:
        """The published schema leaves the top level open, so that a misspelt key would pass: close it."""
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        return set(node.get("properties", ())).union(*(keys(part) for part in node.get("allOf", ())))

    return jsonschema_rs.validator_for(schema, retriever=refuse), keys(schema)


def assert_valid(payload: dict[str, Any]) -> None:
    checker, keys = validator()
    assert [error.message for error in checker.iter_errors(payload)] == []
    assert set(payload) <= keys


@examples(20)
@given(strategies.representable("responses"), st.booleans())
def test_any_request_meets_the_vendors_schema(request: GenerateRequest, stream: bool) -> None:
    options = ResponsesOptions(store=False, reasons=True, summary="auto")
    payload = loads(dumps(encode_request(request, options, stream=stream)))
    assert_valid(payload)


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
CAPTURED: dict[str, tuple[ResponsesOptions, GenerateRequest]] = {
    "basic": (
        ResponsesOptions(store=False),
        GenerateRequest(messages=[Message("system", "Be terse."), Message("user", "Hello")], max_tokens=200),
    ),
    "image": (
        ResponsesOptions(),
        GenerateRequest(messages=[Message("user", [TextPart(text="What?"), ImagePart(url=PIXEL, detail="low")])]),
    ),
    "json_schema": (
        ResponsesOptions(),
        GenerateRequest(prompt="Hi", structured_output=StructuredOutput(json_schema=ANSWER, name="answer")),
    ),
    "reasoning": (
        ResponsesOptions(store=False, summary="auto"),
        GenerateRequest(prompt="Hi", reasoning=ReasoningConfig(effort="low")),
    ),
    "stream": (ResponsesOptions(), GenerateRequest(prompt="Hi", stream=True)),
    "tools": (ResponsesOptions(), GenerateRequest(prompt="Weather?", tools=[WEATHER], tool_choice="get_weather")),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ORACLES / "sdk_requests/openai_responses").glob("*")))
def test_a_request_equals_the_official_clients(name: str) -> None:
    options, request = CAPTURED[name]
    captured = json.loads((ORACLES / "sdk_requests" / "openai_responses" / f"{name}.json").read_text())
    assert encode_request(request, options, model="gpt-5.4") == captured["request"]["body"]
    assert_valid(captured["request"]["body"])
