"""The formats of Anthropic and Google, each at its own address and on Vertex AI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from fault_spelling import Dialect, data_line, named

from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.vertex import VertexProvider

__all__ = ["ANTHROPIC", "GEMINI", "VERTEX_CLAUDE", "VERTEX_GEMINI"]

# Anthropic's messages.


def anthropic_reply(text: Any, finish: str = "end_turn") -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": [{"type": "text", "text": text}],
        "stop_reason": finish,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def anthropic_pieces(texts: Sequence[str]) -> list[bytes]:
    begun = {**anthropic_reply(""), "content": [], "stop_reason": None}
    return [
        named({"type": "message_start", "message": begun}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            for text in texts
        ),
    ]


def anthropic_end(finish: str) -> list[bytes]:
    delta = {"stop_reason": finish, "stop_sequence": None}
    return [
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}}),
        named({"type": "message_stop"}),
    ]


def anthropic_refusal(status: int, code: str | None, message: str) -> Any:
    return {"type": "error", "error": {"type": code or "some_error", "message": message}, "request_id": "req_1"}


ANTHROPIC = Dialect(
    id="anthropic",
    title="Anthropic",
    cls=AnthropicProvider,
    reply=anthropic_reply,
    pieces=anthropic_pieces,
    end=anthropic_end("end_turn"),
    cut_end=anthropic_end("max_tokens"),
    refusal=anthropic_refusal,
    broken=named({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    news=b'event: news\nid: 7\ndata: {"type":"news","a":1}\n\n',
    finished=anthropic_reply,
    cut="max_tokens",
    filtered="refusal",
    empties=[{**anthropic_reply(""), "content": []}, anthropic_reply(""), anthropic_reply(" \n ")],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {**anthropic_reply(""), "content": "text"},
        {**anthropic_reply(""), "content": [None]},
        {**anthropic_reply(""), "content": ["text"]},
        anthropic_reply(12345),
        anthropic_reply(["text"]),
        anthropic_reply({"a": 1}),
    ],
)


# Gemini's generateContent.


def gemini_reply(text: Any, finish: str | None = "STOP") -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    return {
        "candidates": [{**candidate, **({"finishReason": finish} if finish else {})}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5},
        "modelVersion": "m-1",
        "responseId": "r-1",
    }


def gemini_refusal(status: int, code: str | None, message: str) -> Any:
    return {"error": {"code": status, "message": message, "status": code or "SOME_STATUS"}}


GEMINI = Dialect(
    id="gemini",
    title="Gemini",
    cls=GeminiProvider,
    reply=gemini_reply,
    pieces=lambda texts: [data_line(gemini_reply(text, None)) for text in texts],
    end=[data_line(gemini_reply("", "STOP"))],
    cut_end=[data_line(gemini_reply("", "MAX_TOKENS"))],
    refusal=gemini_refusal,
    broken=data_line({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
    news=b'id: 3\ndata: {"news":1}\n\n',
    finished=gemini_reply,
    cut="MAX_TOKENS",
    filtered="SAFETY",
    empties=[
        {"candidates": []},
        {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]},
        gemini_reply(""),
    ],
    misfits=[
        "text",
        12345,
        None,
        True,
        {"candidates": "none"},
        {"candidates": [None]},
        {"candidates": [{"content": "text"}]},
        {"candidates": [{"content": {"parts": "text"}}]},
        gemini_reply(12345),
        gemini_reply(["text"]),
    ],
)


# Both on Vertex AI.

VERTEX_GEMINI = attrs.evolve(
    GEMINI,
    id="vertex-gemini",
    title="Gemini on Vertex AI",
    name="vertex",
    kin="gemini",
    cls=VertexProvider,
    options={"project": "p-1"},
)
VERTEX_CLAUDE = attrs.evolve(
    ANTHROPIC,
    id="vertex-claude",
    title="Claude on Vertex AI",
    name="vertex",
    kin="anthropic",
    cls=VertexProvider,
    options={"project": "p-1"},
    model="claude-m-1",
)
