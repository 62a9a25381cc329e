"""Requests and answers that a dialect expresses without loss."""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llm_council import models as m
from llm_council._wire.history import CallIds, fit_history
from strategies._anthropic import anthropic_replies, anthropic_requests
from strategies._hosted import REPLIES, REQUESTS
from strategies._models import (
    bounds,
    conversations,
    images,
    pdfs,
    reasoning_configs,
    recordings,
    structured_outputs,
    with_tools,
)
from strategies._responses import responses_replies, responses_requests
from strategies._values import (
    json_objects,
    maybe,
    texts,
    words,
)

_REQUESTS = {**REQUESTS, "anthropic": anthropic_requests, "responses": responses_requests}
_REPLIES = {**REPLIES, "anthropic": anthropic_replies, "responses": responses_replies}


def as_sent(request: m.GenerateRequest, vendor: str, ids: CallIds | None = None) -> m.GenerateRequest:
    """Return a request with the turns that are sent: every id is unique, and no answer is blank."""
    return attrs.evolve(request, messages=fit_history(request.turns(), vendor=vendor, ids=ids or CallIds()))


def reasoning_details(vendor: str) -> SearchStrategy[list[m.ReasoningPart]]:
    """Return the blocks of one answer as gateways of the OpenAI dialect write them."""

    def part(index: int, kind: str, text: str, signature: str | None) -> m.ReasoningPart:
        key = {"reasoning.text": "text", "reasoning.summary": "summary", "reasoning.encrypted": "data"}[kind]
        data: dict[str, Any] = {"type": kind, key: text, "format": "unknown", "index": index}
        if signature and kind == "reasoning.text":
            data["signature"] = signature
        return m.ReasoningPart(
            text="" if key == "data" else text, signature=data.get("signature"), vendor=vendor, data=data
        )

    kinds = st.sampled_from(["reasoning.text", "reasoning.summary", "reasoning.encrypted"])
    blocks = st.lists(st.tuples(kinds, st.text(min_size=1, max_size=20), maybe(words)), max_size=3)
    return blocks.map(lambda found: [part(index, *block) for index, block in enumerate(found)])


@cache
def representable(dialect: str, *, vendor: str = "openai") -> SearchStrategy[m.GenerateRequest]:
    """Return requests that a dialect expresses without loss.

    Args:
        dialect: ``"openai"``, ``"responses"``, ``"anthropic"``, ``"cohere"``, ``"ai21"`` or ``"replicate"``.
        vendor: whose reasoning blocks the assistant's turns hold.

    Raises:
        ValueError: the dialect is not known.
    """
    if dialect in _REQUESTS:
        return _REQUESTS[dialect]()
    if dialect != "openai":
        raise ValueError(f"no strategy for the dialect {dialect!r}")
    calls = st.builds(
        m.ToolCall,
        id=words,
        name=words,
        arguments=json_objects().map(lambda value: m.ToolCall(id="x", name="x", arguments=value).arguments),
    )
    text_parts = st.lists(st.builds(m.TextPart, text=texts, cache=st.booleans()), min_size=1, max_size=2)
    shown = images() | pdfs() | recordings()
    user_parts = st.lists(st.builds(m.TextPart, text=texts, cache=st.booleans()) | shown, min_size=1, max_size=3)
    turns = st.one_of(
        st.builds(m.Message, st.sampled_from(["system", "developer"]), texts | text_parts, name=maybe(words)),
        st.builds(m.Message, st.just("user"), texts | user_parts, name=maybe(words)),
        st.builds(
            m.Message,
            st.just("assistant"),
            st.builds(operator.add, reasoning_details(vendor), text_parts),
            name=maybe(words),
            tool_calls=st.lists(calls, max_size=2),
        ),
        st.builds(m.Message, st.just("tool"), texts | text_parts, tool_call_id=words),
    )
    extra = st.fixed_dictionaries(
        {}, optional={"seed": st.integers(0, 2**31), "parallel_tool_calls": st.booleans(), "user": words}
    )
    asked = st.builds(
        m.GenerateRequest,
        model=words,
        messages=conversations(turns),
        stop=st.lists(words, max_size=4),
        structured_output=maybe(structured_outputs()),
        reasoning=maybe(reasoning_configs()),
        prompt_cache=st.sampled_from([None, True, "5m", "1h"]),
        extra=extra,
        **bounds(),
    )
    return asked.flatmap(with_tools).map(lambda request: as_sent(request, vendor))


@cache
def replies(dialect: str, *, vendor: str = "openai") -> SearchStrategy[m.GenerateResponse]:
    """Return answers that a dialect expresses without loss.

    Args:
        dialect: ``"openai"``, ``"responses"``, ``"anthropic"``, ``"cohere"``, ``"ai21"`` or ``"replicate"``.
        vendor: whose reasoning blocks the answer holds.

    Raises:
        ValueError: the dialect is not known.
    """
    if dialect in _REPLIES:
        return _REPLIES[dialect]()
    if dialect != "openai":
        raise ValueError(f"no strategy for the dialect {dialect!r}")

    def finished(raw: str, refusal: str | None, **facts: Any) -> m.GenerateResponse:
        finish = m.FinishReason.CONTENT_FILTER if refusal else m.FinishReason.of(raw)
        return m.GenerateResponse(refusal=refusal, finish_reason=finish, raw_finish_reason=raw, **facts)

    known = st.dictionaries(
        st.sampled_from(["provider", "service_tier", "system_fingerprint", "native_finish_reason"]), words, max_size=3
    )
    blocks = st.lists(st.fixed_dictionaries({"type": words, "text": texts}), min_size=1, max_size=2)
    more = st.dictionaries(st.sampled_from(["annotations", "images"]), blocks, max_size=2)
    call = st.builds(
        m.ToolCall,
        id=words,
        name=words,
        arguments=texts,
        extra=st.dictionaries(st.just("extra_content"), json_objects(), max_size=1),
    )
    custom = st.builds(m.ToolCall, id=words, name=words, arguments=texts, extra=st.just({"type": "custom"}))
    counted = st.integers(min_value=0, max_value=10**9)
    usd = maybe(st.floats(min_value=0, max_value=1e6))
    return st.builds(
        finished,
        st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call", "eos", "novel_word"]),
        maybe(st.text(min_size=1, max_size=20)),
        text=maybe(texts),
        reasoning=maybe(st.text(min_size=1, max_size=40)),
        reasoning_parts=reasoning_details(vendor),
        tool_calls=st.lists(call | custom, max_size=2, unique_by=lambda found: found.id),
        usage=maybe(
            st.builds(
                m.Usage,
                input_tokens=counted,
                output_tokens=counted,
                cached_tokens=maybe(counted),
                cache_write_tokens=maybe(counted),
                reasoning_tokens=maybe(counted),
            )
        ),
        cost=usd.map(lambda paid: None if paid is None else m.Cost(usd=paid, source="reported", complete=True)),
        model=words,
        request_id=words,
        extra=st.builds(operator.or_, known, more),
    )
