"""Requests of Google's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_council._wire.openai_chat.options import SchemaStyle
from llm_council._wire.payloads import get_text, need_list, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import Message, Role
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._google.contents import decode_contents, encode_turns
from llm_council.providers._google.options import DEFAULT, GeminiOptions, ThinkingStyle

__all__ = ["decode_request", "encode_request"]

_JSON = "application/json"
_SCALARS = {"max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
# What the vendor's own OpenAI-compatible address makes of the same words (Gemini API, OpenAI compatibility).
_BUDGETS = {
    Effort.MINIMAL: 1024,
    Effort.LOW: 1024,
    Effort.MEDIUM: 8192,
    Effort.HIGH: 24_576,
    Effort.XHIGH: 24_576,
    Effort.MAX: 24_576,
}
_LEVELS = {
    Effort.MINIMAL: "MINIMAL",
    Effort.LOW: "LOW",
    Effort.MEDIUM: "MEDIUM",
    Effort.HIGH: "HIGH",
    Effort.XHIGH: "HIGH",
    Effort.MAX: "HIGH",
    Effort.NONE: "MINIMAL",  # these models cannot stop thinking
}


def encode_request(request: GenerateRequest, options: GeminiOptions = DEFAULT) -> dict[str, Any]:
    """Write a request; the model and the wish for a stream stand in its address. What it leaves out is left out.

    The request's ``extra`` is laid over the payload: objects are joined key by key, lists of tools one after the other.

    Args:
        request: what is asked; ``fitting.fit`` has made it fit the model.
        options: in what the model differs.

    Raises:
        InvalidOption: a tool's result that names neither the tool nor a call of this conversation.
    """
    instructions, contents = encode_turns(request.turns())
    payload: dict[str, Any] = {"systemInstruction": {"parts": instructions}} if instructions else {}
    payload["contents"] = contents
    if request.tools:
        payload["tools"] = [{"functionDeclarations": [_encode_tool(tool) for tool in request.tools]}]
    if request.tool_choice is not None:
        payload["toolConfig"] = {"functionCallingConfig": _encode_choice(request.tool_choice)}
    config = _encode_config(request, options)
    if config:
        payload["generationConfig"] = config
    extra = dict(request.extra)
    if isinstance(extra.get("tools"), list) and "tools" in payload:
        payload["tools"] += extra.pop("tools")
    return _overlaid(payload, extra)


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(below)
    for key, value in above.items():
        known = joined.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        joined[key] = _overlaid(known, value) if both else value  # type: ignore[arg-type]
    return joined


def _encode_tool(tool: Tool) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declared["description"] = tool.description
    return {**declared, "parametersJsonSchema": dict(tool.parameters)}


def _encode_choice(choice: str) -> dict[str, Any]:
    if choice in _MODES:
        return {"mode": _MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}


def _encode_config(request: GenerateRequest, options: GeminiOptions) -> dict[str, Any]:
    config = {key: getattr(request, name) for name, key in _SCALARS.items() if getattr(request, name) is not None}
    if request.stop:
        config["stopSequences"] = list(request.stop)
    config.update(_encode_format(request, options))
    if request.reasoning is not None:
        thinking = _encode_thinking(request.reasoning, options)
        if thinking:
            config["thinkingConfig"] = thinking
    return config


def _encode_format(request: GenerateRequest, options: GeminiOptions) -> dict[str, Any]:
    wanted, legacy = request.structured_output, request.response_format
    schema: Any = None
    if wanted is not None:
        schema = dict(wanted.json_schema)
    elif legacy is not None:
        inner = legacy.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if schema is None and legacy.get("type") != "json_object":
            return {}
    else:
        return {}
    if options.schema is SchemaStyle.NONE:
        return {}
    if options.schema is SchemaStyle.JSON_OBJECT or schema is None:
        return {"responseMimeType": _JSON}
    return {"responseMimeType": _JSON, "responseJsonSchema": schema}


def _encode_thinking(config: ReasoningConfig, options: GeminiOptions) -> dict[str, Any]:
    """Write how much to think; a model that is asked to think is asked for its thoughts too."""
    effort = config.effort
    written: dict[str, Any] = {}
    if options.thinking is ThinkingStyle.BUDGET:
        budget = 0 if effort is Effort.NONE else config.budget_tokens
        if budget is None and effort is not None:
            budget = _BUDGETS[effort]
        if budget is not None:
            written["thinkingBudget"] = budget
    elif options.thinking is ThinkingStyle.LEVEL and effort is not None:
        written["thinkingLevel"] = _LEVELS[effort]
    if written and effort is not Effort.NONE and written.get("thinkingBudget") != 0:
        written["includeThoughts"] = True
    return written


def decode_request(
    payload: Any, options: GeminiOptions = DEFAULT, *, model: str | None = None, stream: bool = False
) -> GenerateRequest:
    """Read a request: the mirror of ``encode_request``, for fake vendors.

    What has no place in a ``GenerateRequest``, or not in the form that ``encode_request`` writes, stays in ``extra``.

    Args:
        payload: the body of the request.
        options: in what the model differs.
        model: its name, which stands in the address.
        stream: whether the address asks for a stream.

    Raises:
        MalformedReply: the payload is no request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    config = rest.pop("generationConfig", None)
    config = dict(need_object({} if config is None else config, "$.generationConfig"))
    facts: dict[str, Any] = {
        "messages": [*_decode_instructions(rest), *decode_contents(rest.pop("contents", None), "$.contents")],
        **_decode_tools(rest),
        **_decode_choice(rest),
        **{name: value for name, key in _SCALARS.items() if (value := config.pop(key, None)) is not None},
        **_decode_format(config),
        **_decode_thinking(config, options),
    }
    stop = config.get("stopSequences")
    if isinstance(stop, list) and stop and all(isinstance(word, str) for word in stop):
        facts["stop"] = config.pop("stopSequences")
    if config:
        rest["generationConfig"] = config
    try:
        return GenerateRequest(**facts, model=model, stream=stream, extra=rest)
    except InvalidOption as error:
        raise MalformedReply(str(error), path="$") from None


