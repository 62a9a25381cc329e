"""The five laws of Anthropic's dialect, for generated requests and answers."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import jsonschema_rs
import pytest
import strategies
import wire_laws
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._wire.payloads import dumps, loads
from llm_council._wire.sse import SseEvent
from llm_council.errors import ApiError, MalformedReply, TruncatedReply
from llm_council.models import (
    DocumentPart,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    ReasoningConfig,
    ReasoningPart,
    TextPart,
    join,
)
from llm_council.providers import _anthropic
from llm_council.providers._anthropic import MessagesOptions, MessageStream, encode_request
from llm_council.providers._anthropic.stream import EventDecoder
from llm_council.testing._mirrors import anthropic
from llm_council.testing._mirrors.anthropic import decode_request, encode_events, frame

pytestmark = pytest.mark.slow

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[4] / "shared")
SCHEMA = SHARED / "oracles" / "specs" / "derived" / "anthropic.messages.request.schema.json"

SERVERS = [
    MessagesOptions(),
    MessagesOptions(thinking="budget", max_output=64_000),
    MessagesOptions(display="summarized", cache_control=False, body={"service_tier": "auto"}, max_tokens=4096),
    MessagesOptions(vendor="other", thinking="budget", max_output=1500),
]
servers = st.sampled_from(SERVERS)


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
def test_any_request_meets_the_vendors_schema() -> None:
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))  # closed at every level

    @examples(20)
    @given(strategies.representable("anthropic"), servers, st.booleans())
    def check(request: GenerateRequest, options: MessagesOptions, stream: bool) -> None:
        payload = loads(dumps(encode_request(request, options, stream=stream)))
        assert [error.message for error in schema.iter_errors(payload)] == []

    check()


def expected_reasoning(request: GenerateRequest) -> ReasoningConfig | None:
    """Return the reasoning settings that a model with adaptive thinking takes."""
    config = request.reasoning
    if config is None or config.effort == "none":
        return config and ReasoningConfig(effort="none")
    budget = config.budget_tokens
    if budget is not None:
        budget = max(budget, 1024)
        if request.max_tokens is not None and budget >= request.max_tokens:
            budget = request.max_tokens // 2 if request.max_tokens >= 2048 else None
    effort = "low" if config.effort == "minimal" else config.effort
    return ReasoningConfig(effort=effort, budget_tokens=budget) if effort or budget else None


def parts_of(request: GenerateRequest, *roles: str) -> list[Any]:
    """Return the parts of these roles' turns, texts included."""
    turns = [turn for turn in request.messages if turn.role in roles]
    return [
        part
        for turn in turns
        for part in ([TextPart(text=turn.content)] if isinstance(turn.content, str) else turn.content)
        if not isinstance(part, TextPart) or part.text.strip()
    ]


@given(strategies.representable("anthropic"))
def test_the_facts_of_a_request_come_back(request: GenerateRequest) -> None:
    again = decode_request(encode_request(request))
    request = strategies.as_sent(request, "anthropic")
    for name in ("model", "stream", "temperature", "top_p", "stop", "prompt_cache"):
        assert getattr(again, name) == getattr(request, name)
    if request.max_tokens is not None:
        assert again.max_tokens == request.max_tokens
    assert again.reasoning == expected_reasoning(request)
    assert [(tool.name, tool.description, tool.strict, tool.parameters) for tool in again.tools] == [
        (tool.name, tool.description, tool.strict, {"type": "object", **tool.parameters}) for tool in request.tools
    ]
    if request.tools:
        assert again.tool_choice == request.tool_choice
    wanted = request.structured_output
    assert (again.structured_output and again.structured_output.json_schema) == (wanted and wanted.json_schema)
    for role in ("user", "assistant", "tool"):
        found, sent = parts_of(again, role), parts_of(request, role)
        for kind in (ImagePart, DocumentPart, ReasoningPart):
            assert [part for part in found if isinstance(part, kind)] == [
                part for part in sent if isinstance(part, kind)
            ]
        for is_cached in (True, False):
            texts = [
                "".join(part.text for part in parts if isinstance(part, TextPart) and part.cache is is_cached)
                for parts in (found, sent)
            ]
            assert texts[0] == texts[1]
    instructions = "".join(part.text for part in parts_of(again, "system"))
    for part in parts_of(request, "system", "developer"):
        assert part.text in instructions
    calls = [
        [(call.id, call.name, call.arguments) for turn in found.messages for call in turn.tool_calls]
        for found in (again, request)
    ]
    assert calls[0] == calls[1]
    results = [[turn.tool_call_id for turn in found.messages if turn.role == "tool"] for found in (again, request)]
    assert results[0] == results[1]
    assert {key: again.extra[key] for key in request.extra} == request.extra


