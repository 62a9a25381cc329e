"""Requests of Cohere's chat dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._wire.history import drop_empty_answers, fit_history, is_instruction
from llm_council._wire.openai_chat.request import encode_tool
from llm_council._wire.payloads import with_extra
from llm_council.errors import InvalidOption
from llm_council.models.messages import ImagePart, Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig

__all__ = ["PLAN", "VENDOR", "encode_request"]

VENDOR = "cohere"
PLAN = "tool_plan"
"""The text in which a model plans its tool calls. It is sent back together with the calls."""


def encode_request(request: GenerateRequest, *, model: str | None = None, stream: bool | None = None) -> dict[str, Any]:
    """Encode a request as the payload of ``POST /v2/chat``. Keys of ``request.extra`` are added unchanged.

    All instructions are joined into the first turn, the only place where the API takes them. ``strict_tools`` is set
    when every tool is strict, since the API has no switch per tool.

    Args:
        request: the request, already fitted to the model.
        model: the model's name; None means ``request.model``.
        stream: whether to ask for a stream; None means ``request.stream``.

    Raises:
        InvalidOption: a tool's result has no ``tool_call_id``, or there are no turns but empty ones.
    """
    payload: dict[str, Any] = {}
    name = model or request.model
    if name:
        payload["model"] = name
    payload["messages"] = drop_empty_answers(_encode_turns(fit_history(request.turns(), vendor=VENDOR)))
    optional = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "p": request.top_p,
        "seed": request.sample,  # docs, "Predictable outputs"
        "stop_sequences": list(request.stop) or None,
        "tools": [encode_tool(attrs.evolve(tool, strict=None)) for tool in request.tools] or None,
        "strict_tools": True if request.tools and all(tool.strict for tool in request.tools) else None,
        "tool_choice": _encode_choice(request),
        "response_format": _encode_format(request),
        "thinking": _encode_thinking(request.reasoning),
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    if request.stream if stream is None else stream:
        payload["stream"] = True
    return with_extra(payload, request.extra)


def _encode_turns(turns: Iterable[Message]) -> list[dict[str, Any]]:
    instructions: list[str] = []
    messages: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []  # the images that tools returned
    for turn in turns:
        if is_instruction(turn):
            if turn.text:
                instructions.append(turn.text)
            continue
        if turn.role == Role.TOOL:
            shown += _images_of_result(turn)
        elif shown:
            messages.append({"role": str(Role.USER), "content": shown})
            shown = []
        messages.append(_encode_turn(turn))
    if shown:
        messages.append({"role": str(Role.USER), "content": shown})
    if instructions:
        # Elsewhere the API rejects it: "system turn must be the first in the list".
        messages.insert(0, {"role": "system", "content": "\n\n".join(instructions)})
    return messages


def _images_of_result(turn: Message) -> list[dict[str, Any]]:
    """Return a tool's images as parts of a user's turn, after a line that names the call: a result takes text alone."""
    parts = () if isinstance(turn.content, str) else turn.content
    images = [_encode_image(part) for part in parts if isinstance(part, ImagePart)]
    return [{"type": "text", "text": f"Returned by the tool's call {turn.tool_call_id}:"}, *images] if images else []


def _encode_turn(turn: Message) -> dict[str, Any]:
    if turn.role == Role.TOOL:
        if not turn.tool_call_id:
            raise InvalidOption("a message of role 'tool' needs tool_call_id: the id of the call that it answers")
        return {"role": "tool", "tool_call_id": turn.tool_call_id, "content": turn.text}
    if turn.role == Role.ASSISTANT:
        return _encode_answer(turn)
    return {"role": str(turn.role), "content": _encode_content(turn.content)}


def _encode_content(content: str | tuple[Part, ...]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, ImagePart):
            parts.append(_encode_image(part))
        elif isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _encode_image(part: ImagePart) -> dict[str, Any]:
    image = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    if part.detail:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def _encode_answer(turn: Message) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    blocks: list[dict[str, Any]] = []
    parts = (TextPart(text=turn.content),) if isinstance(turn.content, str) else turn.content
    for part in parts:
        if isinstance(part, TextPart):
            if part.text:
                blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, ReasoningPart) and part.vendor == VENDOR:
            plan = part.data.get(PLAN) if part.data else None
            if isinstance(plan, str):
                message[PLAN] = message.get(PLAN, "") + plan
            elif part.text:
                blocks.append({"type": "thinking", "thinking": part.text})
    if turn.tool_calls:
        message["tool_calls"] = [_encode_call(call) for call in turn.tool_calls]
    if any(block["type"] == "thinking" for block in blocks):
        message["content"] = blocks
    elif blocks or not turn.tool_calls:
        message["content"] = "".join(block["text"] for block in blocks)
    return message


def _encode_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments if call.arguments.strip() else "{}"}
    return {"id": call.id, "type": "function", "function": function}


def _encode_choice(request: GenerateRequest) -> str | None:
    if not (request.tools or request.extra.get("tools")) or request.tool_choice in (None, "auto"):
        return None
    return "NONE" if request.tool_choice == "none" else "REQUIRED"  # no named tool (cohere.V2ChatRequestToolChoice)


def _encode_format(request: GenerateRequest) -> dict[str, Any] | None:
    schema: Any = None
    if request.structured_output is not None:
        schema = request.structured_output.json_schema
    else:
        legacy = request.response_format
        if legacy is None or legacy.get("type") not in ("json_object", "json_schema"):
            return None
        # The OpenAI form wraps the schema as {"schema": ...}; Cohere's own form holds it directly.
        found = legacy.get("json_schema")
        if isinstance(found, Mapping):
            schema = found.get("schema", found if legacy["type"] == "json_object" else None)
    if isinstance(schema, Mapping):
        return {"type": "json_object", "json_schema": dict(schema)}
    return {"type": "json_object"}


def _encode_thinking(config: ReasoningConfig | None) -> dict[str, Any] | None:
    if config is None or (config.effort is None and config.budget_tokens is None):
        return None
    if config.effort is Effort.NONE or config.budget_tokens == 0:
        return {"type": "disabled"}
    if config.budget_tokens is None:
        return {"type": "enabled"}  # the API has no levels of effort (cohere.types.Thinking)
    return {"type": "enabled", "token_budget": config.budget_tokens}
