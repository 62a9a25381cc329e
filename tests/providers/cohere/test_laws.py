"""The five laws of a dialect, stated for Cohere's."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
import wire_laws
from hypothesis import given
from strategies import examples

from llm_council import models as m
from llm_council._wire.payloads import dumps
from llm_council.errors import ProviderError
from llm_council.providers import _cohere
from llm_council.providers._cohere import ChatStream, encode_request
from llm_council.testing._mirrors import cohere as mirror
from llm_council.testing._mirrors.cohere import DONE, decode_request, encode_events, encode_response, frame

pytestmark = pytest.mark.slow


@examples(20)
@given(strategies.representable("cohere"))
def test_the_facts_of_a_request_come_back(request: m.GenerateRequest) -> None:
    again = decode_request(encode_request(request))
    request = strategies.as_sent(request, "cohere")
    assert [(turn.role, turn.text) for turn in again.messages] == [(turn.role, turn.text) for turn in request.messages]
    assert [turn.tool_calls for turn in again.messages] == [turn.tool_calls for turn in request.messages]
    assert [turn.tool_call_id for turn in again.messages] == [turn.tool_call_id for turn in request.messages]
    for name in ("model", "stream", "max_tokens", "temperature", "top_p", "stop", "reasoning", "extra"):
        assert getattr(again, name) == getattr(request, name)
    assert [tool.parameters for tool in again.tools] == [tool.parameters for tool in request.tools]
    schemas = [one and one.json_schema for one in (again.structured_output, request.structured_output)]
    assert schemas[0] == schemas[1]


lookalikes = wire_laws.lookalikes(
    "id message content type text thinking tool_plan tool_calls function name arguments finish_reason usage tokens"
    " billed_units cached_tokens input_tokens delta index citations error role messages tools response_format"
    " json_schema stop_sequences p thinking token_budget image_url url tool_call_id stream model",
    ["text", "thinking", "COMPLETE", "user", 0, 1, -1, 2.5],
    most=15,
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


def bodies(response: m.GenerateResponse, size: int) -> list[bytes]:
    """Return the stream with and without ``[DONE]``, and the whole reply of a server that does not stream."""
    events = b"".join(frame(event) for event in encode_events(response, size=size))
    return [events, events + DONE, dumps(encode_response(response))]


class TestLaws(wire_laws.DialectLaws):
    dialect = wire_laws.Dialect(
        codec=_cohere,
        mirror=mirror,
        stream=ChatStream,
        requests=strategies.representable("cohere"),
        replies=strategies.replies("cohere"),
        bodies=bodies,
        alike=lookalikes,
        wrapped=wrapped,
        unsaid={"structured", "attempts", "adjustments", "raw", "cost", "refusal", "model"},
        refusable=lambda request: True,  # a tool's result without an id, or instructions and nothing else
        feed=lambda junk, _: TestLaws.dialect.read([b"data: " + dumps(junk) + b"\n\n", DONE]),
        refusal=ProviderError,
        statuses=(400, 404, 498, 500),
        odd=[{"type": ["text"]}],
        heads=[b"", b"{", b"data: ", b"data: {", b"event: "],
        examples=20,
    )
