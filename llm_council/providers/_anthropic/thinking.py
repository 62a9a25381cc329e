"""Thinking in Anthropic's Messages dialect: how it is asked for, and the blocks that go back unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_council.models.messages import ReasoningPart
from llm_council.models.request import Effort, GenerateRequest
from llm_council.providers._anthropic.options import MessagesOptions, ThinkingStyle

__all__ = [
    "BLOCKS",
    "LEAST_BUDGET",
    "SAID",
    "block_of",
    "encode_thinking",
    "part_of",
    "parts_to_echo",
    "thinking_budget",
]

BLOCKS = frozenset({"thinking", "redacted_thinking"})
"""The types of the content blocks that hold thinking."""

SAID = ("text", "tool_use")
"""The types of the content blocks that a turn says itself."""

LEAST_BUDGET = 1024
"""The smallest ``budget_tokens`` that is taken (Messages API reference)."""

# What a word of effort is worth to models that count tokens. Ours: the vendor names no numbers.
_WORTH = {
    Effort.MINIMAL: LEAST_BUDGET,
    Effort.LOW: 2_048,
    Effort.MEDIUM: 8_192,
    Effort.HIGH: 16_384,
    Effort.XHIGH: 24_576,
    Effort.MAX: 32_000,
}


def thinking_budget(request: GenerateRequest, options: MessagesOptions) -> int | None:
    """Return the tokens of thinking to ask for; None where none are asked for, or where there is no room for them.

    A budget must be smaller than ``max_tokens``, which counts thinking too: one that is not becomes half of it.
    """
    config = request.reasoning
    if config is None or config.effort is Effort.NONE:
        return None
    budget = config.budget_tokens
    ceiling = request.max_tokens or options.max_output
    if budget is None:
        if options.thinking is ThinkingStyle.ADAPTIVE or config.effort is None:
            return None
        budget = _WORTH[config.effort] if ceiling is None else min(_WORTH[config.effort], ceiling // 2)
    else:
        budget = max(budget, LEAST_BUDGET)
    if ceiling is not None and budget >= ceiling:
        budget = ceiling // 2
    return budget if budget >= LEAST_BUDGET else None


def encode_thinking(request: GenerateRequest, options: MessagesOptions) -> tuple[dict[str, Any] | None, str | None]:
    """Return ``thinking`` and ``output_config.effort`` of a request; None for what is not sent."""
    config = request.reasoning
    if config is None:
        return None, None
    if config.effort is Effort.NONE:
        return {"type": "disabled"}, None
    budget = thinking_budget(request, options)
    adaptive = options.thinking is ThinkingStyle.ADAPTIVE
    effort = _word(config.effort) if adaptive and config.effort is not None else None
    if budget is not None:
        return {"type": "enabled", "budget_tokens": budget}, effort
    if effort is None:
        return None, None
    thinking = {"type": "adaptive"}
    if options.display is not None:
        thinking["display"] = options.display
    return thinking, effort


def _word(effort: Effort) -> str:
    return str(Effort.LOW if effort is Effort.MINIMAL else effort)  # the dialect has no smaller word


def parts_to_echo(blocks: Iterable[Mapping[str, Any]], vendor: str) -> tuple[ReasoningPart, ...]:
    """Keep the blocks that go back unchanged: all that come before the last one that a turn cannot say.

    A turn says text and calls. It cannot say thinking, whose order the vendor checks, nor what its own tools did.
    """
    kept: list[ReasoningPart] = []
    held: list[ReasoningPart] = []
    for block in blocks:
        if block.get("type") not in SAID:
            kept += [*held, part_of(block, vendor)]
            held = []
        elif block.get("type") != "text" or block.get("text"):  # text without a character is refused
            held.append(part_of({key: value for key, value in block.items() if value not in (None, [])}, vendor))
    return tuple(kept)


def part_of(block: Mapping[str, Any], vendor: str) -> ReasoningPart:
    """Keep a block unchanged; of thinking, text and signature are readable beside it."""
    text, signature = block.get("thinking"), block.get("signature")
    return ReasoningPart(
        text=text if isinstance(text, str) else "",
        signature=signature if isinstance(signature, str) and signature else None,
        vendor=vendor,
        data=block,
    )


def block_of(part: ReasoningPart, vendor: str) -> dict[str, Any] | None:
    """Return the block to send back; None for another vendor's, and for thinking that nobody signed."""
    if part.vendor != vendor:
        return None
    if part.data is not None:
        return dict(part.data) if isinstance(part.data.get("type"), str) else None
    if part.signature is None:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}
