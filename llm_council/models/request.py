"""The request to a provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import (
    as_dict,
    as_tuple,
    fraction,
    non_negative,
    non_negative_int,
    optional,
    positive,
    positive_int,
    strict_init,
    string,
)
from llm_council.models.messages import Message

__all__ = ["CacheMode", "Effort", "GenerateRequest", "ReasoningConfig", "StructuredOutput", "Tool"]


class Effort(StrEnum):
    """How much a model should think before it answers."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class CacheMode(StrEnum):
    """What a ``Cached`` middleware may do with a call."""

    OFF = "off"  # neither read nor write
    READ = "read"  # read; on a miss, call the model and store nothing
    WRITE = "write"  # call the model and store the new answer
    ONLY = "only"  # read; on a miss, fail without a call


def cache_mode(value: str | None) -> CacheMode | None:
    """Return the ``CacheMode`` of a word; None stays None."""
    if value is None:
        return None
    try:
        return CacheMode(value)
    except ValueError:
        raise InvalidOption(f"cache: one of {', '.join(CacheMode)}, got {value!r:.80}") from None


def _effort(value: str | None) -> Effort | None:
    if value is None:
        return None
    try:
        return Effort(value)
    except ValueError:
        raise InvalidOption(f"ReasoningConfig.effort: one of {', '.join(Effort)}, got {value!r:.80}") from None


@strict_init
@attrs.frozen(kw_only=True)
class ReasoningConfig:
    """How much a model may think before it answers.

    Attributes:
        effort: an ``Effort`` or its word; None leaves it to the vendor.
        budget_tokens: maximum tokens of thinking, for vendors that take a number.
    """

    effort: Effort | None = attrs.field(default=None, converter=_effort)
    budget_tokens: int | None = attrs.field(default=None, validator=optional(non_negative))


@strict_init
@attrs.frozen(kw_only=True)
class StructuredOutput:
    """The JSON Schema that the answer must match.

    Attributes:
        json_schema: the schema.
        name: the schema's name in the request to the vendor.
        strict: ask the vendor to constrain decoding by the schema, where it can.
    """

    json_schema: Mapping[str, Any] = attrs.field(converter=as_dict)
    name: str = "council_output"
    strict: bool = True


@strict_init
@attrs.frozen(kw_only=True)
class Tool:
    """A function that the model may ask to call.

    Attributes:
        name: the function's name.
        description: what it does, for the model.
        parameters: JSON Schema of the arguments.
        strict: ask the vendor to constrain the arguments by the schema; None leaves it to the vendor.
    """

    name: str = attrs.field(validator=string)
    description: str | None = None
    parameters: Mapping[str, Any] = attrs.field(factory=lambda: {"type": "object", "properties": {}}, converter=as_dict)
    strict: bool | None = None

    @classmethod
    def of(cls, value: Any) -> Tool:
        """Return a tool from a ``Tool``, or from the mapping that chat APIs use: flat, or under ``"function"``."""
        if isinstance(value, Tool):
            return value
        # Chat completions nest a tool under "function"; OpenAI's responses API writes the same keys flat.
        inner = value.get("function", value) if isinstance(value, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise InvalidOption(f"GenerateRequest.tools: a Tool, or a mapping with a name, got {value!r:.80}")
        known = {key: inner[key] for key in ("name", "description", "parameters", "strict") if key in inner}
        return cls(**known)


def _tools(value: Iterable[Tool | Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    return tuple(Tool.of(tool) for tool in as_tuple(value))


def _tool_choice(value: str | Mapping[str, Any] | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    # OpenAI nests the name, {"type": "function", "function": {"name": ...}}; Anthropic does not.
    function = value.get("function", value)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InvalidOption(f"GenerateRequest.tool_choice: auto, none, required or a tool's name, got {value!r:.80}")
    return name


def _messages(value: Iterable[Message | Mapping[str, Any]] | None) -> tuple[Message, ...]:
    turns = []
    for turn in as_tuple(value):
        if isinstance(turn, Message):
            turns.append(turn)
        elif isinstance(turn, Mapping):
            turns.append(Message(**turn))
        else:
            raise InvalidOption(f"GenerateRequest.messages: a Message, or a mapping of its fields, got {turn!r:.80}")
    return tuple(turns)


def _stop(value: str | Iterable[str] | None) -> tuple[str, ...]:
    # A string is one stop word, as in OpenAI's API; read as a sequence, it would stop at each of its letters.
    return (value,) if isinstance(value, str) else as_tuple(value)


@strict_init
@attrs.frozen(kw_only=True, slots=False)
class GenerateRequest:
    """One call to a model. A field that is None is not sent.

    Attributes:
        model: the vendor's name of the model; None uses the provider's default.
        prompt: one user message; either this or ``messages`` is required.
        messages: the conversation so far.
        timeout_seconds: maximum seconds for the whole call, including retries and waits.
        max_tokens: maximum tokens of the answer.
        temperature: sampling temperature, from 0.
        top_p: nucleus sampling, from 0 to 1.
        stop: strings at which the model stops; a single string is accepted.
        sample: number of the draw, where the same question is asked several times: requests that differ in it are
            different requests for a ``Cached`` middleware, and for a vendor that takes idempotency keys. It is sent as
            the seed, where the vendor documents one. None is a request that is asked once.
        stream: for adapters whose ``generate`` also serves streams; callers use ``stream()``.
        tools: functions that the model may call; mappings in the form of chat APIs are accepted.
        tool_choice: ``"auto"``, ``"none"``, ``"required"`` or the name of a tool.
        response_format: the mapping of chat APIs, for adapters that still read it; prefer ``structured_output``.
        structured_output: the schema that the answer must match.
        reasoning: how much to think.
        prompt_cache: True marks the stable prefix for the vendor's cache; ``"5m"`` or ``"1h"`` also sets its lifetime.
        cache: a ``CacheMode``, which limits what a ``Cached`` middleware may do; None reads and writes.
        idempotency_key: sent unchanged with every retry of this call.
        metadata: for the caller; never sent.
        extra: vendor-specific fields, sent as they are.
    """

    model: str | None = None
    prompt: str | None = attrs.field(default=None, validator=optional(string))
    messages: tuple[Message, ...] = attrs.field(default=(), converter=_messages)
    timeout_seconds: float | None = attrs.field(default=None, validator=optional(positive))
    max_tokens: int | None = attrs.field(default=None, validator=optional(positive_int))
    temperature: float | None = attrs.field(default=None, validator=optional(non_negative))
    top_p: float | None = attrs.field(default=None, validator=optional(fraction))
    stop: tuple[str, ...] = attrs.field(default=(), converter=_stop)
    sample: int | None = attrs.field(default=None, validator=optional(non_negative_int))
    stream: bool = False
    tools: tuple[Tool, ...] = attrs.field(default=(), converter=_tools)
    tool_choice: str | None = attrs.field(default=None, converter=_tool_choice)
    response_format: Mapping[str, Any] | None = attrs.field(default=None, converter=attrs.converters.optional(as_dict))
    structured_output: StructuredOutput | None = None
    reasoning: ReasoningConfig | None = None
    prompt_cache: bool | str | None = None  # the lifetimes are those of Anthropic's cache_control
    cache: CacheMode | None = attrs.field(default=None, converter=cache_mode)
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)

    def __attrs_post_init__(self) -> None:
        if not self.prompt and not self.messages:
            raise InvalidOption("GenerateRequest needs a prompt or messages")

    def turns(self) -> tuple[Message, ...]:
        """Return the conversation: ``messages``, else the prompt as one user message."""
        return self.messages or (Message("user", self.prompt or ""),)
