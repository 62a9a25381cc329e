"""How each vendor spells an answer, a stream, a refusal and an error: written out here, not taken from our codecs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.providers.openai import OpenAIProvider

__all__ = ["DIALECTS", "Dialect"]


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@attrs.frozen(kw_only=True, repr=False)
class Dialect:
    """One vendor.

    Attributes:
        name: the provider's.
        cls: its class.
        reply: a whole answer's JSON, from a text or whatever stands in its place.
        pieces: the frames of a stream up to its end, from the pieces of a text.
        end: the frames that end a stream.
        refusal: the JSON of a refusal: status, machine code or None, message.
        broken: the frame of an error in the middle of a stream: the vendor is overloaded.
        cut: the finish reason of an answer that reached its limit, and its place in a reply.
        empties: replies that hold no answer.
        misfits: replies in which something has the wrong type.
    """

    name: str
    cls: type[Any]
    reply: Callable[[Any], dict[str, Any]]
    pieces: Callable[[Sequence[str]], list[bytes]]
    end: list[bytes]
    refusal: Callable[[int, str | None, str], Any]
    broken: bytes
    finished: Callable[[str, str], dict[str, Any]]
    cut: str
    filtered: str
    empties: list[Any]
    misfits: list[Any]
    ndjson: bool = False

    def body(self, text: Any = "fine") -> bytes:
        return compact(self.reply(text))

    def stream(self, *texts: str) -> list[bytes]:
        return [*self.pieces(texts or ("fi", "ne")), *self.end]

    @property
    def stream_type(self) -> str:
        return "application/x-ndjson" if self.ndjson else "text/event-stream"

    def head(self, extra: bytes = b"") -> bytes:
        """Return the head of a stream in chunks."""
        kind = self.stream_type.encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (kind, extra)

    def __repr__(self) -> str:
        return self.name


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def data_line(value: Any) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


# OpenAI's chat completions.


def openai_reply(text: Any, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def openai_piece(delta: Any, finish: str | None = None) -> bytes:
    return data_line(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m-1",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
    )


def openai_refusal(status: int, code: str | None, message: str) -> Any:
    return {"error": {"message": message, "type": "some_error", "param": None, "code": code}}


OPENAI = Dialect(
    name="openai",
    cls=OpenAIProvider,
    reply=openai_reply,
    pieces=lambda texts: [openai_piece({"content": text}) for text in texts],
    end=[openai_piece({}, "stop"), b"data: [DONE]\n\n"],
    refusal=openai_refusal,
    broken=data_line({"error": {"message": "The engine is overloaded", "type": "server_error", "code": None}}),
    finished=openai_reply,
    cut="length",
    filtered="content_filter",
    empties=[
        {"id": "x", "model": "m", "choices": []},
        {"id": "x", "model": "m"},
        openai_reply(None),
        openai_reply(""),
        openai_reply("  \n"),
    ],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [[]]},
        {"choices": [{"index": 0, "message": "text", "finish_reason": "stop"}]},
        openai_reply(12345),
        openai_reply(True),
        openai_reply({"a": 1}),
    ],
)


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


def named(value: dict[str, Any]) -> bytes:
    return b"event: " + value["type"].encode() + b"\n" + data_line(value)


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


def anthropic_refusal(status: int, code: str | None, message: str) -> Any:
    return {"type": "error", "error": {"type": code or "some_error", "message": message}, "request_id": "req_1"}


ANTHROPIC = Dialect(
    name="anthropic",
    cls=AnthropicProvider,
    reply=anthropic_reply,
    pieces=anthropic_pieces,
    end=[
        named({"type": "content_block_stop", "index": 0}),
        named(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 2},
            }
        ),
        named({"type": "message_stop"}),
    ],
    refusal=anthropic_refusal,
    broken=named({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
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
    name="gemini",
    cls=GeminiProvider,
    reply=gemini_reply,
    pieces=lambda texts: [data_line(gemini_reply(text, None)) for text in texts],
    end=[data_line(gemini_reply("", "STOP"))],
    refusal=gemini_refusal,
    broken=data_line({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}),
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


# Ollama's chat.


def ollama_reply(text: Any, finish: str = "stop") -> dict[str, Any]:
    return {
        "model": "m-1",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": finish,
        "prompt_eval_count": 3,
        "eval_count": 2,
    }


def line(value: Any) -> bytes:
    return compact(value) + b"\n"


def ollama_piece(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    return line({"model": "m-1", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False})


OLLAMA = Dialect(
    name="ollama",
    cls=OllamaProvider,
    reply=ollama_reply,
    pieces=lambda texts: [ollama_piece(text) for text in texts],
    end=[line(ollama_reply(""))],
    refusal=lambda status, code, message: {"error": message},
    broken=line({"error": "the model runner has stopped"}),
    finished=ollama_reply,
    cut="length",
    filtered="",
    empties=[ollama_reply(""), ollama_reply(" ")],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {**ollama_reply(""), "message": "text"},
        {**ollama_reply(""), "message": []},
        ollama_reply(12345),
        ollama_reply(["text"]),
        ollama_reply({"a": 1}),
    ],
    ndjson=True,
)

DIALECTS = {dialect.name: dialect for dialect in (OPENAI, ANTHROPIC, GEMINI, OLLAMA)}
