"""Make the JSON Schema of a Python type.

No library describes all of attrs classes, dataclasses, TypedDicts, NamedTuples and unions of them: msgspec has no
unions of classes, pydantic and apischema no attrs classes, cattrs no schemas. A class becomes an object that takes no
further properties, and is defined in ``$defs``. The schema of the root class is at the top level, where strategies look
for properties that they can count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

import attrs

from llm_council._schema.typed.annotations import annotated
from llm_council._schema.typed.fields import (
    ABSENT,
    Field,
    bare,
    docstring,
    fields_of,
    has_fields,
    is_alias,
    is_hashable,
    name_of,
    origin_of,
    unwrap,
    value_of_alias,
)
from llm_council._schema.typed.foreign import Foreign, apart, foreign_class
from llm_council._schema.typed.scalars import TEXTS
from llm_council._schema.typed.unions import is_class, is_union, tag_of
from llm_council.errors import CouncilError, InvalidOption

__all__ = ["LISTS", "MAPPINGS", "SETS", "Described", "Schema", "describe"]

Schema = dict[str, Any]

LISTS: Final = (list, Sequence, MutableSequence)
SETS: Final = (set, frozenset, AbstractSet, MutableSet)
MAPPINGS: Final = (dict, Mapping, MutableMapping)

_MOST_NAME: Final = 60  # characters of the name of a definition
_PRIMITIVES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", NoneType: "null"}


@attrs.frozen(kw_only=True)
class Described:
    """The schema of a type.

    Attributes:
        schema: the schema, complete with its ``$defs``.
        open_fields: the parts that may be any JSON value, such as ``"Report.extra"``.
    """

    schema: Schema
    open_fields: tuple[str, ...]


def describe(kind: Any, default: Callable[[Any, Any], Any]) -> Described:
    """Return the JSON Schema of a type.

    Args:
        kind: the type.
        default: called with a default and its type; returns its JSON value, or raises to leave it out.

    Raises:
        InvalidOption: a part cannot be described; the message names the field.
    """
    describer = _Describer(default)
    schema = describer.schema(kind, name_of(kind))
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    if reference in describer.definitions:
        schema = {**describer.definitions[reference], **{key: schema[key] for key in schema if key != "$ref"}}
        if describer.uses[reference] == 1:  # else a part of the class refers back to it
            del describer.definitions[reference]
    if describer.definitions:
        schema["$defs"] = describer.definitions
    return Described(schema=schema, open_fields=tuple(dict.fromkeys(describer.open_fields)))


class _Describer:
    """Describes a type and its parts, and collects the definitions of its classes."""

    def __init__(self, default: Callable[[Any, Any], Any]) -> None:
        self.definitions: dict[str, Schema] = {}
        self.open_fields: list[str] = []
        self.uses: Counter[str] = Counter()
        self._default = default
        self._names: list[tuple[Any, str]] = []

    def schema(self, kind: Any, where: str) -> Schema:
        """Return the schema of a type; ``where`` names its place, such as ``Report.issues``."""
        kind, notes = unwrap(kind)
        return annotated(self._bare(kind, where), notes)

    def _bare(self, kind: Any, where: str) -> Schema:
        origin, arguments = origin_of(kind), get_args(kind)
        if kind is Any or kind is object:
            self.open_fields.append(where)
            return {"description": "any JSON value"}
        if origin is Literal:
            return self._literal(arguments, where)
        if is_union(kind):
            return self._union(arguments, where)
        if origin in (*LISTS, *SETS, tuple, *MAPPINGS):
            return self._container(origin, arguments, where)
        if not is_hashable(kind):
            if get_origin(kind) is None:  # an instance
                raise _indescribable(kind, where)
            kind = bare(kind)  # a generic class of an annotated type
        if kind in TEXTS:
            return dict(TEXTS[kind].schema)
        if kind in _PRIMITIVES or kind is None:
            return {"type": _PRIMITIVES[kind or NoneType]}
        return self._named(kind, where)

    def _named(self, kind: Any, where: str) -> Schema:
        """Return the schema of a class or an alias, either of which may contain itself."""
        if is_alias(kind):
            return self._defined(kind, lambda: self.schema(value_of_alias(kind), where))
        foreign = foreign_class(kind)
        if foreign is not None:
            return self._defined(kind, lambda: self._foreign(foreign, where))
        if has_fields(kind):
            return self._defined(kind, lambda: self._object(kind))
        if isinstance(kind, type) and issubclass(kind, Enum):
            return self._enum(kind, where)
        raise _indescribable(kind, where)

    def _defined(self, kind: Any, make: Callable[[], Schema], name: str = "") -> Schema:
        """Return a reference to the definition of a type, and make the definition if there is none."""
        found = [name for known, name in self._names if known is kind or known == kind]
        if not found:
            # Some vendors and validators refuse other characters in a reference.
            stem = name = re.sub(r"[^A-Za-z0-9]+", "_", name or name_of(kind)).strip("_")[:_MOST_NAME] or "Type"
            number = 1
            while name in self.definitions:
                number += 1
                name = f"{stem}_{number}"
            found = [name]
            self._names.append((kind, name))
            self.definitions[name] = {}  # taken, while its parts are described
            self.definitions[name] = make()
        self.uses[found[0]] += 1
        return {"$ref": f"#/$defs/{found[0]}"}

    def _foreign(self, foreign: Foreign, where: str) -> Schema:
        """Return the schema that another package makes; its definitions join the others."""
        try:
            schema, definitions = apart(foreign.schema(), self.definitions)
        except Exception as error:
            reason = " ".join(str(error).split())  # pydantic writes several lines
            raise InvalidOption(f"output_type: {where} cannot be described: {reason}") from error
        self.definitions |= definitions
        return schema

    def _object(self, kind: Any) -> Schema:
        cls = origin_of(kind)
        properties: Schema = {}
        required: list[str] = []
        for field in fields_of(kind):
            properties[field.name] = self._property(field, f"{cls.__name__}.{field.attribute}")
            if field.is_required:
                required.append(field.name)
        words = docstring(cls)
        return {
            "type": "object",
            "title": name_of(kind),
            **({"description": words} if words else {}),
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    def _property(self, field: Field, where: str) -> Schema:
        schema = self.schema(field.kind, where)
        if field.description:
            schema["description"] = field.description
        if field.default is not ABSENT:
            try:
                schema["default"] = self._default(field.default, field.kind)
            except Exception:  # noqa: BLE001 - a default that is no instance of its type; the field stays optional
                schema.pop("default", None)
        return schema

    def _container(self, origin: Any, arguments: Sequence[Any], where: str) -> Schema:
        if origin in MAPPINGS:
            key, item = arguments or (str, Any)
            if unwrap(key)[0] is not str:
                raise InvalidOption(f"output_type: {where} has keys of the type {name_of(key)}: keys in JSON are str")
            return {"type": "object", "additionalProperties": self.schema(item, where)}
        unhashable = unhashable_part(arguments[0]) if arguments and origin in SETS else None
        if unhashable is not None:
            raise InvalidOption(
                f"output_type: {where} holds a set of {name_of(unhashable)}, which is not hashable: use a list, or a"
                " frozen class"
            )
        if origin is not tuple or not arguments or arguments[-1] is Ellipsis:
            schema: Schema = {"type": "array", "items": self.schema(arguments[0] if arguments else Any, where)}
            return {**schema, "uniqueItems": True} if origin in SETS else schema
        count = 0 if arguments == ((),) else len(arguments)
        items = [self.schema(item, where) for item in arguments[:count]]
        size = {"minItems": count, "maxItems": count}
        # Vendors take one schema for all items; few take a list of them.
        if items and all(item == items[0] for item in items):
            return {"type": "array", "items": items[0], **size}
        return {"type": "array", "prefixItems": items, "items": False, **size} if items else {"type": "array", **size}

    def _enum(self, kind: type[Enum], where: str) -> Schema:
        members = list(kind)
        if not members:
            raise InvalidOption(f"output_type: {where} is an Enum without members")
        words = [docstring(kind)]
        if any(not isinstance(member.value, str) for member in members):  # a number says little by itself
            words.append(", ".join(f"{member.value!r}: {member.name}" for member in members))
        text = "\n".join(filter(None, words))
        return {**self._literal(members, where), **({"description": text} if text else {})}

    def _literal(self, values: Sequence[Any], where: str) -> Schema:
        if not values:
            raise InvalidOption(f"output_type: {where} is a Literal without values: write Literal['a', 'b']")
        plain = [value.value if isinstance(value, Enum) else value for value in values]
        for value in plain:
            if type(value) not in _PRIMITIVES and not isinstance(value, str | int | float):
                raise InvalidOption(f"output_type: {where} has the value {value!r:.80}, which is no text or number")
        types = list(dict.fromkeys(_type_name(value) for value in plain))
        return {"type": types[0] if len(types) == 1 else types, "enum": plain}

    def _union(self, members: Sequence[Any], where: str) -> Schema:
        tag = tag_of(members)
        return {"anyOf": [self._member(member, where, tag if is_class(member) else None) for member in members]}

    def _member(self, kind: Any, where: str, tag: str | None) -> Schema:
        """Return the schema of a member of a union; a tag is a further property that holds the name of its class."""
        if tag is None:
            return self.schema(kind, where)
        kind, notes = unwrap(kind)
        name = name_of(kind)

        def make() -> Schema:
            foreign = foreign_class(kind)
            body = self._object(kind) if foreign is None else self._foreign(foreign, where)
            properties = {tag: {"type": "string", "enum": [name]}, **body.get("properties", {})}
            return {**body, "properties": properties, "required": [tag, *body.get("required", ())]}

        return annotated(self._defined((kind, tag), make, f"{name}_with_{tag}"), notes)


def unhashable_part(kind: Any) -> Any:
    """Return the part of a type whose values cannot be items of a set; None if there is none, or it is not known."""
    kind, _ = unwrap(kind)
    origin, arguments = origin_of(kind), get_args(kind)
    if is_union(kind) or origin is tuple:
        parts = (unhashable_part(one) for one in arguments)
        return next((part for part in parts if part is not None), None)
    if origin in (*LISTS, *MAPPINGS) or (origin in SETS and origin is not frozenset):
        return kind
    # A class of msgspec has a method that raises.
    config = getattr(origin, "__struct_config__", None)
    can_be_hashed = getattr(origin, "__hash__", None) is not None and (config is None or config.frozen or not config.eq)
    return None if can_be_hashed else kind


def _type_name(value: Any) -> str:
    return next(name for kind, name in _PRIMITIVES.items() if isinstance(value, kind))


def _indescribable(kind: Any, where: str) -> CouncilError:
    reason = "the name cannot be found" if isinstance(kind, str) else f"{name_of(kind)} has no form in JSON"
    return InvalidOption(
        f"output_type: {where} cannot be described: {reason}; use an attrs class, a dataclass, a TypedDict, an Enum,"
        " str, int, float, bool, list, dict, or Any"
    )
