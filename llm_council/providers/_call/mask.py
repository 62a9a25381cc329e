"""Mask the keys that a server repeats in a stream: in each chunk, and where a key is split between chunks."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import attrs

from llm_council.errors._secrets import StreamMask, live
from llm_council.models._attrs import mask_secrets
from llm_council.models.reply import GenerateChunk, ToolCallDelta

__all__ = ["ChunkMask"]

_TEXTS = ("text", "reasoning", "refusal")
_facts_of = attrgetter(*(field.name for field in attrs.fields(GenerateChunk) if field.name not in _TEXTS))
_NO_FACTS = _facts_of(GenerateChunk())


class ChunkMask:
    """The mask of one stream. Text that may be the start of a key is held back until the next chunk.

    Nothing is held back once the model has stopped, so that a consumer that reads no further has the whole answer.
    """

    def __init__(self) -> None:
        self._masks: dict[str | int, StreamMask] = {}  # by the name of a text field, or by the index of a tool call
        self._secrets: list[str] = []
        # The last facts without a key; most chunks repeat them beside their text. With three keys alive, a chunk takes
        # 46 us this way, and searching all its fields would add 97 us.
        self._clean_facts = _NO_FACTS

    def apply(self, chunk: GenerateChunk) -> GenerateChunk | None:
        """Return what can be shown of a chunk now; None if all of it is held back."""
        self._secrets = live()
        if not self._secrets and not self._masks:
            return chunk
        if chunk.reset is not None:  # the text starts again: what was held back belongs to the void text
            self._masks.clear()
        ends = chunk.finish_reason is not None
        changed: dict[str, Any] = {}
        for name in _TEXTS:
            text = getattr(chunk, name)
            if text or (ends and name in self._masks):
                shown = self._feed(name, text, ends=ends)
                if shown != text:
                    changed[name] = shown
        facts = _facts_of(chunk)
        if facts == self._clean_facts:
            if not changed:
                return chunk
            masked = attrs.evolve(chunk, **changed)
            is_empty = facts == _NO_FACTS and not any(getattr(masked, name) for name in _TEXTS)
            return None if is_empty else masked
        calls = tuple(self._mask_call(delta, ends=ends) for delta in chunk.tool_calls)
        if calls != chunk.tool_calls:
            changed["tool_calls"] = calls
        masked = mask_secrets(attrs.evolve(chunk, **changed) if changed else chunk)
        if masked is chunk and not chunk.tool_calls:
            self._clean_facts = facts
        return masked

    def rest(self) -> GenerateChunk | None:
        """Return what is held back, at the end of the stream; None if nothing is."""
        held = {name: rest for name, mask in self._masks.items() if (rest := mask.rest())}
        if not held:
            return None
        texts: dict[str, Any] = {str(name): rest for name, rest in held.items() if name in _TEXTS}
        calls = tuple(ToolCallDelta(index=name, arguments=rest) for name, rest in held.items() if isinstance(name, int))
        return GenerateChunk(tool_calls=calls, **texts)

    def _mask_call(self, delta: ToolCallDelta, *, ends: bool) -> ToolCallDelta:
        shown = self._feed(delta.index, delta.arguments, ends=ends)
        return delta if shown == delta.arguments else attrs.evolve(delta, arguments=shown)

    def _feed(self, name: str | int, text: str, *, ends: bool) -> str:
        mask = self._masks.get(name)
        if mask is None:
            mask = self._masks[name] = StreamMask()
        shown = mask.feed(text, self._secrets)
        return shown + mask.rest() if ends else shown
