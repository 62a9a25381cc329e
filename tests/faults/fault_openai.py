"""The formats of both APIs of OpenAI, and of AI21, which uses OpenAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from fault_spelling import Dialect, data_line, named

from llm_council.providers.ai21 import AI21Provider
from llm_council.providers.openai import OpenAIProvider

__all__ = ["AI21", "OPENAI", "RESPONSES"]

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
    id="openai",
    title="OpenAI (Chat Completions)",
    cls=OpenAIProvider,
    reply=openai_reply,
    pieces=lambda texts: [openai_piece({"content": text}) for text in texts],
    end=[openai_piece({}, "stop"), b"data: [DONE]\n\n"],
    cut_end=[openai_piece({}, "length"), b"data: [DONE]\n\n"],
    refusal=openai_refusal,
    broken=data_line({"error": {"message": "The engine is overloaded", "type": "server_error", "code": None}}),
    news=b'event: news\nid: 7\nretry: 10\ndata: {"object":"news"}\n\n',
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
    ],
)

AI21 = attrs.evolve(OPENAI, id="ai21", title="AI21", name="ai21", kin="openai", cls=AI21Provider)


# OpenAI's Responses.


def responses_reply(text: Any, finish: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    whole = finish == "completed"
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": finish if whole else "incomplete",
        "error": None,
        "incomplete_details": None if whole else {"reason": finish},
        "model": "m-1",
        "output": [item],
        "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }


def responses_pieces(texts: Sequence[str]) -> list[bytes]:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    begun = {**responses_reply(""), "status": "in_progress", "output": [], "usage": None}
    return [
        named({"type": "response.created", "sequence_number": 0, "response": begun}),
        named({"type": "response.output_item.added", "output_index": 0, "item": item}),
        named({"type": "response.content_part.added", **at, "part": part}),
        *(named({"type": "response.output_text.delta", **at, "delta": text}) for text in texts),
    ]


def responses_end(finish: str) -> list[bytes]:
    """Return the end of a stream; its final response does not repeat the text, as with some servers."""
    reply = {**responses_reply("", finish), "output": []}
    return [named({"type": f"response.{reply['status']}", "sequence_number": 9, "response": reply})]


RESPONSES = Dialect(
    id="responses",
    title="OpenAI (Responses)",
    name="openai",
    kin="openai",
    cls=OpenAIProvider,
    options={"api": "responses"},
    reply=responses_reply,
    pieces=responses_pieces,
    end=responses_end("completed"),
    cut_end=responses_end("max_output_tokens"),
    refusal=openai_refusal,
    broken=named({"type": "error", "code": "server_error", "message": "The engine is overloaded", "param": None}),
    news=named({"type": "response.news", "a": 1}),
    finished=responses_reply,
    cut="max_output_tokens",
    filtered="content_filter",
    empties=[
        {**responses_reply(""), "output": []},
        {**responses_reply(""), "output": [{"id": "rs_1", "type": "reasoning", "summary": []}]},
        responses_reply(None),
        responses_reply(""),
        responses_reply("  \n"),
    ],
    misfits=[
        [],
        "text",
        12345,
        None,
        True,
        {"output": "none"},
        {"output": [None]},
        {"output": [[]]},
        {"output": [{"type": "message", "content": "text"}]},
        {"output": [{"type": "message", "content": [None]}]},
        responses_reply(12345),
        responses_reply(True),
        responses_reply({"a": 1}),
    ],
)
