"""In what the models of Google's dialect differ."""

from __future__ import annotations

from enum import StrEnum

import attrs

from llm_council._wire.openai_chat import SchemaStyle
from llm_council.models._attrs import strict_init

__all__ = ["DEFAULT", "VENDOR", "GeminiOptions", "ThinkingStyle"]

VENDOR = "gemini"
"""Whose reasoning blocks this dialect writes and sends back."""


class ThinkingStyle(StrEnum):
    """How a model is told to think: ``thinkingBudget`` (2.5), ``thinkingLevel`` (3 and later), or not at all."""

    NONE = "none"
    BUDGET = "budget"
    LEVEL = "level"


@strict_init
@attrs.frozen(kw_only=True)
class GeminiOptions:
    """In what one model of the dialect differs from another; profiles fill it.

    Attributes:
        thinking: how it is told to think.
        schema: what becomes of a structured output: the schema itself, the word JSON alone, or nothing.
    """

    thinking: ThinkingStyle = attrs.field(default=ThinkingStyle.LEVEL, converter=ThinkingStyle)
    schema: SchemaStyle = attrs.field(default=SchemaStyle.JSON_SCHEMA, converter=SchemaStyle)


DEFAULT = GeminiOptions()
"""What the newest models take."""
