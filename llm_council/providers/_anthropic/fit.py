"""Rules of Anthropic's API that model profiles cannot express: which fields exclude each other."""

from __future__ import annotations

from typing import Any

import attrs

from llm_council.models.reply import Adjustment
from llm_council.models.request import Effort, GenerateRequest
from llm_council.providers._anthropic.request import MessagesOptions, offers_tools, thinking_budget

__all__ = ["fit"]


def fit(request: GenerateRequest, options: MessagesOptions) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Drop or change the fields of a request that the API does not accept together. Pure and idempotent.

    A thinking budget needs room below ``max_tokens`` and excludes a forced tool. Thinking of any kind excludes
    ``temperature`` and ``top_p``, and these two exclude each other (Messages API reference).

    Args:
        request: the request, already fitted to the model's profile.
        options: how the model differs.

    Returns:
        The request, and one adjustment per changed field.
    """
    changes: dict[str, Any] = {}
    adjustments: list[Adjustment] = []

    def drop(field: str, reason: str) -> None:
        changes[field] = None
        adjustments.append(Adjustment(field=field, action="dropped", asked=getattr(request, field), reason=reason))

    config = request.reasoning
    thinks = config is not None and config.effort is not Effort.NONE
    if config is not None and thinks:
        asked, budget = config.budget_tokens, thinking_budget(request, options)
        is_forced = offers_tools(request) and request.tool_choice not in (None, "auto", "none")
        if budget is not None and is_forced:
            drop("reasoning", "the API does not accept a thinking budget beside a forced tool")
            thinks = False
        elif budget is None and asked is not None:
            drop("reasoning", "max_tokens leaves no room for the smallest budget, 1024 tokens")
            thinks = False
        elif budget is not None and asked is not None and asked != budget:
            changes["reasoning"] = attrs.evolve(config, budget_tokens=budget)
            adjustments.append(
                Adjustment(
                    field="reasoning",
                    action="lowered" if budget < asked else "raised",
                    asked=asked,
                    sent=budget,
                    reason="a budget must be at least 1024 tokens, and smaller than max_tokens",
                )
            )
    if thinks:
        for field in ("temperature", "top_p"):
            if getattr(request, field) is not None:
                drop(field, "the API does not accept it while the model thinks")
    elif request.temperature is not None and request.top_p is not None:
        drop("top_p", "the API takes temperature or top_p, not both")
    return (attrs.evolve(request, **changes) if changes else request), tuple(adjustments)
