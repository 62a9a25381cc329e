"""What a vendor says that does what it is asked: JSON for a schema, a call for a tool that must be called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_council.models import GenerateRequest, GenerateResponse, ToolCall

__all__ = ["obliging", "smallest"]

_MOST = 32  # levels of a schema


def obliging(request: GenerateRequest) -> GenerateResponse:
    """Answer as asked: by calling a tool that must be called, in the schema, else with a plain text."""
    named = next((tool for tool in request.tools if request.tool_choice in (tool.name, "required")), None)
    if named is not None:
        arguments = smallest(named.parameters)
        return GenerateResponse(tool_calls=[ToolCall(id="call_1", name=named.name, arguments=json.dumps(arguments))])
    if request.structured_output is not None:
        return GenerateResponse(text=json.dumps(smallest(request.structured_output.json_schema)))
    return GenerateResponse(text="It is so.")


def smallest(schema: Any, *, depth: int = 0) -> Any:
    """Return a small value that a plain JSON Schema allows; references and conditions are not followed."""
    if not isinstance(schema, Mapping) or depth > _MOST:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return smallest(schema[word][0], depth=depth + 1)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: smallest(properties.get(name), depth=depth + 1) for name in schema.get("required", ())}
        case "array":
            return [smallest(schema.get("items", {}), depth=depth + 1)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "It is so.".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
