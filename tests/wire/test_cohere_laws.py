"""The five laws of a dialect, stated for Cohere's."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_council import models as m
from llm_council._wire.cohere import (
    DONE,
    ChatStream,
    decode_error,
    decode_request,
    decode_response,
    encode_events,
    encode_request,
    encode_response,
    frame,
)
from llm_council._wire.payloads import dumps, loads
from llm_council.errors import ApiError, InvalidOption, MalformedReply, ProviderError, TruncatedReply
from llm_council.testing import strategies


@settings(max_examples=20)
@given(strategies.representable("cohere"))
def test_a_payload_is_a_fixed_point(request: m.GenerateRequest) -> None:
    payload = encode_request(request)
    assert encode_request(decode_request(loads(dumps(payload)))) == payload


@settings(max_examples=20)
@given(strategies.representable("cohere"))
def test_the_facts_of_a_request_come_back(request: m.GenerateRequest) -> None:
    again = decode_request(encode_request(request))
    assert [(turn.role, turn.text) for turn in again.messages] == [(turn.role, turn.text) for turn in request.messages]
    assert [turn.tool_calls for turn in again.messages] == [turn.tool_calls for turn in request.messages]
    assert [turn.tool_call_id for turn in again.messages] == [turn.tool_call_id for turn in request.messages]
    for name in ("model", "stream", "max_tokens", "temperature", "top_p", "stop", "reasoning", "extra"):
        assert getattr(again, name) == getattr(request, name)
    assert [tool.parameters for tool in again.tools] == [tool.parameters for tool in request.tools]
    schemas = [one and one.json_schema for one in (again.structured_output, request.structured_output)]
    assert schemas[0] == schemas[1]


@settings(max_examples=20)
@given(strategies.requests())
def test_any_request_at_all_is_encoded_and_read_again_or_refused(request: m.GenerateRequest) -> None:
    try:
        payload = encode_request(attrs.evolve(request, extra={}))
        again = decode_request(loads(dumps(payload)))
    except (InvalidOption, MalformedReply):
        return  # a tool's result without an id, or instructions and nothing else
    assert encode_request(again) == payload


@settings(max_examples=20)
@given(strategies.replies("cohere"))
def test_a_reply_comes_back(response: m.GenerateResponse) -> None:
    payload = encode_response(response)
    assert decode_response(loads(dumps(payload))) == attrs.evolve(response, raw=payload)


def read(pieces: list[bytes]) -> m.GenerateResponse:
    stream = ChatStream()
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return m.join([*chunks, *stream.finish()])


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@settings(max_examples=20)
@given(strategies.replies("cohere"), st.integers(1, 9), st.lists(st.integers(0, 10**6), max_size=20), st.booleans())
def test_a_stream_is_the_whole_wherever_it_is_cut(
    response: m.GenerateResponse, size: int, cuts: list[int], ended: bool
) -> None:
    body = b"".join(frame(event) for event in encode_events(response, size=size)) + (DONE if ended else b"")
    joined = read(split(body, cuts))
    assert joined == attrs.evolve(response, text=response.text or None, content=response.text or None)
    assert read([dumps(encode_response(response))]) == joined  # a server that answers whole where a stream was asked


_keys = st.sampled_from(
    "id message content type text thinking tool_plan tool_calls function name arguments finish_reason usage tokens"
    " billed_units cached_tokens input_tokens delta index citations error role messages tools response_format"
    " json_schema stop_sequences p thinking token_budget image_url url tool_call_id stream model".split()
)
_leaves = strategies.json_values(leaves=2) | st.sampled_from(["text", "thinking", "COMPLETE", "user", 0, 1, -1, 2.5])
lookalikes = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5), max_leaves=15
)
KINDS = ["message-start", "content-start", "content-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta"]


def wrapped(value: Any) -> list[Any]:
    return [
        value,
        {"message": value},
        {"message": {"content": value, "tool_calls": value, "tool_plan": value}},
        {"message": {"content": [value], "tool_calls": [value]}, "finish_reason": value, "usage": value},
        {"message": {"tool_calls": [{"id": value, "function": {"name": "f", "arguments": value}}]}, "id": value},
        {"message": {}, "usage": {"tokens": value, "cached_tokens": value, "billed_units": value}},
        {"messages": [value]},
        {"messages": [{"role": "user", "content": value}], "tools": value, "thinking": value, "strict_tools": True},
        {"messages": [{"role": "user", "content": [value]}], "tools": [{"function": value}], "tool_choice": value},
        {"messages": [{"role": "assistant", "tool_calls": [value], "tool_plan": value}], "response_format": value},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": value}]}]},
        *({"type": kind, "index": value, "delta": value} for kind in KINDS),
        *({"type": kind, "delta": {"message": value}} for kind in KINDS),
        *({"type": kind, "delta": {"message": {"content": value, "tool_calls": value}}} for kind in KINDS),
        {"type": "message-end", "delta": {"finish_reason": value, "usage": value, "error": value}},
        {"type": value, "message": "x"},
    ]


@settings(max_examples=20)
@given(lookalikes)
def test_junk_is_read_or_refused_and_nothing_else(value: Any) -> None:
    for junk in wrapped(value):
        for decode in (decode_response, decode_request):
            with suppress(MalformedReply, ApiError):
                decode(junk)
        with suppress(MalformedReply, ApiError, TruncatedReply):
            read([b"data: " + dumps(junk) + b"\n\n", DONE])
        for status in (400, 404, 498, 500):
            assert isinstance(decode_error(status, {}, dumps(junk)), ProviderError)


@settings(max_examples=20)
@given(st.binary(max_size=80), st.integers(400, 599))
def test_any_body_of_a_refusal_is_read(body: bytes, status: int) -> None:
    assert decode_error(status, {}, body).message


@settings(max_examples=20)
@given(st.sampled_from([b"", b"{", b"data: ", b"data: {", b"event: "]), st.binary(max_size=40))
def test_any_bytes_are_a_stream_or_refused(head: bytes, body: bytes) -> None:
    def outcome(pieces: list[bytes]) -> Any:
        try:
            return read(pieces)
        except (MalformedReply, ApiError, TruncatedReply) as error:
            return type(error)

    whole = head + body
    assert outcome([whole[at : at + 1] for at in range(len(whole))]) == outcome([whole])
