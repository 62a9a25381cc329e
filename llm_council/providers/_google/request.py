"""Requests of Google's dialect: how models differ, the contents of a conversation, and the payload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council._wire.history import CallIds, fit_history
from llm_council._wire.openai_chat import SchemaStyle
from llm_council._wire.payloads import arguments_object, loads_object, with_extra
from llm_council.errors import InvalidOption
from llm_council.models._attrs import strict_init
from llm_council.models.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
)
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, Tool

__all__ = [
    "DEFAULT",
    "GeminiOptions",
    "ThinkingStyle",
    "encode_choice",
    "encode_model_parts",
    "encode_request",
    "encode_thinking",
    "encode_tool",
    "result_object",
]

VENDOR = "gemini"
MODEL = "model"  # the role of an assistant's turn
SIGNATURE = "thoughtSignature"

NO_SIGNATURE = "skip_thought_signature_validator"
"""Stands for the signature of a call that another model made, or the caller wrote: Gemini 3 and later refuse the first
call of a step without one (Gemini API docs, "Thought signatures", FAQ on history of other models)."""

SCALARS = {"max_tokens": "maxOutputTokens", "temperature": "temperature", "top_p": "topP"}
MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

# The values that Google's own OpenAI-compatible endpoint maps the effort words to (Gemini API docs, "OpenAI
# compatibility").
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
    Effort.NONE: "MINIMAL",  # models with levels cannot turn thinking off
}

# Vertex AI requires the MIME type of every file. Google's own client derives it from the URL as well.
_MIME_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "wav": "audio/wav",
    "mp3": "audio/mp3",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
}

_OWN_TYPES = {"audio/mpeg": "audio/mp3"}  # Gemini API docs, "Audio understanding", supported formats


class ThinkingStyle(StrEnum):
    """How a model is asked to think: ``thinkingBudget`` (2.5), ``thinkingLevel`` (3 and later), or not at all."""

    NONE = "none"
    BUDGET = "budget"
    LEVEL = "level"


@strict_init
@attrs.frozen(kw_only=True)
class GeminiOptions:
    """How one model of the dialect differs from another; filled from the model's profile.

    Attributes:
        thinking: how the model is asked to think.
        schema: what a structured output is sent as: the schema itself, the JSON media type alone, or nothing.
    """

    thinking: ThinkingStyle = attrs.field(default=ThinkingStyle.LEVEL, converter=ThinkingStyle)
    schema: SchemaStyle = attrs.field(default=SchemaStyle.JSON_SCHEMA, converter=SchemaStyle)


DEFAULT = GeminiOptions()
"""The options of the newest models."""


def encode_request(request: GenerateRequest, options: GeminiOptions = DEFAULT) -> dict[str, Any]:
    """Encode a request as the payload of ``generateContent``. Model and stream are part of the URL, not of the payload.

    ``request.extra`` is merged into the payload: objects key by key; its ``tools`` are appended.

    Args:
        request: the request, already fitted to the model.
        options: how the model differs.

    Raises:
        InvalidOption: a tool's result names neither the tool nor an earlier call of the conversation, or there is
            nothing but instructions and empty turns.
    """
    turns = fit_history(request.turns(), vendor=VENDOR, ids=CallIds(may_be_empty=True))
    instructions, contents = _encode_turns(turns, signed=options.thinking is ThinkingStyle.LEVEL)
    if not contents:  # the API refuses it: "GenerateContentRequest.contents: contents is not specified"
        raise InvalidOption("the request has nothing but instructions and empty turns: it needs a user's turn")
    payload: dict[str, Any] = {"systemInstruction": {"parts": instructions}} if instructions else {}
    payload["contents"] = contents
    if request.tools:
        payload["tools"] = [{"functionDeclarations": [encode_tool(tool) for tool in request.tools]}]
    if request.tool_choice is not None:
        payload["toolConfig"] = {"functionCallingConfig": encode_choice(request.tool_choice)}
    config = _encode_config(request, options)
    if config:
        payload["generationConfig"] = config
    return with_extra(payload, request.extra, deep=True)


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Encode a tool as a function declaration."""
    declaration: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declaration["description"] = tool.description
    declaration["parametersJsonSchema"] = dict(tool.parameters)
    return declaration


