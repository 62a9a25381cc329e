"""Project a JSON Schema to the subset that strict structured output accepts, and list what is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._schema.validate import WRAPPER, json_path, plain_schema
from llm_council._schema.validate import compile as check

__all__ = ["Projection", "project_strict"]

# Limits and keywords of strict mode: OpenAI, "Structured model outputs", section "Supported schemas", February 2026.
_MAX_LEVELS = 10
_MAX_PROPERTIES = 5000
_MAX_ENUM = 1000
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_CONSTRAINTS = {
    "string": ("pattern", "format"),
    "number": ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "integer": ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "array": ("minItems", "maxItems"),
}
# Strict mode compiles patterns to a grammar, which has no look-around and no back-references.
_UNSUPPORTED_IN_PATTERNS = ("(?=", "(?!", "(?<", "\\1", "\\2")
# Keywords that constrain nothing. They are left out without an adjustment.
_ANNOTATIONS = frozenset(
    "$schema $id $anchor $comment title default examples deprecated readOnly writeOnly definitions $defs".split()
)
_STRUCTURE = frozenset(
    "$ref type enum const description properties required additionalProperties items anyOf oneOf allOf".split()
)
_DEFINITIONS = ("$defs", "definitions")
_TYPE_NAMES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    type(None): "null",
}


@attrs.frozen(kw_only=True)
class Projection:
    """A schema for strict structured output.

    Attributes:
        schema: the schema to send.
        strict: True if strict mode accepts it; otherwise ``schema`` is the original.
        adjustments: the constraints that the vendor does not enforce, or why strict mode is off. Answers are always
            validated against the original schema.
    """

    schema: dict[str, Any]
    strict: bool
    adjustments: tuple[str, ...] = ()


class _NotStrict(Exception):
    """Strict mode cannot express the schema."""

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(f"strict mode is off: {json_path(path)}: {reason}")


def project_strict(schema: Mapping[str, Any]) -> Projection:
    """Project a schema to OpenAI's strict mode.

    Objects get ``additionalProperties: false`` and all properties become required; optional ones may be null instead.
    Unsupported keywords are left out and listed. A root that is not an object is wrapped under ``WRAPPER``.
    ``Validator.read`` undoes nulls and wrapper in the answer. A schema that strict mode cannot express, for example
    because an object may have any keys, is returned unchanged with ``strict=False``.

    Args:
        schema: any JSON Schema.

    Returns:
        The projection, which shares no data with the argument.

    Raises:
        InvalidOption: the argument is not a JSON Schema, or is too deep or too large.
    """
    plain = plain_schema(schema)
    check(plain)
    projector = _StrictProjector(plain)
    try:
        projected = projector.root()
    except _NotStrict as error:
        return Projection(schema=plain, strict=False, adjustments=(str(error),))
    return Projection(schema=projected, strict=True, adjustments=tuple(dict.fromkeys(projector.adjustments)))


class _StrictProjector:
    """Walk a schema once; collect its projection, the totals that are limited, and the adjustments."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._properties = 0
        self._enumerated = 0
        self.adjustments: list[str] = []

    def root(self) -> dict[str, Any]:
        top = self._schema
        for _hop in range(_MAX_LEVELS):
            if "$ref" not in top:
                break
            target = self._resolve(top["$ref"], ())
            if target is None or target is top:
                raise _NotStrict((), "the root refers to itself")
            top = target
        body = self._node(top, (), 0)
        definitions = {
            key: {name: self._node(item, (key, name), 0) for name, item in self._schema[key].items()}
            for key in _DEFINITIONS
            if isinstance(self._schema.get(key), dict)
        }
        if body.get("type") != "object":  # strict mode requires an object without anyOf at the root
            body = _move_root_references(body)
            definitions = _move_root_references(definitions)
            self.adjustments.append(f'$: asked for as {{"{WRAPPER}": ...}}')
            body = {
                "type": "object",
                "properties": {WRAPPER: body},
                "required": [WRAPPER],
                "additionalProperties": False,
            }
        return body | definitions

    def _node(self, node: Any, path: tuple[str | int, ...], level: int) -> dict[str, Any]:
        if not isinstance(node, dict) or not node:
            raise _NotStrict(path, "any value is allowed")
        if level > _MAX_LEVELS:
            raise _NotStrict(path, f"nested deeper than {_MAX_LEVELS} levels")
        if "$ref" in node:
            self._resolve(node["$ref"], path)
            self._note_unenforced(path, (word for word in node if word not in _ANNOTATIONS | {"$ref", "description"}))
            return {"$ref": node["$ref"]}
        if "allOf" in node:
            node = self._merge_all_of(node, path)
        choices = node.get("anyOf", node.get("oneOf"))
        if choices is not None:
            return self._choice(node, choices, path, level)
        types = _types_of(node)
        if not types:
            raise _NotStrict(path, "no type is given")
        out: dict[str, Any] = {"type": types[0] if len(types) == 1 else list(types)}
        out |= {word: node[word] for word in ("description", "enum", "const") if word in node}
        self._enumerated += len(node.get("enum", ()))
        if self._enumerated > _MAX_ENUM:
            raise _NotStrict(path, f"more than {_MAX_ENUM} enumerated values")
        out |= _constraints(node, types)
        if "object" in types:
            out |= self._object(node, path, level)
        if "array" in types:
            if not isinstance(node.get("items"), dict):
                raise _NotStrict(path, "the items of the array have no schema")
            out["items"] = self._node(node["items"], (*path, "items"), level + 1)
        self._note_unenforced(path, (word for word in node if word not in _STRUCTURE | _ANNOTATIONS | out.keys()))
        return out

    def _object(self, node: dict[str, Any], path: tuple[str | int, ...], level: int) -> dict[str, Any]:
        properties = node.get("properties", {})
        extra = node.get("additionalProperties")
        required = node.get("required", [])
        if not properties and extra is not False:
            raise _NotStrict(path, "an object of any keys")
        if missing := [name for name in required if name not in properties]:
            raise _NotStrict(path, f"the required property {missing[0]!r:.80} has no schema")
        if extra not in (None, False):
            self.adjustments.append(f"{json_path(path)}: only the named properties are asked for")
        self._properties += len(properties)
        if self._properties > _MAX_PROPERTIES:
            raise _NotStrict(path, f"more than {_MAX_PROPERTIES} properties")
        projected = {}
        for name, item in properties.items():
            child = self._node(item, (*path, "properties", name), level + 1)
            projected[name] = child if name in required else _with_null(child)
        return {"properties": projected, "required": list(projected), "additionalProperties": False}

    def _choice(
        self, node: dict[str, Any], choices: list[Any], path: tuple[str | int, ...], level: int
    ) -> dict[str, Any]:
        if "properties" in node or "items" in node:
            raise _NotStrict(path, "a choice that also has a shape of its own")
        if "anyOf" not in node:  # strict mode has no oneOf; Validator still checks that one branch alone matches
            self.adjustments.append(f"{json_path(path)}: oneOf is asked for as anyOf")
        shared = {"type": node["type"]} if "type" in node else {}
        branches = [
            self._node(shared | choice if isinstance(choice, dict) else choice, (*path, "anyOf", index), level + 1)
            for index, choice in enumerate(choices)
        ]
        self._note_unenforced(path, (word for word in node if word not in _STRUCTURE | _ANNOTATIONS))
        out: dict[str, Any] = {"anyOf": branches}
        if "description" in node:
            out["description"] = node["description"]
        return out

    def _merge_all_of(self, node: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
        """Merge an ``allOf`` with one part into its node. Several parts could contradict each other."""
        rest = {key: value for key, value in node.items() if key != "allOf"}
        if len(node["allOf"]) != 1:
            raise _NotStrict(path, "allOf")
        part = node["allOf"][0]
        if isinstance(part, dict) and "$ref" in part:
            part = self._resolve(part["$ref"], path)
        if not isinstance(part, dict) or (part.keys() & rest.keys()) - _ANNOTATIONS - {"description"}:
            raise _NotStrict(path, "allOf")
        return part | rest

    def _resolve(self, reference: object, path: tuple[str | int, ...]) -> dict[str, Any] | None:
        """Return the schema that a reference names: the root or a definition. Others could move in the projection."""
        if reference == "#":
            return self._schema
        if isinstance(reference, str):
            parts = reference.replace("~1", "/").replace("~0", "~").split("/", 2)
            if len(parts) == 3 and parts[0] == "#" and parts[1] in _DEFINITIONS:
                target = self._schema.get(parts[1], {}).get(parts[2])
                if isinstance(target, dict):
                    return target
        raise _NotStrict(path, f"the reference {reference!r:.80}")

    def _note_unenforced(self, path: tuple[str | int, ...], words: Iterable[str]) -> None:
        where = json_path(path)
        self.adjustments.extend(f"{where}: {word} is checked here, not by the vendor" for word in words)


def _constraints(node: dict[str, Any], types: Iterable[str]) -> dict[str, Any]:
    """Return the constraints of a node that strict mode enforces for its types."""
    enforced = {word: node[word] for type_ in types for word in _CONSTRAINTS.get(type_, ()) if word in node}
    if enforced.get("format", "date") not in _FORMATS:
        del enforced["format"]
    if any(part in enforced.get("pattern", "") for part in _UNSUPPORTED_IN_PATTERNS):
        del enforced["pattern"]
    return enforced


def _types_of(node: dict[str, Any]) -> tuple[str, ...]:
    """Return the types of a node; without ``type``, they follow from its other keywords."""
    named = node.get("type")
    if isinstance(named, str):
        return (named,)
    if isinstance(named, list):
        return tuple(named)
    if "properties" in node:
        return ("object",)
    if "items" in node:
        return ("array",)
    values = node["enum"] if "enum" in node else [node["const"]] if "const" in node else []
    return tuple(sorted({_TYPE_NAMES.get(type(value), "object") for value in values}))


def _with_null(node: dict[str, Any]) -> dict[str, Any]:
    """Allow null as well, which is how strict mode expresses an optional property."""
    if "anyOf" in node:
        return node if {"type": "null"} in node["anyOf"] else node | {"anyOf": [*node["anyOf"], {"type": "null"}]}
    if "$ref" in node or "const" in node:
        return {"anyOf": [node, {"type": "null"}]}
    types = [node["type"]] if isinstance(node["type"], str) else node["type"]
    if "null" not in types:
        node = node | {"type": [*types, "null"]}
    if None not in node.get("enum", [None]):  # an enum without null would still exclude it
        node = node | {"enum": [*node["enum"], None]}
    return node


def _move_root_references(node: Any) -> Any:
    """Change the references to the root, which is now a property of the wrapper."""
    if isinstance(node, dict):
        return {
            key: f"#/properties/{WRAPPER}" if key == "$ref" and value == "#" else _move_root_references(value)
            for key, value in node.items()
        }
    return [_move_root_references(item) for item in node] if isinstance(node, list) else node
