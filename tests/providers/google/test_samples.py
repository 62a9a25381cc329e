"""Recorded replies of Google and requests of its client, compared with that client's own reading and writing."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import strategies
import wire_samples
from hypothesis import given
from strategies import examples
from wire_samples import EXPECTED, INDEX, ORACLES, body_of, joined, named, reply

from llm_council._wire.payloads import dumps, loads
from llm_council.errors import ApiError, AuthenticationFailed, ModelNotFound, ServerFailed
from llm_council.models import GenerateRequest, GenerateResponse, Message, Tool, ToolCall
from llm_council.models.messages import ImagePart, TextPart
from llm_council.providers._google import GeminiStream, decode_error, decode_response, encode_request
from llm_council.testing._mirrors.gemini import encode_array

pytestmark = pytest.mark.slow

ROWS = [row for row in INDEX if row["api"] == "gemini"]
WHOLE = [row for row in ROWS if row["file"] in EXPECTED and not row["body_file"]]
STREAMS = [row for row in ROWS if row["file"] in EXPECTED and row["body_file"]]
ERRORS = [row for row in ROWS if row["status"] >= 400]


FINISHES = {"STOP": "stop", "MAX_TOKENS": "length", "PROHIBITED_CONTENT": "content_filter"}


def assert_as_expected(response: GenerateResponse, expected: dict[str, Any]) -> None:
    assert (response.text or "") == expected["text"]
    assert response.reasoning == expected["thoughts"]
    assert response.model == expected["model"]
    word = expected["finish_reason"] or expected["block_reason"]
    assert response.raw_finish_reason == word
    assert response.finish_reason == ("tool_calls" if response.tool_calls else FINISHES[word])
    assert [(call.name, call.parse()) for call in response.tool_calls] == called(expected["function_calls"])
    for call, found in zip(response.tool_calls, [f for f in expected["function_calls"] if "name" in f], strict=True):
        assert call.id == found.get("id", call.id)
        assert call.id
    assert len({call.id for call in response.tool_calls}) == len(response.tool_calls)
    usage = expected["usage"]
    assert response.usage is not None
    assert response.usage.cached_tokens == usage.get("cachedContentTokenCount")
    assert response.usage.reasoning_tokens == usage.get("thoughtsTokenCount")
    if "promptTokenCount" in usage:
        assert response.usage.input_tokens == usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
        assert response.usage.total_tokens == usage["totalTokenCount"]


def called(pieces: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Assemble partial arguments by hand; each path in the samples names one field."""
    calls: list[tuple[str, dict[str, Any]]] = []
    for piece in pieces:
        if "name" in piece:
            calls.append((piece["name"], dict(piece.get("args", {}))))
        for partial in piece.get("partialArgs", ()):
            key = partial["jsonPath"].removeprefix("$.")
            calls[-1][1][key] = calls[-1][1].get(key, "") + partial["stringValue"]
    return calls


