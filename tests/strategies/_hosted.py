"""Requests and answers that the dialects of Cohere, AI21 and Replicate express without loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from llm_council import models as m
from strategies._models import conversations, images, structured_outputs, tools
from strategies._values import json_objects, maybe, texts, words

some_text = st.text(min_size=1, max_size=20)
counted = st.integers(min_value=0, max_value=10**9)
calls = st.builds(m.ToolCall, id=words, name=words, arguments=json_objects())


def _text_parts() -> SearchStrategy[list[m.TextPart]]:
    return st.lists(st.builds(m.TextPart, text=texts), min_size=1, max_size=2)


@cache
def cohere_requests() -> SearchStrategy[m.GenerateRequest]:
    """Return requests that Cohere's dialect expresses without loss: one instruction, the first."""
    thought = st.builds(m.ReasoningPart, text=some_text, vendor=st.just("cohere"))
    plan = some_text.map(lambda text: m.ReasoningPart(vendor="cohere", data={"tool_plan": text}))
    user = st.lists(st.builds(m.TextPart, text=texts) | images(), min_size=1, max_size=3)
    parts_of_answer = st.tuples(st.lists(plan, max_size=1), st.lists(thought, max_size=2), _text_parts())
    turns = st.one_of(
        st.builds(m.Message, st.just("user"), texts | user),
        st.builds(
            m.Message,
            st.just("assistant"),
            parts_of_answer.map(lambda found: [*found[0], *found[1], *found[2]]),
            tool_calls=st.lists(calls, max_size=2),
        ),
        st.builds(m.Message, st.just("tool"), texts, tool_call_id=words),
    )
    first = st.lists(st.builds(m.Message, st.just("system"), some_text), max_size=1)
    offered = st.lists(tools(), max_size=2)
    thinking = st.sampled_from(["none", "medium"]).map(lambda effort: m.ReasoningConfig(effort=effort))
    budget = st.integers(1, 10**5).map(lambda number: m.ReasoningConfig(budget_tokens=number))
    return st.builds(
        m.GenerateRequest,
        model=words,
        messages=st.tuples(first, conversations(turns)).map(lambda found: [*found[0], *found[1]]),
        stream=st.booleans(),
        max_tokens=maybe(st.integers(1, 10**6)),
        temperature=maybe(st.floats(0, 1)),
        top_p=maybe(st.floats(0.01, 0.99)),
        stop=st.lists(words, max_size=5),
        tools=offered,
        tool_choice=st.sampled_from([None, "auto", "none", "required"]),
        structured_output=maybe(structured_outputs()),
        reasoning=maybe(thinking | budget),
        extra=st.fixed_dictionaries({}, optional={"seed": st.integers(0, 2**31), "k": st.integers(0, 500)}),
    )


_cited = st.lists(st.fixed_dictionaries({"start": counted, "text": texts}), min_size=1, max_size=2)
_cohere_extra = st.fixed_dictionaries(
    {}, optional={"citations": _cited, "billed_units": st.just({"input_tokens": 3}), "error_type": words}
)
_cohere_usage = maybe(
    st.builds(m.Usage, input_tokens=counted, output_tokens=maybe(counted), cached_tokens=maybe(counted))
)
_cohere_word = st.sampled_from(["COMPLETE", "STOP_SEQUENCE", "MAX_TOKENS", "TOOL_CALL", "ERROR", "TIMEOUT", "NOVEL"])
_maybe_text = maybe(texts)
_maybe_some_text = maybe(some_text)
_calls = st.lists(calls, max_size=2, unique_by=lambda call: call.id)


@st.composite
def cohere_replies(draw: st.DrawFn) -> m.GenerateResponse:
    """Return answers that Cohere's dialect expresses without loss."""
    thoughts, plan = draw(_maybe_some_text), draw(_maybe_some_text)
    parts = [m.ReasoningPart(text=thoughts, vendor="cohere")] if thoughts else []
    parts += [m.ReasoningPart(vendor="cohere", data={"tool_plan": plan})] if plan else []
    word = draw(_cohere_word)
    extra: dict[str, Any] = draw(_cohere_extra)
    return m.GenerateResponse(
        text=draw(_maybe_text),
        reasoning=thoughts,
        reasoning_parts=parts,
        tool_calls=draw(_calls),
        usage=draw(_cohere_usage),
        finish_reason=m.FinishReason.of(word),
        raw_finish_reason=word,
        request_id=draw(words),
        extra={**({"tool_plan": plan} if plan else {}), **extra},
    )


