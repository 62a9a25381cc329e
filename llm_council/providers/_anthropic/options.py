"""In what models and servers of Anthropic's Messages dialect differ."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council.models._attrs import as_dict, optional, positive_int, strict_init

__all__ = ["DEFAULT", "MessagesOptions", "ThinkingStyle"]


class ThinkingStyle(StrEnum):
    """How a model is told to think.

    ``adaptive`` is ``thinking: {type: adaptive}`` with ``output_config.effort`` (Claude 4.6 and later); ``budget`` is
    ``thinking: {type: enabled, budget_tokens}``, into which a word of effort is turned (Claude 3.7 to 4.5).
    """

    ADAPTIVE = "adaptive"
    BUDGET = "budget"


@strict_init
@attrs.frozen(kw_only=True)
class MessagesOptions:
    """In what one model or server of the dialect differs from another; profiles fill it.

    Attributes:
        vendor: whose reasoning blocks these are; only blocks of the same vendor are sent back.
        max_tokens: most tokens of an answer where the request does not say: the dialect requires a number.
        max_output: the most that the model takes there; None is unknown.
        thinking: how the model is told to think.
        display: whether thinking comes as a summary (``"summarized"``) or hidden (``"omitted"``), where adaptive
            thinking takes the word; None leaves it to the model.
        cache_control: send cache marks.
        body: keys of one's own that every request carries; the request's own win.
    """

    vendor: str = "anthropic"
    max_tokens: int = attrs.field(default=16_000, validator=positive_int)
    max_output: int | None = attrs.field(default=None, validator=optional(positive_int))
    thinking: ThinkingStyle = attrs.field(default=ThinkingStyle.ADAPTIVE, converter=ThinkingStyle)
    display: str | None = None
    cache_control: bool = True
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = MessagesOptions()
"""What current models take at Anthropic's own address."""
