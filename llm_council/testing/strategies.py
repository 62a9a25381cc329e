"""Hypothesis strategies for every noun of the library: part of the nouns' definition.

``nouns()`` is any of them. ``representable(dialect)`` gives the requests, and ``replies(dialect)`` the answers, that a
dialect carries whole: the ones for which round trips are laws.
"""

from __future__ import annotations

import base64
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llm_council import errors as err
from llm_council import events as ev
from llm_council import models as m

__all__ = [
    "adjustments",
    "attempts",
    "budgets",
    "chunks",
    "costs",
    "critiques",
    "doctor_results",
    "drafts",
    "errors",
    "events",
    "json_values",
    "messages",
    "nouns",
    "plans",
    "replies",
    "representable",
    "requests",
    "responses",
    "tool_calls",
    "tools",
    "usages",
]

T = TypeVar("T")

texts = st.text(max_size=40)
words = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,15}", fullmatch=True)
seconds = st.floats(min_value=0, max_value=1e6)
_counts = st.integers(min_value=0, max_value=10**9)
_finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def maybe(strategy: SearchStrategy[T]) -> SearchStrategy[T | None]:
    """Return the strategy's values, or None."""
    return st.none() | strategy


def json_values(*, leaves: int = 8) -> SearchStrategy[Any]:
    """Return any value that JSON carries."""
    atoms = st.none() | st.booleans() | st.integers(min_value=-(2**60), max_value=2**60) | _finite | texts
    return st.recursive(
        atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=leaves
    )


def json_objects() -> SearchStrategy[dict[str, Any]]:
    """Return any JSON object."""
    return st.dictionaries(texts, json_values(leaves=4), max_size=3)


def schemas() -> SearchStrategy[dict[str, Any]]:
    """Return small JSON Schemas of objects."""
    kinds = st.sampled_from([{"type": kind} for kind in ("string", "integer", "boolean", "null")])
    return st.dictionaries(words, kinds, max_size=3).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    )


# Turns


def images() -> SearchStrategy[m.ImagePart]:
    """Return images by address and by data."""
    detail = st.sampled_from([None, "auto", "low", "high"])
    kinds = st.sampled_from(["image/png", "image/jpeg"])
    data = st.binary(min_size=1, max_size=12).map(lambda raw: base64.b64encode(raw).decode())
    return st.builds(
        m.ImagePart, url=words.map(lambda name: f"https://example.com/{name}.png"), detail=detail
    ) | st.builds(m.ImagePart, data=data, media_type=kinds, detail=detail)


def reasoning_parts() -> SearchStrategy[m.ReasoningPart]:
    """Return reasoning with and without a signature."""
    return st.builds(
        m.ReasoningPart, text=texts, signature=maybe(texts), vendor=maybe(words), data=maybe(json_objects())
    )


def parts() -> SearchStrategy[m.Part]:
    """Return parts of turns."""
    return st.builds(m.TextPart, text=texts, cache=st.booleans()) | images() | reasoning_parts()


def tool_calls() -> SearchStrategy[m.ToolCall]:
    """Return tool calls, with arguments that need not be JSON."""
    arguments = texts | json_objects()
    return st.builds(m.ToolCall, id=words, name=words, arguments=arguments, extra=json_objects())


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


# Requests


def tools() -> SearchStrategy[m.Tool]:
    """Return tools."""
    return st.builds(m.Tool, name=words, description=maybe(texts), parameters=schemas(), strict=maybe(st.booleans()))


def reasoning_configs() -> SearchStrategy[m.ReasoningConfig]:
    """Return reasoning controls."""
    return st.builds(m.ReasoningConfig, effort=maybe(st.sampled_from(list(m.Effort))), budget_tokens=maybe(_counts))


def structured_outputs() -> SearchStrategy[m.StructuredOutput]:
    """Return wishes for structured output."""
    return st.builds(m.StructuredOutput, json_schema=schemas(), name=words, strict=st.booleans())


def _bounds() -> dict[str, SearchStrategy[Any]]:
    return {
        "max_tokens": maybe(st.integers(min_value=1, max_value=10**6)),
        "temperature": maybe(st.floats(min_value=0, max_value=2)),
        "top_p": maybe(st.floats(min_value=0, max_value=1)),
    }


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
        **_bounds(),
    )


