"""Reasoning of the OpenAI chat dialect, on its way back to the server that wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_council._wire.openai_chat.options import ChatOptions
from llm_council.models.messages import Message, ReasoningPart

__all__ = [
    "THINKING",
    "add_block",
    "add_thinking",
    "encode_thoughts",
    "reasoning_part",
    "thinking_block",
    "thinking_text",
    "thoughts_to_echo",
]

THINKING = "thinking"
"""The type of the parts of a content that are thoughts (Mistral's API reference, ``ThinkChunk``)."""

Block = dict[str, Any]


def encode_thoughts(turn: Message, options: ChatOptions) -> dict[str, Any]:
    """Return the key of an assistant's turn that carries its reasoning back, where the server has such a key."""
    if options.echo in (None, "content") or isinstance(turn.content, str):
        return {}
    parts = [part for part in turn.content if isinstance(part, ReasoningPart) and part.vendor == options.vendor]
    blocks = [dict(part.data) for part in parts if part.data is not None]
    found = blocks if options.echo == "reasoning_details" else "".join(part.text for part in parts)
    return {str(options.echo): found} if found else {}


def thinking_block(part: ReasoningPart, options: ChatOptions) -> Block | None:
    """Return reasoning as a part of the content, unchanged where the server wrote it; None where it takes none."""
    if options.echo != "content" or part.vendor != options.vendor:
        return None
    if part.data is not None:
        return dict(part.data) if part.data.get("type") == THINKING else None
    if not part.text:
        return None
    signed = {} if part.signature is None else {"signature": part.signature}
    return {"type": THINKING, THINKING: [{"type": "text", "text": part.text}], **signed}


def reasoning_part(block: Block, vendor: str) -> ReasoningPart:
    """Keep a block of reasoning unchanged, its text and signature readable beside it.

    It is one of OpenRouter's ``reasoning_details``, or a part of the content that is a thought.
    """
    text = thinking_text(block) if block.get("type") == THINKING else block.get("text") or block.get("summary")
    signature = block.get("signature")
    return ReasoningPart(
        text=text if isinstance(text, str) else "",
        signature=signature if isinstance(signature, str) and signature else None,
        vendor=vendor,
        data=block,
    )


def thinking_text(block: Mapping[str, Any]) -> str:
    """Return the words of a thought; what it refers to is left out."""
    said = block.get(THINKING)
    if isinstance(said, str):
        return said
    pieces = [piece.get("text") for piece in said if isinstance(piece, dict)] if isinstance(said, list) else []
    return "".join(piece for piece in pieces if isinstance(piece, str))


def thoughts_to_echo(reasoning: str | None, options: ChatOptions) -> tuple[ReasoningPart, ...]:
    """Return reasoning that goes back as text, for servers that want it on the turns of their tools."""
    if reasoning and options.echo not in (None, "reasoning_details", "content"):
        return (ReasoningPart(text=reasoning, vendor=options.vendor),)
    return ()


def add_block(blocks: list[Block], piece: Block) -> None:
    """Join the pieces of one block of ``reasoning_details``, which are those of one index and type."""
    kind = piece.get("type")
    block = next((b for b in reversed(blocks) if b.get("index") == piece.get("index") and b.get("type") == kind), None)
    if block is None or kind == "reasoning.encrypted":  # encrypted blocks arrive whole
        blocks.append(dict(piece))
        return
    for key, value in piece.items():
        if key in ("text", "summary") and isinstance(value, str) and isinstance(block.get(key), str):
            block[key] += value
        elif value not in (None, ""):
            block[key] = value


def add_thinking(blocks: list[Block], piece: Block) -> None:
    """Join the pieces of one thought, which follow each other; its last signature is the one."""
    said = piece.get(THINKING)
    said = [{"type": "text", "text": said}] if isinstance(said, str) else said if isinstance(said, list) else []
    if not blocks or blocks[-1].get("signature"):  # what comes after a signature is another thought
        blocks.append({"type": THINKING, THINKING: []})
    block = blocks[-1]
    for item in said:
        last = block[THINKING][-1] if block[THINKING] else {}
        if isinstance(item, dict) and _is_words(item) and _is_words(last):
            last["text"] += item["text"]
        elif isinstance(item, dict):
            block[THINKING].append(dict(item))
    block.update((key, value) for key, value in piece.items() if key not in ("type", THINKING) and value is not None)


def _is_words(item: Mapping[str, Any]) -> bool:
    return item.keys() == {"type", "text"} and item["type"] == "text" and isinstance(item["text"], str)
