"""Requests of Anthropic's Messages dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._wire.payloads import loads
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import ImagePart, Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.request import GenerateRequest, Tool
from llm_council.providers._anthropic.options import DEFAULT, MessagesOptions
from llm_council.providers._anthropic.thinking import block_of, encode_thinking

__all__ = ["encode_choice", "encode_request", "encode_tool"]

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_-]")  # what ids of tool calls may not hold (Messages API reference)
_INSTRUCTIONS = frozenset({Role.SYSTEM, Role.DEVELOPER})

Block = dict[str, Any]


def encode_request(
    request: GenerateRequest,
    options: MessagesOptions = DEFAULT,
    *,
    model: str | None = None,
    stream: bool | None = None,
) -> dict[str, Any]:
    """Write a request. What the request leaves out is left out, but for ``max_tokens``, which the dialect requires.

    Instructions go to ``system`` wherever they stand; turns of one role that follow each other become one message, in
    which the results of tools come first. Text without a character, which is refused, is left out.

    Args:
        request: what is asked; ``fitting.fit`` has made it fit the model.
        options: in what the model differs.
        model: the model's name, for a request that has none or another one.
        stream: whether to ask for a stream; None takes ``request.stream``.

    Raises:
        InvalidOption: a tool's result without ``tool_call_id``, or nothing but instructions and empty turns.
    """
    payload: dict[str, Any] = dict(options.body)
    name = model or request.model
    if name:
        payload["model"] = name
    mark = _mark(request)
    thinking, effort = encode_thinking(request, options)
    output = {
        key: value for key, value in (("effort", effort), ("format", _encode_format(request))) if value is not None
    }
    payload["max_tokens"] = _max_tokens(request, options, thinking)
    payload["messages"] = _encode_turns(request.turns(), options, mark)
    optional = {
        "system": _encode_system(request.turns(), options, mark),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop_sequences": list(request.stop) or None,
        "tools": [encode_tool(tool) for tool in request.tools] or None,
        "tool_choice": encode_choice(request.tool_choice) if request.tools else None,
        "thinking": thinking,
        "output_config": output or None,
        "cache_control": mark if request.prompt_cache and options.cache_control else None,
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    if request.stream if stream is None else stream:
        payload["stream"] = True
    for key, value in request.extra.items():
        ours = payload.get(key)
        if key == "output_config" and isinstance(ours, dict) and isinstance(value, Mapping):
            value = {**ours, **value}
        payload[key] = value
    return payload


def _max_tokens(request: GenerateRequest, options: MessagesOptions, thinking: Mapping[str, Any] | None) -> int:
    if request.max_tokens is not None:
        return request.max_tokens
    wanted: int = options.max_tokens + (thinking or {}).get("budget_tokens", 0)
    return wanted if options.max_output is None else min(wanted, options.max_output)


def _mark(request: GenerateRequest) -> dict[str, Any]:
    life = request.prompt_cache
    return {"type": "ephemeral", "ttl": life} if isinstance(life, str) and life else {"type": "ephemeral"}


def _encode_system(
    turns: Iterable[Message], options: MessagesOptions, mark: Mapping[str, Any]
) -> str | list[Block] | None:
    said = [_encode_parts(turn.content, options, mark) for turn in turns if turn.role in _INSTRUCTIONS]
    blocks = [block for found in said for block in found if block["type"] == "text"]
    if all(map(_is_plain, blocks)):
        return "\n\n".join(block["text"] for block in blocks) or None
    return blocks


def _encode_turns(turns: Iterable[Message], options: MessagesOptions, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
    merged: list[tuple[str, list[Block]]] = []
    for turn in turns:
        if turn.role in _INSTRUCTIONS:
            continue
        if turn.role == Role.TOOL:
            role, blocks = str(Role.USER), [_encode_result(turn, options, mark)]
        else:
            role, blocks = str(turn.role), _encode_parts(turn.content, options, mark)
            called = {block["id"] for block in blocks if block["type"] == "tool_use"}
            calls = [_encode_call(call) for call in turn.tool_calls]
            blocks += [call for call in calls if call["id"] not in called]
        if not blocks:
            continue
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(blocks)
        else:
            merged.append((role, blocks))
    if not merged:
        raise InvalidOption("the request holds nothing but instructions and empty turns: it needs a user's turn")
    return [{"role": role, "content": _content(blocks)} for role, blocks in merged]


def _content(blocks: list[Block]) -> str | list[Block]:
    if len(blocks) == 1 and _is_plain(blocks[0]):
        return str(blocks[0]["text"])
    results = [block for block in blocks if block["type"] == "tool_result"]
    return results + [block for block in blocks if block["type"] != "tool_result"] if results else blocks


def _is_plain(block: Mapping[str, Any]) -> bool:
    return block["type"] == "text" and len(block) == 2


def _encode_parts(content: str | tuple[Part, ...], options: MessagesOptions, mark: Mapping[str, Any]) -> list[Block]:
    """Return the blocks of one turn; text alone is one block, and what a block sent back says is not said again."""
    parts = (TextPart(text=content),) if isinstance(content, str) else content
    blocks: list[Block] = []
    said = ""
    for part in parts:
        if said and isinstance(part, TextPart):
            part, said = attrs.evolve(part, text=part.text.removeprefix(said)), ""
        block = _encode_part(part, options, mark)
        if block is None:
            continue
        if isinstance(part, ReasoningPart) and block["type"] == "text":
            said += block["text"]
        blocks.append(block)
    if len(blocks) > 1 and all(map(_is_plain, blocks)):
        return [{"type": "text", "text": "".join(block["text"] for block in blocks)}]
    return blocks


def _encode_part(part: Part, options: MessagesOptions, mark: Mapping[str, Any]) -> Block | None:
    if isinstance(part, ReasoningPart):
        return block_of(part, options.vendor)
    if isinstance(part, ImagePart):
        if part.url is not None:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}
    if not part.text:
        return None
    block: Block = {"type": "text", "text": part.text}
    if part.cache and options.cache_control:
        block["cache_control"] = dict(mark)
    return block


def _encode_result(turn: Message, options: MessagesOptions, mark: Mapping[str, Any]) -> Block:
    if not turn.tool_call_id:
        raise InvalidOption("a tool's turn needs tool_call_id: the id of the call that it answers")
    blocks = [block for block in _encode_parts(turn.content, options, mark) if block["type"] in ("text", "image")]
    result: Block = {"type": "tool_result", "tool_use_id": _id(turn.tool_call_id)}
    if blocks:
        result["content"] = blocks[0]["text"] if len(blocks) == 1 and _is_plain(blocks[0]) else blocks
    return result


def _id(word: str) -> str:
    """Return an id as the dialect takes it: ids that other vendors made hold dots and colons."""
    return _NOT_IN_IDS.sub("_", word) or "call"


def _encode_call(call: ToolCall) -> Block:
    kept = {"caller": call.extra["caller"]} if "caller" in call.extra else {}
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": _input(call.arguments), **kept}


def _input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as the object that the dialect needs, whatever the model wrote."""
    if not arguments.strip():
        return {}
    try:
        value = loads(arguments)
    except MalformedReply:
        value = None
    return value if isinstance(value, dict) else {"invalid_json": arguments}


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Write a tool; its schema says that it is of an object, which the dialect requires."""
    written: dict[str, Any] = {"name": tool.name, "input_schema": {"type": "object", **tool.parameters}}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    return written


_CHOICES = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}


def encode_choice(choice: str | None) -> dict[str, Any] | None:
    """Write whether and which tool must be called."""
    if choice is None:
        return None
    return dict(_CHOICES.get(choice) or {"type": "tool", "name": choice})


def _encode_format(request: GenerateRequest) -> dict[str, Any] | None:
    if request.structured_output is not None:
        return {"type": "json_schema", "schema": dict(request.structured_output.json_schema)}
    wanted = request.response_format or {}  # as chat APIs write it
    inner = wanted.get("json_schema") if wanted.get("type") == "json_schema" else None
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    return {"type": "json_schema", "schema": dict(schema)} if isinstance(schema, Mapping) else None
