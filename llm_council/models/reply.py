"""The reply of a provider: whole or streamed, with usage and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Self

import attrs

from llm_council.errors import Attempt, InvalidOption
from llm_council.models._attrs import (
    as_dict,
    as_tuple,
    copy_with,
    non_negative_int,
    optional,
    positive,
    strict_init,
    tokens,
)
from llm_council.models.messages import Message, Part, ReasoningPart, TextPart, ToolCall, new_call_id

__all__ = [
    "Adjustment",
    "Attempt",
    "Cost",
    "CostSource",
    "FinishReason",
    "GenerateChunk",
    "GenerateResponse",
    "ToolCallDelta",
    "Usage",
    "join",
]


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"

    @classmethod
    def of(cls, word: str | None) -> FinishReason | None:
        """Return the reason for a vendor's word; None for an unknown word.

        It is not read as ``STOP``: an unknown word does not prove that the answer is complete.
        """
        return None if word is None else _WORDS.get(word.strip().lower())


# The words of the vendors' API references, in lower case. A dialect may add its own.
_WORDS = {
    **{str(reason): reason for reason in FinishReason},
    **dict.fromkeys(
        ("end_turn", "stop_sequence", "eos", "eos_token", "completed", "complete", "done"), FinishReason.STOP
    ),
    **dict.fromkeys(
        ("max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"), FinishReason.LENGTH
    ),
    **dict.fromkeys(("tool_use", "tool_call", "function_call"), FinishReason.TOOL_CALLS),
    **dict.fromkeys(
        ("refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii"), FinishReason.CONTENT_FILTER
    ),
    # Zhipu ("sensitive"), Bedrock (Converse, stopReason) and Cohere on Bedrock ("error_toxic") withhold by these.
    **dict.fromkeys(
        ("sensitive", "content_filtered", "guardrail_intervened", "error_toxic"), FinishReason.CONTENT_FILTER
    ),
    **dict.fromkeys(
        ("failed", "timeout", "abort", "insufficient_system_resource", "network_error"), FinishReason.ERROR
    ),
}


def _sum(a: int | None, b: int | None) -> int | None:
    """Add two counts; None is unknown and does not make the sum unknown."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class Usage:
    """Tokens of a call or a run. None means unknown, not 0.

    Attributes:
        input_tokens: all input tokens, including cached ones.
        output_tokens: all output tokens, including reasoning.
        cached_tokens: input tokens that were read from the vendor's cache.
        cache_write_tokens: input tokens that were written to the vendor's cache.
        reasoning_tokens: output tokens of the reasoning.
        estimated: True if any count is an estimate of this library.
    """

    input_tokens: int | None = attrs.field(default=None, validator=optional(non_negative_int))
    output_tokens: int | None = attrs.field(default=None, validator=optional(non_negative_int))
    cached_tokens: int | None = attrs.field(default=None, validator=optional(non_negative_int))
    cache_write_tokens: int | None = attrs.field(default=None, validator=optional(non_negative_int))
    reasoning_tokens: int | None = attrs.field(default=None, validator=optional(non_negative_int))
    estimated: bool = False

    @classmethod
    def counted(
        cls,
        *,
        input_tokens: Any = None,
        output_tokens: Any = None,
        cached_tokens: Any = None,
        cache_write_tokens: Any = None,
        reasoning_tokens: Any = None,
    ) -> Self:
        """Return the usage for a vendor's counts; a value that is not a whole number of 0 or more counts as unknown."""
        return cls(
            input_tokens=tokens(input_tokens),
            output_tokens=tokens(output_tokens),
            cached_tokens=tokens(cached_tokens),
            cache_write_tokens=tokens(cache_write_tokens),
            reasoning_tokens=tokens(reasoning_tokens),
        )

    @property
    def total_tokens(self) -> int | None:
        """Input and output tokens together; None if both are unknown."""
        return _sum(self.input_tokens, self.output_tokens)

    def __add__(self, other: Usage) -> Usage:
        return copy_with(
            self,
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            estimated=self.estimated or other.estimated,
        )