def encode_choice(choice: str) -> dict[str, Any]:
    """Encode a tool choice: a mode, or the name of the tool that must be called."""
    if choice in MODES:
        return {"mode": MODES[choice]}
    return {"mode": "ANY", "allowedFunctionNames": [choice]}


def _encode_config(request: GenerateRequest, options: GeminiOptions) -> dict[str, Any]:
    config = {key: getattr(request, name) for name, key in SCALARS.items() if getattr(request, name) is not None}
    if request.sample is not None:
        config["seed"] = request.sample  # API reference, GenerationConfig; a 32-bit integer
    if request.stop:
        config["stopSequences"] = list(request.stop)
    config.update(_encode_format(request, options))
    if request.reasoning is not None:
        thinking = encode_thinking(request.reasoning, options)
        if thinking:
            config["thinkingConfig"] = thinking
    return config


def _encode_format(request: GenerateRequest, options: GeminiOptions) -> dict[str, Any]:
    structured, legacy = request.structured_output, request.response_format
    schema: Any = None
    if structured is not None:
        schema = dict(structured.json_schema)
    elif legacy is not None:
        inner = legacy.get("json_schema")  # OpenAI's form of a response format
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
    is_json = schema is not None or (legacy is not None and legacy.get("type") == "json_object")
    if not is_json or options.schema is SchemaStyle.NONE:
        return {}
    config: dict[str, Any] = {"responseMimeType": "application/json"}
    if schema is not None and options.schema is not SchemaStyle.JSON_OBJECT:
        config["responseJsonSchema"] = schema
    return config


def encode_thinking(config: ReasoningConfig, options: GeminiOptions) -> dict[str, Any]:
    """Encode how much to think. Thoughts are returned only on request, so a model that thinks is asked for them."""
    effort = config.effort
    thinking: dict[str, Any] = {}
    if options.thinking is ThinkingStyle.BUDGET:
        budget = 0 if effort is Effort.NONE else config.budget_tokens
        if budget is None and effort is not None:
            budget = _BUDGETS[effort]
        if budget is not None:
            thinking["thinkingBudget"] = budget
    elif options.thinking is ThinkingStyle.LEVEL and effort is not None:
        thinking["thinkingLevel"] = _LEVELS[effort]
    if thinking and effort is not Effort.NONE and thinking.get("thinkingBudget") != 0:
        thinking["includeThoughts"] = True
    return thinking


