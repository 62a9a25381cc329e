"""Requests and answers that OpenAI's Responses dialect expresses without loss."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llm_council import models as m
from llm_council._wire.payloads import dumps
from strategies._models import bounds, images, pdfs, structured_outputs, with_tools
from strategies._values import json_objects, maybe, texts, words

_said = st.text(min_size=1, max_size=20)
_efforts = st.sampled_from([None, *m.Effort])


def _reasoning(own: str, summary: list[str], content: list[str], secret: str | None) -> dict[str, Any]:
    item: dict[str, Any] = {
        "type": "reasoning",
        "id": f"rs_{own}",
        "summary": [] if content else [{"type": "summary_text", "text": text} for text in summary],
    }
    if content:
        item["content"] = [{"type": "reasoning_text", "text": text} for text in content]
    return item if secret is None else {**item, "encrypted_content": secret}


@cache
def _items() -> SearchStrategy[dict[str, Any]]:
    """Return output items that go back unchanged: reasoning, and the vendor's own tools."""
    paragraphs = st.lists(_said, max_size=2)
    action = {"type": "search", "query": "x"}
    searches = words.map(
        lambda own: {"type": "web_search_call", "id": f"ws_{own}", "status": "completed", "action": action}
    )
    return st.builds(_reasoning, words, paragraphs, paragraphs, maybe(words)) | searches


def _part(item: dict[str, Any]) -> m.ReasoningPart:
    shown = item.get("content") or item.get("summary") or []
    text = "\n\n".join(part["text"] for part in shown)
    return m.ReasoningPart(text=text, signature=item.get("encrypted_content"), vendor="openai", data=item)


def _call(own: str, name: str, arguments: dict[str, Any], *, has_id: bool, namespace: str | None) -> m.ToolCall:
    extra = {"id": f"fc_{own}"} if has_id else {}
    if namespace is not None:
        extra["namespace"] = namespace
    return m.ToolCall(id=own, name=name, arguments=dumps(arguments).decode(), extra=extra)


@cache
def _calls() -> SearchStrategy[m.ToolCall]:
    return st.builds(_call, words, words, json_objects(), has_id=st.booleans(), namespace=maybe(words))


@cache
def _custom_calls() -> SearchStrategy[m.ToolCall]:
    return st.builds(m.ToolCall, id=words, name=words, arguments=texts, extra=st.just({"type": "custom"}))


@cache
def responses_requests() -> SearchStrategy[m.GenerateRequest]:
    """Return requests that use every field of the dialect."""
    text_parts = st.lists(st.builds(m.TextPart, text=texts), min_size=1, max_size=2)
    mixed = st.lists(st.builds(m.TextPart, text=texts) | images() | pdfs(), max_size=3)
    turns = st.one_of(
        st.builds(m.Message, st.sampled_from(["system", "developer"]), texts | text_parts),
        st.builds(m.Message, st.just("user"), texts | mixed),
        st.builds(
            m.Message,
            st.just("assistant"),
            st.tuples(st.lists(_items().map(_part), max_size=2), text_parts | st.just([])).map(
                lambda found: [*found[0], *found[1]]
            ),
            tool_calls=st.lists(_calls(), max_size=2),
        ),
        st.builds(m.Message, st.just("tool"), texts | mixed, tool_call_id=words),
    )
    extra = st.fixed_dictionaries(
        {},
        optional={
            "parallel_tool_calls": st.booleans(),
            "safety_identifier": words,
            "text": st.just({"verbosity": "low"}),
            "reasoning": st.just({"summary": "detailed"}),
        },
    )
    return st.builds(
        m.GenerateRequest,
        model=words,
        messages=st.tuples(st.lists(turns, max_size=3), st.builds(m.Message, st.just("user"), _said)).map(
            lambda found: [*found[0], found[1]]
        ),
        structured_output=maybe(structured_outputs()),
        reasoning=maybe(_efforts.map(lambda effort: m.ReasoningConfig(effort=effort))),
        extra=extra,
        **bounds(),
    ).flatmap(with_tools)


_reply_items = st.lists(_items(), max_size=3, unique_by=lambda item: item["id"])
_reply_calls = st.lists(_calls() | _custom_calls(), max_size=2, unique_by=lambda call: call.id)
_maybe_said = maybe(_said)
_finishes = st.sampled_from(["completed", "max_output_tokens", "content_filter", "novel_word"])
_maybe_text = maybe(texts)
_reply_extra = st.fixed_dictionaries({}, optional={"service_tier": words})
_counts = st.integers(0, 10**9)
_usages = maybe(
    st.builds(
        m.Usage,
        input_tokens=_counts,
        output_tokens=_counts,
        cached_tokens=maybe(_counts),
        cache_write_tokens=maybe(_counts),
        reasoning_tokens=maybe(_counts),
    )
)
_usd = maybe(st.floats(0, 1e6))


@st.composite
def responses_replies(draw: st.DrawFn) -> m.GenerateResponse:
    """Return answers that the dialect expresses without loss."""
    parts = tuple(_part(item) for item in draw(_reply_items))
    refusal = draw(_maybe_said)
    calls = draw(_reply_calls)
    raw = draw(_finishes)
    finish = m.FinishReason.CONTENT_FILTER if refusal else m.FinishReason.of(raw)
    if calls and finish is m.FinishReason.STOP:
        finish = m.FinishReason.TOOL_CALLS
    text = draw(_maybe_text)
    extra: dict[str, Any] = dict(draw(_reply_extra))
    extra["response_id"] = own = draw(words)
    if text is not None and draw(st.booleans()):
        extra["annotations"] = [{"type": "url_citation", "url": "https://example.com"}]
    usd = draw(_usd)
    return m.GenerateResponse(
        text=text,
        reasoning="\n\n".join(part.text for part in parts if part.text) or None,
        reasoning_parts=parts,
        refusal=refusal,
        tool_calls=calls,
        usage=draw(_usages),
        cost=None if usd is None else m.Cost(usd=usd, source="reported", complete=True),
        model=draw(words),
        finish_reason=finish,
        raw_finish_reason=raw,
        request_id=own,
        extra=extra,
    )
