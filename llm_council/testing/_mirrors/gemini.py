"""Fake Google: read requests to ``generateContent``, and write replies, streams and errors.

The documentation of the dialect: https://ai.google.dev/api/generate-content
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_council._wire.payloads import dumps, get_text, need_object
from llm_council.errors import MalformedReply
from llm_council.models.messages import Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._google.reply import CANDIDATE_EXTRA, REPLY_EXTRA, reasoning_part
from llm_council.providers._google.request import (
    DEFAULT,
    MODEL,
    MODES,
    NO_SIGNATURE,
    SCALARS,
    SIGNATURE,
    VENDOR,
    GeminiOptions,
    encode_choice,
    encode_model_parts,
    encode_thinking,
    encode_tool,
    result_object,
)
from llm_council.testing._mirrors import _shared

__all__ = ["decode_request", "encode_array", "encode_chunks", "encode_error", "encode_response", "frame"]

_JSON = "application/json"
# https://ai.google.dev/api/generate-content#FinishReason; there is none of its own for tool calls.
_FINISH_REASONS = {
    FinishReason.STOP: "STOP",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.ERROR: "OTHER",
}


def decode_request(
    payload: Any, options: GeminiOptions = DEFAULT, *, model: str | None = None, stream: bool = False
) -> GenerateRequest:
    """Read the body of ``generateContent`` or ``streamGenerateContent``.

    Fields that a ``GenerateRequest`` has no place for, or that ``encode_request`` writes in another form, stay in
    ``extra``.

    Args:
        payload: the JSON value of the body.
        options: those with which the request was encoded.
        model: the model's name, from the URL.
        stream: True if the URL asks for a stream.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    config = rest.pop("generationConfig", None)
    config = dict(need_object({} if config is None else config, "$.generationConfig"))
    facts: dict[str, Any] = {
        "messages": [*_decode_instructions(rest), *_decode_contents(rest.pop("contents", None), "$.contents")],
        **_decode_tools(rest),
        **_decode_choice(rest),
        **{name: value for name, key in SCALARS.items() if (value := config.pop(key, None)) is not None},
        **_decode_format(config),
        **_decode_thinking(config, options),
        **_shared.take_stop(config, "stopSequences"),
    }
    if config:
        rest["generationConfig"] = config
    return _shared.build_request({**facts, "model": model, "stream": stream}, rest)


def _decode_instructions(rest: dict[str, Any]) -> list[Message]:
    found = rest.pop("systemInstruction", None)
    if found is None:
        return []
    parts = _shared.enumerate_paths(need_object(found, "$.systemInstruction").get("parts"), "$.systemInstruction.parts")
    texts = [get_text(need_object(part, path), "text", path) for part, path in parts]
    return [Message(Role.SYSTEM, text) for text in texts if text]


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    listed = rest.get("tools")
    first = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(listed, list) or not isinstance(first, dict) or first.keys() != {"functionDeclarations"}:
        return {}
    facts = _shared.take_tools({"tools": first["functionDeclarations"]}, _read_tool, encode_tool)
    if not facts:
        return {}
    if listed[1:]:
        rest["tools"] = listed[1:]
    else:
        del rest["tools"]
    return facts


def _read_tool(declared: Any) -> Tool:
    schema = declared["parametersJsonSchema"]
    return Tool(name=declared["name"], description=declared.get("description"), parameters=schema)


def _decode_choice(rest: dict[str, Any]) -> dict[str, Any]:
    config = rest.get("toolConfig")
    found = config.get("functionCallingConfig") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(found, dict):
        return {}
    allowed = found.get("allowedFunctionNames")
    named = allowed[0] if isinstance(allowed, list) and allowed else None
    choice = named or next((word for word, mode in MODES.items() if mode == found.get("mode")), None)
    if not isinstance(choice, str) or encode_choice(choice) != found:
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
    # Several efforts may be written alike: the first of ``Effort`` that is written like this is returned.
    budget = found.get("thinkingBudget")
    known = [ReasoningConfig(effort=effort) for effort in Effort]
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        known.insert(0, ReasoningConfig(budget_tokens=budget))
    for wish in known:
        if encode_thinking(wish, options) == found:
            del config["thinkingConfig"]
            return {"reasoning": wish}
    return {}


def _decode_contents(value: Any, path: str) -> list[Message]:
    """Read the turns of ``contents``.

    Raises:
        MalformedReply: they are not of this dialect.
    """
    turns: list[Message] = []
    for item, here in _shared.enumerate_paths(value, path):
        content = need_object(item, here)
        role = get_text(content, "role", here) or "user"
        parts = _shared.enumerate_paths(content.get("parts"), f"{here}.parts")
        listed = [(need_object(part, part_path), part_path) for part, part_path in parts]
        turns += [_model_turn(listed)] if role == MODEL else _user_turns(role, listed)
    return turns


def _model_turn(listed: list[tuple[dict[str, Any], str]]) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for part, path in listed:
        if "functionCall" in part:
            calls.append(_read_call(part, path))
            continue
        text = get_text(part, "text", path)
        if text is not None and part.get("thought") is True:
            signature = get_text(part, SIGNATURE, path)
            parts.append(ReasoningPart(text=text, signature=signature, vendor=VENDOR))
            continue
        # A signature on a text or a call becomes a part of its own, since it has to be sent back.
        unchanged = reasoning_part(part)
        if unchanged is not None:
            parts.append(unchanged)
        if text is not None:
            parts.append(TextPart(text=text))
    return Message(Role.ASSISTANT, parts, tool_calls=calls)