def _encode_turns(turns: Iterable[Message], *, signed: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the parts of the instructions, and the contents; ``signed`` gives every step of calls a signature.

    The API takes instructions in one place only, and the results of parallel calls in one content. Turns of the model
    without parts are dropped, since the API rejects an empty content.
    """
    instructions: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    tool_names: dict[str, str] = {}  # by the id of the call
    results: list[dict[str, Any]] | None = None  # the parts of the last content, if it holds results
    for turn in turns:
        if turn.role in (Role.SYSTEM, Role.DEVELOPER):
            if turn.text:
                instructions.append({"text": turn.text})
        elif turn.role == Role.TOOL:
            parts = _encode_result(turn, tool_names)
            if results is not None:
                results.extend(parts)
            else:
                results = parts
                contents.append({"role": "user", "parts": parts})
        else:
            results = None
            tool_names.update((call.id, call.name) for call in turn.tool_calls)
            is_model = turn.role == Role.ASSISTANT
            parts = encode_model_parts(turn, signed=signed) if is_model else _encode_parts(turn)
            if parts:
                contents.append({"role": MODEL if is_model else str(turn.role), "parts": parts})
    return instructions, contents


def _encode_result(turn: Message, tool_names: Mapping[str, str]) -> list[dict[str, Any]]:
    name = turn.name or tool_names.get(turn.tool_call_id or "")
    if not name:
        raise InvalidOption(
            "a message of role 'tool' needs name, or tool_call_id: the id of an earlier call in the conversation"
        )
    result: dict[str, Any] = {"id": turn.tool_call_id} if turn.tool_call_id else {}
    result.update(name=name, response=result_object(turn.text))
    parts = () if isinstance(turn.content, str) else turn.content
    images = [_encode_file(part) for part in parts if isinstance(part, ImagePart | DocumentPart | AudioPart)]
    return [{"functionResponse": result}, *images]


def result_object(text: str) -> dict[str, Any]:
    """Return a tool's result as the object that the API requires: a JSON object as it is, other text as ``result``.

    An object with ``$ref`` in it is sent as text. The API looks such references up among the parts of the result, and
    refuses those that it does not find. Source: Gemini API docs, "Function calling", multimodal function responses.
    """
    value = loads_object(text)
    return {"result": text} if value is None or _has_reference(value) else value


def _has_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return "$ref" in value or any(map(_has_reference, value.values()))
    return isinstance(value, list) and any(map(_has_reference, value))


def _encode_parts(turn: Message) -> list[dict[str, Any]]:
    if isinstance(turn.content, str):
        return [{"text": turn.content}] if turn.content else []  # the API refuses a part without text
    parts: list[dict[str, Any]] = []
    for part in turn.content:
        if isinstance(part, ImagePart | DocumentPart | AudioPart):
            parts.append(_encode_file(part))
        elif isinstance(part, TextPart):
            _add_text(parts, part.text)
    return parts


def _add_text(parts: list[dict[str, Any]], text: str) -> None:
    """Append text to the last part if that is plain text, else as a new part."""
    if parts and parts[-1].keys() == {"text"}:
        parts[-1]["text"] += text
    else:
        parts.append({"text": text})


def _encode_file(part: ImagePart | DocumentPart | AudioPart) -> dict[str, Any]:
    """Encode an image, a document or sound: the dialect has one form for all (google.genai.types.Part)."""
    if part.url is None:
        return {"inlineData": {"mimeType": _OWN_TYPES.get(part.media_type or "", part.media_type), "data": part.data}}
    extension = part.url.partition("?")[0].rpartition(".")[2].lower()
    mime_type = _OWN_TYPES.get(part.media_type or "", part.media_type) or _MIME_TYPES.get(extension)
    file = {"fileUri": part.url}
    if mime_type:
        file["mimeType"] = mime_type
    return {"fileData": file}


def encode_model_parts(turn: Message, *, signed: bool = False) -> list[dict[str, Any]]:
    """Encode the parts of a model's turn: reasoning of this vendor with its signatures, text, images and calls.

    A signature must go back on the part that carried it (Gemini API docs, "Thought signatures"): a reasoning part with
    a signature and no text signs the text that follows. With ``signed``, a first call without one gets
    ``NO_SIGNATURE``; of parallel calls, the model signs the first alone.
    """
    parts: list[dict[str, Any]] = []
    signature: str | None = None
    for part in (TextPart(text=turn.content),) if isinstance(turn.content, str) else turn.content:
        if isinstance(part, ReasoningPart) and part.vendor != VENDOR:
            continue
        if signature is not None:
            text = part.text if isinstance(part, TextPart) else None
            parts.append({"text": text or "", SIGNATURE: signature})
            signature = None
            if text is not None:
                continue
        if isinstance(part, TextPart):
            if part.text:
                _add_text(parts, part.text)
        elif isinstance(part, ImagePart | DocumentPart | AudioPart):
            parts.append(_encode_file(part))
        elif part.data is not None:
            parts.append(dict(part.data))
        elif part.text:
            thought = {"text": part.text, "thought": True}
            if part.signature:
                thought[SIGNATURE] = part.signature
            parts.append(thought)
        else:
            signature = part.signature
    if signature is not None:
        parts.append({"text": "", SIGNATURE: signature})
    parts += [_encode_call(call) for call in turn.tool_calls]
    return _with_signature(parts) if signed else parts


def _with_signature(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of a step with a signature on one of its calls, if it has calls."""
    calls = [part for part in parts if "functionCall" in part]
    if calls and not any(part.get(SIGNATURE) for part in calls):
        calls[0][SIGNATURE] = NO_SIGNATURE
    return parts


def _encode_call(call: ToolCall) -> dict[str, Any]:
    function: dict[str, Any] = {"id": call.id} if call.id else {}
    function["name"] = call.name
    if call.arguments.strip():
        arguments = arguments_object(call.arguments)
        # The API takes objects only, and the model may have written anything.
        function["args"] = {"arguments": call.arguments} if arguments is None else arguments
    part: dict[str, Any] = {"functionCall": function}
    if call.extra.get(SIGNATURE):
        part[SIGNATURE] = call.extra[SIGNATURE]
    return part