@cache
def ai21_requests() -> SearchStrategy[m.GenerateRequest]:
    """Return requests that AI21's dialect expresses without loss: text and tools, nobody named."""
    turns = st.one_of(
        st.builds(m.Message, st.sampled_from(["system", "user"]), texts),
        st.builds(m.Message, st.just("assistant"), texts, tool_calls=st.lists(calls, max_size=2)),
        st.builds(m.Message, st.just("tool"), texts, tool_call_id=words),
    )
    return st.builds(
        m.GenerateRequest,
        model=words,
        messages=conversations(turns),
        stream=st.booleans(),
        max_tokens=maybe(st.integers(1, 10**6)),
        temperature=maybe(st.floats(0, 2)),
        top_p=maybe(st.floats(0.1, 1)),
        stop=st.lists(words, max_size=3),
        tools=st.lists(tools(), max_size=2),
        response_format=st.sampled_from([None, {"type": "json_object"}]),
        extra=st.fixed_dictionaries({}, optional={"n": st.just(1)}),
    )


_ai21_word = st.sampled_from(["stop", "length", "tool_calls", "novel_word"])
_usage = maybe(st.builds(m.Usage, input_tokens=counted, output_tokens=counted))


@st.composite
def ai21_replies(draw: st.DrawFn) -> m.GenerateResponse:
    """Return answers that AI21's dialect expresses without loss: there is no model in them."""
    word = draw(_ai21_word)
    return m.GenerateResponse(
        text=draw(_maybe_text),
        reasoning=draw(_maybe_some_text),
        tool_calls=draw(_calls),
        usage=draw(_usage),
        finish_reason=m.FinishReason.of(word),
        raw_finish_reason=word,
        request_id=draw(words),
    )


def _images_alone() -> SearchStrategy[m.ImagePart]:
    """Return images as Replicate's inputs hold them: an address, or data with its type, and no wish about detail."""
    return images().map(lambda image: m.ImagePart(url=image.url, data=image.data, media_type=image.media_type))


@cache
def replicate_requests() -> SearchStrategy[m.GenerateRequest]:
    """Return requests that a prediction expresses without loss, with one turn, for a model that takes every input."""
    turn = st.builds(
        m.Message,
        st.just("user"),
        st.tuples(some_text, st.lists(_images_alone(), max_size=2)).map(
            lambda found: [m.TextPart(text=found[0]), *found[1]]
        ),
    )
    first = st.lists(st.builds(m.Message, st.just("system"), some_text), max_size=1)
    effort = st.sampled_from(list(m.Effort)).map(lambda word: m.ReasoningConfig(effort=word))
    return st.builds(
        m.GenerateRequest,
        model=st.sampled_from(["house/model", "deployments/house/model"]),
        messages=st.tuples(first, turn).map(lambda found: [*found[0], found[1]]),
        stream=st.booleans(),
        max_tokens=maybe(st.integers(1, 10**6)),
        temperature=maybe(st.floats(0, 2)),
        top_p=maybe(st.floats(0, 1)),
        stop=st.lists(words, max_size=3),
        reasoning=maybe(effort | st.integers(1, 10**5).map(lambda number: m.ReasoningConfig(budget_tokens=number))),
        extra=st.fixed_dictionaries({}, optional={"seed": st.integers(0, 9), "webhook": words}),
    )


_replicate_text = maybe(texts.map(lambda text: text.replace("\r", "")))
_version = st.dictionaries(st.just("version"), words, max_size=1)


@st.composite
def replicate_replies(draw: st.DrawFn) -> m.GenerateResponse:
    """Return answers that a prediction expresses without loss: without carriage returns, which streams cannot write."""
    found = draw(_usage)
    metrics = (
        {} if found is None else {"input_token_count": found.input_tokens, "output_token_count": found.output_tokens}
    )
    version = draw(_version)
    return m.GenerateResponse(
        text=draw(_replicate_text),
        usage=found,
        model=draw(words),
        finish_reason=m.FinishReason.STOP,
        raw_finish_reason="succeeded",
        request_id=draw(words),
        extra={**version, **({"metrics": metrics} if metrics else {})},
    )


REQUESTS: dict[str, Callable[[], SearchStrategy[m.GenerateRequest]]] = {
    "cohere": cohere_requests,
    "ai21": ai21_requests,
    "replicate": replicate_requests,
}
REPLIES: dict[str, Callable[[], SearchStrategy[m.GenerateResponse]]] = {
    "cohere": cohere_replies,
    "ai21": ai21_replies,
    "replicate": replicate_replies,
}
