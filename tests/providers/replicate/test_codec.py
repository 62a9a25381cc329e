"""Replicate's dialect: the five laws, the input names of models, errors, and recorded predictions and streams."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cache
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
from llm_council._wire.payloads import dumps, loads
from llm_council.errors import (
    ContentFiltered,
    InvalidOption,
    MalformedReply,
    OutOfCredit,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.providers._replicate import (
    ModelInputs,
    PredictionStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.providers._replicate.reply import read_prediction
from llm_council.providers._replicate.request import predictions_path, read_inputs, schema_path
from llm_council.testing._mirrors.replicate import decode_request, encode_events, encode_response, frame

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[4] / "shared")
ORACLES = SHARED / "oracles"
SAMPLES = ORACLES / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no wire samples at {SAMPLES}: set LLM_COUNCIL_SHARED")

MODELS = [
    ModelInputs(),
    ModelInputs(system=None, max_tokens="max_new_tokens", images="image", stop=None, budget="thinking_budget"),
    ModelInputs(
        messages="messages",
        images="image_input",
        effort="reasoning_effort",
        lists=("messages", "image_input", "stop_sequences"),
    ),
]
inputs = st.sampled_from(MODELS)


@examples(20)
@given(strategies.representable("replicate"), inputs)
def test_a_payload_is_a_fixed_point(request: m.GenerateRequest, model: ModelInputs) -> None:
    payload = encode_request(request, model)
    assert encode_request(decode_request(loads(dumps(payload)), model), model) == payload


@examples(20)
@given(strategies.representable("replicate"))
def test_the_facts_of_a_request_come_back(request: m.GenerateRequest) -> None:
    model = MODELS[2]
    again = decode_request(encode_request(request, model), model, model=request.model)
    assert [(turn.role, turn.text) for turn in again.messages] == [(turn.role, turn.text) for turn in request.messages]
    for name in ("model", "stream", "max_tokens", "temperature", "top_p", "stop", "extra"):
        assert getattr(again, name) == getattr(request, name)


@examples(20)
@given(strategies.requests(), inputs)
def test_any_request_is_encoded_and_its_payload_decoded(request: m.GenerateRequest, model: ModelInputs) -> None:
    payload = encode_request(attrs.evolve(request, extra={}), model)
    try:
        again = decode_request(loads(dumps(payload)), model)
    except MalformedReply:
        return  # instructions and nothing else
    assert loads(dumps(encode_request(again, model)))


@examples(20)
@given(strategies.replies("replicate"))
def test_a_reply_comes_back(response: m.GenerateResponse) -> None:
    payload = encode_response(response)
    assert decode_response(loads(dumps(payload))) == attrs.evolve(response, raw=payload)


def read(pieces: list[bytes], **facts: Any) -> m.GenerateResponse:
    stream = PredictionStream(**facts)
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return m.join([*chunks, *stream.finish()])


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@examples(20)
@given(strategies.replies("replicate"), st.integers(1, 9), st.lists(st.integers(0, 10**6), max_size=20))
def test_a_stream_equals_the_whole_answer_wherever_it_is_cut(
    response: m.GenerateResponse, size: int, cuts: list[int]
) -> None:
    body = b": hi\n\n" + b"".join(frame(event) for event in encode_events(response, size=size))
    facts = {"request_id": response.request_id, "model": response.model}
    joined = read(split(body, cuts), **facts)
    assert joined == attrs.evolve(
        response, text=response.text or None, content=response.text or None, usage=None, extra={}
    )
    assert read([dumps(encode_response(response))], **facts).text == joined.text  # one that had ended already


def test_spaces_and_line_ends_in_output_events_are_text() -> None:
    pieces = ["a", " ", "\n", "\n\n", " b", "", "\u2028c "]
    assert read([*(frame(("output", piece)) for piece in pieces), frame(("done", "{}"))]).text == "a \n\n\n b\u2028c "


_keys = st.sampled_from(
    "id status output error urls stream metrics input_token_count output_token_count input prompt system_prompt version"
    " max_tokens stop_sequences messages image_input role content reasoning_effort thinking_budget logs model".split()
)
_leaves = strategies.json_values(leaves=2) | st.sampled_from(["succeeded", "failed", "canceled", "x", 0, 1, -1, 2.5])
lookalikes = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5), max_leaves=15
)


def wrapped(value: Any) -> list[Any]:
    return [
        value,
        {"id": "x", "status": value},
        {"id": "x", "status": "succeeded", "output": value, "urls": value, "metrics": value, "model": value},
        {"id": "x", "status": "failed", "error": value, "output": value},
        {"input": value},
        {"input": {"prompt": "x", "stop_sequences": value, "image_input": value, "max_tokens": value}},
        {"input": {"prompt": "x", "system_prompt": value, "reasoning_effort": value, "thinking_budget": value}},
        {"input": {"messages": value}, "version": value, "stream": value},
        {"input": {"messages": [value]}},
    ]


@examples(20)
@given(lookalikes)
def test_any_json_is_decoded_or_raises_a_provider_error(value: Any) -> None:
    for junk in wrapped(value):
        with suppress(ProviderError):
            decode_response(junk)
        for model in MODELS:
            with suppress(MalformedReply):
                decode_request(junk, model)
        schema = {"openapi_schema": {"components": {"schemas": {"Input": {"properties": junk}, "x": junk}}}}
        for inputs_of in (junk, {"latest_version": junk}, schema, {"latest_version": schema}):
            assert isinstance(read_inputs(inputs_of), ModelInputs | None)
        for name in ("error", "done", "logs", "output", "novel"):
            with suppress(ProviderError):
                read([frame((name, dumps(junk).decode())), frame(("done", "{}"))])
        assert isinstance(decode_error(422, {}, dumps(junk)), ProviderError)


@examples(20)
@given(st.sampled_from([b"", b"{", b"data: ", b"event: output\ndata:", b"event: done\n"]), st.binary(max_size=40))
def test_any_bytes_are_decoded_or_raise_a_provider_error(head: bytes, body: bytes) -> None:
    def outcome(pieces: list[bytes]) -> Any:
        try:
            return read(pieces)
        except ProviderError as error:
            return type(error)

    whole = head + body
    assert outcome([whole[at : at + 1] for at in range(len(whole))]) == outcome([whole])


# Input names of models


def published(**properties: Any) -> dict[str, Any]:
    effort = {"enum": ["low", "medium", "high"], "type": "string"}
    parts = {"Input": {"properties": properties}, "reasoning_effort": effort}
    return {"latest_version": {"openapi_schema": {"components": {"schemas": parts}}}}


def test_inputs_are_read_from_the_schema_that_a_model_publishes() -> None:
    text, listed = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    refers = {"allOf": [{"$ref": "#/components/schemas/reasoning_effort"}], "default": "medium"}
    found = read_inputs(
        published(prompt=text, messages=listed, max_completion_tokens={}, image_input=listed, reasoning_effort=refers)
    )
    assert found == ModelInputs(
        messages="messages",
        system=None,
        max_tokens="max_completion_tokens",
        temperature=None,
        top_p=None,
        stop=None,
        images="image_input",
        effort="reasoning_effort",
        lists=("messages", "image_input"),
        efforts=("low", "medium", "high"),
    )
    assert read_inputs(published(prompt=text, messages=text, system_instruction=text, stop=listed)) == ModelInputs(
        system="system_instruction", max_tokens=None, temperature=None, top_p=None, stop="stop", lists=("stop",)
    )
    assert read_inputs(published(seed={})) is None  # no prompt
    assert read_inputs({"latest_version": None}) is None
    assert read_inputs(published(prompt=text)["latest_version"]) is not None  # a version of a model


TURNS = [
    m.Message("system", "Be terse."),
    m.Message("user", "Hi"),
    m.Message("assistant", "Ho"),
    m.Message("user", "?"),
]


def test_a_conversation_is_sent_as_turns_or_as_labelled_text() -> None:
    request = m.GenerateRequest(messages=TURNS)
    written = "User: Hi\n\nAssistant: Ho\n\nUser: ?\n\nAssistant:"
    assert encode_request(request)["input"] == {"prompt": written, "system_prompt": "Be terse."}
    assert encode_request(request, MODELS[1])["input"] == {"prompt": f"Be terse.\n\n{written}"}
    assert encode_request(request, MODELS[2])["input"] == {
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Ho"},
            {"role": "user", "content": "?"},
        ]
    }
    alone = m.GenerateRequest(messages=[TURNS[0], TURNS[1]])
    assert encode_request(alone, MODELS[2])["input"] == {"prompt": "Hi", "system_prompt": "Be terse."}


VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


@pytest.mark.parametrize(
    ("model", "path", "schema", "version"),
    [
        ("meta/llama", "/v1/models/meta/llama/predictions", "/v1/models/meta/llama", None),
        (f"meta/llama:{VERSION}", "/v1/predictions", f"/v1/models/meta/llama/versions/{VERSION}", VERSION),
        (VERSION, "/v1/predictions", None, VERSION),
        ("deployments/house/llama", "/v1/deployments/house/llama/predictions", None, None),
        ("a?b/c#d", "/v1/models/a%3Fb/c%23d/predictions", "/v1/models/a%3Fb/c%23d", None),
    ],
)
def test_a_model_name_gives_its_paths_and_version(
    model: str, path: str, schema: str | None, version: str | None
) -> None:
    assert (predictions_path(model), schema_path(model)) == (path, schema)
    assert encode_request(m.GenerateRequest(model=model, prompt="Hi")).get("version") == version


@pytest.mark.parametrize("model", ["llama", "a/b/c", "/", "a/", ""])
def test_an_invalid_model_name_raises(model: str) -> None:
    with pytest.raises(InvalidOption, match="owner/name"):
        predictions_path(model)


# Errors


@pytest.mark.parametrize(
    ("words", "cls", "code", "retryable"),
    [
        ("E6716: Unexpected error", ServerFailed, "E6716", True),
        ("Prediction interrupted; please retry (code: PA)", ServerFailed, "PA", True),
        ("The model ran out of memory (E1001)", ServerFailed, "E1001", False),
        ("'int' object is not iterable", ServerFailed, None, False),
        ("The input or output was flagged as sensitive. (E005)", ContentFiltered, None, False),
    ],
)
def test_a_failed_prediction_is_classified_by_its_error_code(
    words: str, cls: type[ProviderError], code: str | None, retryable: bool
) -> None:
    half = m.GenerateResponse(text="Hel", request_id="p-1")
    with pytest.raises(cls) as caught:
        decode_response(encode_response(half, status="failed", error=words))
    error = caught.value
    assert words in error.message
    assert (getattr(error, "code", None), error.retryable, error.partial, error.request_id) == (
        code,
        retryable,
        "Hel",
        "p-1",
    )
    body = frame(("output", "Hel")) + frame(("error", json.dumps({"detail": words}))) + frame(("done", "{}"))
    with pytest.raises(cls) as caught:
        read([body])
    assert (caught.value.partial, words in caught.value.message) == ("Hel", True)


@pytest.mark.parametrize(
    ("headers", "body", "delay"),
    [
        ({}, {"retry_after": 5}, 5.0),
        ({"ratelimit-reset": "7"}, {"retry_after": 5}, 5.0),
        ({"Retry-After": "3", "ratelimit-reset": "7"}, {"retry_after": 5}, 3.0),
        ({"ratelimit-reset": "7"}, {"retry_after": None}, 7.0),
        ({"ratelimit-reset": "soon"}, {"retry_after": True}, None),
    ],
)
def test_a_rate_limit_gives_the_delay_of_body_or_header(
    headers: dict[str, str], body: dict[str, Any], delay: float | None
) -> None:
    error = decode_error(429, headers, dumps({"detail": "Request was throttled.", "status": 429, **body}))
    assert (type(error), error.retryable, error.retry_after) == (RateLimited, True, delay)
    assert decode_error(404, headers, b"{}").retry_after == (3.0 if "Retry-After" in headers else None)


@pytest.mark.parametrize("word", ["canceled", "aborted"])
def test_a_cancelled_prediction_is_truncated_and_not_retryable(word: str) -> None:
    half = m.GenerateResponse(text="Hel", request_id="p-1")
    with pytest.raises(TruncatedReply, match=word) as caught:
        decode_response(encode_response(half, status=word))
    assert (caught.value.partial, caught.value.retryable) == ("Hel", False)
    with pytest.raises(TruncatedReply) as caught:
        read([frame(("output", "Hel")) + frame(("done", json.dumps({"reason": word})))])
    assert (caught.value.partial, caught.value.retryable) == ("Hel", False)


def test_an_answer_of_max_tokens_has_the_finish_reason_length() -> None:
    answer = m.GenerateResponse(text="One two", request_id="p", usage=m.Usage(input_tokens=3, output_tokens=2))
    payload = encode_response(answer)
    assert decode_response(payload).finish_reason == "stop"
    assert decode_response(payload, max_tokens=3).finish_reason == "stop"
    assert decode_response(payload, max_tokens=2).finish_reason == "length"


# Recorded predictions

INDEX = json.loads((SAMPLES / "INDEX.json").read_text()) if SAMPLES.is_dir() else []
ROWS = [row for row in INDEX if row["file"].startswith("replicate/")]


def named(rows: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[row["file"] for row in rows])


def reply(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads((SAMPLES / row["file"]).read_text())["response"]


@needs_samples
@named([row for row in ROWS if row["status"] < 400 and not row["body_file"] and "error_in_200" not in row["kinds"]])
def test_a_recorded_prediction_is_decoded(row: dict[str, Any]) -> None:
    body = reply(row)["body"]
    found = read_prediction(loads(dumps(body)))
    kind = row["kinds"][0].removeprefix("prediction_")
    assert (found.id, found.status) == (body["id"], kind.removesuffix("_list_output"))
    assert found.ended is (kind in ("succeeded", "canceled"))
    assert found.text == ("".join(body["output"]) if body.get("output") else None)
    assert found.stream_url == body["urls"].get("stream")
    if kind == "canceled":
        with pytest.raises(TruncatedReply):
            decode_response(body)
    else:
        response = decode_response(body)
        assert (response.text, response.model, response.request_id) == (found.text, body["model"], body["id"])
        assert response.finish_reason == ("stop" if kind == "succeeded" else None)


@pytest.mark.slow
@needs_samples
@named([row for row in ROWS if row["body_file"]])
def test_a_recorded_stream_is_decoded_wherever_it_is_cut(row: dict[str, Any]) -> None:
    body = (SAMPLES / row["file"]).parent.joinpath(Path(row["body_file"]).name).read_bytes()
    whole = read([body])
    assert whole.text is not None
    assert whole.text.startswith("Sure, here's a joke about OpenTelemetry:\n\nWhy did the OpenTelemetry agent go")
    assert whole.text.endswith('"disconnected" from its trace!\n\nI hope that brought a smile to your face!'
                               " Is there anything else I can assist you with?")  # fmt: skip
    assert whole.finish_reason == "stop"
    assert read([body[at : at + 1] for at in range(len(body))]) == whole
    for cut in range(1, len(body)):
        assert read([body[:cut], body[cut:]]) == whole


@needs_samples
@named([row for row in ROWS if row["status"] >= 400 or "error_in_200" in row["kinds"]])
def test_a_recorded_error_has_its_class_retryable_flag_and_delay(row: dict[str, Any]) -> None:
    answer = reply(row)
    if row["status"] < 400:
        with pytest.raises(ServerFailed, match="E6716") as caught:
            decode_response(answer["body"])
        error: ProviderError = caught.value
    else:
        error = decode_error(answer["status"], answer["headers"], dumps(answer["body"]))
        assert answer["body"]["detail"].split()[1] in error.message
    table: dict[int, tuple[type[ProviderError], bool, float | None]] = {
        200: (ServerFailed, True, None),
        402: (OutOfCredit, False, None),
        422: (RequestRejected, False, None),
        429: (RateLimited, True, 5.0),
    }
    assert (type(error), error.retryable, error.retry_after) == table[row["status"]]


@cache
def checker(name: str) -> Any:
    def refuse(uri: str) -> Any:
        raise AssertionError(f"a schema wants to fetch {uri}")

    schema = json.loads((ORACLES / "specs" / "derived" / f"replicate.{name}.request.schema.json").read_text())
    return jsonschema_rs.validator_for(schema, retriever=refuse)


@needs_samples
@examples(20)
@given(strategies.representable("replicate"), inputs)
def test_any_request_meets_the_schema(request: m.GenerateRequest, model: ModelInputs) -> None:
    payload = loads(dumps(encode_request(request, model)))
    assert [error.message for error in checker("prediction").iter_errors(payload)] == []
    pinned = loads(dumps(encode_request(request, model, model=f"house/model:{VERSION}")))
    assert [error.message for error in checker("version_prediction").iter_errors(pinned)] == []


@needs_samples
def test_a_request_equals_that_of_the_official_client() -> None:
    asked = json.loads((ORACLES / "sdk_requests" / "replicate" / "version.json").read_text())["request"]
    request = m.GenerateRequest(model=f"any/body:{asked['body']['version']}", prompt="Hi")
    assert (predictions_path(request.model or ""), encode_request(request)) == (asked["path"], asked["body"])
