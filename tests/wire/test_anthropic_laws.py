"""The five laws of Anthropic's dialect, stated over everything that hypothesis can think of."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_council._wire.anthropic import (
    EventDecoder,
    MessagesOptions,
    MessageStream,
    decode_error,
    decode_request,
    decode_response,
    encode_events,
    encode_request,
    encode_response,
    frame,
)
from llm_council._wire.payloads import dumps, loads
from llm_council._wire.sse import SseEvent
from llm_council.errors import ApiError, InvalidOption, MalformedReply, TruncatedReply
from llm_council.models import GenerateRequest, GenerateResponse, join
from llm_council.testing import strategies

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
SCHEMA = SHARED / "oracles" / "specs" / "derived" / "anthropic.messages.request.schema.json"

SERVERS = [
    MessagesOptions(),
    MessagesOptions(thinking="budget", max_output=64_000),
    MessagesOptions(display="summarized", cache_control=False, body={"service_tier": "auto"}, max_tokens=4096),
    MessagesOptions(vendor="other", thinking="budget", max_output=1500),
]
servers = st.sampled_from(SERVERS)


@settings(max_examples=25)
@given(strategies.representable("anthropic"), servers, st.booleans())
def test_a_payload_is_a_fixed_point(request: GenerateRequest, options: MessagesOptions, stream: bool) -> None:
    payload = encode_request(request, options, stream=stream)
    assert encode_request(decode_request(payload, options), options) == payload


@settings(max_examples=25)
@given(strategies.requests(), servers)
def test_any_request_at_all_is_encoded_and_read_again(request: GenerateRequest, options: MessagesOptions) -> None:
    turns = [attrs.evolve(turn, tool_call_id=turn.tool_call_id or "call") for turn in request.turns()]
    try:
        payload = encode_request(attrs.evolve(request, messages=turns, extra={}), options)
    except InvalidOption:
        assert not any(turn.content or turn.tool_calls for turn in turns if turn.role in ("user", "tool"))
        return
    loads(dumps(payload))
    try:
        again = decode_request(payload, options)
    except MalformedReply:
        return  # a content that no reader takes
    assert encode_request(again, options) == payload


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
def test_any_request_meets_the_vendors_schema() -> None:
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))  # closed at every level

    @settings(max_examples=20)
    @given(strategies.representable("anthropic"), servers, st.booleans())
    def check(request: GenerateRequest, options: MessagesOptions, stream: bool) -> None:
        payload = loads(dumps(encode_request(request, options, stream=stream)))
        assert [error.message for error in schema.iter_errors(payload)] == []

    check()


@given(strategies.replies("anthropic"))
def test_a_reply_comes_back(response: GenerateResponse) -> None:
    payload = encode_response(response)
    assert decode_response(loads(dumps(payload))) == attrs.evolve(response, raw=payload)


def body_of(response: GenerateResponse, size: int) -> bytes:
    return b"".join(frame(event) for event in encode_events(response, size=size))


def read(pieces: list[bytes]) -> GenerateResponse:
    stream = MessageStream()
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@given(strategies.replies("anthropic"), st.integers(1, 9), st.lists(st.integers(0, 10**6), max_size=20))
def test_a_stream_is_the_whole_wherever_it_is_cut(response: GenerateResponse, size: int, cuts: list[int]) -> None:
    body = body_of(response, size)
    joined = read(split(body, cuts))
    whole = decode_response(encode_response(response))
    assert joined == attrs.evolve(whole, raw=None, text=whole.text or None, content=whole.text or None)
    assert joined == read([body])


@given(strategies.replies("anthropic"), st.integers(0, 10**6))
def test_a_stream_that_is_cut_off_is_never_taken_for_an_answer(response: GenerateResponse, cut: int) -> None:
    body = body_of(response, 4)
    end = body.index(b"event: message_delta")
    with pytest.raises((TruncatedReply, MalformedReply)):
        read([body[: cut % end]])


_keys = st.sampled_from(
    "type message content content_block delta index text thinking signature data id name input usage input_tokens"
    " output_tokens_details stop_reason stop_details explanation error code role model source url media_type"
    " tool_use_id messages system tools tool_choice output_config format schema effort cache_control ttl partial_json"
    " citation citations max_tokens budget_tokens stream stop_sequences request_id container".split()
)
_leaves = strategies.json_values(leaves=2) | st.sampled_from(
    "text thinking tool_use tool_result image message error refusal disabled enabled adaptive json_schema tool any user"
    " message_start content_block_start content_block_delta message_delta text_delta input_json_delta {".split()
)
lookalikes = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5), max_leaves=20
)
EVENTS = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error"]
STARTS = ["text", "thinking", "tool_use", "redacted_thinking", "server_tool_use"]
DELTAS = ["text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta", "novel_delta"]


def wrapped(value: Any) -> list[Any]:
    return [
        value,
        {"content": value},
        {"content": [value], "usage": value, "stop_details": value, "stop_reason": value},
        *({"content": [{"type": word, "text": value, "thinking": value, "input": value}]} for word in STARTS),
        {"messages": value, "system": value},
        {"messages": [value], "system": [value]},
        {"messages": [{"role": "user", "content": value}], "tools": value, "tool_choice": value, "thinking": value},
        {"messages": [{"role": "user", "content": [value]}], "output_config": value, "cache_control": value},
        {
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": value,
            "tools": [value],
            "stop_sequences": value,
        },
        {"messages": [{"role": "user", "content": "x"}], "thinking": {"type": "enabled", "budget_tokens": value}},
        {"error": value},
        {"type": "error", "error": {"message": value, "type": value}, "request_id": value},
    ]


@settings(max_examples=25)
@given(lookalikes)
@example(10**400)
@example({"type": "image", "source": {"url": "data:nonsense"}})
def test_junk_is_read_or_refused_and_nothing_else(value: Any) -> None:
    for junk in wrapped(value):
        for options in SERVERS[:2]:
            for decode in (decode_response, decode_request, decode_event):
                with suppress(MalformedReply, ApiError, TruncatedReply):
                    decode(junk, options)
        assert isinstance(decode_error(500, {}, dumps(junk)), ApiError)
        assert isinstance(decode_error(404, {}, dumps(junk)), ApiError)


@given(lookalikes, st.sampled_from(STARTS), st.sampled_from(DELTAS))
def test_junk_events_are_read_or_refused_and_nothing_else(value: Any, start: str, delta: str) -> None:
    key = {"text_delta": "text", "input_json_delta": "partial_json", "citations_delta": "citation"}.get(
        delta, delta[:-6]
    )
    for inner in (
        value,
        {"type": start, "name": "f", "input": value, "citations": value},
        {"type": start, "id": value},
    ):
        with suppress(MalformedReply, ApiError, TruncatedReply):
            decoder = EventDecoder()
            feed(decoder, {"type": "message_start", "message": inner})
        with suppress(MalformedReply, ApiError, TruncatedReply):
            decoder = EventDecoder()
            feed(decoder, {"type": "content_block_start", "index": 0, "content_block": inner})
            feed(decoder, {"type": "content_block_delta", "index": 0, "delta": {"type": delta, key: value}})
            feed(decoder, {"type": "content_block_delta", "index": value, "delta": value})
            feed(decoder, {"type": "content_block_stop", "index": value})
            feed(decoder, {"type": "message_delta", "delta": {"stop_reason": value}, "usage": value})
            join(decoder.finish())


def feed(decoder: EventDecoder, value: Any) -> None:
    decoder.feed(SseEvent(dumps(value).decode()))


def decode_event(junk: Any, options: MessagesOptions) -> None:
    for name in EVENTS:
        with suppress(MalformedReply, ApiError):
            EventDecoder(options).feed(SseEvent(dumps(junk).decode(), name))
    decoder = EventDecoder(options)
    feed(decoder, junk)
    join(decoder.finish())


@given(st.binary(max_size=80), st.integers(400, 599))
def test_any_body_of_a_refusal_is_read(body: bytes, status: int) -> None:
    error = decode_error(status, {}, body)
    assert error.status == status
    assert error.message


def test_the_laws_can_fail() -> None:
    """A decoder that forgot one fact would be found: the strategies do reach every field."""
    seen: set[str] = set()

    @given(strategies.replies("anthropic"))
    def look(response: GenerateResponse) -> None:
        seen.update(field.name for field in attrs.fields(GenerateResponse) if getattr(response, field.name))

    look()
    unknown = {"structured", "attempts", "adjustments", "raw", "cost"}
    assert seen == {field.name for field in attrs.fields(GenerateResponse)} - unknown
