"""Turns of Google's dialect: contents of parts, spoken by ``user`` and ``model``, and instructions apart from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_council._wire.payloads import loads
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import ImagePart, Message, ReasoningPart, Role, TextPart, ToolCall
from llm_council.providers._google.options import VENDOR

__all__ = ["MODEL", "SIGNATURE", "encode_turns", "model_parts", "reasoning_part", "result_object"]

SIGNATURE = "thoughtSignature"
MODEL = "model"


def encode_turns(turns: Iterable[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the conversation: the parts of the instructions, and the contents.

    Instructions have one place, before all turns. The results of tools that were called side by side stand in one
    content, as the vendor wants them. Turns of the model that say nothing are left out: an empty content is refused.

    Raises:
        InvalidOption: a tool's result that names neither the tool nor a call of this conversation.
    """
    instructions: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the tools, by the ids of their calls
    results: list[dict[str, Any]] | None = None  # of the content before, where it holds results
    for turn in turns:
        if turn.role in (Role.SYSTEM, Role.DEVELOPER):
            if turn.text:
                instructions.append({"text": turn.text})
        elif turn.role == Role.TOOL:
            parts = _result(turn, names)
            if results is not None:
                results.extend(parts)
            else:
                results = parts
                contents.append({"role": "user", "parts": parts})
        else:
            results = None
            names.update((call.id, call.name) for call in turn.tool_calls)
            parts = model_parts(turn) if turn.role == Role.ASSISTANT else _parts(turn)
            if parts:
                contents.append({"role": MODEL if turn.role == Role.ASSISTANT else str(turn.role), "parts": parts})
    return instructions, contents


def _result(turn: Message, names: Mapping[str, str]) -> list[dict[str, Any]]:
    name = turn.name or names.get(turn.tool_call_id or "")
    if not name:
        raise InvalidOption(
            "a tool's turn needs name, or tool_call_id: the id of a call that stands before it in the conversation"
        )
    result = {"id": turn.tool_call_id} if turn.tool_call_id else {}
    said = {"functionResponse": {**result, "name": name, "response": result_object(turn.text)}}
    parts = () if isinstance(turn.content, str) else turn.content
    return [said, *(_image(part) for part in parts if isinstance(part, ImagePart))]


def result_object(text: str) -> dict[str, Any]:
    """Return a result as the object that it must be: text that is one passes, other text gets the key ``result``."""
    found = _object(text)
    return {"result": text} if found is None else found


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = loads(text) if text.lstrip()[:1] == "{" else None
    except MalformedReply:
        return None
    return value if isinstance(value, dict) else None


def _parts(turn: Message) -> list[dict[str, Any]]:
    if isinstance(turn.content, str):
        return [{"text": turn.content}]
    parts: list[dict[str, Any]] = []
    for part in turn.content:
        if isinstance(part, ImagePart):
            parts.append(_image(part))
        elif isinstance(part, TextPart):
            _say(parts, part.text)
    return parts


def _say(parts: list[dict[str, Any]], text: str) -> None:
    """Add text; plain text beside plain text is one part."""
    if parts and parts[-1].keys() == {"text"}:
        parts[-1]["text"] += text
    else:
        parts.append({"text": text})


def _image(part: ImagePart) -> dict[str, Any]:
    if part.url is None:
        return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
    kind = part.media_type or _KINDS.get(part.url.partition("?")[0].rpartition(".")[2].lower())
    return {"fileData": {"fileUri": part.url, **({"mimeType": kind} if kind else {})}}


# Vertex AI wants the type of every file, and the vendor's own client takes it from the address too.
_KINDS = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
}


def model_parts(turn: Message) -> list[dict[str, Any]]:
    """Write the parts of a model's turn: reasoning of this vendor as it was signed, text, images, calls.

    A signature without a text of its own belongs to the text that follows it.
    """
    parts: list[dict[str, Any]] = []
    signature: str | None = None
    for part in (TextPart(text=turn.content),) if isinstance(turn.content, str) else turn.content:
        if isinstance(part, ReasoningPart) and part.vendor != VENDOR:
            continue
        if signature is not None:
            own = part.text if isinstance(part, TextPart) else None
            parts.append({"text": own or "", SIGNATURE: signature})
            signature = None
            if own is not None:
                continue
        if isinstance(part, TextPart):
            if part.text:
                _say(parts, part.text)
        elif isinstance(part, ImagePart):
            parts.append(_image(part))
        elif part.data is not None:
            parts.append(dict(part.data))
        elif part.text:
            signed = {SIGNATURE: part.signature} if part.signature else {}
            parts.append({"text": part.text, "thought": True, **signed})
        else:
            signature = part.signature
    if signature is not None:
        parts.append({"text": "", SIGNATURE: signature})
    return [*parts, *(_call(call) for call in turn.tool_calls)]


def _call(call: ToolCall) -> dict[str, Any]:
    wished: dict[str, Any] = {"id": call.id} if call.id else {}
    wished["name"] = call.name
    if call.arguments.strip():
        found = _object(call.arguments)
        wished["args"] = {"arguments": call.arguments} if found is None else found  # what no object can be read from
    signed = {SIGNATURE: call.extra[SIGNATURE]} if call.extra.get(SIGNATURE) else {}
    return {"functionCall": wished, **signed}


def reasoning_part(part: Mapping[str, Any]) -> ReasoningPart | None:
    """Return what must go back to the vendor of a part that is no call: None where nothing must.

    That is a signature, with the thought that it signs, and whole parts that have no place in our nouns: code that ran
    on the vendor's side and its output, or a generated image.
    """
    signature = part.get(SIGNATURE)
    signature = signature if isinstance(signature, str) and signature else None
    text = part.get("text")
    if not isinstance(text, str):
        return ReasoningPart(signature=signature, vendor=VENDOR, data=part) if part else None
    if signature is None:
        return None
    return ReasoningPart(text=text if part.get("thought") is True else "", signature=signature, vendor=VENDOR)