@named(WHOLE)
def test_a_whole_reply_is_decoded_as_by_the_official_client(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    response = decode_response(loads(dumps(body)))
    assert_as_expected(response, EXPECTED[row["file"]])
    assert response.raw == body
    assert signatures_echoed(response) == signatures_in(json.dumps(body))


def signatures_in(text: str) -> set[str]:
    return {json.loads(f'"{found}"') for found in re.findall(r'"thoughtSignature": ?"([^"]*)"', text)}


def signatures_echoed(response: GenerateResponse) -> set[str]:
    again = GenerateRequest(messages=[Message("user", "x"), response.to_message()])
    stand_in = "skip_thought_signature_validator"  # a call that came without a signature
    return signatures_in(json.dumps(encode_request(again))) - {stand_in}


def read_stream(pieces: list[bytes]) -> GenerateResponse:
    return joined(GeminiStream(), pieces)


def cuts(body: bytes) -> list[int]:
    """Return about 60 positions, and all positions near line ends."""
    ends = [at for at in range(len(body)) if body[at : at + 2] == b"\r\n"][:20]
    return [*range(1, len(body), max(1, len(body) // 60)), *(at + 1 for at in ends)]


@named(STREAMS)
def test_a_stream_is_decoded_as_by_the_official_client_wherever_it_is_cut(row: dict[str, Any]) -> None:
    body = body_of(row)
    response = read_stream([body])
    assert_as_expected(response, EXPECTED[row["file"]])
    assert signatures_echoed(response) == signatures_in(body.decode())
    for cut in cuts(body):
        assert read_stream([body[:cut], body[cut:]]) == response
    frames = [loads(line.removeprefix("data:")) for line in body.decode().splitlines() if line.startswith("data:")]
    array = encode_array(frames)
    assert read_stream([array]) == response
    for cut in cuts(array):
        assert read_stream([array[:cut], array[cut:]]) == response


def test_a_recorded_array_equals_a_stream() -> None:
    (row,) = [row for row in WHOLE if "013-reasoning" in row["file"]]
    body = reply(row)["body"]
    assert_as_expected(read_stream([json.dumps(body, indent=2).encode()]), EXPECTED[row["file"]])


CLASSES = {400: (AuthenticationFailed, False), 404: (ModelNotFound, False), 503: (ServerFailed, True)}


@named(ERRORS)
def test_a_recorded_error_has_its_class_and_retryable_flag(row: dict[str, Any]) -> None:
    response = reply(row)
    error = decode_error(response["status"], response["headers"], dumps(response["body"]))
    assert (type(error), error.retryable) == CLASSES[row["status"]]
    assert (error.status, error.retry_after) == (row["status"], None)
    error_body = response["body"][0] if isinstance(response["body"], list) else response["body"]
    assert error_body["error"]["message"][:40] in error.message
    with pytest.raises(ApiError) as caught:  # the same inside a stream that had begun well
        read_stream([dumps(response["body"])])
    assert type(caught.value) is CLASSES[row["status"]][0]


# Requests

WEATHER = Tool(
    name="get_weather",
    description="Get weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "description": "City name"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk-M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
HI = Message("user", "Hi")
CALL = ToolCall(id="fc1", name="get_weather", arguments={"city": "Paris"}, extra={"thoughtSignature": "c2ln"})
CAPTURED: dict[str, GenerateRequest] = {
    "image": GenerateRequest(
        messages=[Message("user", [TextPart(text="What?"), ImagePart(data=PIXEL, media_type="image/png")])]
    ),
    "multi_turn": GenerateRequest(messages=[HI, Message("assistant", "Hello"), Message("user", "Bye")]),
    "safety": GenerateRequest(
        messages=[HI],
        extra={"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
    ),
    "stream": GenerateRequest(messages=[HI], stream=True),
    "tool_result": GenerateRequest(
        messages=[
            Message("user", "Weather?"),
            Message("assistant", tool_calls=[CALL]),
            Message("tool", "18C", tool_call_id="fc1"),
        ]
    ),
    "tools_auto": GenerateRequest(messages=[Message("user", "Weather?")], tools=[WEATHER]),
}  # fmt: skip


def facts(value: Any) -> Any:
    """Return a payload with its keys in camel case, and without empty values."""
    if isinstance(value, list):
        return [facts(item) for item in value]
    if not isinstance(value, dict):
        return value
    camel = {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): item for key, item in value.items()}
    free = ("parametersJsonSchema", "args", "response")  # not ours to spell
    return {key: item if key in free else facts(item) for key, item in camel.items() if item != {} or key in free}


@pytest.mark.parametrize("name", CAPTURED)
def test_a_request_equals_that_of_the_official_client(name: str) -> None:
    captured = wire_samples.captured("gemini", name)
    payload = encode_request(CAPTURED[name])
    assert facts(payload) == facts(captured)
    assert_valid(payload)


def test_every_captured_request_is_compared() -> None:
    names = {path.stem for path in (ORACLES / "sdk_requests" / "gemini").glob("*.json")}
    assert names - {"models_list"} == set(CAPTURED)  # that one has no body


def refuse(uri: str) -> Any:
    raise AssertionError(f"a schema wants to fetch {uri}")


@cache
def validator() -> Any:
    """Close the objects of the published schema, since a misspelt key would pass otherwise."""
    schema = json.loads((ORACLES / "specs" / "derived" / "gemini.generate_content.request.schema.json").read_text())
    for definition in schema["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return jsonschema_rs.validator_for(schema, retriever=refuse)


def assert_valid(payload: dict[str, Any]) -> None:
    assert [error.message for error in validator().iter_errors(payload)] == []


@examples(25)
@given(strategies.representable("openai", vendor="gemini"))
def test_any_request_meets_the_vendors_schema(request: GenerateRequest) -> None:
    turns = [Message(turn.role, turn.text, name=turn.name or "tool", tool_calls=turn.tool_calls,
                     tool_call_id=turn.tool_call_id) for turn in request.messages]  # fmt: skip
    facts = {name: getattr(request, name) for name in ("tools", "tool_choice", "structured_output", "reasoning")}
    facts |= {name: getattr(request, name) for name in ("max_tokens", "temperature", "top_p", "stop")}
    assert_valid(loads(dumps(encode_request(GenerateRequest(messages=turns, **facts)))))
