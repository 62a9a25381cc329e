"""In what the many servers of the OpenAI chat dialect differ."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council.models._attrs import as_dict, as_tuple, strict_init

__all__ = ["DEFAULT", "ChatOptions", "ReasoningStyle", "SchemaStyle"]


class ReasoningStyle(StrEnum):
    """How a server is told to think.

    ``effort`` is ``reasoning_effort``; ``object`` is OpenRouter's ``reasoning: {effort | max_tokens}``; ``vllm`` is
    ``reasoning_effort`` with ``thinking_token_budget``, and the chat template's switch to turn it off.
    """

    NONE = "none"
    EFFORT = "effort"
    OBJECT = "object"
    VLLM = "vllm"


class SchemaStyle(StrEnum):
    """What ``response_format`` a server takes for a schema: the schema itself, the word JSON alone, or nothing."""

    NONE = "none"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


@strict_init
@attrs.frozen(kw_only=True)
class ChatOptions:
    """In what one server of the dialect differs from another; profiles fill it.

    Attributes:
        vendor: whose reasoning blocks these are; only blocks of the same vendor are sent back.
        max_tokens_field: the key of the answer's token limit.
        system_role: the role word of a system turn.
        developer_role: the role word of a developer turn.
        reasoning: how the server is told to think.
        echo: the key under which an assistant's turn carries its reasoning back: ``"reasoning_details"`` (the blocks
            unchanged), ``"content"`` (its parts that are thoughts, unchanged), ``"reasoning_content"`` or
            ``"reasoning"`` (their text); None sends none back.
        schema: what becomes of a structured output.
        stream_usage: ask for the usage of a stream.
        cache_control: send cache marks; most servers of the dialect cache by themselves and refuse marks.
        tool_call_keys: the vendor's own keys of a tool call that it wants back.
        think_tags: the model writes its reasoning into the answer, between ``<think>`` tags.
        finish_required: a stream without finish reason and ``[DONE]`` was cut; False for servers that send neither.
        body: keys of the vendor's own that every request carries; the request's own win.
    """

    vendor: str = "openai"
    max_tokens_field: str = "max_tokens"
    system_role: str = "system"
    developer_role: str = "system"
    reasoning: ReasoningStyle = attrs.field(default=ReasoningStyle.EFFORT, converter=ReasoningStyle)
    echo: str | None = None
    schema: SchemaStyle = attrs.field(default=SchemaStyle.JSON_SCHEMA, converter=SchemaStyle)
    stream_usage: bool = True
    cache_control: bool = False
    tool_call_keys: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    think_tags: bool = False
    finish_required: bool = True
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = ChatOptions()
"""What nearly every server of the dialect takes."""