class CostSource(StrEnum):
    """How a cost is known."""

    REPORTED = "reported"
    TABLE = "table"
    UNKNOWN = "unknown"


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class Cost:
    """The cost of a call or a run.

    Attributes:
        usd: US dollars; None means unknown, not 0.
        source: reported by the vendor, from a price table, or unknown.
        complete: True if the cost of every call is known and included in ``usd``.
        share: the share of the direct price that was paid: 0.5 for calls in a vendor's batch job at half price. An
            answer may have it without ``usd``, which then comes from the price table.
    """

    usd: float | None = None
    source: CostSource = attrs.field(default=CostSource.UNKNOWN, converter=CostSource)
    complete: bool = False
    share: float = attrs.field(default=1.0, validator=positive)

    def __add__(self, other: Cost) -> Cost:
        if self.usd is None and other.usd is None:
            return Cost(share=self.share if self.share == other.share else 1.0)
        # Of two sources, the less certain one is named: a sum with a price from a table is not a reported cost.
        sources = {cost.source for cost in (self, other) if cost.usd is not None}
        return Cost(
            usd=(self.usd or 0.0) + (other.usd or 0.0),
            source=CostSource.REPORTED if sources == {CostSource.REPORTED} else CostSource.TABLE,
            complete=self.complete and other.complete,
            share=self._share_with(other),
        )

    def _share_with(self, other: Cost) -> float:
        """Return what both costs together are of their direct prices."""
        if self.usd is None or other.usd is None:
            return self.share if self.usd is not None else other.share
        if self.share == other.share:
            return self.share
        direct = self.usd / self.share + other.usd / other.share
        return (self.usd + other.usd) / direct if self.usd + other.usd > 0 else 1.0


@strict_init
@attrs.frozen(kw_only=True)
class Adjustment:
    """A change that was made to a request because the model does not support what was asked.

    Attributes:
        field: the request's field, such as ``"temperature"`` or ``"structured_output"``.
        action: ``"dropped"``, ``"lowered"``, ``"raised"``, ``"renamed"``, ``"moved"``, ``"added"``,
            ``"projected"``, ``"emulated"``, or ``"ignored"`` for what the vendor was asked for and did not do.
        asked: the value in the request.
        sent: the value that was sent; None if the field was left out.
        reason: why, in words for people.
    """

    field: str
    action: str
    asked: Any = None
    sent: Any = None
    reason: str = ""


def _content(value: str | Iterable[Part] | None) -> str | tuple[Part, ...] | None:
    return value if value is None or isinstance(value, str) else as_tuple(value)


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class GenerateResponse:
    """A complete answer.

    Attributes:
        text: the text of the answer, without reasoning; None if there is none.
        content: the same text, or its parts. Give one of ``text`` and ``content``; the other is derived from it.
        structured: the value for the request's schema, if the adapter returns it apart from ``text``.
        reasoning: the readable reasoning.
        reasoning_parts: the signed reasoning, to be sent back, and blocks whose position between it must be preserved.
        refusal: the model's refusal in its own words.
        tool_calls: the tool calls that the model asks for.
        usage: token counts; None if the vendor sent none.
        cost: the cost; None if the vendor sent none.
        model: the model that answered.
        finish_reason: a ``FinishReason``; a vendor's word is accepted and normalised. None means unknown.
        raw_finish_reason: the vendor's own word.
        request_id: the vendor's id of the request.
        attempts: every attempt of the call, the oldest first.
        adjustments: changes that were made to the request.
        extra: vendor-specific fields.
        raw: the decoded reply of the vendor.
    """

    text: str | None = None
    content: str | tuple[Part, ...] | None = attrs.field(default=None, converter=_content)
    structured: Any = None
    reasoning: str | None = None
    reasoning_parts: tuple[ReasoningPart, ...] = attrs.field(default=(), converter=as_tuple)
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), converter=as_tuple)
    usage: Usage | None = None
    cost: Cost | None = None
    model: str | None = None
    finish_reason: FinishReason | str | None = None
    raw_finish_reason: str | None = None
    request_id: str | None = None
    attempts: tuple[Attempt, ...] = attrs.field(default=(), converter=as_tuple)
    adjustments: tuple[Adjustment, ...] = attrs.field(default=(), converter=as_tuple)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    raw: Any = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        set_field = object.__setattr__  # attrs' own way to finish a frozen instance
        if self.text is None and self.content is not None:
            set_field(self, "text", self.content if isinstance(self.content, str) else _text_of(self.content))
        elif self.content is None and self.text is not None:
            set_field(self, "content", self.text)
        word = self.finish_reason
        if word is not None and not isinstance(word, FinishReason):
            set_field(self, "finish_reason", FinishReason.of(str(word)))
            if self.raw_finish_reason is None:
                set_field(self, "raw_finish_reason", str(word))

    def to_message(self) -> Message:
        """Return the assistant's message to send back: text, tool calls, and reasoning exactly as it was signed."""
        answer: tuple[Part, ...] = (TextPart(text=self.text),) if self.text else ()
        return Message("assistant", (*self.reasoning_parts, *answer), tool_calls=self.tool_calls)


def _text_of(parts: Iterable[Part]) -> str | None:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts) if texts else None