def _decode_instructions(rest: dict[str, Any]) -> list[Message]:
    found = rest.pop("systemInstruction", None)
    if found is None:
        return []
    parts = need_list(need_object(found, "$.systemInstruction").get("parts"), "$.systemInstruction.parts")
    path = "$.systemInstruction.parts"
    said = [get_text(need_object(part, f"{path}[{at}]"), "text", f"{path}[{at}]") for at, part in enumerate(parts)]
    return [Message(Role.SYSTEM, text) for text in said if text]


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    listed = rest.get("tools")
    first = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(listed, list) or not isinstance(first, dict) or first.keys() != {"functionDeclarations"}:
        return {}
    try:
        tools = [
            Tool(
                name=declared["name"],
                description=declared.get("description"),
                parameters=declared["parametersJsonSchema"],
            )
            for declared in first["functionDeclarations"]
        ]
    except (InvalidOption, KeyError, AttributeError, TypeError):
        return {}
    if not tools or [_encode_tool(tool) for tool in tools] != first["functionDeclarations"]:
        return {}
    if listed[1:]:
        rest["tools"] = listed[1:]
    else:
        del rest["tools"]
    return {"tools": tools}


def _decode_choice(rest: dict[str, Any]) -> dict[str, Any]:
    config = rest.get("toolConfig")
    found = config.get("functionCallingConfig") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(found, dict):
        return {}
    allowed = found.get("allowedFunctionNames")
    named = allowed[0] if isinstance(allowed, list) and allowed else None
    choice = named or next((word for word, mode in _MODES.items() if mode == found.get("mode")), None)
    if not isinstance(choice, str) or _encode_choice(choice) != found:
        return {}
    others = {key: value for key, value in config.items() if key != "functionCallingConfig"}
    if others:
        rest["toolConfig"] = others
    else:
        del rest["toolConfig"]
    return {"tool_choice": choice}


def _decode_format(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("responseMimeType") != _JSON:
        return {}
    schema = config.get("responseJsonSchema")
    if isinstance(schema, dict):
        del config["responseMimeType"], config["responseJsonSchema"]
        return {"structured_output": StructuredOutput(json_schema=schema)}
    if "responseJsonSchema" in config:
        return {}
    del config["responseMimeType"]
    return {"response_format": {"type": "json_object"}}


def _decode_thinking(config: dict[str, Any], options: GeminiOptions) -> dict[str, Any]:
    found = config.get("thinkingConfig")
    if not isinstance(found, dict):
        return {}
    budget = found.get("thinkingBudget")
    known = [ReasoningConfig(effort=effort) for effort in Effort]
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        known.insert(0, ReasoningConfig(budget_tokens=budget))
    for wish in known:
        if _encode_thinking(wish, options) == found:
            del config["thinkingConfig"]
            return {"reasoning": wish}
    return {}
