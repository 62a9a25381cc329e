"""Estimate the tokens of a request before it is sent."""

from __future__ import annotations

from llm_council.models import AudioPart, DocumentPart, GenerateRequest, ImagePart, Part

__all__ = ["file_tokens", "input_tokens"]

IMAGE_TOKENS = 1600
"""Anthropic's docs, "Vision": about the most that an image takes there; other vendors scale large images down too."""

DOCUMENT_BYTES = 20
"""Bytes of a PDF for a token. A page takes 1,500 to 3,000 tokens (Anthropic's docs, "PDF support"), and 50 kB is a
usual size of a page."""

AUDIO_BYTES = 500
"""Bytes of sound for a token: Gemini counts 32 tokens a second (its docs, "Audio understanding"), and 128 kbit/s is a
usual rate."""


def input_tokens(request: GenerateRequest) -> int:
    """Return the estimated tokens of a request: one for four characters, and rough figures for attached files."""
    characters = tokens = 0
    for turn in request.turns():
        characters += len(turn.text)
        tokens += 0 if isinstance(turn.content, str) else sum(map(file_tokens, turn.content))
    return characters // 4 + 1 + tokens


def file_tokens(part: Part) -> int:
    """Return the estimated tokens of an image, a document or sound; 0 for text and reasoning."""
    if isinstance(part, ImagePart):
        return IMAGE_TOKENS
    if isinstance(part, DocumentPart | AudioPart):
        size = len(part.data or "") * 3 // 4  # it is base64
        return size // (DOCUMENT_BYTES if isinstance(part, DocumentPart) else AUDIO_BYTES)
    return 0
