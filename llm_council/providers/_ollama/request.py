"""Requests of Ollama's chat dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llm_council._wire.payloads import get_text, loads, malformed, need_list, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models._attrs import as_dict, strict_init
from llm_council.models.messages import ImagePart, Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool

__all__ = ["DEFAULT", "VENDOR", "ChatOptions", "decode_request", "encode_request"]

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


def decode_request(payload: Any, options: ChatOptions = DEFAULT) -> GenerateRequest:
    """Read a request: the mirror of ``encode_request``, for fake vendors.

    What has no place in a ``GenerateRequest``, or not in the form that ``encode_request`` writes, stays in ``extra``.

    Raises:
        MalformedReply: the payload is no request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    turns = need_list(rest.pop("messages", None), "$.messages")
    model = get_text(rest, "model", "$")
    rest.pop("model", None)
    facts: dict[str, Any] = {
        "model": model,
        "messages": [_decode_turn(turn, f"$.messages[{index}]") for index, turn in enumerate(turns)],
        "stream": rest.pop("stream", True) is True,
        **_decode_options(rest, options),
        **_decode_tools(rest),
        **_decode_format(rest),
        **_decode_think(rest, options),
    }
    for key, value in options.body.items():
        if key != "options" and key in rest and rest[key] == value:
            del rest[key]
    try:
        return GenerateRequest(**facts, extra=rest)
    except InvalidOption as error:
        raise MalformedReply(str(error), path="$") from None


def _decode_options(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    knobs = rest.get("options")
    if not isinstance(knobs, dict) or not knobs:
        return {}
    own = dict(knobs)
    common = options.body.get("options")
    for key, value in (common if isinstance(common, Mapping) else {}).items():
        if own.get(key) == value:
            del own[key]
    facts = {field: own.pop(key) for key, field in _OPTIONS.items() if own.get(key) is not None}
    stop = own.get("stop")
    if isinstance(stop, list) and stop and all(isinstance(word, str) for word in stop):
        facts["stop"] = own.pop("stop")
    rest.pop("options")
    if own:
        rest["options"] = own
    return facts


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    listed = rest.get("tools")
    if not isinstance(listed, list) or not listed:
        return {}
    try:
        tools = [Tool.of(tool["function"]) for tool in listed]
    except (InvalidOption, KeyError, AttributeError, TypeError):
        return {}
    if [_encode_tool(tool) for tool in tools] != listed:
        return {}
    del rest["tools"]
    return {"tools": tools}


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    wanted = rest.get("format")
    if wanted == "json":
        del rest["format"]
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, dict):
        del rest["format"]
        return {"structured_output": StructuredOutput(json_schema=wanted)}
    return {}


def _decode_think(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    wish = rest.get("think")
    if isinstance(wish, bool):
        effort = Effort.MEDIUM if wish else Effort.NONE
    elif isinstance(wish, str) and wish in list(Effort):
        effort = Effort(wish)
    else:
        return {}
    config = ReasoningConfig(effort=effort)
    written = _encode_think(config, options)
    if written != wish:
        return {}
    del rest["think"]
    return {"reasoning": config}


def _decode_turn(value: Any, path: str) -> Message:
    turn = need_object(value, path)
    role = get_text(turn, "role", path)
    if not role:
        raise malformed(f"{path}.role", "a role", turn.get("role"))
    parts: list[Part] = []
    thoughts = get_text(turn, "thinking", path)
    if thoughts:
        parts.append(ReasoningPart(text=thoughts, vendor=VENDOR))
    content = get_text(turn, "content", path)
    if content:
        parts.append(TextPart(text=content))
    images = turn.get("images")
    for index, data in enumerate([] if images is None else need_list(images, f"{path}.images")):
        if not isinstance(data, str):
            raise malformed(f"{path}.images[{index}]", "a string", data)
        parts.append(ImagePart(data=data, media_type="image/png"))  # the dialect does not say which type it is
    calls = turn.get("tool_calls")
    listed = [] if calls is None else need_list(calls, f"{path}.tool_calls")
    return Message(
        role,
        parts,
        name=get_text(turn, "tool_name", path),
        tool_calls=[_decode_call(call, index, f"{path}.tool_calls[{index}]") for index, call in enumerate(listed)],
    )


def _decode_call(value: Any, index: int, path: str) -> ToolCall:
    function = need_object(need_object(value, path).get("function"), f"{path}.function")
    name = get_text(function, "name", f"{path}.function")
    if not name:
        raise malformed(f"{path}.function.name", "a name", function.get("name"))
    arguments = need_object(function.get("arguments") or {}, f"{path}.function.arguments")
    return ToolCall(id=f"call_{index}", name=name, arguments=arguments)
