"""Projecting a JSON Schema to what a dialect's strict mode accepts; what is lost on the way is listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._schema.plain import WRAPPER, json_path, plain_schema
from llm_council._schema.validate import compile as check

__all__ = ["Projection", "strictly"]

# Limits and words of strict mode, as OpenAI documents them ("Supported schemas", February 2026).
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
_LOOKAROUND = ("(?=", "(?!", "(?<", "\\1", "\\2")
# Words that constrain nothing: left out without a word.
_NOTES = frozenset(
    "$schema $id $anchor $comment title default examples deprecated readOnly writeOnly definitions $defs".split()
)
_STRUCTURE = frozenset(
    "$ref type enum const description properties required additionalProperties items anyOf oneOf allOf".split()
)
_DEFINITIONS = ("$defs", "definitions")


@attrs.frozen(kw_only=True)
class Projection:
    """A schema as a strict dialect takes it.

    Attributes:
        schema: what to send.
        strict: whether the dialect's strict mode takes it; if not, ``schema`` is the original.
        adjustments: what the vendor does not enforce, or why it is not strict; answers are validated against the
            original in any case.
    """

    schema: dict[str, Any]
    strict: bool
    adjustments: tuple[str, ...] = ()


class _Inexpressible(Exception):
    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(f"strict mode is off: {json_path(path)}: {reason}")


def strictly(schema: Mapping[str, Any]) -> Projection:
    """Project a schema to OpenAI's strict mode.

    Objects are closed and all their properties required, those that were optional may be null; what strict mode has
    no word for is left out and listed; a root that is not an object is wrapped under ``WRAPPER``. ``Validator.read``
    undoes both in the answer. A schema that cannot be said this way, such as one with free-form objects, is returned
    as it is with ``strict=False``.

    Args:
        schema: any JSON Schema.

    Returns:
        The projection; nothing of it is shared with the argument.

    Raises:
        InvalidOption: the argument is not a JSON Schema, is too deep or too large.
    """
    plain = plain_schema(schema)
    check(plain)
    projector = _Strict(plain)
    try:
        projected = projector.root()
    except _Inexpressible as error:
        return Projection(schema=plain, strict=False, adjustments=(str(error),))
    return Projection(schema=projected, strict=True, adjustments=tuple(dict.fromkeys(projector.adjustments)))


class _Strict:
    """One projection: the walk, and what it noted on the way."""

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
            target = self._target(top["$ref"], ())
            if target is None or target is top:
                raise _Inexpressible((), "the root refers to itself")
            top = target
        body = self._node(top, (), 0)
        definitions = {
            key: {name: self._node(item, (key, name), 0) for name, item in self._schema[key].items()}
            for key in _DEFINITIONS
            if isinstance(self._schema.get(key), dict)
        }
        if body.get("type") != "object":
            body = _rerooted(body)
            definitions = _rerooted(definitions)
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
            raise _Inexpressible(path, "any value is allowed")
        if level > _MAX_LEVELS:
            raise _Inexpressible(path, f"nested deeper than {_MAX_LEVELS} levels")
        if "$ref" in node:
            self._target(node["$ref"], path)
            self._drop(path, (word for word in node if word not in _NOTES | {"$ref", "description"}))
            return {"$ref": node["$ref"]}
        if "allOf" in node:
            node = self._merged(node, path)
        choices = node.get("anyOf", node.get("oneOf"))
        if choices is not None:
            return self._choice(node, choices, path, level)
        kinds = _kinds(node)
        if not kinds:
            raise _Inexpressible(path, "no type is given")
        out: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else list(kinds)}
        out |= {word: node[word] for word in ("description", "enum", "const") if word in node}
        self._enumerated += len(node.get("enum", ()))
        if self._enumerated > _MAX_ENUM:
            raise _Inexpressible(path, f"more than {_MAX_ENUM} enumerated values")
        out |= _constraints(node, kinds)
        if "object" in kinds:
            out |= self._object(node, path, level)
        if "array" in kinds:
            if not isinstance(node.get("items"), dict):
                raise _Inexpressible(path, "the items of the array have no schema")
            out["items"] = self._node(node["items"], (*path, "items"), level + 1)
        self._drop(path, (word for word in node if word not in _STRUCTURE | _NOTES | out.keys()))
        return out

    def _object(self, node: dict[str, Any], path: tuple[str | int, ...], level: int) -> dict[str, Any]:
        properties = node.get("properties", {})
        extra = node.get("additionalProperties")
        required = node.get("required", [])
        if not properties and extra is not False:
            raise _Inexpressible(path, "an object of any keys")
        if missing := [name for name in required if name not in properties]:
            raise _Inexpressible(path, f"the required property {missing[0]!r:.80} has no schema")
        if extra not in (None, False):
            self.adjustments.append(f"{json_path(path)}: only the named properties are asked for")
        self._properties += len(properties)
        if self._properties > _MAX_PROPERTIES:
            raise _Inexpressible(path, f"more than {_MAX_PROPERTIES} properties")
        projected = {}
        for name, item in properties.items():
            child = self._node(item, (*path, "properties", name), level + 1)
            projected[name] = child if name in required else _nullable(child)
        return {"properties": projected, "required": list(projected), "additionalProperties": False}

    def _choice(
        self, node: dict[str, Any], choices: list[Any], path: tuple[str | int, ...], level: int
    ) -> dict[str, Any]:
        if "properties" in node or "items" in node:
            raise _Inexpressible(path, "a choice that also has a shape of its own")
        if "anyOf" not in node:
            self.adjustments.append(f"{json_path(path)}: oneOf is asked for as anyOf")
        shared = {"type": node["type"]} if "type" in node else {}
        branches = [
            self._node(shared | choice if isinstance(choice, dict) else choice, (*path, "anyOf", index), level + 1)
            for index, choice in enumerate(choices)
        ]
        self._drop(path, (word for word in node if word not in _STRUCTURE | _NOTES))
        out: dict[str, Any] = {"anyOf": branches}
        if "description" in node:
            out["description"] = node["description"]
        return out

    def _merged(self, node: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
        """Fold an ``allOf`` with one part into its node; more parts can contradict each other."""
        rest = {key: value for key, value in node.items() if key != "allOf"}
        if len(node["allOf"]) != 1:
            raise _Inexpressible(path, "allOf")
        part = node["allOf"][0]
        if isinstance(part, dict) and "$ref" in part:
            part = self._target(part["$ref"], path)
        if not isinstance(part, dict) or (part.keys() & rest.keys()) - _NOTES - {"description"}:
            raise _Inexpressible(path, "allOf")
        return part | rest

    def _target(self, reference: object, path: tuple[str | int, ...]) -> dict[str, Any] | None:
        """Return what a reference names: the root, or an entry of its definitions; nothing else keeps its place."""
        if reference == "#":
            return self._schema
        if isinstance(reference, str):
            parts = reference.replace("~1", "/").replace("~0", "~").split("/", 2)
            if len(parts) == 3 and parts[0] == "#" and parts[1] in _DEFINITIONS:
                target = self._schema.get(parts[1], {}).get(parts[2])
                if isinstance(target, dict):
                    return target
        raise _Inexpressible(path, f"the reference {reference!r:.80}")

    def _drop(self, path: tuple[str | int, ...], words: Iterable[str]) -> None:
        where = json_path(path)
        self.adjustments.extend(f"{where}: {word} is checked here, not by the vendor" for word in words)


def _constraints(node: dict[str, Any], kinds: Iterable[str]) -> dict[str, Any]:
    """Return the constraints of a node that strict mode enforces for its types."""
    taken = {word: node[word] for kind in kinds for word in _CONSTRAINTS.get(kind, ()) if word in node}
    if taken.get("format", "date") not in _FORMATS:
        del taken["format"]
    if any(sign in taken.get("pattern", "") for sign in _LOOKAROUND):
        del taken["pattern"]
    return taken


def _kinds(node: dict[str, Any]) -> tuple[str, ...]:
    """Return the types of a node, read from its other words where it names none."""
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
    return tuple(sorted({_kind(value) for value in values}))


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return kinds.get(type(value), "object")


def _nullable(node: dict[str, Any]) -> dict[str, Any]:
    """Let a value be null too: that is how strict mode says that a property may be left out."""
    if "anyOf" in node:
        return node if {"type": "null"} in node["anyOf"] else node | {"anyOf": [*node["anyOf"], {"type": "null"}]}
    if "$ref" in node or "const" in node:
        return {"anyOf": [node, {"type": "null"}]}
    kinds = [node["type"]] if isinstance(node["type"], str) else node["type"]
    out = node if "null" in kinds else node | {"type": [*kinds, "null"]}
    return out | {"enum": [*out["enum"], None]} if None not in out.get("enum", [None]) else out


def _rerooted(node: Any) -> Any:
    """Point references to the root at the place where the root now stands."""
    if isinstance(node, dict):
        return {
            key: f"#/properties/{WRAPPER}" if key == "$ref" and value == "#" else _rerooted(value)
            for key, value in node.items()
        }
    return [_rerooted(item) for item in node] if isinstance(node, list) else node
