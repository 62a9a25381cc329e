"""Recorded replies of Ollama and requests of its client, compared with that client's own reading and writing."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import wire_samples
from wire_samples import EXPECTED, INDEX, ORACLES, SAMPLES, body_of, joined, named, reply

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import ApiError, CapabilityRefused, ModelNotFound, RequestRejected, ServerFailed, TruncatedReply
from llm_council.models import (
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    StructuredOutput,
    Tool,
    ToolCall,
    join,
)
from llm_council.providers._ollama import ChatOptions, ChatStream, decode_error, decode_response, encode_request

pytestmark = pytest.mark.slow

ADVERSARIAL = json.loads((SAMPLES / "_adversarial" / "INDEX.json").read_text())
ROWS = [row for row in INDEX if row["file"].startswith("ollama/")]


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == (expected["text"] or "")
    assert (response.reasoning or "") == (expected["thinking"] or "")
    assert [(call.name, call.parse()) for call in response.tool_calls] == [
        (call["name"], call["arguments"]) for call in expected["tool_calls"]
    ]
    assert len({call.id for call in response.tool_calls}) == len(response.tool_calls)
    assert response.raw_finish_reason == expected["done_reason"]
    assert response.finish_reason == ("tool_calls" if response.tool_calls else expected["done_reason"])
    assert response.usage is not None
    assert response.usage.input_tokens == expected["prompt_eval_count"]
    assert response.usage.output_tokens == expected["eval_count"]
    assert response.extra["total_duration"] > 0


@named([row for row in ROWS if row["status"] == 200 and not row["body_file"]])
def test_a_whole_reply_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    for options in (ChatOptions(), ChatOptions(think_tags=True)):
        response = decode_response(loads(dumps(body)), options)
        assert_as_expected(response, EXPECTED[row["file"]])
        assert (response.model, response.raw) == (body["model"], body)
    stream = ChatStream()  # a server that answers whole where a stream was asked for
    assert_as_expected(join([*stream.feed(dumps(body)), *stream.finish()]), EXPECTED[row["file"]])


def read(pieces: list[bytes]) -> GenerateResponse:
    return joined(ChatStream(ChatOptions(think_tags=True)), pieces)


@named([row for row in ROWS if row["body_file"]])
def test_a_stream_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = body_of(row)
    whole = read([body])
    assert_as_expected(whole, EXPECTED[row["file"]])
    assert read([body[at : at + 1] for at in range(len(body))]) == whole
    for cut in range(1, len(body), max(1, len(body) // 400)):
        assert read([body[:cut], body[cut:]]) == whole


@named([row for row in ROWS if row["status"] != 200])
def test_a_recorded_error_has_its_class_and_retryable_flag(row: dict[str, Any]) -> None:
    answer = reply(row)
    error = decode_error(answer["status"], answer["headers"], dumps(answer["body"]))
    table: dict[int, type[ApiError]] = {400: RequestRejected, 404: ModelNotFound, 500: ServerFailed}
    lacks_tools = "does not support tools" in answer["body"]["error"]
    assert type(error) is (CapabilityRefused if lacks_tools else table[row["status"]])
    assert error.retryable is (row["status"] == 500)
    assert answer["body"]["error"] in error.message
    assert error.retry_after is None


@pytest.mark.parametrize("path", sorted((SAMPLES / "_adversarial").glob("*.ndjson")), ids=lambda path: path.name)
def test_a_stream_gives_the_same_text_wherever_it_is_cut(path: Path) -> None:
    body = path.read_bytes()

    def outcome(pieces: list[bytes]) -> Any:
        try:
            response = read(pieces)
        except TruncatedReply as error:
            return error.partial
        return response

    whole = outcome([body])
    if path.name == "ollama_truncated_no_done.ndjson":
        assert whole == ADVERSARIAL["expected_text"]
    else:
        assert whole.text == ADVERSARIAL["expected_text"]
        assert whole.usage.output_tokens == 4
    assert outcome([body[at : at + 1] for at in range(len(body))]) == whole
    for cut in range(1, len(body)):
        assert outcome([body[:cut], body[cut:]]) == whole


# Requests. The published schema allows unknown keys and lacks some fields of the official client, so both are used.


def refuse(uri: str) -> Any:
    raise AssertionError(f"a schema wants to fetch {uri}")


@cache
def schemas() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    spec = json.loads((ORACLES / "specs" / "derived" / "ollama.chat.request.schema.json").read_text())
    client = json.loads((ORACLES / "specs" / "sdk" / "ollama-0.6.3.ChatRequest.schema.json").read_text())
    return jsonschema_rs.validator_for(spec, retriever=refuse), spec["$defs"], client


def assert_valid(payload: dict[str, Any]) -> None:
    checker, spec, client = schemas()
    assert [error.message for error in checker.iter_errors(payload)] == []
    assert set(payload) <= set(spec["ChatRequest"]["properties"])
    turn_keys = set(spec["ChatMessage"]["properties"]) | set(client["$defs"]["Message"]["properties"])
    for turn in payload["messages"]:
        assert set(turn) <= turn_keys
        for call in turn.get("tool_calls", ()):
            assert set(call) <= set(spec["ToolCall"]["properties"])
            assert set(call["function"]) <= set(spec["ToolCall"]["properties"]["function"]["properties"])
    for tool in payload.get("tools", ()):
        assert set(tool) <= set(spec["ToolDefinition"]["properties"])
        assert set(tool["function"]) <= set(spec["ToolDefinition"]["properties"]["function"]["properties"])
    assert set(payload.get("options", ())) <= set(client["$defs"]["Options"]["properties"])


ASK = Message("user", "Weather in Paris?")
CITY = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string", "description": "City name"}}}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}},
    "required": ["answer", "confidence"],
    "additionalProperties": False,
}
LEVELS = ChatOptions(think_levels=True)
CAPTURED: dict[str, tuple[ChatOptions, GenerateRequest]] = {
    "json_schema": (
        ChatOptions(),
        GenerateRequest(model="llama3.2", messages=[ASK], structured_output=StructuredOutput(json_schema=ANSWER)),
    ),
    "stream": (ChatOptions(), GenerateRequest(model="llama3.2", messages=[ASK], stream=True)),
    "think": (
        ChatOptions(),
        GenerateRequest(model="qwen3", messages=[ASK], reasoning=ReasoningConfig(effort="medium")),
    ),
    "think_level": (
        LEVELS,
        GenerateRequest(model="gpt-oss:20b", messages=[ASK], reasoning=ReasoningConfig(effort="low")),
    ),
    "tools": (
        ChatOptions(),
        GenerateRequest(
            model="llama3.2",
            messages=[ASK],
            tools=[Tool(name="get_weather", description="Get weather", parameters=CITY)],
        ),
    ),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_request_equals_that_of_the_official_client(name: str) -> None:
    options, request = CAPTURED[name]
    captured = wire_samples.captured("ollama", name)
    if not captured["tools"]:
        del captured["tools"]  # what we leave out, it writes
    payload = encode_request(request, options)
    assert payload == captured
    assert_valid(payload)


def test_a_request_with_everything_is_valid() -> None:
    turns = [
        Message("system", "Be terse."),
        Message("user", ["Look:", ImagePart(data="iVBORw0KGgo=", media_type="image/png")]),
        Message("assistant", "", tool_calls=[ToolCall(id="c", name="get_weather", arguments={"city": "Paris"})]),
        Message("tool", "rain", tool_call_id="c"),
    ]
    request = GenerateRequest(
        model="m",
        messages=turns,
        max_tokens=5,
        temperature=0.5,
        top_p=0.5,
        stop=["END"],
        tools=[Tool(name="get_weather", parameters=CITY, strict=True)],
        structured_output=StructuredOutput(json_schema=ANSWER),
        reasoning=ReasoningConfig(effort="max"),
        extra={"keep_alive": "5m", "options": {"num_ctx": 8192, "seed": 7}},
    )
    for options in (ChatOptions(), LEVELS):
        assert_valid(encode_request(request, options))
