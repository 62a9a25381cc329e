"""Requests of Google's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_council._wire.openai_chat import SchemaStyle
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, Tool
from llm_council.providers._google.contents import encode_turns
from llm_council.providers._google.options import DEFAULT, GeminiOptions, ThinkingStyle

__all__ = ["MODES", "SCALARS", "encode_choice", "encode_request", "encode_thinking", "encode_tool"]

_JSON = "application/json"
SCALARS = {"max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP"}
MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
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
        payload["tools"] = [{"functionDeclarations": [encode_tool(tool) for tool in request.tools]}]
    if request.tool_choice is not None:
        payload["toolConfig"] = {"functionCallingConfig": encode_choice(request.tool_choice)}
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


def encode_tool(tool: Tool) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declared["description"] = tool.description
    return {**declared, "parametersJsonSchema": dict(tool.parameters)}


def encode_choice(choice: str) -> dict[str, Any]:
    if choice in MODES:
        return {"mode": MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}


def _encode_config(request: GenerateRequest, options: GeminiOptions) -> dict[str, Any]:
    config = {key: getattr(request, name) for name, key in SCALARS.items() if getattr(request, name) is not None}
    if request.stop:
        config["stopSequences"] = list(request.stop)
    config.update(_encode_format(request, options))
    if request.reasoning is not None:
        thinking = encode_thinking(request.reasoning, options)
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


def encode_thinking(config: ReasoningConfig, options: GeminiOptions) -> dict[str, Any]:
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