def body_of(response: GenerateResponse, size: int) -> bytes:
    return b"".join(frame(event) for event in encode_events(response, size=size))


@given(strategies.replies("anthropic"), st.integers(0, 10**6))
def test_a_stream_that_is_cut_off_is_never_a_complete_answer(response: GenerateResponse, cut: int) -> None:
    body = body_of(response, 4)
    end = body.index(b"event: message_delta")
    with pytest.raises((TruncatedReply, MalformedReply)):
        TestLaws.dialect.read([body[: cut % end]])


lookalikes = wire_laws.lookalikes(
    "type message content content_block delta index text thinking signature data id name input usage input_tokens"
    " output_tokens_details stop_reason stop_details explanation error code role model source url media_type"
    " tool_use_id messages system tools tool_choice output_config format schema effort cache_control ttl partial_json"
    " citation citations max_tokens budget_tokens stream stop_sequences request_id container",
    "text thinking tool_use tool_result image message error refusal disabled enabled adaptive json_schema tool any user"
    " message_start content_block_start content_block_delta message_delta text_delta input_json_delta {".split(),
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


@given(lookalikes, st.sampled_from(STARTS), st.sampled_from(DELTAS))
def test_any_json_in_events_is_decoded_or_raises_a_provider_error(value: Any, start: str, delta: str) -> None:
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
            piece = feed(decoder, {"type": "message_start", "message": inner})
            assert piece is None or isinstance(piece, GenerateChunk)
        with suppress(MalformedReply, ApiError, TruncatedReply):
            decoder = EventDecoder()
            feed(decoder, {"type": "content_block_start", "index": 0, "content_block": inner})
            feed(decoder, {"type": "content_block_delta", "index": 0, "delta": {"type": delta, key: value}})
            feed(decoder, {"type": "content_block_delta", "index": value, "delta": value})
            feed(decoder, {"type": "content_block_stop", "index": value})
            feed(decoder, {"type": "message_delta", "delta": {"stop_reason": value}, "usage": value})
            assert isinstance(join(decoder.finish()), GenerateResponse)


def feed(decoder: EventDecoder, value: Any) -> GenerateChunk | str | None:
    return decoder.feed(SseEvent(dumps(value).decode()))


def decode_event(junk: Any, options: MessagesOptions) -> None:
    for name in EVENTS:
        with suppress(MalformedReply, ApiError):
            EventDecoder(options).feed(SseEvent(dumps(junk).decode(), name))
    decoder = EventDecoder(options)
    feed(decoder, junk)
    join(decoder.finish())


class TestLaws(wire_laws.DialectLaws):
    dialect = wire_laws.Dialect(
        codec=_anthropic,
        mirror=anthropic,
        stream=MessageStream,
        requests=strategies.representable("anthropic"),
        replies=strategies.replies("anthropic"),
        bodies=lambda response, size: [body_of(response, size)],
        alike=lookalikes,
        wrapped=wrapped,
        unsaid={"structured", "attempts", "adjustments", "raw", "cost"},
        options=SERVERS,
        flagged=True,
        any_turn=lambda turn: attrs.evolve(turn, tool_call_id=turn.tool_call_id or "call"),
        feed=decode_event,
        hostile=2,
        odd=[10**400, {"type": "image", "source": {"url": "data:nonsense"}}],
        heads=[b"", b"data: ", b"data: {", b"event: message_start"],
        examples=25,
    )
