"""What several mirrors need: cutting texts, framing events, and reading parts of a request that vendors share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from llm_council._wire.payloads import dumps, get_text, malformed, need_list, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import AudioPart, DocumentPart, ImagePart
from llm_council.models.request import GenerateRequest, Tool

__all__ = [
    "build_media",
    "build_part",
    "build_request",
    "drop_common",
    "enumerate_paths",
    "image_from_url",
    "need_text",
    "split",
    "sse_frame",
    "take",
    "take_cache",
    "take_stop",
    "take_text",
    "take_tools",
    "write_function",
]


def split(text: str | None, size: int) -> list[str]:
    """Cut a text into pieces of at most ``size`` characters; None and an empty text give no piece."""
    text = text or ""
    return [text[start : start + size] for start in range(0, len(text), size)]


def sse_frame(payload: Any, name: str | None = None) -> bytes:
    """Write JSON as one server-sent event, with a name if there is one."""
    # JSON has no line breaks, so one ``data`` line is enough.
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + dumps(payload) + b"\n\n"


def need_text(parent: Mapping[str, Any], key: str, path: str, expected: str) -> str:
    """Return a text that must not be empty.

    Raises:
        MalformedReply: it is missing, empty or not a string; the message says that ``expected`` was expected.
    """
    text = get_text(parent, key, path)
    if not text:
        raise malformed(f"{path}.{key}", expected, parent.get(key))
    return text


def enumerate_paths(value: Any, path: str, *, optional: bool = False) -> Iterator[tuple[Any, str]]:
    """Yield each item of a JSON array with its path.

    Raises:
        MalformedReply: the value is not an array; None is an empty one if ``optional``.
    """
    if value is None and optional:
        return
    for index, item in enumerate(need_list(value, path)):
        yield item, f"{path}[{index}]"


def build_request(facts: Mapping[str, Any], extra: Mapping[str, Any], path: str = "$") -> GenerateRequest:
    """Build a request from the fields that were read and those that were left over.

    Raises:
        MalformedReply: a field has a value that ``GenerateRequest`` does not take.
    """
    try:
        return GenerateRequest(**facts, extra=extra)
    except (InvalidOption, TypeError) as error:
        raise MalformedReply(str(error), path=path) from None


P = TypeVar("P", ImagePart, DocumentPart, AudioPart)


def build_part(kind: type[P], path: str, **facts: str | None) -> P:
    """Build the part for an image, a document or sound.

    Raises:
        MalformedReply: the part does not take these facts.
    """
    try:
        return kind(**facts)
    except InvalidOption as error:
        raise MalformedReply(f"{path}: {error}", path=path) from None


def build_media(path: str, **facts: str | None) -> ImagePart | DocumentPart | AudioPart:
    """Build the part for a file that its media type describes; without one, it is taken for an image."""
    kind = (facts.get("media_type") or "image/").partition("/")[0]
    if kind == "image":
        return build_part(ImagePart, path, **facts)
    return build_part(AudioPart, path, **facts) if kind == "audio" else build_part(DocumentPart, path, **facts)


def image_from_url(block: Mapping[str, Any], path: str) -> ImagePart:
    """Read a block ``{"type": "image_url", "image_url": {"url": ..., "detail": ...}}``."""
    inner = f"{path}.image_url"
    image = need_object(block.get("image_url"), inner)
    return build_part(ImagePart, path, url=get_text(image, "url", inner), detail=get_text(image, "detail", inner))


# The functions below move fields of a payload into fields of a request. What they cannot express stays in the payload,
# whose rest becomes ``extra``: encoding the request again then gives the same payload.


def take(rest: dict[str, Any], key: str, field: str | None = None) -> dict[str, Any]:
    """Remove a key; return its value under the name of the request's field, and nothing for null."""
    value = rest.pop(key, None)
    return {} if value is None else {field or key: value}


def take_text(rest: dict[str, Any], key: str) -> str | None:
    """Remove a key; return its text, or None if it is missing or null.

    Raises:
        MalformedReply: it is not a string.
    """
    text = get_text(rest, key, "$")
    rest.pop(key, None)
    return text


def drop_common(rest: dict[str, Any], body: Mapping[str, Any]) -> None:
    """Remove the fields that an encoder adds to every request: they are no wish of the caller."""
    for key, value in body.items():
        if key in rest and rest[key] == value:
            del rest[key]


def take_stop(rest: dict[str, Any], key: str) -> dict[str, Any]:
    """Remove a list of stop words; anything else stays."""
    words = rest.get(key)
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return {}
    return {"stop": rest.pop(key)}


def take_tools(
    rest: dict[str, Any], read: Callable[[Any], Tool], write: Callable[[Tool], Any]
) -> dict[str, list[Tool]]:
    """Remove ``tools`` if every one can be read, and is written again as the same JSON."""
    listed = rest.get("tools")
    if not isinstance(listed, list) or not listed:
        return {}
    try:
        tools = [read(tool) for tool in listed]
    except (InvalidOption, KeyError, AttributeError, TypeError):
        return {}
    if [write(tool) for tool in tools] != listed:
        return {}
    del rest["tools"]
    return {"tools": tools}


def write_function(tool: Tool) -> dict[str, Any]:
    """Write a tool as Cohere and Ollama take it. Not their own encoder: a mirror with its mistakes would hide them."""
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def take_cache(rest: dict[str, Any]) -> dict[str, Any]:
    """Remove ``cache_control``: ``{"type": "ephemeral"}``, with or without a ``ttl``."""
    mark = rest.get("cache_control")
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or not mark.keys() <= {"type", "ttl"}:
        return {}
    lifetime = mark.get("ttl", True)
    if lifetime is not True and not (isinstance(lifetime, str) and lifetime):
        return {}
    del rest["cache_control"]
    return {"prompt_cache": lifetime}