def _read_call(part: Mapping[str, Any], path: str) -> ToolCall:
    call = need_object(part["functionCall"], f"{path}.functionCall")
    name = _shared.need_text(call, "name", f"{path}.functionCall", "a name")
    arguments = ""
    if call.get("args") is not None:
        arguments = json.dumps(need_object(call["args"], f"{path}.functionCall.args"), ensure_ascii=False)
    call_id = get_text(call, "id", f"{path}.functionCall") or ""
    signature = part.get(SIGNATURE)
    extra = {} if signature in (None, "", NO_SIGNATURE) else {SIGNATURE: signature}
    return ToolCall(id=call_id, name=name, arguments=arguments, extra=extra)


def _user_turns(role: str, listed: list[tuple[dict[str, Any], str]]) -> list[Message]:
    """Read one content. Each tool result is a turn of its own; the images that follow it belong to it."""
    groups: list[tuple[dict[str, Any] | None, list[Part]]] = []
    for part, path in listed:
        if "functionResponse" in part:
            result = need_object(part["functionResponse"], f"{path}.functionResponse")
            response = need_object(result.get("response"), f"{path}.functionResponse.response")
            groups.append((result, [TextPart(text=_result_text(response))]))
            continue
        if not groups:
            groups.append((None, []))
        groups[-1][1].append(_read_part(part, path))
    turns = []
    for group, parts in groups:
        if group is None:
            turns.append(Message(role, parts))
        else:
            name, call_id = (get_text(group, key, "functionResponse") for key in ("name", "id"))
            turns.append(Message(Role.TOOL, parts, name=name, tool_call_id=call_id))
    return turns


def _result_text(response: dict[str, Any]) -> str:
    # The API takes only objects as results; a text is wrapped in one with the key ``result``.
    text = response.get("result")
    if isinstance(text, str) and result_object(text) == response:
        return text
    return json.dumps(response, ensure_ascii=False)


def _read_part(part: Mapping[str, Any], path: str) -> Part:
    text = get_text(part, "text", path)
    if text is not None:
        return TextPart(text=text)
    for key, address in (("inlineData", "data"), ("fileData", "fileUri")):
        if key in part:
            found = need_object(part[key], f"{path}.{key}")
            where = get_text(found, address, f"{path}.{key}")
            facts = {"data" if key == "inlineData" else "url": where}
            return _shared.build_media(path, **facts, media_type=get_text(found, "mimeType", f"{path}.{key}"))
    raise MalformedReply(f"{path}: a part with {', '.join(part) or 'nothing'} is not known", path=path)


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply. Thoughts precede the answer, those with a signature last.

    The reply to a blocked prompt has no candidate.
    """
    return {**_candidates(response, _parts(response), last=True), **_tail(response)}


def encode_chunks(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one event.
    """
    for part in _parts(response):
        for piece in _split_part(part, size):
            yield {**_candidates(response, [piece], last=False), **_envelope(response)}
    yield {**_candidates(response, [], last=True), **_tail(response)}


def _split_part(part: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Cut the text of a part; a signature comes with the last piece. Calls and signed thoughts stay whole."""
    texts = _shared.split(part.get("text"), size)
    if not texts or "functionCall" in part or (part.get("thought") and SIGNATURE in part):
        return [part]
    unsigned = {key: value for key, value in part.items() if key != SIGNATURE}
    return [*({**unsigned, "text": text} for text in texts[:-1]), {**part, "text": texts[-1]}]


def frame(payload: Any) -> bytes:
    """Write one event of a stream. This vendor ends lines with CRLF."""
    return b"data: " + dumps(payload) + b"\r\n\r\n"


def encode_array(payloads: Iterable[Mapping[str, Any]]) -> bytes:
    """Write a stream as one JSON array, which the vendor sends without ``alt=sse`` in the URL."""
    return b"[" + b",\r\n".join(dumps(payload) for payload in payloads) + b"]"


def _parts(response: GenerateResponse) -> list[dict[str, Any]]:
    signed = "".join(part.text for part in response.reasoning_parts)
    lead = (response.reasoning or "").removesuffix(signed)
    return [*([{"text": lead, "thought": True}] if lead else []), *encode_model_parts(response.to_message())]


def _candidates(response: GenerateResponse, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    # A blocked prompt has feedback in place of candidates.
    feedback = response.extra.get("promptFeedback")
    if isinstance(feedback, Mapping) and feedback.get("blockReason"):
        return {}
    candidate: dict[str, Any] = {"content": {"role": "model", **({"parts": parts} if parts else {})}, "index": 0}
    if last:
        reason = response.raw_finish_reason
        if not reason and response.finish_reason is not None:
            reason = _FINISH_REASONS[FinishReason(response.finish_reason)]
        if reason is not None:
            candidate["finishReason"] = reason
        candidate.update((key, response.extra[key]) for key in CANDIDATE_EXTRA if key in response.extra)
    return {"candidates": [candidate]}


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    fields = {"modelVersion": response.model, "responseId": response.request_id}
    return {key: value for key, value in fields.items() if value is not None}


def _tail(response: GenerateResponse) -> dict[str, Any]:
    """Write the fields that only the last event of a stream has."""
    tail = {**_envelope(response), **{key: response.extra[key] for key in REPLY_EXTRA if key in response.extra}}
    usage = response.usage
    if usage is None:
        return tail
    thoughts, output = usage.reasoning_tokens, usage.output_tokens
    counts = {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
        # Gemini counts thoughts beside the candidates, we count them as output.
        "candidatesTokenCount": None if output is None else output - (thoughts or 0),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": usage.total_tokens,
    }
    return {**tail, "usageMetadata": {key: count for key, count in counts.items() if count is not None}}


def encode_error(
    message: str, *, code: int = 400, status: str = "INVALID_ARGUMENT", details: Iterable[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Write the body of an error."""
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    listed = [dict(detail) for detail in details]
    return {"error": {**error, "details": listed} if listed else error}
