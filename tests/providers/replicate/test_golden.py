"""Payloads and predictions of Replicate's HTTP API, written by hand with the field names that Replicate documents.

The laws in ``test_codec.py`` use our own mirror: a name that is misspelt on both sides passes them, and fails here.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council.errors import (
    CapabilityMissing,
    ContentFiltered,
    OutOfCredit,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    ImagePart,
    Message,
    ReasoningConfig,
    TextPart,
    Usage,
)
from llm_council.providers._replicate import (
    ModelInputs,
    PredictionStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.providers._replicate.reply import read_prediction
from llm_council.providers._replicate.request import fit, predictions_path, read_inputs, schema_path

VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
PNG = "data:image/png;base64,iVBORw0KGgo="
TURNS = [
    Message("system", "Be terse."),
    Message("developer", "Answer in French."),
    Message("user", [TextPart(text="What is this?"), ImagePart(data="iVBORw0KGgo=", media_type="image/png")]),
]
ASKED: dict[str, Any] = {"max_tokens": 7, "temperature": 0.3, "top_p": 0.9, "stop": ["END", "STOP"]}
LISTS = ("messages", "image_input", "stop_sequences")


def test_a_request_with_every_field() -> None:
    inputs = ModelInputs(images="image_input", effort="reasoning_effort", lists=("image_input",))
    request = GenerateRequest(
        model=f"meta/llama:{VERSION}",
        messages=TURNS,
        **ASKED,
        reasoning=ReasoningConfig(effort="low"),
        stream=True,
        extra={"seed": 1, "webhook": "https://example.com/hook", "webhook_events_filter": ["completed"]},
    )
    assert encode_request(request, inputs) == {
        "version": VERSION,
        "input": {
            "prompt": "What is this?",
            "system_prompt": "Be terse.\n\nAnswer in French.",
            "max_tokens": 7,
            "temperature": 0.3,
            "top_p": 0.9,
            "stop_sequences": "END,STOP",
            "image_input": [PNG],
            "reasoning_effort": "low",
            "seed": 1,
        },
        "stream": True,
        "webhook": "https://example.com/hook",
        "webhook_events_filter": ["completed"],
    }


def test_a_request_uses_the_input_names_of_the_model() -> None:
    inputs = ModelInputs(
        prompt="text",
        system=None,
        max_tokens="max_new_tokens",
        temperature="temp",
        top_p="nucleus",
        stop="stop_words",
        images="image",
        budget="thinking_budget",
        lists=("stop_words",),
    )
    request = GenerateRequest(
        model="house/model", messages=TURNS, **ASKED, reasoning=ReasoningConfig(budget_tokens=500)
    )
    assert encode_request(request, inputs) == {
        "input": {
            "text": "Be terse.\n\nAnswer in French.\n\nWhat is this?",
            "max_new_tokens": 7,
            "temp": 0.3,
            "nucleus": 0.9,
            "stop_words": ["END", "STOP"],
            "image": PNG,
            "thinking_budget": 500,
        }
    }
    off = GenerateRequest(prompt="Hi", reasoning=ReasoningConfig(effort="none"))
    assert encode_request(off, inputs) == {"input": {"text": "Hi", "thinking_budget": 0}}


def test_a_conversation() -> None:
    turns = [*TURNS, Message("assistant", "A dot."), Message("tool", "ok", tool_call_id="c"), Message("user", "Sure?")]
    request = GenerateRequest(messages=turns)
    assert encode_request(request, ModelInputs(messages="messages", lists=LISTS)) == {
        "input": {
            "messages": [
                {"role": "system", "content": "Be terse.\n\nAnswer in French."},
                {"role": "user", "content": "What is this?"},
                {"role": "assistant", "content": "A dot."},
                {"role": "user", "content": "ok"},
                {"role": "user", "content": "Sure?"},
            ]
        }
    }
    assert encode_request(request) == {
        "input": {
            "prompt": "User: What is this?\n\nAssistant: A dot.\n\nTool: ok\n\nUser: Sure?\n\nAssistant:",
            "system_prompt": "Be terse.\n\nAnswer in French.",
        }
    }


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("messages", ["messages"]),
        ("system", ["system_prompt", "system_instruction", "system"]),
        (
            "max_tokens",
            ["max_tokens", "max_new_tokens", "max_completion_tokens", "max_output_tokens", "max_length"],
        ),
        ("temperature", ["temperature"]),
        ("top_p", ["top_p"]),
        ("stop", ["stop_sequences", "stop", "stop_sequence", "stop_words"]),
        ("images", ["image_input", "images", "image", "input_image"]),
        ("effort", ["reasoning_effort", "effort", "thinking_level"]),
        ("budget", ["thinking_budget", "thinking_budget_tokens", "thinking_token_budget"]),
    ],
)
def test_input_names_of_published_models_are_known(field: str, names: list[str]) -> None:
    """The first of several names counts, in the order of this table."""
    listed: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    none = dict.fromkeys(("system", "max_tokens", "temperature", "top_p", "stop"))
    while names:
        properties = {"prompt": {"type": "string"}, **dict.fromkeys(names, listed)}
        schema = {"openapi_schema": {"components": {"schemas": {"Input": {"properties": properties}}}}}
        expected = ModelInputs(**{**none, field: names[0], "lists": (names[0],)})
        assert read_inputs(schema) == read_inputs({"latest_version": schema}) == expected
        names = names[1:]


def test_the_efforts_of_a_model_are_read_from_its_schema() -> None:
    enum = {"type": "string", "enum": ["low", "high"]}
    reference = {"$ref": "#/components/schemas/effort"}
    for written in (enum, reference, {"allOf": [reference], "default": "low"}):
        schemas = {"Input": {"properties": {"prompt": {}, "effort": written}}, "effort": enum}
        found = read_inputs({"openapi_schema": {"components": {"schemas": schemas}}})
        assert found is not None
        assert (found.effort, found.efforts) == ("effort", ("low", "high"))


def test_messages_are_not_used_if_the_model_takes_them_as_text() -> None:
    properties = {"prompt": {"type": "string"}, "messages": {"type": "string"}}
    found = read_inputs({"openapi_schema": {"components": {"schemas": {"Input": {"properties": properties}}}}})
    assert found is not None
    assert (found.prompt, found.messages, found.lists) == ("prompt", None, ())


@pytest.mark.parametrize(
    ("model", "predictions", "schema"),
    [
        ("meta/llama", "/v1/models/meta/llama/predictions", "/v1/models/meta/llama"),
        (f"meta/llama:{VERSION}", "/v1/predictions", f"/v1/models/meta/llama/versions/{VERSION}"),
        (VERSION, "/v1/predictions", None),
        ("deployments/meta/llama", "/v1/deployments/meta/llama/predictions", None),
        ("a b/c?d", "/v1/models/a%20b/c%3Fd/predictions", "/v1/models/a%20b/c%3Fd"),
    ],
)
def test_paths(model: str, predictions: str, schema: str | None) -> None:
    assert (predictions_path(model), schema_path(model)) == (predictions, schema)


@pytest.mark.parametrize(
    ("model", "version"), [(f"meta/llama:{VERSION}", VERSION), ("meta/llama:v2", "v2"), (VERSION, VERSION)]
)
def test_the_version_of_a_model_is_sent_beside_its_inputs(model: str, version: str) -> None:
    payload = encode_request(GenerateRequest(model=model, prompt="Hi"))
    assert payload == {"version": version, "input": {"prompt": "Hi"}}


PREDICTION: dict[str, Any] = {
    "id": "7vr9my1z3nrj40cjb2vv9pshw0",
    "model": "meta/meta-llama-3-8b-instruct",
    "version": "dp-a557b7387b4940df25b23f779dc534c4",
    "input": {"prompt": "Haiku"},
    "logs": "Using seed: 12254",
    "output": ["Fuzzy", ", gentle"],
    "data_removed": False,
    "error": None,
    "status": "succeeded",
    "created_at": "2024-10-04T18:07:37.245Z",
    "metrics": {"predict_time": 0.6, "input_token_count": 11, "output_token_count": 4},
    "urls": {
        "cancel": "https://api.replicate.com/v1/predictions/7vr9my1z3nrj40cjb2vv9pshw0/cancel",
        "get": "https://api.replicate.com/v1/predictions/7vr9my1z3nrj40cjb2vv9pshw0",
        "stream": "https://stream.replicate.com/v1/streams/yr4x",
    },
}


def test_a_prediction_that_succeeded() -> None:
    response = decode_response(PREDICTION)
    assert response.text == "Fuzzy, gentle"
    assert response.usage == Usage(input_tokens=11, output_tokens=4)
    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.STOP, "succeeded")
    assert (response.model, response.request_id) == ("meta/meta-llama-3-8b-instruct", "7vr9my1z3nrj40cjb2vv9pshw0")
    assert response.extra == {
        "version": "dp-a557b7387b4940df25b23f779dc534c4",
        "metrics": PREDICTION["metrics"],
        "logs": "Using seed: 12254",
    }
    assert response.raw == PREDICTION
    assert decode_response(PREDICTION, max_tokens=4).finish_reason == FinishReason.LENGTH


def test_a_prediction_that_is_running() -> None:
    running = {**PREDICTION, "status": "processing", "metrics": {}, "logs": "", "model": None}
    found = read_prediction(running)
    assert (found.id, found.status, found.ended) == ("7vr9my1z3nrj40cjb2vv9pshw0", "processing", False)
    assert (found.text, found.error) == ("Fuzzy, gentle", None)
    assert found.stream_url == "https://stream.replicate.com/v1/streams/yr4x"
    response = decode_response(running, model="meta/llama")
    assert (response.finish_reason, response.raw_finish_reason, response.usage) == (None, None, None)
    assert response.model == "meta/llama"


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ("starting", False),
        ("processing", False),
        ("succeeded", True),
        ("failed", True),
        ("canceled", True),
        ("aborted", True),
    ],
)
def test_statuses(status: str, ended: bool) -> None:
    assert read_prediction({"id": "p", "status": status}).ended is ended


def test_failed_and_cancelled_predictions_raise() -> None:
    with pytest.raises(ServerFailed, match="E6716: Unexpected error") as failed:
        decode_response({**PREDICTION, "status": "failed", "error": "E6716: Unexpected error"})
    error = failed.value
    assert (error.code, error.retryable, error.partial) == ("E6716", True, "Fuzzy, gentle")
    assert error.request_id == "7vr9my1z3nrj40cjb2vv9pshw0"
    for words in ("out of memory (E1001)", "E4875: webhook", "'int' object is not iterable"):
        with pytest.raises(ServerFailed) as failed:
            decode_response({**PREDICTION, "status": "failed", "error": words})
        assert not failed.value.retryable
    with pytest.raises(ContentFiltered, match="flagged") as filtered:
        decode_response({**PREDICTION, "status": "failed", "error": "flagged as sensitive (E005)"})
    assert (filtered.value.partial, filtered.value.request_id) == ("Fuzzy, gentle", "7vr9my1z3nrj40cjb2vv9pshw0")
    for status in ("canceled", "aborted"):
        with pytest.raises(TruncatedReply, match=status) as stopped:
            decode_response({**PREDICTION, "status": status})
        assert (stopped.value.partial, stopped.value.retryable) == ("Fuzzy, gentle", False)
        assert stopped.value.request_id == "7vr9my1z3nrj40cjb2vv9pshw0"


def test_a_stream_event_by_event() -> None:
    stream = PredictionStream(request_id="p", model="meta/llama")
    events: list[tuple[bytes, list[dict[str, Any]]]] = [
        (b": hi\n\n", []),
        (b"event: output\nid: 1:0\ndata: \n\n", [{"request_id": "p", "model": "meta/llama"}]),
        (b"event: output\nid: 1:1\ndata: Sure\n\n", [{"text": "Sure"}]),
        (b"event: output\nid: 1:2\ndata:  a:\ndata: \ndata: b\n\n", [{"text": " a:\n\nb"}]),
        (b"event: logs\nid: 1:3\ndata: Using seed\n\n", []),
        (b"event: done\nid: 1:4\ndata: {}\n\n", [{"finish_reason": "stop", "raw_finish_reason": "succeeded"}]),
        (b":408: 408 Request Timeout\n\n", []),
    ]
    for event, facts in events:
        assert stream.feed(event) == [GenerateChunk(**fact) for fact in facts], event
    assert stream.finish() == []


def test_a_stream_without_output_names_the_request_and_the_model_at_its_end() -> None:
    (chunk,) = PredictionStream(request_id="p", model="meta/llama").feed(b"event: done\ndata: {}\n\n")
    assert (chunk.request_id, chunk.model, chunk.finish_reason) == ("p", "meta/llama", FinishReason.STOP)


@pytest.mark.parametrize(
    ("event", "cls", "words"),
    [
        (b'event: error\ndata: {"detail": "E6716: Unexpected error"}\n\n', ServerFailed, "E6716: Unexpected error"),
        (b"event: error\ndata: E6716: Unexpected error\n\n", ServerFailed, "E6716: Unexpected error"),
        (b'event: done\ndata: {"reason": "error"}\n\n', ServerFailed, "the prediction failed"),
        (b'event: done\ndata: {"reason": "canceled"}\n\n', TruncatedReply, "canceled"),
    ],
)
def test_a_stream_that_fails(event: bytes, cls: type[Exception], words: str) -> None:
    stream = PredictionStream(request_id="p")
    stream.feed(b"event: output\ndata: Hel\n\n")
    with pytest.raises((ServerFailed, TruncatedReply), match=words) as caught:
        stream.feed(event)
    assert type(caught.value) is cls
    assert "{" not in caught.value.message
    assert (caught.value.partial, caught.value.request_id) == ("Hel", "p")


def test_errors() -> None:
    problem = {"title": "Input validation failed", "detail": "- input: prompt is required\n", "status": 422}
    error = decode_error(422, {}, json.dumps(problem))
    assert type(error) is RequestRejected
    assert "Input validation failed: - input: prompt is required" in error.message
    assert "prompt is required" in (error.body or "")
    error = decode_error(402, {}, json.dumps({"title": "Insufficient credit", "detail": "Buy some.", "status": 402}))
    assert isinstance(error, OutOfCredit)
    throttled = {"detail": "Request was throttled.", "status": 429, "retry_after": 5}
    error = decode_error(429, {"ratelimit-reset": "7"}, json.dumps(throttled))
    assert isinstance(error, RateLimited)
    assert (error.retry_after, error.message.count("Request was throttled.")) == (5.0, 1)
    error = decode_error(429, {"RateLimit-Reset": "7"}, json.dumps({"detail": "Request was throttled."}))
    assert error.retry_after == 7.0


def changes(request: GenerateRequest, inputs: ModelInputs) -> list[tuple[str, str, Any, Any]]:
    _, adjustments = fit(request, inputs)
    return [(change.field, change.action, change.asked, change.sent) for change in adjustments]


def test_fields_without_an_input_are_dropped_and_reported() -> None:
    none = ModelInputs(system=None, max_tokens=None, temperature=None, top_p=None, stop=None)
    request = GenerateRequest(prompt="Hi", **ASKED, reasoning=ReasoningConfig(effort="low"))
    fitted, _ = fit(request, none)
    assert fitted == GenerateRequest(prompt="Hi")
    assert changes(request, none) == [
        ("max_tokens", "dropped", 7, None),
        ("temperature", "dropped", 0.3, None),
        ("top_p", "dropped", 0.9, None),
        ("stop", "dropped", ("END", "STOP"), None),
        ("reasoning", "dropped", request.reasoning, None),
    ]
    assert changes(GenerateRequest(prompt="Hi", **ASKED), ModelInputs()) == []


def test_values_that_an_input_cannot_take_are_dropped_and_reported() -> None:
    stop = GenerateRequest(prompt="Hi", stop=["a,b"])
    assert changes(stop, ModelInputs()) == [("stop", "dropped", ("a,b",), None)]
    assert changes(stop, ModelInputs(lists=("stop_sequences",))) == []
    image = ImagePart(data="iVBORw0KGgo=", media_type="image/png")
    images = GenerateRequest(messages=[Message("user", [TextPart(text="Which?"), image, image])])
    assert changes(images, ModelInputs(images="image")) == [("messages", "lowered", 2, 1)]
    assert changes(images, ModelInputs(images="images", lists=("images",))) == []
    effort = GenerateRequest(prompt="Hi", reasoning=ReasoningConfig(effort="minimal"))
    words = ModelInputs(effort="reasoning_effort", efforts=("low", "high"))
    assert changes(effort, words) == [("reasoning", "dropped", effort.reasoning, None)]
    assert changes(effort, ModelInputs(effort="reasoning_effort")) == []


def test_images_for_a_model_without_an_input_for_them_are_refused() -> None:
    with pytest.raises(CapabilityMissing) as caught:
        fit(GenerateRequest(messages=TURNS), ModelInputs())
    assert caught.value.capability == "multimodal"
