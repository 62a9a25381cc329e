"""Requests and answers."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llm_council import models as m
from strategies._values import (
    counts,
    flat_json,
    json_objects,
    json_values,
    maybe,
    schemas,
    seconds,
    texts,
    words,
)

_data = st.binary(min_size=1, max_size=12).map(lambda raw: base64.b64encode(raw).decode())


@cache
def images() -> SearchStrategy[m.ImagePart]:
    """Return images by address and by data."""
    detail = st.sampled_from([None, "auto", "low", "high"])
    kinds = st.sampled_from(["image/png", "image/jpeg"])
    return st.builds(
        m.ImagePart, url=words.map(lambda name: f"https://example.com/{name}.png"), detail=detail
    ) | st.builds(m.ImagePart, data=_data, media_type=kinds, detail=detail)


@cache
def documents() -> SearchStrategy[m.DocumentPart]:
    """Return documents by address and by data."""
    kinds = st.sampled_from(["application/pdf", "text/plain"])
    names = st.none() | st.just("report.pdf")
    return st.builds(m.DocumentPart, url=st.just("https://example.com/report.pdf"), name=names) | st.builds(
        m.DocumentPart, data=st.just("JVBERi0xLjc="), media_type=kinds, name=names
    )


@cache
def sounds() -> SearchStrategy[m.AudioPart]:
    """Return sounds by address and by data."""
    return st.builds(m.AudioPart, url=st.just("https://example.com/a.wav")) | st.builds(
        m.AudioPart, data=st.just("UklGRg=="), media_type=st.sampled_from(["audio/wav", "audio/mpeg"])
    )


@cache
def pdfs() -> SearchStrategy[m.DocumentPart]:
    """Return documents by data, with a name, as an attached file makes them."""
    return st.builds(m.DocumentPart, data=_data, media_type=st.just("application/pdf"), name=st.just("report.pdf"))


@cache
def recordings() -> SearchStrategy[m.AudioPart]:
    """Return sounds by data, in the formats that every vendor with ears takes."""
    return st.builds(m.AudioPart, data=_data, media_type=st.sampled_from(["audio/wav", "audio/mpeg"]))


@cache
def reasoning_parts() -> SearchStrategy[m.ReasoningPart]:
    """Return reasoning with and without a signature."""
    return st.builds(
        m.ReasoningPart, text=texts, signature=maybe(texts), vendor=maybe(words), data=maybe(json_objects())
    )


@cache
def text_parts() -> SearchStrategy[m.TextPart]:
    """Return text, with and without a cache mark."""
    return st.builds(m.TextPart, text=texts, cache=st.booleans())


@cache
def parts() -> SearchStrategy[m.Part]:
    """Return parts of turns."""
    return text_parts() | images() | reasoning_parts()


@cache
def tool_calls() -> SearchStrategy[m.ToolCall]:
    """Return tool calls, with arguments that need not be JSON."""
    arguments = texts | json_objects()
    return st.builds(m.ToolCall, id=words, name=words, arguments=arguments, extra=json_objects())


@cache
def messages() -> SearchStrategy[m.Message]:
    """Return turns of any role."""
    return st.builds(
        m.Message,
        st.sampled_from(list(m.Role)) | words,
        texts | st.lists(parts(), max_size=3),
        name=maybe(words),
        tool_calls=st.lists(tool_calls(), max_size=2),
        tool_call_id=maybe(words),
    )


def conversations(turns: SearchStrategy[m.Message]) -> SearchStrategy[list[m.Message]]:
    """Return up to four turns; one of them asks, so that something is left when a dialect drops empty turns."""
    question = st.builds(m.Message, st.just("user"), st.text(min_size=1, max_size=20))
    return st.tuples(st.lists(turns, max_size=2), question, st.lists(turns, max_size=1)).map(
        lambda found: [*found[0], found[1], *found[2]]
    )


# Requests


@cache
def tools() -> SearchStrategy[m.Tool]:
    """Return tools."""
    return st.builds(m.Tool, name=words, description=maybe(texts), parameters=schemas(), strict=maybe(st.booleans()))


@cache
def _offers() -> SearchStrategy[list[m.Tool]]:
    return st.lists(tools(), max_size=2)


@st.composite
def with_tools(draw: st.DrawFn, request: m.GenerateRequest, *, choosing: bool = False) -> m.GenerateRequest:
    """Return a request with tools and a choice: a mode, or one of the tools.

    Args:
        draw: hypothesis's own.
        request: the request.
        choosing: there may be a choice where there are no tools.
    """
    offered = draw(_offers())
    choices = [None, "auto", "none", "required", *(tool.name for tool in offered)]
    choice = draw(st.sampled_from(choices)) if offered or choosing else None
    return attrs.evolve(request, tools=offered, tool_choice=choice)


@cache
def reasoning_configs() -> SearchStrategy[m.ReasoningConfig]:
    """Return reasoning controls."""
    return st.builds(m.ReasoningConfig, effort=maybe(st.sampled_from(list(m.Effort))), budget_tokens=maybe(counts))


@cache
def structured_outputs() -> SearchStrategy[m.StructuredOutput]:
    """Return requests for structured output."""
    return st.builds(m.StructuredOutput, json_schema=schemas(), name=words, strict=st.booleans())


def bounds() -> dict[str, SearchStrategy[Any]]:
    """Return the numbers of a request."""
    return {
        "max_tokens": maybe(st.integers(min_value=1, max_value=10**6)),
        "temperature": maybe(st.floats(min_value=0, max_value=2)),
        "top_p": maybe(st.floats(min_value=0, max_value=1)),
    }


@cache
def requests() -> SearchStrategy[m.GenerateRequest]:
    """Return requests that use any field."""
    return st.builds(
        m.GenerateRequest,
        model=maybe(words),
        prompt=st.text(min_size=1, max_size=20),
        messages=st.lists(messages(), max_size=3),
        timeout_seconds=maybe(st.floats(min_value=0.001, max_value=1e6)),
        stop=st.lists(words, max_size=4),
        stream=st.booleans(),
        tools=st.lists(tools(), max_size=2),
        tool_choice=maybe(st.sampled_from(["auto", "none", "required"]) | words),
        response_format=maybe(json_objects()),
        structured_output=maybe(structured_outputs()),
        reasoning=maybe(reasoning_configs()),
        prompt_cache=st.sampled_from([None, True, False, "5m", "1h"]),
        idempotency_key=maybe(words),
        metadata=json_objects(),
        extra=json_objects(),
        **bounds(),
    )


# Answers


@cache
def usages() -> SearchStrategy[m.Usage]:
    """Return counts of tokens."""
    return st.builds(
        m.Usage,
        input_tokens=maybe(counts),
        output_tokens=maybe(counts),
        cached_tokens=maybe(counts),
        cache_write_tokens=maybe(counts),
        reasoning_tokens=maybe(counts),
        estimated=st.booleans(),
    )


@cache
def costs() -> SearchStrategy[m.Cost]:
    """Return amounts of money."""
    return st.builds(m.Cost, usd=maybe(seconds), source=st.sampled_from(list(m.CostSource)), complete=st.booleans())


@cache
def adjustments() -> SearchStrategy[m.Adjustment]:
    """Return adjustments of requests."""
    return st.builds(m.Adjustment, field=words, action=words, asked=flat_json, sent=flat_json, reason=texts)


@cache
def attempts() -> SearchStrategy[m.Attempt]:
    """Return tries of calls."""
    return st.builds(
        m.Attempt,
        at=seconds,
        elapsed=seconds,
        error=maybe(words),
        message=maybe(texts),
        status=maybe(st.integers(min_value=100, max_value=599)),
        request_id=maybe(words),
        retry_in=maybe(seconds),
    )


@cache
def _finish() -> SearchStrategy[Any]:
    return maybe(st.sampled_from(list(m.FinishReason)))


@cache
def responses() -> SearchStrategy[m.GenerateResponse]:
    """Return whole answers that use any field."""
    return st.builds(
        m.GenerateResponse,
        text=maybe(texts),
        content=maybe(texts | st.lists(parts(), max_size=3)),
        structured=json_values(),
        reasoning=maybe(texts),
        reasoning_parts=st.lists(reasoning_parts(), max_size=2),
        refusal=maybe(texts),
        tool_calls=st.lists(tool_calls(), max_size=2),
        usage=maybe(usages()),
        cost=maybe(costs()),
        model=maybe(words),
        finish_reason=_finish() | words,
        raw_finish_reason=maybe(words),
        request_id=maybe(words),
        attempts=st.lists(attempts(), max_size=2),
        adjustments=st.lists(adjustments(), max_size=2),
        extra=json_objects(),
        raw=flat_json,
    )


@cache
def tool_call_deltas() -> SearchStrategy[m.ToolCallDelta]:
    """Return pieces of tool calls."""
    return st.builds(
        m.ToolCallDelta,
        index=st.integers(min_value=0, max_value=5),
        id=maybe(words),
        name=maybe(words),
        arguments=texts,
        extra=json_objects(),
    )


@cache
def chunks() -> SearchStrategy[m.GenerateChunk]:
    """Return pieces of answers."""
    return st.builds(
        m.GenerateChunk,
        text=texts,
        reasoning=texts,
        refusal=texts,
        tool_calls=st.lists(tool_call_deltas(), max_size=2).map(tuple),
        reasoning_parts=st.lists(reasoning_parts(), max_size=2).map(tuple),
        finish_reason=_finish(),
        raw_finish_reason=maybe(words),
        usage=maybe(usages()),
        cost=maybe(costs()),
        model=maybe(words),
        request_id=maybe(words),
        adjustments=st.lists(adjustments(), max_size=1).map(tuple),
        structured=json_values(),
        extra=json_objects(),
    )


# Bounds, health


@cache
def budgets() -> SearchStrategy[m.Budget]:
    """Return budgets of runs."""
    positive = st.floats(min_value=0.001, max_value=1e6)
    whole = st.integers(min_value=1, max_value=10**6)
    return st.builds(
        m.Budget,
        deadline=maybe(positive),
        quorum=maybe(whole),
        grace=maybe(seconds),
        usd=maybe(seconds),
        tokens=maybe(whole),
        calls=maybe(whole),
    )


@cache
def timeouts() -> SearchStrategy[m.Timeouts]:
    """Return bounds on waits."""
    wait = maybe(st.floats(min_value=0.001, max_value=1e6))
    return st.builds(m.Timeouts, connect=wait, read=wait, idle=wait, total=wait)


@cache
def limits() -> SearchStrategy[m.Limits]:
    """Return bounds on sizes."""
    return st.builds(m.Limits, body=st.integers(1, 2**40), event=st.integers(1, 2**40), json_depth=st.integers(1, 900))


@cache
def retry_policies() -> SearchStrategy[m.RetryPolicy]:
    """Return retry policies."""
    return st.builds(m.RetryPolicy, max_retries=st.integers(0, 9), base=seconds, cap=seconds, max_retry_after=seconds)


@cache
def capabilities() -> SearchStrategy[m.ProviderCapabilities]:
    """Return capabilities of providers."""
    flags = {name: st.booleans() for name in ("streaming", "tool_use", "structured_output", "multimodal", "reasoning")}
    return st.builds(m.ProviderCapabilities, max_tokens=maybe(st.integers(1, 10**6)), **flags)


@cache
def doctor_results() -> SearchStrategy[m.DoctorResult]:
    """Return results of the doctor."""
    return st.builds(m.DoctorResult, ok=st.booleans(), message=texts, latency_ms=maybe(seconds), details=json_objects())
