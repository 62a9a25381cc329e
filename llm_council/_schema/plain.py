"""Schemas as plain, bounded JSON, and the way paths are written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llm_council.errors import InvalidOption

__all__ = ["MAX_DEPTH", "MAX_NODES", "WRAPPER", "json_path", "plain_schema"]

MAX_DEPTH = 64
"""Levels of nesting in a schema."""

MAX_NODES = 20_000
"""Values in a schema."""

_SCALARS = (str, bool, int, float)
_OBJECTS = (dict, Mapping)

WRAPPER = "value"
"""The one key around an answer that is not an object, where a dialect wants an object at the root."""


def plain_schema(schema: object) -> dict[str, Any]:
    """Copy a schema into dicts and lists of its own.

    Raises:
        InvalidOption: it holds what JSON cannot say, or is out of bounds; names the path.
    """
    nodes = 0
    path: list[str | int] = []

    def copy(value: object) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES:
            raise InvalidOption(f"the schema has more than {MAX_NODES} values")
        if len(path) > MAX_DEPTH:
            raise InvalidOption(f"the schema is nested deeper than {MAX_DEPTH} levels, at {json_path(path[:4])}...")
        if value is None or isinstance(value, _SCALARS):
            return value
        if isinstance(value, _OBJECTS):
            for key in value:
                if not isinstance(key, str):
                    raise InvalidOption(f"not a JSON Schema: {json_path(path)}: the key {key!r:.80} is not text")
            return {key: under(key, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [under(index, item) for index, item in enumerate(value)]
        raise InvalidOption(f"not a JSON Schema: {json_path(path)}: a {type(value).__name__} is not a JSON value")

    def under(part: str | int, item: object) -> Any:
        path.append(part)
        copied = copy(item)
        path.pop()
        return copied

    if not isinstance(schema, Mapping):
        raise InvalidOption(f"not a JSON Schema: expected a mapping, got {schema!r:.80}")
    plain: dict[str, Any] = copy(schema)
    return plain


def json_path(parts: Iterable[str | int]) -> str:
    """Write a path the way people read it: ``$.issues[0].severity``."""
    path = "$"
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if part.isidentifier() else f"[{json.dumps(part, ensure_ascii=False)}]"
    return path
