"""Fake Ollama: read requests to ``POST /api/chat``, and write replies, streams and errors.

The documentation of the dialect: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_council._wire.payloads import dumps, get_text, loads, malformed, need_object
from llm_council.errors import MalformedReply
from llm_council.models.messages import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._ollama.request import DEFAULT, ChatOptions
from llm_council.testing._mirrors import _shared

__all__ = ["decode_request", "encode_chunks", "encode_error", "encode_response", "frame"]

# The same time in every reply, so that tests can compare replies.
_CREATED_AT = "1970-01-01T00:00:00Z"


def decode_request(payload: Any, options: ChatOptions = DEFAULT) -> GenerateRequest:
    """Read the body of ``POST /api/chat``.

    Fields that a ``GenerateRequest`` has no place for stay in ``extra``.

    Args:
        payload: the JSON value of the body.
        options: those with which the request was encoded; the fields of their ``body`` are not returned.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    facts: dict[str, Any] = {
        "messages": [_decode_turn(*item) for item in _shared.enumerate_paths(rest.pop("messages", None), "$.messages")],
        "model": _shared.take_text(rest, "model"),
        "stream": rest.pop("stream", True) is True,  # unlike elsewhere, a stream is the default
        **_decode_options(rest, options),
        **_shared.take_tools(rest, lambda tool: Tool.of(tool["function"]), _shared.write_function),
        **_decode_format(rest),
        **_decode_think(rest, options),
    }
    _shared.drop_common(rest, {key: value for key, value in options.body.items() if key != "options"})
    return _shared.build_request(facts, rest)


def _decode_options(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    # Sampling parameters stand in an object of their own, with llama.cpp's names.
    found = rest.get("options")
    if not isinstance(found, dict) or not found:
        return {}
    own = dict(found)
    common = options.body.get("options")
    if isinstance(common, Mapping):
        for key, value in common.items():
            if own.get(key) == value:
                del own[key]
    facts: dict[str, Any] = _shared.take_stop(own, "stop")
    for key, field in (("num_predict", "max_tokens"), ("temperature", "temperature"), ("top_p", "top_p")):
        if own.get(key) is not None:
            facts[field] = own.pop(key)
    rest.pop("options")
    if own:
        rest["options"] = own
    return facts


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    # ``"json"`` asks for any object, a schema for one of its shape.
    wanted = rest.get("format")
    if wanted == "json":
        del rest["format"]
        return {"response_format": {"type": "json_object"}}
    if isinstance(wanted, dict):
        del rest["format"]
        return {"structured_output": StructuredOutput(json_schema=wanted)}
    return {}


def _decode_think(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    think = rest.get("think")
    if think is False:
        effort = Effort.NONE
    elif think is True and not options.think_levels:
        effort = Effort.MEDIUM
    elif isinstance(think, str) and think in ("low", "medium", "high", "max") and options.think_levels:
        effort = Effort(think)
    else:
        return {}
    del rest["think"]
    return {"reasoning": ReasoningConfig(effort=effort)}


def _decode_turn(value: Any, path: str) -> Message:
    turn = need_object(value, path)
    role = _shared.need_text(turn, "role", path, "a role")
    parts: list[Part] = []
    thoughts = get_text(turn, "thinking", path)
    if thoughts:
        parts.append(ReasoningPart(text=thoughts, vendor="ollama"))
    content = get_text(turn, "content", path)
    if content:
        parts.append(TextPart(text=content))
    for data, here in _shared.enumerate_paths(turn.get("images"), f"{path}.images", optional=True):
        if not isinstance(data, str):
            raise malformed(here, "a string", data)
        parts.append(ImagePart(data=data, media_type="image/png"))  # the dialect does not name the type
    calls = _shared.enumerate_paths(turn.get("tool_calls"), f"{path}.tool_calls", optional=True)
    return Message(
        role,
        parts,
        name=get_text(turn, "tool_name", path),
        tool_calls=[_decode_call(call, index, here) for index, (call, here) in enumerate(calls)],
    )


def _decode_call(value: Any, index: int, path: str) -> ToolCall:
    function = need_object(need_object(value, path).get("function"), f"{path}.function")
    name = _shared.need_text(function, "name", f"{path}.function", "a name")
    arguments = need_object(function.get("arguments") or {}, f"{path}.function.arguments")
    # Requests carry no ids of calls: a result names the tool, not the call.
    return ToolCall(id=f"call_{index}", name=name, arguments=arguments)


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply."""
    message: dict[str, Any] = {"role": "assistant", "content": response.text}
    if response.reasoning is not None:
        message["thinking"] = response.reasoning
    if response.tool_calls:
        message["tool_calls"] = [_encode_call(call) for call in response.tool_calls]
    return {"model": response.model, "created_at": _CREATED_AT, "message": message, **_encode_end(response)}


def _encode_end(response: GenerateResponse) -> dict[str, Any]:
    """Write the fields that only the last object of a stream has."""
    # There is no reason of its own for tool calls: they end with ``stop``.
    word = response.raw_finish_reason or ("length" if response.finish_reason == FinishReason.LENGTH else "stop")
    end: dict[str, Any] = {"done": True, "done_reason": word}
    end.update((key, value) for key, value in response.extra.items() if value not in (None, "", []))
    usage = response.usage or Usage()
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    end.update((key, count) for key, count in counts.items() if count is not None)
    return end


def _encode_call(call: ToolCall) -> dict[str, Any]:
    # Ollama writes arguments as an object, not as a text.
    try:
        arguments = loads(call.arguments)
    except MalformedReply:
        arguments = call.arguments
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


def frame(payload: Any) -> bytes:
    """Write one object of a stream as a line of JSON."""
    return dumps(payload) + b"\n"


def encode_chunks(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the objects of a stream.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one object.
    """
    head = {"model": response.model, "created_at": _CREATED_AT}

    def chunk(**fields: Any) -> dict[str, Any]:
        return {**head, "message": {"role": "assistant", "content": "", **fields}, "done": False}

    for key, text in (("thinking", response.reasoning), ("content", response.text)):
        for piece in _shared.split(text, size):
            yield chunk(**{key: piece})
    if response.tool_calls:
        yield chunk(tool_calls=[_encode_call(call) for call in response.tool_calls])
    yield {**chunk(), **_encode_end(response)}


def encode_error(message: str) -> dict[str, Any]:
    """Write the body of an error, or the object of a stream that reports one."""
    return {"error": message}
