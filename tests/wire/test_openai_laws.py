"""The five laws of a dialect, stated over everything that hypothesis can think of."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from llm_council._wire.openai import (
    DONE,
    ChatOptions,
    ChatStream,
    ChunkDecoder,
    decode_error,
    decode_request,
    decode_response,
    encode_chunks,
    encode_request,
    encode_response,
    frame,
)
from llm_council._wire.payloads import dumps, loads
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.errors import ApiError, MalformedReply, TruncatedReply
from llm_council.models import GenerateRequest, GenerateResponse, Message, ReasoningConfig, TextPart, join
from llm_council.testing import strategies

SERVERS = [
    ChatOptions(),
    ChatOptions(max_tokens_field="max_completion_tokens", system_role="developer", developer_role="developer"),
    ChatOptions(vendor="openai", reasoning="object", echo="reasoning_details", cache_control=True),
    ChatOptions(reasoning="vllm", echo="reasoning", stream_usage=False, schema="json_object"),
    ChatOptions(
        reasoning="none",
        echo="reasoning_content",
        schema="none",
        body={"top_k": 3},
        system_role="user",
        developer_role="user",
    ),
]
servers = st.sampled_from(SERVERS)


@given(strategies.representable("openai"), servers, st.booleans())
def test_a_payload_is_a_fixed_point(request: GenerateRequest, options: ChatOptions, stream: bool) -> None:
    payload = encode_request(request, options, stream=stream)
    assert encode_request(decode_request(payload, options), options) == payload


KNOWS_ALL = ChatOptions(
    reasoning="vllm", echo="reasoning_details", cache_control=True, developer_role="developer", max_tokens_field="limit"
)


@given(strategies.representable("openai"), st.booleans())
def test_a_request_comes_back(request: GenerateRequest, stream: bool) -> None:
    again = decode_request(encode_request(request, KNOWS_ALL, stream=stream), KNOWS_ALL)
    assert [facts_of(turn) for turn in again.messages] == [facts_of(turn) for turn in request.turns()]
    asked = attrs.evolve(request, stream=stream, messages=again.messages)
    if request.reasoning is not None and request.reasoning == ReasoningConfig():
        asked = attrs.evolve(asked, reasoning=None)  # it asks for nothing
    assert again == asked


def facts_of(turn: Message) -> Any:
    """What a turn says, however its text is cut into parts."""
    parts = () if isinstance(turn.content, str) else turn.content
    others = [part for part in parts if not isinstance(part, TextPart)]
    marks = [part.text for part in parts if isinstance(part, TextPart) and part.cache]
    return turn.role, turn.text, others, marks, turn.name, turn.tool_calls, turn.tool_call_id


@given(strategies.requests(), servers)
def test_any_request_at_all_is_encoded_and_read_again(request: GenerateRequest, options: ChatOptions) -> None:
    turns = [attrs.evolve(turn, tool_call_id=turn.tool_call_id or "call") for turn in request.turns()]
    payload = encode_request(attrs.evolve(request, messages=turns, extra={}), options)
    loads(dumps(payload))
    try:
        again = decode_request(payload, options)
    except MalformedReply:
        return  # a role or a content that no reader takes
    assert encode_request(again, options) == payload


@given(strategies.replies("openai"))
def test_a_reply_comes_back(response: GenerateResponse) -> None:
    payload = encode_response(response)
    assert decode_response(loads(dumps(payload))) == attrs.evolve(response, raw=payload)


def body_of(response: GenerateResponse, size: int) -> bytes:
    return b"".join(frame(event) for event in encode_chunks(response, size=size)) + DONE


def read(pieces: list[bytes]) -> GenerateResponse:
    stream = ChatStream()
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [body[start:end] for start, end in pairwise(places)]


@given(strategies.replies("openai"), st.integers(1, 9), st.lists(st.integers(0, 10**6), max_size=20))
def test_a_stream_is_the_whole_wherever_it_is_cut(response: GenerateResponse, size: int, cuts: list[int]) -> None:
    body = body_of(response, size)
    joined = read(split(body, cuts))
    whole = decode_response(encode_response(response))
    assert joined == attrs.evolve(whole, raw=None, text=whole.text or None, content=whole.text or None)
    assert joined == read([body])


@st.composite
def framings(draw: st.DrawFn) -> tuple[list[tuple[str, str | None]], bytes]:
    """Events, and one of the many ways to write them."""
    text = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=8)
    events = draw(st.lists(st.tuples(st.lists(text, min_size=1, max_size=3), st.none() | text), max_size=4))
    out = bytearray(draw(st.sampled_from([b"", b"\xef\xbb\xbf"])))
    # A lone CR before a line that begins with LF would be one line end: one kind of end per stream.
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    noise = st.sampled_from([b": ping", b":", b"id: 7", b"retry: 100", b"unknown", b"unknown: field"])
    for lines, name in events:
        for extra in draw(st.lists(noise, max_size=2)):
            out += extra + end
        if name is not None:
            out += b"event: " + name.encode() + end
        for line in lines:
            space = b" " if line.startswith(" ") or draw(st.booleans()) else b""
            out += b"data:" + space + line.encode() + end
        out += end
    return [("\n".join(lines), name or None) for lines, name in events], bytes(out)


@given(framings(), st.lists(st.integers(0, 10**6), max_size=20))
def test_events_do_not_depend_on_how_the_bytes_arrive(
    framing: tuple[list[tuple[str, str | None]], bytes], cuts: list[int]
) -> None:
    events, body = framing
    splitter = SseSplitter()
    found = [event for piece in split(body, cuts) for event in splitter.feed(piece)]
    assert [*found, *splitter.finish()] == [SseEvent(data, name) for data, name in events]


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_any_bytes_give_the_same_events_wherever_they_are_cut(body: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> Any:
        splitter = SseSplitter()
        try:
            found = [event for piece in pieces for event in splitter.feed(piece)]
            return [*found, *splitter.finish()], splitter.comments
        except MalformedReply:
            return None

    assert outcome(split(body, cuts)) == outcome([body])


# Values that look like replies get further into the decoders than random JSON does.
_keys = st.sampled_from(
    "choices message delta content tool_calls function name arguments usage cost error code type index id model"
    " reasoning reasoning_details finish_reason metadata raw refusal text prompt_tokens prompt_tokens_details"
    " cost_details is_byok annotations object detail status role messages stop tools tool_choice response_format"
    " stream stream_options image_url url cache_control ttl function_call".split()
)
_leaves = strategies.json_values(leaves=2) | st.sampled_from(
    ["text", "image_url", "stop", "error", "reasoning.text", "user", "function", 0, 1, -1, 2.5, "data:x", "{"]
)
lookalikes = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=5), max_leaves=20
)


def wrapped(value: Any) -> list[Any]:
    return [
        value,
        {"choices": value},
        {"choices": [value]},
        {"choices": [{"message": value, "delta": value, "finish_reason": "stop"}], "usage": value},
        {"choices": [{"message": {"content": value}, "delta": {"content": value}}]},
        {"choices": [{"message": {"tool_calls": [value]}, "delta": {"tool_calls": [value]}}]},
        {"choices": [{"message": {"tool_calls": [{"function": value}]}, "delta": {"reasoning_details": value}}]},
        {"messages": [value]},
        {"messages": [{"role": "user", "content": value}], "tools": value, "stop": value, "response_format": value},
        {"messages": [{"role": "user", "content": [value]}], "reasoning": value, "reasoning_effort": value},
        {"error": value},
        {"error": {"message": value, "code": value, "type": value, "metadata": value}},
    ]


@given(lookalikes)
@example(10**400)
@example({"type": "image_url", "image_url": {"url": "data:nonsense"}})
def test_junk_is_read_or_refused_and_nothing_else(value: Any) -> None:
    for junk in wrapped(value):
        for options in SERVERS:
            for decode in (decode_response, decode_request, decode_event):
                with suppress(MalformedReply, ApiError, TruncatedReply):
                    decode(junk, options)
        assert isinstance(decode_error(500, {}, dumps(junk)), ApiError)
        assert isinstance(decode_error(404, {}, dumps(junk)), ApiError)


def decode_event(junk: Any, options: ChatOptions) -> None:
    decoder = ChunkDecoder(options)
    decoder.feed(SseEvent(dumps(junk).decode()))
    join(decoder.finish())


@given(st.binary(max_size=80), st.integers(400, 599))
def test_any_body_of_a_refusal_is_read(body: bytes, status: int) -> None:
    error = decode_error(status, {}, body)
    assert error.status == status
    assert error.message


@given(st.binary(max_size=80))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    with suppress(MalformedReply):
        dumps(loads(body))


def test_the_laws_can_fail() -> None:
    """A decoder that forgot one fact would be found: the strategies do reach every field."""
    seen: set[str] = set()

    @given(strategies.replies("openai"))
    def look(response: GenerateResponse) -> None:
        seen.update(field.name for field in attrs.fields(GenerateResponse) if getattr(response, field.name))

    look()
    assert seen == {field.name for field in attrs.fields(GenerateResponse)} - {
        "structured",
        "attempts",
        "adjustments",
        "raw",
    }