@attrs.frozen(kw_only=True)
class ToolCallDelta:
    """A piece of a streamed tool call.

    Attributes:
        index: which tool call of the answer it belongs to, from 0.
        id: set in the first piece of the call.
        name: set in the first piece of the call.
        arguments: the next characters of the JSON text.
        extra: vendor-specific fields.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extra: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class GenerateChunk:
    """A piece of a streamed answer. ``join`` makes a complete answer of all pieces.

    Attributes:
        text: the next characters of the answer.
        reasoning: the next characters of the reasoning.
        refusal: the next characters of a refusal.
        tool_calls: pieces of tool calls.
        reasoning_parts: complete blocks of signed reasoning, see ``GenerateResponse.reasoning_parts``.
        finish_reason: set once the model has stopped.
        raw_finish_reason: the vendor's own word.
        usage: token counts so far; most dialects send them in the last piece only.
        cost: the cost, if the vendor sends it.
        model: the model that answers.
        request_id: the vendor's id of the request.
        adjustments: changes that were made to the request; in the first piece only.
        structured: see ``GenerateResponse.structured``; in the last piece only.
        extra: vendor-specific fields.
        reset: the reason why the answer starts again here, possibly from another provider; earlier pieces are void.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning_parts: tuple[ReasoningPart, ...] = ()
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    model: str | None = None
    request_id: str | None = None
    adjustments: tuple[Adjustment, ...] = ()
    structured: Any = None
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    reset: str | None = None

    @classmethod
    def whole(cls, response: GenerateResponse) -> Self:
        """Return a complete answer as one piece."""
        return cls(
            text=response.text or "",
            reasoning=response.reasoning or "",
            refusal=response.refusal or "",
            tool_calls=tuple(
                ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments, extra=call.extra)
                for index, call in enumerate(response.tool_calls)
            ),
            reasoning_parts=response.reasoning_parts,
            finish_reason=FinishReason.of(response.finish_reason),
            raw_finish_reason=response.raw_finish_reason,
            usage=response.usage,
            cost=response.cost,
            model=response.model,
            request_id=response.request_id,
            adjustments=response.adjustments,
            structured=response.structured,
            extra=response.extra,
        )


def join(chunks: Iterable[GenerateChunk]) -> GenerateResponse:
    """Join the pieces of one answer, in order.

    Texts and arguments are concatenated. For the finish reason, usage, cost, model and request id, the last value
    counts. Pieces before a ``reset`` are dropped.

    Raises:
        InvalidOption: a tool call whose first piece has no name.
    """
    texts: list[str] = []
    reasonings: list[str] = []
    refusals: list[str] = []
    calls: dict[int, list[ToolCallDelta]] = {}
    extra: dict[str, Any] = {}
    facts: dict[str, Any] = {"reasoning_parts": (), "adjustments": ()}
    for chunk in chunks:
        # A retry or another provider starts from the beginning: nothing of the first attempt may stay.
        if chunk.reset is not None:
            texts, reasonings, refusals, calls, extra = [], [], [], {}, {}
            facts = {"reasoning_parts": (), "adjustments": ()}
        texts.append(chunk.text)
        reasonings.append(chunk.reasoning)
        refusals.append(chunk.refusal)
        for delta in chunk.tool_calls:
            calls.setdefault(delta.index, []).append(delta)
        for name in _LAST_VALUE_COUNTS:
            value = getattr(chunk, name)
            if value is not None:
                facts[name] = value
        facts["reasoning_parts"] += chunk.reasoning_parts
        facts["adjustments"] += chunk.adjustments
        extra.update(chunk.extra)
    return GenerateResponse(
        text="".join(texts) or None,
        reasoning="".join(reasonings) or None,
        refusal="".join(refusals) or None,
        tool_calls=tuple(_call(calls[index]) for index in sorted(calls)),
        extra=extra,
        **facts,
    )


_LAST_VALUE_COUNTS = ("finish_reason", "raw_finish_reason", "usage", "cost", "model", "request_id", "structured")


def _call(deltas: list[ToolCallDelta]) -> ToolCall:
    name = next((delta.name for delta in deltas if delta.name), None)
    if name is None:
        raise InvalidOption(f"tool call {deltas[0].index} arrived without a name: its first piece must have one")
    extra: dict[str, Any] = {}
    for delta in deltas:
        extra.update(delta.extra)
    return ToolCall(
        # Ids are optional in Gemini's dialect and missing from some compatible servers, but tool results refer to them.
        id=next((delta.id for delta in deltas if delta.id), "") or new_call_id(deltas[0].index),
        name=name,
        arguments="".join(delta.arguments for delta in deltas),
        extra=extra,
    )
