"""The five laws of OpenAI's Responses dialect, stated over everything that hypothesis can think of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import attrs
import pytest
import strategies
import wire_laws
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples

from llm_council._wire import responses
from llm_council._wire.payloads import dumps
from llm_council._wire.responses import EventDecoder, ResponsesOptions, ResponseStream
from llm_council._wire.sse import SseEvent
from llm_council.errors import ApiError, MalformedReply, TruncatedReply
from llm_council.models import DocumentPart, GenerateRequest, GenerateResponse, ImagePart, Message, ReasoningPart, join
from llm_council.testing._mirrors import responses as mirror
from llm_council.testing._mirrors.responses import encode_events, frame

pytestmark = pytest.mark.slow

SERVERS = [
    ResponsesOptions(),
    ResponsesOptions(store=False, reasons=True),
    ResponsesOptions(store=False, summary="auto", body={"truncation": "auto"}),
    ResponsesOptions(store=True, system_role="system", effort=False, vendor="other"),
]
servers = st.sampled_from(SERVERS)


@examples(60)
@given(strategies.representable("responses"), st.booleans())
def test_a_request_comes_back(request: GenerateRequest, stream: bool) -> None:
    """Every fact of a request is in its payload: a field that the encoder forgets is missed here."""
    ids = [call.id for turn in request.turns() for call in turn.tool_calls]
    assume(len(ids) == len(set(ids)))  # the second call of an id gets one of its own
    again = mirror.decode_request(responses.encode_request(request, stream=stream))
    assert facts_of(again.messages) == facts_of(request.turns())
    asked = attrs.evolve(request, stream=stream, messages=again.messages)
    if request.max_tokens is not None:
        asked = attrs.evolve(asked, max_tokens=max(request.max_tokens, responses.LEAST_TOKENS))
    if request.reasoning is not None and request.reasoning.effort is None:
        asked = attrs.evolve(asked, reasoning=None)  # it asks for nothing
    assert again == asked


def facts_of(turns: Sequence[Message]) -> list[Any]:
    """What turns say, however the dialect cuts them.

    It knows no empty turns, no developer beside the system, and no bounds between the turns of a model.
    """
    instructions, found = "", list[Any]()
    for turn in turns:
        parts = [turn.content] if isinstance(turn.content, str) else turn.content
        images: list[Any] = [
            (part.url, part.data, part.detail or "auto") for part in parts if isinstance(part, ImagePart)
        ]
        images += [part for part in parts if isinstance(part, DocumentPart)]
        if turn.role in ("system", "developer"):
            instructions += turn.text
        elif turn.role == "assistant":
            found += [("reasoning", part.data) for part in parts if isinstance(part, ReasoningPart)]
            found += [("text", turn.text)] if turn.text else []
            found += [("call", call.id, call.name, call.arguments) for call in turn.tool_calls]
        elif turn.role == "tool" or turn.text or images:
            found.append((turn.role, turn.text, images, turn.tool_call_id))
    return [instructions.replace("\n\n", ""), found]


def body_of(response: GenerateResponse, size: int) -> bytes:
    return b"".join(frame(event) for event in encode_events(response, size=size))


@examples(20)
@given(strategies.replies("responses"))
def test_texts_that_no_piece_brought_are_taken_from_the_end(response: GenerateResponse) -> None:
    """Servers leave out pieces, ends of items, or all but the last event."""
    events = list(encode_events(response, size=4))
    whole = read([b"".join(map(frame, events))])
    for left_out in (".delta", ".done", "output_item.added", "output_item"):
        reasoning = [event for event in events[:-1] if left_out not in event["type"]]
        assert read([b"".join(map(frame, [*reasoning, events[-1]]))]) == whole
    assert read([frame(events[-1])]) == whole


@examples(20)
@given(strategies.replies("responses"))
def test_places_or_ids_of_items_may_be_left_out(response: GenerateResponse) -> None:
    events = list(encode_events(response, size=4))
    whole = read([b"".join(map(frame, events))])
    for key in ("item_id", "output_index"):
        assert read([frame({name: value for name, value in event.items() if name != key}) for event in events]) == whole


@examples(20)
@given(strategies.replies("responses"), st.integers(0, 10**6))
def test_a_stream_that_is_cut_off_is_never_taken_for_an_answer(response: GenerateResponse, cut: int) -> None:
    events = list(encode_events(response, size=4))
    body = b"".join(map(frame, events[:-1]))
    with pytest.raises(TruncatedReply):
        read([(body + frame(events[-1]).split(b"data:")[0])[: cut % len(body)]])


lookalikes = wire_laws.lookalikes(
    "output type message content text refusal function_call call_id name arguments reasoning summary encrypted_content"
    " status incomplete_details reason usage input_tokens input_tokens_details cached_tokens error code id model role"
    " input instructions tools tool_choice format schema strict include store effort output_index item_id item part"
    " content_index summary_index delta response annotations service_tier image_url detail phase",
    "message function_call reasoning output_text refusal input_text input_image function_call_output completed failed"
    " incomplete assistant user json_schema function {".split(),
)
EVENTS = [
    *(f"response.{word}" for word in "created completed incomplete failed".split()),
    *(f"response.output_item.{word}" for word in ("added", "done")),
    *(f"response.{kind}.{word}" for kind in ("output_text", "refusal", "reasoning_text") for word in ("delta", "done")),
    *(f"response.function_call_arguments.{word}" for word in ("delta", "done")),
    *(f"response.reasoning_summary_text.{word}" for word in ("delta", "done")),
    "response.content_part.done",
    "error",
]


def wrapped(value: Any) -> list[Any]:
    items = [{"type": word, "content": value, "summary": value, "name": "f", "arguments": value, "call_id": value}
             for word in ("message", "function_call", "reasoning")]  # fmt: skip
    return [
        value,
        {"output": value},
        {"output": [value], "usage": value, "status": value, "incomplete_details": value},
        *({"output": [item]} for item in items),
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": value, "annotations": value}]}]},
        {"output": [{"type": "message", "content": [value]}]},
        {"output": [], "error": value},
        {"output": [], "status": "failed", "error": value},
        {"input": value, "instructions": value},
        {"input": [value], "tools": value, "tool_choice": value, "text": value, "reasoning": value},
        {"input": [{"role": "user", "content": value}], "text": {"format": value}, "reasoning": {"effort": value}},
        {"input": [{"role": "assistant", "content": [value]}], "tools": [value], "include": value},
        {"input": [{"type": "function_call_output", "output": value, "call_id": value}, *items]},
    ]


@examples(30)
@given(lookalikes, st.lists(st.sampled_from(EVENTS), min_size=1, max_size=4))
def test_junk_events_are_read_or_raise_typed_errors(value: Any, names: list[str]) -> None:
    for inner in (
        value,
        {"type": "function_call", "name": "f", "arguments": value},
        {"type": "message", "content": value},
    ):
        decoder = EventDecoder()
        with suppress(MalformedReply, ApiError, TruncatedReply):
            for name in names:
                event = {"type": name, "item": inner, "part": inner, "response": inner, "delta": value, "text": value}
                decoder.feed(SseEvent(dumps({**event, "output_index": value, "arguments": value}).decode()))
                decoder.feed(SseEvent(dumps(value).decode(), name))
            assert isinstance(join(decoder.finish()), GenerateResponse)


class TestLaws(wire_laws.DialectLaws):
    dialect = wire_laws.Dialect(
        codec=responses,
        mirror=mirror,
        stream=ResponseStream,
        requests=strategies.representable("responses"),
        replies=strategies.replies("responses"),
        bodies=lambda response, size: [body_of(response, size)],
        alike=lookalikes,
        wrapped=wrapped,
        unsaid={"structured", "attempts", "adjustments", "raw"},
        options=SERVERS,
        flagged=True,
        any_turn=lambda turn: attrs.evolve(turn, tool_call_id=turn.tool_call_id or "call"),
        hostile=2,
        odd=[10**400, {"type": "input_image", "image_url": "data:nonsense"}],
        heads=[b"", b"data: ", b"data: {", b"event: response.created"],
        examples=30,
    )


read = TestLaws.dialect.read
