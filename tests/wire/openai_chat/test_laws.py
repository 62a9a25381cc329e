"""The five laws of a dialect, stated over everything that hypothesis can think of."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import strategies
import wire_laws
from hypothesis import given
from hypothesis import strategies as st

from llm_council._wire import openai_chat
from llm_council._wire.openai_chat import ChatOptions, ChatStream, ChunkDecoder, encode_request
from llm_council._wire.payloads import dumps, loads
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.errors import MalformedReply
from llm_council.models import GenerateRequest, GenerateResponse, Message, ReasoningConfig, TextPart, join
from llm_council.testing._mirrors import openai_chat as mirror
from llm_council.testing._mirrors.openai_chat import DONE, decode_request, encode_chunks, frame

pytestmark = pytest.mark.slow

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
    ChatOptions(vendor="openai", echo="content"),
]


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


def body_of(response: GenerateResponse, size: int) -> bytes:
    return b"".join(frame(event) for event in encode_chunks(response, size=size)) + DONE


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
    found = [event for piece in wire_laws.split(body, cuts) for event in splitter.feed(piece)]
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

    assert outcome(wire_laws.split(body, cuts)) == outcome([body])


lookalikes = wire_laws.lookalikes(
    "choices message delta content tool_calls function name arguments usage cost error code type index id model"
    " reasoning reasoning_details finish_reason metadata raw refusal text prompt_tokens prompt_tokens_details"
    " cost_details is_byok annotations object detail status role messages stop tools tool_choice response_format"
    " stream stream_options image_url url cache_control ttl function_call",
    ["text", "image_url", "stop", "error", "reasoning.text", "user", "function", 0, 1, -1, 2.5, "data:x", "{"],
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


def decode_event(junk: Any, options: ChatOptions) -> None:
    decoder = ChunkDecoder(options)
    decoder.feed(SseEvent(dumps(junk).decode()))
    join(decoder.finish())


@given(st.binary(max_size=80))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        value = loads(body)
    except MalformedReply:
        return
    assert loads(dumps(value)) == value


class TestLaws(wire_laws.DialectLaws):
    dialect = wire_laws.Dialect(
        codec=openai_chat,
        mirror=mirror,
        stream=ChatStream,
        requests=strategies.representable("openai"),
        replies=strategies.replies("openai"),
        bodies=lambda response, size: [body_of(response, size)],
        alike=lookalikes,
        wrapped=wrapped,
        unsaid={"structured", "attempts", "adjustments", "raw"},
        options=SERVERS,
        flagged=True,
        any_turn=lambda turn: attrs.evolve(turn, tool_call_id=turn.tool_call_id or "call"),
        feed=decode_event,
        odd=[10**400, {"type": "image_url", "image_url": {"url": "data:nonsense"}}],
        heads=[b"", b"data: ", b"data: {", b"{"],
    )
