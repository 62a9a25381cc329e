"""Decode strict JSON, encode compact JSON, and read decoded values with errors that name their path."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models._attrs import MAX_AMOUNT, tokens
from llm_council.models._lenient_json import STRICT, read_arguments, replace_surrogates, well_formed
from llm_council.models.limits import Limits

__all__ = [
    "amount",
    "arguments_object",
    "as_object_text",
    "dumps",
    "get_object",
    "get_text",
    "join_tools",
    "kind",
    "loads",
    "loads_object",
    "malformed",
    "need_list",
    "need_object",
    "pick_non_empty",
    "raise_if_html",
    "text_or_none",
    "tokens",
    "well_formed",
    "with_extra",
]

_LIMITS = Limits()
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BEGINNING = 80  # characters of an unexpected body that a message shows


def loads(data: bytes | bytearray | str, limits: Limits = _LIMITS, *, content_type: str | None = None) -> Any:
    """Decode JSON strictly: UTF-8, finite numbers, bounded nesting. A byte order mark is dropped.

    Lone surrogates, which UTF-8 cannot encode, become U+FFFD.

    Args:
        data: the whole text.
        limits: ``json_depth`` bounds the nesting.
        content_type: the reply's content type, for the message.

    Raises:
        MalformedReply: the text is not such JSON; the message shows its first 80 characters.
    """
    text = ""
    try:
        text = data if isinstance(data, str) else data.decode()
        value = STRICT.decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise MalformedReply("the reply's JSON is nested too deeply", path="$") from None
    except UnicodeDecodeError as error:
        raise MalformedReply(f"the reply is not UTF-8: {error.reason} at byte {error.start}", path="$") from None
    except ValueError as error:  # JSONDecodeError, and int()'s refusal of endless digits
        raise MalformedReply(_not_json(text, error, content_type), path="$") from None
    # Counting brackets first avoids a walk through every reply, which costs more than decoding it.
    if text.count("[") + text.count("{") > limits.json_depth and _is_deeper(value, limits.json_depth):
        raise MalformedReply(f"the reply's JSON is nested deeper than {limits.json_depth} levels", path="$")
    if "\\u" in text and _SURROGATE.search(text):
        value = replace_surrogates(value)
    return value


def loads_object(data: bytes | str) -> dict[str, Any] | None:
    """Return a JSON object; None if the text is not JSON, or another value."""
    try:
        value = loads(data)
    except MalformedReply:
        return None
    return value if isinstance(value, dict) else None


def arguments_object(text: str) -> dict[str, Any] | None:
    """Return the arguments of a tool call as an object; None if they are not one. See ``ToolCall.parse``."""
    try:
        return read_arguments(text)
    except ValueError:
        return None


def as_object_text(text: str) -> str:
    """Return the arguments of a tool call as the text of a JSON object, for servers that read what they are sent.

    A model may have written anything: what is no object, and cannot be read as one, becomes ``{"arguments": text}``.
    """
    try:
        if isinstance(loads(text), dict):
            return text
    except MalformedReply:
        pass
    found = arguments_object(text)
    return json.dumps({"arguments": text} if found is None else found, ensure_ascii=False)


def _not_json(text: str, error: ValueError, content_type: str | None) -> str:
    if not text.strip():
        return "the reply is empty"
    called = f" ({content_type.split(';')[0].strip()})" if content_type else ""
    why = error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition(";")[0]
    return f"the reply{called} is not JSON: {why}; it begins {text[:_BEGINNING]!r}"


def raise_if_html(beginning: bytes, content_type: str) -> bool:
    """Raise the error of a stream that begins as a web page, whatever its content type.

    Returns:
        undecided: True if the first visible character has not arrived yet.

    Raises:
        MalformedReply: the message shows the content type and the first 80 characters.
    """
    text = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        shown = text[:_BEGINNING].decode("utf-8", "replace")
        raise MalformedReply(
            f"the reply ({content_type or 'no content type'}) is no stream; it begins {shown!r}", path="$"
        )
    return not text


def _is_deeper(value: Any, limit: int) -> bool:
    level, depth = [value], 0
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if depth > limit and any(isinstance(item, dict | list) for item in level):
            return True
        level = below
    return False


def dumps(value: Any, *, sort: bool = False) -> bytes:
    """Encode compact UTF-8 JSON. ``sort`` orders the keys, so that equal values give equal bytes.

    Raises:
        InvalidOption: the value holds something that JSON cannot carry.
    """
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=sort, default=_plain
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(f"the request holds a value that JSON cannot carry: {error}") from None
    return well_formed(text).encode()


def _plain(value: object) -> Any:
    # Requests are frozen, so their mappings may be of types that json does not know.
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def with_extra(
    payload: Mapping[str, Any], extra: Mapping[str, Any], *, merged: Collection[str] = (), deep: bool = False
) -> dict[str, Any]:
    """Return a payload with the fields of a request's ``extra``, which win.

    The lists under ``tools`` are joined: vendors take their own tools, such as a web search, and functions in one list.
    A function that ``extra`` names again replaces the request's.

    Args:
        payload: the payload without ``extra``.
        extra: the fields.
        merged: keys whose objects are merged, and not replaced.
        deep: merge all objects, at any depth.
    """
    found = dict(payload)
    for key, value in extra.items():
        known = found.get(key)
        if key == "tools" and known:
            value = join_tools(known, value)
        elif (deep or key in merged) and isinstance(known, Mapping) and isinstance(value, Mapping):
            value = with_extra(known, value, deep=True) if deep else {**known, **value}
        found[key] = value
    return found


def join_tools(known: Any, further: Any) -> Any:
    """Return one list of two lists of tools; a function that the second one names again replaces the first's.

    A single tool that stands without a list counts as a list. Anything else replaces what is known.
    """
    known = [known] if isinstance(known, Mapping) else known
    further = [further] if isinstance(further, Mapping) else further
    if not isinstance(known, list | tuple) or not isinstance(further, list | tuple):
        return further
    again = {_tool_name(tool) for tool in further} - {None}
    return [*(tool for tool in known if _tool_name(tool) not in again), *further]


def _tool_name(tool: Any) -> str | None:
    """Return the name of a tool in a payload: beside its type, or inside the object of a function."""
    if not isinstance(tool, Mapping):
        return None
    inner = tool.get("function")
    name = tool.get("name") or (inner.get("name") if isinstance(inner, Mapping) else None)
    return name if isinstance(name, str) else None


def kind(value: object) -> str:
    """Return a JSON value's type as a phrase for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def malformed(path: str, expected: str, value: object) -> MalformedReply:
    """Build the error for a value of the wrong type."""
    return MalformedReply(f"{path}: expected {expected}, got {kind(value)}", path=path)


def need_object(value: Any, path: str) -> dict[str, Any]:
    """Return an object, or raise ``MalformedReply`` with its path."""
    if not isinstance(value, dict):
        raise malformed(path, "an object", value)
    return value


def need_list(value: Any, path: str) -> list[Any]:
    """Return a list, or raise ``MalformedReply`` with its path."""
    if not isinstance(value, list):
        raise malformed(path, "a list", value)
    return value


def get_object(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key; an empty object for a missing key or another type."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def pick_non_empty(source: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the given keys of a mapping, without those that are missing, null or empty."""
    return {key: source[key] for key in keys if source.get(key) not in (None, "", [], {})}


def text_or_none(value: Any) -> str | None:
    """Return a non-empty string; None for anything else."""
    return value if isinstance(value, str) and value else None


def get_text(parent: Mapping[str, Any], key: str, path: str) -> str | None:
    """Return the string under a key, or None for null or a missing key; raise ``MalformedReply`` for another type."""
    value = parent.get(key)
    if value is None or isinstance(value, str):
        return value
    raise malformed(f"{path}.{key}", "a string", value)


def amount(value: Any) -> float | None:
    """Return an amount of money of 0 or more; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_AMOUNT:
        return None
    return float(value)
