"""Read the metadata of ``Annotated``: a description, and limits of the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

__all__ = ["annotated"]

# The attributes of annotated_types, msgspec.Meta and pydantic.Field have the same names.
_LIMITS: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
_LENGTHS: Final = {"string": "Length", "array": "Items", "object": "Properties"}


def annotated(schema: dict[str, Any], notes: Sequence[Any]) -> dict[str, Any]:
    """Return a schema with the description and the limits that ``Annotated`` gives.

    Args:
        schema: the schema of the type.
        notes: the metadata of ``Annotated``. A string is a description; limits are read from the attributes that
            annotated_types, msgspec and pydantic use.
    """
    flat = [part for note in notes for part in (note, *(getattr(note, "metadata", None) or ()))]
    length = _LENGTHS.get(str(schema.get("type")))
    names = _LIMITS | ({"min_length": f"min{length}", "max_length": f"max{length}"} if length else {})
    found: dict[str, Any] = {}
    for note in flat:
        words = note if isinstance(note, str) else getattr(note, "description", getattr(note, "documentation", None))
        if isinstance(words, str):
            found["description"] = words
        for name, keyword in names.items():
            value = None if isinstance(note, str) else getattr(note, name, None)
            if isinstance(value, str if name == "pattern" else int | float):
                found[keyword] = value
    return {**schema, **found}
