"""Requests of Ollama's chat dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_council._wire.payloads import loads
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models._attrs import as_dict, strict_init
from llm_council.models.messages import ImagePart, Message, ReasoningPart, Role, ToolCall
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, Tool

__all__ = ["DEFAULT", "VENDOR", "ChatOptions", "encode_request"]

VENDOR = "ollama"

# Limits and sampling stand inside "options", under names of their own.
_OPTIONS = {"num_predict": "max_tokens", "temperature": "temperature", "top_p": "top_p"}
_LEVELS: dict[Effort, bool | str] = {
    Effort.NONE: False,
    Effort.MINIMAL: "low",
    Effort.LOW: "low",
    Effort.MEDIUM: "medium",
    Effort.HIGH: "high",
    Effort.XHIGH: "high",
    Effort.MAX: "max",
}


@strict_init
@attrs.frozen(kw_only=True)
class ChatOptions:
    """In what one model differs from another; profiles fill it.

    Attributes:
        think_levels: thinking is asked for by a level, as gpt-oss takes it; else it is turned on or off, since older
            servers refuse a level for every other model.
        think_tags: the model may write its reasoning into the answer, between ``<think>`` tags, as it does on servers
            that do not know how it thinks.
        body: keys of the server's own that every request carries, ``options`` among them; the request's own win.
    """

    think_levels: bool = False
    think_tags: bool = False
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = ChatOptions()
"""What most models take."""


def encode_request(
    request: GenerateRequest, options: ChatOptions = DEFAULT, *, model: str | None = None, stream: bool | None = None
) -> dict[str, Any]:
    """Write a request. ``stream`` is always written: left out, it means a stream.

    ``extra`` goes beside the fields, and its ``options`` into theirs. There is no ``tool_choice``, no speaker's name
    and no id of a tool call in this dialect.

    Args:
        request: what is asked; ``fitting.fit`` has made it fit the model.
        options: in what the model differs.
        model: the model's name, for a request that has none or another one.
        stream: whether to ask for a stream; None takes ``request.stream``.

    Raises:
        InvalidOption: an image by its address, a tool call whose arguments are no JSON object, or a response format
            that has no counterpart.
    """
    payload: dict[str, Any] = {key: value for key, value in options.body.items() if key != "options"}
    name = model or request.model
    if name:
        payload["model"] = name
    payload["messages"] = _encode_turns(request.turns())
    payload["stream"] = request.stream if stream is None else stream
    optional = {
        "tools": [_encode_tool(tool) for tool in request.tools] or None,
        "format": _encode_format(request),
        "think": _encode_think(request.reasoning, options),
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    knobs = _encode_options(request, options)
    if knobs:
        payload["options"] = knobs
    payload.update((key, value) for key, value in request.extra.items() if key != "options" or not knobs)
    return payload


def _encode_options(request: GenerateRequest, options: ChatOptions) -> dict[str, Any]:
    common, own = options.body.get("options"), request.extra.get("options")
    knobs = dict(common) if isinstance(common, Mapping) else {}
    asked = {key: getattr(request, field) for key, field in _OPTIONS.items()}
    asked["stop"] = list(request.stop) or None
    knobs.update((key, value) for key, value in asked.items() if value is not None)
    if isinstance(own, Mapping):
        knobs.update(own)
    return knobs


def _encode_turns(turns: tuple[Message, ...]) -> list[dict[str, Any]]:
    named = {call.id: call.name for turn in turns for call in turn.tool_calls}
    return [_encode_turn(turn, named) for turn in turns]


def _encode_turn(turn: Message, named: Mapping[str, str]) -> dict[str, Any]:
    role = str(Role.SYSTEM if turn.role == Role.DEVELOPER else turn.role)
    message: dict[str, Any] = {"role": role, "content": turn.text}
    if not isinstance(turn.content, str):
        images = [_encode_image(part) for part in turn.content if isinstance(part, ImagePart)]
        if images:
            message["images"] = images
        thoughts = "".join(
            part.text for part in turn.content if isinstance(part, ReasoningPart) and part.vendor == VENDOR
        )
        if thoughts:
            message["thinking"] = thoughts
    if turn.tool_calls:
        message["tool_calls"] = [_encode_call(call) for call in turn.tool_calls]
    if turn.role == Role.TOOL:
        tool = turn.name or named.get(turn.tool_call_id or "")
        if tool:
            message["tool_name"] = tool
    return message


def _encode_image(part: ImagePart) -> str:
    if part.data is None:
        raise InvalidOption("Ollama takes images as data only: pass ImagePart(data=..., media_type=...)")
    return part.data


def _encode_call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = loads(call.arguments) if call.arguments.strip() else {}
    except MalformedReply:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidOption(f"the arguments of tool call {call.name!r:.80} are no JSON object; Ollama takes no others")
    return {"function": {"name": call.name, "arguments": arguments}}


def _encode_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _encode_format(request: GenerateRequest) -> dict[str, Any] | str | None:
    if request.structured_output is not None:
        return dict(request.structured_output.json_schema)
    wanted = request.response_format
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return "json"
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if wanted.get("type") == "json_schema" and isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidOption("Ollama has no such response_format: pass structured_output")
    return dict(schema)


def _encode_think(config: ReasoningConfig | None, options: ChatOptions) -> bool | str | None:
    if config is None or config.effort is None:
        return None
    return _LEVELS[config.effort] if options.think_levels else config.effort is not Effort.NONE
