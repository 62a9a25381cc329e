"""Keys that a server repeats in a stream: masked in every piece, and across the joints between pieces."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import attrs

from llm_council.errors._secrets import StreamMask, live
from llm_council.models._attrs import mask_secrets
from llm_council.models.reply import GenerateChunk, ToolCallDelta

__all__ = ["PieceVeil"]

_WORDS = ("text", "reasoning", "refusal")
_facts = attrgetter(*(field.name for field in attrs.fields(GenerateChunk) if field.name not in _WORDS))
_NO_FACTS = _facts(GenerateChunk())


class PieceVeil:
    """The veil over one stream. What may be the start of a key waits for the next piece, never longer than a key is.

    Nothing waits once the model has stopped: whoever reads no further has the whole answer.
    """

    __slots__ = ("_clean", "_values", "_veils")

    def __init__(self) -> None:
        self._veils: dict[str | int, StreamMask] = {}  # by the kind of words, and by the number of a tool call
        self._values: list[str] = []
        self._clean = _NO_FACTS  # the last that were seen to hold no key: most pieces say the same beside their words

    def over(self, piece: GenerateChunk) -> GenerateChunk | None:
        """Return what can be shown of a piece now; None where all of it waits."""
        self._values = live()
        if not self._values and not self._veils:
            return piece
        if piece.reset is not None:
            self._veils.clear()
        ends = piece.finish_reason is not None
        changed: dict[str, Any] = {}
        for name in _WORDS:
            said = getattr(piece, name)
            if said or (ends and name in self._veils):
                shown = self._shown(name, said, ends=ends)
                if shown != said:
                    changed[name] = shown
        facts = _facts(piece)
        if facts == self._clean:
            if not changed:
                return piece
            shown_piece = attrs.evolve(piece, **changed)
            return shown_piece if facts != _NO_FACTS or any(getattr(shown_piece, name) for name in _WORDS) else None
        calls = tuple(self._delta(delta, ends=ends) for delta in piece.tool_calls)
        if calls != piece.tool_calls:
            changed["tool_calls"] = calls
        shown_piece = attrs.evolve(piece, **changed) if changed else piece
        keys_gone = mask_secrets(shown_piece)
        if keys_gone is piece and not piece.tool_calls:
            self._clean = facts
        return keys_gone

    def rest(self) -> GenerateChunk | None:
        """Return what was kept back: there is no next piece."""
        kept = {name: rest for name, veil in self._veils.items() if (rest := veil.rest())}
        if not kept:
            return None
        words: dict[str, Any] = {str(name): rest for name, rest in kept.items() if name in _WORDS}
        calls = tuple(ToolCallDelta(index=name, arguments=rest) for name, rest in kept.items() if isinstance(name, int))
        return GenerateChunk(tool_calls=calls, **words)

    def _delta(self, delta: ToolCallDelta, *, ends: bool) -> ToolCallDelta:
        shown = self._shown(delta.index, delta.arguments, ends=ends)
        return delta if shown == delta.arguments else attrs.evolve(delta, arguments=shown)

    def _shown(self, name: str | int, said: str, *, ends: bool) -> str:
        veil = self._veils.get(name)
        if veil is None:
            veil = self._veils[name] = StreamMask()
        shown = veil.feed(said, self._values)
        return shown + veil.rest() if ends else shown
