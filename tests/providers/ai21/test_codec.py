"""AI21's dialect: the laws of OpenAI's hold for it, its vendor's schema takes what we send, its samples are read."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import jsonschema_rs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import models as m
from llm_council._wire.openai_chat import decode_error, decode_response
from llm_council._wire.payloads import dumps, loads
from llm_council.errors import AuthenticationFailed, RequestRejected
from llm_council.providers.ai21 import CHAT, ChatStream, encode_request
from llm_council.testing._mirrors.openai_chat import DONE, decode_request, encode_chunks, encode_response, frame

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[4] / "shared")
ORACLES = SHARED / "oracles"
SAMPLES = ORACLES / "samples" / "ai21"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no wire samples at {SAMPLES}: set LLM_COUNCIL_SHARED")


@examples(20)
@given(strategies.representable("ai21"))
def test_a_payload_is_a_fixed_point(request: m.GenerateRequest) -> None:
    payload = encode_request(request)
    assert encode_request(decode_request(loads(dumps(payload)), CHAT)) == payload


@examples(20)
@given(strategies.replies("ai21"))
def test_a_reply_comes_back(response: m.GenerateResponse) -> None:
    payload = encode_response(response)
    assert decode_response(loads(dumps(payload)), CHAT) == attrs.evolve(response, raw=payload)


def read(pieces: list[bytes]) -> m.GenerateResponse:
    stream = ChatStream(CHAT)
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return m.join([*chunks, *stream.finish()])


@examples(20)
@given(strategies.replies("ai21"), st.lists(st.integers(0, 10**6), max_size=9))
def test_a_stream_is_the_whole_wherever_it_is_cut(response: m.GenerateResponse, cuts: list[int]) -> None:
    body = b"".join(frame(event) for event in encode_chunks(response)) + DONE
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    joined = read([body[start:end] for start, end in pairwise(places)])
    assert joined == attrs.evolve(response, text=response.text or None, content=response.text or None)


def test_what_the_api_has_no_key_for_is_left_out() -> None:
    call = m.ToolCall(id="c", name="f", arguments="")
    request = m.GenerateRequest(
        model="jamba-mini",
        messages=[
            m.Message("developer", "Be terse.", name="house"),
            m.Message("assistant", tool_calls=[call]),
            m.Message("tool", "5", tool_call_id="c", name="f"),
        ],
        tools=[m.Tool(name="f", parameters={"type": "object"}, strict=True)],
        tool_choice="required",
        stream=True,
        structured_output=m.StructuredOutput(json_schema={"type": "integer"}),
        reasoning=m.ReasoningConfig(effort="high"),
        prompt_cache=True,
    )
    function = {"name": "f", "arguments": "{}"}
    assert encode_request(request) == {
        "model": "jamba-mini",
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": function}]},
            {"role": "tool", "content": "5", "tool_call_id": "c"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "response_format": {"type": "json_object"},
        "stream": True,
    }


def refuse(uri: str) -> Any:
    raise AssertionError(f"a schema wants to fetch {uri}")


def assert_valid(payload: dict[str, Any]) -> None:
    schema = json.loads((ORACLES / "specs" / "derived" / "ai21.chat.request.schema.json").read_text())
    parts = schema["$defs"]
    assert [error.message for error in jsonschema_rs.validator_for(schema, retriever=refuse).iter_errors(payload)] == []
    assert set(payload) <= set(parts["ChatRequest"]["properties"])
    for turn in payload["messages"]:
        assert set(turn) <= set(parts[f"{turn['role'].capitalize()}Message"]["properties"])
    for tool in payload.get("tools", ()):
        assert set(tool["function"]) <= set(parts["FunctionToolDefinition"]["properties"])


@needs_samples
@examples(20)
@given(strategies.representable("ai21"))
def test_any_request_meets_the_schema(request: m.GenerateRequest) -> None:
    assert_valid(loads(dumps(encode_request(attrs.evolve(request, model="jamba-large")))))


SAID = m.GenerateRequest(model="jamba-large", prompt="Hi")
TERSE = attrs.evolve(
    SAID,
    messages=[m.Message("system", "Be terse."), m.Message("user", "Hi")],
    max_tokens=100,
    temperature=0.2,
    top_p=0.9,
    stop=["END"],
    extra={"n": 1},
)
CAPTURED = {
    "basic": TERSE,
    "json_object": attrs.evolve(SAID, response_format={"type": "json_object"}),
    "stream": attrs.evolve(SAID, stream=True),
}


@needs_samples
@pytest.mark.parametrize("name", CAPTURED)
def test_a_request_says_what_the_official_client_says(name: str) -> None:
    captured = json.loads((ORACLES / "sdk_requests" / "ai21" / f"{name}.json").read_text())["request"]["body"]
    if not captured["stream"]:
        del captured["stream"]  # what we leave out, it writes
    payload = encode_request(CAPTURED[name])
    assert payload == captured
    assert_valid(payload)


def sample(name: str) -> dict[str, Any]:
    return json.loads((SAMPLES / name).read_text())["response"]


@needs_samples
def test_the_samples_are_read() -> None:
    response = decode_response(sample("d-text.json")["body"], CHAT)
    assert (response.text, response.finish_reason, response.usage) == (
        "Hello!",
        "stop",
        m.Usage(input_tokens=10, output_tokens=3),
    )
    body = (SAMPLES / "d-stream_text.sse").read_bytes()
    whole = read([body])
    assert (whole.text, whole.finish_reason, whole.usage) == (
        "Hello",
        "stop",
        m.Usage(input_tokens=10, output_tokens=2),
    )
    for cut in range(1, len(body)):
        assert read([body[:cut], body[cut:]]) == whole


@needs_samples
@pytest.mark.parametrize(
    ("name", "cls", "words"),
    [
        ("d-error_401.json", AuthenticationFailed, "Bad or missing"),
        ("d-error_422.json", RequestRejected, "body.messages"),
    ],
)
def test_a_refusal_has_the_right_class(name: str, cls: type, words: str) -> None:
    answer = sample(name)
    error = decode_error(answer["status"], answer["headers"], dumps(answer["body"]))
    assert (type(error), error.retryable, error.retry_after) == (cls, False, None)
    assert words in error.message
