"""Requests and answers that Anthropic's Messages dialect expresses without loss."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import attrs
from hypothesis import strategies as st

from llm_council import models as m
from llm_council._wire.payloads import dumps
from strategies._models import images, pdfs, reasoning_configs, structured_outputs, with_tools
from strategies._values import maybe, words

_SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}}

_texts = st.text(max_size=20)
_said = st.text(min_size=1, max_size=20).filter(str.strip)
_calls = st.builds(
    m.ToolCall,
    id=words,
    name=words,
    arguments=st.dictionaries(words, _texts, max_size=2).map(lambda found: dumps(found).decode()),
)


def _block(kind: str, text: str, signature: str) -> dict[str, Any]:
    if kind == "redacted_thinking":
        return {"type": kind, "data": signature}
    return {"type": kind, "thinking": text, "signature": signature}


def _part(found: dict[str, Any]) -> m.ReasoningPart:
    text, signature = found.get("thinking", ""), found.get("signature") or None
    return m.ReasoningPart(text=text, signature=signature, vendor="anthropic", data=found)


_blocks = st.builds(_block, st.sampled_from(["thinking", "redacted_thinking"]), _texts, words)


@cache
def anthropic_requests() -> st.SearchStrategy[m.GenerateRequest]:
    """Return requests that use every field of the dialect."""
    shown = images().map(lambda found: attrs.evolve(found, detail=None)) | pdfs()
    some_text = st.builds(m.TextPart, text=_texts, cache=st.booleans())
    turns = st.one_of(
        st.builds(m.Message, st.sampled_from(["system", "developer"]), _texts | st.lists(some_text, max_size=3)),
        st.builds(m.Message, st.just("user"), _texts | st.lists(some_text | shown, max_size=3)),
        st.builds(
            m.Message,
            st.just("assistant"),
            st.lists(_blocks.map(_part) | some_text, max_size=3),
            tool_calls=st.lists(_calls, max_size=2),
        ),
        st.builds(m.Message, st.just("tool"), _texts | st.lists(some_text | shown, max_size=2), tool_call_id=words),
    )
    return st.builds(
        m.GenerateRequest,
        model=words,
        messages=st.tuples(st.lists(turns, max_size=4), st.builds(m.Message, st.just("user"), _said)).map(
            lambda found: [*found[0], found[1]]
        ),
        max_tokens=maybe(st.integers(1, 10**6)),
        temperature=maybe(st.floats(0, 1)),
        top_p=maybe(st.floats(0, 1)),
        stop=st.lists(words, max_size=4),
        structured_output=maybe(structured_outputs()),
        reasoning=maybe(reasoning_configs()),
        prompt_cache=st.sampled_from([None, True, "5m", "1h"]),
        extra=st.fixed_dictionaries({}, optional={"top_k": st.integers(0, 9), "container": words}),
    ).flatmap(partial(with_tools, choosing=True))


_parts_of_reply = st.lists(_blocks.map(_part), max_size=3)
_maybe_said = maybe(_said)
_known = st.sampled_from(["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "novel_word"])
_maybe_text = maybe(_texts)
_extra = st.fixed_dictionaries(
    {},
    optional={
        "container": st.just({"id": "c"}),
        "service_tier": words,
        "stop_sequence": words,
        "blocks": st.just([_SEARCH]),
    },
)
_calls_of_reply = st.lists(_calls, max_size=2, unique_by=lambda call: call.id)
_counts = st.integers(0, 10**6)
_maybe_counts = maybe(_counts)


@st.composite
def _usages(draw: st.DrawFn) -> m.Usage:
    cached, written, fresh = draw(_maybe_counts), draw(_maybe_counts), draw(_counts)
    return m.Usage(
        input_tokens=fresh + (cached or 0) + (written or 0),
        output_tokens=draw(_counts),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=draw(_maybe_counts),
    )


_maybe_usages = maybe(_usages())


@st.composite
def anthropic_replies(draw: st.DrawFn) -> m.GenerateResponse:
    """Return answers that the dialect expresses without loss."""
    parts = tuple(draw(_parts_of_reply))
    refusal = draw(_maybe_said)
    raw = "refusal" if refusal else draw(_known)
    text = draw(_maybe_text)
    extra: dict[str, Any] = dict(draw(_extra))
    if refusal:
        extra["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    if text is not None and draw(st.booleans()):
        extra["citations"] = [{"type": "char_location", "cited_text": "x"}]
    if "blocks" in extra:  # what comes before them goes back as it came
        cited = {key: extra[key] for key in ("citations",) if key in extra}
        parts += (*([_part({"type": "text", "text": text, **cited})] if text else []), _part(_SEARCH))
    return m.GenerateResponse(
        text=text,
        reasoning="".join(found.text for found in parts) or None,
        reasoning_parts=parts,
        refusal=refusal,
        tool_calls=draw(_calls_of_reply),
        usage=draw(_maybe_usages),
        model=draw(words),
        finish_reason=m.FinishReason.of(raw),
        raw_finish_reason=raw,
        request_id=draw(words),
        extra=extra,
    )
