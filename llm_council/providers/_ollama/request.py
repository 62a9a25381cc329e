"""Requests of Ollama's chat dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_council._wire.history import CallIds, drop_empty_answers, fit_history, join_instructions
from llm_council._wire.openai_chat.request import encode_tool
from llm_council._wire.payloads import arguments_object, join_tools, with_extra
from llm_council.errors import InvalidOption
from llm_council.models._attrs import as_dict, strict_init
from llm_council.models.messages import ImagePart, Message, ReasoningPart, Role, ToolCall
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig

__all__ = ["DEFAULT", "VENDOR", "ChatOptions", "encode_request"]

VENDOR = "ollama"

# gpt-oss takes a level where other models take a boolean (Ollama's docs, "Thinking").
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
    """How requests and replies of one model differ from those of others.

    Attributes:
        think_levels: send a level of thinking, which gpt-oss needs; False sends true or false, since older servers
            reject levels for all other models.
        one_instruction: take one system turn alone, the first; those that follow it are joined to it.
        think_tags: look for reasoning between ``<think>`` tags in the text, where servers that do not know the model's
            template leave it.
        body: fields that every request carries, including ``options``; fields of the request replace them.
    """

    think_levels: bool = False
    one_instruction: bool = False
    think_tags: bool = False
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = ChatOptions()
"""The options of most models."""


def encode_request(
    request: GenerateRequest, options: ChatOptions = DEFAULT, *, model: str | None = None, stream: bool | None = None
) -> dict[str, Any]:
    """Encode a request as the payload of ``POST /api/chat``.

    ``stream`` is always written, since the server's default is true. Keys of ``request.extra`` are added unchanged; its
    ``options`` are merged into those of the fields. The dialect has no ``tool_choice``, no name of a speaker and no id
    of a tool call.

    Args:
        request: the request, already fitted to the model.
        options: how the model differs.
        model: the model's name; None means ``request.model``.
        stream: whether to ask for a stream; None means ``request.stream``.

    Raises:
        InvalidOption: an image given by URL, an unsupported
            ``response_format``, or nothing but empty turns.
    """
    payload: dict[str, Any] = dict(options.body)
    name = model or request.model
    if name:
        payload["model"] = name
    turns = fit_history(request.turns(), vendor=VENDOR, ids=CallIds(may_be_empty=True))
    if options.one_instruction:
        turns = join_instructions(turns)
    tool_names = {call.id: call.name for turn in turns for call in turn.tool_calls}
    payload["messages"] = drop_empty_answers(_encode_turn(turn, tool_names) for turn in turns)
    # The server's default is true (Ollama's docs, "Generate a chat completion").
    payload["stream"] = request.stream if stream is None else stream
    optional = {
        "tools": join_tools(
            options.body.get("tools") or [], [encode_tool(attrs.evolve(tool, strict=None)) for tool in request.tools]
        )
        or None,
        "format": _encode_format(request),
        "think": _encode_think(request.reasoning, options),
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    payload = with_extra(payload, request.extra)
    merged = _encode_options(request, options)
    if merged:
        payload["options"] = merged
    return payload


def _encode_options(request: GenerateRequest, options: ChatOptions) -> dict[str, Any]:
    """Merge the options of every request, those of the fields, and the request's own, which win."""
    merged: dict[str, Any] = {}
    common, own = options.body.get("options"), request.extra.get("options")
    if isinstance(common, Mapping):
        merged.update(common)
    # Limits and sampling are read inside "options" only; at the top they are ignored.
    fields = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.sample,  # docs, "Chat request (Reproducible outputs)"
        "stop": list(request.stop) or None,
    }
    merged.update((key, value) for key, value in fields.items() if value is not None)
    if isinstance(own, Mapping):
        merged.update(own)
    return merged


def _encode_turn(turn: Message, tool_names: Mapping[str, str]) -> dict[str, Any]:
    role = str(Role.SYSTEM if turn.role == Role.DEVELOPER else turn.role)
    # "content" is required even where it is empty, as beside tool calls.
    message: dict[str, Any] = {"role": role, "content": turn.text}
    if not isinstance(turn.content, str):
        images = []  # base64 without "data:"; the API takes no URLs
        for part in turn.content:
            if isinstance(part, ImagePart):
                if part.data is None:
                    raise InvalidOption("Ollama takes images as data only: pass ImagePart(data=..., media_type=...)")
                images.append(part.data)
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
        tool = turn.name or tool_names.get(turn.tool_call_id or "")  # a result has no id of its call
        if tool:
            message["tool_name"] = tool
    return message


def _encode_call(call: ToolCall) -> dict[str, Any]:
    arguments = arguments_object(call.arguments)
    if arguments is None:  # the API takes objects only, and the model may have written anything
        arguments = {"arguments": call.arguments}
    return {"function": {"name": call.name, "arguments": arguments}}


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
        raise InvalidOption("Ollama does not support this response_format: pass structured_output instead")
    return dict(schema)


def _encode_think(config: ReasoningConfig | None, options: ChatOptions) -> bool | str | None:
    if config is None or config.effort is None:
        return None
    return _LEVELS[config.effort] if options.think_levels else config.effort is not Effort.NONE
