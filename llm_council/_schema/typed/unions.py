"""Unions: find out whether the classes of a union need a further property, the tag, that tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from llm_council._schema.typed.fields import fields_of, has_fields, unwrap
from llm_council._schema.typed.foreign import foreign_class

__all__ = ["is_class", "is_union", "tag_of"]

_TAGS = ("type", "kind", "class", "type_name", "kind_name", "class_name")


@attrs.frozen(kw_only=True)
class _Outline:
    """The properties of a class.

    Attributes:
        values: the values that each property may have; None for any.
        required: the properties that every value has.
        is_closed: True if a value has no other properties.
    """

    values: Mapping[str, Sequence[Any] | None]
    required: frozenset[str]
    is_closed: bool


def is_union(kind: Any) -> bool:
    """Return True for ``A | B`` and ``Union[A, B]``."""
    return get_origin(kind) in (Union, UnionType)


def is_class(kind: Any) -> bool:
    """Return True for a class that becomes an object with named properties."""
    bare, _ = unwrap(kind)
    return has_fields(bare) or foreign_class(bare) is not None


def tag_of(members: Sequence[Any]) -> str | None:
    """Return the name of the tag, the property that tells the classes of a union apart; None if they need none.

    They need none if no value can belong to two of them.
    """
    outlines = [_outline(member) for member in members if is_class(member)]
    pairs = [(one, other) for place, one in enumerate(outlines) for other in outlines[:place]]
    if all(_are_disjoint(one, other) or _are_disjoint(other, one) for one, other in pairs):
        return None
    taken = {name for outline in outlines for name in outline.values}
    return next(name for name in (*_TAGS, *(f"type_{number}" for number in range(len(taken)))) if name not in taken)


def _outline(kind: Any) -> _Outline:
    bare, _ = unwrap(kind)
    foreign = foreign_class(bare)
    if foreign is None:
        fields = fields_of(bare)
        return _Outline(
            values={field.name: _values(field.kind) for field in fields},
            required=frozenset(field.name for field in fields if field.is_required),
            is_closed=True,
        )
    schema = foreign.schema()
    if "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    properties = schema.get("properties", {})
    return _Outline(
        values={
            name: part.get("enum", [part["const"]] if "const" in part else None) for name, part in properties.items()
        },
        required=frozenset(schema.get("required", ())),
        is_closed=schema.get("additionalProperties") is False,
    )


def _values(kind: Any) -> Sequence[Any] | None:
    """Return the JSON values of a ``Literal`` or an ``Enum``; None for another type."""
    bare, _ = unwrap(kind)
    if get_origin(bare) is Literal:
        return [value.value if isinstance(value, Enum) else value for value in get_args(bare)]
    if isinstance(bare, type) and issubclass(bare, Enum):
        return [member.value for member in bare]
    return None


def _are_disjoint(one: _Outline, other: _Outline) -> bool:
    """Return True if every value of one has a property that no value of the other has."""
    for name in one.required:
        if name not in other.values:
            if other.is_closed:
                return True
            continue
        values, others = one.values[name], other.values[name]
        if values is not None and others is not None and not any(value in others for value in values):
            return True
    return False
