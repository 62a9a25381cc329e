"""The mirror of Anthropic's requests: what fake vendors read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_council._wire.payloads import get_text, kind, malformed, need_list, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import ImagePart, Message, Part, Role, TextPart, ToolCall
from llm_council.models.request import GenerateRequest, StructuredOutput, Tool
from llm_council.providers._anthropic.options import DEFAULT, MessagesOptions
from llm_council.providers._anthropic.reply import tool_call
from llm_council.providers._anthropic.request import encode_choice, encode_tool
from llm_council.providers._anthropic.thinking import BLOCKS, decode_thinking, part_of

__all__ = ["decode_request"]


def decode_request(payload: Any, options: MessagesOptions = DEFAULT) -> GenerateRequest:
    """Read a request: the mirror of ``encode_request``, for fake vendors.

    What has no place in a ``GenerateRequest``, or not in the form that ``encode_request`` writes, stays in ``extra``.

    Raises:
        MalformedReply: the payload is no request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    listed = need_list(rest.pop("messages", None), "$.messages")
    turns = [*_decode_system(rest.pop("system", None))]
    for index, message in enumerate(listed):
        turns += _decode_message(message, f"$.messages[{index}]", options)
    max_tokens = rest.pop("max_tokens", None)
    if isinstance(rest.get("output_config"), dict):
        rest["output_config"] = dict(rest["output_config"])
    facts: dict[str, Any] = {
        "messages": turns,
        "model": get_text(rest, "model", "$"),
        "stream": rest.pop("stream", False) is True,
        "max_tokens": max_tokens,
        **{key: rest.pop(key) for key in ("temperature", "top_p") if rest.get(key) is not None},
        **_decode_stop(rest),
        **_decode_tools(rest),
        **decode_thinking(rest, max_tokens, options),
        **_decode_format(rest),
        **_decode_cache(rest, options),
    }
    rest.pop("model", None)
    for key, value in options.body.items():
        if key in rest and rest[key] == value:
            del rest[key]
    try:
        return GenerateRequest(**facts, extra=rest)
    except (InvalidOption, TypeError) as error:
        raise MalformedReply(str(error), path="$") from None


def _decode_system(value: Any) -> Iterable[Message]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (Message("system", value),)
    parts = [_decode_part(block, f"$.system[{index}]", "") for index, block in enumerate(need_list(value, "$.system"))]
    return (Message("system", parts),)


def _decode_stop(rest: dict[str, Any]) -> dict[str, Any]:
    words = rest.get("stop_sequences")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return {}
    del rest["stop_sequences"]
    return {"stop": words}


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    listed = rest.get("tools")
    if not isinstance(listed, list) or not listed:
        return {}
    try:
        tools = [
            Tool(
                name=tool["name"],
                description=tool.get("description"),
                parameters=tool["input_schema"],
                strict=tool.get("strict"),
            )
            for tool in listed
        ]
    except (InvalidOption, KeyError, AttributeError, TypeError):
        return {}
    if [encode_tool(tool) for tool in tools] != listed:
        return {}
    del rest["tools"]
    facts: dict[str, Any] = {"tools": tools}
    choice = rest.get("tool_choice")
    if isinstance(choice, dict):
        name = choice.get("name") if choice.get("type") == "tool" else choice.get("type")
        name = "required" if name == "any" and choice.get("type") == "any" else name
        if isinstance(name, str) and encode_choice(name) == choice:
            facts["tool_choice"] = name
            del rest["tool_choice"]
    return facts


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    output = rest.get("output_config")
    if not isinstance(output, dict):
        return {}
    facts: dict[str, Any] = {}
    wanted = output.get("format")
    schema = wanted.get("schema") if isinstance(wanted, dict) and wanted.keys() == {"type", "schema"} else None
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema" and isinstance(schema, dict):
        facts["structured_output"] = StructuredOutput(json_schema=schema)
        del output["format"]
    if not output:
        del rest["output_config"]
    return facts


def _decode_cache(rest: dict[str, Any], options: MessagesOptions) -> dict[str, Any]:
    mark = rest.get("cache_control") if options.cache_control else None
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or not mark.keys() <= {"type", "ttl"}:
        return {}
    life = mark.get("ttl", True)
    if life is not True and not (isinstance(life, str) and life):
        return {}
    del rest["cache_control"]
    return {"prompt_cache": life}


class _Turn:
    """The turn that is being read."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.calls: list[ToolCall] = []

    def takes(self, part: Part) -> bool:
        """Tell whether a part belongs to this turn: nothing follows calls, and plain texts would run together."""
        if self.calls:
            return False
        return not (self.parts and _is_plain(part) and all(map(_is_plain, self.parts)))


def _is_plain(part: Part) -> bool:
    return isinstance(part, TextPart) and not part.cache


def _decode_message(value: Any, path: str, options: MessagesOptions) -> Iterable[Message]:
    """Return the turns that a message was made of: it holds several where turns of one role were merged."""
    message = need_object(value, path)
    role = get_text(message, "role", path)
    if not role:
        raise malformed(f"{path}.role", "a role", message.get("role"))
    content = message.get("content")
    if isinstance(content, str):
        return [Message(role, content)]
    results: list[Message] = []
    turns = [_Turn()]
    for index, found in enumerate(need_list(content, f"{path}.content")):
        here = f"{path}.content[{index}]"
        block = need_object(found, here)
        word = block.get("type")
        if word == "tool_result":
            results.append(_decode_result(block, here, options))
        elif word == "tool_use":
            turns[-1].calls.append(tool_call(block, here))
        else:
            own = role == Role.ASSISTANT and (word != "text" or "citations" in block)
            part = part_of(block, options.vendor) if own else _decode_part(block, here, options.vendor)
            if not turns[-1].takes(part):
                turns.append(_Turn())
            turns[-1].parts.append(part)
    return results + [Message(role, turn.parts, tool_calls=turn.calls) for turn in turns if turn.parts or turn.calls]


def _decode_result(block: Mapping[str, Any], path: str, options: MessagesOptions) -> Message:
    content = block.get("content")
    if not isinstance(content, str | None):
        content = [
            _decode_part(need_object(part, f"{path}.content[{index}]"), f"{path}.content[{index}]", options.vendor)
            for index, part in enumerate(need_list(content, f"{path}.content"))
        ]
    return Message("tool", content or "", tool_call_id=get_text(block, "tool_use_id", path))


def _decode_part(value: Any, path: str, vendor: str) -> Part:
    block = need_object(value, path)
    word = block.get("type")
    if word == "text":
        return TextPart(text=get_text(block, "text", path) or "", cache="cache_control" in block)
    if isinstance(word, str) and word in BLOCKS:
        return part_of(block, vendor)
    if word == "image":
        source = need_object(block.get("source"), f"{path}.source")
        facts = {key: get_text(source, key, f"{path}.source") for key in ("url", "data", "media_type")}
        try:
            return ImagePart(**facts)
        except InvalidOption as error:
            raise MalformedReply(f"{path}: {error}", path=path) from None
    raise MalformedReply(f"{path}.type: a part of type {word!r:.80} is not known ({kind(word)})", path=path)
