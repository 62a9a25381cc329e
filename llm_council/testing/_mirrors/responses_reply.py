"""The mirror half of OpenAI's Responses dialect: replies and streams as servers write them, for fake vendors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_council._wire.openai_chat.calls import CUSTOM
from llm_council._wire.openai_chat.reply import picked
from llm_council._wire.payloads import dumps
from llm_council._wire.responses.reply import REPLY_EXTRA, STATUSES
from llm_council._wire.responses.request import text_in
from llm_council.models.messages import ToolCall
from llm_council.models.reply import GenerateResponse, Usage

__all__ = ["encode_events", "encode_response", "frame"]

Item = dict[str, Any]

_SAYING = {"function_call": "arguments", "custom_tool_call": "input"}  # the key of a call that holds its words


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply: the mirror of ``decode_response``, for fake vendors."""
    word = response.raw_finish_reason or "completed"
    is_status = word in STATUSES
    return {
        **_envelope(response),
        "status": word if is_status else "incomplete",
        "incomplete_details": None if is_status else {"reason": word},
        "output": _items(response),
        "usage": _usage(response),
    }


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    return {
        "id": response.extra.get("response_id"),
        "object": "response",
        "created_at": 0,
        "model": response.model,
        "error": None,
        **picked(response.extra, REPLY_EXTRA),
    }


def _items(response: GenerateResponse) -> list[Item]:
    items: list[Item] = [dict(part.data) for part in response.reasoning_parts if part.data is not None]
    said = "".join(text_in(item) for item in items)
    text = None if response.text is None else response.text.removeprefix(said)
    content: list[Item] = []
    if text is not None and (text or not said):
        notes = list(response.extra.get("annotations", ()))
        content.append({"type": "output_text", "text": text, "annotations": notes})
    if response.refusal is not None:
        content.append({"type": "refusal", "refusal": response.refusal})
    if content:
        items.append({"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": content})
    known = {item.get("call_id") for item in items}
    items += [_call(call) for call in response.tool_calls if call.id not in known]
    return items


def _call(call: ToolCall) -> Item:
    is_custom = call.extra.get("type") == CUSTOM
    word, key = ("custom_tool_call", "input") if is_custom else ("function_call", "arguments")
    said = {"call_id": call.id, "name": call.name, key: call.arguments}
    return {**call.extra, "type": word, **said, "status": "completed"}


def _usage(response: GenerateResponse) -> dict[str, Any] | None:
    usage = response.usage or Usage()
    counts: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
    if response.cost is not None and response.cost.usd is not None:
        counts["cost"] = response.cost.usd
    elif response.usage is None:
        return None
    return counts


def frame(event: dict[str, Any]) -> bytes:
    """Write one event of a stream: its name is its type."""
    return b"event: " + str(event.get("type", "message")).encode() + b"\ndata: " + dumps(event) + b"\n\n"


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream: the mirror of ``EventDecoder``, for fake vendors.

    Args:
        response: the answer.
        size: most characters of text in one event.
    """
    reply = encode_response(response)
    begun = {**reply, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for index, item in enumerate(reply["output"]):
        place = {"output_index": index, "item_id": item.get("id")}
        empty = {key: [] if key in ("content", "summary") else value for key, value in item.items()}
        if item["type"] in _SAYING:
            empty[_SAYING[item["type"]]] = ""
        yield {"type": "response.output_item.added", "output_index": index, "item": empty}
        for event in _pieces(item, size):
            yield {**event, **place}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    done = "response.incomplete" if reply["incomplete_details"] else "response.completed"
    yield {"type": done, "response": reply}


def _pieces(item: Item, size: int) -> Iterator[dict[str, Any]]:
    if item["type"] in _SAYING:
        key = _SAYING[item["type"]]
        for words in _cut(item[key], size):
            yield {"type": f"response.{item['type']}_{key}.delta", "delta": words}
        yield {"type": f"response.{item['type']}_{key}.done", key: item[key]}
    elif item["type"] == "message":
        for index, part in enumerate(item["content"]):
            kind, key = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
            for words in _cut(part[key], size):
                yield {"type": f"response.{kind}.delta", "content_index": index, "delta": words}
            yield {"type": f"response.{kind}.done", "content_index": index, key: part[key]}
            yield {"type": "response.content_part.done", "content_index": index, "part": part}
    elif item["type"] == "reasoning":
        shown = ("content", "reasoning_text", "content_index") if item.get("content") else None
        key, kind, place = shown or ("summary", "reasoning_summary_text", "summary_index")
        for index, part in enumerate(item.get(key) or ()):
            for words in _cut(part["text"], size):
                yield {"type": f"response.{kind}.delta", place: index, "delta": words}
            yield {"type": f"response.{kind}.done", place: index, "text": part["text"]}


def _cut(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