# Answers


def usages() -> SearchStrategy[m.Usage]:
    """Return counts of tokens."""
    return st.builds(
        m.Usage,
        input_tokens=maybe(_counts),
        output_tokens=maybe(_counts),
        cached_tokens=maybe(_counts),
        cache_write_tokens=maybe(_counts),
        reasoning_tokens=maybe(_counts),
        estimated=st.booleans(),
    )


def costs() -> SearchStrategy[m.Cost]:
    """Return amounts of money."""
    return st.builds(m.Cost, usd=maybe(seconds), source=st.sampled_from(list(m.CostSource)), complete=st.booleans())


def adjustments() -> SearchStrategy[m.Adjustment]:
    """Return adjustments of requests."""
    return st.builds(m.Adjustment, field=words, action=words, asked=json_values(), sent=json_values(), reason=texts)


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


def _finish() -> SearchStrategy[Any]:
    return maybe(st.sampled_from(list(m.FinishReason)))


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
        raw=json_values(),
    )


def chunks() -> SearchStrategy[m.GenerateChunk]:
    """Return pieces of answers."""
    deltas = st.builds(
        m.ToolCallDelta,
        index=st.integers(min_value=0, max_value=5),
        id=maybe(words),
        name=maybe(words),
        arguments=texts,
        extra=json_objects(),
    )
    return st.builds(
        m.GenerateChunk,
        text=texts,
        reasoning=texts,
        refusal=texts,
        tool_calls=st.lists(deltas, max_size=2).map(tuple),
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


def timeouts() -> SearchStrategy[m.Timeouts]:
    """Return bounds on waits."""
    wait = maybe(st.floats(min_value=0.001, max_value=1e6))
    return st.builds(m.Timeouts, connect=wait, read=wait, idle=wait, total=wait)


def limits() -> SearchStrategy[m.Limits]:
    """Return bounds on sizes."""
    return st.builds(m.Limits, body=st.integers(1, 2**40), event=st.integers(1, 2**40), json_depth=st.integers(1, 900))


def retry_policies() -> SearchStrategy[m.RetryPolicy]:
    """Return retry policies."""
    return st.builds(m.RetryPolicy, max_retries=st.integers(0, 9), base=seconds, cap=seconds, max_retry_after=seconds)


def capabilities() -> SearchStrategy[m.ProviderCapabilities]:
    """Return what providers can do."""
    flags = {name: st.booleans() for name in ("streaming", "tool_use", "structured_output", "multimodal", "reasoning")}
    return st.builds(m.ProviderCapabilities, max_tokens=maybe(st.integers(1, 10**6)), **flags)


def doctor_results() -> SearchStrategy[m.DoctorResult]:
    """Return states of health."""
    return st.builds(m.DoctorResult, ok=st.booleans(), message=texts, latency_ms=maybe(seconds), details=json_objects())


# Errors

_FACTS: dict[str, SearchStrategy[Any]] = {
    "retry_after": maybe(seconds),
    "kind": st.sampled_from(["refused", "dns", "tls", "proxy", "other"]),
    "partial": maybe(texts),
    "exit_code": maybe(st.integers(-64, 255)),
    "stderr_tail": texts,
    "status": maybe(st.integers(100, 599)),
    "code": maybe(words),
    "body": texts,
    "path": maybe(words),
    "limit": maybe(_counts),
    "capability": maybe(words),
    "text": maybe(texts),
    "spent": st.dictionaries(words, seconds, max_size=3),
    "problems": st.lists(st.builds(m.Problem, path=words, message=texts), max_size=3),
}


def _error_classes(base: type[err.CouncilError]) -> list[type[err.CouncilError]]:
    return [base, *(cls for child in base.__subclasses__() for cls in _error_classes(child))]


@st.composite
def errors(draw: st.DrawFn, base: type[err.CouncilError] = err.CouncilError, depth: int = 2) -> err.CouncilError:
    """Return errors of every class at and below ``base``, with any of their facts.

    Args:
        draw: hypothesis's own.
        base: the class at which to begin.
        depth: how deep errors may hold errors.
    """
    cls = draw(st.sampled_from([found for found in _error_classes(base) if found.__module__ == err.__name__]))
    facts: dict[str, Any] = {
        name: draw(maybe(words)) for name in ("provider", "model", "phase", "run_id", "request_id")
    }
    facts["attempts"] = draw(st.lists(attempts(), max_size=2))
    facts["elapsed"] = draw(maybe(seconds))
    facts["retryable"] = draw(maybe(st.booleans()))
    if issubclass(cls, err.TimedOut):
        facts["phase"] = draw(st.sampled_from(["connect", "read", "idle", "pool", "deadline"]))
    bare = vars(cls())
    facts.update({name: draw(strategy) for name, strategy in _FACTS.items() if name in bare})
    if "outcomes" in bare:
        inner = st.none() if depth <= 0 else maybe(errors(depth=depth - 1))
        facts["outcomes"] = draw(st.dictionaries(words, inner, max_size=2))
    return cls(draw(texts), **facts)


# Deliberation


def plans() -> SearchStrategy[m.Plan]:
    """Return plans of runs."""
    seats = st.lists(
        st.builds(m.SeatSpec, name=words, provider=words, model=maybe(words), prose_first=st.booleans()), max_size=3
    )
    return st.builds(
        m.Plan,
        run_id=words,
        task=texts,
        subagent=words,
        mode=maybe(words),
        strategy=words,
        phases=st.lists(st.sampled_from(list(m.Phase)), max_size=5),
        seats=seats,
        drafters=st.lists(words, max_size=3),
        reviewers=st.lists(words, max_size=3),
        chairs=st.lists(words, max_size=3),
        prompts=st.builds(m.RolePrompts, system=texts, critique=texts, synthesise=texts),
        schema=maybe(schemas()),
        context=maybe(texts),
        system_context=maybe(texts),
        files=st.lists(st.builds(m.Attachment, name=words, text=texts), max_size=2),
        budget=budgets(),
        limits=limits(),
        retry=retry_policies(),
        max_repairs=st.integers(0, 5),
        temperature=maybe(seconds),
        max_tokens=maybe(_counts),
        reasoning=maybe(reasoning_configs()),
        seed=words,
        notes=st.lists(texts, max_size=2),
        metadata=json_objects(),
    )


def drafts() -> SearchStrategy[m.Draft]:
    """Return drafts."""
    return st.builds(m.Draft, seat=words, response=maybe(responses()), error=maybe(errors()), elapsed=seconds)


def critiques() -> SearchStrategy[m.Critique]:
    """Return critiques."""
    return st.builds(
        m.Critique,
        seat=words,
        labels=st.dictionaries(words, words, max_size=3),
        ranking=st.lists(words, max_size=3),
        response=maybe(responses()),
        error=maybe(errors()),
        elapsed=seconds,
    )


def rankings() -> SearchStrategy[m.Ranking]:
    """Return tallies."""
    return st.builds(m.Ranking, order=st.lists(words, max_size=3), points=st.dictionaries(words, seconds, max_size=3))


def events() -> SearchStrategy[ev.Event]:
    """Return events of runs."""
    base: dict[str, SearchStrategy[Any]] = {"run_id": words, "at": seconds}
    phase = st.sampled_from(list(m.Phase))
    seat = {**base, "phase": phase, "seat": words}
    return st.one_of(
        st.builds(ev.RunStarted, plan=plans(), **base),
        st.builds(ev.PhaseStarted, phase=phase, **base),
        st.builds(ev.SeatStarted, **seat),
        st.builds(ev.TextDelta, text=texts, **seat),
        st.builds(ev.AttemptFailed, error=errors(), retry_in=maybe(seconds), **seat),
        st.builds(ev.SeatFinished, response=maybe(responses()), error=maybe(errors()), elapsed=seconds, **seat),
        st.builds(ev.SeatReset, reason=texts, **seat),
        st.builds(ev.PhaseFinished, phase=phase, elapsed=seconds, **base),
        st.builds(ev.Degraded, reason=texts, seats=st.lists(words, max_size=2).map(tuple), **base),
        st.builds(ev.RunFinished, status=st.sampled_from(list(m.Status)), elapsed=seconds, **base),
    )


def nouns() -> SearchStrategy[Any]:
    """Return any noun, errors and events apart."""
    return st.one_of(
        messages(),
        parts(),
        tool_calls(),
        tools(),
        requests(),
        responses(),
        chunks(),
        usages(),
        costs(),
        adjustments(),
        attempts(),
        budgets(),
        timeouts(),
        limits(),
        retry_policies(),
        capabilities(),
        doctor_results(),
        plans(),
        drafts(),
        critiques(),
        rankings(),
        st.builds(m.Problem, path=words, message=texts),
        st.builds(m.PhaseTiming, phase=st.sampled_from(list(m.Phase)), started=seconds, elapsed=seconds),
    )


# What a dialect carries whole


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


@st.composite
def representable(draw: st.DrawFn, dialect: str, *, vendor: str = "openai") -> m.GenerateRequest:
    """Return requests that a dialect carries whole.

    Args:
        draw: hypothesis's own.
        dialect: ``"openai"``.
        vendor: whose reasoning blocks the assistant's turns hold.

    Raises:
        ValueError: the dialect is not known.
    """
    if dialect != "openai":
        raise ValueError(f"no strategy for the dialect {dialect!r}")
    calls = st.builds(
        m.ToolCall,
        id=words,
        name=words,
        arguments=json_objects().map(lambda value: m.ToolCall(id="x", name="x", arguments=value).arguments),
    )
    text_parts = st.lists(st.builds(m.TextPart, text=texts, cache=st.booleans()), min_size=1, max_size=2)
    user_parts = st.lists(st.builds(m.TextPart, text=texts, cache=st.booleans()) | images(), min_size=1, max_size=3)
    thoughts = draw(reasoning_details(vendor))
    turns = st.one_of(
        st.builds(m.Message, st.sampled_from(["system", "developer"]), texts | text_parts, name=maybe(words)),
        st.builds(m.Message, st.just("user"), texts | user_parts, name=maybe(words)),
        st.builds(
            m.Message,
            st.just("assistant"),
            text_parts.map(lambda found: [*thoughts, *found]),
            name=maybe(words),
            tool_calls=st.lists(calls, max_size=2),
        ),
        st.builds(m.Message, st.just("tool"), texts | text_parts, tool_call_id=words),
    )
    offered = draw(st.lists(tools(), max_size=2))
    choices = ["auto", "none", "required", *(tool.name for tool in offered)]
    extra = st.fixed_dictionaries(
        {}, optional={"seed": st.integers(0, 2**31), "parallel_tool_calls": st.booleans(), "user": words}
    )
    return draw(
        st.builds(
            m.GenerateRequest,
            model=words,
            messages=st.lists(turns, min_size=1, max_size=4),
            stop=st.lists(words, max_size=4),
            tools=st.just(offered),
            tool_choice=maybe(st.sampled_from(choices)) if offered else st.none(),
            structured_output=maybe(structured_outputs()),
            reasoning=maybe(reasoning_configs()),
            prompt_cache=st.sampled_from([None, True, "5m", "1h"]),
            extra=extra,
            **_bounds(),
        )
    )


@st.composite
def replies(draw: st.DrawFn, dialect: str, *, vendor: str = "openai") -> m.GenerateResponse:
    """Return answers that a dialect carries whole.

    Args:
        draw: hypothesis's own.
        dialect: ``"openai"``.
        vendor: whose reasoning blocks the answer holds.

    Raises:
        ValueError: the dialect is not known.
    """
    if dialect != "openai":
        raise ValueError(f"no strategy for the dialect {dialect!r}")
    refusal = draw(maybe(st.text(min_size=1, max_size=20)))
    raw = draw(
        st.sampled_from(["stop", "length", "tool_calls", "content_filter", "function_call", "eos", "novel_word"])
    )
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
    counted = st.integers(min_value=0, max_value=10**9)
    usd = maybe(st.floats(min_value=0, max_value=1e6))
    return draw(
        st.builds(
            m.GenerateResponse,
            text=maybe(texts),
            reasoning=maybe(st.text(min_size=1, max_size=40)),
            reasoning_parts=reasoning_details(vendor),
            refusal=st.just(refusal),
            tool_calls=st.lists(call, max_size=2, unique_by=lambda found: found.id),
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
            finish_reason=st.just(m.FinishReason.CONTENT_FILTER if refusal else m.FinishReason.of(raw)),
            raw_finish_reason=st.just(raw),
            request_id=words,
            extra=st.builds(lambda first, second: {**first, **second}, known, more),
        )
    )
