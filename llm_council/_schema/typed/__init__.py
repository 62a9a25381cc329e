"""Answers as values of Python types: make the JSON Schema of a type, and convert its values from JSON and to JSON.

``output_type_of`` returns an ``OutputType``, which a run works with. ``describe`` makes the schema, and
``TypeConverter`` reads and writes values. Both use ``fields`` (the fields of a class), ``unions`` (how the classes of a
union are told apart) and ``foreign`` (classes of pydantic and msgspec).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs

from llm_council._schema.typed.convert import Refused, TypeConverter
from llm_council._schema.typed.describe import describe
from llm_council._schema.typed.fields import is_hashable, name_of, unwrap
from llm_council.errors import InvalidOption
from llm_council.models.deliberation import Problem

__all__ = ["OutputType", "output_type_of"]


@attrs.frozen(kw_only=True, eq=False)
class OutputType:
    """The type of an answer.

    Attributes:
        kind: the type.
        name: its name for people.
        schema: the JSON Schema of its values; None for ``str``, whose values are prose.
        notes: warnings about the schema for the caller, a sentence each.
    """

    kind: Any
    name: str
    schema: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    _converter: TypeConverter = attrs.field(repr=False, alias="converter")

    def read(self, value: Any) -> Any:
        """Return the instance that a JSON value describes. The value must be valid by the schema.

        Raises:
            InvalidOption: the value is not one of the type, or a constructor does not take it.
        """
        try:
            return self._converter.read(value, self.kind)
        except Refused as refused:
            path, message = refused.problems[0]
            raise InvalidOption(f"output_type: this answer is no {self.name}: ${path}: {message}") from refused

    def problems(self, value: Any) -> tuple[Problem, ...]:
        """Return why a JSON value is not of the type, with paths such as ``$.issues[0]``; empty if it is."""
        try:
            self._converter.read(value, self.kind)
        except Refused as refused:
            return tuple(Problem(path=f"${path}", message=message) for path, message in refused.problems)
        return ()

    def write(self, instance: Any) -> Any:
        """Return the JSON value of an instance."""
        return self._converter.write(instance, self.kind)


def output_type_of(kind: Any) -> OutputType:
    """Return the schema and the converter of a type.

    Args:
        kind: the type, such as a class, ``list[Report]`` or ``A | B``.

    Raises:
        InvalidOption: this is no type, or JSON Schema cannot describe a part of it; the message names the field.
    """
    return _made(kind) if is_hashable(kind) else _made.__wrapped__(kind)


@lru_cache(maxsize=64)
def _made(kind: Any) -> OutputType:
    if isinstance(kind, dict):
        raise InvalidOption("output_type: expected a type, got a dict: pass a JSON Schema as schema=")
    if isinstance(kind, list):
        raise InvalidOption("output_type: expected a type, got a list: write list[int] for a list of numbers")
    converter = TypeConverter()
    try:
        described = describe(kind, converter.write_default)
    except RecursionError:
        raise InvalidOption(f"output_type: {name_of(kind)} cannot be described: it is nested too deeply") from None
    # Free text needs no JSON around it.
    is_prose = unwrap(kind)[0] is str and set(described.schema) <= {"type", "description"}
    notes = tuple(f"{place} may be any JSON value: its type is not checked" for place in described.open_fields)
    return OutputType(
        kind=kind,
        name=name_of(kind),
        schema=None if is_prose else described.schema,
        notes=notes,
        converter=converter,
    )
