"""What a provider answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self

import attrs

from llm_council.errors import Attempt, InvalidOption
from llm_council.models._attrs import as_dict, as_tuple, copy_with, non_negative_int, optional, strict_init, tokens
from llm_council.models.messages import Message, Part, ReasoningPart, TextPart, ToolCall

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
    """Why a model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"

    @classmethod
    def of(cls, word: str | None) -> FinishReason | None:
        """Read a vendor's word; None for one that is not known: an unknown word is no proof of a whole answer."""
        return None if word is None else _WORDS.get(word.strip().lower())


# The vendors' words, lower case (vendors' API references; each dialect may know more of its own).
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
    **dict.fromkeys(("failed", "timeout", "abort", "error_toxic", "insufficient_system_resource"), FinishReason.ERROR),
}


def _sum(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else a + b


@strict_init
@attrs.frozen(kw_only=True)
class Usage:
    """Tokens of a call or a run. None is unknown, never 0.

    Attributes:
        input_tokens: all tokens that went in, cached ones included.
        output_tokens: all tokens that came out, reasoning included.
        cached_tokens: of the input, those read from the vendor's cache.
        cache_write_tokens: of the input, those written to the vendor's cache.
        reasoning_tokens: of the output, those of reasoning.
        estimated: whether any of these is our estimate, not the vendor's count.
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
        """Return usage from counts as a vendor wrote them: whatever is no whole number of 0 or more is unknown."""
        return cls(
            input_tokens=tokens(input_tokens),
            output_tokens=tokens(output_tokens),
            cached_tokens=tokens(cached_tokens),
            cache_write_tokens=tokens(cache_write_tokens),
            reasoning_tokens=tokens(reasoning_tokens),
        )

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None when both are unknown."""
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
    """Where a cost comes from."""

    REPORTED = "reported"
    TABLE = "table"
    UNKNOWN = "unknown"


@strict_init
@attrs.frozen(kw_only=True)
class Cost:
    """Money of a call or a run.

    Attributes:
        usd: US dollars; None is unknown, never 0.
        source: reported by the vendor, from a price table, or unknown.
        complete: whether every call counted in ``usd`` had a known cost.
    """

    usd: float | None = None
    source: CostSource = attrs.field(default=CostSource.UNKNOWN, converter=CostSource)
    complete: bool = False

    def __add__(self, other: Cost) -> Cost:
        if self.usd is None and other.usd is None:
            return Cost()
        sources = {cost.source for cost in (self, other) if cost.usd is not None}
        return Cost(
            usd=(self.usd or 0.0) + (other.usd or 0.0),
            source=CostSource.REPORTED if sources == {CostSource.REPORTED} else CostSource.TABLE,
            complete=self.complete and other.complete,
        )


@strict_init
@attrs.frozen(kw_only=True)
class Adjustment:
    """Something of a request that was sent otherwise than asked.

    Attributes:
        field: the request's field, such as ``"temperature"`` or ``"structured_output"``.
        action: ``"dropped"``, ``"lowered"``, ``"raised"``, ``"renamed"``, ``"projected"`` or ``"emulated"``.
        asked: what the request said.
        sent: what was sent; None when nothing was.
        reason: why, for people.
    """

    field: str
    action: str
    asked: Any = None
    sent: Any = None
    reason: str = ""


def _content(value: str | Iterable[Part] | None) -> str | tuple[Part, ...] | None:
    return value if value is None or isinstance(value, str) else as_tuple(value)


@strict_init
@attrs.frozen(kw_only=True)
class GenerateResponse:
    """One whole answer.

    Attributes:
        text: the answer's text, without reasoning; None when there is none.
        content: the same text, or the parts it came in; each of the two is filled from the other.
        structured: the value that the adapter itself shaped to the request's schema, apart from ``text``.
        reasoning: the readable reasoning.
        reasoning_parts: reasoning as the vendor signed it, to be sent back, with what must keep its place between it.
        refusal: the model's own words of refusal.
        tool_calls: calls that the model asks for.
        usage: tokens; None when the vendor did not say.
        cost: money; None when the vendor did not say.
        model: the model that answered.
        finish_reason: a ``FinishReason``; any word is taken and normalised, None stands for unknown.
        raw_finish_reason: the vendor's own word.
        request_id: the vendor's id of the request.
        attempts: every try of the call, oldest first.
        adjustments: what was sent otherwise than asked.
        extra: the vendor's own additions.
        raw: the vendor's reply.
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
        fill = object.__setattr__
        if self.text is None and self.content is not None:
            parts = self.content
            fill(self, "text", parts if isinstance(parts, str) else _text_of(parts))
        elif self.content is None and self.text is not None:
            fill(self, "content", self.text)
        word = self.finish_reason
        if word is not None and not isinstance(word, FinishReason):
            fill(self, "finish_reason", FinishReason.of(str(word)))
            if self.raw_finish_reason is None:
                fill(self, "raw_finish_reason", str(word))

    def to_message(self) -> Message:
        """Return the assistant's turn to send back: text, tool calls, and reasoning exactly as it was signed."""
        answer: tuple[Part, ...] = (TextPart(text=self.text),) if self.text else ()
        return Message("assistant", (*self.reasoning_parts, *answer), tool_calls=self.tool_calls)


def _text_of(parts: Iterable[Part]) -> str | None:
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    return "".join(texts) if texts else None


@attrs.frozen(kw_only=True)
class ToolCallDelta:
    """A piece of a tool call.

    Attributes:
        index: which call of the turn it belongs to, from 0.
        id: set in the call's first piece.
        name: set in the call's first piece.
        arguments: the next characters of its JSON text.
        extra: the vendor's own additions.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extra: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class GenerateChunk:
    """A piece of an answer, as it arrives. Joining all pieces with ``join`` gives the whole answer.

    Attributes:
        text: the next characters of the answer.
        reasoning: the next characters of the reasoning.
        refusal: the next characters of a refusal.
        tool_calls: pieces of tool calls.
        reasoning_parts: signed reasoning, whole, with what must keep its place between it.
        finish_reason: set once the model stopped.
        raw_finish_reason: the vendor's own word.
        usage: tokens so far, in most dialects in the last piece alone.
        cost: money, where the vendor says it.
        model: the model that answers.
        request_id: the vendor's id of the request.
        adjustments: what was sent otherwise than asked; in the first piece alone.
        structured: see ``GenerateResponse.structured``; in the last piece alone.
        extra: the vendor's own additions.
        reset: why every earlier piece is void: the answer begins again here, from another provider perhaps.
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
        """Return a whole answer as one piece."""
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

    Later words win for the finish reason, usage, cost, model and request id; texts and arguments are concatenated. What
    came before a ``reset`` is forgotten.

    Raises:
        InvalidOption: a tool call whose first piece has no name.
    """
    texts: list[str] = []
    reasonings: list[str] = []
    refusals: list[str] = []
    calls: dict[int, list[ToolCallDelta]] = {}
    extra: dict[str, Any] = {}
    facts: dict[str, Any] = {"reasoning_parts": (), "adjustments": ()}
    known: tuple[Any, ...] = (None,) * len(_LATEST)
    for chunk in chunks:
        if chunk.reset is not None:
            texts, reasonings, refusals, calls, extra = [], [], [], {}, {}
            facts, known = {"reasoning_parts": (), "adjustments": ()}, (None,) * len(_LATEST)
        texts.append(chunk.text)
        reasonings.append(chunk.reasoning)
        refusals.append(chunk.refusal)
        for delta in chunk.tool_calls:
            calls.setdefault(delta.index, []).append(delta)
        latest = _latest(chunk)
        if latest != known:  # most chunks of a long answer hold nothing but words, and perhaps the model again
            facts.update((name, value) for name, value in zip(_LATEST, latest, strict=True) if value is not None)
            known = latest
        if chunk.structured is not None:
            facts["structured"] = chunk.structured
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


_LATEST = ("finish_reason", "raw_finish_reason", "usage", "cost", "model", "request_id")
_latest = attrgetter(*_LATEST)


def _call(deltas: list[ToolCallDelta]) -> ToolCall:
    name = next((delta.name for delta in deltas if delta.name), None)
    if name is None:
        raise InvalidOption("a tool call arrived without a name")
    extra: dict[str, Any] = {}
    for delta in deltas:
        extra.update(delta.extra)
    return ToolCall(
        id=next((delta.id for delta in deltas if delta.id), "") or f"call_{deltas[0].index}",
        name=name,
        arguments="".join(delta.arguments for delta in deltas),
        extra=extra,
    )
