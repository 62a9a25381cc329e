"""Each vendor's format of answers, streams, refusals and errors, written by hand and not by our codecs."""

from __future__ import annotations

from fault_anthropic_google import ANTHROPIC, GEMINI, VERTEX_CLAUDE, VERTEX_GEMINI
from fault_openai import AI21, OPENAI, RESPONSES
from fault_others import COHERE, OLLAMA, REPLICATE
from fault_spelling import Dialect, chunk, compact

__all__ = ["DIALECTS", "VENDORS", "Dialect", "chunk", "compact"]

DIALECTS = {dialect.id: dialect for dialect in (OPENAI, ANTHROPIC, GEMINI, OLLAMA)}
"""Those that a plain class and a key make, for rows in processes of their own."""

VENDORS = {
    dialect.id: dialect
    for dialect in (
        OPENAI,
        RESPONSES,
        ANTHROPIC,
        GEMINI,
        VERTEX_GEMINI,
        VERTEX_CLAUDE,
        COHERE,
        AI21,
        REPLICATE,
        OLLAMA,
    )
}
"""Every HTTP provider's."""
